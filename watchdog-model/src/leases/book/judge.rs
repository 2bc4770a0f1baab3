//! From facts to notes: stage, cause, and the ends of a lease.
//!
//! In: a lease whose facts are up to date, the time. Out: notes, and the lease's next deadline.
//! Never: a better stage without a newer renewal; two transitions in one call.

use super::lease::{Expiry, Lease};
use super::verdicts::Verdicts;
use super::wants::AHEAD_NS;
use super::{Book, FlowUse};
use crate::causes::collected::Collected;
use crate::causes::verdict::{End, Evidence, verdict};
use crate::causes::{Cause, Fact, Side, Verdict};
use crate::leases::note::{Condition, FalseExpiry, GoneReason, Note, Outcome, Stage, Transition};
use crate::leases::observation::Role;
use crate::leases::stage::{Assessment, assess, next_change};
use crate::time::{Mono, SECOND};

/// For so long after the whole node stood still that is the cause of what is late since: whoever
/// runs again needs a moment to catch up.
const PAUSE_EXPLAINS_NS: u64 = 2 * SECOND;

/// From `now` to a moment that may have passed.
pub(super) fn signed_span(to: Mono, now: Mono) -> i64 {
    let ahead = i64::try_from(to.since(now)).unwrap_or(i64::MAX);
    let behind = i64::try_from(now.since(to)).unwrap_or(i64::MAX);
    ahead - behind
}

fn transition(lease: &Lease, verdict: &Verdict, (from, to): (Stage, Outcome), now: Mono) -> Note {
    Note::Transition(Transition {
        subject: lease.subject(),
        from,
        to,
        condition: lease.condition,
        since: lease.since,
        verdict: *verdict,
        remaining_ns: lease.facts.floor().map(|floor| signed_span(floor, now)),
        silent_ns: lease.facts.base.map(|base| now.since(base)),
    })
}

/// One end as the rules of causes look at it.
fn end<'a>(
    side: Side,
    lease: &Lease,
    (condition, since): (Condition, Mono),
    collected: Option<&'a Collected>,
) -> End<'a> {
    End {
        side,
        role: lease.role,
        condition,
        since,
        stall: lease.facts.stall,
        unread_since: lease.facts.unread_since,
        unacknowledged_since: lease.facts.unacknowledged_since,
        retransmits: lease.facts.retransmits,
        collected,
    }
}

/// Where the renewal stands at an end that is not late itself, when the other end waits for it.
fn owed(lease: &Lease) -> Condition {
    match (lease.condition, lease.role, lease.facts.unread_since) {
        (Condition::None, Role::Holder, _) => Condition::RenewalNotSent,
        (Condition::None, Role::Grantor, Some(_)) => Condition::RenewalUnread,
        (Condition::None, Role::Grantor, None) => Condition::RenewalUnprocessed,
        (condition, _, _) => condition,
    }
}

/// Whether a cause says little enough that one proven before, in the same trouble, still stands: a
/// server that runs again is silent a moment longer, and that it had stood is why.
fn says_little(cause: Cause) -> bool {
    matches!(cause, Cause::PeerSilent | Cause::Unknown)
}

