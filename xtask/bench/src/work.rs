//! What the programs are measured under: as many events of one kind as fit into a while.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use watchdog::tick::clock;
use watchdog_model::Mono;

use crate::frames::{CONNECT, CONNECTED, PING, PONG, connect, connected};

/// When a while that begins now is over.
fn over(span: Duration) -> Mono {
    clock().plus(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// The calling thread, and those that it starts, on the first CPU.
pub fn pin() {
    // SAFETY: all-zero is an empty set; the call reads a set of the size that is passed.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

fn tid() -> u32 {
    // SAFETY: has no preconditions.
    u32::try_from(unsafe { libc::gettid() }).unwrap_or(0)
}

/// Two threads on one CPU that wake each other: every switch is from one to the other.
pub struct Switches {
    near: (io::PipeReader, io::PipeWriter),
    far: Option<thread::JoinHandle<()>>,
    /// Both threads.
    pub tids: [u32; 2],
}

impl Switches {
    /// Starts the other thread; the calling one is the first.
    pub fn start() -> io::Result<Self> {
        let (there_read, there) = io::pipe()?;
        let (back, back_write) = io::pipe()?;
        let (say, told) = mpsc::channel();
        let far = thread::spawn(move || {
            let _ = say.send(tid());
            let (mut from, mut to, mut byte) = (there_read, back_write, [0]);
            while from.read_exact(&mut byte).is_ok() && to.write_all(&byte).is_ok() {}
        });
        let other = told.recv().map_err(io::Error::other)?;
        Ok(Self {
            near: (back, there),
            far: Some(far),
            tids: [tid(), other],
        })
    }

    /// Wakes to and fro; gives how often.
    pub fn run(&mut self, span: Duration) -> io::Result<u64> {
        let until = over(span);
        let mut byte = [0];
        let mut times = 0;
        while clock() < until {
            times += 64;
            for _ in 0..64 {
                self.near.1.write_all(&byte)?;
                self.near.0.read_exact(&mut byte)?;
            }
        }
        Ok(times)
    }

    /// Ends the other thread.
    pub fn end(mut self) {
        drop(self.near);
        if let Some(far) = self.far.take() {
            drop(far.join());
        }
    }
}

/// A session on a port, and both its ends in this thread: a ping there, its reply back.
pub struct Pings {
    holder: TcpStream,
    grantor: TcpStream,
}

impl Pings {
    /// Opens the session.
    pub fn start(listener: &TcpListener) -> io::Result<Self> {
        let (mut holder, mut grantor) = pair(listener)?;
        holder.write_all(&connect(6_000))?;
        grantor.read_exact(&mut [0; CONNECT])?;
        grantor.write_all(&connected(6_000, 7))?;
        holder.read_exact(&mut [0; CONNECTED])?;
        Ok(Self { holder, grantor })
    }

    /// Pings and answers; gives how often.
    pub fn run(&mut self, span: Duration) -> io::Result<u64> {
        let until = over(span);
        let mut times = 0;
        while clock() < until {
            times += 16;
            for _ in 0..16 {
                self.holder.write_all(&PING)?;
                self.grantor.read_exact(&mut [0; PING.len()])?;
                self.grantor.write_all(&PONG)?;
                self.holder.read_exact(&mut [0; PONG.len()])?;
            }
        }
        Ok(times)
    }
}

/// Opens connections and closes them.
pub fn connections(listener: &TcpListener, span: Duration) -> io::Result<()> {
    let until = over(span);
    while clock() < until {
        let (holder, mut grantor) = pair(listener)?;
        drop(holder);
        // The other end has seen it before it closes too.
        let _ = grantor.read(&mut [0])?;
    }
    Ok(())
}

fn pair(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let holder = TcpStream::connect(listener.local_addr()?)?;
    let (grantor, _) = listener.accept()?;
    holder.set_nodelay(true)?;
    grantor.set_nodelay(true)?;
    Ok((holder, grantor))
}

/// A listener on a free port.
pub fn listener() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}
