//! How a lease falls and recovers, with its cause, and what is learned on the way.

use super::*;

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
    assert_eq!(bench.only().cause, Cause::Unknown);
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
        .slots
        .iter()
        .flatten()
        .find(|lease| lease.role == Role::Holder)
        .unwrap();
    assert!(matches!(
        bench.book.verdicts.of(holder).facts[0],
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
fn what_was_remembered_is_used_at_once() {
    let mut bench = Bench::new();
    let port = ends(Role::Holder, 40_001);
    let mut flow = FlowObservation::opened(FlowKey(1), 0, Role::Holder, port, START);
    flow.sight = Sight::MidStream;
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

/// Two clients of one executable, one quick and one slow. At a grantor nothing is lent: both ends
/// there belong to one server. At a holder what was lent is forgotten for the flow's own gaps.
#[test]
fn a_borrowed_cadence_that_does_not_fit_is_unlearned() {
    for (role, lates) in [(Role::Grantor, 0..=0), (Role::Holder, 1..=3)] {
        let mut bench = Bench::new();
        let mut quick = session(1, role, START);
        bench.see(&quick);
        for cycle in 1..=10 {
            bench.until(ms(900 * cycle));
            ping(&mut quick, bench.now);
            bench.see(&quick);
        }
        let start = bench.now;
        let mut slow = asking(2, role, 0, start);
        welcome(&mut slow, SESSION + 1, 6_000, start);
        bench.see(&slow);
        bench.said();
        let mut lates_seen = 0;
        for cycle in 1..=20_u64 {
            for step in 1..=4 {
                bench.until(start.since(START) + ms(2_600 * (cycle - 1) + 650 * step));
                ping(&mut quick, bench.now);
                bench.see(&quick);
            }
            ping(&mut slow, bench.now);
            bench.see(&slow);
            let said = bench.said();
            lates_seen += said.iter().filter(|line| line.contains("Late ")).count();
        }
        assert!(lates.contains(&lates_seen), "{role:?}: {lates_seen}");
    }
}
