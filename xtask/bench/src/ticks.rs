//! What a tick costs with more flows than this machine can open: slots and observations are made up,
//! the code that reads and judges them is the daemon's own, and takes turns as it does.
//!
//! In: numbers of flows. Out: ms a tick, in a table. Never: a kernel program or a socket; each flow
//! pings every 4 s, so that in each tick one of eighty has changed.

use anyhow::Result;
use watchdog::tick::{
    BY_TURNS, PERIOD_NS, clock,
    flows::{self, FlowTable},
};
use watchdog_common::layout::{FlowSlot, SLOT_LIVE};
use watchdog_model::{
    Mono,
    leases::{
        book::Book,
        observation::{Endpoints, FlowKey, FlowObservation, Hello, Role, Welcome},
        settings::EntrySettings,
    },
    time::{SECOND, ms},
};

use crate::table::Spread;

/// Ticks between two pings of a flow.
const EVERY: usize = 80;
/// Every flow's timeout.
const TIMEOUT_MS: i32 = 12_000;

/// A tick's cost with so many flows.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Flows, each with a lease.
    pub flows: usize,
    /// The middle tick, ms.
    pub tick_ms: f64,
}

fn session(number: usize, at: Mono) -> FlowObservation {
    let port = 1_024 + u16::try_from(number % 60_000).unwrap_or(0);
    let high = u8::try_from(number / 60_000 % 250).unwrap_or(0);
    let endpoints = Endpoints {
        local: ([10, 0, high, 1], port).into(),
        peer: ([10, 0, 0, 2], 2181).into(),
    };
    let mut flow = FlowObservation::opened(FlowKey(number as u64), 0, Role::Holder, endpoints, at);
    flow.hello = Some(Hello {
        at,
        asked_timeout_ms: TIMEOUT_MS,
        session: 0,
    });
    flow.welcome = Some(Welcome {
        at,
        timeout_ms: TIMEOUT_MS,
        session: number as u64 + 1,
    });
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

fn point(flows: usize) -> Point {
    // SAFETY: a slot is integers throughout, and all of them may be 0.
    let empty: FlowSlot = unsafe { std::mem::zeroed() };
    let mut slots = vec![empty; flows];
    let mut now = Mono(1_000 * SECOND);
    let mut seen: Vec<FlowObservation> = (0..flows).map(|number| session(number, now)).collect();
    let mut table = FlowTable::new(flows, true);
    let mut book = Book::new(vec![EntrySettings::default()], flows);
    let mut said = 0_u64;
    for slot in &mut slots {
        slot.state = SLOT_LIVE;
        slot.generation = 1;
    }
    for flow in &mut seen {
        ping(flow, now);
        book.observe(flow, now, &mut |_| said += 1);
    }
    let mut took = Vec::new();
    for tick in 0..3 * EVERY {
        now = now.plus(PERIOD_NS);
        for index in (tick % EVERY..flows).step_by(EVERY) {
            // As a writer leaves it.
            slots[index].requests.version += 2;
            ping(&mut seen[index], now);
        }
        let begun = clock();
        let by_turns = flows > BY_TURNS;
        let turn = table.next_turn();
        if by_turns {
            book.due(now, &mut |key| table.wish(key));
        }
        for (index, slot) in slots.iter().enumerate() {
            let is_its_turn = !by_turns || index % 2 == turn;
            let is_wished = by_turns && table.take_wish(index);
            if !(is_its_turn || is_wished) {
                continue;
            }
            if let Some(ahead) = slots.get(index + flows::AHEAD) {
                flows::fetch(ahead);
            }
            // SAFETY: that slot, for as long as the call lasts; nobody writes it meanwhile.
            if unsafe { table.look(index, slot) } {
                book.observe(&seen[index], now, &mut |_| said += 1);
            }
        }
        book.advance(now, &mut |_| said += 1);
        // In the first round every slot is new.
        if tick >= EVERY {
            took.push(clock().since(begun) as f64 / 1e6);
        }
    }
    Point {
        flows,
        tick_ms: Spread::of(took).map_or(0.0, |spread| spread.median),
    }
}

/// Measures and prints.
pub fn measure(counts: &[usize]) -> Result<Vec<Point>> {
    println!(
        "\nThe tick with made-up slots (each flow with a lease, pinging every 4 s), without kernel \
         and sockets"
    );
    println!(
        "{:>8} {:>10} {:>16} {:>14}",
        "flows", "ms a tick", "ns a flow, tick", "% of a core"
    );
    let mut points = Vec::new();
    for &flows in counts {
        let point = point(flows);
        println!(
            "{flows:>8} {:>10.3} {:>16.1} {:>14.2}",
            point.tick_ms,
            point.tick_ms * 1e6 / flows.max(1) as f64,
            point.share() * 100.0,
        );
        points.push(point);
    }
    Ok(points)
}

impl Point {
    /// Of one core.
    pub fn share(self) -> f64 {
        self.tick_ms * 1e6 / PERIOD_NS as f64
    }
}
