//! Offsets of fields in the running kernel's structures, from its BTF.
//!
//! A field that is not found is an error with the field's name, or, where there is another way or
//! only one signal needs it, [`ABSENT`]; never 0.

use std::path::Path;

use btf::btf::{Btf, Type};

use super::Missing;

/// In the place of an offset: this kernel has no such field.
pub const ABSENT: u32 = u32::MAX;

/// A read-only global of the eBPF object, and the field whose offset it holds.
pub struct Field {
    /// The global's name.
    pub global: &'static str,
    /// The structure.
    pub of: &'static str,
    /// The field, possibly inside anonymous members.
    pub name: &'static str,
    /// Whether the daemon works without it.
    pub optional: bool,
}

const fn needed(global: &'static str, of: &'static str, name: &'static str) -> Field {
    Field {
        global,
        of,
        name,
        optional: false,
    }
}

const fn optional(global: &'static str, of: &'static str, name: &'static str) -> Field {
    Field {
        global,
        of,
        name,
        optional: true,
    }
}

/// Every offset that the programs use.
pub const FIELDS: [Field; 21] = [
    needed("TASK_PID", "task_struct", "pid"),
    needed("TASK_FLAGS", "task_struct", "flags"),
    // Its name changed with its size, in 5.14.
    optional("TASK_STATE", "task_struct", "__state"),
    optional("TASK_STATE_OLD", "task_struct", "state"),
    needed("SOCK_NUM", "sock_common", "skc_num"),
    needed("SOCK_DPORT", "sock_common", "skc_dport"),
    needed("SOCK_COOKIE", "sock_common", "skc_cookie"),
    optional("SOCK_NET", "sock_common", "skc_net"),
    optional("NET_NS", "net", "ns"),
    optional("NS_INUM", "ns_common", "inum"),
    needed("SOCK_ERR", "sock", "sk_err"),
    needed("TCP_COPIED_SEQ", "tcp_sock", "copied_seq"),
    needed("TCP_WRITE_SEQ", "tcp_sock", "write_seq"),
    needed("TCP_SRTT", "tcp_sock", "srtt_us"),
    optional("REQUEST_QUEUE", "request", "q"),
    // From 5.17 on the queue knows its disk; until then the request does.
    optional("QUEUE_DISK", "request_queue", "disk"),
    optional("REQUEST_DISK", "request", "rq_disk"),
    optional("DISK_MAJOR", "gendisk", "major"),
    optional("DISK_MINOR", "gendisk", "first_minor"),
    optional("JOURNAL_DEVICE", "journal_s", "j_fs_dev"),
    optional("DEVICE_NUMBER", "block_device", "bd_dev"),
];

/// A tracepoint whose arguments differ from kernel to kernel: a read-only global of the object, which
/// holds how many there are, and the tracepoint.
pub const ARGUMENTS: [(&str, &str); 2] = [
    ("SWITCH_ARGUMENTS", "sched_switch"),
    ("ISSUE_ARGUMENTS", "block_rq_issue"),
];

/// What the programs are told of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The offsets of [`FIELDS`], in bytes, or [`ABSENT`].
    pub offsets: [u32; FIELDS.len()],
    /// How many arguments each of [`ARGUMENTS`] has; [`ABSENT`]: there is no such tracepoint.
    pub arguments: [u32; ARGUMENTS.len()],
    /// Whether programs may call `bpf_loop` (≥ 5.17).
    pub has_loop: bool,
}

/// Reads [`Facts`].
///
/// # Errors
/// The BTF file is not there or unreadable, or lacks a field.
pub fn facts(path: &Path) -> Result<Facts, Missing> {
    let btf = read(path)?;
    Ok(Facts {
        offsets: fields(&btf, path)?,
        arguments: ARGUMENTS.map(|(_, tracepoint)| arguments(&btf, tracepoint).unwrap_or(ABSENT)),
        has_loop: has_helper(&btf, "BPF_FUNC_loop"),
    })
}

/// Reads all of [`FIELDS`], in bytes.
///
/// # Errors
/// As for [`facts`].
pub fn offsets(path: &Path) -> Result<[u32; FIELDS.len()], Missing> {
    fields(&read(path)?, path)
}

