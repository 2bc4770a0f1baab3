//! What is normal for a delay of one flow: request to answer, arrival to read, read to answer.
//!
//! In: delays as they end. Out: the length past which such a delay is out of the ordinary. Never: a
//! delay that ended while the lease was not healthy (the caller sees to it), so that an incident
//! does not teach the next one to be silent.
//!
//! A slowly sinking maximum is kept rather than an average: a renewal waits behind the worst thing
//! that its server does, not behind the usual one.

/// Below this many delays nothing is known: the first may be the handshake, which waits for a
/// transaction and tells little of a ping.
const ENOUGH: u32 = 2;
/// A delay twice as long as the worst of late is out of the ordinary.
const FACTOR: u64 = 2;
/// Each delay moves the maximum this part of the way down: a spike is forgotten after some fifty.
const DECAY: u64 = 16;

/// The learned normal of one kind of delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normal {
    worst_ns: u64,
    samples: u32,
}

impl Normal {
    /// Takes in a delay that has ended.
    pub fn learn(&mut self, delay_ns: u64) {
        self.samples = self.samples.saturating_add(1);
        self.worst_ns = if delay_ns >= self.worst_ns {
            delay_ns
        } else {
            self.worst_ns - (self.worst_ns - delay_ns) / DECAY
        };
    }

    /// The worst of late; None while too few are known.
    #[must_use]
    pub fn worst(&self) -> Option<u64> {
        (self.samples >= ENOUGH).then_some(self.worst_ns)
    }

    /// The length past which a delay is out of the ordinary, between the given bounds; None while
    /// too few are known.
    #[must_use]
    pub fn limit(&self, least_ns: u64, most_ns: u64) -> Option<u64> {
        (self.samples >= ENOUGH).then(|| {
            self.worst_ns
                .saturating_mul(FACTOR)
                .max(least_ns)
                .min(most_ns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ms, secs};

    #[test]
    fn two_delays_are_enough_and_the_bounds_hold() {
        let mut normal = Normal::default();
        normal.learn(ms(1));
        assert_eq!(normal.limit(ms(500), secs(2)), None);
        normal.learn(ms(1));
        assert_eq!(normal.limit(ms(500), secs(2)), Some(ms(500)));
        normal.learn(ms(400));
        assert_eq!(normal.limit(ms(500), secs(2)), Some(ms(800)));
        normal.learn(secs(30));
        assert_eq!(normal.limit(ms(500), secs(2)), Some(secs(2)));
    }

    #[test]
    fn a_spike_is_forgotten() {
        let mut normal = Normal::default();
        normal.learn(secs(1));
        for _ in 0..100 {
            normal.learn(ms(1));
        }
        assert!(normal.limit(0, secs(9)).unwrap() < ms(10));
    }
}
