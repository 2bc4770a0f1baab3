//! Story (f): the shipped dashboards and rules on a real fault. A client freezes until the server
//! expires its session, while a real Prometheus with the shipped rules scrapes the daemon, and a
//! second target that is down. Then every query of every panel, annotation and rule is run: none
//! is refused, and none is empty where the fault must show.
//!
//! With `LEASE_WATCHDOG_PICTURES=FOLDER` what the panels show is drawn there (`cargo xtask docs
//! --pictures`).

mod pictures;
#[path = "../dashboards/queries.rs"]
mod queries;

use crate::harness::client::{Client, Kind, Order, State};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::process;
use crate::harness::prometheus::Prometheus;
use crate::harness::world::TIMEOUT;
use crate::harness::zookeeper::{Listen, ZooKeeper, free_port};
use queries::Query;
use std::path::Path;
use std::time::Duration;

/// What may be empty after this fault, and why. Everything else must not be.
const MAY_BE_EMPTY: &[(&str, &str)] = &[
    (
        "Expired, and wrongly, by node: B",
        "the server was punctual",
    ),
    ("Alerts told, and failed", "the daemon is log-only"),
    ("Alerts held back", "the daemon is log-only"),
    ("LeaseWatchdogCannotTell", "the daemon is log-only"),
    ("LeaseWatchdogMuted", "nobody has muted anything"),
    ("Hooks refused", "this kernel gives all signals"),
    ("annotation \"Daemon started\"", "it started once"),
    ("LeaseExpiredWrongly", "the server was punctual"),
    ("LeasesExpireInAStorm", "one lease is no storm"),
    ("RenewalsNearTimeout", "all others are healthy"),
    ("RenewalsUnread", "the server reads"),
    ("LeaseWatchdogDetached", "this kernel gives all signals"),
    ("LeaseWatchdogUnsynchronised", "all handshakes were seen"),
    ("LeaseWatchdogOpaque", "all speak the protocol"),
    ("LeaseWatchdogGuessesTimeouts", "all handshakes were seen"),
    ("LeaseWatchdogLoses", "nothing is lost"),
    ("LeaseWatchdogSlotsFull", "there is room"),
    ("LeaseWatchdogHeldUp", "the daemon is punctual"),
    ("LeaseWatchdogNearItsLimits", "two clients cost nothing"),
];
/// Prometheus' clock against the stories': scrapes every second, and slack.
const SCRAPED: Duration = Duration::from_secs(20);

