//! After it was made, the book allocates nothing while its capacity holds: not for new leases, not for
//! renewals, not for warnings, not for ten thousand sessions that come and go.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use watchdog_model::Mono;
use watchdog_model::leases::book::Book;
use watchdog_model::leases::note::Note;
use watchdog_model::leases::observation::{
    CloseHow, Closed, Endpoints, FlowKey, FlowObservation, Hello, Role, Welcome,
};
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::{SECOND, ms, secs};

struct Counting;

thread_local! {
    /// Of this thread alone: the test harness allocates on its own when a test takes long.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is handed to the system's allocator; only a counter is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const LEASES: u64 = 10_000;

fn session(number: u64, at: Mono) -> FlowObservation {
    let port = 1_024 + u16::try_from(number % 60_000).unwrap_or(0);
    let high = u8::try_from(number / 60_000 % 250).unwrap_or(0);
    let endpoints = Endpoints {
        local: ([10, 0, high, 1], port).into(),
        peer: ([10, 0, 0, 2], 2181).into(),
    };
    let mut flow = FlowObservation::opened(FlowKey(number), 0, Role::Holder, endpoints, at);
    flow.hello = Some(Hello {
        at,
        asked_timeout_ms: 12_000,
        session: 0,
    });
    flow.welcome = Some(Welcome {
        at,
        timeout_ms: 12_000,
        session: number + 1,
    });
    flow.request_at = Some(at);
    flow.answered_at = Some(at);
    (flow.reply_at, flow.read_at) = (Some(at), Some(at));
    flow
}

fn ping(flow: &mut FlowObservation, at: Mono) {
    flow.keepalives += 1;
    flow.answers += 1;
    flow.reads += 1;
    flow.keepalive_gap_ns = flow.request_at.map_or(0, |before| at.since(before));
    flow.rtt_ns = ms(1);
    flow.request_at = Some(at);
    flow.answered_at = Some(at);
    (flow.reply_at, flow.read_at) = (Some(at), Some(at));
}

#[test]
fn nothing_is_allocated_after_the_book_was_made() {
    let mut now = Mono(1_000 * SECOND);
    let mut book = Book::new(vec![EntrySettings::default()], 10_000);
    let mut flows: Vec<FlowObservation> = (0..LEASES).map(|number| session(number, now)).collect();
    let mut notes = 0_u64;
    let mut say = |_: Note| notes += 1;
    let before = ALLOCATIONS.get();

    let mut next_number = LEASES;
    for cycle in 0..40_u64 {
        for (index, flow) in flows.iter_mut().enumerate() {
            let index = index as u64;
            // In each cycle a twentieth falls silent, and a twentieth leaves and another comes.
            match (index + cycle) % 20 {
                0 if cycle > 3 => {}
                1 if cycle > 3 => {
                    flow.close_request_at = Some(now);
                    flow.closed = Some(Closed {
                        at: now,
                        how: CloseHow::OwnClose,
                    });
                    book.observe(flow, now, &mut say);
                    book.flow_gone(flow.key, now, &mut say);
                    *flow = session(next_number, now);
                    next_number += 1;
                    book.observe(flow, now, &mut say);
                }
                _ => {
                    ping(flow, now);
                    book.observe(flow, now, &mut say);
                }
            }
        }
        for _ in 0..40 {
            now = now.plus(ms(100));
            book.advance(now, &mut say);
        }
    }

    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(book.len(), 10_000);
    assert_eq!(book.refused(), 0);
    assert!(notes > 30_000, "{notes}");
    assert!(now > Mono(1_000 * SECOND).plus(secs(100)));
}
