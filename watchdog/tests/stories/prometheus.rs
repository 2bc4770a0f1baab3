//! Story (p): a real Prometheus scrapes the daemon and answers a query about its leases, and
//! finds nothing to complain of in how the metrics are written.

use crate::harness::clock;
use crate::harness::http;
use crate::harness::process::{self, Child};
use crate::harness::transcript::{Line, Transcript, text_of};
use crate::harness::world::{TIMEOUT, World};
use crate::harness::zookeeper::free_port;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

#[test]
fn prometheus_scrapes_the_daemon() {
    let world = World::shared();
    let clients = world.idle_clients(TIMEOUT);
    let daemon = &world.daemon;
    let health = daemon.get("/healthz");
    daemon.check(
        health.is_some_and(|answer| answer.status == 200),
        "/healthz is not 200",
    );
    let metrics = daemon.get("/metrics").expect("the daemon answers").body;

    let directory = tempfile::tempdir().expect("a temporary directory");
    let scraped = directory.path().join("metrics.txt");
    std::fs::write(&scraped, &metrics).expect("the metrics can be written");
    let lint = format!("promtool check metrics < {}", scraped.display());
    process::run("sh", &["-c", &lint]);

    let config = directory.path().join("prometheus.yml");
    let scrape = format!(
        "scrape_configs:\n  - job_name: watchdog\n    scrape_interval: 1s\n    \
         static_configs: [{{ targets: [\"{}\"] }}]\n",
        daemon.http()
    );
    std::fs::write(&config, scrape).expect("the configuration can be written");
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!(
        "--storage.tsdb.path={}",
        directory.path().join("data").display()
    ));
    command.arg(format!("--web.listen-address={address}"));
    let mut prometheus = Child::start(command);
    let log = Transcript::new();
    log.feed(prometheus.take_stderr(), Line::keep);

    let holders = "sum(lease_watchdog_leases{lease=\"zookeeper\",role=\"holder\"})";
    let known = clock::poll(Duration::from_secs(30), || {
        query(&address, holders).filter(|count| *count >= clients.len() as f64)
    });
    assert!(
        known.is_some(),
        "Prometheus knows of {:?} leases\n{}\n{metrics}",
        query(&address, holders),
        text_of(&log.tail(30))
    );
    let healthy = "sum(lease_watchdog_leases{role=\"holder\",stage=\"healthy\"})";
    assert!(
        query(&address, healthy).is_some_and(|count| count > 0.0),
        "{metrics}"
    );
    println!(
        "story (p): Prometheus counts {} leases",
        known.unwrap_or_default()
    );
}

/// The one figure that a query gives; `None` as long as there is none.
fn query(address: &str, expression: &str) -> Option<f64> {
    let escaped: String = expression
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let answer = http::get(address, &format!("/api/v1/query?query={escaped}"))?;
    let answer: Value = serde_json::from_str(&answer.body).ok()?;
    answer["data"]["result"][0]["value"][1]
        .as_str()?
        .parse()
        .ok()
}