#[test]
fn rules_pass_promtool() {
    let strings = |paths: Vec<std::path::PathBuf>| -> Vec<String> {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    for (verb, files) in [
        ("check", strings(queries::rule_files())),
        ("test", strings(queries::rule_tests())),
    ] {
        let mut words = vec![verb, "rules"];
        words.extend(files.iter().map(String::as_str));
        let said = process::run("promtool", &words);
        println!(
            "story (f): promtool {verb} rules: {} files pass",
            files.len()
        );
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn every_query_of_dashboards_and_rules_shows_a_real_fault() {
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], "limits: { probe_cost: true }");
    let daemon = Daemon::start(&home);
    let down = format!("127.0.0.1:{}", free_port());
    let prometheus = Prometheus::scraping(&[daemon.http(), down], &queries::rule_files());
    prometheus.wait("up == 0", SCRAPED, |_| true);
    prometheus.wait("count(lease_watchdog_build_info)", SCRAPED, |_| true);
    let from = wall();

    let start = |kind| Client::start(Order::idle(kind, server.port(), TIMEOUT));
    let (frozen, healthy) = (start(Kind::C), start(Kind::Kazoo));
    for client in [&frozen, &healthy] {
        for role in ["holder", "grantor"] {
            daemon.wait_seen(client.id(), role, Duration::from_secs(5));
        }
    }
    // Two idle gaps of a third of T, so that quantiles have something to say.
    clock::observe_for(TIMEOUT);
    let (id, mark, said) = (frozen.id(), daemon.mark(), frozen.mark());
    let stopped = frozen.freeze();
    daemon.wait_stage(mark, id, "holder", Stage::Lapsed, TIMEOUT * 2);
    server.wait_expiry(id, TIMEOUT * 2);
    let lapsed = "sum(max_over_time(lease_watchdog_leases{role=\"holder\",stage=\"lapsed\"}[1m]))";
    prometheus.wait(lapsed, SCRAPED, |count| count >= 1.0);
    stopped.resume();
    frozen.wait_for(said, TIMEOUT * 2, |state| state == State::Expired);
    daemon.wait_for("expired of the holder's lease", TIMEOUT, |event| {
        event.of(id, "holder") && event.enters("expired")
    });
    let expired = "sum(increase(lease_watchdog_expired_total{role=\"holder\"}[1m]))";
    prometheus.wait(expired, SCRAPED, |count| count >= 0.5);
    let firing = "ALERTS{alertname=\"LeaseExpired\",role=\"holder\",alertstate=\"firing\"}";
    prometheus.wait(firing, SCRAPED, |_| true);
    // A range has a sample a second: of what has just begun, some shall lie in it.
    clock::observe_for(Duration::from_secs(5));
    let to = wall();

    let mut wrong = Vec::new();
    let all: Vec<Query> = queries::of_dashboards()
        .into_iter()
        .chain(queries::of_rules())
        .collect();
    for query in &all {
        let filled = filled(&query.written);
        match prometheus.ask_range(&filled, from, to) {
            Err(why) => wrong.push(format!("{}: refused: {why}\n    {filled}", query.place)),
            Ok(series) => {
                let samples: usize = series.iter().map(|(_, samples)| samples.len()).sum();
                let may_be = MAY_BE_EMPTY
                    .iter()
                    .any(|(place, _)| query.place.contains(place));
                if samples == 0 && !may_be {
                    wrong.push(format!("{}: empty\n    {filled}", query.place));
                }
            }
        }
    }
    daemon.check(
        wrong.is_empty(),
        &format!("of {} queries:\n{}", all.len(), wrong.join("\n")),
    );
    what_was_to_be_seen(&prometheus, from, to);
    println!(
        "story (f): {} queries, a frozen client is seen in them",
        all.len()
    );
    if let Some(folder) = std::env::var_os("LEASE_WATCHDOG_PICTURES") {
        pictures::draw(Path::new(&folder), &prometheus, from, to);
    }
}

/// Figures that the fault must have left.
fn what_was_to_be_seen(prometheus: &Prometheus, from: f64, to: f64) {
    let worst = |query: &str, fold: fn(f64, f64) -> f64| {
        let series = prometheus.ask_range(query, from, to).expect(query);
        let samples = series.iter().flat_map(|(_, samples)| samples);
        samples
            .map(|(_, value)| *value)
            .filter(|value| value.is_finite())
            .reduce(fold)
            .unwrap_or_else(|| panic!("{query} is empty"))
    };
    // It fell to 0, and not only by a renewal's ripple.
    let left = worst("lease_watchdog:remaining_ratio:min", f64::min);
    assert!(left < 0.1, "{left} of the timeout was left at worst");
    let warned = "sum(increase(lease_watchdog_warnings_total{cause=\"process_stopped\"}[30s]))";
    assert!(worst(warned, f64::max) >= 1.0, "the warning's cause");
    for alert in [
        "LeaseAtRisk",
        "LeaseInJeopardy",
        "LeaseWarning",
        "LeaseExpired",
        "LeaseWatchdogTellsNobody",
    ] {
        let query = format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}})");
        assert!(worst(&query, f64::max) >= 1.0, "{alert} did not fire");
    }
    let down = "count(ALERTS{alertname=\"LeaseWatchdogDown\"})";
    assert!(worst(down, f64::max) >= 1.0, "what is down is not pending");
}

/// A query with Grafana's variables replaced: everything is chosen.
fn filled(query: &str) -> String {
    query
        .replace("$__rate_interval", "10s")
        .replace("$__range", "2m")
        .replace("$job", ".+")
        .replace("$instance", ".+")
}

/// Seconds of the wall clock, by which Prometheus stamps.
fn wall() -> f64 {
    clock::wall_us() as f64 / 1e6
}
