//! Whoever is paged: an HTTP server, and one that a hook's program tells by a line.
//!
//! In: alerts by two ways out of the daemon. Out: each with the moment of its arrival, by this
//! process's own clock. Each way has one thread, so that it can be given real time before.

use crate::harness::clock;
use crate::harness::transcript::Transcript;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// An alert that arrived.
#[derive(Clone, Debug)]
pub struct Paged {
    /// When, in microseconds of CLOCK_MONOTONIC.
    pub at_us: i64,
    /// By the hook, or else by the webhook.
    pub by_hook: bool,
    /// The session that it names.
    pub worst: Option<u64>,
}

/// Both servers; they live as long as this process.
pub struct Pager {
    /// Where a webhook posts.
    pub webhook: SocketAddr,
    /// Where the hook's program tells.
    pub hook: SocketAddr,
    paged: Transcript<Paged>,
}

impl Pager {
    /// Starts them.
    pub fn start() -> Self {
        let paged = Transcript::new();
        let [webhook, hook] = [false, true].map(|by_hook| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let address = listener.local_addr().expect("it is bound");
            let into = paged.clone();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let body = if by_hook {
                        lines(&stream)
                    } else {
                        post(&mut stream)
                    };
                    let at_us = clock::now_us();
                    for worst in body.unwrap_or_default() {
                        into.push(Paged {
                            at_us,
                            by_hook,
                            worst,
                        });
                    }
                }
            });
            address
        });
        Self {
            webhook,
            hook,
            paged,
        }
    }

    /// A mark to look from.
    pub fn mark(&self) -> usize {
        self.paged.len()
    }

    /// What came from a mark on.
    pub fn since(&self, mark: usize) -> Vec<Paged> {
        self.paged.since(mark)
    }
}

/// The sessions that an alert's object names.
fn worst(object: &Value) -> Option<Option<u64>> {
    (object["event"] == "alert").then(|| {
        let id = object["worst"].as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(id, 16).ok()
    })
}

fn lines(stream: &TcpStream) -> Option<Vec<Option<u64>>> {
    let read = BufReader::new(stream).lines().map_while(Result::ok);
    let objects = read.filter_map(|line| serde_json::from_str(&line).ok());
    Some(objects.filter_map(|object| worst(&object)).collect())
}

fn post(stream: &mut TcpStream) -> Option<Vec<Option<u64>>> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let head = line.trim_end().to_ascii_lowercase();
        if head.is_empty() {
            break;
        }
        if let Some(value) = head.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).ok()?;
    let object: Value = serde_json::from_slice(&body).ok()?;
    Some(worst(&object).into_iter().collect())
}

/// The hook's program: tells each line that it is told, by a connection of its own, until there are no
/// more.
pub fn tell(address: &str) -> ! {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if let Ok(mut stream) = TcpStream::connect(address) {
            // Whoever is not there is not told.
            drop(stream.write_all(format!("{line}\n").as_bytes()));
        }
    }
    std::process::exit(0)
}
