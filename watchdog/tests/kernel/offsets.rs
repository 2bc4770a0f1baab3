//! Offsets: what is read from the kernel's types, against a reader of its own and against what is
//! known to be true of kernels, each asserted both ways.

use std::{collections::HashMap, fs, path::Path};

use watchdog::kernel::btf::{ABSENT, ARGUMENTS, FIELDS, facts, offsets};

use crate::bed::{here, skip};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Just enough of a reader of BTF (Documentation/bpf/btf.rst) to ask one question.
struct Types {
    bytes: Vec<u8>,
    /// Where each type begins, by id.
    at: Vec<usize>,
    strings: usize,
}

/// BTF_KIND_STRUCT and _UNION.
const COMPOUND: [u32; 2] = [4, 5];

impl Types {
    fn read(bytes: Vec<u8>) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let header = word(4) as usize;
        let (types, length) = (header + word(8) as usize, word(12) as usize);
        let strings = header + word(16) as usize;
        let (mut at, mut next) = (vec![0], types);
        while next < types + length {
            at.push(next);
            let info = word(next + 4);
            let members = (info & 0xffff) as usize;
            next += 12
                + match info >> 24 & 0x1f {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 19 => members * 12,
                    6 | 13 => members * 8,
                    15 => members * 12,
                    _ => 0,
                };
        }
        Self { bytes, at, strings }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four"))
    }

    fn name(&self, at: usize) -> &str {
        let from = self.strings + self.word(at) as usize;
        let length = self.bytes[from..].iter().position(|byte| *byte == 0);
        std::str::from_utf8(&self.bytes[from..from + length.expect("an end")]).expect("ASCII")
    }

    fn kind(&self, id: usize) -> u32 {
        self.word(self.at[id] + 4) >> 24 & 0x1f
    }

    fn find(&self, name: &str, kinds: &[u32]) -> Option<usize> {
        (1..self.at.len())
            .find(|id| kinds.contains(&self.kind(*id)) && self.name(self.at[*id]) == name)
    }

    /// Every named member with its byte offset, those of anonymous members included.
    fn members(&self, id: usize, base: u32, into: &mut HashMap<String, u32>) {
        let at = self.at[id];
        let info = self.word(at + 4);
        for n in 0..(info & 0xffff) as usize {
            let member = at + 12 + n * 12;
            let offset = self.word(member + 8);
            // With the kind flag the upper byte is a bit field's size.
            let bits = if info >> 31 == 1 {
                offset & 0xff_ffff
            } else {
                offset
            };
            let name = self.name(member);
            let inner = self.word(member + 4) as usize;
            if name.is_empty() && COMPOUND.contains(&self.kind(inner)) {
                self.members(inner, base + bits / 8, into);
            } else {
                into.insert(name.to_owned(), base + bits / 8);
            }
        }
    }
}

fn types(name: &str) -> Option<Types> {
    match fs::read(VMLINUX) {
        Ok(bytes) => Some(Types::read(bytes)),
        Err(error) => {
            skip(name, &format!("{VMLINUX}: {error}"));
            None
        }
    }
}

#[test]
fn a_second_reader_finds_the_same() {
    let Some(types) = types(here!()) else {
        return;
    };
    let found = offsets(Path::new(VMLINUX)).expect("every field is there");
    for (field, offset) in FIELDS.iter().zip(found) {
        let id = types.find(field.of, &COMPOUND).expect(field.of);
        let mut members = HashMap::new();
        types.members(id, 0, &mut members);
        let absent = field.optional.then_some(ABSENT);
        let expected = members.get(field.name).copied().or(absent);
        assert_eq!(expected, Some(offset), "{}", field.global);
    }
}

/// include/net/sock.h, struct sock_common: two words of addresses, a word of hash, then
/// `skc_dport` and `skc_num`. Inet sockets are looked up by these at fixed places, so no kernel
/// since 3.9 has moved them.
#[test]
fn the_ports_lie_where_every_kernel_has_them_and_nothing_else_does() {
    let Some(types) = types(here!()) else {
        return;
    };
    let found = offsets(Path::new(VMLINUX)).expect("every field is there");
    for (field, offset) in FIELDS.iter().zip(found) {
        let pinned = match field.global {
            "SOCK_DPORT" => Some(12),
            "SOCK_NUM" => Some(14),
            _ => None,
        };
        // The cookie and `skc_net` lie behind what differs by configuration.
        let same_structure =
            field.of == "sock_common" && !["SOCK_COOKIE", "SOCK_NET"].contains(&field.global);
        assert_eq!(pinned.is_some(), same_structure, "{}", field.global);
        if let Some(pinned) = pinned {
            assert_eq!(offset, pinned, "{}", field.global);
        }
    }
    let id = types.find("sock_common", &COMPOUND).expect("sock_common");
    let mut members = HashMap::new();
    types.members(id, 0, &mut members);
    let at = |offset: u32| {
        let mut names: Vec<_> = members
            .iter()
            .filter(|(_, at)| **at == offset)
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        names
    };
    // `skc_portpair` is the union's view of both.
    assert_eq!(at(12), ["skc_dport", "skc_portpair"]);
    assert_eq!(at(14), ["skc_num"]);
}

