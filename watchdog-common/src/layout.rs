//! The memory that the kernel programs write and the daemon reads through mmap.
//!
//! Every block that is written as a whole starts with a `version`: odd while somebody writes it.
//! Writers take it with a compare-and-swap (so it is their lock too), readers copy and compare.
//! All `_ns` fields are `bpf_ktime_get_ns` (CLOCK_MONOTONIC); 0 means "never".

use core::mem::{offset_of, size_of};

/// Bit in a map's flags that lets user space map it (`BPF_F_MMAPABLE`, include/uapi/linux/bpf.h).
pub const MMAPABLE: usize = 1 << 10;

/// How many flows the kernel keeps unless the configuration says otherwise.
pub const FLOWS: usize = 16_384;
/// How many threads can be watched at once.
pub const THREADS: usize = 8_192;
/// Largest thread id that Linux ever gives out (PID_MAX_LIMIT, include/linux/threads.h).
pub const TID_LIMIT: u32 = 4 * 1024 * 1024;
/// Number of TCP ports.
pub const PORTS: usize = 65_536;

/// How many config entries there can be.
pub const ENTRIES: usize = 64;

/// [`EntryShape::protocol`]: ZooKeeper's client protocol.
pub const PROTOCOL_ZOOKEEPER: u8 = 0;
/// [`EntryShape::protocol`]: any request that is answered.
pub const PROTOCOL_REQUEST_REPLY: u8 = 1;
/// [`EntryShape::protocol`]: Kafka.
pub const PROTOCOL_KAFKA: u8 = 2;
/// [`EntryShape::protocol`]: Consul's HTTP API.
pub const PROTOCOL_CONSUL: u8 = 3;
/// [`EntryShape::protocol`]: etcd's gRPC.
pub const PROTOCOL_ETCD: u8 = 4;
/// [`EntryShape::protocol`]: whatever it is, inside TLS: only its records are seen.
pub const PROTOCOL_TLS: u8 = 5;

/// [`FlowSlot::state`]: not in use.
pub const SLOT_FREE: u32 = 0;
/// [`FlowSlot::state`]: a live flow.
pub const SLOT_LIVE: u32 = 1;
/// [`FlowSlot::state`]: the socket is gone; the daemon reads it once more and gives the slot back.
pub const SLOT_DEAD: u32 = 2;

/// [`FlowSlot::role`]: this end connected.
pub const ROLE_HOLDER: u8 = 0;
/// [`FlowSlot::role`]: this end accepted.
pub const ROLE_GRANTOR: u8 = 1;

/// [`FlowSlot::origin`]: seen from the first byte (`sock_ops`).
pub const ORIGIN_START: u8 = 0;
/// [`FlowSlot::origin`]: found by a packet in mid-stream.
pub const ORIGIN_PACKET: u8 = 1;
/// [`FlowSlot::origin`]: registered by the daemon from a process's descriptor.
pub const ORIGIN_DAEMON: u8 = 2;

/// [`Lifecycle::how`]: the peer sent FIN first.
pub const CLOSE_PEER_FIN: u32 = 1;
/// [`Lifecycle::how`]: the peer sent RST.
pub const CLOSE_PEER_RESET: u32 = 2;
/// [`Lifecycle::how`]: this end closed it.
pub const CLOSE_OWN: u32 = 3;
/// [`Lifecycle::how`]: this end's process exited.
pub const CLOSE_EXIT: u32 = 4;
/// [`Lifecycle::how`]: TCP gave up.
pub const CLOSE_TIMEOUT: u32 = 5;

