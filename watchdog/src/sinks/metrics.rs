//! Metrics.
//!
//! In: numbers of the tick (through handles made at the start: setting one is an atomic store,
//! without a lock or an allocation) and notes (counted by the sinks). Out: Prometheus' text
//! format. Never: a pid, port, address or session id as a label; those live in events.

mod durations;
mod rows;

use std::fmt;
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Counter, CounterVec, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec,
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use watchdog_model::leases::note::{Note, Outcome, Stage, Subject};
use watchdog_model::leases::observation::{Role, TimeoutSource};

use super::events::Started;
use super::tally::Tally;
use super::words;
use crate::kernel::self_cost::Cost;
use crate::outbox::Lost;
pub use durations::WaitHistogram;
pub use rows::{label_values, rows};

/// How many of the leases nearest to lapsing are shown, by rank.
pub const WORST: usize = 5;

const STAGES: [Stage; 5] = [
    Stage::Healthy,
    Stage::Late,
    Stage::AtRisk,
    Stage::Jeopardy,
    Stage::Lapsed,
];
const ROLES: [Role; 2] = [Role::Holder, Role::Grantor];
const SOURCES: [TimeoutSource; 3] = [
    TimeoutSource::Inferred,
    TimeoutSource::Config,
    TimeoutSource::Handshake,
];
const FLOW_STATES: [&str; 3] = ["synchronised", "unsynchronised", "opaque"];
const SLOT_STATES: [&str; 2] = ["used", "free"];

