//! Stories of single leases, told to the book directly.

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

#[test]
fn a_holder_falls_silent_and_comes_back() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    bench.until(secs(9) - 1);
    assert_eq!(bench.said(), [""; 0]);
    bench.until(secs(9));
    assert_eq!(bench.said(), ["Healthy>AtRisk RenewalNotSent Unknown"]);
    bench.until(ms(10_500));
    assert_eq!(bench.said(), ["AtRisk>Jeopardy RenewalNotSent Unknown"]);
    assert_eq!(bench.only().remaining_ns, Some(1_500_000_000));
    ping(&mut flow, bench.now);
    bench.see(&flow);
    assert_eq!(bench.said(), ["Jeopardy>Renewed"]);
    assert_eq!(bench.only().stage, Stage::Healthy);
    assert_eq!(bench.only().verdict, Verdict::UNKNOWN);
}

#[test]
fn nothing_is_learned_from_a_silence() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    let before = bench.only().learned_cadence_ns;
    assert_eq!(before, Some(secs(2)));
    bench.until(secs(11));
    ping(&mut flow, bench.now);
    bench.see(&flow);
    assert_eq!(bench.only().learned_cadence_ns, before);
}

#[test]
fn a_stopped_holder_is_told_with_its_cause() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    flow.stall = stopped(bench.now);
    bench.see(&flow);
    bench.until(secs(6 + 6));
    assert_eq!(
        bench.said(),
        [
            "Healthy>Late ThreadStalled ProcessStopped",
            "Late>AtRisk ThreadStalled ProcessStopped",
            "AtRisk>AtRisk RenewalNotSent ProcessStopped",
            "AtRisk>Jeopardy RenewalNotSent ProcessStopped",
            "Jeopardy>Lapsed RenewalNotSent ProcessStopped",
        ]
    );
}

#[test]
fn a_stage_does_not_get_better_when_the_stall_ends() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    flow.stall = stopped(bench.now);
    bench.see(&flow);
    bench.until(ms(7_200));
    assert_eq!(bench.said().len(), 1);
    flow.stall = None;
    bench.see(&flow);
    assert_eq!(bench.said(), [""; 0]);
    assert_eq!(bench.only().stage, Stage::Late);
    bench.until(secs(8));
    ping(&mut flow, bench.now);
    bench.see(&flow);
    assert_eq!(bench.said(), ["Late>Renewed"]);
}

#[test]
fn a_stopped_server_is_the_cause_of_its_clients_wait() {
    let mut bench = Bench::new();
    let mut holder = settled(&mut bench, Role::Holder);
    let mut grantor = session(2, Role::Grantor, START);
    grantor.endpoints = ends(Role::Grantor, 40_001);
    bench.now = START.plus(secs(6));
    for cycle in 1..=3 {
        ping(&mut grantor, START.plus(secs(2 * cycle)));
        bench.see(&grantor);
    }
    bench.said();
    grantor.stall = stopped(START.plus(ms(7_900)));
    bench.until(secs(8));
    let sent = bench.now;
    ping_sent(&mut holder, sent);
    ping_sent(&mut grantor, sent);
    grantor.unread_since = Some(sent);
    bench.see(&grantor);
    bench.see(&holder);
    bench.until(secs(9));
    assert_eq!(
        bench.said(),
        [
            "Healthy>Late RenewalUnanswered ProcessStopped",
            "Healthy>Late RenewalUnread ProcessStopped",
            "Late>AtRisk RenewalUnread ProcessStopped",
            "Late>AtRisk RenewalUnanswered ProcessStopped",
        ]
    );
    let holder = bench
        .book
        .leases(bench.now)
        .find(|lease| lease.subject.role == Role::Holder)
        .unwrap();
    assert!(matches!(
        holder.verdict.facts[0],
        Some(Fact::ThreadState {
            side: Side::Peer,
            ..
        })
    ));
}

