//! What the demo tells: one happening a line, for machines by serde, for people by `text`.
//!
//! In: fields. Out: words. No clock, no I/O.

use serde::Serialize;

use super::clock::MS;
use super::lines::{ClientKind, Role, SessionId, Stage};
use super::verdict::Verdict;

/// Something worth a line. `mono_us` is when it was received, or when the actor says it happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event")]
pub enum Happening {
    /// The curtain.
    #[serde(rename = "demo_started")]
    Started {
        mono_us: u64,
        port: u16,
        daemon_pid: u32,
        server_pid: u32,
    },
    /// A client has its session, or has it again over a new connection.
    #[serde(rename = "demo_session")]
    Session {
        mono_us: u64,
        client: ClientKind,
        session: SessionId,
        timeout_ms: u64,
        again: bool,
    },
    /// The daemon has seen one end of a session.
    #[serde(rename = "demo_lease_seen")]
    LeaseSeen {
        mono_us: u64,
        client: Option<ClientKind>,
        session: SessionId,
        role: Role,
    },
    /// The driver stopped a process; no client: the server.
    #[serde(rename = "demo_freeze")]
    Freeze {
        mono_us: u64,
        client: Option<ClientKind>,
        pid: u32,
    },
    /// The daemon warns.
    #[serde(rename = "demo_warning")]
    Warning {
        mono_us: u64,
        client: Option<ClientKind>,
        session: SessionId,
        role: Role,
        stage: Stage,
        condition: Option<String>,
        cause: Option<String>,
        blames_server: bool,
        remaining_ms: Option<f64>,
        after_freeze_ms: Option<f64>,
        summary: Option<String>,
    },
    /// The server expired a session.
    #[serde(rename = "demo_expired")]
    Expired {
        mono_us: u64,
        client: Option<ClientKind>,
        session: SessionId,
        touched_mono_us: u64,
        due_mono_us: u64,
        after_freeze_ms: Option<f64>,
    },
    /// The driver let a process run again.
    #[serde(rename = "demo_thaw")]
    Thaw {
        mono_us: u64,
        client: Option<ClientKind>,
        frozen_for_ms: u64,
    },
    /// A client gave up its connection.
    #[serde(rename = "demo_reconnecting")]
    Reconnecting {
        mono_us: u64,
        client: ClientKind,
        why: String,
    },
    /// A client was told that its session is gone.
    #[serde(rename = "demo_told_expired")]
    ToldExpired {
        mono_us: u64,
        client: ClientKind,
        session: SessionId,
    },
    /// The daemon says that a lease is well again.
    #[serde(rename = "demo_renewed")]
    Renewed {
        mono_us: u64,
        client: Option<ClientKind>,
        session: SessionId,
        role: Role,
    },
    /// The daemon says that it has proof of a session's expiry.
    #[serde(rename = "demo_says_expired")]
    SaysExpired {
        mono_us: u64,
        client: Option<ClientKind>,
        session: SessionId,
        role: Role,
    },
    /// Something outside the story: an actor's complaint, a process that ended.
    #[serde(rename = "demo_note")]
    Note { mono_us: u64, text: String },
    /// The end.
    #[serde(rename = "demo_result")]
    Result {
        mono_us: u64,
        took_s: f64,
        #[serde(flatten)]
        verdict: Verdict,
    },
}

/// How loud a happening is; the terminal colours by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Plain,
    /// Done by the demo itself.
    Act,
    /// The daemon warns.
    Warn,
    /// A session is lost, or the demo failed.
    Bad,
    /// Well again.
    Good,
}

fn of(client: Option<ClientKind>) -> &'static str {
    client.map_or("unknown", ClientKind::name)
}

fn frozen(client: Option<ClientKind>) -> String {
    client.map_or("the server".to_owned(), |c| format!("client {}", c.name()))
}

