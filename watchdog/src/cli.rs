//! The command line, defined once.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::demo::{DemoArgs, DemoRole};
use crate::discover::DiscoverArgs;
use crate::doctor::DoctorArgs;
use crate::explain::ExplainArgs;
use crate::top::TopArgs;

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
    /// Show all leases on the terminal, live, the ones nearest to lapsing first.
    Top(TopArgs),
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
    /// Print a reference page, as Markdown.
    Reference {
        /// Which.
        of: Reference,
    },
    /// Write man pages and shell completions into a directory.
    #[command(hide = true)]
    Manual {
        /// The directory; made if it is not there.
        dir: PathBuf,
    },
    /// Tell from logs what happened: which leases were lost, why, and what would have warned earlier.
    #[command(
        after_help = "Rules and their limits: docs/explain.md. Exit codes: 0 told, 2 a file or option is wrong."
    )]
    Explain(ExplainArgs),
    /// Try everything that the daemon needs of this node, and say the mend for what is missing.
    #[command(
        after_help = "Exit codes: 0 ready, 1 starts but sees or keeps less, 2 configuration, 3 does \
                      not start. Nothing that is tried stays."
    )]
    Doctor(DoctorArgs),
    /// Look at this node's connections for a while and propose a configuration.
    #[command(
        after_help = "Prints YAML that check-config accepts. Only headers and the first bytes of \
                      messages are looked at, and nothing is kept. Exit codes: 0 something was found, \
                      1 nothing that renews was seen, 3 a right is missing."
    )]
    Discover(DiscoverArgs),
    /// Say everything that is wrong with a configuration file.
    CheckConfig {
        /// The configuration file.
        file: PathBuf,
    },
    /// Send an alert that says it is a test through every alert of a configuration, and say what
    /// came back.
    #[command(
        after_help = "Exit codes: 0 all took it, 1 one did not, 2 usage or configuration, or no \
                      alert is configured."
    )]
    TestAlert(TestAlertArgs),
    /// Planned work: tell nobody of the leases of an entry for a while.
    Mute {
        /// The entry's name, as under "leases" in the configuration.
        #[arg(long, value_name = "NAME")]
        lease: String,
        /// For how long, like 10m or 2h.
        #[arg(long = "for", value_name = "SPAN", value_parser = humantime::parse_duration)]
        span: std::time::Duration,
        /// The daemon's socket.
        #[command(flatten)]
        socket: SocketArg,
    },
    /// End a mute before its time.
    Unmute {
        /// The entry's name.
        #[arg(long, value_name = "NAME")]
        lease: String,
        /// The daemon's socket.
        #[command(flatten)]
        socket: SocketArg,
    },
    /// List the mutes in force.
    Mutes {
        /// The daemon's socket.
        #[command(flatten)]
        socket: SocketArg,
    },
}

/// Where the running daemon answers.
#[derive(Args, Debug)]
pub struct SocketArg {
    /// The running daemon's socket.
    #[arg(
        long = "socket",
        value_name = "FILE",
        default_value = "/run/lease-watchdog/api.sock"
    )]
    pub path: PathBuf,
}

/// Options of `test-alert`.
#[derive(Args, Debug)]
pub struct TestAlertArgs {
    /// The configuration whose alerts are tried.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// A reference page.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Reference {
    /// Every metric, with its labels.
    Metrics,
    /// Every configuration key, with its default.
    Config,
}

/// Options of `probes`.
#[derive(Args, Debug)]
pub struct ProbesArgs {
    /// One JSON object a hook
    #[arg(long)]
    pub json: bool,
    /// Where things of the kernel lie.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// Where things of the kernel lie, if not at their usual places.
#[derive(Args, Clone, Debug)]
pub struct KernelArgs {
    /// The running kernel's types.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/sys/kernel/btf/vmlinux",
        hide_short_help = true
    )]
    pub btf: PathBuf,
    /// The cgroup v2 root, below which sockets are seen; found by itself unless given.
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
    /// Record everything into this file, for tests and reports of bugs; it grows without end.
    #[arg(long, value_name = "FILE")]
    pub record_all: Option<PathBuf>,
    /// Where things of the kernel lie.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Let the kernel programs log flows that begin and end (shown with -vv).
    #[arg(long, hide_short_help = true)]
    pub debug_probes: bool,
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
