//! Which of the kernel's BPF objects a process holds, and whether an object still exists.
//!
//! In: `/proc/PID/fdinfo` and the `bpf` system call. Never: `bpftool`, which stories do not need.

use std::collections::BTreeSet;

/// An object in the kernel, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A loaded program.
    Program(u32),
    /// A map.
    Map(u32),
    /// A program attached to a hook.
    Link(u32),
}

/// Commands of the `bpf` system call that open an object by its id: <linux/bpf.h>.
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const LINK_GET_FD_BY_ID: i32 = 30;

/// The objects that a process holds by a descriptor.
pub fn held_by(pid: i32) -> Vec<Object> {
    let mut objects = BTreeSet::new();
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return Vec::new();
    };
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let Ok(id) = value.trim().parse() else {
                continue;
            };
            match key {
                "prog_id" => objects.insert(Object::Program(id)),
                "map_id" => objects.insert(Object::Map(id)),
                "link_id" => objects.insert(Object::Link(id)),
                _ => false,
            };
        }
    }
    objects.into_iter().collect()
}

impl Object {
    /// Whether the kernel still has it.
    pub fn exists(self) -> bool {
        let (command, id) = match self {
            Self::Program(id) => (PROG_GET_FD_BY_ID, id),
            Self::Map(id) => (MAP_GET_FD_BY_ID, id),
            Self::Link(id) => (LINK_GET_FD_BY_ID, id),
        };
        let attributes: [u32; 4] = [id, 0, 0, 0];
        // SAFETY: `attributes` outlives the call and its size is passed; the kernel reads it
        // and returns a new descriptor or an error.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        };
        let Ok(fd) = i32::try_from(fd) else {
            return false;
        };
        if fd < 0 {
            return false;
        }
        // SAFETY: the descriptor is ours and used by nobody else.
        unsafe { libc::close(fd) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::clock;
    use std::time::Duration;

    /// <linux/bpf.h>: BPF_MAP_CREATE with type 2 (array).
    const MAP_CREATE: i32 = 0;

    #[test]
    fn a_map_exists_until_its_descriptor_is_closed() {
        let attributes: [u32; 5] = [2, 4, 8, 1, 0];
        // SAFETY: as in `Object::exists`: type, key size, value size, entries, flags.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                MAP_CREATE,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        };
        assert!(
            fd >= 0,
            "a map cannot be made: {}",
            std::io::Error::last_os_error()
        );
        let pid = i32::try_from(std::process::id()).expect("a pid fits");
        let held = held_by(pid);
        assert_eq!(held.len(), 1, "{held:?}");
        assert!(held[0].exists());
        // SAFETY: the descriptor was made above.
        unsafe { libc::close(i32::try_from(fd).expect("a descriptor fits")) };
        let gone = clock::poll(Duration::from_secs(5), || (!held[0].exists()).then_some(()));
        assert!(gone.is_some(), "{:?} is still there", held[0]);
    }
}
