//! What was seen, as a configuration.
//!
//! In: flows and their owners. Out: entries of `leases`, each with comments that say by what it was found,
//! and what was seen beside them and not proposed. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use watchdog_model::time::MS;

use super::configured;
use super::flows::{Flow, Rhythm};
use super::recognise::Protocol;
use crate::collect::connections::Owner;
use crate::printable::printable;

/// Entries for keepalives that are not known by their frames; those of the most connections.
const MAX_OPAQUE: usize = 32;
/// Names and addresses in a comment.
const MAX_NAMED: usize = 4;

/// What is known beside the flows.
#[derive(Debug, Default)]
pub struct Around {
    /// Who has a connection's end: by its own address and its peer's.
    pub owners: HashMap<(SocketAddr, SocketAddr), Owner>,
    /// Who listens on a port.
    pub listeners: HashMap<u16, Owner>,
    /// For how long was looked.
    pub span: Duration,
    /// Packets that were not read in time.
    pub dropped: u64,
    /// Ports that were passed over.
    pub busy: BTreeSet<u16>,
    /// Network namespaces that could not be entered.
    pub unseen: usize,
}

/// Flows that make an entry together.
#[derive(Debug, Default)]
struct Group {
    ports: BTreeSet<u16>,
    connections: usize,
    holders: BTreeSet<String>,
    grantors: BTreeSet<String>,
    cadences_ns: Vec<u64>,
    timeouts_ms: BTreeSet<u32>,
    rhythm: Option<Rhythm>,
}

impl Group {
    fn take(&mut self, flow: &Flow, around: &Around) {
        self.ports.insert(flow.server.port());
        self.connections += 1;
        let name = |owner: &Owner| format!("{} (pid {})", printable(&owner.comm), owner.pid);
        let holder = around.owners.get(&(flow.client, flow.server)).map(name);
        self.holders
            .insert(holder.unwrap_or_else(|| flow.client.ip().to_string()));
        let grantor = around
            .owners
            .get(&(flow.server, flow.client))
            .or_else(|| {
                let local = around
                    .owners
                    .keys()
                    .any(|(own, _)| own.ip() == flow.server.ip());
                let listener = around.listeners.get(&flow.server.port());
                listener.filter(|_| local || flow.server.ip().is_loopback())
            })
            .map(name);
        self.grantors
            .insert(grantor.unwrap_or_else(|| flow.server.to_string()));
        self.timeouts_ms.extend(flow.spoken.timeout_ms);
        let rhythm = flow.rhythm();
        self.cadences_ns
            .extend(rhythm.as_ref().map(|rhythm| rhythm.cadence_ns));
        self.rhythm = self.rhythm.take().or(rhythm);
    }

