//! Leases of requests and replies: no handshake, no message that ends them, and long polls.

use super::*;

fn settings() -> EntrySettings {
    EntrySettings {
        timeout_ns: Some(secs(12)),
        has_keepalives: false,
        has_goodbye: false,
        ..EntrySettings::default()
    }
}

fn opened(key: u64, role: Role, at: Mono) -> FlowObservation {
    let port = 40_000 + u16::try_from(key).unwrap();
    let mut flow = FlowObservation::opened(FlowKey(key), 0, role, ends(role, port), at);
    flow.owner = owner(7);
    flow
}

/// A renewal every 4 s, the newest at START + 12 s.
fn renewing(bench: &mut Bench, role: Role) -> FlowObservation {
    let mut flow = opened(1, role, START);
    for cycle in 0..4 {
        bench.until(secs(4 * cycle));
        ping(&mut flow, bench.now);
        flow.answer_at = Some(bench.now);
        bench.see(&flow);
    }
    assert_eq!(bench.said(), [format!("seen {role:?}")]);
    flow
}

fn closes(bench: &mut Bench, flow: &mut FlowObservation, how: CloseHow) {
    flow.closed = Some(Closed { at: bench.now, how });
    bench.see(flow);
    bench.gone(flow);
}

#[test]
fn who_closes_an_idle_connection_gives_its_lease_up() {
    for (role, how) in [
        (Role::Holder, CloseHow::OwnClose),
        (Role::Grantor, CloseHow::PeerFin),
    ] {
        let mut bench = Bench::with(settings());
        let mut flow = renewing(&mut bench, role);
        bench.until(secs(13));
        closes(&mut bench, &mut flow, how);
        bench.until(secs(23));
        assert!(bench.said().is_empty());
        bench.until(secs(40));
        assert_eq!(bench.said(), ["gone Closed"], "at the floor");
    }
}

#[test]
fn who_closes_while_it_waits_is_in_trouble() {
    let mut bench = Bench::with(settings());
    let mut flow = renewing(&mut bench, Role::Holder);
    bench.until(secs(16));
    ping_sent(&mut flow, bench.now);
    bench.see(&flow);
    bench.until(secs(19));
    let late = "Healthy>Late RenewalUnanswered PeerSilent";
    let at_risk = "Late>AtRisk RenewalUnanswered PeerSilent";
    assert_eq!(bench.said(), [late, at_risk]);
    closes(&mut bench, &mut flow, CloseHow::OwnClose);
    bench.until(secs(25));
    let said = bench.said();
    assert!(
        said.last().is_some_and(|last| last.contains(">Lapsed")),
        "{said:?}"
    );
}

#[test]
fn the_same_process_on_another_connection_goes_on_with_its_lease() {
    for (role, how) in [
        (Role::Holder, CloseHow::PeerReset),
        (Role::Grantor, CloseHow::PeerReset),
        (Role::Holder, CloseHow::OwnClose),
    ] {
        let mut bench = Bench::with(settings());
        let mut flow = renewing(&mut bench, role);
        let subject = bench.only().subject;
        bench.until(secs(13));
        closes(&mut bench, &mut flow, how);
        bench.until(secs(14));
        let mut next = opened(2, role, bench.now);
        ping(&mut next, bench.now);
        bench.see(&next);
        assert!(bench.said().is_empty());
        let view = bench.only();
        assert_eq!(
            (view.subject.id, view.subject.handle),
            (subject.id, subject.handle)
        );
        assert_eq!(view.flow, Some(next.key));
        let read_ns = if role == Role::Grantor { ms(1) } else { 0 };
        assert_eq!(view.floor, Some(START.plus(secs(26) + read_ns)));
    }
}

#[test]
fn another_process_has_a_lease_of_its_own() {
    let mut bench = Bench::with(settings());
    let mut flow = renewing(&mut bench, Role::Holder);
    bench.until(secs(13));
    closes(&mut bench, &mut flow, CloseHow::OwnClose);
    let mut next = opened(2, Role::Holder, bench.now);
    next.owner = owner(8);
    ping(&mut next, bench.now);
    bench.see(&next);
    assert_eq!(bench.said(), ["seen Holder"]);
}

#[test]
fn a_grantor_that_closes_on_a_renewal_which_had_arrived_was_wrong() {
    let mut bench = Bench::with(settings());
    let mut flow = renewing(&mut bench, Role::Grantor);
    // It stands still: the renewal at 16 s is read at 25 s, after the floor at 24 s.
    bench.until(secs(16));
    ping_sent(&mut flow, bench.now);
    flow.unread_since = Some(bench.now);
    bench.see(&flow);
    bench.until(ms(25_000));
    bench.said();
    flow.read_at = Some(bench.now);
    flow.unread_since = None;
    bench.see(&flow);
    bench.until(ms(25_100));
    bench.said();
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::OwnClose,
    });
    bench.see(&flow);
    let said = bench.said();
    assert_eq!(said.first().map(String::as_str), Some("false expiry"));
    assert_eq!(said.last().map(String::as_str), Some("gone Expired"));
}

