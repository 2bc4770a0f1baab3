//! What was promised, each with its figure: the last table of docs/benchmarks.md.
//!
//! In: the lines that the measuring program printed, and the pages that other commands have made. Out:
//! a Markdown table in which no promise is left out; one whose figure is not to be had says so. Never: a
//! figure from anywhere else.

use std::fmt::Write as _;

/// What is read.
pub struct Pages<'a> {
    /// What the measuring program printed.
    pub bench: &'a str,
    /// docs/reliability.md.
    pub reliability: &'a str,
    /// docs/faults.md.
    pub faults: &'a str,
    /// docs/kernels.md.
    pub kernels: &'a str,
}

/// A promise and its figure; None: there is none here.
struct Row {
    what: &'static str,
    target: &'static str,
    figure: Option<(String, bool)>,
    from: &'static str,
}

/// The table, with its heading.
pub fn table(pages: &Pages<'_>) -> String {
    let mut text =
        "## Targets\n\n| | target | figure | | from |\n|---|---|---|---|---|\n".to_owned();
    for row in rows(pages) {
        let (figure, verdict) = match &row.figure {
            Some((figure, true)) => (figure.as_str(), "met"),
            Some((figure, false)) => (figure.as_str(), "**missed**"),
            None => ("not in this run", ""),
        };
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {figure} | {verdict} | {} |",
            row.what, row.target, row.from
        );
    }
    text
}

fn rows(pages: &Pages<'_>) -> Vec<Row> {
    let bench = |what, target, figure| Row {
        what,
        target,
        figure,
        from: "above",
    };
    let page = |what, target, figure, from| Row {
        what,
        target,
        figure,
        from,
    };
    let starved = "[reliability.md](reliability.md), `cargo xtask starved`";
    let matrix = "[faults.md](faults.md), `cargo xtask faults --runs 30`";
    let controls = "the controls in [faults.md](faults.md)";
    vec![
        page(
            "from a threshold to the line that says so, p99, node quiet",
            "150 ms",
            delay(pages.reliability, "| quiet |"),
            starved,
        ),
        page(
            "the same, every CPU taken and the disk hung",
            "150 ms",
            delay(pages.reliability, "| starved, disk hung |"),
            starved,
        ),
        page(
            "`late` after the onset of a hard stall, at most",
            "1,500 ms",
            onset(pages.reliability),
            starved,
        ),
        page(
            "faults that bit and were flagged before the harm",
            "all",
            share(pages.faults, 4),
            matrix,
        ),
        page(
            "the cause right, of the fault where it is worst",
            "95 %",
            worst_cause(pages.faults),
            matrix,
        ),
        page(
            "events above `late` while all was well",
            "0",
            above_late(pages.faults),
            controls,
        ),
        bench(
            "a switch of a thread that is not watched, over an empty program",
            "15 ns",
            program(pages.bench, "thread_switch", "unwatched"),
        ),
        bench(
            "a packet that is not watched, in",
            "25 ns",
            program(pages.bench, "packet_in", "unwatched"),
        ),
        bench(
            "a packet that is not watched, out",
            "25 ns",
            program(pages.bench, "packet_out", "unwatched"),
        ),
        bench(
            "a watched ping or reply, in",
            "300 ns",
            program(pages.bench, "packet_in", "watched ping"),
        ),
        bench(
            "a watched ping or reply, out",
            "300 ns",
            program(pages.bench, "packet_out", "watched ping"),
        ),
        bench(
            "cheaper than runqlat, a switch and a wake-up",
            "20 times",
            runqlat(pages.bench),
        ),
        bench(
            "the daemon's CPU, 100 leases",
            "0.5 % of a core",
            daemon(pages.bench, "100", 3, 0.5, "%"),
        ),
        bench(
            "the daemon's CPU, 10,000 leases",
            "5 % of a core",
            daemon(pages.bench, "10000", 3, 5.0, "%"),
        ),
        bench(
            "resident memory, 100 leases",
            "32 MiB",
            daemon(pages.bench, "100", 4, 32.0, "MiB"),
        ),
        bench(
            "resident memory, 10,000 leases",
            "64 MiB",
            daemon(pages.bench, "10000", 4, 64.0, "MiB"),
        ),
        bench(
            "start to the first lease seen",
            "1,000 ms",
            last_verdict(pages.bench, "Start to `started`"),
        ),
        page(
            "leaves when it costs more than `limits`, in a storm of packets too",
            "detached, said, exit code 1",
            said(pages.bench, "Told to cost no more"),
            "above; in a storm: `cargo xtask test storm_of_packets`",
        ),
        page(
            "real time bounded, nothing starved by it",
            "SCHED_FIFO with RLIMIT_RTTIME",
            said(pages.bench, "In real time"),
            "above",
        ),
        page(
            "kernels 5.10 to current, cgroup v1 and v2, IPv4 and IPv6",
            "runs",
            demos(pages.kernels),
            "[kernels.md](kernels.md), `cargo xtask vm`; both families: `cargo xtask test ipv6`",
        ),
    ]
}

