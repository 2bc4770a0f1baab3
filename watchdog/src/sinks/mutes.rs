//! Planned work: leases of which nobody is told for a while.
//!
//! In: the name of an entry and a moment. Out: whether an entry is muted now. Never: a clock, I/O.

use std::collections::BTreeMap;

use watchdog_model::time::Mono;

/// Longer than a maintenance window: what is forgotten would stay silent for ever.
pub const LONGEST_NS: u64 = 7 * 86_400 * 1_000_000_000;

/// Which entries are muted, by name (an entry may come and go by reload), and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutes {
    until: BTreeMap<String, Mono>,
}

impl Mutes {
    /// Mutes an entry until then, whatever held before.
    pub fn mute(&mut self, lease: &str, until: Mono) {
        self.until.insert(lease.to_owned(), until);
    }

    /// Ends a mute; says whether there was one.
    pub fn unmute(&mut self, lease: &str) -> bool {
        self.until.remove(lease).is_some()
    }

    /// Whether nobody is to be told of this entry's leases.
    #[must_use]
    pub fn holds(&self, lease: &str) -> bool {
        self.until.contains_key(lease)
    }

    /// Takes out what has ended, and names it.
    pub fn ended(&mut self, now: Mono) -> Vec<String> {
        let ended: Vec<String> = self
            .until
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(lease, _)| lease.clone())
            .collect();
        for lease in &ended {
            self.until.remove(lease);
        }
        ended
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&str, Mono)> {
        self.until
            .iter()
            .map(|(lease, until)| (lease.as_str(), *until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mute_ends_by_itself_or_earlier() {
        let mut mutes = Mutes::default();
        mutes.mute("a", Mono(10));
        mutes.mute("b", Mono(20));
        assert!(mutes.holds("a") && mutes.holds("b") && !mutes.holds("c"));
        assert_eq!(mutes.ended(Mono(9)), [""; 0]);
        assert_eq!(mutes.ended(Mono(10)), ["a"]);
        assert!(!mutes.holds("a"));
        // The last word counts, be it shorter.
        mutes.mute("b", Mono(15));
        assert_eq!(mutes.ended(Mono(15)), ["b"]);
        mutes.mute("b", Mono(30));
        assert!(mutes.unmute("b") && !mutes.unmute("b"));
    }
}
