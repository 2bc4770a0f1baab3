//! One process, looked at for the sake of its late leases.
//!
//! In: its id, the threads that serve the lease. Out: [`Collected`]. What does not depend on the
//! lease is looked at once for all of the process's leases. Figures of time are differences to an
//! earlier look not long ago; the first time there is none, and the question is to be put again a
//! moment later. Never: a wait; more threads than a bound; a name that belongs to another thread
//! (ids are used again: the start time counts).

use std::collections::HashMap;

use watchdog_model::Mono;
use watchdog_model::causes::collected::{
    CgroupLook, Collected, DeviceLook, Doing, MemoryLook, Part, RunnerLook, ThreadLook, Wait,
};
use watchdog_model::causes::text::Label;
use watchdog_model::time::{MS, SECOND};

use super::cgroups::{Figures, Groups, Mounts};
use super::stacked::Held;
use super::waits::{self, Found, Futex, Own};
use super::{disks, proc, sockets};
use crate::kernel::state::Devices;

/// Threads of a process that are looked at.
const THREADS: usize = 512;
/// Of these, the ones that hang and are looked at closely.
const HANGING: usize = 8;
/// The runtime's own threads whose time is measured.
const RUNTIME: usize = 16;
/// For how long a look serves all of a process's leases.
const SERVES_NS: u64 = 400 * MS;
/// An earlier look to take differences from is between so old (longer than a quota's period, at the
/// end of which the kernel adds up what was throttled: 100 ms, kernel/sched/fair.c) …
pub const BEFORE_AT_LEAST_NS: u64 = 110 * MS;
/// … and so.
const BEFORE_AT_MOST_NS: u64 = 3 * SECOND;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The process.
    pub pid: u32,
    /// The threads that serve the flow; 0: none.
    pub tids: [u32; 8],
    /// The flow.
    pub own: Own,
    /// Whether the flow's TCP is to be asked.
    pub path: bool,
    /// Who took the CPU when a serving thread last left one; 0: not known.
    pub next_tid: u32,
    /// Whether what is read must be answered: then any thread that hangs may be why.
    pub owes_answer: bool,
}

/// A thread's counters at a moment.
#[derive(Clone, Copy, Debug)]
struct Counters {
    at: Mono,
    started: u64,
    ran_ns: u64,
    waited_ns: u64,
    slices: u64,
    doing: Doing,
    major_faults: u64,
}

/// The process's counters at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Whole {
    at: Mono,
    major_faults: u64,
    figures: Figures,
    steal_ns: u64,
}

/// What is kept of a process between looks.
#[derive(Debug, Default)]
pub struct Process {
    started: u64,
    looked_at: Option<Mono>,
    stats: HashMap<u32, proc::Stat>,
    groups: Groups,
    frozen: Option<String>,
    whole: Whole,
    whole_before: Option<Whole>,
    counters: HashMap<u32, Counters>,
    counters_before: HashMap<u32, Counters>,
    sockets: HashMap<u64, u64>,
    held: Held,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every one is an answer, and it is moved once"
)]
pub enum Outcome {
    /// An answer.
    Found(Collected),
    /// There was no earlier look: ask again after [`BEFORE_AT_LEAST_NS`].
    Later,
    /// The process is gone.
    Gone,
}

/// What all looks share.
pub struct Surroundings {
    /// Where cgroups are mounted.
    pub mounts: Mounts,
    /// What the kernel programs saw of devices.
    pub devices: Option<Devices>,
    /// The clock.
    pub clock: fn() -> Mono,
}

impl Process {
    /// Whether nothing was asked of it for so long that nothing of it need be kept.
    #[must_use]
    pub fn is_old(&self, now: Mono) -> bool {
        self.looked_at
            .is_none_or(|at| now.since(at) > 2 * BEFORE_AT_MOST_NS)
    }

