//! Puts the daemon together: kernel programs, memory of an earlier run, model, tick.
//!
//! In: a configuration and the command line's wishes. Out: a running tick, and what is to be said
//! of the start. The sinks are put to its other end by [`crate::run`].

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use watchdog_common::layout::PORTS;
use watchdog_model::leases::{
    book::Book,
    settings::{self, EntrySettings, Share},
};

use crate::{
    collect::existing,
    config::{Config, EntryThresholds},
    kernel::{Kernel, Missing, Options, Report},
    memory::{Remembered, Slate},
    outbox::Outbox,
    tick::{self, Control, Gauges, Tick, realtime},
};

/// What the command line wishes.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// How to load the kernel programs; None: not at all.
    pub kernel: Option<Options>,
    /// Where what is known of flows is kept.
    pub state_dir: PathBuf,
}

/// A daemon whose tick runs.
pub struct Daemon<G: Gauges + 'static> {
    /// What attached.
    pub report: Report,
    /// Whether memory is locked.
    pub memory_locked: bool,
    /// Whether the tick has real-time priority.
    pub real_time: bool,
    /// Connections older than the daemon that were found.
    pub adopted: usize,
    /// Stop, pulse, reload.
    pub control: Arc<Control>,
    /// What a later run should know.
    pub slate: Slate,
    tick: JoinHandle<Tick<G>>,
}

impl<G: Gauges + 'static> Daemon<G> {
    /// Loads, attaches, takes over what was there, and starts the tick.
    ///
    /// # Errors
    /// A prerequisite is missing.
    pub fn start(
        config: &Config,
        wishes: &Wishes,
        outbox: Outbox,
        gauges: G,
    ) -> Result<Self, Missing> {
        let ports = port_table(config);
        let mut kernel = wishes.kernel.as_ref().map(Kernel::load).transpose()?;
        let capacity = wishes
            .kernel
            .as_ref()
            .map_or(0, |options| options.flows as usize);
        let mut adopted = 0;
        if let Some(kernel) = &mut kernel {
            kernel.state.watch_ports(&ports);
            adopted = existing::adopt(&mut kernel.state, &ports, tick::clock());
        }
        let report = kernel
            .as_ref()
            .map(|kernel| kernel.report.clone())
            .unwrap_or_default();
        let control = Arc::new(Control::default());
        control.last_ns.store(tick::clock().0, Ordering::Relaxed);
        let slate = Slate::with_capacity(capacity);
        let tick = Tick {
            reads: report.has("reads"),
            kernel,
            // A flow has a lease at each of its ends that this node is.
            book: Book::new(entry_settings(config), capacity),
            outbox,
            gauges,
            remembered: Remembered::load(&wishes.state_dir),
            slate: slate.clone(),
            control: Arc::clone(&control),
        };
        trim();
        let memory_locked = match realtime::lock_memory() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "memory not locked: a warning may wait for a page");
                false
            }
        };
        let real_time = realtime::can();
        if !real_time {
            tracing::warn!("no real-time priority for the tick; nice -20 instead");
        }
        let tick = tick
            .start(realtime::Wish)
            .map_err(|error| Missing(format!("the tick's thread cannot be started: {error}")))?;
        Ok(Self {
            report,
            memory_locked,
            real_time,
            adopted,
            control,
            slate,
            tick,
        })
    }

    /// Ends the tick and detaches everything.
    pub fn stop(self) {
        self.control.stop.store(true, Ordering::Relaxed);
        // A tick that panicked has aborted the process already.
        drop(self.tick.join());
    }

    /// Hands a changed configuration to the tick.
    pub fn reload(control: &Control, config: &Config) {
        control.reload.push(tick::Reload {
            entries: entry_settings(config),
            ports: Box::new(port_table(config)),
        });
    }
}

/// Gives back what reading the kernel's type information took: tens of megabytes.
fn trim() {
    // SAFETY: has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// The model's settings of each entry.
#[must_use]
pub fn entry_settings(config: &Config) -> Vec<EntrySettings> {
    config.entry_settings().iter().map(settings_of).collect()
}

fn settings_of(entry: &EntryThresholds) -> EntrySettings {
    EntrySettings {
        margin_ns: entry.margin_ns,
        late_after_ns: entry.late_after_ns,
        at_risk: share(entry.at_risk),
        at_risk_stalled: share(entry.at_risk_stalled),
        jeopardy: share(entry.jeopardy),
        hard_stall_ns: entry.hard_stall_ns.unwrap_or(u64::MAX),
        use_stall_proof: entry.hard_stall_ns.is_some(),
        assumed_cadence: share(entry.assumed_cadence),
        timeout_ns: entry.timeout_ns,
        renew_every_ns: entry.renew_every_ns,
        roles: settings::Roles {
            holder: entry.holder,
            grantor: entry.grantor,
        },
        ..EntrySettings::default()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the configuration takes 0 % to 100 %"
)]
fn share(of: f64) -> Share {
    Share::percent((of * 100.0).round() as u32)
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
