//! A story per protocol beside ZooKeeper's, with the software that speaks it: a lease is seen at both
//! ends, healthy for a minute under load, warned of while its holder or its grantor is frozen, renewed,
//! and quietly given up. What else is told of leases without a handshake: `exchanges`.

use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::{Event, Stage};
use crate::harness::faults::Stopped;
use crate::harness::process::send_signal;
use crate::harness::program::Program;
use crate::harness::world::ROLES;
use std::process::Command;
use std::time::Duration;

/// What a lease is looked at for while all is well.
const HEALTHY: Duration = Duration::from_secs(60);
/// Longer than any timeout here.
pub const LONG: Duration = Duration::from_secs(40);

/// What differs from protocol to protocol.
pub struct Cast {
    /// The entry of `leases`, without its name; `PORT` is the server's.
    pub entry: String,
    pub server: Program,
    pub port: u16,
    pub timeout_ms: i64,
    pub timeout_source: &'static str,
    /// A program that keeps the server busy until it is told to close: its file and words, before the
    /// port.
    pub busy: Option<(
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
    )>,
}

impl Cast {
    fn start_busy(&self) -> Option<Program> {
        let (file, before, after) = self.busy?;
        let port = self.port.to_string();
        let words = [before, &[port.as_str()], after].concat();
        Some(Program::python(file, &words))
    }

    pub fn daemon(&self) -> Daemon {
        let entry = self.entry.replace("PORT", &self.port.to_string());
        let home = Home::with(&format!(
            "leases:\n  - name: lease\n    ports: [{}]\n{entry}\nhttp: {{ listen: \"127.0.0.1:0\" }}\n",
            self.port
        ));
        Daemon::start(&home)
    }
}

pub fn of<'a>(role: &'a str, kind: &'a str) -> impl Fn(&Event) -> bool + 'a {
    move |event| event.is(kind) && event.text("role") == role
}

/// Waits until the lease is at risk in this role because a process was stopped, and still alive.
#[track_caller]
pub fn warned(daemon: &Daemon, mark: usize, role: &str) {
    let warned = daemon.wait_from(mark, &format!("{role} at risk, stopped"), LONG, |event| {
        event.text("role") == role
            && event.stage() >= Some(Stage::AtRisk)
            && event.text("cause") == "process_stopped"
    });
    daemon.check(
        warned.number("remaining_ms").is_some_and(|left| left > 0),
        "warned before it may lapse",
    );
}

#[track_caller]
pub fn renewed(daemon: &Daemon, mark: usize) {
    for role in ROLES {
        daemon.wait_from(mark, &format!("renewed as {role}"), LONG, |event| {
            of(role, "transition")(event) && event.text("to") == "renewed"
        });
    }
}

/// Nothing at all is said of any lease for a minute, while a CPU is kept busy by whom everybody comes
/// before, and the server by another client. That ends in order when it is told to.
#[track_caller]
pub fn healthy(daemon: &Daemon, busy: Option<Program>) {
    let mut hog = Command::new("/usr/bin/nice");
    hog.args(["-n", "19", "/usr/bin/python3", "-c", "while True: pass"]);
    let _hog = Program::start(hog);
    let mark = daemon.mark();
    clock::observe_for(HEALTHY);
    let noise: Vec<Event> = daemon
        .events_since(mark)
        .into_iter()
        .filter(|event| event.is("transition") || event.is("lease_gone"))
        .collect();
    daemon.check(noise.is_empty(), &format!("all is well: {noise:?}"));
    if let Some(mut client) = busy {
        client.tell("close");
        client.wait(0, "closed");
    }
}

/// Seen, healthy, both ends frozen in turn. Gives the lease's name.
pub fn play(cast: &Cast, daemon: &Daemon, holder: i32) -> String {
    let mut name = String::new();
    for role in ROLES {
        let seen = daemon.wait_for(
            &format!("lease_seen as {role}"),
            LONG,
            of(role, "lease_seen"),
        );
        if role == "holder" {
            name = seen.text("id").to_owned();
        }
    }
    let told = daemon.wait_for("the timeout", LONG, |event| {
        event.number("timeout_ms") == Some(cast.timeout_ms)
    });
    daemon.check(
        told.text("timeout_source") == cast.timeout_source,
        "where the timeout is known from",
    );
    healthy(daemon, cast.start_busy());
    both_frozen(cast, daemon, holder);
    name
}

