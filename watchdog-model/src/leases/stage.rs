//! How far a lease is from lapsing.
//!
//! In: [`LeaseFacts`], the entry's settings, the time. Out: an [`Assessment`], and by
//! [`next_change`] the moment at which it would be another one if nothing moved. Never: a clock,
//! state, memory of the last assessment (that a stage only gets better by a renewal is the book's).
//!
//! First come the *reasons*: each says what is outstanding, since when, and from when on that is
//! late. A lease is late while any reason is due. Where several are, the condition is that of the
//! first in this order: the flow is gone · stuck on its way out · unread here · unanswered there ·
//! not sent or not come · serving threads stand still · what was late on the flow before. Own node
//! before path before peer, and the stall nearly last because it explains rather than describes: it
//! is the condition only while nothing else is due.
//!
//! A late lease then stands as high as the *marks* that have passed: shares of the timeout since the
//! newest renewal that the grantor has surely seen. Two ceilings hold: a timeout that is only
//! inferred never leads beyond `at_risk`, and a holder that went by itself never beyond `late`.

use super::facts::LeaseFacts;
use super::note::{Condition, Stage};
use super::observation::{CloseHow, Role, TimeoutSource};
use super::settings::{EntrySettings, LATE_AT_THE_LATEST, STALL_AT_RISK, Share};
use crate::time::{MS, Mono};

/// After a time in which nobody looked, what had piled up in the network and in the kernel is given
/// this long (two ticks of 75 ms) to arrive before anyone is accused of silence.
pub const SETTLE_NS: u64 = 150 * MS;
/// A request counts as not acknowledged if the oldest unacknowledged bytes are at most this much
/// younger: some clients send the length and the body of one frame in two segments.
const SAME_SEND_NS: u64 = 10 * MS;
/// How many reasons there can be at once.
const REASONS: usize = 7;
/// Share of the timeout at which a first request, whose flow's normal is not known yet, must have
/// been answered: by then the holder would give up.
const FIRST_ANSWER: Share = Share::TWO_THIRDS;
/// And the least that it is given after it was sent.
const FIRST_ANSWER_AT_LEAST: Share = super::settings::LONGEST_NORMAL;

/// What the rules say of a lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// How far it is from lapsing.
    pub stage: Stage,
    /// Where the renewal stands.
    pub condition: Condition,
    /// Since when the condition holds.
    pub since: Mono,
    /// The earliest moment at which the grantor may expire it, if known.
    pub floor: Option<Mono>,
    /// Whether all that is late is a holder that went by itself.
    pub excused: bool,
}

/// Something outstanding.
#[derive(Clone, Copy, Debug)]
struct Reason {
    condition: Condition,
    /// When it began.
    since: Mono,
    /// From when on it is late.
    due: Mono,
    /// Whether it says nothing against anyone: the holder went by itself.
    excused: bool,
}

/// Who would be blamed for a silence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blame {
    Own,
    Peer,
}

/// The figures that all rules share.
struct Frame<'a> {
    facts: &'a LeaseFacts,
    settings: &'a EntrySettings,
    timeout_ns: u64,
    cadence_ns: u64,
    margin_ns: u64,
    /// Where the used-up share counts from.
    base: Mono,
}

impl<'a> Frame<'a> {
    fn new(facts: &'a LeaseFacts, settings: &'a EntrySettings, timeout_ns: u64) -> Self {
        let cadence_ns = facts.cadence(settings, timeout_ns);
        let mut base = facts.base.unwrap_or(facts.opened_at);
        if let Some(fresh_from) = facts.fresh_from {
            base = base.max(fresh_from);
        }
        if facts.is_stale() {
            // Renewals may have passed unseen until the moment at which none could any more.
            let stopped = facts.stall.map(|stall| stall.since);
            let lost = facts.lost.map(|lost| lost.at);
            for at in [stopped, lost].into_iter().flatten() {
                base = base.max(at);
            }
        }
        Self {
            facts,
            settings,
            timeout_ns,
            cadence_ns,
            margin_ns: settings.margin(timeout_ns, cadence_ns),
            base,
        }
    }

