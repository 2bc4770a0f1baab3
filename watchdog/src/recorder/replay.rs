//! A recording, told again by the code that judges now.
//!
//! In: a recording. Out: what the book says to it, and what it had said then. Never: a clock; times are the
//! recorded ones.

use std::collections::HashMap;

use anyhow::{Result, bail};
use watchdog_model::leases::book::Book;
use watchdog_model::leases::note::{LeaseHandle, LeaseId, Note};
use watchdog_model::leases::observation::Role;
use watchdog_model::time::Mono;

use super::Op;
use super::format::Recording;

/// Questions per look, as the tick asks them.
const A_TICK: usize = 20;

/// A note and when it was said.
pub type Said = (Mono, Note);

/// What was said, then and now.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// By the code of the recording's time.
    pub then: Vec<Said>,
    /// By the code that runs now.
    pub now: Vec<Said>,
    /// When the recording ends. It may end in the middle of a tick, so that a part of what was said
    /// then is missing.
    pub ends_at: Mono,
}

impl Replayed {
    /// Where they differ first: what was said then and is said now. Numbers of leases are each run's own.
    #[must_use]
    pub fn difference(&self) -> Option<(Option<Said>, Option<Said>)> {
        let plain = |(at, note): &Said| (*at, without_number(*note));
        let recorded: Vec<Said> = self.then.iter().map(plain).collect();
        let missing = |said: &Said| said.0 == self.ends_at && !recorded.contains(&plain(said));
        let (mut all_then, mut all_now) = (self.then.clone(), self.now.clone());
        all_now.retain(|said| !missing(said));
        in_order(&mut all_then);
        in_order(&mut all_now);
        let length = all_then.len().max(all_now.len());
        (0..length).find_map(|place| {
            let (then, now) = (all_then.get(place), all_now.get(place));
            (then.map(plain) != now.map(plain)).then(|| (then.copied(), now.copied()))
        })
    }
}

/// What is said in one tick, lease by lease: in which order leases are looked at is each run's own.
fn in_order(said: &mut [Said]) {
    said.sort_by_cached_key(|(at, note)| {
        let subject = match note {
            Note::Seen { subject, .. } | Note::Gone { subject, .. } => subject,
            Note::Transition(said) => &said.subject,
            Note::FalseExpiry(said) => &said.subject,
        };
        (
            *at,
            subject.entry,
            subject.role,
            format!("{:?}", subject.id),
        )
    });
}

fn without_number(mut note: Note) -> Note {
    let subject = match &mut note {
        Note::Seen { subject, .. } | Note::Gone { subject, .. } => subject,
        Note::Transition(said) => &mut said.subject,
        Note::FalseExpiry(said) => &mut said.subject,
    };
    subject.handle = LeaseHandle(0);
    note
}

/// For how many leases: whatever the header says, there are no more than observations.
pub(super) fn room(recording: &Recording) -> usize {
    let is_seen = |(.., op): &&(Mono, i64, Op)| matches!(op, Op::Observe { .. });
    let seen = recording.calls.iter().filter(is_seen).count();
    let most = (recording.context.flows.len() + seen).max(64);
    (recording.header.capacity as usize).clamp(64, most)
}

/// Tells it again.
///
/// # Errors
/// Observations of healthy leases were left out of it.
pub fn replay(recording: &Recording) -> Result<Replayed> {
    let header = &recording.header;
    if header.thin {
        bail!(
            "the rolling file leaves out healthy leases and cannot be replayed; explain --recording tells what it \
             has, an incident-….lwr beside it can be replayed"
        );
    }
    let settings = header
        .entries
        .iter()
        .map(|(_, settings)| *settings)
        .collect();
    let capacity = room(recording);
    let mut book = Book::new(settings, capacity);
    let mut replayed = Replayed {
        ends_at: recording.calls.last().map_or(Mono(0), |(at, ..)| *at),
        ..Replayed::default()
    };
    let mut names: HashMap<LeaseHandle, (u16, LeaseId, Role)> = recording
        .context
        .names
        .iter()
        .map(|(handle, entry, id, role)| (*handle, (*entry, *id, *role)))
        .collect();
    // What was there before is no news.
    for (at, flow) in &recording.context.flows {
        book.observe(flow, *at, &mut |_| {});
    }
    for (at, _, op) in &recording.calls {
        let now = *at;
        let said = &mut replayed.now;
        let mut say = |note: Note| said.push((now, note));
        match op {
            Op::Advance => book.advance(now, &mut say),
            Op::Asked => book.wanted(now, A_TICK, &mut |_, _| true),
            Op::DaemonGap { from, to } => book.daemon_gap(*from, *to),
            Op::NodeGap { from, to } => book.node_gap(*from, *to),
            Op::Observe { flow, .. } => book.observe(flow, now, &mut say),
            Op::FlowGone(key) => book.flow_gone(*key, now, &mut say),
            Op::Evidence { handle, found } => {
                let mine = names
                    .get(handle)
                    .and_then(|name| numbered(&book, *name, now));
                if let Some(mine) = mine {
                    book.evidence(mine, found, now, &mut say);
                }
            }
            Op::Said(note) => {
                let subject = match note {
                    Note::Seen { subject, .. } | Note::Gone { subject, .. } => subject,
                    Note::Transition(said) => &said.subject,
                    Note::FalseExpiry(said) => &said.subject,
                };
                names.insert(subject.handle, (subject.entry, subject.id, subject.role));
                replayed.then.push((now, *note));
            }
            Op::Settings(settings) => book.reconfigure(settings.clone()),
            Op::Lost(_) => {}
        }
    }
    Ok(replayed)
}

/// The number that a lease has in this book.
fn numbered(
    book: &Book,
    (entry, id, role): (u16, LeaseId, Role),
    now: Mono,
) -> Option<LeaseHandle> {
    book.leases(now)
        .map(|lease| lease.subject)
        .find(|subject| subject.entry == entry && subject.id == id && subject.role == role)
        .map(|subject| subject.handle)
}
