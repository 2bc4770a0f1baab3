//! The tick: the one thread that reads the clock and moves the model.
//!
//! In: the kernel's memory, mapped. Out: messages into the outbox, figures into gauges. After
//! start it opens no file, allocates nothing and takes no lock that a thread doing I/O could hold,
//! so it goes on while the disk hangs and the CPUs are full. It measures its own lateness: a gap
//! in which nobody looked is said, and never held against a peer.

pub mod evidence;
pub mod flows;
pub mod gauges;
mod pause;
pub mod service;
pub mod threads;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use watchdog_common::layout::{SLOT_DEAD, SLOT_LIVE};
use watchdog_model::{
    Mono,
    leases::{
        book::{Book, LeaseBrief},
        note::Note,
    },
    time::{MS, SECOND},
};

use crate::{
    collect::{
        executables::{Edition, Executables},
        existing::{self, Found},
        helper::Helper,
        tls,
    },
    kernel::{Kernel, state::State},
    live::{Publisher, Sheet},
    memory,
    outbox::{Message, Outbox, Stamped},
    priority::{self, Priority},
    recorder::{Op, Recorder},
};
use flows::{Flow, FlowTable};
use threads::ThreadTable;

/// How often the tick looks. Half of the shortest margin (250 ms) is 125 ms; 50 leaves room for a
/// late one.
pub const PERIOD_NS: u64 = 50 * MS;
/// A tick later than this was held up: it is said as `stalled`, and the gap is not judged.
pub const HELD_UP_NS: u64 = 250 * MS;
/// How often the gauges are set, at most.
const GAUGES_EVERY_NS: u64 = 250 * MS;
/// With many leases a pass over all of them takes milliseconds: the next one then waits for so many
/// times as long, which is one percent of a core.
const GAUGES_REST: u64 = 100;
/// The same for what is kept over a restart, which is worth less: a tenth of a percent.
const SLATE_REST: u64 = 1000;
/// With more slots than this in use every second tick looks at every second of them, and besides at
/// those by which something is judged in that tick. What a flow shows is news within 100 ms then; the
/// shortest margin from any of it to a warning is 250.
pub const BY_TURNS: usize = 2_048;
/// Slots looked at beyond the kernel's high-water mark, which two CPUs may race to raise.
const BEYOND_MARK: usize = 64;

/// When a pass over all leases is due again.
#[derive(Clone, Copy, Default)]
struct Turn {
    due: Mono,
    rested: Mono,
}

impl Turn {
    /// Whether it is, or may be while there is a reason to.
    fn has_come(&self, now: Mono, is_wished: bool) -> bool {
        now >= self.due || is_wished && now >= self.rested
    }

    /// It took so long: the next one waits for `rest` times that.
    fn took(&mut self, now: Mono, took_ns: u64, rest: u64) {
        self.rested = now.plus(took_ns.saturating_mul(rest));
        self.due = self.rested.max(now.plus(GAUGES_EVERY_NS));
    }
}

/// Nanoseconds on the monotonic clock.
#[must_use]
pub fn clock() -> Mono {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Mono(seconds * SECOND + u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Sleeps until a moment of the monotonic clock.
fn sleep_until(at: Mono) {
    let until = libc::timespec {
        tv_sec: libc::time_t::try_from(at.0 / SECOND).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(at.0 % SECOND).unwrap_or(0),
    };
    // SAFETY: valid arguments; an early return by a signal only means an early tick.
    unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            std::ptr::null_mut(),
        )
    };
}

/// What the tick shows of itself and of the leases, for metrics. Every call must neither block
/// nor allocate.
pub trait Gauges: Send {
    /// A tick was this late, ns.
    fn tick_late(&mut self, late_ns: u64);
    /// A request was answered after this time, ns.
    fn renewal_rtt(&mut self, flow: &Flow, rtt_ns: u64);
    /// A message was read after lying in the socket for this time, ns.
    fn renewal_unread(&mut self, flow: &Flow, unread_ns: u64);
    /// The gap between two renewals, and the timeout it is to be seen against, ns.
    fn renewal_gap(&mut self, flow: &Flow, gap_ns: u64, timeout_ns: u64);
    /// All leases, flows and counts of the moment.
    fn snapshot(&mut self, snapshot: &mut Snapshot<'_>);
}

/// What [`Gauges::snapshot`] is given.
pub struct Snapshot<'a> {
    /// Every lease.
    pub leases: &'a mut dyn Iterator<Item = LeaseBrief>,
    /// Slots for flows.
    pub slots: usize,
    /// Every flow that is alive.
    pub flows: &'a FlowTable,
    /// What the kernel programs could not do.
    pub losses: watchdog_common::layout::Losses,
    /// Waits that are over.
    pub waits: watchdog_common::layout::Waits,
    /// Questions about late leases that were not answered for want of room.
    pub questions_lost: u64,
    /// Threads watched.
    pub threads: usize,
    /// Threads that found no slot.
    pub threads_refused: u64,
    /// Leases that found no place in the book, and renewals of those that found none in their flow's slot.
    pub leases_refused: u64,
}

