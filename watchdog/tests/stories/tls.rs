//! Stories of leases inside TLS. Of kazoo and Python, which call OpenSSL, the plaintext is read in its calls,
//! and their leases are as good as any. Of ZooKeeper's secure port, which has Java's own TLS, only the times are
//! seen, so every figure is inferred: no floor, nothing above `at_risk`, and even so the warning comes before
//! the server expires the session.

use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::{Event, Stage};
use crate::harness::faults::Stopped;
use crate::harness::program::Program;
use crate::harness::world::{ROLES, TIMEOUT};
use crate::harness::zookeeper::{Listen, ZooKeeper, free_port, parse_id};
use crate::protocols::{Cast, LONG, both_frozen, given_up, healthy, of, renewed};
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
pub struct Secure {
    pub server: ZooKeeper,
    pub port: u16,
    _keys: tempfile::TempDir,
}

impl Secure {
    pub fn start(version: &str) -> Self {
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

/// Of the server's end nothing but the times is seen.
#[track_caller]
fn nothing_claimed(daemon: &Daemon) {
    for event in daemon.events_since(0) {
        let of_a_lease = event.is("transition") || event.is("lease_seen");
        if !of_a_lease || event.text("role") != "grantor" {
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

/// No floor that the holder's end was given lies behind the server's own expiry.
#[track_caller]
fn floors_are_right(daemon: &Daemon, mark: usize, expired_us: i64) {
    let mut floors = 0;
    for event in daemon.events_since(mark) {
        let (Some(at_us), Some(left_ms)) = (event.number("mono_us"), event.number("remaining_ms"))
        else {
            continue;
        };
        if event.text("role") == "holder" && event.stage() > Some(Stage::Healthy) && left_ms > 0 {
            floors += 1;
            daemon.check(
                at_us + left_ms * 1_000 <= expired_us,
                &format!("expired before its floor: {}", event.value),
            );
        }
    }
    daemon.check(floors > 0, "a floor was known");
}

/// Waits until the leases of so many ends are counted from what their frames tell.
#[track_caller]
fn revealed(daemon: &Daemon, source: &str, ends: usize) {
    let revealed = clock::poll(LONG, || {
        let page = daemon.get("/api/v1/leases")?.body;
        let said = format!("\"timeout_source\":\"{source}\"");
        (page.matches(&said).count() == ends).then_some(())
    });
    daemon.check(revealed.is_some(), &format!("{ends} by {source}"));
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
    revealed(&daemon, "config", 1);
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
    floors_are_right(&daemon, mark, expired_us);
    // Its process is known by now, and what it is told when it comes back is read: that session is no more.
    let mark = daemon.mark();
    frozen.resume();
    daemon.wait_from(mark, "gone as holder", LONG, |event| {
        of("holder", "lease_gone")(event) && event.text("reason") == "expired"
    });
    daemon.wait_from(mark, "another session", LONG, |event| {
        of("holder", "lease_seen")(event)
            && event.session().is_some()
            && event.text("timeout_source") == "handshake"
    });
    nothing_claimed(&daemon);
}

#[test]
fn a_session_inside_tls_1_2_is_watched_at_both_ends() {
    play("TLSv1.2");
}

#[test]
fn a_session_inside_tls_1_3_is_watched_at_both_ends() {
    play("TLSv1.3");
}

#[test]
fn the_handshake_inside_tls_is_read() {
    let secure = Secure::start("TLSv1.3");
    let daemon = secure.daemon("");
    let (mut client, _) = secure.client("idle", "TLSv1.3");
    daemon.wait_for("seen", LONG, of("holder", "lease_seen"));
    // By now its calls are seen, and so is a handshake from its first byte on.
    client.tell("again");
    let said = client.wait(1, "session ");
    let id = said.split_once(' ').and_then(|(id, _)| parse_id(id));
    let id = id.expect("an id");
    let seen = daemon.wait_for("the session", LONG, |event| event.of(id, "holder"));
    daemon.check(
        seen.is("lease_seen")
            && seen.number("timeout_ms") == Some(6_000)
            && seen.text("timeout_source") == "handshake",
        &format!("as its handshake says: {}", seen.value),
    );
    let mark = daemon.mark();
    let frozen = secure.server.freeze();
    let told = daemon.wait_from(mark, "in jeopardy", LONG, |event| {
        event.of(id, "holder") && event.stage() == Some(Stage::Jeopardy)
    });
    daemon.check(
        told.text("cause") == "process_stopped" && told.number("remaining_ms") > Some(0),
        &format!("with what is left: {}", told.value),
    );
    let mark = daemon.mark();
    frozen.resume();
    daemon.wait_from(mark, "renewed", LONG, |event| {
        event.of(id, "holder") && event.text("to") == "renewed"
    });
    let mark = daemon.mark();
    client.tell("close");
    client.wait(0, "closed");
    let gone = daemon.wait_from(mark, "gone", LONG, |event| {
        event.of(id, "holder") && event.is("lease_gone")
    });
    daemon.check(gone.text("reason") == "closed", "its end is read too");
}

#[test]
fn both_ends_of_a_keepalive_inside_tls_are_read_where_both_call_openssl() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let inside = inside(folder.path());
    let (cast, daemon, port) = keepalive(&inside);
    let mut client = holds(&inside, &["hold", &port, "1"]);
    revealed(&daemon, "config", 2);
    both_frozen(&cast, &daemon, client.pid());
    let mark = daemon.mark();
    client.tell("close");
    client.wait(0, "closed");
    given_up(&daemon, mark);
}

/// Words that have `exchange.py` talk inside TLS, with a key of its own.
fn inside(folder: &Path) -> [String; 3] {
    let at = |name: &str| folder.join(name).display().to_string();
    let made = Command::new("/usr/bin/openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-subj", "/CN=localhost", "-days", "1"])
        .args(["-keyout", &at("key"), "-out", &at("crt")])
        .output()
        .expect("openssl is installed");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    ["tls".to_owned(), at("crt"), at("key")]
}

fn holds(inside: &[String; 3], words: &[&str]) -> Program {
    let inside = inside.iter().map(String::as_str);
    let all: Vec<&str> = inside.chain(words.iter().copied()).collect();
    Program::python("exchange.py", &all)
}

/// A server of a keepalive inside TLS, and a daemon that tells its renewals by what they begin with.
fn keepalive(inside: &[String; 3]) -> (Cast, Daemon, String) {
    let server = holds(inside, &["serve"]);
    let cast = Cast {
        entry: "    protocol: request_reply\n    tls: true\n    timeout: 6s\n    \
                signature: { offset: 2, bytes: \"72656e6577\" }"
            .to_owned(),
        port: server.port(),
        server,
        timeout_ms: 6_000,
        timeout_source: "config",
        busy: None,
    };
    let daemon = cast.daemon();
    let port = cast.port.to_string();
    (cast, daemon, port)
}

#[test]
fn a_process_that_calls_too_often_is_left_alone_and_followed_by_timing() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let inside = inside(folder.path());
    let (_cast, daemon, port) = keepalive(&inside);
    let idle = holds(&inside, &["hold", &port, "1"]);
    revealed(&daemon, "config", 2);
    let flood = holds(&inside, &["flood", &port]);
    flood.wait(0, "there");
    daemon.wait_stderr("left alone", LONG);
    let mark = daemon.mark();
    // Neither is taken for one in trouble, and another that comes now is a lease all the same.
    let late = holds(&inside, &["hold", &port, "1"]);
    for role in ROLES {
        daemon.wait_from(mark, "seen", LONG, of(role, "lease_seen"));
    }
    clock::observe_for(2 * TIMEOUT);
    let said = daemon.events_since(mark);
    let trouble = said.iter().find(|event| event.is("transition"));
    daemon.check(trouble.is_none(), &format!("all is well: {trouble:?}"));
    drop((idle, flood, late));
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
