//! Faults that undo themselves: a stopped process runs again, a network namespace is gone, when
//! the guard is dropped.

use super::{clock, process};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A process stopped by SIGSTOP. Dropping it sends SIGCONT.
#[derive(Debug)]
pub struct Stopped {
    pid: i32,
    /// When the kernel had stopped it, in microseconds of CLOCK_MONOTONIC (at most 10 ms late).
    pub since_us: i64,
}

impl Stopped {
    /// Stops `pid` and waits until the kernel says so.
    ///
    /// # Panics
    /// If the process does not exist.
    pub fn stop(pid: i32) -> Self {
        let guard = Self {
            pid,
            since_us: clock::now_us(),
        };
        process::send_signal(pid, libc::SIGSTOP);
        let stopped = clock::poll(Duration::from_secs(2), || {
            (process::state(pid)? == 'T').then_some(())
        });
        assert!(
            stopped.is_some(),
            "process {pid} did not stop: {:?}",
            process::state(pid)
        );
        guard
    }

    /// Lets it run again; gives the moment.
    pub fn resume(self) -> i64 {
        let at_us = clock::now_us();
        drop(self);
        at_us
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        process::send_signal(self.pid, libc::SIGCONT);
    }
}

/// A network namespace joined to the node by a pair of virtual interfaces.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    near: String,
    /// The node's end of the link, to which clients inside connect.
    pub node_address: String,
    /// The end inside the namespace.
    pub inner_address: String,
}

impl Namespace {
    /// Makes the namespace, the link and both addresses.
    ///
    /// # Panics
    /// If a step fails; it needs root and iproute2.
    pub fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let network = (pid + number) % 250;
        let namespace = Self {
            name: format!("lease-story-{pid}-{number}"),
            near: format!("ls{}-{number}", pid % 100_000),
            node_address: format!("10.213.{network}.1"),
            inner_address: format!("10.213.{network}.2"),
        };
        let Self {
            name,
            near,
            node_address,
            inner_address,
        } = &namespace;
        let far = "inside";
        for step in [
            format!("netns add {name}"),
            format!("link add {near} type veth peer name {far} netns {name}"),
            format!("addr add {node_address}/24 dev {near}"),
            format!("link set {near} up"),
            format!("-n {name} addr add {inner_address}/24 dev {far}"),
            format!("-n {name} link set {far} up"),
            format!("-n {name} link set lo up"),
        ] {
            process::run("ip", &step.split(' ').collect::<Vec<_>>());
        }
        namespace
    }

    /// The words to put before a command so that it runs inside; it keeps its process id.
    pub fn enter(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for arguments in [["link", "del", &self.near], ["netns", "del", &self.name]] {
            let output = std::process::Command::new("ip").args(arguments).output();
            if !output.as_ref().is_ok_and(|output| output.status.success()) {
                eprintln!("left behind: ip {} failed: {output:?}", arguments.join(" "));
            }
        }
    }
}

/// Cuts the connection that `owner` has with `peer`, as a middlebox does: both ends see the end
/// of the stream, neither process has asked for it. If it has none, there is nothing to cut.
pub fn cut(owner: i32, peer: SocketAddr) {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{owner}/fd")) else {
        return;
    };
    let numbers = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = numbers
        .filter_map(|number| borrow(owner, number))
        .find(|stream| {
            let other = stream.peer_addr().ok();
            other.is_some_and(|other| {
                other.ip().to_canonical() == peer.ip() && other.port() == peer.port()
            })
        });
    // One that has just been closed by itself has no need to be cut.
    if let Some(stream) = found {
        drop(stream.shutdown(Shutdown::Both));
    }
}

/// A duplicate of another process's descriptor, if it is one that can be asked for its peer.
fn borrow(owner: i32, number: i32) -> Option<TcpStream> {
    // SAFETY: neither call takes a pointer; each returns a new descriptor of ours or an error.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, owner, 0) })?;
    // SAFETY: as above.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    Some(TcpStream::from(own(copy)?))
}

fn own(descriptor: libc::c_long) -> Option<OwnedFd> {
    let descriptor = i32::try_from(descriptor)
        .ok()
        .filter(|number| *number >= 0)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
