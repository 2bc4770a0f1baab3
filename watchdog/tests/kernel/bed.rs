//! The bed that every test lies in: the programs of some signals loaded and attached, a listener
//! on a watched port, and the slots behind its connections.
//!
//! Everything is undone when it is dropped. Never: a sleep; slots are asked until they say what
//! is wanted, or a deadline is over.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use watchdog::kernel::{Kernel, Options};
use watchdog_common::layout::{
    EntryShape, FlowSlot, PORTS, SLOT_DEAD, SLOT_FREE, ShapeTable, ThreadSlot,
};

use crate::harness::clock;

/// Long enough for anything that happens at all.
pub const SOON: Duration = Duration::from_secs(3);
/// Flow slots in a bed.
pub const FLOWS: u32 = 32;

/// The name of the function it stands in.
macro_rules! here {
    () => {{
        fn inside() {}
        let name = std::any::type_name_of_val(&inside);
        name.trim_end_matches("::inside")
    }};
}
pub(crate) use here;

/// Says that a test proves nothing on this machine.
pub fn skip(name: &str, reason: &str) {
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    println!("SKIPPED: {name}: {reason}");
}

/// Loads and attaches the named signals; None, said aloud: this user may not.
pub fn load(name: &str, only: &'static [&'static str]) -> Option<Kernel> {
    let options = Options {
        btf: "/sys/kernel/btf/vmlinux".into(),
        cgroup_root: None,
        flows: FLOWS,
        debug: false,
        netns: None,
        plaintext: true,
        only: Some(only),
    };
    if !options.btf.exists() {
        skip(name, "this kernel has no BTF");
        return None;
    }
    // SAFETY: has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        skip(name, "loading programs takes root");
        return None;
    }
    let mut kernel = Kernel::load(&options).unwrap_or_else(|missing| panic!("{missing}"));
    for signal in only {
        if !kernel.report.has(signal) {
            skip(name, &format!("{signal}: {:?}", kernel.report.hooks));
            return None;
        }
    }
    let flows = kernel.state.flows.len();
    kernel
        .state
        .flows
        .ensure(flows)
        .expect("slots can be mapped");
    Some(kernel)
}

/// Programs, and a listener on a watched port.
pub struct Bed {
    /// The programs.
    pub kernel: Kernel,
    /// The grantor's listener.
    pub listener: TcpListener,
    /// Its port.
    pub port: u16,
}

/// Both ends of a connection.
#[derive(Debug)]
pub struct Pair {
    /// The end that connected.
    pub holder: End,
    /// The end that accepted.
    pub grantor: End,
}

/// One end, and its socket's cookie, which outlives it.
#[derive(Debug)]
pub struct End {
    /// The socket.
    pub stream: TcpStream,
    /// Its cookie.
    pub cookie: u64,
}

impl End {
    /// Takes a socket in.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP option");
        let cookie = cookie(&stream);
        Self { stream, cookie }
    }

    /// Writes all of it in one call.
    pub fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).expect("the peer is there");
    }

    /// Closes it by a RST, so that nothing waits for anything.
    pub fn reset(self) {
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: an open socket, and an option value of the size that is passed.
        let status = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const now).cast(),
                size_of_val(&now) as u32,
            )
        };
        assert_eq!(status, 0, "SO_LINGER");
    }
}

/// The cookie of a socket.
fn cookie(stream: &TcpStream) -> u64 {
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as u32;
    // SAFETY: an open socket, and room for the eight bytes that are announced.
    let status = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(status, 0, "SO_COOKIE");
    cookie
}

