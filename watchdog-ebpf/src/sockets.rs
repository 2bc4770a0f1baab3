//! From a socket to its flow's slot, and how a flow gets one.
//!
//! A slot is taken from the free stack at ESTABLISHED or, for a connection older than the
//! programs, at its first packet. The daemon gives it back. Never on a SYN: that runs under the
//! listener's socket.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB},
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::{bpf_get_current_comm, bpf_get_socket_cookie, bpf_skc_to_tcp_sock},
    },
    programs::SockOpsContext,
};
use watchdog_common::{
    layout::{
        Direction, FlowSlot, ORIGIN_PACKET, ORIGIN_START, OUTGOING, REQUESTS, ROLE_GRANTOR,
        ROLE_HOLDER, SERVERS, SLOT_FREE, SLOT_LIVE, SlotRef,
    },
    stream,
};

use crate::maps::{self, FLOWS, FREE, LOSSES, PORTS};
use crate::offsets::{self, NET_NS, NS_INUM, SOCK_DPORT, SOCK_NET, SOCK_NUM};
use crate::sync;

/// AF_INET (include/linux/socket.h).
const AF_INET: u32 = 2;

/// Four context words, each read by itself.
///
/// # Safety
/// A field of the context.
#[inline(always)]
unsafe fn words(field: *const [u32; 4]) -> [u32; 4] {
    let word = |at: usize| {
        // SAFETY: by contract.
        unsafe { field.cast::<u32>().add(at).read_volatile() }
    };
    [word(0), word(1), word(2), word(3)]
}

/// Both ends of a flow.
pub struct Identity {
    pub local_addr: [u32; 4],
    pub peer_addr: [u32; 4],
    pub local_port: u16,
    pub peer_port: u16,
    pub role: u8,
    pub entry: u8,
    pub cookie: u64,
}

/// An IPv4 address in the IPv6 form that the slot keeps. Network order in, network order out.
#[inline(always)]
pub const fn mapped(v4: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), v4]
}

#[cfg(feature = "old")]
pub use by_cookie::{Key, find, gone, key, traced};
#[cfg(feature = "old")]
use by_cookie::{retie, tie};
#[cfg(not(feature = "old"))]
pub use by_storage::{Key, gone, key, traced};
#[cfg(not(feature = "old"))]
use by_storage::{find, retie, tie};

/// A socket's slot is kept in the socket's own storage, which ends with it.
#[cfg(not(feature = "old"))]
mod by_storage {
    use aya_ebpf::{bindings::BPF_SK_STORAGE_GET_F_CREATE, helpers::generated::bpf_sk_storage_get};

    use super::{SlotRef, c_void};
    use crate::maps::SOCKETS;

    /// What leads from a socket to its slot.
    pub type Key = *mut c_void;

    /// The key of a program's own socket.
    #[inline(always)]
    pub fn key(sk: *mut c_void, _cookie: impl FnOnce() -> u64) -> Key {
        sk
    }

    /// The key of a socket that a tracepoint was given.
    #[inline(always)]
    pub const unsafe fn traced(sk: *const u8) -> Key {
        sk.cast_mut().cast()
    }

    /// # Safety
    /// As for `slot_of`.
    #[inline(always)]
    pub unsafe fn find(key: Key) -> Option<SlotRef> {
        // SAFETY: by contract.
        let storage = unsafe {
            bpf_sk_storage_get(
                (&raw const SOCKETS).cast_mut().cast(),
                key,
                core::ptr::null_mut(),
                0,
            )
        };
        // SAFETY: not null, so it is the storage value.
        (!storage.is_null()).then(|| unsafe { *storage.cast::<SlotRef>() })
    }

