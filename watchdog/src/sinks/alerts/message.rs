//! What a sink is told of an incident.
//!
//! In: an incident as one alert sees it, and the newest transition in it. Out: a [`Message`], as
//! JSON lines, as one JSON object, and as bounded labels. Never: a clock; times come in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use watchdog_model::causes::Cause;
use watchdog_model::leases::note::Stage;
use watchdog_model::leases::observation::Role;

use crate::sinks::incidents::{Change, Thing};
use crate::sinks::words;

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// An incident has reached its stage.
    Firing,
    /// It has more leases, is worse, or its cause is known now.
    Grown,
    /// It has left the stage.
    Resolved,
}

impl State {
    /// Its word in messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Grown => "grown",
            Self::Resolved => "resolved",
        }
    }
}

/// Labels of an incident; few, and from small sets, so that whatever counts by them stays small.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// The config entry of its worst lease when it fired.
    pub lease: String,
    /// And that lease's role.
    pub role: &'static str,
    /// Why.
    pub cause: &'static str,
    /// The node that grants, where the incident is about one: its address, or this node's name.
    pub grantor: Option<String>,
    /// On what: without process ids, ports and session ids.
    pub thing: String,
}

/// What there is to say of an incident.
#[derive(Clone, Debug)]
pub struct About {
    /// Its number.
    pub incident: u64,
    /// The stage that the alert is for.
    pub on: Stage,
    /// Whether it is only a test.
    pub test: bool,
    /// When it reached the stage.
    pub since: SystemTime,
    /// When it left it; None: it has not.
    pub until: Option<SystemTime>,
    /// Bounded labels.
    pub labels: Labels,
    /// Leases in it.
    pub leases: usize,
    /// The one nearest to lapsing.
    pub worst: String,
    /// Its stage.
    pub stage: &'static str,
    /// In a line.
    pub summary: String,
    /// What is measured, in a line.
    pub evidence: String,
    /// How long the worst lease has.
    pub remaining: String,
}

/// A message to a sink.
#[derive(Clone, Debug)]
pub struct Message {
    /// What became of the alert.
    pub state: State,
    /// The `alert` line, with its newline.
    pub line: Arc<str>,
    /// The `transition` line that made it fire or grow, with its newline.
    pub transition: Option<Arc<str>>,
    /// The same for sinks that make something else of it.
    pub about: About,
}

impl Message {
    /// As JSON lines.
    #[must_use]
    pub fn lines(&self) -> String {
        let transition = self.transition.as_deref().unwrap_or_default();
        format!("{}{transition}", self.line)
    }

    /// As one JSON object: the `alert` line's, with the transition's under `transition`.
    #[must_use]
    pub fn object(&self) -> String {
        let alert = self.line.trim_end();
        match (&self.transition, alert.strip_suffix('}')) {
            (Some(transition), Some(open)) => {
                format!("{open},\"transition\":{}}}\n", transition.trim_end())
            }
            _ => self.line.to_string(),
        }
    }
}

/// The labels of an incident whose worst lease is in this entry and role.
#[must_use]
pub fn labels(
    entries: &[String],
    change: &Change,
    role: Role,
    local: Option<IpAddr>,
    node: &str,
) -> Labels {
    // On the node itself a loopback address means the node; elsewhere it means nothing.
    let called = |ip: IpAddr| {
        if ip.is_loopback() {
            node.to_owned()
        } else {
            ip.to_string()
        }
    };
    let grantor = match (role, change.thing) {
        (Role::Grantor, _) => local.map(called),
        (Role::Holder, Thing::Service(address)) => Some(called(address.ip())),
        (Role::Holder, _) => None,
    };
    let process = || match &change.comm {
        Some(comm) => format!("process {}", words::name(comm)),
        None => "process".to_owned(),
    };
    let thing = match change.thing {
        Thing::Node => "node".to_owned(),
        Thing::Process(_) => process(),
        Thing::Device(name) => format!("disk {}", words::text(&name)),
        Thing::Cgroup(path) => format!("cgroup {}", words::text(&path)),
        Thing::Service(address) => format!("peer {}", address.ip()),
        Thing::Host(address) => format!("peer {address}"),
        Thing::Entry { pid: Some(_), .. } => process(),
        Thing::Entry { pid: None, .. } => "leases".to_owned(),
        Thing::Lease(_) => "lease".to_owned(),
    };
    Labels {
        lease: words::entry_name(entries, change.entry).to_owned(),
        role: words::role(role),
        cause: words::cause(change.cause),
        grantor,
        thing,
    }
}

/// What tells an alert from another over restarts and over incidents that come again.
#[must_use]
pub fn key(node: &str, labels: &Labels) -> String {
    format!(
        "{node}/{}/{}/{}/{}",
        labels.lease, labels.role, labels.cause, labels.thing
    )
}

/// A message that says that it is only a test.
#[must_use]
pub fn test(at: SystemTime, node: &str, lease: &str, on: Stage) -> Message {
    let labels = Labels {
        lease: lease.to_owned(),
        role: words::role(Role::Holder),
        cause: words::cause(Cause::Unknown),
        grantor: None,
        thing: "test".to_owned(),
    };
    let summary = format!("TEST of lease-watchdog's alerts on {node}: no lease is in danger");
    let object = serde_json::json!({
        "ts": humantime::format_rfc3339_micros(at).to_string(),
        "event": "alert",
        "test": true,
        "state": State::Firing.word(),
        "on": words::stage(on),
        "node": node,
        "key": format!("{node}/test"),
        "incident": "0",
        "leases": 0,
        "worst": "test",
        "lease": lease,
        "role": labels.role,
        "stage": words::stage(on),
        "cause": labels.cause,
        "thing": "test",
        "expired": 0,
        "remaining_ms": null,
        "summary": summary,
    });
    Message {
        state: State::Firing,
        line: Arc::from(format!("{object}\n")),
        transition: None,
        about: About {
            incident: 0,
            on,
            test: true,
            since: at,
            until: None,
            labels,
            leases: 0,
            worst: "test".to_owned(),
            stage: words::stage(on),
            summary,
            evidence: "none, this is a test".to_owned(),
            remaining: "no lease is in danger".to_owned(),
        },
    }
}
