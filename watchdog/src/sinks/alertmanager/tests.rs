//! What an Alertmanager is to know, without one.

use super::*;
use crate::config::Url;
use crate::sinks::alerts::message;
use serde_json::Value;
use watchdog_model::time::SECOND;

fn config() -> Alertmanager {
    Alertmanager {
        url: Url::parse("http://127.0.0.1:9093/am/").unwrap(),
        headers: Vec::new(),
        timeout_ns: 1,
        resend_ns: 60 * SECOND,
        labels: vec![("cluster".to_owned(), "a".to_owned())],
        runbook: "https://x/#{cause}".to_owned(),
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What is told of an incident.
fn told(state: State, incident: u64, cause: &'static str, leases: usize) -> Message {
    let mut message = message::test(at(100), "n1", "zookeeper", Stage::AtRisk);
    message.state = state;
    let about = &mut message.about;
    about.test = false;
    about.incident = incident;
    about.labels.cause = cause;
    about.leases = leases;
    about.until = (state == State::Resolved).then_some(at(130));
    message
}

fn body(book: &Book) -> Vec<Value> {
    serde_json::from_slice(&book.body(at(120))).unwrap()
}

#[test]
fn an_alert_fires_until_it_is_over_and_ends_by_itself_if_the_daemon_does() {
    let mut book = Book::new(&config(), "n1");
    book.take(Mono(0), &told(State::Firing, 1, "disk_stall", 2));
    let all = body(&book);
    assert_eq!(all.len(), 1);
    assert_eq!(
        all[0]["labels"],
        serde_json::json!({
            "alertname": "LeaseAtRisk", "severity": "critical", "node": "n1", "cluster": "a",
            "lease": "zookeeper", "role": "holder", "cause": "disk_stall", "thing": "test",
        })
    );
    assert_eq!(all[0]["annotations"]["runbook"], "https://x/#disk_stall");
    assert_eq!(all[0]["annotations"]["leases"], "2");
    assert_eq!(all[0]["startsAt"], "1970-01-01T00:01:40.000Z");
    // Four times the resend interval from now.
    assert_eq!(all[0]["endsAt"], "1970-01-01T00:06:00.000Z");
    for alert in book.alerts.values_mut() {
        alert.told = true;
    }
    book.take(Mono(0), &told(State::Resolved, 1, "disk_stall", 2));
    assert_eq!(body(&book)[0]["endsAt"], "1970-01-01T00:02:10.000Z");
    // Sent again for a while, then forgotten.
    let long = u64::try_from(RESOLVED_FOR.as_nanos()).unwrap();
    book.forget(Mono(long - 1));
    assert_eq!(body(&book).len(), 1);
    book.forget(Mono(long));
    assert!(body(&book).is_empty() && book.of.is_empty());
}

#[test]
fn what_was_over_before_anyone_heard_is_not_told() {
    let mut book = Book::new(&config(), "n1");
    book.take(Mono(0), &told(State::Firing, 1, "disk_stall", 2));
    book.take(Mono(0), &told(State::Resolved, 1, "disk_stall", 2));
    assert!(body(&book).is_empty());
}

#[test]
fn incidents_with_the_same_labels_are_one_alert_with_the_sum_of_leases() {
    let mut book = Book::new(&config(), "n1");
    book.take(Mono(0), &told(State::Firing, 1, "disk_stall", 2));
    book.take(Mono(0), &told(State::Firing, 2, "disk_stall", 3));
    let all = body(&book);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["annotations"]["leases"], "5");
    book.alerts.values_mut().for_each(|alert| alert.told = true);
    book.take(Mono(0), &told(State::Resolved, 1, "disk_stall", 2));
    // Still in the future: it fires.
    assert_eq!(body(&book)[0]["endsAt"], "1970-01-01T00:06:00.000Z");
}

#[test]
fn a_cause_that_becomes_known_ends_one_alert_and_begins_another() {
    let mut book = Book::new(&config(), "n1");
    book.take(Mono(0), &told(State::Firing, 1, "unknown", 1));
    book.alerts.values_mut().for_each(|alert| alert.told = true);
    book.take(Mono(0), &told(State::Grown, 1, "disk_stall", 1));
    let all = body(&book);
    let fires = |cause: &str| {
        let alert = all.iter().find(|alert| alert["labels"]["cause"] == cause);
        alert.unwrap()["endsAt"] == "1970-01-01T00:06:00.000Z"
    };
    assert!(fires("disk_stall") && !fires("unknown"));
}

#[test]
fn alerts_are_bounded_and_none_is_left_out() {
    let mut book = Book::new(&config(), "n1");
    for incident in 0..1000 {
        let mut message = told(State::Firing, incident, "disk_stall", 1);
        message.about.labels.thing = format!("disk {incident}");
        book.take(Mono(0), &message);
    }
    let all = body(&book);
    assert_eq!(all.len(), MAX_ALERTS + 1);
    let leases: u64 = all
        .iter()
        .map(|alert| {
            let leases = alert["annotations"]["leases"].as_str().unwrap();
            leases.parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(leases, 1000);
}

#[test]
fn a_test_says_so() {
    let mut book = Book::new(&config(), "n1");
    book.take(
        Mono(0),
        &message::test(at(100), "n1", "zookeeper", Stage::Lapsed),
    );
    let all = body(&book);
    assert_eq!(all[0]["labels"]["alertname"], "LeaseWatchdogTest");
    assert_eq!(all[0]["labels"]["severity"], "none");
}
