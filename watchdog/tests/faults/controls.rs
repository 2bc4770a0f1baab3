//! Healthy days: whatever is done here, nothing may go above `late`.

mod plays;
mod polls;

use crate::harness::clock;
use crate::harness::event::{Event, Stage};
use crate::report::ControlRow;
use crate::scene::{Scene, T};
use std::time::Duration;

/// One control.
#[derive(Debug)]
pub struct Control {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done.
    pub does: &'static str,
    /// How long, in the whole form.
    pub span: Duration,
    /// Whether the short form plays it, for 8 s.
    pub short: bool,
    /// The timeout that is granted.
    pub timeout: Duration,
    play: fn(&Scene, Duration) -> Vec<String>,
}

impl Control {
    const fn new(
        name: &'static str,
        does: &'static str,
        play: fn(&Scene, Duration) -> Vec<String>,
    ) -> Self {
        Self {
            name,
            does,
            span: Duration::from_secs(65),
            short: false,
            timeout: T,
            play,
        }
    }

    const fn short(mut self) -> Self {
        self.short = true;
        self
    }

    const fn with_timeout(mut self, seconds: u64) -> Self {
        self.timeout = Duration::from_secs(seconds);
        self
    }

    /// Plays it in a scene of its own and gathers what the daemon said.
    pub fn play(&self, span: Duration) -> ControlRow {
        let scene = Scene::new(self.timeout, &[], "");
        let start_us = clock::now_us();
        let wrong = (self.play)(&scene, span);
        let watched_us = clock::now_us() - start_us;
        let events = scene.daemon.events_since(0);
        let above = |event: &&Event| event.stage() > Some(Stage::Late) || event.is("false_expiry");
        let count = |wanted: &dyn Fn(&Event) -> bool| events.iter().filter(|e| wanted(e)).count();
        ControlRow {
            name: self.name,
            does: self.does,
            watched_us,
            leases: count(&|event| event.is("lease_seen")),
            late: count(&|event| event.enters("late")),
            alarms: events
                .iter()
                .filter(above)
                .map(|event| event.value.to_string())
                .collect(),
            wrong,
        }
    }
}

/// All of them.
pub const ALL: &[Control] = plays::ALL;
