//! Each cause: proven with its whole proof, and not with a part of it missing. (DESIGN 5's table.)

use super::super::Cause;
use super::super::collected::{CgroupLook, MemoryLook, RunnerLook};
use super::super::text::{Label, Text};
use super::super::verdict::tests::{cause_of, looks_of, stall, thread};
use super::*;
use crate::time::ms;

fn hung_disk() -> DeviceLook {
    DeviceLook {
        name: Text::end_of(b"loop0"),
        proven: true,
        in_flight: 2,
        silent_ns: Some(HARD_STALL_NS),
        oldest_ns: Some(HARD_STALL_NS),
        committing_ns: None,
    }
}

fn in_file(part: Part) -> ThreadLook {
    let mut hangs = thread(part, Doing::Uninterruptible);
    hangs.wait = Wait::File;
    hangs
}

fn in_futex() -> ThreadLook {
    let mut waits = thread(Part::Serving, Doing::Sleeping);
    waits.wait = Wait::Futex;
    waits
}

fn hungry() -> ThreadLook {
    let mut wants = thread(Part::Serving, Doing::Running);
    (wants.ran_ns, wants.waited_ns) = (ms(1), ms(99));
    wants
}

fn quota(throttled_ns: u64) -> CgroupLook {
    CgroupLook {
        path: Label::end_of(b"/meta"),
        frozen: false,
        throttled_ns,
        over_ns: ms(100),
    }
}

fn short_of_memory() -> MemoryLook {
    MemoryLook {
        major_faults: 50,
        refaults: 400,
        pressure_ns: 0,
        over_ns: ms(100),
    }
}

#[test]
fn a_thread_in_a_file_and_a_device_that_finishes_nothing_are_a_disk_stall() {
    let mut looks = looks_of([Some(in_file(Part::Serving))]);
    assert_eq!(cause_of(None, Some(looks)), Cause::Unknown, "no device");
    looks.device = Some(hung_disk());
    assert_eq!(cause_of(None, Some(looks)), Cause::DiskStall);
    looks.device = Some(DeviceLook {
        silent_ns: Some(HARD_STALL_NS - 1),
        ..hung_disk()
    });
    assert_eq!(
        cause_of(None, Some(looks)),
        Cause::Unknown,
        "it may be slow"
    );
    looks.device = Some(DeviceLook {
        in_flight: 0,
        ..hung_disk()
    });
    assert_eq!(
        cause_of(None, Some(looks)),
        Cause::Unknown,
        "it has nothing to do"
    );
    let mut asleep = looks_of([Some(thread(Part::Serving, Doing::Sleeping))]);
    asleep.device = Some(hung_disk());
    assert_eq!(
        cause_of(None, Some(asleep)),
        Cause::Unknown,
        "nobody waits for it"
    );
}

#[test]
fn behind_a_lock_the_owners_cause_is_the_cause() {
    for part in [Part::Owner, Part::Other] {
        let mut looks = looks_of([Some(in_futex()), Some(in_file(part))]);
        assert_eq!(
            cause_of(None, Some(looks)),
            Cause::Unknown,
            "an owner that is stalled is no lock_wait, and nothing is proven of the disk yet"
        );
        looks.device = Some(hung_disk());
        assert_eq!(cause_of(None, Some(looks)), Cause::DiskStall);
    }
    // Idle at its own socket: what another thread hangs at is that one's affair.
    let mut idle = in_futex();
    idle.wait = Wait::Own;
    let mut looks = looks_of([Some(idle), Some(in_file(Part::Other))]);
    looks.device = Some(hung_disk());
    assert_eq!(cause_of(None, Some(looks)), Cause::Unknown);
}

#[test]
fn a_lock_whose_owner_is_not_stalled_is_a_lock_wait() {
    assert_eq!(
        cause_of(None, Some(looks_of([Some(in_futex())]))),
        Cause::LockWait
    );
    for doing in [Doing::Running, Doing::Sleeping] {
        let looks = looks_of([Some(in_futex()), Some(thread(Part::Owner, doing))]);
        assert_eq!(cause_of(None, Some(looks)), Cause::LockWait);
    }
    let stopped = looks_of([Some(in_futex()), Some(thread(Part::Owner, Doing::Stopped))]);
    assert_eq!(cause_of(None, Some(stopped)), Cause::Unknown);
}

