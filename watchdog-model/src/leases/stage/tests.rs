//! The worked lines of the lease arithmetic, and every boundary at -1 ns and 0.

use super::*;
use crate::leases::facts::{Gap, Loss, Reconnect, Timeout};
use crate::leases::normal::Normal;
use crate::leases::observation::{Stall, StallKind};
use crate::time::{SECOND, ms, secs};

/// Where the newest renewal stands in all of these: well after boot.
const A: Mono = Mono(1_000 * SECOND);

fn lease(role: Role, timeout_ns: u64, cadence: Share) -> LeaseFacts {
    let mut facts = LeaseFacts::opened(role, A.minus(secs(100)));
    facts.timeout = Some(Timeout {
        ns: timeout_ns,
        source: TimeoutSource::Handshake,
    });
    facts.cadence_ns = Some(cadence.of(timeout_ns));
    facts.base = Some(A);
    facts.request_at = Some(A);
    facts.reply_at = Some(A);
    facts.answer_normal = known(ms(1));
    facts.read_normal = known(ms(1));
    facts
}

fn known(delay_ns: u64) -> Normal {
    let mut normal = Normal::default();
    normal.learn(delay_ns);
    normal.learn(delay_ns);
    normal
}

fn stop(since: Mono) -> Option<Stall> {
    Some(Stall {
        since,
        kind: StallKind::Stopped,
        tid: 1,
        comm: [0; 16],
    })
}

fn no_proof() -> EntrySettings {
    EntrySettings {
        use_stall_proof: false,
        ..EntrySettings::default()
    }
}

/// Asserts that the lease reaches `stage` exactly `after` A and not a nanosecond earlier.
#[track_caller]
fn reaches(facts: &LeaseFacts, settings: &EntrySettings, stage: Stage, after_ns: u64) {
    let at = A.plus(after_ns);
    let before = assess(facts, settings, at.minus(1)).stage;
    let reached = assess(facts, settings, at).stage;
    assert!(
        before < stage,
        "{before:?} at -1 ns, wanted below {stage:?}"
    );
    assert!(reached >= stage, "{reached:?} at 0, wanted {stage:?}");
}

/// Every stage with the moment it begins, found by jumping from change to change.
fn walk(facts: &LeaseFacts, settings: &EntrySettings) -> Vec<(u64, Stage, Condition)> {
    let mut now = A;
    let mut seen = Vec::new();
    while let Some(next) = next_change(facts, settings, now) {
        assert!(next > now);
        let before = assess(facts, settings, now);
        let just_before = assess(facts, settings, next.minus(1));
        assert_eq!(
            (before.stage, before.condition),
            (just_before.stage, just_before.condition),
            "something changed before the next change"
        );
        now = next;
        let found = assess(facts, settings, now);
        if (found.stage, found.condition) != (before.stage, before.condition) {
            seen.push((now.since(A), found.stage, found.condition));
        }
    }
    seen
}

fn thirds(millis: u64) -> u64 {
    ms(millis * 1_000) / 3_000
}

/// C client, T = 6, stopped just after a ping: with proof late 1.0, at_risk 2.0, jeopardy 4.0,
/// floor 6.0.
#[test]
fn stopped_with_proof_six_seconds() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.stall = stop(A);
    assert_eq!(
        walk(&facts, &EntrySettings::default()),
        [
            (secs(1), Stage::Late, Condition::ThreadStalled),
            (secs(2), Stage::AtRisk, Condition::ThreadStalled),
            (secs(3), Stage::AtRisk, Condition::RenewalNotSent),
            (secs(4), Stage::Jeopardy, Condition::RenewalNotSent),
            (secs(6), Stage::Lapsed, Condition::RenewalNotSent),
        ]
    );
    assert_eq!(facts.floor(), Some(A.plus(secs(6))));
}

/// Without proof late and at_risk 3.0.
#[test]
fn stopped_without_proof_six_seconds() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.stall = stop(A);
    reaches(&facts, &no_proof(), Stage::Late, secs(3));
    reaches(&facts, &no_proof(), Stage::AtRisk, secs(3));
    reaches(&facts, &no_proof(), Stage::Jeopardy, secs(4));
    reaches(&facts, &no_proof(), Stage::Lapsed, secs(6));
}

