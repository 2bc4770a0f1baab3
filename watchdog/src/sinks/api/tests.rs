mod openapi;

use super::*;
use crate::live::{self, Publisher, Sheet, tests::view};
use crate::sinks::incidents::IncidentId;
use crate::sinks::samples::{Sample, gone};
use http_body_util::BodyExt as _;
use serde_json::Value;
use watchdog_model::leases::note::{GoneReason, Outcome, Stage};
use watchdog_model::time::SECOND;

/// At ten seconds, with a tick that last ran at this moment.
pub fn sources(last_tick: u64) -> (Sources, Publisher) {
    // No tick runs here: what was published is the newest there is.
    let (publisher, board) = live::board(std::time::Duration::ZERO);
    let sources = Sources {
        metrics: Arc::new(Metrics::new(&["zookeeper".to_owned()]).unwrap()),
        last_tick: Arc::new(AtomicU64::new(last_tick)),
        clock: || Mono(10 * SECOND),
        board,
        ledger: Ledger::default(),
        token: None,
        started: Arc::default(),
        started_at: Mono(SECOND),
        streams: Arc::new(Semaphore::new(1)),
        desk: mutes::Desk::new().0,
    };
    sources.ledger.set_entries(&["zookeeper".to_owned()]);
    (sources, publisher)
}

pub fn question(path: &str) -> Asked {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Asked {
        method: Method::GET,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: hyper::HeaderMap::new(),
        peer: Peer::Network("127.0.0.1:1".parse().unwrap()),
        body: None,
        lasting: Arc::new(()),
    }
}