/// What others may ask of the running tick.
pub struct Control<G> {
    /// Set to end it.
    pub stop: Arc<AtomicBool>,
    /// When it last ran, ns; 0 before the first time.
    pub last_ns: Arc<AtomicU64>,
    /// A changed configuration to take over.
    pub reload: Arc<crossbeam_queue::SegQueue<Reload<G>>>,
    /// Connections that were there before an entry was.
    pub found: Arc<crossbeam_queue::SegQueue<Arc<[Found]>>>,
}

impl<G> Clone for Control<G> {
    fn clone(&self) -> Self {
        Self {
            stop: Arc::clone(&self.stop),
            last_ns: Arc::clone(&self.last_ns),
            reload: Arc::clone(&self.reload),
            found: Arc::clone(&self.found),
        }
    }
}

impl<G> Default for Control<G> {
    fn default() -> Self {
        Self {
            stop: Arc::default(),
            last_ns: Arc::default(),
            reload: Arc::default(),
            found: Arc::default(),
        }
    }
}

/// A changed configuration, made ready elsewhere.
pub struct Reload<G> {
    /// Thresholds by entry.
    pub entries: Vec<watchdog_model::leases::settings::EntrySettings>,
    /// Port table: entry index plus one.
    pub ports: Box<[u8; watchdog_common::layout::PORTS]>,
    /// How the entries' streams look.
    pub shapes: Box<watchdog_common::layout::ShapeTable>,
    /// Figures by entry.
    pub gauges: G,
    /// Whose flows are watched.
    pub edition: Edition,
    /// Set once all of this is in force.
    pub done: Arc<AtomicBool>,
}

/// The tick's parts.
pub struct Tick<G> {
    /// The kernel programs and their memory; None: no probes (`--no-probes`).
    pub kernel: Option<Kernel>,
    /// Whether the read hook is attached; without it nothing can be said of unread messages.
    pub reads: bool,
    /// The model.
    pub book: Book,
    /// Where notes go.
    pub outbox: Outbox,
    /// Where figures go.
    pub gauges: G,
    /// Who gathers facts about late leases; None: nobody.
    pub helper: Option<Helper>,
    /// Who runs what.
    pub executables: Executables,
    /// Who looks into streams inside TLS; None: nobody.
    pub sealed: Option<tls::Wants>,
    /// What an earlier run knew of the flows.
    pub remembered: memory::Remembered,
    /// Where all leases are shown.
    pub live: Publisher,
    /// Who keeps what the book is told and says; None: nobody.
    pub recorder: Option<Recorder>,
    /// Where what a later run should know is left.
    pub slate: memory::Slate,
    /// Who is told that it runs.
    pub service: service::Service,
    /// Stop, pulse, reload.
    pub control: Control<G>,
}

