//! `/api/v1/mine`: how long a program's own leases are still good, and the wait until they are in
//! danger. So a program can fence itself before its lease is expired.
//!
//! In: who asks, by the kernel's word, or a process id that it names. Out: the worst of its
//! leases. A wait ends at the stage that was waited for, when one of the leases is gone, when
//! nobody watches (503: nothing is known then), or when its time is up.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::Semaphore;
use watchdog_model::leases::note::{LeaseHandle, Stage};
use watchdog_model::leases::observation::Role;

use super::leases::{LeaseObject, ROLES, STAGES, Standing, standings};
use super::reply::{Asked, Peer, Reply, bad_request, json, refuse};
use super::{Sources, health};
use crate::sinks::words;

/// How long a wait lasts unless it says so.
const WAIT_S: u64 = 55;
/// And at most; then the program asks again, and so proves that it is still there.
const MAX_WAIT_S: u64 = 3600;
/// How often a wait looks even if nothing was said: the tick may have stopped.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits at once: fewer than connections, so that waits alone never leave others without a place. The
/// port's do not use up the socket's.
static NETWORK_WAITS: Semaphore = Semaphore::const_new(64);
static LOCAL_WAITS: Semaphore = Semaphore::const_new(192);

#[derive(Serialize)]
struct Mine {
    mono_us: u64,
    pid: u32,
    /// Worst stage of its leases; None: it has none.
    stage: Option<&'static str>,
    /// Least that is left of any; None: not known of any.
    remaining_ms: Option<i64>,
    /// Whether the stage that was waited for has come, or one of the leases is gone.
    reached: bool,
    /// Ids of leases that ended during the wait.
    gone: Vec<String>,
    leases: Vec<LeaseObject>,
}

/// `GET /api/v1/mine`.
pub async fn answer(asked: &Asked, sources: &Sources) -> Result<Reply, Reply> {
    let given = asked.parameters(&["pid", "role", "timeout", "wait"])?;
    let own = match asked.peer {
        Peer::Local { pid, .. } => pid,
        Peer::Network(_) => None,
    };
    let named = given.number("pid", 1, u64::from(u32::MAX))?;
    let named = named.and_then(|pid| u32::try_from(pid).ok());
    let Some(pid) = named.or(own) else {
        return Err(bad_request(
            "who asks is only known on the Unix socket (http.socket); ask there, or name a process \
             with ?pid=",
        ));
    };
    let role = given.word("role", ROLES)?.unwrap_or(Role::Holder);
    let wait = given.word("wait", STAGES)?;
    let limit = given.number("timeout", 1, MAX_WAIT_S)?;
    let Some(stage) = wait else {
        if limit.is_some() {
            return Err(bad_request("timeout is for a wait; add wait=at_risk"));
        }
        watched(sources)?;
        sources.renew().await;
        let leases = look(sources, pid, role);
        return Ok(tell(sources, pid, &leases, None, &BTreeMap::new()));
    };
    let places = match asked.peer {
        Peer::Local { .. } => &LOCAL_WAITS,
        Peer::Network(_) => &NETWORK_WAITS,
    };
    let Ok(_place) = places.try_acquire() else {
        return Err(refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "too many wait already; ask without wait, again and again",
        ));
    };
    let mut said = sources.ledger.watch();
    let end = tokio::time::Instant::now() + Duration::from_secs(limit.unwrap_or(WAIT_S));
    // Every lease that was there at some time of the wait.
    let mut known = BTreeMap::new();
    loop {
        said.mark_unchanged();
        watched(sources)?;
        sources.renew().await;
        let leases = look(sources, pid, role);
        let worst = leases.iter().map(|lease| lease.stage).max();
        let mut gone = known.clone();
        for lease in &leases {
            let subject = &lease.lease.subject;
            gone.remove(&subject.handle);
            known.insert(subject.handle, words::lease_id(&subject.id));
        }
        let reached = worst.is_some_and(|worst| worst >= stage) || !gone.is_empty();
        if reached || tokio::time::Instant::now() >= end {
            return Ok(tell(sources, pid, &leases, Some(reached), &gone));
        }
        let wake = end.min(tokio::time::Instant::now() + LOOK_EVERY);
        // The ledger lives as long as the server.
        let _woken = tokio::time::timeout_at(wake, said.changed()).await;
    }
}

/// Refuses to answer for leases that nobody watches.
#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
fn watched(sources: &Sources) -> Result<(), Reply> {
    health::ticking(sources)
        .map(drop)
        .map_err(|why| refuse(StatusCode::SERVICE_UNAVAILABLE, why))
}

fn look(sources: &Sources, pid: u32, role: Role) -> Vec<Standing> {
    standings(sources, |lease| {
        lease.subject.role == role && lease.subject.owner.is_some_and(|owner| owner.pid == pid)
    })
}

fn tell(
    sources: &Sources,
    pid: u32,
    leases: &[Standing],
    reached: Option<bool>,
    gone: &BTreeMap<LeaseHandle, String>,
) -> Reply {
    let now = (sources.clock)();
    let entries = sources.ledger.entries();
    let worst: Option<Stage> = leases.iter().map(|lease| lease.stage).max();
    json(&Mine {
        mono_us: now.0 / 1000,
        pid,
        stage: worst.map(words::stage),
        remaining_ms: leases
            .iter()
            .filter_map(|lease| lease.remaining_ms(now))
            .min(),
        reached: reached.unwrap_or(false),
        gone: gone.values().cloned().collect(),
        leases: leases
            .iter()
            .map(|lease| lease.object(&entries, now))
            .collect(),
    })
}
