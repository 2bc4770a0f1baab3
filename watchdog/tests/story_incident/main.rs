//! The incident that this daemon exists for, played again for real: a metadata-like server, which
//! grants four chunk-like holders an access lease each and itself holds a session of a real
//! ZooKeeper, on one node of four; the disk that it logs to hangs for ten seconds.
//!
//! `cargo xtask incident` plays it and tells it as a timeline; `cargo xtask test` plays it as one of
//! the stories. Needs root, Debian's packages (`cargo xtask setup`) and a built daemon, as they do. A
//! program of its own and not of libtest: it becomes its own servers, clients and dead man's switch.

mod judge;
mod network;
mod play;
mod programs;
mod rig;
mod timeline;

#[expect(
    dead_code,
    unused_imports,
    reason = "the stories' harness has more than this one uses; its own tests run there"
)]
#[path = "../stories/harness/mod.rs"]
mod harness;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// Its name among the tests.
const NAME: &str = "the_incident_is_seen_coming_and_its_false_expiries_are_told";

fn main() -> ExitCode {
    if programs::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|word| word == "--tell") {
        return match play::play() {
            Ok(told) => conclude(&told, &words),
            Err(reason) => {
                eprintln!("incident: {reason}");
                ExitCode::from(3)
            }
        };
    }
    // As libtest is called: a filter, and options that mean nothing to one test.
    let filtered_out = filter(&words).is_some_and(|filter| !NAME.contains(filter));
    println!("\nrunning {} test", u8::from(!filtered_out));
    let verdict = if filtered_out {
        Ok(())
    } else {
        catch_unwind(|| match play::play() {
            Ok(told) => {
                print!("{}", timeline::text(&told));
                judge::complaints(&told)
            }
            Err(reason) => {
                println!("SKIPPED: {NAME}: {reason}");
                Vec::new()
            }
        })
        .map_err(|_| vec!["it could not be played".to_owned()])
        .and_then(|complaints| {
            if complaints.is_empty() {
                Ok(())
            } else {
                Err(complaints)
            }
        })
    };
    let (word, failed) = match &verdict {
        Ok(()) => ("ok", 0),
        Err(_) => ("FAILED", 1),
    };
    for complaint in verdict.iter_errors() {
        println!("failed: {complaint}");
    }
    if !filtered_out {
        println!("test {NAME} ... {word}");
    }
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out\n",
        u8::from(!filtered_out) - failed,
        u8::from(filtered_out)
    );
    ExitCode::from(failed * 101)
}

/// The name that tests are chosen by, among libtest's options.
fn filter(words: &[String]) -> Option<&str> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--test-threads" || word == "--color" || word == "--format" {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

/// Tells it to people.
fn conclude(told: &play::Told, words: &[String]) -> ExitCode {
    if words.iter().any(|word| word == "--json") {
        print!("{}", timeline::json(told));
    } else {
        print!("{}", timeline::text(told));
    }
    let complaints = judge::complaints(told);
    for complaint in &complaints {
        eprintln!("incident: {complaint}");
    }
    if complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The complaints of a verdict.
trait Complaints {
    fn iter_errors(&self) -> impl Iterator<Item = &String>;
}

impl Complaints for Result<(), Vec<String>> {
    fn iter_errors(&self) -> impl Iterator<Item = &String> {
        self.as_ref().err().into_iter().flatten()
    }
}