/// Both ends frozen in turn.
pub fn both_frozen(cast: &Cast, daemon: &Daemon, holder: i32) {
    let mark = daemon.mark();
    let frozen = Stopped::stop(holder);
    warned(daemon, mark, "holder");
    warned(daemon, mark, "grantor");
    let mark = daemon.mark();
    frozen.resume();
    renewed(daemon, mark);

    let mark = daemon.mark();
    let frozen = Stopped::stop(cast.server.pid());
    warned(daemon, mark, "grantor");
    warned(daemon, mark, "holder");
    let mark = daemon.mark();
    frozen.resume();
    renewed(daemon, mark);
}

/// Nothing is said but that the lease is gone, at both ends.
#[track_caller]
pub fn given_up(daemon: &Daemon, mark: usize) {
    for role in ROLES {
        let gone = daemon.wait_from(
            mark,
            &format!("gone as {role}"),
            LONG,
            of(role, "lease_gone"),
        );
        daemon.check(gone.text("reason") == "closed", &format!("{}", gone.value));
    }
    let said = daemon.events_since(mark);
    daemon.check(
        !said.iter().any(|event| event.is("transition")),
        "a lease that is given up is no trouble",
    );
}

pub fn exchange(extra: &str) -> Cast {
    let server = Program::python("exchange.py", &["serve"]);
    Cast {
        entry: format!("    protocol: request_reply\n    timeout: 6s\n{extra}"),
        port: server.port(),
        server,
        timeout_ms: 6_000,
        timeout_source: "config",
        busy: Some(("exchange.py", &["hold"], &["0.005"])),
    }
}

#[test]
fn an_opaque_keepalive_is_a_lease_like_any_other() {
    let cast = exchange("");
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    let mut client = Program::python("exchange.py", &["hold", &port, "2"]);
    let name = play(&cast, &daemon, client.pid());
    daemon.check(
        name.ends_with(&format!(">127.0.0.1:{port}")),
        "called by its addresses",
    );
    let mark = daemon.mark();
    client.tell("close");
    client.wait(0, "closed");
    given_up(&daemon, mark);
}

#[test]
fn only_the_processes_that_are_wanted_are_watched() {
    let cast = exchange("    role: holder\n    processes: [no-such-name]\n");
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    let unwanted = Program::python("exchange.py", &["hold", &port, "1"]);
    for mark in 0..3 {
        unwanted.wait(mark, "renewed");
    }
    let said = daemon.events_since(0);
    daemon.check(
        !said.iter().any(|event| event.is("lease_seen")),
        "it is not wanted",
    );
    drop(daemon);
    let cast = Cast {
        entry: cast.entry.replace("no-such-name", "python3"),
        ..cast
    };
    let daemon = cast.daemon();
    daemon.wait_for("lease_seen", LONG, of("holder", "lease_seen"));
}

/// A test broker: no broker of Kafka's own is among Debian's packages. The clients are real.
fn kafka() -> Cast {
    let server = Program::python("kafka_broker.py", &[]);
    Cast {
        entry: "    protocol: kafka\n".to_owned(),
        port: server.port(),
        server,
        timeout_ms: 6_000,
        timeout_source: "handshake",
        busy: Some(("kafka_consumer.py", &[], &[])),
    }
}

#[test]
fn a_membership_of_kafka_python_is_a_lease() {
    let cast = kafka();
    let daemon = cast.daemon();
    let mut consumer = Program::python("kafka_consumer.py", &[&cast.port.to_string()]);
    play(&cast, &daemon, consumer.pid());
    let mark = daemon.mark();
    consumer.tell("close");
    consumer.wait(0, "closed");
    given_up(&daemon, mark);
}

#[test]
fn a_membership_of_librdkafka_is_a_lease() {
    let cast = kafka();
    let daemon = cast.daemon();
    let mut command = Command::new("/usr/bin/kcat");
    command.args([
        "-b",
        &format!("127.0.0.1:{}", cast.port),
        "-G",
        "librdkafka",
    ]);
    command.args([
        "-X",
        "session.timeout.ms=6000",
        "-X",
        "heartbeat.interval.ms=2000",
    ]);
    command.arg("topic");
    let consumer = Program::start(command);
    play(&cast, &daemon, consumer.pid());
    let mark = daemon.mark();
    // It leaves its group upon an interrupt.
    send_signal(consumer.pid(), libc::SIGINT);
    cast.server.wait(0, "left");
    given_up(&daemon, mark);
}

