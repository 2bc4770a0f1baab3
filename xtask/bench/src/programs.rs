//! The cost of each hot program over an empty one.
//!
//! Two empty programs stand on each hook, one attached before ours and one after, so that neither
//! being first nor being last is an advantage; all three see the very same events. Rounds of all
//! the works follow each other, so that what the machine does otherwise falls on all alike.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType},
};
use watchdog::kernel::{
    Kernel, Options, cgroup,
    self_cost::{self, Cost},
};
use watchdog_common::layout::{FLOWS, PORTS, SLOT_DEAD, ThreadSlot};

use crate::{
    table::{Spread, verdict},
    work::{self, Pings, Switches},
};

/// How long one work lasts at a time.
const SPAN: Duration = Duration::from_millis(100);
/// Fewer events than this say nothing.
const ENOUGH: u64 = 100;

/// A row: a program, and the work under which it is measured.
struct Row {
    program: &'static str,
    work: Work,
    what: &'static str,
    /// Nanoseconds over an empty program.
    target: Option<f64>,
}

/// What is done, and whether it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Switches,
    WatchedSwitches,
    Pings,
    WatchedPings,
    Connections,
    WatchedConnections,
}

const WORKS: [Work; 6] = [
    Work::Switches,
    Work::WatchedSwitches,
    Work::Pings,
    Work::WatchedPings,
    Work::Connections,
    Work::WatchedConnections,
];

const fn row(program: &'static str, work: Work, what: &'static str, target: Option<f64>) -> Row {
    Row {
        program,
        work,
        what,
        target,
    }
}

const ROWS: &[Row] = &[
    row("thread_switch", Work::Switches, "unwatched", Some(15.0)),
    row(
        "thread_switch",
        Work::WatchedSwitches,
        "from one watched to another",
        None,
    ),
    row("thread_wakeup", Work::Switches, "unwatched", None),
    row("thread_wakeup", Work::WatchedSwitches, "watched", None),
    row("packet_in", Work::Pings, "unwatched", Some(25.0)),
    row(
        "packet_in",
        Work::WatchedPings,
        "watched ping or reply",
        Some(300.0),
    ),
    row("packet_out", Work::Pings, "unwatched", Some(25.0)),
    row(
        "packet_out",
        Work::WatchedPings,
        "watched ping or reply",
        Some(300.0),
    ),
    row("flow_read", Work::Pings, "unwatched", None),
    row("flow_read", Work::WatchedPings, "watched", None),
    row("flow_write", Work::Pings, "unwatched", None),
    row("flow_write", Work::WatchedPings, "watched", None),
    row("flow_state", Work::Connections, "unwatched", None),
    row("flow_state", Work::WatchedConnections, "watched", None),
];

/// The empty programs, attached.
pub struct Empty(pub Ebpf);

impl Empty {
    /// Loads and attaches them.
    pub fn load(object: &Path, btf: &Btf) -> Result<Self> {
        let mut programs = Ebpf::load_file(object)?;
        let root = cgroup::root(None)?;
        for (name, hook) in [
            ("flow_read", "tcp_rcv_space_adjust"),
            ("flow_write", "sock_send_length"),
            ("flow_state", "inet_sock_set_state"),
            ("thread_switch", "sched_switch"),
            ("thread_wakeup", "sched_wakeup"),
        ] {
            let program: &mut BtfTracePoint =
                programs.program_mut(name).context(name)?.try_into()?;
            program.load(hook, btf)?;
            program.attach()?;
        }
        for (name, side) in [
            ("packet_in", CgroupSkbAttachType::Ingress),
            ("packet_out", CgroupSkbAttachType::Egress),
        ] {
            let program: &mut CgroupSkb = programs.program_mut(name).context(name)?.try_into()?;
            program.load()?;
            program.attach(&root, side, CgroupAttachMode::Single)?;
        }
        Ok(Self(programs))
    }
}

/// Nanoseconds per run of each program between two readings.
pub fn per_run(before: &[Cost], after: &[Cost]) -> BTreeMap<String, f64> {
    before
        .iter()
        .zip(after)
        .filter_map(|(before, after)| {
            let runs = after.runs - before.runs;
            let time = after.time.saturating_sub(before.time);
            (runs >= ENOUGH).then(|| (after.program.clone(), time.as_nanos() as f64 / runs as f64))
        })
        .collect()
}

/// Figures of a program under a work, by round.
#[derive(Default)]
struct Figures {
    ours: Vec<f64>,
    empty: Vec<f64>,
    over: Vec<f64>,
}

struct Bench {
    kernel: Kernel,
    empty: [Empty; 2],
    figures: BTreeMap<(&'static str, Work), Figures>,
}

impl Bench {
    fn watch(&self, port: Option<u16>) {
        let mut table = Box::new([0; PORTS]);
        if let Some(port) = port {
            table[usize::from(port)] = 1;
        }
        self.kernel.state.watch_ports(&table);
    }

    fn readings(&self) -> [Vec<Cost>; 3] {
        let [first, last] = &self.empty;
        [
            self.kernel.costs(),
            self_cost::of(&first.0),
            self_cost::of(&last.0),
        ]
    }

