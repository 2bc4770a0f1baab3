//! The `lease-watchdog` binary: command line in, exit code out; everything else is in the library.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use tokio::sync::oneshot;
use watchdog::cli::{Cli, Command, Reference, RunArgs, TestAlertArgs};
use watchdog::collect::probe_cost;
use watchdog::config::Config;
use watchdog::daemon::{self, Daemon, Wishes};
use watchdog::demo;
use watchdog::discover;
use watchdog::doctor;
use watchdog::explain;
use watchdog::failure::Failure;
use watchdog::kernel::Options;
use watchdog::manual;
use watchdog::memory;
use watchdog::mute;
use watchdog::outbox::{Lost, outbox};
use watchdog::priority;
use watchdog::probes;
use watchdog::reference;
use watchdog::resident;
use watchdog::rights::Loader;
use watchdog::run::{Inputs, prepare, serve};
use watchdog::sinks::stream::Destination;
use watchdog::tick::service::Service;
use watchdog::tick::{self, Control};
use watchdog::top;

/// Time for the recorder's last file. With what the sinks take it is within a second.
const RECORDERS_LAST: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Run(args) => run(args, cli.verbose),
        Command::Probes(args) => probes::run(args),
        Command::Top(args) => top::run(args),
        Command::Discover(args) => discover::run(args),
        Command::Doctor(args) => return doctor::run(args),
        Command::CheckConfig { file } => check_config(file),
        Command::TestAlert(args) => test_alert(args, cli.verbose),
        Command::Mute {
            lease,
            span,
            socket,
        } => mute::query(lease, *span).and_then(|query| mute::ask(&socket.path, "POST", &query)),
        Command::Unmute { lease, socket } => {
            mute::ask(&socket.path, "DELETE", &mute::unmute_query(lease))
        }
        Command::Mutes { socket } => mute::ask(&socket.path, "GET", ""),
        Command::Reference { of } => {
            print!("{}", page(*of));
            Ok(())
        }
        Command::Manual { dir } => manual::write(dir)
            .map_err(|error| Failure::Running(format!("{}: {error}", dir.display()))),
        Command::Explain(args) => {
            explain::run(args).map_err(|error| Failure::Usage(format!("{error:#}")))
        }
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

fn page(of: Reference) -> String {
    match of {
        Reference::Metrics => reference::of_metrics(),
        Reference::Config => reference::of_config(),
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

fn test_alert(args: &TestAlertArgs, verbose: u8) -> Result<(), Failure> {
    let config = Config::load(Some(&args.config))?;
    let _log = watchdog::log::start(verbose)
        .map_err(|error| Failure::Running(format!("the log cannot be started: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::Running(format!("tokio cannot be started: {error}")))?;
    let outcome = runtime.block_on(watchdog::test_alert::run(&config));
    // Not waited for: a name's look-up may hang.
    runtime.shutdown_background();
    outcome
}

fn run(args: &RunArgs, verbose: u8) -> Result<(), Failure> {
    resident::return_what_is_large();
    let config = Config::load(args.config.as_deref())?;
    // Before any other thread: those then never have the rights to load.
    let loader = Loader::start()
        .map_err(|error| Failure::Running(format!("no thread can be started: {error}")))?;
    // Two daemons would overwrite what each other knows.
    let _claimed = (!args.no_probes)
        .then(|| memory::claim(&args.state_dir).map_err(Failure::Running))
        .transpose()?;
    // Dropped last: the end of the daemon has its lines written.
    let _log = watchdog::log::start(verbose)
        .map_err(|error| Failure::Running(format!("the log cannot be started: {error}")))?;
    let cannot = |error| Failure::Running(format!("tokio cannot be started: {error}"));
    // Two threads: one may be busy with a long answer while the other answers health checks.
    let serving = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("http")
        .thread_stack_size(512 * 1024)
        .on_thread_start(priority::leave)
        .enable_all()
        .build()
        .map_err(cannot)?;
    // Alerts: this thread, and those that start hooks.
    let alerting = tokio::runtime::Builder::new_current_thread()
        .thread_name("hooks")
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build()
        .map_err(cannot)?;
    let outcome = alerting.block_on(daemon(config, args, loader, serving.handle().clone()));
    // Not waited for: a hook's start may hang in the kernel for as long as a disk is frozen.
    alerting.shutdown_background();
    serving.shutdown_background();
    outcome
}

async fn daemon(
    config: Config,
    args: &RunArgs,
    loader: Loader,
    served_on: tokio::runtime::Handle,
) -> Result<(), Failure> {
    let prepared = prepare(
        &config,
        &args.state_dir,
        args.events.clone().map(Destination::from_arg),
    )?;
    let (outbox, inbox) =
        outbox().map_err(|error| Failure::Running(format!("no outbox: {error}")))?;
    let (end, tick_ended) = oneshot::channel();
    let metrics = Arc::clone(&prepared.metrics);
    let wishes = Wishes {
        kernel: (!args.no_probes).then(|| Options {
            btf: args.kernel.btf.clone(),
            cgroup_root: args.kernel.cgroup_root.clone(),
            flows: args.flows,
            debug: args.debug_probes,
            netns: None,
            plaintext: false,
            only: None,
        }),
        state_dir: args.state_dir.clone(),
        service: Service::from_environment(),
        record_all: args.record_all.clone(),
        records_lost: metrics.lost(Lost::Record),
    };
    let control = Control::default();
    let mut daemon = Daemon::start(
        &config,
        &wishes,
        loader,
        outbox,
        daemon::gauges(&metrics, &config),
        control.clone(),
        // The receiver is gone only when the daemon has ended without the tick.
        move || drop(end.send(Ok(()))),
    )
    .map_err(|missing| Failure::Missing(missing.0))?;
    if let Some(programs) = daemon.programs.take().filter(|_| config.probe_cost) {
        probe_cost::start(programs, Arc::clone(&metrics));
    }
    let mut in_force = config.clone();
    let started = daemon.describe(prepared.http_address());
    if let Some(watch) = daemon.scope_watch() {
        served_on.spawn(watch);
    }
    let reloads = daemon.reloads;
    wishes.service.ready();
    let recording = daemon.recording.clone();
    let ended = serve(Inputs {
        started,
        config,
        config_file: args.config.clone(),
        board: daemon.board.clone(),
        prepared,
        inbox,
        last_tick: Arc::clone(&control.last_ns),
        stop: Arc::clone(&control.stop),
        tick_ended,
        served_on,
        clock: tick::clock,
        reload: Box::new(move |new| {
            daemon::reload(&reloads, &control, &metrics, &in_force, new)?;
            in_force = new.clone();
            Ok(())
        }),
    })
    .await;
    wishes.service.stopping();
    if let Some(recording) = recording
        && !recording.finish(RECORDERS_LAST)
    {
        tracing::warn!("the recorder's disk hangs: its last minutes are lost");
    }
    ended
}
