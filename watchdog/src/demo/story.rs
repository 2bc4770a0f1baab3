//! What was seen, and the verdict over it.
//!
//! In: the actors' lines with the time they were received, and when the driver froze and thawed
//! whom. Out: happenings to be told, rows for the live display, and a verdict. No clock, no I/O.
//!
//! The rules that make it a proof: a warning counts only if it came from the daemon, stamped and
//! received after the freeze; a session's end counts only if the server told it; the lead is measured
//! from when the warning was *received*.

use std::collections::BTreeMap;

use super::clock::MS;
use super::happening::Happening;
use super::lines::{ClientKind, ClientLine, DaemonEvent, Role, ServerLine, SessionId, Stage};

/// The cause that both freezes must be given.
pub const STOPPED: &str = "process_stopped";

/// What the server has told of a session.
#[derive(Debug)]
struct Book {
    timeout_ms: u64,
    touched_us: u64,
    end: Option<End>,
}

/// How a session ended, by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By its client.
    Closed,
    /// Not renewed; when.
    Expired(u64),
}

/// What the daemon has told of a lease.
#[derive(Clone, Debug)]
struct Lease {
    stage: Stage,
    cause: Option<String>,
    summary: Option<String>,
    /// Remaining milliseconds, and when they were.
    remaining: Option<(f64, u64)>,
}

/// One warning of the daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// Which session.
    pub session: SessionId,
    /// Which end of it.
    pub role: Role,
    /// How bad.
    pub stage: Stage,
    /// Why.
    pub cause: Option<String>,
    /// Whether the evidence tells of the other side.
    pub peer: bool,
    /// When the daemon says it was.
    pub stamped_us: u64,
    /// When the demo had it.
    pub received_us: u64,
}

impl Warning {
    /// Whether it says that the server is stopped: on the server's own lease, or on the client's with
    /// evidence from the other side.
    pub fn blames_server(&self) -> bool {
        self.cause.as_deref() == Some(STOPPED) && (self.role == Role::Grantor || self.peer)
    }
}

/// A time in which someone stood still.
#[derive(Debug)]
pub struct Freeze {
    /// The frozen client; none: the server.
    pub client: Option<ClientKind>,
    /// From when.
    pub frozen_us: u64,
    /// Till when.
    pub thawed_us: Option<u64>,
    /// What the daemon said meanwhile.
    pub warnings: Vec<Warning>,
    /// Leases that the daemon said were renewed after the thaw, and when that was received.
    pub renewed: BTreeMap<(SessionId, Role), u64>,
}

/// A line of the live display.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Which client.
    pub client: ClientKind,
    /// Its session.
    pub session: Option<SessionId>,
    /// The session's length.
    pub timeout_ms: u64,
    /// What is left of it: by the daemon while it warns, else by the server's book.
    pub remaining_ms: Option<f64>,
    /// The worst that the daemon says of either end.
    pub stage: Option<Stage>,
    /// How it ended.
    pub end: Option<End>,
    /// The daemon's words.
    pub reason: String,
}

/// All that was seen so far.
#[derive(Debug, Default)]
pub struct Story {
    /// The server's port.
    pub port: Option<u16>,
    /// Whether the daemon said that it has started.
    pub daemon_started: bool,
    clients: BTreeMap<ClientKind, SessionId>,
    books: BTreeMap<SessionId, Book>,
    leases: BTreeMap<(SessionId, Role), Lease>,
    told_expired: Vec<ClientKind>,
    freezes: Vec<Freeze>,
    stray_warnings: u32,
}

impl Story {
    /// Takes a line of the server.
    pub fn server_said(&mut self, line: &ServerLine) -> Option<Happening> {
        match *line {
            ServerLine::Listening { port, .. } => {
                self.port = Some(port);
                None
            }
            ServerLine::Opened {
                at_mono_us,
                session,
                timeout_ms,
            } => {
                let book = Book {
                    timeout_ms,
                    touched_us: at_mono_us,
                    end: None,
                };
                self.books.insert(session, book);
                None
            }
            ServerLine::Moved {
                at_mono_us,
                session,
            }
            | ServerLine::Touched {
                at_mono_us,
                session,
            } => {
                if let Some(book) = self.books.get_mut(&session) {
                    book.touched_us = at_mono_us;
                }
                None
            }
            ServerLine::Closed { session, .. } => {
                self.books.get_mut(&session)?.end = Some(End::Closed);
                None
            }
            ServerLine::Expired {
                at_mono_us,
                session,
                touched_mono_us,
                due_mono_us,
            } => {
                let book = self.books.get_mut(&session)?;
                book.touched_us = touched_mono_us;
                book.end = Some(End::Expired(at_mono_us));
                Some(Happening::Expired {
                    client: self.client_of(session),
                    session,
                    mono_us: at_mono_us,
                    touched_mono_us,
                    due_mono_us,
                    after_freeze_ms: self.since_freeze(at_mono_us),
                })
            }
        }
    }

