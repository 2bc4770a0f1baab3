//! The table of metrics against what is exported.

use super::*;
use crate::sinks::events::{Attached, Refused};
use crate::sinks::samples::{self, Sample};
use crate::tick::flows::FlowTable;
use crate::tick::{Gauges as _, Snapshot};
use std::sync::{Arc, Mutex, mpsc};
use watchdog_common::layout::{BINS, Durations, Losses, Waits};
use watchdog_model::causes::Cause;
use watchdog_model::leases::book::LeaseBrief;

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text()).unwrap()
}

fn entries() -> Vec<String> {
    vec!["zookeeper".to_owned(), "rpc".to_owned()]
}

#[test]
fn every_metric_of_the_table_is_exported_with_its_help() {
    let metrics = Metrics::new(&entries()).unwrap();
    let _handles = metrics.tick(&entries());
    let _tally = metrics.alert_tally(0, "webhook");
    metrics.started(&Started {
        attached: vec![Attached {
            signal: "packets".into(),
            hook: "cgroup_skb".into(),
        }],
        refused: vec![Refused {
            signal: "packets".into(),
            hook: "tc".into(),
            why: String::new(),
        }],
        ..Started::default()
    });
    let cost = Cost {
        program: "packet_in".into(),
        runs: 3,
        time: Duration::from_millis(1),
    };
    metrics.probe_cost(&[cost], Duration::from_secs(1));
    metrics.limits(&[("cpu", 0.5)]);
    let text = text(&metrics);
    for definition in TABLE {
        let kind = match definition.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram(_) => "histogram",
        };
        let head = format!(
            "# HELP {PREFIX}{name} {}\n# TYPE {PREFIX}{name} {kind}\n",
            definition.help,
            name = definition.name
        );
        assert!(text.contains(&head), "{} in {text}", definition.name);
    }
    assert!(text.contains("probe_attached{hook=\"cgroup_skb\",signal=\"packets\"} 1"));
    assert!(text.contains("probe_attached{hook=\"tc\",signal=\"packets\"} 0"));
    assert!(text.contains("process_resident_memory_bytes"));
}

/// The rules of `promtool check metrics` that a table can break.
#[test]
fn names_units_and_labels_are_clean() {
    for (at, one) in TABLE.iter().enumerate() {
        assert!(TABLE[at + 1..].iter().all(|other| other.name != one.name));
        assert!(one.help.ends_with('.'), "{}", one.name);
        assert_eq!(
            one.name.ends_with("_total"),
            one.kind == Kind::Counter,
            "{}",
            one.name
        );
        let plain = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(plain(one.name) && one.labels.iter().all(|label| plain(label)));
        for unit in [
            "_ms", "_millis", "_us", "_ns", "_percent", "_count", "_sum", "_bucket",
        ] {
            assert!(!one.name.ends_with(unit), "{}", one.name);
        }
        for label in ["pid", "port", "peer", "id", "session", "le"] {
            assert!(!one.labels.contains(&label), "{}", one.name);
        }
        if let Kind::Histogram(buckets) = one.kind {
            assert!(buckets.is_sorted() && !buckets.is_empty());
        }
    }
}

#[test]
fn what_is_not_there_is_nan_and_no_alarm() {
    let metrics = Metrics::new(&entries()).unwrap();
    let handles = metrics.tick(&entries());
    assert!(
        text(&metrics)
            .contains("lease_watchdog_min_remaining_seconds{lease=\"rpc\",role=\"holder\"} NaN")
    );
    handles.entries[1].role(Role::Holder).min_remaining.set(2.5);
    assert!(
        text(&metrics)
            .contains("lease_watchdog_min_remaining_seconds{lease=\"rpc\",role=\"holder\"} 2.5")
    );
    // Other entries: what was shown of the earlier ones ends.
    let _handles = metrics.tick(&["zookeeper".to_owned()]);
    assert!(!text(&metrics).contains("min_remaining_seconds{lease=\"rpc\""));
}

#[test]
fn notes_are_counted() {
    let entries = entries();
    let metrics = Metrics::new(&entries).unwrap();
    let at_risk = Outcome::Stage(Stage::AtRisk);
    let worse = Sample::late(1)
        .from(Stage::Late)
        .to(at_risk)
        .cause(Cause::DiskStall);
    for sample in [
        Sample::late(1),
        worse,
        // Its cause became known.
        worse.from(Stage::AtRisk),
        // From bad to worse is no second warning.
        worse.from(Stage::AtRisk).to(Outcome::Stage(Stage::Lapsed)),
        worse.from(Stage::Lapsed).to(Outcome::Expired),
    ] {
        metrics.count(&sample.note(), &entries);
    }
    let text = text(&metrics);
    for line in [
        "transitions_total{lease=\"zookeeper\",role=\"holder\",to=\"late\"} 1",
        "transitions_total{lease=\"zookeeper\",role=\"holder\",to=\"at_risk\"} 1",
        "transitions_total{lease=\"zookeeper\",role=\"holder\",to=\"expired\"} 1",
        "transitions_total{lease=\"zookeeper\",role=\"holder\",to=\"renewed\"} 0",
        "warnings_total{cause=\"disk_stall\",lease=\"zookeeper\",role=\"holder\"} 1",
        "warnings_total{cause=\"unknown\",lease=\"rpc\",role=\"grantor\"} 0",
        "expired_total{lease=\"zookeeper\",role=\"holder\"} 1",
        "would_page_total 0",
        "lost_total{what=\"note\"} 0",
    ] {
        assert!(
            text.contains(&format!("lease_watchdog_{line}\n")),
            "{line} in {text}"
        );
    }
}

