//! Who was at fault, and what may have caused it.
//!
//! In: an incident. Out: each cause that README's table knows of and that logs can speak of, with what
//! speaks for and against. Never: "proven" without a log that says so: a log sees that a thread stood still,
//! and not on what.

use std::collections::{BTreeSet, HashMap};

use watchdog_model::causes::Cause;

use super::incidents::Scene;
use super::meaning::{Meaning, host_of};
use super::report::{Candidate, Fault, HostStall, Lapse, Standing};
use super::rules::Rule;
use super::wall::{SECOND, span};
use crate::sinks::words;

/// All candidates, the likeliest first.
#[must_use]
pub fn candidates(scene: &Scene, stalls: &[HostStall]) -> Vec<Candidate> {
    let mut found = vec![
        disk(scene, stalls),
        cpu(scene, stalls),
        memory(scene, stalls),
        runtime(scene),
        resolution(scene, stalls),
        node(scene, stalls),
        network(scene, stalls),
        peer(scene),
    ];
    for proven in recorded(scene) {
        found.retain(|other| other.cause != proven.cause);
        found.push(proven);
    }
    found.retain(|candidate| !(candidate.for_it.is_empty() && candidate.against.is_empty()));
    found.sort_by_key(|candidate| candidate.standing);
    found
}

/// What the daemon had proven, and with what.
fn recorded(scene: &Scene) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut leases: HashMap<&str, BTreeSet<&'static str>> = HashMap::new();
    for event in scene.of(Meaning::Warned) {
        let Some(cause) = event
            .get("cause")
            .and_then(|cause| {
                words::CAUSES
                    .into_iter()
                    .map(words::cause)
                    .find(|known| *known == cause)
            })
            .filter(|cause| *cause != "unknown")
        else {
            continue;
        };
        leases
            .entry(event.lease().unwrap_or(""))
            .or_default()
            .insert(cause);
        let line = format!("{} {}", event.at.time(), event.text);
        match found.iter_mut().find(|known| known.cause == cause) {
            // The first and the last few: what is between says the same with other seconds.
            Some(known) if known.for_it.len() < 4 => known.for_it.push(line),
            Some(known) => known.for_it[3] = line,
            None => found.push(Candidate {
                cause,
                standing: Standing::Proven,
                for_it: vec![line],
                against: Vec::new(),
            }),
        }
    }
    // That a peer says nothing is what one end sees; where anything tells why, that is the cause.
    let silent = words::cause(Cause::PeerSilent);
    let mut of_silent = leases.values().filter(|causes| causes.contains(silent));
    if of_silent.all(|causes| causes.len() > 1) {
        for symptom in found.iter_mut().filter(|known| known.cause == silent) {
            symptom.standing = Standing::Partial;
            symptom.against =
                vec!["the same leases' peer was found to be held up: see above".to_owned()];
        }
    }
    found
}

fn candidate(
    cause: &'static str,
    supported: bool,
    excluded: bool,
    for_it: Vec<String>,
    against: Vec<String>,
) -> Candidate {
    let standing = match (supported, excluded, for_it.is_empty()) {
        (true, ..) => Standing::Supported,
        (_, true, _) => Standing::Excluded,
        (_, _, true) => Standing::Partial,
        _ => Standing::Candidate,
    };
    Candidate {
        cause,
        standing,
        for_it,
        against,
    }
}

/// Stalls of the incident that a log gives this meaning.
fn told(scene: &Scene, meanings: &[Meaning]) -> Vec<String> {
    scene
        .stalls
        .iter()
        .filter(|stall| meanings.contains(&stall.meaning) && stall.rule == Rule::Pause)
        .map(|stall| {
            format!(
                "{}: {} ({}-{})",
                scene.party(stall.source).name,
                stall.text,
                stall.from.time(),
                stall.to.time()
            )
        })
        .collect()
}

fn lines(scene: &Scene, meanings: &[Meaning]) -> Vec<String> {
    scene
        .events
        .iter()
        .filter(|event| meanings.contains(&event.meaning))
        .take(10)
        .map(|event| {
            format!(
                "{} {}: {}",
                event.at.time(),
                scene.party(event.source).name,
                event.text
            )
        })
        .collect()
}

/// The stall that more than one process of a host shares.
fn shared(stalls: &[HostStall]) -> Option<&HostStall> {
    stalls.iter().find(|stall| stall.processes.len() > 1)
}

fn together(stall: &HostStall) -> String {
    format!(
        "threads of {} processes on {} ({}) stall together{}",
        stall.processes.len(),
        stall.host,
        stall.processes.join(", "),
        if stall.unblocked.is_some() {
            " and resume at once"
        } else {
            ""
        }
    )
}