#[test]
fn a_stop_of_the_server_seen_late_changes_the_clients_cause() {
    let mut bench = Bench::new();
    let mut holder = settled(&mut bench, Role::Holder);
    let mut grantor = session(2, Role::Grantor, START.plus(secs(6)));
    grantor.endpoints = ends(Role::Grantor, 40_001);
    bench.see(&grantor);
    bench.said();
    bench.until(secs(8));
    ping_sent(&mut holder, bench.now);
    bench.see(&holder);
    bench.until(ms(8_500));
    assert_eq!(bench.said(), ["Healthy>Late RenewalUnanswered PeerSilent"]);
    grantor.stall = stopped(bench.now);
    bench.see(&grantor);
    bench.until(ms(8_500));
    assert_eq!(bench.said(), ["Late>Late RenewalUnanswered ProcessStopped"]);
    // And it stands when the server runs again but has not answered yet.
    grantor.stall = None;
    bench.see(&grantor);
    bench.until(ms(8_500));
    assert_eq!(bench.said(), [""; 0]);
    assert_eq!(bench.book.len(), 2);
}

#[test]
fn a_session_moves_to_another_flow_and_stays_one_lease() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    let handle = bench.only().subject.handle;
    bench.until(ms(6_500));
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::PeerReset,
    });
    bench.see(&flow);
    bench.until(ms(8_500));
    assert_eq!(bench.said(), ["Healthy>Late ConnectionLost PeerDown"]);
    bench.gone(&flow);
    let mut next = asking(2, Role::Holder, SESSION, bench.now);
    bench.see(&next);
    assert_eq!(bench.only().condition, Condition::ConnectionLost);
    bench.until(ms(8_700));
    welcome(&mut next, SESSION, 6_000, bench.now);
    bench.see(&next);
    assert_eq!(bench.said(), ["Late>Renewed"]);
    let view = bench.only();
    assert_eq!((view.subject.handle, view.flow), (handle, Some(next.key)));
    assert_eq!(view.floor, Some(START.plus(ms(14_500))));
}

/// A client that gives up an unanswered connection is no less late while it tries another.
#[test]
fn a_lateness_outlives_the_connection_that_it_was_seen_on() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    let renewed = flow.answered_at.unwrap();
    flow.pending_since = Some(renewed.plus(ms(200)));
    flow.request_at = flow.pending_since;
    bench.see(&flow);
    let late_at = renewed.plus(ms(1_700));
    bench.until(late_at.since(START));
    assert_eq!(bench.said(), ["Healthy>Late RenewalUnanswered PeerSilent"]);
    bench.gone(&flow);
    let next = asking(2, Role::Holder, SESSION, bench.now);
    bench.see(&next);
    bench.until(renewed.plus(ms(3_050)).since(START));
    let said = bench.said();
    assert!(
        said.iter().any(|line| line.starts_with("Late>AtRisk")),
        "{said:?}"
    );
}

#[test]
fn the_floor_stays_low_until_a_reconnect_is_answered() {
    let mut bench = Bench::new();
    let mut flow = asking(1, Role::Holder, 0, START);
    welcome(&mut flow, SESSION, 40_000, START);
    bench.see(&flow);
    let mut next = asking(2, Role::Holder, SESSION, START.plus(secs(1)));
    next.hello.as_mut().unwrap().asked_timeout_ms = 0;
    bench.until(secs(1));
    bench.see(&next);
    assert_eq!(
        bench.only().floor,
        Some(START.plus(secs(5))),
        "R counts as 4 s"
    );
    next.closed = Some(Closed {
        at: START.plus(secs(2)),
        how: CloseHow::PeerReset,
    });
    bench.until(secs(2));
    bench.see(&next);
    let mut third = asking(3, Role::Holder, SESSION, START.plus(secs(3)));
    third.hello.as_mut().unwrap().asked_timeout_ms = 40_000;
    bench.until(secs(3));
    bench.see(&third);
    assert_eq!(bench.only().floor, Some(START.plus(secs(5))));
    welcome(&mut third, SESSION, 40_000, START.plus(ms(3_100)));
    bench.until(ms(3_100));
    bench.see(&third);
    assert_eq!(bench.only().floor, Some(START.plus(secs(43))));
}

