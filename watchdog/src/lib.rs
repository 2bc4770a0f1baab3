//! The daemon as a library: `main.rs` stays thin, tests use this.

/// The compiled kernel programs, aligned for aya.
pub static EBPF_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watchdog-ebpf"));

#[cfg(test)]
mod tests {
    #[test]
    fn the_object_is_an_elf_file() {
        assert_eq!(&super::EBPF_OBJECT[..4], b"\x7fELF");
    }
}
