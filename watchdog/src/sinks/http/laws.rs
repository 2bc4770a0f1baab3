//! What must hold of any connection to the port or the socket: for the property tests and for `cargo xtask
//! fuzz` alike.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use watchdog_model::time::{Mono, SECOND};

use super::{Allowance, Arc, MAX_CONNECTIONS, Peer, Semaphore, Sources, converse};
use crate::live;
use crate::sinks::api::ledger::Ledger;
use crate::sinks::api::mutes::{Desk, Outcome};
use crate::sinks::metrics::Metrics;

/// All that is ever answered.
const STATUSES: [u16; 14] = [
    100, 200, 400, 401, 403, 404, 405, 408, 413, 414, 429, 431, 501, 503,
];
/// An answer that is not there after this time is no more waited for; those that take their time do.
const PATIENCE: Duration = Duration::from_millis(200);
/// Bytes under way in each direction: more than any answer here has. To who shuts its own end down before it has
/// taken the whole answer, no more is sent: so those are found who are gone.
const ROOM: usize = 1 << 20;
/// More than anything that is answered here.
const MOST: usize = 4 << 20;

/// A server, and who keeps the mutes.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    sources: Sources,
    with_token: Sources,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server of a daemon that watches nothing, at ten seconds.
    ///
    /// # Panics
    /// Without a runtime or metrics.
    #[must_use]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (_, board) = live::board(Duration::ZERO);
        let (desk, mut wishes) = Desk::new();
        runtime.spawn(async move {
            while let Some((_, reply)) = wishes.recv().await {
                let _gone = reply.send(Outcome::InForce(Vec::new()));
            }
        });
        let names = ["zookeeper".to_owned()];
        let sources = Sources {
            metrics: Arc::new(Metrics::new(&names).expect("metrics")),
            last_tick: Arc::new(AtomicU64::new(10 * SECOND)),
            clock: || Mono(10 * SECOND),
            board,
            ledger: Ledger::default(),
            token: None,
            started: Arc::default(),
            started_at: Mono(SECOND),
            streams: Arc::new(Semaphore::new(1)),
            desk,
        };
        sources.ledger.set_entries(&names);
        let with_token = Sources {
            token: Some(Arc::from("secret-of-the-port")),
            ..sources.clone()
        };
        Self {
            runtime,
            sources,
            with_token,
        }
    }

    /// A script is how it is asked (from the network or by the socket, with a token or without, in pieces of which
    /// length), and what is sent.
    ///
    /// # Panics
    /// Where what comes back is no sequence of answers, a place is not given back, or nobody is answered afterwards.
    pub fn any_bytes(&self, script: &[u8]) {
        let Some((how, bytes)) = script.split_first() else {
            return;
        };
        let peer = match how & 1 {
            0 => Peer::Network(([127, 0, 0, 1], 1).into()),
            _ => Peer::Local {
                pid: Some(u32::from(*how)),
                uid: 1 + u32::from(how & 2),
            },
        };
        let sources = match how & 4 {
            0 => &self.sources,
            _ => &self.with_token,
        };
        let piece = match how >> 3 {
            0 => usize::MAX,
            few => usize::from(few) * 7,
        };
        let (answers, whole) = self.talk(peer, sources, bytes, piece);
        well_formed(&answers, whole);
        let asked = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let (after, _) = self.talk(peer, sources, asked, usize::MAX);
        assert!(
            after.starts_with(b"HTTP/1.1 200 OK\r\n"),
            "nobody is answered any more"
        );
    }

    /// What comes back, and whether the connection came to its end by itself.
    fn talk(&self, peer: Peer, sources: &Sources, bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let taken = self.runtime.block_on(async {
            let place = Arc::clone(&places).acquire_owned().await.expect("a place");
            let (ours, theirs) = tokio::io::duplex(ROOM);
            let allowance = Allowance::new(1000.0, crate::tick::clock);
            let server = tokio::spawn(converse(
                Box::new(theirs),
                peer,
                sources.clone(),
                allowance,
                place,
            ));
            let told = client(ours, bytes, piece).await;
            // The client is gone: whatever was under way ends.
            let limit = tokio::time::timeout(Duration::from_secs(5), server);
            limit
                .await
                .expect("the connection's end")
                .expect("no panic");
            told
        });
        assert_eq!(places.available_permits(), MAX_CONNECTIONS);
        taken
    }
}

