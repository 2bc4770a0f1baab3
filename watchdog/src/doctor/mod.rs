//! `lease-watchdog doctor`: would it run here, and what would it lack?
//!
//! In: the node, a configuration, and the kernel's own answer to each hook ([`trial`]). Out: one row
//! for each prerequisite with what was found and the mend, as a table or as JSON, and an exit code.
//! Never: a change that stays, or a guess where something can be tried.

mod node;
mod places;
mod seen;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::KernelArgs;
use crate::collect::membership;
use crate::kernel::trial::{self, Trial, Tried};
use crate::kernel::{Missing, Options};

/// Options of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The configuration that the daemon will run with; without one, ZooKeeper on port 2181.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the daemon will write its events; "-" is standard output.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Where the daemon will keep what it knows over a restart.
    #[arg(long, value_name = "DIR", default_value = "/run/lease-watchdog")]
    pub state_dir: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Where things of the kernel lie.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// How a prerequisite stands, better ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Ok,
    /// Worth knowing, and no fault.
    Note,
    /// It is not there: the daemon starts, and sees or keeps less.
    Less,
    /// The configuration has to be changed.
    Wrong,
    /// It is not there: the daemon does not start.
    Missing,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub check: String,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    fn new(check: &str, state: State, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            state,
            found: found.into(),
            mend: None,
        }
    }

    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self::new(check, State::Ok, found)
    }

    fn mend(self, mend: impl Into<String>) -> Self {
        Self {
            mend: Some(mend.into()),
            ..self
        }
    }

    /// A refusal that says its own mend behind the last semicolon.
    fn missing(check: &str, missing: &Missing) -> Self {
        let told = missing.0.rsplit_once("; ");
        match told {
            Some((found, mend)) => Self::new(check, State::Missing, found).mend(mend),
            None => Self::new(check, State::Missing, missing.0.as_str()),
        }
    }
}

/// All of it, for machines.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    verdict: &'static str,
    exit_code: u8,
    checks: &'a [Check],
}

/// Looks at everything; prints each row as soon as it is known.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let mut table = table::Table::new(!args.json);
    let mut checks = Vec::new();
    let mut tell = |found: Vec<Check>| {
        found.iter().for_each(|check| table.row(check));
        checks.extend(found);
    };
    let (config, read) = places::configuration(args.config.as_deref());
    tell(read);
    tell(node::basics());
    tell(node::capabilities());
    tell(hooks(args));
    tell(node::manners());
    tell(places::all(&config, args));
    tell(seen::ports(&config));
    let worst = checks.iter().map(|check| check.state).max();
    let (verdict, code) = verdict(worst.unwrap_or(State::Ok));
    table.end(&checks, verdict);
    if args.json {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            verdict,
            exit_code: code,
            checks: &checks,
        };
        table::print_json(&report);
    }
    ExitCode::from(code)
}

/// What the worst row means for the daemon, and the exit code.
const fn verdict(worst: State) -> (&'static str, u8) {
    match worst {
        State::Ok | State::Note => ("ready", 0),
        State::Less => ("starts with less", 1),
        State::Wrong => ("configuration", 2),
        State::Missing => ("does not start", 3),
    }
}

/// Flows that the trial's maps have room for: they are made, and nothing is put in.
const FLOWS: u32 = 64;

fn hooks(args: &DoctorArgs) -> Vec<Check> {
    let trial = trial::run(&Options {
        btf: args.kernel.btf.clone(),
        cgroup_root: args.kernel.cgroup_root.clone(),
        flows: FLOWS,
        debug: false,
        netns: None,
        plaintext: true,
        only: None,
    });
    rows(&trial, &args.kernel.btf)
}

fn rows(trial: &Trial, btf: &std::path::Path) -> Vec<Check> {
    let mut checks = vec![
        match &trial.types {
            Ok(()) => Check::ok("kernel types (BTF)", btf.display().to_string()),
            Err(missing) => Check::missing("kernel types (BTF)", missing),
        },
        match &trial.cgroup {
            Ok(()) if membership::is_a_part() => Check::new(
                "cgroup v2 root",
                State::Less,
                "a container's own: only what runs in it is seen",
            )
            .mend("give it the node's: -v /sys/fs/cgroup:/sys/fs/cgroup:ro (docs/deploy.md)"),
            Ok(()) => Check::ok("cgroup v2 root", "can be opened"),
            Err(missing) => Check::missing("cgroup v2 root", missing),
        },
        match &trial.maps {
            Ok(true) => Check::ok("eBPF maps", "the kernel makes them"),
            Ok(false) => Check::new(
                "eBPF maps",
                State::Missing,
                "not tried without kernel types",
            )
            .mend("see \"kernel types (BTF)\""),
            Err(missing) => Check::missing("eBPF maps", missing),
        },
    ];
    checks.extend(trial.hooks.iter().map(|tried| hook(tried, &trial.hooks)));
    checks
}

fn hook(tried: &Tried, all: &[Tried]) -> Check {
    let name = format!("hook {}", tried.signal);
    let Some(why) = &tried.refused else {
        return Check::ok(&name, format!("{}: attached and detached", tried.hook));
    };
    let found = format!("{}: {why}", tried.hook);
    let served = all
        .iter()
        .any(|other| other.group == tried.group && other.refused.is_none());
    if served {
        return Check::new(&name, State::Note, found).mend("nothing: another hook serves it");
    }
    if why.starts_with("not tried") {
        let state = if tried.required {
            State::Missing
        } else {
            State::Less
        };
        return Check::new(&name, state, found).mend("see the rows above");
    }
    if tried.required {
        Check::new(&name, State::Missing, found).mend("run as root, on Linux 5.10 or later")
    } else {
        Check::new(&name, State::Less, found).mend(node::without(tried.signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(group: usize, signal: &'static str, required: bool, refused: Option<&str>) -> Tried {
        Tried {
            signal,
            hook: "somewhere",
            program: "a program",
            group,
            instructions: None,
            required,
            refused: refused.map(str::to_owned),
        }
    }

    #[test]
    fn a_refused_hook_weighs_as_much_as_what_is_lost_by_it() {
        let all = [
            tried(0, "packets_in", true, Some("no")),
            tried(1, "writes", false, Some("no")),
            tried(2, "reads", false, None),
            tried(2, "reads", false, Some("no")),
            tried(3, "block", false, None),
            tried(4, "block", false, Some("no")),
        ];
        let states: Vec<State> = all.iter().map(|one| hook(one, &all).state).collect();
        assert_eq!(
            states,
            [
                State::Missing,
                State::Less,
                State::Ok,
                State::Note,
                State::Ok,
                State::Less
            ]
        );
        for one in &all {
            let row = hook(one, &all);
            assert_eq!(row.mend.is_some(), row.state != State::Ok, "{row:?}");
        }
    }

    #[test]
    fn the_worst_row_is_the_verdict() {
        for (state, code) in [
            (State::Ok, 0),
            (State::Note, 0),
            (State::Less, 1),
            (State::Wrong, 2),
            (State::Missing, 3),
        ] {
            assert_eq!(verdict(state).1, code);
        }
    }

    #[test]
    fn a_refusal_is_split_into_what_and_mend() {
        let row = Check::missing("x", &Missing("a: b; mount it".to_owned()));
        assert_eq!(
            (row.found.as_str(), row.mend.as_deref()),
            ("a: b", Some("mount it"))
        );
    }
}
