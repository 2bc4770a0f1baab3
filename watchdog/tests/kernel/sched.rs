//! The scheduler: what each watched thread does, and since when. Each state is brought about and
//! held, not caught in passing.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use watchdog::kernel::Kernel;
use watchdog_common::layout::{
    THREAD_DEAD, THREAD_FROZEN, THREAD_RUNNABLE, THREAD_RUNNING, THREAD_SLEEPING, THREAD_STOPPED,
    THREAD_UNINTERRUPTIBLE, THREAD_UNKNOWN, ThreadSlot,
};

use crate::{
    bed::{Pinned, SOON, here, load, skip, tid, until_thread},
    harness::{
        clock,
        faults::Stopped,
        process::{self, Child},
    },
};

const ONLY: &[&str] = &["switches", "wakeups"];

fn now_ns() -> u64 {
    watchdog::tick::clock().0
}

fn watch(kernel: &mut Kernel, tid: u32, index: usize) {
    assert!(kernel.state.watch_thread(tid, index, ThreadSlot::default()));
}

fn pid(child: &Child) -> u32 {
    u32::try_from(child.pid()).expect("pids are positive")
}

/// Raised when dropped, also by a failed assertion, so that no thread spins for ever.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn spin_until(end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_thread_that_has_not_switched_says_nothing_and_an_unwatched_one_never() {
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    let (tids, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            tids.send(tid()).expect("somebody listens");
            let _ = wait.recv();
        });
        let sleeper = told.recv().expect("it starts");
        let asleep = clock::poll(SOON, || {
            let sleeper = i32::try_from(sleeper).ok()?;
            (process::state(sleeper)? == 'S').then_some(())
        });
        assert!(asleep.is_some());
        watch(&mut kernel, sleeper, 0);
        let slot = until_thread(&kernel, 0, "a slot", |_| true);
        assert_eq!((slot.state, slot.since_ns), (THREAD_UNKNOWN, 0));
        kernel.state.unwatch_thread(sleeper);
        drop(go);
    });
    let slot = until_thread(&kernel, 0, "a slot", |_| true);
    assert_eq!(slot.state, THREAD_UNKNOWN, "it is no longer watched");
}

#[test]
fn sleep_and_waking_are_seen_with_their_moments() {
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    let (tids, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("a-sleeper".into())
            .spawn_scoped(scope, move || {
                tids.send(tid()).expect("somebody listens");
                while wait.recv().is_ok() {}
            })
            .expect("a thread");
        watch(&mut kernel, told.recv().expect("it starts"), 0);
        go.send(()).expect("it waits");
        let slot = until_thread(&kernel, 0, "asleep", |slot| slot.state == THREAD_SLEEPING);
        let before = now_ns();
        assert!(slot.since_ns <= before);
        go.send(()).expect("it waits");
        let again = until_thread(&kernel, 0, "asleep again", |slot| {
            slot.state == THREAD_SLEEPING && slot.since_ns >= before
        });
        assert!(again.switches > slot.switches);
        assert!(again.ran_ns > slot.ran_ns);
        assert!(again.since_ns <= now_ns() + 1_000);
        assert_eq!(&again.comm[..9], b"a-sleeper");
        drop(go);
    });
    until_thread(&kernel, 0, "dead", |slot| slot.state == THREAD_DEAD);
}

