//! One TCP connection with both its ends, and what each end's kernel shows of it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use watchdog_model::Mono;
use watchdog_model::leases::observation::{
    CloseHow, Closed, Endpoints, FlowKey, FlowObservation, Owner, Role,
};
use watchdog_model::time::{MS, SECOND, ms};

use super::{Event, World};

/// First retransmission of Linux.
const RTO_NS: u64 = 200 * MS;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Message {
    Hello { asked_ms: i32, session: u64 },
    Ping,
    Data,
    CloseSession,
    Welcome { timeout_ms: i32, session: u64 },
    Reply,
    Fin,
}

#[derive(Debug)]
pub struct End {
    pub seen: FlowObservation,
    pub open: bool,
    /// Arrived, not read by the application.
    pub unread: VecDeque<(Mono, Message)>,
    /// Requests without an answer: when sent (holder) or arrived (grantor).
    pub pending: VecDeque<Mono>,
    /// Sent to the other end and not arrived there.
    pub on_the_way: VecDeque<(Mono, Message)>,
    /// When the newest of them arrives: TCP keeps the order.
    arrives_at: Mono,
    retries: u32,
    pub marked: bool,
}

#[derive(Debug)]
pub struct Flow {
    pub holder: usize,
    pub grantor: usize,
    /// The session that it carries, as the grantor knows it.
    pub session: u64,
    /// Its slot is used for another by now: nothing of it is seen any more.
    pub recycled: bool,
    ends: [End; 2],
}

fn index(role: Role) -> usize {
    match role {
        Role::Holder => 0,
        Role::Grantor => 1,
    }
}

pub fn other(role: Role) -> Role {
    match role {
        Role::Holder => Role::Grantor,
        Role::Grantor => Role::Holder,
    }
}

impl Flow {
    pub fn end(&self, role: Role) -> &End {
        &self.ends[index(role)]
    }

    pub fn end_mut(&mut self, role: Role) -> &mut End {
        &mut self.ends[index(role)]
    }
}

fn end(number: usize, role: Role, holder: usize, grantor: usize, now: Mono) -> End {
    let address = |kind: u8, actor: usize, port| {
        let [.., high, low] = u32::try_from(actor).unwrap().to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, kind, high, low)), port)
    };
    let port = 1_024 + u16::try_from(number % 60_000).unwrap();
    let (holder_at, grantor_at) = (address(1, holder, port), address(2, grantor, 2181));
    let (endpoints, pid) = match role {
        Role::Holder => (
            Endpoints {
                local: holder_at,
                peer: grantor_at,
            },
            1_000 + holder,
        ),
        Role::Grantor => (
            Endpoints {
                local: grantor_at,
                peer: holder_at,
            },
            100 + grantor,
        ),
    };
    let key = FlowKey(2 * number as u64 + index(role) as u64);
    let mut seen = FlowObservation::opened(key, 0, role, endpoints, now);
    seen.owner = Some(Owner {
        pid: u32::try_from(pid).unwrap(),
        comm: [0; 16],
        executable: 0,
    });
    End {
        seen,
        open: true,
        unread: VecDeque::new(),
        pending: VecDeque::new(),
        on_the_way: VecDeque::new(),
        arrives_at: now,
        retries: 0,
        marked: false,
    }
}

impl World {
    pub fn open_flow(&mut self, holder: usize, grantor: usize) -> usize {
        let number = self.flows.len();
        let make = |role| end(number, role, holder, grantor, self.now);
        let mut ends = [make(Role::Holder), make(Role::Grantor)];
        // What a process runs is known to the flow from its first read or write on.
        ends[0].seen.owner = ends[0].seen.owner.map(|owner| Owner {
            executable: self.holders[holder].executable,
            ..owner
        });
        self.flows.push(Flow {
            holder,
            grantor,
            session: 0,
            recycled: false,
            ends,
        });
        self.grantors[grantor].open.insert(number);
        number
    }

    /// The application writes; the kernel sees it leave.
    pub fn send(&mut self, flow: usize, from: Role, message: Message) {
        let now = self.now;
        let end = self.flows[flow].end_mut(from);
        if !end.open {
            return;
        }
        let seen = &mut end.seen;
        match (from, message) {
            (_, Message::Fin) => {}
            (Role::Holder, _) => {
                note_request(seen, message, now);
                end.pending.push_back(now);
            }
            (Role::Grantor, _) => {
                if let Some(arrived_at) = end.pending.pop_front() {
                    note_answer(seen, message, arrived_at, now);
                }
            }
        }
        end.seen.pending_since = end.pending.front().copied();
        end.on_the_way.push_back((now, message));
        self.mark(flow, from);
        self.dispatch(flow, from);
    }

    /// The newest message of this end sets out.
    fn dispatch(&mut self, flow: usize, from: Role) {
        let now = self.now;
        let link = self.links[self.flows[flow].holder];
        if link.cut {
            self.lose(flow, from);
            return;
        }
        let lost = link.loss_one_in != 0 && self.rng.one_in(link.loss_one_in);
        let delay = link.latency_ns + self.rng.between(0, link.jitter_ns);
        let delay = if lost { delay + RTO_NS } else { delay };
        let end = self.flows[flow].end_mut(from);
        if end.retries > 0 {
            return; // behind one that is being sent again
        }
        end.arrives_at = end.arrives_at.max(now.plus(delay));
        let at = end.arrives_at;
        self.at(at, Event::Arrive(flow, other(from)));
    }

