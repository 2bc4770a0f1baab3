//! Every reader against logs that begin as they should and then go wrong: fixed ones in the normal run, with
//! LEASE_WATCHDOG_LONG (`cargo xtask test --long`) new ones for a minute each.
//!
//! What must hold whatever comes: no panic and an end; every line counted once, as understood, of unknown
//! shape, without a head or cut; the same report however the bytes are packed and wherever buffers end;
//! numbers that no log can mean lead nowhere.
//!
//! No corpus is kept: the lines of `laws` and the recordings of the faults are the seeds, and a failure is
//! printed shrunk.

use std::io::{BufReader, Write as _};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::explain::input::{blocks, without_rotation};
use crate::explain::laws::{SEEDS, counted, told, whole};
use crate::explain::readers::{Kind, READERS};
use crate::explain::stamp;
use crate::explain::years::{Calendar, Zone, dates_in};
use crate::explain::{retold, text};
use crate::failure::Failure;
use crate::printable::obeyed;
use crate::recorder::format::Recording;
use crate::recorder::laws::{file, samples, with_checksums};
use crate::recorder::replay::replay;

/// Logs of the normal run, and between two looks at the clock.
const CASES: u32 = 48;

/// What numbers and words are made into.
const ODD: [&str; 14] = [
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999999",
    "1e308",
    "NaN",
    "9999-99-99",
    "0000-00-00 00:00:00",
    "2199-12-31 23:59:60.999999999999",
    "+99:99",
    "\u{1b}[31m",
    "\u{0}",
    "é日🙂",
];

#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is a matter of the wall; nothing that is tested sees it"
)]
fn now() -> Instant {
    Instant::now()
}

fn prove<S: Strategy>(input: &S, case: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..Config::default()
    };
    let long = std::env::var_os("LEASE_WATCHDOG_LONG").is_some();
    let mut runner = if long {
        TestRunner::new(config)
    } else {
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    };
    let until = now() + Duration::from_secs(if long { 60 } else { 0 });
    let mut rounds = 0_u64;
    loop {
        if let Err(error) = runner.run(input, &case) {
            panic!("{error}");
        }
        rounds += 1;
        if now() >= until {
            break;
        }
    }
    println!("{} cases", rounds * u64::from(CASES));
}

/// How a line goes wrong.
#[derive(Clone, Debug)]
enum Wrong {
    Not,
    Cut(usize),
    Byte(usize, u8),
    Odd(usize, usize),
    PutIn(usize, Vec<u8>),
    Again,
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let wrong = prop_oneof![
        4 => Just(Wrong::Not),
        2 => any::<usize>().prop_map(Wrong::Cut),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Wrong::Byte(at, byte)),
        4 => (any::<usize>(), 0..ODD.len()).prop_map(|(at, odd)| Wrong::Odd(at, odd)),
        1 => (any::<usize>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(at, bytes)| Wrong::PutIn(at, bytes)),
        1 => Just(Wrong::Again),
    ];
    (0..SEEDS.len(), wrong).prop_map(|(seed, wrong)| spoilt(SEEDS[seed].as_bytes(), &wrong))
}

fn spoilt(line: &[u8], wrong: &Wrong) -> Vec<u8> {
    let mut line = line.to_vec();
    let length = line.len() + 1;
    match wrong {
        Wrong::Not => {}
        Wrong::Cut(at) => line.truncate(at % length),
        Wrong::Byte(at, byte) => {
            if let Some(place) = line.get_mut(at % length) {
                *place = *byte;
            }
        }
        // The number that is nearest gives way.
        Wrong::Odd(at, odd) => {
            let from = at % length;
            let start = line[from..]
                .iter()
                .position(u8::is_ascii_digit)
                .map_or(line.len(), |digit| from + digit);
            let digits = line[start..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            line.splice(start..start + digits, ODD[*odd].bytes());
        }
        Wrong::PutIn(at, bytes) => {
            let at = at % length;
            line.splice(at..at, bytes.iter().copied());
        }
        Wrong::Again => {
            line.push(b'\n');
            line.extend_from_within(..length - 1);
        }
    }
    line
}

fn log() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![8 => Just("\n"), 2 => Just("\r\n"), 1 => Just("")];
    prop::collection::vec((line(), end), 1..40).prop_map(|lines| {
        lines
            .into_iter()
            .flat_map(|(line, end)| [line, end.as_bytes().to_vec()].concat())
            .collect()
    })
}

