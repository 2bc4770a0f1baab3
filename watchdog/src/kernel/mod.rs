//! The kernel side as the daemon sees it: the only place that knows aya.
//!
//! In: the eBPF object, the running kernel's BTF, the cgroup v2 root. Out: [`state`], the memory
//! that the programs write, and a [`Report`] of what attached and what did not. Everything is
//! owned by this process, so whatever ends it detaches everything.

pub mod attach;
pub mod btf;
pub mod cgroup;
pub mod plaintext;
pub mod release;
pub mod self_cost;
pub mod state;
pub mod trial;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel's BTF.
    pub btf: PathBuf,
    /// The cgroup v2 root; None: found among the mounts, or mounted privately.
    pub cgroup_root: Option<PathBuf>,
    /// How many flows to keep.
    pub flows: u32,
    /// Whether the kernel programs may log (aya-log), at debug level.
    pub debug: bool,
    /// The one network namespace whose sockets are followed, by its inode number; None: all.
    pub netns: Option<u32>,
    /// Whether what is inside TLS is wanted too (see [`plaintext`]).
    pub plaintext: bool,
    /// The signals to attach; None: all of them. What is left out is not said to be missing.
    pub only: Option<&'static [&'static str]>,
}

/// A missing prerequisite, with its mend.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// A hook that was tried.
#[derive(Clone, Debug)]
pub struct Hook {
    /// What it tells: `packets`, `reads`, …
    pub signal: &'static str,
    /// Where it was to be attached.
    pub hook: &'static str,
    /// Why it is not; None: it is attached.
    pub refused: Option<String>,
}

/// What attached and what did not.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every hook tried, in order.
    pub hooks: Vec<Hook>,
    /// Whether every message in a segment is followed, however many there are: not before 5.17,
    /// where a segment of more than 512 puts the parser out of step for a while.
    pub follows_any_segment: bool,
}

impl Report {
    /// Whether any hook of this signal attached.
    #[must_use]
    pub fn has(&self, signal: &str) -> bool {
        self.hooks
            .iter()
            .any(|hook| hook.signal == signal && hook.refused.is_none())
    }
}

/// The loaded programs and their memory. Dropping it detaches everything.
pub struct Kernel {
    /// What the programs write.
    pub state: state::State,
    /// What attached.
    pub report: Report,
    /// Shared with whoever attaches to processes while the daemon runs, and gone when this is.
    programs: Arc<Mutex<aya::Ebpf>>,
}

impl Kernel {
    /// Loads and attaches.
    ///
    /// # Errors
    /// [`Missing`] where the kernel or the rights lack something that cannot be done without.
    pub fn load(options: &Options) -> Result<Self, Missing> {
        attach::load(options)
    }

    /// The loaded programs, for whoever shows what they cost.
    #[must_use]
    pub fn programs(&self) -> self_cost::Programs {
        self_cost::Programs::of(&self.locked())
    }

    /// What each loaded program has cost so far, while [`self_cost::count`] was on.
    #[must_use]
    pub fn costs(&self) -> Vec<self_cost::Cost> {
        self_cost::of(&self.locked())
    }

    /// Who attaches to the TLS libraries of processes; None: not wanted, or the kernel refuses.
    pub fn attacher(&mut self) -> Option<plaintext::Attacher> {
        if !self.report.has(plaintext::SIGNAL) {
            return None;
        }
        plaintext::Attacher::of(&self.programs)
    }

    fn locked(&self) -> MutexGuard<'_, aya::Ebpf> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn assemble(state: state::State, report: Report, programs: aya::Ebpf) -> Kernel {
    Kernel {
        state,
        report,
        programs: Arc::new(Mutex::new(programs)),
    }
}
