//! `/api/v1/mutes`: planned work.
//!
//! In: questions and wishes. Out: the mutes in force, as the one who keeps them says
//! ([`crate::run`], by [`Desk`]). Never: a wish of a peer on the network, or of a user who is
//! neither root nor the daemon's own.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use watchdog_model::time::Mono;

use super::Sources;
use super::reply::{Asked, Peer, Reply, bad_request, json, refuse};
use crate::sinks::events::wall_clock;
use crate::sinks::mutes::LONGEST_NS;

/// Wishes that may wait: they come from people.
const QUEUE: usize = 16;

/// The keeper answers between two batches of messages; while it reads a new configuration from a
/// slow disk, that may take a while.
const PATIENCE: Duration = Duration::from_secs(3);

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The mutes in force.
    List,
    /// Mute an entry for this long, ns.
    Mute {
        /// Its name.
        lease: String,
        /// For how long, ns.
        for_ns: u64,
    },
    /// End a mute.
    Unmute {
        /// The entry's name.
        lease: String,
    },
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The mutes in force now, by name, with their ends.
    InForce(Vec<(String, Mono)>),
    /// There is no such entry; these there are.
    NoSuchLease(Vec<String>),
    /// There is no such mute.
    NotMuted,
}

/// A wish and whom to answer.
pub type Wished = (Wish, oneshot::Sender<Outcome>);

/// Where wishes are handed in.
#[derive(Clone, Debug)]
pub struct Desk(mpsc::Sender<Wished>);

impl Desk {
    /// A desk, and the end at which wishes are fulfilled.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Wished>) {
        let (sender, wishes) = mpsc::channel(QUEUE);
        (Self(sender), wishes)
    }

    async fn ask(&self, wish: Wish) -> Option<Outcome> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send((wish, reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }
}

#[derive(Serialize)]
struct MuteObject {
    lease: String,
    until: String,
    remaining_ms: u64,
}

#[derive(Serialize)]
struct MutesObject {
    mutes: Vec<MuteObject>,
}

/// Answers.
pub async fn answer(asked: &Asked, sources: &Sources) -> Result<Reply, Reply> {
    let wish = match asked.method {
        Method::POST => {
            permitted(asked)?;
            let given = asked.parameters(&["lease", "for_ms"])?;
            let most = LONGEST_NS / 1_000_000;
            let for_ms = given
                .number("for_ms", 1, most)?
                .ok_or_else(|| bad_request("for_ms is missing: for how long"))?;
            Wish::Mute {
                lease: lease(given.text("lease"))?,
                for_ns: for_ms * 1_000_000,
            }
        }
        Method::DELETE => {
            permitted(asked)?;
            let given = asked.parameters(&["lease"])?;
            Wish::Unmute {
                lease: lease(given.text("lease"))?,
            }
        }
        _ => {
            asked.parameters(&[])?;
            Wish::List
        }
    };
    match sources.desk.ask(wish).await {
        Some(Outcome::InForce(mutes)) => Ok(shown(mutes, (sources.clock)())),
        Some(Outcome::NoSuchLease(known)) => Err(refuse(
            StatusCode::NOT_FOUND,
            format!(
                "there is no such entry of leases; there are: {}",
                known.join(", ")
            ),
        )),
        Some(Outcome::NotMuted) => Err(refuse(StatusCode::NOT_FOUND, "it is not muted")),
        None => Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon is busy or about to stop; try again",
        )),
    }
}

#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
fn lease(given: Option<&str>) -> Result<String, Reply> {
    given
        .map(str::to_owned)
        .ok_or_else(|| bad_request("lease is missing: the name of an entry of leases"))
}

/// To silence an alarm is for those who could stop the daemon anyway.
#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
fn permitted(asked: &Asked) -> Result<(), Reply> {
    // SAFETY: geteuid takes nothing, touches no memory of ours and cannot fail.
    let own = unsafe { libc::geteuid() };
    match asked.peer {
        Peer::Local { uid, .. } if uid == 0 || uid == own => Ok(()),
        Peer::Local { .. } => Err(refuse(
            StatusCode::FORBIDDEN,
            "only root and the daemon's own user may mute; use sudo",
        )),
        Peer::Network(_) => Err(refuse(
            StatusCode::FORBIDDEN,
            "mutes are taken by the Unix socket only",
        )),
    }
}

fn shown(mutes: Vec<(String, Mono)>, now: Mono) -> Reply {
    json(&MutesObject {
        mutes: mutes
            .into_iter()
            .map(|(lease, until)| MuteObject {
                lease,
                until: humantime::format_rfc3339_seconds(wall_clock(until)).to_string(),
                remaining_ms: until.since(now) / 1_000_000,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests;