    /// `share` of the timeout after `base`, or earlier where an unanswered ConnectRequest may have
    /// shortened the lease.
    fn mark(&self, base: Mono, share: Share) -> Mono {
        let mark = base.plus(share.of(self.timeout_ns));
        match self.facts.reconnect {
            Some(reconnect) => {
                let asked_ns = reconnect.asked_ns.min(self.timeout_ns);
                mark.min(reconnect.at.plus(share.of(asked_ns)))
            }
            None => mark,
        }
    }

    /// When a silence since `since`, due at `due`, may be called late.
    fn silence(&self, condition: Condition, since: Mono, due: Mono, blame: Blame) -> Reason {
        let cap = self.mark(self.base, LATE_AT_THE_LATEST);
        let due = match self.facts.gap {
            Some(gap) if since < gap.to => {
                // Nobody looked: of the time in between nothing counts against a peer.
                let unseen_ns = match blame {
                    Blame::Peer => gap.to.since(gap.from.max(since)),
                    Blame::Own => 0,
                };
                due.plus(unseen_ns).min(cap).max(gap.to.plus(SETTLE_NS))
            }
            _ => due.min(cap),
        };
        Reason {
            condition,
            since,
            due,
            excused: false,
        }
    }

    /// When a delay that began at `since` is past its normal.
    fn past_normal(&self, normal: super::normal::Normal, since: Mono) -> Mono {
        let (least_ns, most_ns) = self
            .settings
            .normal_bounds(self.timeout_ns, self.cadence_ns);
        match normal.limit(least_ns, most_ns) {
            Some(limit_ns) => since.plus(limit_ns),
            None => self
                .base
                .plus(FIRST_ANSWER.of(self.timeout_ns))
                .max(since.plus(FIRST_ANSWER_AT_LEAST.of(self.timeout_ns))),
        }
    }

    /// When a reply that is held back since `since` should have come. While the hold is not known,
    /// only what holds for any silence counts.
    fn past_hold(&self, since: Mono) -> Mono {
        let hold_ns = self.settings.hold_ns.or(self.facts.answer_normal.worst());
        match hold_ns {
            Some(hold_ns) => since.plus(hold_ns.saturating_add(self.margin_ns)),
            None => self.mark(self.base, LATE_AT_THE_LATEST),
        }
    }

    fn since_fresh(&self, at: Mono) -> Mono {
        self.facts.fresh_from.map_or(at, |fresh| at.max(fresh))
    }

    fn stuck_sending(&self) -> Option<Reason> {
        let facts = self.facts;
        if facts.role != Role::Holder {
            return None;
        }
        let unacknowledged = match (facts.pending_since, facts.unacknowledged_since) {
            (Some(pending), Some(unacknowledged)) => {
                (unacknowledged <= pending.plus(SAME_SEND_NS)).then_some(pending)
            }
            _ => None,
        };
        let since = self.since_fresh(earliest(facts.unsent_since, unacknowledged)?);
        let due = if self.settings.renews_from_reply {
            // How long the reply is held back says nothing of how long a segment takes.
            let bounds = self
                .settings
                .normal_bounds(self.timeout_ns, self.cadence_ns);
            since.plus(bounds.0)
        } else {
            self.past_normal(facts.answer_normal, since)
        };
        Some(self.silence(Condition::RenewalStuckSending, since, due, Blame::Peer))
    }

    fn unread(&self) -> Option<Reason> {
        let since = self.since_fresh(self.facts.unread_since?);
        let condition = match self.facts.role {
            Role::Holder => Condition::ReplyUnread,
            Role::Grantor => Condition::RenewalUnread,
        };
        let due = self.past_normal(self.facts.read_normal, since);
        Some(self.silence(condition, since, due, Blame::Own))
    }

    fn unanswered(&self) -> Option<Reason> {
        let pending_since = self.facts.pending_since?;
        let since = self.since_fresh(pending_since);
        let due = if self.settings.renews_from_reply {
            self.past_hold(since)
        } else {
            self.past_normal(self.facts.answer_normal, since)
        };
        match self.facts.role {
            Role::Holder => {
                Some(self.silence(Condition::RenewalUnanswered, since, due, Blame::Peer))
            }
            Role::Grantor => {
                let read = self
                    .facts
                    .unread_since
                    .is_none_or(|unread_since| pending_since < unread_since);
                read.then(|| self.silence(Condition::RenewalUnprocessed, since, due, Blame::Own))
            }
        }
    }

