//! `top` in a real terminal (tmux): a frozen holder comes to the top with its reason, the evidence opens
//! by a key, and all is healthy again once it runs.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home, binary};
use crate::harness::event::Stage;
use crate::harness::zookeeper::{Listen, ZooKeeper};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(30);

/// A terminal with a server of its own, gone when dropped.
struct Terminal {
    name: String,
}

impl Terminal {
    fn start(width: u16, height: u16, words: &[&str]) -> Self {
        let name = format!("lease-watchdog-story-{}-{width}", std::process::id());
        let terminal = Self { name };
        let (width, height) = (width.to_string(), height.to_string());
        let mut arguments = vec!["new-session", "-d", "-x", &width, "-y", &height];
        arguments.extend(words);
        terminal.tmux(&arguments);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-L", &self.name])
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .output()
            .expect("tmux is installed: cargo xtask setup");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &str) {
        self.tmux(&["send-keys", keys]);
    }

    /// Waits until what is shown fits.
    #[track_caller]
    fn wait(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let shown = || self.tmux(&["capture-pane", "-p"]);
        clock::poll(SOON, || Some(shown()).filter(|text| fits(text)))
            .unwrap_or_else(|| panic!("no {what} in\n{}", shown()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = Command::new("tmux")
            .args(["-L", &self.name, "kill-server"])
            .output();
    }
}

#[test]
fn a_frozen_holder_comes_to_the_top_with_its_reason() {
    if !Path::new("/usr/bin/tmux").exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "tmux is missing: run `cargo xtask setup`"
        );
        println!("SKIPPED: top::a_frozen_holder: tmux is missing; run `cargo xtask setup`");
        return;
    }
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], "");
    let daemon = Daemon::start(&home);
    let clients = Client::start_all(|kind| Order::idle(kind, server.port(), TIMEOUT));
    for client in &clients {
        daemon.wait_seen(client.id(), "holder", SOON);
    }
    let frozen = clients
        .iter()
        .find(|client| client.name() == Kind::C.name())
        .expect("a client of each kind");
    let id = format!("{:#x}", frozen.id());
    let socket = home.state().join("api.sock");
    let program = binary();
    let words = [
        program.to_str().expect("a plain path"),
        "top",
        "--socket",
        socket.to_str().expect("a plain path"),
    ];
    let wide = Terminal::start(140, 30, &words);
    let narrow = Terminal::start(48, 20, &words);
    // Each lease at both its ends, healthy.
    let rows = |text: &str| text.lines().filter(|line| line.contains("healthy")).count();
    wide.wait("healthy leases", |text| rows(text) >= 2 * clients.len());
    let first_row = |text: &str| {
        text.lines()
            .find(|line| line.contains("0x"))
            .unwrap_or_default()
            .to_owned()
    };
    server.next_renewal(frozen.id());
    let mark = daemon.mark();
    let stopped = frozen.freeze();
    daemon.wait_stage(mark, frozen.id(), "holder", Stage::AtRisk, TIMEOUT);
    let shown = wide.wait("the frozen one at the top, at risk", |text| {
        let text = text.replace('_', " ");
        text.contains("at risk")
            && first_row(&text).contains(&id)
            && text.contains("process stopped")
    });
    println!("story (top):\n{shown}");
    narrow.wait("the same on a narrow terminal", |text| {
        text.replace('_', " ").contains("at risk")
    });
    wide.keys("Enter");
    wide.wait("the evidence", |text| {
        text.replace('_', " ").contains("thread") && text.contains(&id)
    });
    wide.keys("Escape");
    stopped.resume();
    wide.wait("all healthy again", |text| {
        rows(text) >= 2 * clients.len() && !text.replace('_', " ").contains("at risk")
    });
    // It leaves by its key, and gives the terminal back.
    narrow.keys("q");
    let gone = clock::poll(SOON, || {
        let sessions = Command::new("tmux")
            .args(["-L", &narrow.name, "list-sessions"])
            .output()
            .ok()?;
        (!sessions.status.success()).then_some(())
    });
    assert!(gone.is_some(), "q ends it");
}
