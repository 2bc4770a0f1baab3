//! Notes for tests, made readable.

use std::net::SocketAddr;

use watchdog_model::causes::{Cause, Fact, Side, Verdict};
use watchdog_model::leases::note::{
    Condition, GoneReason, LeaseHandle, LeaseId, Note, Outcome, Stage, Subject, Transition,
};
use watchdog_model::leases::observation::{Comm, Endpoints, Owner, Role, StallKind, TimeoutSource};
use watchdog_model::time::{Mono, ms};

/// A thread name as the kernel keeps it.
pub fn comm(name: &[u8]) -> Comm {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

/// A transition under construction.
#[derive(Clone, Copy)]
pub struct Sample(pub Transition);

/// The lease with this handle, which is its session id too.
pub fn subject(handle: u64) -> Subject {
    Subject {
        handle: LeaseHandle(handle),
        entry: 0,
        role: Role::Holder,
        id: LeaseId::Session(handle),
        endpoints: Endpoints {
            local: "10.10.10.161:40222".parse().unwrap(),
            peer: "10.10.10.163:2181".parse().unwrap(),
        },
        owner: None,
        timeout_ns: Some(ms(12_000)),
        timeout_source: TimeoutSource::Handshake,
    }
}

/// The end of that lease.
pub fn gone(handle: u64, reason: GoneReason) -> Note {
    Note::Gone {
        subject: subject(handle),
        reason,
    }
}

impl Sample {
    /// From healthy to late, for no known cause.
    pub fn late(handle: u64) -> Self {
        Self(Transition {
            subject: subject(handle),
            from: Stage::Healthy,
            to: Outcome::Stage(Stage::Late),
            condition: Condition::RenewalNotSent,
            since: Mono(0),
            verdict: Verdict::UNKNOWN,
            remaining_ns: Some(8_000_000_000),
            silent_ns: Some(ms(4000)),
        })
    }

    pub fn note(self) -> Note {
        Note::Transition(self.0)
    }

    pub fn from(mut self, from: Stage) -> Self {
        self.0.from = from;
        self
    }

    pub fn to(mut self, to: Outcome) -> Self {
        self.0.to = to;
        self
    }

    pub fn cause(mut self, cause: Cause) -> Self {
        self.0.verdict.cause = cause;
        self
    }

    pub fn condition(mut self, condition: Condition, since: Mono) -> Self {
        self.0.condition = condition;
        self.0.since = since;
        self
    }

    pub fn fact(mut self, fact: Fact) -> Self {
        self.0.verdict.push(fact);
        self
    }

    pub fn stopped(self, side: Side) -> Self {
        self.fact(Fact::ThreadState {
            side,
            tid: 138_783,
            comm: comm(b"meta"),
            state: StallKind::Stopped,
            for_ns: ms(3000),
        })
    }

    pub fn pid(mut self, pid: u32) -> Self {
        self.0.subject.owner = Some(Owner {
            pid,
            comm: comm(b"meta"),
            executable: 0,
        });
        self
    }

    pub fn grantor(mut self) -> Self {
        self.0.subject.role = Role::Grantor;
        self
    }

    pub fn remaining_ms(mut self, remaining: i64) -> Self {
        self.0.remaining_ns = Some(remaining * 1_000_000);
        self
    }

    pub fn local(mut self, address: &str) -> Self {
        self.0.subject.endpoints.local = address.parse().unwrap();
        self
    }

    pub fn peer(mut self, address: &str) -> Self {
        self.0.subject.endpoints.peer = address.parse().unwrap();
        self
    }

    pub fn local_port(mut self, port: u16) -> Self {
        SocketAddr::set_port(&mut self.0.subject.endpoints.local, port);
        self
    }

    pub fn peer_port(mut self, port: u16) -> Self {
        SocketAddr::set_port(&mut self.0.subject.endpoints.peer, port);
        self
    }
}
