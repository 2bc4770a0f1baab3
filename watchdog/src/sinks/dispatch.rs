//! From messages to sinks: each message is counted, grouped, turned into a line once, and handed
//! to whom it concerns.
//!
//! In: batches of the tick's messages. Out: lines to the stream, counts, alerts. Never: a wait;
//! whatever takes the lines has a queue of its own and drops what does not fit.

use std::sync::Arc;
use std::time::Duration;

use watchdog_model::leases::note::{Note, Outcome};
use watchdog_model::time::Mono;

use super::alerts::{Alerts, Evidence, Finishing};
use super::api::ledger::Ledger;
use super::events::{Renderer, Started};
use super::incidents::{Incidents, State};
use super::metrics::Metrics;
use super::mutes::Mutes;
use super::stream::Stream;
use crate::config::{Alert, Config};
use crate::limits::Exceeded;
use crate::outbox::{Lost, Message, Stamped};

/// All sinks that are fed by messages.
pub struct Dispatch {
    renderer: Renderer,
    incidents: Incidents,
    metrics: Arc<Metrics>,
    stream: Option<Stream>,
    alerts: Alerts,
    ledger: Ledger,
}

impl Dispatch {
    /// Feeds these sinks.
    #[must_use]
    pub fn new(
        renderer: Renderer,
        metrics: Arc<Metrics>,
        stream: Option<Stream>,
        alerts: Alerts,
        ledger: Ledger,
    ) -> Self {
        ledger.set_entries(renderer.entries());
        Self {
            renderer,
            incidents: Incidents::default(),
            metrics,
            stream,
            alerts,
            ledger,
        }
    }

    /// Says that the daemon watches.
    pub fn started(&self, at: Mono, started: &Started) {
        self.metrics.started(started);
        self.emit(at, &Arc::from(self.renderer.started(at, started)));
    }

    /// Says that the daemon leaves for its own cost.
    pub fn limit_exceeded(&self, at: Mono, exceeded: &Exceeded) {
        self.emit(at, &Arc::from(self.renderer.limit_exceeded(at, exceeded)));
    }

    /// Takes a batch of messages, in order.
    pub fn batch(&mut self, messages: &[Stamped]) {
        let Some(last) = messages.last() else { return };
        let mut evidence = Evidence::default();
        for Stamped { at, message } in messages {
            match message {
                Message::Note(note) => self.note(*at, note, &mut evidence),
                Message::Stalled { from, to } => {
                    self.emit(*at, &Arc::from(self.renderer.stalled(*at, *from, *to)));
                }
                Message::LongPoll { entry } => tracing::warn!(
                    "leases[{entry}]: replies come after more than a third of the timeout, time after \
                     time: a long poll; write \"renews_from: reply\""
                ),
                Message::Dropped { what, count, since } => {
                    self.metrics.lost(*what).inc_by(*count);
                    let line = self.renderer.dropped(*at, *what, *count, *since);
                    self.emit(*at, &Arc::from(line));
                }
            }
        }
        let settled = self.incidents.settle();
        for one in &settled {
            let closed = one.say == Some(State::Closed);
            self.ledger.incident(last.at, &one.change, closed);
            if let Some(state) = one.say {
                let line = self.renderer.incident(last.at, &one.change, state);
                self.emit(last.at, &Arc::from(line));
            }
        }
        self.alerts
            .settled(last.at, settled, &evidence, &self.renderer);
    }

    fn note(&mut self, at: Mono, note: &Note, evidence: &mut Evidence) {
        self.metrics.count(note, self.renderer.entries());
        let step = self.incidents.step(at, note);
        if let Some(opened) = &step.opened {
            self.ledger.incident(at, opened, false);
            let line = self.renderer.incident(at, opened, State::Opened);
            self.emit(at, &Arc::from(line));
        }
        let line: Arc<str> =
            Arc::from(
                self.renderer
                    .note_among(at, note, step.incident, step.leases),
            );
        self.ledger.note(at, note, &line, step.incident);
        self.emit(at, &line);
        if let (Note::Transition(transition), Some(id)) = (note, step.incident)
            && let Outcome::Stage(stage) = transition.to
        {
            evidence.take(id, stage, transition, line);
        }
    }

    fn emit(&self, at: Mono, line: &Arc<str>) {
        self.ledger.event(at, line);
        let Some(stream) = &self.stream else { return };
        if let Some((count, since)) = stream.take_lost() {
            let told = self.renderer.dropped(at, Lost::EventLine, count, since);
            stream.push(at, Arc::from(told));
        }
        stream.push(at, Arc::clone(line));
    }

