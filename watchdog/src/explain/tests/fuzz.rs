//! Every reader against logs that begin as they should and then go wrong: fixed ones in the normal run, with
//! LEASE_WATCHDOG_LONG (`cargo xtask test --long`) new ones for a minute each.
//!
//! What must hold whatever comes: no panic and an end; every line counted once, as understood, of unknown
//! shape, without a head or cut; the same report however the bytes are packed and wherever buffers end;
//! numbers that no log can mean lead nowhere.
//!
//! No corpus is kept: the lines below and the recordings of the faults are the seeds, and a failure is
//! printed shrunk.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::explain::input::{blocks, without_rotation};
use crate::explain::readers::{Kind, READERS};
use crate::explain::report::Report;
use crate::explain::stamp;
use crate::explain::years::{Calendar, Zone, dates_in};
use crate::explain::{ExplainArgs, explain, html, text, wrap};
use crate::recorder::format::Recording;
use crate::recorder::replay::replay;

/// Logs of the normal run, and between two looks at the clock.
const CASES: u32 = 48;

/// A line of everything that is read, and some that nobody reads.
const SEEDS: [&str; 44] = [
    "W1104 22:36:43.185218 147990 session.cc:288] [SESSION KEEPALIVE FAILURE] x",
    "[ETimedOut] expect timeout ms: 11999 elapsed ms: 12794 socket: 10.0.0.1:40112-->10.0.0.1:10103 x",
    "W20221104 22:36:43.185218 147990 session.cc:288] I am the leader now, seq is 14",
    "E1104 22:36:49.492303 147990 m.cc:1] [SESSION EXPIRED] uuid: \"6513270e\" group: \"access\" lease_expire_ns: 1667572603000000000 epoch: 1 x",
    "E1104 22:36:49.492313 147990 m.cc:1] session expired caused by delayed RPC",
    "I1104 22:36:43.185218 1 leaderelection.go:285] failed to renew lease kube-system/x: timed out",
    "W1104 22:36:43.405140 139813 zk.cc:9] 2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@zookeeper_interest@2288: Exceeded deadline by 3302ms",
    "I1104 22:36:53.009012 1 s.cc:1] META_RUNNING new status: META_RUNNING meta addr: 10.0.0.3:1 Last status was: META_BOOTING last for 3585 ms ",
    "2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@zookeeper_interest@2288: Exceeded deadline by 3302ms",
    "2022-11-04 22:36:48,655:138783(0x7f28408aa700):ZOO_ERROR@handle_socket_error_msg@2514: Socket [10.0.0.1:2181] zk retcode=-7, errno=110(Connection timed out): connection to 10.0.0.1:2181 timed out (exceeded timeout by 3302ms)",
    "2022-11-04 22:36:49,690:138783(0x7f28408aa700):ZOO_ERROR@h@1: Socket [10.0.0.1:2181] zk retcode=-112, errno=116(Stale file handle): sessionId=0x300001 has expired.",
    "2016-03-01 12:00:00,100 [myid:] - INFO  [main-SendThread(zk1:2181):ClientCnxn$SendThread@1299] - Session establishment complete on server zk1/10.1.0.1:2181, sessionid = 0x15332b2cf1b0000, negotiated timeout = 6000",
    "2016-03-01 12:10:04,103 [myid:] - INFO  [main-SendThread(zk1:2181):ClientCnxn$SendThread@1158] - Client session timed out, have not heard from server in 4003ms for sessionid 0x15332b2cf1b0000",
    "2016-03-01 12:10:12,402 [myid:] - INFO  [x] - Unable to reconnect to ZooKeeper service, session 0x15332b2cf1b0000 has expired, closing",
    "2023-02-02 10:05:09,500 [myid:3] - WARN  [SyncThread:3:FileTxnLog@338] - fsync-ing the write ahead log in SyncThread:3 took 8500ms which",
    "2023-02-02 10:05:09,700 [myid:3] - INFO  [SessionTracker:ZooKeeperServer@398] - Expiring session 0x300001, timeout of 6000ms exceeded",
    "2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Established session 0x300001 with negotiated timeout 6000 for client /10.1.0.9:40000",
    "INFO  [2023-02-02 10:05:09,700] a.b: State change: SUSPENDED",
    "Nov 04, 2022 10:36:43 PM a.b.C d",
    "time=\"2016-03-01T12:00:00Z\" level=warning msg=\"State change: LOST\"",
    "2022-11-04 22:40:43,020 WARNING kazoo.client: Connection dropped: outstanding heartbeat ping not received",
    "2022-11-04 22:40:53,500 WARNING kazoo.client: Session has expired",
    "[123456.789012] INFO: task jbd2/sda1-8:345 blocked for more than 120 seconds.",
    "[Fri Nov  4 22:36:43 2022] blk_update_request: I/O error, dev sda, sector 123",
    "kern  :err   : [123456.789012] watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [java:1234]",
    "Nov  4 22:39:20 n1 kernel: [123456.789] INFO: task x:345 blocked for more than 120 seconds.",
    "Nov  4 22:39:20 n1 etcd[9]: raft.node: 8e9e05c52164694d lost leader 91bc3c398fb3c146 at term 4",
    "2022-11-04T22:39:20.123+08:00 n1 zookeeper[7]: 2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x300001, timeout of 6000ms exceeded",
    r#"{"level":"warn","ts":"2022-11-04T22:36:43.020Z","caller":"wal/wal.go:805","msg":"slow fdatasync","took":"3.302s","expected-duration":"1s"}"#,
    "2019-03-01 12:00:00.123456 W | wal: sync duration of 2.5s, expected less than 1s",
    "2019-03-01 12:00:00.123456 W | etcdserver: failed to send out heartbeat on time (exceeded the 100ms timeout for 3.302s)",
    "[2022-11-04T22:36:43.020+0800][info][gc] GC(1) Pause Young (Normal) 24M->4M(256M) 3302.1ms",
    "[1667572603020ms][info][safepoint] Safepoint \"Cleanup\", Time since last: 1 ns, Total: 3302000000 ns",
    "2015-05-26T14:45:37.987-0200: 151.126: [Full GC (Ergonomics) x, 3.3 secs] [Times: user=0.06 sys=0.00, real=3.30 secs]",
    "Journal start:            9113",
    "Journal size:             256M",
    r#"{"log":"2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x300001, timeout of 6000ms exceeded\n","stream":"stdout","time":"2023-02-02T02:05:09.7Z"}"#,
    r#"{"__REALTIME_TIMESTAMP":"1667572603020000","_HOSTNAME":"n1","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"INFO: task x:345 blocked for more than 120 seconds."}"#,
    "2023-02-02T02:05:09.700456789Z stdout P 2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x30",
    "2023-02-02T02:05:09.700456789Z stdout F 0001, timeout of 6000ms exceeded",
    "zk-3  | 2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x300001, timeout of 6000ms exceeded",
    "<14>1 2023-02-02T10:05:10.5Z n3 zookeeper 77 - [a@1 b=\"c\\]\"] 2023-02-02 10:05:09,700 [myid:3] - INFO [x] - State change: LOST",
    "\tat org.apache.zookeeper.server.NIOServerCnxn.doIO(NIOServerCnxn.java:333)",
    "",
];

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

