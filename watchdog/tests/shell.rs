//! The daemon as its operator meets it: exit codes, signals, the port, the event stream. Nothing
//! is attached to the kernel here.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_lease-watchdog");

struct Daemon {
    child: Child,
    events: BufReader<ChildStdout>,
    started: Value,
    dir: tempfile::TempDir,
}

fn config_in(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("lease-watchdog.yaml");
    fs::write(&path, text).unwrap();
    path
}

const FREE_PORT: &str = "http: { listen: \"127.0.0.1:0\" }\n";

impl Daemon {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["run", "--no-probes", "--events", "-", "--config"])
            .arg(config_in(&dir, config))
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut events = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        events.read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).expect(&line);
        assert_eq!(started["event"], "started");
        Self {
            child,
            events,
            started,
            dir,
        }
    }

    fn signal(&self, signal: i32) {
        let pid = self.child.id().cast_signed();
        // SAFETY: kill takes two integers; the child has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn get(&self, path: &str) -> String {
        let address = self.started["http"].as_str().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Reads the log until a line holds `what`.
    fn wait_for_log(log: &mut impl std::io::BufRead, what: &str) -> String {
        let mut all = String::new();
        loop {
            let before = all.len();
            assert_ne!(
                log.read_line(&mut all).unwrap(),
                0,
                "{what:?} never came: {all}"
            );
            if all[before..].contains(what) {
                return all;
            }
        }
    }
}

/// Whoever costs more than allowed says so and goes.
#[test]
fn beyond_its_limits_it_leaves() {
    for (limit, what) in [("cpu: 0.001%", "cpu"), ("memory: 1MiB", "memory")] {
        let mut daemon = Daemon::start(&format!("{FREE_PORT}limits: {{ {limit} }}\n"));
        let mut events = String::new();
        daemon.events.read_to_string(&mut events).unwrap();
        let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "limit_exceeded", "{events}");
        assert_eq!(last["what"], what);
        assert_eq!(daemon.child.wait().unwrap().code(), Some(1));
        let mut log = String::new();
        let stderr = daemon.child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        assert!(log.contains(&format!("limits.{what}: ")), "{log}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn asked_to_stop_it_stops_with_code_0() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut daemon = Daemon::start(FREE_PORT);
        daemon.signal(signal);
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
        // Quiet by default.
        let mut log = String::new();
        daemon
            .child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert_eq!(log, "");
    }
}

