//! One client process: keeps a session alive the way its kind does, and reconnects as real ones do.
//!
//! In: the server's port, the kind, a stop flag. Out: traffic, and a JSON line for each thing that
//! happens to the session. It knows nothing of the daemon.
//!
//! It gives up a connection when 2T/3 have passed since the last complete reply, by its own clock; so
//! after a long stop it does so before it reads what has come meanwhile, as the C client does.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clock::{MS, mono_us, pause, until};
use super::lines::{ClientKind, ClientLine, SessionId};
use super::wire::{self, ConnectRequest, ConnectResponse, FrameReader, Got, Password};

/// Between two requests of the busy kind.
const BUSY_EVERY_US: u64 = 20 * MS;
/// Longest wait in one read, so that a wish to stop is soon seen.
const READ_SLICE_US: u64 = 50 * MS;
/// Between two attempts to connect.
const RETRY_MS: u16 = 100;
/// How long the goodbye may take.
const GOODBYE_US: u64 = 500 * MS;

/// What a client is started with.
pub struct Setup<'a> {
    /// How it behaves.
    pub kind: ClientKind,
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The timeout it asks for.
    pub timeout_ms: i32,
    /// Where its lines go.
    pub tell: &'a dyn Fn(ClientLine),
    /// Set from outside: end the session and return.
    pub stop: &'a AtomicBool,
}

/// A session as the client knows it.
#[derive(Clone, Copy)]
struct Known {
    id: u64,
    password: Password,
    timeout_ms: u64,
}

/// How a connection ended.
enum End {
    /// It is gone, the session may live.
    Lost(String),
    /// So is the session.
    Expired,
    /// We were asked to stop.
    Stopped,
}

/// One connection.
struct Link<'a> {
    setup: &'a Setup<'a>,
    stream: TcpStream,
    reader: FrameReader,
    last_send: u64,
    last_reply: u64,
    outstanding: u32,
}

/// Keeps a session until it is told to stop or the session has expired.
pub fn keep_session(setup: &Setup<'_>) {
    let mut known = None;
    loop {
        let end = connect_and_keep(setup, &mut known).unwrap_or_else(|e| End::Lost(e.to_string()));
        let session = known.map(|k: Known| SessionId(k.id));
        let at_mono_us = mono_us();
        match (end, session) {
            (End::Lost(why), _) => {
                (setup.tell)(ClientLine::Reconnecting { at_mono_us, why });
                if setup.stop.load(Ordering::Relaxed) {
                    return;
                }
                pause(RETRY_MS);
            }
            (End::Expired, Some(session)) => {
                return (setup.tell)(ClientLine::Expired {
                    at_mono_us,
                    session,
                });
            }
            (End::Stopped, Some(session)) => {
                return (setup.tell)(ClientLine::Closed {
                    at_mono_us,
                    session,
                });
            }
            (_, None) => return,
        }
    }
}

fn connect_and_keep(setup: &Setup<'_>, known: &mut Option<Known>) -> io::Result<End> {
    let timeout_ms = known.map_or(setup.timeout_ms.unsigned_abs().into(), |k| k.timeout_ms);
    let patience_us = timeout_ms * MS * 2 / 3;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, setup.port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_micros(patience_us))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_micros(patience_us)))?;
    let now = mono_us();
    let mut link = Link {
        setup,
        stream,
        reader: FrameReader::default(),
        last_send: now,
        last_reply: now,
        outstanding: 0,
    };
    let ask = ConnectRequest {
        timeout_ms: setup.timeout_ms,
        session: known.map_or(0, |k| k.id),
        password: known.map_or([0; 16], |k| k.password),
    };
    link.send(&ask.encode(setup.kind != ClientKind::C))?;
    let body = match link.await_frame(now + patience_us)? {
        Ok(body) => body,
        Err(end) => return Ok(end),
    };
    let Some(answer) = ConnectResponse::decode(&body) else {
        return Ok(End::Lost(
            "the handshake's answer makes no sense".to_owned(),
        ));
    };
    let granted = u64::try_from(answer.timeout_ms).unwrap_or(0);
    if answer.expired() || granted == 0 {
        return Ok(End::Expired);
    }
    let session = Known {
        id: answer.session,
        password: answer.password,
        timeout_ms: granted,
    };
    *known = Some(session);
    (setup.tell)(ClientLine::Connected {
        at_mono_us: mono_us(),
        session: SessionId(session.id),
        timeout_ms: granted,
    });
    link.keep(granted * MS)
}