#[test]
fn of_two_that_want_one_cpu_one_runs_and_the_other_is_runnable() {
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    let end = AtomicBool::new(false);
    let (tids, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let _end = Raise(&end);
        for _ in 0..2 {
            let tids = tids.clone();
            let end = &end;
            scope.spawn(move || {
                let _pinned = Pinned::to(0);
                tids.send(tid()).expect("somebody listens");
                spin_until(end);
            });
        }
        let both = [told.recv(), told.recv()].map(|tid| tid.expect("it starts"));
        for (index, tid) in both.into_iter().enumerate() {
            watch(&mut kernel, tid, index);
        }
        for (index, own) in both.into_iter().enumerate() {
            // By the other, unless a third one wants that CPU too.
            let ran = until_thread(&kernel, index, "pushed off the CPU", |slot| {
                slot.state == THREAD_RUNNABLE && slot.next_tid != 0 && slot.next_tid != own
            });
            let slot = until_thread(&kernel, index, "on the CPU", |slot| {
                slot.state == THREAD_RUNNING && slot.switches > ran.switches
            });
            assert!(slot.since_ns > ran.since_ns);
            let later = until_thread(&kernel, index, "off the CPU", |slot| {
                slot.state == THREAD_RUNNABLE && slot.switches >= slot.switches
            });
            assert!(later.ran_ns >= ran.ran_ns);
        }
    });
}

#[test]
fn one_that_was_woken_is_runnable_until_it_gets_a_cpu() {
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    let end = AtomicBool::new(false);
    let hogging = Barrier::new(2);
    let (tids, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let _end = Raise(&end);
        scope.spawn(move || {
            let _pinned = Pinned::to(0);
            tids.send(tid()).expect("somebody listens");
            while wait.recv().is_ok() {}
        });
        watch(&mut kernel, told.recv().expect("it starts"), 0);
        go.send(()).expect("it waits");
        let asleep = until_thread(&kernel, 0, "asleep", |slot| slot.state == THREAD_SLEEPING);
        let _elsewhere = Pinned::to(1);
        scope.spawn(|| {
            let _pinned = Pinned::to(0);
            let first = libc::sched_param { sched_priority: 1 };
            // SAFETY: the calling thread, and a parameter that outlives the call.
            let status = unsafe {
                libc::sched_setscheduler(
                    0,
                    libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
                    &raw const first,
                )
            };
            hogging.wait();
            if status == 0 {
                // The one that was woken must wait, but for a few periods only.
                let until = clock::now_us() + 200_000;
                while clock::now_us() < until && !end.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
            status
        });
        hogging.wait();
        let woken = now_ns();
        go.send(()).expect("it waits");
        let slot = until_thread(&kernel, 0, "runnable", |slot| slot.state == THREAD_RUNNABLE);
        assert!(slot.since_ns >= woken);
        assert_eq!(slot.switches, asleep.switches, "it has not run yet");
        let before = kernel.state.waits().runqueue;
        let looked = now_ns();
        end.store(true, Ordering::Relaxed);
        until_thread(&kernel, 0, "run, and asleep again", |slot| {
            slot.state == THREAD_SLEEPING && slot.switches > asleep.switches
        });
        let after = kernel.state.waits().runqueue;
        let grown: u64 = after.bins.iter().sum::<u64>() - before.bins.iter().sum::<u64>();
        assert!(grown >= 1, "a wait that is over is counted");
        assert!(after.sum_ns - before.sum_ns >= looked - slot.since_ns);
        drop(go);
    });
}

#[test]
fn a_stopped_process_is_stopped_until_it_is_continued() {
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    let mut command = Command::new("sleep");
    command.arg("60");
    let child = Child::start(command);
    watch(&mut kernel, pid(&child), 0);
    let before = now_ns();
    let stopped = Stopped::stop(child.pid());
    let slot = until_thread(&kernel, 0, "stopped", |slot| slot.state == THREAD_STOPPED);
    assert!(slot.since_ns >= before);
    stopped.resume();
    until_thread(&kernel, 0, "asleep", |slot| slot.state == THREAD_SLEEPING);
}

