//! The tick's figures, into handles that were resolved before it started: atomics, no lock.

use watchdog_common::layout::Losses;
use watchdog_model::leases::{
    book::LeaseBrief,
    note::Stage,
    observation::{Role, TimeoutSource},
};

use super::{Gauges, Snapshot, flows::Flow};
use crate::sinks::metrics::{EntryMetrics, TickMetrics, WORST};

/// Counters that the kernel programs keep themselves, as last shown.
#[derive(Clone, Copy, Default)]
struct Shown {
    losses: Losses,
    threads_refused: u64,
    leases_refused: u64,
    questions_lost: u64,
}

/// [`Gauges`] over the metrics' handles.
pub struct MetricGauges {
    handles: TickMetrics,
    lost: LostHandles,
    shown: Shown,
    /// By entry and role: counts by stage, and the worst remaining spans, ns, worst first.
    tallies: Vec<[Tally; 2]>,
}

/// Counters of what found no place.
pub struct LostHandles {
    /// Flows.
    pub slot: prometheus::IntCounter,
    /// Threads.
    pub thread: prometheus::IntCounter,
    /// Leases.
    pub lease: prometheus::IntCounter,
    /// Segments of a watched flow that were skipped.
    pub segment: prometheus::IntCounter,
    /// Block requests that were not followed.
    pub request: prometheus::IntCounter,
    /// Questions about a cause that were not answered.
    pub question: prometheus::IntCounter,
}

#[derive(Clone, Copy)]
struct Tally {
    stages: [i64; 5],
    worst_ns: [i64; WORST],
    min_timeout_ns: u64,
}

const NONE_NS: i64 = i64::MAX;

impl Tally {
    const EMPTY: Self = Self {
        stages: [0; 5],
        worst_ns: [NONE_NS; WORST],
        min_timeout_ns: u64::MAX,
    };

    fn add(&mut self, lease: &LeaseBrief) {
        self.stages[stage_index(lease.stage)] += 1;
        // A guess is no figure to set an alarm by.
        let known = lease.timeout_source != TimeoutSource::Inferred;
        if let Some(timeout_ns) = lease.timeout_ns.filter(|_| known) {
            self.min_timeout_ns = self.min_timeout_ns.min(timeout_ns);
        }
        let Some(mut remaining_ns) = lease.remaining_ns else {
            return;
        };
        for place in &mut self.worst_ns {
            if remaining_ns < *place {
                std::mem::swap(place, &mut remaining_ns);
            }
        }
    }
}

const fn stage_index(stage: Stage) -> usize {
    match stage {
        Stage::Healthy => 0,
        Stage::Late => 1,
        Stage::AtRisk => 2,
        Stage::Jeopardy => 3,
        Stage::Lapsed => 4,
    }
}