/// The cells of a Markdown row.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The rows of real-time starts whose first cell is this: the worst p99 of all ways out, ms.
fn delay(page: &str, head: &str) -> Option<(String, bool)> {
    let of = |line: &str| cells(line).get(4)?.parse::<u64>().ok();
    let worst = page
        .lines()
        .filter(|line| line.starts_with(head))
        .filter_map(of)
        .max()?;
    Some((format!("{worst} ms"), worst <= 150))
}

/// The threshold of a hard stall is one second after its onset; the worst delay comes on top.
fn onset(page: &str) -> Option<(String, bool)> {
    let of = |line: &str| {
        let cells = cells(line);
        let is_real_time = ["quiet", "starved, disk hung"].contains(cells.first()?);
        (is_real_time && *cells.get(1)? == "`late`").then_some(())?;
        cells.get(5)?.parse::<u64>().ok()
    };
    let worst = page.lines().filter_map(of).max()? + 1_000;
    Some((format!("{worst} ms"), worst <= 1_500))
}

/// Rows of the fault matrix: how often it bit, and the number in this cell.
fn samples(page: &str, cell: usize) -> impl Iterator<Item = (u64, u64)> {
    page.lines().filter_map(move |line| {
        let cells = cells(line);
        let (bit, _) = cells.get(2)?.split_once(" (")?;
        Some((bit.parse().ok()?, cells.get(cell - 1)?.parse().ok()?))
    })
}

fn share(page: &str, cell: usize) -> Option<(String, bool)> {
    let (bit, flagged) = samples(page, cell).reduce(|all, one| (all.0 + one.0, all.1 + one.1))?;
    Some((format!("{flagged} of {bit}"), flagged == bit))
}

fn worst_cause(page: &str) -> Option<(String, bool)> {
    let percent = samples(page, 5)
        .filter(|(bit, _)| *bit > 0)
        .map(|(bit, right)| right as f64 / bit as f64 * 100.0)
        .reduce(f64::min)?;
    Some((format!("{percent:.0} %"), percent >= 95.0))
}

fn above_late(page: &str) -> Option<(String, bool)> {
    let controls = page.split_once("## Controls")?.1;
    let table = controls.split("\n## ").next()?;
    let of = |line: &str| {
        let cells = cells(line);
        (cells.len() == 6).then_some(())?;
        cells[5].parse::<u64>().ok()
    };
    let sum = table.lines().filter_map(of).reduce(|sum, one| sum + one)?;
    Some((sum.to_string(), sum == 0))
}

/// A row of the kernel programs: what is over an empty program, and its verdict.
fn program(bench: &str, name: &str, event: &str) -> Option<(String, bool)> {
    let line = bench.lines().find(|line| {
        let rest = line.strip_prefix(name).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with(event))
            && (line.ends_with(": met") || line.ends_with(": missed"))
    })?;
    // `3 (3 to 4)  15: met`
    let before = line.rsplit_once('(')?.0;
    let median = before.split_ascii_whitespace().last()?;
    Some((format!("{median} ns"), line.ends_with(": met")))
}

fn runqlat(bench: &str) -> Option<(String, bool)> {
    let line = bench
        .lines()
        .find(|line| line.contains("times ours") && line.contains("target"))?;
    let times = line.split_once(" times ours")?.0.rsplit_once(' ')?.1;
    Some((format!("{times} times"), line.contains("met)")))
}

/// A row of the daemon by sessions, told by its leases.
fn daemon(
    bench: &str,
    leases: &str,
    cell: usize,
    target: f64,
    unit: &str,
) -> Option<(String, bool)> {
    let table = bench.split_once("Daemon, by sessions")?.1;
    let table = table.split("\n\n").next()?;
    let figure: f64 = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        (*words.get(1)? == leases).then_some(())?;
        words.get(cell)?.parse().ok()
    })?;
    Some((format!("{figure} {unit}"), figure <= target))
}

/// A line that ends in a verdict on the worst of its figures.
fn last_verdict(bench: &str, head: &str) -> Option<(String, bool)> {
    let line = bench.lines().find(|line| line.starts_with(head))?;
    let figures = line.split_once(": ")?.1.split_once("  (")?.0;
    let worst = figures
        .split(", ")
        .filter_map(|figure| figure.parse::<f64>().ok())
        .reduce(f64::max)?;
    Some((format!("{worst} ms"), line.contains(": met)")))
}