    /// Does a work and takes its figures.
    fn take(&mut self, work: Work, run: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let before = self.readings();
        run().with_context(|| format!("{work:?}"))?;
        let after = self.readings();
        let [ours, first, last] = [0, 1, 2].map(|n| per_run(&before[n], &after[n]));
        for row in ROWS.iter().filter(|row| row.work == work) {
            let of = |figures: &BTreeMap<String, f64>| figures.get(row.program).copied();
            let (Some(ours), Some(first), Some(last)) = (of(&ours), of(&first), of(&last)) else {
                continue;
            };
            let empty = f64::midpoint(first, last);
            let figures = self.figures.entry((row.program, work)).or_default();
            figures.ours.push(ours);
            figures.empty.push(empty);
            figures.over.push(ours - empty);
        }
        Ok(())
    }

    fn round(&mut self) -> Result<()> {
        let mut switches = Switches::start()?;
        for work in WORKS {
            let listener = work::listener()?;
            let port = listener.local_addr()?.port();
            match work {
                Work::Switches => self.take(work, || switches.run(SPAN).map(drop))?,
                Work::WatchedSwitches => {
                    for (index, tid) in switches.tids.into_iter().enumerate() {
                        self.kernel
                            .state
                            .watch_thread(tid, index, ThreadSlot::default());
                    }
                    let taken = self.take(work, || switches.run(SPAN).map(drop));
                    for tid in switches.tids {
                        self.kernel.state.unwatch_thread(tid);
                    }
                    taken?;
                }
                Work::Pings | Work::WatchedPings => {
                    self.watch((work == Work::WatchedPings).then_some(port));
                    let mut pings = Pings::start(&listener)?;
                    self.take(work, || pings.run(SPAN).map(drop))?;
                }
                Work::Connections | Work::WatchedConnections => {
                    self.watch((work == Work::WatchedConnections).then_some(port));
                    self.take(work, || work::connections(&listener, SPAN))?;
                }
            }
            sweep(&mut self.kernel);
        }
        switches.end();
        Ok(())
    }
}

/// Gives the slots of dead flows back.
pub fn sweep(kernel: &mut Kernel) {
    for index in 0..FLOWS {
        let Some(slot) = kernel.state.flows.at(index) else {
            return;
        };
        // SAFETY: one word of a mapped slot.
        if unsafe { (&raw const (*slot).state).read_volatile() } == SLOT_DEAD {
            kernel.state.free_flow(index);
        }
    }
}

/// Our programs, and empty ones on the same hooks, attached before them and after.
pub fn between_empty_ones(empty: &Path) -> Result<(Kernel, [Empty; 2])> {
    let options = Options {
        debug: false,
        btf: "/sys/kernel/btf/vmlinux".into(),
        cgroup_root: None,
        flows: u32::try_from(FLOWS)?,
        netns: None,
        plaintext: false,
        only: None,
    };
    let btf = Btf::from_sys_fs()?;
    let first = Empty::load(empty, &btf).context("the empty programs")?;
    let mut kernel = Kernel::load(&options)?;
    let last = Empty::load(empty, &btf).context("the empty programs")?;
    kernel.state.flows.ensure(FLOWS)?;
    Ok((kernel, [first, last]))
}

/// Measures and prints; gives what an unwatched switch and its wake-up cost over empty programs,
/// and what an empty one costs, ns.
pub fn measure(empty: &Path, rounds: usize) -> Result<(f64, f64)> {
    let (kernel, empty) = between_empty_ones(empty)?;
    let mut bench = Bench {
        kernel,
        empty,
        figures: BTreeMap::new(),
    };
    let rounds = rounds.max(1);
    // What was measured is on this thread's CPU, and on no other's mind.
    let bench = std::thread::spawn(move || -> Result<Bench> {
        work::pin();
        let _counting = self_cost::count()?;
        bench.round()?;
        bench.figures.clear();
        for _ in 0..rounds {
            bench.round()?;
        }
        Ok(bench)
    });
    let bench = bench
        .join()
        .map_err(|_| anyhow::anyhow!("the measuring thread has panicked"))??;
    println!(
        "\nKernel programs: nanoseconds per event, median of {rounds} rounds (and middle half); \
         each figure but `over` holds what the counting costs"
    );
    println!(
        "{:<14} {:<28} {:>20} {:>8} {:>20}  target",
        "program", "event", "program", "empty", "over"
    );
    for row in ROWS {
        let Some(figures) = bench.figures.get(&(row.program, row.work)) else {
            println!("{:<14} {:<28} too few events", row.program, row.what);
            continue;
        };
        let spread = |figures: &Vec<f64>| Spread::of(figures.clone());
        let (Some(ours), Some(empty), Some(over)) = (
            spread(&figures.ours),
            spread(&figures.empty),
            spread(&figures.over),
        ) else {
            continue;
        };
        let target = row.target.map_or_else(String::new, |target| {
            format!("{target:.0}: {}", verdict(over.median, target))
        });
        println!(
            "{:<14} {:<28} {:>20} {:>8.0} {:>20}  {target}",
            row.program,
            row.what,
            ours.to_string(),
            empty.median,
            over.to_string()
        );
    }
    let median = |program, of: fn(&Figures) -> &Vec<f64>| {
        let figures = bench.figures.get(&(program, Work::Switches));
        figures
            .and_then(|figures| Spread::of(of(figures).clone()))
            .map_or(f64::NAN, |spread| spread.median)
    };
    let over = |program| median(program, |figures| &figures.over);
    Ok((
        over("thread_switch") + over("thread_wakeup"),
        median("thread_switch", |figures| &figures.empty),
    ))
}