impl<G: Gauges + 'static> Tick<G> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(
        self,
        ended: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        thread::Builder::new()
            .name("tick".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                priority::take(Priority::Tick);
                pause::listen();
                // The programs are detached when this is dropped, here and not where it is waited for.
                drop(self.run());
                ended();
            })
    }

    fn run(mut self) -> Self {
        let capacity = self.state().map_or(0, |state| state.flows.len());
        let mut flows = FlowTable::new(capacity, self.reads);
        let mut threads = ThreadTable::new();
        let mut due = clock();
        let mut gauges = Turn::default();
        let mut slate = Turn::default();
        let mut sheet = Turn::default();
        while !self.control.stop.load(Ordering::Relaxed) {
            let now = clock();
            let late_ns = now.since(due);
            self.gauges.tick_late(late_ns);
            self.control.last_ns.store(now.0, Ordering::Relaxed);
            if late_ns > HELD_UP_NS {
                self.say(now, Message::Stalled { from: due, to: now });
                // The thread that takes the signal may wake a moment after this one.
                sleep_until(now.plus(MS));
                if pause::was_continued() || self.has_moved(&threads, due, now) {
                    self.record(now, Op::DaemonGap { from: due, to: now });
                    self.book.daemon_gap(due, now);
                } else {
                    self.record(now, Op::NodeGap { from: due, to: now });
                    self.book.node_gap(due, now);
                }
            }
            while let Some(reload) = self.control.reload.pop() {
                self.reload(reload);
            }
            for _ in 0..existing::BATCHES {
                let Some(found) = self.control.found.pop() else {
                    break;
                };
                self.adopt(&found);
            }
            let said = self.look(&mut flows, &mut threads, now);
            self.gather(&flows, &threads, now);
            self.service.feed(now);
            // Whoever hears of a change finds it there, unless that would cost too much.
            if gauges.has_come(now, said) {
                let begun = clock();
                self.figures(&flows, &threads, now);
                gauges.took(now, clock().since(begun), GAUGES_REST);
            }
            if slate.has_come(now, said) {
                let begun = clock();
                self.slate.leave(&flows, &self.book);
                slate.took(now, clock().since(begun), SLATE_REST);
            }
            if sheet.has_come(now, true)
                && let Some(blank) = self.live.begin()
            {
                let begun = clock();
                self.write(blank, now);
                sheet.took(now, clock().since(begun), GAUGES_REST);
            }
            // However long it took: never more than half of a CPU, and a sleep each time, which is
            // what RLIMIT_RTTIME counts from.
            let ended = clock();
            due = due.plus(PERIOD_NS).max(ended.plus(ended.since(now)));
            sleep_until(due);
        }
        self
    }

    fn reload(&mut self, reload: Reload<G>) {
        self.gauges = reload.gauges;
        self.book.reconfigure(reload.entries);
        self.executables.take_over(reload.edition);
        if let Some(state) = self.state() {
            state.describe_entries(&reload.shapes);
            state.watch_ports(&reload.ports);
        }
        reload.done.store(true, Ordering::Release);
    }

    /// Gives slots to connections that are older than the entry that watches them. Whoever found
    /// them keeps them until this copy is gone, and closes what it has opened.
    fn adopt(&mut self, found: &[Found]) {
        if let Some(state) = self.kernel.as_mut().map(|kernel| &mut kernel.state) {
            for one in found {
                let _ = one.take_in(state);
            }
        }
    }

    /// One look at everything that may have changed. Whether there was something to say.
    fn look(&mut self, flows: &mut FlowTable, threads: &mut ThreadTable, now: Mono) -> bool {
        let outbox = &mut self.outbox;
        let recorder = self.recorder.as_ref();
        let record = |op| {
            if let Some(recorder) = recorder {
                recorder.put(now, op);
            }
        };
        let mut said = false;
        let mut say = |note: Note| {
            said = true;
            record(Op::Said(note));
            outbox.send(Stamped {
                at: now,
                message: Message::Note(note),
            })
        };
        if let Some(state) = self.kernel.as_mut().map(|kernel| &mut kernel.state) {
            self.executables.take_answers(now);
            let stalls_changed = threads.look(state, now);
            state.give_back();
            let mark = state.high_water();
            let end = mark.saturating_add(BEYOND_MARK).min(state.flows.len());
            // Refused, the flows beyond stay unseen and are tried again at the next tick.
            let _ = state.flows.ensure(end);
            let by_turns = end > BY_TURNS;
            let turn = flows.next_turn();
            if by_turns {
                self.book.due(now, &mut |flow| flows.wish(flow));
            }
            for index in 0..end {
                let is_its_turn = !by_turns || index % 2 == turn;
                let is_wished = by_turns && flows.take_wish(index);
                if !(is_its_turn || is_wished || stalls_changed || flows.undecided(index)) {
                    continue;
                }
                if is_its_turn && let Some(ahead) = state.flows.at(index + flows::AHEAD) {
                    flows::fetch(ahead);
                }
                let Some(slot) = state.flows.at(index) else {
                    continue;
                };
                // SAFETY: a slot in the mapping; racy words are read as such.
                let slot_state = unsafe { (&raw const (*slot).state).read_volatile() };
                if slot_state != SLOT_LIVE && slot_state != SLOT_DEAD {
                    continue;
                }
                // SAFETY: as above.
                let changed = unsafe { flows.look(index, slot) };
                if changed || stalls_changed || flows.undecided(index) {
                    threads.learn(state, flows.servers(index), now);
                    let undecided = flows.undecided(index);
                    let changed = flows.set_stall(index, threads) || changed || undecided;
                    if let (true, Some(flow)) = (changed, flows.get_mut(index)) {
                        if let Some(owner) = &mut flow.observation.owner {
                            owner.executable = self.executables.of(owner.pid, now);
                        }
                        if undecided {
                            let seen = &flow.observation;
                            let owner = seen.owner.map(|owner| owner.pid);
                            let watched = self.executables.watched_by(seen.entry, owner, now);
                            flows.decide(index, watched);
                            if watched == Some(false) {
                                state.refuse_flow(index);
                            }
                        }
                    }
                    if let (true, Some(flow)) = (changed, flows.watched_mut(index)) {
                        if let (true, Some(sealed)) = (flow.is_sealed, &mut self.sealed)
                            && let Some(owner) = flow.observation.owner
                        {
                            sealed.want(owner.pid, now);
                        }
                        flow.figures(&mut self.gauges, &self.book);
                        if !flow.met {
                            flow.met = true;
                            flow.observation.remembered = self.remembered.of(flow);
                        }
                        if !flow.foreign {
                            if recorder.is_some() {
                                let known = self.book.carried(flow.observation.key);
                                let cadence = known.and_then(|lease| lease.learned_cadence_ns);
                                record(Op::Observe {
                                    flow: flow.observation,
                                    cadence_ns: cadence.unwrap_or(0),
                                });
                            }
                            self.book.observe(&flow.observation, now, &mut say);
                            // SAFETY: as above.
                            for seen in unsafe { flows::others(flow, slot) } {
                                record(Op::Observe {
                                    flow: seen,
                                    cadence_ns: 0,
                                });
                                self.book.observe(&seen, now, &mut say);
                            }
                        }
                    }
                }
                if slot_state == SLOT_DEAD {
                    let keys = flows.get_mut(index).map(|flow| flow.keys());
                    state.free_flow(index);
                    for key in keys.into_iter().flatten() {
                        record(Op::FlowGone(key));
                        self.book.flow_gone(key, now, &mut say);
                    }
                    flows.forget(index);
                }
            }
            threads.sweep(state, now);
        }
        record(Op::Advance);
        self.book.advance(now, &mut say);
        if let Some(entry) = self.book.take_long_poll() {
            let message = Message::LongPoll { entry };
            outbox.send(Stamped { at: now, message });
        }
        said
    }

    fn figures(&mut self, flows: &FlowTable, threads: &ThreadTable, now: Mono) {
        let losses = self.state().map(State::losses).unwrap_or_default();
        let waits = self.state().map(State::waits).unwrap_or_default();
        self.gauges.snapshot(&mut Snapshot {
            leases: &mut self.book.briefs(now),
            slots: self.state().map_or(0, |state| state.flows.len()),
            flows,
            losses,
            waits,
            questions_lost: self.helper.as_ref().map_or(0, Helper::lost),
            threads: threads.watched(),
            threads_refused: threads.refused(),
            leases_refused: self.book.refused() + flows.left_out(),
        });
        self.live.count(self.book.len());
        if let Some(sealed) = &mut self.sealed {
            // Idle ones too: their processes are wanted for as long as they have them.
            let watched = flows
                .iter()
                .filter(|flow| flow.is_sealed && flow.watched == Some(true));
            for owner in watched.filter_map(|flow| flow.observation.owner) {
                sealed.want(owner.pid, now);
            }
        }
    }

    /// Writes all leases on a sheet that somebody has laid out.
    fn write(&self, mut sheet: Sheet, now: Mono) {
        for lease in self.book.leases(now) {
            sheet.push(&lease);
        }
        self.live.publish(sheet, now);
    }

    fn state(&self) -> Option<&State> {
        self.kernel.as_ref().map(|kernel| &kernel.state)
    }

    fn record(&self, at: Mono, op: Op) {
        if let Some(recorder) = &self.recorder {
            recorder.put(at, op);
        }
    }

    fn say(&mut self, at: Mono, message: Message) {
        self.outbox.send(Stamped { at, message });
    }
}
