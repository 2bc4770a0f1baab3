//! The recorder without kernel and root: the file in every state of ruin, the memory while the disk hangs, and
//! replay against the very book that was recorded.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use watchdog_model::causes::Cause;
use watchdog_model::leases::book::Book;
use watchdog_model::leases::note::{Note, Outcome, Stage};
use watchdog_model::leases::observation::{
    Endpoints, FlowKey, FlowObservation, Hello, Owner, Role, Stall, StallKind, Welcome,
};
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::{MS, Mono, SECOND};

use super::format::{BlockWriter, Context, Header, Recording, VERSION, beginning};
use super::replay::{replay, room};
use super::{Op, Plan, Recorder, RecorderHandle, Stamped};
use crate::sinks::samples::Sample;

const CAPACITY: u32 = 64;

fn header() -> Header {
    Header {
        version: VERSION,
        daemon: "test".to_owned(),
        node: "n1".to_owned(),
        boot: "b".to_owned(),
        entries: vec![("zookeeper".to_owned(), EntrySettings::default())],
        capacity: CAPACITY,
        reason: "test".to_owned(),
        thin: false,
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What a tick would see and say: `flows` sessions of 6 s that renew every 2 s; from `stop` on all stand still,
/// stopped, for 8 s. The calls, as the tick records them.
fn story(flows: u16, stop: u64, end: u64) -> Vec<Stamped> {
    let mut calls = Vec::new();
    let mut book = Book::new(vec![EntrySettings::default()], CAPACITY as usize);
    // The recorder has the real clock.
    let begin = crate::tick::clock().0;
    let mut seen: Vec<FlowObservation> = (0..flows)
        .map(|number| {
            let ends = Endpoints {
                local: address(40_000 + number),
                peer: address(2181),
            };
            let mut flow = FlowObservation::opened(
                FlowKey(u64::from(number)),
                0,
                Role::Holder,
                ends,
                Mono(begin),
            );
            flow.owner = Some(Owner {
                pid: 100,
                comm: *b"client\0\0\0\0\0\0\0\0\0\0",
                executable: 7,
            });
            flow.hello = Some(Hello {
                at: Mono(begin),
                asked_timeout_ms: 6000,
                session: 0,
            });
            flow.welcome = Some(Welcome {
                at: Mono(begin + MS),
                timeout_ms: 6000,
                session: 0x100 + u64::from(number),
            });
            flow
        })
        .collect();
    let mut at = begin;
    while at < begin + end * SECOND {
        at += 50 * MS;
        let now = Mono(at);
        let mut said = Vec::new();
        let halted = at >= begin + stop * SECOND && at < begin + (stop + 8) * SECOND;
        for (number, flow) in seen.iter_mut().enumerate() {
            let phase = number as u64 * 7 * 50 * MS;
            let renews = !halted && (at - begin + phase) % (2 * SECOND) < 50 * MS;
            let stall = halted.then_some(Stall {
                since: Mono(begin + stop * SECOND),
                kind: StallKind::Stopped,
                tid: 100,
                comm: *b"client\0\0\0\0\0\0\0\0\0\0",
            });
            if !renews && flow.stall.is_some() == halted {
                continue;
            }
            flow.stall = stall;
            if renews {
                flow.keepalive_gap_ns = flow.request_at.map_or(0, |before| now.since(before));
                flow.request_at = Some(now.minus(40 * MS));
                flow.requests += 1;
                flow.keepalives += 1;
                flow.answered_at = flow.request_at;
                flow.answers += 1;
                flow.rtt_ns = MS;
                flow.reply_at = Some(now.minus(39 * MS));
                flow.read_at = flow.reply_at;
                flow.reads += 1;
            }
            let known = book
                .carried(flow.key)
                .and_then(|lease| lease.learned_cadence_ns);
            calls.push((
                now,
                Op::Observe {
                    flow: *flow,
                    cadence_ns: known.unwrap_or(0),
                },
            ));
            book.observe(flow, now, &mut |note| said.push(note));
            calls.extend(said.drain(..).map(|note| (now, Op::Said(note))));
        }
        calls.push((now, Op::Advance));
        book.advance(now, &mut |note| said.push(note));
        calls.extend(said.drain(..).map(|note| (now, Op::Said(note))));
        calls.push((now, Op::Asked));
        book.wanted(now, 20, &mut |_, _| true);
    }
    calls
}

/// A file of these calls, a block for each few.
fn file(calls: &[Stamped], context: &Context) -> Vec<u8> {
    let mut bytes = beginning(&header(), context);
    for some in calls.chunks(100) {
        let mut block = BlockWriter::default();
        for (at, op) in some {
            block.push(*at, op);
        }
        bytes.extend(block.close(0).unwrap());
    }
    bytes
}

fn read(bytes: &[u8]) -> Recording {
    Recording::from_reader(bytes).unwrap()
}

fn calls(recording: &Recording) -> Vec<Stamped> {
    recording
        .calls
        .iter()
        .map(|(at, _, op)| (*at, op.clone()))
        .collect()
}

fn stages(notes: &[(Mono, Note)]) -> Vec<Outcome> {
    notes
        .iter()
        .filter_map(|(_, note)| match note {
            Note::Transition(said) => Some(said.to),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_written_is_read() {
    let told = story(3, 10, 25);
    let recording = read(&file(&told, &Context::default()));
    assert_eq!(recording.header, header());
    assert_eq!(recording.torn, None);
    assert_eq!(calls(&recording), told);
}

#[test]
fn replay_says_what_was_said() {
    let recording = read(&file(&story(5, 10, 30), &Context::default()));
    let replayed = replay(&recording).unwrap();
    assert!(!replayed.then.is_empty());
    assert_eq!(replayed.difference(), None);
    let said = stages(&replayed.now);
    for outcome in [
        Outcome::Stage(Stage::AtRisk),
        Outcome::Stage(Stage::Lapsed),
        Outcome::Renewed,
    ] {
        assert!(said.contains(&outcome), "{outcome:?} in {said:?}");
    }
}

/// What was said in the last tick may be cut off; what was said before it may not.
#[test]
fn a_recording_that_ends_within_a_tick_is_the_same_as_far_as_it_goes() {
    let mut told = story(3, 20, 40);
    let said = |call: &Stamped| matches!(call.1, Op::Said(_)).then_some(call.0);
    let lines: Vec<usize> = (0..told.len())
        .filter(|place| said(&told[*place]).is_some())
        .collect();
    let together = |pair: &&[usize]| said(&told[pair[0]]) == said(&told[pair[1]]);
    let first = lines.windows(2).rfind(together).expect("two in one tick")[0];
    told.truncate(first + 1);
    let replayed = replay(&read(&file(&told, &Context::default()))).unwrap();
    assert!(
        replayed.now.len() > replayed.then.len(),
        "nothing was cut off"
    );
    assert_eq!(replayed.difference(), None);

    let last = said(&told[first]);
    let earlier = lines
        .iter()
        .rfind(|place| **place < first && said(&told[**place]) < last);
    told.remove(*earlier.expect("an earlier line"));
    let replayed = replay(&read(&file(&told, &Context::default()))).unwrap();
    assert_ne!(replayed.difference(), None);
}

#[test]
fn other_rules_say_something_else_and_the_difference_is_found() {
    let mut recording = read(&file(&story(1, 9, 30), &Context::default()));
    recording.header.entries[0].1.hard_stall_ns = 3 * SECOND;
    let replayed = replay(&recording).unwrap();
    let (then, now) = replayed.difference().unwrap();
    assert!(then.unwrap().0 < now.unwrap().0);
}

#[test]
fn another_version_is_refused_by_number() {
    let mut header = header();
    header.version = 77;
    let error =
        Recording::from_reader(beginning(&header, &Context::default()).as_slice()).unwrap_err();
    assert!(error.to_string().contains("format 77"), "{error}");
    let error = Recording::from_reader(b"#!/bin/sh\n".as_slice()).unwrap_err();
    assert!(error.to_string().contains("no recording"), "{error}");
}

/// A short file need not be a small one: LZ4 makes 255 times as much of it, and each call takes the room of the
/// largest.
#[test]
fn a_block_that_unpacks_to_more_than_any_is_not_read() {
    let block = |calls: u32| {
        let mut block = BlockWriter::default();
        for _ in 0..calls {
            block.push(Mono(SECOND), &Op::Advance);
        }
        let bytes = block.close(0).unwrap();
        [beginning(&header(), &Context::default()), bytes].concat()
    };
    assert_eq!(read(&block(20_000)).calls.len(), 20_000);
    let bytes = block(1 << 20);
    assert!(bytes.len() < 16 << 10, "{}", bytes.len());
    let recording = read(&bytes);
    assert!(recording.calls.is_empty());
    let torn = recording.torn.unwrap();
    assert!(torn.starts_with("after block 0: a block of "), "{torn}");
}

/// A header may claim room for leases that no observation speaks of.
#[test]
fn room_is_made_for_leases_that_are_there() {
    let mut recording = read(&file(&story(2, 10, 20), &Context::default()));
    let said = replay(&recording).unwrap().now;
    recording.header.capacity = u32::MAX;
    assert!(room(&recording) < 1000, "{}", room(&recording));
    assert_eq!(replay(&recording).unwrap().now, said);
}

#[test]
fn a_torn_file_is_read_up_to_the_last_whole_block() {
    let told = story(1, 4, 8);
    let bytes = file(&told, &Context::default());
    let begins = beginning(&header(), &Context::default()).len();
    let mut most = 0;
    for end in (begins..bytes.len()).step_by(37).chain([bytes.len() - 1]) {
        let recording = read(&bytes[..end]);
        let got = calls(&recording);
        assert_eq!(got, told[..got.len()], "cut at {end}");
        assert!(
            got.len() >= most && got.len().is_multiple_of(100),
            "cut at {end}"
        );
        most = got.len();
    }
    assert!(most > 0 && most < told.len());
}

proptest! {
    #[test]
    fn a_changed_byte_is_noticed_and_nothing_after_it_is_believed(place in 0.0_f64..1.0, bit in 0_u8..8) {
        let told = story(1, 2, 4);
        let mut bytes = file(&told, &Context::default());
        let begins = beginning(&header(), &Context::default()).len();
        let place = begins + ((bytes.len() - begins) as f64 * place) as usize;
        let place = place.min(bytes.len() - 1);
        bytes[place] ^= 1 << bit;
        let recording = read(&bytes);
        let got = calls(&recording);
        prop_assert!(got.len() < told.len());
        prop_assert_eq!(&got[..], &told[..got.len()]);
        prop_assert!(recording.torn.is_some());
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), magic: bool) {
        if magic {
            bytes.splice(..0, *super::format::MAGIC);
        }
        let _ = Recording::from_reader(bytes.as_slice());
    }
}

/// Calls that may wait.
const ROOM: u64 = (super::CALM + super::STORM) as u64;

fn counter() -> prometheus::IntCounter {
    prometheus::IntCounter::new("lost", "lost").unwrap()
}

fn recorder(dir: Option<&Path>, all: Option<&Path>) -> (Recorder, RecorderHandle) {
    let plan = Plan {
        dir: dir.map(|dir| (dir.to_owned(), 64 << 20)),
        all: all.map(Path::to_owned),
        kept_bytes: super::KEPT_BYTES,
        lost: counter(),
    };
    Recorder::start(plan, header()).unwrap()
}

/// Puts calls as fast as the recorder takes them.
fn put_all(recorder: &Recorder, calls: &[Stamped]) {
    for (at, op) in calls {
        while !recorder.queue.borrow().has_room() {
            recorder.keeper.unpark();
            std::thread::yield_now();
        }
        recorder.put(*at, op.clone());
    }
}

fn incidents(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("incident-")
        })
        .collect();
    found.sort();
    found
}

/// Waits for something that another thread brings about.
fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = crate::tick::clock().plus(20 * SECOND);
    while crate::tick::clock() < deadline {
        if let Some(found) = probe() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("{what}: not within 20 s");
}

#[test]
fn an_incident_is_written_when_a_lease_is_in_jeopardy_and_replays() {
    let dir = tempfile::tempdir().unwrap();
    let told = story(3, 10, 25);
    let (recorder, handle) = recorder(Some(dir.path()), None);
    put_all(&recorder, &told);
    // Before the end: it is on the disk although nobody has ended the recorder.
    wait_for("an incident's file", || incidents(dir.path()).pop());
    assert!(handle.finish(Duration::from_secs(20)));
    let files = incidents(dir.path());
    assert_eq!(files.len(), 1);
    let recording = Recording::read(&files[0]).unwrap();
    assert_eq!(recording.header.reason, "jeopardy");
    assert_eq!(recording.torn, None);
    assert_eq!(calls(&recording), told);
    assert_eq!(replay(&recording).unwrap().difference(), None);
}

#[test]
fn the_rolling_file_is_thin_tells_all_that_was_said_and_is_not_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let told = story(3, 30, 50);
    let (recorder, handle) = recorder(Some(dir.path()), None);
    put_all(&recorder, &told);
    assert!(handle.finish(Duration::from_secs(20)));
    let recording = Recording::read(&dir.path().join("rolling.lwr")).unwrap();
    let said = |calls: &[Stamped]| -> Vec<Stamped> {
        let said = calls.iter().filter(|(_, op)| matches!(op, Op::Said(_)));
        said.cloned().collect()
    };
    let rolled = calls(&recording);
    assert_eq!(said(&rolled), said(&told));
    assert!(
        rolled.len() * 4 < told.len(),
        "{} of {}",
        rolled.len(),
        told.len()
    );
    assert!(
        replay(&recording)
            .unwrap_err()
            .to_string()
            .contains("cannot be replayed")
    );
}

/// The memory keeps the newest minutes; what it lets go is folded into the context, and replay goes on from
/// there.
#[test]
fn a_long_life_before_the_incident_is_folded_and_replay_says_the_same_of_the_incident() {
    let dir = tempfile::tempdir().unwrap();
    let told = story(20, 300, 320);
    let plan = Plan {
        dir: Some((dir.path().to_owned(), 64 << 20)),
        all: None,
        kept_bytes: 64 << 10,
        lost: counter(),
    };
    let (recorder, handle) = Recorder::start(plan, header()).unwrap();
    put_all(&recorder, &told);
    assert!(handle.finish(Duration::from_secs(30)));
    let recording = Recording::read(&incidents(dir.path())[0]).unwrap();
    assert!(calls(&recording).len() < told.len(), "nothing was folded");
    assert_eq!(recording.context.flows.len(), 20);
    let replayed = replay(&recording).unwrap();
    assert_eq!(stages(&replayed.then).len(), stages(&replayed.now).len());
    assert_eq!(replayed.difference(), None);
}

/// A named pipe that nobody reads is a disk that hangs: opening it for writing waits, for as long as it takes.
#[test]
fn while_the_disk_hangs_nothing_is_lost_and_it_is_written_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("all.lwr");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let told = story(3, 10, 60);
    let (recorder, handle) = recorder(None, Some(&pipe));
    put_all(&recorder, &told);
    assert!(
        !handle.finish(Duration::from_millis(300)),
        "it cannot be written yet"
    );
    assert_eq!(
        recorder
            .shared
            .lost
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    let mut bytes = Vec::new();
    std::fs::File::open(&pipe)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let recording = read(&bytes);
    assert_eq!(recording.torn, None);
    assert_eq!(calls(&recording), told);
    assert!(handle.finish(Duration::from_secs(20)));
}

/// At the tick's end: a queue that is full counts and does not wait.
#[test]
fn a_full_queue_is_counted_and_said_in_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let all = dir.path().join("all.lwr");
    let (recorder, handle) = recorder(None, Some(&all));
    // More than the queue holds, faster than it is emptied.
    let mut put = 0;
    while put < 2 * ROOM || recorder.shared.lost_in_all.get() == 0 {
        recorder.put(Mono(put), Op::Advance);
        put += 1;
    }
    assert!(handle.finish(Duration::from_secs(20)));
    let recording = Recording::read(&all).unwrap();
    let mut kept = 0;
    let mut lost = 0;
    for (_, _, op) in &recording.calls {
        match op {
            Op::Lost(count) => lost += count,
            _ => kept += 1,
        }
    }
    assert!(lost > 0);
    assert_eq!(kept + lost, put);
    assert_eq!(recorder.shared.lost_in_all.get(), lost);
}