impl Link<'_> {
    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let frame = wire::framed(body);
        if self.setup.kind == ClientKind::C {
            let (length, body) = frame.split_at(4);
            self.stream.write_all(length)?;
            self.stream.write_all(body)?;
        } else {
            self.stream.write_all(&frame)?;
        }
        self.last_send = mono_us();
        self.outstanding += 1;
        Ok(())
    }

    /// Waits for a frame until `due`, in slices.
    fn read(&mut self, due: u64) -> io::Result<Got> {
        let slice = until(due, mono_us()).min(Duration::from_micros(READ_SLICE_US));
        // Zero would mean: for ever.
        self.stream
            .set_read_timeout(Some(slice.max(Duration::from_millis(1))))?;
        let got = self.reader.read_from(&mut self.stream)?;
        if matches!(got, Got::Frame(_)) {
            self.last_reply = mono_us();
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        Ok(got)
    }

    fn await_frame(&mut self, deadline: u64) -> io::Result<Result<Vec<u8>, End>> {
        while mono_us() < deadline {
            match self.read(deadline)? {
                Got::Frame(body) => return Ok(Ok(body)),
                Got::Pending if self.setup.stop.load(Ordering::Relaxed) => break,
                Got::Pending => {}
                Got::Eof => return Ok(Err(End::Lost("the server closed".to_owned()))),
            }
        }
        Ok(Err(End::Lost("the server doesn't answer".to_owned())))
    }

    /// From handshake to end. `timeout` in microseconds.
    fn keep(&mut self, timeout: u64) -> io::Result<End> {
        let mut xid = 0;
        loop {
            if self.setup.stop.load(Ordering::Relaxed) {
                return self.goodbye(xid + 1);
            }
            let now = mono_us();
            let give_up = self.last_reply + timeout * 2 / 3;
            if now >= give_up {
                let silent = (now - self.last_reply) as f64 / 1e6;
                return Ok(End::Lost(format!("no reply for {silent:.1} s")));
            }
            let due = self.due(timeout);
            if now >= due {
                if self.setup.kind == ClientKind::Busy {
                    xid += 1;
                    let ask = wire::request(xid, wire::OP_GET_DATA, &wire::get_data("/demo"));
                    self.send(&ask)?;
                } else {
                    self.send(&wire::request(wire::XID_PING, wire::OP_PING, &[]))?;
                }
                continue;
            }
            match self.read(due.min(give_up))? {
                Got::Frame(body) => match wire::reply_head(&body) {
                    Some((wire::XID_PING, 0)) => {}
                    Some((at, 0)) if at == xid => {}
                    head => return Ok(End::Lost(format!("an answer to nothing: {head:?}"))),
                },
                Got::Pending => {}
                Got::Eof => return Ok(End::Lost("the server closed".to_owned())),
            }
        }
    }

    /// When the next request is due; never while one is outstanding, which also keeps the idle kinds
    /// from a second ping behind an unanswered one.
    fn due(&self, timeout: u64) -> u64 {
        match self.setup.kind {
            _ if self.outstanding > 0 => u64::MAX,
            // It is never idle for T/3, so it never pings.
            ClientKind::Busy => self.last_send + BUSY_EVERY_US,
            ClientKind::C | ClientKind::Java => self.last_send + timeout / 3,
        }
    }

    fn goodbye(&mut self, xid: i32) -> io::Result<End> {
        self.send(&wire::request(xid, wire::OP_CLOSE, &[]))?;
        let deadline = mono_us() + GOODBYE_US;
        // Replies to earlier requests may come first.
        while self.outstanding > 0 && mono_us() < deadline {
            if self.read(deadline)? == Got::Eof {
                break;
            }
        }
        Ok(End::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::super::lines::ServerLine;
    use super::super::server::tests::started;
    use super::*;

    struct Running {
        lines: mpsc::Receiver<ClientLine>,
        stop: Arc<AtomicBool>,
        thread: std::thread::JoinHandle<()>,
    }

    fn run(kind: ClientKind, port: u16) -> Running {
        let (tx, lines) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let tell = |line| drop(tx.send(line));
            keep_session(&Setup {
                kind,
                port,
                timeout_ms: 600,
                tell: &tell,
                stop: &flag,
            });
        });
        Running {
            lines,
            stop,
            thread,
        }
    }

    #[test]
    fn every_kind_keeps_its_session_well_beyond_its_timeout_and_closes_it() {
        let (server, port) = started(200);
        let clients: Vec<_> = ClientKind::ALL.iter().map(|k| run(*k, port)).collect();
        for client in &clients {
            let line = client.lines.recv_timeout(Duration::from_secs(5)).unwrap();
            assert!(
                matches!(
                    line,
                    ClientLine::Connected {
                        timeout_ms: 600,
                        ..
                    }
                ),
                "{line:?}"
            );
        }
        let until = mono_us() + 2_000 * MS;
        while mono_us() < until {
            let line = server.recv_timeout(Duration::from_millis(100));
            assert!(!matches!(line, Ok(ServerLine::Expired { .. })), "{line:?}");
        }
        for client in clients {
            client.stop.store(true, Ordering::Relaxed);
            client.thread.join().unwrap();
            let last = client.lines.iter().last().unwrap();
            assert!(matches!(last, ClientLine::Closed { .. }), "{last:?}");
        }
        let closed = server
            .try_iter()
            .filter(|l| matches!(l, ServerLine::Closed { .. }))
            .count();
        assert_eq!(closed, 3);
    }
}
