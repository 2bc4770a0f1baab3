//! One lease as the book keeps it, and how an observation of its flow moves its facts.
//!
//! In: observations of the flow that carries the lease now. Out: [`LeaseFacts`], learned normals,
//! and what the observation proves. Never: a stage (that is judged after the facts are in), a time
//! that goes backwards.

use crate::leases::cadence::{Cadence, SharedCadences, WorstGap};
use crate::leases::facts::{LeaseFacts, Loss, Reconnect, Timeout, Trouble};
use crate::leases::note::{Condition, GoneReason, LeaseHandle, LeaseId, Stage, Subject};
use crate::leases::observation::{
    CloseHow, Endpoints, FlowKey, FlowObservation, Owner, Role, Sight, TimeoutSource,
};
use crate::leases::settings::EntrySettings;
use crate::time::{Mono, SECOND, ms};

/// Gaps that are known before a timeout is inferred from them are multiplied by this: clients keep
/// a third of the timeout, or faster.
const INFERRED_CADENCES: u64 = 3;
/// Added to the latest moment at which a lost lease can have ended before it is given up: round
/// trips, and the time that a transaction needs.
const LOST_SLACK_NS: u64 = 2 * SECOND;

/// How often in a row a lease has gone on after its connection was closed in order, to be known for it.
const RETURNS: u32 = 2;

/// The grantor read a renewal after the floor had passed: it may or may not have been in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overrun {
    /// The newest renewal that had been read before.
    pub base: Mono,
    /// When the first one after it had arrived, if it is known.
    pub arrived_at: Option<Mono>,
    /// When it was read.
    pub at: Mono,
}

/// A renewal that the grantor has read and not answered: whether it has renewed yet, of a protocol
/// whose grantor is not known, is open until the answer.
#[derive(Clone, Copy, Debug)]
struct InHand {
    /// The newest renewal before it.
    base: Mono,
    /// When it had arrived.
    arrived_at: Mono,
}

/// Proof that a lease has expired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    pub at: Mono,
    /// On a grantor: the newest renewal it had read in time, and the first that it had not.
    pub base: Option<Mono>,
    pub arrived_at: Option<Mono>,
}

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub handle: LeaseHandle,
    pub entry: u16,
    pub role: Role,
    pub id: LeaseId,
    pub endpoints: Endpoints,
    pub owner: Option<Owner>,
    /// The flow that carries it now.
    pub flow: Option<FlowKey>,
    pub facts: LeaseFacts,
    pub cadence: Cadence,
    worst_gap: WorstGap,
    /// The newest request when the lease was last looked at.
    request_seen: Option<Mono>,
    /// The newest answer then.
    answer_seen: Option<Mono>,

    pub stage: Stage,
    pub condition: Condition,
    pub since: Mono,
    /// Where its cause and evidence are; None: it never had one.
    pub verdict: Option<super::verdicts::Place>,
    /// The newest renewal when the stage last rose: it falls only by a newer one.
    pub stage_base: Option<Mono>,
    /// Whether it is late only because its holder went by itself.
    pub is_excused: bool,

    /// A closeSession has been seen: whatever comes now is meant.
    pub closing: bool,
    /// Whether the book lists it among the leases without a flow.
    pub is_listed_adrift: bool,
    /// Grantor: arrival of the oldest renewal since `facts.base`, while none has been read.
    unheard_since: Option<Mono>,
    /// An earlier flow has asked for this lease and was never answered. Whenever the grantor comes
    /// to read that request, it moves the lease there and closes the flow that carries it now.
    has_rivals: bool,
    overrun: Option<Overrun>,
    in_hand: Option<InHand>,

    /// Counters of the flow when it was last looked at.
    answers: u64,
    /// How many answers in a row took more than a third of the timeout.
    slow_answers: u32,
    /// How often in a row it has come back after its connection was closed in order.
    returns: u32,
    reads: u64,
    keepalives: u64,
    unsynchronised_at: Option<Mono>,
    /// Whether only the timing of its flow is seen.
    pub by_timing: bool,
    observed_at: Option<Mono>,
    /// Grantor: the newest request when the flow was last looked at, and the newest that was read.
    request_before: Option<Mono>,
    request_read: Option<Mono>,
}

impl Expiry {
    /// Its process has opened another instead.
    pub const fn replaced(at: Mono) -> Self {
        Self {
            at,
            base: None,
            arrived_at: None,
        }
    }
}

