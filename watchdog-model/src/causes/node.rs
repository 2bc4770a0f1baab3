//! The own node's other causes: disk, memory, CPU, the runtime, locks, and a thread that is simply
//! busy. Each is a function of one end's evidence; the order in which they are tried is the
//! table's, in [`super::verdict`].
//!
//! In: one end. Out: whether the cause is proven, and its facts. Never: a cause by the absence of
//! others.

use super::collected::{Collected, DeviceLook, Doing, Part, ThreadLook, Wait};
use super::verdict::{End, HARD_STALL_NS, stall_fact, thread_fact};
use super::{Fact, Verdict};
use crate::leases::note::Condition;
use crate::leases::observation::{Role, StallKind};
use crate::time::{MS, Mono};

/// Figures over less than this say nothing: a scheduler's slice is some milliseconds.
const SPAN_AT_LEAST_NS: u64 = 20 * MS;

/// A thread in uninterruptible sleep for a file's sake.
fn hangs_in_file(thread: &ThreadLook) -> bool {
    thread.doing == Doing::Uninterruptible && thread.wait == Wait::File
}

/// A device that has requests and has finished none for the length of a hard stall.
fn stands_still(device: &DeviceLook) -> bool {
    device.in_flight > 0
        && device
            .silent_ns
            .is_some_and(|silent_ns| silent_ns >= HARD_STALL_NS)
}

/// The thread that the flow waits for and that hangs in a file: one that serves it, the owner of
/// the lock that it waits for, or, where that cannot be known, another of the process that has to
/// do its part first (a server's thread that syncs the log before anything is answered).
fn hanging<'a>(end: &End<'_>, looks: &'a Collected) -> Option<&'a ThreadLook> {
    let serving = looks.thread(Part::Serving);
    if let Some(serving) = serving.filter(|serving| hangs_in_file(serving)) {
        return Some(serving);
    }
    let behind = looks.behind().filter(|behind| hangs_in_file(behind))?;
    let waits = match serving {
        Some(serving) if serving.wait == Wait::Futex => true,
        // What is read and not answered may wait for any thread of the process.
        _ => end.condition == Condition::RenewalUnprocessed,
    };
    waits.then_some(behind)
}

/// `disk_stall`: a thread in D inside a file or journal wait, and its device has requests in flight
/// and has completed nothing for the length of a hard stall.
pub(super) fn disk(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(looks) = end.looks(now) else {
        return false;
    };
    let Some(device) = looks.device.filter(stands_still) else {
        return false;
    };
    let Some(thread) = hanging(end, looks) else {
        return false;
    };
    verdict.push(thread_fact(end.side, thread));
    verdict.push(Fact::Device {
        side: end.side,
        name: device.name,
        in_flight: device.in_flight,
        silent_ns: device.silent_ns.unwrap_or(0),
        oldest_ns: device.oldest_ns.unwrap_or(0),
        committing_ns: device.committing_ns.unwrap_or(0),
    });
    if thread.part != Part::Serving
        && let Some(serving) = looks.thread(Part::Serving)
    {
        verdict.push(thread_fact(end.side, serving));
    }
    true
}

/// Major faults of a thread or pages fetched back, per second, from which on a process is short of
/// memory. A healthy one has a few when it starts.
const FAULTS_A_SECOND: u64 = 20;

/// `memory_pressure`: a thread waits for memory, or for pages that were thrown out, while the
/// device completes and such pages come back all the time.
pub(super) fn memory(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(looks) = end.looks(now) else {
        return false;
    };
    let memory = looks.memory;
    if memory.over_ns < SPAN_AT_LEAST_NS {
        return false;
    }
    let many = |count: u64| count * crate::time::SECOND >= FAULTS_A_SECOND * memory.over_ns;
    let node = many(memory.major_faults)
        || many(memory.refaults / 8)
        || memory.pressure_ns >= memory.over_ns / 5;
    let feels = |thread: &&ThreadLook| {
        thread.part != Part::Runtime
            && (thread.wait == Wait::Memory
                || thread.major_faults > 0
                || hangs_in_file(thread) && memory.major_faults > 0)
    };
    let Some(thread) = looks.threads.iter().flatten().find(feels) else {
        return false;
    };
    if !node || looks.device.as_ref().is_some_and(stands_still) {
        return false;
    }
    verdict.push(Fact::Memory {
        side: end.side,
        major_faults: memory.major_faults,
        refaults: memory.refaults,
        pressure_ns: memory.pressure_ns,
        over_ns: memory.over_ns,
    });
    verdict.push(thread_fact(end.side, thread));
    true
}

/// The serving thread, if it wants a CPU and has hardly any.
fn wants_cpu<'a>(end: &End<'_>, looks: &'a Collected) -> Option<&'a ThreadLook> {
    let serving = looks.thread(Part::Serving)?;
    let starved = end
        .stall
        .is_some_and(|stall| stall.kind == StallKind::Starved);
    let waits = serving.over_ns >= SPAN_AT_LEAST_NS
        && serving.waited_ns >= serving.over_ns / 2
        && serving.ran_ns < serving.over_ns / 4;
    let asleep = matches!(serving.doing, Doing::Uninterruptible | Doing::Stopped);
    ((starved || waits) && !asleep).then_some(serving)
}

