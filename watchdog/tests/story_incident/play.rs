//! The play itself. Out: everything that was said, by the programs, by ZooKeeper's log and by the
//! daemons, on one clock. Never: a judgement; and nothing is left behind.

use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Event;
use crate::harness::process::Child;
use crate::harness::transcript::{Line, Transcript, text_of};
use crate::harness::zookeeper::{Listen, ZooKeeper, free_port, parse_id};
use crate::network::{NODES, Network};
use crate::programs::RENEW_US;
use crate::rig::hung_disk::HungDisk;
use std::process::Command;
use std::time::Duration;

/// The node that the server runs on, a chunk server beside it.
pub const SERVER_NODE: u8 = 161;
/// The machine itself, where ZooKeeper runs.
pub const MACHINE: u8 = 1;
/// For so long the disk hangs.
pub const HANG_US: i64 = 10 * SECOND;
/// So long after the renewals it begins: a second before the next, so that none is in hand, and all
/// are older than the lease when it ends.
const AFTER_RENEWALS_US: i64 = 3 * SECOND;
/// Anything that happens at all happens within this time.
const SOON: Duration = Duration::from_secs(15);

/// What a program said.
#[derive(Clone, Debug)]
pub struct Said {
    /// When, by its own stamp.
    pub at_us: i64,
    /// What.
    pub word: String,
    /// Of which lease or session.
    pub name: String,
}

/// What one daemon said.
#[derive(Debug)]
pub struct Watched {
    /// The node that it was told to watch.
    pub node: u8,
    /// Its events.
    pub events: Vec<Event>,
}

/// All that was said.
#[derive(Debug)]
pub struct Told {
    /// Where the server's service is had.
    pub service: String,
    /// The server's own address, without a port.
    pub server: String,
    /// The disk's device.
    pub device: String,
    /// When the disk began to hang, and when it worked again.
    pub hang_us: (i64, i64),
    /// The server's session of ZooKeeper.
    pub session: u64,
    /// When ZooKeeper expired it, by its own log.
    pub session_expired_us: Option<i64>,
    /// What the server said.
    pub meta: Vec<Said>,
    /// What each chunk server said, by node.
    pub chunks: Vec<(u8, Vec<Said>)>,
    /// What each daemon said, that of the server's node first.
    pub daemons: Vec<Watched>,
    /// Addresses of the nodes, to tell whose is whose.
    pub addresses: Vec<(u8, String)>,
}

impl Told {
    /// When the server expired each lease, by its own stamp.
    pub fn expiries(&self) -> Vec<(&str, i64)> {
        let expired = self.meta.iter().filter(|said| said.word == "expired");
        expired
            .map(|said| (said.name.as_str(), said.at_us))
            .collect()
    }

    /// The first expiry, of a lease or of the session.
    pub fn first_expiry_us(&self) -> Option<i64> {
        let leases = self.expiries().into_iter().map(|(_, at_us)| at_us);
        leases.chain(self.session_expired_us).min()
    }

    /// The events of a node's daemon.
    pub fn events(&self, node: u8) -> &[Event] {
        let of = self.daemons.iter().find(|watched| watched.node == node);
        of.map_or(&[], |watched| &watched.events)
    }

    /// The node that an address belongs to.
    pub fn node_of(&self, address: &str) -> Option<u8> {
        let host = address.rsplit_once(':')?.0;
        let found = self.addresses.iter().find(|(_, known)| known == host);
        found.map(|(node, _)| *node)
    }
}

/// A program on a node.
struct Actor {
    _child: Child,
    said: Transcript<Said>,
    errors: Transcript<Line>,
}

impl Actor {
    fn start(network: &Network, node: u8, words: &[&str]) -> Self {
        let [enter, net] = network.enter(node);
        let mut command = Command::new(enter);
        command
            .arg(net)
            .arg(std::env::current_exe().expect("a program knows its own binary"))
            .args(words);
        let mut child = Child::start(command);
        let (said, errors) = (Transcript::new(), Transcript::new());
        said.feed(child.take_stdout(), |_, line| parse(line));
        errors.feed(child.take_stderr(), Line::keep);
        // Standard input stays open in the child's handle: its end would end the program.
        Self {
            _child: child,
            said,
            errors,
        }
    }

    fn wait(&self, from: usize, what: &str) -> Said {
        let found = self
            .said
            .wait(from, SOON, |said| (said.word == what).then(|| said.clone()));
        found.unwrap_or_else(|| {
            panic!(
                "nobody said {what:?} within {SOON:?}: {:?}\n{}",
                self.said.tail(5),
                text_of(&self.errors.tail(20))
            )
        })
    }
}

/// `@ MONO_US WORD NAME`.
fn parse(line: &str) -> Option<Said> {
    let mut words = line.strip_prefix("@ ")?.split(' ');
    Some(Said {
        at_us: words.next()?.parse().ok()?,
        word: words.next()?.to_owned(),
        name: words.next()?.to_owned(),
    })
}

fn config(meta_port: u16, zookeeper_port: u16, netns: &str) -> String {
    format!(
        "leases:\n\
         \x20 - name: access\n    protocol: request_reply\n    ports: [{meta_port}]\n    \
         timeout: 12s\n    renew_every: 4s\n\
         \x20 - name: zookeeper\n    protocol: zookeeper\n    ports: [{zookeeper_port}]\n\
         scope: {{ netns: {netns} }}\n\
         http: {{ listen: \"127.0.0.1:0\" }}\n"
    )
}

