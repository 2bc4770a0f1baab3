//! Whose clock says what: the offsets between nodes, and which addresses are one node.
//!
//! In: recordings of several nodes. Out: for each node how far its wall clock is ahead of the first node's, as
//! an interval that cannot but hold the truth, and what to call it. Never: a guess where no flow was seen from
//! both ends.
//!
//! A request is sent before it arrives, a reply too. So with t1 the send time of a request and t4 the arrival of
//! its reply by the holder's clock, t2 the arrival and t3 the reply by the grantor's, the grantor's clock is ahead
//! by at most t2 − t1 and at least t3 − t4. The tightest of all bounds stand. Flows that both ends saw from
//! their first byte have their requests counted alike; of others the order is found by their rhythm, and only
//! where one place fits far better than all others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use watchdog_model::leases::observation::{FlowObservation, Role, Sight};
use watchdog_model::time::Mono;

use super::meaning::host_of;
use super::parties::{Party, names_a_host};
use super::scan::Logs;
use super::wall::{MS, span};
use crate::recorder::Op;
use crate::recorder::format::Recording;

/// Requests that must fit in one place for a rhythm to tell.
const FEWEST: usize = 5;
/// Within this they fit: what a network and a busy receiver add, ns.
const FITS: i64 = 20 * MS;
/// Any other place must fit so many times worse.
const CLEARER: i64 = 4;
/// As many requests of a flow are looked at, the newest.
const MOST: usize = 500;

/// One request, by the wall clock of one end, ns.
#[derive(Clone, Copy, Debug)]
struct Request {
    /// Its number on the flow.
    number: u64,
    /// Sent or arrived.
    at: i64,
    /// Its reply: arrived or sent.
    reply: Option<i64>,
}

/// One end of a flow.
#[derive(Debug, Default)]
struct End {
    from_start: bool,
    requests: Vec<Request>,
}

/// Addresses of holder and grantor, which both ends know a flow by.
type Flow = (SocketAddr, SocketAddr);

/// What one node recorded.
#[derive(Debug, Default)]
struct Node {
    name: String,
    holders: BTreeMap<Flow, End>,
    grantors: BTreeMap<Flow, End>,
    addresses: BTreeSet<String>,
    sources: Vec<usize>,
}

/// How far one clock is ahead of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ahead {
    least: i64,
    most: i64,
    requests: usize,
}

impl Ahead {
    /// Bounds that cross are of a clock that drifted meanwhile: the middle is as good as any.
    const fn middle(self) -> i64 {
        self.least.midpoint(self.most)
    }

    const fn doubt(self) -> i64 {
        let apart = self.most.saturating_sub(self.least).saturating_abs();
        apart / 2 + apart % 2
    }

    const fn reversed(self) -> Self {
        Self {
            least: self.most.saturating_neg(),
            most: self.least.saturating_neg(),
            requests: self.requests,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            least: self.least.max(other.least),
            most: self.most.min(other.most),
            requests: self.requests + other.requests,
        }
    }
}

/// A node's name and what else it is called.
#[derive(Clone, Debug, Default)]
pub struct Alias {
    /// The name that it has of itself.
    pub name: String,
    /// Its addresses.
    pub addresses: BTreeSet<String>,
}

/// All nodes that recorded.
#[derive(Debug, Default)]
pub struct Clocks {
    nodes: Vec<Node>,
}

impl Clocks {
    /// Takes in a recording that became this source.
    pub fn add(&mut self, source: usize, recording: &Recording) {
        let name = &recording.header.node;
        let place = self.nodes.iter().position(|node| node.name == *name);
        let place = place.unwrap_or_else(|| {
            self.nodes.push(Node {
                name: name.clone(),
                ..Node::default()
            });
            self.nodes.len() - 1
        });
        let node = &mut self.nodes[place];
        node.sources.push(source);
        let first_wall = recording.calls.first().map_or(0, |call| call.1);
        let before = recording.context.flows.iter();
        for (_, flow) in before {
            node.see(flow, first_wall);
        }
        for (_, wall, op) in &recording.calls {
            if let Op::Observe { flow, .. } = op {
                node.see(flow, *wall);
            }
        }
    }