    /// Looks at the process as a whole, unless that was just done.
    fn refresh(&mut self, pid: u32, around: &Surroundings) -> Option<()> {
        let now = (around.clock)();
        let serves_ns = if self.whole_before.is_some() {
            SERVES_NS
        } else {
            BEFORE_AT_LEAST_NS
        };
        if self.looked_at.is_some_and(|at| now.since(at) < serves_ns) {
            return Some(());
        }
        let stat = proc::stat(pid, None)?;
        if stat.started != self.started {
            *self = Self {
                started: stat.started,
                ..Self::default()
            };
        }
        self.looked_at = Some(now);
        self.stats = proc::threads(pid, THREADS)
            .into_iter()
            .filter_map(|tid| Some((tid, proc::stat(pid, Some(tid))?)))
            .collect();
        self.groups = Groups::of(pid, &around.mounts);
        self.frozen = self.groups.frozen();
        let whole = Whole {
            at: now,
            major_faults: stat.major_faults,
            figures: self.groups.figures(),
            steal_ns: steal_ns(),
        };
        let usable = |before: &Whole| {
            (BEFORE_AT_LEAST_NS..BEFORE_AT_MOST_NS).contains(&now.since(before.at))
        };
        self.whole_before = Some(self.whole).filter(usable);
        self.whole = whole;
        self.counters_before = std::mem::take(&mut self.counters);
        Some(())
    }

    /// A thread's counters now, kept for the next look; with those before, if they are of use.
    fn count(&mut self, pid: u32, tid: u32, now: Mono) -> Option<(Counters, Option<Counters>)> {
        let usable = |before: &Counters, newer: &Counters| {
            before.started == newer.started
                && (BEFORE_AT_LEAST_NS..BEFORE_AT_MOST_NS).contains(&newer.at.since(before.at))
        };
        if let Some(known) = self.counters.get(&tid).copied() {
            let before = self.counters_before.get(&tid).copied();
            if let Some(before) = before.filter(|before| usable(before, &known)) {
                return Some((known, Some(before)));
            }
            if now.since(known.at) < BEFORE_AT_LEAST_NS {
                return Some((known, None));
            }
            // First met at this look, some time ago.
            self.counters_before.insert(tid, known);
        }
        let counters = counters(pid, tid, now)?;
        self.counters.insert(tid, counters);
        let before = self.counters_before.get(&tid).copied();
        Some((counters, before.filter(|before| usable(before, &counters))))
    }

    /// Answers one question. `again`: it was put before, and what still cannot be compared is told
    /// without.
    pub fn collect(&mut self, asked: &Subject, again: bool, around: &Surroundings) -> Outcome {
        if self.refresh(asked.pid, around).is_none() {
            return Outcome::Gone;
        }
        let now = (around.clock)();
        let mut first = self.whole_before.is_none();
        for tid in self.interesting(asked) {
            first |= matches!(self.count(asked.pid, tid, now), Some((_, None)));
        }
        if first && !again {
            return Outcome::Later;
        }
        let mut collected = Collected::nothing(now);
        self.whole_facts(&mut collected);
        let looks: Vec<(ThreadLook, Found)> = self
            .serving(asked)
            .into_iter()
            .filter_map(|tid| self.look(asked, tid, Part::Serving, now))
            .collect();
        let mut serving = choose(&looks);
        let mut behind = self.behind(asked, serving.as_ref(), now);
        let runtime = self.runtime(asked, now);
        let hangs = |(look, _): &&mut (ThreadLook, Found)| {
            look.doing == Doing::Uninterruptible && look.wait == Wait::File
        };
        let hanging = serving.as_mut().filter(hangs);
        if let Some((look, found)) = hanging.or_else(|| behind.as_mut().filter(hangs))
            && let Some((device, file)) = self.device(asked, found, around, now)
        {
            collected.device = Some(device);
            look.at = file.unwrap_or(look.at);
        }
        collected.threads = [
            serving.map(|(look, _)| look),
            behind.map(|(look, _)| look),
            runtime,
        ];
        if serving.is_some_and(|(look, _)| look.doing == Doing::Running && look.waited_ns > 0) {
            collected.runner = runner(asked.next_tid, &around.mounts);
        }
        if asked.path && asked.own.cookie != 0 {
            collected.tcp = self.tcp(asked);
        }
        collected.at = (around.clock)();
        Outcome::Found(collected)
    }

