//! The model's values as words: snake_case ones for machines, sentences for a tired human.
//!
//! In: plain values. Out: text. Never: a look at anything else (no clock, no /proc).

use std::fmt::Write as _;

use watchdog_model::causes::collected::{Doing, Part};
use watchdog_model::causes::text::Text;
use watchdog_model::causes::{Cause, CauseSet, Fact, Side};
use watchdog_model::leases::note::{
    Condition, GoneReason, LeaseId, Outcome, Stage, Subject, Transition,
};
use watchdog_model::leases::observation::{CloseHow, Comm, Role, StallKind, TimeoutSource};
use watchdog_model::time::{MS, Mono};

use super::incidents::{Change, IncidentId, State, Thing, is_of_peer};

/// Word of a stage.
#[must_use]
pub const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Healthy => "healthy",
        Stage::Late => "late",
        Stage::AtRisk => "at_risk",
        Stage::Jeopardy => "jeopardy",
        Stage::Lapsed => "lapsed",
    }
}

/// Word of where a transition leads.
#[must_use]
pub const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stage(to) => stage(to),
        Outcome::Renewed => "renewed",
        Outcome::Expired => "expired",
    }
}

/// Word of a role.
#[must_use]
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Holder => "holder",
        Role::Grantor => "grantor",
    }
}

/// Word of a timeout's source.
#[must_use]
pub const fn timeout_source(source: TimeoutSource) -> &'static str {
    match source {
        TimeoutSource::Inferred => "inferred",
        TimeoutSource::Config => "config",
        TimeoutSource::Handshake => "handshake",
    }
}

/// Word of a condition; none for "nothing is wrong".
#[must_use]
pub const fn condition(condition: Condition) -> Option<&'static str> {
    Some(match condition {
        Condition::None => return None,
        Condition::RenewalNotSent => "renewal_not_sent",
        Condition::RenewalStuckSending => "renewal_stuck_sending",
        Condition::RenewalUnanswered => "renewal_unanswered",
        Condition::ReplyUnread => "reply_unread",
        Condition::RenewalUnread => "renewal_unread",
        Condition::RenewalUnprocessed => "renewal_unprocessed",
        Condition::HolderSilent => "holder_silent",
        Condition::ThreadStalled => "thread_stalled",
        Condition::ConnectionLost => "connection_lost",
        Condition::HolderExited => "holder_exited",
    })
}

/// All causes, in the model's order.
pub const CAUSES: [Cause; 15] = [
    Cause::NodePause,
    Cause::ProcessStopped,
    Cause::DiskStall,
    Cause::MemoryPressure,
    Cause::CpuThrottled,
    Cause::CpuStarved,
    Cause::RuntimePause,
    Cause::LockWait,
    Cause::ThreadBusy,
    Cause::WaitingElsewhere,
    Cause::NetworkLoss,
    Cause::PeerDown,
    Cause::PeerWindow,
    Cause::PeerSilent,
    Cause::Unknown,
];

/// Word of a cause, and the same for people.
#[must_use]
pub const fn cause_both(cause: Cause) -> (&'static str, &'static str) {
    match cause {
        Cause::NodePause => ("node_pause", "the whole node stood still"),
        Cause::ProcessStopped => ("process_stopped", "the process is stopped"),
        Cause::DiskStall => ("disk_stall", "waits for a disk that completes nothing"),
        Cause::MemoryPressure => ("memory_pressure", "waits for memory"),
        Cause::CpuThrottled => ("cpu_throttled", "its cgroup's CPU quota is used up"),
        Cause::CpuStarved => ("cpu_starved", "runnable, but others run"),
        Cause::RuntimePause => ("runtime_pause", "its runtime stopped the world"),
        Cause::LockWait => ("lock_wait", "waits for a lock"),
        Cause::ThreadBusy => ("thread_busy", "busy, does not return to its socket"),
        Cause::WaitingElsewhere => ("waiting_elsewhere", "waits for something else"),
        Cause::NetworkLoss => ("network_loss", "packets are lost on the way"),
        Cause::PeerDown => ("peer_down", "the peer is down"),
        Cause::PeerWindow => ("peer_window", "the peer's application does not read"),
        Cause::PeerSilent => (
            "peer_silent",
            "the peer's TCP answers, its application does not",
        ),
        Cause::Unknown => ("unknown", "cause not known"),
    }
}