    fn not_come(&self) -> Option<Reason> {
        let facts = self.facts;
        if facts.pending_since.is_some() || facts.unsent_since.is_some() {
            return None;
        }
        if facts.role == Role::Grantor && facts.unread_since.is_some() {
            return None;
        }
        let mut last = facts.request_at.max(facts.welcomed_at);
        if !self.settings.has_goodbye {
            // Who asks and waits counts its interval from the reply, or sends at once upon it.
            last = last.max(facts.reply_at);
        }
        let last = self.since_fresh(last.unwrap_or(facts.opened_at));
        let due = last.plus(
            self.settings
                .late_after_ns
                .unwrap_or_else(|| self.cadence_ns.saturating_add(self.margin_ns)),
        );
        let (condition, blame) = match facts.role {
            Role::Holder => (Condition::RenewalNotSent, Blame::Own),
            Role::Grantor => (Condition::HolderSilent, Blame::Peer),
        };
        let mut reason = self.silence(condition, last, due, blame);
        reason.since = last.plus(self.cadence_ns).min(reason.due);
        Some(reason)
    }
}

fn earliest(one: Option<Mono>, other: Option<Mono>) -> Option<Mono> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How long a holder may be without a flow. The Java client sleeps for a second once it has tried every server
/// (StaticHostProvider.next) and up to another before it connects (ClientCnxn.SendThread.startConnect); then it
/// connects, and the handshake waits for the server's log to be synced.
const RECONNECT_NS: u64 = 2_500 * MS;

/// The lease's flow is gone.
fn lost(facts: &LeaseFacts, settings: &EntrySettings, margin_ns: u64) -> Option<Reason> {
    let loss = facts.lost?;
    if facts.is_goodbye(settings) || facts.is_between(settings) {
        return None;
    }
    let exited = facts.role == Role::Holder && loss.how == Some(CloseHow::OwnExit);
    // On a grantor a FIN or RST is a holder that goes, to come back here, elsewhere or not at all;
    // unless it had asked and was not heard.
    let went = facts.role == Role::Grantor
        && matches!(loss.how, Some(CloseHow::PeerFin | CloseHow::PeerReset))
        && facts.unread_since.is_none()
        && facts.pending_since.is_none();
    // Who has exited does not come back on another connection.
    let patience_ns = if exited {
        margin_ns
    } else {
        let third_ns = facts
            .timeout
            .map_or(u64::MAX, |timeout| Share::THIRD.of(timeout.ns));
        margin_ns.max(RECONNECT_NS.min(third_ns))
    };
    // After a time in which nobody looked, the flow that took the lease over may be seen next.
    let settled = match facts.gap {
        Some(gap) if loss.at < gap.to && !exited => gap.to.plus(SETTLE_NS),
        _ => loss.at,
    };
    Some(Reason {
        condition: if exited {
            Condition::HolderExited
        } else {
            Condition::ConnectionLost
        },
        since: loss.at,
        due: loss.at.plus(patience_ns).max(settled),
        excused: exited || went,
    })
}

/// What serves the flow stands still.
fn stalled(facts: &LeaseFacts, settings: &EntrySettings) -> Option<Reason> {
    let stall = facts.stall.filter(|_| settings.use_stall_proof)?;
    Some(Reason {
        condition: Condition::ThreadStalled,
        since: stall.since,
        due: stall.since.plus(settings.hard_stall_ns),
        excused: false,
    })
}

/// What was late on a flow that is no longer looked at.
fn troubled(facts: &LeaseFacts) -> Option<Reason> {
    let trouble = facts.trouble?;
    Some(Reason {
        condition: trouble.condition,
        since: trouble.since,
        due: trouble.since,
        excused: false,
    })
}