impl Bed {
    /// The named signals, on IPv4 loopback.
    pub fn with(name: &str, only: &'static [&'static str]) -> Option<Self> {
        Self::at(name, only, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// The named signals, on an address.
    pub fn at(name: &str, only: &'static [&'static str], address: SocketAddr) -> Option<Self> {
        let kernel = load(name, only)?;
        let listener = TcpListener::bind(address).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let bed = Self {
            kernel,
            listener,
            port,
        };
        bed.watch_port(1);
        Some(bed)
    }

    /// Makes the port belong to this config entry (index plus one); 0: to none.
    pub fn watch_port(&self, entry: u8) {
        let mut table = Box::new([0; PORTS]);
        table[usize::from(self.port)] = entry;
        self.kernel.state.watch_ports(&table);
    }

    /// Makes the next connection's own port belong to the first entry, and the listener's to none.
    pub fn pair_from_watched_port(&self) -> Pair {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        let holder = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            let any = (Ipv4Addr::LOCALHOST, 0).into();
            socket.bind(any).expect("a free port");
            let own = socket.local_addr().expect("it is bound").port();
            let mut table = Box::new([0; PORTS]);
            table[usize::from(own)] = 1;
            self.kernel.state.watch_ports(&table);
            let listener = self.listener.local_addr().expect("it is bound");
            let stream = socket.connect(listener).await.expect("it listens");
            let stream = stream.into_std().expect("a socket");
            stream.set_nonblocking(false).expect("a socket option");
            stream
        });
        let (grantor, _) = self.listener.accept().expect("somebody has connected");
        Pair {
            holder: End::of(holder),
            grantor: End::of(grantor),
        }
    }

    /// Says how the stream of the first config entry looks.
    pub fn describe(&self, shape: EntryShape) {
        let mut shapes = ShapeTable::default();
        (shapes.shapes[0], shapes.inside[0]) = (shape, shape);
        self.kernel.state.describe_entries(&shapes);
    }

    /// A connection to the listener, by the listener's own address.
    pub fn pair(&self) -> Pair {
        self.pair_by(self.listener.local_addr().expect("it is bound"))
    }

    /// A connection to the listener, by any address it has.
    pub fn pair_by(&self, mut address: SocketAddr) -> Pair {
        address.set_port(self.port);
        let holder = TcpStream::connect(address).expect("the listener is there");
        let (grantor, _) = self.listener.accept().expect("somebody has connected");
        Pair {
            holder: End::of(holder),
            grantor: End::of(grantor),
        }
    }

    /// The slot of an end.
    pub fn slot(&self, cookie: u64) -> Option<FlowSlot> {
        let flows = &self.kernel.state.flows;
        (0..flows.len())
            .filter_map(|index| flows.at(index))
            // SAFETY: a mapped slot; a copy that is torn is asked for again.
            .map(|slot| unsafe { slot.read_volatile() })
            .find(|slot| slot.cookie == cookie && slot.state != SLOT_FREE)
    }

    /// The slot of an end, once it says what is wanted.
    ///
    /// # Panics
    /// If it never does, with what it says.
    #[track_caller]
    pub fn until(&self, cookie: u64, what: &str, wanted: impl Fn(&FlowSlot) -> bool) -> FlowSlot {
        let found = soon(|| self.slot(cookie).filter(&wanted));
        found.unwrap_or_else(|| panic!("never {what}: {:#?}", self.slot(cookie)))
    }

    /// Says of an end's flow that nobody wants it, and gives its slot back.
    pub fn refuse(&mut self, cookie: u64) {
        let flows = &self.kernel.state.flows;
        let index = (0..flows.len()).find(|&index| {
            // SAFETY: single words of a mapped slot.
            flows.at(index).is_some_and(|slot| unsafe {
                (&raw const (*slot).cookie).read_volatile() == cookie
                    && (&raw const (*slot).state).read_volatile() != SLOT_FREE
            })
        });
        self.kernel.state.refuse_flow(index.expect("a slot"));
        self.sweep();
    }

    /// Gives dead slots back.
    pub fn sweep(&mut self) {
        for index in 0..self.kernel.state.flows.len() {
            let Some(slot) = self.kernel.state.flows.at(index) else {
                continue;
            };
            // SAFETY: one word of a mapped slot.
            if unsafe { (&raw const (*slot).state).read_volatile() } == SLOT_DEAD {
                self.kernel.state.free_flow(index);
            }
        }
    }
}

/// Asks until there is an answer or it is too late: at first without a pause, since most of what
/// is waited for here takes microseconds.
pub fn soon<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let unpaused = clock::now_us() + 2_000;
    while clock::now_us() < unpaused {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        std::thread::yield_now();
    }
    clock::poll(SOON, probe)
}

/// A thread's slot, once it says what is wanted.
///
/// # Panics
/// If it never does, with what it says.
#[track_caller]
pub fn until_thread(
    kernel: &Kernel,
    index: usize,
    what: &str,
    wanted: impl Fn(&ThreadSlot) -> bool,
) -> ThreadSlot {
    let slot = kernel.state.threads.at(index).expect("it is watched");
    // SAFETY: a mapped slot.
    let look = || unsafe { watchdog::kernel::state::copy(slot.cast_const()) };
    let found = soon(|| look().filter(&wanted));
    found.unwrap_or_else(|| panic!("never {what}: {:#?}", look()))
}

/// The calling thread, and those that it starts, on one CPU; undone when dropped. What goes over
/// loopback then stays in order.
pub struct Pinned {
    before: libc::cpu_set_t,
}

impl Pinned {
    /// Pins to the CPU that it runs on.
    pub fn here() -> Self {
        // SAFETY: has no preconditions.
        let cpu = unsafe { libc::sched_getcpu() };
        Self::to(usize::try_from(cpu).unwrap_or(0))
    }

    /// Pins to a CPU.
    pub fn to(cpu: usize) -> Self {
        // SAFETY: all-zero is an empty set; the calls only touch the sets that are passed.
        unsafe {
            let mut before: libc::cpu_set_t = std::mem::zeroed();
            let size = size_of_val(&before);
            assert_eq!(libc::sched_getaffinity(0, size, &raw mut before), 0);
            let mut only: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut only);
            assert_eq!(libc::sched_setaffinity(0, size, &raw const only), 0);
            Self { before }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: a set that the kernel has filled.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.before), &raw const self.before) };
    }
}

/// The calling thread's id.
pub fn tid() -> u32 {
    // SAFETY: has no preconditions.
    u32::try_from(unsafe { libc::gettid() }).expect("thread ids are positive")
}