fn disk(scene: &Scene, stalls: &[HostStall]) -> Candidate {
    let mut says = told(scene, &[Meaning::HungTask, Meaning::DiskSlow]);
    says.extend(lines(scene, &[Meaning::IoError, Meaning::IoSlow]));
    let supported = !says.is_empty();
    let mut against = Vec::new();
    if shared(stalls).is_some() {
        says.extend(shared(stalls).map(together));
    }
    for finding in &scene.findings {
        if matches!(finding.rule, Rule::OneNow | Rule::OwnStamp) {
            let what = if finding.rule == Rule::OneNow {
                "a gap sits where only a log write (or name resolution) happens"
            } else {
                "a gap sits between a message and its logger, where only the log is written"
            };
            let until = finding.until.unwrap_or(finding.at);
            says.push(format!("{what}: {}-{}", finding.at.time(), until.time()));
        }
    }
    if !says.is_empty() {
        for source in &scene.logs.sources {
            let field = |wanted: &str| {
                source.timeless.iter().find_map(|(meaning, fields)| {
                    let of = fields.iter().find(|(name, _)| name == wanted)?;
                    (*meaning == Meaning::JournalHeader).then(|| of.1.clone())
                })
            };
            if let Some(start) = field("start").and_then(|start| start.parse::<u64>().ok()) {
                let size = field("size").unwrap_or_else(|| "?".to_owned());
                if start != 0 {
                    says.push(format!(
                        "a journal header was kept with the logs ({size}, start {start}: transactions wait in it); \
                         it has no time, so it shows a journal in use and not a stall"
                    ));
                }
            }
        }
    }
    if !supported && !says.is_empty() {
        against.push(format!(
            "no log has a hung task, a device error or a slow write{}",
            if has_kernel_log(scene) {
                ""
            } else {
                " (no kernel log was given)"
            }
        ));
        if let Some(meanwhile) = meanwhile(scene, stalls) {
            against.push(format!(
                "not every log write hung all the time: {meanwhile}"
            ));
        }
    }
    candidate("disk_stall", supported, false, says, against)
}

fn cpu(scene: &Scene, stalls: &[HostStall]) -> Candidate {
    let mut says = told(scene, &[Meaning::SoftLockup]);
    says.extend(lines(scene, &[Meaning::CpuStall]));
    let supported = !says.is_empty();
    let mut against = Vec::new();
    if let Some(stall) = shared(stalls) {
        says.push(together(stall));
        if let Some(meanwhile) = meanwhile(scene, stalls) {
            says.push(format!("single lines come through with long gaps, as from threads that wait their turn: {meanwhile}"));
        }
        if !supported {
            against.push("the gaps sit where a log is written, which needs little CPU".to_owned());
            against.push("not excluded: no log counts run-queue waits or throttling".to_owned());
        }
    }
    candidate("cpu_starved", supported, false, says, against)
}

fn memory(scene: &Scene, stalls: &[HostStall]) -> Candidate {
    let mut says = lines(scene, &[Meaning::OutOfMemory]);
    let supported = !says.is_empty();
    let mut against = Vec::new();
    if let Some(stall) = shared(stalls) {
        says.push(together(stall));
        if !supported {
            against.push("not excluded: no log tells of reclaim or page-ins".to_owned());
        }
    }
    candidate("memory_pressure", supported, false, says, against)
}

fn runtime(scene: &Scene) -> Candidate {
    let says = told(scene, &[Meaning::Pause]);
    candidate("runtime_pause", !says.is_empty(), false, says, Vec::new())
}

/// Name resolution, where a client's call hung that resolves names.
fn resolution(scene: &Scene, stalls: &[HostStall]) -> Candidate {
    let one_call: Vec<String> = scene
        .findings
        .iter()
        .filter(|finding| finding.rule == Rule::OneNow)
        .map(|finding| {
            let until = finding.until.unwrap_or(finding.at);
            format!(
                "the call of {}-{} resolves the servers' names",
                finding.at.time(),
                until.time()
            )
        })
        .collect();
    let mut against = Vec::new();
    if !one_call.is_empty()
        && let Some(stall) = shared(stalls)
    {
        let others: Vec<&str> = stall.processes.iter().map(String::as_str).collect();
        against.push(format!(
            "explains one thread only; {} stalled and resumed with it",
            others.join(" and ")
        ));
    }
    let partial = !against.is_empty();
    let mut found = candidate("waiting_elsewhere", false, false, one_call, against);
    if partial {
        found.standing = Standing::Partial;
    }
    found
}

