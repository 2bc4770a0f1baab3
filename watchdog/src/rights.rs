//! Fewer rights once the kernel programs are attached, and for every thread but one from the start.
//!
//! In: the capabilities that the process was started with. Out: a [`Loader`], a thread that keeps them all
//! until it has loaded and attached, and is gone then; all other threads have what is [`kept`] and can never
//! have more, since capabilities belong to threads and are inherited by those that they make. Never: a right
//! that the process was not given.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use caps::{CapSet, Capability, CapsHashSet};

use crate::collect::tls::{self, Wants};
use crate::kernel::plaintext::Attacher;
use crate::kernel::{Kernel, Missing, Options, release};
use crate::tick;

/// From this kernel on maps that are open are read and written without CAP_BPF, whatever
/// `kernel.unprivileged_bpf_disabled` says; before, taking over connections after a reload would fail.
const MAPS_ARE_FREE: (u32, u32) = (5, 19);

/// What the running daemon goes on to need, of what it was given.
#[must_use]
pub fn kept(kernel: (u32, u32)) -> CapsHashSet {
    let mut kept = CapsHashSet::from([
        // Connections found after a reload; what late threads wait for; executables of new processes.
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
        // Memory that comes later is locked too.
        Capability::CAP_IPC_LOCK,
        // The tick takes its real-time priority itself.
        Capability::CAP_SYS_NICE,
        // Where it was given: kernel stacks of late threads, and the programs' cost.
        Capability::CAP_SYS_ADMIN,
        // Where it was given (as root): event files and recordings in folders of others.
        Capability::CAP_DAC_OVERRIDE,
    ]);
    if kernel < MAPS_ARE_FREE {
        kept.insert(Capability::CAP_BPF);
    }
    kept
}

/// The thread that may still load programs.
#[derive(Debug)]
pub struct Loader {
    order: SyncSender<Options>,
    outcome: Receiver<Result<(Kernel, Option<Wants>), Missing>>,
}

impl Loader {
    /// Starts the thread, and takes from the calling one what is not [`kept`]. To be called before any other
    /// thread is made.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start() -> io::Result<Self> {
        let (order, orders) = sync_channel::<Options>(1);
        let (told, outcome) = sync_channel(1);
        thread::Builder::new()
            .name("loader".into())
            .spawn(move || {
                // Without an order there is nothing to load, and the sender is gone.
                if let Ok(options) = orders.recv() {
                    let outcome = Kernel::load(&options).map(|mut kernel| {
                        let wants = kernel.attacher().and_then(tls_thread);
                        (kernel, wants)
                    });
                    let _ = told.send(outcome);
                }
            })?;
        if let Err(error) = give_up(&kept(running_kernel())) {
            tracing::warn!(%error, "the rights to load programs are kept");
        }
        Ok(Self { order, outcome })
    }

    /// Loads and attaches; the thread and its rights are gone afterwards. But where streams inside TLS are to be
    /// read, a thread goes on that may attach to processes and has no more rights than that takes.
    ///
    /// # Errors
    /// As [`Kernel::load`].
    pub fn load(self, options: Options) -> Result<(Kernel, Option<Wants>), Missing> {
        let gone = || Missing("the thread that loads the programs is gone".to_owned());
        self.order.send(options).map_err(|_| gone())?;
        self.outcome.recv().map_err(|_| gone())?
    }
}

/// Starts the thread that attaches to TLS libraries.
fn tls_thread(attacher: Attacher) -> Option<Wants> {
    let settle = || {
        let mut rights = kept(running_kernel());
        rights.insert(Capability::CAP_PERFMON);
        if let Err(error) = give_up(&rights) {
            tracing::warn!(%error, "the rights to load programs are kept");
        }
    };
    tls::start(attacher, tick::clock, settle)
        .inspect_err(|error| tracing::warn!(%error, "plaintext under TLS is not looked for"))
        .ok()
}

/// Takes from the calling thread whatever it has beyond `kept`.
fn give_up(kept: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let has = caps::read(None, set)?;
        let left: CapsHashSet = has.intersection(kept).copied().collect();
        if left != has {
            caps::set(None, set, &left)?;
        }
    }
    Ok(())
}

/// The running kernel's major and minor version; nothing is known to be free in one that cannot be read.
#[must_use]
pub fn running_kernel() -> (u32, u32) {
    release::version(&release::running()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loads_is_not_kept_where_maps_are_free() {
        for gone in [Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON] {
            assert!(!kept((6, 1)).contains(&gone) && !kept((5, 17)).contains(&gone));
        }
        assert!(kept((5, 18)).contains(&Capability::CAP_BPF));
        assert!(!kept((5, 19)).contains(&Capability::CAP_BPF));
    }

    /// On a thread of its own: the test's other threads keep what they have.
    #[test]
    fn what_was_given_up_is_gone_for_good() {
        let outcome = thread::spawn(|| {
            let kept = kept((6, 18));
            give_up(&kept).unwrap();
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                assert!(caps::read(None, set).unwrap().is_subset(&kept), "{set:?}");
            }
            caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_err();
        });
        outcome.join().unwrap();
    }
}