/// [`Direction::flags`]: `next_seq` and the frame boundary are known.
pub const SYNCED: u32 = 1;
/// [`Direction::flags`]: the next frame is the handshake.
pub const HANDSHAKE_DUE: u32 = 2;
/// [`Direction::flags`]: the stream does not speak the entry's protocol; nothing is read from it any more.
pub const FOREIGN: u32 = 4;
/// [`Direction::flags`]: unsynchronised, but four bytes that may be a frame's length lie in `head`.
pub const CANDIDATE: u32 = 8;
/// [`Direction::flags`]: this direction leaves the host (its messages count when their header is
/// sent; those that arrive count when their last byte has).
pub const OUTGOING: u32 = 16;
/// [`Direction::flags`]: this direction carries the holder's requests.
pub const REQUESTS: u32 = 32;
/// [`Direction::flags`]: the frame whose body is being skipped counts when it is complete.
pub const COUNT_AT_END: u32 = 64;
/// [`Direction::flags`]: the next segment, wherever it lies, begins with a frame: the daemon found
/// the flow idle.
pub const AT_BOUNDARY: u32 = 128;
/// [`Direction::flags`]: `edge_seq` is known. Any number may be one, 0 too.
pub const EDGE_KNOWN: u32 = 256;

/// [`Direction::flags`]: its bytes come from the program's calls of its TLS library; packets tell only
/// that something has arrived or left.
pub const BY_CALLS: u32 = 512;

/// [`Direction::kind`]: not known yet.
pub const KIND_OPEN: u32 = 0;
/// [`Direction::kind`]: it renews.
pub const KIND_RENEWAL: u32 = 1;
/// [`Direction::kind`]: it does not.
pub const KIND_OTHER: u32 = 2;

/// The most of a frame's or request's first bytes that is ever looked at.
pub const HEAD_MOST: usize = 64;
/// Room for a frame's first bytes: twice what is ever needed, since the verifier wants to see room
/// behind a variable start.
pub const HEAD: usize = 2 * HEAD_MOST;
/// How far into a frame its length field may reach.
pub const LENGTH_WITHIN: usize = 16;
/// The longest signature by which renewals are told from other requests.
pub const SIGNATURE: usize = 16;
/// The longest early segment that is kept until the hole before it is filled.
pub const EARLY: usize = 64;
/// How many unanswered requests are kept by time and xid. A power of two.
pub const MARKS: usize = 16;
/// How many leases of one flow are told apart, where each renewal names its own.
pub const KEPT: usize = 4;
/// How many threads that last served a flow are kept, readers and writers each.
pub const SERVERS: usize = 4;

/// What the kernel has to know of a config entry. Written by the daemon, read by the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryShape {
    /// `PROTOCOL_*`.
    pub protocol: u8,
    /// Whether the length field is little-endian.
    pub little: u8,
    /// Width of a frame's length field, bytes (1 to 4); 0: the stream is not framed.
    pub length_bytes: u8,
    /// Where in a frame its length field lies; it ends within [`LENGTH_WITHIN`].
    pub length_at: u8,
    /// Added to the length field's value it gives the whole frame's length.
    pub adjust: i32,
    /// Where in a request the signature of renewals lies; it ends within [`HEAD_MOST`].
    pub signature_at: u8,
    /// Length of the signature; 0: every request renews.
    pub signature_len: u8,
    /// Padding.
    pub pad: [u8; 6],
    /// Which bits of the signature count.
    pub signature_mask: [u8; SIGNATURE],
    /// The signature, masked.
    pub signature: [u8; SIGNATURE],
}

/// A request that waits for its reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// When it was sent (holder) or had arrived (grantor).
    pub at_ns: u64,
    /// By what its reply is told: xid, correlation id, or its number on the flow.
    pub xid: i32,
    /// What the protocol wants to know of it when the reply comes.
    pub note: u32,
}

/// A handshake frame: ConnectRequest in the requests' direction, ConnectResponse in the replies'.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake {
    /// When it was seen; 0: none.
    pub at_ns: u64,
    /// Session asked for or granted.
    pub session: u64,
    /// Timeout asked for or granted, milliseconds.
    pub timeout_ms: i32,
    /// What the protocol wants to know of it when the answer comes.
    pub note: u32,
}

