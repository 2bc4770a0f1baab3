//! The daemon as a user runs it, with growing numbers of sessions: its memory, its CPU time, how
//! long it takes to start, and how late its tick is.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use watchdog::tick::clock;

use crate::{sessions::Sessions, table::verdict};

/// How long CPU time is taken for.
const WINDOW: Duration = Duration::from_secs(5);
/// All leases must have been seen within this.
const SEEN_WITHIN_NS: u64 = 60_000_000_000;

/// What a late lease may cost, ms of CPU time a second.
const LATE_COSTS_MS: f64 = 5.0;

/// Ends with its owner.
pub struct Daemon {
    child: Child,
    http: String,
    started_ms: f64,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Daemon {
    /// Starts it on a port; gives it when it says `started`.
    pub fn start(binary: &Path, home: &Path, port: u16, sessions: usize) -> Result<Self> {
        // Its cost is looked at here, and not ended.
        let limits = "limits: { cpu: 100%, memory: 1GiB }\n";
        Self::start_with(binary, home, port, sessions, limits)
    }

    /// The same with more sections in its configuration.
    pub fn start_with(
        binary: &Path,
        home: &Path,
        port: u16,
        sessions: usize,
        more: &str,
    ) -> Result<Self> {
        let config = home.join("watchdog.yaml");
        let text = format!(
            "leases: [{{ name: zookeeper, protocol: zookeeper, ports: [{port}] }}]\n\
             http: {{ listen: \"127.0.0.1:0\" }}\n{more}"
        );
        fs::write(&config, text)?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(&config);
        command.args(["--events", "-", "--state-dir"]).arg(home);
        // That it records is no news here, and what it loses is counted in the table.
        command.env("RUST_LOG", "warn,watchdog::recorder=error");
        // Both ends of each session are flows of this node; the default holds 16,384.
        if sessions * 2 > 16_384 {
            command.args(["--flows", &(sessions * 2).next_power_of_two().to_string()]);
        }
        let before = clock();
        let mut child = command
            .stdout(Stdio::piped())
            // What it has to say against the machine belongs beside the figures.
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let started_ms = clock().since(before) as f64 / 1e6;
        let mut daemon = Self {
            child,
            http: String::new(),
            started_ms,
        };
        let started: serde_json::Value = serde_json::from_str(&line).context("no `started`")?;
        daemon.http = started["http"].as_str().context("no http")?.to_owned();
        // Somebody has to read its events.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Ok(daemon)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit code, once it ends by itself; None: it has not.
    pub fn exit(&mut self, within: Duration) -> Result<Option<i32>> {
        let until = clock().plus(u64::try_from(within.as_nanos())?);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            if clock() > until {
                return Ok(None);
            }
            wait(Duration::from_millis(20));
        }
    }

    /// Its metrics page.
    pub fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(&self.http)?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// What was lost of this.
    pub fn lost(&self, what: &str) -> Result<u64> {
        let metrics = self.metrics()?;
        let head = format!("lease_watchdog_lost_total{{what=\"{what}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&head));
        Ok(line.context("lost_total")?.parse()?)
    }

    /// Leases of both roles, by stage: all, and those that are not healthy.
    fn leases(&self) -> Result<(f64, f64)> {
        let metrics = self.metrics()?;
        let sum = |wanted: &dyn Fn(&str) -> bool| -> f64 {
            metrics
                .lines()
                .filter(|line| line.starts_with("lease_watchdog_leases{") && wanted(line))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        Ok((
            sum(&|_| true),
            sum(&|line| !line.contains("stage=\"healthy\"")),
        ))
    }

    /// Waits until so many are seen.
    pub fn wait_for_leases(&self, count: usize) -> Result<()> {
        self.wait_until(&format!("{count} leases"), |(seen, _)| {
            seen as usize >= count
        })
    }

    fn wait_until(&self, what: &str, holds: impl Fn((f64, f64)) -> bool) -> Result<()> {
        let until = clock().plus(SEEN_WITHIN_NS);
        loop {
            let leases = self.leases()?;
            if holds(leases) {
                return Ok(());
            }
            if clock() > until {
                bail!("waited for {what}; all and unhealthy are {leases:?}");
            }
            wait(Duration::from_millis(50));
        }
    }

    /// Share of a core that it uses over a window.
    pub fn cpu_share(&self) -> Result<f64> {
        let (cpu, at) = (self.cpu()?, clock());
        wait(WINDOW);
        let used = self.cpu()?.saturating_sub(cpu).as_nanos() as f64;
        Ok(used / clock().since(at) as f64)
    }

    /// CPU time of all its threads so far.
    pub fn cpu(&self) -> Result<Duration> {
        let mut all = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let ran = text.split(' ').next().and_then(|word| word.parse().ok());
            all += ran.unwrap_or(0);
        }
        Ok(Duration::from_nanos(all))
    }

    pub fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("VmRSS")?.parse::<f64>()? / 1024.0)
    }

    /// How long a scrape takes, the middle one of five.
    fn scrape_ms(&self) -> Result<f64> {
        let mut took = Vec::new();
        for _ in 0..5 {
            let begun = clock();
            self.metrics()?;
            took.push(clock().since(begun) as f64 / 1e6);
        }
        took.sort_by(f64::total_cmp);
        Ok(took[2])
    }

