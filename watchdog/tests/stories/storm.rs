//! Story of a storm: fifty nodes' daemons tell one Alertmanager at once that a grantor is silent,
//! and the grantor's own daemon tells why. One page comes.
//!
//! The daemons are fifty of their sinks with what their ticks would say; Alertmanager is real, with
//! the configuration that is shipped.

use crate::harness::clock;
use crate::harness::receiver::{Alertmanager, GROUP_WAIT, Receiver};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use watchdog::config::{Alert, AlertDestination, Alertmanager as Config, Filter, Url};
use watchdog::sinks::alerts::{Alerts, Evidence};
use watchdog::sinks::events::Renderer;
use watchdog::sinks::incidents::Incidents;
use watchdog::sinks::metrics::Metrics;
use watchdog::sinks::mutes::Mutes;
use watchdog::tick::clock as now;
use watchdog_model::causes::{Cause, Verdict};
use watchdog_model::leases::note::{
    Condition, LeaseHandle, LeaseId, Note, Outcome, Stage, Subject, Transition,
};
use watchdog_model::leases::observation::{Endpoints, Owner, Role, TimeoutSource};
use watchdog_model::time::secs;

const HOLDERS: u64 = 50;
const SOON: Duration = Duration::from_secs(30);

/// The sinks of one node's daemon.
struct Node {
    alerts: Alerts,
    incidents: Incidents,
    renderer: Renderer,
}

impl Node {
    fn new(name: &str, url: &str) -> Self {
        let alert = Alert {
            on: Stage::AtRisk,
            filter: Filter::default(),
            to: AlertDestination::Alertmanager(Config {
                url: Url::parse(url).expect("a URL"),
                headers: Vec::new(),
                timeout_ns: secs(10),
                resend_ns: secs(2),
                labels: vec![("node".to_owned(), name.to_owned())],
                runbook: "docs/runbook.md#{cause}".to_owned(),
            }),
        };
        let entries = vec!["zookeeper".to_owned()];
        let metrics = Arc::new(Metrics::new(&entries).expect("metrics"));
        Self {
            alerts: Alerts::start(&[alert], Mutes::default(), &metrics),
            incidents: Incidents::default(),
            renderer: Renderer::new(entries),
        }
    }

    fn says(&mut self, transition: Transition) {
        let at = now();
        let step = self.incidents.step(at, &Note::Transition(transition));
        let mut evidence = Evidence::default();
        if let (Some(id), Outcome::Stage(stage)) = (step.incident, transition.to) {
            evidence.take(id, stage, &transition, Arc::from("{}\n"));
        }
        let settled = self.incidents.settle();
        self.alerts.settled(at, settled, &evidence, &self.renderer);
    }
}

fn transition(role: Role, cause: Cause, local: &str, peer: &str, to: Outcome) -> Transition {
    let mut verdict = Verdict::UNKNOWN;
    verdict.cause = cause;
    Transition {
        subject: Subject {
            handle: LeaseHandle(1),
            entry: 0,
            role,
            id: LeaseId::Session(1),
            endpoints: Endpoints {
                local: local.parse().expect("an address"),
                peer: peer.parse().expect("an address"),
            },
            owner: Some(Owner {
                pid: 7,
                comm: *b"java\0\0\0\0\0\0\0\0\0\0\0\0",
                executable: 0,
            }),
            timeout_ns: Some(secs(12)),
            timeout_source: TimeoutSource::Handshake,
        },
        from: Stage::Healthy,
        to,
        condition: Condition::RenewalUnanswered,
        since: now(),
        verdict,
        remaining_ns: Some(6_000_000_000),
        silent_ns: Some(secs(6)),
    }
}

/// What fifty holders say of a grantor.
fn holders_say(nodes: &mut [Node], grantor: &str, to: Outcome) {
    for (number, node) in nodes.iter_mut().enumerate() {
        let local = format!("10.1.0.{}:40222", number + 1);
        let peer = format!("{grantor}:2181");
        node.says(transition(
            Role::Holder,
            Cause::PeerSilent,
            &local,
            &peer,
            to,
        ));
    }
}

fn firing(page: &Value) -> Vec<&Value> {
    let alerts = page["alerts"].as_array().map_or(&[][..], Vec::as_slice);
    alerts
        .iter()
        .filter(|alert| alert["status"] == "firing")
        .collect()
}

/// Waits until Alertmanager knows this many alerts about a grantor.
fn wait_known(alertmanager: &Alertmanager, grantor: &str, count: usize) -> Vec<Value> {
    let known = || -> Vec<Value> {
        let mut alerts = alertmanager.alerts();
        alerts.retain(|alert| alert["labels"]["grantor"] == grantor);
        alerts
    };
    let all = clock::poll(SOON, || Some(known()).filter(|all| all.len() == count));
    all.unwrap_or_else(|| panic!("{count} expected, known: {:#?}", known()))
}

#[test]
fn fifty_holders_and_their_grantor_make_one_page() {
    let runtime = tokio::runtime::Runtime::new().expect("tokio starts");
    let _inside = runtime.enter();
    let pager = Receiver::start();
    let alertmanager = Alertmanager::start(&pager);
    let url = alertmanager.url();
    let mut holders: Vec<Node> = (1..=HOLDERS)
        .map(|number| Node::new(&format!("holder-{number}"), &url))
        .collect();
    let mut grantor = Node::new("grantor", &url);
    let late = Outcome::Stage(Stage::AtRisk);

    // The holders see it first.
    holders_say(&mut holders, "10.2.0.1", late);
    grantor.says(transition(
        Role::Grantor,
        Cause::DiskStall,
        "10.2.0.1:2181",
        "10.1.0.1:40222",
        late,
    ));
    wait_known(&alertmanager, "10.2.0.1", 51);
    pager.wait(0, "page", SOON, |page| !firing(page).is_empty());
    // Whatever else would page has had its time then.
    clock::observe_for(GROUP_WAIT * 2);
    let pages = pager.since(0);
    assert_eq!(pages.len(), 1, "{pages:#?}");
    let alerts = firing(&pages[0].body);
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0]["labels"]["role"], "grantor");
    assert_eq!(alerts[0]["labels"]["cause"], "disk_stall");
    let all = wait_known(&alertmanager, "10.2.0.1", 51);
    let inhibited = all
        .iter()
        .filter(|alert| alert["status"]["state"] == "suppressed")
        .count();
    assert_eq!(inhibited, 50);

    // A grantor without a daemon: the holders' alerts are one page, with all of them in it.
    let mark = pager.mark();
    holders_say(&mut holders, "10.2.0.1", Outcome::Renewed);
    grantor.says(transition(
        Role::Grantor,
        Cause::DiskStall,
        "10.2.0.1:2181",
        "10.1.0.1:40222",
        Outcome::Renewed,
    ));
    holders_say(&mut holders, "10.2.0.2", late);
    wait_known(&alertmanager, "10.2.0.2", 50);
    let page = pager.wait(mark, "page of the holders", SOON, |page| {
        !firing(page).is_empty()
    });
    let nodes: BTreeSet<&str> = firing(&page.body)
        .iter()
        .filter_map(|alert| alert["labels"]["node"].as_str())
        .collect();
    println!(
        "story (storm): 50 holders and their grantor: one page; 50 holders alone: one page of {}",
        nodes.len()
    );
    assert_eq!(nodes.len(), 50, "{nodes:?}");
}
