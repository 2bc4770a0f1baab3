//! Puts the daemon together: kernel programs, memory of an earlier run, model, tick.
//!
//! In: a configuration and the command line's wishes. Out: a running tick, and what is to be said
//! of the start. The sinks are put to its other end by [`crate::run`].

use std::path::PathBuf;
use std::sync::{Arc, atomic::AtomicBool};

use watchdog_common::layout::PORTS;
use watchdog_model::leases::book::Book;

use crate::{
    collect::{
        cgroups::Mounts,
        executables::{Executables, Gate},
        existing::{self, Search},
        helper::Helper,
        look::Surroundings,
        membership,
    },
    config::{Config, LeaseEntry, Scope},
    kernel::{Kernel, Missing, Options, Report, release, self_cost::Programs},
    live::{self, Board},
    memory::{self, Remembered, Slate},
    netns::{self, Netns},
    outbox::{Lost, Outbox},
    priority::{self, Granted},
    recorder::{self, Recorder, RecorderHandle},
    resident,
    rights::Loader,
    sinks::{
        events::{Attached, Refused, ScopeSaid, Started},
        metrics::Metrics,
    },
    tick::{
        self, Control, Tick,
        gauges::{LostHandles, MetricGauges},
        service::Service,
    },
};

/// What the command line and the environment wish.
#[derive(Debug)]
pub struct Wishes {
    /// How to load the kernel programs; None: not at all.
    pub kernel: Option<Options>,
    /// Where what is known of flows is kept.
    pub state_dir: PathBuf,
    /// Who is told that the tick runs.
    pub service: Service,
    /// A file for everything that is recorded.
    pub record_all: Option<PathBuf>,
    /// Counts what the recorder could not keep.
    pub records_lost: prometheus::IntCounter,
}

/// A daemon whose tick runs. Dropping it does not end the tick; [`Control::stop`] does.
pub struct Daemon {
    /// What attached.
    pub report: Report,
    /// Whether memory is locked.
    pub memory_locked: bool,
    /// The priority of the tick, and of all that an alert passes through.
    pub priority: Granted,
    /// Connections older than the daemon that were found.
    pub adopted: usize,
    /// The loaded programs, for [`probe_cost`](crate::collect::probe_cost); None: none.
    pub programs: Option<Programs>,
    /// What of the node is watched.
    pub scope: Scope,
    /// What a change of the configuration needs.
    pub reloads: Reloads,
    /// What is recorded, if anything is.
    pub recording: Option<RecorderHandle>,
    /// All leases as they stand.
    pub board: Board,
}

/// What a change of the configuration needs besides the tick.
pub struct Reloads {
    gate: Gate,
    netns: Option<Arc<Netns>>,
    recording: Option<RecorderHandle>,
}

