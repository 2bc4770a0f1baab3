//! Story (p): a real Prometheus scrapes the daemon and answers a query about its leases, and
//! finds nothing to complain of in how the metrics are written.

use crate::harness::process;
use crate::harness::prometheus::Prometheus;
use crate::harness::world::{TIMEOUT, World};
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

    let prometheus = Prometheus::scraping(&[daemon.http()], &[]);
    let holders = "sum(lease_watchdog_leases{lease=\"zookeeper\",role=\"holder\"})";
    let known = prometheus.wait(holders, Duration::from_secs(30), |count| {
        count >= clients.len() as f64
    });
    let healthy = "sum(lease_watchdog_leases{role=\"holder\",stage=\"healthy\"})";
    prometheus.wait(healthy, Duration::from_secs(5), |count| count > 0.0);
    println!("story (p): Prometheus counts {known} leases");
}
