//! Names that no two runs share, so that nothing here meets what another run left or still uses.

use std::sync::atomic::{AtomicU32, Ordering};

/// A number that this process has not given before.
pub fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `lease-faults-PID-N`.
pub fn unique() -> String {
    format!("lease-faults-{}-{}", std::process::id(), number())
}
