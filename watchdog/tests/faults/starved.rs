//! How long a warning takes to leave a node that is starved: both CPUs taken by hundreds of threads
//! at nice −20, disks kept busy with fsyncs, memory thrashed, 50,000 context switches a second, and
//! the disk of the daemon's own binary, configuration and state hung.
//!
//! In: holders and a grantor that run in real time, so that they are punctual until they are stopped.
//! Out: for each of them the time from the threshold to the line's arrival. The threshold is
//! computed here, from the holder's own stamps and the moment of the stop; the arrival is stamped
//! here, by a thread in real time. Never: a figure taken from the daemon.

use crate::harness::clock::{self, SECOND};
use crate::harness::daemon::{Daemon, binary};
use crate::harness::event::Stage;
use crate::harness::process::{Child, send_signal};
use crate::rig::cgroup::Cgroup;
use crate::rig::hung_disk::HungDisk;
use crate::rig::programs::Habit;
use crate::rig::random;
use crate::rig::switch::{self, Switch};
use crate::rig::victim::{Holder, Program, own_file};
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

/// Delays of one stage.
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

    fn row(&self, load: &str, stage: &str) -> String {
        let ms = |us: i64| us as f64 / 1e3;
        format!(
            "| {load} | `{stage}` | {} | {:.0} | {:.0} | {:.0} |",
            self.0.len(),
            ms(self.share(0.5)),
            ms(self.share(0.99)),
            ms(self.share(1.0))
        )
    }
}

/// Everything that takes the node away from others, ended when dropped.
struct Load {
    _children: Vec<Child>,
    _memory: Option<Cgroup>,
    _switch: Switch,
    _folder: tempfile::TempDir,
}

/// A shell that runs `script` at nice −20.
fn shell(script: &str) -> Child {
    let mut command = Command::new("nice");
    command.args(["-n", "-20", "sh", "-c", script]);
    Child::start(command)
}

impl Load {
    fn begin() -> Self {
        let binary = std::env::current_exe().expect("a program knows its own binary");
        let binary = binary.display();
        let folder = tempfile::tempdir().expect("a folder");
        let files = folder.path().display();
        let mut children = vec![
            shell(&format!("exec {binary} crowd 300")),
            shell(&format!("exec {binary} switches 4")),
            shell(&format!("exec {binary} fsyncs {files}/a 4")),
        ];
        let memory = Cgroup::has("memory").then(|| {
            let group = Cgroup::create("memory");
            group.write("memory.limit_in_bytes", "67108864");
            let script = format!(
                "echo $$ > {}/cgroup.procs; dd if=/dev/zero of={files}/b bs=1M count=160 \
                 status=none; while :; do cat {files}/b > /dev/null; done",
                group.folder()
            );
            children.push(shell(&script));
            group
        });
        let pids: Vec<String> = children
            .iter()
            .map(|child| child.pid().to_string())
            .collect();
        // Should this program be killed, the crowd must not stay.
        let switch = Switch::arm(
            switch::GROUND,
            &format!("kill -9 {} 2>/dev/null; true", pids.join(" ")),
        );
        Self {
            _children: children,
            _memory: memory,
            _switch: switch,
            _folder: folder,
        }
    }
}

/// All threads of this process in real time, so that a stamp is the moment of the arrival; what it
/// starts is not.
fn in_real_time() {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    for task in tasks.flatten() {
        let tid: i32 = task
            .file_name()
            .to_string_lossy()
            .parse()
            .expect("a thread's id");
        let priority = libc::sched_param { sched_priority: 3 };
        let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        // SAFETY: a valid structure; the thread is one of this process.
        let status = unsafe { libc::sched_setscheduler(tid, policy, &raw const priority) };
        assert_eq!(status, 0, "this kernel gives no real-time priority");
    }
}

