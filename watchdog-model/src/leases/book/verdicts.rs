//! The causes that leases are late for, apart from the leases: most never have one, and with its
//! evidence it is as large as all that is known of a healthy lease.
//!
//! In: a verdict and the lease that it is of. Out: the same again, for as long as the lease lives.
//! Never: an allocation after [`Verdicts::new`], a page touched while nothing is late.

use super::lease::Lease;
use crate::causes::Verdict;

/// Where a lease's verdict is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Verdicts of those leases that have one.
#[derive(Debug)]
pub(super) struct Verdicts {
    kept: Vec<Verdict>,
    free: Vec<Place>,
}

impl Verdicts {
    /// Room for so many leases.
    pub fn new(leases: usize) -> Self {
        Self {
            // Filled as they come: memory that is never touched costs nothing.
            kept: Vec::with_capacity(leases),
            free: Vec::with_capacity(leases),
        }
    }

    /// What was last said of a lease; unknown if nothing was.
    pub fn of(&self, lease: &Lease) -> &Verdict {
        const NOTHING: &Verdict = &Verdict::UNKNOWN;
        let place = lease.verdict.map(|place| place.0 as usize);
        place
            .and_then(|place| self.kept.get(place))
            .unwrap_or(NOTHING)
    }

    /// Keeps what is said of a lease.
    pub fn set(&mut self, lease: &mut Lease, verdict: Verdict) {
        if let Some(kept) = lease
            .verdict
            .and_then(|place| self.kept.get_mut(place.0 as usize))
        {
            *kept = verdict;
            return;
        }
        if let Some(place) = self.free.pop() {
            self.kept[place.0 as usize] = verdict;
            lease.verdict = Some(place);
        } else if let Ok(place) = u32::try_from(self.kept.len())
            && self.kept.len() < self.kept.capacity()
        {
            self.kept.push(verdict);
            lease.verdict = Some(Place(place));
        }
    }

    /// The lease is no more.
    pub fn forget(&mut self, lease: &Lease) {
        if let Some(place) = lease.verdict {
            self.free.push(place);
        }
    }
}