    /// Takes a line of a client.
    pub fn client_said(&mut self, client: ClientKind, line: &ClientLine) -> Option<Happening> {
        match line {
            ClientLine::Connected {
                session,
                timeout_ms,
                at_mono_us,
            } => {
                let again = self.clients.insert(client, *session) == Some(*session);
                let (session, timeout_ms, mono_us) = (*session, *timeout_ms, *at_mono_us);
                Some(Happening::Session {
                    client,
                    session,
                    timeout_ms,
                    again,
                    mono_us,
                })
            }
            ClientLine::Reconnecting { why, at_mono_us } => {
                let (why, mono_us) = (why.clone(), *at_mono_us);
                Some(Happening::Reconnecting {
                    client,
                    why,
                    mono_us,
                })
            }
            ClientLine::Expired {
                session,
                at_mono_us,
            } => {
                self.told_expired.push(client);
                let (session, mono_us) = (*session, *at_mono_us);
                Some(Happening::ToldExpired {
                    client,
                    session,
                    mono_us,
                })
            }
            // The goodbye is part of cleaning up, not of the story.
            ClientLine::Closed { .. } => None,
        }
    }

    /// Takes an event of the daemon.
    pub fn daemon_said(&mut self, event: &DaemonEvent, received_us: u64) -> Option<Happening> {
        if event.event == "started" {
            self.daemon_started = true;
            return None;
        }
        let session = SessionId::parse(event.id.as_deref()?)?;
        let role = event.role?;
        match event.event.as_str() {
            "lease_seen" => {
                self.leases.entry((session, role)).or_insert(Lease {
                    stage: Stage::Healthy,
                    cause: None,
                    summary: None,
                    remaining: None,
                });
                let (client, mono_us) = (self.client_of(session), received_us);
                Some(Happening::LeaseSeen {
                    client,
                    session,
                    role,
                    mono_us,
                })
            }
            "transition" => self.transition(session, role, event, received_us),
            _ => None,
        }
    }

    fn transition(
        &mut self,
        session: SessionId,
        role: Role,
        event: &DaemonEvent,
        received_us: u64,
    ) -> Option<Happening> {
        let client = self.client_of(session);
        let stamped_us = event.mono_us.unwrap_or(received_us);
        let stage = event.stage();
        let renewed = event.to.as_deref() == Some("renewed");
        let before = self.leases.insert(
            (session, role),
            Lease {
                stage: stage.unwrap_or(Stage::Healthy),
                cause: event.cause.clone(),
                summary: event.summary.clone(),
                remaining: event.remaining_ms.map(|ms| (ms, stamped_us)),
            },
        );
        let freeze = self.freezes.last_mut();
        if renewed {
            let thawed = freeze.filter(|f| f.thawed_us.is_some_and(|at| stamped_us >= at));
            if let Some(freeze) = thawed {
                freeze.renewed.entry((session, role)).or_insert(received_us);
            }
            return Some(Happening::Renewed {
                client,
                session,
                role,
                mono_us: received_us,
            });
        }
        if event.to.as_deref() == Some("expired") {
            return Some(Happening::SaysExpired {
                client,
                session,
                role,
                mono_us: received_us,
            });
        }
        let stage = stage.filter(|s| *s > Stage::Healthy)?;
        let warning = Warning {
            session,
            role,
            stage,
            cause: event.cause.clone(),
            peer: event
                .evidence
                .iter()
                .any(|e| e.side.as_deref() == Some("peer")),
            stamped_us,
            received_us,
        };
        let blames_server = warning.blames_server();
        let alive = self
            .books
            .get(&session)
            .is_none_or(|book| book.end.is_none());
        let was_healthy = before.is_none_or(|lease| lease.stage == Stage::Healthy);
        // While a client is frozen, a warning about another one isn't what the act is about.
        let expected = freeze.filter(|f| {
            let during = stamped_us >= f.frozen_us && f.thawed_us.is_none();
            during && f.client.is_none_or(|frozen| Some(frozen) == client)
        });
        match expected {
            Some(freeze) => freeze.warnings.push(warning),
            // Of a dead session nothing is news, and a lease that was late already isn't late anew.
            None => self.stray_warnings += u32::from(alive && was_healthy),
        }
        Some(Happening::Warning {
            client,
            session,
            role,
            stage,
            condition: event.condition.clone(),
            cause: event.cause.clone(),
            blames_server,
            remaining_ms: event.remaining_ms,
            summary: event.summary.clone(),
            after_freeze_ms: self.since_freeze(received_us),
            mono_us: received_us,
        })
    }

    /// The driver has frozen a client, or the server.
    pub fn froze(&mut self, client: Option<ClientKind>, frozen_us: u64) {
        let (thawed_us, warnings, renewed) = (None, Vec::new(), BTreeMap::new());
        self.freezes.push(Freeze {
            client,
            frozen_us,
            thawed_us,
            warnings,
            renewed,
        });
    }

