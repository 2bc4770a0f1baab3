//! Alerts: which incidents are told to whom.
//!
//! In: incidents as they stand after each batch of notes, mutes, the passing of time. Out: messages
//! to the sinks (`hooks.rs`, `webhook.rs`, `alertmanager.rs`): one when an incident reaches the
//! stage of an alert, more while it grows, one when it has left it. Never: a wait; each alert has a
//! queue and a task of its own.
//!
//! An alert sees of an incident only the leases that its filter takes. What fires is told:
//! - `firing` once, when a lease that it sees reaches its stage, unless that entry is muted;
//! - `grown` when the stage is worse, the cause is known, the leases are twice as many, or more
//!   than was told `NEWS_AFTER_NS` ago;
//! - `resolved` once it has been below the stage for `CALM_NS`. The same trouble again before
//!   that is the same alert: a lease that flaps pages once.
//!
//! A mute keeps new alerts from firing; what fires already is told to its end. When it is over,
//! what still stands fires.

pub mod message;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use watchdog_model::causes::Cause;
use watchdog_model::leases::note::{LeaseId, Stage, Transition};
use watchdog_model::leases::observation::Role;
use watchdog_model::time::{Mono, secs};

use self::message::{About, Labels, Message, State, key, labels};
use super::alertmanager;
use super::events::{AlertFields, Renderer};
use super::hooks;
use super::incidents::{Change, IncidentId, Part, Settled, Thing};
use super::metrics::Metrics;
use super::mutes::Mutes;
use super::tally::Tally;
use super::webhook::{self, Queued};
use super::words;
use crate::config::{Alert, AlertDestination, Filter};

/// The stage from which a human would want to be woken.
const WOULD_PAGE_ON: Stage = Stage::AtRisk;

/// Messages that may wait for one sink. They are per incident, so this many are a bad day.
const QUEUE: usize = 256;

/// How long an incident must have been below an alert's stage before it is told that it is over: a
/// renewal that came at the last moment is often followed by the same trouble.
const CALM_NS: u64 = secs(3);

/// How long the number of leases in an alert may be out of date.
const NEWS_AFTER_NS: u64 = secs(10);

/// The newest transition of the worst lease of a batch, by incident, entry and role.
#[derive(Default)]
pub struct Evidence(BTreeMap<(IncidentId, u16, Role), Newest>);

#[derive(Clone)]
struct Newest {
    stage: Stage,
    transition: Transition,
    line: Arc<str>,
}

impl Evidence {
    /// Takes a transition of a lease that is in an incident, at this stage, and its line.
    pub fn take(&mut self, id: IncidentId, stage: Stage, transition: &Transition, line: Arc<str>) {
        let subject = &transition.subject;
        let key = (id, subject.entry, subject.role);
        if self.0.get(&key).is_none_or(|known| stage >= known.stage) {
            self.0.insert(
                key,
                Newest {
                    stage,
                    transition: *transition,
                    line,
                },
            );
        }
    }
}

/// An incident that is open, as last seen.
struct Open {
    change: Change,
    parts: Vec<Part>,
    newest: BTreeMap<(u16, Role), Newest>,
}

/// What an alert sees of an incident.
#[derive(Clone, Copy)]
struct View {
    leases: usize,
    worst: LeaseId,
    entry: u16,
    role: Role,
    stage: Stage,
    floor: Mono,
}

impl Open {
    /// The leases that pass, as one.
    fn view(&self, filter: &Filter, passes: impl Fn(u16) -> bool) -> Option<View> {
        let mut view: Option<View> = None;
        for part in &self.parts {
            if !filter.takes_lease(part.entry, part.role) || !passes(part.entry) {
                continue;
            }
            let leases = view.map_or(0, |view| view.leases) + part.leases;
            let worse = view.is_none_or(|view| {
                (part.stage, std::cmp::Reverse(part.floor))
                    > (view.stage, std::cmp::Reverse(view.floor))
            });
            view = Some(match view {
                Some(view) if !worse => View { leases, ..view },
                _ => View {
                    leases,
                    worst: part.worst,
                    entry: part.entry,
                    role: part.role,
                    stage: part.stage,
                    floor: part.floor,
                },
            });
        }
        view
    }
}