    fn cadence_ns(&self) -> Option<u64> {
        let mut sorted = self.cadences_ns.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    fn whom(&self) -> String {
        format!(
            "{} connection{}; holders: {}; grantors: {}",
            self.connections,
            if self.connections == 1 { "" } else { "s" },
            some(&self.holders),
            some(&self.grantors)
        )
    }

    fn ports(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        ports.join(", ")
    }
}

/// A few of them.
fn some(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(MAX_NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(MAX_NAMED);
    if more == 0 {
        shown.join(", ")
    } else {
        format!("{} and {more} more", shown.join(", "))
    }
}

/// What is proposed.
#[derive(Debug, Default)]
pub struct Proposal {
    known: BTreeMap<Protocol, Group>,
    opaque: BTreeMap<u16, Group>,
    not_proposed: BTreeMap<(Protocol, u16), Group>,
}

impl Proposal {
    /// Sorts the flows.
    pub fn of<'a>(flows: impl IntoIterator<Item = &'a Flow>, around: &Around) -> Self {
        let mut proposal = Self::default();
        for flow in flows {
            let port = flow.server.port();
            let group = match flow.spoken.protocol() {
                Some(protocol) if configured(protocol).is_some() => {
                    proposal.known.entry(protocol).or_default()
                }
                Some(protocol) => {
                    if flow.rhythm().is_none() {
                        continue;
                    }
                    proposal.not_proposed.entry((protocol, port)).or_default()
                }
                None if flow.rhythm().is_some() => proposal.opaque.entry(port).or_default(),
                None => continue,
            };
            group.take(flow, around);
        }
        // A session that was quiet so long that only its handshake's absence shows is still of a port
        // that is known.
        let known: BTreeSet<u16> = proposal
            .known
            .values()
            .flat_map(|group| group.ports.clone())
            .collect();
        proposal.opaque.retain(|port, _| !known.contains(port));
        let mut by_size: Vec<(usize, u16)> = proposal
            .opaque
            .iter()
            .map(|(port, group)| (group.connections, *port))
            .collect();
        by_size.sort_unstable_by(|one, other| other.cmp(one));
        for (_, port) in by_size.iter().skip(MAX_OPAQUE) {
            proposal.opaque.remove(port);
        }
        proposal.share_ports();
        proposal
    }

    /// A port is of one entry alone: of the protocol with the most connections.
    fn share_ports(&mut self) {
        let mut taken = BTreeSet::new();
        let mut order: Vec<(usize, Protocol)> = self
            .known
            .iter()
            .map(|(protocol, group)| (group.connections, *protocol))
            .collect();
        order.sort_unstable_by(|one, other| other.cmp(one));
        for (_, protocol) in order {
            if let Some(group) = self.known.get_mut(&protocol) {
                group.ports.retain(|port| taken.insert(*port));
            }
        }
        self.known.retain(|_, group| !group.ports.is_empty());
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.opaque.is_empty()
    }

    /// The configuration.
    #[must_use]
    pub fn yaml(&self, around: &Around) -> String {
        let mut text = format!(
            "# Proposed by lease-watchdog discover, which looked at this node for {}.\n\
             # Check it, then: lease-watchdog check-config FILE\n",
            humantime::format_duration(around.span)
        );
        self.caveats(around, &mut text);
        if self.is_empty() {
            text += "# Nothing that renews a lease was seen; without a configuration ZooKeeper on port \
                     2181 is watched.\n";
            return text;
        }
        text += "leases:\n";
        for (protocol, group) in &self.known {
            if let Some(name) = configured(*protocol) {
                known(name, *protocol, group, &mut text);
            }
        }
        for (port, group) in &self.opaque {
            opaque(*port, group, &mut text);
        }
        text
    }

    fn caveats(&self, around: &Around, text: &mut String) {
        let mut say = |line: String| {
            text.push_str("# ");
            text.push_str(&line);
            text.push('\n');
        };
        if around.dropped > 0 {
            say(format!(
                "{} packets were not read in time: a rhythm may be missing.",
                around.dropped
            ));
        }
        if around.unseen > 0 {
            say(format!(
                "{} network namespaces could not be entered (root may).",
                around.unseen
            ));
        }
        if !around.busy.is_empty() {
            let busy: Vec<String> = around.busy.iter().map(u16::to_string).collect();
            say(format!(
                "Too busy to be looked at for the whole time: ports {}.",
                busy.join(", ")
            ));
        }
        for ((protocol, port), group) in &self.not_proposed {
            let what = match protocol {
                Protocol::Tls => "encrypted: its frames cannot be told",
                _ => "HTTP: a scrape or a health check, most likely",
            };
            say(format!(
                "Not proposed: port {port}, something every {}, {what} ({}).",
                seconds(group.cadence_ns().unwrap_or(0)),
                group.whom()
            ));
        }
    }
}

fn known(name: &str, protocol: Protocol, group: &Group, text: &mut String) {
    let _infallible = writeln!(text, "  # By its frames. {}.", group.whom());
    if let Some(cadence) = group.cadence_ns() {
        let _infallible = writeln!(text, "  # Renewed every {}.", seconds(cadence));
    }
    let _infallible = write!(
        text,
        "  - name: {name}\n    protocol: {name}\n    ports: [{}]\n",
        group.ports()
    );
    let timeouts: Vec<String> = group
        .timeouts_ms
        .iter()
        .map(|timeout| seconds(u64::from(*timeout) * MS))
        .collect();
    match (protocol, timeouts.as_slice()) {
        (Protocol::Zookeeper, [one]) => {
            let _infallible = writeln!(
                text,
                "    # timeout: {one}   # of the handshakes seen; for sessions older than the daemon, if \
                 all have it"
            );
        }
        (Protocol::Zookeeper, []) => {
            if let Some(cadence) = group.cadence_ns() {
                let _infallible = writeln!(
                    text,
                    "    # timeout: {}   # a guess, since no handshake was seen: clients renew three times in \
                     it. Without it nothing goes beyond at_risk for sessions older than the daemon",
                    seconds((3 * cadence).div_ceil(1000 * MS) * 1000 * MS)
                );
            }
        }
        (_, []) if protocol == Protocol::Consul => {
            text.push_str(
                "    # timeout: 15s   # the session's TTL, which is not on the wire; without it nothing \
                 goes beyond at_risk\n",
            );
        }
        (_, []) => {}
        (_, some) => {
            let _infallible = writeln!(text, "    # Timeouts seen: {}.", some.join(", "));
        }
    }
}

fn opaque(port: u16, group: &Group, text: &mut String) {
    let cadence = group.cadence_ns().unwrap_or(0);
    let _infallible = write!(
        text,
        "  # By its rhythm alone: only you know whether something lapses without it. {}.\n\
         \x20 - name: keepalive-{port}\n    protocol: request_reply\n    ports: [{port}]\n",
        group.whom()
    );
    let rhythm = group.rhythm.as_ref();
    if rhythm.is_some_and(|rhythm| rhythm.long_poll) {
        let _infallible = writeln!(
            text,
            "    renews_from: reply   # replies are held back\n    hold: {}",
            seconds(cadence)
        );
    } else {
        let _infallible = writeln!(text, "    renew_every: {}", seconds(cadence));
    }
    let _infallible = writeln!(
        text,
        "    # timeout: {}   # not on the wire: ask whoever wrote it (three renewals is a guess); \
         without it nothing goes beyond at_risk",
        seconds(cadence * 3)
    );
    if let Some((offset, bytes)) = rhythm.and_then(|rhythm| rhythm.signature.as_ref()) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let _infallible = writeln!(
            text,
            "    signature: {{ offset: {offset}, bytes: \"{hex}\" }}   # other requests renew nothing"
        );
    }
}