/// T = 40: with proof late 1.0, at_risk 13.3; without 16.7 and 20.
#[test]
fn stopped_forty_seconds() {
    let mut facts = lease(Role::Holder, secs(40), Share::THIRD);
    facts.stall = stop(A);
    let proof = EntrySettings::default();
    reaches(&facts, &proof, Stage::Late, secs(1));
    reaches(&facts, &proof, Stage::AtRisk, secs(40) / 3);
    let margin = secs(40) / 12;
    reaches(&facts, &no_proof(), Stage::Late, secs(40) / 3 + margin);
    reaches(&facts, &no_proof(), Stage::AtRisk, secs(20));
}

/// tokio-zookeeper (c = 2T/3), T = 6: healthy never late; stopped, without proof late and at_risk
/// 4.5, with proof 1.0 and 2.0.
#[test]
fn the_slowest_client() {
    let mut facts = lease(Role::Holder, secs(6), Share::TWO_THIRDS);
    let settings = EntrySettings::default();
    assert_eq!(
        assess(&facts, &settings, A.plus(secs(4))).stage,
        Stage::Healthy
    );
    reaches(&facts, &no_proof(), Stage::AtRisk, ms(4_500));
    facts.stall = stop(A);
    reaches(&facts, &settings, Stage::Late, secs(1));
    reaches(&facts, &settings, Stage::AtRisk, secs(2));
}

/// T = 2, c = 2T/3: late 1.58.
#[test]
fn the_shortest_lease() {
    let facts = lease(Role::Holder, secs(2), Share::TWO_THIRDS);
    reaches(
        &facts,
        &EntrySettings::default(),
        Stage::Late,
        thirds(4_000) + ms(250),
    );
}

/// A 1.5 s pause of a server with T = 12, at any phase: late at most; of 3 s: at_risk where
/// a + 4 s has passed.
#[test]
fn a_server_pauses_with_twelve_seconds() {
    let settings = EntrySettings::default();
    for phase in (0..=4_000).step_by(50) {
        let paused = A.plus(ms(phase));
        let mut facts = lease(Role::Grantor, secs(12), Share::THIRD);
        facts.stall = stop(paused);
        for (pause, may_be_at_risk) in [(1_500, false), (3_000, true)] {
            let resumes = paused.plus(ms(pause));
            if resumes >= A.plus(secs(4)) {
                // The ping of the holder has come meanwhile and lies unread.
                facts.request_at = Some(A.plus(secs(4)));
                facts.unread_since = Some(A.plus(secs(4)));
                facts.pending_since = Some(A.plus(secs(4)));
            }
            let stage = assess(&facts, &settings, resumes.minus(1)).stage;
            let passed = resumes.minus(1) >= A.plus(secs(4));
            if may_be_at_risk && passed {
                assert_eq!(stage, Stage::AtRisk, "phase {phase} ms");
            } else {
                assert!(stage <= Stage::Late, "phase {phase} ms, pause {pause} ms");
            }
        }
    }
}

#[test]
fn an_answer_past_its_normal_is_late_and_half_the_timeout_puts_it_at_risk() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    let sent = A.plus(secs(2));
    facts.request_at = Some(sent);
    facts.pending_since = Some(sent);
    assert_eq!(
        walk(&facts, &EntrySettings::default()),
        [
            (ms(2_500), Stage::Late, Condition::RenewalUnanswered),
            (secs(3), Stage::AtRisk, Condition::RenewalUnanswered),
            (secs(4), Stage::Jeopardy, Condition::RenewalUnanswered),
            (secs(6), Stage::Lapsed, Condition::RenewalUnanswered),
        ]
    );
    facts.answer_normal = known(secs(9));
    reaches(&facts, &EntrySettings::default(), Stage::Late, ms(3_500));
}

#[test]
fn before_two_answers_only_the_deadline_counts() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.answer_normal = Normal::default();
    facts.pending_since = Some(A.plus(secs(1)));
    reaches(&facts, &EntrySettings::default(), Stage::Late, secs(4));
    // A slow client's first ping goes out just then: it is not late by being sent.
    facts.pending_since = Some(A.plus(secs(4)));
    reaches(&facts, &EntrySettings::default(), Stage::Late, secs(5));
}

#[test]
fn nothing_is_late_later_than_five_sixths() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.cadence_ns = Some(secs(60));
    reaches(&facts, &EntrySettings::default(), Stage::Late, secs(5));
    facts.role = Role::Grantor;
    reaches(&facts, &EntrySettings::default(), Stage::Late, secs(5));
}

#[test]
fn a_fixed_silence_may_be_configured() {
    let facts = lease(Role::Holder, secs(6), Share::THIRD);
    let settings = EntrySettings {
        late_after_ns: Some(ms(2_200)),
        ..EntrySettings::default()
    };
    reaches(&facts, &settings, Stage::Late, ms(2_200));
}