impl Daemon {
    /// Loads, attaches, takes over what was there, and starts the tick and the memory's writer.
    ///
    /// # Errors
    /// A prerequisite is missing.
    pub fn start(
        config: &Config,
        wishes: &Wishes,
        loader: Loader,
        outbox: Outbox,
        gauges: MetricGauges,
        control: Control<MetricGauges>,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Missing> {
        let netns = config.scope.netns.as_deref().map(Netns::open).transpose();
        let netns = netns
            .map(|open| open.map(Arc::new))
            .map_err(|why| Missing(format!("scope.netns: {why}")))?;
        let number = netns.as_deref().map(Netns::number);
        let ports = port_table(config);
        let options = wishes.kernel.clone().map(|options| Options {
            netns: number,
            plaintext: config.has_tls(),
            ..options
        });
        let loaded = options.map(|options| loader.load(options)).transpose()?;
        let (mut kernel, sealed) =
            loaded.map_or((None, None), |(kernel, wants)| (Some(kernel), wants));
        let capacity = wishes
            .kernel
            .as_ref()
            .map_or(0, |options| options.flows as usize);
        let mut adopted = 0;
        if let Some(kernel) = &mut kernel {
            let search = search(config, ports, number);
            kernel.state.describe_entries(&search.shapes);
            kernel.state.watch_ports(&ports);
            adopted = existing::adopt(&mut kernel.state, &search);
        }
        let report = kernel
            .as_ref()
            .map(|kernel| kernel.report.clone())
            .unwrap_or_default();
        let programs = kernel.as_ref().map(Kernel::programs);
        let helper = kernel.as_mut().and_then(|kernel| {
            let around = Surroundings {
                mounts: Mounts::find(),
                devices: kernel.state.take_devices(),
                clock: tick::clock,
            };
            Helper::start(around)
                .inspect_err(|error| tracing::warn!(%error, "causes are not looked for"))
                .ok()
        });
        if kernel.is_some() && membership::is_a_part() {
            tracing::warn!(
                "only what runs in this container is seen, since only its part of the cgroup v2 hierarchy \
                 is mounted; mount the node's /sys/fs/cgroup (docs/deploy.md)"
            );
        }
        let slate = Slate::with_capacity(capacity);
        let (live, board) = live::board(live::PATIENCE);
        let remembered = Remembered::load(&wishes.state_dir);
        if kernel.is_some() {
            memory::start(&wishes.state_dir, &slate);
        }
        let (executables, gate) = Executables::start(config.admission());
        let (recorder, recording) = record(config, wishes, capacity).unzip();
        let tick = Tick {
            reads: report.has("reads"),
            kernel,
            // A flow has a lease at each of its ends that this node is.
            book: Book::new(config.entry_settings(), capacity),
            outbox,
            gauges,
            helper,
            executables,
            sealed,
            remembered,
            live,
            recorder,
            slate,
            service: wishes.service.another(),
            control,
        };
        // Loading has left much behind.
        resident::give_back();
        let memory_locked = match resident::lock_memory() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "memory not locked: a warning may wait for a page");
                false
            }
        };
        // What goes wrong on the way of an alert must not be the disk.
        if !config.alerts.is_empty()
            && let Err(error) = resident::load_code()
        {
            tracing::warn!(%error, "code not loaded: an alert may wait for the disk");
        }
        let priority = priority::granted();
        match priority {
            Granted::RealTime => {}
            Granted::Nice => tracing::warn!(
                "no real-time priority: nice -20 instead, and warnings are later on a node without \
                 CPU left; give CAP_SYS_NICE or RLIMIT_RTPRIO of 3, and where its cgroup has \
                 cpu.rt_runtime_us, time there"
            ),
            Granted::Normal => tracing::warn!(
                "neither real-time priority nor nice -20: warnings are late on a node without CPU \
                 left; give CAP_SYS_NICE"
            ),
        }
        tick.start(ended)
            .map_err(|error| Missing(format!("the tick's thread cannot be started: {error}")))?;
        Ok(Self {
            report,
            memory_locked,
            priority,
            adopted,
            programs,
            scope: config.scope.clone(),
            reloads: Reloads {
                gate,
                netns,
                recording: recording.clone(),
            },
            recording,
            board,
        })
    }

    /// Says when the namespace that is watched has been deleted; None: all of them are watched.
    pub fn scope_watch(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let watched = Arc::clone(self.reloads.netns.as_ref()?);
        Some(netns::say_when_gone(watched, self.scope.netns.clone()?))
    }

    /// What the `started` event says of it.
    #[must_use]
    pub fn describe(&self, http: std::net::SocketAddr) -> Started {
        let (attached, refused) = self
            .report
            .hooks
            .iter()
            .partition::<Vec<_>, _>(|hook| hook.refused.is_none());
        Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: release::running(),
            attached: attached
                .into_iter()
                .map(|hook| Attached {
                    signal: hook.signal.into(),
                    hook: hook.hook.into(),
                })
                .collect(),
            refused: refused
                .into_iter()
                .map(|hook| Refused {
                    signal: hook.signal.into(),
                    hook: hook.hook.into(),
                    why: hook.refused.clone().unwrap_or_default(),
                })
                .collect(),
            timeout_sources: vec!["handshake", "config", "inferred"],
            real_time: self.priority == Granted::RealTime,
            priority: self.priority,
            memory_locked: self.memory_locked,
            http: Some(http),
            scope: ScopeSaid {
                cgroup: self.scope.cgroup.clone(),
                netns: self.scope.netns.clone(),
            },
            programs: if self.report.follows_any_segment {
                "5.17"
            } else {
                "5.10"
            },
        }
    }
}

