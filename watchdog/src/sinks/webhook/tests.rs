//! Servers as they come: that hang, refuse, fail, dawdle, talk nonsense, or are away for a while.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use watchdog_model::leases::note::Stage;

use super::*;
use crate::config::Url;
use crate::sinks::alerts::message::test;

const LONG: Duration = Duration::from_secs(60);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn message(lease: &str) -> Queued {
    let at = std::time::SystemTime::UNIX_EPOCH;
    (clock(), Arc::new(test(at, "node", lease, Stage::AtRisk)))
}

fn config(url: &str, timeout: Duration) -> Webhook {
    Webhook {
        url: Url::parse(url).unwrap(),
        headers: vec![("x-token".parse().unwrap(), "secret".parse().unwrap())],
        timeout_ns: u64::try_from(timeout.as_nanos()).unwrap(),
    }
}

/// Reads a request to the end of its body.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await.unwrap();
        text.extend_from_slice(&buffer[..length]);
        let so_far = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return so_far;
            }
        }
        assert_ne!(length, 0, "the request broke off: {so_far}");
    }
}

/// What a server does with its connections, one after the other.
#[derive(Clone, Copy)]
enum Does {
    Say(&'static str),
    Hang,
    /// Says its answer a byte at a time, for longer than the limit.
    Dawdle,
    Close,
}

/// Tells two messages to a server that does all this and then answers well.
async fn tell(all: &'static [Does], limit: Duration) -> (Vec<String>, Tally) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/path?x=1", listener.local_addr().unwrap());
    let tally = Tally::of_a_test();
    let hook = Hook::new(&config(&url, limit), "hook".to_owned(), tally.clone());
    let (sender, messages) = mpsc::channel(16);
    sender.try_send(message("a")).unwrap();
    sender.try_send(message("b")).unwrap();
    drop(sender);
    let server = tokio::spawn(async move {
        let mut got = Vec::new();
        let mut held = Vec::new();
        let mut does = all.iter();
        while got.len() < 2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let next = does.next().copied().unwrap_or(Does::Say(OK));
            match next {
                Does::Close => continue,
                Does::Hang => {
                    held.push(stream);
                    continue;
                }
                _ => {}
            }
            let text = request(&mut stream).await;
            match next {
                Does::Say(answer) => {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if answer == OK || answer.contains("404") {
                        got.push(text);
                    }
                }
                Does::Dawdle => {
                    for byte in OK.as_bytes() {
                        if stream.write_all(&[*byte]).await.is_err() {
                            break;
                        }
                        tokio::time::sleep(limit / 4).await;
                    }
                }
                Does::Close | Does::Hang => {}
            }
        }
        got
    });
    timeout(LONG, run(hook, messages)).await.expect("told");
    (timeout(LONG, server).await.unwrap().unwrap(), tally)
}

#[tokio::test]
async fn each_alert_is_one_post_of_one_object_in_order() {
    let (got, tally) = tell(&[], Duration::from_secs(10)).await;
    for (text, lease) in got.iter().zip(["a", "b"]) {
        assert!(text.starts_with("POST /path?x=1 HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("x-token: secret\r\n"), "{text}");
        assert!(
            text.contains("content-type: application/json\r\n"),
            "{text}"
        );
        let body: serde_json::Value =
            serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["lease"], lease);
        assert_eq!(body["event"], "alert");
    }
    assert_eq!((tally.sent.get(), tally.retries.get()), (2, 0));
}

#[tokio::test]
async fn what_fails_is_tried_again_and_nothing_is_lost() {
    let (got, tally) = tell(
        &[
            Does::Say("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"),
            Does::Close,
            Does::Say("what?\r\n\r\n"),
        ],
        Duration::from_secs(10),
    )
    .await;
    assert_eq!(got.len(), 2);
    assert_eq!((tally.sent.get(), tally.lost.get()), (2, 0));
    assert_eq!(tally.retries.get(), 3);
}

#[tokio::test]
async fn a_server_that_hangs_or_dawdles_is_left_after_the_limit() {
    let (got, tally) = tell(&[Does::Hang, Does::Dawdle], Duration::from_millis(500)).await;
    assert_eq!(got.len(), 2);
    assert_eq!((tally.sent.get(), tally.lost.get()), (2, 0));
    assert!(tally.retries.get() >= 2);
}

#[tokio::test]
async fn what_a_server_calls_our_mistake_is_not_tried_again() {
    let (got, tally) = tell(
        &[Does::Say(
            "HTTP/1.1 404 No\r\ncontent-length: 4\r\n\r\nnope",
        )],
        Duration::from_secs(10),
    )
    .await;
    assert_eq!(got.len(), 2);
    assert_eq!((tally.sent.get(), tally.failed.get()), (1, 1));
    assert_eq!(tally.retries.get(), 0);
}

#[tokio::test]
async fn a_test_says_what_came_back() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (_, message) = message("a");
    let config = config(&format!("http://{refused}/"), Duration::from_secs(5));
    let why = once(&config, &message).await.unwrap_err();
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn names_are_looked_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_, message) = message("a");
    let config = config(
        &format!("http://localhost:{port}/"),
        Duration::from_secs(10),
    );
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(once(&config, &message), server);
    assert_eq!(answer.unwrap(), "answered 200 OK");
}