#[test]
fn conditions_of_a_holder() {
    let settings = EntrySettings::default();
    let at = A.plus(ms(3_500));
    let condition = |facts: &LeaseFacts| assess(facts, &settings, at).condition;
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    assert_eq!(condition(&facts), Condition::RenewalNotSent);
    facts.pending_since = Some(A.plus(secs(2)));
    assert_eq!(condition(&facts), Condition::RenewalUnanswered);
    facts.unacknowledged_since = Some(A.plus(secs(3)));
    assert_eq!(condition(&facts), Condition::RenewalUnanswered);
    facts.unacknowledged_since = Some(A.plus(secs(2)));
    assert_eq!(condition(&facts), Condition::RenewalStuckSending);
    facts.pending_since = None;
    facts.unsent_since = Some(A.plus(secs(2)));
    assert_eq!(condition(&facts), Condition::RenewalStuckSending);
    facts.unsent_since = None;
    facts.unread_since = Some(A.plus(secs(2)));
    assert_eq!(condition(&facts), Condition::ReplyUnread);
    facts.lost = Some(Loss {
        at: A.plus(secs(1)),
        how: Some(CloseHow::PeerReset),
    });
    assert_eq!(condition(&facts), Condition::ConnectionLost);
}

#[test]
fn conditions_of_a_grantor() {
    let settings = EntrySettings::default();
    let at = A.plus(ms(3_500));
    let condition = |facts: &LeaseFacts| assess(facts, &settings, at).condition;
    let mut facts = lease(Role::Grantor, secs(6), Share::THIRD);
    assert_eq!(condition(&facts), Condition::HolderSilent);
    facts.request_at = Some(A.plus(secs(2)));
    facts.pending_since = Some(A.plus(secs(2)));
    facts.unread_since = Some(A.plus(secs(2)));
    assert_eq!(condition(&facts), Condition::RenewalUnread);
    facts.unread_since = None;
    assert_eq!(condition(&facts), Condition::RenewalUnprocessed);
}

#[test]
fn a_holder_that_went_is_late_at_most() {
    let settings = EntrySettings::default();
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.lost = Some(Loss {
        at: A.plus(ms(500)),
        how: Some(CloseHow::OwnExit),
    });
    assert_eq!(
        walk(&facts, &settings),
        [(ms(1_500), Stage::Late, Condition::HolderExited)]
    );
    let mut facts = lease(Role::Grantor, secs(6), Share::THIRD);
    for how in [CloseHow::PeerFin, CloseHow::PeerReset] {
        facts.lost = Some(Loss {
            at: A.plus(ms(500)),
            how: Some(how),
        });
        assert_eq!(
            walk(&facts, &settings),
            [(ms(2_500), Stage::Late, Condition::ConnectionLost)]
        );
    }
    // But one that had asked and was not heard has a claim.
    facts.unread_since = Some(A.plus(ms(400)));
    reaches(&facts, &settings, Stage::AtRisk, secs(3));
}

#[test]
fn a_lost_connection_goes_through_all_stages() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.lost = Some(Loss {
        at: A.plus(ms(500)),
        how: Some(CloseHow::PeerReset),
    });
    let settings = EntrySettings::default();
    reaches(&facts, &settings, Stage::Late, ms(2_500));
    reaches(&facts, &settings, Stage::AtRisk, secs(3));
    reaches(&facts, &settings, Stage::Jeopardy, secs(4));
    reaches(&facts, &settings, Stage::Lapsed, secs(6));
}

#[test]
fn a_java_clients_sleeps_before_it_connects_are_not_late() {
    let mut facts = lease(Role::Holder, secs(12), Share::THIRD);
    facts.lost = Some(Loss {
        at: A.plus(ms(500)),
        how: Some(CloseHow::PeerFin),
    });
    let settings = EntrySettings::default();
    // Two seconds, and a connect and a handshake on top.
    let back = A.plus(ms(500 + 2_000 + 400));
    assert_eq!(assess(&facts, &settings, back).stage, Stage::Healthy);
    reaches(&facts, &settings, Stage::Late, ms(3_000));
}

#[test]
fn an_inferred_timeout_never_leads_beyond_at_risk() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.timeout = Some(Timeout {
        ns: secs(6),
        source: TimeoutSource::Inferred,
    });
    let settings = EntrySettings::default();
    reaches(&facts, &settings, Stage::AtRisk, secs(3));
    assert_eq!(facts.floor(), None);
    assert_eq!(
        assess(&facts, &settings, A.plus(secs(600))).stage,
        Stage::AtRisk
    );
}