/// A test server: Debian has no Consul. Its clients are Python's own and curl.
fn consul() -> Cast {
    let server = Program::python("consul.py", &["serve"]);
    Cast {
        entry: "    protocol: consul\n    timeout: 6s\n".to_owned(),
        port: server.port(),
        server,
        timeout_ms: 6_000,
        timeout_source: "config",
        // It renews the same session: not for the one that has a connection for each renewal.
        busy: None,
    }
}

const CONSUL_SESSION: &str = "0xadf4238a882b9ddc";

#[test]
fn a_consul_session_on_one_connection_is_a_lease() {
    let cast = consul();
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    let mut client = Program::python("consul.py", &["hold", &port, "2"]);
    let name = play(&cast, &daemon, client.pid());
    daemon.check(name == CONSUL_SESSION, "called by its session");
    let mark = daemon.mark();
    client.tell("close");
    client.wait(0, "closed");
    given_up(&daemon, mark);
}

#[test]
fn a_consul_session_with_a_connection_for_each_renewal_is_one_lease() {
    let cast = consul();
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    let client = Program::python("consul.py", &["curl", &port, "2"]);
    for role in ROLES {
        let seen = daemon.wait_for(&format!("seen as {role}"), LONG, of(role, "lease_seen"));
        daemon.check(seen.text("id") == CONSUL_SESSION, "called by its session");
    }
    let seen = daemon.mark();
    healthy(&daemon, None);
    let again = daemon.events_since(seen).into_iter();
    let again: Vec<Event> = again.filter(|event| event.is("lease_seen")).collect();
    daemon.check(again.is_empty(), &format!("it is one lease: {again:?}"));
    let mark = daemon.mark();
    let frozen = Stopped::stop(client.pid());
    for role in ROLES {
        daemon.wait_from(mark, &format!("{role} at risk"), LONG, |event| {
            event.text("role") == role && event.stage() >= Some(Stage::AtRisk)
        });
    }
    let mark = daemon.mark();
    frozen.resume();
    renewed(&daemon, mark);

    // The server's turn: the next renewal's connection is accepted by its kernel, and never answered.
    let mark = daemon.mark();
    let frozen = Stopped::stop(cast.server.pid());
    for role in ROLES {
        daemon.wait_from(mark, &format!("{role} at risk, stopped"), LONG, |event| {
            event.text("role") == role
                && event.stage() >= Some(Stage::AtRisk)
                && event.text("cause") == "process_stopped"
        });
    }
    let mark = daemon.mark();
    frozen.resume();
    renewed(&daemon, mark);
}

/// Debian's etcd and etcdctl.
pub struct Etcd {
    cast: Cast,
    endpoint: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    /// Starts one on free ports.
    pub fn start() -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
            listener.local_addr().expect("it is bound").port()
        };
        let (port, peer_port) = (free(), free());
        let data = tempfile::tempdir().expect("a temporary directory");
        let (endpoint, peers) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer_port}"),
        );
        let mut command = Command::new("/usr/bin/etcd");
        command.arg("--data-dir").arg(data.path());
        command.args(["--listen-client-urls", &endpoint]);
        command.args(["--advertise-client-urls", &endpoint]);
        command.args(["--listen-peer-urls", &peers]);
        command.args(["--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        let cast = Cast {
            entry: "    protocol: etcd\n".to_owned(),
            server: Program::start(command),
            port,
            timeout_ms: 6_000,
            timeout_source: "handshake",
            busy: None,
        };
        Self {
            cast,
            endpoint,
            _data: data,
        }
    }

    /// The port it serves.
    pub fn port(&self) -> u16 {
        self.cast.port
    }

    /// Its client, with these arguments.
    pub fn control(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/etcdctl");
        command.env("ETCDCTL_API", "3");
        command
            .args(["--endpoints", &self.endpoint])
            .args(arguments);
        command
    }

    /// Grants a lease of 6 s, once the server is there; its id in hexadecimal.
    pub fn grant(&self) -> String {
        let granted = clock::poll(LONG, || {
            let output = self.control(&["lease", "grant", "6"]).output().ok()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let id = said.strip_prefix("lease ")?.split(' ').next()?;
            // Sixteen digits, zeros in front.
            let id = id.trim_start_matches('0').to_owned();
            output.status.success().then_some(id)
        });
        granted.unwrap_or_else(|| panic!("no lease\n{}", self.cast.server.report()))
    }
}

