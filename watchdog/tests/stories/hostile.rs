//! Whoever means ill: wrong tokens, clients that dawdle, garbage, paths that lead upwards, a thousand
//! connections, processes with names that a terminal or a browser would obey. The daemon answers others
//! meanwhile, stays small, and its tick stays punctual.

use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home, binary};
use crate::harness::http;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Beyond it the tick says that it was held up. (Its own promise is milliseconds; a virtual machine's
/// pauses are not the daemon's.)
const LATE_S: f64 = 0.25;
const TOKEN: &str = "an-honest-token-0123456789";

/// What comes until the connection ends.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _broken = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A daemon whose port wants a token.
struct Target {
    daemon: Daemon,
    home: Home,
}

impl Target {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory").keep();
        let token = folder.join("token");
        std::fs::write(&token, TOKEN).expect("the token can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&token, mode).expect("own file");
        let home = Home::with(&format!(
            "http: {{ listen: \"127.0.0.1:0\", token_file: {} }}\n",
            token.display()
        ));
        let daemon = Daemon::start(&home);
        // Read once, at the start.
        std::fs::remove_dir_all(folder).expect("own folder");
        Self { daemon, home }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.daemon.http()).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a time");
        stream.set_write_timeout(Some(SOON)).expect("a time");
        stream
    }

    /// Sends these bytes, and no more will come, and gives all that comes back; a connection that is
    /// reset gives what came before.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _broken = stream.write_all(bytes);
        let _broken = stream.shutdown(Shutdown::Write);
        rest(stream)
    }

    fn ask(&self, path: &str, headers: &str) -> String {
        let mut stream = self.connect();
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n{headers}\r\n");
        let _broken = stream.write_all(request.as_bytes());
        rest(stream)
    }

    /// The metrics, by the Unix socket.
    fn metrics(&self) -> Option<String> {
        let mut stream = UnixStream::connect(self.home.state().join("api.sock")).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn metric(&self, line: &str) -> f64 {
        let metrics = self.metrics().expect("the socket answers");
        let found = metrics.lines().find_map(|at| at.strip_prefix(line));
        let found = found.unwrap_or_else(|| panic!("no {line} in {metrics}"));
        found.trim().parse().expect("a number")
    }

    /// Ticks, and those that were later than [`LATE_S`].
    fn ticks(&self) -> (f64, f64) {
        let metrics = self.metrics().expect("the socket answers");
        let (mut all, mut punctual) = (0.0, 0.0);
        for line in metrics.lines() {
            let Some(rest) = line.strip_prefix("lease_watchdog_tick_late_seconds_") else {
                continue;
            };
            let value: f64 = rest
                .rsplit(' ')
                .next()
                .and_then(|v| v.parse().ok())
                .unwrap_or(0.0);
            if rest.starts_with("count") {
                all = value;
            }
            let bound = rest
                .split_once("le=\"")
                .and_then(|(_, le)| le.split_once('"'));
            let bound: Option<f64> = bound.and_then(|(le, _)| le.parse().ok());
            if rest.starts_with("bucket") && bound.is_some_and(|bound| bound <= LATE_S) {
                punctual = value;
            }
        }
        (all, all - punctual)
    }

    fn resident(&self) -> f64 {
        self.metric("process_resident_memory_bytes ")
    }

    /// Plays an attack; the tick must go on and not be late under it.
    #[track_caller]
    fn under(&self, what: &str, attack: impl FnOnce()) {
        let mark = self.daemon.mark();
        let (before, late_before) = self.ticks();
        let began = clock::now_us();
        attack();
        let took_s = clock::seconds(clock::now_us() - began);
        let (after, late_after) = self.ticks();
        println!(
            "story (hostile): {what}: {took_s:.1} s, {} ticks",
            after - before
        );
        self.daemon.check(
            after - before >= (took_s * 10.0).floor() - 1.0,
            &format!(
                "{what}: half of the ticks at least: {} in {took_s} s",
                after - before
            ),
        );
        self.daemon.check(
            late_after <= late_before,
            &format!("{what}: a tick was late"),
        );
        let said = self.daemon.events_since(mark);
        self.daemon
            .check(!said.iter().any(|event| event.is("stalled")), what);
    }
}

