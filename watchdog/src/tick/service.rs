//! What a service manager is told (sd_notify(3)): that the daemon is ready, and that its tick runs.
//!
//! In: `NOTIFY_SOCKET` and `WATCHDOG_USEC` of the environment. Out: datagrams, by a socket that is
//! connected before the tick starts and never waits. The tick feeds the manager's watchdog itself: a
//! daemon whose sinks are alive and whose tick is not watches nothing, and shall be started again.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use watchdog_model::Mono;
use watchdog_model::time::{MS, SECOND};

/// Feedings in the manager's time limit.
const IN_LIMIT: u64 = 4;
/// The longest time between two.
const AT_MOST_NS: u64 = SECOND;

/// The manager's ear; nothing happens where there is none.
#[derive(Debug, Default)]
pub struct Service {
    socket: Option<UnixDatagram>,
    /// How often its watchdog is fed, ns; None: it has none.
    every_ns: Option<u64>,
    due: Mono,
}

impl Service {
    /// From the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let limit = std::env::var("WATCHDOG_USEC").ok();
        let for_pid = std::env::var("WATCHDOG_PID").ok();
        let own = std::process::id().to_string();
        // The limit may be meant for another process of the service.
        let limit = limit.filter(|_| for_pid.is_none_or(|pid| pid == own));
        Self::at(&name, limit.as_deref()).unwrap_or_else(|error| {
            tracing::warn!(%error, ?name, "NOTIFY_SOCKET: the service manager is not told");
            Self::default()
        })
    }

    /// Connected to a socket by its name: a path, or `@` and an abstract name.
    fn at(name: &OsStr, limit_us: Option<&str>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        let limit_ns = limit_us.and_then(|us| us.parse::<u64>().ok());
        let limit_ns = limit_ns.map(|us| us.saturating_mul(MS / 1_000));
        Ok(Self {
            socket: Some(socket),
            every_ns: limit_ns.map(|ns| (ns / IN_LIMIT).min(AT_MOST_NS)),
            due: Mono(0),
        })
    }

    /// A second ear, for another thread.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            socket: self.socket.as_ref().and_then(|one| one.try_clone().ok()),
            every_ns: self.every_ns,
            due: self.due,
        }
    }

    /// The daemon watches.
    pub fn ready(&self) {
        self.tell(b"READY=1\nSTATUS=watching");
    }

    /// The daemon was asked to stop.
    pub fn stopping(&self) {
        self.tell(b"STOPPING=1");
    }

    /// The tick runs. Neither waits nor allocates.
    pub fn feed(&mut self, now: Mono) {
        if let Some(every_ns) = self.every_ns
            && now >= self.due
        {
            self.tell(b"WATCHDOG=1");
            self.due = now.plus(every_ns);
        }
    }

    fn tell(&self, what: &[u8]) {
        if let Some(socket) = &self.socket {
            // Full or gone: the manager is not to be waited for.
            let _told = socket.send(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut room = [0; 128];
        let length = socket.recv(&mut room).ok()?;
        Some(String::from_utf8_lossy(&room[..length]).into_owned())
    }

    #[test]
    fn the_manager_hears_of_the_start_and_of_the_tick() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut service = Service::at(path.as_os_str(), Some("2000000")).unwrap();
        service.ready();
        assert_eq!(heard(&manager).as_deref(), Some("READY=1\nSTATUS=watching"));
        // A quarter of two seconds.
        for (now_ms, fed) in [(1_000, true), (1_499, false), (1_500, true)] {
            service.feed(Mono(now_ms * 1_000_000));
            let expected = fed.then_some("WATCHDOG=1");
            assert_eq!(heard(&manager).as_deref(), expected, "{now_ms}");
        }
        service.another().stopping();
        assert_eq!(heard(&manager).as_deref(), Some("STOPPING=1"));
    }

    #[test]
    fn without_a_limit_nothing_is_fed_and_a_full_socket_is_not_waited_for() {
        let manager = UnixDatagram::bind_addr(
            &SocketAddr::from_abstract_name(format!("watchdog-{}", std::process::id())).unwrap(),
        )
        .unwrap();
        let name = format!("@watchdog-{}", std::process::id());
        let mut service = Service::at(OsStr::new(&name), None).unwrap();
        service.feed(Mono(SECOND));
        manager.set_nonblocking(true).unwrap();
        assert_eq!(heard(&manager), None);
        // Far more than a socket takes.
        for _ in 0..100_000 {
            service.ready();
        }
        assert!(heard(&manager).is_some());
        drop(manager);
        service.stopping();
    }
}
