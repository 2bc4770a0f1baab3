//! Stalls of a whole host: what the stalls of its threads have in common.
//!
//! In: an incident's stalls of threads, its logs' activity. Out: for each host the time in which its
//! processes stood still, and whether they resumed together.

use std::collections::BTreeSet;

use super::activity::QUIET;
use super::incidents::Scene;
use super::report::HostStall;
use super::wall::{MS, SECOND, Wall, exact, span};

/// Wakes nearer than this are one.
const AT_ONCE: i64 = 10 * MS;
/// Stalls nearer than this are one.
const JOINED: i64 = 2 * SECOND;

/// The hosts' stalls, longest first.
#[must_use]
pub fn of_hosts(scene: &Scene) -> Vec<HostStall> {
    let hosts: BTreeSet<&str> = scene
        .stalls
        .iter()
        .map(|stall| scene.party(stall.source).host.as_str())
        .collect();
    let mut found: Vec<HostStall> = hosts
        .into_iter()
        .filter_map(|host| of_host(scene, host))
        .collect();
    found.sort_by_key(|stall| std::cmp::Reverse(stall.to.since(stall.from)));
    found
}

fn of_host(scene: &Scene, host: &str) -> Option<HostStall> {
    let stalls: Vec<_> = scene
        .stalls
        .iter()
        .filter(|stall| scene.party(stall.source).host == host)
        .collect();
    let mut joined: Vec<(Wall, Wall)> = Vec::new();
    for stall in &stalls {
        match joined.last_mut() {
            Some(last) if stall.from.since(last.1) <= JOINED => last.1 = last.1.max(stall.to),
            _ => joined.push((stall.from, stall.to)),
        }
    }
    let (from, mut to) = joined
        .into_iter()
        .max_by_key(|(from, to)| to.since(*from))?;
    let mine = |stall: &&&super::findings::Stall| stall.from <= to && stall.to >= from;
    let mut processes: BTreeSet<String> = stalls
        .iter()
        .filter(|stall| mine(stall))
        .map(|stall| scene.party(stall.source).name.clone())
        .collect();
    let mut why: Vec<String> = stalls
        .iter()
        .filter(|stall| mine(stall))
        .map(|stall| {
            format!(
                "{} thread {}: {} ({}-{}, {})",
                scene.party(stall.source).name,
                stall.thread,
                stall.text,
                stall.from.time(),
                stall.to.time(),
                stall.rule.name()
            )
        })
        .collect();
    let unblocked = unblocking(scene, host, from, to).map(|found| {
        processes.extend(found.processes);
        why.push(found.text);
        to = found.last;
        (found.first, found.last)
    });
    Some(HostStall {
        host: host.to_owned(),
        from,
        to,
        unblocked,
        processes: processes.into_iter().collect(),
        why,
    })
}

struct Unblocking {
    first: Wall,
    /// When each process of the host had spoken again.
    last: Wall,
    processes: Vec<String>,
    text: String,
}

struct Wake {
    at: Wall,
    silent: i64,
    /// It had spoken before: a silence, and not a beginning.
    known: bool,
    source: usize,
    thread: String,
}

/// Rule `unblocking`: near the end of a stall that figures prove, the largest group of threads that speak
/// again at once.
fn unblocking(scene: &Scene, host: &str, from: Wall, to: Wall) -> Option<Unblocking> {
    let mut wakes: Vec<Wake> = Vec::new();
    for (source, party) in scene.parties.iter().enumerate() {
        if party.host != host {
            continue;
        }
        let activity = &scene.logs.sources[source].activity;
        for (at, silent, known, thread) in activity.wakes(from, to.plus(SECOND), QUIET) {
            // A log without thread names is one thread that tells nothing of others.
            wakes.push(Wake {
                at,
                silent,
                known,
                source,
                thread: thread.to_owned(),
            });
        }
    }
    wakes.sort_by_key(|wake| wake.at);
    let mut best: Option<&[Wake]> = None;
    for group in wakes.chunk_by(|one, two| two.at.since(one.at) <= AT_ONCE) {
        let threads = group.len();
        // One thread at least must be known to have been silent, and not only to begin.
        if threads >= 2
            && group.iter().any(|wake| wake.known)
            && best.is_none_or(|best| threads > best.len())
        {
            best = Some(group);
        }
    }
    let group = best?;
    let mut seen = BTreeSet::new();
    let mut last = group[0].at;
    for wake in group {
        if seen.insert(wake.source) {
            last = wake.at;
        }
    }
    if seen.len() == 1 {
        last = group[group.len() - 1].at;
    }
    let threads: Vec<String> = group
        .iter()
        .map(|wake| {
            format!(
                "{} thread {} after {}{}",
                scene.party(wake.source).name,
                wake.thread,
                span(wake.silent),
                if wake.known { "" } else { " at least" }
            )
        })
        .collect();
    let rhythm = rhythm(scene, group, from);
    Some(Unblocking {
        first: group[0].at,
        last,
        processes: seen
            .iter()
            .map(|source| scene.party(*source).name.clone())
            .collect(),
        text: format!(
            "{} threads speak again within {}: {}{rhythm} (unblocking)",
            group.len(),
            exact(group[group.len() - 1].at.since(group[0].at)),
            threads.join(", ")
        ),
    })
}

/// How a thread spoke before it was free again, and after.
fn rhythm(scene: &Scene, group: &[Wake], from: Wall) -> String {
    for wake in group.iter().filter(|wake| wake.known) {
        let activity = &scene.logs.sources[wake.source].activity;
        let Some(thread) = activity
            .threads
            .iter()
            .find(|thread| thread.name == wake.thread)
        else {
            continue;
        };
        let before: Vec<_> = thread
            .spans
            .iter()
            .filter(|span| span.first >= from && span.first <= wake.at)
            .collect();
        let gaps: Vec<i64> = before
            .windows(2)
            .map(|two| two[1].first.since(two[0].last))
            .collect();
        let after = thread.spans.iter().find(|span| span.first == wake.at);
        if let (Some(least), Some(most), Some(after)) =
            (gaps.iter().min(), gaps.iter().max(), after)
            && gaps.len() >= 2
        {
            // By the moments that are known, not by lines: lines may stand there twice.
            let moments: BTreeSet<Wall> = scene
                .events
                .iter()
                .filter(|event| event.source == wake.source && event.thread == wake.thread)
                .map(|event| event.at)
                .filter(|at| *at >= after.first && *at <= after.last)
                .collect();
            if moments.len() < 3 {
                continue;
            }
            let mean = after.last.since(after.first) / (moments.len() as i64 - 1);
            return format!(
                "; lines of thread {} stood {}-{} apart before, {} on average after",
                wake.thread,
                exact(*least),
                exact(*most),
                span(mean)
            );
        }
    }
    String::new()
}
