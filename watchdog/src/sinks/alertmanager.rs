//! Prometheus' Alertmanager, told as Prometheus itself tells it.
//!
//! In: messages of one alert. Out: POSTs to `/api/v2/alerts`: what fires, at once and then again
//! and again (Alertmanager forgets what is not sent again), and what is over, for a while. Never:
//! a queue that grows while Alertmanager is away: what is to be told is a state, one alert per set
//! of labels, and only the newest counts.
//!
//! Alertmanager knows alerts by their labels alone. So these are few and bounded, incidents with
//! the same labels are one alert (their leases are added up), and a cause that becomes known ends
//! one alert and begins another.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use watchdog_model::leases::note::Stage;
use watchdog_model::time::Mono;

use super::alerts::message::{About, Labels, Message, State};
use super::events::wall_clock;
use super::post::{Post, Refusal, pauses};
use super::tally::Tally;
use super::webhook::Queued;
use crate::config::Alertmanager;
use crate::tick::clock;

/// An alert that was not sent again for this many times is over; Prometheus' own factor.
const ENDS_AFTER_RESENDS: u32 = 4;

/// What is over is sent again for this long, in case Alertmanager was started anew; Prometheus'
/// own figure.
const RESOLVED_FOR: Duration = Duration::from_secs(15 * 60);

/// Alerts at once; what comes on top goes into one that is called [`MORE`].
const MAX_ALERTS: usize = 64;
const MORE: &str = "more";

/// Annotations are read on phones, and Alertmanager's own limits are near 64 KiB.
const MAX_TEXT: usize = 1024;

/// One of Alertmanager's alerts.
struct Alert {
    /// By incident, how it stands. Empty: it is over.
    incidents: BTreeMap<u64, About>,
    since: SystemTime,
    /// When it was over, and how it stood at last.
    over: Option<(SystemTime, Mono, About)>,
    /// Whether Alertmanager may know of it.
    told: bool,
}

#[derive(Serialize)]
struct Posted {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
}

/// What an Alertmanager is to know.
struct Book {
    config: Alertmanager,
    node: String,
    alerts: BTreeMap<Labels, Alert>,
    /// Which alert an incident is in now.
    of: BTreeMap<u64, Labels>,
    /// Messages taken in since Alertmanager last took everything.
    waiting: u64,
}

impl Book {
    fn new(config: &Alertmanager, node: &str) -> Self {
        Self {
            config: config.clone(),
            node: node.to_owned(),
            alerts: BTreeMap::new(),
            of: BTreeMap::new(),
            waiting: 0,
        }
    }

    fn take(&mut self, now: Mono, message: &Message) {
        self.waiting += 1;
        let about = &message.about;
        let at = about.until.unwrap_or_else(|| wall_clock(now));
        if message.state == State::Resolved {
            self.leave(about.incident, now, at, about);
            return;
        }
        let mut labels = about.labels.clone();
        if self.alerts.len() >= MAX_ALERTS && !self.alerts.contains_key(&labels) {
            MORE.clone_into(&mut labels.thing);
            labels.grantor = None;
        }
        if self
            .of
            .get(&about.incident)
            .is_some_and(|was| *was != labels)
        {
            self.leave(about.incident, now, at, about);
        }
        self.of.insert(about.incident, labels.clone());
        let alert = self.alerts.entry(labels).or_insert_with(|| Alert {
            incidents: BTreeMap::new(),
            since: about.since,
            over: None,
            told: false,
        });
        if alert.over.take().is_some() {
            // The same again is another firing of it.
            alert.since = about.since;
        }
        alert.incidents.insert(about.incident, about.clone());
    }

    fn leave(&mut self, incident: u64, now: Mono, at: SystemTime, about: &About) {
        let Some(labels) = self.of.remove(&incident) else {
            return;
        };
        let Some(alert) = self.alerts.get_mut(&labels) else {
            return;
        };
        alert.incidents.remove(&incident);
        if alert.incidents.is_empty() {
            if alert.told {
                alert.over = Some((at, now, about.clone()));
            } else {
                // Alertmanager never heard of it, and what is over would tell nobody anything.
                self.alerts.remove(&labels);
            }
        }
    }

    /// Forgets what has been over for long enough.
    fn forget(&mut self, now: Mono) {
        let long = u64::try_from(RESOLVED_FOR.as_nanos()).unwrap_or(u64::MAX);
        self.alerts.retain(|_, alert| {
            alert
                .over
                .as_ref()
                .is_none_or(|(_, over, _)| now.since(*over) < long)
        });
    }

    /// Everything, as it is to be sent now.
    fn body(&self, now: SystemTime) -> Bytes {
        let ends = now + Duration::from_nanos(self.config.resend_ns) * ENDS_AFTER_RESENDS;
        let all: Vec<Posted> = self
            .alerts
            .iter()
            .filter_map(|(labels, alert)| self.posted(labels, alert, ends))
            .collect();
        // Text under keys that are text: nothing JSON could refuse.
        Bytes::from(serde_json::to_vec(&all).unwrap_or_default())
    }

    fn posted(&self, labels: &Labels, alert: &Alert, ends: SystemTime) -> Option<Posted> {
        let worst = match &alert.over {
            Some((_, _, about)) => about,
            None => alert
                .incidents
                .values()
                .max_by_key(|about| (about.stage_rank(), about.leases))?,
        };
        let leases = match &alert.over {
            Some((_, _, about)) => about.leases,
            None => alert.incidents.values().map(|about| about.leases).sum(),
        };
        let time = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        Some(Posted {
            labels: self.labels(labels, worst),
            annotations: self.annotations(worst, leases),
            starts_at: time(alert.since),
            ends_at: time(alert.over.as_ref().map_or(ends, |(at, ..)| *at)),
        })
    }