/// Word of a cause.
#[must_use]
pub const fn cause(cause: Cause) -> &'static str {
    cause_both(cause).0
}

/// Word of an end.
#[must_use]
pub const fn gone_reason(reason: GoneReason) -> &'static str {
    match reason {
        GoneReason::Closed => "closed",
        GoneReason::Expired => "expired",
        GoneReason::HolderExited => "holder_exited",
        GoneReason::FlowLost => "flow_lost",
    }
}

/// Word of a side.
#[must_use]
pub const fn side(side: Side) -> &'static str {
    match side {
        Side::Own => "own",
        Side::Peer => "peer",
    }
}

/// Word of how a flow ended.
#[must_use]
pub const fn close_how(how: CloseHow) -> &'static str {
    match how {
        CloseHow::PeerFin => "peer_fin",
        CloseHow::PeerReset => "peer_reset",
        CloseHow::OwnClose => "own_close",
        CloseHow::OwnExit => "own_exit",
        CloseHow::TimedOut => "timed_out",
    }
}

/// A thread's state as ps shows it; `frozen` has no letter of its own there.
#[must_use]
pub const fn stall(kind: StallKind) -> &'static str {
    match kind {
        StallKind::Stopped => "T",
        StallKind::Frozen => "frozen",
        StallKind::Uninterruptible => "D",
        StallKind::Starved => "R",
    }
}

/// What a thread does, as ps shows it; none where that is not known.
#[must_use]
pub const fn doing(doing: Doing) -> Option<&'static str> {
    Some(match doing {
        Doing::Running => "R",
        Doing::Sleeping => "S",
        Doing::Uninterruptible => "D",
        Doing::Stopped => "T",
        Doing::Other => return None,
    })
}

/// Word of a thread's part.
#[must_use]
pub const fn part(part: Part) -> &'static str {
    match part {
        Part::Serving => "serving",
        Part::Owner => "lock_owner",
        Part::Other => "waited_for",
        Part::Runtime => "runtime",
    }
}

/// The words of several causes.
#[must_use]
pub fn cause_words(causes: CauseSet) -> Vec<&'static str> {
    CAUSES
        .into_iter()
        .filter(|one| causes.has(*one))
        .map(cause)
        .collect()
}

/// Word of what became of an incident.
#[must_use]
pub const fn incident_state(state: State) -> &'static str {
    match state {
        State::Opened => "opened",
        State::Grown => "grown",
        State::Closed => "closed",
    }
}

/// A thread's or process's name, fit for a terminal: whoever names a thread must not be able to
/// move the cursor, end the line or turn the writing direction of whoever reads the log.
#[must_use]
pub fn name(comm: &Comm) -> String {
    let end = comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(comm.len());
    printable(&comm[..end])
}

/// A path or another name from the kernel, as safe.
#[must_use]
pub fn text<const N: usize>(text: &Text<N>) -> String {
    printable(text.as_bytes())
}

