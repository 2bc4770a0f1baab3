//! `waiting_elsewhere`: the serving thread sleeps, but not for its own socket.
//!
//! Proof: the system call that it sleeps in, and what that waits for: another socket (named by its
//! other end), a pipe, the passing of time. A thread that polls its own socket among others is idle
//! and proves nothing.

use super::collected::{Doing, Part, Wait};
use super::verdict::{End, thread_fact};
use super::{Fact, Verdict};
use crate::time::Mono;

/// Whether it is proven; the facts if so.
pub(super) fn elsewhere(end: &End<'_>, now: Mono, verdict: &mut Verdict) -> bool {
    let Some(serving) = end.looks(now).and_then(|looks| looks.thread(Part::Serving)) else {
        return false;
    };
    if serving.doing != Doing::Sleeping {
        return false;
    }
    match serving.wait {
        Wait::Socket(peer) => verdict.push(Fact::WaitsForSocket {
            side: end.side,
            peer,
        }),
        Wait::Time | Wait::Other => {}
        Wait::None | Wait::Futex | Wait::File | Wait::Memory | Wait::Own => return false,
    }
    verdict.push(thread_fact(end.side, serving));
    true
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::super::verdict::tests::{cause_of, looks_of, thread};
    use super::*;

    #[test]
    fn another_socket_a_pipe_or_time_but_not_its_own_socket() {
        let cause = |wait, doing| {
            let mut thread = thread(Part::Serving, doing);
            thread.wait = wait;
            cause_of(None, Some(looks_of([Some(thread)])))
        };
        let server = Wait::Socket("192.0.2.1:53".parse().unwrap());
        assert_eq!(cause(server, Doing::Sleeping), Cause::WaitingElsewhere);
        assert_eq!(cause(Wait::Other, Doing::Sleeping), Cause::WaitingElsewhere);
        assert_eq!(cause(Wait::Time, Doing::Sleeping), Cause::WaitingElsewhere);
        assert_eq!(cause(Wait::Own, Doing::Sleeping), Cause::Unknown);
        assert_eq!(cause(server, Doing::Uninterruptible), Cause::Unknown);
    }
}
