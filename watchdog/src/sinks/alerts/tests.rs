//! What is told when, against a sink whose queue the test reads.

use super::*;
use crate::config::ExecHook;
use crate::sinks::incidents::Incidents;
use crate::sinks::samples::Sample;
use watchdog_model::leases::note::{Note, Outcome};
use watchdog_model::time::SECOND;

const AT_RISK: Outcome = Outcome::Stage(Stage::AtRisk);
const LAPSED: Outcome = Outcome::Stage(Stage::Lapsed);

struct Bench {
    incidents: Incidents,
    alerts: Alerts,
    renderer: Renderer,
    metrics: Arc<Metrics>,
    now: Mono,
}

impl Bench {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(&["zookeeper".to_owned()]).unwrap());
        Self {
            incidents: Incidents::default(),
            alerts: Alerts::start(&[], Mutes::default(), &metrics),
            renderer: Renderer::in_test(),
            metrics,
            now: Mono(0),
        }
    }

    fn told(on: Stage, filter: Filter, queue: usize) -> (Self, mpsc::Receiver<Queued>) {
        let mut bench = Self::new();
        let (sender, messages) = mpsc::channel(queue);
        bench.alerts.told.push(Told {
            alert: Alert {
                on,
                filter,
                to: AlertDestination::Exec(ExecHook {
                    argv: vec!["page.sh".to_owned()],
                    persistent: false,
                    timeout_ns: 1,
                }),
            },
            name: "page.sh".to_owned(),
            firing: BTreeMap::new(),
            muted: BTreeMap::new(),
            queue: sender,
            task: tokio::spawn(async {}),
            tally: bench.metrics.alert_tally(0, "exec"),
        });
        (bench, messages)
    }

    fn with_queue(on: Stage, queue: usize) -> (Self, mpsc::Receiver<Queued>) {
        Self::told(on, Filter::default(), queue)
    }

    fn batch(&mut self, samples: &[Sample]) {
        let mut evidence = Evidence::default();
        for sample in samples {
            let note = sample.note();
            let step = self.incidents.step(self.now, &note);
            if let (Some(id), Outcome::Stage(stage), Note::Transition(transition)) =
                (step.incident, sample.0.to, &note)
            {
                let line = Arc::from("{\"event\":\"transition\"}\n");
                evidence.take(id, stage, transition, line);
            }
        }
        let settled = self.incidents.settle();
        self.alerts
            .settled(self.now, settled, &evidence, &self.renderer);
    }

    fn pass(&mut self, seconds: u64) {
        self.now = Mono(self.now.0 + seconds * SECOND);
        self.alerts.pass(self.now, &self.renderer);
    }
}

/// State and number of leases of each message; "+" where the transition comes along.
fn said(messages: &mut mpsc::Receiver<Queued>) -> Vec<String> {
    let mut said = Vec::new();
    while let Ok((_, message)) = messages.try_recv() {
        let alert: serde_json::Value = serde_json::from_str(&message.line).unwrap();
        let object: serde_json::Value = serde_json::from_str(&message.object()).unwrap();
        let plus = match object["transition"]["event"].as_str() {
            Some("transition") => "+",
            _ => "",
        };
        assert_eq!(message.lines().lines().count(), 1 + plus.len());
        said.push(format!(
            "{} {}{plus}",
            alert["state"].as_str().unwrap(),
            alert["leases"]
        ));
    }
    said
}

fn renewed(handle: u64) -> Sample {
    Sample::late(handle).to(Outcome::Renewed)
}