/// All reasons there are, in the order in which they name the condition.
fn reasons(facts: &LeaseFacts, settings: &EntrySettings) -> [Option<Reason>; REASONS] {
    let Some(timeout) = facts.timeout else {
        let mut few = [None; REASONS];
        few[0] = lost(facts, settings, settings.margin_without_timeout());
        few[1] = stalled(facts, settings);
        few[2] = troubled(facts);
        return few;
    };
    let frame = Frame::new(facts, settings, timeout.ns);
    let mut all = [None; REASONS];
    all[0] = lost(facts, settings, frame.margin_ns);
    if (facts.lost.is_none() || facts.is_between(settings)) && !facts.blind {
        all[1] = frame.stuck_sending();
        all[2] = frame.unread();
        all[3] = frame.unanswered();
        all[4] = frame.not_come();
    }
    all[5] = stalled(facts, settings);
    all[6] = troubled(facts);
    all
}

/// The moments at which a late lease rises, with the stage it rises to.
fn marks(facts: &LeaseFacts, settings: &EntrySettings) -> [Option<(Stage, Mono)>; 4] {
    let Some(timeout) = facts.timeout else {
        return [None; 4];
    };
    let frame = Frame::new(facts, settings, timeout.ns);
    let at_risk = frame.mark(frame.base, settings.at_risk);
    let at_risk_stalled = stalled(facts, settings).map(|stall| {
        let lasted_ns = settings.hard_stall_ns.max(STALL_AT_RISK.of(timeout.ns));
        let mark = frame.mark(frame.base, settings.at_risk_stalled);
        (Stage::AtRisk, mark.max(stall.since.plus(lasted_ns)))
    });
    let certain = timeout.source != TimeoutSource::Inferred;
    let mut replied = facts.reply_at.unwrap_or(frame.base);
    if facts.is_stale() {
        replied = replied.max(frame.base);
    }
    let jeopardy = frame.mark(replied, settings.jeopardy);
    let floor = facts
        .floor()
        .unwrap_or_else(|| frame.mark(frame.base, Share::percent(100)));
    [
        Some((Stage::AtRisk, at_risk)),
        at_risk_stalled,
        certain.then_some((Stage::Jeopardy, jeopardy)),
        certain.then_some((Stage::Lapsed, floor)),
    ]
}

/// Whether all that is due is a holder that went by itself.
fn excused(reasons: &[Option<Reason>; REASONS], now: Mono) -> bool {
    reasons
        .iter()
        .flatten()
        .filter(|reason| reason.due <= now)
        .all(|reason| reason.excused)
}

/// What the rules say of a lease now.
#[must_use]
pub fn assess(facts: &LeaseFacts, settings: &EntrySettings, now: Mono) -> Assessment {
    let reasons = reasons(facts, settings);
    let floor = facts.floor();
    let Some(reason) = reasons.iter().flatten().find(|reason| reason.due <= now) else {
        return Assessment {
            stage: Stage::Healthy,
            condition: Condition::None,
            since: now,
            floor,
            excused: false,
        };
    };
    let excused = excused(&reasons, now);
    let stage = if excused {
        Stage::Late
    } else {
        marks(facts, settings)
            .into_iter()
            .flatten()
            .filter(|(_, mark)| *mark <= now)
            .map(|(stage, _)| stage)
            .max()
            .unwrap_or(Stage::Late)
    };
    Assessment {
        stage,
        condition: reason.condition,
        since: reason.since,
        floor,
        excused,
    }
}

/// The next moment after `now` at which [`assess`] would say something else if nothing moved.
#[must_use]
pub fn next_change(facts: &LeaseFacts, settings: &EntrySettings, now: Mono) -> Option<Mono> {
    let reasons = reasons(facts, settings);
    let late = reasons.iter().flatten().any(|reason| reason.due <= now);
    let dues = reasons.iter().flatten().map(|reason| reason.due);
    let rises = marks(facts, settings)
        .into_iter()
        .flatten()
        .map(|(_, mark)| mark)
        .filter(|_| late && !excused(&reasons, now));
    dues.chain(rises).filter(|at| *at > now).min()
}

#[cfg(test)]
mod tests;