impl Lease {
    pub fn new(handle: LeaseHandle, id: LeaseId, flow: &FlowObservation, now: Mono) -> Self {
        let mut facts = LeaseFacts::opened(flow.role, flow.opened_at);
        let mut cadence = Cadence::default();
        if let Some(remembered) = flow.remembered {
            cadence = Cadence::remembered(remembered.cadence_ns);
            facts.cadence_ns = cadence.known();
            if remembered.timeout_ns != 0 {
                facts.timeout = Some(Timeout {
                    ns: remembered.timeout_ns,
                    source: remembered.timeout_source,
                });
            }
        }
        Self {
            handle,
            entry: flow.entry,
            role: flow.role,
            id,
            endpoints: flow.endpoints,
            owner: flow.owner,
            flow: Some(flow.key),
            facts,
            cadence,
            worst_gap: WorstGap::default(),
            request_seen: None,
            answer_seen: None,
            stage: Stage::Healthy,
            condition: Condition::None,
            since: now,
            verdict: None,
            stage_base: None,
            is_excused: false,
            closing: false,
            is_listed_adrift: false,
            unheard_since: None,
            has_rivals: false,
            overrun: None,
            in_hand: None,
            answers: 0,
            slow_answers: 0,
            returns: 0,
            reads: 0,
            keepalives: 0,
            unsynchronised_at: flow.unsynchronised_at,
            by_timing: flow.sight == Sight::ByTiming,
            observed_at: None,
            request_before: None,
            request_read: None,
        }
    }

    /// What it is late for, if only a renewal can end that. A stall can pass while nothing is due.
    pub fn trouble(&self) -> Option<Trouble> {
        let renewed = self.facts.base > self.stage_base;
        let passes = self.is_excused || self.condition == Condition::ThreadStalled;
        (self.stage != Stage::Healthy && !renewed && !passes).then_some(Trouble {
            condition: self.condition,
            since: self.since,
        })
    }

    pub fn subject(&self) -> Subject {
        Subject {
            handle: self.handle,
            entry: self.entry,
            role: self.role,
            id: self.id,
            endpoints: self.endpoints,
            owner: self.owner,
            timeout_ns: self.facts.timeout.map(|timeout| timeout.ns),
            timeout_source: self.timeout_source(),
        }
    }

    /// Where its timeout is known from.
    pub fn timeout_source(&self) -> TimeoutSource {
        let timeout = self.facts.timeout;
        timeout.map_or(TimeoutSource::Inferred, |timeout| timeout.source)
    }

    /// What it is told by.
    pub fn key(&self) -> super::LeaseKey {
        (self.entry, self.id, self.role)
    }

    /// The connection that it is on, and the end that this is.
    pub fn ends(&self) -> (Role, Endpoints) {
        (self.role, self.endpoints)
    }

    /// The lease moves to another flow. Until the handshake there is answered, it has none.
    pub fn move_to(&mut self, flow: &FlowObservation, settings: &EntrySettings) {
        // Once may be a restart.
        self.returns = if self.facts.is_quiet_end(settings) {
            self.returns.saturating_add(1)
        } else {
            0
        };
        self.facts.comes_back = self.returns >= RETURNS;
        self.flow = Some(flow.key);
        self.endpoints = flow.endpoints;
        let at = flow.hello.map_or(flow.opened_at, |hello| hello.at);
        self.facts.lost.get_or_insert(Loss { at, how: None });
        self.facts.stall = None;
        self.has_rivals |= self.facts.reconnect.is_some();
        (self.answers, self.reads, self.keepalives) = (0, 0, 0);
        self.unsynchronised_at = flow.unsynchronised_at;
        (self.request_before, self.request_read) = (None, None);
        self.cadence.interrupted();
    }

    /// The flow has gone from sight.
    pub fn flow_gone(&mut self, now: Mono) {
        self.flow = None;
        self.facts.stall = None;
        self.facts.lost.get_or_insert(Loss { at: now, how: None });
    }

