//! Figures in columns.

use std::fmt;

/// A median and how far the middle half lies around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The first quartile.
    pub low: f64,
    /// The third quartile.
    pub high: f64,
}

impl Spread {
    /// Of some figures; None of none.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = figures.len().checked_sub(1)?;
            figures.get((last as f64 * share).round() as usize).copied()
        };
        Some(Self {
            median: at(0.5)?,
            low: at(0.25)?,
            high: at(0.75)?,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} ({:.0} to {:.0})",
            self.median, self.low, self.high
        )
    }
}

/// `met` or `missed`.
pub fn verdict(figure: f64, target: f64) -> &'static str {
    if figure <= target { "met" } else { "missed" }
}

/// What was measured on.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let load = read("/proc/loadavg");
    format!(
        "kernel {}, {} CPUs, {model}, load {} before",
        read("/proc/sys/kernel/osrelease").trim(),
        std::thread::available_parallelism().map_or(0, usize::from),
        load.split(' ').next().unwrap_or_default(),
    )
}