/// One of several leases that share a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// Its id; 0: not in use. This and the next four are the requests' direction's to write.
    pub id: u64,
    /// Newest renewal: sent (holder) or arrived (grantor).
    pub request_ns: u64,
    /// Gap from the renewal before it to the newest, ns; 0: none.
    pub gap_ns: u64,
    /// Number of renewals.
    pub requests: u64,
    /// When its holder ended it; 0: never.
    pub ending_ns: u64,
    /// Time of the newest renewal that was answered. This and the rest are the replies' direction's.
    pub answered_ns: u64,
    /// When it was.
    pub answer_ns: u64,
    /// Number of answers.
    pub answers: u64,
    /// When the grantor said that it is no more; 0: never.
    pub expired_ns: u64,
    /// Timeout as the newest answer told it, milliseconds; 0: not known.
    pub timeout_ms: i32,
    /// Padding.
    pub pad: u32,
}

/// One direction of a flow's byte stream: where the parser stands, and what it has seen.
/// Written by the packet programs only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Direction {
    /// Seqlock: odd while being written.
    pub version: u32,
    /// `SYNCED`, `HANDSHAKE_DUE`, …
    pub flags: u32,
    /// Sequence number of the next byte in order, while SYNCED.
    pub next_seq: u32,
    /// Sequence number just past the furthest byte ever seen.
    pub edge_seq: u32,
    /// Bytes of the current frame's body still to come.
    pub body_left: u32,
    /// Bytes gathered in `head`.
    pub head_len: u32,
    /// Parser's offset in the payload at hand. Here and not on the stack: the verifier forgets
    /// what memory holds, and so does not walk every value of every turn of the loop.
    pub cursor: u32,
    /// Length of the payload at hand.
    pub limit: u32,
    /// Sequence number and length of the stashed early segment; length 0: none.
    pub early_seq: u32,
    /// See `early_seq`.
    pub early_len: u32,
    /// Requests: count of marks ever pushed. Replies: count of marks ever answered or dropped.
    pub marks: u32,
    /// Sequence number just past the newest message that counts.
    pub newest_end_seq: u32,
    /// Incoming only: sequence number just past the oldest message not known to be read …
    pub unread_end_seq: u32,
    /// Incoming only: … and when that message had arrived.
    pub unread_at_ns: u64,
    /// Newest message: sent or completely arrived.
    pub newest_ns: u64,
    /// Number of messages.
    pub messages: u64,
    /// When synchronisation was last lost; 0: never.
    pub lost_sync_ns: u64,
    /// How often it was lost.
    pub lost_syncs: u32,
    /// xid of the message whose body is being skipped.
    pub pending_xid: i32,
    /// err of the message whose body is being skipped (replies).
    pub pending_err: i32,
    /// Number of keepalives seen (requests).
    pub keepalives: u32,
    /// Where replies are told by order. Requests: how many have begun. Replies: how many of those
    /// have been answered.
    pub ordinal: u32,
    /// Bytes to gather before the protocol looks at them; 0: as many as tell a frame's length.
    pub need: u32,
    /// Bytes of the frame behind those being gathered.
    pub frame_left: u32,
    /// Which part of a frame is being gathered; 0: its head.
    pub phase: u32,
    /// `KIND_*`: what the request being followed is.
    pub kind: u32,
    /// Renewals of leases for which there was no room in [`FlowSlot::kept`].
    pub left_out: u32,
    /// When the request being followed began.
    pub begun_ns: u64,
    /// Replies: when the newest answer to a renewal came (holder) or was sent (grantor).
    pub answer_ns: u64,
    /// Gap from the message before the newest keepalive to it, ns.
    pub keepalive_gap_ns: u64,
    /// Requests: when closeSession was seen. Replies: when err −112 (session expired) was.
    pub ending_ns: u64,
    /// Replies: time of the newest request that was answered.
    pub answered_ns: u64,
    /// Replies: number of request-to-reply times taken.
    pub answers: u64,
    /// Replies: newest request-to-reply time, ns.
    pub rtt_ns: u64,
    /// Outgoing only: when the oldest byte that the peer's TCP has not acknowledged was sent.
    pub unacked_at_ns: u64,
    /// Incoming only: when payload that was new last arrived.
    pub arrived_ns: u64,
    /// Newest handshake.
    pub handshake: Handshake,
    /// The frame's first bytes.
    pub head: [u8; HEAD],
    /// The stashed early segment.
    pub early: [u8; EARLY],
}

