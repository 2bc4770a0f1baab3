//! What the node's own work costs more while somebody watches it: nobody, we, and the two run-queue
//! tools that Debian ships (libbpf-tools), in turn, within one run.
//!
//! In: the daemon's binary. Out: time per context switch, per round trip over loopback, and the rate
//! of a stream; and what the peers' programs cost an event, by the kernel's count. Never: a figure
//! of one contender set against one of another run.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::programs::loaded_programs;
use watchdog::{kernel::self_cost, tick::clock};

use crate::{
    daemon::{Daemon, wait},
    table::{Spread, verdict},
    work::{self, Pings, Switches},
};

/// How long each work lasts.
const SPAN: Duration = Duration::from_millis(400);
/// Rounds; every contender once in each.
const ROUNDS: usize = 7;
/// Bytes of the stream written at once.
const CHUNK: usize = 128 * 1024;
/// Peers by name and arguments: a bound that nothing reaches, an interval that does not end.
const PEERS: [(&str, &[&str]); 2] = [("runqlat", &["3600"]), ("runqslower", &["1000000"])];
/// How much dearer runqlat must be than we are, at least.
const CHEAPER_THAN_RUNQLAT: f64 = 20.0;

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Nobody,
    We,
    WeOnItsPort,
    Peer(usize),
}

const CONTENDERS: [Contender; 5] = [
    Contender::Nobody,
    Contender::We,
    Contender::WeOnItsPort,
    Contender::Peer(0),
    Contender::Peer(1),
];

impl Contender {
    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::We => "lease-watchdog",
            Self::WeOnItsPort => "lease-watchdog, port watched",
            Self::Peer(index) => PEERS[index].0,
        }
    }
}

/// A tool that runs, ended when dropped.
struct Tool {
    child: Child,
    programs: Vec<u32>,
}

impl Drop for Tool {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn ids() -> Vec<u32> {
    loaded_programs().flatten().map(|info| info.id()).collect()
}

impl Tool {
    fn start((name, arguments): (&str, &[&str])) -> Result<Self> {
        let before = ids();
        let child = Command::new(name)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{name}: apt-get install libbpf-tools"))?;
        let mut tool = Self {
            child,
            programs: Vec::new(),
        };
        // Loaded one after the other: complete when no more come.
        for _ in 0..100 {
            wait(Duration::from_millis(100));
            let mut new = ids();
            new.retain(|id| !before.contains(id));
            if !new.is_empty() && new == tool.programs {
                return Ok(tool);
            }
            tool.programs = new;
        }
        bail!("{name} loads no programs here")
    }

    /// Runs and time of its programs so far, by name.
    fn costs(&self) -> BTreeMap<String, (u64, Duration)> {
        loaded_programs()
            .flatten()
            .filter(|info| self.programs.contains(&info.id()))
            .map(|info| {
                let name = info.name_as_str().unwrap_or("?").to_owned();
                (name, (info.run_count(), info.run_time()))
            })
            .collect()
    }
}

/// What one round gives: ns a switch, ns a round trip, Gbit/s of a stream.
type Figures = [f64; 3];

fn works(listener: &TcpListener) -> Result<Figures> {
    let mut switches = Switches::start()?;
    let before = clock();
    // There and back is two switches.
    let count = 2 * switches.run(SPAN)?;
    let switch_ns = clock().since(before) as f64 / count as f64;
    switches.end();
    let mut pings = Pings::start(listener)?;
    let before = clock();
    let count = pings.run(SPAN)?;
    let trip_ns = clock().since(before) as f64 / count as f64;
    Ok([switch_ns, trip_ns, stream(listener)?])
}

/// Gbit/s from one thread to another.
fn stream(listener: &TcpListener) -> Result<f64> {
    let mut from = TcpStream::connect(listener.local_addr()?)?;
    let (mut to, _) = listener.accept()?;
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        while let Ok(read @ 1..) = to.read(&mut buffer) {
            bytes += read;
        }
        bytes
    });
    // What begins no handshake is left alone from then on, as another service's traffic is.
    let chunk = vec![b'x'; CHUNK];
    let before = clock();
    let until = before.plus(u64::try_from(SPAN.as_nanos())?);
    while clock() < until {
        from.write_all(&chunk)?;
    }
    drop(from);
    let bytes = reader.join().unwrap_or(0);
    Ok(bytes as f64 * 8.0 / clock().since(before) as f64)
}

