//! `lease-watchdog probes`: which hooks this kernel takes.
//!
//! In: the running kernel. Out: a table, or a JSON object a line, of every way to every signal: used,
//! spare, or refused and why; how much the verifier had to walk. Never: anything left attached.

use std::io::{self, Write};

use crate::{
    cli::ProbesArgs,
    failure::Failure,
    kernel::{
        Options,
        trial::{self, Tried},
    },
};

/// Runs it.
///
/// # Errors
/// A required signal can be had by no way, or nothing can be loaded at all.
pub fn run(args: &ProbesArgs) -> Result<(), Failure> {
    let options = Options {
        btf: args.kernel.btf.clone(),
        cgroup_root: args.kernel.cgroup_root.clone(),
        // The fewest that the maps are made for: nothing is watched.
        flows: 64,
        debug: false,
        only: None,
        netns: None,
        plaintext: true,
    };
    let trial = trial::run(&options);
    let all = trial.types.and(trial.cgroup).and(trial.maps.map(|_| ()));
    all.map_err(|missing| Failure::Missing(missing.0))?;
    let tried = trial.hooks;
    let mut out = io::stdout().lock();
    let written = if args.json {
        json(&mut out, &tried)
    } else {
        table(&mut out, &tried)
    };
    written.map_err(|error| Failure::Running(format!("standard output: {error}")))?;
    match lost(&tried)[..] {
        [] => Ok(()),
        ref lost => Err(Failure::Missing(format!(
            "no lease can be seen on this kernel: it takes no hook for {}; see docs/kernels.md",
            lost.join(", ")
        ))),
    }
}

/// What comes of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It is what the daemon would use.
    Used,
    /// It works, and a better one does too.
    Spare,
    /// The kernel refuses it.
    Refused,
}

/// What comes of each way, in the order in which they were tried.
fn uses(tried: &[Tried]) -> Vec<Use> {
    // Some signals take two programs: then each has its own ways, told apart by being neighbours.
    let mut uses = Vec::with_capacity(tried.len());
    for (at, way) in tried.iter().enumerate() {
        let better = tried[..at]
            .iter()
            .rev()
            .take_while(|other| other.group == way.group)
            .any(|other| other.refused.is_none());
        uses.push(match (&way.refused, better) {
            (Some(_), _) => Use::Refused,
            (None, true) => Use::Spare,
            (None, false) => Use::Used,
        });
    }
    uses
}

/// The required signals without any way.
fn lost(tried: &[Tried]) -> Vec<&'static str> {
    let mut lost: Vec<&'static str> = tried
        .iter()
        .filter(|way| {
            way.required
                && !tried
                    .iter()
                    .any(|other| other.group == way.group && other.refused.is_none())
        })
        .map(|way| way.signal)
        .collect();
    lost.dedup();
    lost
}

fn word(what: Use) -> &'static str {
    match what {
        Use::Used => "used",
        Use::Spare => "spare",
        Use::Refused => "refused",
    }
}

fn json(out: &mut impl Write, tried: &[Tried]) -> io::Result<()> {
    for (way, what) in tried.iter().zip(uses(tried)) {
        let mut object = serde_json::to_value(way)?;
        object["use"] = word(what).into();
        writeln!(out, "{object}")?;
    }
    Ok(())
}

fn table(out: &mut impl Write, tried: &[Tried]) -> io::Result<()> {
    writeln!(
        out,
        "{:<13}{:<32}{:<9}{:>12}",
        "signal", "hook", "", "instructions"
    )?;
    for (way, what) in tried.iter().zip(uses(tried)) {
        let walked = way.instructions.map_or_else(String::new, |n| n.to_string());
        let line = format!(
            "{:<13}{:<32}{:<9}{walked:>12}",
            way.signal,
            way.hook,
            word(what)
        );
        writeln!(out, "{}", line.trim_end())?;
        if let Some(why) = &way.refused {
            writeln!(out, "{:<13}{why}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(group: usize, signal: &'static str, refused: bool) -> Tried {
        Tried {
            signal,
            hook: "a hook",
            program: "a program",
            group,
            required: signal == "packets_in",
            refused: refused.then(|| "no".to_owned()),
            instructions: None,
        }
    }

    #[test]
    fn of_what_works_the_first_is_used() {
        let tried = [
            way(0, "writes", true),
            way(0, "writes", false),
            way(0, "writes", false),
            // The same signal's other program has ways of its own.
            way(1, "writes", false),
        ];
        let words: Vec<_> = uses(&tried).into_iter().map(word).collect();
        assert_eq!(words, ["refused", "used", "spare", "used"]);
    }

    #[test]
    fn only_a_required_signal_without_any_way_is_fatal() {
        let taken = [way(0, "packets_in", true), way(0, "packets_in", false)];
        assert!(lost(&taken).is_empty());
        assert!(lost(&[way(0, "writes", true)]).is_empty());
        let refused = [way(0, "packets_in", true), way(0, "packets_in", true)];
        assert_eq!(lost(&refused), ["packets_in"]);
    }

    #[test]
    fn the_table_says_why() {
        let mut text = Vec::new();
        table(&mut text, &[way(0, "writes", true)]).expect("memory takes it");
        let text = String::from_utf8(text).expect("it is text");
        assert!(text.contains("refused\n             no\n"), "{text}");
    }
}
