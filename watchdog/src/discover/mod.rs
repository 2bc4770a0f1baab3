//! `lease-watchdog discover`: which leases are there to watch?
//!
//! In: procfs (who is connected to whom) and, for a while, the heads of TCP segments in every network
//! namespace (`sniff`). Out: a configuration on standard output ([`proposal`]). Needs neither a running
//! daemon nor its kernel programs. Never: a payload kept or shown; a port taken for a protocol because of
//! its number.

pub mod flows;
#[cfg(any(test, fuzzing))]
pub mod laws;
pub mod proposal;
pub mod recognise;
mod sniff;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use watchdog_model::Mono;
use watchdog_model::time::SECOND;

use self::flows::{Flow, Flows, Segment};
use self::proposal::{Around, Proposal};
use self::recognise::Protocol;
use self::sniff::{MAX_EXCLUDED, Packet, Sniffer};
use crate::collect::connections::{self, Namespace, Owner};
use crate::config::Config;
use crate::failure::Failure;
use crate::tick::clock;

/// Network namespaces looked at; a thread each.
const MAX_NAMESPACES: usize = 256;
/// Segments a second of one port beyond which it is no port of keepalives alone: it is looked at for as
/// long as this lasts, and then passed over.
const BUSY: u32 = 3_000;
/// How long a thread waits for a packet before it looks whether it is to end.
const WAIT_MS: i32 = 100;
/// Between two pictures of the progress.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Options of `discover`.
#[derive(Args, Clone, Debug)]
pub struct DiscoverArgs {
    /// For how long to look: longer than three renewals of what is to be found.
    #[arg(long = "for", value_name = "SPAN", default_value = "30s", value_parser = span)]
    pub span: Duration,
}

fn span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&span) {
        Ok(span)
    } else {
        Err("between 1s and 1h".to_owned())
    }
}

/// What one namespace's thread has seen.
#[derive(Default)]
struct Sight {
    flows: Flows,
    dropped: u64,
    busy: Vec<u16>,
}

/// Looks, and prints the proposal.
///
/// # Errors
/// Packets may not be seen, or nothing was found.
pub fn run(args: &DiscoverArgs) -> Result<(), Failure> {
    let before = connections::list();
    let until = clock().plus(u64::try_from(args.span.as_nanos()).unwrap_or(u64::MAX));
    let stop = Arc::new(AtomicBool::new(false));
    let (threads, unseen) = start(&before, until, &stop)?;
    show_progress(&before, args.span, until);
    let mut sights = Vec::new();
    for thread in threads {
        // A thread that panicked has said so itself.
        sights.extend(thread.join());
    }
    let after = connections::list();
    let around = Around {
        owners: owners(&before).chain(owners(&after)).collect(),
        listeners: listeners(&before).chain(listeners(&after)).collect(),
        span: args.span,
        dropped: sights
            .iter()
            .map(|sight| sight.dropped + sight.flows.lost)
            .sum(),
        busy: sights.iter().flat_map(|sight| sight.busy.clone()).collect(),
        unseen,
    };
    let here = local_addresses(&before, &after);
    let flows = merged(&sights, &here);
    let proposal = Proposal::of(flows.values().copied(), &around);
    let text = proposal.yaml(&around);
    // A proposal that the daemon would refuse is a fault of this program.
    Config::parse(Path::new("proposal"), &text)
        .map_err(|errors| Failure::Running(format!("{text}\nis refused:\n{errors}")))?;
    print!("{text}");
    if proposal.is_empty() {
        return Err(Failure::Running(format!(
            "nothing that renews a lease was seen in {}; look for longer with --for",
            humantime::format_duration(args.span)
        )));
    }
    Ok(())
}

/// A thread for each namespace. Gives how many could not be entered too.
fn start(
    namespaces: &[Namespace],
    until: Mono,
    stop: &Arc<AtomicBool>,
) -> Result<(Vec<JoinHandle<Sight>>, usize), Failure> {
    let own = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let own = own.to_string_lossy().into_owned();
    let mut threads = Vec::new();
    let mut unseen = namespaces.len().saturating_sub(MAX_NAMESPACES);
    let mut refused = None;
    for namespace in namespaces.iter().take(MAX_NAMESPACES) {
        let is_own = own == format!("net:[{}]", namespace.number);
        let pid = (!is_own).then_some(namespace.pid);
        let listening: HashSet<SocketAddr> = namespace
            .listening
            .iter()
            .map(|listener| listener.local)
            .collect();
        let (opened, answer) = std::sync::mpsc::channel();
        let stop = Arc::clone(stop);
        let thread = std::thread::Builder::new()
            .name("discover".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                let sniffer = pid
                    .map_or(Ok(()), sniff::enter)
                    .and_then(|()| Sniffer::open());
                let sniffer = match sniffer {
                    Ok(sniffer) => {
                        let _waits = opened.send(Ok(()));
                        sniffer
                    }
                    Err(error) => {
                        let _waits = opened.send(Err(error));
                        return Sight::default();
                    }
                };
                watch(&sniffer, &listening, until, &stop)
            })
            .map_err(|error| Failure::Running(format!("a thread cannot be started: {error}")))?;
        match answer.recv() {
            Ok(Ok(())) => threads.push(thread),
            Ok(Err(error)) => {
                unseen += 1;
                refused = Some(error);
            }
            Err(_) => unseen += 1,
        }
    }
    if threads.is_empty() {
        let why = refused.map_or_else(
            || "no process may be seen in /proc".to_owned(),
            |error| error.to_string(),
        );
        return Err(Failure::Missing(format!(
            "packets cannot be seen: {why}; run as root (CAP_NET_RAW, and CAP_SYS_ADMIN for other \
             network namespaces)"
        )));
    }
    Ok((threads, unseen))
}

