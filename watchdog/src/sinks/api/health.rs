//! `/healthz` (does the tick run?) and `/readyz` (has it ever?).

use std::sync::atomic::Ordering;

use hyper::StatusCode;
use watchdog_model::time::{Mono, SECOND};

use super::Sources;
use super::reply::{Reply, plain};

/// A tick that has not run for this long is not watching.
const TICK_LIMIT_NS: u64 = SECOND;

/// `GET /healthz`.
pub fn healthz(sources: &Sources) -> Reply {
    match ticking(sources) {
        Ok(age) => plain(StatusCode::OK, format!("ok, the tick ran {age} ago\n")),
        Err(what) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
    }
}

/// `GET /readyz`.
pub fn readyz(sources: &Sources) -> Reply {
    match sources.last_tick.load(Ordering::Relaxed) {
        0 => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "the tick has not run yet\n",
        ),
        _ => plain(StatusCode::OK, "ok\n"),
    }
}

/// How long ago the tick ran.
///
/// # Errors
/// So long that nothing is watched.
pub fn ticking(sources: &Sources) -> Result<String, String> {
    let last = sources.last_tick.load(Ordering::Relaxed);
    if last == 0 {
        return Err("the tick has not run yet".to_owned());
    }
    let age = (sources.clock)().since(Mono(last));
    let shown = format!("{:.3} s", age as f64 / 1e9);
    if age > TICK_LIMIT_NS {
        Err(format!(
            "the tick last ran {shown} ago; nothing is watched meanwhile"
        ))
    } else {
        Ok(shown)
    }
}
