//! Laws of the book for arbitrary clients and arbitrary observations.

use proptest::prelude::*;

use watchdog_model::Mono;
use watchdog_model::leases::book::{Book, LeaseView};
use watchdog_model::leases::note::{Note, Outcome, Stage};
use watchdog_model::leases::observation::{
    CloseHow, Closed, Endpoints, FlowKey, FlowObservation, Hello, Role, Stall, StallKind, Welcome,
};
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::{MS, SECOND, ms, secs};

const START: Mono = Mono(1_000 * SECOND);

fn ends() -> Endpoints {
    Endpoints {
        local: "10.0.0.1:40000".parse().unwrap(),
        peer: "10.0.0.2:2181".parse().unwrap(),
    }
}

fn welcomed(role: Role, timeout_ns: u64) -> FlowObservation {
    let mut flow = FlowObservation::opened(FlowKey(1), 0, role, ends(), START);
    let timeout_ms = i32::try_from(timeout_ns / MS).unwrap();
    flow.hello = Some(Hello {
        at: START,
        asked_timeout_ms: timeout_ms,
        session: 0,
    });
    flow.welcome = Some(Welcome {
        at: START,
        timeout_ms,
        session: 5,
    });
    (flow.request_at, flow.requests) = (Some(START), 1);
    (flow.answered_at, flow.answers) = (Some(START), 1);
    (flow.reply_at, flow.read_at, flow.reads) = (Some(START), Some(START), 1);
    flow
}

fn send(flow: &mut FlowObservation, at: Mono, ping: bool) {
    if ping {
        flow.keepalives += 1;
        flow.keepalive_gap_ns = flow.request_at.map_or(0, |before| at.since(before));
    }
    flow.request_at = Some(at);
    flow.requests += 1;
    flow.pending_since.get_or_insert(at);
}

fn arrive(flow: &mut FlowObservation, at: Mono) {
    flow.unread_since.get_or_insert(at);
}

fn read(flow: &mut FlowObservation, at: Mono) {
    if let Some(since) = flow.unread_since.take() {
        flow.reads += 1;
        flow.unread_ns = at.since(since);
        flow.read_at = Some(at);
    }
}

fn answer(flow: &mut FlowObservation, at: Mono) {
    if let Some(asked_at) = flow.pending_since.take() {
        flow.answered_at = Some(asked_at);
        flow.answers += 1;
        flow.rtt_ns = at.since(asked_at);
        flow.reply_at = Some(at);
    }
}

