//! The one server and the one daemon that the stories share which do not disturb each other.
//! Each story looks only at its own clients' sessions.

use super::client::{Client, Order};
use super::daemon::{Daemon, Home};
use super::zookeeper::{Listen, ZooKeeper};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// The timeout that everyone gets here.
pub const TIMEOUT: Duration = Duration::from_secs(6);

/// A server, and a daemon that watches it from before its first session.
#[derive(Debug)]
pub struct World {
    /// The server on loopback.
    pub server: ZooKeeper,
    /// The daemon with the standard stages.
    pub daemon: Daemon,
    /// Where the daemon lives; removed with the world.
    _home: Home,
}

impl World {
    /// A world of one's own.
    pub fn new(timeout: Duration, listen: Listen, extra: &str) -> Self {
        let server = ZooKeeper::start(timeout, listen);
        let home = Home::watching(&[server.port()], extra);
        let daemon = Daemon::start(&home);
        Self {
            server,
            daemon,
            _home: home,
        }
    }

    /// The shared world: made by whoever comes first, undone by whoever leaves last.
    pub fn shared() -> Visit {
        static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut shared = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        let world = shared.upgrade().unwrap_or_else(|| {
            let world = Arc::new(Self::new(TIMEOUT, Listen::Loopback, ""));
            *shared = Arc::downgrade(&world);
            world
        });
        Visit { world }
    }

    /// One client of each kind, connected, and both ends of each lease seen.
    ///
    /// # Panics
    /// If a client does not connect or the daemon does not see its lease.
    pub fn connect(&self, clients: Vec<Client>) -> Vec<Client> {
        for client in &clients {
            let id = client.id();
            for role in ROLES {
                self.daemon.wait_seen(id, role, Duration::from_secs(5));
            }
        }
        clients
    }

    /// One idle client of each kind, asking for `timeout`.
    ///
    /// # Panics
    /// As [`World::connect`].
    pub fn idle_clients(&self, timeout: Duration) -> Vec<Client> {
        let port = self.server.port();
        self.connect(Client::start_all(|kind| Order::idle(kind, port, timeout)))
    }
}

/// A story's stay in the shared world. If the story fails, the server's log is printed.
#[derive(Debug)]
pub struct Visit {
    world: Arc<World>,
}

impl Deref for Visit {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.server.report();
        }
    }
}

/// Both ends of a lease: on one node each has a lease of its own.
pub const ROLES: [&str; 2] = ["holder", "grantor"];
