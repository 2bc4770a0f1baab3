//! The daemon's own cost against its limits: beyond them it leaves.
//!
//! In: what the process has used, once a second. Out: how much of each limit is used up, and which
//! one is exceeded. Two rules:
//!
//! - **CPU**: a budget of one minute of the limit, which fills at the limit's rate. A burst (every
//!   lease of the node late at once, which is what the daemon is for) is met from the budget; only
//!   who costs more than the limit for long runs out of it.
//! - **Memory**: resident above the limit at five looks in a row.
//!
//! Never: a clock, a decision to go on in spite of it.

use watchdog_model::time::{MINUTE, Mono};

use crate::config::Limits;

/// Looks in a row that must find too much memory: at the start types of the kernel are in memory
/// for a moment.
const LOOKS: u32 = 5;

/// What the process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// CPU time of all its threads since it began, ns.
    pub cpu_ns: u64,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
}

/// A limit that is exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exceeded {
    /// The share of a core used since the last time that the budget was full.
    Cpu {
        /// That share.
        used: f64,
        /// The limit.
        limit: f64,
    },
    /// Resident memory.
    Memory {
        /// Bytes.
        used: u64,
        /// The limit, bytes.
        limit: u64,
    },
}

impl Exceeded {
    /// The limit's name, as in the configuration.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Memory { .. } => "memory",
        }
    }
}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MIB: f64 = 1024.0 * 1024.0;
        match self {
            Self::Cpu { used, limit } => write!(
                f,
                "limits.cpu: {:.2}% of a core used, {:.2}% allowed over a minute",
                used * 100.0,
                limit * 100.0
            ),
            #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
            Self::Memory { used, limit } => write!(
                f,
                "limits.memory: {:.1} MiB resident, {:.1} MiB allowed",
                *used as f64 / MIB,
                *limit as f64 / MIB
            ),
        }
    }
}

/// Follows the cost.
#[derive(Clone, Debug)]
pub struct Meter {
    limits: Limits,
    last: Option<(Mono, Used)>,
    /// CPU time spent beyond what the limit allowed since, ns.
    spent_ns: f64,
    /// Since when it is not 0, and the CPU time until then.
    since: (Mono, u64),
    looks: u32,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a minute in ns is exact, and shares need no more"
)]
impl Meter {
    /// Nothing used yet.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: None,
            spent_ns: 0.0,
            since: (Mono(0), 0),
            looks: 0,
        }
    }

    /// Other limits; what was used stays used.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    fn budget_ns(&self) -> f64 {
        self.limits.cpu * MINUTE as f64
    }

    /// Takes what is used by now; says which limit is exceeded. The first look only begins the
    /// account.
    pub fn look(&mut self, used: Used, now: Mono) -> Option<Exceeded> {
        let (before, was) = self.last.replace((now, used)).unwrap_or((now, used));
        if self.spent_ns <= 0.0 {
            self.since = (before, was.cpu_ns);
        }
        let over_ns = now.since(before) as f64;
        let ran_ns = used.cpu_ns.saturating_sub(was.cpu_ns) as f64;
        self.spent_ns = (self.spent_ns + ran_ns - over_ns * self.limits.cpu).max(0.0);
        self.looks = if used.memory_bytes > self.limits.memory_bytes {
            self.looks + 1
        } else {
            0
        };
        if self.spent_ns > self.budget_ns() {
            let (since, cpu_ns) = self.since;
            let over_ns = now.since(since).max(1) as f64;
            return Some(Exceeded::Cpu {
                used: used.cpu_ns.saturating_sub(cpu_ns) as f64 / over_ns,
                limit: self.limits.cpu,
            });
        }
        (self.looks >= LOOKS).then_some(Exceeded::Memory {
            used: used.memory_bytes,
            limit: self.limits.memory_bytes,
        })
    }

    /// How much of each limit is used up: of the CPU budget, of the memory; 1: all of it.
    #[must_use]
    pub fn shares(&self) -> [(&'static str, f64); 2] {
        let memory = self.last.map_or(0, |(_, used)| used.memory_bytes);
        [
            ("cpu", self.spent_ns / self.budget_ns().max(1.0)),
            (
                "memory",
                memory as f64 / self.limits.memory_bytes.max(1) as f64,
            ),
        ]
    }
}

