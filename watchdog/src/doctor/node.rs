//! The kernel, the rights and the manners: what is the same whatever is configured.

use std::fs;

use procfs::process::Process;

use super::{Check, State};
use crate::kernel::release;
use crate::priority::{self, Granted};
use crate::resident;

/// The first kernel on which the programs load (BTF tracepoints on sockets, `bpf_skc_to_tcp_sock`); the
/// first that takes those that follow any segment (`bpf_loop`); the first with all hooks.
const OLDEST: (u32, u32) = (5, 10);
const FOLLOWED: (u32, u32) = (5, 17);
const WHOLE: (u32, u32) = (6, 3);

/// Inode of the node's own pid namespace (include/uapi/linux/nsfs.h, PROC_PID_INIT_INO).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

struct Capability {
    name: &'static str,
    /// Its bit (include/uapi/linux/capability.h).
    bit: u32,
    state: State,
    without: &'static str,
}

const SYS_ADMIN: u32 = 21;
const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "CAP_BPF",
        bit: 39,
        state: State::Missing,
        without: "the kernel programs cannot be loaded",
    },
    Capability {
        name: "CAP_PERFMON",
        bit: 38,
        state: State::Missing,
        without: "the kernel programs cannot be loaded",
    },
    Capability {
        name: "CAP_NET_ADMIN",
        bit: 12,
        state: State::Missing,
        without: "packets and connections cannot be seen",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        state: State::Less,
        without: "connections older than the daemon are seen from their next packet on; fewer causes",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        state: State::Less,
        without: "the same, for other users' processes",
    },
    Capability {
        name: "CAP_SYS_NICE",
        bit: 23,
        state: State::Less,
        without: "the tick has no real-time priority: late warnings on a node without CPU left",
    },
    Capability {
        name: "CAP_IPC_LOCK",
        bit: 14,
        state: State::Less,
        without: "memory is locked only as far as RLIMIT_MEMLOCK allows",
    },
];

/// What is lost without a signal, and what to do.
pub fn without(signal: &str) -> String {
    let lost = match signal {
        "writes" => "nothing is said of bytes that are written and not yet sent; Linux 6.3 has it",
        "reads" => "unread renewals and replies are not told apart from unanswered ones",
        "switches" | "wakeups" => {
            "no proof of a stall, no cause process_stopped: warnings come later"
        }
        "block" => "a hung disk is proven later",
        "plaintext" => {
            "inside TLS leases are told by its records alone; Linux 5.17 has what it takes"
        }
        "journal" => "a hung journal commit is not named",
        "retransmits" => "lost packets are noticed by silence alone",
        _ => "the daemon does without it",
    };
    format!("a newer kernel, or none: {lost}")
}

/// Kernel, processor, lockdown, tracefs, pid namespace.
pub fn basics() -> Vec<Check> {
    vec![
        kernel(&release::running()),
        machine(std::env::consts::ARCH),
        lockdown(fs::read_to_string("/sys/kernel/security/lockdown").ok()),
        tracefs(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        pid_namespace(),
    ]
}

fn kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    let Some(version) = release::version(release) else {
        return Check::new(
            NAME,
            State::Note,
            format!("release {release:?} is no number"),
        )
        .mend("nothing: the hooks below are tried");
    };
    let found = format!("Linux {release}");
    if version < OLDEST {
        return Check::new(NAME, State::Missing, found).mend("run Linux 5.10 or later");
    }
    if version < FOLLOWED {
        return Check::new(NAME, State::Note, found).mend(
            "Linux 5.17 follows every message, this one 512 in a segment; what else is lost stands below",
        );
    }
    if version < WHOLE {
        return Check::new(NAME, State::Note, found)
            .mend("Linux 6.3 has every hook; what is lost without stands below");
    }
    Check::ok(NAME, found)
}

fn machine(arch: &str) -> Check {
    match arch {
        "x86_64" => Check::ok("processor", arch),
        _ => Check::new("processor", State::Note, arch).mend("nothing: tried on x86-64 only"),
    }
}

fn lockdown(file: Option<String>) -> Check {
    const NAME: &str = "lockdown";
    let Some(file) = file else {
        return Check::ok(NAME, "none (no /sys/kernel/security/lockdown)");
    };
    let in_force = file
        .split_once('[')
        .and_then(|(_, rest)| Some(rest.split_once(']')?.0))
        .unwrap_or("unknown");
    match in_force {
        "confidentiality" => Check::new(NAME, State::Note, in_force)
            .mend("if hooks are refused below: boot with lockdown=integrity"),
        _ => Check::ok(
            NAME,
            format!("{in_force}: no kprobes are used, and fexit only for writes before Linux 6.3"),
        ),
    }
}

fn tracefs(mounts: &str) -> Check {
    let found = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after
            .starts_with("tracefs ")
            .then(|| before.split(' ').nth(4))?
    });
    match found {
        Some(place) => Check::ok("tracefs", place),
        None => Check::ok(
            "tracefs",
            "not mounted, and not needed: hooks are found by type",
        ),
    }
}