    /// Ties a socket to a slot unless it is tied to one, and says to which it then is. None: no
    /// memory.
    ///
    /// # Safety
    /// As for `slot_of`.
    #[inline(always)]
    pub unsafe fn tie(key: Key, at: &mut SlotRef) -> Option<SlotRef> {
        // SAFETY: by contract.
        let storage = unsafe {
            bpf_sk_storage_get(
                (&raw const SOCKETS).cast_mut().cast(),
                key,
                core::ptr::from_mut(at).cast(),
                u64::from(BPF_SK_STORAGE_GET_F_CREATE),
            )
        };
        // SAFETY: as above.
        (!storage.is_null()).then(|| unsafe { *storage.cast::<SlotRef>() })
    }

    /// A socket is gone, and its storage with it.
    #[inline(always)]
    pub const unsafe fn gone(_key: Key) {}

    /// Ties a socket to another slot.
    ///
    /// # Safety
    /// As for `slot_of`.
    #[inline(always)]
    pub unsafe fn retie(key: Key, at: &mut SlotRef) {
        // SAFETY: by contract.
        unsafe {
            let storage = bpf_sk_storage_get(
                (&raw const SOCKETS).cast_mut().cast(),
                key,
                core::ptr::null_mut(),
                0,
            );
            if !storage.is_null() {
                *storage.cast::<SlotRef>() = *at;
            }
        }
    }
}

/// A socket's slot is found by the socket's cookie. What leads there is removed at the socket's end, or
/// by the daemon with the slot.
#[cfg(feature = "old")]
mod by_cookie {
    use super::{SlotRef, c_void, offsets};
    use crate::{maps::SOCKETS, offsets::SOCK_COOKIE};

    /// BPF_ANY and BPF_NOEXIST (include/uapi/linux/bpf.h).
    const ANY: u64 = 0;
    const NO_EXIST: u64 = 1;

    /// What leads from a socket to its slot.
    pub type Key = u64;

    /// The key of a program's own socket. Asking for a cookie makes the kernel give it one.
    #[inline(always)]
    pub fn key(_sk: *mut c_void, cookie: impl FnOnce() -> u64) -> Key {
        cookie()
    }

    /// The key of a socket that a tracepoint was given. 0: nobody has asked for its cookie yet, so
    /// it has no slot.
    #[inline(always)]
    pub unsafe fn traced(sk: *const u8) -> Key {
        // SAFETY: the tracepoint's argument is a struct sock.
        unsafe { offsets::load(sk, &SOCK_COOKIE) }
    }

    #[inline(always)]
    pub unsafe fn find(key: Key) -> Option<SlotRef> {
        // SAFETY: copied out at once.
        unsafe { SOCKETS.get(key) }.copied()
    }

    #[inline(always)]
    pub unsafe fn tie(key: Key, at: &mut SlotRef) -> Option<SlotRef> {
        let _ = SOCKETS.insert(key, *at, NO_EXIST);
        // SAFETY: copied out at once.
        unsafe { SOCKETS.get(key) }.copied()
    }

    #[inline(always)]
    pub unsafe fn retie(key: Key, at: &mut SlotRef) {
        let _ = SOCKETS.insert(key, *at, ANY);
    }

    /// A socket without a live slot is gone: forgets that it is a stranger or refused, or what slot it
    /// had.
    #[inline(always)]
    pub unsafe fn gone(key: Key) {
        // Most sockets are not here, and the hash is locked for a removal alone.
        // SAFETY: by contract.
        if unsafe { find(key) }.is_some() {
            let _ = SOCKETS.remove(key);
        }
    }
}

/// The slot that this names, if it is still the same flow's.
#[inline(always)]
pub fn slot_at(at: SlotRef) -> Option<*mut FlowSlot> {
    let slot = FLOWS.get_ptr_mut(at.index)?;
    // SAFETY: a map value; racy, but a slot changes generation only while its socket is gone.
    let (state, generation) = unsafe {
        (
            (&raw const (*slot).state).read_volatile(),
            (*slot).generation,
        )
    };
    (state == SLOT_LIVE && generation == at.generation).then_some(slot)
}

