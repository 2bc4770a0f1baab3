//! The tokio side of the daemon: sinks, signals, reload.
//!
//! It has two halves. What an alert passes through runs on the thread that calls [`serve`], in real
//! time; what serves others (http) on a runtime of its own, at the normal priority.
//!
//! [`prepare`] does what can fail before anything is attached to the kernel (the port, the event
//! file, the hooks that are kept); [`serve`] runs until the daemon is asked to stop or cannot go
//! on. Never: the kernel, the model; those are behind the tick, which only talks through the
//! outbox.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::sign::CertifiedKey;
use watchdog_model::time::Mono;

use crate::collect::places::Places;
use crate::config::{ApiSocket, Config, Http};
use crate::failure::Failure;
use crate::limits::{self, Meter};
use crate::live::Board;
use crate::log;
use crate::mute;
use crate::outbox::{Inbox, Lost, Stamped};
use crate::priority::Pace;
use crate::sinks::alerts::Alerts;
use crate::sinks::allowance::Allowance;
use crate::sinks::api::ledger::{Feed, Ledger};
use crate::sinks::api::mutes::{self, Desk, Wish};
use crate::sinks::api::{MAX_STREAMS, Sources};
use crate::sinks::dispatch::Dispatch;
use crate::sinks::events::{Renderer, Started};
use crate::sinks::http::{self, Bound, BoundSocket, Doors};
use crate::sinks::metrics::Metrics;
use crate::sinks::stream::{Destination, Stream};
use crate::sinks::tls::Identity;

/// Name of the socket in the state directory.
pub const SOCKET_FILE: &str = "api.sock";

/// Time for the tick's last words, once it was told to stop.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How often the own cost is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two pieces of work; the shortest that tokio's clock knows.
const REST: Duration = Duration::from_millis(1);
/// Time for the sinks' last lines. Together with the above well within a second.
const FLUSH: Duration = Duration::from_millis(400);

/// What was made ready before anything was attached.
pub struct Prepared {
    /// The metrics; [`Metrics::tick`] gives the tick its handles.
    pub metrics: Arc<Metrics>,
    http: Bound,
    stream: Option<Stream>,
    alerts: Alerts,
    signals: Signals,
    token: Option<Arc<str>>,
    /// Whom the port says to be, and what greets with it; None: TLS is not spoken there.
    tls: Option<(Identity, TlsAcceptor)>,
    mutes_file: PathBuf,
}

impl Prepared {
    /// Where metrics and health will be served, for [`Started::http`].
    #[must_use]
    pub const fn http_address(&self) -> std::net::SocketAddr {
        self.http.address()
    }
}

/// Binds, opens and starts what the sinks need. Must be called inside a tokio runtime. The socket
/// is in `state_dir` unless the configuration says otherwise.
pub fn prepare(
    config: &Config,
    state_dir: &Path,
    events: Option<Destination>,
) -> Result<Prepared, Failure> {
    // First, so that a signal that comes while the kernel side is set up is not lost on us.
    let signals = Signals::listen()?;
    let metrics = Metrics::new(&config.entry_names())
        .map_err(|error| Failure::Running(format!("metrics cannot be made: {error}")))?;
    let metrics = Arc::new(metrics);
    let token = config.http.token().map_err(Failure::Usage)?;
    let tls = match config.http.identity().map_err(Failure::Usage)? {
        None => None,
        Some(shown) => {
            let identity = Identity::new(shown);
            let acceptor = identity.acceptor().map_err(Failure::Running)?;
            Some((identity, acceptor))
        }
    };
    let http = http::bind(config.http_listen)
        .map_err(Failure::Running)?
        .and(bind_socket(config, state_dir)?);
    let stream = match events {
        None => None,
        Some(destination) => {
            let file = destination.open().map_err(Failure::Usage)?;
            let stream = Stream::start(file, destination, metrics.lost(Lost::EventLine))
                .map_err(|error| no_thread(&error))?;
            Some(stream)
        }
    };
    let mutes_file = mute::file(state_dir);
    let mutes = mute::load(&mutes_file, crate::tick::clock());
    let alerts = Alerts::start(&config.alerts, mutes, &metrics);
    Ok(Prepared {
        metrics,
        http,
        stream,
        alerts,
        signals,
        token,
        tls,
        mutes_file,
    })
}

/// One that was asked for must be there; the usual one is left out where it cannot be.
fn bind_socket(config: &Config, state_dir: &Path) -> Result<Option<BoundSocket>, Failure> {
    let mode = config.http.socket_mode;
    match &config.http.socket {
        ApiSocket::Off => Ok(None),
        ApiSocket::At(path) => http::bind_socket(path, mode)
            .map(Some)
            .map_err(Failure::Running),
        ApiSocket::InStateDir => Ok(http::bind_socket(&state_dir.join(SOCKET_FILE), mode)
            .inspect_err(|why| tracing::warn!("no Unix socket: {why}"))
            .ok()),
    }
}