#[test]
fn a_closed_session_ends_quietly() {
    for hung_up in [false, true] {
        let mut bench = Bench::new();
        let mut flow = settled(&mut bench, Role::Holder);
        bench.until(secs(7));
        flow.close_request_at = Some(bench.now);
        flow.request_at = Some(bench.now);
        flow.pending_since = Some(bench.now);
        bench.see(&flow);
        bench.until(secs(12));
        assert_eq!(bench.said(), [""; 0]);
        if hung_up {
            flow.closed = Some(Closed {
                at: bench.now,
                how: CloseHow::OwnClose,
            });
        } else {
            flow.answered_at = flow.close_request_at;
        }
        bench.see(&flow);
        assert_eq!(bench.said(), ["gone Closed"]);
        // What the flow still shows starts nothing new.
        bench.see(&flow);
        bench.gone(&flow);
        assert_eq!(bench.said(), [""; 0]);
        assert_eq!(bench.book.next_change(), None);
    }
}

#[test]
fn an_expired_session_is_proven_by_its_welcome() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnClose,
    });
    bench.see(&flow);
    bench.until(secs(14));
    bench.said();
    let mut next = asking(2, Role::Holder, SESSION, bench.now);
    welcome(&mut next, 0, 0, bench.now);
    bench.see(&next);
    assert_eq!(bench.said(), ["Lapsed>Expired", "gone Expired"]);
    assert!(bench.book.is_empty());
    bench.see(&next);
    assert_eq!(bench.said(), [""; 0]);
}

#[test]
fn a_new_session_of_the_same_process_proves_that_the_lapsed_one_is_gone() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnClose,
    });
    bench.see(&flow);
    bench.until(secs(13));
    bench.said();
    let mut other = asking(2, Role::Holder, 0, bench.now);
    other.owner = owner(8);
    welcome(&mut other, 99, 6_000, bench.now);
    bench.see(&other);
    assert_eq!(
        bench.said(),
        ["seen Holder"],
        "another process proves nothing"
    );
    let mut own = asking(3, Role::Holder, 0, bench.now);
    welcome(&mut own, 100, 6_000, bench.now);
    bench.see(&own);
    assert_eq!(
        bench.said(),
        ["Lapsed>Expired", "gone Expired", "seen Holder"]
    );
}

#[test]
fn a_grantor_that_expires_an_unread_renewal_was_wrong() {
    for read_at_last in [false, true] {
        let mut bench = Bench::new();
        let mut flow = settled(&mut bench, Role::Grantor);
        flow.stall = stopped(START.plus(ms(6_100)));
        bench.until(secs(8));
        ping_sent(&mut flow, bench.now);
        flow.unread_since = Some(bench.now);
        bench.see(&flow);
        bench.until(secs(14));
        bench.said();
        flow.stall = None;
        if read_at_last {
            // The server's threads read what lies there at the moment at which it expires it.
            flow.read_at = Some(bench.now);
            flow.unread_since = None;
        }
        flow.closed = Some(Closed {
            at: bench.now.plus(5),
            how: CloseHow::OwnClose,
        });
        bench.see(&flow);
        let Some((_, Note::FalseExpiry(wrong))) = bench.notes.first() else {
            panic!("{:?}", bench.said());
        };
        assert_eq!(wrong.arrived_at, START.plus(secs(8)));
        assert_eq!(wrong.read_at, read_at_last.then_some(START.plus(secs(14))));
        assert_eq!(wrong.verdict.cause, Cause::ProcessStopped);
        assert_eq!(
            bench.said(),
            ["false expiry", "Lapsed>Expired", "gone Expired"]
        );
    }
}

#[test]
fn a_grantor_that_expires_a_silent_holder_was_right() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    bench.until(secs(13));
    bench.said();
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnClose,
    });
    bench.see(&flow);
    assert_eq!(bench.said(), ["Lapsed>Expired", "gone Expired"]);
}

