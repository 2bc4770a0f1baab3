//! The command line, defined once.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::demo::{DemoArgs, DemoRole};

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "lease-watchdog", version, max_term_width = 100)]
#[command(
    // Said here and not above: the subcommands' own text would take the place of that.
    about = "Warns before leases (ZooKeeper sessions) lapse: how long they have, and why",
    after_help = "Exit codes: 0 asked to stop, 1 failure while running, 2 usage or \
                        configuration, 3 missing prerequisite."
)]
pub struct Cli {
    /// Log more to standard error: -v what it does, -vv details; RUST_LOG goes before it.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch leases until told to stop.
    Run(RunArgs),
    /// Show, without a ZooKeeper, that it warns before a session expires.
    #[command(
        after_help = "Exit codes: 0 all of it was seen, 1 something was not, 3 missing \
                      prerequisite, 130 interrupted."
    )]
    Demo(DemoArgs),
    /// A part of the demo.
    #[command(flatten)]
    Role(DemoRole),
    /// Say which hooks this kernel takes, and why it refuses the others; leaves nothing attached.
    #[command(after_help = "Exit codes: 0 leases can be seen, 3 missing prerequisite.")]
    Probes(ProbesArgs),
    /// Say everything that is wrong with a configuration file.
    CheckConfig {
        /// The configuration file.
        file: PathBuf,
    },
}

/// Options of `probes`.
#[derive(Args, Debug)]
pub struct ProbesArgs {
    /// One JSON object a hook
    #[arg(long)]
    pub json: bool,
    /// The running kernel's types.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/sys/kernel/btf/vmlinux",
        hide_short_help = true
    )]
    pub btf: PathBuf,
    /// The cgroup v2 root; found by itself unless given.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub cgroup_root: Option<PathBuf>,
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Configuration; without one, ZooKeeper sessions on port 2181 are watched.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Append events to this file, one JSON object a line; "-" is standard output. Without it none
    /// are written.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// What is known of leases is kept here over a restart.
    #[arg(long, value_name = "DIR", default_value = "/run/lease-watchdog")]
    pub state_dir: PathBuf,
    /// The running kernel's types.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/sys/kernel/btf/vmlinux",
        hide_short_help = true
    )]
    pub btf: PathBuf,
    /// Let the kernel programs log flows that begin and end (shown with -vv).
    #[arg(long, hide_short_help = true)]
    pub debug_probes: bool,
    /// The cgroup v2 root, below which sockets are seen; found by itself unless given.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub cgroup_root: Option<PathBuf>,
    /// How many flows can be followed at once.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(64..=1_048_576),
        hide_short_help = true
    )]
    pub flows: u32,
    /// Attach nothing (to try sinks and configuration).
    #[arg(long, hide = true)]
    pub no_probes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_says_what_it_is_for() {
        let help = Cli::command().render_help().to_string();
        assert!(help.starts_with("Warns before leases"), "{help}");
    }

    #[test]
    fn verbose_goes_anywhere() {
        for line in ["lease-watchdog -v run", "lease-watchdog run -v"] {
            assert_eq!(Cli::parse_from(line.split(' ')).verbose, 1);
        }
    }

    #[test]
    fn a_mistake_is_exit_code_2() {
        let error = Cli::try_parse_from(["lease-watchdog", "run", "--event", "-"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--events"), "{error}");
    }
}