/// Ten thousand leases that are late in one tick, that are judged anew when something is found, and that are
/// renewed together again.
#[test]
fn a_storm_of_ten_thousand_leases_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let all = dir.path().join("all.lwr");
    let (recorder, handle) = recorder(None, Some(&all));
    let notes: Vec<Op> = [
        Sample::late(1),
        Sample::late(1).cause(Cause::ProcessStopped),
    ]
    .into_iter()
    .chain([Sample::late(1).to(Outcome::Renewed)])
    .map(|sample| Op::Said(sample.note()))
    .collect();
    for note in &notes {
        for _ in 0..10_000 {
            recorder.put(Mono(1), note.clone());
        }
    }
    assert!(handle.finish(Duration::from_secs(60)));
    assert_eq!(recorder.shared.lost_in_all.get(), 0);
    let kept = Recording::read(&all).unwrap().calls;
    let said = kept.iter().filter(|(_, _, op)| matches!(op, Op::Said(_)));
    assert_eq!(said.count(), 30_000);
}

/// /dev/full takes nothing: every call is lost, and counted.
#[test]
fn what_the_disk_does_not_take_is_counted() {
    let (recorder, handle) = recorder(None, Some(Path::new("/dev/full")));
    let told = story(1, 2, 4);
    put_all(&recorder, &told);
    assert!(handle.finish(Duration::from_secs(20)));
    // The file's beginning counts for one.
    assert_eq!(recorder.shared.lost_in_all.get(), told.len() as u64 + 1);
    // What the user has named is not taken away.
    let device = std::fs::metadata("/dev/full").unwrap();
    assert!(!device.is_file(), "/dev/full is a file now");
}

#[test]
fn the_oldest_incidents_make_room() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..5 {
        let name = format!("incident-2026010{number}T000000_000Z.lwr");
        std::fs::write(dir.path().join(name), vec![0; 3 << 20]).unwrap();
    }
    let plan = Plan {
        dir: Some((dir.path().to_owned(), 8 << 20)),
        all: None,
        kept_bytes: super::KEPT_BYTES,
        lost: counter(),
    };
    let (recorder, handle) = Recorder::start(plan, header()).unwrap();
    put_all(&recorder, &story(1, 2, 12));
    assert!(handle.finish(Duration::from_secs(20)));
    let left = incidents(dir.path());
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left[0].to_string_lossy().contains("20260103"));
    assert!(Recording::read(&left[2]).is_ok());
}