/// The slot of a socket, if it has one.
///
/// # Safety
/// The key is of a socket pointer in the verifier's eyes (`bpf_sock` or BTF `struct sock`), not null.
#[inline(always)]
pub unsafe fn slot_of(key: Key) -> Option<*mut FlowSlot> {
    // SAFETY: by contract.
    slot_at(unsafe { find(key) }?)
}

/// A port in host order. The compiler knows that 16 swapped bits are 16 bits, and a verifier as old
/// as 6.1's does not: hence a mask that cannot be left out.
#[inline(always)]
fn host_order(port: u16) -> u16 {
    let mut port = u64::from(u16::from_be(port));
    // SAFETY: one instruction, on a register.
    unsafe {
        core::arch::asm!("{0} &= 65535", inout(reg) port, options(pure, nomem, nostack));
    }
    port as u16
}

/// Whether a socket's ports are watched.
///
/// # Safety
/// `sk` is a BTF pointer to a `struct sock`.
#[inline(always)]
unsafe fn ports_watched(sk: *const u8) -> bool {
    let Some(ports) = PORTS.get_ptr(0) else {
        return false;
    };
    // SAFETY: by contract.
    let (local, peer) = unsafe {
        (
            offsets::load::<u16>(sk, &SOCK_NUM),
            host_order(offsets::load::<u16>(sk, &SOCK_DPORT)),
        )
    };
    if maps::port_entry(ports, local) != 0 {
        return true;
    }
    maps::port_entry(ports, peer) != 0
}

/// The slot of a socket met in a tracepoint, and its `tcp_sock`, if its flow is followed.
///
/// # Safety
/// `sk` is a BTF pointer to a `struct sock`.
#[inline(always)]
pub unsafe fn watched(sk: *const u8) -> Option<(*mut FlowSlot, *const u8)> {
    // SAFETY: by contract.
    unsafe {
        if !ports_watched(sk) {
            return None;
        }
        let slot = slot_of(traced(sk))?;
        let tcp = bpf_skc_to_tcp_sock(sk.cast_mut().cast());
        (!tcp.is_null()).then_some((slot, tcp.cast::<u8>().cast_const()))
    }
}

/// Whether a socket belongs to the network namespace that the daemon was told to watch.
///
/// # Safety
/// As for [`slot_of`].
#[inline(always)]
unsafe fn in_scope(sk: *mut c_void) -> bool {
    let scope = offsets::scope_netns();
    if scope == 0 {
        return true;
    }
    // SAFETY: by contract; each pointer is of the kind that the offset belongs to, and the
    // verifier knows it; a null pointer reads as zeros.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk);
        if tcp.is_null() {
            return false;
        }
        let net: *const u8 = offsets::load(tcp.cast::<u8>().cast_const(), &SOCK_NET);
        // One structure within the other: two offsets of one load.
        offsets::load_at::<u32>(net, &NET_NS, &NS_INUM) == scope
    }
}

/// What the storage of a stranger holds: no slot's index.
const STRANGER: u32 = u32::MAX;

/// Notes that a socket is no flow, though one of its ports is watched: the range that is watched
/// takes in ephemeral ports, and this is a client's. Its packets do not tell.
///
/// # Safety
/// As for [`slot_of`].
#[inline(always)]
unsafe fn set_stranger(key: Key) {
    let mut none = SlotRef {
        index: STRANGER,
        generation: 0,
    };
    // SAFETY: by contract; the value is copied.
    unsafe { tie(key, &mut none) };
}

/// Whether a socket that has no slot is to get none: a stranger (see [`set_stranger`]), or one whose
/// slot the daemon has taken back since nobody wants its flow. Of a live socket nothing else does that.
///
/// # Safety
/// As for [`slot_of`].
#[inline(always)]
unsafe fn is_refused(key: Key) -> bool {
    // Another CPU may have given it one just now.
    // SAFETY: by contract.
    unsafe { find(key) }.is_some_and(|at| slot_at(at).is_none())
}