impl Happening {
    /// When it was.
    pub fn mono_us(&self) -> u64 {
        match self {
            Self::Started { mono_us, .. }
            | Self::Session { mono_us, .. }
            | Self::LeaseSeen { mono_us, .. }
            | Self::Freeze { mono_us, .. }
            | Self::Warning { mono_us, .. }
            | Self::Expired { mono_us, .. }
            | Self::Thaw { mono_us, .. }
            | Self::Reconnecting { mono_us, .. }
            | Self::ToldExpired { mono_us, .. }
            | Self::Renewed { mono_us, .. }
            | Self::SaysExpired { mono_us, .. }
            | Self::Note { mono_us, .. }
            | Self::Result { mono_us, .. } => *mono_us,
        }
    }

    /// How loud it is.
    pub fn tone(&self) -> Tone {
        match self {
            Self::Freeze { .. } | Self::Thaw { .. } => Tone::Act,
            Self::Warning { .. } => Tone::Warn,
            Self::Expired { .. } | Self::SaysExpired { .. } | Self::ToldExpired { .. } => Tone::Bad,
            Self::Renewed { .. } => Tone::Good,
            Self::Result { verdict, .. } if verdict.passed => Tone::Good,
            Self::Result { .. } => Tone::Bad,
            _ => Tone::Plain,
        }
    }

    /// The same for people; more than one line for the result.
    pub fn text(&self) -> String {
        match self {
            Self::Started {
                port,
                daemon_pid,
                server_pid,
                ..
            } => format!(
                "a session server on 127.0.0.1:{port} (pid {server_pid}); the daemon watches \
                 (pid {daemon_pid})"
            ),
            Self::Session {
                client,
                session,
                timeout_ms,
                again,
                ..
            } => {
                let verb = if *again { "has renewed" } else { "has" };
                let length = *timeout_ms as f64 / MS as f64;
                format!(
                    "client {} {verb} session {session}, {length:.1} s",
                    client.name()
                )
            }
            Self::LeaseSeen {
                client,
                session,
                role,
                ..
            } => {
                format!(
                    "daemon: sees session {session} of client {} as {role}",
                    of(*client)
                )
            }
            Self::Freeze { client, pid, .. } => {
                format!("--- freezing {} (SIGSTOP to pid {pid})", frozen(*client))
            }
            Self::Thaw {
                client,
                frozen_for_ms,
                ..
            } => {
                let after = *frozen_for_ms as f64 / MS as f64;
                format!(
                    "--- letting {} run again, after {after:.1} s",
                    frozen(*client)
                )
            }
            Self::Warning {
                client,
                role,
                stage,
                cause,
                after_freeze_ms,
                summary,
                ..
            } => {
                let cause = cause.as_deref().unwrap_or("cause not known yet");
                let after = after_freeze_ms.map_or(String::new(), |ms| {
                    format!(", {:.1} s after the freeze", ms / MS as f64)
                });
                let summary = summary.as_deref().unwrap_or_default();
                format!(
                    "daemon: {} ({role}) {stage}, {cause}{after}: {summary}",
                    of(*client)
                )
            }
            Self::Expired {
                client,
                session,
                touched_mono_us,
                mono_us,
                ..
            } => {
                let silent = mono_us.saturating_sub(*touched_mono_us) as f64 / 1e6;
                format!(
                    "server: session {session} of client {} has EXPIRED, {silent:.1} s after its \
                     last request",
                    of(*client)
                )
            }
            Self::Reconnecting { client, why, .. } => {
                format!("client {} gives up its connection: {why}", client.name())
            }
            Self::ToldExpired {
                client, session, ..
            } => {
                format!(
                    "client {} learns only now that session {session} is gone",
                    client.name()
                )
            }
            Self::Renewed {
                client,
                session,
                role,
                ..
            } => {
                format!(
                    "daemon: {} ({role}) renewed, session {session}",
                    of(*client)
                )
            }
            Self::SaysExpired {
                client,
                session,
                role,
                ..
            } => {
                format!(
                    "daemon: {} ({role}) expired, session {session}",
                    of(*client)
                )
            }
            Self::Note { text, .. } => text.clone(),
            Self::Result {
                took_s, verdict, ..
            } => {
                let lines = verdict.lines().join("\n  ");
                format!("summary, after {took_s:.1} s:\n  {lines}")
            }
        }
    }
}
