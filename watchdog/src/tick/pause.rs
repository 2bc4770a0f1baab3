//! Whether it was the whole node that stood still, or the daemon alone.
//!
//! In: a time in which the tick did not run. Out: whether anything that the kernel programs stamp
//! moved meanwhile, and whether somebody has stopped the daemon by a signal. Never: a node accused
//! on the daemon's word alone.

use std::sync::atomic::{AtomicBool, Ordering};

use watchdog_model::Mono;
use watchdog_model::time::MS;

use super::{BEYOND_MARK, Gauges, Tick, threads::ThreadTable};

/// What is stamped so close to either end of the gap may belong to what was before or after it.
const EDGE_NS: u64 = 50 * MS;

/// Whether SIGCONT has come.
static CONTINUED: AtomicBool = AtomicBool::new(false);

extern "C" fn continued(_signal: libc::c_int) {
    CONTINUED.store(true, Ordering::Relaxed);
}

/// Hears of SIGCONT, which ends every stop by a signal, from now on.
pub(super) fn listen() {
    // SAFETY: all-zero is a valid sigaction; the handler only stores to an atomic, and system calls
    // that it interrupts are taken up again.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int) = continued;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGCONT, &raw const action, std::ptr::null_mut());
    }
}

/// Whether the daemon was stopped by a signal since this was last asked.
pub(super) fn was_continued() -> bool {
    CONTINUED.swap(false, Ordering::Relaxed)
}

impl<G: Gauges + 'static> Tick<G> {
    /// Whether a watched thread or flow moved in the gap.
    pub(super) fn has_moved(&self, threads: &ThreadTable, from: Mono, to: Mono) -> bool {
        let Some(state) = self.state() else {
            return true;
        };
        let (from, to) = (from.plus(EDGE_NS), to.minus(EDGE_NS));
        let inside = |at: u64| (from.0..to.0).contains(&at);
        if threads.stamps(state).any(inside) {
            return true;
        }
        let mark = state.high_water();
        (0..mark.saturating_add(BEYOND_MARK).min(state.flows.len()))
            .filter_map(|index| state.flows.at(index))
            .any(|slot| {
                // SAFETY: a slot in the mapping; each is one word.
                unsafe {
                    inside((&raw const (*slot).requests.newest_ns).read_volatile())
                        || inside((&raw const (*slot).replies.newest_ns).read_volatile())
                }
            })
    }
}