/// What was told of an incident.
struct Firing {
    since: Mono,
    labels: Labels,
    cause: Cause,
    thing: Thing,
    /// As last told.
    leases: usize,
    stage: Stage,
    told_at: Mono,
    /// Most leases at once, and the worst of all.
    most: usize,
    worst: (LeaseId, u16),
    /// As last seen.
    view: View,
    change: Change,
    /// Since when it has been below the stage.
    calm_since: Option<Mono>,
}

/// One alert: whom to tell, and what was told.
struct Told {
    alert: Alert,
    name: String,
    firing: BTreeMap<IncidentId, Firing>,
    /// Incidents that a mute keeps from firing.
    muted: BTreeMap<IncidentId, ()>,
    queue: mpsc::Sender<Queued>,
    task: tokio::task::JoinHandle<()>,
    tally: Tally,
}

/// Everyone who is told.
pub struct Alerts {
    told: Vec<Told>,
    open: BTreeMap<IncidentId, Open>,
    would_page: BTreeMap<IncidentId, ()>,
    mutes: Mutes,
    node: String,
    metrics: Arc<Metrics>,
}

/// What an alert is called in the log: its place in the configuration, and the way out.
#[must_use]
pub fn called(index: usize, to: &AlertDestination) -> String {
    let whom = match to {
        AlertDestination::Exec(hook) => hook.argv.first().cloned().unwrap_or_default(),
        AlertDestination::Webhook(hook) => hook.url.to_string(),
        AlertDestination::Alertmanager(there) => there.url.to_string(),
    };
    format!("alerts[{index}] ({} {whom})", to.kind())
}

