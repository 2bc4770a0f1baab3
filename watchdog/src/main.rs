//! The `lease-watchdog` binary: command line in, exit code out; everything else is in the library.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use tokio::sync::oneshot;
use watchdog::cli::{Cli, Command, RunArgs};
use watchdog::config::Config;
use watchdog::failure::Failure;
use watchdog::outbox::outbox;
use watchdog::run::{Inputs, prepare, serve};
use watchdog::sinks::events::{Started, mono_now};
use watchdog::sinks::stream::Destination;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Run(args) => run(args, cli.verbose),
        Command::CheckConfig { file } => check_config(file),
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
    Ok(())
}

fn run(args: &RunArgs, verbose: u8) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref())?;
    // Dropped last: the end of the daemon has its lines written.
    let _log = watchdog::log::start(verbose)
        .map_err(|error| Failure::Running(format!("the log cannot be started: {error}")))?;
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
    let (_outbox, inbox) =
        outbox().map_err(|error| Failure::Running(format!("no outbox: {error}")))?;
    let (_tick, tick_ended) = oneshot::channel();
    let started = Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        http: Some(prepared.http_address()),
        ..Started::default()
    };
    serve(Inputs {
        config,
        config_file: args.config.clone(),
        prepared,
        inbox,
        started,
        last_tick: Arc::default(),
        stop: Arc::default(),
        tick_ended,
        clock: mono_now,
        reload: Box::new(|_| Ok(())),
    })
    .await
}