#[test]
fn logs_of_any_kind() {
    let kind = prop_oneof![
        3 => Just(None),
        1 => (0..READERS.len()).prop_map(|kind| Some(READERS[kind].kind)),
    ]
    .prop_filter("read by itself", |kind| *kind != Some(Kind::Recording));
    prove(&(log(), kind), |(bytes, kind)| {
        let Some(report) = told(kind, "x.log", &bytes) else {
            return Ok(());
        };
        counted(&report, &bytes);
        let half = bytes.len() / 2;
        let mut packed = Vec::new();
        for part in [&bytes[..half], &bytes[half..]] {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(part).unwrap();
            packed.extend(gzip.finish().unwrap());
        }
        let again = told(kind, "x.log", &packed);
        let again = again.map(|report| whole(&report));
        prop_assert_eq!(Some(whole(&report)), again);
        Ok(())
    });
}

/// One shape of lines from the first to the last, as files have it, so that wraps are found.
#[test]
fn wrapped_logs() {
    type Around = fn(&str) -> String;
    const AROUND: [Around; 6] = [
        |line| {
            serde_json::json!({"log": format!("{line}\n"), "time": "2023-02-02T10:05:10.1Z"})
                .to_string()
        },
        |line| format!("2023-02-02T10:05:10.1Z stdout F {line}"),
        |line| format!("Feb  2 10:05:10 n3 java[77]: {line}"),
        |line| format!("<14>1 2023-02-02T10:05:10.5Z n3 java 77 - - {line}"),
        |line| format!("\u{1b}[36mzk-3  |\u{1b}[0m {line}"),
        |line| format!("[pod/zk-3/zookeeper] 2023-02-02T10:05:10.1Z {line}"),
    ];
    let lines = prop::collection::vec((line(), line()), 1..30);
    prove(
        &(lines, 0..AROUND.len(), any::<bool>()),
        |(lines, around, spoil)| {
            let mut bytes = Vec::new();
            for (place, (inner, other)) in lines.iter().enumerate() {
                let inner = String::from_utf8_lossy(inner).replace('\n', " ");
                if spoil && place % 4 == 3 {
                    bytes.extend_from_slice(other);
                } else {
                    bytes.extend(AROUND[around](&inner).into_bytes());
                }
                bytes.push(b'\n');
            }
            let Some(report) = told(None, "x.log", &bytes) else {
                return Ok(());
            };
            counted(&report, &bytes);
            whole(&report);
            Ok(())
        },
    );
}

#[test]
fn buffers_end_anywhere() {
    prove(&(log(), 1_usize..300), |(bytes, capacity)| {
        let mut lines = Vec::new();
        blocks(
            BufReader::with_capacity(capacity, bytes.as_slice()),
            |block| {
                lines.extend_from_slice(block);
            },
        )
        .unwrap();
        prop_assert_eq!(lines, bytes);
        Ok(())
    });
}