    /// Moves what the nodes and their logs said to the first node's clock. What to say of it.
    pub fn settle(&self, logs: &mut Logs, parties: &[Party]) -> Vec<String> {
        let Some((first, others)) = self.nodes.split_first() else {
            return Vec::new();
        };
        let known = self.ahead_of_first();
        let mut said = Vec::new();
        for (place, node) in (1..).zip(others) {
            let Some((ahead, through)) = &known[place] else {
                said.push(format!(
                    "no connection was recorded at both its ends between {} and {}: their clocks are taken to agree",
                    node.name, first.name
                ));
                continue;
            };
            let by = ahead.middle();
            let word = if by < 0 { "behind" } else { "ahead of" };
            let through = match through {
                Some(through) => format!(", by way of {}", self.nodes[*through].name),
                None => String::new(),
            };
            said.push(format!(
                "the clock of {} is {} {word} that of {} (to within {}: {} requests seen at both ends{through}); its \
                 times are moved to the latter",
                node.name,
                span(by.abs()),
                first.name,
                span(ahead.doubt()),
                ahead.requests,
            ));
            let moved = self.whose(node, parties);
            for source in moved.iter().chain(&self.whose(first, parties)) {
                logs.settled.insert(parties[*source].host.clone());
            }
            shift(logs, &moved, -by);
        }
        logs.events
            .sort_by_key(|event| (event.at, event.source, event.place));
        said
    }

    /// Names and addresses of the nodes; an address that two have is neither's.
    #[must_use]
    pub fn aliases(&self) -> Vec<Alias> {
        let shared = |address: &String| {
            let having = self.nodes.iter();
            having
                .filter(|node| node.addresses.contains(address))
                .count()
                > 1
        };
        let alias = |node: &Node| Alias {
            name: node.name.clone(),
            addresses: node
                .addresses
                .iter()
                .filter(|address| !shared(address))
                .cloned()
                .collect(),
        };
        self.nodes.iter().map(alias).collect()
    }

    /// The sources that are stamped by this node's clock: its recordings, and logs of its host.
    fn whose(&self, node: &Node, parties: &[Party]) -> Vec<usize> {
        let own: Vec<&str> = node
            .sources
            .iter()
            .filter_map(|source| parties.get(*source).map(|party| party.host.as_str()))
            .collect();
        let of = |(source, party): (usize, &Party)| {
            let recorded = node.sources.contains(&source);
            let others = self.nodes.iter().any(|node| node.sources.contains(&source));
            (recorded || !others && own.contains(&party.host.as_str())).then_some(source)
        };
        parties.iter().enumerate().filter_map(of).collect()
    }

    /// For each node how far it is ahead of the first, and through which other node that is known.
    fn ahead_of_first(&self) -> Vec<Option<(Ahead, Option<usize>)>> {
        let mut known: Vec<Option<(Ahead, Option<usize>)>> = vec![None; self.nodes.len()];
        let own = Ahead {
            least: 0,
            most: 0,
            requests: 0,
        };
        if let Some(first) = known.first_mut() {
            *first = Some((own, None));
        }
        // The least doubtful step first, until none is left.
        loop {
            let mut best: Option<(usize, usize, Ahead)> = None;
            for from in 0..self.nodes.len() {
                let Some((so_far, _)) = known[from] else {
                    continue;
                };
                for to in 0..self.nodes.len() {
                    if known[to].is_some() {
                        continue;
                    }
                    let Some(step) = between(&self.nodes[from], &self.nodes[to]) else {
                        continue;
                    };
                    let sum = Ahead {
                        least: so_far.least.saturating_add(step.least),
                        most: so_far.most.saturating_add(step.most),
                        requests: step.requests,
                    };
                    if best.is_none_or(|(.., known)| sum.doubt() < known.doubt()) {
                        best = Some((from, to, sum));
                    }
                }
            }
            let Some((from, to, ahead)) = best else {
                return known;
            };
            known[to] = Some((ahead, (from != 0).then_some(from)));
        }
    }
}

impl Node {
    fn see(&mut self, flow: &FlowObservation, wall: i64) {
        let ends = flow.endpoints;
        let local = ends.local.to_string();
        let host = host_of(&local);
        if names_a_host(host) {
            self.addresses.insert(host.to_owned());
        }
        let end = match flow.role {
            Role::Holder => self.holders.entry((ends.local, ends.peer)),
            Role::Grantor => self.grantors.entry((ends.peer, ends.local)),
        }
        .or_default();
        end.from_start = flow.sight == Sight::FromStart;
        let (Some(at), true) = (flow.request_at, flow.synchronised) else {
            return;
        };
        // Of times that make no sense differences can be taken all the same.
        const SENSE: i64 = i64::MAX / 2;
        let wall_of = |at: Mono| {
            let mono = i64::try_from(at.0).unwrap_or(i64::MAX);
            mono.saturating_add(wall).clamp(0, SENSE)
        };
        let answered = flow.answered_at == Some(at) && flow.rtt_ns > 0;
        let request = Request {
            number: flow.requests,
            at: wall_of(at),
            reply: answered.then(|| wall_of(at.plus(flow.rtt_ns))),
        };
        match end.requests.last_mut() {
            Some(last) if last.number == request.number => {
                last.reply = last.reply.or(request.reply);
            }
            _ => end.requests.push(request),
        }
        if end.requests.len() > 2 * MOST {
            end.requests.drain(..MOST);
        }
    }
}