/// Up to the timeout and a little beyond: a fleet that gets near 1 is near to lapsing.
const RATIO: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25];
/// From a loopback round trip to a wait that costs leases.
const WAITS: &[f64] = &[
    0.000_25, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// From a tick's usual jitter to one that missed a whole lease.
const LATENESS: &[f64] = &[0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gauge,
    Counter,
    Histogram(&'static [f64]),
}

/// One metric; the prefix is added when it is made.
struct Definition {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition {
        name,
        kind,
        labels,
        help,
    }
}

const NO_LABELS: [&str; 0] = [];
const PREFIX: &str = "lease_watchdog_";

const TABLE: &[Definition] = &[
    metric(
        "leases",
        Kind::Gauge,
        &["lease", "role", "stage"],
        "Leases, by the stage they are in.",
    ),
    metric(
        "min_remaining_seconds",
        Kind::Gauge,
        &["lease", "role"],
        "Time until the first lease may lapse; NaN if there is none.",
    ),
    metric(
        "worst_remaining_seconds",
        Kind::Gauge,
        &["lease", "role", "rank"],
        "Time until the leases nearest to it may lapse; NaN if there are fewer.",
    ),
    metric(
        "min_timeout_seconds",
        Kind::Gauge,
        &["lease", "role"],
        "Shortest timeout of a lease; NaN if there is none.",
    ),
    metric(
        "transitions_total",
        Kind::Counter,
        &["lease", "role", "to"],
        "Changes of a lease's stage, by where they led.",
    ),
    metric(
        "warnings_total",
        Kind::Counter,
        &["lease", "role", "cause"],
        "Leases that became at risk or worse, by the cause as then known.",
    ),
    metric(
        "would_page_total",
        Kind::Counter,
        &[],
        "Incidents at risk or worse that no alert is configured for.",
    ),
    metric(
        "alerts_total",
        Kind::Counter,
        &["alert", "to", "result"],
        "Messages of alerts, by their place in the configuration: sent, or failed for good.",
    ),
    metric(
        "alert_retries_total",
        Kind::Counter,
        &["alert", "to"],
        "Posts tried again, kept hooks started again.",
    ),
    metric(
        "alerts_muted_total",
        Kind::Counter,
        &["lease"],
        "Incidents that were not told because the lease is muted.",
    ),
    metric(
        "muted",
        Kind::Gauge,
        &["lease"],
        "Whether alerts of these leases are muted (1).",
    ),
    metric(
        "expired_total",
        Kind::Counter,
        &["lease", "role"],
        "Leases that expired, proven.",
    ),
    metric(
        "false_expiries_total",
        Kind::Counter,
        &["lease", "role"],
        "Leases expired by a grantor although their renewal had arrived in time.",
    ),
    metric(
        "renewal_gap_ratio",
        Kind::Histogram(RATIO),
        &["lease", "role"],
        "Gap between renewals as a share of the timeout.",
    ),
    metric(
        "renewal_rtt_seconds",
        Kind::Histogram(WAITS),
        &["lease", "role"],
        "Time from a renewal to its answer.",
    ),
    metric(
        "renewal_unread_seconds",
        Kind::Histogram(WAITS),
        &["lease", "role"],
        "Time that a message lay in the socket before the application read it.",
    ),
    metric(
        "tick_late_seconds",
        Kind::Histogram(LATENESS),
        &[],
        "How late the daemon's own tick ran.",
    ),
    metric(
        "runqueue_wait_seconds",
        Kind::Histogram(durations::BOUNDS),
        &[],
        "How long watched threads waited for a CPU, each wait counted when it ended.",
    ),
    metric(
        "blocked_seconds",
        Kind::Histogram(durations::BOUNDS),
        &[],
        "How long watched threads slept uninterruptibly, each sleep counted when it ended.",
    ),
    metric(
        "journal_commit_seconds",
        Kind::Histogram(durations::BOUNDS),
        &[],
        "How long commits of the node's ext4 journals took, each counted when it ended.",
    ),
    metric(
        "threads_watched",
        Kind::Gauge,
        &[],
        "Threads that serve leases and are watched for it.",
    ),
    metric(
        "probe_run_seconds_total",
        Kind::Counter,
        &["probe"],
        "Run time of each kernel program, counted only while probe_cost samples.",
    ),
    metric(
        "probe_runs_total",
        Kind::Counter,
        &["probe"],
        "Runs of each kernel program, counted only while probe_cost samples.",
    ),
    metric(
        "probe_sampled_seconds_total",
        Kind::Counter,
        &[],
        "Time for which the two above were counted: divide their rates by this one's.",
    ),
    metric(
        "flows",
        Kind::Gauge,
        &["lease", "state"],
        "Connections that carry leases, by whether they can be followed.",
    ),
    metric(
        "leases_by_timeout_source",
        Kind::Gauge,
        &["source"],
        "Leases, by where their timeout is known from.",
    ),
    metric(
        "probe_attached",
        Kind::Gauge,
        &["signal", "hook"],
        "Whether a hook is in use (1) or was refused (0).",
    ),
    metric(
        "lost_total",
        Kind::Counter,
        &["what"],
        "What the daemon could not keep, send or write.",
    ),
    metric(
        "slots",
        Kind::Gauge,
        &["state"],
        "Places for flows in the kernel's table.",
    ),
    metric(
        "limit_used_ratio",
        Kind::Gauge,
        &["what"],
        "How much of its own cost's limits the daemon has used; at 1 it leaves.",
    ),
    metric("build_info", Kind::Gauge, &["version"], "Always 1."),
];

/// All metrics of the daemon.
pub struct Metrics {
    registry: Registry,
    leases: IntGaugeVec,
    limit_used: GaugeVec,
    min_remaining: GaugeVec,
    worst_remaining: GaugeVec,
    min_timeout: GaugeVec,
    transitions: IntCounterVec,
    warnings: IntCounterVec,
    would_page: IntCounterVec,
    alerts: IntCounterVec,
    alert_retries: IntCounterVec,
    alerts_muted: IntCounterVec,
    muted: IntGaugeVec,
    expired: IntCounterVec,
    false_expiries: IntCounterVec,
    gap_ratio: HistogramVec,
    rtt: HistogramVec,
    unread: HistogramVec,
    tick_late: HistogramVec,
    flows: IntGaugeVec,
    by_source: IntGaugeVec,
    attached: IntGaugeVec,
    lost: IntCounterVec,
    slots: IntGaugeVec,
    threads: IntGauge,
    runqueue: WaitHistogram,
    blocked: WaitHistogram,
    commits: WaitHistogram,
    probe_seconds: CounterVec,
    probe_runs: IntCounterVec,
    probe_sampled: Counter,
}

/// The tick's handles, made before it starts.
pub struct TickMetrics {
    /// One per config entry, in order.
    pub entries: Vec<EntryMetrics>,
    /// Leases by source of their timeout, in the order of [`TimeoutSource`].
    pub by_source: [IntGauge; 3],
    /// How late the tick ran, seconds.
    pub tick_late: Histogram,
    /// Places in the kernel's flow table that are taken.
    pub slots_used: IntGauge,
    /// And those that are not.
    pub slots_free: IntGauge,
    /// Threads that are watched.
    pub threads: IntGauge,
    /// Their waits for a CPU.
    pub runqueue: WaitHistogram,
    /// Their uninterruptible sleeps.
    pub blocked: WaitHistogram,
    /// Commits of the node's journals.
    pub commits: WaitHistogram,
}

/// Handles of one config entry.
pub struct EntryMetrics {
    /// Its leases at holders.
    pub holder: RoleMetrics,
    /// Its leases at grantors.
    pub grantor: RoleMetrics,
    /// Flows whose frames are followed.
    pub flows_synchronised: IntGauge,
    /// Flows whose frames are not followed now.
    pub flows_unsynchronised: IntGauge,
    /// Flows of which only bytes can be seen.
    pub flows_opaque: IntGauge,
}

/// Handles of one role of one config entry.
pub struct RoleMetrics {
    /// Leases by stage, in the order of [`Stage`].
    pub leases: [IntGauge; 5],
    /// Seconds; NaN: no lease.
    pub min_remaining: Gauge,
    /// Seconds, worst first; NaN: no such lease.
    pub worst_remaining: [Gauge; WORST],
    /// Seconds; NaN: no lease.
    pub min_timeout: Gauge,
    /// Gap over timeout.
    pub gap_ratio: Histogram,
    /// Seconds.
    pub rtt: Histogram,
    /// Seconds.
    pub unread: Histogram,
}

impl EntryMetrics {
    /// The handles of one role.
    #[must_use]
    pub const fn role(&self, role: Role) -> &RoleMetrics {
        match role {
            Role::Holder => &self.holder,
            Role::Grantor => &self.grantor,
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn opts(definition: &Definition) -> Opts {
    Opts::new(format!("{PREFIX}{}", definition.name), definition.help)
}

fn definition(name: &str) -> &'static Definition {
    TABLE
        .iter()
        .find(|definition| definition.name == name)
        .expect("every metric that is made stands in the table, and a test makes them all")
}

/// Makes and registers one kind of metric from its line in the table.
macro_rules! make {
    ($registry:expr, $kind:ty, $name:literal) => {{
        let definition = definition($name);
        let made = <$kind>::new(opts(definition).into(), definition.labels)?;
        $registry.register(Box::new(made.clone()))?;
        made
    }};
}

fn histogram(registry: &Registry, name: &str) -> prometheus::Result<HistogramVec> {
    let definition = definition(name);
    let mut options = HistogramOpts::from(opts(definition));
    if let Kind::Histogram(buckets) = definition.kind {
        options.buckets = buckets.to_vec();
    }
    let made = HistogramVec::new(options, definition.labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

impl Metrics {
    /// Registers everything, with every label set that can be foreseen at 0: a counter that
    /// appears only with its first event hides that event from a rate.
    pub fn new(entries: &[String]) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build_info = make!(registry, IntGaugeVec, "build_info");
        build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = Self {
            leases: make!(registry, IntGaugeVec, "leases"),
            limit_used: make!(registry, GaugeVec, "limit_used_ratio"),
            min_remaining: make!(registry, GaugeVec, "min_remaining_seconds"),
            worst_remaining: make!(registry, GaugeVec, "worst_remaining_seconds"),
            min_timeout: make!(registry, GaugeVec, "min_timeout_seconds"),
            transitions: make!(registry, IntCounterVec, "transitions_total"),
            warnings: make!(registry, IntCounterVec, "warnings_total"),
            would_page: make!(registry, IntCounterVec, "would_page_total"),
            alerts: make!(registry, IntCounterVec, "alerts_total"),
            alert_retries: make!(registry, IntCounterVec, "alert_retries_total"),
            alerts_muted: make!(registry, IntCounterVec, "alerts_muted_total"),
            muted: make!(registry, IntGaugeVec, "muted"),
            expired: make!(registry, IntCounterVec, "expired_total"),
            false_expiries: make!(registry, IntCounterVec, "false_expiries_total"),
            gap_ratio: histogram(&registry, "renewal_gap_ratio")?,
            rtt: histogram(&registry, "renewal_rtt_seconds")?,
            unread: histogram(&registry, "renewal_unread_seconds")?,
            tick_late: histogram(&registry, "tick_late_seconds")?,
            flows: make!(registry, IntGaugeVec, "flows"),
            by_source: make!(registry, IntGaugeVec, "leases_by_timeout_source"),
            attached: make!(registry, IntGaugeVec, "probe_attached"),
            lost: make!(registry, IntCounterVec, "lost_total"),
            slots: make!(registry, IntGaugeVec, "slots"),
            threads: make!(registry, IntGaugeVec, "threads_watched").with_label_values(&NO_LABELS),
            runqueue: WaitHistogram::register(&registry, "runqueue_wait_seconds")?,
            blocked: WaitHistogram::register(&registry, "blocked_seconds")?,
            commits: WaitHistogram::register(&registry, "journal_commit_seconds")?,
            probe_seconds: make!(registry, CounterVec, "probe_run_seconds_total"),
            probe_runs: make!(registry, IntCounterVec, "probe_runs_total"),
            probe_sampled: make!(registry, CounterVec, "probe_sampled_seconds_total")
                .with_label_values(&NO_LABELS),
            registry,
        };
        metrics.would_page();
        metrics.limits(&[("cpu", 0.0), ("memory", 0.0)]);
        for what in Lost::ALL {
            metrics.lost(what);
        }
        metrics.foresee(entries);
        Ok(metrics)
    }

    /// Sets how much of each limit is used up.
    pub fn limits(&self, shares: &[(&'static str, f64)]) {
        for (what, share) in shares {
            self.limit_used.with_label_values(&[*what]).set(*share);
        }
    }

    fn foresee(&self, entries: &[String]) {
        for entry in entries {
            self.alert_muted(entry);
            self.muted.with_label_values(&[entry.as_str()]);
            for role in ROLES.map(words::role) {
                let ends = [Outcome::Renewed, Outcome::Expired];
                for to in STAGES.map(Outcome::Stage).into_iter().chain(ends) {
                    self.transitions
                        .with_label_values(&[entry.as_str(), role, words::outcome(to)]);
                }
                for cause in words::CAUSES {
                    self.warnings
                        .with_label_values(&[entry.as_str(), role, words::cause(cause)]);
                }
                self.expired.with_label_values(&[entry.as_str(), role]);
                self.false_expiries
                    .with_label_values(&[entry.as_str(), role]);
            }
        }
    }

    /// Handles for the tick. Called again for other entries, it ends what the earlier handles
    /// show: the tick must take the new ones.
    #[must_use]
    pub fn tick(&self, entries: &[String]) -> TickMetrics {
        for gauges in [&self.leases, &self.flows] {
            gauges.reset();
        }
        for gauges in [
            &self.min_remaining,
            &self.worst_remaining,
            &self.min_timeout,
        ] {
            gauges.reset();
        }
        self.foresee(entries);
        let role = |entry: &str, role: Role| {
            let role = words::role(role);
            let unknown = |gauge: Gauge| {
                gauge.set(f64::NAN);
                gauge
            };
            RoleMetrics {
                leases: STAGES.map(|stage| {
                    self.leases
                        .with_label_values(&[entry, role, words::stage(stage)])
                }),
                min_remaining: unknown(self.min_remaining.with_label_values(&[entry, role])),
                worst_remaining: std::array::from_fn(|rank| {
                    let rank = (rank + 1).to_string();
                    unknown(
                        self.worst_remaining
                            .with_label_values(&[entry, role, rank.as_str()]),
                    )
                }),
                min_timeout: unknown(self.min_timeout.with_label_values(&[entry, role])),
                gap_ratio: self.gap_ratio.with_label_values(&[entry, role]),
                rtt: self.rtt.with_label_values(&[entry, role]),
                unread: self.unread.with_label_values(&[entry, role]),
            }
        };
        let [used, free] = SLOT_STATES.map(|state| self.slots.with_label_values(&[state]));
        TickMetrics {
            entries: entries
                .iter()
                .map(|entry| {
                    let [synchronised, unsynchronised, opaque] = FLOW_STATES
                        .map(|state| self.flows.with_label_values(&[entry.as_str(), state]));
                    EntryMetrics {
                        holder: role(entry, Role::Holder),
                        grantor: role(entry, Role::Grantor),
                        flows_synchronised: synchronised,
                        flows_unsynchronised: unsynchronised,
                        flows_opaque: opaque,
                    }
                })
                .collect(),
            by_source: SOURCES.map(|source| {
                self.by_source
                    .with_label_values(&[words::timeout_source(source)])
            }),
            tick_late: self.tick_late.with_label_values(&NO_LABELS),
            slots_used: used,
            slots_free: free,
            threads: self.threads.clone(),
            runqueue: self.runqueue.clone(),
            blocked: self.blocked.clone(),
            commits: self.commits.clone(),
        }
    }

    /// Shows what attached and what did not.
    pub fn started(&self, started: &Started) {
        for (signal, hook, value) in started
            .refused
            .iter()
            .map(|one| (&one.signal, &one.hook, 0))
            .chain(
                started
                    .attached
                    .iter()
                    .map(|one| (&one.signal, &one.hook, 1)),
            )
        {
            self.attached
                .with_label_values(&[signal.as_str(), hook.as_str()])
                .set(value);
        }
    }

    /// Counts a note. A transition from a stage to itself (its cause became known) is none.
    pub fn count(&self, note: &Note, entries: &[String]) {
        let labels = |subject: &Subject| {
            (
                words::entry_name(entries, subject.entry).to_owned(),
                words::role(subject.role),
            )
        };
        match note {
            Note::Transition(transition) => {
                let (lease, role) = labels(&transition.subject);
                if transition.to == Outcome::Stage(transition.from) {
                    return;
                }
                let to = words::outcome(transition.to);
                self.transitions
                    .with_label_values(&[lease.as_str(), role, to])
                    .inc();
                match transition.to {
                    Outcome::Stage(to)
                        if to >= Stage::AtRisk && transition.from < Stage::AtRisk =>
                    {
                        let cause = words::cause(transition.verdict.cause);
                        self.warnings
                            .with_label_values(&[lease.as_str(), role, cause])
                            .inc();
                    }
                    Outcome::Expired => {
                        self.expired
                            .with_label_values(&[lease.as_str(), role])
                            .inc();
                    }
                    _ => {}
                }
            }
            Note::FalseExpiry(expiry) => {
                let (lease, role) = labels(&expiry.subject);
                self.false_expiries
                    .with_label_values(&[lease.as_str(), role])
                    .inc();
            }
            Note::Seen { .. } | Note::Gone { .. } => {}
        }
    }

    /// What would have paged.
    pub fn would_page(&self) -> IntCounter {
        self.would_page.with_label_values(&NO_LABELS)
    }

    /// Adds what the kernel programs cost while it was counted, and for how long that was.
    pub fn probe_cost(&self, costs: &[Cost], sampled: Duration) {
        for cost in costs {
            let probe = [cost.program.as_str()];
            self.probe_runs.with_label_values(&probe).inc_by(cost.runs);
            self.probe_seconds
                .with_label_values(&probe)
                .inc_by(cost.time.as_secs_f64());
        }
        self.probe_sampled.inc_by(sampled.as_secs_f64());
    }

    /// What becomes of one alert's messages.
    pub fn alert_tally(&self, index: usize, to: &str) -> Tally {
        let index = index.to_string();
        let result = |result| self.alerts.with_label_values(&[index.as_str(), to, result]);
        Tally {
            sent: result("sent"),
            failed: result("failed"),
            retries: self.alert_retries.with_label_values(&[index.as_str(), to]),
            lost: self.lost(Lost::Alert),
        }
    }

    /// Incidents of an entry that were not told because it is muted.
    pub fn alert_muted(&self, lease: &str) -> IntCounter {
        self.alerts_muted.with_label_values(&[lease])
    }

    /// Whether an entry is muted.
    pub fn set_muted(&self, lease: &str, muted: bool) {
        self.muted.with_label_values(&[lease]).set(i64::from(muted));
    }

    /// Flows of all entries: followed, not followed now, of which only bytes can be seen.
    #[must_use]
    pub fn flows(&self, entries: &[String]) -> [i64; 3] {
        FLOW_STATES.map(|state| {
            entries
                .iter()
                .map(|entry| self.flows.with_label_values(&[entry.as_str(), state]).get())
                .sum()
        })
    }

    /// Places for flows: taken, free.
    #[must_use]
    pub fn slots(&self) -> [i64; 2] {
        SLOT_STATES.map(|state| self.slots.with_label_values(&[state]).get())
    }

    /// How late the tick ran on average, microseconds.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a mean of lateness is neither negative nor of centuries"
    )]
    pub fn tick_late_mean_us(&self) -> u64 {
        let none: [&str; 0] = [];
        let late = self.tick_late.with_label_values(&none);
        let count = late.get_sample_count().max(1) as f64;
        (late.get_sample_sum() * 1e6 / count) as u64
    }

    /// What was lost of one kind.
    pub fn lost(&self, what: Lost) -> IntCounter {
        self.lost.with_label_values(&[what.as_str()])
    }

    /// The text that is scraped.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Fails only where a family has no metrics, and those are not gathered.
        let _encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

#[cfg(test)]
mod tests;