    /// Serving threads, and those of the process whose time says something.
    fn interesting(&self, asked: &Subject) -> Vec<u32> {
        let is_java = self.stats.values().any(|stat| named(stat, b"VM Thread"));
        let runtime = self
            .stats
            .iter()
            .filter(|(_, stat)| is_java && is_runtime(stat))
            .map(|(tid, _)| *tid)
            .take(RUNTIME);
        self.serving(asked).into_iter().chain(runtime).collect()
    }

    /// The threads that serve the flow. Where none has touched it yet, since the daemon is younger
    /// than the stall, what is true of all of a process's threads is true of that one: it is the
    /// only one, or all are stopped.
    fn serving(&self, asked: &Subject) -> Vec<u32> {
        let known: Vec<u32> = asked.tids.into_iter().filter(|tid| *tid != 0).collect();
        if !known.is_empty() {
            return known;
        }
        let mut stats = self.stats.iter();
        let of_all = self.stats.len() == 1 || stats.all(|(_, stat)| stat.doing == Doing::Stopped);
        self.stats
            .keys()
            .copied()
            .min()
            .filter(|_| of_all)
            .into_iter()
            .collect()
    }

    fn whole_facts(&self, collected: &mut Collected) {
        let path = self.frozen.as_ref().unwrap_or(&self.groups.cpu_path);
        let mut cgroup = CgroupLook {
            path: Label::end_of(path.as_bytes()),
            frozen: self.frozen.is_some(),
            throttled_ns: 0,
            over_ns: 0,
        };
        if let Some(before) = self.whole_before {
            let now = self.whole;
            let over_ns = now.at.since(before.at);
            cgroup.over_ns = over_ns;
            let (now_is, was) = (now.figures, before.figures);
            let time_ns = now_is.throttled_ns.saturating_sub(was.throttled_ns);
            let periods_ns = now_is
                .throttled_periods_ns
                .saturating_sub(was.throttled_periods_ns);
            // Of several CPUs the time is the sum.
            cgroup.throttled_ns = time_ns.max(periods_ns).min(over_ns);
            collected.memory = MemoryLook {
                major_faults: now.major_faults.saturating_sub(before.major_faults),
                refaults: now.figures.refaults.saturating_sub(before.figures.refaults),
                pressure_ns: now
                    .figures
                    .pressure_ns
                    .saturating_sub(before.figures.pressure_ns),
                over_ns,
            };
            collected.steal_ns = now.steal_ns.saturating_sub(before.steal_ns);
            collected.over_ns = over_ns;
        }
        collected.cgroup = Some(cgroup);
    }

    /// A thread, with its figures and what it waits for.
    fn look(
        &mut self,
        asked: &Subject,
        tid: u32,
        part: Part,
        now: Mono,
    ) -> Option<(ThreadLook, Found)> {
        // Its state now, and not that of a moment ago; gone or another one by now: nothing.
        let known = self.stats.get(&tid).copied();
        let stat = proc::stat(asked.pid, Some(tid))?;
        if known.is_some_and(|known| known.started != stat.started) {
            return None;
        }
        let found = waits::find(asked.pid, tid, stat.doing, &asked.own);
        let after = proc::stat(asked.pid, Some(tid))?;
        if after.started != stat.started || after.doing != stat.doing {
            return None;
        }
        let mut look = ThreadLook {
            part,
            tid,
            comm: stat.comm,
            doing: stat.doing,
            wait: found.wait,
            at: found.at,
            ran_ns: 0,
            waited_ns: 0,
            major_faults: 0,
            over_ns: 0,
        };
        if let Some((counters, Some(before))) = self.count(asked.pid, tid, now) {
            look.over_ns = counters.at.since(before.at);
            look.ran_ns = counters
                .ran_ns
                .saturating_sub(before.ran_ns)
                .min(look.over_ns);
            // A wait is added up when it is over, also the part before the span …
            let waited_ns = counters.waited_ns.saturating_sub(before.waited_ns);
            let rest_ns = look.over_ns - look.ran_ns;
            // … and one that goes on all the time is not in it at all.
            let still = counters.slices == before.slices
                && (before.doing, counters.doing) == (Doing::Running, Doing::Running);
            look.waited_ns = if still {
                rest_ns
            } else {
                waited_ns.min(rest_ns)
            };
            look.major_faults = counters.major_faults.saturating_sub(before.major_faults);
        }
        Some((look, found))
    }