fn told(kind: Option<Kind>, name: &str, bytes: &[u8]) -> Option<Report> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let path = path.display();
    let report = explain(&ExplainArgs {
        logs: vec![kind.map_or_else(
            || path.to_string(),
            |kind| format!("{}:{path}", kind.name()),
        )],
        ..ExplainArgs::default()
    });
    match report {
        Ok(report) => Some(report),
        Err(error) => {
            let error = format!("{error:#}");
            assert!(error.contains("nothing to explain"), "{error}");
            None
        }
    }
}

/// All that it says, but for where the files were.
fn whole(report: &Report) -> String {
    let mut json = serde_json::to_string_pretty(report).unwrap();
    for source in &report.sources {
        for file in &source.files {
            json = json.replace(file.as_str(), "FILE");
        }
    }
    let _ = (text::render(report), html::render(report));
    json
}

fn counted(report: &Report, bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut lines = 0;
    for source in &report.sources {
        let counts = source.counts;
        let once = counts.understood + counts.unknown + counts.continued + counts.cut;
        prop_assert_eq!(counts.lines, once, "{:?}", counts);
        lines += counts.lines;
    }
    let other = report.unread.iter().find_map(|unread| {
        let (before, _) = unread.split_once(" lines of other programs")?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    });
    // A line that a runtime split in two is one.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let ends = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let all = ends + u64::from(text.last().is_some_and(|last| *last != b'\n'));
    let split = wrap::detect(text)
        .iter()
        .any(|wrap| matches!(wrap, wrap::Wrap::Cri | wrap::Wrap::Json));
    let read = lines + other.unwrap_or(0);
    prop_assert!(
        read == all || split && read <= all,
        "{} read of {}",
        read,
        all
    );
    Ok(())
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
        counted(&report, &bytes)?;
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
            counted(&report, &bytes)?;
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
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let kept: Vec<Vec<u8>> = [
        "reset.lwr.gz",
        "sigstop.lwr.gz",
        "server-stopped-grantor.lwr.gz",
    ]
    .iter()
    .map(|name| {
        let mut bytes = Vec::new();
        flate2::read::MultiGzDecoder::new(fs::File::open(dir.join(name)).unwrap())
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    })
    .collect();
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

/// Puts right the checksums of all frames, so that what is wrong is met behind them.
fn with_checksums(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 9) {
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(payload) = bytes.get(at + 9..at + 9 + length) else {
            return;
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[head[0]]);
        hasher.update(payload);
        let sum = hasher.finalize().to_le_bytes();
        bytes[at + 5..at + 9].copy_from_slice(&sum);
        at += 9 + length;
    }
}