#[test]
fn the_parent_of_a_vfork_sleeps_uninterruptibly() {
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    let (read, write) = std::io::pipe().expect("a pipe");
    let (tids, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // Dropped on failure too: its end of the pipe is what the child waits for.
        let mut write = write;
        let (reader, writer) = {
            use std::os::fd::AsRawFd as _;
            (read.as_raw_fd(), write.as_raw_fd())
        };
        scope.spawn(move || {
            tids.send(tid()).expect("somebody listens");
            let _ = wait.recv();
            let flags = libc::c_long::from(libc::CLONE_VFORK | libc::SIGCHLD);
            // SAFETY: a child with a copy of the memory makes three system calls and is gone; the
            // parent waits for that, uninterruptibly.
            unsafe {
                let child = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
                if child == 0 {
                    libc::close(writer);
                    let mut byte = 0_u8;
                    libc::read(reader, (&raw mut byte).cast(), 1);
                    libc::_exit(0);
                }
                assert!(child > 0);
                let child = libc::pid_t::try_from(child).expect("a pid");
                assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child);
            }
        });
        let parent = told.recv().expect("it starts");
        watch(&mut kernel, parent, 0);
        drop(go);
        let slot = until_thread(&kernel, 0, "uninterruptible", |slot| {
            slot.state == THREAD_UNINTERRUPTIBLE
        });
        let parent = i32::try_from(parent).expect("a pid");
        assert_eq!(process::state(parent), Some('D'), "as /proc has it");
        let looked = now_ns();
        write.write_all(&[1]).expect("the child reads");
        until_thread(&kernel, 0, "gone on", |later| {
            later.switches > slot.switches
        });
        let blocked = kernel.state.waits().blocked;
        assert!(blocked.bins.iter().sum::<u64>() >= 1, "{blocked:?}");
        assert!(blocked.sum_ns >= looked - slot.since_ns, "{blocked:?}");
    });
}

/// A cgroup of the v1 freezer with one process in it; thawed, killed and removed when dropped.
struct Freezer {
    folder: PathBuf,
    child: Child,
}

impl Freezer {
    fn with(root: &str, child: Child) -> std::io::Result<Self> {
        let folder = PathBuf::from(format!("{root}/lease-kernel-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let freezer = Self { folder, child };
        fs::write(
            freezer.folder.join("cgroup.procs"),
            freezer.child.pid().to_string(),
        )?;
        Ok(freezer)
    }

    fn set(&self, state: &str) {
        fs::write(self.folder.join("freezer.state"), state).expect("the freezer takes its state");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        drop(fs::write(self.folder.join("freezer.state"), "THAWED"));
        self.child.kill();
        // The last process leaves its cgroup a moment after it was waited for.
        let gone = clock::poll(SOON, || fs::remove_dir(&self.folder).ok());
        if gone.is_none() {
            eprintln!("left behind: {}", self.folder.display());
        }
    }
}

#[test]
fn a_thread_of_a_frozen_cgroup_is_frozen_until_it_is_thawed() {
    const ROOT: &str = "/sys/fs/cgroup/freezer";
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    if !PathBuf::from(ROOT).join("cgroup.procs").exists() {
        skip(here!(), "no cgroup v1 freezer is mounted");
        return;
    }
    let mut command = Command::new("bash");
    command.args(["-c", "while :; do :; done"]);
    let freezer = Freezer::with(ROOT, Child::start(command)).expect("a cgroup");
    watch(&mut kernel, pid(&freezer.child), 0);
    let before = now_ns();
    freezer.set("FROZEN");
    let slot = until_thread(&kernel, 0, "frozen", |slot| slot.state == THREAD_FROZEN);
    assert!(slot.since_ns >= before);
    freezer.set("THAWED");
    until_thread(&kernel, 0, "on a CPU again", |later| {
        later.switches > slot.switches
    });
}

#[test]
fn an_exit_is_seen() {
    let Some(mut kernel) = load(here!(), ONLY) else {
        return;
    };
    let mut command = Command::new("sleep");
    command.arg("60");
    let mut child = Child::start(command);
    watch(&mut kernel, pid(&child), 0);
    child.kill();
    until_thread(&kernel, 0, "dead", |slot| slot.state == THREAD_DEAD);
}