fn watch(
    sniffer: &Sniffer,
    listening: &HashSet<SocketAddr>,
    until: Mono,
    stop: &AtomicBool,
) -> Sight {
    let everywhere: HashSet<u16> = listening
        .iter()
        .filter(|address| address.ip().is_unspecified())
        .map(SocketAddr::port)
        .collect();
    let listens =
        |address: SocketAddr| everywhere.contains(&address.port()) || listening.contains(&address);
    let mut sight = Sight::default();
    let mut counts: HashMap<u16, u32> = HashMap::new();
    let mut second = clock();
    let mut buffer = [0; sniff::SNAP as usize];
    loop {
        let now = clock();
        if now >= until || stop.load(Ordering::Relaxed) {
            break;
        }
        if now.0.saturating_sub(second.0) >= SECOND {
            second = now;
            exclude_busy(sniffer, &mut sight, &counts);
            counts.clear();
        }
        match sniffer.next(&mut buffer) {
            Ok(None) => wait(sniffer),
            Ok(Some(None)) => {}
            Ok(Some(Some(packet))) => {
                sight.flows.take(&segment(&packet, now), listens);
                for port in [packet.from.port(), packet.to.port()] {
                    *counts.entry(port).or_default() += 1;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "packets are no longer seen");
                break;
            }
        }
    }
    sight.dropped = u64::from(sniffer.dropped());
    sight
}

const fn segment<'a>(packet: &Packet<'a>, at: Mono) -> Segment<'a> {
    Segment {
        from: packet.from,
        to: packet.to,
        seq: packet.seq,
        len: packet.len,
        head: packet.head,
        at,
    }
}

/// Has the kernel pass over ports that were too busy in the last second.
fn exclude_busy(sniffer: &Sniffer, sight: &mut Sight, counts: &HashMap<u16, u32>) {
    let busy = counts.iter().filter(|(_, count)| **count > BUSY);
    let new: Vec<u16> = busy
        .map(|(port, _)| *port)
        .filter(|port| !sight.busy.contains(port))
        .take(MAX_EXCLUDED - sight.busy.len())
        .collect();
    if new.is_empty() {
        return;
    }
    sight.busy.extend(new);
    if let Err(error) = sniffer.exclude(&sight.busy) {
        tracing::warn!(%error, "busy ports are looked at all the same");
    }
}

fn wait(sniffer: &Sniffer) {
    let mut poll = libc::pollfd {
        fd: sniffer.descriptor(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid structure. Whatever it answers, the socket is read next.
    unsafe { libc::poll(&raw mut poll, 1, WAIT_MS) };
}

/// Hidden where standard error is no terminal, and for what is over at once.
fn show_progress(namespaces: &[Namespace], span: Duration, until: Mono) {
    let connections: usize = namespaces.iter().map(|one| one.established.len()).sum();
    let bar = if span > Duration::from_secs(2) {
        ProgressBar::new(span.as_secs())
    } else {
        ProgressBar::hidden()
    };
    // A template of constants.
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len} s") {
        bar.set_style(style);
    }
    bar.set_message(format!(
        "looking at {connections} connection ends in {} network namespaces",
        namespaces.len()
    ));
    let began = clock();
    while clock() < until {
        bar.set_position(clock().0.saturating_sub(began.0) / SECOND);
        std::thread::park_timeout(DRAW_EVERY);
    }
    bar.finish_and_clear();
}

fn owners(namespaces: &[Namespace]) -> impl Iterator<Item = ((SocketAddr, SocketAddr), Owner)> {
    namespaces
        .iter()
        .flat_map(|namespace| &namespace.established)
        .filter_map(|one| Some(((one.local, one.peer), one.owner.clone()?)))
}

fn listeners(namespaces: &[Namespace]) -> impl Iterator<Item = (u16, Owner)> {
    namespaces
        .iter()
        .flat_map(|namespace| &namespace.listening)
        .filter_map(|one| Some((one.local.port(), one.owner.clone()?)))
}

fn local_addresses(before: &[Namespace], after: &[Namespace]) -> HashSet<IpAddr> {
    before
        .iter()
        .chain(after)
        .flat_map(|namespace| &namespace.established)
        .map(|one| one.local.ip())
        .collect()
}

/// Each flow of this node once: where it was seen best.
fn merged<'a>(
    sights: &'a [Sight],
    here: &HashSet<IpAddr>,
) -> HashMap<(SocketAddr, SocketAddr), &'a Flow> {
    let mut best: HashMap<(SocketAddr, SocketAddr), &Flow> = HashMap::new();
    let is_ours = |ip: IpAddr| ip.is_loopback() || here.contains(&ip);
    for flow in sights.iter().flat_map(|sight| sight.flows.all()) {
        // What is only forwarded has both its ends elsewhere.
        if !is_ours(flow.client.ip()) && !is_ours(flow.server.ip()) {
            continue;
        }
        let place = best.entry((flow.client, flow.server)).or_insert(flow);
        if flow.requests() + flow.replies() > place.requests() + place.replies() {
            *place = flow;
        }
    }
    best
}

/// A protocol whose leases the daemon can read, as the configuration calls it.
#[must_use]
pub const fn configured(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Zookeeper => Some("zookeeper"),
        Protocol::Etcd => Some("etcd"),
        Protocol::Kafka => Some("kafka"),
        Protocol::Consul => Some("consul"),
        Protocol::Http | Protocol::Tls => None,
    }
}

/// Whether packets may be seen here at all; for tests.
///
/// # Errors
/// The kernel's refusal.
pub fn possible() -> io::Result<()> {
    Sniffer::open().map(drop)
}
