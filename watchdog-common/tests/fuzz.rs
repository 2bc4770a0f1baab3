//! Every parser against streams that begin as they should and then go wrong, for as long as there is time:
//! a second each, with LEASE_WATCHDOG_LONG (`cargo xtask test --long`) a minute. The same inputs go through
//! the kernel programs in the daemon's kernel tests.
//!
//! What must hold whatever comes is in `inputs::laws`: no panic, no read or write out of place (the slot's own
//! asserts and bounds), an end to every segment, no answer to what was not asked; and as long as the frames
//! are not lost, the same state however the bytes are cut. `cargo xtask fuzz` asks the same, led by coverage.
//!
//! No corpus is kept: the streams of `inputs::mutated` are the seeds, and a failure is printed shrunk.

#[expect(dead_code, reason = "shared with the tests of other protocols")]
mod inputs;

use inputs::{Flow, START, cut, laws, mutated};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::time::{Duration, Instant};

/// Streams between two looks at the clock.
const CASES: u32 = 64;

fn time() -> Duration {
    let long = std::env::var_os("LEASE_WATCHDOG_LONG").is_some();
    Duration::from_secs(if long { 60 } else { 1 })
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is a matter of the wall; nothing that is tested sees it"
)]
fn now() -> Instant {
    Instant::now()
}

fn prove<S: Strategy>(input: &S, case: impl Fn(S::Value))
where
    S::Value: std::fmt::Debug,
{
    let until = now() + time();
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let mut rounds = 0_u64;
    while now() < until {
        if let Err(error) = runner.run(input, |value| {
            case(value);
            Ok(())
        }) {
            panic!("{error}");
        }
        rounds += 1;
    }
    println!("{} streams", rounds * u64::from(CASES));
}

fn fuzz(name: &str) {
    let subject = mutated::subjects()
        .into_iter()
        .find(|subject| subject.name == name)
        .expect("a parser of that name");
    let (requests, replies) = (subject.requests.clone(), subject.replies.clone());
    let cuts = prop::collection::vec(any::<usize>(), 0..24);
    let in_order = (
        mutated::bytes(requests.clone()),
        mutated::bytes(replies.clone()),
        cuts,
    );
    let torn = (
        mutated::segments(requests),
        mutated::segments(replies),
        prop::collection::vec(any::<bool>(), 64),
        0..3_u8,
    );
    prove(
        &prop_oneof![
            1 => in_order.prop_map(Input::InOrder),
            2 => torn.prop_map(Input::Torn),
        ],
        |input| match input {
            Input::InOrder((to, from, cuts)) => laws::whole_and_cut(&subject, (&to, &from), &cuts),
            Input::Torn((to, from, turns, origin)) => {
                let (mut to, mut from) = (to.into_iter(), from.into_iter());
                let segments = turns.into_iter().filter_map(|requests| {
                    let next = if requests { to.next() } else { from.next() };
                    next.map(|segment| (requests, segment))
                });
                laws::torn(&subject, origin, segments);
            }
        },
    );
    // A stream that is left alone is understood.
    let mut flow = Flow::accepted().of(subject.shape);
    flow.request(START, &subject.requests);
    flow.reply(START, &subject.replies);
    assert!(flow.slot.requests.messages > 0, "{name}: its seed is none");
    assert!(
        flow.slot.replies.answers > 0,
        "{name}: its seed has no answer"
    );
}

type InOrder = (Vec<u8>, Vec<u8>, Vec<usize>);
type Torn = (Vec<inputs::Segment>, Vec<inputs::Segment>, Vec<bool>, u8);

#[derive(Clone, Debug)]
enum Input {
    InOrder(InOrder),
    Torn(Torn),
}

#[test]
fn fuzz_zookeeper() {
    fuzz("zookeeper");
}

#[test]
fn fuzz_request_reply() {
    fuzz("request_reply");
}

#[test]
fn fuzz_request_reply_framed() {
    fuzz("request_reply, framed");
}

#[test]
fn fuzz_kafka() {
    fuzz("kafka");
}

#[test]
fn fuzz_consul() {
    fuzz("consul");
}

#[test]
fn fuzz_etcd() {
    fuzz("etcd");
}

#[test]
fn fuzz_tls() {
    fuzz("tls");
}

/// A frame that is none, and a heartbeat behind it. In one segment both are lost; in a segment of its own
/// the heartbeat is an anchor, and its reply an answer. Found by `fuzz_kafka`.
#[test]
fn which_requests_are_seen_after_a_loss_depends_on_the_segments() {
    let subject = mutated::subjects()
        .into_iter()
        .find(|subject| subject.name == "kafka")
        .expect("a parser of that name");
    let none = [0, 0, 0, 1, 0];
    let heartbeat = inputs::frame(&[
        0, 12, 0, 1, 0, 0, 0, 3, 0, 2, b'm', b'e', 0, 1, b'g', 0, 0, 0, 1,
    ]);
    let to = [&none[..], &heartbeat].concat();
    let from = inputs::frame(&[0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
    let answers = |cuts: &[usize]| {
        let mut flow = Flow::accepted().of(subject.shape);
        for (seq, part) in cut(&to, cuts) {
            flow.request(seq, &part);
        }
        flow.reply(START, &from);
        (flow.slot.requests.lost_syncs, flow.slot.replies.answers)
    };
    assert_eq!(answers(&[]), (1, 0));
    assert_eq!(answers(&[none.len()]), (1, 1));
    // The rest is the same.
    laws::whole_and_cut(&subject, (&to, &from), &[none.len()]);
}

/// Bytes that say by themselves what is done with them, as `cargo xtask fuzz` has them: its seeds, and the same
/// gone wrong.
#[test]
fn fuzz_scripts() {
    let subjects = mutated::subjects();
    let scripts: Vec<(usize, Vec<u8>)> = (0..subjects.len())
        .flat_map(|at| laws::seeds(&subjects[at]).map(move |seed| (at, seed)))
        .collect();
    let which = (0..scripts.len()).prop_flat_map(move |which| {
        let (at, seed) = scripts[which].clone();
        (Just(at), mutated::bytes(seed))
    });
    prove(&which, |(at, script)| {
        laws::by_script(&subjects[at], &script);
        laws::revealed_script(&subjects[at], &script);
    });
}

#[test]
fn every_parser_is_fuzzed() {
    assert_eq!(mutated::subjects().len(), 7, "a test of its own for each");
}