#[test]
fn wrong_tokens_odd_paths_and_garbage_are_refused() {
    let target = Target::start();
    target.under("wrong tokens", || {
        for shown in [
            String::new(),
            "Authorization: Bearer\r\n".to_owned(),
            "Authorization: Bearer wrong\r\n".to_owned(),
            format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
            format!("Authorization: Bearer {TOKEN}x\r\n"),
            format!("Authorization: Basic {TOKEN}\r\n"),
            format!("Authorization: Bearer {}\r\n", "x".repeat(8_000)),
        ] {
            for path in [
                "/metrics",
                "/api/v1/leases",
                "/api/v1/mine?pid=1",
                "/api/v1/stream",
            ] {
                let answer = target.ask(path, &shown);
                assert!(
                    answer.starts_with("HTTP/1.0 401 "),
                    "{path} {shown}: {answer}"
                );
            }
        }
        let honest = format!("Authorization: Bearer {TOKEN}\r\n");
        assert!(target.ask("/metrics", &honest).starts_with("HTTP/1.0 200 "));
        assert!(target.ask("/healthz", "").starts_with("HTTP/1.0 200 "));
    });
    let honest = format!("Authorization: Bearer {TOKEN}\r\n");
    target.under("paths that lead upwards", || {
        for path in [
            "/../../../../etc/passwd",
            "/api/v1/leases/../../../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/api/v1/leases/%2fetc%2fpasswd",
            "/api/v1/incidents/..%00",
            "//etc/passwd",
            "/api/v1/leases/99999999999999999999999999",
            "/api/v1/leases?offset=-1&limit=99999999999999999999",
        ] {
            let answer = target.ask(path, &honest);
            assert!(!answer.contains("root:"), "{path}: {answer}");
            let refused = ["400", "404"]
                .iter()
                .any(|code| answer.starts_with(&format!("HTTP/1.0 {code} ")));
            assert!(refused, "{path}: {answer}");
        }
    });
    target.under("garbage", || {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = |length: usize| -> Vec<u8> {
            let byte = |_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()[3]
            };
            (0..length).map(byte).collect()
        };
        let mut inputs: Vec<Vec<u8>> = (0..40).map(|n| noise(n * 97 + 1)).collect();
        inputs.extend(
            [
                &b"\0\0\0\0"[..],
                b"GET\r\n\r\n",
                b"GET /\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
                b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
                b"POST /api/v1/mutes HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx",
            ]
            .map(<[u8]>::to_vec),
        );
        for input in inputs {
            let answer = target.send(&input);
            assert!(!answer.contains("lease_watchdog_build_info"), "{input:?}: {answer}");
            assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
        }
    });
    let small = target.resident();
    target.under("heads without end", || {
        for _ in 0..8 {
            let mut head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
            head.resize(4 << 20, b'a');
            let answer = target.send(&head);
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(refused, "{answer}");
        }
    });
    let grown = target.resident() - small;
    target
        .daemon
        .check(grown < 24e6, &format!("it grew by {grown} bytes"));
}

