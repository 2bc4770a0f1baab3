//! What the kernel programs cost, sampled.
//!
//! In: the kernel's run counts of the daemon's own programs, for one second a minute. Out: counters.
//! While the kernel counts, every program on the node, whoever's it is, costs some 65 ns a run more;
//! so it is off unless asked for, and never on for long. Never: a wait of any other thread.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::kernel::self_cost::{self, Cost, Programs};
use crate::sinks::metrics::Metrics;
use crate::tick::clock;

/// How long the kernel counts.
const SAMPLE: Duration = Duration::from_secs(1);
/// And how long it does not.
const REST: Duration = Duration::from_secs(59);

/// Starts the thread. It ends with the process, or at once where the kernel does not count.
pub fn start(programs: Programs, metrics: Arc<Metrics>) {
    let started = thread::Builder::new()
        .name("probe-cost".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            // There from the start: a counter that begins with its first growth hides that.
            let before = programs.costs();
            metrics.probe_cost(&grown(&before, &before), Duration::ZERO);
            while let Some((costs, sampled)) = sample(&programs) {
                metrics.probe_cost(&costs, sampled);
                rest(REST);
            }
        });
    if let Err(error) = started {
        tracing::warn!(%error, "limits.probe_cost: the kernel programs' cost is not counted");
    }
}

fn rest(span: Duration) {
    let until = clock().plus(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    loop {
        let left = until.since(clock());
        if left == 0 {
            return;
        }
        thread::park_timeout(Duration::from_nanos(left));
    }
}

/// What each program cost while the kernel counted, and for how long that was.
fn sample(programs: &Programs) -> Option<(Vec<Cost>, Duration)> {
    let before = programs.costs();
    let begun = clock();
    let counting = match self_cost::count() {
        Ok(counting) => counting,
        Err(missing) => {
            tracing::warn!("limits.probe_cost: {missing}; it needs CAP_SYS_ADMIN");
            return None;
        }
    };
    rest(SAMPLE);
    drop(counting);
    let sampled = Duration::from_nanos(clock().since(begun));
    Some((grown(&before, &programs.costs()), sampled))
}

fn grown(before: &[Cost], after: &[Cost]) -> Vec<Cost> {
    let growth = |cost: &Cost| {
        let was = before.iter().find(|was| was.program == cost.program)?;
        Some(Cost {
            program: cost.program.clone(),
            runs: cost.runs.saturating_sub(was.runs),
            time: cost.time.saturating_sub(was.time),
        })
    };
    after.iter().filter_map(growth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_counts() {
        let cost = |runs, ms| Cost {
            program: "packet_in".into(),
            runs,
            time: Duration::from_millis(ms),
        };
        assert_eq!(grown(&[cost(3, 1)], &[cost(10, 3)]), [cost(7, 2)]);
        assert_eq!(grown(&[], &[cost(10, 3)]), []);
    }
}
