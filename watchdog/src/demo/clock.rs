//! The demo's one clock: CLOCK_MONOTONIC in microseconds, the same that the daemon stamps its events
//! with, so times of different processes can be subtracted.
//!
//! In: nothing. Out: `mono_us`, and a pause that a signal ends early. Nothing else in the demo reads
//! a clock.

use std::time::Duration;

/// Microseconds in a millisecond; the protocol speaks milliseconds, the demo microseconds.
pub const MS: u64 = 1_000;

/// Now, in microseconds of CLOCK_MONOTONIC.
pub fn mono_us() -> u64 {
    crate::tick::clock().0 / 1_000
}

/// What is left until `due`, for calls that want a timeout.
pub fn until(due: u64, now: u64) -> Duration {
    Duration::from_micros(due.saturating_sub(now))
}

/// Waits `ms`, or less if a signal arrives.
pub fn pause(ms: u16) {
    // SAFETY: with a count of zero the kernel doesn't look at the pointer.
    unsafe { libc::poll(std::ptr::null_mut(), 0, libc::c_int::from(ms)) };
}