    fn labels(&self, labels: &Labels, about: &About) -> BTreeMap<String, String> {
        let name = match about.on {
            _ if about.test => "LeaseWatchdogTest",
            Stage::Lapsed => "LeaseLapsed",
            Stage::Jeopardy => "LeaseInJeopardy",
            Stage::AtRisk => "LeaseAtRisk",
            Stage::Late | Stage::Healthy => "LeaseLate",
        };
        let severity = match about.on {
            _ if about.test => "none",
            Stage::Late | Stage::Healthy => "warning",
            _ => "critical",
        };
        let mut all: BTreeMap<String, String> = [
            ("node", self.node.as_str()),
            ("severity", severity),
            ("alertname", name),
            ("lease", labels.lease.as_str()),
            ("role", labels.role),
            ("cause", labels.cause),
            ("thing", labels.thing.as_str()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        if let Some(grantor) = &labels.grantor {
            all.insert("grantor".to_owned(), grantor.clone());
        }
        all.extend(self.config.labels.iter().cloned());
        all
    }

    fn annotations(&self, about: &About, leases: usize) -> BTreeMap<&'static str, String> {
        let runbook = self.config.runbook.replace("{cause}", about.labels.cause);
        [
            ("summary", about.summary.clone()),
            ("evidence", about.evidence.clone()),
            ("remaining", about.remaining.clone()),
            ("stage", about.stage.to_owned()),
            ("leases", leases.to_string()),
            ("worst", about.worst.clone()),
            ("incident", about.incident.to_string()),
            ("runbook", runbook),
        ]
        .into_iter()
        .map(|(name, mut text)| {
            let end = (0..=MAX_TEXT.min(text.len()))
                .rev()
                .find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            (name, text)
        })
        .collect()
    }
}

impl About {
    fn stage_rank(&self) -> u8 {
        match self.stage {
            "lapsed" => 4,
            "jeopardy" => 3,
            "at_risk" => 2,
            "late" => 1,
            _ => 0,
        }
    }
}

/// An Alertmanager to tell.
pub struct Sink {
    name: String,
    post: Post,
    book: Book,
    tally: Tally,
    troubled: bool,
}

impl Sink {
    /// An Alertmanager as configured; alerts carry the label `node`. Must be called inside a tokio
    /// runtime.
    #[must_use]
    pub fn new(config: &Alertmanager, name: String, node: &str, tally: Tally) -> Self {
        Self {
            name,
            post: post(config),
            book: Book::new(config, node),
            tally,
            troubled: false,
        }
    }

    /// Sends everything. Says whether it was taken, or refused for good.
    async fn send(&mut self) -> bool {
        let now = clock();
        self.book.forget(now);
        if self.book.alerts.is_empty() {
            self.book.waiting = 0;
            return true;
        }
        let body = self.book.body(wall_clock(now));
        // Even a try that fails may have been heard.
        for alert in self.book.alerts.values_mut() {
            alert.told = true;
        }
        let Err(Refusal { what, again }) = self.post.post(body).await else {
            self.tally
                .sent
                .inc_by(std::mem::take(&mut self.book.waiting));
            if std::mem::take(&mut self.troubled) {
                tracing::warn!("alert {}: takes alerts again", self.name);
            }
            return true;
        };
        if !again {
            for _ in 0..std::mem::take(&mut self.book.waiting) {
                self.tally.lose();
            }
            tracing::error!("alert {}: {what}; alerts were not told", self.name);
            return true;
        }
        self.tally.retries.inc();
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!(
                "alert {}: {what}; tried again, nothing is forgotten meanwhile",
                self.name
            );
        }
        false
    }
}

/// Tells an Alertmanager until there are no more messages to come.
pub async fn run(mut sink: Sink, mut messages: mpsc::Receiver<Queued>) {
    let resend = Duration::from_nanos(sink.book.config.resend_ns);
    let mut backoff = pauses();
    let mut next = tokio::time::Instant::now() + resend;
    let mut batch = Vec::new();
    loop {
        let due = tokio::time::sleep_until(next);
        tokio::select! {
            count = messages.recv_many(&mut batch, 64) => {
                if count == 0 {
                    // What waits for another try gets it now.
                    if sink.book.waiting > 0 && !sink.send().await {
                        for _ in 0..sink.book.waiting {
                            sink.tally.lose();
                        }
                    }
                    return;
                }
                for (_, message) in batch.drain(..) {
                    sink.book.take(clock(), &message);
                }
                if sink.troubled {
                    // The next try takes it along.
                    continue;
                }
            }
            () = due => {}
        }
        next = tokio::time::Instant::now()
            + if sink.send().await {
                backoff = pauses();
                resend
            } else {
                backoff.next().unwrap_or(resend)
            };
    }
}

fn post(config: &Alertmanager) -> Post {
    Post::new(
        config.url.join("/api/v2/alerts"),
        config.headers.clone(),
        config.timeout_ns,
    )
}

/// Tells an Alertmanager once, for a test; gives what came back.
///
/// # Errors
/// What went wrong.
pub async fn once(config: &Alertmanager, node: &str, message: &Message) -> Result<String, String> {
    let post = post(config);
    post.known_soon().await;
    let mut book = Book::new(config, node);
    let now = clock();
    book.take(now, message);
    match post.post(book.body(wall_clock(now))).await {
        Ok(status) => Ok(format!("answered {status}")),
        Err(refusal) => Err(refusal.what),
    }
}

#[cfg(test)]
mod tests;