impl Told {
    fn start(index: usize, alert: &Alert, node: &str, metrics: &Metrics) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let tally = metrics.alert_tally(index, alert.to.kind());
        let name = called(index, &alert.to);
        let task = match &alert.to {
            AlertDestination::Exec(config) => {
                let hook = hooks::Hook::new(config, name.clone(), tally.clone());
                tokio::spawn(hooks::run(hook, messages))
            }
            AlertDestination::Webhook(config) => {
                let hook = webhook::Hook::new(config, name.clone(), tally.clone());
                tokio::spawn(webhook::run(hook, messages))
            }
            AlertDestination::Alertmanager(config) => {
                let sink = alertmanager::Sink::new(config, name.clone(), node, tally.clone());
                tokio::spawn(alertmanager::run(sink, messages))
            }
        };
        Self {
            alert: alert.clone(),
            name,
            firing: BTreeMap::new(),
            muted: BTreeMap::new(),
            queue,
            task,
            tally,
        }
    }

    fn push(&self, at: Mono, message: Message) -> bool {
        if self.queue.try_send((at, Arc::new(message))).is_ok() {
            return true;
        }
        self.tally.lose();
        tracing::error!(
            "alert {}: {QUEUE} alerts wait for it already; one more is not told",
            self.name
        );
        false
    }

    /// Looks at an open incident, or at one that is over.
    fn look(&mut self, at: Mono, id: IncidentId, open: &Open, world: &World<'_>) {
        let takes_cause = self.alert.filter.takes_cause(open.change.cause);
        let reached =
            |view: Option<View>| view.filter(|view| takes_cause && view.stage >= self.alert.on);
        let seen = reached(open.view(&self.alert.filter, |_| true));
        if self.firing.contains_key(&id) {
            match seen {
                Some(view) => self.goes_on(at, id, open, view, world),
                None => {
                    if let Some(firing) = self.firing.get_mut(&id) {
                        firing.change.expired = open.change.expired;
                        firing.calm_since.get_or_insert(at);
                    }
                }
            }
            return;
        }
        let Some(seen) = seen else {
            self.muted.remove(&id);
            return;
        };
        let heard = reached(open.view(&self.alert.filter, |entry| !world.is_muted(entry)));
        match heard {
            Some(view) => {
                self.muted.remove(&id);
                self.fires(at, id, open, view, world);
            }
            None => {
                if self.muted.insert(id, ()).is_none() {
                    world.metrics.alert_muted(world.entry(seen.entry)).inc();
                }
            }
        }
    }

    fn fires(&mut self, at: Mono, id: IncidentId, open: &Open, view: View, world: &World<'_>) {
        // The same trouble before the last one was told to be over: the same alert.
        let again = self
            .firing
            .iter()
            .find(|(_, firing)| {
                firing.calm_since.is_some()
                    && firing.cause == open.change.cause
                    && firing.thing == open.change.thing
                    && firing.labels.lease == world.entry(view.entry)
            })
            .map(|(earlier, _)| *earlier);
        if let Some(earlier) = again
            && let Some(firing) = self.firing.remove(&earlier)
        {
            // Sinks know it by its first number.
            let change = Change {
                id: firing.change.id,
                ..open.change
            };
            self.firing.insert(id, Firing { change, ..firing });
            self.goes_on(at, id, open, view, world);
            return;
        }
        let change = seen_by(&open.change, &view, open.change.id);
        let firing = Firing {
            since: at,
            labels: world.labels(open, &change, view.role),
            cause: change.cause,
            thing: change.thing,
            leases: view.leases,
            stage: view.stage,
            told_at: at,
            most: view.leases,
            worst: (view.worst, view.entry),
            view,
            change,
            calm_since: None,
        };
        let message = self.message(at, State::Firing, &firing, Some(open), world);
        // One that found no place is tried again with the incident's next change.
        if self.push(at, message) {
            self.firing.insert(id, firing);
        }
    }

    fn goes_on(&mut self, at: Mono, id: IncidentId, open: &Open, view: View, world: &World<'_>) {
        let Some(mut firing) = self.firing.remove(&id) else {
            return;
        };
        firing.calm_since = None;
        firing.view = view;
        firing.change = seen_by(&open.change, &view, firing.change.id);
        let other = firing.cause != open.change.cause || firing.thing != open.change.thing;
        let worse = view.stage > firing.stage;
        firing.most = firing.most.max(view.leases);
        if worse {
            firing.worst = (view.worst, view.entry);
        }
        let many = view.leases >= 2 * firing.leases
            || view.leases > firing.leases && at.since(firing.told_at) >= NEWS_AFTER_NS;
        if other || worse || many {
            if other {
                firing.labels = Labels {
                    lease: firing.labels.lease,
                    role: firing.labels.role,
                    ..world.labels(open, &firing.change, view.role)
                };
            }
            let message = self.message(at, State::Grown, &firing, Some(open), world);
            if self.push(at, message) {
                firing.cause = open.change.cause;
                firing.thing = open.change.thing;
                firing.leases = view.leases;
                firing.stage = firing.stage.max(view.stage);
                firing.told_at = at;
            }
        }
        self.firing.insert(id, firing);
    }

    /// Tells what has been over for long enough.
    fn calm(&mut self, at: Mono, calm_ns: u64, world: &World<'_>) {
        let over: Vec<IncidentId> = self
            .firing
            .iter()
            .filter(|(_, firing)| {
                firing
                    .calm_since
                    .is_some_and(|since| at.since(since) >= calm_ns)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            let Some(mut firing) = self.firing.remove(&id) else {
                continue;
            };
            // What is over is told as it was at its worst.
            firing.change = Change {
                leases: firing.most,
                worst: firing.worst.0,
                entry: firing.worst.1,
                stage: firing.stage,
                ..firing.change
            };
            let message = self.message(at, State::Resolved, &firing, None, world);
            if !self.push(at, message) {
                // Tried again at the next look: an alert must not stay for ever.
                self.firing.insert(id, firing);
                return;
            }
        }
    }

    fn message(
        &self,
        at: Mono,
        state: State,
        firing: &Firing,
        open: Option<&Open>,
        world: &World<'_>,
    ) -> Message {
        let (view, change) = (&firing.view, &firing.change);
        let over = state == State::Resolved;
        let remaining_ns = (!over && view.floor != Mono(u64::MAX))
            .then(|| i64::try_from(i128::from(view.floor.0) - i128::from(at.0)).ok())
            .flatten();
        let newest = open.and_then(|open| open.newest.get(&(view.entry, view.role)));
        let renderer = world.renderer;
        let line = renderer.alert(
            at,
            change,
            AlertFields {
                state,
                on: self.alert.on,
                node: world.node,
                key: &key(world.node, &firing.labels),
                role: view.role,
                remaining_ns,
            },
        );
        let ended = firing.calm_since.filter(|_| over);
        Message {
            state,
            line: Arc::from(line),
            transition: newest.map(|newest| Arc::clone(&newest.line)),
            about: About {
                incident: change.id.0,
                on: self.alert.on,
                test: false,
                since: renderer.wall(firing.since),
                until: ended.map(|at| renderer.wall(at)),
                labels: firing.labels.clone(),
                leases: change.leases,
                worst: words::lease_id(&change.worst),
                stage: words::stage(change.stage),
                summary: words::incident_summary(renderer.entries(), change, over),
                evidence: newest.map_or_else(
                    || "nothing that tells more".to_owned(),
                    |newest| words::evidence(&newest.transition),
                ),
                remaining: if over {
                    "it is over".to_owned()
                } else {
                    words::remaining(remaining_ns)
                },
            },
        }
    }
}

