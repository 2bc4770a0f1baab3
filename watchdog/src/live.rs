//! All leases as they stand, for whoever asks: the page, `top`, a program that asks about its own.
//!
//! In: the tick's pass over the book, where somebody has laid out an empty [`Sheet`] for it. Out: the
//! newest whole sheet. Whoever asks brings the paper, so that the tick allocates nothing, and nobody
//! who asks nothing pays for it; what nobody has read for a while is given back. Never: a wait or an
//! allocation at the tick's end; words, JSON, evidence (that comes with the notes).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use watchdog_model::causes::Cause;
use watchdog_model::leases::book::LeaseView;
use watchdog_model::leases::note::{Condition, Stage, Subject};
use watchdog_model::time::Mono;

/// For so long a reader waits for a sheet that is newer than its question. The tick fills one when it
/// comes by, unless that would cost it too much; with a hundred thousand leases the newest that there
/// is has to do.
pub const PATIENCE: Duration = Duration::from_millis(400);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(4);
/// A sheet that nobody has read for so long is given back.
const KEPT_FOR: Duration = Duration::from_secs(5);

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
            cause: view.cause,
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
    /// Leases for which there was no room.
    left_out: usize,
}

impl Sheet {
    /// An empty one with room for so many.
    #[must_use]
    pub fn with_room(leases: usize) -> Self {
        Self {
            leases: Vec::with_capacity(leases),
            ..Self::default()
        }
    }

    /// Notes a lease; one for which there is no room is left out rather than allocated for.
    pub fn push(&mut self, view: &LeaseView) {
        if self.leases.len() < self.leases.capacity() {
            self.leases.push(view.into());
        } else {
            self.left_out += 1;
        }
    }
}

/// What readers share.
#[derive(Default)]
struct Shown {
    sheet: Sheet,
    /// Whether one that was laid out has not come back yet: there is one at a time.
    is_laid_out: bool,
    /// Whether anybody has read since this was last asked.
    was_read: bool,
}

struct Round {
    blank: ArrayQueue<Sheet>,
    written: ArrayQueue<Sheet>,
    /// How many leases there are.
    leases: AtomicUsize,
    shown: Mutex<Shown>,
}

/// The tick's end; there must be one only.
pub struct Publisher(Arc<Round>);

/// The readers' end.
#[derive(Clone)]
pub struct Board {
    round: Arc<Round>,
    patience: Duration,
}

/// Makes both ends. Readers wait for so long for what is new ([`PATIENCE`]).
#[must_use]
pub fn board(patience: Duration) -> (Publisher, Board) {
    let round = Arc::new(Round {
        blank: ArrayQueue::new(1),
        written: ArrayQueue::new(1),
        leases: AtomicUsize::new(0),
        shown: Mutex::default(),
    });
    let board = Board {
        round: Arc::clone(&round),
        patience,
    };
    (Publisher(round), board)
}

impl Publisher {
    /// Whether somebody waits for a sheet.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.0.blank.is_empty()
    }

    /// So many leases there are: the next sheet has room for them.
    pub fn count(&self, leases: usize) {
        self.0.leases.store(leases, Ordering::Relaxed);
    }

    /// The sheet that somebody has laid out.
    #[must_use]
    pub fn begin(&self) -> Option<Sheet> {
        self.0.blank.pop()
    }

    /// Shows it from now on.
    pub fn publish(&self, mut sheet: Sheet, now: Mono) {
        sheet.at = now;
        // Nothing is pushed out: one is under way, and who lays out the next has taken this one in.
        self.0.written.force_push(sheet);
    }
}

impl Board {
    /// Looks at the newest sheet. Readers wait for each other here, the tick for nobody.
    pub fn read<T>(&self, look: impl FnOnce(&Sheet) -> T) -> T {
        let mut shown = self.newest();
        shown.was_read = true;
        look(&shown.sheet)
    }

