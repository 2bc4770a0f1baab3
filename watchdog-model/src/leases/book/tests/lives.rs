//! What a lease is called, which flow carries it, and how it ends.

use super::*;

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
    flow.sight = Sight::MidStream;
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

/// The holder gave up the connection on which its renewal lay unread, and asked for its session on
/// another; the server answers that request first of all, and says that the session is gone.
#[test]
fn a_refusal_on_the_next_connection_hides_no_false_expiry() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    flow.stall = stopped(START.plus(ms(6_100)));
    bench.until(secs(8));
    ping_sent(&mut flow, bench.now);
    flow.unread_since = Some(bench.now);
    bench.see(&flow);
    bench.until(ms(10_000));
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::PeerFin,
    });
    bench.see(&flow);
    let mut next = asking(2, Role::Grantor, SESSION, bench.now);
    next.unread_since = Some(bench.now);
    bench.see(&next);
    bench.until(secs(14));
    bench.said();
    next.unread_since = None;
    next.pending_since = None;
    next.read_at = Some(bench.now);
    next.answered_at = next.hello.map(|hello| hello.at);
    next.answers = 1;
    welcome(&mut next, 0, 0, bench.now);
    bench.see(&next);
    assert!(
        bench.said().contains(&"false expiry".to_owned()),
        "the renewal of the eighth second had arrived in time"
    );
}

/// The holder asked three times while the server stood still. The server reads the third request
/// first, then the second, and closes the third's connection before it has answered there.
#[test]
fn a_server_that_moves_the_session_to_an_older_connection_has_not_expired_it() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    flow.stall = stopped(START.plus(ms(6_100)));
    bench.until(secs(8));
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::PeerFin,
    });
    bench.see(&flow);
    for key in [2, 3] {
        let mut next = asking(key, Role::Grantor, SESSION, bench.now);
        next.unread_since = Some(bench.now);
        bench.see(&next);
        bench.until(secs(6 + 2 * key));
        if key == 3 {
            bench.until(secs(14));
            bench.said();
            next.read_at = Some(bench.now);
            next.unread_since = None;
            next.closed = Some(Closed {
                at: bench.now.plus(5),
                how: CloseHow::OwnClose,
            });
        }
        bench.see(&next);
    }
    let said = bench.said();
    assert!(
        !said.iter().any(|line| line.contains("xpir")),
        "moved, not expired: {said:?}"
    );
}

/// Of two connections on which the holder asked, the server answers the older one, and says no; the
/// newer was given up unread.
#[test]
fn a_refusal_on_an_older_connection_is_proof_as_well() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Grantor);
    flow.stall = stopped(START.plus(ms(6_100)));
    bench.until(secs(8));
    flow.closed = Some(Closed {
        at: bench.now,
        how: CloseHow::PeerFin,
    });
    bench.see(&flow);
    let mut older = asking(2, Role::Grantor, SESSION, bench.now);
    bench.see(&older);
    bench.until(secs(10));
    bench.see(&asking(3, Role::Grantor, SESSION, bench.now));
    bench.until(secs(14));
    bench.said();
    welcome(&mut older, 0, 0, bench.now);
    bench.see(&older);
    let said = bench.said();
    assert!(said.contains(&"Lapsed>Expired".to_owned()), "{said:?}");
    bench.see(&older);
    assert_eq!(bench.said(), [""; 0], "once");
}
