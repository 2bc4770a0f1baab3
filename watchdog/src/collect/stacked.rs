//! Devices made of devices (device mapper, md), which may hold what they are given: while suspended, without
//! a path to their storage, or by a target that delays. The disk below is given nothing then, and no hook
//! on requests sees what waits.
//!
//! In: a device's sysfs, which the kernel answers from memory. Out: how it stands, and since when by our
//! own looks. Never: a call that a held device could hold up.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use watchdog_model::Mono;

/// How a stacked device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it was given and has not finished; at least one for a suspended device, for which it counts none.
    pub in_flight: u64,
    /// What it has finished, ever.
    finished: u64,
}

impl Standing {
    /// Of the device whose sysfs folder this is.
    #[must_use]
    pub fn of(place: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(place.join(name)).ok();
        let suspended = read("dm/suspended").is_some_and(|text| text.trim() == "1");
        Self::parse(&read("inflight")?, &read("stat")?, suspended)
    }

    /// From `inflight` (reads, writes) and `stat` (Documentation/block/stat.rst: reads, writes, discards and
    /// flushes finished are numbers 1, 5, 12 and 16).
    fn parse(in_flight: &str, stat: &str, suspended: bool) -> Option<Self> {
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
            in_flight: in_flight.iter().sum::<u64>().max(u64::from(suspended)),
            finished: finished.fold(0, |sum, part| sum.wrapping_add(*part)),
        })
    }
}

/// What stacked devices had finished when they were first seen to hold something.
#[derive(Debug, Default)]
pub struct Held(HashMap<u32, (u64, Mono)>);

impl Held {
    /// How long a device has held something and finished nothing, ns, as far as was looked; None: it holds
    /// nothing.
    pub fn silent_ns(&mut self, device: u32, standing: Standing, now: Mono) -> Option<u64> {
        if standing.in_flight == 0 {
            self.0.remove(&device);
            return None;
        }
        let first = self.0.entry(device).or_insert((standing.finished, now));
        if first.0 != standing.finished {
            *first = (standing.finished, now);
        }
        Some(now.since(first.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "10 0 80 5 20 0 160 9 0 14 14 3 0 24 1 2 1";

    fn standing(in_flight: &str, suspended: bool) -> Standing {
        Standing::parse(in_flight, STAT, suspended).unwrap()
    }

    #[test]
    fn a_suspended_device_counts_nothing_and_holds_something() {
        assert_eq!(standing("0 0", false).in_flight, 0);
        assert_eq!(standing("0 0", true).in_flight, 1);
        assert_eq!(standing("2 3", true).in_flight, 5);
        assert_eq!(standing("0 0", false).finished, 35);
        // Before 4.18 there are no discards, before 5.5 no flushes.
        let old = Standing::parse("0 1", "10 0 80 5 20 0 160 9 0 14 14", false);
        assert_eq!(old.unwrap().finished, 30);
        assert_eq!(Standing::parse("", STAT, true), None);
    }

    #[test]
    fn silence_counts_from_the_first_look_since_something_was_finished() {
        let mut held = Held::default();
        let holds = standing("0 1", false);
        assert_eq!(held.silent_ns(7, holds, Mono(100)), Some(0));
        assert_eq!(held.silent_ns(7, holds, Mono(150)), Some(50));
        assert_eq!(held.silent_ns(8, holds, Mono(150)), Some(0));
        let finished = Standing {
            finished: holds.finished + 1,
            ..holds
        };
        assert_eq!(held.silent_ns(7, finished, Mono(160)), Some(0));
        assert_eq!(held.silent_ns(7, standing("0 0", false), Mono(170)), None);
        assert_eq!(held.silent_ns(7, finished, Mono(180)), Some(0));
    }
}
