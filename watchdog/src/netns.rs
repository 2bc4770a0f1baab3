//! A network namespace by its name in a file system.
//!
//! In: `self`, or a path as `ip netns` makes it. Out: the namespace, held open, and the number by
//! which the kernel programs tell its sockets; a line in the log when the name leads there no more. Never: a
//! thread moved into it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The file system of namespaces (NSFS_MAGIC, include/uapi/linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// Asks a namespace for its kind (NS_GET_NSTYPE, include/uapi/linux/nsfs.h).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
/// Where `ip netns add NAME` puts its namespaces.
const NAMED: &str = "/run/netns";
/// The daemon's own, by this word.
pub const OWN: &str = "self";

/// A network namespace. While it is open its number is not given to another.
#[derive(Debug)]
pub struct Netns {
    file: File,
    number: u32,
}

impl Netns {
    /// Opens what `scope.netns` names.
    ///
    /// # Errors
    /// Why it cannot be, with the mend.
    pub fn open(name: &str) -> Result<Self, String> {
        if name == OWN {
            return Self::at(Path::new("/proc/self/ns/net"));
        }
        if !name.starts_with('/') {
            return Err(format!(
                "{name:?} is not a path; write \"{NAMED}/{name}\", or \"{OWN}\" for the daemon's own"
            ));
        }
        Self::at(Path::new(name))
    }

    fn at(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        // Non-blocking: what is named may be a pipe.
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| match (error.kind(), path.strip_prefix(NAMED)) {
                (io::ErrorKind::NotFound, Ok(name)) => format!(
                    "{shown} does not exist; make it before the daemon starts, with: ip netns add {}",
                    name.display()
                ),
                (io::ErrorKind::NotFound, Err(_)) => format!("{shown} does not exist; check the path"),
                _ => format!("{shown} cannot be opened: {error}; run as root, or check the path"),
            })?;
        // SAFETY: an all-zero statfs is a valid value, and fstatfs only writes it.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a valid place to write to.
        let known = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) } == 0;
        let kind = if known && stat.f_type == NSFS_MAGIC {
            // SAFETY: an open descriptor; the call takes no argument.
            unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) }
        } else {
            0
        };
        if kind != libc::CLONE_NEWNET {
            return Err(format!(
                "{shown} is not a network namespace; name one as `ip netns list` shows it, \
                 like \"{NAMED}/NAME\""
            ));
        }
        let number = file
            .metadata()
            .ok()
            .and_then(|meta| u32::try_from(meta.ino()).ok())
            .ok_or_else(|| format!("{shown} has no number that the kernel's sockets would bear"))?;
        Ok(Self { file, number })
    }

    /// Its inode number (`net.ns.inum` in the kernel).
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether `name` still leads to it: `ip netns delete` takes the name away, and what is made anew under the
    /// same name is another.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        Self::open(name).is_ok_and(|there| there.number == self.number)
    }

    /// The open file, as for setns(2).
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }
}

/// How often the name is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Says so, once, when the watched namespace has been deleted or replaced; looks until then.
pub async fn say_when_gone(watched: Arc<Netns>, name: String) {
    while watched.is_named(&name) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tracing::warn!("{}", gone(&name));
}

/// What is said of a namespace whose name leads there no more.
#[must_use]
pub fn gone(name: &str) -> String {
    format!(
        "scope.netns: {name} is deleted or names another namespace than the one that is watched; \
         restart the daemon to watch what is there then"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_one_is_had_by_word_and_by_path() {
        let own = Netns::open(OWN).unwrap();
        assert_eq!(
            Netns::open("/proc/self/ns/net").unwrap().number(),
            own.number()
        );
        let link = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(
            link.to_str(),
            Some(format!("net:[{}]", own.number()).as_str())
        );
    }

    #[test]
    fn what_is_none_is_refused_with_its_mend() {
        for (name, expected) in [
            (
                "blue",
                "\"blue\" is not a path; write \"/run/netns/blue\", or \"self\" for the daemon's own",
            ),
            (
                "/run/netns/there-is-none",
                "/run/netns/there-is-none does not exist; make it before the daemon starts, with: \
                 ip netns add there-is-none",
            ),
            (
                "/proc/self/ns/mnt",
                "/proc/self/ns/mnt is not a network namespace; name one as `ip netns list` shows \
                 it, like \"/run/netns/NAME\"",
            ),
            (
                "/dev/null",
                "/dev/null is not a network namespace; name one as `ip netns list` shows it, like \
                 \"/run/netns/NAME\"",
            ),
            ("/no/such", "/no/such does not exist; check the path"),
        ] {
            assert_eq!(Netns::open(name).unwrap_err(), expected);
        }
    }
}
