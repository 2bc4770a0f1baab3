//! Many sessions on one server: raw sockets that speak the protocol and no more than what keeps a
//! session alive. The server's ends are in this process, the holders' in a child of it, since a
//! process may not have as many descriptors as both take.

use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::{JoinError, JoinSet},
};

use crate::frames::{CONNECT, CONNECTED, PING, PONG, connect, connected};

/// Every session's timeout.
const TIMEOUT_MS: i32 = 12_000;
/// A client pings after a third of it.
const PING_EVERY: Duration = Duration::from_millis(TIMEOUT_MS as u64 / 3);
/// Connections that are being opened at once.
const OPENING: usize = 64;
/// The word that makes this program the holders' process.
pub const HOLD: &str = "hold";

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

/// The server; its sessions end when it is dropped.
pub struct Sessions {
    _runtime: Runtime,
    holders: Option<Child>,
    /// The server's port.
    pub port: u16,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        if let Some(holders) = &mut self.holders {
            drop(holders.kill());
            drop(holders.wait());
        }
    }
}

impl Sessions {
    /// A server without sessions.
    pub fn serve() -> Result<Self> {
        let runtime = runtime()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let port = listener.local_addr()?.port();
        runtime.spawn(async move {
            let mut session = 0x0100_0000_0000_0000;
            while let Ok((stream, _)) = listener.accept().await {
                session += 1;
                tokio::spawn(grant(stream, session));
            }
        });
        Ok(Self {
            _runtime: runtime,
            holders: None,
            port,
        })
    }

    /// Opens so many, and returns when the last one is granted.
    ///
    /// # Errors
    /// One was not.
    pub fn open(&mut self, count: usize) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([HOLD, &self.port.to_string(), &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let holders = self.holders.insert(command.spawn()?);
        let mut line = String::new();
        BufReader::new(holders.stdout.take().context("a pipe")?).read_line(&mut line)?;
        if line.trim() != "open" {
            bail!("not all of {count} sessions could be opened");
        }
        Ok(())
    }
}

impl Sessions {
    /// Stops the holders' process (SIGSTOP): from now on no session is renewed.
    ///
    /// # Errors
    /// There is none.
    pub fn stop(&self) -> Result<()> {
        let holders = self.holders.as_ref().context("no sessions are open")?;
        let pid = i32::try_from(holders.id())?;
        // SAFETY: no memory is involved; the process is a child that was not yet waited for.
        if unsafe { libc::kill(pid, libc::SIGSTOP) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(())
    }
}

/// The holders' process: opens so many sessions on a port, says `open`, and keeps them alive until
/// its standard input ends.
pub fn hold_all(mut words: impl Iterator<Item = String>) -> Result<()> {
    let port = words.next().context("a port")?.parse()?;
    let count: usize = words.next().context("a count")?.parse()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut opening = JoinSet::new();
        for _ in 0..count {
            if opening.len() == OPENING {
                keep(opening.join_next().await)?;
            }
            opening.spawn(open(port));
        }
        while !opening.is_empty() {
            keep(opening.join_next().await)?;
        }
        io::Result::Ok(())
    })?;
    println!("open");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// From now on the session keeps itself alive.
fn keep(opened: Option<Result<io::Result<TcpStream>, JoinError>>) -> io::Result<()> {
    if let Some(opened) = opened {
        tokio::spawn(hold(opened??));
    }
    Ok(())
}

async fn open(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&connect(TIMEOUT_MS)).await?;
    stream.read_exact(&mut [0; CONNECTED]).await?;
    Ok(stream)
}

async fn hold(mut stream: TcpStream) -> io::Result<()> {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        stream.write_all(&PING).await?;
        stream.read_exact(&mut [0; PONG.len()]).await?;
    }
}

async fn grant(mut stream: TcpStream, session: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; CONNECT]).await?;
    stream.write_all(&connected(TIMEOUT_MS, session)).await?;
    loop {
        stream.read_exact(&mut [0; PING.len()]).await?;
        stream.write_all(&PONG).await?;
    }
}