#[test]
fn a_field_that_moves_is_followed_and_one_that_is_gone_is_named() {
    let Some(types) = types(here!()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let other = folder.path().join("vmlinux");
    let known = offsets(Path::new(VMLINUX)).expect("every field is there");
    let id = types.find("tcp_sock", &COMPOUND).expect("tcp_sock");
    let at = types.at[id];
    let member = (0..(types.word(at + 4) & 0xffff) as usize)
        .map(|n| at + 12 + n * 12)
        .find(|member| types.name(*member) == "copied_seq")
        .expect("copied_seq");

    let mut moved = types.bytes.clone();
    let bits = types.word(member + 8) + 64;
    moved[member + 8..member + 12].copy_from_slice(&bits.to_le_bytes());
    fs::write(&other, &moved).expect("a file");
    let found = offsets(&other).expect("every field is there");
    for ((field, before), after) in FIELDS.iter().zip(known).zip(found) {
        let by = if field.global == "TCP_COPIED_SEQ" {
            8
        } else {
            0
        };
        assert_eq!(after, before + by, "{}", field.global);
    }

    let mut renamed = types.bytes.clone();
    let letter = types.strings + types.word(member) as usize;
    renamed[letter] = b'k';
    fs::write(&other, &renamed).expect("a file");
    let error = offsets(&other).expect_err("one is gone").0;
    assert!(
        error.contains("tcp_sock has no field copied_seq"),
        "{error}"
    );
}

/// A fact about kernels holds from a version on and not below it; a stale claim fails too.
#[track_caller]
fn from_version(running: (u32, u32), first: (u32, u32), fact: bool, what: &str) {
    assert_eq!(
        fact,
        running >= first,
        "{what}: said to hold from {first:?} on; this is {running:?}"
    );
}

fn running() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|word| word.parse().expect("a number"));
    (
        numbers.next().expect("major"),
        numbers.next().expect("minor"),
    )
}

#[test]
fn what_the_hooks_rely_on_is_there_from_its_version_on() {
    const TYPEDEF: [u32; 1] = [8];
    let Some(types) = types(here!()) else {
        return;
    };
    let running = running();
    let tracepoint = |name: &str| types.find(&format!("btf_trace_{name}"), &TYPEDEF);
    // What the tracepoint hands out, its own context first.
    let arguments = |name: &str| {
        let pointer = types.word(types.at[tracepoint(name).expect(name)] + 8) as usize;
        let function = types.word(types.at[pointer] + 8) as usize;
        (types.word(types.at[function] + 4) & 0xffff) - 1
    };
    let has = |of: &str, member: &str| {
        let mut members = HashMap::new();
        if let Some(id) = types.find(of, &COMPOUND) {
            types.members(id, 0, &mut members);
        }
        members.contains_key(member)
    };
    from_version(
        running,
        (6, 3),
        tracepoint("sock_send_length").is_some(),
        "writes: the tracepoint sock_send_length",
    );
    from_version(
        running,
        (5, 18),
        arguments("sched_switch") >= 4,
        "switches: the state as an argument",
    );
    // Late 5.10 has it too: it was given to the stable series, so that 5.10 itself says neither.
    if running != (5, 10) {
        from_version(
            running,
            (5, 11),
            arguments("block_rq_issue") == 1,
            "block: the request as the only argument",
        );
    }
    let found = facts(Path::new(VMLINUX)).expect("every field is there");
    for ((_, tracepoint), found) in ARGUMENTS.iter().zip(found.arguments) {
        assert_eq!(found, arguments(tracepoint), "{tracepoint}");
    }
    from_version(running, (5, 17), found.has_loop, "packets: bpf_loop");
    from_version(
        running,
        (5, 14),
        has("task_struct", "__state"),
        "task_struct.__state",
    );
    from_version(
        running,
        (4, 16),
        tracepoint("tcp_rcv_space_adjust").is_some(),
        "reads: the tracepoint tcp_rcv_space_adjust",
    );
}
