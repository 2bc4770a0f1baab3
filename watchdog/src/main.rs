//! The `lease-watchdog` binary; everything is in the library.

fn main() {}
