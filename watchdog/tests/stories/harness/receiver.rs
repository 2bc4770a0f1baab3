//! An HTTP server that takes POSTs as a pager does, and an Alertmanager that pages it.
//!
//! Out: each body with the moment of its arrival, in order.

use super::clock;
use super::http;
use super::process::Child;
use super::transcript::{Line, Transcript, text_of};
use super::zookeeper::free_port;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// A body that came.
#[derive(Clone, Debug)]
pub struct Posted {
    /// When, in microseconds of CLOCK_MONOTONIC.
    pub at_us: i64,
    /// The JSON that came; a string if it was none.
    pub body: Value,
}

/// A server that answers 200 to every POST.
pub struct Receiver {
    address: SocketAddr,
    posted: Transcript<Posted>,
}

impl Receiver {
    /// A server on a free port of loopback; it lives as long as the test's process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let posted = Transcript::new();
        let kept = posted.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || converse(stream, &kept));
            }
        });
        Self { address, posted }
    }

    /// Its URL with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A mark to wait from.
    pub fn mark(&self) -> usize {
        self.posted.len()
    }

    /// What came from a mark on.
    pub fn since(&self, mark: usize) -> Vec<Posted> {
        self.posted.since(mark)
    }

    /// Waits for a body.
    ///
    /// # Panics
    /// If none comes within the deadline, with all that came.
    pub fn wait(
        &self,
        mark: usize,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Posted {
        self.posted
            .wait(mark, within, |posted| {
                wanted(&posted.body).then(|| posted.clone())
            })
            .unwrap_or_else(|| {
                let all = self.since(mark);
                panic!("no {what} within {within:?}; what came: {all:#?}")
            })
    }
}

fn converse(stream: TcpStream, into: &Transcript<Posted>) {
    let Ok(mut answers) = stream.try_clone() else {
        return;
    };
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            match stream.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let head = line.trim_end();
            if head.is_empty() {
                break;
            }
            if let Some((name, value)) = head.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        into.push(Posted {
            at_us: clock::now_us(),
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        });
        if answers
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .is_err()
        {
            return;
        }
    }
}

/// A running Alertmanager with the configuration that is shipped, told to page a receiver, and with
/// shorter waits.
pub struct Alertmanager {
    address: String,
    child: Child,
    log: Transcript<Line>,
    _directory: tempfile::TempDir,
}

/// How long it gathers a group before it pages.
pub const GROUP_WAIT: Duration = Duration::from_secs(3);

impl Alertmanager {
    /// Starts one and waits until it is ready.
    ///
    /// # Panics
    /// If it is not within 30 s.
    pub fn start(pager: &Receiver) -> Self {
        Self::start_at(pager, &format!("127.0.0.1:{}", free_port()))
    }

    /// The same, on a given address.
    ///
    /// # Panics
    /// As [`Alertmanager::start`].
    pub fn start_at(pager: &Receiver, address: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let shipped = include_str!("../../../../configs/alertmanager.yml");
        let mut config = shipped.to_owned();
        for (shipped, here) in [
            ("http://127.0.0.1:9095/page", pager.url("/page")),
            ("group_wait: 5s", format!("group_wait: {GROUP_WAIT:?}")),
            ("group_interval: 1m", "group_interval: 2s".to_owned()),
        ] {
            assert!(config.contains(shipped), "{shipped} in {config}");
            config = config.replace(shipped, &here);
        }
        let file = directory.path().join("alertmanager.yml");
        std::fs::write(&file, &config).expect("the configuration can be written");
        let address = address.to_owned();
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=");
        let mut child = Child::start(command);
        let log = Transcript::new();
        log.feed(child.take_stderr(), Line::keep);
        let alertmanager = Self {
            address,
            child,
            log,
            _directory: directory,
        };
        let ready = clock::poll(Duration::from_secs(30), || {
            let answer = http::get(&alertmanager.address, "/-/ready")?;
            (answer.status == 200).then_some(())
        });
        assert!(
            ready.is_some(),
            "not ready\n{}",
            text_of(&alertmanager.log.tail(30))
        );
        alertmanager
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it for good, as a crash would.
    pub fn kill(mut self) {
        self.child.kill();
    }

    /// The alerts that it knows and that fire.
    pub fn alerts(&self) -> Vec<Value> {
        let answer = http::get(&self.address, "/api/v2/alerts").expect("it answers");
        serde_json::from_str(&answer.body).expect(&answer.body)
    }
}
