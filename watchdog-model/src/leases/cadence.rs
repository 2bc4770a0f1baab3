//! How often a holder renews when it has nothing else to say.
//!
//! In: idle gaps before keepalives, as they end. Out: the longest silence that is usual. Never: a
//! gap that ended while the lease was not healthy (the caller sees to it); a gap that ended in
//! another request, which tells only when the application had something to ask.
//!
//! Two kinds of clients are told apart. Most ping a fixed time after their *last send*: their gaps
//! are all alike, and the gap is the cadence. Some ping by a fixed interval, whatever else they
//! send: under load their gaps shrink to nothing, and only the time from ping to ping stays. Where
//! the gaps are unlike, the time from ping to ping counts, or the first quiet minute after a busy
//! one would look like a silence.

use std::collections::HashMap;

use crate::time::Mono;

/// Below this many gaps nothing is known.
const ENOUGH: u32 = 2;
/// Each gap moves the extremes this part of the way back: a changed client is relearned after some
/// fifty pings.
const DECAY: u64 = 16;
/// The shared table forgets more slowly: one executable may run clients of several kinds (a Python
/// interpreter does), and the slowest of them must not be forgotten between two of its flows.
const SHARED_DECAY: u64 = 256;
/// How many pairs of executable and timeout the shared table holds; beyond, a flow just learns alone.
const SHARED_CAPACITY: usize = 512;

/// The learned cadence of one lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cadence {
    gap_high_ns: u64,
    gap_low_ns: u64,
    interval_low_ns: u64,
    gaps: u32,
    newest_at: Option<Mono>,
}

impl Cadence {
    /// A cadence known from an earlier run of the daemon.
    #[must_use]
    pub const fn remembered(cadence_ns: u64) -> Self {
        Self {
            gap_high_ns: cadence_ns,
            gap_low_ns: cadence_ns,
            interval_low_ns: 0,
            gaps: if cadence_ns == 0 { 0 } else { ENOUGH },
            newest_at: None,
        }
    }

    /// Takes in the idle gap before the keepalive sent at `at`.
    pub fn learn(&mut self, gap_ns: u64, at: Mono) {
        if gap_ns == 0 {
            return;
        }
        if self.gaps == 0 {
            (self.gap_high_ns, self.gap_low_ns) = (gap_ns, gap_ns);
        }
        self.gaps = self.gaps.saturating_add(1);
        self.gap_high_ns = sinking_maximum(self.gap_high_ns, gap_ns, DECAY);
        self.gap_low_ns = rising_minimum(self.gap_low_ns, gap_ns, DECAY);
        if let Some(before) = self.newest_at.replace(at) {
            let interval_ns = at.since(before);
            self.interval_low_ns = if self.interval_low_ns == 0 {
                interval_ns
            } else {
                rising_minimum(self.interval_low_ns, interval_ns, DECAY)
            };
        }
    }

    /// Forgets when the newest keepalive was: what comes next does not follow upon it.
    pub fn interrupted(&mut self) {
        self.newest_at = None;
    }

    /// The learned cadence, if enough gaps are known.
    #[must_use]
    pub fn known(&self) -> Option<u64> {
        (self.gaps >= ENOUGH).then(|| {
            let unlike = self.gap_low_ns < self.gap_high_ns / 4 * 3;
            if unlike {
                self.gap_high_ns.max(self.interval_low_ns)
            } else {
                self.gap_high_ns
            }
        })
    }
}

/// How many timeouts the worst gap is remembered for.
const WORST_GAP_TIMEOUTS: u64 = 10;
/// A cadence is never taken to be shorter than this part of the timeout (a third) from gaps alone: a
/// busy while shows no silence, and says nothing of a quiet one.
const WORST_GAP_LEAST: u64 = 3;

/// The cadence of a protocol without keepalives of its own: the longest silence between two requests
/// within the last ten timeouts, kept in two halves so that it can be forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorstGap {
    current_ns: u64,
    previous_ns: u64,
    turned_at: Option<Mono>,
    gaps: u32,
}

impl WorstGap {
    /// Takes in a gap that ended at `at`.
    pub fn learn(&mut self, gap_ns: u64, at: Mono, timeout_ns: u64) {
        let half_ns = timeout_ns.saturating_mul(WORST_GAP_TIMEOUTS / 2);
        let turned_at = *self.turned_at.get_or_insert(at);
        if at.since(turned_at) >= half_ns {
            self.previous_ns = self.current_ns;
            self.current_ns = 0;
            self.turned_at = Some(at);
        }
        self.current_ns = self.current_ns.max(gap_ns);
        self.gaps = self.gaps.saturating_add(1);
    }