/// Gives a socket a slot if it is one to be followed. The caller fills the directions before
/// anything else can see packets of this socket, or marks them unsynchronised.
///
/// # Safety
/// As for [`slot_of`].
#[inline(always)]
pub unsafe fn open(
    sk: *mut c_void,
    key: Key,
    who: &Identity,
    origin: u8,
    starts: Option<(u32, u32)>,
) -> Option<*mut FlowSlot> {
    // SAFETY: by contract.
    if unsafe { !in_scope(sk) || (origin == ORIGIN_PACKET && is_refused(key)) } {
        return None;
    }
    let Ok(Some(index)) = FREE.pop() else {
        // SAFETY: a field of a map value.
        maps::lose(|losses| unsafe { &raw mut (*losses).no_slot });
        return None;
    };
    let slot = FLOWS.get_ptr_mut(index)?;
    // SAFETY: the slot came off the free stack, so it is ours alone until it is LIVE.
    unsafe {
        let mut at = SlotRef {
            index,
            generation: (*slot).generation,
        };
        let Some(had) = tie(key, &mut at) else {
            let _ = FREE.push(index, 0);
            maps::lose(|losses| &raw mut (*losses).no_slot);
            return None;
        };
        if had.index != index || had.generation != at.generation {
            // It has carried another slot: from another CPU just now, or an outdated one.
            let stale = FLOWS
                .get_ptr_mut(had.index)
                .is_none_or(|other| (*other).generation != had.generation);
            if !stale {
                let _ = FREE.push(index, 0);
                return FLOWS.get_ptr_mut(had.index);
            }
            retie(key, &mut at);
        }
        (*slot).index = index;
        (*slot).cookie = who.cookie;
        (&raw mut (*slot).local_addr)
            .cast::<[u32; 4]>()
            .write(who.local_addr);
        (&raw mut (*slot).peer_addr)
            .cast::<[u32; 4]>()
            .write(who.peer_addr);
        (*slot).local_port = who.local_port;
        (*slot).peer_port = who.peer_port;
        (*slot).role = who.role;
        (*slot).origin = origin;
        (*slot).entry = who.entry;
        (*slot).protocol = maps::shape(who.entry).map_or(0, |shape| (*shape).protocol);
        (*slot).life.opened_ns = bpf_ktime_get_ns();
        (*slot).requests.flags = REQUESTS;
        (*slot).replies.flags = 0;
        let (sending, receiving) = directions(slot);
        (*sending).flags |= OUTGOING;
        if let Some((send_seq, receive_seq)) = starts {
            stream::begin(&mut *sending, send_seq);
            stream::begin(&mut *receiving, receive_seq);
            (*slot).reads.read_seq = receive_seq;
            (*slot).reads.credited_seq = receive_seq;
            (*slot).writes.write_seq = send_seq;
            (*slot).life.acked_seq = send_seq;
            (*slot).life.acked_known = 1;
        }
        // Another CPU may have seen the connection end meanwhile: then it stays dead.
        sync::exchange(&raw mut (*slot).state, SLOT_FREE, SLOT_LIVE);
    }
    if let Some(losses) = LOSSES.get_ptr_mut(0) {
        // SAFETY: a map value. Two CPUs may race; the next flow mends it, and the daemon reads
        // some slots beyond the mark.
        unsafe {
            let mark = u64::from(index) + 1;
            if (*losses).high_water < mark {
                (*losses).high_water = mark;
            }
        }
    }
    Some(slot)
}

/// The sending and the receiving direction of this end.
///
/// # Safety
/// `slot` is a flow slot.
#[inline(always)]
pub unsafe fn directions(slot: *mut FlowSlot) -> (*mut Direction, *mut Direction) {
    // SAFETY: by contract.
    unsafe {
        if (*slot).role == ROLE_HOLDER {
            (&raw mut (*slot).requests, &raw mut (*slot).replies)
        } else {
            (&raw mut (*slot).replies, &raw mut (*slot).requests)
        }
    }
}