#[test]
fn who_dawdles_keeps_others_waiting_for_seconds_at_most() {
    let target = Target::start();
    let answers = |within: Duration| {
        let began = clock::now_us();
        let answer = http::get(&target.daemon.http(), "/healthz");
        let took = Duration::from_micros(u64::try_from(clock::now_us() - began).unwrap_or(0));
        answer.is_some_and(|answer| answer.status == 200) && took < within
    };
    target.under("300 slow clients", || {
        let mut slow: Vec<TcpStream> = (0..300).map(|_| target.connect()).collect();
        for stream in &mut slow {
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\n")
                .expect("it is taken");
        }
        // The socket has places of its own.
        let began = clock::now_us();
        assert!(target.metrics().is_some());
        assert!(
            clock::now_us() - began < 3_000_000,
            "the socket answers at once"
        );
        // A byte now and then does not keep a place.
        let freed = clock::poll(SOON, || {
            for stream in &mut slow {
                let _closed = stream.write_all(b"X");
            }
            answers(Duration::from_secs(5)).then_some(())
        });
        assert!(freed.is_some(), "the port answers again while they go on");
    });
    target.under("a thousand connections", || {
        let idle: Vec<TcpStream> = (0..1_000).map(|_| target.connect()).collect();
        assert!(target.metrics().is_some(), "the socket answers");
        let freed = clock::poll(Duration::from_secs(60), || {
            answers(Duration::from_secs(5)).then_some(())
        });
        assert!(freed.is_some(), "the port answers while they stay");
        drop(idle);
    });
    target.under("questions without end", || {
        let mut kept: Vec<TcpStream> = (0..200).map(|_| target.connect()).collect();
        for stream in &mut kept {
            stream.set_nonblocking(true).expect("a flag");
        }
        let until = clock::now_us() + 12_000_000;
        let many = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
        let mut room = vec![0; 64 * 1024];
        let mut slowest_us = 0;
        while clock::now_us() < until {
            for stream in &mut kept {
                let _full = stream.write(&many);
                if matches!(stream.read(&mut room), Ok(0)) {
                    *stream = target.connect();
                    stream.set_nonblocking(true).expect("a flag");
                }
            }
            let began = clock::now_us();
            assert!(target.metrics().is_some(), "the socket answers");
            slowest_us = slowest_us.max(clock::now_us() - began);
        }
        assert!(
            slowest_us < 3_000_000,
            "the socket's slowest answer: {slowest_us} us"
        );
    });
    target.under("waits without end", || {
        let honest = format!("Authorization: Bearer {TOKEN}\r\n");
        let waiting: Vec<TcpStream> = (0..300)
            .map(|_| {
                let mut stream = target.connect();
                let ask = format!(
                    "GET /api/v1/mine?pid=1&wait=at_risk&timeout=3600 HTTP/1.1\r\nHost: x\r\n{honest}\r\n"
                );
                stream.write_all(ask.as_bytes()).expect("it is taken");
                stream
            })
            .collect();
        let freed = clock::poll(SOON, || answers(Duration::from_secs(5)).then_some(()));
        assert!(freed.is_some(), "the port answers while they wait");
        drop(waiting);
    });
    target
        .daemon
        .check(target.resident() < 64e6, "it stays small");
}

/// A process's name is whatever it likes: here what a terminal would obey, and a browser.
#[test]
fn a_name_that_a_terminal_or_a_browser_would_obey_is_harmless() {
    use crate::harness::program::Program;
    const NAME: &str = "\u{1b}[2J<img/src>";
    let folder = tempfile::tempdir().expect("a temporary directory");
    let exchange = Program::python("exchange.py", &["serve"]);
    let port = exchange.port();
    let home = Home::with(&format!(
        "leases:\n  - {{ name: keep, protocol: request_reply, ports: [{port}], timeout: 6s }}\n\
         http: {{ listen: \"127.0.0.1:0\" }}\n"
    ));
    let daemon = Daemon::start(&home);
    // A process is called by the last part of the path that it was started by; `exec` of the
    // interpreter itself would take that name away again.
    let program = folder.path().join("hold.py");
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/stories/harness/programs/exchange.py"
    );
    std::fs::write(
        &program,
        format!(
            "import sys\nopen('/proc/self/comm', 'wb').write({:?}.encode())\nsys.argv[0] = 'hold'\n\
             exec(open({file:?}).read())\n",
            NAME.replace('\u{1b}', "\\x1b")
        )
        .replace("\\\\x1b", "\\x1b"),
    )
    .expect("it can be written");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(&program).args(["hold", &port.to_string(), "1"]);
    let holder = Program::start(command);
    holder.wait(0, "renewed");
    let seen = daemon.wait_for("the lease", SOON, |event| {
        event.is("lease_seen") && event.text("role") == "holder"
    });
    daemon.check(
        // Escaped once more than JSON would.
        seen.text("comm") == NAME.escape_default().to_string(),
        &format!("told, and harmless: {}", seen.value),
    );
    let raw = |path: &str| daemon.get(path).expect("it answers").body;
    for path in [
        "/api/v1/leases",
        "/api/v1/events",
        "/metrics",
        "/api/v1/overview",
    ] {
        let body = raw(path);
        daemon.check(!body.contains('\u{1b}'), &format!("{path}: {body}"));
    }
    let socket = home.state().join("api.sock");
    let top = clock::poll(SOON, || {
        let output = Command::new(binary())
            .args(["top", "--once", "--socket"])
            .arg(&socket)
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("<img/src>").then_some(text)
    });
    let top = top.expect("top shows it");
    assert!(!top.contains('\u{1b}'), "{top:?}");
    let output = Command::new(binary())
        .args(["discover", "--for", "5s"])
        .output()
        .expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("?[2J<img/src>"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