fn node(scene: &Scene, stalls: &[HostStall]) -> Candidate {
    let Some(stall) = stalls.first() else {
        return candidate("node_pause", false, false, Vec::new(), Vec::new());
    };
    match meanwhile(scene, stalls) {
        Some(meanwhile) => candidate(
            "node_pause",
            false,
            true,
            Vec::new(),
            vec![format!(
                "{} did not stand still as a whole: {meanwhile}",
                stall.host
            )],
        ),
        None => candidate(
            "node_pause",
            false,
            false,
            vec![format!("no log of {} has a line in the time", stall.host)],
            Vec::new(),
        ),
    }
}

/// Lines that were written while the host stalled.
fn meanwhile(scene: &Scene, stalls: &[HostStall]) -> Option<String> {
    let stall = stalls.first()?;
    let end = stall.unblocked.map_or(stall.to, |(first, _)| first);
    let parts: Vec<String> = scene
        .parties
        .iter()
        .enumerate()
        .filter(|(_, party)| party.host == stall.host)
        .filter_map(|(source, party)| {
            let count = scene.logs.sources[source]
                .activity
                .spans_within(stall.from, end);
            (count > 0).then(|| format!("{} wrote at {count} moments in it", party.name))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn network(scene: &Scene, stalls: &[HostStall]) -> Candidate {
    let says = lines(scene, &[Meaning::LinkDown]);
    let supported = !says.is_empty();
    let mut against = Vec::new();
    for renewal in scene
        .derived
        .renewals
        .iter()
        .filter(|renewal| scene.holds(renewal.sent))
    {
        if let (Some(local), Some(peer), true) =
            (&renewal.local, &renewal.peer, renewal.on_one_host())
        {
            against.push(format!(
                "the keepalive of {} went from {local} to {peer}: one host, no switch or network card on the way",
                renewal.sent.time()
            ));
        }
    }
    for stall in &scene.stalls {
        if stall.rule == Rule::Deadline && stall.to.since(stall.from) > SECOND {
            against.push(format!(
                "{}'s own loop was {} late; a network that fails does not hold up the loop",
                scene.party(stall.source).name,
                span(stall.to.since(stall.from))
            ));
        }
    }
    against.dedup();
    let excluded = !against.is_empty() && !stalls.is_empty();
    candidate("network_loss", supported, excluded, says, against)
}

fn peer(scene: &Scene) -> Candidate {
    let mut against = Vec::new();
    let mut says = Vec::new();
    for deadline in scene
        .derived
        .deadlines
        .iter()
        .filter(|deadline| scene.holds(deadline.at))
    {
        let late = deadline.noticed.since(deadline.at);
        let name = &scene.party(deadline.source).name;
        if late > SECOND {
            against.push(format!(
                "{name} noticed its read deadline {} late: it could not have read an answer in time",
                span(late)
            ));
        } else {
            says.push(format!(
                "{name} noticed its read deadline on time: its server or the path was silent"
            ));
        }
    }
    let excluded = says.is_empty() && !against.is_empty();
    candidate("peer_silent", false, excluded, says, against)
}

fn has_kernel_log(scene: &Scene) -> bool {
    scene
        .logs
        .sources
        .iter()
        .any(|source| source.series.kind == super::readers::Kind::Kernel)
}

/// Who was at fault.
#[must_use]
pub fn fault(scene: &Scene, lapsed: &[Lapse], stalls: &[HostStall]) -> Option<Fault> {
    let mut why = Vec::new();
    let mut hosts: Vec<String> = Vec::new();
    for stall in stalls {
        let host = stall.host.as_str();
        let of_host = |called: &str| {
            scene
                .parties
                .iter()
                .enumerate()
                .any(|(source, party)| party.host == host && scene.called(source) == called)
        };
        let mut mine = Vec::new();
        let falsely: Vec<_> = lapsed
            .iter()
            .filter(|lapse| lapse.false_expiry && of_host(&lapse.grantor))
            .collect();
        if let Some(first) = falsely.first() {
            mine.push(format!(
                "as grantor: {} expired {} because it was late itself, not their holders",
                first.grantor,
                super::incidents::leases(falsely.len())
            ));
        }
        for lapse in lapsed
            .iter()
            .filter(|lapse| of_host(&lapse.holder) && !lapse.false_expiry)
        {
            mine.push(format!(
                "as holder: {} stood still while its {} ran out",
                lapse.holder, lapse.what
            ));
        }
        for renewal in scene
            .derived
            .renewals
            .iter()
            .filter(|renewal| scene.holds(renewal.sent))
        {
            if renewal.peer.as_deref().map(host_of) == Some(host) {
                mine.push(format!(
                    "as grantor: a keepalive of {} to it was not answered in {}",
                    renewal.sent.time(),
                    span(renewal.noticed.since(renewal.sent))
                ));
            }
        }
        if !mine.is_empty() {
            mine.insert(
                0,
                format!(
                    "{host} stalled {}-{} ({})",
                    stall.from.time(),
                    stall.to.time(),
                    stall.processes.join(", ")
                ),
            );
            hosts.push(host.to_owned());
            why.append(&mut mine);
        }
    }
    if hosts.is_empty()
        && let Some(proven) = by_recorder(scene)
    {
        return Some(proven);
    }
    if hosts.is_empty() {
        let open = open_questions(scene, lapsed);
        return (!open.is_empty()).then(|| Fault {
            who: "cannot be told from these logs".to_owned(),
            why: open,
        });
    }
    Some(Fault {
        who: hosts.join(" and "),
        why,
    })
}

/// Whose cause the daemon had proven last.
fn by_recorder(scene: &Scene) -> Option<Fault> {
    let event = scene
        .of(Meaning::Warned)
        .filter(|event| event.get("cause").is_some_and(|cause| cause != "unknown"))
        .last()?;
    let node = &scene.party(event.source).host;
    let own = event.get("side") == Some("own");
    let holder = event.get("role") == Some("holder");
    let side = if own == holder {
        "the holder"
    } else {
        "the grantor"
    };
    Some(Fault {
        who: format!("{side}, as seen on {node}"),
        why: vec![format!(
            "{} {}: {}",
            event.at.time(),
            event.get("cause").unwrap_or("?"),
            event.text
        )],
    })
}

fn open_questions(scene: &Scene, lapsed: &[Lapse]) -> Vec<String> {
    let mut open = Vec::new();
    for lapse in lapsed {
        let lease = lapse.lease.as_deref().unwrap_or("(not named)");
        open.push(match (lapse.expired, lapse.learned) {
            (Some(_), None) => format!(
                "lease {lease}: the grantor's log alone does not tell a silent holder from renewals that were not read"
            ),
            (None, Some(_)) => format!("lease {lease}: its grantor's log is not here"),
            _ => format!("lease {lease}: neither log has a stall"),
        });
    }
    for deadline in scene
        .derived
        .deadlines
        .iter()
        .filter(|deadline| scene.holds(deadline.at))
    {
        if deadline.noticed.since(deadline.at) <= SECOND {
            open.push(format!(
                "{} noticed its read deadline on time: the server or the path, and its log does not tell which",
                scene.called(deadline.source)
            ));
        }
    }
    open
}

/// What the logs do not tell, said outright.
#[must_use]
pub fn not_claimed(scene: &Scene, lapsed: &[Lapse]) -> Vec<String> {
    let mut open = Vec::new();
    let candidates = scene.stalls.iter().any(|stall| stall.rule != Rule::Pause);
    let supported =
        scene.stalls.iter().any(|stall| stall.rule == Rule::Pause) || !recorded(scene).is_empty();
    if candidates && !supported {
        open.push(
            "the root cause: logs show that threads stood still, and not on what; no kernel data, no stack, no \
             device figures"
                .to_owned(),
        );
    }
    for lapse in lapsed.iter().filter(|lapse| lapse.expired.is_none()) {
        open.push(format!(
            "when {} {} was expired: only that it was, by {}",
            lapse.what,
            lapse.lease.as_deref().unwrap_or("(not named)"),
            lapse
                .expired_by
                .map_or_else(|| "?".to_owned(), super::wall::Wall::time)
        ));
    }
    if scene
        .derived
        .deadlines
        .iter()
        .any(|deadline| scene.holds(deadline.at) && deadline.timeout.is_none())
    {
        open.push(
            "the ZooKeeper session's timeout T, and so when its last reply came: no line has it"
                .to_owned(),
        );
    }
    let unheard = lapsed
        .iter()
        .filter(|lapse| {
            lapse.false_expiry && !lapse.why.iter().any(|why| why.contains("holder is alive"))
        })
        .count();
    if unheard > 0 {
        open.push(format!(
            "that {unheard} of the holders were alive and punctual: it is the grantor's word, their own logs are not here"
        ));
    }
    let all: BTreeSet<&str> = scene
        .events
        .iter()
        .map(|event| scene.party(event.source).host.as_str())
        .collect();
    // Those that were moved to one clock count as one.
    let settled = |host: &&str| scene.logs.settled.contains(*host);
    let mut hosts: Vec<&str> = all.iter().filter(|host| !settled(host)).copied().collect();
    hosts.extend(all.iter().find(|host| settled(host)));
    if hosts.len() > 1 {
        open.push(format!(
            "how far the clocks of {} are apart: they are taken to agree",
            hosts.join(", ")
        ));
    }
    open
}
