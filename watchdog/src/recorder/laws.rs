//! What must hold of any file that is given as a recording: for the property tests and for `cargo xtask
//! fuzz` alike.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::format::{BlockHead, BlockWriter, MAGIC, Recording, beginning, block_frame, frame};
use super::replay::replay;

/// More calls than this are not written again, nor replayed: that is a matter of patience.
const MANY: usize = 20_000;

/// A file is read up to where it is whole, and of one that was cut nothing is read that the whole one does not
/// hold; what was read can be written and read again, and judged anew.
///
/// # Panics
/// Where one of that does not hold.
pub fn any_bytes(bytes: &[u8]) {
    let whole = Recording::from_reader(bytes).ok();
    for end in [bytes.len() / 3, bytes.len().saturating_sub(1)] {
        let part = Recording::from_reader(&bytes[..end]);
        let Ok(part) = part else { continue };
        let whole = whole.as_ref().expect("what has more is read too");
        let (part, all) = (plain(&part.calls), plain(&whole.calls));
        assert!(all.starts_with(&part), "of less something else was read");
    }
    let Some(whole) = whole else { return };
    if whole.calls.len() > MANY {
        return;
    }
    let copy = file(&whole);
    let read = Recording::from_reader(copy.as_slice()).expect("our own writing");
    assert_eq!(read.torn, None);
    assert_eq!(read.calls.len(), whole.calls.len());
    assert!(plain(&read.calls) == plain(&whole.calls));
    let judged = replay(&whole);
    assert_eq!(judged.is_err(), whole.header.thin);
    if let Ok(judged) = judged {
        let _found = judged.difference();
    }
}

type Call = (watchdog_model::time::Mono, i64, super::Op);

/// Calls as bytes. Not a number is unlike itself, so values are not compared.
fn plain(calls: &[Call]) -> Vec<u8> {
    calls
        .iter()
        .flat_map(|call| postcard::to_stdvec(call).unwrap_or_default())
        .collect()
}

/// A recording as a file.
#[must_use]
pub fn file(recording: &Recording) -> Vec<u8> {
    let mut bytes = beginning(&recording.header, &recording.context);
    bytes.extend(written(&recording.calls));
    bytes
}

/// Calls as blocks. Within one, time goes on.
fn written(calls: &[Call]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for some in calls.chunk_by(|one, other| one.1 == other.1 && one.0 <= other.0) {
        for some in some.chunks(100) {
            let mut block = BlockWriter::default();
            for (at, _, op) in some {
                block.push(*at, op);
            }
            bytes.extend(block.close(some[0].1).unwrap_or_default());
        }
    }
    bytes
}

/// Bytes that say by themselves how they are a file: as it is (0), with the checksums put right (1), or as the
/// calls of blocks behind the beginning of `sound` (2), each with how many they are, how many bytes, and
/// those.
pub fn by_script(sound: &Recording, script: &[u8]) {
    any_bytes(&file_of(sound, script));
}

/// The file that such a script makes.
#[must_use]
pub fn file_of(sound: &Recording, script: &[u8]) -> Vec<u8> {
    let (how, rest) = script.split_first().unwrap_or((&0, &[]));
    match how % 3 {
        0 => rest.to_vec(),
        1 => {
            let mut bytes = rest.to_vec();
            with_checksums(&mut bytes);
            bytes
        }
        _ => {
            let mut bytes = beginning(&sound.header, &sound.context);
            let mut rest = rest;
            while let [calls, low, high, more @ ..] = rest {
                let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
                let (raw, after) = more.split_at(length);
                rest = after;
                let head = BlockHead {
                    first: sound
                        .calls
                        .first()
                        .map_or_else(Default::default, |call| call.0),
                    wall_less_mono_ns: 0,
                    calls: (*calls).into(),
                };
                bytes.extend(block_frame(&head, raw).unwrap_or_default());
            }
            bytes
        }
    }
}

/// A recording of a real fault.
///
/// # Panics
/// Without the recordings of the tests.
#[must_use]
pub fn sample() -> Vec<u8> {
    samples().swap_remove(0)
}

/// Recordings of real faults, of either role.
///
/// # Panics
/// Without the recordings of the tests.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    ["reset", "sigstop", "server-stopped-grantor"]
        .iter()
        .map(|name| {
            let packed = File::open(dir.join(format!("{name}.lwr.gz"))).expect("a recording");
            let mut bytes = Vec::new();
            let mut unpacked = flate2::read::MultiGzDecoder::new(packed);
            unpacked.read_to_end(&mut bytes).expect("packed");
            bytes
        })
        .collect()
}

/// Scripts that make this recording, or the beginning of it.
#[must_use]
pub fn seeds(file: &[u8], most: usize) -> Vec<Vec<u8>> {
    let Ok(sound) = Recording::from_reader(file) else {
        return Vec::new();
    };
    let calls = &sound.calls[..sound.calls.len().min(most)];
    let mut short = beginning(&sound.header, &sound.context);
    short.extend(written(calls));
    let mut blocks = vec![2];
    for some in calls.chunks(100) {
        let mut before = some[0].0;
        let mut raw = Vec::new();
        for (at, _, op) in some {
            raw.extend(postcard::to_stdvec(&(at.since(before), op)).unwrap_or_default());
            before = *at;
        }
        let Ok(length) = u16::try_from(raw.len()) else {
            continue;
        };
        blocks.push(u8::try_from(some.len()).unwrap_or(u8::MAX));
        blocks.extend(length.to_le_bytes());
        blocks.extend(raw);
    }
    vec![
        [&[0], short.as_slice()].concat(),
        [&[1], short.as_slice()].concat(),
        blocks,
    ]
}

/// Puts right the checksums of all frames, so that what is wrong is met behind them.
pub fn with_checksums(bytes: &mut [u8]) {
    let mut at = MAGIC.len();
    while let Some(&[kind, l0, l1, l2, l3, ..]) = bytes.get(at..at + 9) {
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some(payload) = bytes.get(at + 9..at + 9 + length) else {
            return;
        };
        let right = frame(kind, payload);
        bytes[at..at + right.len()].copy_from_slice(&right);
        at += right.len();
    }
}