fn printable(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if c.is_control() || invisible {
                shown.extend(c.escape_unicode());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _written = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// What a lease is called in events.
#[must_use]
pub fn lease_id(id: &LeaseId) -> String {
    match id {
        LeaseId::Session(session) => format!("{session:#x}"),
        LeaseId::Flow { local, peer } => format!("{local}>{peer}"),
    }
}

/// A thing, as the events and alerts call it.
#[must_use]
pub fn thing(change: &Change, entries: &[String]) -> String {
    let named = |pid: u32| match &change.comm {
        Some(comm) => format!("process {}/{pid}", name(comm)),
        None => format!("process {pid}"),
    };
    match change.thing {
        Thing::Node => "node".to_owned(),
        Thing::Process(pid) => named(pid),
        Thing::Device(name) => format!("disk {}", text(&name)),
        Thing::Cgroup(path) => format!("cgroup {}", text(&path)),
        Thing::Service(address) => format!("peer {address}"),
        Thing::Host(address) => format!("peer {address}"),
        Thing::Entry { entry, pid } => {
            let entry = entry_name(entries, entry);
            match pid {
                Some(pid) => format!("{entry} leases of {}", named(pid)),
                None => format!("{entry} leases"),
            }
        }
        Thing::Lease(_) => format!("lease {}", lease_id(&change.worst)),
    }
}

/// The name of a config entry.
#[must_use]
pub fn entry_name(entries: &[String], entry: u16) -> &str {
    entries
        .get(usize::from(entry))
        .map_or("unknown", String::as_str)
}

/// Seconds with one decimal: what a glance needs.
fn seconds(span_ns: i128) -> String {
    format!("{:.1} s", span_ns as f64 / 1e9)
}

fn span(span_ns: u64) -> String {
    seconds(span_ns.into())
}

/// "zookeeper session 0x3001e647d600030".
fn called(entries: &[String], entry: u16, id: &LeaseId) -> String {
    let kind = match id {
        LeaseId::Session(_) => "session",
        LeaseId::Flow { .. } => "lease",
    };
    format!("{} {kind} {}", entry_name(entries, entry), lease_id(id))
}

/// The other end, in words.
const fn other_side(role: Role) -> &'static str {
    match role {
        Role::Holder => "the server's side",
        Role::Grantor => "the client's side",
    }
}

/// A transition in a line: which lease, how long it has, what is due, why.
#[must_use]
pub fn summary(entries: &[String], transition: &Transition, now: Mono) -> String {
    let subject = &transition.subject;
    let mut line = called(entries, subject.entry, &subject.id);
    line += ": ";
    match transition.to {
        Outcome::Renewed => {
            let _written = write!(line, "renewed, was {}", stage(transition.from));
            return line;
        }
        Outcome::Stage(Stage::Healthy) => {
            line += "healthy";
            return line;
        }
        Outcome::Expired => line += "expired",
        Outcome::Stage(_) => line += &time_left(transition),
    }
    if let Some(words) = condition_words(transition, now) {
        line += "; ";
        line += &words;
    }
    line += "; ";
    if is_of_peer(transition) {
        let _written = write!(line, "on {}: ", other_side(subject.role));
    }
    line += &why(transition);
    line
}

/// How many others are hit by the same, at the end of a line.
#[must_use]
pub fn others(leases: usize) -> String {
    match leases {
        0 | 1 => String::new(),
        2 => "; 1 other lease likewise".to_owned(),
        n => format!("; {} other leases likewise", n - 1),
    }
}

fn time_left(transition: &Transition) -> String {
    match (transition.remaining_ns, transition.subject.timeout_ns) {
        (Some(left), Some(timeout)) if left >= 0 => {
            format!("{} left of {}", seconds(left.into()), span(timeout))
        }
        (Some(left), _) if left < 0 => {
            format!("may have expired {} ago", seconds(-i128::from(left)))
        }
        (Some(left), _) => format!("{} left", seconds(left.into())),
        (None, _) => match transition.silent_ns {
            Some(silent) => format!("{} since the last renewal, timeout not known", span(silent)),
            None => "no renewal seen yet, timeout not known".to_owned(),
        },
    }
}

fn condition_words(transition: &Transition, now: Mono) -> Option<String> {
    let lasted = span(now.since(transition.since));
    let client = match transition.subject.role {
        Role::Holder => "process",
        Role::Grantor => "client",
    };
    Some(match transition.condition {
        Condition::None => return None,
        Condition::RenewalNotSent => format!("renewal overdue by {lasted}"),
        Condition::RenewalStuckSending => format!("renewal stuck in sending for {lasted}"),
        Condition::RenewalUnanswered => format!("renewal unanswered for {lasted}"),
        Condition::ReplyUnread => format!("reply lies unread for {lasted}"),
        Condition::RenewalUnread => format!("renewal lies unread for {lasted}"),
        Condition::RenewalUnprocessed => format!("renewal read but not answered for {lasted}"),
        Condition::HolderSilent => format!("client silent for {lasted}"),
        Condition::ThreadStalled => match (transition.silent_ns, transition.subject.timeout_ns) {
            // Most clients renew every third of the timeout.
            (Some(silent), Some(timeout)) if silent >= timeout / 3 => "renewal due now".to_owned(),
            (Some(silent), _) => format!("last renewal {} ago", span(silent)),
            (None, _) => return None,
        },
        Condition::ConnectionLost => format!("connection lost {lasted} ago"),
        Condition::HolderExited => format!("{client} gone {lasted} ago without closing it"),
    })
}

/// The cause, and its most telling facts.
fn why(transition: &Transition) -> String {
    let cause = transition.verdict.cause;
    let (_, words) = cause_both(cause);
    let mut told = transition.verdict.facts().filter_map(fact_words);
    let Some(first) = told.next() else {
        return words.to_owned();
    };
    match cause {
        // The fact says it all.
        Cause::ProcessStopped => first,
        Cause::CpuStarved => match of_runner(transition) {
            Some(runner) => format!("{first}; {runner}"),
            None => first,
        },
        // Who waits, for what, and who waits for it in turn.
        Cause::DiskStall
        | Cause::RuntimePause
        | Cause::LockWait
        | Cause::CpuThrottled
        | Cause::MemoryPressure
        | Cause::WaitingElsewhere => {
            let proof = proof_length(transition);
            let rest: Vec<String> = told.take(proof.saturating_sub(1)).collect();
            let facts = std::iter::once(first)
                .chain(rest)
                .collect::<Vec<_>>()
                .join(", ");
            format!("{words}: {facts}")
        }
        _ => format!("{words}: {first}"),
    }
}

/// All facts of a verdict in a line.
#[must_use]
pub fn evidence(transition: &Transition) -> String {
    let told: Vec<String> = transition.verdict.facts().filter_map(fact_words).collect();
    if told.is_empty() {
        "nothing that tells more".to_owned()
    } else {
        told.join("; ")
    }
}

/// How long a lease has, in words.
#[must_use]
pub fn remaining(left_ns: Option<i64>) -> String {
    match left_ns {
        None => "not known: its timeout is inferred".to_owned(),
        Some(left) if left >= 0 => format!("{} until it may lapse", seconds(left.into())),
        Some(left) => format!("could have lapsed {} ago", seconds(-i128::from(left))),
    }
}

/// How many of the facts are the cause's own proof: two or three that belong together.
fn proof_length(transition: &Transition) -> usize {
    transition
        .verdict
        .facts()
        .take_while(|fact| {
            matches!(
                fact,
                Fact::ThreadWaits { .. }
                    | Fact::Device { .. }
                    | Fact::Throttled { .. }
                    | Fact::Memory { .. }
                    | Fact::WaitsForSocket { .. }
                    | Fact::CpuTime { .. }
            )
        })
        .count()
}

fn of_runner(transition: &Transition) -> Option<String> {
    transition
        .verdict
        .facts()
        .find(|fact| matches!(fact, Fact::RunsInstead { .. }))
        .and_then(fact_words)
}

/// "thread meta/7 waits in ext4_sync_file".
fn thread_words(part: Part, tid: u32, comm: &Comm, does: Doing, at: &str) -> String {
    let who = format!("{}/{tid}", name(comm));
    let who = match part {
        Part::Serving => format!("thread {who}"),
        Part::Owner => format!("the lock's owner {who}"),
        Part::Other => format!("its thread {who}"),
        Part::Runtime => format!("the runtime's {who}"),
    };
    match (does, at) {
        (Doing::Running, _) => format!("{who} runs"),
        (Doing::Stopped, _) => format!("{who} is stopped"),
        (Doing::Uninterruptible, "") => format!("{who} hangs"),
        (Doing::Uninterruptible, at) => format!("{who} hangs in {at}"),
        (Doing::Sleeping | Doing::Other, "") => format!("{who} waits"),
        (Doing::Sleeping | Doing::Other, at) => format!("{who} waits in {at}"),
    }
}

/// A share of a span in whole per cent.
fn percent(part_ns: u64, of_ns: u64) -> u64 {
    part_ns.saturating_mul(100).checked_div(of_ns).unwrap_or(0)
}

/// A fact for people; none where it tells nothing that the line does not say already.
fn fact_words(fact: &Fact) -> Option<String> {
    Some(match fact {
        Fact::ThreadState {
            tid,
            comm,
            state,
            for_ns,
            ..
        } => {
            let state = match state {
                StallKind::Stopped => "stopped",
                StallKind::Frozen => "frozen",
                StallKind::Uninterruptible => "in uninterruptible sleep",
                StallKind::Starved => "kept off the CPUs",
            };
            format!("thread {}/{tid} {state} for {}", name(comm), span(*for_ns))
        }
        Fact::Unanswered { for_ns } => {
            format!("acknowledged and not answered for {}", span(*for_ns))
        }
        Fact::Unread { for_ns, .. } => format!("unread in the socket for {}", span(*for_ns)),
        Fact::Silent { for_ns } => format!("nothing came for {}", span(*for_ns)),
        Fact::Unacknowledged {
            for_ns,
            retransmits,
        } => format!(
            "not acknowledged for {}, {retransmits} retransmissions",
            span(*for_ns)
        ),
        Fact::FlowClosed { how, for_ns } => {
            let how = match how {
                CloseHow::PeerFin => "closed by the peer",
                CloseHow::PeerReset => "reset by the peer",
                CloseHow::OwnClose => "closed by this end",
                CloseHow::OwnExit => "closed by the end of its process",
                CloseHow::TimedOut => "given up by TCP",
            };
            format!("{how} {} ago", span(*for_ns))
        }
        _ => return gathered_words(fact),
    })
}

/// The same for what is gathered when a lease is late.
fn gathered_words(fact: &Fact) -> Option<String> {
    Some(match fact {
        Fact::ThreadWaits {
            part,
            tid,
            comm,
            doing,
            at,
            ..
        } => thread_words(*part, *tid, comm, *doing, &text(at)),
        Fact::Device {
            name,
            in_flight,
            silent_ns,
            committing_ns,
            ..
        } => {
            let commit = match committing_ns {
                0 => String::new(),
                ns => format!(", journal commit under way for {}", span(*ns)),
            };
            let requests = match in_flight {
                1 => "request",
                _ => "requests",
            };
            format!(
                "{} has finished nothing for {} with {in_flight} {requests} in flight{commit}",
                text(name),
                span(*silent_ns)
            )
        }
        Fact::Frozen { cgroup, .. } => format!("cgroup {} frozen", text(cgroup)),
        Fact::Throttled {
            cgroup,
            throttled_ns,
            over_ns,
            ..
        } => format!(
            "cgroup {} throttled for {} of the last {}",
            text(cgroup),
            span(*throttled_ns),
            span(*over_ns)
        ),
        Fact::CpuTime {
            tid,
            ran_ns,
            waited_ns,
            over_ns,
            ..
        } => format!(
            "thread {tid} had a CPU for {} % and waited for one for {} % of the last {}",
            percent(*ran_ns, *over_ns),
            percent(*waited_ns, *over_ns),
            span(*over_ns)
        ),
        Fact::RunsInstead {
            tid, comm, cgroup, ..
        } => {
            let cgroup = match text(cgroup).as_str() {
                "" | "/" => String::new(),
                cgroup => format!(" of {cgroup}"),
            };
            format!("{}/{tid}{cgroup} runs instead", name(comm))
        }
        Fact::Memory {
            major_faults,
            refaults,
            over_ns,
            ..
        } => format!(
            "{major_faults} major faults and {refaults} pages fetched back in {}",
            span(*over_ns)
        ),
        Fact::WaitsForSocket { peer, .. } => format!("an answer of {peer}"),
        Fact::Tcp {
            unacked,
            unsent_bytes,
            send_window,
            ..
        } => format!(
            "{unsent_bytes} bytes unsent, {unacked} segments unacknowledged, window {send_window}"
        ),
        Fact::NodePaused { for_ns, .. } => format!("nothing ran for {}", span(*for_ns)),
        Fact::RuledOut { .. } => return None,
        _ => return None,
    })
}

/// An incident in a line.
#[must_use]
pub fn incident_summary(entries: &[String], change: &Change, closed: bool) -> String {
    let leases = match change.leases {
        1 => called(entries, change.entry, &change.worst),
        n => format!(
            "{n} leases, worst {}",
            called(entries, change.entry, &change.worst)
        ),
    };
    let why = format!("{}: {}", thing(change, entries), cause_both(change.cause).1);
    if let (true, Some(IncidentId(whole))) = (closed, change.joined) {
        let stage = stage(change.stage);
        return format!("part of incident {whole} now: {why}; {leases}, was {stage}");
    }
    match (closed, change.expired) {
        (false, 0) => format!("{why}; {leases}, {}", stage(change.stage)),
        (false, expired) => format!(
            "{why}; {leases}, {}; {expired} expired",
            stage(change.stage)
        ),
        (true, 0) => format!(
            "over, none expired: {why}; {leases}, was {}",
            stage(change.stage)
        ),
        (true, expired) => format!(
            "over, {expired} expired: {why}; {leases}, was {}",
            stage(change.stage)
        ),
    }
}

/// What one is called that has no more than a subject.
#[must_use]
pub fn subject_called(entries: &[String], subject: &Subject) -> String {
    called(entries, subject.entry, &subject.id)
}

/// ns to whole ms.
#[must_use]
pub const fn to_ms(span_ns: u64) -> u64 {
    span_ns / MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::samples::{Sample, comm};
    use watchdog_model::causes::text::Label;

    fn said(sample: Sample) -> String {
        summary(&["zookeeper".to_owned()], &sample.0, Mono(5_000_000_000))
    }

    #[test]
    fn the_designs_example() {
        let sample = Sample::late(0x0300_1e64_7d60_0030)
            .from(Stage::Late)
            .to(Outcome::Stage(Stage::AtRisk))
            .condition(Condition::ThreadStalled, Mono(2_000_000_000))
            .cause(Cause::ProcessStopped)
            .stopped(Side::Own);
        assert_eq!(
            said(sample),
            "zookeeper session 0x3001e647d600030: 8.0 s left of 12.0 s; renewal due now; \
             thread meta/138783 stopped for 3.0 s"
        );
    }

    #[test]
    fn each_kind_of_line() {
        let since = Mono(2_500_000_000);
        for (sample, expected) in [
            (
                Sample::late(1)
                    .condition(Condition::RenewalUnanswered, since)
                    .cause(Cause::ProcessStopped)
                    .stopped(Side::Peer),
                "zookeeper session 0x1: 8.0 s left of 12.0 s; renewal unanswered for 2.5 s; \
                 on the server's side: thread meta/138783 stopped for 3.0 s",
            ),
            (
                Sample::late(1)
                    .grantor()
                    .condition(Condition::HolderSilent, since)
                    .cause(Cause::ProcessStopped)
                    .stopped(Side::Peer),
                "zookeeper session 0x1: 8.0 s left of 12.0 s; client silent for 2.5 s; \
                 on the client's side: thread meta/138783 stopped for 3.0 s",
            ),
            (
                Sample::late(1)
                    .remaining_ms(-1500)
                    .condition(Condition::ConnectionLost, since),
                "zookeeper session 0x1: may have expired 1.5 s ago; connection lost 2.5 s ago; \
                 cause not known",
            ),
            (
                Sample::late(1).to(Outcome::Renewed).from(Stage::Jeopardy),
                "zookeeper session 0x1: renewed, was jeopardy",
            ),
            (
                Sample::late(1)
                    .to(Outcome::Expired)
                    .condition(Condition::None, since)
                    .cause(Cause::NetworkLoss)
                    .fact(Fact::Unacknowledged {
                        for_ns: 9_000_000_000,
                        retransmits: 6,
                    }),
                "zookeeper session 0x1: expired; packets are lost on the way: \
                 not acknowledged for 9.0 s, 6 retransmissions",
            ),
        ] {
            assert_eq!(said(sample), expected);
        }
        let mut inferred = Sample::late(1).0;
        inferred.remaining_ns = None;
        inferred.subject.id = LeaseId::Flow {
            local: inferred.subject.endpoints.local,
            peer: inferred.subject.endpoints.peer,
        };
        assert_eq!(
            summary(&["rpc".to_owned()], &inferred, Mono(1_000_000_000)),
            "rpc lease 10.10.10.161:40222>10.10.10.163:2181: 4.0 s since the last renewal, \
             timeout not known; renewal overdue by 1.0 s; cause not known"
        );
    }

    fn label(name: &str) -> Label {
        Label::end_of(name.as_bytes())
    }

    fn waits(side: Side, part: Part, tid: u32, doing: Doing, at: &str) -> Fact {
        Fact::ThreadWaits {
            side,
            part,
            tid,
            comm: comm(b"meta"),
            doing,
            at: label(at),
        }
    }

    fn device(side: Side) -> Fact {
        Fact::Device {
            side,
            name: Text::end_of(b"sda"),
            in_flight: 3,
            silent_ns: 4_200_000_000,
            oldest_ns: 4_300_000_000,
            committing_ns: 2_000_000_000,
        }
    }

    /// What the person on call reads, one line a cause.
    #[test]
    fn the_lines_of_gathered_causes() {
        let since = Mono(2_500_000_000);
        let head = "zookeeper session 0x1: 8.0 s left of 12.0 s; ";
        let late = |cause| {
            Sample::late(1)
                .condition(Condition::RenewalNotSent, since)
                .cause(cause)
        };
        let cpu = |ran_ns, waited_ns| Fact::CpuTime {
            side: Side::Own,
            tid: 7,
            ran_ns,
            waited_ns,
            over_ns: 1_000_000_000,
        };
        for (sample, expected) in [
            (
                late(Cause::DiskStall)
                    .fact(waits(
                        Side::Own,
                        Part::Owner,
                        8,
                        Doing::Uninterruptible,
                        "fsync of /data/log",
                    ))
                    .fact(device(Side::Own))
                    .fact(waits(Side::Own, Part::Serving, 7, Doing::Sleeping, "futex")),
                "renewal overdue by 2.5 s; waits for a disk that completes nothing: the lock's \
                 owner meta/8 hangs in fsync of /data/log, sda has finished nothing for 4.2 s with \
                 3 requests in flight, journal commit under way for 2.0 s, thread meta/7 waits in \
                 futex",
            ),
            (
                late(Cause::DiskStall)
                    .condition(Condition::RenewalUnanswered, since)
                    .fact(waits(
                        Side::Peer,
                        Part::Other,
                        8,
                        Doing::Uninterruptible,
                        "",
                    ))
                    .fact(device(Side::Peer)),
                "renewal unanswered for 2.5 s; on the server's side: waits for a disk that \
                 completes nothing: its thread meta/8 hangs, sda has finished nothing for 4.2 s \
                 with 3 requests in flight, journal commit under way for 2.0 s",
            ),
            (
                late(Cause::CpuThrottled)
                    .fact(Fact::Throttled {
                        side: Side::Own,
                        cgroup: label("/meta"),
                        throttled_ns: 900_000_000,
                        over_ns: 1_000_000_000,
                    })
                    .fact(cpu(10_000_000, 990_000_000)),
                "renewal overdue by 2.5 s; its cgroup's CPU quota is used up: cgroup /meta \
                 throttled for 0.9 s of the last 1.0 s, thread 7 had a CPU for 1 % and waited for \
                 one for 99 % of the last 1.0 s",
            ),
            (
                late(Cause::CpuStarved)
                    .fact(cpu(10_000_000, 990_000_000))
                    .fact(Fact::RunsInstead {
                        side: Side::Own,
                        tid: 9,
                        comm: comm(b"hog"),
                        cgroup: label("/batch"),
                    }),
                "renewal overdue by 2.5 s; thread 7 had a CPU for 1 % and waited for one for 99 % \
                 of the last 1.0 s; hog/9 of /batch runs instead",
            ),
            (
                late(Cause::WaitingElsewhere)
                    .fact(Fact::WaitsForSocket {
                        side: Side::Own,
                        peer: "192.0.2.53:53".parse().unwrap(),
                    })
                    .fact(waits(Side::Own, Part::Serving, 7, Doing::Sleeping, "poll")),
                "renewal overdue by 2.5 s; waits for something else: an answer of 192.0.2.53:53, \
                 thread meta/7 waits in poll",
            ),
            (
                late(Cause::RuntimePause)
                    .fact(waits(Side::Own, Part::Runtime, 8, Doing::Running, ""))
                    .fact(waits(Side::Own, Part::Serving, 7, Doing::Sleeping, "futex")),
                "renewal overdue by 2.5 s; its runtime stopped the world: the runtime's meta/8 \
                 runs, thread meta/7 waits in futex",
            ),
            (
                late(Cause::MemoryPressure).fact(Fact::Memory {
                    side: Side::Own,
                    major_faults: 70,
                    refaults: 900,
                    pressure_ns: 0,
                    over_ns: 500_000_000,
                }),
                "renewal overdue by 2.5 s; waits for memory: 70 major faults and 900 pages \
                 fetched back in 0.5 s",
            ),
            (
                late(Cause::PeerWindow).fact(Fact::Tcp {
                    unacked: 0,
                    unsent_bytes: 12,
                    send_window: 0,
                    rto_ns: 200_000_000,
                }),
                "renewal overdue by 2.5 s; the peer's application does not read: 12 bytes \
                 unsent, 0 segments unacknowledged, window 0",
            ),
            (
                late(Cause::NodePause).fact(Fact::NodePaused {
                    for_ns: 3_000_000_000,
                    steal_ns: 0,
                }),
                "renewal overdue by 2.5 s; the whole node stood still: nothing ran for 3.0 s",
            ),
            (
                late(Cause::Unknown).fact(Fact::RuledOut {
                    causes: CauseSet::default().with(Cause::DiskStall),
                }),
                "renewal overdue by 2.5 s; cause not known",
            ),
        ] {
            assert_eq!(said(sample), format!("{head}{expected}"));
        }
        assert_eq!(others(1), "");
        assert_eq!(others(50), "; 49 other leases likewise");
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(name(&comm(b"meta")), "meta");
        assert_eq!(name(&comm(b"a\x1b[2J\nb")), "a\\u{1b}[2J\\u{a}b");
        assert_eq!(name(&comm(b"a\xffb")), "a\\xffb");
        assert_eq!(name(&comm("x\u{202e}y".as_bytes())), "x\\u{202e}y");
        assert_eq!(name(&comm("größe".as_bytes())), "größe");
        assert_eq!(name(&[b'x'; 16]), "xxxxxxxxxxxxxxxx");
    }

    #[test]
    fn every_cause_has_its_own_word() {
        let mut words: Vec<_> = CAUSES.iter().map(|one| cause(*one)).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), CAUSES.len());
        assert!(CAUSES.is_sorted());
    }
}