impl Book {
    fn evidence_of<'a>(
        &'a self,
        slot: u32,
        lease: &'a Lease,
        (condition, since): (Condition, Mono),
        now: Mono,
    ) -> Evidence<'a> {
        let facts = &lease.facts;
        let other = self
            .other_end(slot)
            .and_then(|other| Some((other, self.slots[other as usize].as_ref()?)));
        Evidence {
            own: end(
                Side::Own,
                lease,
                (condition, since),
                self.wants.collected(slot),
            ),
            peer: other.map(|(slot, other)| {
                end(
                    Side::Peer,
                    other,
                    (owed(other), other.since),
                    self.wants.collected(slot),
                )
            }),
            pending_since: facts.pending_since,
            heard_at: facts.request_at,
            closed: facts.lost.map(|lost| (lost.at, lost.how)),
            paused_ns: facts
                .gap
                .filter(|gap| gap.node && since < gap.to && now.since(gap.to) < PAUSE_EXPLAINS_NS)
                .map(|gap| gap.to.since(gap.from)),
        }
    }

    fn verdict_of(&self, slot: u32, condition: Condition, since: Mono, now: Mono) -> Verdict {
        let Some(lease) = self.slots[slot as usize].as_ref() else {
            return Verdict::UNKNOWN;
        };
        let evidence = self.evidence_of(slot, lease, (condition, since), now);
        let found = verdict(&evidence, now);
        let before = self.verdicts.of(lease);
        let same_trouble = lease.stage != Stage::Healthy;
        // A grantor hangs up on whom it has expired: what follows from a lapse is not its cause.
        let follows = found.cause == Cause::PeerDown && lease.stage == Stage::Lapsed;
        // What this end had done is over once the renewal is on its way and the other end's turn.
        let told_of_peer = before.facts().find_map(Fact::side) == Some(Side::Peer);
        let over = found.cause == Cause::PeerSilent
            && !told_of_peer
            && condition == Condition::RenewalUnanswered;
        let weaker = (says_little(found.cause) && !over) || follows;
        if same_trouble && weaker && !says_little(before.cause) {
            *before
        } else {
            found
        }
    }

    /// Judges the lease's stage and cause, says what has changed, and sets its next deadline.
    pub(super) fn judge(&mut self, slot: u32, now: Mono, say: &mut dyn FnMut(Note)) {
        let settings = self.settings_of(slot);
        self.note_adrift(slot);
        let gap = self.gap;
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        lease.facts.gap = gap;
        lease.facts.trouble = lease.trouble();
        let given_up = lease.given_up_at(&settings).map(|(due, _)| due);
        if lease.closing {
            self.deadlines.set(slot, given_up);
            return;
        }
        let found = assess(&lease.facts, &settings, now);
        let mut next = next_change(&lease.facts, &settings, now);
        if let (Stage::Healthy, Some(due)) = (found.stage, next) {
            let ask_at = due.minus(AHEAD_NS);
            if now < ask_at {
                next = Some(ask_at);
            } else {
                let soon = assess(&lease.facts, &settings, due);
                if soon.stage != Stage::Healthy {
                    self.want(slot, soon.condition, due);
                }
            }
        }
        let verdict = (found.stage != Stage::Healthy)
            .then(|| self.verdict_of(slot, found.condition, found.since, now));
        if found.stage != Stage::Healthy {
            self.want(slot, found.condition, now);
        }
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        let is_carried = lease.facts.lost.is_none() || lease.facts.is_between(&settings);
        let kept = &mut self.verdicts;
        let again = move_stage(lease, found, (verdict, kept, is_carried), now, say);
        let next = if again { Some(now.plus(1)) } else { next };
        let due = [next, given_up].into_iter().flatten().min();
        self.deadlines.set(slot, due);
    }

    /// What has been seen at one end of a flow may be the cause of the other end's trouble: that is
    /// judged by the next [`Book::advance`], when its own observation has come too.
    pub(super) fn remind_other_end(&mut self, slot: u32, now: Mono) {
        let Some(other) = self.other_end(slot) else {
            return;
        };
        let troubled = self.slots[other as usize]
            .as_ref()
            .is_some_and(|lease| lease.stage != Stage::Healthy);
        if troubled {
            self.deadlines.set(other, Some(now));
        }
    }

    /// The lease is proven to have expired.
    pub(super) fn expire(
        &mut self,
        slot: u32,
        expiry: Expiry,
        now: Mono,
        say: &mut dyn FnMut(Note),
    ) {
        let condition = match self.slots[slot as usize].as_ref() {
            Some(lease) if lease.condition == Condition::None => {
                if lease.facts.lost.is_some() {
                    Condition::ConnectionLost
                } else {
                    Condition::None
                }
            }
            Some(lease) => lease.condition,
            None => return,
        };
        let since = self.slots[slot as usize]
            .as_ref()
            .map_or(now, |lease| lease.since);
        let verdict = self.verdict_of(slot, condition, since, now);
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        // Where the trouble is over by the time that the proof comes, its cause is the one charged.
        if !says_little(verdict.cause) || says_little(self.verdicts.of(lease).cause) {
            self.verdicts.set(lease, verdict);
        }
        lease.condition = condition;
        let timeout_ns = lease.facts.timeout.map_or(0, |timeout| timeout.ns);
        if let (Some(base), Some(arrived_at)) = (expiry.base, expiry.arrived_at)
            && arrived_at > base
            && arrived_at < base.plus(timeout_ns)
        {
            say(Note::FalseExpiry(FalseExpiry {
                subject: lease.subject(),
                arrived_at,
                read_at: lease.facts.base.filter(|read_at| *read_at > arrived_at),
                expired_at: expiry.at,
                verdict: *self.verdicts.of(lease),
            }));
        }
        let verdict = self.verdicts.of(lease);
        let change = (lease.stage, Outcome::Expired);
        say(transition(lease, verdict, change, now));
        self.end(slot, GoneReason::Expired, say);
    }

    /// The lease is followed no longer.
    pub(super) fn end(&mut self, slot: u32, reason: GoneReason, say: &mut dyn FnMut(Note)) {
        if let Some(lease) = self.slots[slot as usize].as_ref() {
            say(Note::Gone {
                subject: lease.subject(),
                reason,
            });
        }
        self.drop_lease(slot);
    }

    /// Frees the slot; what its flow still shows is of no account.
    pub(super) fn drop_lease(&mut self, slot: u32) {
        if let Some(lease) = self.slots[slot as usize].as_mut() {
            lease.facts.lost = None;
        }
        self.note_adrift(slot);
        let Some(lease) = self.slots[slot as usize].take() else {
            return;
        };
        self.deadlines.set(slot, None);
        self.wants.forget(slot);
        if let Some(flow) = lease.flow {
            self.by_flow.insert(flow, FlowUse::Done);
        }
        self.by_key.remove(&lease.key(), slot);
        self.by_ends.remove(&lease.ends(), slot);
        self.verdicts.forget(&lease);
        self.free.push(slot);
    }

    /// Keeps the list of leases without a flow.
    fn note_adrift(&mut self, slot: u32) {
        let Some(lease) = self.slots[slot as usize].as_mut() else {
            return;
        };
        if lease.facts.lost.is_some() == lease.is_listed_adrift {
            return;
        }
        lease.is_listed_adrift = !lease.is_listed_adrift;
        if lease.is_listed_adrift {
            self.adrift.push(slot);
        } else if let Some(place) = self.adrift.iter().position(|listed| *listed == slot) {
            self.adrift.swap_remove(place);
        }
    }
}