pub async fn text(reply: Reply) -> (u16, String) {
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(path: &str, sources: &Sources) -> (u16, String) {
    text(answer(&question(path), sources).await).await
}

async fn get_json(path: &str, sources: &Sources) -> Value {
    let (status, text) = get(path, sources).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn publish(publisher: &Publisher, handles: impl IntoIterator<Item = u64>) {
    let mut sheet = Sheet::with_room(64);
    for handle in handles {
        // The higher the handle, the longer ago it was renewed.
        sheet.push(&view(handle, Mono(9 * SECOND - handle * 1_000_000)));
    }
    publisher.publish(sheet, Mono(9 * SECOND));
}

fn say(sources: &Sources, at: Mono, note: &watchdog_model::leases::note::Note) {
    let line: Arc<str> = Arc::from("{\"event\":\"transition\"}\n");
    sources.ledger.note(at, note, &line, Some(IncidentId(3)));
    sources.ledger.event(at, &line);
}

#[tokio::test]
async fn health_is_the_ticks() {
    let fresh = 9 * SECOND;
    let at = |path, last| async move { get(path, &sources(last).0).await };
    assert_eq!(
        at("/healthz", fresh).await,
        (200, "ok, the tick ran 1.000 s ago\n".into())
    );
    assert_eq!(
        at("/healthz", fresh - 1_000_000).await,
        (
            503,
            "the tick last ran 1.001 s ago; nothing is watched meanwhile\n".into()
        )
    );
    assert_eq!(
        at("/healthz", 0).await,
        (503, "the tick has not run yet\n".into())
    );
    assert_eq!(at("/readyz", 0).await.0, 503);
    assert_eq!(at("/readyz", 1).await.0, 200);
    assert_eq!(at("/nowhere", fresh).await.0, 404);
}

#[tokio::test]
async fn every_route_has_an_arm_and_refuses_other_methods() {
    let (sources, _publisher) = sources(10 * SECOND);
    for route in ROUTES {
        let path = if route.path.len() > 1 && route.path.ends_with('/') {
            format!("{}1", route.path)
        } else {
            route.path.to_owned()
        };
        let mut asked = question(&path);
        assert_ne!(answer(&asked, &sources).await.status(), 501, "{path}");
        asked.method = Method::TRACE;
        assert_eq!(answer(&asked, &sources).await.status(), 405, "{path}");
    }
}

#[tokio::test]
async fn what_is_left_is_counted_at_the_moment_of_the_answer() {
    let (sources, publisher) = sources(10 * SECOND);
    publish(&publisher, [1]);
    let page = get_json("/api/v1/leases", &sources).await;
    let lease = &page["leases"][0];
    // Renewed at 8.999 s for 12 s; it is 10 s now, though the sheet is of 9 s.
    assert_eq!(lease["remaining_ms"], 10_999);
    assert_eq!(lease["silent_ms"], 1001);
    assert_eq!(page["age_ms"], 1000);
    assert_eq!(lease["stage"], "healthy");
}

#[tokio::test]
async fn pages_follow_each_other_and_miss_nothing() {
    let (sources, publisher) = sources(10 * SECOND);
    publish(&publisher, (1..=25).rev());
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = get_json(&format!("/api/v1/leases?limit=10&after={after}"), &sources).await;
        assert_eq!(page["total"], 25);
        let leases = page["leases"].as_array().unwrap();
        seen.extend(leases.iter().map(|lease| lease["handle"].as_u64().unwrap()));
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        after = next;
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());
    let worst = get_json("/api/v1/leases?sort=risk&limit=2&offset=1", &sources).await;
    assert_eq!(worst["leases"][0]["handle"], 24);
    assert_eq!(worst["leases"][1]["handle"], 23);
}

#[tokio::test]
async fn what_was_said_after_the_sheet_counts() {
    let (sources, publisher) = sources(10 * SECOND);
    publish(&publisher, [1, 2]);
    let late = Sample::late(1).to(Outcome::Stage(Stage::AtRisk));
    say(&sources, Mono(9 * SECOND), &late.note());
    let lease = get_json("/api/v1/leases/1", &sources).await;
    assert_eq!(lease["stage"], "at_risk");
    assert_eq!(lease["incident"], "3");
    assert_eq!(lease["transition"]["event"], "transition");
    let page = get_json("/api/v1/leases?stage=late", &sources).await;
    assert_eq!(
        (&page["total"], &page["stages"]["at_risk"]),
        (&1.into(), &1.into())
    );
    say(
        &sources,
        Mono(9 * SECOND + 1),
        &Sample::late(1).to(Outcome::Renewed).note(),
    );
    let lease = get_json("/api/v1/leases/1", &sources).await;
    assert_eq!(lease["stage"], "healthy");
    assert_eq!(lease["transition"], Value::Null);
    assert_eq!(get("/api/v1/leases/77", &sources).await.0, 404);
}

#[tokio::test]
async fn events_are_numbered_without_a_gap() {
    let (sources, _publisher) = sources(10 * SECOND);
    for _ in 0..5 {
        say(&sources, Mono(1), &Sample::late(1).note());
    }
    let page = get_json("/api/v1/events?limit=3", &sources).await;
    let seqs = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().unwrap();
        events
            .iter()
            .map(|one| one["seq"].as_u64().unwrap())
            .collect()
    };
    assert_eq!((seqs(&page), &page["more"]), (vec![1, 2, 3], &true.into()));
    let page = get_json("/api/v1/events?after=3", &sources).await;
    assert_eq!((seqs(&page), &page["more"]), (vec![4, 5], &false.into()));
    // Who is ahead of a daemon that was started again gets to know where it stands.
    let page = get_json("/api/v1/events?after=900", &sources).await;
    assert_eq!((seqs(&page), &page["next"]), (vec![], &5.into()));
}

#[tokio::test]
async fn a_parameter_that_is_wrong_is_named() {
    let (sources, _publisher) = sources(10 * SECOND);
    for (path, what) in [
        ("/api/v1/leases?limit=0", "limit is \\\"0\\\""),
        ("/api/v1/leases?limit=1001", "from 1 to 1000"),
        ("/api/v1/leases?stage=bad", "known: healthy, late"),
        (
            "/api/v1/leases?colour=red",
            "\\\"colour\\\" is not a parameter",
        ),
        ("/api/v1/events?after=-1", "whole number"),
        ("/api/v1/incidents?state=x&state=y", "given twice"),
        ("/api/v1/mine", "http.socket"),
        ("/api/v1/mine?pid=1&timeout=4", "wait=at_risk"),
    ] {
        let (status, text) = get(path, &sources).await;
        assert_eq!(status, 400, "{path}: {text}");
        assert!(text.contains(what), "{path}: {text}");
    }
}