fn pid_namespace() -> Check {
    const NAME: &str = "pid namespace";
    let number = Process::myself()
        .and_then(|own| own.namespaces())
        .ok()
        .and_then(|all| {
            all.0
                .get(std::ffi::OsStr::new("pid"))
                .map(|own| own.identifier)
        });
    match number {
        Some(FIRST_PID_NAMESPACE) => Check::ok(NAME, "the node's own"),
        _ => Check::new(
            NAME,
            State::Less,
            "a container's: processes outside have no names here",
        )
        .mend("run it in the node's pid namespace (docker run --pid host, hostPID: true)"),
    }
}

/// Each capability that is used.
pub fn capabilities() -> Vec<Check> {
    let held = Process::myself()
        .and_then(|own| own.status())
        .map_or(0, |status| status.capeff);
    of_held(held)
}

fn of_held(held: u64) -> Vec<Check> {
    let has = |bit: u32| held & (1 << bit) != 0;
    let check = |capability: &Capability| {
        // Before 5.8 it was the only one for these, and it still does.
        let by_admin = capability.bit >= 38 && has(SYS_ADMIN);
        if has(capability.bit) || by_admin {
            return Check::ok(capability.name, "held");
        }
        let found = format!("not held: {}", capability.without);
        Check::new(capability.name, capability.state, found).mend(format!(
            "run as root, or add {} to AmbientCapabilities of the service",
            capability.name
        ))
    };
    let mut checks: Vec<Check> = CAPABILITIES.iter().map(check).collect();
    checks.push(if has(SYS_ADMIN) {
        Check::ok("CAP_SYS_ADMIN", "held")
    } else {
        Check::new(
            "CAP_SYS_ADMIN",
            State::Note,
            "not held, as in the service: no kernel stacks of late threads",
        )
        .mend("nothing, unless causes stay unknown (docs/deploy.md)")
    });
    checks
}

/// What makes the tick punctual.
pub fn manners() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(if priority::granted() == Granted::RealTime {
        Check::ok("real-time priority", "SCHED_FIFO can be had")
    } else {
        Check::new(
            "real-time priority",
            State::Less,
            "refused: the tick is late when no CPU is free",
        )
        .mend("give it CAP_SYS_NICE (LimitRTPRIO=3 in a unit), or time in cpu.rt_runtime_us of its cgroup")
    });
    checks.push(match resident::can_lock() {
        Ok(()) => Check::ok("locked memory", format!("can be had; {}", limit())),
        Err(error) => Check::new(
            "locked memory",
            State::Less,
            format!(
                "refused ({error}; {}): a warning may wait for a page of a frozen disk",
                limit()
            ),
        )
        .mend("give it CAP_IPC_LOCK, or LimitMEMLOCK=infinity (ulimit -l unlimited)"),
    });
    checks
}

/// RLIMIT_MEMLOCK in words.
fn limit() -> String {
    let limits = Process::myself().and_then(|own| own.limits());
    match limits.map(|limits| limits.max_locked_memory.soft_limit) {
        Ok(procfs::process::LimitValue::Value(bytes)) => format!("memlock limit {bytes} bytes"),
        Ok(procfs::process::LimitValue::Unlimited) => "memlock unlimited".to_owned(),
        Err(_) => "memlock limit not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_by_age() {
        for (release, state) in [
            ("4.19.0-27-amd64", State::Missing),
            ("5.9.16", State::Missing),
            ("5.10.0-28-amd64", State::Note),
            ("5.16.20", State::Note),
            ("5.17.0", State::Note),
            ("6.1.0-18-cloud-amd64", State::Note),
            ("6.3.0", State::Ok),
            ("6.18.5", State::Ok),
            ("7.0-rc1", State::Ok),
            ("blue", State::Note),
        ] {
            assert_eq!(kernel(release).state, state, "{release}");
        }
    }

    #[test]
    fn the_lockdown_in_force_is_the_one_in_brackets() {
        let row = |text: &str| lockdown(Some(text.to_owned()));
        assert!(
            row("none [integrity] confidentiality\n")
                .found
                .starts_with("integrity")
        );
        assert_eq!(row("none integrity [confidentiality]\n").state, State::Note);
        assert_eq!(lockdown(None).state, State::Ok);
    }

    #[test]
    fn each_capability_that_is_not_held_is_named_with_what_is_lost() {
        let all = u64::MAX;
        assert!(of_held(all).iter().all(|row| row.state == State::Ok));
        for capability in CAPABILITIES {
            let rows = of_held(all & !(1 << capability.bit) & !(1 << SYS_ADMIN));
            let row = rows
                .iter()
                .find(|row| row.check == capability.name)
                .unwrap();
            assert_eq!(row.state, capability.state, "{row:?}");
            let mend = row.mend.as_deref().unwrap();
            assert!(mend.contains(capability.name), "{row:?}");
        }
        let admin = of_held(1 << SYS_ADMIN);
        assert_eq!((admin[0].state, admin[1].state), (State::Ok, State::Ok));
        assert_eq!(admin[2].state, State::Missing);
    }
}
