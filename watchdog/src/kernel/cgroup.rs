//! Finds the cgroup v2 root: every socket on the node is below it, in any container and namespace.
//!
//! Hybrid set-ups mount it beside v1 (`/sys/fs/cgroup/unified`). Where nothing has mounted it, it
//! is mounted detached (fsopen, fsmount): a descriptor of this process, in no namespace's tree,
//! gone when it is closed.

use std::{
    fs::File,
    io,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
};

use super::Missing;
use crate::collect::membership;

/// The root, open.
///
/// # Errors
/// There is none and none can be mounted.
pub fn root(asked: Option<&Path>) -> Result<File, Missing> {
    if let Some(path) = asked {
        return open(path);
    }
    if let Some(path) = membership::unified() {
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