fn no_thread(error: &io::Error) -> Failure {
    Failure::Running(format!("a thread could not be started: {error}"))
}

/// Takes a new configuration to the tick. An error keeps the old one everywhere.
pub type Reload = Box<dyn FnMut(&Config) -> Result<(), String> + Send>;

/// What [`serve`] works with.
pub struct Inputs {
    /// The configuration in force.
    pub config: Config,
    /// Where it came from; SIGHUP reads it again.
    pub config_file: Option<PathBuf>,
    /// What [`prepare`] made.
    pub prepared: Prepared,
    /// The sinks' end of the outbox.
    pub inbox: Inbox,
    /// What the `started` event says.
    pub started: Started,
    /// When the tick last ran, ns of the monotonic clock; the tick sets it.
    pub last_tick: Arc<AtomicU64>,
    /// All leases as they stand.
    pub board: Board,
    /// Set when the tick is to stop.
    pub stop: Arc<AtomicBool>,
    /// The tick's end: it sends why, or is dropped. Before `stop` was set, that is a failure.
    pub tick_ended: oneshot::Receiver<Result<(), Failure>>,
    /// Where others are served.
    pub served_on: tokio::runtime::Handle,
    /// The monotonic clock.
    pub clock: fn() -> Mono,
    /// Takes a new configuration on.
    pub reload: Reload,
}

/// Runs the sinks until SIGTERM or SIGINT (then returns within a second, with everything
/// flushed that takes it), or until the tick ends.
pub async fn serve(inputs: Inputs) -> Result<(), Failure> {
    let Inputs {
        mut config,
        config_file,
        prepared,
        mut inbox,
        started,
        last_tick,
        board,
        stop,
        mut tick_ended,
        served_on,
        clock,
        mut reload,
    } = inputs;
    let Prepared {
        metrics,
        http,
        stream,
        alerts,
        mut signals,
        token,
        tls,
        mutes_file,
    } = prepared;
    let (desk, mut wishes) = Desk::new();
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("metrics and health on {scheme}://{}", http.address());
    let (identity, acceptor) = tls.unzip();
    let doors = Doors {
        tls: acceptor,
        port: Allowance::new(config.limits.cpu, clock),
        socket: Allowance::new(config.limits.cpu, clock),
    };
    let ledger = Ledger::default();
    served_on.spawn(board.clone().keep_tidy());
    let sources = Sources {
        metrics: Arc::clone(&metrics),
        last_tick,
        clock,
        board,
        ledger: ledger.clone(),
        token,
        started: Arc::new(started.clone()),
        started_at: clock(),
        streams: Arc::new(tokio::sync::Semaphore::new(MAX_STREAMS)),
        desk,
    };
    let mut server = served_on.spawn(http::serve(http, sources, doors.clone()));
    let mut places = Places::start().map_err(|error| no_thread(&error))?;
    let renderer =
        Renderer::new(config.entry_names()).looking_up(move |pid| places.of(pid, clock()));
    let feed = Feed::start(ledger).map_err(|error| no_thread(&error))?;
    let mut dispatch = Dispatch::new(renderer, Arc::clone(&metrics), stream, alerts, feed);
    // Not before: loading the programs takes a second of computing.
    let mut pace = Pace::begin_with_children();
    dispatch.started(clock(), &started);
    let mut meter = Meter::new(config.limits);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut messages = Vec::with_capacity(256);
    let outcome = loop {
        metrics.lost(Lost::LogLine).inc_by(log::take_lost());
        tokio::select! {
            received = inbox.receive(&mut messages) => {
                if let Err(error) = received {
                    break Err(Failure::Running(format!("the outbox cannot be read: {error}")));
                }
                take_in(&mut dispatch, &messages, &mut pace).await;
                messages.clear();
            }
            () = stop_asked(&mut signals.terminate, &mut signals.interrupt) => {
                tracing::info!("asked to stop");
                break Ok(());
            }
            () = next(&mut signals.hangup) => {
                let file = config_file.clone();
                // On a thread of its own: the file may lie on the frozen disk.
                let read = served_on.spawn_blocking(move || read_again(file.as_deref()));
                let read = tokio::time::timeout(Duration::from_secs(10), read);
                // Whoever rotates the event file sends the same signal, whatever becomes of the
                // configuration.
                dispatch.reopen();
                // Meanwhile the tick's messages wait in the outbox, but the daemon stays ready
                // to stop.
                tokio::select! {
                    read = read => match read {
                        Ok(Ok(Ok((new, shown)))) => {
                            match adopt(&mut config, new, &mut reload, &mut dispatch, clock()) {
                                Ok(()) => if let (Some(identity), Some(shown)) = (&identity, shown) {
                                    identity.exchange(shown);
                                },
                                Err(why) => tracing::error!(
                                    "reload refused, the old configuration stays: {why}"
                                ),
                            }
                        }
                        Ok(Ok(Err(errors))) => {
                            tracing::error!("reload refused, the old configuration stays:");
                            for line in errors.lines() {
                                tracing::error!("{line}");
                            }
                        }
                        Ok(Err(_)) | Err(_) => tracing::error!(
                            "reload refused, the old configuration stays: the file could not be \
                             read within 10 s"
                        ),
                    },
                    () = stop_asked(&mut signals.terminate, &mut signals.interrupt) => break Ok(()),
                }
            }
            Some((wish, reply)) = wishes.recv() => {
                let outcome = fulfil(wish, &config, &mut dispatch, &mutes_file, &served_on, clock());
                // Who asked may be gone; what was wished holds nevertheless.
                let _told = reply.send(outcome);
            }
            _ = look.tick() => {
                dispatch.pass(clock());
                meter.set_limits(config.limits);
                doors.port.set_limit(config.limits.cpu);
                doors.socket.set_limit(config.limits.cpu);
                let exceeded = match limits::used() {
                    Ok(used) => meter.look(used, clock()),
                    Err(error) => {
                        tracing::debug!(%error, "own cost cannot be seen");
                        None
                    }
                };
                metrics.limits(&meter.shares());
                if let Some(exceeded) = exceeded {
                    dispatch.limit_exceeded(clock(), &exceeded);
                    break Err(Failure::Running(format!(
                        "{exceeded}; detached. Raise it if this node's leases are worth it"
                    )));
                }
            }
            ended = &mut tick_ended => {
                break Err(match ended {
                    Ok(Err(failure)) => failure,
                    Ok(Ok(())) | Err(_) => {
                        Failure::Running("the tick ended without being asked to".to_owned())
                    }
                });
            }
            ended = &mut server => {
                break Err(Failure::Running(match ended {
                    Ok(Err(error)) => format!("http.listen: cannot be served: {error}"),
                    Ok(Ok(never)) => match never {},
                    Err(error) => format!("http.listen: the server broke: {error}"),
                }));
            }
        }
    };
    stop.store(true, Ordering::Release);
    if outcome.is_ok() {
        // Ended in whatever way: its last words are in the outbox by then.
        let _ended = tokio::time::timeout(LAST_WORDS, tick_ended).await;
    }
    messages.clear();
    while inbox.drain(&mut messages) {
        take_in(&mut dispatch, &messages, &mut pace).await;
        messages.clear();
    }
    dispatch.finish(clock(), FLUSH).await;
    server.abort();
    // Its end takes the socket's file along.
    let _ended = server.await;
    outcome
}