/// The daemon, with binary, configuration and state on the disk that will hang.
fn daemon_on(disk: &Path, port: u16) -> Daemon {
    let place = |name: &str| disk.join(name);
    std::fs::copy(binary(), place("lease-watchdog")).expect("room for the binary");
    let config = format!(
        "leases: [{{ name: zookeeper, protocol: zookeeper, ports: [{port}], role: holder }}]\n\
         http: {{ listen: \"127.0.0.1:0\" }}\n"
    );
    std::fs::write(place("watchdog.yaml"), config).expect("room for the configuration");
    std::fs::create_dir(place("state")).expect("room for the state");
    let mut command = Command::new(place("lease-watchdog"));
    command
        .arg("run")
        .arg("--config")
        .arg(place("watchdog.yaml"));
    command
        .args(["--events", "-", "--state-dir"])
        .arg(place("state"));
    let daemon = Daemon::launch(command);
    daemon.wait_for("`started`", Duration::from_secs(60), |event| {
        event.is("started")
    });
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

/// Plays so many rounds, bare and starved; gives the table and whether the promise was kept.
///
/// # Errors
/// What was not warned of at all.
pub fn run(rounds: usize) -> Result<(String, bool), String> {
    let disk = HungDisk::create("defaults");
    let port = free_port();
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let inside = ["chrt", "-f", "2"];
    let words = ["grantor", &server.to_string(), &T.as_millis().to_string()].map(str::to_owned);
    let grantor = Program::start(&inside, &words, "grantor");
    grantor.wait_long("listening");
    let daemon = daemon_on(disk.mount(), port);
    let file = own_file(disk.mount());
    let holders: Vec<Program> = (0..HOLDERS)
        .map(|_| {
            let mut holder = Holder::new(port, T, Habit::None, &file);
            holder.inside = &inside;
            clock::observe_for(random::within(T / 12));
            holder.start()
        })
        .collect();
    for holder in &holders {
        daemon.wait_seen(holder.id(), "holder", Duration::from_secs(10));
    }
    in_real_time();
    let mut table = String::from(
        "| node | stage | samples | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|---|\n",
    );
    let mut kept = true;
    for (load, starved) in [("quiet", false), ("starved, disk hung", true)] {
        let _load = starved.then(Load::begin);
        let (mut late, mut at_risk) = (Delays::default(), Delays::default());
        for _ in 0..rounds {
            // Two whole cycles: the cadence is known again, and the load is up.
            clock::observe_for(T * 5 / 6);
            let mark = daemon.mark();
            let _hanging = starved.then(|| disk.hang());
            let stopped = stop_all(&holders);
            clock::observe_for(Duration::from_millis(500));
            let events = daemon.events_since(mark);
            for (holder, stopped_us) in holders.iter().zip(stopped) {
                let id = holder.id();
                let arrival = |stage: Stage| {
                    let found = events.iter().find(|event| {
                        event.of(id, "holder")
                            && event.stage() >= Some(stage)
                            && event.at_us > stopped_us
                    });
                    let story = || format!("{id:#x}: not {stage:?}\n{}", daemon.report());
                    found.map(|event| event.at_us).ok_or_else(story)
                };
                let sent_us = holder
                    .last("sent", stopped_us)
                    .ok_or("a holder never sent a ping")?;
                let due_us = stopped_us + HARD_STALL_US;
                late.0.push(arrival(Stage::Late)? - due_us);
                let due_us = due_us.max(sent_us + clock::micros(T) / 3);
                at_risk.0.push(arrival(Stage::AtRisk)? - due_us);
            }
        }
        for (delays, stage) in [(&mut late, "late"), (&mut at_risk, "at_risk")] {
            delays.0.sort_unstable();
            kept &= delays.share(0.99) <= PROMISED_US;
            writeln!(table, "{}", delays.row(load, stage)).expect("a string");
        }
    }
    Ok((table, kept))
}

/// The table, for people.
pub fn page(rounds: usize, made: &str, table: &str) -> String {
    format!(
        "# Working when the node does not\n\n\
         Made by `cargo xtask starved --rounds {rounds}` on {made}. Time from a threshold to the \
         arrival of the line that says so, at a receiver outside of the daemon. The threshold is \
         computed from the holder's own stamps and the moment at which it was stopped (SIGSTOP, at a \
         random moment of its cycle; T = 6 s): `late` 1 s after the stop, `at_risk` also T/3 after \
         the last answered ping. Promised: 150 ms, 99 of 100.\n\n\
         *Starved*: 300 computing threads, eight that do nothing but switch and four that fsync, all \
         at nice −20 on two CPUs; a memory cgroup of 64 MiB that reads 160 MiB again and again; and \
         the disk with the daemon's binary, configuration and state hung.\n\n{table}"
    )
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("an address").port()
}
