//! What the demo's processes say on stdout, one JSON object a line: the server's and the clients' own
//! lines (written and read here), and the daemon's events (only read, by their published names).
//!
//! In: lines. Out: typed lines. No clock, no I/O.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A session's id; written as ZooKeeper's tools and the daemon write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SessionId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is no session id"))
    }
}

impl SessionId {
    /// `None` for ids of other kinds, `local>peer` for one.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text.strip_prefix("0x")?, 16)
            .ok()
            .map(Self)
    }
}

/// How a client behaves on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// Length and body by two sends, a ping when T/3 idle and nothing outstanding, as the C client.
    C,
    /// One write a frame, a ping when T/3 idle, as the Java client.
    Java,
    /// Reads all the time and so hardly ever pings.
    Busy,
}

impl ClientKind {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 3] = [Self::C, Self::Java, Self::Busy];

    /// As it stands on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Java => "java",
            Self::Busy => "busy",
        }
    }
}

/// A line of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServerLine {
    /// It accepts connections.
    Listening {
        /// When.
        at_mono_us: u64,
        /// Where, on 127.0.0.1.
        port: u16,
    },
    /// A session was granted.
    Opened {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
        /// For how long.
        timeout_ms: u64,
    },
    /// A session was renewed over a new connection.
    Moved {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
    },
    /// A request of the session was read. Said at most ten times a second, for the display alone.
    Touched {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
    },
    /// The client ended its session.
    Closed {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
    },
    /// The session was not renewed in time and is gone.
    Expired {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
        /// When its last request was read.
        touched_mono_us: u64,
        /// The end of the bucket it had been put in.
        due_mono_us: u64,
    },
}

/// A line of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ClientLine {
    /// It has its session, over a first or a new connection.
    Connected {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
        /// As negotiated.
        timeout_ms: u64,
    },
    /// It gave up its connection and tries anew.
    Reconnecting {
        /// When.
        at_mono_us: u64,
        /// Why.
        why: String,
    },
    /// The server told it that its session has expired.
    Expired {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
    },
    /// It has ended its session.
    Closed {
        /// When.
        at_mono_us: u64,
        /// Which.
        session: SessionId,
    },
}

/// Which end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The client's.
    Holder,
    /// The server's.
    Grantor,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holder => "holder",
            Self::Grantor => "grantor",
        })
    }
}

/// How bad the daemon says it is; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing to warn of.
    Healthy,
    /// Later than its normal.
    Late,
    /// Much of the lease is gone.
    AtRisk,
    /// The holder gives up about now.
    Jeopardy,
    /// The grantor may expire it from now on.
    Lapsed,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Late => "late",
            Self::AtRisk => "at_risk",
            Self::Jeopardy => "jeopardy",
            Self::Lapsed => "lapsed",
        })
    }
}

/// An event of the daemon: those fields that the demo looks at. All but the name may be missing, for
/// the daemon may say more, and other, than the demo knows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DaemonEvent {
    /// What kind.
    pub event: String,
    /// When, by CLOCK_MONOTONIC.
    pub mono_us: Option<u64>,
    /// The lease's id: a session's in hex, else something that isn't ours.
    pub id: Option<String>,
    /// Which end.
    pub role: Option<Role>,
    /// The stage reached; also `renewed` and `expired`.
    pub to: Option<String>,
    /// Where the renewal stands.
    pub condition: Option<String>,
    /// Why.
    pub cause: Option<String>,
    /// The same for people.
    pub summary: Option<String>,
    /// The measured facts.
    pub evidence: Vec<Evidence>,
    /// Until the floor; null where the timeout is a guess.
    pub remaining_ms: Option<f64>,
}

/// One fact.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// `own` or `peer`.
    pub side: Option<String>,
}

impl DaemonEvent {
    /// The stage, where `to` is one.
    pub fn stage(&self) -> Option<Stage> {
        Some(match self.to.as_deref()? {
            "healthy" => Stage::Healthy,
            "late" => Stage::Late,
            "at_risk" => Stage::AtRisk,
            "jeopardy" => Stage::Jeopardy,
            "lapsed" => Stage::Lapsed,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_as_published_is_read() {
        let line = r#"{"ts":"2026-11-24T10:00:04.123456Z","mono_us":123456789,"event":"transition",
            "lease":"zookeeper","id":"0x3001e647d600030","role":"holder","from":"late",
            "to":"at_risk","condition":"thread_stalled","cause":"process_stopped","incident":"7",
            "summary":"…","evidence":[{"fact":"thread_state","side":"own","tid":138783,
            "comm":"meta","state":"T","for_ms":3000}],"timeout_ms":12000,"remaining_ms":8000,
            "silent_ms":4000,"local":"10.10.10.161:40222","pid":138783}"#;
        let event: DaemonEvent = serde_json::from_str(line).unwrap();
        assert_eq!(event.stage(), Some(Stage::AtRisk));
        assert_eq!(event.role, Some(Role::Holder));
        let id = SessionId::parse(event.id.as_deref().unwrap());
        assert_eq!(id, Some(SessionId(0x3001e647d600030)));
        assert_eq!(event.evidence[0].side.as_deref(), Some("own"));
    }

    #[test]
    fn unknown_fields_and_ids_do_no_harm() {
        let line = r#"{"event":"lease_seen","id":"127.0.0.1:1>127.0.0.1:2","remaining_ms":null,
            "evidence":[],"new":{}}"#;
        let event: DaemonEvent = serde_json::from_str(line).unwrap();
        assert_eq!(event.remaining_ms, None);
        assert_eq!(SessionId::parse(event.id.as_deref().unwrap()), None);
    }

    #[test]
    fn own_lines_come_back_as_they_went() {
        let line = ServerLine::Expired {
            at_mono_us: 3,
            session: SessionId(0xabc),
            touched_mono_us: 1,
            due_mono_us: 2,
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.contains(r#""event":"expired""#) && text.contains(r#""session":"0xabc""#));
        assert_eq!(serde_json::from_str::<ServerLine>(&text).unwrap(), line);
    }
}