/// A view of a healthy lease, as the tick shows it.
fn lease(handle: u64, entry: u16) -> LeaseBrief {
    let subject = samples::subject(handle);
    LeaseBrief {
        entry,
        role: subject.role,
        stage: Stage::Healthy,
        timeout_ns: subject.timeout_ns,
        timeout_source: subject.timeout_source,
        remaining_ns: Some(i64::try_from(handle).unwrap() * 1_000_000),
    }
}

/// The tick's figures over some leases, into these metrics.
fn show(metrics: &Metrics, leases: u64) {
    let config = crate::config::Config::default();
    let mut gauges = crate::daemon::gauges(metrics, &config);
    let flows = FlowTable::new(0, true);
    gauges.snapshot(&mut Snapshot {
        leases: &mut (1..=leases).map(|handle| lease(handle, 0)),
        slots: 16_384,
        flows: &flows,
        losses: Losses::default(),
        waits: Waits::default(),
        questions_lost: 0,
        threads: 0,
        threads_refused: 0,
        leases_refused: 0,
    });
    gauges.tick_late(1_000);
    let names = config.entry_names();
    for handle in 1..=leases {
        metrics.count(&Sample::late(handle).note(), &names);
    }
}

#[test]
fn ten_thousand_leases_are_as_many_series_as_one_and_are_scraped_within_50_ms() {
    let names = crate::config::Config::default().entry_names();
    let (one, many) = (Metrics::new(&names).unwrap(), Metrics::new(&names).unwrap());
    show(&one, 1);
    show(&many, 10_000);
    let series = |metrics: &Metrics| text(metrics).lines().count();
    assert_eq!(series(&one), series(&many));
    assert!(series(&many) < 600, "{}", series(&many));
    let shown = text(&many);
    let line =
        "lease_watchdog_leases{lease=\"zookeeper\",role=\"holder\",stage=\"healthy\"} 10000\n";
    assert!(shown.contains(line), "{shown}");
    // Of several, on a machine that does other things too.
    let fastest = (0..10).map(|_| {
        let begun = crate::tick::clock();
        let _text = many.text();
        crate::tick::clock().since(begun)
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < 50_000_000, "a scrape takes {fastest} ns");
}

/// A collector that holds its scrape up until it is let go.
struct Stuck {
    desc: prometheus::core::Desc,
    entered: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl prometheus::core::Collector for Stuck {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.entered.send(()).unwrap();
        let _let_go = self.go.lock().unwrap().recv();
        Vec::new()
    }
}

#[test]
fn a_scrape_that_is_stuck_holds_up_neither_the_tick_nor_the_sinks() {
    let limit = std::time::Duration::from_secs(30);
    let names = crate::config::Config::default().entry_names();
    let metrics = Arc::new(Metrics::new(&names).unwrap());
    let (entered, has_entered) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let stuck = Stuck {
        desc: prometheus::core::Desc::new(
            "stuck".into(),
            "Stuck.".into(),
            Vec::new(),
            std::collections::HashMap::new(),
        )
        .unwrap(),
        entered,
        go: Mutex::new(go),
    };
    metrics.registry.register(Box::new(stuck)).unwrap();
    let scraped = Arc::clone(&metrics);
    let scrape = std::thread::spawn(move || scraped.text().len());
    has_entered.recv_timeout(limit).unwrap();
    let (done, is_done) = mpsc::channel();
    let shown = Arc::clone(&metrics);
    std::thread::spawn(move || {
        show(&shown, 100);
        done.send(()).unwrap();
    });
    let went_on = is_done.recv_timeout(limit);
    drop(let_go);
    assert!(scrape.join().unwrap() > 0);
    went_on.expect("the tick waits for a scrape");
}

#[test]
fn bins_of_the_kernel_become_a_histogram() {
    let metrics = Metrics::new(&entries()).unwrap();
    let handles = metrics.tick(&entries());
    let mut durations = Durations {
        sum_ns: 3_500_000_000,
        ..Durations::default()
    };
    // Below a microsecond, below 2, and beyond all bounds.
    (durations.bins[0], durations.bins[1]) = (2, 3);
    durations.bins[BINS - 1] = 1;
    handles.blocked.show(&durations);
    let text = text(&metrics);
    for line in [
        "blocked_seconds_bucket{le=\"0.000001\"} 2",
        "blocked_seconds_bucket{le=\"0.000002\"} 5",
        "blocked_seconds_bucket{le=\"67.108864\"} 5",
        "blocked_seconds_bucket{le=\"+Inf\"} 6",
        "blocked_seconds_sum 3.5",
        "blocked_seconds_count 6",
    ] {
        assert!(
            text.contains(&format!("lease_watchdog_{line}\n")),
            "{line} in {text}"
        );
    }
}
