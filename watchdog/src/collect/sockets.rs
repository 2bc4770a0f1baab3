//! Other processes' sockets: who is at the other end, what TCP says.
//!
//! In: a process's descriptors. Out: addresses, cookies, tcp_info. Never: a byte read or written,
//! an option set.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use watchdog_model::causes::collected::TcpLook;
use watchdog_model::time::MS;

use super::existing::{duplicate, name, option};

/// Descriptors looked through for a flow's socket.
const DESCRIPTORS: u64 = 4096;

/// A socket of another process.
pub struct Borrowed {
    socket: OwnedFd,
}

/// struct tcp_info as far as `tcpi_snd_wnd` (include/uapi/linux/tcp.h, ≥ 5.4): places in it.
mod place {
    pub const BACKOFF: usize = 4;
    pub const PROBES: usize = 3;
    pub const RTO_US: usize = 8;
    pub const UNACKED: usize = 24;
    pub const LAST_ACK_RECEIVED_MS: usize = 56;
    pub const UNSENT_BYTES: usize = 144;
    pub const SEND_WINDOW: usize = 228;
    pub const END: usize = 232;
}

impl Borrowed {
    /// A process's descriptor, if it is a socket.
    ///
    /// # Errors
    /// It is not there, or may not be had.
    pub fn of(pid: u32, descriptor: u64) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
        Ok(Self {
            socket: duplicate(pid, descriptor)?,
        })
    }

    /// The other end, if it has one and it is of IP.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        let (address, port) = name(&self.socket, libc::getpeername).ok()?;
        Some(SocketAddr::new(
            IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
            port,
        ))
    }

    /// The cookie that the kernel knows it by.
    #[must_use]
    pub fn cookie(&self) -> Option<u64> {
        option(&self.socket, libc::SOL_SOCKET, libc::SO_COOKIE).ok()
    }

    /// What TCP says of it.
    #[must_use]
    pub fn tcp(&self) -> Option<TcpLook> {
        let mut info = [0_u8; place::END];
        let mut length = libc::socklen_t::try_from(info.len()).ok()?;
        // SAFETY: a valid place of that length.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if answer != 0 {
            return None;
        }
        let word = |at: usize| {
            let bytes = info[at..at + 4].try_into().unwrap_or_default();
            u32::from_ne_bytes(bytes)
        };
        // An older kernel fills less of it; a window that is not known is no shut one.
        let whole = usize::try_from(length).is_ok_and(|length| length >= place::END);
        Some(TcpLook {
            unacked: word(place::UNACKED),
            backoff: info[place::BACKOFF].into(),
            rto_ns: u64::from(word(place::RTO_US)) * 1000,
            send_window: if whole {
                word(place::SEND_WINDOW)
            } else {
                u32::MAX
            },
            unsent_bytes: word(place::UNSENT_BYTES),
            probes: info[place::PROBES].into(),
            acked_ago_ns: u64::from(word(place::LAST_ACK_RECEIVED_MS)) * MS,
        })
    }
}

/// The process's socket with this cookie.
#[must_use]
pub fn with_cookie(pid: u32, cookie: u64) -> Option<(u64, Borrowed)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor < DESCRIPTORS)
        .filter(|descriptor| {
            super::proc::descriptor(pid, *descriptor)
                .is_some_and(|target| target.starts_with(b"socket:"))
        })
        .find_map(|descriptor| {
            let socket = Borrowed::of(pid, descriptor).ok()?;
            (socket.cookie()? == cookie).then_some((descriptor, socket))
        })
}

impl std::fmt::Debug for Borrowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "socket {}", self.socket.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_own_connection_is_found_by_its_cookie() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let pid = std::process::id();
        let descriptor = u64::try_from(stream.as_raw_fd()).unwrap();
        let own = Borrowed::of(pid, descriptor).unwrap();
        assert_eq!(own.peer(), Some(stream.peer_addr().unwrap()));
        let (found, _) = with_cookie(pid, own.cookie().unwrap()).unwrap();
        assert_eq!(found, descriptor);
        let tcp = own.tcp().unwrap();
        assert!(tcp.send_window > 0 && tcp.unsent_bytes == 0 && tcp.rto_ns > 0);
    }
}