/// Ticks the book up to `to`, and returns what it said.
fn tick_to(book: &mut Book, from: Mono, to: Mono, period_ns: u64) -> Vec<(Mono, Note)> {
    let mut said = Vec::new();
    let mut at = Mono((from.0 / period_ns + 1) * period_ns);
    while at <= to {
        book.advance(at, &mut |note| said.push((at, note)));
        at = at.plus(period_ns);
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A client that keeps its cadence, whatever it is, is never warned of: not in its first cycle,
    /// not with jitter, not under a slow but steady server.
    #[test]
    fn who_keeps_its_cadence_is_healthy(
        timeout_ms in 2_000_u64..60_000,
        share_percent in 15_u64..=66,
        jitter_percent in 0_u64..=100,
        rtt_us in 100_u64..20_000,
        holder in any::<bool>(),
        period_ms in prop::sample::select(vec![50_u64, 100]),
        noise in prop::collection::vec(0_u64..=100, 60),
    ) {
        let role = if holder { Role::Holder } else { Role::Grantor };
        let timeout_ns = ms(timeout_ms);
        let cadence_ns = timeout_ns * share_percent / 100;
        // Timers are late by up to a sixth of what is left of the timeout, at most 100 ms.
        let jitter_ns = ms(100).min((timeout_ns - cadence_ns) / 6) * jitter_percent / 100;
        let period_ns = ms(period_ms);
        let mut book = Book::new(vec![EntrySettings::default()], 4);
        let mut flow = welcomed(role, timeout_ns);
        let mut said = Vec::new();
        book.observe(&flow, START, &mut |note| said.push((START, note)));
        let mut now = START;
        for percent in noise {
            let at = now.plus(cadence_ns + jitter_ns * percent / 100);
            said.extend(tick_to(&mut book, now, at, period_ns));
            send(&mut flow, at, true);
            let arrived = at.plus(rtt_us * 1_000);
            if role == Role::Grantor {
                arrive(&mut flow, at);
            } else {
                book.observe(&flow, at, &mut |note| said.push((at, note)));
            }
            said.extend(tick_to(&mut book, at, arrived, period_ns));
            if role == Role::Holder {
                arrive(&mut flow, arrived);
            }
            answer(&mut flow, arrived);
            read(&mut flow, arrived);
            book.observe(&flow, arrived, &mut |note| said.push((arrived, note)));
            now = arrived;
        }
        prop_assert_eq!(said.len(), 1, "{:?}", said);
    }
}

/// Anything that can happen to a flow.
#[derive(Clone, Copy, Debug)]
enum Op {
    Wait(u64),
    Send { ping: bool },
    Arrive,
    Answer,
    Read,
    Stall(StallKind),
    GoOn,
    OutOfSight,
    InSight,
    Close(CloseHow),
    Gone,
    Reconnect { asked_ms: i32 },
    Welcome { timeout_ms: i32 },
    Gap(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let kinds = vec![
        StallKind::Stopped,
        StallKind::Frozen,
        StallKind::Uninterruptible,
        StallKind::Starved,
    ];
    let hows = vec![
        CloseHow::PeerFin,
        CloseHow::PeerReset,
        CloseHow::OwnClose,
        CloseHow::OwnExit,
        CloseHow::TimedOut,
    ];
    prop_oneof![
        8 => (1_u64..4_000).prop_map(Op::Wait),
        6 => any::<bool>().prop_map(|ping| Op::Send { ping }),
        3 => Just(Op::Arrive),
        6 => Just(Op::Answer),
        4 => Just(Op::Read),
        1 => prop::sample::select(kinds).prop_map(Op::Stall),
        2 => Just(Op::GoOn),
        1 => Just(Op::OutOfSight),
        2 => Just(Op::InSight),
        1 => prop::sample::select(hows).prop_map(Op::Close),
        1 => Just(Op::Gone),
        2 => (-5_i32..60_000).prop_map(|asked_ms| Op::Reconnect { asked_ms }),
        2 => (4_000_i32..40_000).prop_map(|timeout_ms| Op::Welcome { timeout_ms }),
        1 => (200_u64..5_000).prop_map(Op::Gap),
    ]
}

/// One lease under arbitrary treatment, and what must hold throughout.
struct Treated {
    book: Book,
    flow: FlowObservation,
    now: Mono,
    next_key: u64,
    stage: Stage,
    /// The newest renewal when the stage last rose.
    risen_with: Option<Mono>,
    seen: u32,
    over: bool,
}

impl Treated {
    fn new(role: Role) -> Self {
        Self {
            book: Book::new(vec![EntrySettings::default()], 4),
            flow: welcomed(role, secs(6)),
            now: START,
            next_key: 2,
            stage: Stage::Healthy,
            risen_with: None,
            seen: 0,
            over: false,
        }
    }

    fn view(&self) -> Option<LeaseView> {
        self.book.leases(self.now).next()
    }

    fn hear(&mut self, note: &Note) {
        match note {
            Note::Seen { .. } => {
                if self.over {
                    // Another life, after the end of the one before.
                    (self.over, self.stage, self.seen) = (false, Stage::Healthy, 0);
                }
                self.seen += 1;
                assert_eq!(self.seen, 1, "one Seen in a life");
            }
            Note::Transition(said) => {
                assert_eq!(said.from, self.stage, "{said:?}");
                let base = said.silent_ns.map(|silent_ns| self.now.minus(silent_ns));
                match said.to {
                    Outcome::Stage(stage) => {
                        assert!(stage >= self.stage, "{said:?}");
                        if stage > self.stage {
                            self.risen_with = base;
                        }
                        self.stage = stage;
                    }
                    Outcome::Renewed => {
                        assert!(self.stage > Stage::Healthy);
                        assert!(base > self.risen_with, "{said:?}");
                        self.stage = Stage::Healthy;
                    }
                    Outcome::Expired => {}
                }
            }
            Note::Gone { .. } => self.over = true,
            Note::FalseExpiry(_) => {}
        }
    }

    fn observe(&mut self) {
        let mut said = Vec::new();
        self.book
            .observe(&self.flow, self.now, &mut |note| said.push(note));
        said.iter().for_each(|note| self.hear(note));
    }

    fn advance(&mut self) {
        let mut said = Vec::new();
        self.book.advance(self.now, &mut |note| said.push(note));
        let transitions = said
            .iter()
            .filter(|note| matches!(note, Note::Transition(_)))
            .count();
        assert!(transitions <= 1, "{said:?}");
        said.iter().for_each(|note| self.hear(note));
        let next = self.book.next_change();
        assert!(next.is_none_or(|next| next > self.now));
    }

    /// Remaining grows only by a renewal (or a handshake, which is one).
    fn compare(&self, before: Option<LeaseView>) {
        let (Some(before), Some(after)) = (before, self.view()) else {
            return;
        };
        if let (Some(floor), Some(later)) = (before.floor, after.floor)
            && before.subject.handle == after.subject.handle
            && before.subject.timeout_ns == after.subject.timeout_ns
            && later > floor
        {
            assert!(after.answered_at > before.answered_at);
        }
    }

    fn apply(&mut self, op: Op) {
        let before = self.view();
        match op {
            Op::Wait(millis) => {
                let end = self.now.plus(ms(millis));
                while let Some(next) = self.book.next_change().filter(|next| *next <= end) {
                    self.now = next;
                    self.advance();
                }
                self.now = end;
            }
            Op::Gap(millis) => {
                let from = self.now;
                self.now = from.plus(ms(millis));
                self.book.daemon_gap(from, self.now);
            }
            Op::Gone => {
                let mut said = Vec::new();
                let key = self.flow.key;
                self.book
                    .flow_gone(key, self.now, &mut |note| said.push(note));
                said.iter().for_each(|note| self.hear(note));
                self.open_another(6_000);
                return;
            }
            Op::Reconnect { asked_ms } => self.open_another(asked_ms),
            other => self.change(other),
        }
        self.observe();
        self.advance();
        self.compare(before);
    }

    fn open_another(&mut self, asked_ms: i32) {
        let key = FlowKey(self.next_key);
        self.next_key += 1;
        self.flow = FlowObservation::opened(key, 0, self.flow.role, ends(), self.now);
        self.flow.hello = Some(Hello {
            at: self.now,
            asked_timeout_ms: asked_ms,
            session: 5,
        });
        send(&mut self.flow, self.now, false);
    }

    fn change(&mut self, op: Op) {
        let (flow, now) = (&mut self.flow, self.now);
        let open = flow.closed.is_none();
        match op {
            Op::Send { ping } if open => send(flow, now, ping),
            Op::Arrive if open => arrive(flow, now),
            Op::Answer if open && flow.welcome.is_some() => answer(flow, now),
            Op::Read => read(flow, now),
            Op::Stall(kind) if flow.stall.is_none() => {
                flow.stall = Some(Stall {
                    since: now,
                    kind,
                    tid: 1,
                    comm: [0; 16],
                });
            }
            Op::GoOn => flow.stall = None,
            Op::OutOfSight => {
                flow.synchronised = false;
                flow.unsynchronised_at = Some(now);
            }
            Op::InSight => flow.synchronised = true,
            Op::Close(how) if open => flow.closed = Some(Closed { at: now, how }),
            Op::Welcome { timeout_ms } if open && flow.welcome.is_none() => {
                flow.welcome = Some(Welcome {
                    at: now,
                    timeout_ms,
                    session: 5,
                });
                answer(flow, now);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_laws_hold_under_any_treatment(
        holder in any::<bool>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let role = if holder { Role::Holder } else { Role::Grantor };
        let mut treated = Treated::new(role);
        treated.observe();
        for op in ops {
            treated.apply(op);
        }
        // Nothing stays for ever once its flow is gone.
        treated.apply(Op::Gone);
        treated.apply(Op::Wait(1_000_000));
        prop_assert!(treated.book.is_empty(), "{:?}", treated.view());
    }
}