#[test]
fn an_etcd_lease_is_a_lease() {
    let etcd = Etcd::start();
    let daemon = etcd.cast.daemon();
    let id = etcd.grant();
    let holder = Program::start(etcd.control(&["lease", "keep-alive", &id]));
    let name = play(&etcd.cast, &daemon, holder.pid());
    daemon.check(name == format!("0x{id}"), "called by its own id");
    let mark = daemon.mark();
    let output = etcd.control(&["lease", "revoke", &id]).output();
    daemon.check(
        output.is_ok_and(|output| output.status.success()),
        "it can be revoked",
    );
    let gone = daemon.wait_from(mark, "gone as holder", LONG, of("holder", "lease_gone"));
    daemon.check(
        gone.text("reason") == "expired",
        "the server says that it is no more",
    );
}

#[test]
fn leases_of_etcd_that_share_a_connection_are_each_followed() {
    let etcd = Etcd::start();
    let daemon = etcd.cast.daemon();
    let ids = [etcd.grant(), etcd.grant(), etcd.grant()];
    let port = etcd.cast.port.to_string();
    let words: Vec<&str> = std::iter::once(&port)
        .chain(&ids)
        .map(String::as_str)
        .collect();
    let mut holder = Program::python("etcd_leases.py", &words);
    let called = |id: &str| format!("0x{id}");
    for id in &ids {
        for role in ROLES {
            daemon.wait_for(&format!("{id} seen as {role}"), LONG, |event| {
                of(role, "lease_seen")(event) && event.text("id") == called(id)
            });
        }
    }
    healthy(&daemon, None);

    // One of them is no longer kept alive, and lapses alone.
    let mark = daemon.mark();
    let [kept, dropped, _] = &ids;
    holder.tell(&format!("drop {dropped}"));
    holder.wait(0, "dropped");
    for role in ROLES {
        let at_risk = daemon.wait_from(mark, &format!("{role} at risk"), LONG, |event| {
            of(role, "transition")(event) && event.stage() >= Some(Stage::AtRisk)
        });
        daemon.check(
            at_risk.text("id") == called(dropped)
                && at_risk.number("remaining_ms").is_some_and(|left| left > 0),
            "the one that is not renewed, while it lives",
        );
    }
    for role in ROLES {
        daemon.wait_from(mark, &format!("lapsed as {role}"), LONG, |event| {
            of(role, "transition")(event) && event.stage() == Some(Stage::Lapsed)
        });
    }
    let lives = |id: &str| {
        let listed = etcd.control(&["lease", "list"]).output();
        let listed = listed.expect("etcdctl runs").stdout;
        String::from_utf8_lossy(&listed).contains(id)
    };
    let ended = clock::poll(LONG, || (!lives(dropped)).then_some(()));
    daemon.check(ended.is_some() && lives(kept), "etcd says the same");
    let said = daemon.events_since(mark);
    let others = said
        .iter()
        .filter(|event| event.is("transition") && event.text("id") != called(dropped));
    daemon.check(others.count() == 0, "nothing is said of the others");

    let mark = daemon.mark();
    let frozen = Stopped::stop(holder.pid());
    let of_kept =
        |role, event: &Event| of(role, "transition")(event) && event.text("id") == called(kept);
    for role in ROLES {
        let warned = daemon.wait_from(mark, &format!("{role} at risk"), LONG, |event| {
            of_kept(role, event)
                && event.stage() >= Some(Stage::AtRisk)
                && event.text("cause") == "process_stopped"
        });
        let left = warned.number("remaining_ms");
        daemon.check(left.is_some_and(|left| left > 0), "before it may lapse");
    }
    let mark = daemon.mark();
    frozen.resume();
    for role in ROLES {
        daemon.wait_from(mark, &format!("{role} renewed"), LONG, |event| {
            of_kept(role, event) && event.text("to") == "renewed"
        });
    }
}
