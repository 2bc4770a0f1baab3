//! The table of metrics against what is exported.

use super::*;
use crate::sinks::events::{Attached, Refused};
use crate::sinks::samples::Sample;
use watchdog_model::causes::Cause;

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

/// A dashboard that asks for what does not exist shows a healthy nothing.
#[test]
fn the_dashboard_asks_for_metrics_and_labels_that_exist() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../../dashboards/node.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels.len());
    let mut asked = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(
            panel["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{title}"
        );
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            for part in query.split(PREFIX).skip(1) {
                let name = part
                    .split(|c: char| !c.is_ascii_lowercase() && c != '_')
                    .next()
                    .unwrap();
                let name = name.strip_suffix("_bucket").unwrap_or(name);
                assert!(
                    TABLE.iter().any(|one| one.name == name),
                    "{title}: no metric {name}"
                );
                asked += 1;
            }
        }
    }
    assert!(asked >= 20, "{asked}");
}
