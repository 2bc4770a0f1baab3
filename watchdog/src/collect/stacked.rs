//! Devices made of devices (device mapper, md), which may hold what they are given: while suspended, without
//! a path to their storage, or by a target that delays. The disk below is given nothing then, and no hook
//! on requests sees what waits.
//!
//! In: a device's sysfs, which the kernel answers from memory. Out: how long it has finished nothing, by our
//! own looks. Never: a call that a held device could hold up.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use watchdog_model::Mono;
use watchdog_model::time::SECOND;

/// Looks further apart than this are not of one wait.
const APART_NS: u64 = 2 * SECOND;

/// How a stacked device stands for which a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it was given and has not finished. At least one, since the thread waits: the mapper counts
    /// nothing of what came while it was suspended, and of targets that pass requests on later by
    /// themselves (delay, crypt) not before they do.
    pub in_flight: u64,
    /// What it has finished, ever.
    finished: u64,
}

impl Standing {
    /// Of the device whose sysfs folder this is.
    #[must_use]
    pub fn of(place: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(place.join(name)).ok();
        Self::parse(&read("inflight")?, &read("stat")?)
    }

    /// From `inflight` (reads, writes) and `stat` (Documentation/block/stat.rst: reads, writes, discards and
    /// flushes finished are numbers 1, 5, 12 and 16).
    fn parse(in_flight: &str, stat: &str) -> Option<Self> {
        let numbers = |text: &str| -> Vec<u64> {
            let words = text.split_ascii_whitespace();
            words.map_while(|word| word.parse().ok()).collect()
        };
        let (in_flight, stat) = (numbers(in_flight), numbers(stat));
        if in_flight.len() < 2 || stat.len() < 5 {
            return None;
        }
        let finished = [0, 4, 11, 15].iter().filter_map(|&at| stat.get(at));
        Some(Self {
            in_flight: in_flight.iter().sum::<u64>().max(1),
            finished: finished.fold(0, |sum, part| sum.wrapping_add(*part)),
        })
    }
}

/// What stacked devices had finished when a thread was first seen to wait for them.
#[derive(Debug, Default)]
pub struct Held(HashMap<u32, Wait>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    finished: u64,
    since: Mono,
    looked_at: Mono,
}

impl Held {
    /// How long a device has finished nothing while a thread waited for it, ns, as far as was looked.
    pub fn silent_ns(&mut self, device: u32, standing: Standing, now: Mono) -> u64 {
        let goes_on = |wait: &&Wait| {
            wait.finished == standing.finished && now.since(wait.looked_at) <= APART_NS
        };
        let since = self
            .0
            .get(&device)
            .filter(goes_on)
            .map_or(now, |wait| wait.since);
        let wait = Wait {
            finished: standing.finished,
            since,
            looked_at: now,
        };
        self.0.insert(device, wait);
        now.since(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "10 0 80 5 20 0 160 9 0 14 14 3 0 24 1 2 1";

    fn standing(in_flight: &str) -> Standing {
        Standing::parse(in_flight, STAT).unwrap()
    }

    #[test]
    fn who_is_waited_for_holds_something() {
        assert_eq!(standing("0 0").in_flight, 1);
        assert_eq!(standing("2 3").in_flight, 5);
        assert_eq!(standing("0 0").finished, 35);
        // Before 4.18 there are no discards, before 5.5 no flushes.
        let old = Standing::parse("0 1", "10 0 80 5 20 0 160 9 0 14 14");
        assert_eq!(old.unwrap().finished, 30);
        assert_eq!(Standing::parse("", STAT), None);
    }

    #[test]
    fn silence_counts_from_the_first_look_since_something_was_finished() {
        let mut held = Held::default();
        let at = |ms: u64| Mono(SECOND + ms * SECOND / 1_000);
        let holds = standing("0 1");
        assert_eq!(held.silent_ns(7, holds, at(0)), 0);
        assert_eq!(held.silent_ns(7, holds, at(1_500)), SECOND * 3 / 2);
        assert_eq!(held.silent_ns(8, holds, at(1_500)), 0);
        let finished = Standing {
            finished: holds.finished + 1,
            ..holds
        };
        assert_eq!(held.silent_ns(7, finished, at(1_600)), 0);
        assert_eq!(held.silent_ns(7, finished, at(3_600)), 2 * SECOND);
        // Nobody has looked for a while: this is another wait.
        assert_eq!(held.silent_ns(7, finished, at(5_601)), 0);
    }
}
