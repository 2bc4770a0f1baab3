//! How the costs grow and where they end, with the figures of this run.

use crate::{daemon::Size, ticks::Point};

/// A big node: CPUs, switches a second on each, flows, seconds between two pings.
const CPUS: f64 = 128.0;
const SWITCHES: f64 = 20_000.0;
const FLOWS: f64 = 100_000.0;
const PING_EVERY_S: f64 = 4.0;

/// What was measured.
pub struct Measured<'a> {
    /// A switch and a wake-up that are not watched, over empty programs, ns.
    pub switch_ns: f64,
    /// The daemon by sessions.
    pub sizes: &'a [Size],
    /// CPU time that a connection with a session costs that is opened and closed, µs.
    pub churn_us: f64,
    /// The tick by flows.
    pub ticks: &'a [Point],
}

/// The paragraphs, as Markdown.
#[must_use]
pub fn text(measured: &Measured<'_>) -> String {
    let switch_share = measured.switch_ns * SWITCHES / 1e9 * 100.0;
    let mut text = format!(
        "## How it grows\n\n\
         - **Context switches**: a switch and a wake-up that are not watched cost {:.0} ns over empty \
         programs, on the CPU where they happen, and share no state: at {SWITCHES:.0} a second on each \
         CPU that is {:.0} ns x {SWITCHES:.0} = {switch_share:.3} % of each CPU, with {CPUS:.0} CPUs as \
         with two.\n",
        measured.switch_ns, measured.switch_ns
    );
    // Ping and reply, at one end of each flow: out and in.
    let packets = FLOWS / PING_EVERY_S * 2.0;
    text.push_str(&format!(
        "- **Packets**: two a ping at each flow's end here: {FLOWS:.0} flows / {PING_EVERY_S:.0} s x 2 = \
         {packets:.0} a second; at the 300 ns promised for a watched one {:.1} % of one CPU, spread over \
         all. Two CPUs contend only for one direction of one flow.\n",
        packets * 300.0 / 1e9 * 100.0
    ));
    if let (Some(first), Some(last)) = (measured.sizes.first(), measured.sizes.last())
        && last.leases > first.leases
    {
        let leases = (last.leases - first.leases) as f64;
        let kib = (last.resident_mib - first.resident_mib) * 1024.0 / leases;
        let percent = (last.cpu_percent - first.cpu_percent) / leases;
        text.push_str(&format!(
            "- **Memory**: from {} to {} leases {:.1} to {:.1} MiB, {kib:.2} KiB each: {FLOWS:.0} take \
             {:.0} + {FLOWS:.0} x {kib:.2} KiB = {:.0} MiB resident; `limits.memory` and `--flows` (16,384 by \
             default) have to be raised for it.\n\
             - **The daemon's CPU**: from {:.2} to {:.2} % of a core between the same, {:.2} % a thousand \
             leases: by that slope {FLOWS:.0} cost {:.0} % of one core.\n",
            first.leases,
            last.leases,
            first.resident_mib,
            last.resident_mib,
            first.resident_mib,
            first.resident_mib + FLOWS * kib / 1024.0,
            first.cpu_percent,
            last.cpu_percent,
            percent * 1e3,
            first.cpu_percent + FLOWS * percent
        ));
    }
    text.push_str(&format!(
        "- **Connections that come and go**: {:.0} us of the daemon's CPU each, with a session opened and \
         closed, both ends seen and four events written: the 5 % that `limits.cpu` allows by default are \
         {:.0} a second, for ever.\n",
        measured.churn_us,
        0.05 * 1e6 / measured.churn_us.max(1.0)
    ));
    if let Some(point) = measured.ticks.last() {
        text.push_str(&format!(
            "- **Where it breaks first**: the tick, which is one thread. With {} flows it takes {:.1} ms of \
             its 50 ({:.0} % of its CPU); however many CPUs there are, at {:.0} flows it would fill the half \
             of a CPU that it takes at most, and look less often from there on. That is also where warnings \
             begin to be later than promised.\n",
            point.flows,
            point.tick_ms,
            point.share() * 100.0,
            point.flows as f64 * 0.5 / point.share().max(1e-6)
        ));
    }
    text.push_str(
        "- **Late leases**: twenty questions a tick at most, 400 a second, whatever is late; each thread \
         on an alert's way runs 5 % of the time before others in the long run, and 250 ms at once.\n",
    );
    text
}
