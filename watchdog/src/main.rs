//! The daemon's entry.

fn main() {
    println!(
        "lease-watchdog: {} bytes of kernel programs",
        watchdog::EBPF_OBJECT.len()
    );
}