#[test]
fn stamps_clocks_and_dates() {
    let shapes = prop_oneof![
        "[0-9]{4}[-/.][0-9]{2}[-/.][0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}[.,]?[0-9]{0,20}( ?[+-][0-9:]{2,6}|Z| UTC)?",
        "[A-Z][a-z]{2} [ 0-9][0-9],? [0-9]{0,5} ?[0-9]{1,2}:[0-9]{2}:[0-9]{2}( [AP]M)?",
        "[0-9]{2}[-/ ]([A-Z][a-z]{2}|[0-9]{2})[-/ ][0-9]{2,4}[ :][0-9]{2}:[0-9]{2}:[0-9]{2}",
        "(Mon|Fri) (Feb|Nov) [ 0-9][0-9] [0-9:]{8} [0-9]{4}",
        "[0-9]{1,30}[.]?[0-9]{0,30}(ms|ns|s|m|h|µs)?([0-9]{1,4}(ms|s))?\\]?",
        "\\PC{0,40}",
    ];
    let days = prop::collection::vec(any::<i32>().prop_map(i64::from), 0..3);
    prove(
        &(shapes, days, -60_000..60_000_i32),
        |(shape, days, east)| {
            let bytes = shape.as_bytes();
            let zone = Zone {
                east,
                source: "nothing",
            };
            let mut calendar = Calendar::new(
                dates_in(bytes, 9)
                    .into_iter()
                    .chain(days.into_iter().map(|day| day % 80_000))
                    .collect(),
                zone,
            );
            for start in 0..bytes.len().min(12) {
                let rest = &bytes[start..];
                for stamp in [
                    stamp::iso(rest),
                    stamp::loose(rest),
                    stamp::syslog(rest),
                    stamp::ctime(rest),
                ]
                .into_iter()
                .flatten()
                {
                    prop_assert!(stamp.len <= rest.len());
                    prop_assert!(stamp.local >= 0);
                    let wall = calendar.moment(stamp);
                    let _ = (wall.to_string(), wall.to_ms(), wall.minus_ms(i64::MAX));
                }
                for taken in [
                    stamp::clock(rest).map(|found| found.1),
                    stamp::seconds(rest).map(|found| found.1),
                ]
                .into_iter()
                .flatten()
                {
                    prop_assert!(taken <= rest.len());
                }
                for reader in &READERS {
                    let head = (reader.head)(rest);
                    prop_assert!(head.is_none_or(|head| head.message <= rest.len()));
                    let _ = (reader.claims)(rest);
                }
            }
            let _ = stamp::go_duration_ms(&shape);
            prop_assert!(without_rotation(&shape).len() <= shape.len());
            Ok(())
        },
    );
}

/// Recordings of real faults, spoilt: read up to where they are whole, told and replayed as far as that.
#[test]
fn recordings() {
    let kept = samples();
    let wrong = prop_oneof![
        any::<usize>().prop_map(Wrong::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Wrong::Byte(at, byte)),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Wrong::PutIn(at, bytes)),
    ];
    // Near the beginning is where the shapes are.
    let near = prop_oneof![Just(usize::MAX), Just(600)];
    prove(
        &(0..kept.len(), wrong, near, any::<bool>()),
        |(which, wrong, near, mend)| {
            let kept = &kept[which];
            let split = near.min(kept.len());
            let mut bytes = spoilt(&kept[..split], &wrong);
            bytes.extend_from_slice(&kept[split..]);
            if mend {
                with_checksums(&mut bytes);
            }
            let sound = Recording::from_reader(kept.as_slice()).unwrap();
            let Ok(recording) = Recording::from_reader(bytes.as_slice()) else {
                return Ok(());
            };
            if !mend {
                let calls = recording.calls.len();
                prop_assert!(recording.calls == sound.calls[..calls.min(sound.calls.len())]);
                let _ = replay(&recording).map(|replayed| replayed.difference().is_some());
            }
            if let Some(report) = told(None, "x.lwr", &bytes) {
                whole(&report);
            }
            Ok(())
        },
    );
}

/// Names of nodes, entries and files are quoted, and a terminal obeys none of them.
#[test]
fn a_recording_is_no_command_to_the_terminal() {
    let mut recording = Recording::from_reader(samples()[0].as_slice()).unwrap();
    recording.header.node = "n\u{1b}[2J1".to_owned();
    recording.header.entries[0].0 = "zoo\u{1b}]0;x\u{7}keeper".to_owned();
    let report = told(None, "x.lwr", &file(&recording)).unwrap();
    let kept = serde_json::to_string(&report).unwrap();
    assert!(kept.contains("zoo\\u001b]0;x"), "{kept}");
    let shown = text::render(&report);
    assert!(shown.contains("zoo?]0;x?keeper"), "{shown}");
    assert!(!shown.contains(obeyed), "{shown}");
    let again = retold(&recording, false).unwrap();
    assert!(!again.contains(obeyed), "{again}");
    let refused = Failure::Usage("x\u{1b}[2J.tar: cannot be read".to_owned()).to_string();
    assert_eq!(refused, "x?[2J.tar: cannot be read");
}