#[test]
fn it_answers_where_the_started_event_says() {
    let daemon = Daemon::start(FREE_PORT);
    assert!(
        daemon
            .get("/metrics")
            .contains("\nlease_watchdog_build_info{version=")
    );
    assert!(daemon.get("/nowhere").starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_taken_port_is_code_1_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap();
    let config = config_in(&dir, &format!("http: {{ listen: \"{address}\" }}\n"));
    let output = run(&["run", "--no-probes", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!(
            "http.listen: {address} is taken by another process; stop it or set http.listen to another port\n"
        )
    );
}

#[test]
fn a_wrong_configuration_is_code_2_with_every_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(&dir, "lease: []\nstages: { hard_stall: 1 }\n");
    let config = config.to_str().unwrap();
    for arguments in [&["check-config", config][..], &["run", "--config", config]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(
            stderr(&output),
            format!(
                "{config}:1: lease: unknown key; write \"leases\"\n\
                 {config}:2: stages.hard_stall: \"1\" has no unit; write \"1s\", or \"off\"\n"
            )
        );
    }
    assert_eq!(run(&["run", "--colour"]).status.code(), Some(2));
    assert_eq!(
        run(&["run", "--no-probes", "--events", "/no/such/dir/x"])
            .status
            .code(),
        Some(2)
    );
    fs::write(config, FREE_PORT).unwrap();
    assert_eq!(run(&["check-config", config]).status.code(), Some(0));
}

#[test]
fn the_example_configuration_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let example = include_str!("../../configs/lease-watchdog.yaml");
    let config = config_in(&dir, example);
    let output = run(&["check-config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_reload_with_mistakes_keeps_the_old_configuration_and_says_why() {
    let mut daemon = Daemon::start(FREE_PORT);
    let mut log = BufReader::new(daemon.child.stderr.take().unwrap());
    config_in(&daemon.dir, "leases: []\nstages: { at_risk: 1 }\n");
    daemon.signal(libc::SIGHUP);
    let said = Daemon::wait_for_log(&mut log, "stages.at_risk");
    assert!(said.contains("the old configuration stays"), "{said}");
    assert!(said.contains(":1: leases: is empty"), "{said}");
    config_in(&daemon.dir, FREE_PORT);
    daemon.signal(libc::SIGHUP);
    Daemon::wait_for_log(&mut log, "configuration reloaded");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_does_not_end_it() {
    let mut daemon = Daemon::start(FREE_PORT);
    // The only line so far has been read; the pipe is closed by dropping its reader.
    let null = fs::File::open("/dev/null").unwrap();
    let mut closed = Command::new("true")
        .stdout(Stdio::piped())
        .stdin(null)
        .spawn()
        .unwrap();
    closed.wait().unwrap();
    daemon.events = BufReader::new(closed.stdout.take().unwrap());
    assert!(daemon.get("/metrics").starts_with("HTTP/1.1 200 "));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

/// What is wrong with a file is said in a few lines, whatever is in it, and at once.
#[test]
fn a_file_that_is_no_configuration_is_refused_with_what_is_wrong() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for depth in 1..12 {
        let refs = vec![format!("*a{}", depth - 1); 10].join(", ");
        bomb += &format!("a{depth}: &a{depth} [{refs}]\n");
    }
    let deep = "[".repeat(100_000);
    let many = format!(
        "leases: [{}]\n",
        "{ name: a, protocol: zookeeper, ports: [1] }, ".repeat(900)
    );
    let entry = |name: &str, port: &str| {
        format!("  - {{ name: {name}, protocol: zookeeper, ports: [{port}] }}\n")
    };
    let two = |one: &str, other: &str| format!("leases:\n{one}{other}").into_bytes();
    for (what, text, words) in [
        ("an alias bomb", bomb.into_bytes(), &["bad.yaml"][..]),
        ("deep nesting", deep.into_bytes(), &["bad.yaml"]),
        ("10 MB", vec![b'#'; 10 << 20], &["larger than 1 MiB"]),
        ("too many entries", many.into_bytes(), &["leases", "more than 64"]),
        ("no UTF-8", b"leases: []\n# \xff\xfe\n".to_vec(), &["line 2", "not UTF-8"]),
        ("a NUL", b"http: { listen: \"\0\" }\n".to_vec(), &["bad.yaml"]),
        (
            "a name twice",
            two(&entry("a", "1"), &entry("a", "2")),
            &["leases[1]", "name \"a\" is taken by leases[0]"],
        ),
        (
            "ports that do not exist",
            two(&entry("a", "0"), &entry("b", "65536")),
            &["port 0 does not exist", "port 65536 does not exist"],
        ),
        (
            "a key twice",
            b"leases: []\nleases: []\n".to_vec(),
            &["stands twice"],
        ),
        (
            "an alert to nobody known",
            b"alerts:\n- { on: late, pager: {} }\n".to_vec(),
            &["alerts[0].pager", "unknown key", "alerts[0]: says not whom to tell"],
        ),
        (
            "an alert to two",
            b"alerts:\n- { on: late, exec: { argv: [/bin/true] }, alertmanager: { url: \"http://a\" } }\n".to_vec(),
            &["exec and alertmanager stand in one entry"],
        ),
    ] {
        fs::write(&file, text).unwrap();
        for verb in [&["check-config"][..], &["run", "--no-probes", "--config"]] {
            let path = file.to_str().unwrap();
            let output = run(&[verb, &[path]].concat());
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{what}: {said}");
            assert!(said.lines().count() <= 100, "{what}: {said}");
            for word in words {
                assert!(said.contains(word), "{what}: {said}");
            }
        }
    }
    // A file that others may write, and one that others may put in its place.
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let check = || stderr(&run(&["check-config", file.to_str().unwrap()]));
    assert!(check().contains("may be written by others"), "{}", check());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(
        check().contains("may be exchanged by others"),
        "{}",
        check()
    );
}

/// A reload of a file with mistakes keeps alerts and daemon as they are.
#[test]
fn a_reload_with_a_bad_alert_changes_nothing() {
    let mut daemon = Daemon::start(FREE_PORT);
    let mut log = BufReader::new(daemon.child.stderr.take().unwrap());
    config_in(
        &daemon.dir,
        &format!("{FREE_PORT}alerts: [{{ on: late, webhook: {{ url: nowhere }} }}]\n"),
    );
    daemon.signal(libc::SIGHUP);
    let said = Daemon::wait_for_log(&mut log, "alerts[0].webhook.url");
    assert!(said.contains("the old configuration stays"), "{said}");
    assert!(daemon.get("/healthz").contains("HTTP/1.1"));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

/// A kept hook that leaves at once for ever is counted and said once; the daemon goes on.
#[test]
fn a_kept_hook_that_leaves_at_once_for_ever_is_said_once() {
    let config = format!(
        "{FREE_PORT}alerts: [{{ on: late, exec: {{ argv: [/bin/false], persistent: true }} }}]\n"
    );
    let mut daemon = Daemon::start(&config);
    let mut log = BufReader::new(daemon.child.stderr.take().unwrap());
    let said = Daemon::wait_for_log(&mut log, "started again and again");
    assert!(said.contains("alerts[0] (exec /bin/false)"), "{said}");
    let retries = |daemon: &Daemon| {
        let metrics = daemon.get("/metrics");
        let head = "lease_watchdog_alert_retries_total{alert=\"0\",to=\"exec\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(head));
        line.unwrap().parse::<u64>().unwrap()
    };
    while retries(&daemon) < 3 {
        assert!(daemon.child.try_wait().unwrap().is_none(), "it is alive");
    }
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("/bin/false"), "said once: {rest}");
}
