//! Where in a renewal's cycle a fault strikes: random, and the same again for the same seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static STATE: AtomicU64 = AtomicU64::new(1);

/// Starts the sequence.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// The next number (splitmix64).
pub fn next() -> u64 {
    let state = STATE
        .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A random part of `span`.
pub fn within(span: Duration) -> Duration {
    span.mul_f64((next() >> 11) as f64 / (1_u64 << 53) as f64)
}