#[test]
fn a_grantor_that_closes_before_the_floor_proves_nothing() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    bench.until(secs(7));
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnClose,
    });
    bench.see(&flow);
    assert_eq!(bench.only().stage, Stage::Healthy);
    bench.until(secs(60));
    let said = bench.said();
    assert_eq!(said[0], "Healthy>Late ConnectionLost Unknown");
    assert!(said.contains(&"Jeopardy>Lapsed ConnectionLost Unknown".to_owned()));
    assert_eq!(said.last().unwrap(), "gone FlowLost");
}

#[test]
fn half_a_frame_read_renews_nothing() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    let renewed = bench.only().answered_at;
    bench.until(secs(7));
    flow.read_at = Some(bench.now);
    flow.reads += 1;
    bench.see(&flow);
    assert_eq!(bench.only().answered_at, renewed);
}

#[test]
fn a_deploy_is_late_at_most() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnExit,
    });
    bench.see(&flow);
    bench.gone(&flow);
    bench.until(secs(60));
    assert_eq!(
        bench.said(),
        ["Healthy>Late HolderExited Unknown", "gone HolderExited"]
    );
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::PeerReset,
    });
    bench.see(&flow);
    bench.until(secs(60));
    assert_eq!(
        bench.said(),
        ["Healthy>Late ConnectionLost Unknown", "gone FlowLost"]
    );
}

/// Seen first in the middle of its life, the lease is called by its flow; the handshake of its next
/// connection reveals its session.
#[test]
fn a_flow_met_in_the_middle_is_named_at_its_next_handshake() {
    let mut bench = Bench::new();
    let port = ends(Role::Holder, 40_001);
    let mut flow = FlowObservation::opened(FlowKey(1), 0, Role::Holder, port, START);
    flow.from_start = false;
    flow.owner = owner(7);
    bench.see(&flow);
    assert_eq!(bench.said(), [""; 0]);
    for cycle in 1..=3 {
        bench.until(secs(2 * cycle));
        ping(&mut flow, bench.now);
        if cycle == 1 {
            flow.keepalive_gap_ns = 0;
        }
        bench.see(&flow);
    }
    assert_eq!(bench.said(), ["seen Holder"]);
    let view = bench.only();
    assert_eq!(view.subject.timeout_ns, Some(secs(6)), "three cadences");
    assert_eq!(view.subject.timeout_source, TimeoutSource::Inferred);
    assert_eq!(view.remaining_ns, None);
    bench.until(secs(30));
    assert_eq!(bench.said(), ["Healthy>AtRisk RenewalNotSent Unknown"]);
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnClose,
    });
    bench.see(&flow);
    bench.said();
    let mut next = asking(2, Role::Holder, SESSION, bench.now);
    bench.see(&next);
    assert_eq!(
        bench.said(),
        [""; 0],
        "only the grantor's word makes it that session"
    );
    welcome(&mut next, SESSION, 10_000, bench.now);
    bench.see(&next);
    assert_eq!(bench.said(), ["seen again", "AtRisk>Renewed"]);
    let view = bench.only();
    assert_eq!(view.subject.id, LeaseId::Session(SESSION));
    assert_eq!(view.subject.timeout_ns, Some(secs(10)));
    assert_eq!(view.subject.timeout_source, TimeoutSource::Handshake);
}

#[test]
fn what_was_remembered_is_used_at_once() {
    let mut bench = Bench::new();
    let port = ends(Role::Holder, 40_001);
    let mut flow = FlowObservation::opened(FlowKey(1), 0, Role::Holder, port, START);
    flow.from_start = false;
    flow.remembered = Some(Remembered {
        session: SESSION,
        timeout_ns: secs(6),
        timeout_source: TimeoutSource::Handshake,
        cadence_ns: secs(2),
    });
    bench.see(&flow);
    assert_eq!(bench.said(), ["seen Holder"]);
    let view = bench.only();
    assert_eq!(view.subject.id, LeaseId::Session(SESSION));
    assert_eq!((view.floor, view.cadence_ns), (None, Some(secs(2))));
    bench.until(secs(3));
    assert_eq!(bench.said(), ["Healthy>AtRisk RenewalNotSent Unknown"]);
    ping(&mut flow, bench.now);
    bench.see(&flow);
    assert_eq!(bench.said(), ["AtRisk>Renewed"]);
    assert_eq!(bench.only().floor, Some(START.plus(secs(9))));
}