#[test]
fn nothing_is_proven_by_a_timeout_that_is_only_inferred() {
    let mut bench = Bench::with(EntrySettings {
        timeout_ns: None,
        ..settings()
    });
    let mut flow = renewing(&mut bench, Role::Grantor);
    let subject = bench.only().subject;
    assert_eq!(subject.timeout_source, TimeoutSource::Inferred);
    assert_eq!(subject.timeout_ns, Some(secs(12)), "three cadences");
    bench.until(secs(30));
    assert_eq!(
        bench.said(),
        [
            "Healthy>Late HolderSilent PeerSilent",
            "Late>AtRisk HolderSilent PeerSilent"
        ]
    );
    closes(&mut bench, &mut flow, CloseHow::OwnClose);
    assert!(!bench.said().iter().any(|said| said.contains("Expired")));
}

/// A reply that was held back for `hold`, and the next request at once upon it.
fn polled(bench: &mut Bench, flow: &mut FlowObservation, hold_ns: u64) {
    let at = bench.now;
    let asked = flow.pending_since.unwrap_or(at);
    flow.answered_at = Some(asked);
    flow.answers += 1;
    flow.rtt_ns = hold_ns;
    flow.answer_at = Some(at);
    flow.reply_at = Some(at);
    flow.read_at = Some(at);
    flow.reads += 1;
    flow.request_at = Some(at);
    flow.pending_since = Some(at);
    flow.requests += 1;
    bench.see(flow);
}

#[test]
fn a_long_poll_that_is_taken_for_plain_requests_is_owned_up_to_once() {
    let mut bench = Bench::with(settings());
    let mut flow = opened(1, Role::Holder, START);
    flow.pending_since = Some(START);
    for cycle in 1..=3 {
        bench.until(secs(8 * cycle));
        assert_eq!(bench.book.take_long_poll(), None);
        polled(&mut bench, &mut flow, secs(8));
    }
    let said = [bench.book.take_long_poll(), bench.book.take_long_poll()];
    assert_eq!(said, [Some(0), None]);
}

#[test]
fn a_long_poll_renews_from_when_its_reply_was_sent() {
    for (role, hold_ns) in [
        (Role::Holder, None),
        (Role::Grantor, None),
        (Role::Holder, Some(secs(8))),
    ] {
        let mut bench = Bench::with(EntrySettings {
            renews_from_reply: true,
            hold_ns,
            ..settings()
        });
        let mut flow = opened(1, role, START);
        flow.srtt_ns = ms(10);
        flow.request_at = Some(START);
        flow.pending_since = Some(START);
        bench.see(&flow);
        for cycle in 1..=4 {
            bench.until(secs(8 * cycle));
            polled(&mut bench, &mut flow, secs(8));
        }
        assert_eq!(
            bench.said(),
            [format!("seen {role:?}")],
            "a hold is no lateness"
        );
        let floor = match role {
            Role::Holder => START.plus(secs(44) - ms(10)),
            Role::Grantor => START.plus(secs(44)),
        };
        assert_eq!(bench.only().floor, Some(floor));
        // Held for longer than ever: late at hold and margin.
        bench.until(secs(32 + 9) - ms(100));
        assert!(bench.said().is_empty());
        bench.until(secs(32 + 9));
        let said = bench.said();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("Healthy>"), "{said:?}");
    }
}

#[test]
fn a_grantor_that_expires_the_renewal_that_it_has_in_hand_was_wrong() {
    for (hangs_up_after, wrong) in [(secs(11), false), (secs(13), true)] {
        let mut bench = Bench::with(settings());
        let mut flow = renewing(&mut bench, Role::Grantor);
        let renewed = bench.now;
        bench.until(secs(16));
        ping_sent(&mut flow, bench.now);
        // It is read, and then its log line hangs.
        let arrived = bench.now;
        flow.read_at = Some(bench.now.plus(1));
        bench.see(&flow);
        flow.stall = Some(Stall {
            kind: StallKind::Uninterruptible,
            since: bench.now.plus(2),
            tid: 7,
            comm: [0; 16],
        });
        bench.see(&flow);
        bench.until(renewed.since(START) + hangs_up_after);
        flow.stall = None;
        closes(&mut bench, &mut flow, CloseHow::OwnClose);
        let found = bench.notes.iter().find_map(|(_, note)| match note {
            Note::FalseExpiry(expiry) => Some(*expiry),
            _ => None,
        });
        assert_eq!(found.is_some(), wrong, "{:?}", bench.said());
        if let Some(found) = found {
            assert_eq!(found.arrived_at, arrived);
            assert_eq!(found.read_at, Some(arrived.plus(1)));
            assert_eq!(found.expired_at, bench.now);
        }
    }
}

/// A connection for each renewal, every 4 s, closed at once upon its reply; the newest at START + 12 s.
fn one_connection_a_renewal(bench: &mut Bench, role: Role, how: CloseHow) {
    for cycle in 0..4 {
        bench.until(secs(4 * cycle));
        let mut flow = opened(1 + cycle, role, bench.now);
        ping(&mut flow, bench.now);
        flow.reply_at = Some(bench.now);
        flow.requests = 1;
        flow.answers = 1;
        bench.see(&flow);
        closes(bench, &mut flow, how);
    }
    assert_eq!(bench.said(), [format!("seen {role:?}")]);
}