/// Takes messages in, by pieces: between them others of this thread work, and the node's. What they
/// mean together is said after the first piece, for that is when an alert is due, and at the end.
async fn take_in(dispatch: &mut Dispatch, messages: &[Stamped], pace: &mut Pace) {
    let mut pieces = 0_u32;
    for message in messages {
        if pace.rest_is_due() {
            pieces += 1;
            if pieces == 1 {
                dispatch.settle();
            }
            tokio::time::sleep(REST).await;
        }
        dispatch.take(message);
    }
    dispatch.settle();
}

/// Does what is wished of mutes.
fn fulfil(
    wish: Wish,
    config: &Config,
    dispatch: &mut Dispatch,
    file: &Path,
    elsewhere: &tokio::runtime::Handle,
    now: Mono,
) -> mutes::Outcome {
    match wish {
        Wish::List => return mutes::Outcome::InForce(in_force(dispatch)),
        Wish::Mute { lease, for_ns } => {
            let known = config.entry_names();
            if !known.contains(&lease) {
                return mutes::Outcome::NoSuchLease(known);
            }
            dispatch.mute(now, &lease, Mono(now.0.saturating_add(for_ns)));
        }
        Wish::Unmute { lease } => {
            if !dispatch.unmute(now, &lease) {
                return mutes::Outcome::NotMuted;
            }
        }
    }
    // On a thread of its own: the file may lie on the frozen disk, and the mute holds already.
    let (file, kept) = (file.to_owned(), dispatch.mutes().clone());
    elsewhere.spawn_blocking(move || {
        if let Err(error) = mute::keep(&file, &kept) {
            tracing::warn!(
                "{}: cannot be written ({error}); mutes end with the daemon",
                file.display()
            );
        }
    });
    mutes::Outcome::InForce(in_force(dispatch))
}

fn in_force(dispatch: &Dispatch) -> Vec<(String, Mono)> {
    dispatch
        .mutes()
        .all()
        .map(|(lease, until)| (lease.to_owned(), until))
        .collect()
}

