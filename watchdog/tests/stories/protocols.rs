//! A story per protocol beside ZooKeeper's, with the software that speaks it: a lease is seen at both
//! ends, healthy while all is well, warned of while its holder or its grantor is frozen, renewed, and
//! quietly given up.

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
const HEALTHY: Duration = Duration::from_secs(14);
/// Longer than any timeout here.
const LONG: Duration = Duration::from_secs(40);

/// What differs from protocol to protocol.
struct Cast {
    /// The entry of `leases`, without its name; `PORT` is the server's.
    entry: String,
    server: Program,
    port: u16,
    timeout_ms: i64,
    timeout_source: &'static str,
}

impl Cast {
    fn daemon(&self) -> Daemon {
        let entry = self.entry.replace("PORT", &self.port.to_string());
        let home = Home::with(&format!(
            "leases:\n  - name: lease\n    ports: [{}]\n{entry}\nhttp: {{ listen: \"127.0.0.1:0\" }}\n",
            self.port
        ));
        Daemon::start(&home)
    }
}

fn of<'a>(role: &'a str, kind: &'a str) -> impl Fn(&Event) -> bool + 'a {
    move |event| event.is(kind) && event.text("role") == role
}

/// Waits until the lease is at risk in this role because a process was stopped, and still alive.
#[track_caller]
fn warned(daemon: &Daemon, mark: usize, role: &str) {
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
fn renewed(daemon: &Daemon, mark: usize) {
    for role in ROLES {
        daemon.wait_from(mark, &format!("renewed as {role}"), LONG, |event| {
            of(role, "transition")(event) && event.text("to") == "renewed"
        });
    }
}

/// Seen, healthy, both ends frozen in turn. Gives the lease's name.
fn play(cast: &Cast, daemon: &Daemon, holder: i32) -> String {
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
    let mark = daemon.mark();
    clock::observe_for(HEALTHY);
    let noise: Vec<Event> = daemon
        .events_since(mark)
        .into_iter()
        .filter(|event| event.is("transition") || event.is("lease_gone"))
        .collect();
    daemon.check(noise.is_empty(), &format!("all is well: {noise:?}"));

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
    name
}

/// Nothing is said but that the lease is gone, at both ends.
fn given_up(daemon: &Daemon, mark: usize) {
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

fn exchange(extra: &str) -> Cast {
    let server = Program::python("exchange.py", &["serve"]);
    Cast {
        entry: format!("    protocol: request_reply\n    timeout: 6s\n{extra}"),
        port: server.port(),
        server,
        timeout_ms: 6_000,
        timeout_source: "config",
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
    let mark = daemon.mark();
    clock::observe_for(HEALTHY);
    let noise: Vec<Event> = daemon
        .events_since(mark)
        .into_iter()
        .filter(|event| event.is("transition") || event.is("lease_seen") || event.is("lease_gone"))
        .collect();
    daemon.check(noise.is_empty(), &format!("all is well: {noise:?}"));
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
}

/// Debian's etcd and etcdctl.
struct Etcd {
    cast: Cast,
    endpoint: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
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
        };
        Self {
            cast,
            endpoint,
            _data: data,
        }
    }

    fn control(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/etcdctl");
        command.env("ETCDCTL_API", "3");
        command
            .args(["--endpoints", &self.endpoint])
            .args(arguments);
        command
    }

    /// Grants a lease of 6 s, once the server is there; its id in hexadecimal.
    fn grant(&self) -> String {
        let granted = clock::poll(LONG, || {
            let output = self.control(&["lease", "grant", "6"]).output().ok()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let id = said.strip_prefix("lease ")?.split(' ').next()?.to_owned();
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