/// Whole tenths of a second, as the configuration takes them.
fn seconds(ns: u64) -> String {
    let tenths = (ns + 50 * MS) / (100 * MS);
    if tenths.is_multiple_of(10) && tenths > 0 {
        format!("{}s", tenths / 10)
    } else {
        format!("{}ms", (tenths * 100).max(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::discover::flows::{Flows, Segment};
    use std::path::Path;
    use watchdog_model::Mono;

    fn around(client: SocketAddr, server: SocketAddr) -> Around {
        let owner = Owner {
            pid: 7,
            comm: "a\n- b: \x1b[31m".to_owned(),
        };
        Around {
            owners: HashMap::from([((client, server), owner)]),
            span: Duration::from_secs(30),
            dropped: 3,
            unseen: 1,
            busy: BTreeSet::from([443]),
            ..Around::default()
        }
    }

    fn exchange(
        flows: &mut Flows,
        ends: (SocketAddr, SocketAddr),
        request: &[u8],
        n: u32,
        ms: u64,
    ) {
        let say = |from, to, head: &[u8], at| Segment {
            from,
            to,
            seq: n * 100,
            len: u32::try_from(head.len()).unwrap(),
            head: &[],
            at: Mono(at * MS),
        };
        let (client, server) = ends;
        let asked = Segment {
            head: request,
            ..say(client, server, request, ms)
        };
        flows.take(&asked, |address| address == server);
        flows.take(&say(server, client, b"ok", ms + 10), |address| {
            address == server
        });
    }

    #[test]
    fn what_is_proposed_is_accepted_whatever_processes_call_themselves() {
        let client: SocketAddr = "10.0.0.7:40222".parse().unwrap();
        let at = |port| SocketAddr::new("10.0.0.9".parse().unwrap(), port);
        let mut flows = Flows::default();
        for n in 0..10 {
            let ms = u64::from(n) * 3000;
            exchange(&mut flows, (client, at(10103)), b"\0\x05renew", n, ms);
            exchange(
                &mut flows,
                (client, at(21811)),
                b"\0\0\0\x08\xff\xff\xff\xfe\0\0\0\x0b",
                n,
                ms,
            );
            exchange(
                &mut flows,
                (client, at(9090)),
                b"GET /metrics HTTP/1.1\r\n",
                n,
                ms,
            );
        }
        let around = around(client, at(10103));
        let proposal = Proposal::of(flows.all(), &around);
        let text = proposal.yaml(&around);
        let config = Config::parse(Path::new("x"), &text).expect(&text);
        assert_eq!(
            config.entry_names(),
            ["zookeeper", "keepalive-10103"],
            "{text}"
        );
        assert_eq!(config.leases[1].renew_every_ns, Some(3_000 * MS));
        assert!(text.contains("Not proposed: port 9090"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        let nothing = Proposal::default();
        assert!(nothing.is_empty());
        Config::parse(Path::new("x"), &nothing.yaml(&Around::default())).unwrap();
    }
}