/// What a line that begins like this says, and its verdict.
fn said(bench: &str, head: &str) -> Option<(String, bool)> {
    let line = bench.lines().find(|line| line.starts_with(head))?;
    let (figure, verdict) = line.split_once(": ")?.1.split_once("  (")?;
    Some((figure.to_owned(), verdict.ends_with(": met)")))
}

/// The kernels on which the demo warned before the harm, of those that were tried.
fn demos(kernels: &str) -> Option<(String, bool)> {
    let row = kernels.lines().find(|line| line.starts_with("| demo |"))?;
    let of_each = cells(row).split_off(2);
    let warned = of_each.iter().filter(|cell| cell.contains(" s lead"));
    let (warned, all) = (warned.count(), of_each.len());
    Some((format!("the demo on {warned} of {all}"), warned == all))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BENCH: &str = "\
thread_switch  unwatched                           53 (53 to 54)       50           3 (3 to 4)  15: met
packet_in      watched ping or reply            259 (259 to 261)       51     308 (208 to 310)  300: missed
runqlat        a switch and a wake-up: 655 ns over empty programs, 71 times ours (9 ns)  (target 20 times: met)

Daemon, by sessions (each seen at both of its ends); CPU in percent
sessions   leases  unhealthy    CPU %  RSS MiB  late p50 ms  late p99 ms  targets: CPU, RSS
      50      100          0     0.35     25.5          0.5          0.5  0.5: met, 32: met
    5000    10000          0     3.32     95.7          0.5          0.5  5: met, 64: missed

Start to `started`, ms: 643, 609  (target 1000 to the first lease seen: met)
Told to cost no more than 0.001 % of a core: gone 1.2 s after `started`, exit code 1  (target gone, exit code 1: met)
In real time: no bound  (target bounded: missed)
";
    const RELIABILITY: &str = "\
| quiet | `late` | 50 | 30 | 50 | 50 |
| quiet | `at_risk` | 50 | 27 | 60 | 70 |
| starved, disk hung | `late` | 50 | 19 | 151 | 160 |
| starved, disk hung, real time refused (nice −20) | `late` | 50 | 74 | 485 | 485 |
";
    const FAULTS: &str = "\
| fault | what is done | bit (not) | warned | right cause | at once | lead | named | causes said |
|---|---|---|---|---|---|---|---|---|
| sigstop | SIGSTOP | 30 (0) | 30 | 30 | 30 | 3.22/4.84 s | 0.51/1.03 s | process_stopped 30 |
| cpu-quota | a quota | 20 (2) | 19 | 18 | 25 | 0.23/4.08 s | 0.00/0.71 s | cpu_throttled 28 |

## Controls

| control | what is done | watched | leases | late | above late |
|---|---|---|---|---|---|
| idle | idle | 80 s | 16 | 3 | 0 |
| busy | busy | 76 s | 16 | 0 | 2 |

## What the person on call reads
";

    fn figure(what: &str) -> Option<(String, bool)> {
        let pages = Pages {
            bench: BENCH,
            reliability: RELIABILITY,
            faults: FAULTS,
            kernels: "| demo |  | 5.0 s lead, process_stopped | FAILED |\n",
        };
        let row = rows(&pages).into_iter().find(|row| row.what.contains(what));
        row.unwrap().figure
    }

    #[test]
    fn figures_are_found_with_their_verdicts() {
        let said = |text: &str, met| Some((text.to_owned(), met));
        for (what, expected) in [
            ("node quiet", said("60 ms", true)),
            ("every CPU", said("151 ms", false)),
            ("onset", said("1160 ms", true)),
            ("bit and were flagged", said("49 of 50", false)),
            ("the cause right", said("90 %", false)),
            ("while all was well", said("2", false)),
            ("a switch of a thread", said("3 ns", true)),
            ("not watched, in", None),
            ("watched ping or reply, in", said("308 ns", false)),
            ("cheaper than runqlat", said("71 times", true)),
            ("CPU, 100 leases", said("0.35 %", true)),
            ("CPU, 10,000 leases", said("3.32 %", true)),
            ("memory, 10,000", said("95.7 MiB", false)),
            ("first lease seen", said("643 ms", true)),
            (
                "costs more than",
                said("gone 1.2 s after `started`, exit code 1", true),
            ),
            ("real time bounded", said("no bound", false)),
            ("kernels 5.10", said("the demo on 1 of 2", false)),
        ] {
            assert_eq!(figure(what), expected, "{what}");
        }
    }

    #[test]
    fn without_pages_nothing_is_left_out() {
        let pages = Pages {
            bench: "",
            reliability: "",
            faults: "",
            kernels: "",
        };
        let text = table(&pages);
        assert_eq!(text.lines().count() - 4, rows(&pages).len());
        assert!(!text.contains("| met |") && !text.contains("missed"));
    }
}