/// What this process has used (getrusage(2), proc_pid_statm(5)).
///
/// # Errors
/// /proc is not there.
pub fn used() -> std::io::Result<Used> {
    // SAFETY: all zero is a value of this plain structure, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        usage
    };
    let span_ns = |time: libc::timeval| {
        let micros = time.tv_sec * 1_000_000 + time.tv_usec;
        u64::try_from(micros).unwrap_or(0).saturating_mul(1000)
    };
    let statm = procfs::process::Process::myself()
        .and_then(|process| process.statm())
        .map_err(std::io::Error::other)?;
    Ok(Used {
        cpu_ns: span_ns(usage.ru_utime) + span_ns(usage.ru_stime),
        memory_bytes: statm.resident * procfs::page_size(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchdog_model::time::{SECOND, ms, secs};

    const MIB: u64 = 1 << 20;

    fn meter() -> Meter {
        Meter::new(Limits {
            cpu: 0.05,
            memory_bytes: 100 * MIB,
        })
    }

    /// Seconds until a limit is exceeded by who uses so much each second.
    fn until_exceeded(
        meter: &mut Meter,
        cpu_ns: u64,
        memory_bytes: u64,
    ) -> Option<(u64, Exceeded)> {
        (0..10_000).find_map(|second| {
            let used = Used {
                cpu_ns: second * cpu_ns,
                memory_bytes,
            };
            let exceeded = meter.look(used, Mono(secs(second)))?;
            Some((second, exceeded))
        })
    }

    #[test]
    fn the_limit_itself_is_allowed_for_ever() {
        assert_eq!(until_exceeded(&mut meter(), ms(50), 100 * MIB), None);
    }

    #[test]
    fn who_uses_twice_the_limit_is_gone_after_a_minute_and_a_whole_core_after_three_seconds() {
        let (second, exceeded) = until_exceeded(&mut meter(), ms(100), 0).unwrap();
        assert_eq!((second, exceeded.what()), (61, "cpu"));
        assert_eq!(
            exceeded.to_string(),
            "limits.cpu: 10.00% of a core used, 5.00% allowed over a minute"
        );
        let (second, _) = until_exceeded(&mut meter(), SECOND, 0).unwrap();
        assert_eq!(second, 4);
    }

    #[test]
    fn a_burst_is_paid_from_the_budget_which_fills_again() {
        let mut meter = meter();
        let mut cpu_ns = 0;
        for second in 0..10_000 {
            // Every minute 2.5 s of CPU time at once.
            cpu_ns += if second % 60 == 0 { ms(2_500) } else { 0 };
            let used = Used {
                cpu_ns,
                memory_bytes: 0,
            };
            assert_eq!(meter.look(used, Mono(secs(second))), None);
        }
        assert!(meter.shares()[0].1 < 1.0);
    }

    #[test]
    fn memory_counts_when_it_stays() {
        let mut meter = meter();
        let look = |meter: &mut Meter, second, memory_bytes| {
            let used = Used {
                cpu_ns: 0,
                memory_bytes,
            };
            meter.look(used, Mono(secs(second)))
        };
        for second in 0..4 {
            assert_eq!(look(&mut meter, second, 101 * MIB), None);
        }
        assert_eq!(look(&mut meter, 4, 100 * MIB), None);
        let (second, exceeded) = until_exceeded(&mut meter, 0, 101 * MIB).unwrap();
        assert_eq!((second, exceeded.what()), (4, "memory"));
        assert_eq!(
            exceeded.to_string(),
            "limits.memory: 101.0 MiB resident, 100.0 MiB allowed"
        );
    }

    #[test]
    fn this_process_uses_something() {
        let used = used().unwrap();
        assert!(used.memory_bytes > MIB, "{used:?}");
    }
}