#[tokio::test]
async fn an_incident_is_told_once_as_it_grows_and_when_it_is_over() {
    let (mut bench, mut messages) = Bench::with_queue(Stage::AtRisk, 8);
    bench.batch(&[Sample::late(1), Sample::late(2)]);
    assert_eq!(said(&mut messages), [""; 0]);
    bench.batch(&[Sample::late(1).to(AT_RISK), Sample::late(2).to(AT_RISK)]);
    assert_eq!(said(&mut messages), ["firing 2+"]);
    // One more is no news yet, a worse stage is.
    bench.batch(&[Sample::late(3)]);
    assert_eq!(said(&mut messages), [""; 0]);
    bench.batch(&[Sample::late(3).to(LAPSED)]);
    assert_eq!(said(&mut messages), ["grown 3+"]);
    bench.batch(&[4, 5, 6].map(Sample::late));
    assert_eq!(said(&mut messages), ["grown 6+"]);
    bench.pass(10);
    bench.batch(&[Sample::late(7)]);
    assert_eq!(said(&mut messages), ["grown 7+"]);
    // Those that are merely late keep the incident open, not the alert.
    bench.batch(&[1, 2, 3].map(renewed));
    bench.pass(2);
    assert_eq!(said(&mut messages), [""; 0]);
    bench.pass(1);
    assert_eq!(said(&mut messages), ["resolved 7"]);
    bench.batch(&[4, 5, 6, 7].map(renewed));
    bench.pass(60);
    assert_eq!(said(&mut messages), [""; 0]);
}

#[tokio::test]
async fn a_lease_that_flaps_pages_once() {
    let (mut bench, mut messages) = Bench::with_queue(Stage::AtRisk, 8);
    let stopped = || {
        Sample::late(1)
            .cause(Cause::ProcessStopped)
            .pid(7)
            .to(AT_RISK)
    };
    for _ in 0..5 {
        bench.batch(&[stopped()]);
        bench.batch(&[renewed(1)]);
        bench.pass(2);
    }
    bench.pass(2);
    assert_eq!(said(&mut messages), ["firing 1+", "resolved 1"]);
    // Later it is another one.
    bench.batch(&[stopped()]);
    assert_eq!(said(&mut messages), ["firing 1+"]);
}

#[tokio::test]
async fn a_cause_that_becomes_known_is_told() {
    let (mut bench, mut messages) = Bench::with_queue(Stage::AtRisk, 8);
    bench.batch(&[Sample::late(1).pid(7).to(AT_RISK)]);
    bench.batch(&[Sample::late(1).pid(7).to(AT_RISK).cause(Cause::DiskStall)]);
    bench.batch(&[Sample::late(1).pid(7).to(AT_RISK).cause(Cause::DiskStall)]);
    assert_eq!(said(&mut messages), ["firing 1+", "grown 1+"]);
}

#[tokio::test]
async fn an_alert_sees_only_what_its_filter_takes() {
    let filter = Filter {
        role: Some(Role::Grantor),
        entries: Vec::new(),
        causes: vec![Cause::ProcessStopped],
    };
    let (mut bench, mut messages) = Bench::told(Stage::AtRisk, filter, 8);
    let stopped = |handle| Sample::late(handle).cause(Cause::ProcessStopped).pid(7);
    bench.batch(&[stopped(1).to(LAPSED), stopped(2).grantor()]);
    assert_eq!(said(&mut messages), [""; 0]);
    bench.batch(&[stopped(2).grantor().to(AT_RISK)]);
    let (_, message) = messages.try_recv().unwrap();
    assert_eq!((message.about.leases, message.about.stage), (1, "at_risk"));
    assert_eq!(message.about.labels.role, "grantor");
    bench.batch(&[Sample::late(3)
        .grantor()
        .cause(Cause::ThreadBusy)
        .to(LAPSED)]);
    assert_eq!(said(&mut messages), [""; 0]);
}

#[tokio::test]
async fn what_is_muted_fires_when_the_mute_ends_and_not_before() {
    let (mut bench, mut messages) = Bench::with_queue(Stage::AtRisk, 8);
    bench.alerts.mute("zookeeper", Mono(100 * SECOND));
    bench.batch(&[Sample::late(1).to(AT_RISK)]);
    bench.batch(&[Sample::late(1).to(LAPSED)]);
    bench.pass(99);
    assert_eq!(said(&mut messages), [""; 0]);
    assert_eq!(bench.metrics.alert_muted("zookeeper").get(), 1);
    bench.pass(1);
    assert_eq!(said(&mut messages), ["firing 1+"]);
    // What fires is told to its end.
    bench.alerts.mute("zookeeper", Mono(1000 * SECOND));
    bench.batch(&[renewed(1)]);
    bench.pass(3);
    assert_eq!(said(&mut messages), ["resolved 1"]);
    // Trouble that begins and ends in a mute is never told.
    bench.batch(&[Sample::late(1).to(AT_RISK)]);
    bench.batch(&[renewed(1)]);
    assert!(bench.alerts.unmute(bench.now, "zookeeper", &bench.renderer));
    bench.pass(3);
    assert_eq!(said(&mut messages), [""; 0]);
}

