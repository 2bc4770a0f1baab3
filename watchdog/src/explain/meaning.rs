//! What a line of a log can say, in the words of `patterns.yaml`, and the events made of such lines.

use serde::{Deserialize, Serialize};

use super::patterns::Fields;
use super::stamp::go_duration_ms;
use super::wall::{MS, SECOND, Wall};

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// A holder's renewal failed.
    RenewalFailed,
    /// It failed because no answer came within its limit.
    RenewalTimedOut,
    /// The holder no longer knows whether its lease is alive.
    Jeopardy,
    /// It waits, or tries again.
    Retry,
    /// A client's own loop ran later than it had meant to.
    LoopLate,
    /// A client gave its connection up because nothing came.
    ReadTimedOut,
    /// A client's session state changed.
    SessionEvent,
    /// A client opens a connection.
    Connecting,
    /// A client has a session.
    Established,
    /// A holder is told that its lease is gone.
    SessionExpired,
    /// A grantor has granted a lease.
    Granted,
    /// A grantor expires a lease.
    LeaseExpired,
    /// A grantor says that it was itself too late.
    ExpiryBlamed,
    /// More of a lease that has expired.
    LeaseDetails,
    /// Something has another state.
    StatusChange,
    /// This process leads now.
    RoleGained,
    /// This process leads no longer.
    RoleLost,
    /// It is about to lead no longer.
    SteppingDown,
    /// A member has lost its leader.
    QuorumLost,
    /// A service runs.
    Serving,
    /// What a lease owned was taken from it.
    OwnerReleased,
    /// A copy of data was given up.
    ReplicaRemoved,
    /// A connection is gone.
    ConnectionLost,
    /// A read or write failed.
    SocketError,
    /// All threads of a process stood still.
    Pause,
    /// A write to disk took long.
    DiskSlow,
    /// A request took long.
    RequestSlow,
    /// The kernel found a task that waits for too long.
    HungTask,
    /// A CPU did nothing but one thing.
    SoftLockup,
    /// A CPU did not pass through a quiet state.
    CpuStall,
    /// A device failed.
    IoError,
    /// A device did not answer in time.
    IoSlow,
    /// The kernel killed for memory.
    OutOfMemory,
    /// A network link went down.
    LinkDown,
    /// The daemon warned, or learned more (only in recordings).
    Warned,
    /// What it had warned of is over (only in recordings).
    Renewed,
    /// A file system's journal, as `dumpe2fs -h` has it.
    JournalHeader,
}

/// One line that says something.
#[derive(Clone, Debug)]
pub struct Event {
    /// When the logger stamped it.
    pub at: Wall,
    /// When the message inside was stamped, if it has a stamp of its own.
    pub own: Option<Wall>,
    /// Which source.
    pub source: usize,
    /// The logger's name of the thread.
    pub thread: String,
    /// The thread that the message inside names.
    pub own_thread: Option<String>,
    /// The function that the message inside names.
    pub function: Option<String>,
    /// What it says.
    pub meaning: Meaning,
    /// What it says of it.
    pub fields: Fields,
    /// File and line.
    pub place: (usize, u64),
    /// Its message, shortened.
    pub text: String,
}

impl Event {
    /// The first field of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, text)| text.as_str())
    }

    /// A field that is a number, of milliseconds if it has that unit. What is longer than a hundred years
    /// is no figure but a line that is broken.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        const HUNDRED_YEARS_MS: i64 = 100 * 366 * 86_400_000;
        let number: i64 = self.get(name)?.parse().ok()?;
        let most = if name.ends_with("_ms") {
            HUNDRED_YEARS_MS
        } else {
            i64::MAX
        };
        (-most..=most).contains(&number).then_some(number)
    }

    /// When its subject spoke: the message's own stamp if it has one.
    #[must_use]
    pub fn said(&self) -> Wall {
        self.own.unwrap_or(self.at)
    }

    /// How long something took, whichever way it is said, in nanoseconds.
    #[must_use]
    pub fn lasted(&self) -> Option<i64> {
        // Longer than thirty years is a broken line.
        let spans = 0.0..1e18;
        let float = |name: &str, unit: i64| {
            // Some locales write a comma.
            let number: f64 = self.get(name)?.replace(',', ".").parse().ok()?;
            let ns = number * unit as f64;
            spans.contains(&ns).then_some(ns as i64)
        };
        float("for_ms", MS)
            .or_else(|| float("for_s", SECOND))
            .or_else(|| float("for_ns", 1))
            .or_else(|| {
                let ns = go_duration_ms(self.get("took")?)? * MS as f64;
                spans.contains(&ns).then_some(ns as i64)
            })
    }

    /// The lease it names: a session id or a uuid.
    #[must_use]
    pub fn lease(&self) -> Option<&str> {
        self.get("id").or_else(|| self.get("lease"))
    }
}

/// An address without its port.
#[must_use]
pub fn host_of(address: &str) -> &str {
    let address = address.trim_start_matches('/');
    let address = address.rsplit_once('/').map_or(address, |(_, ip)| ip);
    if let Some(inner) = address.strip_prefix('[') {
        return inner.split(']').next().unwrap_or(inner);
    }
    match address.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (address, host) in [
            ("10.0.0.1:2181", "10.0.0.1"),
            ("localhost/127.0.0.1:2181", "127.0.0.1"),
            ("/10.0.0.1:80", "10.0.0.1"),
            ("[fe80::1]:80", "fe80::1"),
            ("node3", "node3"),
        ] {
            assert_eq!(host_of(address), host);
        }
    }
}