/// What the application has read. Written by the read hook, under the socket's lock.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// Seqlock.
    pub version: u32,
    /// `tcp_sock.copied_seq`: everything before it was read.
    pub read_seq: u32,
    /// Last read that finished a message.
    pub read_ns: u64,
    /// Newest arrival-to-read time, ns.
    pub wait_ns: u64,
    /// Number of those taken.
    pub reads: u64,
    /// `unread_end_seq` of the message that the newest such time was taken of.
    pub credited_seq: u32,
    /// How many entries were ever put into `threads`.
    pub servers: u32,
    /// TCP's smoothed round trip time at the last read, microseconds; 0: not known.
    pub srtt_us: u32,
    /// Padding.
    pub pad: u32,
    /// The threads that read last, a ring.
    pub threads: [u32; SERVERS],
}

/// What the application has written. Written by the write hook.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Writes {
    /// Seqlock.
    pub version: u32,
    /// `tcp_sock.write_seq` after the last write.
    pub write_seq: u32,
    /// When.
    pub write_ns: u64,
    /// When the oldest byte not yet handed to IP was written, if `write_seq` is beyond what was sent.
    pub unsent_at_ns: u64,
    /// Number of writes.
    pub writes: u64,
    /// How many entries were ever put into `threads`.
    pub servers: u32,
    /// Padding.
    pub pad: u32,
    /// The threads that wrote last, a ring.
    pub threads: [u32; SERVERS],
}

/// Start, loss and end of the flow. Each field has one writer and is written once or counts up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle {
    /// When the flow was established or first seen.
    pub opened_ns: u64,
    /// When it left ESTABLISHED.
    pub closed_ns: u64,
    /// `CLOSE_*`.
    pub how: u32,
    /// Retransmissions so far.
    pub retransmits: u32,
    /// When the last was.
    pub retransmit_ns: u64,
    /// Newest byte acknowledged by the peer's TCP.
    pub acked_seq: u32,
    /// Whether `acked_seq` is known yet.
    pub acked_known: u32,
    /// Retransmissions when `acked_seq` last moved.
    pub retransmits_at_ack: u32,
    /// Padding.
    pub pad: u32,
}

/// One flow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FlowSlot {
    /// `SLOT_*`. Written last at start, so whoever sees LIVE sees the identity too.
    pub state: u32,
    /// Counts the slot's uses; a socket that still carries an older one is ignored.
    pub generation: u32,
    /// Socket cookie.
    pub cookie: u64,
    /// This end's address, IPv4 as `::ffff:a.b.c.d`, network order.
    pub local_addr: [u8; 16],
    /// The other end's.
    pub peer_addr: [u8; 16],
    /// This end's port, host order.
    pub local_port: u16,
    /// The other end's.
    pub peer_port: u16,
    /// `ROLE_*`.
    pub role: u8,
    /// `ORIGIN_*`.
    pub origin: u8,
    /// Config entry.
    pub entry: u8,
    /// `PROTOCOL_*`, as the entry says.
    pub protocol: u8,
    /// Process (tgid) that last read or wrote.
    pub owner: u32,
    /// The slot's own place: its address tells it nowhere.
    pub index: u32,
    /// Name of the thread that last read or wrote.
    pub owner_comm: [u8; 16],
    /// The holder's requests.
    pub requests: Direction,
    /// The grantor's replies.
    pub replies: Direction,
    /// Unanswered requests, a ring: `requests.marks` is its head, `replies.marks` its tail.
    pub unanswered: [Mark; MARKS],
    /// Its leases, where renewals name theirs and several may share a flow.
    pub kept: [Kept; KEPT],
    /// What the application has read.
    pub reads: Reads,
    /// What the application has written.
    pub writes: Writes,
    /// Start, loss, end.
    pub life: Lifecycle,
}

/// What a socket's storage holds: which slot is its.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotRef {
    /// Index into the flow slots.
    pub index: u32,
    /// Must equal [`FlowSlot::generation`].
    pub generation: u32,
}

