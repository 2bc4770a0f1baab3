//! A ZooKeeper session held by a Rust client: the process that a story starts by running the
//! test binary again with [`HOSTS`] set.
//!
//! Out: `@ MONO_US STATE ID` a line; in: `close` ends the session in order.

use super::clock;
use std::time::Duration;
use tokio::sync::mpsc;
use zookeeper_client::{Client, SessionState};

/// Names the servers, and makes [`process`] a client.
pub const HOSTS: &str = "LEASE_STORY_CLIENT_HOSTS";
/// The timeout to ask for, in milliseconds.
pub const TIMEOUT_MS: &str = "LEASE_STORY_CLIENT_TIMEOUT_MS";
/// `idle` or `busy`.
pub const LOAD: &str = "LEASE_STORY_CLIENT_LOAD";
/// The name of [`process`] among the tests.
pub const TEST_NAME: &str = "harness::rust_client::process";

/// Not a story: the client itself. Without [`HOSTS`] in its environment it does nothing.
#[test]
fn process() {
    run_if_asked();
}

/// Becomes a client if [`HOSTS`] is set, and says at its end that it was one.
pub fn run_if_asked() -> bool {
    let Ok(hosts) = std::env::var(HOSTS) else {
        return false;
    };
    let timeout_ms = std::env::var(TIMEOUT_MS)
        .ok()
        .and_then(|text| text.parse().ok());
    let timeout = Duration::from_millis(timeout_ms.unwrap_or(6_000));
    let busy = std::env::var(LOAD).is_ok_and(|load| load == "busy");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built")
        .block_on(hold(&hosts, timeout, busy));
    true
}

async fn hold(hosts: &str, timeout: Duration, busy: bool) {
    let client = Client::connector()
        .with_session_timeout(timeout)
        .connect(hosts)
        .await
        .unwrap_or_else(|error| panic!("cannot connect to {hosts}: {error}"));
    let id = client.session_id().0;
    let mut states = client.state_watcher();
    let mut commands = commands();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    say("connected", id);
    loop {
        tokio::select! {
            command = commands.recv() => match command.as_deref() {
                Some("close") | None => break,
                Some(_) => {}
            },
            state = states.changed() => match state {
                SessionState::SyncConnected => say("connected", id),
                SessionState::Disconnected => say("disconnected", id),
                SessionState::Expired => say("expired", id),
                _ => {}
            },
            _ = pace.tick(), if busy => drop(client.get_data("/").await),
        }
    }
    // The last handle closes the session; the watcher ends when that is done.
    drop(client);
    while !states.changed().await.is_terminated() {}
    say("closed", id);
}

fn say(state: &str, id: i64) {
    println!("@ {} {state} {id:#x}", clock::now_us());
}

/// Lines of standard input, read by a thread of their own; closed at its end.
fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
