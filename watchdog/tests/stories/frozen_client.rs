//! Story (c): a client freezes. The daemon warns before the server expires the session, by at
//! least the lead that the stages promise, and never takes the warning back.
//!
//! Two daemons watch the same clients: one with the standard stages, which warns early on proof
//! that the process stands still, and one with `hard_stall: off`, which has only the silence.

use crate::harness::client::{Client, Order, State};
use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{Daemon, GRACE_US, Home};
use crate::harness::event::{Event, Stage};
use crate::harness::world::{ROLES, TIMEOUT, World};
use std::time::Duration;

/// T in microseconds.
const T_US: i64 = 6 * SECOND;
/// The floor promised by the worked lines, on a client stopped just after its renewal.
const AT_RISK_WITH_PROOF_US: i64 = T_US / 3;
/// Without proof, on a client whose cadence is T/3 or less.
const AT_RISK_US: i64 = T_US / 2;
/// Without proof, on a client of unknown cadence: 2/3 T and the margin of T/12.
const AT_RISK_UNLEARNED_US: i64 = T_US * 3 / 4;
/// How long a stall must last to be proof.
const HARD_STALL_US: i64 = SECOND;

#[test]
fn a_frozen_client_is_at_risk_before_its_session_expires() {
    let world = World::shared();
    let port = world.server.port();
    let home = Home::watching(&[port], "stages: { hard_stall: off }");
    let by_silence = Daemon::start(&home);
    let start = |load: fn(_, _, _) -> Order<'static>| {
        let clients = world.connect(Client::start_all(|kind| load(kind, port, TIMEOUT)));
        for client in &clients {
            for role in ROLES {
                by_silence.wait_seen(client.id(), role, Duration::from_secs(5));
            }
        }
        clients
    };
    let (idle, busy) = (start(Order::idle), start(Order::busy));
    // Three idle gaps of a third of T: the cadence has been learned.
    clock::observe_for(TIMEOUT + Duration::from_secs(2));
    std::thread::scope(|scope| {
        for client in &idle {
            scope.spawn(|| freeze_one(&world, &by_silence, client, "idle", AT_RISK_US));
        }
        for client in &busy {
            scope.spawn(|| freeze_one(&world, &by_silence, client, "busy", AT_RISK_UNLEARNED_US));
        }
    });
}

fn freeze_one(
    world: &World,
    by_silence: &Daemon,
    client: &Client,
    load: &str,
    silence_limit_us: i64,
) {
    let World { server, daemon, .. } = world;
    let (id, name) = (client.id(), client.name());
    server.next_renewal(id);
    let (mark, silence_mark, said) = (daemon.mark(), by_silence.mark(), client.mark());
    let stopped = client.freeze();
    // What the server answered last is the newest renewal that counts.
    let renewed_us = server.session(id).answered_us;
    let phase_us = stopped.since_us - renewed_us;

    let late = daemon.wait_stage(mark, id, "holder", Stage::Late, TIMEOUT);
    let proven = daemon.wait_stage(mark, id, "holder", Stage::AtRisk, TIMEOUT);
    let silent = by_silence.wait_stage(silence_mark, id, "holder", Stage::AtRisk, TIMEOUT);
    let expired_us = server.wait_expiry(id, TIMEOUT * 2);
    let lead = |event: &Event| clock::seconds(expired_us - event.at_us);
    println!(
        "story (c) {name} {load}: warned {:.2} s before expiry (by silence alone {:.2} s), \
         stopped {:.2} s after its renewal",
        lead(&proven),
        lead(&silent),
        clock::seconds(phase_us),
    );

    let late_after = late.at_us - stopped.since_us;
    daemon.check(
        late_after <= HARD_STALL_US + GRACE_US,
        &format!(
            "{name} {load}: late only {:.2} s after the stop",
            clock::seconds(late_after)
        ),
    );
    let due_us = (renewed_us + AT_RISK_WITH_PROOF_US).max(stopped.since_us + HARD_STALL_US);
    daemon.check(
        proven.at_us <= due_us + GRACE_US && proven.at_us < expired_us,
        &format!(
            "{name} {load}: at_risk {:.2} s after the renewal, due {:.2} s after it",
            clock::seconds(proven.at_us - renewed_us),
            clock::seconds(due_us - renewed_us)
        ),
    );
    daemon.check(
        proven.text("cause") == "process_stopped",
        "the cause is known and right",
    );
    by_silence.check(
        silent.at_us <= renewed_us + silence_limit_us + GRACE_US && silent.at_us < expired_us,
        &format!(
            "{name} {load}: by silence at_risk {:.2} s after the renewal, due {:.2} s after it",
            clock::seconds(silent.at_us - renewed_us),
            clock::seconds(silence_limit_us)
        ),
    );
    // (In jeopardy it may be: a reply that came just after the stop lies unread, and the client's
    // patience counts from the one before it.)
    by_silence.check(
        silent.stage() != Some(Stage::AtRisk) || silent.at_us >= renewed_us + AT_RISK_US - GRACE_US,
        &format!("{name} {load}: without proof nobody is at risk before half of T has gone"),
    );

    for role in ROLES {
        assert_never_back(daemon, mark, id, role);
        assert_never_back(by_silence, silence_mark, id, role);
    }
    for watcher in [daemon, by_silence] {
        let ended = watcher.wait_for("expired of the grantor's lease", TIMEOUT, |event| {
            event.of(id, "grantor") && event.enters("expired")
        });
        let after_us = ended.at_us - expired_us;
        watcher.check(
            (-GRACE_US..SECOND).contains(&after_us),
            &format!(
                "{name}: reported {:.2} s after the server's log",
                clock::seconds(after_us)
            ),
        );
    }
    stopped.resume();
    client.wait_for(said, TIMEOUT * 2, |state| state == State::Expired);
    daemon.wait_for("expired of the holder's lease", TIMEOUT, |event| {
        event.of(id, "holder") && event.enters("expired")
    });
}

/// No stage that the lease enters lies below the one that it was in.
fn assert_never_back(daemon: &Daemon, mark: usize, id: u64, role: &str) {
    let mut highest = Stage::Healthy;
    for transition in daemon.transitions(mark, id, role) {
        daemon.check(
            transition.text("to") != "renewed",
            "a frozen client renewed nothing",
        );
        if let Some(stage) = transition.stage() {
            daemon.check(
                stage >= highest,
                &format!("{id:#x} as {role} went back to {stage:?}"),
            );
            highest = stage;
        }
    }
}