#[test]
fn without_a_timeout_only_hard_facts_count() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.timeout = None;
    let settings = EntrySettings::default();
    assert_eq!(walk(&facts, &settings), []);
    facts.stall = stop(A);
    assert_eq!(
        walk(&facts, &settings),
        [(secs(1), Stage::Late, Condition::ThreadStalled)]
    );
}

/// While a ConnectRequest asking R is unanswered: floor = min(a + T, s + min(R, T)).
#[test]
fn a_pending_connect_request_may_shorten_the_lease() {
    let mut facts = lease(Role::Holder, secs(40), Share::THIRD);
    let asked = |seconds| {
        Some(Reconnect {
            at: A.plus(secs(2)),
            asked_ns: secs(seconds),
        })
    };
    facts.reconnect = asked(4);
    assert_eq!(facts.floor(), Some(A.plus(secs(6))));
    facts.reconnect = asked(39);
    assert_eq!(facts.floor(), Some(A.plus(secs(40))));
    facts.reconnect = asked(100);
    assert_eq!(facts.floor(), Some(A.plus(secs(40))));
    facts.reconnect = asked(4);
    facts.lost = Some(Loss {
        at: A.plus(secs(1)),
        how: Some(CloseHow::OwnClose),
    });
    reaches(&facts, &EntrySettings::default(), Stage::Lapsed, secs(6));
    assert!(assess(&facts, &EntrySettings::default(), A.plus(ms(5_900))).stage >= Stage::AtRisk);
}

#[test]
fn a_flow_out_of_sight_is_not_accused_of_silence() {
    let settings = EntrySettings::default();
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.blind = true;
    facts.pending_since = Some(A);
    facts.unread_since = Some(A);
    assert_eq!(walk(&facts, &settings), []);
    assert_eq!(facts.floor(), None);
    // A stall counts, from its own beginning.
    facts.stall = stop(A.plus(secs(30)));
    assert_eq!(
        walk(&facts, &settings),
        [
            (secs(31), Stage::Late, Condition::ThreadStalled),
            (secs(32), Stage::AtRisk, Condition::ThreadStalled),
            (secs(34), Stage::Jeopardy, Condition::ThreadStalled),
            (secs(36), Stage::Lapsed, Condition::ThreadStalled),
        ]
    );
}

#[test]
fn silence_counts_from_when_sight_was_regained() {
    let settings = EntrySettings::default();
    let mut facts = lease(Role::Grantor, secs(6), Share::THIRD);
    facts.fresh_from = Some(A.plus(secs(30)));
    assert_eq!(facts.floor(), None);
    reaches(&facts, &settings, Stage::Late, secs(33));
    facts.base = Some(A.plus(secs(31)));
    facts.request_at = facts.base;
    assert_eq!(facts.floor(), Some(A.plus(secs(37))));
}

#[test]
fn after_a_gap_accusations_wait_and_the_gap_does_not_count_against_a_peer() {
    let settings = EntrySettings::default();
    let gap = |from, to| {
        Some(Gap {
            from: A.plus(ms(from)),
            to: A.plus(ms(to)),
            node: false,
        })
    };
    // Due at 3.0 without the gap; 1 s of it was not looked at.
    let mut facts = lease(Role::Grantor, secs(6), Share::THIRD);
    facts.gap = gap(1_000, 2_000);
    reaches(&facts, &settings, Stage::Late, secs(4));
    // The last sixth is announced all the same, once things have settled.
    facts.gap = gap(1_000, 5_500);
    reaches(&facts, &settings, Stage::Late, ms(5_650));
    // The own node's silence is no peer's: it only waits for things to settle.
    facts.role = Role::Holder;
    facts.gap = gap(1_000, 2_000);
    reaches(&facts, &settings, Stage::Late, secs(3));
    facts.gap = gap(1_000, 4_000);
    reaches(&facts, &settings, Stage::Late, ms(4_150));
    // What the kernel stamped counts.
    facts.stall = stop(A.plus(secs(1)));
    reaches(&facts, &settings, Stage::Late, secs(2));
}

#[test]
fn the_patience_of_the_holder_counts_from_what_it_read() {
    let mut facts = lease(Role::Holder, secs(6), Share::THIRD);
    facts.base = Some(A.plus(secs(2)));
    facts.unread_since = Some(A.plus(ms(2_001)));
    reaches(&facts, &EntrySettings::default(), Stage::Late, ms(2_501));
    reaches(&facts, &EntrySettings::default(), Stage::Jeopardy, secs(4));
}
