//! A small ZooKeeper session server: what of ZooKeeper decides over a session's life, and no more.
//!
//! In: connections on 127.0.0.1 that speak ZooKeeper's protocol, or garbage. Out: replies, and one
//! JSON line on stdout for each thing that happens to a session. It knows nothing of the daemon.
//!
//! As the real one does it: the timeout is clamped to 2 to 20 ticks; a session is touched when a
//! request has been *read*; it expires at the end of the tick bucket in which touch + timeout lies;
//! and the thread that expires doesn't ask those that read, so a server that was stopped for long
//! may expire sessions whose pings lie in its sockets.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::{MS, mono_us, until};
use super::lines::{ServerLine, SessionId};
use super::wire::{self, ConnectRequest, ConnectResponse, FrameReader, Got, Password};

/// More connections than this are turned away: garbage must not exhaust the process.
const MAX_CONNECTIONS: u32 = 64;
/// How long a connection may take over its handshake, and a client over taking a reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Least time between two `touched` lines of one session.
const TELL_EVERY_US: u64 = 100 * MS;

/// Where the server's lines go.
pub type Tell = Arc<dyn Fn(ServerLine) + Send + Sync>;

/// A session as the server keeps it.
struct Session {
    password: Password,
    timeout_ms: u64,
    touched_us: u64,
    /// End of its bucket: from here on it expires.
    due_us: u64,
    told_us: u64,
    /// The connection that may renew it.
    owner: u64,
    stream: Option<Arc<TcpStream>>,
}

/// All sessions. Time comes in as an argument, so the rules can be tested without waiting.
struct Books {
    tick_us: u64,
    sessions: HashMap<u64, Session>,
    next_id: u64,
    secret: RandomState,
}

/// When a session touched at `touched_us` expires: the end of the tick bucket in which its timeout
/// runs out. That is more than the timeout and at most a tick more.
fn expiry(touched_us: u64, timeout_ms: u64, tick_us: u64) -> u64 {
    ((touched_us + timeout_ms * MS) / tick_us + 1) * tick_us
}

impl Books {
    fn new(tick_ms: u64, now: u64) -> Self {
        // As ZooKeeper's ids: a server number on top, then the time, then a count.
        let next_id = (1 << 56) | (((now / MS) & 0xff_ffff_ffff) << 16);
        let tick_us = tick_ms.max(1) * MS;
        Self {
            tick_us,
            sessions: HashMap::new(),
            next_id,
            secret: RandomState::new(),
        }
    }

    fn negotiate(&self, asked_ms: i32) -> u64 {
        let tick_ms = self.tick_us / MS;
        u64::try_from(asked_ms)
            .unwrap_or(0)
            .clamp(2 * tick_ms, 20 * tick_ms)
    }

    fn open(&mut self, asked_ms: i32, owner: u64, now: u64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut password = [0; 16];
        password[..8].copy_from_slice(&self.secret.hash_one(id).to_be_bytes());
        password[8..].copy_from_slice(&self.secret.hash_one(!id).to_be_bytes());
        let timeout_ms = self.negotiate(asked_ms);
        let due_us = expiry(now, timeout_ms, self.tick_us);
        let (touched_us, told_us) = (now, now);
        let session = Session {
            password,
            timeout_ms,
            touched_us,
            due_us,
            told_us,
            owner,
            stream: None,
        };
        self.sessions.insert(id, session);
        id
    }

    /// Hands a live session over to another connection; false if it isn't alive, or not its own.
    fn renew(&mut self, ask: &ConnectRequest, owner: u64, now: u64) -> bool {
        let timeout_ms = self.negotiate(ask.timeout_ms);
        let Some(session) = self.sessions.get_mut(&ask.session) else {
            return false;
        };
        if session.password != ask.password {
            return false;
        }
        session.timeout_ms = timeout_ms;
        session.owner = owner;
        if let Some(old) = session.stream.take() {
            // It may be closed already.
            let _ = old.shutdown(Shutdown::Both);
        }
        self.touch(ask.session, owner, now).is_some()
    }

    /// A request of `owner` was read. `None` if the session is no longer its own; else whether it is
    /// time to tell of it.
    fn touch(&mut self, id: u64, owner: u64, now: u64) -> Option<bool> {
        let session = self.sessions.get_mut(&id).filter(|s| s.owner == owner)?;
        session.touched_us = now;
        session.due_us = expiry(now, session.timeout_ms, self.tick_us);
        let tell = now >= session.told_us + TELL_EVERY_US;
        if tell {
            session.told_us = now;
        }
        Some(tell)
    }

    fn take_due(&mut self, now: u64) -> Vec<(u64, Session)> {
        let mut due: Vec<_> = self.sessions.extract_if(|_, s| s.due_us <= now).collect();
        due.sort_by_key(|(id, session)| (session.due_us, *id));
        due
    }

    /// When something may next be due: the end of the running bucket.
    fn next_bucket(&self, now: u64) -> u64 {
        (now / self.tick_us + 1) * self.tick_us
    }
}

