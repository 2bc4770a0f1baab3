//! The memory that the kernel programs write, mapped: read without a system call.
//!
//! In: maps of the loaded object. Out: copies of slots that are whole (a torn one is refused),
//! and the few things that the daemon writes: watched ports and threads, free slots.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering, fence},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, SkStorage, Stack},
};
use watchdog_common::layout::{
    DEVICE_TRIES, DEVICES, DeviceSlot, Direction, FlowSlot, Losses, PortTable, Reads, SLOT_DEAD,
    SLOT_FREE, SLOT_LIVE, ShapeTable, SlotRef, THREADS, ThreadBits, ThreadSlot, WAIT_SHARDS, Waits,
    Writes, device_place,
};

use super::Missing;
use super::attach::refused;

/// How many elements are mapped at a time. A multiple of 512, so that a chunk of 8-byte-aligned
/// elements is whole pages.
const CHUNK: usize = 512;

/// An array map, mapped read-write and shared with the kernel, chunk by chunk as it comes into use:
/// the kernel counts every mapped page of a map as resident, touched or not.
pub struct Mapped<T> {
    chunks: Vec<NonNull<T>>,
    len: usize,
    map: MapData,
    kind: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway; every access goes through raw pointers,
// volatile or checked by a version word.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    fn new(map: MapData, len: usize) -> io::Result<Self> {
        let mut mapped = Self {
            chunks: Vec::with_capacity(len.div_ceil(CHUNK)),
            len,
            map,
            kind: PhantomData,
        };
        mapped.ensure(1)?;
        Ok(mapped)
    }

    /// Maps the first `count` elements. Costs a system call when they reach into a new chunk, and
    /// no allocation.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn ensure(&mut self, count: usize) -> io::Result<()> {
        let count = count.min(self.len);
        // SAFETY: sysconf has no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        while self.chunks.len() * CHUNK < count {
            let first = self.chunks.len() * CHUNK;
            let bytes = (CHUNK.min(self.len - first) * size_of::<T>()).next_multiple_of(page);
            let offset = libc::off_t::try_from(first * size_of::<T>()).unwrap_or(libc::off_t::MAX);
            // SAFETY: a fresh mapping of bytes that the array has.
            let base = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    bytes,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    self.map.fd().as_fd().as_raw_fd(),
                    offset,
                )
            };
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            self.chunks
                .push(NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(())
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element at `index`; None beyond what is mapped.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<*mut T> {
        if index >= self.len {
            return None;
        }
        let chunk = self.chunks.get(index / CHUNK)?;
        // SAFETY: within the chunk's mapping.
        Some(unsafe { chunk.as_ptr().add(index % CHUNK) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        for (number, chunk) in self.chunks.iter().enumerate() {
            let bytes = CHUNK.min(self.len - number * CHUNK) * size_of::<T>();
            // SAFETY: a mapping made in `ensure`, not used after this; the kernel rounds to pages.
            unsafe { libc::munmap(chunk.as_ptr().cast(), bytes) };
        }
    }
}

/// A block with a version word in front.
pub trait Versioned: Copy {}
impl Versioned for Direction {}
impl Versioned for Reads {}
impl Versioned for Writes {}
impl Versioned for ThreadSlot {}

/// Tries before a copy is given up for this tick; a writer is done within a microsecond.
const COPY_TRIES: usize = 64;

/// Copies a block that is whole. None: a writer was at it all the time, or was interrupted in
/// the middle; the next tick will do.
///
/// # Safety
/// `block` points into a mapping and starts with its version word.
#[must_use]
pub unsafe fn copy<T: Versioned>(block: *const T) -> Option<T> {
    for _ in 0..COPY_TRIES {
        // SAFETY: by contract.
        let before = unsafe { block.cast::<u32>().read_volatile() };
        if before & 1 != 0 {
            std::hint::spin_loop();
            continue;
        }
        fence(Ordering::Acquire);
        // SAFETY: by contract; a torn copy is thrown away below, and every bit pattern is valid.
        let copied = unsafe { block.read_volatile() };
        fence(Ordering::Acquire);
        // SAFETY: by contract.
        if unsafe { block.cast::<u32>().read_volatile() } == before {
            return Some(copied);
        }
    }
    None
}

/// Everything shared with the programs.
pub struct State {
    /// Flow slots.
    pub flows: Mapped<FlowSlot>,
    /// Thread slots.
    pub threads: Mapped<ThreadSlot>,
    ports: Mapped<PortTable>,
    shapes: Mapped<ShapeTable>,
    thread_bits: Mapped<ThreadBits>,
    losses: Mapped<Losses>,
    waits: Mapped<Waits>,
    devices: Option<Devices>,
    free: Stack<MapData, u32>,
    thread_slots: HashMap<MapData, u32, u32>,
    sockets: Sockets,
    /// One more than the highest slot that the daemon has taken itself.
    own_high_water: usize,
    /// Slots that the free stack has not taken back yet.
    returning: Vec<u32>,
}

/// Which slot a socket has.
enum Sockets {
    /// By the socket's own storage.
    Storage(SkStorage<MapData, u64>),
    /// By its cookie: the programs for old kernels.
    Cookies(HashMap<MapData, u64, u64>),
}

impl Sockets {
    fn take(programs: &mut Ebpf) -> Result<Self, Missing> {
        match programs.map("SOCKETS") {
            Some(Map::HashMap(_)) => Ok(Self::Cookies(take(programs, "SOCKETS")?)),
            _ => Ok(Self::Storage(take(programs, "SOCKETS")?)),
        }
    }
}

/// A slot as both maps hold it.
fn packed(at: SlotRef) -> u64 {
    u64::from(at.generation) << 32 | u64::from(at.index)
}

impl State {
    pub(super) fn map(programs: &mut Ebpf, flows: u32) -> Result<Self, Missing> {
        let state = Self {
            flows: array(programs, "FLOWS", flows as usize)?,
            threads: array(programs, "THREADS", THREADS)?,
            ports: array(programs, "PORTS", 1)?,
            shapes: array(programs, "SHAPES", 1)?,
            thread_bits: array(programs, "THREAD_BITS", 1)?,
            losses: array(programs, "LOSSES", 1)?,
            waits: array(programs, "WAITS", WAIT_SHARDS)?,
            devices: Some(Devices::map(programs)?),
            free: take(programs, "FREE")?,
            thread_slots: take(programs, "THREAD_SLOTS")?,
            sockets: Sockets::take(programs)?,
            own_high_water: 0,
            returning: Vec::with_capacity(flows as usize),
        };
        state.stocked(flows)
    }

    /// Puts every slot on the free stack, the lowest on top, so that few slots stay few pages.
    fn stocked(mut self, flows: u32) -> Result<Self, Missing> {
        for index in (0..flows).rev() {
            self.free
                .push(index, 0)
                .map_err(|error| refused("map FREE", &error))?;
        }
        Ok(self)
    }

    /// Which config entry watches which ports: index plus one, 0 for none.
    pub fn watch_ports(&self, table: &[u8; watchdog_common::layout::PORTS]) {
        if let Some(ports) = self.ports.at(0) {
            // SAFETY: a byte for each port; the programs read single bytes.
            unsafe { (&raw mut (*ports).entry_of).write_volatile(*table) };
        }
    }

    /// How the config entries' streams look. To be called before the ports that lead to them are
    /// watched.
    pub fn describe_entries(&self, shapes: &ShapeTable) {
        if let Some(table) = self.shapes.at(0) {
            // SAFETY: room for all entries. An entry's shape never changes while its port is watched.
            unsafe { table.write_volatile(*shapes) };
        }
    }

    /// What block devices have in flight, for whoever gathers facts; None: given away already.
    pub fn take_devices(&mut self) -> Option<Devices> {
        self.devices.take()
    }

    /// What could not be done so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        // SAFETY: counters, each read as a word.
        self.losses
            .at(0)
            .map_or_else(Losses::default, |at| unsafe { at.read_volatile() })
    }

    /// Waits that are over, all CPUs together.
    #[must_use]
    pub fn waits(&self) -> Waits {
        let mut all = Waits::default();
        for at in (0..WAIT_SHARDS).filter_map(|shard| self.waits.at(shard)) {
            // SAFETY: in the mapping; counters, each read as a word.
            let one = unsafe { at.read_volatile() };
            for (sum, part) in [
                (&mut all.runqueue, one.runqueue),
                (&mut all.blocked, one.blocked),
                (&mut all.commits, one.commits),
            ] {
                sum.sum_ns = sum.sum_ns.wrapping_add(part.sum_ns);
                for (bin, more) in sum.bins.iter_mut().zip(part.bins) {
                    *bin = bin.wrapping_add(more);
                }
            }
        }
        all
    }

    /// Ends a live slot whose flow nobody wants; its socket never gets another. It is free once it has
    /// been found dead.
    pub fn refuse_flow(&self, index: usize) {
        if let Some(slot) = self.flows.at(index) {
            // SAFETY: a word in the mapping, written by others too: hence the exchange.
            let state = unsafe { AtomicU32::from_ptr(&raw mut (*slot).state) };
            // Else its socket is gone already.
            let _ =
                state.compare_exchange(SLOT_LIVE, SLOT_DEAD, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Zeroes a dead slot and gives it back.
    pub fn free_flow(&mut self, index: usize) {
        let Some(slot) = self.flows.at(index) else {
            return;
        };
        let Ok(number) = u32::try_from(index) else {
            return;
        };
        // SAFETY: a dead slot belongs to the daemon until it is back on the free stack.
        unsafe {
            let generation = (*slot).generation;
            let ended = (&raw const (*slot).life.closed_ns).read_volatile() != 0;
            self.untie((*slot).cookie, number, generation, ended);
            let generation = generation.wrapping_add(1);
            slot.write_bytes(0, 1);
            (*slot).generation = generation;
            (&raw mut (*slot).state).write_volatile(SLOT_FREE);
        }
        self.returning.push(number);
        self.give_back();
    }

    /// Gives back what the free stack did not take before: it refuses when its lock is not to be had
    /// for a quarter of a second (kernel/bpf/rqspinlock.c), as on a CPU that the hypervisor took away.
    pub fn give_back(&mut self) {
        while let Some(number) = self.returning.last() {
            if self.free.push(*number, 0).is_err() {
                return;
            }
            self.returning.pop();
        }
    }

    /// No slot from here on has ever been in use, but for some that two CPUs take just now.
    #[must_use]
    pub fn high_water(&self) -> usize {
        usize::try_from(self.losses().high_water)
            .unwrap_or(usize::MAX)
            .max(self.own_high_water)
    }

    /// Takes a free slot for a socket that the daemon found itself.
    pub fn take_flow(&mut self) -> Option<usize> {
        let index = self.free.pop(0).ok()? as usize;
        self.flows.ensure(index + 1).ok()?;
        // The kernel programs' own mark is theirs to write.
        self.own_high_water = self.own_high_water.max(index + 1);
        Some(index)
    }

    /// Ties a socket to a slot unless it has one already.
    ///
    /// # Errors
    /// It has one, or the kernel refuses.
    pub fn tie(
        &mut self,
        socket: BorrowedFd<'_>,
        cookie: u64,
        at: SlotRef,
    ) -> Result<(), aya::maps::MapError> {
        /// BPF_NOEXIST (include/uapi/linux/bpf.h).
        const NO_EXIST: u64 = 1;
        let value = packed(at);
        match &mut self.sockets {
            Sockets::Storage(sockets) => sockets.insert(&socket.as_raw_fd(), value, NO_EXIST),
            Sockets::Cookies(sockets) => sockets.insert(cookie, value, NO_EXIST),
        }
    }

    /// Forgets a socket that has ended, where its own end does not do that. One that lives on has been
    /// refused, and what is noted of it goes on leading to no slot of its own.
    fn untie(&mut self, cookie: u64, index: u32, generation: u32, ended: bool) {
        if let Sockets::Cookies(sockets) = &mut self.sockets
            && ended
            && sockets.get(&cookie, 0).ok() == Some(packed(SlotRef { index, generation }))
        {
            let _ = sockets.remove(&cookie);
        }
    }

    /// Starts watching a thread in this slot.
    pub fn watch_thread(&mut self, tid: u32, index: usize, seed: ThreadSlot) -> bool {
        if self.threads.ensure(index + 1).is_err() {
            return false;
        }
        let (Some(slot), Ok(number)) = (self.threads.at(index), u32::try_from(index)) else {
            return false;
        };
        // SAFETY: the slot is unused until the map below leads to it.
        unsafe { slot.write_volatile(ThreadSlot { tid, ..seed }) };
        if self.thread_slots.insert(tid, number, 0).is_err() {
            return false;
        }
        self.set_thread_bit(tid, true);
        true
    }

    /// Stops watching a thread.
    pub fn unwatch_thread(&mut self, tid: u32) {
        self.set_thread_bit(tid, false);
        let _ = self.thread_slots.remove(&tid);
    }

    fn set_thread_bit(&self, tid: u32, on: bool) {
        let Some(bits) = self.thread_bits.at(0) else {
            return;
        };
        if tid >= watchdog_common::layout::TID_LIMIT {
            return;
        }
        // SAFETY: within the table; only the daemon's one tick thread writes it.
        unsafe {
            let word = (&raw mut (*bits).words)
                .cast::<u64>()
                .add((tid / 64) as usize);
            let bit = 1_u64 << (tid % 64);
            let now = word.read_volatile();
            word.write_volatile(if on { now | bit } else { now & !bit });
        }
    }
}

/// What block devices have in flight. A part of its own: it is read where the facts for a verdict
/// are had, which is not the tick.
pub struct Devices {
    slots: Mapped<DeviceSlot>,
    requests: HashMap<MapData, u64, [u64; 2]>,
}

/// What one device has in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// How many requests.
    pub requests: u64,
    /// When a request was last given to it; 0: never seen.
    pub issued_ns: u64,
    /// When it last finished one; 0: never seen.
    pub completed_ns: u64,
    /// Since when a journal on it commits; 0: none does.
    pub commit_since_ns: u64,
    /// How many requests it has finished.
    pub completed: u64,
}

// SAFETY: shared references only read words of the mapping, volatile, and ask the kernel about a
// map by its descriptor; both may be done from any thread.
unsafe impl Sync for Devices {}

impl Devices {
    fn map(programs: &mut Ebpf) -> Result<Self, Missing> {
        let mut slots = array(programs, "DEVICES", DEVICES)?;
        slots
            .ensure(DEVICES)
            .map_err(|error| refused("mapping DEVICES", &error))?;
        Ok(Self {
            slots,
            requests: take(programs, "REQUESTS")?,
        })
    }

    /// A copy of a device's slot; None: nothing of it was seen.
    #[must_use]
    pub fn slot(&self, device: u32) -> Option<DeviceSlot> {
        if device == 0 {
            return None;
        }
        let place = device_place(device);
        (0..DEVICE_TRIES).find_map(|step| {
            let slot = self.slots.at((place + step) & (DEVICES - 1))?;
            // SAFETY: in the mapping; each word stands for itself.
            let slot = unsafe { slot.read_volatile() };
            (slot.device == device).then_some(slot)
        })
    }

    /// All devices of which anything was seen.
    pub fn all(&self) -> impl Iterator<Item = DeviceSlot> {
        (0..DEVICES).filter_map(|at| {
            let slot = self.slots.at(at)?;
            // SAFETY: as above.
            let slot = unsafe { slot.read_volatile() };
            (slot.device != 0).then_some(slot)
        })
    }

    /// What a device has in flight.
    #[must_use]
    pub fn in_flight(&self, device: u32) -> Option<InFlight> {
        let slot = self.slot(device)?;
        Some(InFlight {
            requests: slot.issued.saturating_sub(slot.completed),
            issued_ns: slot.issued_ns,
            completed_ns: slot.completed_ns,
            commit_since_ns: slot.commit_since_ns,
            completed: slot.completed,
        })
    }

    /// When the oldest of a device's requests in flight was given to it. Asks the kernel for every
    /// request in flight, at most `limit`: for a late lease, not for the tick.
    #[must_use]
    pub fn oldest(&self, device: u32, limit: usize) -> Option<u64> {
        self.requests
            .iter()
            .take(limit)
            .flatten()
            // The second word is the device's number, with padding above.
            .filter(|(_, flight)| flight[1] & u64::from(u32::MAX) == u64::from(device))
            .map(|(_, flight)| flight[0])
            .min()
    }
}

fn array<T>(programs: &mut Ebpf, name: &'static str, len: usize) -> Result<Mapped<T>, Missing> {
    let map = programs
        .take_map(name)
        .ok_or_else(|| Missing(format!("the object has no map {name}")))?;
    let Map::Array(data) = map else {
        return Err(Missing(format!("map {name} is no array")));
    };
    Mapped::new(data, len).map_err(|error| refused(&format!("mapping {name}"), &error))
}

fn take<T: TryFrom<Map, Error = aya::maps::MapError>>(
    programs: &mut Ebpf,
    name: &'static str,
) -> Result<T, Missing> {
    let map = programs
        .take_map(name)
        .ok_or_else(|| Missing(format!("the object has no map {name}")))?;
    T::try_from(map).map_err(|error| refused(&format!("map {name}"), &error))
}