    /// The thread that the serving one waits for: its lock's owner, or one that hangs.
    fn behind(
        &mut self,
        asked: &Subject,
        serving: Option<&(ThreadLook, Found)>,
        now: Mono,
    ) -> Option<(ThreadLook, Found)> {
        let in_futex = serving.is_some_and(|(look, _)| look.wait == Wait::Futex);
        let owner = serving
            .and_then(|(_, found)| found.futex)
            .and_then(|futex| owner(asked.pid, &futex))
            .filter(|tid| self.stats.contains_key(tid));
        if let Some(tid) = owner
            && let Some(found) = self.look(asked, tid, Part::Owner, now)
        {
            return Some(found);
        }
        if !in_futex && !asked.owes_answer {
            return None;
        }
        let mut hanging: Vec<u32> = self
            .stats
            .iter()
            .filter(|(tid, stat)| stat.doing == Doing::Uninterruptible && !asked.tids.contains(tid))
            .map(|(tid, _)| *tid)
            .take(HANGING)
            .collect();
        hanging.sort_unstable();
        hanging
            .into_iter()
            .filter_map(|tid| self.look(asked, tid, Part::Other, now))
            .filter(|(look, _)| look.doing == Doing::Uninterruptible)
            .max_by_key(|(look, found)| (look.wait == Wait::File, found.device.is_some()))
    }

    /// The busiest of the runtime's own threads.
    fn runtime(&mut self, asked: &Subject, now: Mono) -> Option<ThreadLook> {
        if !self.stats.values().any(|stat| named(stat, b"VM Thread")) {
            return None;
        }
        let runtime: Vec<u32> = self
            .stats
            .iter()
            .filter(|(_, stat)| is_runtime(stat))
            .map(|(tid, _)| *tid)
            .take(RUNTIME)
            .collect();
        runtime
            .into_iter()
            .filter_map(|tid| self.look(asked, tid, Part::Runtime, now))
            .map(|(look, _)| look)
            .max_by_key(|look| look.ran_ns + look.waited_ns)
    }

    /// The device that a hanging thread waits for, and the file in memory that lies on it, if no
    /// system call names one.
    fn device(
        &mut self,
        asked: &Subject,
        hanging: &Found,
        around: &Surroundings,
        now: Mono,
    ) -> Option<(DeviceLook, Option<Label>)> {
        let devices = around.devices.as_ref();
        if let Some(device) = hanging.device
            && let Some(look) = disks::look(device, devices, &mut self.held, now)
        {
            return Some((look, None));
        }
        let devices = devices?;
        if hanging.fault {
            let files = disks::mapped(asked.pid);
            let look = disks::still(devices, Some(&files), now)?;
            let file = disks::only_file(&files, &look);
            let at = file.map(|path| waits::of_file("page", path.as_bytes()));
            return Some((look, at));
        }
        disks::still(devices, None, now).map(|look| (look, None))
    }

    fn tcp(&mut self, asked: &Subject) -> Option<watchdog_model::causes::collected::TcpLook> {
        let cookie = asked.own.cookie;
        if let Some(descriptor) = self.sockets.get(&cookie)
            && let Ok(socket) = sockets::Borrowed::of(asked.pid, *descriptor)
            && socket.cookie() == Some(cookie)
        {
            return socket.tcp();
        }
        let (descriptor, socket) = sockets::with_cookie(asked.pid, cookie)?;
        self.sockets.insert(cookie, descriptor);
        socket.tcp()
    }
}

fn counters(pid: u32, tid: u32, now: Mono) -> Option<Counters> {
    let stat = proc::stat(pid, Some(tid))?;
    let times = proc::cpu_times(pid, tid)?;
    Some(Counters {
        at: now,
        started: stat.started,
        ran_ns: times.ran_ns,
        waited_ns: times.waited_ns,
        slices: times.slices,
        doing: stat.doing,
        major_faults: stat.major_faults,
    })
}

