//! Where fields lie in the running kernel's structures. The daemon reads them from the kernel's
//! BTF and writes them into these read-only globals before loading, so the verifier knows each as
//! a constant and takes `pointer + offset` for a plain load, without a helper call.

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub static $name: u32 = 0;
        )*
    };
}

offsets! {
    /// task_struct.pid
    TASK_PID,
    /// task_struct.flags
    TASK_FLAGS,
    /// task_struct.__state (≥ 5.14), else ABSENT
    TASK_STATE,
    /// task_struct.state (before 5.14), else ABSENT
    TASK_STATE_OLD,
    /// sock_common.skc_num (host order)
    SOCK_NUM,
    /// sock_common.skc_dport (network order)
    SOCK_DPORT,
    /// sock_common.skc_cookie
    SOCK_COOKIE,
    /// sock_common.skc_net, whose only member is the pointer to the namespace
    SOCK_NET,
    /// net.ns
    NET_NS,
    /// ns_common.inum
    NS_INUM,
    /// sock.sk_err
    SOCK_ERR,
    /// tcp_sock.copied_seq
    TCP_COPIED_SEQ,
    /// tcp_sock.write_seq
    TCP_WRITE_SEQ,
    /// tcp_sock.srtt_us (eighths of a microsecond)
    TCP_SRTT,
    /// request.q
    REQUEST_QUEUE,
    /// request_queue.disk (≥ 5.17), else ABSENT
    QUEUE_DISK,
    /// request.rq_disk (before 5.17), else ABSENT
    REQUEST_DISK,
    /// gendisk.major
    DISK_MAJOR,
    /// gendisk.first_minor
    DISK_MINOR,
    /// journal_s.j_fs_dev
    JOURNAL_DEVICE,
    /// block_device.bd_dev
    DEVICE_NUMBER,
    /// How many arguments the tracepoint sched_switch has: 4 from 5.18 on, 3 before.
    SWITCH_ARGUMENTS,
    /// How many arguments the tracepoint block_rq_issue has: 1 from 5.11 on, 2 before.
    ISSUE_ARGUMENTS,
}

/// The offset of a field that the running kernel does not have.
const ABSENT: u32 = u32::MAX;

/// Whether the running kernel has the field. What stands behind a "no" is never seen by the
/// verifier.
#[inline(always)]
pub fn has(offset: &'static u32) -> bool {
    // SAFETY: a static; volatile as below.
    unsafe { core::ptr::read_volatile(offset) != ABSENT }
}

/// What the daemon has written there.
#[cfg(feature = "old")]
#[inline(always)]
pub fn value(offset: &'static u32) -> u32 {
    // SAFETY: a static; volatile as below.
    unsafe { core::ptr::read_volatile(offset) }
}

/// Whether a tracepoint has at least so many arguments. As for [`has`].
#[inline(always)]
pub fn takes(arguments: &'static u32, at_least: u32) -> bool {
    // SAFETY: a static; volatile as below.
    unsafe { core::ptr::read_volatile(arguments) >= at_least }
}

/// Whether the programs may log (aya-log): 0 or 1, set by the daemon's `--debug-probes`. The
/// verifier knows it, and drops what is not reached.
#[unsafe(no_mangle)]
pub static DEBUG: u32 = 0;

/// The one network namespace whose sockets are followed, by its inode number; 0: all are.
#[unsafe(no_mangle)]
pub static SCOPE_NETNS: u32 = 0;

/// See [`SCOPE_NETNS`].
#[inline(always)]
pub fn scope_netns() -> u32 {
    // SAFETY: volatile, or the compiler would take the initial 0 for the value.
    unsafe { core::ptr::read_volatile(&raw const SCOPE_NETNS) }
}

/// See [`DEBUG`].
#[inline(always)]
pub fn debug() -> bool {
    // SAFETY: volatile, or the compiler would take the initial 0 for the value.
    unsafe { core::ptr::read_volatile(&raw const DEBUG) != 0 }
}

/// Loads a field of a kernel structure directly.
///
/// # Safety
/// `base` is a pointer that the verifier knows as one to the structure that `offset` belongs to.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const u8, offset: &'static u32) -> T {
    // SAFETY: volatile, or the compiler would take the initial 0 for the value.
    let offset = unsafe { core::ptr::read_volatile(offset) } as usize;
    // SAFETY: by contract; checked by the verifier.
    unsafe { core::ptr::read_volatile(base.add(offset).cast::<T>()) }
}

/// Loads a field of a structure that is a member of a kernel structure.
///
/// # Safety
/// As for [`load`]; `inner` is an offset in the structure at `outer`.
#[inline(always)]
pub unsafe fn load_at<T: Copy>(base: *const u8, outer: &'static u32, inner: &'static u32) -> T {
    // SAFETY: volatile, or the compiler would take the initial 0 for the values.
    let offset =
        unsafe { core::ptr::read_volatile(outer) + core::ptr::read_volatile(inner) } as usize;
    // SAFETY: by contract; checked by the verifier.
    unsafe { core::ptr::read_volatile(base.add(offset).cast::<T>()) }
}
