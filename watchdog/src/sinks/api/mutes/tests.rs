use super::*;
use crate::sinks::api::tests::{question, sources, text};
use watchdog_model::time::SECOND;

/// Asks, while a keeper answers that this is in force; gives status, answer and the wish.
async fn ask(
    method: Method,
    path: &str,
    peer: Peer,
    outcome: Outcome,
) -> (u16, String, Option<Wish>) {
    let (mut sources, _publisher) = sources(9 * SECOND);
    let (desk, mut wishes) = Desk::new();
    sources.desk = desk;
    let mut asked = question(path);
    asked.method = method;
    asked.peer = peer;
    let keeper = tokio::spawn(async move {
        let (wish, reply) = wishes.recv().await?;
        reply.send(outcome).ok()?;
        Some(wish)
    });
    let reply = super::super::answer(&asked, &sources).await;
    drop((asked, sources));
    let (status, said) = text(reply).await;
    (status, said, keeper.await.unwrap())
}

fn local(uid: u32) -> Peer {
    Peer::Local { pid: Some(1), uid }
}

fn in_force() -> Outcome {
    Outcome::InForce(vec![("zookeeper".to_owned(), Mono(70 * SECOND))])
}

#[tokio::test]
async fn root_may_mute_and_unmute_and_everyone_may_look() {
    let path = "/api/v1/mutes?lease=zookeeper&for_ms=60000";
    let (status, said, wish) = ask(Method::POST, path, local(0), in_force()).await;
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("\"lease\":\"zookeeper\"") && said.contains("\"remaining_ms\":60000"));
    let lease = "zookeeper".to_owned();
    assert_eq!(
        wish,
        Some(Wish::Mute {
            lease: lease.clone(),
            for_ns: 60 * SECOND
        })
    );
    let path = "/api/v1/mutes?lease=zookeeper";
    let (status, _, wish) = ask(Method::DELETE, path, local(0), Outcome::NotMuted).await;
    assert_eq!((status, wish), (404, Some(Wish::Unmute { lease })));
    let network = Peer::Network("10.0.0.1:1".parse().unwrap());
    let (status, _, wish) = ask(Method::GET, "/api/v1/mutes", network, in_force()).await;
    assert_eq!((status, wish), (200, Some(Wish::List)));
}

#[tokio::test]
async fn others_may_not_and_mistakes_are_named() {
    let path = "/api/v1/mutes?lease=zookeeper&for_ms=60000";
    let network = Peer::Network("127.0.0.1:1".parse().unwrap());
    for (peer, word) in [(network, "Unix socket"), (local(4711), "root")] {
        let (status, said, wish) = ask(Method::POST, path, peer, in_force()).await;
        assert_eq!((status, wish), (403, None));
        assert!(said.contains(word), "{said}");
    }
    for (path, word) in [
        ("/api/v1/mutes?lease=zookeeper", "for_ms"),
        ("/api/v1/mutes?for_ms=1", "lease"),
        ("/api/v1/mutes?lease=a&for_ms=999999999999", "for_ms"),
        ("/api/v1/mutes?lease=a&for_ms=1&why=b", "why"),
    ] {
        let (status, said, wish) = ask(Method::POST, path, local(0), in_force()).await;
        assert_eq!((status, wish), (400, None), "{path}");
        assert!(said.contains(word), "{said}");
    }
    let none = Outcome::NoSuchLease(vec!["a".to_owned()]);
    let (status, said, _) = ask(Method::POST, path, local(0), none).await;
    assert_eq!(status, 404);
    assert!(said.contains("there are: a"), "{said}");
}
