//! How long a warning takes to leave a node that is starved: both CPUs taken by hundreds of threads
//! at nice −20, disks kept busy with fsyncs, memory thrashed, 50,000 context switches a second, and
//! the disk of the daemon's own binary, configuration and state hung.
//!
//! In: holders and a grantor that run in real time, so that they are punctual until they are stopped.
//! Out: for each of them the time from the threshold to the line's arrival. The threshold is
//! computed here, from the holder's own stamps and the moment of the stop; the arrival is stamped
//! here, by a thread in real time. Never: a figure taken from the daemon.

mod load;
pub mod pager;

use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{Daemon, GRACE_US, binary};
use crate::harness::event::Stage;
use crate::harness::process::send_signal;
use crate::rig::hung_disk::HungDisk;
use crate::rig::programs::Habit;
use crate::rig::random;
use crate::rig::victim::{Holder, Program, own_file};
use load::Load;
use pager::{Paged, Pager};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Every session's timeout.
const T: Duration = Duration::from_secs(6);
/// Proof of a stall takes this long (`hard_stall`); also the T/6 that `at_risk` asks of it.
const HARD_STALL_US: i64 = SECOND;
/// The promise: from threshold to arrival, 99 of 100.
const PROMISED_US: i64 = 150_000;
/// Holders stopped in each round.
const HOLDERS: usize = 10;
/// A holder stays stopped until every threshold looked for has long passed, and none has lapsed.
const STOPPED_FOR: Duration = Duration::from_millis(3_200);

/// What never came while it was waited for.
const NEVER_US: i64 = i64::MAX;

/// What makes holders and grantor punctual, whatever the load.
const INSIDE: [&str; 3] = ["chrt", "-f", "10"];

/// Delays of one stage by one way out.
#[derive(Debug, Default)]
struct Delays(Vec<i64>);

impl Delays {
    fn share(&self, share: f64) -> i64 {
        let last = self.0.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index within the list"
        )]
        let at = (last as f64 * share).ceil() as usize;
        self.0.get(at).copied().unwrap_or(0)
    }

    fn row(&self, node: &str, what: &str) -> String {
        let ms = |us: i64| match us {
            NEVER_US => "not while it lasted".to_owned(),
            us => format!("{:.0}", us as f64 / 1e3),
        };
        format!(
            "| {node} | {what} | {} | {} | {} | {} |",
            self.0.len(),
            ms(self.share(0.5)),
            ms(self.share(0.99)),
            ms(self.share(1.0))
        )
    }
}

/// All threads of a process in real time. What they start is not, but for what the first one does: the
/// dead man's switches, which are to work under the load.
fn in_real_time(pid: u32) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("/proc");
    for task in tasks.flatten() {
        let name = task.file_name().to_string_lossy().into_owned();
        let tid: u32 = name.parse().expect("a thread's id");
        let priority = libc::sched_param { sched_priority: 11 };
        let reset = if tid == pid {
            0
        } else {
            libc::SCHED_RESET_ON_FORK
        };
        let tid = libc::pid_t::try_from(tid).expect("thread ids fit in 31 bits");
        let policy = libc::SCHED_FIFO | reset;
        // SAFETY: a valid structure; a thread that has ended is an error and no harm.
        let status = unsafe { libc::sched_setscheduler(tid, policy, &raw const priority) };
        assert_eq!(status, 0, "this kernel gives no real-time priority");
    }
}

/// What the kernel lets the daemon have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    RealTime,
    NiceOnly,
}

impl Allowed {
    const fn word(self) -> &'static str {
        match self {
            Self::RealTime => "real_time",
            Self::NiceOnly => "nice -20",
        }
    }
}

