//! The `lease-watchdog` binary: command line in, exit code out; everything else is in the library.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use tokio::sync::oneshot;
use watchdog::cli::{Cli, Command, RunArgs};
use watchdog::config::Config;
use watchdog::daemon::{self, Daemon, Wishes};
use watchdog::demo;
use watchdog::failure::Failure;
use watchdog::kernel::Options;
use watchdog::outbox::outbox;
use watchdog::probes;
use watchdog::run::{Inputs, prepare, serve};
use watchdog::sinks::stream::Destination;
use watchdog::tick::{self, Control};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Run(args) => run(args, cli.verbose),
        Command::Probes(args) => probes::run(args),
        Command::CheckConfig { file } => check_config(file),
        // On the main thread and before any other: the demo's children die with the thread that
        // started them.
        Command::Demo(args) => return demo::run(args.clone()),
        Command::Role(role) => return demo::run_role(role.clone()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(&failure)
        }
    }
}

fn check_config(file: &Path) -> Result<(), Failure> {
    let config = Config::load(Some(file))?;
    println!(
        "{}: fine; leases: {}; alerts: {}",
        file.display(),
        config.entry_names().join(", "),
        config.alerts.len()
    );
    for line in config.without_effect() {
        println!("{}: {line}", file.display());
    }
    Ok(())
}

fn run(args: &RunArgs, verbose: u8) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref())?;
    // Dropped last: the end of the daemon has its lines written.
    let _log = watchdog::log::start(verbose)
        .map_err(|error| Failure::Running(format!("the log cannot be started: {error}")))?;
    for line in config.without_effect() {
        tracing::warn!("{line}");
    }
    // Two threads: one may be held up by a /proc file while the other answers health checks.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("sinks")
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build()
        .map_err(|error| Failure::Running(format!("tokio cannot be started: {error}")))?;
    let outcome = runtime.block_on(daemon(config, args));
    // Not waited for: a hook's start may hang in the kernel for as long as a disk is frozen.
    runtime.shutdown_background();
    outcome
}

async fn daemon(config: Config, args: &RunArgs) -> Result<(), Failure> {
    let prepared = prepare(&config, args.events.clone().map(Destination::from_arg))?;
    let (outbox, inbox) =
        outbox().map_err(|error| Failure::Running(format!("no outbox: {error}")))?;
    let (end, tick_ended) = oneshot::channel();
    let wishes = Wishes {
        kernel: (!args.no_probes).then(|| Options {
            btf: args.btf.clone(),
            cgroup_root: args.cgroup_root.clone(),
            flows: args.flows,
            debug: args.debug_probes,
            only: None,
        }),
        state_dir: args.state_dir.clone(),
    };
    let control = Control::default();
    let metrics = Arc::clone(&prepared.metrics);
    let daemon = Daemon::start(
        &config,
        &wishes,
        outbox,
        daemon::gauges(&metrics, &config),
        control.clone(),
        // The receiver is gone only when the daemon has ended without the tick.
        move || drop(end.send(Ok(()))),
    )
    .map_err(|missing| Failure::Missing(missing.0))?;
    let mut in_force = config.clone();
    serve(Inputs {
        started: daemon.describe(prepared.http_address()),
        config,
        config_file: args.config.clone(),
        prepared,
        inbox,
        last_tick: Arc::clone(&control.last_ns),
        stop: Arc::clone(&control.stop),
        tick_ended,
        clock: tick::clock,
        reload: Box::new(move |new| {
            daemon::reload(&control, &metrics, &in_force, new)?;
            in_force = new.clone();
            Ok(())
        }),
    })
    .await
}