#[test]
fn faults_of_a_thread_and_pages_that_come_back_are_memory_pressure() {
    let mut faults = in_file(Part::Serving);
    faults.major_faults = 5;
    let mut looks = looks_of([Some(faults)]);
    assert_eq!(
        cause_of(None, Some(looks)),
        Cause::Unknown,
        "it reads a file"
    );
    looks.memory = short_of_memory();
    assert_eq!(cause_of(None, Some(looks)), Cause::MemoryPressure);
    looks.device = Some(hung_disk());
    assert_eq!(
        cause_of(None, Some(looks)),
        Cause::DiskStall,
        "the disk is first"
    );
    let mut idle = looks_of([Some(thread(Part::Serving, Doing::Sleeping))]);
    idle.memory = short_of_memory();
    assert_eq!(
        cause_of(None, Some(idle)),
        Cause::Unknown,
        "others are short of it"
    );
}

#[test]
fn who_wants_a_cpu_is_throttled_by_a_quota_or_starved_by_others() {
    let mut looks = looks_of([Some(hungry())]);
    assert_eq!(cause_of(None, Some(looks)), Cause::CpuStarved);
    looks.runner = Some(RunnerLook {
        tid: 9,
        comm: [0; 16],
        cgroup: Label::EMPTY,
    });
    assert_eq!(cause_of(None, Some(looks)), Cause::CpuStarved);
    looks.cgroup = Some(quota(ms(20) - 1));
    assert_eq!(cause_of(None, Some(looks)), Cause::CpuStarved);
    looks.cgroup = Some(quota(ms(20)));
    assert_eq!(cause_of(None, Some(looks)), Cause::CpuThrottled);
    let mut idle = looks_of([Some(thread(Part::Serving, Doing::Sleeping))]);
    idle.cgroup = Some(quota(ms(90)));
    assert_eq!(
        cause_of(None, Some(idle)),
        Cause::Unknown,
        "others are throttled"
    );
}

#[test]
fn the_schedulers_word_stands_alone_only_when_nothing_was_gathered_for_long() {
    let starved = Some(stall(StallKind::Starved));
    assert_eq!(
        cause_of(starved, None),
        Cause::Unknown,
        "it is being gathered"
    );
    let looks = looks_of([Some(thread(Part::Serving, Doing::Running))]);
    assert_eq!(cause_of(starved, Some(looks)), Cause::CpuStarved);
}

#[test]
fn a_runtime_that_is_at_work_while_its_threads_wait_has_paused_them() {
    let mut collector = thread(Part::Runtime, Doing::Running);
    let mut looks = looks_of([Some(in_futex()), Some(collector)]);
    assert_eq!(
        cause_of(None, Some(looks)),
        Cause::LockWait,
        "it does nothing"
    );
    (collector.ran_ns, collector.waited_ns) = (ms(30), ms(20));
    looks.threads[1] = Some(collector);
    assert_eq!(cause_of(None, Some(looks)), Cause::RuntimePause);
    let mut idle = in_futex();
    idle.wait = Wait::Own;
    looks.threads[0] = Some(idle);
    assert_eq!(
        cause_of(None, Some(looks)),
        Cause::Unknown,
        "it collects beside them"
    );
}

#[test]
fn a_thread_that_never_sleeps_is_busy() {
    let mut runs = thread(Part::Serving, Doing::Running);
    (runs.ran_ns, runs.waited_ns) = (ms(79), ms(0));
    assert_eq!(cause_of(None, Some(looks_of([Some(runs)]))), Cause::Unknown);
    runs.ran_ns = ms(80);
    assert_eq!(
        cause_of(None, Some(looks_of([Some(runs)]))),
        Cause::ThreadBusy
    );
    (runs.ran_ns, runs.waited_ns) = (ms(45), ms(45));
    assert_eq!(
        cause_of(None, Some(looks_of([Some(runs)]))),
        Cause::ThreadBusy
    );
    // Beside others that compute: what it got was enough for a renewal.
    (runs.ran_ns, runs.waited_ns) = (ms(10), ms(88));
    assert_eq!(
        cause_of(None, Some(looks_of([Some(runs)]))),
        Cause::ThreadBusy
    );
    runs.ran_ns -= 1;
    assert_eq!(
        cause_of(None, Some(looks_of([Some(runs)]))),
        Cause::CpuStarved
    );
    runs.over_ns = ms(10);
    assert_eq!(
        cause_of(None, Some(looks_of([Some(runs)]))),
        Cause::Unknown,
        "too short"
    );
}