    /// The learned cadence, if enough gaps are known.
    #[must_use]
    pub fn known(&self, timeout_ns: u64) -> Option<u64> {
        let worst_ns = self.current_ns.max(self.previous_ns);
        (self.gaps >= ENOUGH).then(|| worst_ns.max(timeout_ns / WORST_GAP_LEAST))
    }
}

const fn sinking_maximum(high: u64, sample: u64, decay: u64) -> u64 {
    if sample >= high {
        sample
    } else {
        high - (high - sample) / decay
    }
}

const fn rising_minimum(low: u64, sample: u64, decay: u64) -> u64 {
    if sample <= low {
        sample
    } else {
        low + (sample - low) / decay
    }
}

/// Cadences by executable and timeout, for flows that have not learned their own.
#[derive(Debug)]
pub struct SharedCadences {
    /// By (executable, timeout in ns): cadence in ns and how many gaps it rests on.
    known: HashMap<(u64, u64), (u64, u32)>,
}

impl Default for SharedCadences {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedCadences {
    /// An empty table with all its room.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: HashMap::with_capacity(SHARED_CAPACITY * 2),
        }
    }

    /// Takes in what one flow of this executable knows of its cadence.
    pub fn learn(&mut self, executable: u64, timeout_ns: u64, cadence_ns: u64) {
        if executable == 0 || cadence_ns == 0 {
            return;
        }
        let key = (executable, timeout_ns);
        if let Some((known_ns, flows)) = self.known.get_mut(&key) {
            *known_ns = sinking_maximum(*known_ns, cadence_ns, SHARED_DECAY);
            *flows = flows.saturating_add(1);
        } else if self.known.len() < SHARED_CAPACITY {
            self.known.insert(key, (cadence_ns, 1));
        }
    }

    /// What other flows of this executable with this timeout do.
    #[must_use]
    pub fn of(&self, executable: u64, timeout_ns: u64) -> Option<u64> {
        self.known
            .get(&(executable, timeout_ns))
            .map(|(cadence_ns, _)| *cadence_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ms, secs};

    #[test]
    fn two_gaps_are_enough() {
        let mut cadence = Cadence::default();
        cadence.learn(secs(2), Mono(secs(2)));
        assert_eq!(cadence.known(), None);
        cadence.learn(ms(1990), Mono(ms(3990)));
        assert!(cadence.known().unwrap() > ms(1990));
    }

    #[test]
    fn a_fixed_interval_under_load_keeps_its_length() {
        let mut cadence = Cadence::default();
        for ping in 1..200 {
            let gap = ms(10 + ping * 37 % 90);
            cadence.learn(gap, Mono(secs(2 * ping)));
        }
        assert_eq!(cadence.known(), Some(secs(2)));
    }

    #[test]
    fn pings_after_the_last_send_are_not_stretched_by_traffic() {
        let mut cadence = Cadence::default();
        for ping in 1..200 {
            cadence.learn(secs(2), Mono(secs(ping * (2 + ping % 7))));
        }
        assert_eq!(cadence.known(), Some(secs(2)));
    }

    #[test]
    fn a_changed_client_is_relearned() {
        let mut cadence = Cadence::remembered(secs(8));
        for ping in 1..200 {
            cadence.learn(secs(2), Mono(secs(2 * ping)));
        }
        assert!(cadence.known().unwrap() < ms(2100));
    }

    #[test]
    fn the_worst_gap_is_kept_for_ten_timeouts_at_most() {
        let mut worst = WorstGap::default();
        worst.learn(secs(7), Mono(secs(100)), secs(12));
        assert_eq!(worst.known(secs(12)), None);
        worst.learn(secs(1), Mono(secs(101)), secs(12));
        assert_eq!(worst.known(secs(12)), Some(secs(7)));
        for second in 102..=160 {
            worst.learn(secs(1), Mono(secs(second)), secs(12));
        }
        assert_eq!(worst.known(secs(12)), Some(secs(7)));
        for second in 161..=220 {
            worst.learn(secs(1), Mono(secs(second)), secs(12));
        }
        assert_eq!(worst.known(secs(12)), Some(secs(4)), "a third at least");
    }

    #[test]
    fn the_shared_table_is_bounded_and_keeps_the_slowest() {
        let mut shared = SharedCadences::new();
        for executable in 1..2_000 {
            shared.learn(executable, secs(6), secs(2));
        }
        assert_eq!(shared.of(1, secs(6)), Some(secs(2)));
        assert_eq!(shared.of(1_999, secs(6)), None);
        shared.learn(1, secs(6), secs(4));
        shared.learn(1, secs(6), secs(2));
        assert!(shared.of(1, secs(6)).unwrap() > ms(3900));
        assert_eq!(shared.of(1, secs(12)), None);
    }
}