/// The daemon, with binary, configuration and state on the disk that will hang, and a webhook and a
/// kept hook that page.
fn daemon_on(disk: &Path, port: u16, pager: &Pager, allowed: Allowed) -> Daemon {
    let place = |name: &str| disk.join(format!("{name}-{}", allowed.word().replace(' ', "")));
    std::fs::copy(binary(), place("lease-watchdog")).expect("room for the binary");
    let this = std::env::current_exe().expect("a program knows its own binary");
    let config = format!(
        "leases: [{{ name: zookeeper, protocol: zookeeper, ports: [{port}], role: holder }}]\n\
         http: {{ listen: \"127.0.0.1:0\" }}\n\
         # Of builds of any kind, under every load.\n\
         limits: {{ cpu: 100%, memory: 1GiB }}\n\
         alerts:\n\
         - {{ on: late, webhook: {{ url: \"http://{webhook}/\" }} }}\n\
         - {{ on: late, exec: {{ argv: [\"{this}\", pager, \"{hook}\"], persistent: true }} }}\n",
        webhook = pager.webhook,
        this = this.display(),
        hook = pager.hook,
    );
    std::fs::write(place("watchdog.yaml"), config).expect("room for the configuration");
    std::fs::create_dir(place("state")).expect("room for the state");
    let binary = place("lease-watchdog");
    let mut command = match allowed {
        Allowed::RealTime => Command::new(&binary),
        Allowed::NiceOnly => {
            // What it has it may keep.
            let mut command = Command::new("nice");
            command.args(["-n", "-20", "setpriv", "--inh-caps=-sys_nice"]);
            command
                .args(["--bounding-set=-sys_nice", "--"])
                .arg(&binary);
            command
        }
    };
    command
        .arg("run")
        .arg("--config")
        .arg(place("watchdog.yaml"));
    command
        .args(["--events", "-", "--state-dir"])
        .arg(place("state"));
    let daemon = Daemon::launch(command);
    let started = daemon.wait_for("`started`", Duration::from_secs(60), |event| {
        event.is("started")
    });
    assert_eq!(started.text("priority"), allowed.word());
    daemon
}

/// Stops each holder at a moment of its cycle that chance chooses, for [`STOPPED_FOR`]; gives the
/// moments of the stops.
fn stop_all(holders: &[Program]) -> Vec<i64> {
    let begin_us = clock::now_us();
    let mut order: Vec<(i64, usize)> = (0..holders.len())
        .map(|index| (begin_us + clock::micros(random::within(T / 3)), index))
        .collect();
    order.sort_unstable();
    let mut stopped = vec![0; holders.len()];
    for (at_us, index) in &order {
        clock::observe_until(*at_us);
        stopped[*index] = clock::now_us();
        send_signal(holders[*index].pid(), libc::SIGSTOP);
    }
    for (_, index) in &order {
        clock::observe_until(stopped[*index] + clock::micros(STOPPED_FOR));
        send_signal(holders[*index].pid(), libc::SIGCONT);
    }
    stopped
}

/// How much is played.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    /// Rounds of each kind, with ten samples each.
    pub rounds: usize,
    /// Only the starved node and the daemon as it is meant to be, with slack.
    pub short: bool,
}

/// What was measured.
pub struct Measured {
    /// The table.
    pub table: String,
    /// What the load did.
    pub load: String,
    /// Rows that break the promise.
    pub broken: Vec<String>,
}

/// A daemon, who is told, and what it watches.
struct Running {
    allowed: Allowed,
    holders: Vec<Program>,
    daemon: Daemon,
    pager: Pager,
}

impl Running {
    fn start(disk: &HungDisk, port: u16, allowed: Allowed) -> Self {
        let pager = Pager::start();
        let daemon = daemon_on(disk.mount(), port, &pager, allowed);
        let file = own_file(disk.mount());
        let holders: Vec<Program> = (0..HOLDERS)
            .map(|_| {
                let mut holder = Holder::new(port, T, Habit::None, &file);
                holder.inside = &INSIDE;
                clock::observe_for(random::within(T / 12));
                holder.start()
            })
            .collect();
        for holder in &holders {
            daemon.wait_seen(holder.id(), "holder", Duration::from_secs(10));
        }
        in_real_time(std::process::id());
        in_real_time(disk.fuse_pid().unsigned_abs());
        Self {
            allowed,
            holders,
            daemon,
            pager,
        }
    }
}

/// Plays so many rounds, on a quiet node and on a starved one, with real time and without.
///
/// # Errors
/// What was not warned of at all where real time was granted.
pub fn run(play: Play) -> Result<Measured, String> {
    let disk = HungDisk::create("defaults");
    let port = free_port();
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let words = ["grantor", &server.to_string(), &T.as_millis().to_string()].map(str::to_owned);
    let grantor = Program::start(&INSIDE, &words, "grantor");
    grantor.wait_long("listening");
    let mut measured = Measured {
        table: String::from(
            "| node | what | samples | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|---|\n",
        ),
        load: String::new(),
        broken: Vec::new(),
    };
    let plays: &[(Allowed, bool)] = match play.short {
        true => &[(Allowed::RealTime, true)],
        false => &[
            (Allowed::RealTime, false),
            (Allowed::RealTime, true),
            (Allowed::NiceOnly, true),
        ],
    };
    let mut running: Option<Running> = None;
    for (allowed, starved) in plays {
        if running.as_ref().is_none_or(|had| had.allowed != *allowed) {
            drop(running.take());
            running = Some(Running::start(&disk, port, *allowed));
        }
        let running = running.as_ref().expect("it was just started");
        let node = match (starved, allowed) {
            (false, _) => "quiet",
            (true, Allowed::RealTime) => "starved, disk hung",
            (true, Allowed::NiceOnly) => "starved, disk hung, real time refused (nice −20)",
        };
        let load = starved.then(Load::begin);
        let mut all: [Delays; 4] = Default::default();
        for _ in 0..play.rounds {
            round(&mut all, running, starved.then_some(&disk))?;
        }
        if let Some(load) = &load {
            measured.load = load.did();
        }
        let whats = [
            "`late`",
            "`at_risk`",
            "`late` by webhook",
            "`late` by a kept hook",
        ];
        for (delays, what) in all.iter_mut().zip(whats) {
            delays.0.sort_unstable();
            let row = delays.row(node, what);
            let promised = if play.short { GRACE_US } else { PROMISED_US };
            if *allowed == Allowed::RealTime && delays.share(0.99) > promised {
                measured.broken.push(row.clone());
            }
            writeln!(measured.table, "{row}").expect("a string");
        }
    }
    Ok(measured)
}

