//! Alerts: which incidents are told to whom.
//!
//! In: incidents as they stand after each batch of notes. Out: messages to hooks (`hooks.rs`),
//! one when an incident reaches the stage of an alert and one when it has left it. Never: a wait;
//! each alert has a queue and a task of its own.
//!
//! A message is an `alert` line, followed, where it fires, by the `transition` line of the lease
//! that made it fire, with the evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc;
use watchdog_model::leases::note::Stage;
use watchdog_model::time::Mono;

use super::events::Renderer;
use super::hooks::{self, Hook};
use super::incidents::{IncidentId, Settled};
use crate::config::Alert;

/// The stage from which a human would want to be woken.
const WOULD_PAGE_ON: Stage = Stage::AtRisk;

/// Messages that may wait for one hook. They are per incident, so this many are a bad day.
const QUEUE: usize = 256;

/// The evidence of a batch: the worst transition of each incident, as its line.
pub type Evidence = BTreeMap<IncidentId, (Stage, Arc<str>)>;

/// A line in the air between two stages.
struct Line {
    on: Stage,
    firing: BTreeSet<IncidentId>,
}

impl Line {
    const fn new(on: Stage) -> Self {
        Self {
            on,
            firing: BTreeSet::new(),
        }
    }

    /// Whether an incident has crossed it: upwards `Some(true)`, downwards `Some(false)`.
    fn crossed(&self, id: IncidentId, stage_now: Option<Stage>) -> Option<bool> {
        let reached = stage_now.is_some_and(|stage| stage >= self.on);
        (reached != self.firing.contains(&id)).then_some(reached)
    }

    fn set(&mut self, id: IncidentId, firing: bool) {
        if firing {
            self.firing.insert(id);
        } else {
            self.firing.remove(&id);
        }
    }
}

struct Told {
    line: Line,
    name: String,
    queue: mpsc::Sender<Arc<str>>,
    task: tokio::task::JoinHandle<()>,
}

/// Everyone who is told.
pub struct Alerts {
    told: Vec<Told>,
    would_page: Line,
    would_page_total: IntCounter,
    lost: IntCounter,
}