#[tokio::test]
async fn what_would_have_paged_is_counted_only_where_nobody_is_told() {
    let mut alone = Bench::new();
    let mut muted = Bench::new();
    muted.alerts.mute("zookeeper", Mono(u64::MAX));
    let (mut told, _messages) = Bench::with_queue(Stage::Lapsed, 8);
    for bench in [&mut alone, &mut told, &mut muted] {
        bench.batch(&[Sample::late(1)]);
        bench.batch(&[Sample::late(1).to(AT_RISK)]);
        bench.batch(&[Sample::late(1).to(Outcome::Stage(Stage::Jeopardy))]);
        bench.batch(&[renewed(1)]);
    }
    assert_eq!(alone.metrics.would_page().get(), 1);
    assert_eq!(told.metrics.would_page().get(), 0);
    assert_eq!(muted.metrics.would_page().get(), 0);
}

#[tokio::test]
async fn a_full_queue_is_counted_and_tried_again() {
    let (mut bench, mut messages) = Bench::with_queue(Stage::Late, 1);
    bench.batch(&[Sample::late(1).pid(1)]);
    bench.batch(&[Sample::late(2).pid(2)]);
    assert_eq!(bench.metrics.lost(crate::outbox::Lost::Alert).get(), 1);
    assert_eq!(said(&mut messages), ["firing 1+"]);
    bench.batch(&[Sample::late(2).pid(2).to(AT_RISK)]);
    assert_eq!(said(&mut messages), ["firing 1+"]);
    // The end of an alert is not lost either.
    bench.batch(&[renewed(1), renewed(2)]);
    bench.pass(3);
    assert_eq!(said(&mut messages), ["resolved 1"]);
    bench.pass(1);
    assert_eq!(said(&mut messages), ["resolved 1"]);
}

#[tokio::test]
async fn a_reload_keeps_what_stays_and_tells_the_new_what_stands() {
    let (mut bench, mut messages) = Bench::with_queue(Stage::AtRisk, 8);
    let stays = bench.alerts.told[0].alert.clone();
    bench.alerts.told[0].name = called(0, &stays.to);
    bench.batch(&[Sample::late(1).to(AT_RISK)]);
    let earlier = bench
        .alerts
        .exchange(bench.now, std::slice::from_ref(&stays), &bench.renderer);
    assert_eq!(earlier.0.len(), 0);
    assert_eq!(said(&mut messages), ["firing 1+"]);
    let other = Alert {
        on: Stage::Late,
        ..stays
    };
    let earlier = bench.alerts.exchange(bench.now, &[other], &bench.renderer);
    assert_eq!(earlier.0.len(), 1);
    assert_eq!(bench.alerts.told[0].firing.len(), 1);
}

#[tokio::test]
async fn labels_are_bounded_and_name_the_grantor() {
    let (mut bench, mut messages) = Bench::with_queue(Stage::AtRisk, 8);
    bench.batch(&[Sample::late(1)
        .pid(4711)
        .cause(Cause::PeerSilent)
        .peer("10.0.0.3:2181")
        .to(AT_RISK)]);
    bench.batch(&[Sample::late(2)
        .grantor()
        .pid(4712)
        .cause(Cause::ProcessStopped)
        .local("10.0.0.3:2181")
        .peer("10.0.0.9:40222")
        .to(AT_RISK)]);
    let labels: Vec<Labels> = std::iter::from_fn(|| messages.try_recv().ok())
        .map(|(_, message)| message.about.labels.clone())
        .collect();
    assert_eq!(labels[0].grantor.as_deref(), Some("10.0.0.3"));
    assert_eq!(labels[0].thing, "peer 10.0.0.3");
    assert_eq!(labels[1].grantor.as_deref(), Some("10.0.0.3"));
    assert_eq!(labels[1].thing, "process meta");
}
