//! A real Prometheus that scrapes what it is told to, and answers queries.
//!
//! In: scrape targets, rule files. Out: answers as Prometheus gives them. Its data lie in a
//! temporary folder and end with it.

use super::clock;
use super::http;
use super::process::Child;
use super::transcript::{Line, Transcript, text_of};
use super::zookeeper::free_port;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    log: Transcript<Line>,
    _child: Child,
    _folder: tempfile::TempDir,
}

/// An answer: each series' labels, and its samples as (seconds, value).
pub type Series = Vec<(Value, Vec<(f64, f64)>)>;

impl Prometheus {
    /// Starts one that scrapes these targets every second as job `lease-watchdog`, and evaluates
    /// these rules as often.
    pub fn scraping(targets: &[String], rules: &[PathBuf]) -> Self {
        let job = serde_json::json!({ "static_configs": [{ "targets": targets }] });
        Self::with_job(job, rules)
    }

    /// The same of a target that speaks TLS, which this authority vouches for.
    pub fn scraping_by_tls(target: &str, authority: &Path) -> Self {
        let job = serde_json::json!({
            "static_configs": [{ "targets": [target] }],
            "scheme": "https",
            "tls_config": { "ca_file": authority },
        });
        Self::with_job(job, &[])
    }

    fn with_job(mut job: Value, rules: &[PathBuf]) -> Self {
        job["job_name"] = "lease-watchdog".into();
        let folder = tempfile::tempdir().expect("a temporary directory");
        let config = folder.path().join("prometheus.yml");
        let text = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": rules,
            "scrape_configs": [job],
        });
        // JSON is YAML.
        std::fs::write(&config, text.to_string()).expect("the configuration can be written");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        let data = folder.path().join("data");
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={address}"));
        let mut child = Child::start(command);
        let log = Transcript::new();
        log.feed(child.take_stderr(), Line::keep);
        Self {
            address,
            log,
            _child: child,
            _folder: folder,
        }
    }

    /// What a query says now.
    ///
    /// # Errors
    /// Prometheus refuses the query, or does not answer.
    pub fn ask(&self, query: &str) -> Result<Series, String> {
        self.get(&format!("/api/v1/query?query={}", escaped(query)))
    }

    /// What it said from `from` to `to` (seconds of the wall clock), every second.
    ///
    /// # Errors
    /// As [`Prometheus::ask`].
    pub fn ask_range(&self, query: &str, from: f64, to: f64) -> Result<Series, String> {
        let query = escaped(query);
        self.get(&format!(
            "/api/v1/query_range?query={query}&start={from:.3}&end={to:.3}&step=1"
        ))
    }

    /// The one figure that a query gives; `None` as long as there is none.
    pub fn figure(&self, query: &str) -> Option<f64> {
        let series = self.ask(query).ok()?;
        Some(series.first()?.1.last()?.1)
    }

    /// Waits for a figure to be as wanted.
    ///
    /// # Panics
    /// If it never is, with the last one and Prometheus' log.
    pub fn wait(&self, query: &str, within: Duration, wanted: impl Fn(f64) -> bool) -> f64 {
        let found = clock::poll(within, || self.figure(query).filter(|one| wanted(*one)));
        found.unwrap_or_else(|| {
            panic!(
                "{query} is {:?}\n{}",
                self.ask(query),
                text_of(&self.log.tail(30))
            )
        })
    }

    fn get(&self, path: &str) -> Result<Series, String> {
        let answer = http::get(&self.address, path).ok_or("Prometheus does not answer")?;
        let answer: Value =
            serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let result = answer["data"]["result"].as_array();
        let sample = |pair: &Value| {
            let value = pair[1].as_str()?;
            Some((pair[0].as_f64()?, value.parse().ok()?))
        };
        let series = |one: &Value| {
            let samples = match one["values"].as_array() {
                Some(values) => values.iter().filter_map(sample).collect(),
                None => sample(&one["value"]).into_iter().collect(),
            };
            (one["metric"].clone(), samples)
        };
        Ok(result.into_iter().flatten().map(series).collect())
    }
}

fn escaped(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