    /// Takes in what the lease's flow shows now.
    pub fn take_in(
        &mut self,
        flow: &FlowObservation,
        settings: &EntrySettings,
        shared: &mut SharedCadences,
        now: Mono,
    ) {
        self.owner = flow.owner.or(self.owner);
        self.see(flow, now);
        self.synchronise(flow, now);
        self.take_timeout(flow, settings);
        let facts = &mut self.facts;
        facts.pending_since = flow.pending_since;
        facts.unread_since = flow.unread_since;
        facts.unsent_since = flow.unsent_since;
        facts.unacknowledged_since = flow.unacknowledged_since;
        facts.retransmits = flow.retransmits;
        facts.stall = flow.stall;
        facts.request_at = facts.request_at.max(flow.request_at);
        let reply_at = match (flow.role, flow.unread_since) {
            (Role::Grantor, _) => flow.reply_at,
            (Role::Holder, None) => flow.reply_at.max(flow.read_at),
            (Role::Holder, Some(_)) => flow.read_at,
        };
        facts.reply_at = facts.reply_at.max(reply_at);
        facts.is_one_shot = (flow.requests, flow.answers) == (1, 1);
        self.take_handshake(flow, settings);
        // The answer to a ConnectRequest may be that the lease is no more, which renews nothing.
        let refused = flow.welcome.is_some_and(|welcome| welcome.timeout_ms <= 0);
        if !refused {
            match flow.role {
                _ if settings.renews_from_reply => {
                    let sent_at = flow.answer_at.map(|at| match flow.role {
                        // It was sent a round trip ago at the earliest.
                        Role::Holder => at.minus(flow.srtt_ns),
                        Role::Grantor => at,
                    });
                    self.facts.base = self.facts.base.max(sent_at);
                }
                Role::Holder => self.facts.base = self.facts.base.max(flow.answered_at),
                Role::Grantor => self.take_renewal_read(flow, settings),
            }
        }
        let closing = flow.close_request_at.is_some();
        // Where a lease may be taken up again, a renewal shows that it was.
        self.closing = closing || (self.closing && !settings.rejoins);
        // Requests are answered one after the other: whatever was in the way has been met.
        self.has_rivals &= flow.answered_at <= flow.hello.map(|hello| hello.at);
        self.learn(flow, settings, shared, now);
        self.infer_timeout(settings);
        self.observed_at = Some(now);
    }

    /// More or less of the lease's flow is seen than before. What timing told was a guess, and no part of what
    /// frames tell; a timeout that frames told stands, but what it is counted from is a guess from here on.
    fn see(&mut self, flow: &FlowObservation, now: Mono) {
        let by_timing = flow.sight == Sight::ByTiming;
        if by_timing == self.by_timing {
            return;
        }
        self.by_timing = by_timing;
        (self.answers, self.keepalives) = (0, 0);
        self.cadence.interrupted();
        let facts = &mut self.facts;
        if by_timing {
            if let Some(timeout) = &mut facts.timeout {
                timeout.source = TimeoutSource::Inferred;
            }
        } else {
            // All begins anew with the request by which its frames came to be seen.
            facts.fresh_from = flow.request_at.or(Some(now));
            (facts.base, facts.request_at, facts.reply_at) = (None, None, None);
            (self.request_before, self.request_read) = (None, None);
        }
    }

    fn synchronise(&mut self, flow: &FlowObservation, now: Mono) {
        let was_blind = std::mem::replace(&mut self.facts.blind, !flow.synchronised);
        let lost_at = flow.unsynchronised_at;
        let lost_since = lost_at > self.unsynchronised_at;
        self.unsynchronised_at = lost_at.max(self.unsynchronised_at);
        if flow.synchronised && (was_blind || lost_since) {
            // An answer that came after sight was regained is as good as ever.
            if flow.answered_at <= lost_at {
                self.facts.fresh_from = Some(now);
            }
            self.cadence.interrupted();
        }
    }

    /// Handshake before configuration; inference comes last, when all has been learned.
    fn take_timeout(&mut self, flow: &FlowObservation, settings: &EntrySettings) {
        let handshake = flow
            .welcome
            .and_then(|welcome| u64::try_from(welcome.timeout_ms).ok())
            .filter(|millis| *millis > 0)
            .map(ms)
            .or(flow.told_timeout_ns);
        let known = self.facts.timeout.map(|timeout| timeout.source);
        if let Some(told_ns) = handshake {
            if let Some(before) = self.facts.timeout
                && before.source == TimeoutSource::Handshake
                && before.ns != told_ns
            {
                // Clients renew by a share of the timeout: of another one nothing is known.
                self.cadence = Cadence::default();
                self.facts.cadence_ns = None;
            }
            self.facts.timeout = Some(Timeout {
                ns: told_ns,
                source: TimeoutSource::Handshake,
            });
        } else if let Some(ns) = settings.timeout_ns
            && known != Some(TimeoutSource::Handshake)
        {
            let source = if settings.by_timing_alone {
                TimeoutSource::Inferred
            } else {
                TimeoutSource::Config
            };
            self.facts.timeout = Some(Timeout { ns, source });
        }
    }