const fn role_index(role: Role) -> usize {
    match role {
        Role::Holder => 0,
        Role::Grantor => 1,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span of 2^53 ns is 104 days")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl MetricGauges {
    /// Over these handles.
    #[must_use]
    pub fn new(handles: TickMetrics, lost: LostHandles) -> Self {
        let tallies = vec![[Tally::EMPTY; 2]; handles.entries.len()];
        Self {
            handles,
            lost,
            shown: Shown::default(),
            tallies,
        }
    }

    fn entry(&self, flow: &Flow) -> Option<&EntryMetrics> {
        self.handles
            .entries
            .get(usize::from(flow.observation.entry))
    }

    fn show_losses(&mut self, snapshot: &Snapshot<'_>) {
        let (now, shown) = (snapshot.losses, &mut self.shown);
        self.lost
            .slot
            .inc_by(now.no_slot.saturating_sub(shown.losses.no_slot));
        let skipped = |losses: &Losses| losses.contended + losses.unreadable + losses.calls;
        self.lost
            .segment
            .inc_by(skipped(&now).saturating_sub(skipped(&shown.losses)));
        self.lost.thread.inc_by(
            snapshot
                .threads_refused
                .saturating_sub(shown.threads_refused),
        );
        self.lost
            .lease
            .inc_by(snapshot.leases_refused.saturating_sub(shown.leases_refused));
        self.lost
            .request
            .inc_by(now.requests.saturating_sub(shown.losses.requests));
        self.lost
            .question
            .inc_by(snapshot.questions_lost.saturating_sub(shown.questions_lost));
        *shown = Shown {
            losses: now,
            threads_refused: snapshot.threads_refused,
            leases_refused: snapshot.leases_refused,
            questions_lost: snapshot.questions_lost,
        };
    }

    fn show_waits(&self, snapshot: &Snapshot<'_>) {
        self.handles.runqueue.show(&snapshot.waits.runqueue);
        self.handles.blocked.show(&snapshot.waits.blocked);
        self.handles.commits.show(&snapshot.waits.commits);
        self.handles
            .threads
            .set(i64::try_from(snapshot.threads).unwrap_or(i64::MAX));
    }

    fn show_flows(&self, snapshot: &Snapshot<'_>) {
        let mut used = 0;
        for entry in &self.handles.entries {
            entry.flows_synchronised.set(0);
            entry.flows_unsynchronised.set(0);
            entry.flows_opaque.set(0);
        }
        for flow in snapshot.flows.iter() {
            used += 1;
            // Somebody else's connection is neither seen nor missed.
            let Some(entry) = self.entry(flow).filter(|_| flow.watched == Some(true)) else {
                continue;
            };
            if flow.foreign {
                entry.flows_opaque.inc();
            } else if flow.observation.synchronised {
                entry.flows_synchronised.inc();
            } else {
                entry.flows_unsynchronised.inc();
            }
        }
        self.handles.slots_used.set(used);
        self.handles
            .slots_free
            .set(i64::try_from(snapshot.slots).unwrap_or(0) - used);
    }
}

impl Gauges for MetricGauges {
    fn tick_late(&mut self, late_ns: u64) {
        self.handles.tick_late.observe(seconds(late_ns));
    }

    fn renewal_rtt(&mut self, flow: &Flow, rtt_ns: u64) {
        if let Some(entry) = self.entry(flow) {
            entry
                .role(flow.observation.role)
                .rtt
                .observe(seconds(rtt_ns));
        }
    }

    fn renewal_unread(&mut self, flow: &Flow, unread_ns: u64) {
        if let Some(entry) = self.entry(flow) {
            entry
                .role(flow.observation.role)
                .unread
                .observe(seconds(unread_ns));
        }
    }

    fn renewal_gap(&mut self, flow: &Flow, gap_ns: u64, timeout_ns: u64) {
        if timeout_ns == 0 {
            return;
        }
        if let Some(entry) = self.entry(flow) {
            let ratio = seconds(gap_ns) / seconds(timeout_ns);
            entry.role(flow.observation.role).gap_ratio.observe(ratio);
        }
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot<'_>) {
        self.tallies.fill([Tally::EMPTY; 2]);
        let mut sources = [0_i64; 3];
        for lease in &mut *snapshot.leases {
            if let Some(tally) = self.tallies.get_mut(usize::from(lease.entry)) {
                tally[role_index(lease.role)].add(&lease);
            }
            sources[match lease.timeout_source {
                TimeoutSource::Inferred => 0,
                TimeoutSource::Config => 1,
                TimeoutSource::Handshake => 2,
            }] += 1;
        }
        for (handle, count) in self.handles.by_source.iter().zip(sources) {
            handle.set(count);
        }
        for (entry, tallies) in self.handles.entries.iter().zip(&self.tallies) {
            for role in [Role::Holder, Role::Grantor] {
                show(entry, role, &tallies[role_index(role)]);
            }
        }
        self.show_flows(snapshot);
        self.show_losses(snapshot);
        self.show_waits(snapshot);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span of 2^53 ns is 104 days")]
fn show(entry: &EntryMetrics, role: Role, tally: &Tally) {
    let handles = entry.role(role);
    for (handle, count) in handles.leases.iter().zip(tally.stages) {
        handle.set(count);
    }
    let span = |ns: i64| {
        if ns == NONE_NS {
            f64::NAN
        } else {
            ns as f64 / 1e9
        }
    };
    handles.min_remaining.set(span(tally.worst_ns[0]));
    for (handle, ns) in handles.worst_remaining.iter().zip(tally.worst_ns) {
        handle.set(span(ns));
    }
    let timeout_ns = tally.min_timeout_ns;
    handles.min_timeout.set(if timeout_ns == u64::MAX {
        f64::NAN
    } else {
        seconds(timeout_ns)
    });
}
