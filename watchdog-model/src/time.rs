//! Time as a number that the project owns: nanoseconds of the kernel's monotonic clock
//! (`bpf_ktime_get_ns`, CLOCK_MONOTONIC), never a `std::time::Instant`, which cannot be rebuilt
//! from a recording.

/// One millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;
/// One second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// One minute in ns.
pub const MINUTE: u64 = 60 * SECOND;

/// A moment: nanoseconds since boot on the monotonic clock.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `span_ns` later; saturates at the end of time.
    #[must_use]
    pub const fn plus(self, span_ns: u64) -> Self {
        Self(self.0.saturating_add(span_ns))
    }

    /// The moment `span_ns` earlier; saturates at boot.
    #[must_use]
    pub const fn minus(self, span_ns: u64) -> Self {
        Self(self.0.saturating_sub(span_ns))
    }

    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is later (the clocks of two CPUs may
    /// differ by a few hundred nanoseconds, which is no reason to see an age of 584 years).
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A span of nanoseconds from milliseconds.
#[must_use]
pub const fn ms(millis: u64) -> u64 {
    millis.saturating_mul(MS)
}

/// A span of nanoseconds from seconds.
#[must_use]
pub const fn secs(seconds: u64) -> u64 {
    seconds.saturating_mul(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_time_is_survived() {
        assert_eq!(Mono(5).since(Mono(9)), 0);
        assert_eq!(Mono(5).minus(9), Mono(0));
        assert_eq!(Mono(u64::MAX).plus(1), Mono(u64::MAX));
    }
}