    fn infer_timeout(&mut self, settings: &EntrySettings) {
        let known = self.facts.timeout.map(|timeout| timeout.source);
        if known.is_some_and(|source| source != TimeoutSource::Inferred)
            || settings.by_timing_alone && settings.timeout_ns.is_some()
        {
            return;
        }
        if let Some(cadence_ns) = settings.renew_every_ns.or_else(|| self.cadence.known()) {
            self.facts.timeout = Some(Timeout {
                ns: cadence_ns.saturating_mul(INFERRED_CADENCES),
                source: TimeoutSource::Inferred,
            });
        }
    }

    fn take_handshake(&mut self, flow: &FlowObservation, settings: &EntrySettings) {
        let facts = &mut self.facts;
        let closed = flow.closed.map(|closed| Loss {
            at: closed.at,
            how: Some(closed.how),
        });
        let Some(hello) = flow.hello else {
            facts.lost = closed;
            return;
        };
        facts.request_at = facts.request_at.max(Some(hello.at));
        let welcomed = flow
            .welcome
            .is_some_and(|welcome| welcome.timeout_ms > 0 && welcome.at >= hello.at);
        // A welcome that went past unseen is proven by any later answer.
        let answered = welcomed || (flow.welcome.is_none() && flow.answered_at > Some(hello.at));
        if answered {
            facts.welcomed_at = flow.welcome.map(|welcome| welcome.at);
            facts.base = facts.base.max(Some(hello.at));
            facts.reconnect = None;
            facts.lost = closed;
            return;
        }
        let asked_ns = u64::try_from(hello.asked_timeout_ms)
            .map_or(0, ms)
            .max(settings.min_timeout_ns);
        let asked = Reconnect {
            at: hello.at,
            asked_ns,
        };
        let longest_ns = facts.timeout.map_or(u64::MAX, |timeout| timeout.ns);
        let lapses = |reconnect: Reconnect| reconnect.at.plus(reconnect.asked_ns.min(longest_ns));
        if facts
            .reconnect
            .is_none_or(|known| lapses(asked) < lapses(known))
        {
            facts.reconnect = Some(asked);
        }
        if let (Some(closed), Some(lost)) = (closed, facts.lost.as_mut()) {
            lost.how = lost.how.or(closed.how);
        }
    }

    /// `p`: when the application last read a renewal. A later read of half a frame moves the
    /// observation's stamp but renews nothing, so the stamp counts only with a request behind it.
    fn take_renewal_read(&mut self, flow: &FlowObservation, settings: &EntrySettings) {
        // A ConnectRequest renews when it is answered: the answer may be that the lease is no more.
        let refusable = self.facts.reconnect.is_some();
        let newest = flow.request_at.max(flow.hello.map(|hello| hello.at));
        let read = match (flow.read_at.filter(|_| !refusable), newest) {
            (Some(read_at), Some(newest)) if newest > self.request_read.unwrap_or(Mono(0)) => {
                if flow.unread_since.is_none() {
                    self.request_read = Some(newest);
                    Some(read_at.max(newest))
                } else if self.request_before > self.request_read
                    && self.request_before <= Some(read_at)
                {
                    self.request_read = self.request_before;
                    Some(read_at)
                } else {
                    None
                }
            }
            _ => None,
        };
        self.request_before = newest;
        let surely_renewed = settings.has_goodbye || settings.renews_from_reply;
        if flow.answered_at >= newest || surely_renewed {
            self.in_hand = None;
        } else if let (Some(_), Some(base), Some(arrived_at), None) =
            (read, self.facts.base, newest, self.in_hand)
        {
            self.in_hand = Some(InHand { base, arrived_at });
        }
        // Where reads are not seen, an answer proves that its request was read after it arrived.
        let base = read.max(flow.answered_at);
        if base > self.facts.base {
            let timeout_ns = self.facts.timeout.map(|timeout| timeout.ns);
            self.overrun = match (self.facts.base, timeout_ns, base) {
                (Some(before), Some(timeout_ns), Some(at)) if at >= before.plus(timeout_ns) => {
                    Some(Overrun {
                        base: before,
                        arrived_at: self.unheard_since,
                        at,
                    })
                }
                // What had piled up is read in one go.
                (_, _, Some(at)) => self
                    .overrun
                    .filter(|overrun| at.since(overrun.at) < settings.grantor_tick_ns()),
                _ => None,
            };
            self.facts.base = base;
            self.unheard_since = None;
        }
        if flow.unread_since > self.facts.base {
            self.unheard_since = self.unheard_since.or(flow.unread_since);
        }
    }

