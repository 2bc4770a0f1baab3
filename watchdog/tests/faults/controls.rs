//! Healthy days: whatever is done here, nothing may go above `late`.

mod plays;

use crate::harness::clock;
use crate::harness::event::Stage;
use crate::report::ControlRow;
use crate::scene::Scene;
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
    play: fn(&Scene, Duration) -> Vec<String>,
}

impl Control {
    /// Plays it and gathers what the daemon said.
    pub fn play(&self, scene: &Scene, span: Duration) -> ControlRow {
        let (mark, start_us) = (scene.daemon.mark(), clock::now_us());
        let wrong = (self.play)(scene, span);
        let events = scene.daemon.events_since(mark);
        let above = |event: &&crate::harness::event::Event| {
            event.stage() > Some(Stage::Late) || event.is("false_expiry")
        };
        ControlRow {
            name: self.name,
            does: self.does,
            watched_us: clock::now_us() - start_us,
            leases: events.iter().filter(|event| event.is("lease_seen")).count(),
            late: events.iter().filter(|event| event.enters("late")).count(),
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