/// Stops all holders once, and takes the delays of what is said of each: `late` and `at_risk` in the
/// event stream, `late` by webhook and by hook.
fn round(all: &mut [Delays; 4], running: &Running, disk: Option<&HungDisk>) -> Result<(), String> {
    let Running {
        allowed,
        holders,
        daemon,
        pager,
    } = running;
    // Two whole cycles: the cadence is known again, the load is up, and earlier alerts are over.
    clock::observe_for(T * 5 / 6);
    let (mark, paged) = (daemon.mark(), pager.mark());
    let hanging = disk.map(HungDisk::hang);
    let stopped = stop_all(holders);
    clock::observe_for(Duration::from_millis(500));
    let (events, paged) = (daemon.events_since(mark), pager.since(paged));
    drop(hanging);
    for (holder, stopped_us) in holders.iter().zip(stopped) {
        let id = holder.id();
        let sent_us = holder
            .last("sent", stopped_us)
            .ok_or("a holder never sent a ping")?;
        let late_us = stopped_us + HARD_STALL_US;
        let at_risk_us = late_us.max(sent_us + clock::micros(T) / 3);
        let said = |stage: Stage| {
            let found = events.iter().find(|event| {
                event.of(id, "holder") && event.stage() >= Some(stage) && event.at_us > stopped_us
            });
            found.map(|event| event.at_us)
        };
        let page = |hook: bool| {
            let mut of_it = paged.iter().filter(|one: &&Paged| {
                one.by_hook == hook && one.worst == Some(id) && one.at_us > stopped_us
            });
            of_it.next().map(|one| one.at_us)
        };
        let arrivals = [
            (said(Stage::Late), late_us),
            (said(Stage::AtRisk), at_risk_us),
            (page(false), late_us),
            (page(true), late_us),
        ];
        for (delays, (arrival, due_us)) in all.iter_mut().zip(arrivals) {
            match arrival {
                Some(at_us) => delays.0.push(at_us - due_us),
                None if *allowed == Allowed::RealTime => {
                    return Err(format!(
                        "{id:#x}: not told: {arrivals:?}\n{}",
                        daemon.report()
                    ));
                }
                None => delays.0.push(NEVER_US),
            }
        }
    }
    Ok(())
}

/// The table, for people.
pub fn page(rounds: usize, made: &str, measured: &Measured) -> String {
    let Measured { table, load, .. } = measured;
    format!(
        "Made by `cargo xtask starved --rounds {rounds}` on {made}. Time from a threshold to the \
         arrival of what says so, at a receiver outside of the daemon: a line of the event stream at \
         the reader of its pipe, an alert at an HTTP server (`webhook`) or at a server that the hook's \
         program tells (`exec`, `persistent: true`). The threshold is \
         computed from the holder's own stamps and the moment at which it was stopped (SIGSTOP, at a \
         random moment of its cycle; T = 6 s): `late` 1 s after the stop, `at_risk` also T/3 after \
         the last answered ping. Promised: 150 ms, 99 of 100, wherever real-time priority is granted.\n\n\
         *Starved*: 300 computing threads, 128 that do nothing but wake each other (with the shortest \
         slice that the scheduler knows) and four that fsync, all \
         at nice −20 on two CPUs; a memory cgroup of 64 MiB of which 56 are held, that reads 160 MiB again \
         and again; and \
         the disk with the daemon's binary, configuration and state hung. What the load did: {load}.\n\n\
         *Real time refused*: started at nice −20 without CAP_SYS_NICE. The daemon says so \
         in its log and as `priority` in `started`.\n\n{table}"
    )
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("an address").port()
}
