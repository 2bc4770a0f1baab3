//! Stories in a simulated world, told for many seeds. A failing seed is named in the message;
//! `WORLD_SEED=n cargo test -p watchdog-model --test simulated_world` tells that one again.

mod world;

use watchdog_model::Mono;
use watchdog_model::leases::note::{Condition, GoneReason, Note, Outcome, Stage};
use watchdog_model::leases::observation::{Role, StallKind};
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::{MS, SECOND, ms, secs};

use world::daemon::Daemon;
use world::holder::{CLIENTS, Client};
use world::{Process, START, World};

const BOTH: [Role; 2] = [Role::Holder, Role::Grantor];

/// Tells a story for each of so many seeds, or for the one that the environment names.
fn each_seed(seeds: u64, story: impl Fn(u64)) {
    let named = std::env::var("WORLD_SEED").ok();
    if let Some(seed) = named.and_then(|seed| seed.parse().ok()) {
        story(seed);
        return;
    }
    for seed in 1..=seeds {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(seed)));
        if let Err(panic) = told {
            eprintln!("failed with WORLD_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn world(seed: u64, period_ns: u64, sees: &[Role]) -> World {
    World::new(
        seed,
        Daemon::new(period_ns, sees, EntrySettings::default(), 4_096),
    )
}

/// One server, some clients of every kind with timeouts from 4 to 40 s.
fn town(seed: u64, clients: usize) -> World {
    let period = if seed.is_multiple_of(2) { 50 } else { 100 };
    let mut world = world(seed, ms(period), &BOTH);
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

#[test]
fn whatever_goes_wrong_the_laws_hold() {
    each_seed(300, |seed| {
        let mut world = town(seed, 12);
        world.run_for(secs(100));
        for _ in 0..30 {
            trouble(&mut world);
            let wait = world.rng.between(ms(10), secs(20));
            world.run_for(wait);
        }
        for holder in 0..12 {
            world.heal(holder);
        }
        world.run_for(secs(200));
        world.check();
        world.check_warned();
    });
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