/// [`ThreadSlot::state`]: nothing known; the thread has not switched since it was registered.
pub const THREAD_UNKNOWN: u32 = 0;
/// [`ThreadSlot::state`]: on a CPU.
pub const THREAD_RUNNING: u32 = 1;
/// [`ThreadSlot::state`]: waits for a CPU.
pub const THREAD_RUNNABLE: u32 = 2;
/// [`ThreadSlot::state`]: interruptible sleep.
pub const THREAD_SLEEPING: u32 = 3;
/// [`ThreadSlot::state`]: uninterruptible sleep.
pub const THREAD_UNINTERRUPTIBLE: u32 = 4;
/// [`ThreadSlot::state`]: stopped by a signal or a tracer.
pub const THREAD_STOPPED: u32 = 5;
/// [`ThreadSlot::state`]: exited.
pub const THREAD_DEAD: u32 = 6;
/// [`ThreadSlot::state`]: its cgroup is frozen.
pub const THREAD_FROZEN: u32 = 7;

/// One watched thread. Registered by the daemon, written by the scheduler programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadSlot {
    /// Seqlock.
    pub version: u32,
    /// `THREAD_*`.
    pub state: u32,
    /// Since when; 0: unknown.
    pub since_ns: u64,
    /// Time on a CPU until it last left one, ns.
    pub ran_ns: u64,
    /// Times it was switched in.
    pub switches: u64,
    /// Thread id.
    pub tid: u32,
    /// Thread that took the CPU when this one last left it.
    pub next_tid: u32,
    /// Its name, as of some recent switch.
    pub comm: [u8; 16],
}

/// How many devices are kept, by [`DeviceSlot::device`], in a table that is searched from the
/// number's place on. A power of two.
pub const DEVICES: usize = 64;
/// How far from its place a device is looked for.
pub const DEVICE_TRIES: usize = 8;
/// How many block requests in flight are kept.
pub const REQUESTS_IN_FLIGHT: usize = 16_384;
/// Bins of a duration's histogram: bin n counts those below 2^n microseconds (and not below
/// 2^(n−1)); the last has all that are longer.
pub const BINS: usize = 28;

/// Where in the table of devices a device's search begins.
#[must_use]
pub const fn device_place(device: u32) -> usize {
    // Disks differ in the major number and in steps of 16 minors, partitions in single ones.
    (device ^ device >> 4 ^ device >> 20) as usize & (DEVICES - 1)
}

/// A device number as the kernel keeps it (MKDEV, include/linux/kdev_t.h).
#[must_use]
pub const fn device_number(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// What a block device has in flight, and what a journal on it commits. Requests are counted under
/// their disk, commits under the partition that the file system lies on.
///
/// Written by the block and journal programs, word by word; no word depends on another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceSlot {
    /// Device number (see [`device_number`]); 0: not in use.
    pub device: u32,
    /// Padding.
    pub pad: u32,
    /// Requests given to the driver.
    pub issued: u64,
    /// Of those, the ones it has finished: what is between the two is in flight.
    pub completed: u64,
    /// When a request was last given to the driver.
    pub issued_ns: u64,
    /// When one was last finished.
    pub completed_ns: u64,
    /// Since when a journal on it commits; 0: none does.
    pub commit_since_ns: u64,
    /// Commits finished.
    pub commits: u64,
    /// Sum of their durations, ns.
    pub commit_sum_ns: u64,
}

/// How many copies there are of [`Waits`], by CPU modulo this: CPUs that count at once seldom meet.
/// A power of two.
pub const WAIT_SHARDS: usize = 16;

/// Durations of one kind, each counted when it ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Durations {
    /// Their sum, ns.
    pub sum_ns: u64,
    /// Their histogram.
    pub bins: [u64; BINS],
}

/// Waits that are over. Written by the scheduler and journal programs, word by word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// Of watched threads: from being runnable to having a CPU.
    pub runqueue: Durations,
    /// Of watched threads: uninterruptible sleep.
    pub blocked: Durations,
    /// Commits of the node's journals.
    pub commits: Durations,
}

