//! Long polls that are slow and healthy: answers held back for up to two thirds of the lease.

use super::plays::clients;
use crate::harness::client::Order;
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::program::Program;
use crate::scene::Scene;
use std::time::Duration;

/// Clients of each server, one of which says how long it holds its answers back.
const POLLERS: usize = 4;

pub fn long_polls(scene: &Scene, span: Duration) -> Vec<String> {
    let _clients = clients(scene, 4, Order::idle);
    let servers = [["0.5", "4"], ["3.8", "4"]]
        .map(|[least, most]| Program::python("exchange.py", &["serve-polls", least, most]));
    let entries = servers.iter().zip(["hold: 4s", ""]).enumerate();
    let entries: String = entries
        .map(|(n, (server, hold))| {
            format!(
                "  - name: poll-{n}\n    protocol: request_reply\n    ports: [{}]\n    timeout: {}ms\n    \
                 renews_from: reply\n    {hold}\n",
                server.port(),
                scene.timeout.as_millis(),
            )
        })
        .collect();
    let home = Home::with(&format!(
        "leases:\n{entries}http: {{ listen: \"127.0.0.1:0\" }}\n"
    ));
    let daemon = Daemon::start(&home);
    let pollers: Vec<Program> = servers
        .iter()
        .flat_map(|server| (0..POLLERS).map(move |_| server.port().to_string()))
        .map(|port| Program::python("exchange.py", &["poll", &port]))
        .collect();
    clock::observe_for(span);
    let events = daemon.events_since(0);
    let seen = events.iter().filter(|event| event.is("lease_seen")).count();
    let mut wrong = Vec::new();
    // Each has two ends.
    if seen != 2 * pollers.len() {
        wrong.push(format!("{seen} ends of {} polls were seen", pollers.len()));
    }
    let accused = events
        .iter()
        .filter(|event| event.stage() > Some(Stage::Healthy));
    wrong.extend(accused.map(|event| format!("accused: {}", event.value)));
    wrong
}
