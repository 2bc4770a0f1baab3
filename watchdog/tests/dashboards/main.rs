//! The shipped dashboards, rules and runbook against each other and against what the daemon exports:
//! a panel that asks for what does not exist shows a healthy nothing.

mod queries;
mod schema;

use queries::{Query, dashboards, of_dashboards, of_rules, panels, rule_tests, rules};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use watchdog::sinks::metrics;

/// Metrics that are not the daemon's own, with their labels.
const OTHERS: &[(&str, &[&str])] = &[
    ("up", &[]),
    ("process_cpu_seconds_total", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_start_time_seconds", &[]),
];
/// Labels that every scraped series has, and those of histograms.
const ALWAYS: &[&str] = &["job", "instance", "le"];

/// Every metric that may be asked for, with its labels.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    let mut add = |name: &str, labels: &[&str]| {
        let labels = labels.iter().chain(ALWAYS).map(|&l| l.to_owned()).collect();
        known.insert(name.to_owned(), labels);
    };
    for row in metrics::rows() {
        if row.kind == "histogram" {
            for end in ["_bucket", "_sum", "_count"] {
                add(&format!("{}{end}", row.name), row.labels);
            }
        } else {
            add(&row.name, row.labels);
        }
    }
    for (name, labels) in OTHERS {
        add(name, labels);
    }
    // What the recording rules make has the labels that they keep.
    for (_, rule) in rules() {
        if let Some(name) = rule["record"].as_str() {
            let expr = rule["expr"].as_str().expect("a query");
            let kept = expr.split("by (").nth(1).expect("labels that are kept");
            let kept: Vec<&str> = kept
                .split(')')
                .next()
                .unwrap_or_default()
                .split(',')
                .map(str::trim)
                .collect();
            add(name, &kept);
        }
    }
    known
}

/// The selectors of a query: names of metrics, each with the labels in its braces.
fn selectors(query: &str) -> Vec<(String, Vec<String>)> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|c| !of_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        let metric = ["lease_watchdog_", "lease_watchdog:", "process_"];
        if name != "up" && !metric.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let mut labels = Vec::new();
        if let Some(inside) = after.strip_prefix('{') {
            let inside = inside.split('}').next().unwrap_or_default();
            for matcher in inside.split(',').filter(|part| !part.trim().is_empty()) {
                let label = matcher.split(['=', '!']).next().unwrap_or_default();
                labels.push(label.trim().to_owned());
            }
        }
        found.push((name.to_owned(), labels));
    }
    found
}

#[test]
fn every_query_asks_for_metrics_and_labels_that_exist() {
    let known = known();
    let mut asked = 0;
    for Query { place, written } in of_dashboards().into_iter().chain(of_rules()) {
        let selectors = selectors(&written);
        assert!(!selectors.is_empty(), "{place}: asks for nothing");
        let mut all = BTreeSet::new();
        for (name, labels) in selectors {
            let has = known
                .get(&name)
                .unwrap_or_else(|| panic!("{place}: no metric {name}"));
            for label in labels {
                assert!(has.contains(&label), "{place}: {name} has no label {label}");
            }
            all.extend(has.iter().cloned());
            asked += 1;
        }
        for by in written.split("by (").skip(1) {
            for label in by.split(')').next().unwrap_or_default().split(',') {
                assert!(
                    all.contains(label.trim()),
                    "{place}: nothing there has the label {label}"
                );
            }
        }
    }
    assert!(asked >= 80, "{asked}");
}

#[test]
fn every_metric_of_the_daemon_is_shown_or_ruled_upon() {
    let asked: BTreeSet<String> = of_dashboards()
        .iter()
        .chain(&of_rules())
        .flat_map(|query| selectors(&query.written))
        .map(|(name, _)| name)
        .collect();
    // Who runs how often is a figure for developers.
    const FOR_OTHERS: &[&str] = &["lease_watchdog_probe_runs_total"];
    for row in metrics::rows() {
        let shown = asked.iter().any(|name| {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            *name == row.name || base == Some(&row.name)
        });
        assert!(
            shown || FOR_OTHERS.contains(&row.name.as_str()),
            "{} is on no dashboard and in no rule",
            row.name
        );
    }
}