/// How far the second node's clock is ahead of the first's.
fn between(a: &Node, b: &Node) -> Option<Ahead> {
    let there = a.holders.iter().filter_map(|(flow, holder)| {
        let grantor = b.grantors.get(flow)?;
        of_flow(holder, grantor)
    });
    let back = b.holders.iter().filter_map(|(flow, holder)| {
        let grantor = a.grantors.get(flow)?;
        of_flow(holder, grantor).map(Ahead::reversed)
    });
    there.chain(back).reduce(Ahead::and)
}

/// How far the grantor's clock is ahead of the holder's.
fn of_flow(holder: &End, grantor: &End) -> Option<Ahead> {
    let pairs = if holder.from_start && grantor.from_start {
        by_number(holder, grantor)
    } else {
        by_rhythm(&holder.requests, &grantor.requests)?
    };
    let most = pairs.iter().map(|(sent, come)| come.at - sent.at).min()?;
    let least = pairs
        .iter()
        .filter_map(|(sent, come)| Some(come.reply? - sent.reply?))
        .max()?;
    Some(Ahead {
        least,
        most,
        requests: pairs.len(),
    })
}

fn by_number(holder: &End, grantor: &End) -> Vec<(Request, Request)> {
    let come: BTreeMap<u64, Request> = grantor
        .requests
        .iter()
        .map(|request| (request.number, *request))
        .collect();
    let pair = |sent: &Request| Some((*sent, *come.get(&sent.number)?));
    holder.requests.iter().filter_map(pair).collect()
}

/// The one place at which the two rows of times fit each other.
fn by_rhythm(sent: &[Request], come: &[Request]) -> Option<Vec<(Request, Request)>> {
    let newest = |row: &[Request]| row[row.len().saturating_sub(MOST)..].to_vec();
    let (sent, come) = (newest(sent), newest(come));
    let mut places: Vec<(i64, Vec<(Request, Request)>)> = Vec::new();
    for lag in 0..(sent.len() + come.len()).saturating_sub(1) {
        let (skip_sent, skip_come) = match lag.checked_sub(come.len().saturating_sub(1)) {
            Some(more) => (more, 0),
            None => (0, come.len() - 1 - lag),
        };
        let pairs: Vec<_> = sent
            .iter()
            .skip(skip_sent)
            .copied()
            .zip(come.iter().skip(skip_come).copied())
            .collect();
        if pairs.len() < FEWEST {
            continue;
        }
        let apart = || pairs.iter().map(|(sent, come)| come.at - sent.at);
        let spread = apart().max()? - apart().min()?;
        places.push((spread, pairs));
    }
    places.sort_by_key(|place| place.0);
    let mut places = places.into_iter();
    let (spread, pairs) = places.next()?;
    let next = places.next().map_or(i64::MAX, |place| place.0);
    (spread <= FITS && next / CLEARER > spread).then_some(pairs)
}

