//! Stories of TLS at the daemon's own port: Prometheus, curl and `top` come by it, a renewed certificate is
//! shown after a reload, and who dawdles or talks garbage in the handshake delays nobody.

use crate::harness::authority::Authority;
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home, binary};
use crate::harness::process;
use crate::harness::prometheus::Prometheus;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

struct Secure {
    daemon: Daemon,
    home: Home,
    authority: Authority,
}

impl Secure {
    fn start() -> Self {
        let authority = Authority::new();
        let home = Home::with("");
        let (cert, key) = authority.vouch(home.path());
        let text = format!(
            "http:\n  listen: \"127.0.0.1:0\"\n  tls: {{ cert: {}, key: {} }}\n",
            cert.display(),
            key.display()
        );
        std::fs::write(home.config(), text).expect("own folder");
        Self {
            daemon: Daemon::start(&home),
            home,
            authority,
        }
    }

    fn curl(&self, authority: &Path, path: &str) -> Output {
        Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
            .arg(authority)
            .arg(format!("https://{}{path}", self.daemon.http()))
            .output()
            .expect("curl is installed: cargo xtask setup")
    }

    fn answers(&self) -> bool {
        let answer = self.curl(&self.authority.certificate(), "/healthz");
        let said = text(&answer.stderr);
        if !said.is_empty() {
            println!("story (https): {}", said.trim_end());
        }
        answer.status.success()
    }

    fn top(&self, words: &[&str]) -> Output {
        Command::new(binary())
            .args(["top", "--once", "--url"])
            .args(words)
            .output()
            .expect("it can be started")
    }

    /// The certificate that is shown, in PEM.
    fn shown(&self) -> String {
        let script = format!(
            "openssl s_client -connect {} </dev/null 2>/dev/null | openssl x509",
            self.daemon.http()
        );
        let output = Command::new("sh").args(["-c", &script]).output();
        let output = output.expect("openssl is installed: cargo xtask setup");
        String::from_utf8_lossy(&output.stdout).replace(['\r', '\n'], "")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn flat(file: &Path) -> String {
    let pem = std::fs::read_to_string(file).expect("it is there");
    pem.replace(['\r', '\n'], "")
}

#[test]
fn who_trusts_the_authority_is_answered_and_nobody_else() {
    let secure = Secure::start();
    let authority = secure.authority.certificate();
    let prometheus = Prometheus::scraping_by_tls(&secure.daemon.http(), &authority);
    prometheus.wait("up", SOON, |up| up > 0.0);
    prometheus.wait("lease_watchdog_build_info", SOON, |one| one > 0.0);

    let strangers = Authority::new();
    let stranger = strangers.certificate();
    assert!(!secure.curl(&stranger, "/healthz").status.success());

    let url = format!("https://{}", secure.daemon.http());
    let trusted = authority.to_str().expect("a plain path");
    let output = secure.top(&[&url, "--ca", trusted]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = secure.top(&[&url, "--ca", stranger.to_str().expect("a plain path")]);
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("certificate"),
        "{said}"
    );
    // Nobody vouched for it at this node.
    let output = secure.top(&[&url]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let output = secure.top(&[&url, "--ca", "/nonexistent.pem"]);
    let said = text(&output.stderr);
    assert!(
        output.status.code() == Some(2) && said.contains("/nonexistent.pem"),
        "{said}"
    );

    // Who speaks plain HTTP is told.
    let mut plain = TcpStream::connect(secure.daemon.http()).expect("it listens");
    plain.set_read_timeout(Some(SOON)).expect("a time");
    plain
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it is taken");
    let mut answer = String::new();
    let _reset = plain.read_to_string(&mut answer);
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"),
        "{answer}"
    );
    let output = secure.top(&[&url.replace("https", "http")]);
    assert!(!output.status.success());
}

#[test]
fn a_renewed_certificate_is_shown_after_a_reload() {
    let secure = Secure::start();
    let (cert, key) = (
        secure.home.path().join("server.pem"),
        secure.home.path().join("server.key"),
    );
    let first = flat(&cert);
    assert_eq!(secure.shown(), first);
    // A pair that does not fit: as if it were replaced by halves.
    let old_key = std::fs::read(&key).expect("it is there");
    let renewed = secure.authority.vouch(secure.home.path());
    let new_key = std::fs::read(&renewed.1).expect("it is there");
    std::fs::write(&key, &old_key).expect("own folder");
    process::send_signal(secure.daemon.pid(), libc::SIGHUP);
    secure.daemon.wait_stderr("http.tls.key: ", SOON);
    assert_eq!(secure.shown(), first, "the old one stays");
    std::fs::write(&key, new_key).expect("own folder");
    let second = flat(&cert);
    assert_ne!(first, second);
    process::send_signal(secure.daemon.pid(), libc::SIGHUP);
    let shown = clock::poll(SOON, || (secure.shown() == second).then_some(()));
    assert!(shown.is_some(), "{}", secure.daemon.report());
    assert!(secure.answers());
}

#[test]
fn handshakes_that_come_to_nothing_delay_nobody() {
    let secure = Secure::start();
    let connect = || TcpStream::connect(secure.daemon.http()).expect("it listens");
    let mark = secure.daemon.mark();
    // Garbage: a hello that is none, one that is torn, one that promises more than comes.
    for garbage in [
        &b"\0\0\0\0"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
        b"\x80\x2e\x01\x03\x01\x00\x15",
        &[0x16; 20_000],
    ] {
        let mut stream = connect();
        let _reset = stream.write_all(garbage);
    }
    assert!(secure.answers());
    // More than there are places for, and none ever says a word; then as many that stop in the middle.
    for words in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut slow: Vec<TcpStream> = (0..300).map(|_| connect()).collect();
        for stream in &mut slow {
            let _reset = stream.write_all(words);
        }
        let freed = clock::poll(SOON, || secure.answers().then_some(()));
        assert!(freed.is_some(), "the port answers again while they stay");
    }
    // A handshake costs more than what it answers: as many as come in ten seconds do not exhaust the daemon.
    let mut many = Vec::new();
    for _ in 0..4 {
        let script = format!(
            "timeout 10 openssl s_time -connect {} -new -time 10",
            secure.daemon.http()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        many.push(command.spawn().expect("openssl is installed"));
    }
    for mut child in many {
        child.wait().expect("own child");
    }
    let freed = clock::poll(SOON, || secure.answers().then_some(()));
    assert!(freed.is_some(), "{}", secure.daemon.report());
    let said = secure.daemon.events_since(mark);
    secure.daemon.check(
        !said
            .iter()
            .any(|event| event.is("stalled") || event.is("limit_exceeded")),
        "neither held up nor exhausted",
    );
}
