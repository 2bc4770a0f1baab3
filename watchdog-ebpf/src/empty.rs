//! Programs that do nothing, on the hooks of the hot ones and under their names: what `cargo xtask
//! bench` takes off, since any program there would cost as much. An object of its own, which the
//! daemon never sees.
#![no_std]
#![no_main]

use aya_ebpf::macros::{btf_tracepoint, cgroup_skb};
use aya_ebpf::programs::{BtfTracePointContext, SkBuffContext};

#[cgroup_skb]
pub fn packet_in(_ctx: SkBuffContext) -> i32 {
    1
}

#[cgroup_skb]
pub fn packet_out(_ctx: SkBuffContext) -> i32 {
    1
}

#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn flow_read(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sock_send_length")]
pub fn flow_write(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn flow_state(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_switch")]
pub fn thread_switch(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_wakeup")]
pub fn thread_wakeup(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: nothing above can panic.
    unsafe { core::hint::unreachable_unchecked() }
}
