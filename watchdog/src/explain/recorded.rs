//! Recordings among the logs: what the daemon said becomes events, with causes that it had proven.
//!
//! In: a recording. Out: one source and its events. Never: a judgement of its own; `--replay` is for that.

use watchdog_model::causes::{Fact, Side};
use watchdog_model::leases::note::{Note, Outcome, Stage, Subject, Transition};
use watchdog_model::leases::observation::Role;
use watchdog_model::time::Mono;

use super::input::Input;
use super::meaning::{Event, Meaning};
use super::patterns::Fields;
use super::scan::{Counts, Logs, Source};
use super::wall::{SECOND, Wall};
use crate::recorder::Op;
use crate::recorder::format::Recording;
use crate::sinks::events::Renderer;
use crate::sinks::words;

/// Adds a recording to the logs.
pub fn add(logs: &mut Logs, input: &Input, recording: Recording) {
    let number = logs.sources.len();
    let mut telling = Telling {
        renderer: Renderer::new(
            recording
                .header
                .entries
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
        ),
        source: number,
        east: logs.zone.east,
        events: Vec::new(),
        counts: Counts::default(),
    };
    for (at, wall, op) in &recording.calls {
        telling.counts.lines += 1;
        telling.take(*at, *wall, op);
    }
    logs.sources.push(Source {
        series: input.series(),
        files: vec![input.name.clone()],
        host: None,
        // The node's name stands there as in other logs' headers.
        heads: vec![format!("Running on machine: {}\n", recording.header.node).into_bytes()],
        activity: super::activity::Activity::default(),
        counts: telling.counts,
        timeless: Vec::new(),
        trouble: recording.torn.into_iter().collect(),
    });
    logs.events.extend(telling.events);
    logs.events
        .sort_by_key(|event| (event.at, event.source, event.place));
}

/// One line for each note, for `--replay`.
pub fn lines(recording: &Recording, notes: &[(Mono, Note)], json: bool) -> Vec<String> {
    let names = recording
        .header
        .entries
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    let mut renderer = Renderer::new(names);
    let wall = |at: Mono| {
        let place = recording.calls.partition_point(|(known, ..)| *known < at);
        let less = recording.calls.get(place).or(recording.calls.last());
        less.map_or(0, |(_, less, _)| *less)
    };
    notes
        .iter()
        .map(|(at, note)| {
            let line = renderer.note(*at, note, None);
            if json {
                return line;
            }
            let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let text = |key: &str| object[key].as_str().unwrap_or("").to_owned();
            let at = moment(*at, wall(*at), 0);
            format!(
                "{} {}  {} {} {} {} {}  {}",
                at.date(),
                at.time(),
                text("event"),
                text("role"),
                text("id"),
                text("to"),
                text("cause"),
                text("summary")
            )
            .trim_end()
            .to_owned()
        })
        .collect()
}

fn moment(at: Mono, wall_less_mono_ns: i64, east: i32) -> Wall {
    let mono = i64::try_from(at.0).unwrap_or(i64::MAX);
    // To the microsecond, as everything that the daemon says.
    let ns = mono.saturating_add(wall_less_mono_ns) / 1000 * 1000;
    Wall(ns.saturating_add(i64::from(east) * SECOND))
}

struct Telling {
    renderer: Renderer,
    source: usize,
    east: i32,
    events: Vec<Event>,
    counts: Counts,
}

impl Telling {
    fn take(&mut self, at: Mono, wall: i64, op: &Op) {
        let now = moment(at, wall, self.east);
        match op {
            Op::Said(note) => {
                self.counts.understood += 1;
                self.note(at, now, wall, note);
            }
            Op::NodeGap { from, to } | Op::DaemonGap { from, to } => {
                let ms = to.since(*from) / 1_000_000;
                self.put(
                    now,
                    Meaning::Pause,
                    vec![("for_ms".to_owned(), ms.to_string())],
                    "the daemon was held up",
                );
            }
            Op::Lost(count) => self.counts.left_out += count,
            _ => {}
        }
    }

    fn note(&mut self, at: Mono, now: Wall, wall: i64, note: &Note) {
        let line = self.renderer.note(at, note, None);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let summary = object["summary"].as_str().unwrap_or("").to_owned();
        match note {
            Note::Transition(said) => self.transition(now, said, &summary),
            Note::FalseExpiry(said) => {
                let fields = fields(&said.subject);
                self.put(now, Meaning::LeaseExpired, fields.clone(), &summary);
                let arrived = moment(said.arrived_at, wall, self.east);
                self.put(
                    now,
                    Meaning::ExpiryBlamed,
                    fields,
                    &format!(
                        "the renewal had arrived at {}, before the floor",
                        arrived.time()
                    ),
                );
            }
            Note::Seen { .. } | Note::Gone { .. } => {}
        }
    }

    fn transition(&mut self, now: Wall, said: &Transition, summary: &str) {
        let mut fields = fields(&said.subject);
        let cause = said.verdict.cause;
        fields.push(("cause".to_owned(), words::cause(cause).to_owned()));
        let side = said.verdict.facts().find_map(Fact::side);
        fields.push((
            "side".to_owned(),
            if side == Some(Side::Peer) {
                "peer"
            } else {
                "own"
            }
            .to_owned(),
        ));
        let (meaning, stage) = match said.to {
            Outcome::Stage(Stage::Healthy) => return,
            Outcome::Stage(stage) => (Meaning::Warned, words::stage(stage)),
            Outcome::Renewed => (Meaning::Renewed, "renewed"),
            Outcome::Expired if said.subject.role == Role::Grantor => {
                (Meaning::LeaseExpired, "expired")
            }
            Outcome::Expired => (Meaning::SessionExpired, "expired"),
        };
        fields.push(("stage".to_owned(), stage.to_owned()));
        if let Some(remaining_ns) = said.remaining_ns {
            fields.push(("remaining_ns".to_owned(), remaining_ns.to_string()));
        }
        self.put(now, meaning, fields, summary);
    }

    fn put(&mut self, at: Wall, meaning: Meaning, fields: Fields, text: &str) {
        let place = (0, self.events.len() as u64 + 1);
        self.events.push(Event {
            at,
            own: None,
            source: self.source,
            thread: String::new(),
            own_thread: None,
            function: None,
            meaning,
            fields,
            place,
            text: text.to_owned(),
        });
    }
}

fn fields(subject: &Subject) -> Fields {
    let id = match subject.id {
        watchdog_model::leases::note::LeaseId::Session(id) => format!("0x{id:x}"),
        watchdog_model::leases::note::LeaseId::Flow { local, peer } => format!("{local}>{peer}"),
    };
    let mut fields = vec![
        ("id".to_owned(), id),
        ("peer".to_owned(), subject.endpoints.peer.to_string()),
        (
            "role".to_owned(),
            match subject.role {
                Role::Holder => "holder",
                Role::Grantor => "grantor",
            }
            .to_owned(),
        ),
    ];
    if let Some(timeout) = subject.timeout_ns {
        fields.push(("timeout_ms".to_owned(), (timeout / 1_000_000).to_string()));
    }
    fields
}