async fn client(stream: DuplexStream, bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut from, mut to) = tokio::io::split(stream);
    let sent = async {
        for part in bytes.chunks(piece.max(1)) {
            if to.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _gone = to.shutdown().await;
    };
    let mut told = Vec::new();
    let heard = async {
        let mut some = vec![0; 64 << 10];
        loop {
            match tokio::time::timeout(PATIENCE, from.read(&mut some)).await {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(count)) => told.extend_from_slice(&some[..count]),
                Err(_) => return false,
            }
            assert!(told.len() < MOST, "an answer without end");
            // Goes on for as long as it is read.
            if memchr::memmem::find(&told, b"text/event-stream").is_some() {
                return false;
            }
        }
    };
    let whole = {
        tokio::pin!(sent, heard);
        let mut done = false;
        loop {
            tokio::select! {
                whole = &mut heard => break whole,
                () = &mut sent, if !done => done = true,
            }
        }
    };
    (told, whole)
}

/// Answers one behind the other, each with a head and as much as the head says.
fn well_formed(answers: &[u8], whole: bool) {
    let mut rest = answers;
    while !rest.is_empty() {
        let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else {
            assert!(!whole, "a head without end: {:?}", shown(rest));
            return;
        };
        let head = std::str::from_utf8(&rest[..end]).expect("a head is text");
        rest = &rest[end + 4..];
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| first.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
        let known = status.is_some_and(|status| STATUSES.contains(&status));
        assert!(known, "no status of ours: {first:?}");
        let mut length = None;
        let (mut chunked, mut json) = (false, false);
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            assert!(!line.contains(char::is_control), "{line:?}");
            match name {
                "content-length" => length = Some(value.parse::<usize>().expect("a length")),
                "content-type" => json = value == "application/json",
                "transfer-encoding" => chunked = value == "chunked",
                _ => {}
            }
        }
        if status == Some(100) {
            continue;
        }
        if chunked || length.is_none() && !rest.is_empty() {
            // A stream: it was not waited for.
            assert!(
                !whole || chunked || first.starts_with("HTTP/1.0"),
                "no length: {head:?}"
            );
            return;
        }
        let length = length.unwrap_or(0);
        // What is asked for by HEAD has a length and no body.
        if rest.is_empty() || rest.starts_with(b"HTTP/1.") {
            continue;
        }
        if rest.len() < length {
            assert!(!whole, "{} of {length} bytes", rest.len());
            return;
        }
        if json {
            let body: Result<serde_json::Value, _> = serde_json::from_slice(&rest[..length]);
            assert!(body.is_ok(), "{}", shown(&rest[..length]));
        }
        rest = &rest[length..];
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

/// What clients send.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut asked: Vec<String> = crate::sinks::api::ROUTES
        .iter()
        .map(|route| format!("GET {}", route.path))
        .collect();
    asked.extend(
        [
            "HEAD /metrics",
            "GET /api/v1/leases?stage=late&limit=10&sort=remaining&role=holder&lease=zookeeper",
            "GET /api/v1/leases/17",
            "GET /api/v1/incidents?limit=3&state=open",
            "GET /api/v1/events?after=1&limit=7",
            "GET /api/v1/mine?role=holder&pid=1",
            "GET /api/v1/stream?after=3",
            "POST /api/v1/mutes?lease=zookeeper&for_ms=60000",
            "DELETE /api/v1/mutes?lease=zookeeper",
            "OPTIONS *",
            "GET http://a/healthz",
        ]
        .map(str::to_owned),
    );
    let heads = [
        "host: x\r\n\r\n",
        "host: x\r\nauthorization: Bearer secret-of-the-port\r\nconnection: close\r\n\r\n",
        "host: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\nabcde",
        "host: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    let mut seeds = Vec::new();
    for (at, asked) in asked.iter().enumerate() {
        for (how, head) in heads.iter().enumerate() {
            let version = ["HTTP/1.1", "HTTP/1.0"][(at + how) % 5 / 4];
            let how = u8::try_from((at * 4 + how) % 256).unwrap_or(0);
            let request = format!("{asked} {version}\r\n{head}");
            // Two on one connection.
            let twice = [request.as_bytes(), b"GET /readyz HTTP/1.1\r\n\r\n"].concat();
            seeds.push([&[how], twice.as_slice()].concat());
        }
    }
    seeds
}