    /// The driver is about to let it run again; for how long it stood still, in microseconds.
    pub fn thaws(&mut self, now: u64) -> u64 {
        let Some(freeze) = self.freezes.last_mut() else {
            return 0;
        };
        freeze.thawed_us = Some(now);
        now.saturating_sub(freeze.frozen_us)
    }

    fn since_freeze(&self, at_us: u64) -> Option<f64> {
        let freeze = self.freezes.last()?;
        let until = freeze.thawed_us.unwrap_or(u64::MAX);
        let during = (freeze.frozen_us..until).contains(&at_us);
        during.then(|| (at_us - freeze.frozen_us) as f64 / MS as f64)
    }

    fn client_of(&self, session: SessionId) -> Option<ClientKind> {
        self.clients
            .iter()
            .find(|(_, id)| **id == session)
            .map(|(client, _)| *client)
    }

    fn end_of(&self, client: ClientKind) -> Option<End> {
        self.books.get(self.clients.get(&client)?)?.end
    }

    /// Clients whose session lives.
    fn living(&self) -> impl Iterator<Item = (ClientKind, SessionId)> {
        self.clients
            .iter()
            .map(|(c, s)| (*c, *s))
            .filter(|(c, _)| self.end_of(*c).is_none())
    }

    /// Whether all clients have their sessions, by their own word and the server's.
    pub fn all_connected(&self) -> bool {
        ClientKind::ALL.iter().all(|c| {
            self.clients
                .get(c)
                .is_some_and(|session| self.books.contains_key(session))
        })
    }

    /// Whether the daemon has seen both ends of all sessions.
    pub fn all_seen(&self) -> bool {
        self.all_connected() && self.unseen().is_empty()
    }

    fn unseen(&self) -> Vec<(ClientKind, Role)> {
        let ends = ClientKind::ALL
            .iter()
            .flat_map(|c| [(*c, Role::Holder), (*c, Role::Grantor)]);
        ends.filter(|(client, role)| {
            !self
                .clients
                .get(client)
                .is_some_and(|s| self.leases.contains_key(&(*s, *role)))
        })
        .collect()
    }

    /// Whether the daemon calls every living session healthy.
    pub fn all_healthy(&self) -> bool {
        self.living().all(|(_, session)| {
            [Role::Holder, Role::Grantor].iter().all(|role| {
                self.leases
                    .get(&(session, *role))
                    .is_none_or(|l| l.stage == Stage::Healthy)
            })
        })
    }

    /// Whether the server has expired the frozen client's session.
    pub fn frozen_client_expired(&self) -> bool {
        let frozen = self.freezes.iter().find_map(|f| f.client);
        matches!(frozen.and_then(|c| self.end_of(c)), Some(End::Expired(_)))
    }

    /// Whether this client has been told so.
    pub fn told_expired(&self, client: ClientKind) -> bool {
        self.told_expired.contains(&client)
    }

    /// Whether all that was warned of while the server stood still has been renewed since.
    pub fn all_renewed(&self) -> bool {
        let Some(freeze) = self.freezes.iter().find(|f| f.client.is_none()) else {
            return false;
        };
        freeze
            .warnings
            .iter()
            .all(|w| freeze.renewed.contains_key(&(w.session, w.role)))
    }

    /// The live display's lines.
    pub fn rows(&self, now: u64) -> Vec<Row> {
        ClientKind::ALL
            .iter()
            .map(|client| self.row(*client, now))
            .collect()
    }

    fn row(&self, client: ClientKind, now: u64) -> Row {
        let session = self.clients.get(&client).copied();
        let book = session.and_then(|s| self.books.get(&s));
        // At the same stage the holder's words come first: its remaining time is the safe one.
        let worst = [Role::Grantor, Role::Holder]
            .iter()
            .filter_map(|role| self.leases.get(&(session?, *role)))
            .max_by_key(|lease| lease.stage);
        let warned = worst.filter(|lease| lease.stage > Stage::Healthy);
        let by_daemon = warned
            .and_then(|l| l.remaining)
            .map(|(ms, at)| ms - ms_between(at, now));
        let by_book = book.map(|b| b.timeout_ms as f64 - ms_between(b.touched_us, now));
        let words = warned.map(|l| {
            let cause = l.cause.as_deref().unwrap_or("cause not known yet");
            let summary = l.summary.as_deref().unwrap_or_default();
            // The head of the daemon's summary repeats the session and the time left.
            let facts = summary.split_once("; ").map_or("", |(_, facts)| facts);
            [cause, facts].join("  ").trim_end().to_owned()
        });
        Row {
            client,
            session,
            timeout_ms: book.map_or(0, |b| b.timeout_ms),
            remaining_ms: by_daemon.or(by_book),
            stage: worst.map(|lease| lease.stage),
            end: book.and_then(|b| b.end),
            reason: words.unwrap_or_default(),
        }
    }
}

fn ms_between(from_us: u64, to_us: u64) -> f64 {
    (to_us as f64 - from_us as f64) / MS as f64
}

mod judge;
#[cfg(test)]
mod tests;