/// Moves the lease's stage to what was found, as far as it may, and says so. Returns whether the
/// lease must be looked at again at once: it was renewed, and something else is late even so.
fn move_stage(
    lease: &mut Lease,
    found: Assessment,
    (verdict, kept, is_carried): (Option<Verdict>, &mut Verdicts, bool),
    now: Mono,
    say: &mut dyn FnMut(Note),
) -> bool {
    let from = lease.stage;
    // A lease without a flow is in trouble even while the margin for coming back lasts.
    let renewed = lease.facts.base > lease.stage_base && is_carried;
    if found.stage < from && renewed {
        lease.condition = Condition::None;
        let verdict = kept.of(lease);
        say(transition(lease, verdict, (from, Outcome::Renewed), now));
        lease.stage = Stage::Healthy;
        lease.since = now;
        return found.stage != Stage::Healthy;
    }
    let Some(verdict) = verdict else {
        return false;
    };
    let rises = found.stage > from;
    let differs = found.condition != lease.condition || verdict.cause != kept.of(lease).cause;
    kept.set(lease, verdict);
    lease.condition = found.condition;
    lease.since = found.since;
    lease.is_excused = found.excused;
    if rises {
        lease.stage = found.stage;
        lease.stage_base = lease.facts.base;
    }
    if rises || differs {
        let change = (from, Outcome::Stage(lease.stage));
        say(transition(lease, &verdict, change, now));
    }
    false
}
