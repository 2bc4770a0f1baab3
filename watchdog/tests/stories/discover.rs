//! `discover` on a node with a ZooKeeper on an odd port, an etcd and a keepalive of no protocol in
//! particular: it proposes all three, `check-config` accepts the proposal, and a daemon that runs with it
//! sees all three leases. What only looks regular is not proposed.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::daemon::{Daemon, Home, binary};
use crate::harness::faults::Namespace;
use crate::harness::program::Program;
use crate::harness::zookeeper::{Listen, ZooKeeper};
use crate::protocols::Etcd;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// More than three renewals of everything here.
const SPAN: &str = "14s";

fn proposal(span: &str) -> std::process::Output {
    Command::new(binary())
        .args(["discover", "--for", span])
        .output()
        .expect("it can be started")
}

/// The lines of an entry of the proposal.
fn entry(text: &str, name: &str) -> String {
    let from = text
        .find(&format!("  - name: {name}\n"))
        .unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let rest = &text[from..];
    let end = rest[4..].find("  - name: ").map_or(rest.len(), |at| at + 4);
    rest[..end].to_owned()
}

/// Fetches a page of a server of its own every two seconds, as a scraper would; gives the port.
fn scraper() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            if line == "\r\n" {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).expect("the scraper is there");
            }
            line.clear();
        }
    });
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("it listens");
        while stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            .is_ok()
        {
            std::thread::park_timeout(Duration::from_secs(2));
        }
    });
    address.port()
}

#[test]
fn what_it_proposes_is_accepted_and_sees_the_leases() {
    let server = ZooKeeper::start(Duration::from_secs(6), Listen::Loopback);
    let client = Client::start(Order::idle(Kind::C, server.port(), Duration::from_secs(6)));
    let etcd = Etcd::start();
    let id = etcd.grant();
    let _holder = Program::start(etcd.control(&["lease", "keep-alive", &id]));
    // This one in a network namespace of its own, as in a container.
    let inside = Namespace::create();
    let within = |arguments: &[&str]| {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/stories/harness/programs/exchange.py"
        );
        let mut command = Command::new("ip");
        command.args(&inside.enter()[1..]);
        command.args(["/usr/bin/python3", file]).args(arguments);
        Program::start(command)
    };
    let exchange = within(&["serve"]);
    let opaque = exchange.port();
    let keepalive = within(&["hold", &opaque.to_string(), "2"]);
    keepalive.wait(0, "renewed");
    let scraped = scraper();

    let output = proposal(SPAN);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{complaints}");
    assert_eq!(complaints, "", "no progress into a pipe");
    let of_port = |name: &str, port: u16| {
        let entry = entry(&text, name);
        let ports = entry.lines().find(|line| line.contains("ports: ["));
        let has = ports.is_some_and(|line| {
            line.split(['[', ',', ']'])
                .any(|part| part.trim() == port.to_string())
        });
        assert!(has, "{name} has not port {port}:\n{text}");
        entry
    };
    // Other stories' servers may be there beside.
    of_port("zookeeper", server.port());
    let found = of_port("etcd", etcd.port());
    assert!(
        found.contains("Timeouts seen: ") && found.contains("6s"),
        "{text}"
    );
    let found = of_port(&format!("keepalive-{opaque}"), opaque);
    let cadence = found
        .lines()
        .find_map(|line| line.trim().strip_prefix("renew_every: "))
        .and_then(|span| humantime::parse_duration(span).ok())
        .unwrap_or_else(|| panic!("{text}"));
    // The client's sleep of two seconds, and what a full node adds to it.
    assert!(
        (Duration::from_millis(1900)..Duration::from_millis(2800)).contains(&cadence),
        "{cadence:?} is not about two seconds"
    );
    assert!(!text.contains(&format!("keepalive-{scraped}\n")), "{text}");
    assert!(
        text.contains(&format!("Not proposed: port {scraped}, ")),
        "{text}"
    );

    let home = Home::with(&format!("{text}http: {{ listen: \"127.0.0.1:0\" }}\n"));
    let checked = Command::new(binary())
        .arg("check-config")
        .arg(home.config())
        .output()
        .expect("it can be started");
    assert!(checked.status.success(), "{checked:?}\n{text}");
    let daemon = Daemon::start(&home);
    daemon.wait_for("the ZooKeeper session", SOON, |event| {
        event.is("lease_seen")
            && event.text("lease") == "zookeeper"
            && event.text("peer").ends_with(&format!(":{}", server.port()))
    });
    daemon.wait_for("the etcd lease", SOON, |event| {
        event.is("lease_seen") && event.text("id") == format!("0x{id}")
    });
    daemon.wait_for("the opaque keepalive", SOON, |event| {
        event.is("lease_seen") && event.text("lease") == format!("keepalive-{opaque}")
    });
    println!("story (discover): {} proposed\n{text}", client.name());
}

#[test]
fn without_the_right_to_see_packets_it_says_which_it_lacks() {
    let taken = "-net_raw";
    let output = Command::new("setpriv")
        .args(["--inh-caps", taken, "--bounding-set", taken])
        .arg(binary())
        .args(["discover", "--for", "1s"])
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("CAP_NET_RAW"), "{said}");
    let output = Command::new(binary())
        .args(["discover", "--for", "soon"])
        .output()
        .expect("it can be started");
    assert_eq!(output.status.code(), Some(2));
}
