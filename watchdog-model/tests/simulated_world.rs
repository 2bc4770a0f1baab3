//! Stories in a simulated world, told for many seeds. A failing seed is named in the message;
//! `WORLD_SEED=n cargo test -p watchdog-model --test simulated_world` tells that one again,
//! `WORLD_TIMES=n` tells so many times as many stories.

mod world;

use std::collections::BTreeMap;

use watchdog_model::leases::note::{Condition, GoneReason, LeaseId, Note, Outcome, Stage};
use watchdog_model::leases::observation::{Role, StallKind};
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::{MS, ms, secs};

use world::daemon::Daemon;
use world::holder::CLIENTS;
use world::{Process, START, World};

const BOTH: [Role; 2] = [Role::Holder, Role::Grantor];

/// Tells a story for each of so many seeds, or for the one that the environment names.
fn each_seed(seeds: u64, story: impl Fn(u64)) {
    let named = std::env::var("WORLD_SEED").ok();
    if let Some(seed) = named.and_then(|seed| seed.parse().ok()) {
        story(seed);
        return;
    }
    let times = std::env::var("WORLD_TIMES").ok();
    let times: u64 = times.and_then(|times| times.parse().ok()).unwrap_or(1);
    for seed in 1..=seeds * times {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(seed)));
        if let Err(panic) = told {
            eprintln!("failed with WORLD_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// One server, some clients of every kind with timeouts from 4 to 40 s, both ends seen.
fn town(seed: u64, clients: usize) -> World {
    town_seen(seed, clients, &BOTH, EntrySettings::default())
}

fn town_seen(seed: u64, clients: usize, sees: &[Role], settings: EntrySettings) -> World {
    let period = if seed.is_multiple_of(2) { 50 } else { 100 };
    town_ticked(seed, clients, sees, settings, period)
}

fn town_ticked(
    seed: u64,
    clients: usize,
    sees: &[Role],
    settings: EntrySettings,
    period_ms: u64,
) -> World {
    let daemon = Daemon::new(ms(period_ms), sees, settings, 4_096);
    let mut world = World::new(seed, daemon);
    let grantor = world.add_grantor(secs(2));
    for number in 0..clients {
        let timeout_ns = secs(world.rng.between(4, 40));
        let client = CLIENTS[number % CLIENTS.len()];
        let holder = world.add_holder(client, timeout_ns, grantor);
        if world.rng.one_in(3) {
            world.holders[holder].asks_every_ns = world.rng.between(20 * MS, timeout_ns);
        }
    }
    world
}

#[test]
fn healthy_clients_are_never_warned_of() {
    each_seed(40, |seed| {
        let mut world = town(seed, 20);
        world.run_for(secs(900));
        world.check();
        assert_eq!(world.worst(), Stage::Healthy, "{:?}", first(&world));
        assert_eq!(world.daemon.book.len(), 40);
        assert!(world.expiries.is_empty());
    });
}

fn first(world: &World) -> Option<String> {
    world
        .transitions()
        .next()
        .map(|(at, transition)| format!("+{} ms {transition:?}", at.since(START) / MS))
}

#[test]
fn a_frozen_holder_is_flagged_before_its_session_lapses() {
    each_seed(60, |seed| {
        let mut world = town(seed, 10);
        world.run_for(secs(200));
        let wait = world.rng.between(0, secs(40));
        world.run_for(wait);
        for holder in 0..10 {
            world.hold(Process::Holder(holder), StallKind::Stopped, secs(100));
        }
        world.run_for(secs(200));
        world.check();
        assert_eq!(world.expiries.len(), 10);
        world.check_warned();
    });
}

#[test]
fn a_frozen_server_is_flagged_before_it_expires_punctual_sessions() {
    each_seed(60, |seed| {
        let mut world = town(seed, 10);
        world.run_for(secs(200));
        let wait = world.rng.between(0, secs(40));
        world.run_for(wait);
        let span = secs(world.rng.between(5, 80));
        world.hold(Process::Grantor(0), StallKind::Stopped, span);
        world.run_for(secs(300));
        world.check();
        world.check_warned();
        let wrongs = world
            .daemon
            .said
            .iter()
            .filter(|(_, note)| matches!(note, Note::FalseExpiry(_)))
            .count();
        assert!(wrongs <= world.expiries.len());
    });
}

/// Troubles of all kinds, then peace; returns the number of sessions that were truly lost.
fn troubled_times(world: &mut World, daemon_too: bool) -> usize {
    world.run_for(secs(100));
    for _ in 0..30 {
        if daemon_too && world.rng.one_in(3) {
            let span_ns = world.rng.between(ms(100), secs(8));
            world.hold_daemon(span_ns);
        } else {
            trouble(world);
        }
        let wait = world.rng.between(ms(10), secs(20));
        world.run_for(wait);
    }
    for holder in 0..12 {
        world.heal(holder);
    }
    world.run_for(secs(200));
    world.check();
    world.expiries.len()
}

#[test]
fn whatever_goes_wrong_the_laws_hold() {
    each_seed(200, |seed| {
        let mut world = town(seed, 12);
        troubled_times(&mut world, false);
        world.check_warned();
    });
}

/// On the client's or the server's node alone, and without the proof of a hard stall: every session
/// that is truly lost was at risk before, all the same.
#[test]
fn one_end_is_enough() {
    each_seed(120, |seed| {
        let role = BOTH[usize::try_from(seed / 2 % 2).unwrap()];
        let settings = EntrySettings {
            use_stall_proof: seed % 3 != 0,
            ..EntrySettings::default()
        };
        let mut world = town_seen(seed, 12, &[role], settings);
        troubled_times(&mut world, false);
        world.check_warned();
    });
}

#[test]
fn the_laws_hold_with_a_daemon_that_looks_away() {
    each_seed(120, |seed| {
        let mut world = town(seed, 12);
        troubled_times(&mut world, true);
    });
}

#[test]
fn a_daemon_that_looks_away_accuses_nobody_afterwards() {
    each_seed(60, |seed| {
        let mut world = town(seed, 20);
        world.run_for(secs(100));
        for _ in 0..40 {
            let span_ns = world.rng.between(ms(100), secs(20));
            world.hold_daemon(span_ns);
            let wait = world.rng.between(0, secs(40));
            world.run_for(wait);
        }
        world.check();
        assert_eq!(world.worst(), Stage::Healthy, "{:?}", first(&world));
    });
}

/// The whole node stands still, as a paused virtual machine does: what the other end sent meanwhile
/// arrives afterwards, and nobody is accused of its silence.
#[test]
fn a_pause_of_the_node_is_no_silence_of_the_peer() {
    each_seed(80, |seed| {
        let role = BOTH[usize::try_from(seed / 2 % 2).unwrap()];
        let mut world = town_seen(seed, 12, &[role], EntrySettings::default());
        world.run_for(secs(100));
        for _ in 0..20 {
            let span_ns = world.rng.between(ms(100), ms(3_900));
            world.pause_node(span_ns);
            let wait = world.rng.between(secs(10), secs(90));
            world.run_for(wait);
        }
        world.check();
        for (at, transition) in world.transitions() {
            let accused = matches!(
                transition.condition,
                Condition::HolderSilent | Condition::RenewalUnanswered
            );
            assert!(!accused, "+{} ms {transition:?}", at.since(START) / MS);
        }
    });
}

/// A server behind a hung fsync reads and touches, but doesn't answer: both ends know it, and each
/// says what it sees.
#[test]
fn a_server_that_does_not_answer_is_seen_at_both_ends() {
    each_seed(40, |seed| {
        let mut world = town(seed, 10);
        world.run_for(secs(200));
        world.grantors[0].mute = true;
        world.run_for(secs(30));
        for (role, condition) in [
            (Role::Holder, Condition::RenewalUnanswered),
            (Role::Grantor, Condition::RenewalUnprocessed),
        ] {
            let late = world
                .transitions()
                .filter(|(_, said)| said.subject.role == role && said.condition == condition)
                .map(|(_, said)| said.subject.handle)
                .collect::<std::collections::BTreeSet<_>>();
            assert_eq!(late.len(), 10, "{role:?}");
        }
        world.unmute(0);
        world.run_for(secs(100));
        world.check();
        world.check_warned();
        for lease in world.daemon.book.leases(world.now) {
            assert_eq!(lease.stage, Stage::Healthy, "{lease:?}");
        }
    });
}

/// A packet that is lost now and then, and sent again by TCP, is no news.
#[test]
fn a_lost_packet_is_no_news() {
    each_seed(30, |seed| {
        let mut world = town(seed, 12);
        for holder in 0..12 {
            world.links[holder].loss_one_in = 2_000;
        }
        world.run_for(secs(900));
        world.check();
        assert_eq!(world.worst(), Stage::Healthy, "{:?}", first(&world));
    });
}

#[test]
fn who_leaves_is_no_incident() {
    each_seed(40, |seed| {
        let mut world = town(seed, 10);
        world.run_for(secs(200));
        for holder in 0..10 {
            world.leave(holder, holder % 2 == 0);
            let wait = world.rng.between(0, secs(2));
            world.run_for(wait);
        }
        world.run_for(secs(300));
        world.check();
        assert!(world.worst() <= Stage::Late, "{:?}", first(&world));
        assert!(world.daemon.book.is_empty());
        let gone = |wanted| {
            let said = world.daemon.said.iter();
            said.filter(|(_, note)| matches!(note, Note::Gone { reason, .. } if *reason == wanted))
                .count()
        };
        assert_eq!(gone(GoneReason::Closed), 10);
        assert_eq!(gone(GoneReason::HolderExited), 5);
        assert_eq!(gone(GoneReason::FlowLost), 5);
    });
}

/// How far each lease went, and how it ended. (Two stages that lie closer together than a tick may
/// be told as one.)
fn verdicts(world: &World) -> BTreeMap<(u64, Role), (Stage, bool)> {
    let mut all = BTreeMap::new();
    for (_, transition) in world.transitions() {
        let LeaseId::Session(session) = transition.subject.id else {
            panic!("all are seen from their start");
        };
        let known = all
            .entry((session, transition.subject.role))
            .or_insert((Stage::Healthy, false));
        match transition.to {
            Outcome::Stage(stage) => known.0 = known.0.max(stage.min(Stage::Jeopardy)),
            Outcome::Expired => known.1 = true,
            Outcome::Renewed => {}
        }
    }
    all
}

#[test]
fn the_verdict_does_not_depend_on_the_tick() {
    each_seed(60, |seed| {
        let told = [50, 100].map(|period_ms| {
            let settings = EntrySettings::default();
            let mut world = town_ticked(seed, 10, &BOTH, settings, period_ms);
            world.run_for(secs(200));
            for holder in 0..10 {
                let wait = world.rng.between(0, secs(9));
                world.run_for(wait);
                if holder % 2 == 0 {
                    world.hold(Process::Holder(holder), StallKind::Stopped, secs(60));
                } else {
                    world.cut(holder);
                }
            }
            world.run_for(secs(100));
            verdicts(&world)
        });
        assert_eq!(told[0], told[1]);
    });
}

/// A session that moves between connections again and again stays one lease.
#[test]
fn a_wandering_session_stays_one_lease() {
    each_seed(20, |seed| {
        let mut world = town(seed, 5);
        world.run_for(secs(60));
        for _ in 0..50 {
            for holder in 0..5 {
                world.drop_connection(holder);
            }
            if seed % 3 == 0 {
                // The old connection's end and the new one's handshake are seen at one look.
                let span_ns = world.rng.between(ms(500), secs(10));
                world.hold_daemon(span_ns);
            }
            world.run_for(secs(20));
        }
        world.check();
        let lost = world.expiries.first();
        let told = lost.map(|lost| world.told(LeaseId::Session(lost.session)));
        assert_eq!(told, None);
        let seen = world
            .daemon
            .said
            .iter()
            .filter(|(_, note)| matches!(note, Note::Seen { .. }))
            .count();
        assert_eq!((seen, world.daemon.book.len()), (10, 10));
        // Whoever comes back within its margin is never warned of.
        let patient = |lease: &watchdog_model::leases::note::Subject| {
            lease
                .timeout_ns
                .is_some_and(|timeout_ns| timeout_ns >= secs(16))
        };
        for (at, transition) in world.transitions() {
            let told = format!("+{} ms {transition:?}", at.since(START) / MS);
            assert!(!patient(&transition.subject), "{told}");
        }
    });
}

#[test]
fn a_day_of_a_thousand_leases() {
    let daemon = Daemon::new(ms(75), &[Role::Holder], EntrySettings::default(), 1_000);
    let mut world = World::new(1, daemon);
    for _ in 0..10 {
        world.add_grantor(secs(2));
    }
    for number in 0..1_000 {
        let timeout_ns = secs(world.rng.between(12, 40));
        world.add_holder(CLIENTS[number % CLIENTS.len()], timeout_ns, number % 10);
    }
    world.run_for(secs(86_400));
    world.check();
    assert_eq!(world.worst(), Stage::Healthy, "{:?}", first(&world));
    assert_eq!(world.daemon.book.len(), 1_000);
    assert!(world.daemon.observations > 5_000_000);
}

/// Something goes wrong, or is mended.
fn trouble(world: &mut World) {
    let holder = usize::try_from(world.rng.between(0, 11)).unwrap();
    let span_ns = world.rng.between(ms(50), secs(30));
    let kind = match world.rng.between(0, 3) {
        0 => StallKind::Stopped,
        1 => StallKind::Frozen,
        2 => StallKind::Uninterruptible,
        _ => StallKind::Starved,
    };
    match world.rng.between(0, 7) {
        0 | 1 => world.hold(Process::Holder(holder), kind, span_ns),
        2 => world.hold(Process::Grantor(0), kind, span_ns),
        3 => world.cut(holder),
        4 | 5 => (0..12).for_each(|holder| world.heal(holder)),
        6 => world.links[holder].loss_one_in = world.rng.between(0, 20),
        _ => {
            let killed = world.rng.one_in(2);
            world.leave(holder, killed);
        }
    }
}