/// The tick's figures over these metrics.
#[must_use]
pub fn gauges(metrics: &Metrics, config: &Config) -> MetricGauges {
    let lost = LostHandles {
        slot: metrics.lost(Lost::Slot),
        thread: metrics.lost(Lost::Thread),
        lease: metrics.lost(Lost::Lease),
        segment: metrics.lost(Lost::Segment),
        request: metrics.lost(Lost::Request),
        question: metrics.lost(Lost::Question),
    };
    MetricGauges::new(metrics.tick(&config.entry_names()), lost)
}

/// Hands a changed configuration to the tick.
///
/// # Errors
/// It changes what a running daemon cannot: which entry a known flow belongs to, or the scope.
pub fn reload(
    reloads: &Reloads,
    control: &Control<MetricGauges>,
    metrics: &Metrics,
    old: &Config,
    new: &Config,
) -> Result<(), String> {
    if new.scope != old.scope {
        return Err(
            "scope cannot change while running; restart the daemon: known leases are taken over"
                .to_owned(),
        );
    }
    if let (Some(watched), Some(name)) = (&reloads.netns, &new.scope.netns)
        && !watched.is_named(name)
    {
        return Err(netns::gone(name));
    }
    if new.recorder != old.recorder {
        return Err("recorder cannot change while running; restart the daemon".to_owned());
    }
    let (before, ports) = (port_table(old), port_table(new));
    for (index, entry) in old.leases.iter().enumerate() {
        let kept = |new: &LeaseEntry| {
            let same_shape = (new.shape(), new.inside()) == (entry.shape(), entry.inside());
            new.name == entry.name && same_shape
        };
        let same = new.leases.get(index).is_some_and(kept)
            && before
                .iter()
                .zip(&ports)
                .all(|(old, new)| usize::from(*old) != index + 1 || old == new);
        if !same {
            return Err(format!(
                "leases[{index}] ({}) cannot be removed, moved, lose ports or look otherwise \
                 on the wire while running; restart the daemon: known leases are taken over",
                entry.name
            ));
        }
    }
    if new.probe_cost != old.probe_cost {
        return Err("limits.probe_cost cannot change while running; restart the daemon".to_owned());
    }
    if let Some(recording) = &reloads.recording {
        recording.reconfigured(new.entry_settings());
    }
    let done = Arc::new(AtomicBool::new(false));
    control.reload.push(tick::Reload {
        entries: new.entry_settings(),
        ports: Box::new(ports),
        shapes: Box::new(new.shapes()),
        gauges: gauges(metrics, new),
        edition: reloads.gate.change(new.admission()),
        done: Arc::clone(&done),
    });
    if before != ports {
        let number = reloads.netns.as_deref().map(Netns::number);
        existing::later(search(new, ports, number), done, Arc::clone(&control.found));
    }
    Ok(())
}

fn search(config: &Config, ports: [u8; PORTS], netns: Option<u32>) -> Search {
    Search {
        shapes: Box::new(config.shapes()),
        ports: Box::new(ports),
        netns,
        clock: tick::clock,
    }
}

/// Starts the recorder, if there is anything to record for.
fn record(config: &Config, wishes: &Wishes, capacity: usize) -> Option<(Recorder, RecorderHandle)> {
    let plan = recorder::Plan {
        dir: config
            .recorder
            .as_ref()
            .map(|recorder| (recorder.dir.clone(), recorder.keep_bytes)),
        all: wishes.record_all.clone(),
        kept_bytes: recorder::KEPT_BYTES,
        lost: wishes.records_lost.clone(),
    };
    if plan.is_empty() {
        return None;
    }
    let line = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().to_owned()
    };
    let header = recorder::format::Header {
        version: recorder::format::VERSION,
        daemon: env!("CARGO_PKG_VERSION").to_owned(),
        node: line("/proc/sys/kernel/hostname"),
        boot: line("/proc/sys/kernel/random/boot_id"),
        entries: config
            .entry_names()
            .into_iter()
            .zip(config.entry_settings())
            .collect(),
        capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
        reason: String::new(),
        thin: false,
    };
    Recorder::start(plan, header)
        .inspect_err(|error| tracing::error!(%error, "nothing is recorded"))
        .ok()
}

/// Config entry's index plus one, by port; 0: not watched.
#[must_use]
pub fn port_table(config: &Config) -> [u8; PORTS] {
    let mut table = [0; PORTS];
    for (ports, entry) in config.port_entries() {
        let number = u8::try_from(entry + 1).unwrap_or(u8::MAX);
        for port in ports {
            table[usize::from(port)] = number;
        }
    }
    table
}