/// A block request in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestInFlight {
    /// When it was given to the driver.
    pub issued_ns: u64,
    /// Its disk.
    pub device: u32,
    /// Padding.
    pub pad: u32,
}

/// One bit a thread id: is it watched?
#[repr(C)]
pub struct ThreadBits {
    /// 64 ids a word.
    pub words: [u64; TID_LIMIT as usize / 64],
}

/// One byte a port: 0 where nothing is watched, else the config entry's index plus one.
#[repr(C)]
pub struct PortTable {
    /// By port number.
    pub entry_of: [u8; PORTS],
}

/// What the config entries look like.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeTable {
    /// By entry.
    pub shapes: [EntryShape; ENTRIES],
    /// By entry, what is inside, where [`PROTOCOL_TLS`] is all that the packets show.
    pub inside: [EntryShape; ENTRIES],
}

impl Default for ShapeTable {
    fn default() -> Self {
        Self {
            shapes: [EntryShape::default(); ENTRIES],
            inside: [EntryShape::default(); ENTRIES],
        }
    }
}

/// How many threads can be inside a call of a TLS library at once.
pub const TLS_CALLS: usize = 4_096;
/// How many of a TLS library's streams are known.
pub const TLS_STREAMS: usize = 4_096;
/// How many processes' calls are watched at once.
pub const TLS_PROCESSES: usize = 256;

/// A thread's call of its TLS library, from its beginning to its return.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsCall {
    /// The stream, as the library knows it: address of its `SSL`.
    pub ssl: u64,
    /// Address of the plaintext.
    pub buffer: u64,
    /// Where the library puts how many bytes it took or gave; 0: it returns that.
    pub done: u64,
    /// When the call began.
    pub begun_ns: u64,
    /// The flow that the thread has read or written meanwhile.
    pub flow: SlotRef,
    /// Whether plaintext goes out.
    pub outgoing: u32,
    /// Whether `flow` is one.
    pub has_flow: u32,
}

/// Names one of a TLS library's streams.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsStream {
    /// Address of its `SSL`.
    pub ssl: u64,
    /// The process.
    pub pid: u32,
    /// Padding, 0: it is part of the name.
    pub pad: u32,
}

/// A process whose calls of its TLS library are watched. Made and ended by the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsProcess {
    /// Since when all of them are.
    pub since_ns: u64,
    /// How many there were. Written by the programs.
    pub calls: u64,
}

/// Counters of what the kernel programs could not do, one word each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// Flows without a slot: all were taken.
    pub no_slot: u64,
    /// Segments skipped because the other CPU held the lock.
    pub contended: u64,
    /// Packets whose headers could not be read.
    pub unreadable: u64,
    /// One past the highest slot index ever handed out.
    pub high_water: u64,
    /// Block requests that were not followed: too many in flight.
    pub requests: u64,
    /// Calls of a TLS library that were not followed: too many at once.
    pub calls: u64,
}

// The two compilers must agree; a change of one of these lines is a change of the layout.
const _: () = {
    assert!(size_of::<EntryShape>() == 48);
    assert!(size_of::<Mark>() == 16);
    assert!(size_of::<Handshake>() == 24);
    assert!(size_of::<Kept>() == 80);
    assert!(size_of::<Direction>().is_multiple_of(8));
    assert!(offset_of!(Direction, unread_at_ns) == 56);
    assert!(size_of::<FlowSlot>().is_multiple_of(8));
    assert!(offset_of!(FlowSlot, requests).is_multiple_of(8));
    assert!(size_of::<ThreadSlot>() == 56);
    assert!(size_of::<DeviceSlot>() == 64);
    assert!(size_of::<Waits>() == 3 * (8 + 8 * BINS));
    assert!(WAIT_SHARDS.is_power_of_two());
    assert!(size_of::<RequestInFlight>() == 16);
    assert!(size_of::<TlsCall>() == 48);
    assert!(size_of::<TlsStream>() == 16);
    assert!(size_of::<TlsProcess>() == 16);
    assert!(DEVICES.is_power_of_two());
    assert!(KEPT.is_power_of_two());
    assert!(MARKS.is_power_of_two() && SERVERS.is_power_of_two());
};