/// An incident as an alert sees it, by the number that its sink knows.
const fn seen_by(change: &Change, view: &View, id: IncidentId) -> Change {
    Change {
        id,
        leases: view.leases,
        worst: view.worst,
        entry: view.entry,
        stage: view.stage,
        ..*change
    }
}

/// What all alerts share while one is looked at.
struct World<'a> {
    renderer: &'a Renderer,
    mutes: &'a Mutes,
    node: &'a str,
    metrics: &'a Metrics,
}

impl World<'_> {
    fn entry(&self, entry: u16) -> &str {
        words::entry_name(self.renderer.entries(), entry)
    }

    fn is_muted(&self, entry: u16) -> bool {
        self.mutes.holds(self.entry(entry))
    }

    fn labels(&self, open: &Open, change: &Change, role: Role) -> Labels {
        let addresses = || {
            open.newest
                .values()
                .filter(|newest| newest.transition.subject.role == Role::Grantor)
                .map(|newest| newest.transition.subject.endpoints.local.ip())
        };
        // A loopback address says little; clients elsewhere know the node by another.
        let local = addresses()
            .find(|address| !address.is_loopback())
            .or_else(|| addresses().next());
        labels(self.renderer.entries(), change, role, local, self.node)
    }
}

/// This node's name, as alerts call it.
#[must_use]
pub fn node_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

impl Alerts {
    /// Starts the sinks' tasks, and the hooks that are kept; what was muted stays so. Must be called
    /// inside a tokio runtime.
    #[must_use]
    pub fn start(alerts: &[Alert], mutes: Mutes, metrics: &Arc<Metrics>) -> Self {
        let node = node_name();
        let told = alerts
            .iter()
            .enumerate()
            .map(|(index, alert)| Told::start(index, alert, &node, metrics))
            .collect();
        for (lease, _) in mutes.all() {
            metrics.set_muted(lease, true);
        }
        Self {
            told,
            open: BTreeMap::new(),
            would_page: BTreeMap::new(),
            mutes,
            node,
            metrics: Arc::clone(metrics),
        }
    }

    /// Takes other alerts on. Those that stay as they are keep what they told and what waits; those
    /// that are new are told what stands. Gives the earlier ones, to be finished.
    pub fn exchange(&mut self, at: Mono, alerts: &[Alert], renderer: &Renderer) -> Finishing {
        let mut earlier: Vec<Told> = std::mem::take(&mut self.told);
        for (index, alert) in alerts.iter().enumerate() {
            let same = earlier
                .iter()
                .position(|told| told.alert == *alert && told.name == called(index, &alert.to));
            self.told.push(match same {
                Some(at) => earlier.swap_remove(at),
                None => Told::start(index, alert, &self.node, &self.metrics),
            });
        }
        self.look_at_all(at, renderer);
        Finishing(earlier)
    }