#[test]
fn out_of_sight_and_back_accuses_nobody() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    bench.until(secs(7));
    flow.synchronised = false;
    flow.unsynchronised_at = Some(bench.now);
    bench.see(&flow);
    bench.until(secs(100));
    assert_eq!(bench.said(), [""; 0]);
    flow.synchronised = true;
    bench.see(&flow);
    bench.until(secs(101));
    assert_eq!(bench.said(), [""; 0]);
    ping(&mut flow, bench.now);
    bench.see(&flow);
    assert_eq!(bench.only().floor, Some(START.plus(secs(107))));
    assert_eq!(bench.said(), [""; 0]);
    // Lost and found between two looks: the same.
    flow.unsynchronised_at = Some(START.plus(secs(102)));
    bench.until(ms(103_900));
    bench.see(&flow);
    bench.until(ms(106_899));
    assert_eq!(bench.said(), [""; 0]);
    bench.until(secs(107));
    assert_eq!(bench.said().len(), 1);
}

#[test]
fn a_full_book_refuses_and_counts() {
    let mut bench = Bench::new();
    bench.book = Book::new(vec![EntrySettings::default()], 2);
    for key in 1..=3 {
        let mut flow = asking(key, Role::Holder, 0, START);
        welcome(&mut flow, key, 6_000, START);
        bench.see(&flow);
    }
    assert_eq!(bench.said(), ["seen Holder", "seen Holder"]);
    assert_eq!((bench.book.len(), bench.book.refused()), (2, 1));
}

#[test]
fn other_settings_hold_from_the_next_look_on() {
    let mut bench = Bench::new();
    settled(&mut bench, Role::Holder);
    bench.until(secs(8));
    bench.book.reconfigure(vec![EntrySettings {
        late_after_ns: Some(secs(1)),
        ..EntrySettings::default()
    }]);
    let now = bench.now;
    let notes = &mut bench.notes;
    bench.book.advance(now, &mut |note| notes.push((now, note)));
    assert_eq!(bench.said(), ["Healthy>Late RenewalNotSent Unknown"]);
    bench.book.reconfigure(vec![EntrySettings {
        roles: crate::leases::settings::Roles {
            holder: false,
            grantor: true,
        },
        ..EntrySettings::default()
    }]);
    assert!(bench.book.is_empty());
    assert_eq!(bench.said(), [""; 0]);
}

#[test]
fn other_flows_of_the_same_executable_lend_their_cadence() {
    let mut bench = Bench::new();
    settled(&mut bench, Role::Holder);
    let mut young = asking(2, Role::Holder, 0, bench.now);
    welcome(&mut young, 5, 6_000, bench.now);
    bench.see(&young);
    let view = |id| {
        bench
            .book
            .leases(bench.now)
            .find(|lease| lease.subject.id == LeaseId::Session(id))
            .unwrap()
    };
    assert_eq!(view(5).cadence_ns, Some(secs(2)));
    assert_eq!(view(5).learned_cadence_ns, None);
}

#[test]
fn backward_time_is_survived() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    bench.now = START;
    ping(&mut flow, START.plus(secs(1)));
    bench.see(&flow);
    bench.until(secs(6));
    assert_eq!(bench.only().floor, Some(START.plus(secs(12))));
}

/// `tokio-zookeeper` comes back asking for 0: what was learned under one timeout says nothing of
/// another.
#[test]
fn another_timeout_is_another_cadence() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::PeerFin,
    });
    bench.see(&flow);
    let mut next = asking(2, Role::Holder, SESSION, bench.now);
    welcome(&mut next, SESSION, 40_000, bench.now);
    bench.see(&next);
    assert_eq!(bench.only().learned_cadence_ns, None);
    // Silent for 26.7 s in every cycle from now on, and healthy.
    bench.until(secs(6) + secs(80) / 3);
    assert_eq!(bench.said(), [""; 0]);
}