    /// Has the tick write a sheet that is no older than `asked_at`, and waits for it within limits:
    /// a tick that stands still is no reason to say nothing.
    pub async fn renew(&self, asked_at: Mono) {
        let give_up = tokio::time::Instant::now() + self.patience;
        while !self.is_as_new_as(asked_at) && tokio::time::Instant::now() < give_up {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Gives back, for ever, what nobody has read for a while. The allocation is the readers', and so
    /// is its end.
    pub async fn keep_tidy(self) {
        loop {
            tokio::time::sleep(KEPT_FOR).await;
            self.tidy();
        }
    }

    fn tidy(&self) {
        let mut shown = self.newest();
        if !std::mem::take(&mut shown.was_read) {
            shown.sheet = Sheet::default();
        }
    }

    /// Whether the newest sheet will do; if not, an empty one lies there now.
    fn is_as_new_as(&self, asked_at: Mono) -> bool {
        let mut shown = self.newest();
        let will_do = shown.sheet.at >= asked_at && shown.sheet.left_out == 0;
        if !will_do && !shown.is_laid_out {
            // More may come until it is written.
            let leases = self.round.leases.load(Ordering::Relaxed);
            let sheet = Sheet::with_room(leases + leases / 8 + 64);
            shown.is_laid_out = self.round.blank.push(sheet).is_ok();
        }
        will_do
    }

    fn newest(&self) -> MutexGuard<'_, Shown> {
        let shown = self.round.shown.lock();
        // A reader that died looked only.
        let mut shown = shown.unwrap_or_else(PoisonError::into_inner);
        if let Some(newer) = self.round.written.pop() {
            shown.sheet = newer;
            shown.is_laid_out = false;
        }
        shown
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
            cause: Cause::Unknown,
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

    /// What the tick does when it comes by.
    fn come_by(publisher: &Publisher, handles: &[u64], now: Mono) {
        publisher.count(handles.len());
        if let Some(mut sheet) = publisher.begin() {
            for handle in handles {
                sheet.push(&view(*handle, now));
            }
            publisher.publish(sheet, now);
        }
    }

    fn shown(board: &Board) -> (u64, Vec<u64>) {
        board.read(|sheet| {
            let handles = sheet.leases.iter().map(|lease| lease.subject.handle.0);
            (sheet.at.0, handles.collect())
        })
    }

    #[test]
    fn who_asks_gets_what_was_written_after_the_question() {
        let (publisher, board) = board(PATIENCE);
        // Nobody asks, and nothing is written.
        come_by(&publisher, &[1], Mono(5));
        assert_eq!(shown(&board), (0, vec![]));
        for round in 1..20 {
            let asked_at = Mono(round * 100);
            assert!(!board.is_as_new_as(asked_at));
            assert!(publisher.is_awaited());
            come_by(&publisher, &[round, round + 1], asked_at.plus(7));
            // Once is enough, and whoever asked at the same time has it too.
            assert!(!publisher.is_awaited());
            assert!(board.is_as_new_as(asked_at) && board.is_as_new_as(asked_at.plus(7)));
            assert_eq!(shown(&board), (round * 100 + 7, vec![round, round + 1]));
        }
    }

    #[test]
    fn one_that_was_written_before_the_question_is_followed_by_another() {
        let (publisher, board) = board(PATIENCE);
        assert!(!board.is_as_new_as(Mono(1)));
        come_by(&publisher, &[1], Mono(2));
        assert!(!board.is_as_new_as(Mono(3)));
        come_by(&publisher, &[2], Mono(4));
        assert!(board.is_as_new_as(Mono(3)));
        assert_eq!(shown(&board), (4, vec![2]));
    }

    #[test]
    fn a_reader_that_holds_on_stops_nobody() {
        let (publisher, board) = board(PATIENCE);
        assert!(!board.is_as_new_as(Mono(1)));
        come_by(&publisher, &[1], Mono(1));
        assert!(!board.is_as_new_as(Mono(2)));
        board.read(|sheet| {
            for round in 2..20 {
                come_by(&publisher, &[round], Mono(round));
            }
            assert_eq!(sheet.at, Mono(1));
        });
        assert_eq!(shown(&board), (2, vec![2]));
    }

    #[test]
    fn a_sheet_that_was_too_small_is_no_answer() {
        let (publisher, board) = board(PATIENCE);
        let many: Vec<u64> = (1..=1_000).collect();
        assert!(!board.is_as_new_as(Mono(1)));
        come_by(&publisher, &many, Mono(1));
        assert!(!board.is_as_new_as(Mono(1)));
        come_by(&publisher, &many, Mono(2));
        assert!(board.is_as_new_as(Mono(1)));
        assert_eq!(shown(&board), (2, many));
    }

    #[tokio::test]
    async fn a_tick_that_stands_still_keeps_nobody_for_long() {
        let (_publisher, board) = board(Duration::from_millis(20));
        board.renew(Mono(1)).await;
        assert_eq!(shown(&board), (0, vec![]));
    }

    #[test]
    fn what_nobody_reads_is_given_back() {
        let (publisher, board) = board(PATIENCE);
        assert!(!board.is_as_new_as(Mono(1)));
        come_by(&publisher, &[1], Mono(1));
        assert_eq!(shown(&board).1, [1]);
        board.tidy();
        assert_eq!(shown(&board).1, [1]);
        board.tidy();
        board.tidy();
        assert_eq!(board.newest().sheet.leases.capacity(), 0);
        assert!(!board.is_as_new_as(Mono(1)));
        come_by(&publisher, &[1], Mono(3));
        assert_eq!(shown(&board), (3, vec![1]));
    }
}
