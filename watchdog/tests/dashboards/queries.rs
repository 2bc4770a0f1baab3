//! What the shipped dashboards and rules ask: every query, with where it stands.
//!
//! In: `dashboards/*.json`, `dashboards/rules/*.yml`. Out: queries, as Grafana and Prometheus would
//! run them. Never: a judgement.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    /// File, panel or rule, and reference.
    pub place: String,
    /// As written.
    pub written: String,
}

/// The folder of dashboards.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {ending} in {}", folder.display());
    files
}

fn name(path: &Path) -> String {
    let name = path.file_name().expect("a file");
    name.to_string_lossy().into_owned()
}

/// The dashboards, by file name.
pub fn dashboards() -> Vec<(String, Value)> {
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a readable dashboard");
        let value = serde_json::from_str(&text);
        (
            name(path),
            value.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        )
    };
    files(&folder(), "json").iter().map(read).collect()
}

/// The rule files.
pub fn rule_files() -> Vec<PathBuf> {
    files(&folder().join("rules"), "yml")
}

/// Their unit tests.
pub fn rule_tests() -> Vec<PathBuf> {
    files(&folder().join("rules/tests"), "yml")
}

/// Every rule, by file name.
pub fn rules() -> Vec<(String, serde_yaml::Value)> {
    let mut rules = Vec::new();
    for path in rule_files() {
        let text = fs::read_to_string(&path).expect("a readable rule file");
        let file: serde_yaml::Value =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        for group in file["groups"].as_sequence().expect("groups") {
            for rule in group["rules"].as_sequence().expect("rules") {
                rules.push((name(&path), rule.clone()));
            }
        }
    }
    rules
}

/// Panels that show something, of one dashboard.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] != "row")
}

/// All queries of panels and annotations.
pub fn of_dashboards() -> Vec<Query> {
    let mut all = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().expect("a title");
            for target in panel["targets"].as_array().expect("targets") {
                all.push(Query {
                    place: format!(
                        "{file}: {title}: {}",
                        target["refId"].as_str().unwrap_or("?")
                    ),
                    written: target["expr"].as_str().expect("a query").to_owned(),
                });
            }
        }
        let annotations = dashboard["annotations"]["list"].as_array().expect("a list");
        for annotation in annotations.iter().filter(|one| one["expr"].is_string()) {
            all.push(Query {
                place: format!("{file}: annotation {}", annotation["name"]),
                written: annotation["expr"].as_str().expect("a query").to_owned(),
            });
        }
    }
    all
}

/// All queries of rules.
pub fn of_rules() -> Vec<Query> {
    let query = |(file, rule): (String, serde_yaml::Value)| {
        let name = rule["alert"].as_str().or_else(|| rule["record"].as_str());
        Query {
            place: format!("{file}: {}", name.expect("alert or record")),
            written: rule["expr"].as_str().expect("a query").to_owned(),
        }
    };
    rules().into_iter().map(query).collect()
}