#[tokio::test]
async fn the_token_is_asked_of_the_network_only() {
    let (mut sources, _publisher) = sources(10 * SECOND);
    sources.token = Some(Arc::from("open sesame"));
    let mut asked = question("/api/v1/leases");
    let status = async |asked: &Asked| answer(asked, &sources).await.status().as_u16();
    assert_eq!(status(&asked).await, 401);
    for (shown, expected) in [
        ("Bearer open sesam", 401),
        ("Bearer open sesame2", 401),
        ("Basic open sesame", 401),
        ("Bearer open sesame", 200),
    ] {
        let shown_value = HeaderValue::from_str(shown).unwrap();
        asked.headers.insert(AUTHORIZATION, shown_value);
        assert_eq!(status(&asked).await, expected, "{shown}");
    }
    asked.headers.clear();
    assert_eq!(status(&question("/healthz")).await, 200);
    asked.peer = Peer::Local {
        pid: Some(1),
        uid: 0,
    };
    assert_eq!(status(&asked).await, 200);
}

fn local(path: &str) -> Asked {
    Asked {
        peer: Peer::Local {
            pid: Some(7),
            uid: 1000,
        },
        ..question(path)
    }
}

/// One lease of process 7, and one of nobody.
fn publish_owned(publisher: &Publisher) {
    let mut sheet = Sheet::with_room(64);
    let mut owned = view(1, Mono(9 * SECOND));
    owned.subject.owner = Sample::late(1).pid(7).0.subject.owner;
    sheet.push(&owned);
    sheet.push(&view(2, Mono(9 * SECOND)));
    publisher.publish(sheet, Mono(9 * SECOND));
}

#[tokio::test]
async fn a_program_is_told_of_its_own_leases() {
    let (sources, publisher) = sources(10 * SECOND);
    publish_owned(&publisher);
    let (status, reply) = text(answer(&local("/api/v1/mine"), &sources).await).await;
    assert_eq!(status, 200, "{reply}");
    let mine: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(mine["stage"], "healthy");
    assert_eq!(mine["remaining_ms"], 11_000);
    assert_eq!(mine["leases"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wait_ends_when_the_stage_has_come_or_a_lease_is_gone() {
    for worse in [
        Sample::late(1).to(Outcome::Stage(Stage::Jeopardy)).note(),
        gone(1, GoneReason::Expired),
    ] {
        let (sources, publisher) = sources(10 * SECOND);
        publish_owned(&publisher);
        let asked = local("/api/v1/mine?wait=at_risk&timeout=60");
        let wait = answer(&asked, &sources);
        tokio::pin!(wait);
        // Late is not what it waits for.
        say(&sources, Mono(9 * SECOND), &Sample::late(1).note());
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut wait).await;
        assert!(early.is_err());
        if matches!(worse, watchdog_model::leases::note::Note::Gone { .. }) {
            publish(&publisher, []);
        }
        say(&sources, Mono(9 * SECOND + 1), &worse);
        let (status, reply) = text(wait.await).await;
        let mine: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!((status, &mine["reached"]), (200, &true.into()), "{reply}");
    }
}

#[tokio::test]
async fn nobody_is_promised_anything_while_nobody_watches() {
    let (sources, publisher) = sources(8 * SECOND);
    publish_owned(&publisher);
    for path in ["/api/v1/mine", "/api/v1/mine?wait=at_risk"] {
        let status = answer(&local(path), &sources).await.status();
        assert_eq!(status, 503, "{path}");
    }
}