/// Of the threads that serve a flow, the one that says most. One that stands still or never stops
/// comes first. Where any of them waits for the flow's own socket, the flow is served, and the
/// others are a pool's idle ones.
fn choose(looks: &[(ThreadLook, Found)]) -> Option<(ThreadLook, Found)> {
    let rank = |look: &ThreadLook| match (look.doing, look.wait) {
        (Doing::Uninterruptible, _) => 0,
        (Doing::Stopped, _) => 1,
        (Doing::Running, _) => 2,
        (_, Wait::Own) => 3,
        (_, Wait::Socket(_) | Wait::Time | Wait::Other) => 4,
        (_, Wait::Futex) => 5,
        _ => 6,
    };
    looks.iter().min_by_key(|(look, _)| rank(look)).copied()
}

/// The thread that owns a lock, if the lock says so: a POSIX mutex keeps its owner behind its
/// futex word (struct __pthread_mutex_s, glibc and musl differ: __lock, __count, __owner), a
/// priority-inheriting one in the word itself.
fn owner(pid: u32, futex: &Futex) -> Option<u32> {
    /// FUTEX_WAIT, FUTEX_LOCK_PI, FUTEX_LOCK_PI2 and FUTEX_TID_MASK (include/uapi/linux/futex.h).
    const WAIT: u64 = 0;
    const LOCK_PI: u64 = 6;
    const LOCK_PI2: u64 = 13;
    const TID_MASK: u32 = 0x3fff_ffff;
    let words = proc::memory(pid, futex.address, 16)?;
    let word = |at: usize| {
        words
            .get(at * 4..at * 4 + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes)
    };
    match futex.operation {
        LOCK_PI | LOCK_PI2 => Some(word(0)? & TID_MASK),
        // A contended lock has 2 in its word, as its waiter expects.
        WAIT if futex.value == 2 && word(0)? == 2 => word(2),
        _ => None,
    }
    .filter(|tid| *tid != 0)
}

/// Who has the CPU instead.
fn runner(tid: u32, mounts: &Mounts) -> Option<RunnerLook> {
    if tid == 0 {
        return None;
    }
    let stat = proc::stat(tid, None)?;
    Some(RunnerLook {
        tid,
        comm: stat.comm,
        cgroup: Label::end_of(Groups::of(tid, mounts).cpu_path.as_bytes()),
    })
}

fn named(stat: &proc::Stat, name: &[u8]) -> bool {
    stat.comm.starts_with(name)
}

/// Names of a JVM's own threads that stop the world (HotSpot).
fn is_runtime(stat: &proc::Stat) -> bool {
    const NAMES: [&[u8]; 6] = [
        b"VM Thread",
        b"GC Thread#",
        b"G1 ",
        b"ParGC",
        b"ZWorker",
        b"Shenandoah GC",
    ];
    NAMES.iter().any(|name| named(stat, name))
}

