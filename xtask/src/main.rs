//! The project's chores. In: a verb and its options. Out: a machine that can build, the daemon with
//! its kernel programs inside, and the verdict of the test suite.
//!
//! Exit codes are the daemon's: 0 done, 1 failed, 2 usage, 3 something is missing on this machine.

mod apt;
mod bench;
mod build;
mod demo;
mod dependencies;
mod docs;
mod faults;
mod fuzz;
mod incident;
#[cfg(test)]
mod inventory;
mod layout;
mod made;
mod mutate;
mod package;
mod process;
mod setup;
mod starved;
mod stopwatch;
mod suite;
mod tally;
mod targets;
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{layout::Layout, process::Missing, toolchain::Choice};

/// Something is missing on this machine.
const EXIT_MISSING: u8 = 3;

/// Sets up, builds, shows and tests lease-watchdog.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something is missing on this machine"
)]
struct Cli {
    /// Which compiler builds the kernel programs
    #[arg(long, value_enum, global = true, default_value_t = Choice::Auto)]
    bpf_toolchain: Choice,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Args),
    Build(build::Args),
    Demo(demo::Args),
    Docs(docs::Args),
    Bench(bench::Args),
    Test(suite::Args),
    Faults(faults::Args),
    Fuzz(fuzz::Args),
    Vm(vm::Args),
    Incident(incident::Args),
    Starved(starved::Args),
    Mutate(mutate::Args),
    Package(package::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            match error.downcast_ref::<Missing>() {
                Some(_) => ExitCode::from(EXIT_MISSING),
                None => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let layout = Layout::of_project()?;
    match &cli.verb {
        Verb::Setup(args) => setup::run(&layout, cli.bpf_toolchain, args),
        Verb::Build(args) => build::run(&layout, cli.bpf_toolchain, args),
        Verb::Demo(args) => demo::run(&layout, cli.bpf_toolchain, args),
        Verb::Docs(args) => docs::run(&layout, cli.bpf_toolchain, args),
        Verb::Bench(args) => bench::run(&layout, cli.bpf_toolchain, args),
        Verb::Test(args) => suite::run(&layout, cli.bpf_toolchain, args),
        Verb::Faults(args) => faults::run(&layout, cli.bpf_toolchain, args),
        Verb::Fuzz(args) => fuzz::run(&layout, cli.bpf_toolchain, args),
        Verb::Vm(args) => vm::run(&layout, cli.bpf_toolchain, args),
        Verb::Starved(args) => starved::run(&layout, cli.bpf_toolchain, args),
        Verb::Incident(args) => incident::run(&layout, cli.bpf_toolchain, args),
        Verb::Mutate(args) => mutate::run(&layout, cli.bpf_toolchain, args),
        Verb::Package(args) => package::run(&layout, cli.bpf_toolchain, args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_says_what_it_does() {
        for verb in Cli::command().get_subcommands() {
            assert!(
                verb.get_about().is_some(),
                "{} has no help",
                verb.get_name()
            );
        }
    }
}