    fn learn(
        &mut self,
        flow: &FlowObservation,
        settings: &EntrySettings,
        shared: &mut SharedCadences,
        now: Mono,
    ) {
        let mut request_before = std::mem::replace(&mut self.request_seen, self.facts.request_at);
        let answer_before = std::mem::replace(&mut self.answer_seen, flow.answer_at);
        if settings.renews_from_reply {
            request_before = answer_before;
        }
        let answered = flow.answers > self.answers;
        let read = flow.reads > self.reads;
        let kept_alive = flow.keepalives > self.keepalives;
        (self.answers, self.reads, self.keepalives) = (flow.answers, flow.reads, flow.keepalives);
        if answered {
            let slow = self
                .facts
                .timeout
                .is_some_and(|timeout| flow.rtt_ns > timeout.ns / 3);
            self.slow_answers = if slow { self.slow_answers + 1 } else { 0 };
        }
        let looked_away = self
            .facts
            .gap
            .is_some_and(|gap| self.observed_at < Some(gap.to));
        let healthy = self.stage == Stage::Healthy && !self.facts.blind;
        if looked_away || !(healthy || self.is_late_by_hearsay()) {
            if kept_alive {
                self.cadence.interrupted();
            }
            return;
        }
        if answered {
            self.facts.answer_normal.learn(flow.rtt_ns);
        }
        if read {
            self.facts.read_normal.learn(flow.unread_ns);
        }
        if kept_alive {
            let at = flow.request_at.unwrap_or(now);
            // A gap that reaches back into a time out of sight may have been filled.
            if Some(at.minus(flow.keepalive_gap_ns)) >= self.facts.fresh_from {
                self.cadence.learn(flow.keepalive_gap_ns, at);
            } else {
                self.cadence.interrupted();
            }
        }
        if !settings.has_keepalives {
            self.learn_worst_gap(request_before);
            return;
        }
        // A grantor's own executable says nothing of who renews.
        let executable = match (flow.role, flow.owner) {
            (Role::Holder, Some(owner)) => owner.executable,
            _ => 0,
        };
        let timeout = self
            .facts
            .timeout
            .filter(|timeout| timeout.source != TimeoutSource::Inferred);
        self.facts.cadence_ns = match (self.cadence.known(), timeout) {
            (Some(cadence_ns), Some(timeout)) => {
                if kept_alive {
                    shared.learn(executable, timeout.ns, cadence_ns);
                }
                Some(cadence_ns)
            }
            (None, Some(timeout)) => shared.of(executable, timeout.ns),
            (known, None) => known,
        };
    }

    /// Late only by what other flows do: its own gaps are not known yet, and must be learned even so,
    /// or what was wrong of it would stay so for ever.
    fn is_late_by_hearsay(&self) -> bool {
        self.stage == Stage::Late
            && !self.facts.blind
            && self.facts.stall.is_none()
            && self.cadence.known().is_none()
            && matches!(
                self.condition,
                Condition::RenewalNotSent | Condition::HolderSilent
            )
    }

    /// Without a keepalive to tell by, any silence between two requests may be the usual one.
    fn learn_worst_gap(&mut self, request_before: Option<Mono>) {
        let (Some(before), Some(newest)) = (request_before, self.facts.request_at) else {
            return;
        };
        let timeout_ns = self.facts.timeout.map_or(0, |timeout| timeout.ns);
        if newest > before && Some(before) >= self.facts.fresh_from {
            self.worst_gap
                .learn(newest.since(before), newest, timeout_ns);
            self.facts.cadence_ns = self.worst_gap.known(timeout_ns);
        }
    }

