//! What the book asks about late leases, and what an answer does.

use super::*;
use crate::causes::collected::{Collected, DeviceLook, Doing, Part, ThreadLook, Wait};
use crate::causes::text::{Label, Text};
use crate::leases::book::wants::AHEAD_NS;

fn wanted(bench: &mut Bench) -> Vec<Want> {
    let mut wants = Vec::new();
    bench.book.wanted(bench.now, 100, &mut |want, _| {
        wants.push(want);
        true
    });
    wants
}

fn answer(bench: &mut Bench, want: &Want, collected: &Collected) {
    let now = bench.now;
    let notes = &mut bench.notes;
    bench
        .book
        .evidence(want.handle, collected, now, &mut |note| {
            notes.push((now, note));
        });
}

fn hung_disk(at: Mono) -> Collected {
    let mut collected = Collected::nothing(at);
    collected.threads[0] = Some(ThreadLook {
        part: Part::Serving,
        tid: 7,
        comm: [0; 16],
        doing: Doing::Uninterruptible,
        wait: Wait::File,
        at: Label::EMPTY,
        ran_ns: 0,
        waited_ns: 0,
        major_faults: 0,
        over_ns: 0,
    });
    collected.device = Some(DeviceLook {
        name: Text::end_of(b"sda"),
        proven: true,
        in_flight: 1,
        silent_ns: Some(SECOND),
        oldest_ns: None,
        committing_ns: None,
    });
    collected
}

#[test]
fn a_healthy_lease_is_not_asked_about_and_a_late_one_twice_a_second() {
    let mut bench = Bench::new();
    settled(&mut bench, Role::Holder);
    assert_eq!(wanted(&mut bench), []);
    bench.until(secs(9));
    let first = wanted(&mut bench);
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].pid, first[0].role), (7, Role::Holder));
    assert_eq!(wanted(&mut bench), []);
    bench.until(ms(9_500));
    assert_eq!(wanted(&mut bench).len(), 1);
}

#[test]
fn an_answer_makes_the_cause_known_and_a_renewal_ends_the_questions() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    bench.until(secs(9));
    assert_eq!(bench.said(), ["Healthy>AtRisk RenewalNotSent Unknown"]);
    let want = wanted(&mut bench)[0];
    let found = hung_disk(bench.now);
    answer(&mut bench, &want, &found);
    assert_eq!(bench.said(), ["AtRisk>AtRisk RenewalNotSent DiskStall"]);
    answer(&mut bench, &want, &found);
    assert_eq!(bench.said(), [""; 0], "nothing new");
    ping(&mut flow, bench.now);
    bench.see(&flow);
    bench.until(ms(9_600));
    assert_eq!(wanted(&mut bench), []);
    // What comes too late is of no account.
    answer(&mut bench, &want, &found);
    assert_eq!(bench.said(), ["AtRisk>Renewed"]);
}

#[test]
fn a_lease_is_asked_about_in_time_for_its_first_warning_and_not_if_it_keeps_its_cadence() {
    let mut bench = Bench::new();
    let mut flow = settled(&mut bench, Role::Holder);
    let asked_at = |bench: &mut Bench| {
        for _ in 0..600 {
            bench.until(bench.now.since(START) + ms(10));
            if let Some(want) = wanted(bench).pop() {
                return Some(want);
            }
            if !bench.notes.is_empty() {
                break;
            }
        }
        None
    };
    let want = asked_at(&mut bench).expect("asked before it is late");
    let before = bench.now;
    answer(&mut bench, &want, &hung_disk(before));
    assert_eq!(bench.said(), [""; 0], "not late yet");
    bench.until(bench.now.since(START) + AHEAD_NS);
    assert_eq!(bench.said(), ["Healthy>AtRisk RenewalNotSent DiskStall"]);
    ping(&mut flow, bench.now);
    bench.see(&flow);
    assert_eq!(bench.said(), ["AtRisk>Renewed"]);
    // Where the renewal comes just after the question, it is not put again.
    assert!(asked_at(&mut bench).is_some());
    ping(&mut flow, bench.now);
    bench.see(&flow);
    bench.until(bench.now.since(START) + secs(1));
    assert_eq!(wanted(&mut bench), []);
    assert_eq!(bench.said(), [""; 0]);
}

#[test]
fn only_so_many_are_asked_about_at_once_and_each_in_turn() {
    let mut bench = Bench::new();
    for number in 1..=10 {
        let mut flow = session(number, Role::Holder, START);
        flow.welcome = flow.welcome.map(|welcome| Welcome {
            session: number,
            ..welcome
        });
        bench.see(&flow);
    }
    bench.until(secs(11));
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let mut count = 0;
        bench.book.wanted(bench.now, 3, &mut |want, _| {
            count += 1;
            asked.insert(want.handle)
        });
        assert!(count <= 3);
    }
    assert_eq!(asked.len(), 10);
}
