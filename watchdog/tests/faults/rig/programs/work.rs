//! What a holder's I/O thread does beside its I/O: the habits that make incidents.

use crate::harness::clock;
use std::cell::UnsafeCell;
use std::fs::File;
use std::io::Write as _;
use std::net::ToSocketAddrs as _;
use std::os::fd::AsRawFd as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The size of a page, everywhere that this runs.
const PAGE: usize = 4_096;
/// A mapped file: more pages than are read while nothing is wrong.
pub const MAPPED_BYTES: usize = 64 << 20;
/// How much CPU "computes a little" is.
const LITTLE_US: i64 = 200_000;
/// Touches that thrash: 0.1 s with all pages in memory, many seconds with a quarter of them.
const TOUCHES: usize = 600_000;

/// A habit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Nothing beside the I/O.
    None,
    /// Writes and fsyncs a file.
    Fsync,
    /// Writes a line to a log, without fsync.
    Log,
    /// Reads a new page of a mapped file.
    Mapped,
    /// Takes a mutex, whose other user fsyncs a file under it (a mutex of the C library).
    MutexDisk,
    /// The same with Rust's mutex, which does not know its owner.
    PlainMutexDisk,
    /// Takes a mutex, whose owner computes for ever when told to.
    MutexCompute,
    /// Takes a mutex, whose owner sleeps for ever when told to.
    MutexSleep,
    /// Computes for 0.2 s of CPU.
    Compute,
    /// Computes for ever when told to.
    Callback,
    /// Looks up a name.
    Lookup,
    /// Reads 64 MB of a mapped file here and there.
    Thrash,
    /// Sends 5,000 requests at once.
    Burst,
    /// Sends 60 kB writes.
    Flood,
    /// Sends one write.
    Write,
}

impl Habit {
    const ALL: [(Self, &'static str); 15] = [
        (Self::None, "none"),
        (Self::Fsync, "fsync"),
        (Self::Log, "log"),
        (Self::Mapped, "mapped"),
        (Self::MutexDisk, "mutex-disk"),
        (Self::PlainMutexDisk, "plain-mutex-disk"),
        (Self::MutexCompute, "mutex-compute"),
        (Self::MutexSleep, "mutex-sleep"),
        (Self::Compute, "compute"),
        (Self::Callback, "callback"),
        (Self::Lookup, "lookup"),
        (Self::Thrash, "thrash"),
        (Self::Burst, "burst"),
        (Self::Flood, "flood"),
        (Self::Write, "write"),
    ];

    /// The habit of a name.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(habit, _)| *habit)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(habit, _)| *habit == self);
        found.map_or("none", |(_, name)| name)
    }
}

/// Requests to send beside the keepalive.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    pub small: usize,
    pub large: usize,
}

/// A habit with what it needs.
pub struct Work {
    habit: Habit,
    file: Option<File>,
    mapped: Option<&'static [u8]>,
    page: usize,
    go: &'static AtomicBool,
}

static PLAIN: Mutex<()> = Mutex::new(());

/// A mutex as C and C++ programs have it: it knows its owner.
struct CMutex(UnsafeCell<libc::pthread_mutex_t>);
// SAFETY: a pthread mutex is made to be used from several threads, and never moves: it is static.
unsafe impl Sync for CMutex {}
static SHARED: CMutex = CMutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

impl CMutex {
    fn with<T>(&self, body: impl FnOnce() -> T) -> T {
        // SAFETY: the mutex is initialised and static.
        unsafe { libc::pthread_mutex_lock(self.0.get()) };
        let result = body();
        // SAFETY: as above, and this thread holds it.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
        result
    }
}