    /// Upper bounds, in milliseconds, under which this share of the ticks was late.
    pub fn tick_late_ms(&self, shares: [f64; 2]) -> Result<[f64; 2]> {
        let metrics = self.metrics()?;
        let buckets: Vec<(f64, f64)> = metrics
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix("lease_watchdog_tick_late_seconds_bucket{le=\"")?;
                let (bound, count) = rest.split_once("\"} ")?;
                let bound = bound.parse().unwrap_or(f64::INFINITY);
                Some((bound, count.parse().ok()?))
            })
            .collect();
        let all = buckets.last().context("no tick_late_seconds")?.1;
        Ok(shares.map(|share| {
            let within = |(_, count): &&(f64, f64)| *count >= all * share;
            buckets
                .iter()
                .find(within)
                .map_or(f64::INFINITY, |found| found.0)
                * 1e3
        }))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a window of measurement is the one thing that no event can end"
)]
/// Lets time pass.
pub fn wait(span: Duration) {
    std::thread::sleep(span);
}

/// What is promised for a number of leases: share of a core in percent, MiB.
fn targets(leases: usize) -> Option<(f64, f64)> {
    match leases {
        0..=100 => Some((0.5, 32.0)),
        101..=10_000 => Some((5.0, 64.0)),
        _ => None,
    }
}

/// Measures and prints what a late lease costs: asked about at both of its ends, twice a second.
fn measure_late(binary: &Path) -> Result<()> {
    let mut sessions = Sessions::serve()?;
    let home = tempfile::tempdir()?;
    let daemon = Daemon::start(binary, home.path(), sessions.port, 1)?;
    sessions.open(1)?;
    daemon.wait_for_leases(2)?;
    let healthy = daemon.cpu_share()?;
    sessions.stop()?;
    daemon.wait_until("a late lease", |(_, unhealthy)| unhealthy > 0.0)?;
    let late = daemon.cpu_share()?;
    let cost = (late - healthy) * 1e3;
    println!(
        "\nOne session whose holder is stopped, over the same one healthy: {cost:.1} ms CPU a \
         second  (target {LATE_COSTS_MS}: {})",
        verdict(cost, LATE_COSTS_MS)
    );
    Ok(())
}

/// What the daemon took with so many leases.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Leases, of both ends.
    pub leases: usize,
    /// Percent of a core.
    pub cpu_percent: f64,
    /// Resident memory, MiB.
    pub resident_mib: f64,
}

/// Measures and prints; gives what it found.
pub fn measure(binary: &Path, counts: &[usize]) -> Result<Vec<Size>> {
    println!(
        "\nDaemon, by sessions (each seen at both of its ends); CPU in percent of a core over \
         {} s, tick lateness by the upper bound of its bucket",
        WINDOW.as_secs()
    );
    println!(
        "{:>8} {:>8} {:>10} {:>8} {:>8} {:>12} {:>12}  targets: CPU, RSS",
        "sessions", "leases", "unhealthy", "CPU %", "RSS MiB", "late p50 ms", "late p99 ms"
    );
    let (mut starts, mut scrapes, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for &count in counts {
        let mut sessions = Sessions::serve()?;
        let home = tempfile::tempdir()?;
        let daemon = Daemon::start(binary, home.path(), sessions.port, count)?;
        starts.push(daemon.started_ms);
        sessions.open(count)?;
        daemon.wait_for_leases(count * 2)?;
        // The rush is over; every session pings at least once in the window.
        wait(Duration::from_secs(2));
        let share = daemon.cpu_share()? * 100.0;
        let resident = daemon.resident_mib()?;
        let [p50, p99] = daemon.tick_late_ms([0.5, 0.99])?;
        let (leases, unhealthy) = daemon.leases()?;
        scrapes.push(daemon.scrape_ms()?);
        sizes.push(Size {
            leases: count * 2,
            cpu_percent: share,
            resident_mib: resident,
        });
        let verdicts = targets(count * 2).map_or_else(
            || "none for so many".to_owned(),
            |(cpu, rss)| {
                format!(
                    "{cpu}: {}, {rss}: {}",
                    verdict(share, cpu),
                    verdict(resident, rss)
                )
            },
        );
        println!(
            "{count:>8} {leases:>8} {unhealthy:>10} {share:>8.2} {resident:>8.1} {p50:>12.1} \
             {p99:>12.1}  {verdicts}"
        );
    }
    let all: Vec<String> = starts.iter().map(|ms| format!("{ms:.0}")).collect();
    let worst = starts.iter().copied().fold(0.0, f64::max);
    println!(
        "\nStart to `started`, ms: {}  (target 1000 to the first lease seen: {})",
        all.join(", "),
        verdict(worst, 1000.0)
    );
    let all: Vec<String> = scrapes.iter().map(|ms| format!("{ms:.1}")).collect();
    let worst = scrapes.iter().copied().fold(0.0, f64::max);
    println!(
        "A scrape, ms: {}  (target 50 at 10,000 leases: {})",
        all.join(", "),
        verdict(worst, 50.0)
    );
    measure_late(binary)?;
    Ok(sizes)
}