fn shift(logs: &mut Logs, sources: &[usize], by: i64) {
    for event in &mut logs.events {
        if sources.contains(&event.source) {
            event.at = event.at.plus(by);
            event.own = event.own.map(|own| own.plus(by));
        }
    }
    for source in sources {
        logs.sources[*source].activity.shift(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::format::{Context, Header, VERSION};
    use watchdog_model::leases::observation::{Endpoints, FlowKey};
    use watchdog_model::time::SECOND;

    /// Holder at 10.0.0.7, grantor at 10.0.0.9, whose clock is `ahead` ns ahead and whose monotonic clock has
    /// another origin; a network of 200 µs one way and 300 back; the grantor takes 1 ms.
    fn recordings(ahead: i64, from_start: bool, skipped: u64) -> [Recording; 2] {
        let holder: SocketAddr = "10.0.0.7:40222".parse().unwrap();
        let grantor: SocketAddr = "10.0.0.9:2181".parse().unwrap();
        let wall = 1_700_000_000_000_000_000_i64;
        [true, false].map(|of_holder| {
            let (role, ends) = if of_holder {
                (Role::Holder, (holder, grantor))
            } else {
                (Role::Grantor, (grantor, holder))
            };
            let (local, peer) = ends;
            let mut flow = FlowObservation::opened(
                FlowKey(1),
                0,
                role,
                Endpoints { local, peer },
                Mono(SECOND),
            );
            flow.sight = if from_start {
                Sight::FromStart
            } else {
                Sight::MidStream
            };
            let mono_origin = if of_holder { 0 } else { 77 * SECOND };
            let mut calls = Vec::new();
            let mut sent = 10 * SECOND;
            for number in 1..30_u64 {
                // Timers are a few ms off, and not by a rule.
                sent +=
                    2 * SECOND + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 13_000_000;
                let (at, rtt) = if of_holder {
                    (sent, 1_500_000)
                } else {
                    (sent + 200_000, 1_000_000)
                };
                if !of_holder && number <= skipped {
                    continue;
                }
                let at = Mono(at + mono_origin);
                flow.request_at = Some(at);
                flow.requests = if of_holder { number } else { number - skipped };
                flow.answered_at = Some(at);
                flow.rtt_ns = rtt;
                let moved = if of_holder { 0 } else { ahead };
                let origin = i64::try_from(mono_origin).unwrap();
                let op = Op::Observe {
                    flow,
                    cadence_ns: 0,
                };
                calls.push((at, wall + moved - origin, op));
            }
            Recording {
                header: Header {
                    version: VERSION,
                    daemon: String::new(),
                    node: if of_holder { "n7" } else { "n9" }.to_owned(),
                    boot: String::new(),
                    entries: Vec::new(),
                    capacity: 64,
                    reason: String::new(),
                    thin: false,
                },
                context: Context::default(),
                calls,
                torn: None,
            }
        })
    }

    fn clocks(recordings: &[Recording]) -> Clocks {
        let mut clocks = Clocks::default();
        for (source, recording) in recordings.iter().enumerate() {
            clocks.add(source, recording);
        }
        clocks
    }

    #[test]
    fn the_truth_lies_between_the_bounds_and_they_are_narrow() {
        for ahead in [0, 1_234_567_890, -86_400_000_000_000, 40_000] {
            for (from_start, skipped) in [(true, 0), (false, 0), (false, 7)] {
                let both = recordings(ahead, from_start, skipped);
                let found = clocks(&both).ahead_of_first();
                let (found, through) = found[1].unwrap();
                assert!(
                    found.least <= ahead && ahead <= found.most,
                    "{ahead}: {found:?}"
                );
                assert!(found.doubt() <= 250_000, "{found:?}");
                assert_eq!(through, None);
                let [holder, grantor] = both;
                let back = clocks(&[grantor, holder]).ahead_of_first()[1].unwrap().0;
                assert_eq!(back, found.reversed());
            }
        }
    }

    /// A rhythm without any irregularity fits in many places: nothing is concluded.
    #[test]
    fn a_perfect_rhythm_tells_nothing() {
        let row = |start: i64| -> Vec<Request> {
            (0..30)
                .map(|number| Request {
                    number: 0,
                    at: start + number * 2_000_000_000,
                    reply: None,
                })
                .collect()
        };
        assert!(by_rhythm(&row(0), &row(200_000)).is_none());
    }

    #[test]
    fn nodes_without_a_common_flow_are_not_compared() {
        let [holder, mut grantor] = recordings(5, true, 0);
        for (_, _, op) in &mut grantor.calls {
            if let Op::Observe { flow, .. } = op {
                flow.endpoints.peer.set_port(1);
            }
        }
        assert!(clocks(&[holder, grantor]).ahead_of_first()[1].is_none());
    }

    #[test]
    fn an_address_of_two_nodes_is_neithers() {
        let [holder, mut grantor] = recordings(5, true, 0);
        let names = |clocks: &Clocks| -> Vec<_> {
            let aliases = clocks.aliases();
            aliases
                .into_iter()
                .map(|alias| (alias.name, alias.addresses.into_iter().collect::<Vec<_>>()))
                .collect()
        };
        let n7 = ("n7".to_owned(), vec!["10.0.0.7".to_owned()]);
        assert_eq!(
            names(&clocks(&[holder.clone(), grantor.clone()])),
            [n7, ("n9".to_owned(), vec!["10.0.0.9".to_owned()])]
        );
        for (_, _, op) in &mut grantor.calls {
            if let Op::Observe { flow, .. } = op {
                flow.endpoints.local = "10.0.0.7:2181".parse().unwrap();
            }
        }
        assert!(
            names(&clocks(&[holder, grantor]))
                .iter()
                .all(|node| node.1.is_empty())
        );
    }
}
