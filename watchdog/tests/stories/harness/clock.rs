//! The harness's clock: the kernel's monotonic clock in microseconds, the unit and the clock of
//! the events' `mono_us`, so that what the daemon says, what a client says and what the server's
//! log says can be subtracted from each other.
//!
//! Never: a wait that only hopes. Waiting is done on a [`Transcript`](super::transcript), with a
//! deadline; the two functions here that let time pass are for *observation windows* ("60 s
//! healthy") and for polling what cannot wake us (a `/proc` file, a port).

use std::time::Duration;

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;

/// Now, in microseconds of CLOCK_MONOTONIC.
pub fn now_us() -> i64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Now, in microseconds of the wall clock; only to translate the stamps of a server's log.
pub fn wall_us() -> i64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid, writable timespec, and the call does not keep the pointer.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(status, 0, "clock_gettime({clock}) failed");
    time.tv_sec * SECOND + time.tv_nsec / 1_000
}

/// Lets `span` pass: an observation window, in which the story asserts that nothing happens.
#[expect(
    clippy::disallowed_methods,
    reason = "an observation window is the one thing that no event can end"
)]
pub fn observe_for(span: Duration) {
    std::thread::sleep(span);
}

/// Lets time pass up to the moment `until_us`; returns at once if that has gone by.
pub fn observe_until(until_us: i64) {
    let left = until_us - now_us();
    if left > 0 {
        observe_for(Duration::from_micros(left.unsigned_abs()));
    }
}

/// Asks `probe` every 10 ms until it gives an answer or `within` is over. For facts that have
/// no event of their own.
pub fn poll<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now_us() + micros(within);
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if now_us() >= deadline {
            return None;
        }
        observe_for(Duration::from_millis(10));
    }
}

/// A span in microseconds, as the stamps have it.
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds as seconds, for people.
pub fn seconds(us: i64) -> f64 {
    us as f64 / SECOND as f64
}
