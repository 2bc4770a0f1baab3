//! Where things lie in a tree of the project: the working tree, or a mutant's copy of it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The BPF target that the kernel programs are compiled for.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// One tree of the project, by its top folder.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The tree that this xtask was compiled from.
    pub fn of_project() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here
            .parent()
            .with_context(|| format!("{} has no parent folder", here.display()))?;
        Ok(Self::at(root))
    }

    /// The tree whose top is `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The top folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kernel programs' crate, a workspace of its own.
    pub fn ebpf(&self) -> PathBuf {
        self.root.join("watchdog-ebpf")
    }

    /// Everything that the host's cargo makes.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Everything that the BPF toolchain's cargo makes.
    pub fn bpf_target(&self) -> PathBuf {
        self.target().join("bpf")
    }

    /// What cargo calls the finished kernel programs.
    pub fn bpf_artifact(&self) -> PathBuf {
        self.bpf_target()
            .join(BPF_TARGET)
            .join("release/watchdog-ebpf")
    }

    /// The finished kernel programs, where the daemon's build script looks for them.
    pub fn object(&self) -> PathBuf {
        self.bpf_target().join("watchdog-ebpf.o")
    }

    /// The same for kernels before 5.17.
    pub fn old_object(&self) -> PathBuf {
        self.bpf_target().join("watchdog-ebpf-old.o")
    }

    /// The empty programs that the bench compares with.
    pub fn empty_object(&self) -> PathBuf {
        self.bpf_target()
            .join(BPF_TARGET)
            .join("release/watchdog-empty")
    }

    /// The daemon's binary of a profile's folder (`release`, `debug`).
    pub fn daemon(&self, profile: &str) -> PathBuf {
        self.target().join(profile).join("lease-watchdog")
    }

    /// The program that measures, in a profile's folder.
    pub fn bench(&self, profile: &str) -> PathBuf {
        self.target().join(profile).join("watchdog-bench")
    }

    /// The daemon's integration tests.
    pub fn daemon_tests(&self) -> PathBuf {
        self.root.join("watchdog/tests")
    }

    /// Tools of this tree alone, where the machine's own don't fit.
    pub fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// The Debian package.
    pub fn package(&self) -> PathBuf {
        self.target().join("debian/lease-watchdog.deb")
    }

    /// The mutated copy of the tree, and its logs.
    pub fn mutants(&self) -> PathBuf {
        self.target().join("mutants")
    }
}
