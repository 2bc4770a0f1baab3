//! The maps. Those that the daemon maps into its memory carry MMAPABLE.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, Stack},
    macros::btf_map,
};
use watchdog_common::layout::{
    DEVICES as DEVICE_COUNT, DeviceSlot, ENTRIES, EntryShape, FLOWS as FLOW_COUNT, FlowSlot,
    Losses, MMAPABLE, PortTable, REQUESTS_IN_FLIGHT, RequestInFlight, ShapeTable, SlotRef,
    THREADS as THREAD_COUNT, TLS_CALLS as TLS_CALL_COUNT, TLS_PROCESSES as TLS_PROCESS_COUNT,
    TLS_STREAMS as TLS_STREAM_COUNT, ThreadBits, ThreadSlot, TlsCall, TlsProcess, TlsStream,
    WAIT_SHARDS, Waits,
};

/// The flows' slots.
#[btf_map]
pub static FLOWS: Array<FlowSlot, FLOW_COUNT, MMAPABLE> = Array::new();

/// Indexes of free slots, zeroed by the daemon before it pushes them; lowest on top.
#[btf_map]
pub static FREE: Stack<u32, FLOW_COUNT> = Stack::new();

/// Which slot a socket has.
#[cfg(not(feature = "old"))]
#[btf_map]
pub static SOCKETS: aya_ebpf::btf_maps::SkStorage<SlotRef> = aya_ebpf::btf_maps::SkStorage::new();

/// The same by cookie: before 5.11 tracepoints may not use a socket's storage.
#[cfg(feature = "old")]
#[btf_map]
pub static SOCKETS: HashMap<u64, SlotRef, FLOW_COUNT> = HashMap::new();

/// Which ports are watched.
#[btf_map]
pub static PORTS: Array<PortTable, 1, MMAPABLE> = Array::new();

/// How the config entries' streams look.
#[btf_map]
pub static SHAPES: Array<ShapeTable, 1, MMAPABLE> = Array::new();

/// Which threads are watched.
#[btf_map]
pub static THREAD_BITS: Array<ThreadBits, 1, MMAPABLE> = Array::new();

/// Which slot a watched thread has.
#[btf_map]
pub static THREAD_SLOTS: HashMap<u32, u32, THREAD_COUNT> = HashMap::new();

/// The watched threads' slots.
#[btf_map]
pub static THREADS: Array<ThreadSlot, THREAD_COUNT, MMAPABLE> = Array::new();

/// What each device has in flight.
#[btf_map]
pub static DEVICES: Array<DeviceSlot, DEVICE_COUNT, MMAPABLE> = Array::new();

/// The block requests in flight, by their address.
#[btf_map]
pub static REQUESTS: HashMap<u64, RequestInFlight, REQUESTS_IN_FLIGHT> = HashMap::new();

/// Waits that are over.
#[btf_map]
pub static WAITS: Array<Waits, WAIT_SHARDS, MMAPABLE> = Array::new();

/// Calls of a TLS library that have not returned, by thread.
#[btf_map]
pub static TLS_CALLS: HashMap<u64, TlsCall, TLS_CALL_COUNT> = HashMap::new();

/// Which flow a TLS library's stream is of.
#[btf_map]
pub static TLS_STREAMS: LruHashMap<TlsStream, SlotRef, TLS_STREAM_COUNT> = LruHashMap::new();

/// Processes whose calls are watched.
#[btf_map]
pub static TLS_PROCESSES: HashMap<u32, TlsProcess, TLS_PROCESS_COUNT> = HashMap::new();

/// What could not be done.
#[btf_map]
pub static LOSSES: Array<Losses, 1, MMAPABLE> = Array::new();

/// Counts one more of something lost.
#[inline(always)]
pub fn lose(which: fn(*mut Losses) -> *mut u64) {
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        crate::sync::add(which(losses), 1);
    }
}

/// How an entry's stream looks.
#[inline(always)]
pub fn shape(entry: u8) -> Option<*const EntryShape> {
    let table = SHAPES.get_ptr(0)?;
    // A mask, for the verifier.
    let entry = entry as usize & (ENTRIES - 1);
    // SAFETY: within the table.
    Some(unsafe { (&raw const (*table).shapes).cast::<EntryShape>().add(entry) })
}

/// How what is inside an entry's stream looks.
#[cfg(not(feature = "old"))]
#[inline(always)]
pub fn inside(entry: u8) -> Option<*const EntryShape> {
    let table = SHAPES.get_ptr(0)?;
    // A mask, for the verifier.
    let entry = entry as usize & (ENTRIES - 1);
    // SAFETY: within the table.
    Some(unsafe { (&raw const (*table).inside).cast::<EntryShape>().add(entry) })
}

/// The config entry (index plus one) that watches this port; 0: none.
#[inline(always)]
pub fn port_entry(table: *const PortTable, port: u16) -> u8 {
    // SAFETY: the table has a byte for each of the 65,536 ports.
    unsafe {
        (&raw const (*table).entry_of)
            .cast::<u8>()
            .add(port as usize)
            .read_volatile()
    }
}
