//! Recordings of faults, for the tests of the pure code: what the model was told while a fault was in force,
//! and what another log than the daemon's says of the harm.
//!
//! In: a fault, a folder. Out: `NAME.lwr.gz` and `NAME.json` in it. Each fault is played in a scene of its own
//! with as few victims as show it. Never kept: a recording on which the daemon itself was wrong.

use crate::case::{Case, Harmed};
use crate::fault::Fault;
use crate::harness::clock;
use crate::sample::{Harm, Sample};
use crate::scene::{Scene, T};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use watchdog::recorder::format::{BlockWriter, Recording, beginning};
use watchdog_model::time::{MS, Mono, SECOND};

/// Victims of each fault: the kinds of one that differ most.
const VICTIMS: usize = 2;
/// A fault may miss, and is then played again so often.
const TRIES: usize = 4;
/// So much of what follows the harm is kept, ns.
const AFTER_NS: u64 = 300 * MS;
/// Calls of this many ns go into one block: long ones pack better.
const BLOCK_NS: u64 = 30 * SECOND;

/// Where daemons record to now, and how many have begun to.
static TARGET: Mutex<Option<(PathBuf, usize)>> = Mutex::new(None);

/// The file for the next daemon, if it is to record.
pub fn next_file() -> Option<PathBuf> {
    let mut target = TARGET.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, begun) = target.as_mut()?;
    *begun += 1;
    Some(dir.join(format!("{begun}.lwr")))
}

fn set(target: Option<(PathBuf, usize)>) {
    *TARGET.lock().unwrap_or_else(PoisonError::into_inner) = target;
}

/// Plays the faults and keeps their recordings in `dir`; the failures.
pub fn all(faults: &[&Fault], dir: &Path) -> Vec<String> {
    std::fs::create_dir_all(dir).expect("the folder for recordings can be made");
    let mut failures = Vec::new();
    for fault in faults {
        let mut bytes = None;
        for _ in 0..TRIES {
            match one(fault, dir) {
                Ok(count) => {
                    bytes = Some(count);
                    break;
                }
                Err(why) => println!("{}: {why}", fault.name),
            }
        }
        match bytes {
            Some(bytes) => println!("test {} ... ok ({bytes} bytes)", fault.name),
            None => failures.push(format!("{}: not recorded in {TRIES} tries", fault.name)),
        }
    }
    failures
}

fn one(fault: &Fault, dir: &Path) -> Result<usize, String> {
    let raw = tempfile::tempdir().expect("a temporary directory");
    set(Some((raw.path().to_owned(), 0)));
    let samples = {
        let scene = Scene::new(T, &[], "");
        let samples = (fault.play)(&scene, fault.batch.min(VICTIMS));
        // The recorder closes a block every quarter of a second.
        clock::observe_for(std::time::Duration::from_millis(600));
        samples
    };
    set(None);
    let harmed = samples
        .iter()
        .map(|sample| harmed(fault, sample))
        .collect::<Result<Vec<_>, _>>()?;
    let until = harmed.iter().map(|lease| lease.harm_ns).max().unwrap_or(0) + AFTER_NS;
    let named = |number: usize| raw.path().join(format!("{number}.lwr"));
    let files = (1..).map(named).take_while(|file| file.exists());
    // A fault that has a scene of its own recorded there too: the last one has its leases.
    let file = files.last().ok_or("no daemon recorded")?;
    let recording = Recording::read(&file).map_err(|error| format!("{error:#}"))?;
    let packed = packed(&recording, fault, Mono(until));
    std::fs::write(dir.join(format!("{}.lwr.gz", fault.name)), &packed)
        .expect("the recording can be written");
    let case = Case {
        fault: fault.name.to_owned(),
        does: fault.does.to_owned(),
        expected: fault
            .expected
            .iter()
            .map(|&cause| cause.to_owned())
            .collect(),
        leases: harmed,
    };
    let text = serde_json::to_string_pretty(&case).expect("plain data") + "\n";
    std::fs::write(dir.join(format!("{}.json", fault.name)), text)
        .expect("the case can be written");
    Ok(packed.len())
}

/// What the test must find again; or why this is no case.
fn harmed(fault: &Fault, sample: &Sample) -> Result<Harmed, String> {
    sample.proof.clone()?;
    let verdict = sample.verdict(fault.expected);
    let right = fault.expected.contains(&verdict.cause.as_str()) && verdict.names_thing;
    if !right || verdict.lead_us.is_none() {
        return Err(format!("said {} of {}", verdict.cause, sample.victim));
    }
    Ok(Harmed {
        session: format!("{:#x}", sample.id),
        role: sample.role.to_owned(),
        onset_ns: sample.onset_us.unsigned_abs() * 1000,
        harm_ns: sample.harm_us.unsigned_abs() * 1000,
        warned_by: match sample.harm {
            Harm::Expired => "at_risk",
            Harm::GivenUp => "late",
        }
        .to_owned(),
        thing: sample.thing.clone(),
    })
}

/// The calls up to a moment, in few blocks, without this machine's names.
fn packed(recording: &Recording, fault: &Fault, until: Mono) -> Vec<u8> {
    let mut header = recording.header.clone();
    header.node = "node".to_owned();
    header.boot = "boot".to_owned();
    header.reason = format!("fault {}", fault.name);
    let mut bytes = beginning(&header, &recording.context);
    let mut block = BlockWriter::default();
    let mut wall = 0;
    for (at, of_wall, op) in &recording.calls {
        if *at > until {
            break;
        }
        if block
            .first()
            .is_some_and(|first| at.since(first) >= BLOCK_NS)
        {
            bytes.extend(block.close(wall).expect("calls are in it"));
        }
        block.push(*at, op);
        wall = *of_wall;
    }
    bytes.extend(block.close(wall).unwrap_or_default());
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&bytes).expect("memory");
    packer.finish().expect("memory")
}
