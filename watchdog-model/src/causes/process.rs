//! `process_stopped`: the threads are stopped by a signal or a tracer, or their cgroup is frozen.
//!
//! Proof: the scheduler's own word (state T, t or frozen), or the freezer's: in a frozen cgroup of
//! version 1, older kernels show every thread as `D`, so the freezer is asked before the disk.

use super::collected::{Doing, Part};
use super::verdict::{End, stall_fact, thread_fact};
use super::{Fact, Verdict};
use crate::leases::observation::StallKind;
use crate::time::Mono;

/// Whether it is proven; the facts if so.
pub(super) fn stopped(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let looks = end.looks(now);
    let frozen = looks
        .and_then(|looks| looks.cgroup)
        .filter(|cgroup| cgroup.frozen);
    let stall = end
        .stall
        .filter(|stall| matches!(stall.kind, StallKind::Stopped | StallKind::Frozen));
    let thread = looks
        .and_then(|looks| looks.thread(Part::Serving))
        .filter(|thread| thread.doing == Doing::Stopped);
    if frozen.is_none() && stall.is_none() && thread.is_none() {
        return false;
    }
    match (stall, thread) {
        (Some(stall), _) => verdict.push(stall_fact(end.side, stall, now)),
        (None, Some(thread)) => verdict.push(thread_fact(end.side, thread)),
        (None, None) => {}
    }
    if let Some(cgroup) = frozen {
        verdict.push(Fact::Frozen {
            side: end.side,
            cgroup: cgroup.path,
        });
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::verdict::tests::{NOW, looks_of, stall, thread};
    use super::super::{Cause, collected::CgroupLook, text::Label};
    use super::*;
    use crate::causes::verdict::tests::cause_of;

    #[test]
    fn a_stop_a_frozen_cgroup_and_nothing_less() {
        assert_eq!(
            cause_of(Some(stall(StallKind::Stopped)), None),
            Cause::ProcessStopped
        );
        assert_eq!(
            cause_of(Some(stall(StallKind::Frozen)), None),
            Cause::ProcessStopped
        );
        assert_eq!(
            cause_of(Some(stall(StallKind::Uninterruptible)), None),
            Cause::Unknown
        );
        let mut looks = looks_of([Some(thread(Part::Serving, Doing::Uninterruptible))]);
        assert_eq!(cause_of(None, Some(looks)), Cause::Unknown);
        let mut cgroup = CgroupLook {
            path: Label::end_of(b"/meta"),
            frozen: true,
            throttled_ns: 0,
            over_ns: 0,
        };
        looks.cgroup = Some(cgroup);
        assert_eq!(cause_of(None, Some(looks)), Cause::ProcessStopped);
        cgroup.frozen = false;
        looks.cgroup = Some(cgroup);
        assert_eq!(cause_of(None, Some(looks)), Cause::Unknown);
        let stopped = looks_of([Some(thread(Part::Serving, Doing::Stopped))]);
        assert_eq!(cause_of(None, Some(stopped)), Cause::ProcessStopped);
        assert!(NOW > Mono(0));
    }
}