    fn lose(&mut self, flow: usize, from: Role) {
        let now = self.now;
        let end = self.flows[flow].end_mut(from);
        if end.retries == 0 {
            end.retries = 1;
            let since = end.on_the_way.front().map_or(now, |(sent_at, _)| *sent_at);
            end.seen.unacknowledged_since = Some(since);
            self.at(now.plus(RTO_NS), Event::Retransmit(flow, from));
        }
    }

    pub fn retransmit(&mut self, flow: usize, from: Role) {
        let cut = self.links[self.flows[flow].holder].cut;
        let end = self.flows[flow].end_mut(from);
        if end.on_the_way.is_empty() {
            end.retries = 0;
            return;
        }
        if cut {
            end.seen.retransmits += 1;
            end.retries += 1;
            let wait = RTO_NS << end.retries.min(9);
            self.mark(flow, from);
            self.at(self.now.plus(wait), Event::Retransmit(flow, from));
            return;
        }
        end.retries = 0;
        end.seen.retransmits = 0;
        end.seen.unacknowledged_since = None;
        let waiting = end.on_the_way.len();
        self.mark(flow, from);
        for _ in 0..waiting {
            self.at(self.now.plus(ms(1)), Event::Arrive(flow, other(from)));
        }
    }

    /// The oldest message on its way reaches the kernel of the end `to`.
    pub fn arrive(&mut self, flow: usize, to: Role) {
        let now = self.now;
        if self.links[self.flows[flow].holder].cut {
            self.lose(flow, other(to));
            return;
        }
        let Some((_, message)) = self.flows[flow].end_mut(other(to)).on_the_way.pop_front() else {
            return;
        };
        let end = self.flows[flow].end_mut(to);
        if !end.open {
            if message != Message::Fin {
                // Nobody there: the kernel answers with a reset.
                self.close_end(flow, other(to), CloseHow::PeerReset);
            }
            return;
        }
        match (to, message) {
            (_, Message::Fin) => {
                self.close_end(flow, to, CloseHow::PeerFin);
                return;
            }
            (Role::Grantor, _) => {
                note_request(&mut end.seen, message, now);
                end.pending.push_back(now);
            }
            (Role::Holder, _) => {
                if let Some(sent_at) = end.pending.pop_front() {
                    note_answer(&mut end.seen, message, sent_at, now);
                }
            }
        }
        end.seen.pending_since = end.pending.front().copied();
        end.seen.unread_since.get_or_insert(now);
        end.unread.push_back((now, message));
        if let Message::Welcome { session, .. } = message {
            self.welcomed.entry(session).or_insert(now);
        }
        self.mark(flow, to);
        match to {
            Role::Holder => self.holder_reads(flow),
            Role::Grantor => self.grantor_reads(flow),
        }
    }

    /// The application takes all that has arrived.
    pub fn take_unread(&mut self, flow: usize, role: Role) -> VecDeque<(Mono, Message)> {
        let now = self.now;
        let end = self.flows[flow].end_mut(role);
        if let Some((arrived_at, _)) = end.unread.front() {
            end.seen.reads += 1;
            end.seen.unread_ns = now.since(*arrived_at);
            end.seen.read_at = Some(now);
            end.seen.unread_since = None;
            self.mark(flow, role);
        }
        std::mem::take(&mut self.flows[flow].end_mut(role).unread)
    }

    /// The application hangs up.
    pub fn hang_up(&mut self, flow: usize, role: Role, how: CloseHow) {
        if self.flows[flow].end(role).open {
            self.send(flow, role, Message::Fin);
            self.close_end(flow, role, how);
        }
    }

    fn close_end(&mut self, flow: usize, role: Role, how: CloseHow) {
        let end = self.flows[flow].end_mut(role);
        if !end.open {
            return;
        }
        end.open = false;
        end.seen.closed = Some(Closed { at: self.now, how });
        self.mark(flow, role);
        if how != CloseHow::OwnClose && how != CloseHow::OwnExit {
            match role {
                Role::Holder => self.holder_lost(flow),
                Role::Grantor => self.grantor_lost(flow),
            }
        }
        if !self.flows[flow].end(other(role)).open {
            self.at(self.now.plus(SECOND), Event::Recycle(flow));
        }
    }
}

fn note_request(seen: &mut FlowObservation, message: Message, now: Mono) {
    match message {
        Message::Hello { asked_ms, session } => {
            seen.hello = Some(watchdog_model::leases::observation::Hello {
                at: now,
                asked_timeout_ms: asked_ms,
                session,
            });
        }
        Message::Ping => {
            seen.keepalives += 1;
            seen.keepalive_gap_ns = seen.request_at.map_or(0, |before| now.since(before));
        }
        Message::CloseSession => seen.close_request_at = Some(now),
        _ => {}
    }
    seen.request_at = Some(now);
    seen.requests += 1;
}

fn note_answer(seen: &mut FlowObservation, message: Message, asked_at: Mono, now: Mono) {
    seen.answered_at = Some(asked_at);
    seen.answers += 1;
    seen.rtt_ns = now.since(asked_at);
    seen.reply_at = Some(now);
    if let Message::Welcome {
        timeout_ms,
        session,
    } = message
    {
        seen.welcome = Some(watchdog_model::leases::observation::Welcome {
            at: now,
            timeout_ms,
            session,
        });
    }
}
