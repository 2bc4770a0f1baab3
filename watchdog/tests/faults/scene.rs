//! Where a fault is played: a real server, the daemon, victims; and the one course that most faults
//! take: settle, strike, wait for the server's own verdict, undo.

use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Event;
use crate::harness::zookeeper::{Listen, TICK_US, ZooKeeper};
use crate::record;
use crate::rig::random;
use crate::rig::victim::Victim;
use crate::sample::{Harm, Sample};
use std::time::Duration;

/// The timeout that everyone gets, but where a fault says otherwise.
pub const T: Duration = Duration::from_secs(6);

/// A server and a daemon that watches it.
#[derive(Debug)]
pub struct Scene {
    /// The server; its log is the oracle.
    pub server: ZooKeeper,
    /// The daemon under test.
    pub daemon: Daemon,
    /// What it grants.
    pub timeout: Duration,
    _home: Home,
}

/// What undoes a fault when dropped.
pub type Guard = Box<dyn Send>;

/// A fault in force: since when, and what ends it.
pub type Struck = (i64, Guard);

impl Scene {
    /// A scene of one's own; the daemon watches the server's port and `more`.
    pub fn new(timeout: Duration, more: &[u16], server_extra: &str) -> Self {
        Self::watching(timeout, more, server_extra, true)
    }

    /// The same, with the server's own port out of the daemon's sight if `sees_server` is false.
    pub fn watching(timeout: Duration, more: &[u16], extra: &str, sees_server: bool) -> Self {
        let server = ZooKeeper::start_with(timeout, Listen::Everywhere, extra);
        let mut ports = more.to_vec();
        if sees_server {
            ports.push(server.port());
        }
        let home = Home::watching(&ports, "");
        let mut command = home.command();
        if let Some(file) = record::next_file() {
            command.arg("--record-all").arg(file);
        }
        let daemon = Daemon::launch(command);
        daemon.wait_for("`started`", Duration::from_secs(30), |event| {
            event.is("started")
        });
        Self {
            server,
            daemon,
            timeout,
            _home: home,
        }
    }

    /// Waits until the daemon has seen every lease at these ends, and knows their normal.
    pub fn settle(&self, victims: &[Victim], roles: &[&str]) {
        for victim in victims {
            for role in roles {
                self.daemon
                    .wait_seen(victim.id(), role, Duration::from_secs(10));
            }
        }
        // Two idle gaps of a third of T and a part of the next one: the victims are out of step.
        clock::observe_for(self.timeout * 5 / 6);
    }

    /// When the server expired a session after `from_us`, by its own log.
    pub fn expired_us(&self, id: u64, from_us: i64) -> Option<i64> {
        let expiries = self.server.expiries();
        let found = expiries
            .iter()
            .find(|(expired, at_us)| *expired == id && *at_us >= from_us);
        found.map(|(_, at_us)| *at_us)
    }

    /// Strikes all victims at once and holds until the server has expired them all, or could have.
    pub fn strike_all(
        &self,
        victims: &[Victim],
        role: &'static str,
        inject: impl FnOnce() -> Struck,
    ) -> Vec<Sample> {
        let mark = self.daemon.mark();
        clock::observe_for(random::within(self.timeout / 3));
        let (onset_us, guard) = inject();
        let onsets = vec![onset_us; victims.len()];
        self.hold(victims, &onsets);
        let samples = self.collect(victims, &onsets, mark, role);
        drop(guard);
        samples
    }

    /// Strikes each victim by itself, at a random moment of its cycle, and holds all until the
    /// server has expired them, or could have.
    pub fn strike_each(
        &self,
        victims: &[Victim],
        role: &'static str,
        inject: impl Fn(&Victim) -> Struck + Sync,
    ) -> Vec<Sample> {
        let mark = self.daemon.mark();
        let inject = &inject;
        let struck: Vec<Struck> = std::thread::scope(|scope| {
            let running: Vec<_> = victims
                .iter()
                .map(|victim| {
                    let phase = random::within(self.timeout / 3);
                    scope.spawn(move || {
                        clock::observe_for(phase);
                        inject(victim)
                    })
                })
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().expect("a fault that can be injected"))
                .collect()
        });
        let onsets: Vec<i64> = struck.iter().map(|(at_us, _)| *at_us).collect();
        self.hold(victims, &onsets);
        let samples = self.collect(victims, &onsets, mark, role);
        drop(struck);
        samples
    }

    /// Lets the fault last until every victim's session has expired, or should have.
    fn hold(&self, victims: &[Victim], onsets: &[i64]) {
        let last = onsets.iter().copied().max().unwrap_or_else(clock::now_us);
        let limit_us = last + clock::micros(self.timeout) * 4 / 3 + 2 * TICK_US + SECOND;
        let gone = || {
            let expiries = self.server.expiries();
            victims.iter().zip(onsets).all(|(victim, onset_us)| {
                expiries
                    .iter()
                    .any(|(id, at_us)| *id == victim.id() && at_us >= onset_us)
            })
        };
        while clock::now_us() < limit_us && !gone() {
            clock::observe_for(Duration::from_millis(50));
        }
        // What the daemon says of the end is still on its way.
        clock::observe_for(Duration::from_millis(300));
    }

    /// The samples, with the server's expiry as oracle and proof.
    pub fn collect(
        &self,
        victims: &[Victim],
        onsets: &[i64],
        mark: usize,
        role: &'static str,
    ) -> Vec<Sample> {
        let now_us = clock::now_us();
        let events = self.daemon.events_since(mark);
        let sample = |(victim, onset_us): (&Victim, &i64)| {
            let id = victim.id();
            let expired_us = self.expired_us(id, *onset_us);
            let proof = match expired_us {
                Some(at_us) => Ok(format!(
                    "the server expired it {:.1} s after the onset{}",
                    clock::seconds(at_us - onset_us),
                    victim.now_in()
                )),
                None => Err("the server did not expire it".to_owned()),
            };
            Sample {
                victim: victim.name(),
                id,
                role,
                onset_us: *onset_us,
                stood_us: *onset_us,
                harm_us: expired_us.unwrap_or(now_us),
                harm: Harm::Expired,
                proof,
                thing: None,
                events: of_lease(&events, id, role),
            }
        };
        victims.iter().zip(onsets).map(sample).collect()
    }
}

/// What was said of one lease.
pub fn of_lease(events: &[Event], id: u64, role: &str) -> Vec<Event> {
    let of = |event: &&Event| event.of(id, role);
    events.iter().filter(of).cloned().collect()
}

/// Demands of own holders beside the server's expiry that their own log shows the work that was
/// held up: begun before the harm, not ended by then.
pub fn demand_held_up(samples: &mut [Sample], victims: &[Victim]) {
    for (sample, victim) in samples.iter_mut().zip(victims) {
        let Ok(proof) = &mut sample.proof else {
            continue;
        };
        match victim.held_up_since(sample.harm_us) {
            Some(since_us) => {
                let figure = clock::seconds(sample.harm_us - since_us);
                proof.push_str(&format!("; its own log: held up for {figure:.1} s by then"));
                sample.stood_us = sample.onset_us.max(since_us);
            }
            None if matches!(victim, Victim::Own(_)) => {
                sample.proof = Err("expired, but by its own log nothing was held up".to_owned());
            }
            None => {}
        }
    }
}
