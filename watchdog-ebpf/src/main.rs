//! The kernel side: programs that note when each thing last moved, in memory that the daemon maps.
//!
//! One file per signal; this file lists the programs and nothing else. Nothing per event leaves
//! the kernel. Every hot program first asks a table by a direct load whether the port or thread is
//! watched, and leaves.
//!
//! With the feature `old` it is the object for kernels from 5.10 to 5.16; what differs stands in
//! `sync`, `sockets`, `packets`, `lifecycle` and `devices`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "core has no atomics for the BPF target; the intrinsics map to its instructions"
)]

mod block;
mod devices;
mod histogram;
mod journal;
mod lifecycle;
mod maps;
mod offsets;
mod packets;
#[cfg_attr(feature = "old", path = "no_plaintext.rs")]
mod plaintext;
mod reads;
mod sched;
mod sockets;
mod sync;
mod writes;

use aya_ebpf::macros::{btf_tracepoint, cgroup_skb, fexit, sock_ops};
#[cfg(not(feature = "old"))]
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, SkBuffContext, SockOpsContext};
#[cfg(not(feature = "old"))]
use aya_ebpf::programs::{ProbeContext, RetProbeContext};

/// A packet with or without payload has passed IP on its way to a socket.
#[cgroup_skb]
pub fn packet_in(ctx: SkBuffContext) -> i32 {
    packets::packet(ctx.skb.skb, false);
    packets::PASS
}

/// A socket hands a packet to IP.
#[cgroup_skb]
pub fn packet_out(ctx: SkBuffContext) -> i32 {
    packets::packet(ctx.skb.skb, true);
    packets::PASS
}

/// A connection is established: both sequence numbers are known.
#[sock_ops]
pub fn flow_start(ctx: SockOpsContext) -> u32 {
    sockets::established(&ctx);
    0
}

/// The application has taken bytes out of a socket.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn flow_read(ctx: BtfTracePointContext) -> i32 {
    reads::read(&ctx);
    0
}

/// The application has put bytes into a socket.
#[btf_tracepoint(function = "sock_send_length")]
pub fn flow_write(ctx: BtfTracePointContext) -> i32 {
    writes::write(&ctx);
    0
}

/// The same where `sock_send_length` is missing.
#[fexit(function = "tcp_sendmsg")]
pub fn flow_sent(ctx: FExitContext) -> i32 {
    writes::sent(&ctx);
    0
}

/// A TCP socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn flow_state(ctx: BtfTracePointContext) -> i32 {
    lifecycle::state(&ctx);
    0
}

/// A TCP socket is gone.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn flow_end(ctx: BtfTracePointContext) -> i32 {
    lifecycle::destroyed(&ctx);
    0
}

/// TCP sends a segment again.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn flow_retransmit(ctx: BtfTracePointContext) -> i32 {
    lifecycle::retransmit(&ctx);
    0
}

/// A CPU goes from one thread to another.
#[btf_tracepoint(function = "sched_switch")]
pub fn thread_switch(ctx: BtfTracePointContext) -> i32 {
    sched::switch(&ctx);
    0
}

/// A thread becomes runnable.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn thread_wakeup(ctx: BtfTracePointContext) -> i32 {
    sched::wakeup(&ctx);
    0
}

/// A block request is given to its driver.
#[btf_tracepoint(function = "block_rq_issue")]
pub fn block_issue(ctx: BtfTracePointContext) -> i32 {
    block::issue(&ctx);
    0
}

/// A driver has finished a block request.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_complete(ctx: BtfTracePointContext) -> i32 {
    block::complete(&ctx);
    0
}

/// A journal begins to commit.
#[btf_tracepoint(function = "jbd2_start_commit")]
pub fn journal_start(ctx: BtfTracePointContext) -> i32 {
    journal::start(&ctx);
    0
}

/// A journal has committed.
#[btf_tracepoint(function = "jbd2_end_commit")]
pub fn journal_end(ctx: BtfTracePointContext) -> i32 {
    journal::end(&ctx);
    0
}

/// A thread hands plaintext to its TLS library.
#[cfg(not(feature = "old"))]
#[uprobe]
pub fn tls_write(ctx: ProbeContext) -> u32 {
    plaintext::called(&ctx, true, false);
    0
}

/// The same, where the number of bytes is told apart.
#[cfg(not(feature = "old"))]
#[uprobe]
pub fn tls_write_ex(ctx: ProbeContext) -> u32 {
    plaintext::called(&ctx, true, true);
    0
}

/// A thread asks its TLS library for plaintext.
#[cfg(not(feature = "old"))]
#[uprobe]
pub fn tls_read(ctx: ProbeContext) -> u32 {
    plaintext::called(&ctx, false, false);
    0
}

/// The same, where the number of bytes is told apart.
#[cfg(not(feature = "old"))]
#[uprobe]
pub fn tls_read_ex(ctx: ProbeContext) -> u32 {
    plaintext::called(&ctx, false, true);
    0
}

/// Any of these returns.
#[cfg(not(feature = "old"))]
#[uretprobe]
pub fn tls_return(ctx: RetProbeContext) -> u32 {
    plaintext::returned(&ctx);
    0
}

/// A stream of a TLS library is given up.
#[cfg(not(feature = "old"))]
#[uprobe]
pub fn tls_free(ctx: ProbeContext) -> u32 {
    plaintext::freed(&ctx);
    0
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the verifier refuses a program in which this could be reached.
    unsafe { core::hint::unreachable_unchecked() }
}
