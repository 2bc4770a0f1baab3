//! All leases as they stand, for whoever asks: the page, `top`, a program that asks about its own.
//!
//! In: the tick's pass over the book. Out: the newest whole [`Sheet`]. Three sheets go round
//! between the writer and the readers, so the tick neither waits nor allocates, whoever reads and
//! for however long. Never: words, JSON, evidence (that comes with the notes).

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use watchdog_model::causes::Cause;
use watchdog_model::leases::book::LeaseView;
use watchdog_model::leases::note::{Condition, Stage, Subject};
use watchdog_model::time::Mono;

/// One that is written, one that waits, one that is read.
const SHEETS: usize = 3;

/// A lease as it stood when the sheet was written. What is left of it is counted from `floor` by
/// whoever reads, so it is true at that moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveLease {
    /// The lease.
    pub subject: Subject,
    /// How far it is from lapsing.
    pub stage: Stage,
    /// Where the renewal stands.
    pub condition: Condition,
    /// Since when.
    pub since: Mono,
    /// Why.
    pub cause: Cause,
    /// The earliest moment at which the grantor may expire it; None: not known.
    pub floor: Option<Mono>,
    /// The newest renewal that the grantor has surely seen.
    pub answered_at: Option<Mono>,
    /// The usual silence, ns.
    pub cadence_ns: Option<u64>,
    /// Whether a connection carries it.
    pub connected: bool,
    /// Whether its frames are being followed.
    pub synchronised: bool,
}

impl From<&LeaseView> for LiveLease {
    fn from(view: &LeaseView) -> Self {
        Self {
            subject: view.subject,
            stage: view.stage,
            condition: view.condition,
            since: view.since,
            cause: view.verdict.cause,
            floor: view.floor,
            answered_at: view.answered_at,
            cadence_ns: view.cadence_ns,
            connected: view.flow.is_some(),
            synchronised: view.synchronised,
        }
    }
}

/// All leases at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sheet {
    /// When; 0: never yet.
    pub at: Mono,
    /// The leases, in no order.
    pub leases: Vec<LiveLease>,
}

impl Sheet {
    fn with_capacity(leases: usize) -> Self {
        Self {
            at: Mono(0),
            leases: Vec::with_capacity(leases),
        }
    }

    /// Notes a lease; one for which there is no room is left out rather than allocated for.
    pub fn push(&mut self, view: &LeaseView) {
        if self.leases.len() < self.leases.capacity() {
            self.leases.push(view.into());
        }
    }
}

struct Round {
    written: ArrayQueue<Sheet>,
    free: ArrayQueue<Sheet>,
    shown: Mutex<Sheet>,
}

/// The tick's end; there must be one only.
pub struct Publisher(Arc<Round>);

/// The readers' end.
#[derive(Clone)]
pub struct Board(Arc<Round>);

/// Makes both ends, with room for so many leases.
#[must_use]
pub fn board(leases: usize) -> (Publisher, Board) {
    let free = ArrayQueue::new(SHEETS);
    for _ in 1..SHEETS {
        // There is room for all of them.
        let _ = free.push(Sheet::with_capacity(leases));
    }
    let round = Arc::new(Round {
        written: ArrayQueue::new(1),
        free,
        shown: Mutex::new(Sheet::with_capacity(leases)),
    });
    (Publisher(Arc::clone(&round)), Board(round))
}

impl Publisher {
    /// An empty sheet to write on. `None` cannot be while there is one publisher: readers hold one
    /// sheet, one waits, one is left.
    #[must_use]
    pub fn begin(&self) -> Option<Sheet> {
        let mut sheet = self.0.free.pop().or_else(|| self.0.written.pop())?;
        sheet.leases.clear();
        Some(sheet)
    }

    /// Shows it from now on.
    pub fn publish(&self, mut sheet: Sheet, now: Mono) {
        sheet.at = now;
        if let Some(unread) = self.0.written.force_push(sheet) {
            // There is room for all of them.
            let _ = self.0.free.push(unread);
        }
    }
}

impl Board {
    /// Looks at the newest sheet. Readers wait for each other here, the tick for nobody.
    pub fn read<T>(&self, look: impl FnOnce(&Sheet) -> T) -> T {
        // A reader that died looked only.
        let mut shown = self.0.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newer) = self.0.written.pop() {
            let older = std::mem::replace(&mut *shown, newer);
            // There is room for all of them.
            let _ = self.0.free.push(older);
        }
        look(&shown)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sinks::samples::subject;

    /// A healthy lease of 12 s, renewed at `answered_at`.
    pub fn view(handle: u64, answered_at: Mono) -> LeaseView {
        let floor = answered_at.plus(12_000_000_000);
        LeaseView {
            subject: subject(handle),
            stage: Stage::Healthy,
            condition: Condition::None,
            since: answered_at,
            verdict: watchdog_model::causes::Verdict::UNKNOWN,
            floor: Some(floor),
            remaining_ns: None,
            answered_at: Some(answered_at),
            silent_ns: None,
            cadence_ns: Some(4_000_000_000),
            learned_cadence_ns: None,
            flow: None,
            synchronised: true,
        }
    }

    fn write(publisher: &Publisher, handles: &[u64], now: Mono) {
        let mut sheet = publisher.begin().unwrap();
        for handle in handles {
            sheet.push(&view(*handle, now));
        }
        publisher.publish(sheet, now);
    }

    fn shown(board: &Board) -> (u64, Vec<u64>) {
        board.read(|sheet| {
            let handles = sheet.leases.iter().map(|lease| lease.subject.handle.0);
            (sheet.at.0, handles.collect())
        })
    }

    #[test]
    fn the_newest_sheet_is_shown_however_often_it_is_read() {
        let (publisher, board) = board(4);
        assert_eq!(shown(&board), (0, vec![]));
        for round in 1..20 {
            write(&publisher, &[round, round + 1], Mono(round));
            write(&publisher, &[round], Mono(round + 100));
            assert_eq!(shown(&board), (round + 100, vec![round]));
            assert_eq!(shown(&board), (round + 100, vec![round]));
        }
    }

    #[test]
    fn a_reader_that_holds_on_stops_nobody() {
        let (publisher, board) = board(4);
        write(&publisher, &[1], Mono(1));
        board.read(|sheet| {
            for round in 2..20 {
                write(&publisher, &[round], Mono(round));
            }
            assert_eq!(sheet.at, Mono(1));
        });
        assert_eq!(shown(&board), (19, vec![19]));
    }

    #[test]
    fn what_finds_no_room_is_left_out() {
        let (publisher, board) = board(2);
        write(&publisher, &[1, 2, 3], Mono(1));
        assert_eq!(shown(&board), (1, vec![1, 2]));
    }
}
