//! A ZooKeeper server's rules: sessions in buckets of ticks, touched when a request is *read*; after
//! a pause it expires before it reads.

use std::collections::HashMap;

use watchdog_model::Mono;
use watchdog_model::leases::observation::{CloseHow, Role};
use watchdog_model::time::{MS, ms};

use super::flow::Message;
use super::{Event, Held, TrueExpiry, World};

pub struct Session {
    pub holder: usize,
    pub timeout_ns: u64,
    pub expires_at: Mono,
    pub flow: Option<usize>,
}

pub struct Grantor {
    pub tick_ns: u64,
    pub held: Option<Held>,
    pub sessions: HashMap<u64, Session>,
    /// Flows that this end still holds open, in order of opening.
    pub open: std::collections::BTreeSet<usize>,
    /// Its answers wait behind a hung fsync; it reads, and touches sessions, all the same.
    pub mute: bool,
    waiting: Vec<(usize, Message)>,
    next_session: u64,
}

impl Grantor {
    pub fn new(tick_ns: u64) -> Self {
        Self {
            tick_ns,
            held: None,
            sessions: HashMap::new(),
            open: std::collections::BTreeSet::new(),
            mute: false,
            waiting: Vec::new(),
            next_session: 0,
        }
    }

    pub fn open_flows(&self) -> Vec<usize> {
        self.open.iter().copied().collect()
    }

    /// E = (⌊(t + T) / tick⌋ + 1) · tick.
    fn bucket(&self, touched_at: Mono, timeout_ns: u64) -> Mono {
        Mono(((touched_at.0 + timeout_ns) / self.tick_ns + 1) * self.tick_ns)
    }

    fn negotiate(&self, asked_ms: i32) -> u64 {
        let asked = u64::try_from(asked_ms).map_or(0, ms);
        asked.clamp(2 * self.tick_ns, 20 * self.tick_ns)
    }
}

impl World {
    pub fn grantor_reads(&mut self, flow: usize) {
        let grantor = self.flows[flow].grantor;
        if self.grantors[grantor].held.is_some() {
            return;
        }
        for (_, message) in self.take_unread(flow, Role::Grantor) {
            self.process(grantor, flow, message);
        }
    }

    fn process(&mut self, grantor: usize, flow: usize, message: Message) {
        let (now, holder) = (self.now, self.flows[flow].holder);
        if let Message::Hello { asked_ms, session } = message {
            let timeout_ns = self.grantors[grantor].negotiate(asked_ms);
            let server = &mut self.grantors[grantor];
            let session = if session == 0 {
                server.next_session += 1;
                let new = ((grantor as u64 + 1) << 48) | server.next_session;
                server.sessions.insert(
                    new,
                    Session {
                        holder,
                        timeout_ns,
                        expires_at: now,
                        flow: Some(flow),
                    },
                );
                let due = server.bucket(now, timeout_ns);
                self.at(due, Event::ExpiryCheck(grantor, new));
                new
            } else {
                session
            };
            self.flows[flow].session = session;
            let server = &mut self.grantors[grantor];
            let due = server.bucket(now, timeout_ns);
            let welcome = match server.sessions.get_mut(&session) {
                Some(known) => {
                    known.timeout_ns = timeout_ns;
                    known.flow = Some(flow);
                    known.expires_at = due;
                    Message::Welcome {
                        timeout_ms: i32::try_from(timeout_ns / MS).unwrap(),
                        session,
                    }
                }
                None => Message::Welcome {
                    timeout_ms: 0,
                    session: 0,
                },
            };
            self.reply(grantor, flow, welcome);
            return;
        }
        let id = self.flows[flow].session;
        let server = &mut self.grantors[grantor];
        if message == Message::CloseSession {
            server.sessions.remove(&id);
            self.send(flow, Role::Grantor, Message::Reply);
            self.server_hangs_up(flow);
            return;
        }
        let Some(timeout_ns) = server.sessions.get(&id).map(|session| session.timeout_ns) else {
            self.server_hangs_up(flow);
            return;
        };
        let due = server.bucket(now, timeout_ns);
        if let Some(known) = server.sessions.get_mut(&id) {
            known.expires_at = due;
        }
        self.reply(grantor, flow, Message::Reply);
    }

    fn reply(&mut self, grantor: usize, flow: usize, message: Message) {
        if self.grantors[grantor].mute {
            self.grantors[grantor].waiting.push((flow, message));
        } else {
            self.send(flow, Role::Grantor, message);
        }
    }

    /// The disk writes again: all answers go out.
    pub fn unmute(&mut self, grantor: usize) {
        self.grantors[grantor].mute = false;
        for (flow, message) in std::mem::take(&mut self.grantors[grantor].waiting) {
            self.send(flow, Role::Grantor, message);
        }
    }

    fn server_hangs_up(&mut self, flow: usize) {
        let grantor = self.flows[flow].grantor;
        self.grantors[grantor].open.remove(&flow);
        self.hang_up(flow, Role::Grantor, CloseHow::OwnClose);
    }

    pub fn expiry_check(&mut self, grantor: usize, id: u64) {
        let server = &self.grantors[grantor];
        let Some(session) = server.sessions.get(&id) else {
            return;
        };
        if session.expires_at > self.now {
            self.at(session.expires_at, Event::ExpiryCheck(grantor, id));
        } else if server.held.is_none() {
            self.expire(grantor, id);
        }
    }

    fn expire(&mut self, grantor: usize, id: u64) {
        let Some(session) = self.grantors[grantor].sessions.remove(&id) else {
            return;
        };
        let holder_left = self.holders[session.holder].left;
        let floors = self.floors_of(id);
        self.expiries.push(TrueExpiry {
            session: id,
            holder: session.holder,
            at: self.now,
            holder_left,
            hung_up: session.flow.is_none(),
            floors,
        });
        if let Some(flow) = session.flow {
            self.server_hangs_up(flow);
        }
    }

    /// First the expiry thread, then the sockets: that is how punctual sessions are lost.
    pub fn grantor_resumes(&mut self, grantor: usize) {
        let server = &self.grantors[grantor];
        let mut due: Vec<u64> = server
            .sessions
            .iter()
            .filter(|(_, session)| session.expires_at <= self.now)
            .map(|(id, _)| *id)
            .collect();
        due.sort_unstable();
        for id in due {
            self.expire(grantor, id);
        }
        for flow in self.grantors[grantor].open_flows() {
            self.grantor_reads(flow);
        }
    }

    /// The other end hung up. What it had sent before is still read.
    pub fn grantor_lost(&mut self, flow: usize) {
        let grantor = self.flows[flow].grantor;
        self.grantors[grantor].open.remove(&flow);
        let id = self.flows[flow].session;
        if let Some(session) = self.grantors[grantor].sessions.get_mut(&id)
            && session.flow == Some(flow)
        {
            session.flow = None;
        }
    }
}