    /// Takes another configuration on.
    pub fn reconfigure(&mut self, config: &Config) {
        self.renderer.set_entries(config.entry_names());
        self.ledger.set_entries(self.renderer.entries());
    }

    /// Opens the event file anew.
    pub fn reopen(&self) {
        if let Some(stream) = &self.stream {
            stream.reopen();
        }
    }

    /// Tells by other alerts from now on. Returns the earlier ones, to be finished.
    pub fn exchange_alerts(&mut self, at: Mono, alerts: &[Alert]) -> Finishing {
        self.alerts.exchange(at, alerts, &self.renderer)
    }

    /// Lets time pass, about once a second.
    pub fn pass(&mut self, at: Mono) {
        for lease in self.alerts.pass(at, &self.renderer) {
            self.metrics.set_muted(&lease, false);
            let line = self.renderer.mute(at, &lease, "ended", None);
            self.emit(at, &Arc::from(line));
        }
    }

    /// Mutes an entry until then.
    pub fn mute(&mut self, at: Mono, lease: &str, until: Mono) {
        self.alerts.mute(lease, until);
        self.metrics.set_muted(lease, true);
        let line = self.renderer.mute(at, lease, "muted", Some(until));
        self.emit(at, &Arc::from(line));
    }

    /// Ends a mute. Says whether there was one.
    pub fn unmute(&mut self, at: Mono, lease: &str) -> bool {
        let was = self.alerts.unmute(at, lease, &self.renderer);
        if was {
            self.metrics.set_muted(lease, false);
            let line = self.renderer.mute(at, lease, "unmuted", None);
            self.emit(at, &Arc::from(line));
        }
        was
    }

    /// The mutes in force.
    #[must_use]
    pub const fn mutes(&self) -> &Mutes {
        self.alerts.mutes()
    }

    /// Ends all sinks, each in at most `limit`.
    pub async fn finish(self, at: Mono, limit: Duration) {
        let stream = async {
            if let Some(stream) = self.stream {
                stream.finish(limit).await;
            }
        };
        tokio::join!(stream, self.alerts.finish(at, limit, &self.renderer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::samples::Sample;
    use crate::sinks::stream::Destination;
    use watchdog_model::leases::note::Stage;

    #[tokio::test]
    async fn a_batch_becomes_lines_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let destination = Destination::File(path.clone());
        let metrics = Arc::new(Metrics::new(&["zookeeper".to_owned()]).unwrap());
        let lost = metrics.lost(Lost::EventLine);
        let stream = Stream::start(destination.open().unwrap(), destination, lost).unwrap();
        let alerts = Alerts::start(&[], Mutes::default(), &metrics);
        let mut dispatch = Dispatch::new(
            Renderer::in_test(),
            Arc::clone(&metrics),
            Some(stream),
            alerts,
            Ledger::default(),
        );
        let at = Mono(1_000);
        dispatch.started(at, &Started::default());
        let stamped = |message| Stamped { at, message };
        let note = |sample: Sample| stamped(Message::Note(sample.note()));
        dispatch.batch(&[
            note(Sample::late(1)),
            note(Sample::late(2).to(Outcome::Stage(Stage::AtRisk))),
            stamped(Message::Dropped {
                what: Lost::Note,
                count: 3,
                since: at,
            }),
        ]);
        dispatch.batch(&[
            note(Sample::late(1).to(Outcome::Renewed)),
            note(Sample::late(2).to(Outcome::Renewed)),
            stamped(Message::Stalled { from: at, to: at }),
        ]);
        dispatch.finish(at, Duration::from_secs(10)).await;
        let text = std::fs::read_to_string(path).unwrap();
        let told: Vec<String> = text
            .lines()
            .map(|line| {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                ["event", "state", "to", "incident"]
                    .iter()
                    .filter_map(|key| object[key].as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            told,
            [
                "started",
                "incident opened 1",
                "transition late 1",
                "transition at_risk 1",
                "dropped",
                "incident grown 1",
                "transition renewed 1",
                "transition renewed 1",
                "stalled",
                "incident closed 1",
            ]
        );
        assert_eq!(metrics.lost(Lost::Note).get(), 3);
        assert_eq!(metrics.would_page().get(), 1);
    }
}
