//! Questions about late leases, and their answers.
//!
//! In: what the book wants to know, what the helper found. Out: the same, to each other. Never: a
//! wait for the helper, an answer that no longer fits: a thread that has moved on since it was
//! looked at proves nothing.

use watchdog_model::Mono;
use watchdog_model::causes::collected::{Collected, Doing, Part};
use watchdog_model::leases::threads::ThreadState;

use super::{Gauges, Tick, flows::FlowTable, threads::ThreadTable};
use crate::collect::helper::Question;
use crate::collect::look::Subject;
use crate::collect::waits::Own;
use crate::outbox::{Message, Stamped};
use crate::recorder::Op;

/// Questions and answers of one tick: 400 a second at most.
const A_TICK: usize = 20;

impl<G: Gauges + 'static> Tick<G> {
    /// Takes what was found to the book, and asks what it wants to know.
    pub(super) fn gather(&mut self, flows: &FlowTable, threads: &ThreadTable, now: Mono) {
        let Some(helper) = &self.helper else {
            return;
        };
        let outbox = &mut self.outbox;
        let recorder = self.recorder.as_ref();
        let record = |op| {
            if let Some(recorder) = recorder {
                recorder.put(now, op);
            }
        };
        let mut say = |note| {
            record(Op::Said(note));
            outbox.send(Stamped {
                at: now,
                message: Message::Note(note),
            });
        };
        let mut answered = false;
        for answer in std::iter::from_fn(|| helper.answer()).take(A_TICK) {
            if fits(&answer.collected, threads) {
                record(Op::Evidence {
                    handle: answer.handle,
                    found: answer.collected,
                });
                self.book
                    .evidence(answer.handle, &answer.collected, now, &mut say);
                answered = true;
            }
        }
        if answered {
            // The other ends that were reminded.
            record(Op::Advance);
            self.book.advance(now, &mut say);
        }
        record(Op::Asked);
        let mut asked = false;
        self.book.wanted(now, A_TICK, &mut |want, tids| {
            let flow = want.flow.and_then(|key| flows.named(key));
            if let Some(flow) = flow
                && flow.servers.iter().any(|tid| *tid != 0)
            {
                *tids = flow.servers;
            }
            let next_tid = tids
                .iter()
                .filter(|tid| **tid != 0)
                .map(|tid| threads.next_of(*tid))
                .find(|next| *next != 0)
                .unwrap_or(0);
            asked = true;
            helper.ask(Question {
                handle: want.handle,
                subject: Subject {
                    pid: want.pid,
                    tids: *tids,
                    own: Own {
                        cookie: flow.map_or(0, |flow| flow.cookie),
                        grantor: want.grantor,
                    },
                    path: want.path,
                    next_tid,
                    owes_answer: want.owes_answer,
                },
            })
        });
        if asked {
            helper.wake();
        }
    }
}

/// Whether the serving thread still does what it was seen to do.
fn fits(collected: &Collected, threads: &ThreadTable) -> bool {
    let Some(serving) = collected.thread(Part::Serving) else {
        return true;
    };
    let Some(state) = threads.state_of(serving.tid) else {
        return true;
    };
    match (serving.doing, state) {
        (_, ThreadState::Unknown) => true,
        (Doing::Uninterruptible, state) => matches!(
            state,
            ThreadState::Uninterruptible | ThreadState::Frozen | ThreadState::Runnable
        ),
        (Doing::Stopped, state) => state == ThreadState::Stopped,
        (Doing::Sleeping, state) => state == ThreadState::Sleeping,
        (Doing::Running | Doing::Other, state) => state != ThreadState::Dead,
    }
}