#[test]
fn who_comes_back_for_each_renewal_has_not_given_up_when_it_stays_away() {
    for (role, how) in [
        (Role::Holder, CloseHow::OwnClose),
        (Role::Holder, CloseHow::PeerFin),
        (Role::Grantor, CloseHow::PeerFin),
        (Role::Grantor, CloseHow::OwnClose),
    ] {
        let mut bench = Bench::with(settings());
        one_connection_a_renewal(&mut bench, role, how);
        bench.until(secs(16));
        assert!(bench.said().is_empty(), "between two connections");
        bench.until(secs(25));
        let said = bench.said();
        let lapsed = said.last().is_some_and(|last| last.contains(">Lapsed"));
        assert!(lapsed, "{role:?} {how:?}: {said:?}");
    }
}

#[test]
fn one_exchange_on_a_connection_of_its_own_is_no_trouble() {
    for how in [CloseHow::OwnClose, CloseHow::PeerFin] {
        let mut bench = Bench::with(settings());
        let mut flow = opened(1, Role::Holder, START);
        ping(&mut flow, START);
        (flow.requests, flow.answers, flow.reply_at) = (1, 1, Some(START));
        bench.see(&flow);
        bench.until(ms(500));
        closes(&mut bench, &mut flow, how);
        bench.until(secs(40));
        assert_eq!(bench.said(), ["seen Holder", "gone Closed"]);
    }
    // A grantor that goes down after a while looks the same but for the time.
    let mut bench = Bench::with(settings());
    let mut flow = opened(1, Role::Holder, START);
    ping(&mut flow, START);
    (flow.requests, flow.answers, flow.reply_at) = (1, 1, Some(START));
    bench.see(&flow);
    bench.until(secs(3));
    closes(&mut bench, &mut flow, CloseHow::PeerFin);
    bench.until(secs(40));
    assert!(
        bench
            .said()
            .iter()
            .any(|said| said.contains("ConnectionLost"))
    );
}

/// As [`renewing`], of which only the timing is seen.
fn guessed(bench: &mut Bench, role: Role) -> FlowObservation {
    let mut flow = opened(1, role, START);
    flow.sight = Sight::ByTiming;
    for cycle in 0..4 {
        bench.until(secs(4 * cycle));
        ping(&mut flow, bench.now);
        flow.answer_at = Some(bench.now);
        bench.see(&flow);
    }
    flow
}

#[test]
fn what_only_timing_tells_gives_no_floor_though_its_timeout_is_configured() {
    for role in [Role::Holder, Role::Grantor] {
        let mut bench = Bench::with(settings());
        guessed(&mut bench, role);
        let view = bench.only();
        assert_eq!(view.subject.timeout_ns, Some(secs(12)));
        assert_eq!(view.subject.timeout_source, TimeoutSource::Inferred);
        assert_eq!((view.floor, view.remaining_ns), (None, None));
        bench.until(secs(60));
        let said = bench.said();
        let last = said.last().map(String::as_str).unwrap_or_default();
        assert!(last.starts_with("Late>AtRisk"), "{said:?}");
    }
}

#[test]
fn once_its_frames_are_seen_a_lease_has_a_floor_by_what_they_tell_alone() {
    for role in [Role::Holder, Role::Grantor] {
        let mut bench = Bench::with(settings());
        let mut flow = guessed(&mut bench, role);
        // The kernel forgets what the records told.
        bench.until(secs(13));
        flow.sight = Sight::MidStream;
        (flow.answered_at, flow.answer_at, flow.request_at) = (None, None, None);
        (flow.answers, flow.requests, flow.keepalives) = (0, 0, 0);
        flow.read_at = None;
        bench.see(&flow);
        let view = bench.only();
        assert_eq!(view.subject.timeout_source, TimeoutSource::Config);
        assert_eq!(view.floor, None, "nothing is counted from a guess");
        bench.until(secs(16));
        ping(&mut flow, bench.now);
        flow.answer_at = Some(bench.now);
        bench.see(&flow);
        let floor = bench.only().floor.expect("a floor");
        let (asked, read) = (START.plus(secs(16)), bench.now);
        assert!(floor >= asked.plus(secs(12)) && floor <= read.plus(secs(12) + ms(5)));
        assert_eq!(bench.said(), [format!("seen {role:?}")]);
    }
}

#[test]
fn whose_frames_are_seen_no_more_has_no_floor_any_more() {
    let mut bench = Bench::with(settings());
    let mut flow = renewing(&mut bench, Role::Holder);
    assert!(bench.only().floor.is_some());
    bench.until(secs(13));
    flow.sight = Sight::ByTiming;
    bench.see(&flow);
    bench.until(secs(16));
    ping(&mut flow, bench.now);
    flow.answer_at = Some(bench.now);
    bench.see(&flow);
    let view = bench.only();
    assert_eq!(view.subject.timeout_source, TimeoutSource::Inferred);
    assert_eq!(view.floor, None);
}