/// Request and reply on one connection, no handshake, no keepalive to tell by: the lease begins with
/// the first answer, and keeps its name when the same process comes back.
#[test]
fn a_lease_without_handshake_or_keepalives() {
    let mut bench = Bench::with(EntrySettings {
        has_keepalives: false,
        timeout_ns: Some(secs(12)),
        ..EntrySettings::default()
    });
    let port = ends(Role::Holder, 40_001);
    let mut flow = FlowObservation::opened(FlowKey(1), 0, Role::Holder, port, START);
    flow.owner = owner(7);
    let ask = |flow: &mut FlowObservation, at: Mono| {
        ping(flow, at);
        (flow.keepalives, flow.keepalive_gap_ns) = (0, 0);
    };
    for cycle in 0..4 {
        bench.until(secs(5 * cycle));
        ask(&mut flow, bench.now);
        bench.see(&flow);
    }
    assert_eq!(bench.said(), ["seen Holder"]);
    let view = bench.only();
    assert_eq!(view.subject.timeout_source, TimeoutSource::Config);
    assert_eq!(view.cadence_ns, Some(secs(5)));
    assert_eq!(view.remaining_ns, Some(12_000_000_000));
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnClose,
    });
    bench.see(&flow);
    bench.until(ms(15_200));
    let port = ends(Role::Holder, 40_002);
    let mut next = FlowObservation::opened(FlowKey(2), 0, Role::Holder, port, bench.now);
    next.owner = owner(7);
    ask(&mut next, bench.now);
    bench.see(&next);
    assert_eq!(bench.said(), [""; 0]);
    let moved = bench.only();
    assert_eq!(moved.subject.id, view.subject.id);
    assert_eq!(moved.subject.endpoints, port);
    bench.until(secs(60));
    assert_eq!(
        bench.said()[0],
        "Healthy>AtRisk RenewalNotSent Unknown",
        "5 s, and a margin of 1.75 s"
    );
}

/// A ConnectRequest that the grantor has read renews nothing before it is answered.
#[test]
fn a_grantor_may_refuse_what_it_has_read() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::PeerFin,
    });
    bench.see(&flow);
    bench.until(secs(9));
    bench.said();
    let mut next = asking(2, Role::Grantor, SESSION, bench.now);
    next.read_at = Some(bench.now);
    bench.see(&next);
    assert_eq!(bench.only().answered_at, Some(START.plus(secs(6) + ms(1))));
    assert_eq!(bench.said(), [""; 0]);
    welcome(&mut next, 0, 0, bench.now);
    bench.see(&next);
    assert_eq!(bench.said(), ["Late>Expired", "gone Expired"]);
}

#[test]
fn a_refused_session_proves_no_lease_whatever_else_is_answered() {
    let mut bench = Bench::new();
    for role in [Role::Holder, Role::Grantor] {
        let mut flow = asking(1 + role as u64, role, SESSION, START);
        welcome(&mut flow, 0, 0, START);
        ping(&mut flow, START.plus(ms(5)));
        bench.see(&flow);
    }
    assert_eq!(bench.said(), [""; 0]);
}

/// A server that was slow to welcome leaves its client less of the timeout, but no client pings
/// before it is welcome.
#[test]
fn a_slow_welcome_is_no_silence_of_the_client() {
    let mut bench = Bench::new();
    settled(&mut bench, Role::Holder);
    let mut young = asking(2, Role::Holder, 0, bench.now);
    bench.until(ms(9_800));
    bench.said();
    welcome(&mut young, 9, 6_000, bench.now);
    bench.see(&young);
    assert_eq!(bench.said(), ["seen Holder"]);
    // Five sixths from when it asked.
    bench.until(secs(11) - 1);
    let late = |bench: &mut Bench| {
        let said = bench.said();
        said.iter().any(|said| said.starts_with("Healthy>"))
    };
    assert!(!late(&mut bench));
    bench.until(secs(11));
    assert!(late(&mut bench));
}