/// A connection is established.
#[inline(always)]
pub fn established(ctx: &SockOpsContext) {
    let op = ctx.op();
    let role = if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        ROLE_HOLDER
    } else if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        ROLE_GRANTOR
    } else {
        return;
    };
    let local_port = ctx.local_port() as u16;
    // The lower half is 0, the upper the port in network order.
    let peer_port = u32::from_be(ctx.remote_port()) as u16;
    let Some(ports) = PORTS.get_ptr(0) else {
        return;
    };
    let (granting, renewing) = if role == ROLE_HOLDER {
        (peer_port, local_port)
    } else {
        (local_port, peer_port)
    };
    let entry = maps::port_entry(ports, granting);
    let stranger = entry == 0;
    if stranger && maps::port_entry(ports, renewing) == 0 {
        return;
    }
    // SAFETY: sock_ops hands out the socket as a pointer that may be null.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    if stranger {
        // SAFETY: not null, and the program's own context.
        unsafe { set_stranger(key(sk.cast(), || bpf_get_socket_cookie(ctx.ops.cast()))) };
        return;
    }
    // All are read whatever the family, and volatile: the compiler would else make one load of a
    // chosen pointer, and a context pointer that was added to is refused.
    // SAFETY: plain context fields.
    let (local4, peer4, local6, peer6, send_seq, receive_seq) = unsafe {
        let ops = ctx.ops;
        (
            (&raw const (*ops).local_ip4).read_volatile(),
            (&raw const (*ops).remote_ip4).read_volatile(),
            words(&raw const (*ops).local_ip6),
            words(&raw const (*ops).remote_ip6),
            (&raw const (*ops).snd_nxt).read_volatile(),
            (&raw const (*ops).rcv_nxt).read_volatile(),
        )
    };
    let (local_addr, peer_addr) = if ctx.family() == AF_INET {
        (mapped(local4), mapped(peer4))
    } else {
        (local6, peer6)
    };
    let who = Identity {
        local_addr,
        peer_addr,
        local_port,
        peer_port,
        role,
        entry: entry - 1,
        // SAFETY: the context of a sock_ops program.
        cookie: unsafe { bpf_get_socket_cookie(ctx.ops.cast()) },
    };
    let key = key(sk.cast(), || who.cookie);
    // SAFETY: `sk` is not null.
    let slot = unsafe {
        open(
            sk.cast(),
            key,
            &who,
            ORIGIN_START,
            Some((send_seq, receive_seq)),
        )
    };
    if offsets::debug() {
        let (local, peer, got) = (who.local_port, who.peer_port, slot.is_some());
        aya_log_ebpf::debug!(
            ctx,
            "flow {} > {} role {} slot {}",
            local,
            peer,
            role,
            u8::from(got)
        );
    }
}

/// Notes who serves the flow: process, thread, name.
///
/// # Safety
/// `slot` is a flow slot; `ring` and `count` are fields of it, locked by the caller. Runs in the
/// context of the thread that reads or writes.
#[inline(always)]
pub unsafe fn served(slot: *mut FlowSlot, ring: *mut [u32; SERVERS], count: *mut u32) {
    let id = bpf_get_current_pid_tgid();
    let (pid, tid) = ((id >> 32) as u32, id as u32);
    // SAFETY: by contract.
    unsafe {
        let last = *count;
        let newest = (last.wrapping_sub(1) as usize) & (SERVERS - 1);
        let same = (*ring)[newest] == tid;
        (*ring)[(last as usize) & (SERVERS - 1)] = tid;
        *count = last.wrapping_add(1);
        if !same || (*slot).owner != pid {
            (*slot).owner = pid;
            bpf_get_current_comm((&raw mut (*slot).owner_comm).cast(), 16);
        }
    }
}