/// Time stolen by the hypervisor so far, ns, the mean of all CPUs (proc_stat(5), USER_HZ = 100).
fn steal_ns() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/stat") else {
        return 0;
    };
    let of = |line: &str| {
        line.split_ascii_whitespace()
            .nth(8)
            .and_then(|ticks| ticks.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let cpus = text
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .count();
    let total = text.lines().next().map_or(0, of);
    total * 10 * MS / u64::try_from(cpus).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn around() -> Surroundings {
        Surroundings {
            mounts: Mounts::find(),
            devices: None,
            clock: crate::tick::clock,
        }
    }

    fn asked(tids: &[u32]) -> Subject {
        let mut all = [0; 8];
        all[..tids.len()].copy_from_slice(tids);
        Subject {
            pid: std::process::id(),
            tids: all,
            own: Own {
                cookie: 0,
                grantor: "192.0.2.1:2181".parse().unwrap(),
            },
            path: false,
            next_tid: 0,
            owes_answer: false,
        }
    }

    fn thread(run: impl FnOnce() + Send + 'static) -> u32 {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: no arguments.
            tell.send(unsafe { libc::gettid() }).unwrap();
            run();
        });
        u32::try_from(told.recv().unwrap()).unwrap()
    }

    fn collect(asked: &Subject) -> Collected {
        let (mut process, around) = (Process::default(), around());
        assert_eq!(process.collect(asked, false, &around), Outcome::Later);
        std::thread::park_timeout(Duration::from_millis(150));
        let Outcome::Found(found) = process.collect(asked, true, &around) else {
            panic!("this process is there");
        };
        found
    }

    #[test]
    fn a_thread_that_computes_is_seen_to_run() {
        let tid = thread(|| {
            let end = crate::tick::clock().plus(SECOND);
            while crate::tick::clock() < end {
                std::hint::spin_loop();
            }
        });
        let found = collect(&asked(&[tid]));
        let look = found.thread(Part::Serving).unwrap();
        assert_eq!(look.doing, Doing::Running);
        assert!(look.over_ns >= 100 * MS, "{look:?}");
        assert!(
            look.ran_ns + look.waited_ns > look.over_ns * 7 / 10,
            "{look:?}"
        );
    }

    /// What is seen of another process's only thread, of which nothing is known.
    fn of_another(stopped: bool) -> Option<ThreadLook> {
        use std::process::{Command, Stdio};
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is cat");
        let pid = child.id();
        if stopped {
            // SAFETY: our own child.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGSTOP) };
            while proc::stat(pid, None).is_some_and(|stat| stat.doing != Doing::Stopped) {
                std::thread::yield_now();
            }
        }
        let mut asked = asked(&[]);
        asked.pid = pid;
        let found = collect(&asked);
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        found.thread(Part::Serving).copied()
    }

    #[test]
    fn where_no_thread_is_known_a_stop_of_all_counts() {
        let look = of_another(true).expect("its only thread");
        assert_eq!(look.doing, Doing::Stopped);
        let look = of_another(false).expect("its only thread");
        assert_ne!(look.doing, Doing::Stopped);
        // This process has several, none stopped.
        let tid = thread(|| std::thread::park_timeout(Duration::from_secs(1)));
        assert_ne!(tid, std::process::id());
        assert_eq!(collect(&asked(&[])).thread(Part::Serving), None);
    }

    /// A POSIX mutex, whose owner sleeps.
    #[test]
    fn a_locks_owner_is_named() {
        struct Mutex(std::cell::UnsafeCell<libc::pthread_mutex_t>);
        // SAFETY: that is what a mutex is for.
        unsafe impl Sync for Mutex {}
        static MUTEX: Mutex = Mutex(std::cell::UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        let owner = thread(|| {
            // SAFETY: initialised; given back below.
            unsafe { libc::pthread_mutex_lock(MUTEX.0.get()) };
            std::thread::park_timeout(Duration::from_secs(2));
            // SAFETY: ours.
            unsafe { libc::pthread_mutex_unlock(MUTEX.0.get()) };
        });
        std::thread::park_timeout(Duration::from_millis(100));
        let waiter = thread(|| {
            // SAFETY: as above.
            unsafe { libc::pthread_mutex_lock(MUTEX.0.get()) };
            // SAFETY: ours.
            unsafe { libc::pthread_mutex_unlock(MUTEX.0.get()) };
        });
        std::thread::park_timeout(Duration::from_millis(100));
        let found = collect(&asked(&[waiter]));
        assert_eq!(found.thread(Part::Serving).unwrap().wait, Wait::Futex);
        assert_eq!(found.thread(Part::Owner).unwrap().tid, owner);
    }

    #[test]
    fn a_process_and_threads_that_are_gone_are_nothing() {
        let mut gone = asked(&[u32::MAX, 1]);
        let found = collect(&gone);
        assert_eq!(found.thread(Part::Serving), None);
        gone.pid = u32::MAX;
        let outcome = Process::default().collect(&gone, false, &around());
        assert_eq!(outcome, Outcome::Gone);
    }
}
