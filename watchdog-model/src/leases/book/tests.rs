//! Stories of single leases, told to the book directly: [`stages`] of one flow, and [`lives`] that
//! go on over several flows and end. Here: the bench they are told on.

mod evidence;
mod exchanges;
mod lives;
mod stages;

use std::net::SocketAddr;

use super::*;
use crate::causes::{Cause, Fact, Side};
use crate::leases::note::{Outcome, Transition};
use crate::leases::observation::{
    CloseHow, Closed, Hello, Owner, Remembered, Stall, StallKind, TimeoutSource, Welcome,
};
use crate::time::{SECOND, ms, secs};

const START: Mono = Mono(1_000 * SECOND);
const SESSION: u64 = 0x0300_1e64_7d60_0030;

struct Bench {
    book: Book,
    notes: Vec<(Mono, Note)>,
    now: Mono,
}

impl Bench {
    fn new() -> Self {
        Self::with(EntrySettings::default())
    }

    fn with(settings: EntrySettings) -> Self {
        Self {
            book: Book::new(vec![settings], 16),
            notes: Vec::new(),
            now: START,
        }
    }

    /// Jumps from deadline to deadline.
    fn until(&mut self, after_ns: u64) {
        let end = START.plus(after_ns);
        while let Some(next) = self.book.next_change().filter(|next| *next <= end) {
            assert!(next >= self.now, "a deadline in the past");
            self.now = next;
            let now = self.now;
            let notes = &mut self.notes;
            self.book.advance(now, &mut |note| notes.push((now, note)));
            assert!(self.book.next_change().is_none_or(|next| next > now));
        }
        self.now = end;
    }

    fn see(&mut self, flow: &FlowObservation) {
        let now = self.now;
        let notes = &mut self.notes;
        self.book
            .observe(flow, now, &mut |note| notes.push((now, note)));
    }

    fn gone(&mut self, flow: &FlowObservation) {
        let now = self.now;
        let notes = &mut self.notes;
        self.book
            .flow_gone(flow.key, now, &mut |note| notes.push((now, note)));
    }

    /// What has been said since the last call, in short.
    fn said(&mut self) -> Vec<String> {
        self.notes.drain(..).map(|(_, note)| short(&note)).collect()
    }

    fn only(&self) -> LeaseView {
        let mut all = self.book.leases(self.now);
        let one = all.next().unwrap();
        assert!(all.next().is_none());
        one
    }
}

fn short(note: &Note) -> String {
    match note {
        Note::Seen { subject, was: None } => format!("seen {:?}", subject.role),
        Note::Seen { was: Some(_), .. } => "seen again".to_owned(),
        Note::Transition(Transition {
            from,
            to,
            condition,
            verdict,
            ..
        }) => match to {
            Outcome::Stage(to) => format!("{from:?}>{to:?} {condition:?} {:?}", verdict.cause),
            other => format!("{from:?}>{other:?}"),
        },
        Note::Gone { reason, .. } => format!("gone {reason:?}"),
        Note::FalseExpiry(_) => "false expiry".to_owned(),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ends(role: Role, port: u16) -> Endpoints {
    let holder = SocketAddr::new("10.0.0.1".parse().unwrap(), port);
    let grantor = address("10.0.0.2:2181");
    match role {
        Role::Holder => Endpoints {
            local: holder,
            peer: grantor,
        },
        Role::Grantor => Endpoints {
            local: grantor,
            peer: holder,
        },
    }
}

fn owner(pid: u32) -> Option<Owner> {
    Some(Owner {
        pid,
        comm: *b"meta\0\0\0\0\0\0\0\0\0\0\0\0",
        executable: 77,
    })
}

/// A flow whose client asked for `asked` and has not been answered.
fn asking(key: u64, role: Role, session: u64, at: Mono) -> FlowObservation {
    let port = 40_000 + u16::try_from(key).unwrap();
    let mut flow = FlowObservation::opened(FlowKey(key), 0, role, ends(role, port), at);
    flow.owner = owner(7);
    flow.hello = Some(Hello {
        at,
        asked_timeout_ms: 6_000,
        session,
    });
    flow.request_at = Some(at);
    flow.pending_since = Some(at);
    flow.requests = 1;
    flow
}

fn welcome(flow: &mut FlowObservation, session: u64, timeout_ms: i32, at: Mono) {
    flow.welcome = Some(Welcome {
        at,
        timeout_ms,
        session,
    });
    flow.reply_at = Some(at);
    flow.read_at = Some(at);
    if timeout_ms > 0 {
        flow.answered_at = flow.request_at;
    }
    flow.pending_since = None;
}

/// A session of 6 s, opened at `at`.
fn session(key: u64, role: Role, at: Mono) -> FlowObservation {
    let mut flow = asking(key, role, 0, at);
    welcome(&mut flow, SESSION, 6_000, at);
    flow
}

/// A ping that is answered and read at once.
fn ping(flow: &mut FlowObservation, at: Mono) {
    ping_sent(flow, at);
    flow.pending_since = None;
    flow.answered_at = Some(at);
    flow.answers += 1;
    flow.rtt_ns = ms(1);
    flow.reply_at = Some(at.plus(ms(1)));
    flow.read_at = Some(at.plus(ms(1)));
    flow.unread_since = None;
    flow.reads += 1;
    flow.unread_ns = 10;
}

fn ping_sent(flow: &mut FlowObservation, at: Mono) {
    flow.keepalive_gap_ns = at.since(flow.request_at.unwrap_or(at));
    flow.keepalives += 1;
    flow.requests += 1;
    flow.request_at = Some(at);
    flow.pending_since.get_or_insert(at);
}

/// Three pings, 2 s apart: cadence and normals are known. The newest renewal is at START + 6 s.
fn settled(bench: &mut Bench, role: Role) -> FlowObservation {
    let mut flow = session(1, role, START);
    bench.see(&flow);
    for cycle in 1..=3 {
        bench.until(secs(2 * cycle));
        ping(&mut flow, bench.now);
        bench.see(&flow);
    }
    assert_eq!(bench.said(), [format!("seen {role:?}")]);
    flow
}

fn stopped(since: Mono) -> Option<Stall> {
    Some(Stall {
        since,
        kind: StallKind::Stopped,
        tid: 138_783,
        comm: *b"meta\0\0\0\0\0\0\0\0\0\0\0\0",
    })
}