    /// Tells whom it concerns how incidents stand after a batch of notes.
    pub fn settled(
        &mut self,
        at: Mono,
        settled: Vec<Settled>,
        evidence: &Evidence,
        renderer: &Renderer,
    ) {
        for one in settled {
            let id = one.change.id;
            let over = one.parts.is_empty();
            let open = self.open.entry(id).or_insert_with(|| Open {
                change: one.change,
                parts: Vec::new(),
                newest: BTreeMap::new(),
            });
            open.change = one.change;
            open.parts = one.parts;
            let of_it = evidence
                .0
                .range((id, 0, Role::Holder)..=(id, u16::MAX, Role::Grantor));
            for ((_, entry, role), newest) in of_it {
                open.newest.insert((*entry, *role), newest.clone());
            }
            self.look(at, id, renderer);
            if over {
                self.open.remove(&id);
                self.would_page.remove(&id);
                for told in &mut self.told {
                    told.muted.remove(&id);
                }
            }
        }
    }

    /// Lets time pass: ends mutes, and tells what has been over for long enough. Gives the mutes
    /// that have ended.
    pub fn pass(&mut self, at: Mono, renderer: &Renderer) -> Vec<String> {
        let ended = self.mutes.ended(at);
        if !ended.is_empty() {
            self.look_at_all(at, renderer);
        }
        self.calm(at, CALM_NS, renderer);
        ended
    }

    fn calm(&mut self, at: Mono, calm_ns: u64, renderer: &Renderer) {
        let world = World {
            renderer,
            mutes: &self.mutes,
            node: &self.node,
            metrics: &self.metrics,
        };
        for told in &mut self.told {
            told.calm(at, calm_ns, &world);
        }
    }

    /// Mutes an entry, whatever held before.
    pub fn mute(&mut self, lease: &str, until: Mono) {
        self.mutes.mute(lease, until);
    }

    /// Ends a mute; what stands fires now. Says whether there was one.
    pub fn unmute(&mut self, at: Mono, lease: &str, renderer: &Renderer) -> bool {
        let was = self.mutes.unmute(lease);
        if was {
            self.look_at_all(at, renderer);
        }
        was
    }

    /// The mutes in force.
    #[must_use]
    pub const fn mutes(&self) -> &Mutes {
        &self.mutes
    }

    fn look_at_all(&mut self, at: Mono, renderer: &Renderer) {
        let ids: Vec<IncidentId> = self.open.keys().copied().collect();
        for id in ids {
            self.look(at, id, renderer);
        }
    }

    fn look(&mut self, at: Mono, id: IncidentId, renderer: &Renderer) {
        let Some(open) = self.open.get(&id) else {
            return;
        };
        let world = World {
            renderer,
            mutes: &self.mutes,
            node: &self.node,
            metrics: &self.metrics,
        };
        let would = open
            .view(&Filter::default(), |entry| !world.is_muted(entry))
            .is_some_and(|view| view.stage >= WOULD_PAGE_ON);
        if !would {
            self.would_page.remove(&id);
        } else if self.would_page.insert(id, ()).is_none() && self.told.is_empty() {
            self.metrics.would_page().inc();
        }
        for told in &mut self.told {
            told.look(at, id, open, &world);
        }
    }

    /// Lets sinks take what waits, but not for longer than `limit`. What is over and was not told
    /// to be, is told.
    pub async fn finish(mut self, at: Mono, limit: Duration, renderer: &Renderer) {
        self.calm(at, 0, renderer);
        Finishing(self.told).finish(limit).await;
    }
}

/// Alerts that get no more messages.
#[must_use]
pub struct Finishing(Vec<Told>);

impl Finishing {
    /// Lets them take what waits, but not for longer than `limit`.
    pub async fn finish(self, limit: Duration) {
        let mut tasks = Vec::new();
        for told in self.0 {
            drop(told.queue);
            tasks.push((told.name, told.task));
        }
        let all = async {
            for (_, task) in &mut tasks {
                // A task that panicked has nothing left to tell.
                let _ended = task.await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            for (name, task) in tasks.iter().filter(|(_, task)| !task.is_finished()) {
                tracing::warn!("alert {name}: not done when the daemon stopped");
                // Drops the child, which kills it.
                task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests;
