//! The calls of TLS libraries, in one process after the other, while the daemon runs.
//!
//! In: a process, and where in which file its library's functions are. Out: probes on them, until they are
//! taken away or the kernel side is dropped. Needs CAP_PERFMON for as long as processes may come. Never: a
//! process that was not named.

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeLinkId, UProbeScope},
    },
};
use watchdog_model::Mono;

/// What the signal is called.
pub const SIGNAL: &str = "plaintext";
/// The program that looks at what a call gave or took.
pub(super) const RETURN: &str = "tls_return";
const FREE: &str = "tls_free";
/// All of its programs.
pub(super) const PROGRAMS: [&str; 6] = [
    "tls_write",
    "tls_write_ex",
    "tls_read",
    "tls_read_ex",
    RETURN,
    FREE,
];

/// A function that moves plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// `SSL_write`.
    Write,
    /// `SSL_write_ex`.
    WriteEx,
    /// `SSL_read`.
    Read,
    /// `SSL_read_ex`.
    ReadEx,
    /// `SSL_free`.
    Free,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Write,
        Self::WriteEx,
        Self::Read,
        Self::ReadEx,
        Self::Free,
    ];

    /// What libraries call it (openssl/ssl.h).
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Write => "SSL_write",
            Self::WriteEx => "SSL_write_ex",
            Self::Read => "SSL_read",
            Self::ReadEx => "SSL_read_ex",
            Self::Free => "SSL_free",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Write => "tls_write",
            Self::WriteEx => "tls_write_ex",
            Self::Read => "tls_read",
            Self::ReadEx => "tls_read_ex",
            Self::Free => FREE,
        }
    }
}

/// A file that has these functions, each at an offset in it.
#[derive(Clone, Debug)]
pub struct Library {
    /// Where the file can be had from.
    pub path: PathBuf,
    /// Its functions.
    pub functions: Vec<(Function, u64)>,
}

/// Attaches to processes.
pub struct Attacher {
    programs: Weak<Mutex<Ebpf>>,
    processes: HashMap<MapData, u32, [u64; 2]>,
}

/// What is attached to one process.
#[derive(Debug)]
pub struct Attached {
    pid: u32,
    links: Vec<(&'static str, UProbeLinkId)>,
}

impl Attacher {
    pub(super) fn of(programs: &Arc<Mutex<Ebpf>>) -> Option<Self> {
        let map = programs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_map("TLS_PROCESSES")?;
        Some(Self {
            programs: Arc::downgrade(programs),
            processes: HashMap::try_from(map).ok()?,
        })
    }

    /// Whether there is still anything to attach.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.programs.strong_count() == 0
    }

    /// Attaches to all calls of a process, or to none.
    ///
    /// # Errors
    /// In one line: the process is gone, the file is, or the rights are.
    pub fn attach(
        &mut self,
        pid: u32,
        libraries: &[Library],
        clock: fn() -> Mono,
    ) -> Result<Attached, String> {
        let process = NonZeroU32::new(pid).ok_or("process 0")?;
        let mut attached = Attached {
            pid,
            links: Vec::new(),
        };
        for library in libraries {
            for (function, offset) in &library.functions {
                let mut names = vec![function.program()];
                if *function != Function::Free {
                    names.push(RETURN);
                }
                for name in names {
                    match self.probe(name, library, *offset, process) {
                        Ok(link) => attached.links.push((name, link)),
                        Err(error) => {
                            self.detach(attached);
                            return Err(format!("{}: {error}", library.path.display()));
                        }
                    }
                }
            }
        }
        // From here on no call goes past unseen.
        let since = [clock().0, 0];
        if let Err(error) = self.processes.insert(pid, since, 0) {
            self.detach(attached);
            return Err(format!("map TLS_PROCESSES: {error}"));
        }
        Ok(attached)
    }

    fn probe(
        &self,
        name: &'static str,
        library: &Library,
        offset: u64,
        process: NonZeroU32,
    ) -> Result<UProbeLinkId, String> {
        let programs = self.programs.upgrade().ok_or("the daemon ends")?;
        let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
        let program = programs
            .program_mut(name)
            .ok_or("the object has no such program")?;
        let program: &mut UProbe = program
            .try_into()
            .map_err(|error: ProgramError| error.to_string())?;
        program
            .attach(
                UProbeAttachLocation::AbsoluteOffset(offset),
                &library.path,
                UProbeScope::OneProcess(process),
            )
            .map_err(|error| super::attach::chain(&error))
    }

    /// How many calls the process has made; None: it is not attached to.
    #[must_use]
    pub fn calls(&self, pid: u32) -> Option<u64> {
        self.processes.get(&pid, 0).ok().map(|[_, calls]| calls)
    }

    /// Takes the probes away.
    pub fn detach(&mut self, attached: Attached) {
        // Before the probes: a call between its beginning and its return is then not followed.
        let _ = self.processes.remove(&attached.pid);
        let Some(programs) = self.programs.upgrade() else {
            return;
        };
        let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, link) in attached.links {
            let program = programs.program_mut(name).map(<&mut UProbe>::try_from);
            if let Some(Ok(program)) = program
                && let Err(error) = program.detach(link)
            {
                tracing::debug!(%error, name, "a probe cannot be taken away");
            }
        }
    }
}
