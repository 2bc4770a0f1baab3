//! One victim's story, and what the daemon made of it.
//!
//! In: the onset by whoever struck, the harm by the server's or the victim's own log, the daemon's
//! events of that lease. Out: figures. Never: a sample that counts without proof that the fault bit.

use crate::harness::clock;
use crate::harness::event::{Event, Stage};

/// What the damage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The grantor expired the lease.
    Expired,
    /// The holder gave its connection up, and the lease lives: each library has a patience of its
    /// own, which may end before the lease is in danger.
    GivenUp,
}

impl Harm {
    /// The stage that counts as a warning of it.
    fn warned_by(self) -> Stage {
        match self {
            Self::Expired => Stage::AtRisk,
            Self::GivenUp => Stage::Late,
        }
    }
}

/// One victim.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What held the lease.
    pub victim: String,
    /// The lease.
    pub id: u64,
    /// Which end is judged.
    pub role: &'static str,
    /// When the fault was in force, in microseconds of CLOCK_MONOTONIC.
    pub onset_us: i64,
    /// When the victim began to stand still, by its own log; the onset, where it has none. A fault
    /// may lie in wait until the victim's next fsync.
    pub stood_us: i64,
    /// When the damage was done, by a log that is not the daemon's: the server expired the session,
    /// or the client gave its connection up.
    pub harm_us: i64,
    /// What the damage is.
    pub harm: Harm,
    /// How it is known that the fault bit; or why it did not.
    pub proof: Result<String, String>,
    /// What the evidence must name (a device), where one thing is to blame.
    pub thing: Option<String>,
    /// What the daemon said of this lease, from before the onset on.
    pub events: Vec<Event>,
}

/// What the daemon made of a sample.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// From the first warning to the harm; `None` if there was none before it.
    pub lead_us: Option<i64>,
    /// The cause that stood when the harm was done; `none` if nothing was said.
    pub cause: String,
    /// The cause in the line that gave the first warning.
    pub first_cause: String,
    /// From the onset to the first line with an expected cause.
    pub named_us: Option<i64>,
    /// The first warning with the right cause, for people; else the line that stood at the harm.
    pub summary: String,
    /// Whether the line that stood at the harm, or its evidence, names the thing to blame.
    pub names_thing: bool,
}

impl Sample {
    /// Judges what was said between the onset and the harm.
    pub fn verdict(&self, expected: &[&str]) -> Verdict {
        let flag = self.harm.warned_by();
        let before = |event: &&Event| event.at_us >= self.onset_us && event.at_us <= self.harm_us;
        let said: Vec<&Event> = self.events.iter().filter(before).collect();
        let warns = |event: &&&Event| event.stage() >= Some(flag) && event.stage().is_some();
        let warning = said.iter().find(warns);
        let standing = said
            .iter()
            .rev()
            .find(|event| event.stage() > Some(Stage::Healthy));
        let cause = |event: Option<&&Event>| match event {
            Some(event) => event.text("cause").to_owned(),
            None => "none".to_owned(),
        };
        let named = said
            .iter()
            .find(|event| event.is("transition") && expected.contains(&event.text("cause")));
        let names = |thing: &String| {
            standing.is_some_and(|event| event.value.to_string().contains(thing.as_str()))
        };
        Verdict {
            names_thing: self.thing.as_ref().is_none_or(names),
            lead_us: warning.map(|event| self.harm_us - event.at_us),
            cause: cause(standing),
            first_cause: cause(warning),
            named_us: named.map(|event| (event.at_us - self.stood_us).max(0)),
            summary: said
                .iter()
                .find(|event| {
                    event.stage() >= Some(flag) && expected.contains(&event.text("cause"))
                })
                .or(standing)
                .map(|event| event.text("summary").to_owned())
                .unwrap_or_default(),
        }
    }

    /// What was said of it, for a sample that went wrong.
    pub fn story(&self) -> String {
        let mut story = format!(
            "{} {:#x} as {}: onset 0.00, harm {:.2} ({:?})\n",
            self.victim,
            self.id,
            self.role,
            clock::seconds(self.harm_us - self.onset_us),
            self.proof,
        );
        for event in &self.events {
            let line = format!(
                "    {:+.2} {} {} -> {} {} {}: {} {}\n",
                clock::seconds(event.at_us - self.onset_us),
                event.kind(),
                event.text("from"),
                event.text("to"),
                event.text("condition"),
                event.text("cause"),
                event.text("summary"),
                event
                    .value
                    .get("evidence")
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            );
            story.push_str(&line);
        }
        story
    }
}