    /// Whether its grantor regularly holds replies back for longer than a request may renew from.
    pub fn is_long_poll(&self, settings: &EntrySettings) -> bool {
        // Once is a stalled grantor, twice another.
        self.slow_answers >= 3 && !settings.has_goodbye && !settings.renews_from_reply
    }

    /// Whether the flow proves that the lease has expired.
    pub fn expiry(&self, flow: &FlowObservation, settings: &EntrySettings) -> Option<Expiry> {
        self.expired_at(flow, settings).map(|at| self.expiry_at(at))
    }

    /// That the lease has expired is known since `at`: what had been heard of its holder by then.
    pub fn expiry_at(&self, at: Mono) -> Expiry {
        let (base, arrived_at) = match (self.overrun, self.in_hand) {
            (Some(overrun), _) => (Some(overrun.base), overrun.arrived_at),
            (None, Some(in_hand)) => (Some(in_hand.base), Some(in_hand.arrived_at)),
            (None, None) => (self.facts.base, self.unheard_since),
        };
        Expiry {
            at,
            base,
            arrived_at,
        }
    }

    fn expired_at(&self, flow: &FlowObservation, settings: &EntrySettings) -> Option<Mono> {
        if let (Some(hello), Some(welcome)) = (flow.hello, flow.welcome)
            && hello.session != 0
            && welcome.timeout_ms <= 0
        {
            return Some(welcome.at);
        }
        if flow.expired_reply_at.is_some() {
            return flow.expired_reply_at;
        }
        let closed = flow.closed?;
        let unasked = flow.close_request_at.is_none() && closed.how == CloseHow::OwnClose;
        if flow.role != Role::Grantor
            || !unasked
            || self.has_rivals
            || settings.comes_and_goes
            || self.facts.comes_back
        {
            return None;
        }
        let timeout = self.facts.timeout?;
        if timeout.source == TimeoutSource::Inferred {
            // What is only inferred proves nothing.
            return None;
        }
        let timeout_ns = timeout.ns;
        let after_floor = self
            .facts
            .base
            .is_some_and(|base| closed.at >= base.plus(timeout_ns));
        let at_resumption = self
            .overrun
            .is_some_and(|overrun| closed.at.since(overrun.at) < settings.grantor_tick_ns());
        // It had the renewal in hand for so long that the one before it was over.
        let unprocessed = self
            .in_hand
            .is_some_and(|in_hand| closed.at >= in_hand.base.plus(timeout_ns));
        (after_floor || at_resumption || unprocessed).then_some(closed.at)
    }

    /// Whether the holder closed the lease: asked to, and was answered or hung up.
    pub fn is_closed(&self, flow: &FlowObservation) -> bool {
        flow.close_request_at.is_some()
            && (flow.closed.is_some() || flow.answered_at >= flow.close_request_at)
    }

    /// When a lease without a flow is given up, and why.
    pub fn given_up_at(&self, settings: &EntrySettings) -> Option<(Mono, GoneReason)> {
        if self.closing && settings.rejoins {
            let floor = self.facts.floor();
            let due = floor.unwrap_or_else(|| self.facts.latest_expiry(settings));
            return Some((due, GoneReason::Closed));
        }
        let lost = self.facts.lost?;
        if self.facts.is_goodbye(settings) {
            let due = self
                .facts
                .floor()
                .unwrap_or_else(|| self.facts.latest_expiry(settings));
            return Some((due.max(lost.at), GoneReason::Closed));
        }
        let exited = self.role == Role::Holder && lost.how == Some(CloseHow::OwnExit);
        if exited && !self.facts.is_between(settings) {
            let margin_ns = match self.facts.timeout {
                Some(timeout) => {
                    settings.margin(timeout.ns, self.facts.cadence(settings, timeout.ns))
                }
                None => settings.margin_without_timeout(),
            };
            let due = self
                .facts
                .floor()
                .unwrap_or_else(|| self.facts.latest_expiry(settings));
            return Some((due.max(lost.at.plus(margin_ns)), GoneReason::HolderExited));
        }
        let due = self.facts.latest_expiry(settings).plus(LOST_SLACK_NS);
        Some((due.max(lost.at.plus(LOST_SLACK_NS)), GoneReason::FlowLost))
    }
}
