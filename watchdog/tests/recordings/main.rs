//! The faults of the matrix, told to the pure code again: without root, in a moment.
//!
//! In: recordings of each fault, made while it was in force on real software, and what other logs than the
//! daemon's said of the harm. Asserted: by today's rules each harmed lease is warned of before its harm, with
//! the true cause and the thing to blame. Not asserted: the same words at the same moments; rules may improve.

mod case;

use case::{Case, Harmed};
use std::path::{Path, PathBuf};
use watchdog::recorder::format::Recording;
use watchdog::recorder::replay::{Said, replay};
use watchdog::sinks::events::Renderer;

/// What to do when a recording cannot be read.
const ANEW: &str = "the recorded types have moved. If VERSION in watchdog/src/recorder/format.rs was not \
                    raised with them, raise it; then make the recordings anew, as root, in ten minutes:\n  \
                    cargo xtask faults --record watchdog/tests/recordings";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn cases() -> Vec<(PathBuf, Case)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of recordings")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a case");
            let case = serde_json::from_str(&text).expect("a case, as JSON");
            (path.with_extension("lwr.gz"), case)
        })
        .collect()
}

fn read(path: &Path) -> Recording {
    let recording = Recording::read(path).unwrap_or_else(|error| panic!("{error:#}\n{ANEW}"));
    assert_eq!(recording.torn, None, "{}: {ANEW}", path.display());
    recording
}

/// One line of the daemon, and when it was said, ns.
struct Line {
    at_ns: u64,
    value: serde_json::Value,
}

impl Line {
    fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    fn stage(&self) -> Option<usize> {
        ["late", "at_risk", "jeopardy", "lapsed"]
            .iter()
            .position(|stage| *stage == self.text("to"))
    }
}

fn lines(recording: &Recording, said: &[Said]) -> Vec<Line> {
    let entries = &recording.header.entries;
    let names = entries.iter().map(|(name, _)| name.clone()).collect();
    let mut renderer = Renderer::new(names);
    said.iter()
        .map(|(at, note)| {
            let text = renderer.note(*at, note, None);
            let value = serde_json::from_str(&text).expect("events are JSON");
            Line { at_ns: at.0, value }
        })
        .collect()
}

/// Why a lease is not judged as it must be.
fn complaint(case: &Case, harmed: &Harmed, lines: &[Line]) -> Option<String> {
    let until = |line: &&Line| {
        line.text("event") == "transition"
            && line.text("id") == harmed.session
            && line.text("role") == harmed.role
            && (harmed.onset_ns..=harmed.harm_ns).contains(&line.at_ns)
    };
    let said: Vec<&Line> = lines.iter().filter(until).collect();
    let flag = usize::from(harmed.warned_by == "at_risk");
    let told = || {
        said.iter()
            .map(|line| format!("\n    {} {}", line.at_ns, line.value))
            .collect::<String>()
    };
    let of = format!("{}: {} of {}", case.fault, harmed.role, harmed.session);
    if !said.iter().any(|line| line.stage() >= Some(flag)) {
        return Some(format!("{of}: not warned of before the harm:{}", told()));
    }
    let standing = said.iter().rev().find(|line| line.stage().is_some())?;
    if !case
        .expected
        .iter()
        .any(|cause| cause == standing.text("cause"))
    {
        return Some(format!("{of}: not {:?}:{}", case.expected, told()));
    }
    let thing = harmed.thing.as_ref()?;
    (!standing.value.to_string().contains(thing.as_str()))
        .then(|| format!("{of}: {thing} is not named:{}", told()))
}

#[test]
fn each_recorded_fault_is_warned_of_with_its_cause() {
    let mut complaints = Vec::new();
    for (path, case) in cases() {
        let recording = read(&path);
        let replayed = replay(&recording).expect("everything was recorded");
        let lines = lines(&recording, &replayed.now);
        assert!(!case.leases.is_empty(), "{}: nobody was harmed", case.fault);
        complaints.extend(
            case.leases
                .iter()
                .filter_map(|harmed| complaint(&case, harmed, &lines)),
        );
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A rule that is taken away is missed: without evidence nothing but what the tick itself sees is proven.
#[test]
fn without_the_facts_the_causes_are_not_found() {
    let facts = |call: &(_, _, watchdog::recorder::Op)| {
        matches!(call.2, watchdog::recorder::Op::Evidence { .. })
    };
    let mut missed = 0;
    for (path, case) in cases() {
        let mut recording = read(&path);
        recording.calls.retain(|call| !facts(call));
        let replayed = replay(&recording).expect("everything was recorded");
        let lines = lines(&recording, &replayed.now);
        missed += case
            .leases
            .iter()
            .filter(|harmed| complaint(&case, harmed, &lines).is_some())
            .count();
    }
    assert!(missed >= 10, "only {missed} leases need gathered facts");
}

/// Faults that only kernels with a device mapper and netem can have: played by `cargo xtask vm`, in guests that
/// keep nothing.
const IN_GUESTS: [&str; 3] = ["disk-suspended", "disk-delayed", "loss"];

/// Each other fault of the matrix has its recording; a new one is recorded with it.
#[test]
fn no_fault_is_without_a_recording() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/families");
    let recorded: Vec<String> = cases().into_iter().map(|(_, case)| case.fault).collect();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(families).expect("the faults' families") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a family");
        for part in text.split("Fault::new(").skip(1) {
            names.extend(part.split('"').nth(1).map(str::to_owned));
        }
    }
    assert!(names.len() > 20, "{names:?}");
    assert!(
        IN_GUESTS
            .iter()
            .all(|name| names.iter().any(|one| one == name))
    );
    names.retain(|name| !IN_GUESTS.contains(&name.as_str()));
    for name in names {
        assert!(
            recorded.contains(&name),
            "{name}: `cargo xtask faults --record watchdog/tests/recordings --only {name}`"
        );
    }
}
