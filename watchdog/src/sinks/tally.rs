//! What became of one sink's alerts, in figures.

use prometheus::IntCounter;

/// Counters of one sink.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Messages that got through.
    pub sent: IntCounter,
    /// Messages that were given up.
    pub failed: IntCounter,
    /// Tries after the first: posts that are sent again, kept hooks that are started again.
    pub retries: IntCounter,
    /// The same as `failed`, over all sinks.
    pub lost: IntCounter,
}

impl Tally {
    /// Counts a message that was given up.
    pub fn lose(&self) {
        self.failed.inc();
        self.lost.inc();
    }

    /// Figures that nobody sees.
    #[must_use]
    pub fn of_a_test() -> Self {
        let [sent, failed, retries, lost] = ["sent", "failed", "retries", "lost"].map(|name| {
            IntCounter::new(name, name).expect("these are names of metrics, and a test makes them")
        });
        Self {
            sent,
            failed,
            retries,
            lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_counted_for_the_sink_and_over_all() {
        let tally = Tally::of_a_test();
        tally.lose();
        assert_eq!((tally.failed.get(), tally.lost.get()), (1, 1));
    }
}