/// Whether it had so much of a CPU (a tenth of it) that a renewal, which takes microseconds, does not
/// wait for want of more: who runs so long and still does not come back to its socket is busy.
fn has_run(thread: &ThreadLook) -> bool {
    thread.ran_ns >= thread.over_ns / 10
}

fn push_cpu(end: &End<'_>, thread: &ThreadLook, now: Mono, verdict: &mut Verdict) {
    if let Some(stall) = end.stall.filter(|stall| stall.kind == StallKind::Starved) {
        verdict.push(stall_fact(end.side, stall, now));
    }
    verdict.push(Fact::CpuTime {
        side: end.side,
        tid: thread.tid,
        ran_ns: thread.ran_ns,
        waited_ns: thread.waited_ns,
        over_ns: thread.over_ns,
    });
}

/// `cpu_throttled`: it wants a CPU, and its cgroup's throttled time grows.
pub(super) fn throttled(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(looks) = end.looks(now) else {
        return false;
    };
    let Some(cgroup) = looks.cgroup.filter(|cgroup| {
        cgroup.over_ns >= SPAN_AT_LEAST_NS && cgroup.throttled_ns >= cgroup.over_ns / 5
    }) else {
        return false;
    };
    let Some(thread) = wants_cpu(end, looks) else {
        return false;
    };
    verdict.push(Fact::Throttled {
        side: end.side,
        cgroup: cgroup.path,
        throttled_ns: cgroup.throttled_ns,
        over_ns: cgroup.over_ns,
    });
    push_cpu(end, thread, now, verdict);
    true
}

/// `cpu_starved`: it wants a CPU, and others have it.
pub(super) fn starved(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let looks = end.looks(now);
    let stall = end.stall.filter(|stall| stall.kind == StallKind::Starved);
    let thread = looks
        .and_then(|looks| wants_cpu(end, looks))
        .filter(|thread| stall.is_some() || !has_run(thread));
    match (thread, stall) {
        (Some(thread), _) => push_cpu(end, thread, now, verdict),
        // Where nothing could be gathered the scheduler's word stands alone.
        (None, Some(stall)) if looks.is_none() && end.is_overdue_for_looks(now) => {
            verdict.push(stall_fact(end.side, stall, now));
        }
        _ => return false,
    }
    if let Some(runner) = looks.and_then(|looks| looks.runner) {
        verdict.push(Fact::RunsInstead {
            side: end.side,
            tid: runner.tid,
            comm: runner.comm,
            cgroup: runner.cgroup,
        });
    }
    true
}

/// `runtime_pause`: the serving threads wait in futex while a thread of the runtime runs (or wants
/// to) most of the time.
pub(super) fn runtime(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(looks) = end.looks(now) else {
        return false;
    };
    let (Some(serving), Some(runtime)) = (looks.thread(Part::Serving), looks.thread(Part::Runtime))
    else {
        return false;
    };
    let at_it = runtime.over_ns >= SPAN_AT_LEAST_NS
        && runtime.ran_ns + runtime.waited_ns >= runtime.over_ns / 2;
    let hangs = matches!(runtime.doing, Doing::Uninterruptible | Doing::Stopped);
    if serving.wait != Wait::Futex || !(at_it || hangs) {
        return false;
    }
    verdict.push(thread_fact(end.side, runtime));
    verdict.push(thread_fact(end.side, serving));
    true
}

/// `lock_wait`: it waits in futex, and whoever has the lock is not stalled. Where the lock names no
/// owner, a holder's thread that waits in futex with its renewal due waits for something that some
/// thread has to give; a server's idle workers wait so all the time.
pub(super) fn lock(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(looks) = end.looks(now) else {
        return false;
    };
    let Some(serving) = looks
        .thread(Part::Serving)
        .filter(|serving| serving.wait == Wait::Futex)
    else {
        return false;
    };
    let owner = looks.thread(Part::Owner);
    let stalled = looks
        .behind()
        .is_some_and(|behind| matches!(behind.doing, Doing::Uninterruptible | Doing::Stopped));
    if stalled || owner.is_none() && end.role == Role::Grantor {
        return false;
    }
    verdict.push(thread_fact(end.side, serving));
    if let Some(owner) = owner {
        verdict.push(thread_fact(end.side, owner));
    }
    true
}

/// `thread_busy`: it runs (or, where CPUs are scarce, wants to) all the time and never returns to
/// its socket.
pub(super) fn busy(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(serving) = end.looks(now).and_then(|looks| looks.thread(Part::Serving)) else {
        return false;
    };
    let never_sleeps = serving.ran_ns + serving.waited_ns >= serving.over_ns / 10 * 8;
    if serving.over_ns < SPAN_AT_LEAST_NS
        || serving.doing != Doing::Running
        || !(never_sleeps && has_run(serving))
    {
        return false;
    }
    verdict.push(Fact::CpuTime {
        side: end.side,
        tid: serving.tid,
        ran_ns: serving.ran_ns,
        waited_ns: serving.waited_ns,
        over_ns: serving.over_ns,
    });
    verdict.push(thread_fact(end.side, serving));
    true
}

/// `node_pause`: nothing ran on this node, the daemon included.
pub(super) fn pause(for_ns: u64, steal_ns: u64, verdict: &mut Verdict) -> bool {
    if for_ns < HARD_STALL_NS {
        return false;
    }
    verdict.push(Fact::NodePaused { for_ns, steal_ns });
    true
}

#[cfg(test)]
mod tests;