/// Measures and prints.
pub fn measure(binary: &Path) -> Result<()> {
    let mut all: BTreeMap<Contender, Vec<Figures>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        for contender in CONTENDERS {
            let listener = work::listener()?;
            let port = listener.local_addr()?.port();
            let home = tempfile::tempdir()?;
            let _daemon = match contender {
                Contender::We => Some(Daemon::start(binary, home.path(), 1, 1)?),
                Contender::WeOnItsPort => Some(Daemon::start(binary, home.path(), port, 1)?),
                Contender::Nobody | Contender::Peer(_) => None,
            };
            let _tool = match contender {
                Contender::Peer(index) => Some(Tool::start(PEERS[index])?),
                _ => None,
            };
            let figures = std::thread::spawn(move || {
                work::pin();
                works(&listener)
            });
            let figures = figures
                .join()
                .map_err(|_| anyhow::anyhow!("the measuring thread has panicked"))??;
            // The first round only warms up.
            if round > 0 {
                all.entry(contender).or_default().push(figures);
            }
        }
    }
    println!(
        "\nThe node's own work while somebody watches: {ROUNDS} rounds interleaved, median (and \
         middle half); one CPU"
    );
    println!(
        "{:<30} {:>24} {:>24} {:>20}",
        "watched by", "switch ns", "round trip ns", "stream Gbit/s"
    );
    for (contender, figures) in &all {
        let column = |index: usize, digits: usize| {
            let of = figures.iter().map(|round| round[index]).collect();
            Spread::of(of).map_or_else(String::new, |spread| {
                format!(
                    "{:.digits$} ({:.digits$} to {:.digits$})",
                    spread.median, spread.low, spread.high
                )
            })
        };
        println!(
            "{:<30} {:>24} {:>24} {:>20}",
            contender.name(),
            column(0, 0),
            column(1, 0),
            column(2, 1)
        );
    }
    Ok(())
}

/// Measures and prints what the peers' programs cost an event, and compares: `over_ns` is ours over
/// an empty program, a switch and a wake-up that are not watched; `empty_ns` an empty one.
pub fn measure_programs(over_ns: f64, empty_ns: f64) -> Result<()> {
    println!("\nPeers' programs: ns per event by the kernel's count, the counting included");
    for peer in PEERS {
        let tool = Tool::start(peer)?;
        let before = tool.costs();
        let count = std::thread::spawn(|| -> Result<()> {
            work::pin();
            let _counting = self_cost::count()?;
            let mut switches = Switches::start()?;
            switches.run(SPAN)?;
            switches.end();
            Ok(())
        });
        count
            .join()
            .map_err(|_| anyhow::anyhow!("the measuring thread has panicked"))??;
        let mut sum = 0.0;
        for (name, (runs, time)) in tool.costs() {
            let (runs_before, time_before) = before.get(&name).copied().unwrap_or_default();
            let (runs, time) = (runs - runs_before, time.saturating_sub(time_before));
            if runs < 1_000 {
                continue;
            }
            let each = time.as_nanos() as f64 / runs as f64;
            sum += each - empty_ns;
            println!("{:<14} {name:<20} {each:>8.0}", peer.0);
        }
        let times = sum / over_ns.max(0.1);
        let compared = if peer.0 == "runqlat" {
            let target = verdict(CHEAPER_THAN_RUNQLAT, times);
            format!("  (target {CHEAPER_THAN_RUNQLAT:.0} times: {target})")
        } else {
            String::new()
        };
        println!(
            "{:<14} a switch and a wake-up: {sum:.0} ns over empty programs, {times:.0} times ours \
             ({over_ns:.0} ns){compared}",
            peer.0
        );
    }
    Ok(())
}
