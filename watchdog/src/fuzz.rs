//! Everything else that reads others' bytes, given what begins as it should and then goes wrong: a second each,
//! with LEASE_WATCHDOG_LONG (`cargo xtask test --long`) a minute. The laws stand beside what they hold; `cargo
//! xtask fuzz` asks the same of inputs that are led by coverage. Protocols and logs have tests of their own
//! (`watchdog-common/tests/fuzz.rs`, `explain/tests/fuzz.rs`).

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::recorder::format::Recording;
use crate::{collect, config, discover, explain, recorder, sinks, top};

/// Inputs between two looks at the clock.
const CASES: u32 = 16;

#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is a matter of the wall; nothing that is tested sees it"
)]
fn now() -> Instant {
    Instant::now()
}

/// How an input goes wrong.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Drop(usize, usize),
    PutIn(usize, Vec<u8>),
    Again(usize, usize),
    Cut(usize),
}

fn change() -> impl Strategy<Value = Change> {
    // What means something somewhere.
    let byte = prop_oneof![
        any::<u8>(),
        select(b"\0\x7f\xff\n\r\"': {[]}&*#-0".to_vec())
    ];
    prop_oneof![
        4 => (any::<usize>(), byte).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (any::<usize>(), 1..40_usize).prop_map(|(at, count)| Change::Drop(at, count)),
        2 => (any::<usize>(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Change::PutIn(at, bytes)),
        2 => (any::<usize>(), 1..200_usize).prop_map(|(at, count)| Change::Again(at, count)),
        1 => any::<usize>().prop_map(Change::Cut),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: usize| at % (bytes.len() + 1);
        let stretch = |at: usize, count: usize| {
            let from = at % (bytes.len() + 1);
            from..(from + count).min(bytes.len())
        };
        match change {
            Change::Set(at, byte) => {
                let at = place(*at);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
            }
            Change::Drop(at, count) => drop(bytes.drain(stretch(*at, *count))),
            Change::PutIn(at, more) => {
                let at = place(*at);
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Again(at, count) => {
                let stretch = stretch(*at, *count);
                let (end, again) = (stretch.end, bytes[stretch].to_vec());
                bytes.splice(end..end, again);
            }
            Change::Cut(at) => bytes.truncate(place(*at)),
        }
    }
    bytes
}

/// Each seed as it is, then some that went wrong for as long as there is time.
fn prove(seeds: Vec<Vec<u8>>, law: impl Fn(&[u8])) {
    assert!(!seeds.is_empty());
    for seed in &seeds {
        law(seed);
    }
    let long = std::env::var_os("LEASE_WATCHDOG_LONG").is_some();
    let until = now() + Duration::from_secs(if long { 60 } else { 1 });
    let input = (select(seeds), prop::collection::vec(change(), 0..8))
        .prop_map(|(seed, changes)| changed(seed, &changes));
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..Config::default()
    });
    let mut rounds = 0_u64;
    while now() < until {
        let outcome = runner.run(&input, |bytes| {
            law(&bytes);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
        rounds += 1;
    }
    println!("{} inputs", rounds * u64::from(CASES));
}

#[test]
fn fuzz_configurations() {
    prove(config::laws::seeds(), config::laws::any_bytes);
}

#[test]
fn fuzz_recordings() {
    let file = recorder::laws::sample();
    let sound = Recording::from_reader(file.as_slice()).unwrap();
    prove(recorder::laws::seeds(&file, 300), |script| {
        recorder::laws::by_script(&sound, script);
    });
}

#[test]
fn fuzz_recordings_told() {
    let file = recorder::laws::sample();
    let sound = Recording::from_reader(file.as_slice()).unwrap();
    prove(recorder::laws::seeds(&file, 300), |script| {
        explain::laws::any_recording(&recorder::laws::file_of(&sound, script));
    });
}

#[test]
fn fuzz_requests() {
    let server = sinks::http::laws::Server::new();
    prove(sinks::http::laws::seeds(), |script| {
        server.any_bytes(script)
    });
}

#[test]
fn fuzz_answers_of_servers_that_are_told() {
    let teller = sinks::post_laws::Teller::new();
    prove(sinks::post_laws::seeds(), |answer| {
        teller.any_answer(answer)
    });
}

#[test]
fn fuzz_answers_to_the_view() {
    prove(top::client::laws::seeds(), top::client::laws::any_answer);
}

#[test]
fn fuzz_segments_that_go_past() {
    prove(discover::laws::seeds(), discover::laws::any_segments);
}

#[test]
fn fuzz_packed_files() {
    prove(explain::laws::packed_seeds(), explain::laws::any_packed);
}

#[test]
fn fuzz_logs_and_archives() {
    prove(explain::laws::seeds(), explain::laws::any_log);
}

#[test]
fn fuzz_libraries() {
    let sample = collect::library::laws::sample();
    prove(vec![sample], collect::library::laws::any_bytes);
}