impl Alerts {
    /// Starts the hooks' tasks, and the hooks that are kept. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(alerts: &[Alert], would_page_total: IntCounter, lost: IntCounter) -> Self {
        let told = alerts
            .iter()
            .map(|alert| {
                let (queue, messages) = mpsc::channel(QUEUE);
                let hook = Hook::new(&alert.hook, lost.clone());
                Told {
                    line: Line::new(alert.on),
                    name: hook.name().to_owned(),
                    queue,
                    task: tokio::spawn(hooks::run(hook, messages)),
                }
            })
            .collect();
        Self {
            told,
            would_page: Line::new(WOULD_PAGE_ON),
            would_page_total,
            lost,
        }
    }

    /// Tells whom it concerns how incidents stand after a batch of notes.
    pub fn settled(
        &mut self,
        at: Mono,
        settled: &[Settled],
        evidence: &Evidence,
        renderer: &Renderer,
    ) {
        for one in settled {
            let id = one.change.id;
            if let Some(firing) = self.would_page.crossed(id, one.stage_now) {
                self.would_page.set(id, firing);
                if firing && self.told.is_empty() {
                    self.would_page_total.inc();
                }
            }
            for told in &mut self.told {
                let Some(firing) = told.line.crossed(id, one.stage_now) else {
                    continue;
                };
                let mut message = renderer.alert(at, &one.change, told.line.on, firing);
                if firing && let Some((_, line)) = evidence.get(&id) {
                    message.push_str(line);
                }
                match told.queue.try_send(Arc::from(message)) {
                    Ok(()) => told.line.set(id, firing),
                    Err(_) => {
                        self.lost.inc();
                        tracing::error!(
                            "alert {}: {QUEUE} alerts wait for it already; incident {} is not \
                             told",
                            told.name,
                            id.0
                        );
                        // A firing alert is tried again with the incident's next change; one
                        // that is over is over.
                        if !firing {
                            told.line.set(id, false);
                        }
                    }
                }
            }
        }
    }

    /// Lets hooks take what waits, but not for longer than `limit`.
    pub async fn finish(self, limit: Duration) {
        let mut tasks = Vec::new();
        for told in self.told {
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
mod tests {
    use super::*;
    use crate::sinks::incidents::Incidents;
    use crate::sinks::samples::Sample;
    use watchdog_model::leases::note::Outcome;

    fn counter() -> IntCounter {
        IntCounter::new("a", "a").unwrap()
    }

    struct Bench {
        incidents: Incidents,
        alerts: Alerts,
        renderer: Renderer,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                incidents: Incidents::default(),
                alerts: Alerts::start(&[], counter(), counter()),
                renderer: Renderer::in_test(),
            }
        }

        fn with_queue(on: Stage, queue: usize) -> (Self, mpsc::Receiver<Arc<str>>) {
            let mut bench = Self::new();
            let (sender, messages) = mpsc::channel(queue);
            bench.alerts.told.push(Told {
                line: Line::new(on),
                name: "page.sh".to_owned(),
                queue: sender,
                task: tokio::spawn(async {}),
            });
            (bench, messages)
        }

        fn batch(&mut self, samples: &[Sample]) {
            let mut evidence = Evidence::new();
            for sample in samples {
                let step = self.incidents.step(Mono(0), &sample.note());
                if let (Some(id), Outcome::Stage(stage)) = (step.incident, sample.0.to) {
                    evidence.insert(id, (stage, Arc::from("evidence\n")));
                }
            }
            let settled = self.incidents.settle();
            self.alerts
                .settled(Mono(0), &settled, &evidence, &self.renderer);
        }
    }

    const AT_RISK: Outcome = Outcome::Stage(Stage::AtRisk);

    fn kinds(messages: &mut mpsc::Receiver<Arc<str>>) -> Vec<String> {
        let mut kinds = Vec::new();
        while let Ok(message) = messages.try_recv() {
            let state = message.split_once("\"state\":\"").unwrap().1;
            let state = state.split_once('"').unwrap().0;
            let evidence = if message.ends_with("}\nevidence\n") {
                "+"
            } else {
                ""
            };
            kinds.push(format!("{state}{evidence}"));
        }
        kinds
    }

    #[tokio::test]
    async fn an_incident_is_told_once_and_once_more_when_it_is_over() {
        let (mut bench, mut messages) = Bench::with_queue(Stage::AtRisk, 8);
        bench.batch(&[Sample::late(1), Sample::late(2)]);
        assert_eq!(kinds(&mut messages), [""; 0]);
        bench.batch(&[Sample::late(1).to(AT_RISK), Sample::late(2).to(AT_RISK)]);
        bench.batch(&[Sample::late(3).to(Outcome::Stage(Stage::Lapsed))]);
        assert_eq!(kinds(&mut messages), ["firing+"]);
        // One that is merely late keeps the incident open, not the alert.
        bench.batch(&[Sample::late(4)]);
        bench.batch(&[1, 2, 3].map(|handle| Sample::late(handle).to(Outcome::Renewed)));
        assert_eq!(kinds(&mut messages), ["resolved"]);
        bench.batch(&[Sample::late(4).to(Outcome::Renewed)]);
        assert_eq!(kinds(&mut messages), [""; 0]);
    }

    #[tokio::test]
    async fn what_would_have_paged_is_counted_only_where_nobody_is_told() {
        let mut alone = Bench::new();
        let (mut told, _messages) = Bench::with_queue(Stage::Lapsed, 8);
        for bench in [&mut alone, &mut told] {
            bench.batch(&[Sample::late(1)]);
            bench.batch(&[Sample::late(1).to(AT_RISK)]);
            bench.batch(&[Sample::late(1).to(Outcome::Stage(Stage::Jeopardy))]);
            bench.batch(&[Sample::late(1).to(Outcome::Renewed)]);
        }
        assert_eq!(alone.alerts.would_page_total.get(), 1);
        assert_eq!(told.alerts.would_page_total.get(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_is_counted_and_tried_again() {
        let (mut bench, mut messages) = Bench::with_queue(Stage::Late, 1);
        bench.batch(&[Sample::late(1).pid(1)]);
        bench.batch(&[Sample::late(2).pid(2)]);
        assert_eq!(bench.alerts.lost.get(), 1);
        assert_eq!(kinds(&mut messages), ["firing+"]);
        bench.batch(&[Sample::late(2).pid(2).to(AT_RISK)]);
        assert_eq!(kinds(&mut messages), ["firing+"]);
    }
}