/// What the threads share.
struct Shared {
    books: Mutex<Books>,
    /// Never signalled: buckets come by the clock alone. Here for its timed wait.
    bucket_end: Condvar,
    tell: Tell,
    connections: AtomicU32,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // The books are whole between any two statements; a panic elsewhere doesn't spoil them.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs for ever, by the clock alone.
    fn expire(&self) {
        let mut books = self.books();
        loop {
            let now = mono_us();
            for (id, session) in books.take_due(now) {
                (self.tell)(ServerLine::Expired {
                    at_mono_us: mono_us(),
                    session: SessionId(id),
                    touched_mono_us: session.touched_us,
                    due_mono_us: session.due_us,
                });
                if let Some(stream) = session.stream {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
            let wait = until(books.next_bucket(now), mono_us());
            let woken = self.bucket_end.wait_timeout(books, wait);
            books = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One connection, from its first byte to its end. How it ends is the client's affair; its session
    /// lives on till it expires.
    fn serve(&self, stream: TcpStream, owner: u64) {
        let stream = Arc::new(stream);
        let _ = self.converse(&stream, owner);
        // The session holds the stream too, so that expiry can close it; let go of both.
        let _ = stream.shutdown(Shutdown::Both);
        for session in self
            .books()
            .sessions
            .values_mut()
            .filter(|s| s.owner == owner)
        {
            session.stream = None;
        }
    }

    fn converse(&self, stream: &Arc<TcpStream>, owner: u64) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = FrameReader::default();
        let Some(first) = self.first_frame(stream, &mut reader)? else {
            return Ok(());
        };
        let Some(ask) = ConnectRequest::decode(&first) else {
            return Ok(());
        };
        let answer = self.handshake(&ask, owner, stream);
        (&**stream).write_all(&wire::framed(&answer.encode()))?;
        if answer.expired() {
            return Ok(());
        }
        stream.set_read_timeout(None)?;
        while let Some(body) = next_frame(stream, &mut reader)? {
            let Some((xid, opcode)) = wire::request_head(&body) else {
                return Ok(());
            };
            let now = mono_us();
            let Some(tell) = self.books().touch(answer.session, owner, now) else {
                return Ok(());
            };
            let session = SessionId(answer.session);
            if tell {
                (self.tell)(ServerLine::Touched {
                    at_mono_us: now,
                    session,
                });
            }
            // Nothing is ever written here, so the transaction id stands still.
            let reply = match opcode {
                wire::OP_PING => wire::reply(wire::XID_PING, 1, 0, &[]),
                wire::OP_GET_DATA => wire::reply(xid, 1, 0, &wire::data_and_stat(b"demo")),
                wire::OP_CLOSE => wire::reply(xid, 1, 0, &[]),
                _ => wire::reply(xid, 1, wire::ERR_UNIMPLEMENTED, &[]),
            };
            if opcode == wire::OP_CLOSE && self.books().sessions.remove(&session.0).is_some() {
                (self.tell)(ServerLine::Closed {
                    at_mono_us: mono_us(),
                    session,
                });
            }
            (&**stream).write_all(&wire::framed(&reply))?;
            if opcode == wire::OP_CLOSE {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The first frame; a four-letter word in its place is answered here.
    fn first_frame(&self, s: &TcpStream, reader: &mut FrameReader) -> io::Result<Option<Vec<u8>>> {
        let deadline = mono_us() + PATIENCE.as_micros() as u64;
        while mono_us() < deadline {
            match reader.read_from(&mut &*s) {
                Ok(Got::Frame(body)) => return Ok(Some(body)),
                Ok(Got::Pending) => {}
                Ok(Got::Eof) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    if &reader.header() == b"ruok" {
                        (&mut &*s).write_all(b"imok")?;
                    }
                    return Ok(None);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn handshake(&self, ask: &ConnectRequest, owner: u64, s: &Arc<TcpStream>) -> ConnectResponse {
        let mut books = self.books();
        let now = mono_us();
        let id = match ask.session {
            0 => books.open(ask.timeout_ms, owner, now),
            id if books.renew(ask, owner, now) => id,
            _ => return ConnectResponse::default(),
        };
        let Some(session) = books.sessions.get_mut(&id) else {
            return ConnectResponse::default();
        };
        session.stream = Some(Arc::clone(s));
        let (timeout_ms, password) = (session.timeout_ms, session.password);
        let session = SessionId(id);
        (self.tell)(match ask.session {
            0 => ServerLine::Opened {
                at_mono_us: now,
                session,
                timeout_ms,
            },
            _ => ServerLine::Moved {
                at_mono_us: now,
                session,
            },
        });
        ConnectResponse {
            timeout_ms: timeout_ms as i32,
            session: id,
            password,
        }
    }
}

/// Waits for a frame; `None` at the end of the connection.
fn next_frame(stream: &TcpStream, reader: &mut FrameReader) -> io::Result<Option<Vec<u8>>> {
    loop {
        match reader.read_from(&mut &*stream)? {
            Got::Frame(body) => return Ok(Some(body)),
            Got::Pending => {}
            Got::Eof => return Ok(None),
        }
    }
}

/// Serves for ever on 127.0.0.1; port 0 takes a free one, which the first line tells.
pub fn serve(port: u16, tick_ms: u64, tell: Tell) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let shared = Arc::new(Shared {
        books: Mutex::new(Books::new(tick_ms, mono_us())),
        bucket_end: Condvar::new(),
        tell: Arc::clone(&tell),
        connections: AtomicU32::new(0),
    });
    let expiring = Arc::clone(&shared);
    std::thread::Builder::new().spawn(move || expiring.expire())?;
    let port = listener.local_addr()?.port();
    tell(ServerLine::Listening {
        at_mono_us: mono_us(),
        port,
    });
    for (owner, stream) in (1..).zip(listener.incoming()) {
        // A client that is gone before it was accepted is no reason to end, nor is a full table.
        let Ok(stream) = stream else { continue };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let serving = Arc::clone(&shared);
        let started = std::thread::Builder::new().spawn(move || {
            serving.serve(stream, owner);
            serving.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
