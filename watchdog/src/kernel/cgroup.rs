//! Finds the cgroup v2 root: every socket on the node is below it, in any container and namespace.
//!
//! Hybrid set-ups mount it beside v1 (`/sys/fs/cgroup/unified`). Where nothing has mounted it, it
//! is mounted detached (fsopen, fsmount): a descriptor of this process, in no namespace's tree,
//! gone when it is closed.

use std::{
    fs::File,
    io,
    os::fd::{FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::Missing;

/// The root, open.
///
/// # Errors
/// There is none and none can be mounted.
pub fn root(asked: Option<&Path>) -> Result<File, Missing> {
    if let Some(path) = asked {
        return open(path);
    }
    if let Some(path) = mounted() {
        return open(&path);
    }
    mount_detached().map_err(|error| {
        Missing(format!(
            "no cgroup v2 hierarchy is mounted and mounting one failed: {error}; \
             mount it (`mount -t cgroup2 none /sys/fs/cgroup/unified`) or run as root"
        ))
    })
}

fn open(path: &Path) -> Result<File, Missing> {
    let missing = |why: String| {
        Missing(format!(
            "{}: not a cgroup v2 root: {why}; leave --cgroup-root out to have it found",
            path.display()
        ))
    };
    let file = File::open(path).map_err(|error| missing(error.to_string()))?;
    // SAFETY: an all-zero statfs is a valid value, and fstatfs only writes it.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a valid place to write to.
    if unsafe { libc::fstatfs(std::os::fd::AsRawFd::as_raw_fd(&file), &raw mut stat) } != 0 {
        return Err(missing(io::Error::last_os_error().to_string()));
    }
    if stat.f_type != libc::CGROUP2_SUPER_MAGIC {
        return Err(missing("another file system".into()));
    }
    Ok(file)
}

/// Where a cgroup v2 hierarchy is mounted with its root.
fn mounted() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(root_mount).map(PathBuf::from)
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)) if it is a cgroup v2 root.
fn root_mount(line: &str) -> Option<&str> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    (fields.next()? == "/").then(|| fields.next())?
}

fn mount_detached() -> io::Result<File> {
    let call = |number: libc::c_long, args: [libc::c_long; 5]| {
        // SAFETY: the calls below take integers and pointers to constants that outlive them.
        let answer = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
        if answer < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(i32::try_from(answer).unwrap_or(-1))
        }
    };
    let owned = |fd: i32| {
        // SAFETY: a descriptor just made, owned by nobody else.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    // FSOPEN_CLOEXEC = 1, FSCONFIG_CMD_CREATE = 6, FSMOUNT_CLOEXEC = 1 (include/uapi/linux/mount.h).
    let context = call(
        libc::SYS_fsopen,
        [c"cgroup2".as_ptr() as libc::c_long, 1, 0, 0, 0],
    )?;
    let _context = owned(context);
    call(libc::SYS_fsconfig, [context.into(), 6, 0, 0, 0])?;
    let mount = call(libc::SYS_fsmount, [context.into(), 1, 0, 0, 0])?;
    Ok(File::from(owned(mount)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_beside_v1_and_a_sub_tree_is_not_taken_for_it() {
        let hybrid =
            "36 27 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(root_mount(hybrid), Some("/sys/fs/cgroup/unified"));
        let container = "36 27 0:31 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(root_mount(container), None);
        assert_eq!(
            root_mount("36 27 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw"),
            None
        );
        assert_eq!(root_mount("garbage"), None);
    }

    #[test]
    fn where_none_is_mounted_one_is_had_that_nobody_else_sees() {
        // SAFETY: has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            println!("SKIPPED: where_none_is_mounted_one_is_had_that_nobody_else_sees: needs root");
            return;
        }
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("procfs");
        let before = mounts();
        let root = mount_detached().expect("root may mount");
        assert_eq!(mounts(), before, "it is in no tree");
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&root);
        assert!(open(Path::new(&format!("/proc/self/fd/{descriptor}"))).is_ok());
    }

    #[test]
    fn another_file_system_is_refused_with_its_mend() {
        let error = root(Some(Path::new("/proc"))).expect_err("not a cgroup");
        assert!(
            error
                .0
                .contains("/proc: not a cgroup v2 root: another file system"),
            "{error}"
        );
    }
}
