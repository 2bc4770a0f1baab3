//! What is answered on the TCP port and on the Unix socket alike.
//!
//! In: a question and who asks. Out: an answer, by [`ROUTES`]. A new route is a line in that table,
//! an arm in [`answer`] and a module of its own. Never: a wait for the tick beyond
//! [`PATIENCE`](crate::live::PATIENCE); an answer that an untrusted peer could make large or slow for
//! others.

pub mod events;
pub mod health;
pub mod incidents;
pub mod leases;
pub mod ledger;
pub mod mine;
pub mod mutes;
pub mod overview;
pub mod page;
pub mod reply;
pub mod stream;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

#[cfg(test)]
use hyper::Method;
use hyper::StatusCode;
use hyper::header::{ALLOW, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use watchdog_model::time::Mono;

use self::ledger::Ledger;
use self::reply::{Asked, Peer, Reply, of_type, plain, refuse};
use super::events::Started;
use super::metrics::Metrics;
use super::words;
use crate::live::Board;

/// Streams at once: pages that are looked at, and a terminal view or two.
pub const MAX_STREAMS: usize = 64;

/// Items on a page unless it is said how many.
const PAGE: u64 = 100;
/// Items on a page at most.
const MAX_PAGE: u64 = 1000;

/// What the paths take and give, for programs that make clients of it.
const OPENAPI: &str = include_str!("../../../../docs/openapi.yaml");

/// A path that is answered.
#[derive(Debug)]
pub struct Route {
    /// The path; with a `/` at its end, whatever follows too.
    pub path: &'static str,
    /// Methods, as the `Allow` header has them.
    pub allow: &'static str,
    /// Whether it is answered without the token too.
    pub open: bool,
    /// Whether it is answered from the sheet of all leases.
    pub shows_leases: bool,
}

const fn get(path: &'static str) -> Route {
    Route {
        path,
        allow: "GET, HEAD",
        open: false,
        shows_leases: false,
    }
}

const fn of_leases(path: &'static str) -> Route {
    Route {
        shows_leases: true,
        ..get(path)
    }
}

const fn open(path: &'static str) -> Route {
    Route {
        open: true,
        ..get(path)
    }
}

/// All paths.
pub const ROUTES: &[Route] = &[
    open("/"),
    get("/metrics"),
    open("/healthz"),
    open("/readyz"),
    of_leases("/api/v1/leases"),
    of_leases("/api/v1/leases/"),
    get("/api/v1/incidents"),
    get("/api/v1/incidents/"),
    get("/api/v1/events"),
    get("/api/v1/mine"),
    open("/api/v1/openapi.yaml"),
    of_leases("/api/v1/overview"),
    get("/api/v1/stream"),
    Route {
        allow: "GET, HEAD, POST, DELETE",
        ..get("/api/v1/mutes")
    },
];

/// What the answers are made of.
#[derive(Clone)]
pub struct Sources {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// When the tick last ran, ns; 0: it has not yet.
    pub last_tick: Arc<AtomicU64>,
    /// The monotonic clock.
    pub clock: fn() -> Mono,
    /// All leases.
    pub board: Board,
    /// What was said.
    pub ledger: Ledger,
    /// What a peer on the network must show; None: nothing.
    pub token: Option<Arc<str>>,
    /// What the daemon found when it started.
    pub started: Arc<Started>,
    /// When it started.
    pub started_at: Mono,
    /// Places for streams.
    pub streams: Arc<Semaphore>,
    /// Who keeps the mutes.
    pub desk: mutes::Desk,
}

impl Sources {
    /// Has all leases written down anew, as they stand now; while nobody watches they stay as they are.
    pub async fn renew(&self) {
        if health::ticking(self).is_ok() {
            self.board.renew((self.clock)()).await;
        }
    }
}

fn route(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| {
        if route.path.len() > 1 && route.path.ends_with('/') {
            path.len() > route.path.len() && path.starts_with(route.path)
        } else {
            path == route.path
        }
    })
}

/// Answers a question.
pub async fn answer(asked: &Asked, sources: &Sources) -> Reply {
    let Some(route) = route(&asked.path) else {
        let known: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        return plain(
            StatusCode::NOT_FOUND,
            format!("known paths: {}\n", known.join(", ")),
        );
    };
    if !route
        .allow
        .split(", ")
        .any(|allowed| allowed == asked.method.as_str())
    {
        let mut reply = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("only {}\n", route.allow),
        );
        reply
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(route.allow));
        return reply;
    }
    if !route.open && !admitted(asked, sources) {
        let mut reply = refuse(
            StatusCode::UNAUTHORIZED,
            "send \"Authorization: Bearer TOKEN\" with the token of http.token_file",
        );
        reply
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return reply;
    }
    if route.shows_leases {
        sources.renew().await;
    }
    let rest = asked.path.strip_prefix(route.path).unwrap_or_default();
    let reply = match route.path {
        "/" => Ok(page::answer()),
        "/metrics" => Ok(of_type(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            sources.metrics.text(),
        )),
        "/healthz" => Ok(health::healthz(sources)),
        "/readyz" => Ok(health::readyz(sources)),
        "/api/v1/leases" => leases::list(asked, sources),
        "/api/v1/leases/" => Ok(leases::one(rest, sources)),
        "/api/v1/incidents" => incidents::list(asked, sources),
        "/api/v1/incidents/" => Ok(incidents::one(rest, sources)),
        "/api/v1/events" => events::list(asked, sources),
        "/api/v1/mine" => mine::answer(asked, sources).await,
        "/api/v1/openapi.yaml" => Ok(of_type(StatusCode::OK, "application/yaml", OPENAPI)),
        "/api/v1/overview" => Ok(overview::answer(sources)),
        "/api/v1/stream" => stream::answer(asked, sources),
        "/api/v1/mutes" => mutes::answer(asked, sources).await,
        // A line of the table without an arm; a test walks over all of them.
        _ => Err(plain(StatusCode::NOT_IMPLEMENTED, "")),
    };
    reply.unwrap_or_else(|refusal| refusal)
}

/// Whoever comes by the socket has passed its permissions; others show the token, if there is one.
fn admitted(asked: &Asked, sources: &Sources) -> bool {
    let (Peer::Network(_), Some(token)) = (asked.peer, &sources.token) else {
        return true;
    };
    asked
        .headers
        .get(AUTHORIZATION)
        .and_then(|shown| shown.as_bytes().strip_prefix(b"Bearer "))
        .is_some_and(|shown| shown.ct_eq(token.as_bytes()).into())
}

/// How old the newest sheet is, ms.
fn sheet_age_ok(sources: &Sources) -> u64 {
    let at = sources.board.read(|sheet| sheet.at);
    words::to_ms((sources.clock)().since(at))
}

#[cfg(test)]
pub(crate) mod tests;