/// The configuration, and what the port is to show: new files may have come in the places of the old.
fn read_again(file: Option<&Path>) -> Result<(Config, Option<Arc<CertifiedKey>>), String> {
    let config = Config::load(file).map_err(|errors| errors.to_string())?;
    let shown = config.http.identity()?;
    Ok((config, shown))
}

/// Puts a new configuration in force, or says why not.
fn adopt(
    config: &mut Config,
    new: Config,
    reload: &mut Reload,
    dispatch: &mut Dispatch,
    now: Mono,
) -> Result<(), String> {
    if new.http_listen != config.http_listen {
        return Err(format!(
            "http.listen cannot change while running ({} to {}); restart the daemon",
            config.http_listen, new.http_listen
        ));
    }
    let lasting = |http: &Http| Http {
        tls: None,
        ..http.clone()
    };
    if lasting(&new.http) != lasting(&config.http)
        || new.http.tls.is_some() != config.http.tls.is_some()
    {
        return Err(
            "http.socket, http.socket_mode, http.token_file and whether there is http.tls cannot \
             change while running; restart the daemon"
                .to_owned(),
        );
    }
    reload(&new)?;
    dispatch.reconfigure(&new);
    // Hooks that stay as they are keep what they know of open incidents.
    if new.alerts != config.alerts {
        let earlier = dispatch.exchange_alerts(now, &new.alerts);
        // What the earlier hooks were told last is still theirs to tell.
        tokio::spawn(earlier.finish(Duration::from_secs(60)));
    }
    *config = new;
    tracing::warn!("configuration reloaded");
    Ok(())
}

/// The signals that matter.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::Running(format!("signals cannot be caught: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// `None` means that no more signals can come; then there is nothing to wait for.
async fn next(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        pending::<Infallible>().await;
    }
}

async fn stop_asked(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        () = next(terminate) => {}
        () = next(interrupt) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::outbox;

    fn config() -> Config {
        let mut config = Config::default();
        config.http_listen.set_port(0);
        config.http.socket = ApiSocket::Off;
        config
    }

    fn inputs(tick_ended: oneshot::Receiver<Result<(), Failure>>) -> Inputs {
        let config = config();
        let (_, inbox) = outbox().unwrap();
        Inputs {
            prepared: prepare(&config, Path::new("/nonexistent"), None).unwrap(),
            config,
            config_file: None,
            inbox,
            started: Started::default(),
            last_tick: Arc::default(),
            board: crate::live::board(Duration::ZERO).1,
            stop: Arc::default(),
            tick_ended,
            served_on: tokio::runtime::Handle::current(),
            clock: || Mono(0),
            reload: Box::new(|_| Ok(())),
        }
    }

    #[tokio::test]
    async fn a_tick_that_ends_ends_the_daemon() {
        let (tick, ended) = oneshot::channel();
        let inputs = inputs(ended);
        let stop = Arc::clone(&inputs.stop);
        tick.send(Err(Failure::Missing("no BTF".to_owned())))
            .unwrap();
        let failure = serve(inputs).await.unwrap_err();
        assert_eq!(failure.code(), 3);
        assert!(stop.load(Ordering::Relaxed));
        let (tick, ended) = oneshot::channel();
        drop(tick);
        assert_eq!(serve(self::inputs(ended)).await.unwrap_err().code(), 1);
    }

    #[tokio::test]
    async fn a_reload_is_all_or_nothing() {
        let old = config();
        let prepared = prepare(&old, Path::new("/nonexistent"), None).unwrap();
        let renderer = Renderer::new(old.entry_names());
        let mut dispatch = Dispatch::new(
            renderer,
            Arc::clone(&prepared.metrics),
            None,
            prepared.alerts,
            Feed::start(Ledger::default()).unwrap(),
        );
        let mut current = old.clone();
        let mut adopt = |new: &Config, mut reload: Reload| {
            let outcome = adopt(
                &mut current,
                new.clone(),
                &mut reload,
                &mut dispatch,
                Mono(0),
            );
            (outcome, current.clone())
        };
        let mut moved = old.clone();
        moved.http_listen.set_port(1);
        let (outcome, kept) = adopt(&moved, Box::new(|_| unreachable!("refused before")));
        assert_eq!(
            outcome.unwrap_err(),
            "http.listen cannot change while running (127.0.0.1:0 to 127.0.0.1:1); restart the daemon"
        );
        assert_eq!(kept, old);
        let mut renamed = old.clone();
        renamed.leases[0].name = "zk".to_owned();
        let (outcome, kept) = adopt(&renamed, Box::new(|_| Err("not now".to_owned())));
        assert_eq!((outcome, kept), (Err("not now".to_owned()), old));
        let (outcome, kept) = adopt(&renamed, Box::new(|_| Ok(())));
        assert_eq!((outcome, kept), (Ok(()), renamed));
    }
}