fn read(path: &Path) -> Result<Btf, Missing> {
    Btf::from_file(path).map_err(|error| {
        Missing(format!(
            "{}: kernel type information (BTF) cannot be read: {error}; \
             run a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions do",
            path.display()
        ))
    })
}

fn fields(btf: &Btf, path: &Path) -> Result<[u32; FIELDS.len()], Missing> {
    let mut found = [0; FIELDS.len()];
    for (place, field) in found.iter_mut().zip(&FIELDS) {
        let found = offset(btf, field.of, field.name);
        let otherwise = field.optional.then_some(ABSENT);
        *place = found.or(otherwise).ok_or_else(|| {
            Missing(format!(
                "{}: this kernel's {} has no field {}; please report the kernel's version",
                path.display(),
                field.of,
                field.name
            ))
        })?;
    }
    Ok(found)
}

/// How many arguments a tracepoint has, by the type of its programs, whose first is its own data.
fn arguments(btf: &Btf, tracepoint: &str) -> Option<u32> {
    let found = btf
        .get_type_by_name(&format!("btf_trace_{tracepoint}"))
        .ok()?;
    let Type::FunctionProto(of) = &found.base_type else {
        return None;
    };
    u32::try_from(of.params.len().checked_sub(1)?).ok()
}

/// Whether the kernel numbers this helper (include/uapi/linux/bpf.h, enum bpf_func_id).
fn has_helper(btf: &Btf, name: &str) -> bool {
    let Ok(found) = btf.get_type_by_name("bpf_func_id") else {
        return false;
    };
    let (Type::Enum32(of) | Type::Enum64(of)) = &found.base_type else {
        return false;
    };
    of.entries
        .iter()
        .any(|entry| entry.name.as_deref() == Some(name))
}

/// Offset of a field in bytes.
fn offset(btf: &Btf, of: &str, name: &str) -> Option<u32> {
    let bits = within(btf, &btf.get_type_by_name(of).ok()?.base_type, name)?;
    (bits % 8 == 0).then_some(bits / 8)
}

/// Offset of a field in bits, looking into anonymous members.
fn within(btf: &Btf, of: &Type, name: &str) -> Option<u32> {
    let (Type::Struct(members) | Type::Union(members)) = of else {
        return None;
    };
    members
        .members
        .iter()
        .find_map(|member| match member.name.as_deref() {
            Some(found) if found == name => Some(member.offset),
            None | Some("") => {
                let inner = &btf.get_type_by_id(member.type_id).ok()?.base_type;
                Some(member.offset + within(btf, inner, name)?)
            }
            Some(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts of the kernel's ABI that never change: task_struct begins with thread_info, whose
    /// first word is not its pid; skc_dport and skc_num share the word after the hash
    /// (include/net/sock.h, struct sock_common).
    #[test]
    fn offsets_agree_with_what_the_headers_promise() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            println!(
                "SKIPPED: offsets_agree_with_what_the_headers_promise: no {}",
                path.display()
            );
            return;
        }
        let found = offsets(path).expect("every field is there");
        let of = |global: &str| {
            FIELDS
                .iter()
                .position(|field| field.global == global)
                .map(|at| found[at])
                .expect("known")
        };
        assert_eq!(of("SOCK_DPORT"), 12);
        assert_eq!(of("SOCK_NUM"), 14);
        assert!(of("TASK_PID") > of("TASK_FLAGS"));
        assert!(of("TCP_COPIED_SEQ") != of("TCP_WRITE_SEQ"));
        for global in ["SOCK_NET", "NET_NS", "NS_INUM"] {
            assert_ne!(of(global), ABSENT, "{global}");
        }
        // struct gendisk begins with major and first_minor (include/linux/blkdev.h).
        assert_eq!((of("DISK_MAJOR"), of("DISK_MINOR")), (0, 4));
        assert!(of("QUEUE_DISK") != ABSENT || of("REQUEST_DISK") != ABSENT);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = offsets(Path::new("/nonexistent/btf")).expect_err("not there");
        assert!(
            error
                .0
                .starts_with("/nonexistent/btf: kernel type information"),
            "{error}"
        );
    }
}
