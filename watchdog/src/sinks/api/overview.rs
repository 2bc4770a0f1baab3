//! `/api/v1/overview`: how the node stands in one look: leases by stage, what is covered, and what
//! the daemon itself costs.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;
use watchdog_model::leases::note::Stage;
use watchdog_model::time::Mono;

use super::leases::effective_stage;
use super::reply::{Reply, json};
use super::{Sources, health};
use crate::outbox::Lost;
use crate::sinks::events::{Refused, wall_clock};
use crate::sinks::words;

/// Leases by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    healthy: usize,
    late: usize,
    at_risk: usize,
    jeopardy: usize,
    lapsed: usize,
}

impl Counts {
    /// Counts one.
    pub fn add(&mut self, stage: Stage) {
        *match stage {
            Stage::Healthy => &mut self.healthy,
            Stage::Late => &mut self.late,
            Stage::AtRisk => &mut self.at_risk,
            Stage::Jeopardy => &mut self.jeopardy,
            Stage::Lapsed => &mut self.lapsed,
        } += 1;
    }

    fn total(&self) -> usize {
        self.healthy + self.late + self.at_risk + self.jeopardy + self.lapsed
    }
}

#[derive(Serialize)]
struct Flows {
    synchronised: i64,
    unsynchronised: i64,
    opaque: i64,
}

#[derive(Serialize)]
struct Slots {
    used: i64,
    free: i64,
}

#[derive(Serialize)]
struct Coverage<'a> {
    flows: Flows,
    slots: Slots,
    attached: Vec<&'a str>,
    refused: &'a [Refused],
    lost: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Own {
    cpu_ms: Option<u64>,
    resident_bytes: Option<u64>,
    tick_late_mean_us: u64,
    real_time: bool,
    memory_locked: bool,
}

#[derive(Serialize)]
struct Overview<'a> {
    ts: String,
    mono_us: u64,
    node: String,
    version: &'a str,
    kernel: &'a str,
    up_ms: u64,
    watching: bool,
    tick_age_ms: Option<u64>,
    total: usize,
    stages: Counts,
    incidents_open: usize,
    newest_event: u64,
    coverage: Coverage<'a>,
    own: Own,
}

/// `GET /api/v1/overview`.
pub fn answer(sources: &Sources) -> Reply {
    json(&Value::of(sources).0)
}

/// One line of JSON, for the stream.
pub fn line(sources: &Sources) -> String {
    // Numbers and text under keys that are text: nothing JSON could refuse.
    serde_json::to_string(&Value::of(sources).0).unwrap_or_default()
}

struct Value<'a>(Overview<'a>);

impl<'a> Value<'a> {
    fn of(sources: &'a Sources) -> Self {
        let now = (sources.clock)();
        let started = &*sources.started;
        let last = sources.last_tick.load(Ordering::Relaxed);
        let mut stages = Counts::default();
        sources.ledger.with_said(|said| {
            sources.board.read(|sheet| {
                for lease in &sheet.leases {
                    let said = said.get(&lease.subject.handle);
                    stages.add(effective_stage(lease, sheet.at, said));
                }
            });
        });
        let [synchronised, unsynchronised, opaque] =
            sources.metrics.flows(&sources.ledger.entries());
        let [used, free] = sources.metrics.slots();
        let own = procfs::process::Process::myself()
            .and_then(|process| process.stat())
            .ok();
        Self(Overview {
            ts: humantime::format_rfc3339_micros(wall_clock(now)).to_string(),
            mono_us: now.0 / 1000,
            node: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            version: &started.version,
            kernel: &started.kernel,
            up_ms: words::to_ms(now.since(sources.started_at)),
            watching: health::ticking(sources).is_ok(),
            tick_age_ms: (last != 0).then(|| words::to_ms(now.since(Mono(last)))),
            total: stages.total(),
            stages,
            incidents_open: sources
                .ledger
                .incidents()
                .iter()
                .filter(|record| record.closed.is_none())
                .count(),
            newest_event: *sources.ledger.watch().borrow(),
            coverage: Coverage {
                flows: Flows {
                    synchronised,
                    unsynchronised,
                    opaque,
                },
                slots: Slots { used, free },
                attached: started
                    .attached
                    .iter()
                    .map(|hook| hook.signal.as_str())
                    .collect(),
                refused: &started.refused,
                lost: Lost::ALL
                    .into_iter()
                    .map(|what| (what.as_str(), sources.metrics.lost(what).get()))
                    .collect(),
            },
            own: Own {
                cpu_ms: own.as_ref().map(|stat| {
                    (stat.utime + stat.stime) * 1000 / procfs::ticks_per_second().max(1)
                }),
                resident_bytes: own.as_ref().map(|stat| stat.rss * procfs::page_size()),
                tick_late_mean_us: sources.metrics.tick_late_mean_us(),
                real_time: started.real_time,
                memory_locked: started.memory_locked,
            },
        })
    }
}
