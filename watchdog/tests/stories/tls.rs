//! Stories of sessions inside TLS: kazoo and ZooKeeper's own secure port. Of what goes over the wire only
//! the times are seen, so every figure is inferred: no floor, nothing above `at_risk`, and even so the
//! warning comes before the server expires the session.

use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::{Event, Stage};
use crate::harness::faults::Stopped;
use crate::harness::program::Program;
use crate::harness::world::{ROLES, TIMEOUT};
use crate::harness::zookeeper::{Listen, ZooKeeper, free_port, parse_id};
use crate::protocols::{LONG, given_up, healthy, of, renewed};
use std::path::Path;
use std::process::Command;

const PASSWORD: &str = "a-story";

/// A key of the server's own, and a store in which it is trusted.
fn keys(folder: &Path) {
    let tool = |words: &[&str]| {
        let mut command = Command::new("keytool");
        command.current_dir(folder).args(words);
        command.args(["-storetype", "PKCS12", "-storepass", PASSWORD]);
        let output = command.output().expect("the JDK's keytool is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    };
    let key = ["-alias", "server", "-keystore", "key.p12"];
    let new = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost"];
    tool(&[new.as_slice(), &key].concat());
    tool(&[["-exportcert", "-file", "crt"].as_slice(), &key].concat());
    let trust = ["-alias", "server", "-keystore", "trust.p12"];
    let import = ["-importcert", "-noprompt", "-file", "crt"];
    tool(&[import.as_slice(), &trust].concat());
}

/// A server with a secure port beside its plain one, at which it can be asked what it knows.
struct Secure {
    server: ZooKeeper,
    port: u16,
    _keys: tempfile::TempDir,
}

impl Secure {
    fn start(version: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        keys(folder.path());
        let port = free_port();
        // Its defaults are those of TLS 1.2.
        let ciphers = match version {
            "TLSv1.3" => "ssl.ciphersuites=TLS_AES_128_GCM_SHA256\n",
            _ => "",
        };
        let store = |name: &str| folder.path().join(name).display().to_string();
        let extra = format!(
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={}\nssl.keyStore.password={PASSWORD}\n\
             ssl.trustStore.location={}\nssl.trustStore.password={PASSWORD}\n\
             ssl.clientAuth=none\nssl.protocol={version}\nssl.enabledProtocols={version}\n\
             {ciphers}",
            store("key.p12"),
            store("trust.p12"),
        );
        Self {
            server: ZooKeeper::start_with(TIMEOUT, Listen::Loopback, &extra),
            port,
            _keys: folder,
        }
    }

    fn daemon(&self, extra: &str) -> Daemon {
        Daemon::start(&Home::with(&format!(
            "leases:\n  - name: secure\n    protocol: zookeeper\n    tls: true\n    ports: [{}]\n{extra}\
             http: {{ listen: \"127.0.0.1:0\" }}\n",
            self.port
        )))
    }

    /// A client, and its session's id.
    fn client(&self, load: &str, version: &str) -> (Program, u64) {
        let seconds = TIMEOUT.as_secs().to_string();
        let client = Program::python("kazoo_tls.py", &[&self.port.to_string(), &seconds, load]);
        let said = client.wait(0, "session ");
        let (id, spoken) = said.split_once(' ').expect("an id and a version");
        assert_eq!(spoken, version);
        (client, parse_id(id).expect("an id"))
    }
}

/// At risk for what was done, and no figure that could be wrong.
#[track_caller]
fn at_risk(daemon: &Daemon, mark: usize, role: &str) -> Event {
    daemon.wait_from(mark, &format!("{role} at risk"), LONG, |event| {
        of(role, "transition")(event)
            && event.stage() == Some(Stage::AtRisk)
            && event.text("cause") == "process_stopped"
    })
}

#[track_caller]
fn nothing_claimed(daemon: &Daemon) {
    for event in daemon.events_since(0) {
        let of_a_lease = event.is("transition") || event.is("lease_seen");
        if !of_a_lease {
            continue;
        }
        daemon.check(
            event.stage() <= Some(Stage::AtRisk) && event.number("remaining_ms").is_none(),
            &format!("more than is known: {}", event.value),
        );
        daemon.check(
            event.number("timeout_ms").is_none() || event.text("timeout_source") == "inferred",
            &format!("its timeout is not marked: {}", event.value),
        );
    }
}

#[track_caller]
fn seen(daemon: &Daemon, mark: usize) {
    for role in ROLES {
        let seen = daemon.wait_from(
            mark,
            &format!("seen as {role}"),
            LONG,
            of(role, "lease_seen"),
        );
        daemon.check(seen.number("timeout_ms") == Some(6_000), "as configured");
    }
}

fn play(version: &str) {
    let secure = Secure::start(version);
    let daemon = secure.daemon("    timeout: 6s\n");
    let (mut client, _) = secure.client("idle", version);
    seen(&daemon, 0);
    let (busy, _) = secure.client("busy", version);
    healthy(&daemon, Some(busy));
    for role in ROLES {
        daemon.wait_for("the busy one is gone", LONG, of(role, "lease_gone"));
    }

    let mark = daemon.mark();
    let frozen = secure.server.freeze();
    for role in ROLES {
        at_risk(&daemon, mark, role);
    }
    let mark = daemon.mark();
    frozen.resume();
    renewed(&daemon, mark);
    let mark = daemon.mark();
    client.tell("close");
    client.wait(0, "closed");
    given_up(&daemon, mark);

    let mark = daemon.mark();
    let (client, id) = secure.client("idle", version);
    seen(&daemon, mark);
    let frozen = Stopped::stop(client.pid());
    for role in ROLES {
        at_risk(&daemon, mark, role);
    }
    let told_us = clock::now_us();
    let expired_us = secure.server.wait_expiry(id, LONG);
    daemon.check(
        told_us < expired_us,
        "both ends were warned of before the server expired the session",
    );
    // It goes on with another session, which is the same lease as far as can be seen.
    let mark = daemon.mark();
    frozen.resume();
    daemon.wait_from(mark, "renewed as holder", LONG, |event| {
        of("holder", "transition")(event) && event.text("to") == "renewed"
    });
    nothing_claimed(&daemon);
}

#[test]
fn a_session_inside_tls_1_2_is_watched_by_its_timing() {
    play("TLSv1.2");
}

#[test]
fn a_session_inside_tls_1_3_is_watched_by_its_timing() {
    play("TLSv1.3");
}

#[test]
fn without_a_timeout_the_cadence_is_learned_from_records() {
    let secure = Secure::start("TLSv1.3");
    let (client, id) = secure.client("idle", "TLSv1.3");
    // It is older than the daemon: its records are met in mid-stream.
    let daemon = secure.daemon("");
    for role in ROLES {
        daemon.wait_for(&format!("seen as {role}"), LONG, of(role, "lease_seen"));
    }
    // A few pings, each after a third of the timeout.
    clock::observe_for(2 * TIMEOUT);
    let mark = daemon.mark();
    let frozen = Stopped::stop(client.pid());
    for role in ROLES {
        let said = at_risk(&daemon, mark, role);
        let inferred = said.number("timeout_ms").expect("a timeout");
        daemon.check(
            (5_000..7_500).contains(&inferred),
            &format!("three of its pings are its timeout: {inferred}"),
        );
    }
    let told_us = clock::now_us();
    daemon.check(
        told_us < secure.server.wait_expiry(id, LONG),
        "warned before the server expired it",
    );
    drop(frozen);
    nothing_claimed(&daemon);
}

#[test]
fn what_is_no_tls_is_not_taken_for_it() {
    let server = Program::python("exchange.py", &["serve"]);
    let port = server.port();
    let daemon = Daemon::start(&Home::with(&format!(
        "leases:\n  - name: plain\n    protocol: request_reply\n    tls: true\n    ports: [{port}]\n\
         http: {{ listen: \"127.0.0.1:0\" }}\n"
    )));
    let _client = Program::python("exchange.py", &["hold", &port.to_string(), "1"]);
    let opaque = clock::poll(LONG, || {
        let page = daemon.get("/metrics")?.body;
        page.lines()
            .any(|line| {
                line.starts_with("lease_watchdog_flows{")
                    && line.contains("opaque")
                    && line.ends_with(" 2")
            })
            .then_some(())
    });
    daemon.check(opaque.is_some(), "both ends are counted as opaque");
    let said = daemon.events_since(0).into_iter();
    daemon.check(
        !said.into_iter().any(|event| event.is("lease_seen")),
        "no lease is made of it",
    );
}