/// Grafana's dashboard schema, as far as these dashboards use it.
#[test]
fn dashboards_are_what_grafana_10_imports() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let uid = text(&dashboard["uid"]).expect("a uid");
        assert!(uid.len() <= 40 && uids.insert(uid), "{file}: uid");
        // 38 is Grafana 10.0's, 39 is 10.3's.
        let version = dashboard["schemaVersion"].as_u64().expect("schemaVersion");
        assert!((36..=39).contains(&version), "{file}: {version}");
        for key in ["title", "description", "refresh"] {
            assert!(text(&dashboard[key]).is_some(), "{file}: {key}");
        }
        let variables = dashboard["templating"]["list"].as_array().expect("a list");
        let variable = |name: &str| {
            let found = variables.iter().find(|one| one["name"] == name);
            found.unwrap_or_else(|| panic!("{file}: no variable {name}"))
        };
        assert_eq!(variable("datasource")["type"], "datasource");
        assert_eq!(variable("datasource")["query"], "prometheus");
        for name in ["job", "instance"] {
            let one = variable(name);
            assert!(one["multi"] == true && one["includeAll"] == true && one["type"] == "query");
        }
        assert_eq!(variable("instance")["label"], "Node");
        let of_datasource = |value: &Value, what: &str| {
            assert_eq!(
                value["datasource"]["uid"], "${datasource}",
                "{file}: {what}"
            );
        };
        let mut ids = BTreeSet::new();
        let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
        let all = dashboard["panels"].as_array().expect("panels");
        for panel in all {
            let title = text(&panel["title"]).expect("a title");
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
            let at = |key: &str| panel["gridPos"][key].as_u64().expect("gridPos");
            assert!(at("w") >= 1 && at("x") + at("w") <= 24, "{title}: too wide");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    if let Some(other) = taken.insert((x, y), title.clone()) {
                        panic!("{file}: {title} lies on {other}");
                    }
                }
            }
        }
        for panel in panels(&dashboard) {
            let title = text(&panel["title"]).expect("a title");
            let kinds = ["stat", "timeseries", "table", "heatmap"];
            assert!(
                kinds.iter().any(|kind| panel["type"] == **kind),
                "{file}: {title}: {}",
                panel["type"]
            );
            let description = text(&panel["description"]).unwrap_or_default();
            // What it shows, and what to do: two sentences at the least.
            let sentences = description.matches(['.', ':', ';', '?']).count();
            assert!(
                description.len() > 60 && sentences >= 2 && description.ends_with('.'),
                "{file}: {title}: {description}"
            );
            of_datasource(panel, &title);
            assert!(text(&panel["fieldConfig"]["defaults"]["unit"]).is_some());
            assert!(panel["options"].is_object());
            let mut references = BTreeSet::new();
            for target in panel["targets"].as_array().expect("targets") {
                of_datasource(target, &title);
                let query = text(&target["expr"]).expect("a query");
                assert!(references.insert(target["refId"].to_string()), "{title}");
                assert!(
                    query.contains("job=~\"$job\""),
                    "{file}: {title}: the choice of nodes does not hold: {query}"
                );
                assert!(text(&target["legendFormat"]).is_some());
            }
        }
        let annotations = dashboard["annotations"]["list"].as_array().expect("a list");
        assert!(annotations.len() > 1, "{file}: events as annotations");
    }
}

/// The anchors of the runbook, as Markdown makes them of its headings.
fn anchors() -> BTreeSet<String> {
    let text = fs::read_to_string(queries::folder().join("../docs/runbook.md")).expect("a runbook");
    let heading = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
        Some(title.to_lowercase().replace(' ', "-"))
    };
    text.lines().filter_map(heading).collect()
}

#[test]
fn every_cause_and_every_alert_has_its_section_in_the_runbook() {
    let anchors = anchors();
    let values = metrics::label_values();
    let (_, causes) = values
        .iter()
        .find(|(label, _)| *label == "cause")
        .expect("causes");
    let causes: Vec<&str> = causes
        .split(", ")
        .map(|word| word.trim_matches('`'))
        .collect();
    assert!(causes.len() >= 15);
    for cause in &causes {
        assert!(anchors.contains(*cause), "no section for {cause}");
    }
    let tests: String = rule_tests()
        .iter()
        .map(|path| fs::read_to_string(path).expect("a readable test"))
        .collect();
    let mut alerts = 0;
    for (file, rule) in rules() {
        let Some(name) = rule["alert"].as_str() else {
            continue;
        };
        alerts += 1;
        let annotation = |key: &str| {
            rule["annotations"][key]
                .as_str()
                .unwrap_or_else(|| panic!("{file}: {name}: no {key}"))
        };
        assert!(!annotation("summary").is_empty() && !annotation("description").is_empty());
        let severity = rule["labels"]["severity"].as_str();
        assert!(
            severity.is_some_and(|one| ["info", "warning", "critical"].contains(&one)),
            "{file}: {name}: {severity:?}"
        );
        let link = annotation("runbook_url");
        let anchor = link
            .strip_prefix("docs/runbook.md#")
            .unwrap_or_else(|| panic!("{file}: {name}: {link}"));
        assert!(
            anchor == "{{ $labels.cause }}" || anchors.contains(anchor),
            "{file}: {name}: no section {anchor}"
        );
        assert!(tests.contains(name), "{file}: {name} is in no rule test");
    }
    assert!(alerts >= 15, "{alerts}");
}

#[test]
fn selectors_are_found() {
    assert_eq!(
        selectors("sum by (a) (rate(lease_watchdog_x_bucket{le=\"1\",job=~\"$job\"}[5m])) / up"),
        [
            (
                "lease_watchdog_x_bucket".to_owned(),
                vec!["le".to_owned(), "job".to_owned()]
            ),
            ("up".to_owned(), vec![])
        ]
    );
}