impl Work {
    pub fn new(habit: Habit, path: &str, go: &'static AtomicBool) -> Self {
        let open = |write: bool| {
            let mut options = File::options();
            options.read(true).append(write).create(write);
            options
                .open(path)
                .unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let mut work = Self {
            habit,
            file: None,
            mapped: None,
            page: usize::try_from(std::process::id()).unwrap_or(0),
            go,
        };
        match habit {
            Habit::Fsync | Habit::Log => work.file = Some(open(true)),
            Habit::Mapped | Habit::Thrash => work.mapped = Some(map(&open(false))),
            Habit::MutexDisk | Habit::PlainMutexDisk => {
                let file = open(true);
                owner(move || sync_under_lock(&file, habit));
            }
            Habit::MutexCompute | Habit::MutexSleep => {
                owner(move || hold_when_told(go, habit));
            }
            _ => {}
        }
        work
    }

    /// Does it once; says what is to be sent.
    pub fn once(&mut self) -> Requests {
        let mut requests = Requests::default();
        match self.habit {
            Habit::None => {}
            Habit::Fsync => {
                self.write_line();
                self.file.as_ref().map(File::sync_all);
            }
            Habit::Log => self.write_line(),
            Habit::Mapped => self.touch(1),
            Habit::Thrash => self.touch(TOUCHES),
            Habit::MutexDisk | Habit::MutexCompute | Habit::MutexSleep => SHARED.with(|| {}),
            Habit::PlainMutexDisk => drop(PLAIN.lock()),
            Habit::Compute => compute(LITTLE_US),
            Habit::Callback => {
                if self.go.load(Ordering::Acquire) {
                    compute(i64::MAX);
                }
            }
            Habit::Lookup => drop("zk.faults.test:2181".to_socket_addrs()),
            Habit::Burst => requests.small = 5_000,
            Habit::Flood => requests.large = 4,
            Habit::Write => requests.large = 1,
        }
        requests
    }

    fn write_line(&mut self) {
        if let Some(file) = &mut self.file {
            drop(writeln!(
                file,
                "{} the I/O thread is about to ping",
                clock::now_us()
            ));
        }
    }

    fn touch(&mut self, count: usize) {
        let Some(mapped) = self.mapped else { return };
        let pages = mapped.len() / PAGE;
        for _ in 0..count {
            // Steps of a full-period generator: each page once in each round, in no order that
            // read-ahead knows.
            self.page = (self
                .page
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223))
                % pages;
            std::hint::black_box(mapped[self.page * PAGE]);
        }
    }
}

/// Starts the mutex's other user.
fn owner(body: impl FnOnce() + Send + 'static) {
    let named = std::thread::Builder::new().name("lock-owner".into());
    named.spawn(body).expect("a thread");
}

fn sync_under_lock(mut file: &File, habit: Habit) {
    loop {
        let mut sync = || {
            drop(writeln!(file, "{} under the lock", clock::now_us()));
            drop(file.sync_all());
        };
        if habit == Habit::MutexDisk {
            SHARED.with(&mut sync);
        } else {
            let _guard = PLAIN.lock();
            sync();
        }
        clock::observe_for(Duration::from_millis(50));
    }
}

fn hold_when_told(go: &AtomicBool, habit: Habit) {
    loop {
        SHARED.with(|| {
            if go.load(Ordering::Acquire) {
                if habit == Habit::MutexCompute {
                    compute(i64::MAX);
                }
                clock::observe_for(Duration::from_secs(3_600));
            }
        });
        clock::observe_for(Duration::from_millis(20));
    }
}

/// Uses so much CPU, however long that takes.
fn compute(cpu_us: i64) {
    let start = thread_cpu_us();
    while thread_cpu_us() - start < cpu_us {
        for _ in 0..10_000 {
            std::hint::spin_loop();
        }
    }
}

fn thread_cpu_us() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid, writable timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec * clock::SECOND + time.tv_nsec / 1_000
}

/// Maps a whole file for reading, without read-ahead; it stays mapped.
fn map(file: &File) -> &'static [u8] {
    let length = usize::try_from(file.metadata().expect("a file").len()).expect("a small file");
    // SAFETY: a new mapping of a file that we have open; its length is the file's.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(address, libc::MAP_FAILED, "mmap");
    // SAFETY: the mapping has that length and is never undone.
    unsafe {
        libc::madvise(address, length, libc::MADV_RANDOM);
        std::slice::from_raw_parts(address.cast(), length)
    }
}