/// Plays it.
///
/// # Errors
/// What this machine lacks for it.
///
/// # Panics
/// If a part of the stage does not come up.
pub fn play() -> Result<Told, String> {
    // SAFETY: has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Err("needs root".to_owned());
    }
    for tool in ["ip", "nsenter", "bindfs", "losetup", "mkfs.ext4", "java"] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool} >/dev/null")])
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{tool} is missing: run `cargo xtask setup`"));
        }
    }
    let network = Network::create();
    let disk = HungDisk::create("defaults");
    let zookeeper = ZooKeeper::start_with(
        Duration::from_secs(40),
        Listen::Everywhere,
        // It looks at its sessions this often, in ms.
        "tickTime=500",
    );
    let meta_port = free_port();
    let service = format!("{}:{meta_port}", network.address(SERVER_NODE));
    let watched: Vec<(u8, Home)> = NODES
        .into_iter()
        .map(|node| (node, network.path(node)))
        .chain([(MACHINE, "self".to_owned())])
        .map(|(node, netns)| {
            let config = config(meta_port, zookeeper.port(), &netns);
            (node, Home::with(&config))
        })
        .collect();
    let daemons: Vec<(u8, Daemon)> = watched
        .iter()
        .map(|(node, home)| (*node, Daemon::start(home)))
        .collect();
    let log = disk.mount().join("meta.log").display().to_string();
    let quorum = format!("{}:{}", network.machine(), zookeeper.port());
    let meta = Actor::start(&network, SERVER_NODE, &["meta", &service, &quorum, &log]);
    let session = meta.wait(0, "session").name;
    meta.wait(0, "listening");
    let chunks: Vec<(u8, Actor)> = (0_i64..)
        .zip(NODES)
        .map(|(number, node)| {
            let offset_us = (number * 50_000).to_string();
            let name = network.address(node);
            let words = ["chunk", &service, &name, &offset_us];
            (node, Actor::start(&network, node, &words))
        })
        .collect();
    see_all(&daemons, &chunks, &session);
    let hang_us = hang(&disk, &meta, &chunks);
    // All is well again: each chunk server is back, with its lease.
    for (_, chunk) in &chunks {
        let lost = chunk
            .said
            .since(0)
            .iter()
            .rposition(|said| said.word == "lost" || said.word == "closed");
        chunk.wait(lost.unwrap_or(0), "answered");
    }
    clock::observe_for(Duration::from_secs(2));
    let id = parse_id(&session).expect("an id");
    let expired = zookeeper.expiries().into_iter().find(|(of, _)| *of == id);
    let addresses = NODES
        .into_iter()
        .map(|node| (node, network.address(node)))
        .chain([(MACHINE, network.machine())])
        .collect();
    Ok(Told {
        server: network.address(SERVER_NODE),
        service,
        device: disk.device.clone(),
        hang_us,
        session: id,
        session_expired_us: expired.map(|(_, at_us)| at_us),
        meta: meta.said.since(0),
        chunks: chunks
            .iter()
            .map(|(node, chunk)| (*node, chunk.said.since(0)))
            .collect(),
        daemons: daemons
            .iter()
            .map(|(node, daemon)| Watched {
                node: *node,
                events: daemon.events_since(0),
            })
            .collect(),
        addresses,
    })
}

/// Waits until each daemon sees what is its own.
fn see_all(daemons: &[(u8, Daemon)], chunks: &[(u8, Actor)], session: &str) {
    for (_, chunk) in chunks {
        // The second answer is that of a common second.
        let first = chunk.wait(0, "answered");
        chunk.said.wait(0, SOON, |said| {
            (said.word == "answered" && said.at_us > first.at_us).then_some(())
        });
    }
    for (node, daemon) in daemons {
        let (lease, role, count) = match *node {
            SERVER_NODE => ("access", "grantor", NODES.len()),
            MACHINE => ("zookeeper", "grantor", 1),
            _ => ("access", "holder", 1),
        };
        let seen = clock::poll(SOON, || {
            let events = daemon.events_since(0);
            let of = events.iter().filter(|event| {
                event.is("lease_seen") && event.text("lease") == lease && event.text("role") == role
            });
            (of.count() >= count).then_some(())
        });
        daemon.check(
            seen.is_some(),
            &format!("the daemon of .{node} does not see {count} {lease} leases as {role}"),
        );
    }
    let (_, server) = &daemons[0];
    server.wait_for("the server's session", SOON, |event| {
        event.is("lease_seen") && event.text("id") == session && event.text("role") == "holder"
    });
}

/// Hangs the disk for its time, and waits until the server has expired what it then expires.
fn hang(disk: &HungDisk, meta: &Actor, chunks: &[(u8, Actor)]) -> (i64, i64) {
    // Not this second's renewals but the next: they must not be half done.
    let renewals_us = (clock::now_us() / RENEW_US + 1) * RENEW_US;
    clock::observe_until(renewals_us + AFTER_RENEWALS_US);
    let renewed = meta.said.since(0);
    let lately = renewed.iter().filter(|said| {
        said.word == "renewed" && (renewals_us..renewals_us + SECOND).contains(&said.at_us)
    });
    assert_eq!(
        lately.count(),
        chunks.len(),
        "the leases were not all renewed when they should have been: {:?}",
        meta.said.tail(8)
    );
    let mark = meta.said.len();
    let hanging = disk.hang();
    let since_us = hanging.since_us;
    clock::observe_until(since_us + HANG_US);
    drop(hanging);
    let over_us = clock::now_us();
    let expired = clock::poll(SOON, || {
        let said = meta.said.since(mark);
        let expired = said.iter().filter(|said| said.word == "expired").count();
        (expired == chunks.len()).then_some(())
    });
    assert!(
        expired.is_some(),
        "the server did not expire its leases: {:?}",
        meta.said.since(mark)
    );
    (since_us, over_us)
}
