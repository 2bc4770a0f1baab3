//! Many sessions on one server, both ends in this process: raw sockets that speak the protocol and
//! no more than what keeps a session alive.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::Semaphore,
};

use crate::frames::{CONNECT, CONNECTED, PING, PONG, connect, connected};

/// Every session's timeout.
const TIMEOUT_MS: i32 = 12_000;
/// A client pings after a third of it.
const PING_EVERY: Duration = Duration::from_millis(TIMEOUT_MS as u64 / 3);
/// Connections that are being opened at once.
const OPENING: usize = 64;

/// The sessions; closed when dropped.
pub struct Sessions {
    _runtime: Runtime,
    /// The server's port.
    pub port: u16,
}

impl Sessions {
    /// A server without sessions.
    pub fn serve() -> io::Result<Self> {
        raise_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
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
            port,
        })
    }

    /// Opens so many, and returns when the last one is granted.
    pub fn open(&self, count: usize) -> io::Result<()> {
        let (port, gate) = (self.port, Arc::new(Semaphore::new(OPENING)));
        self._runtime.block_on(async {
            for _ in 0..count {
                let gate = Arc::clone(&gate);
                let permit = gate.acquire_owned().await.map_err(io::Error::other)?;
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                    stream.set_nodelay(true)?;
                    stream.write_all(&connect(TIMEOUT_MS)).await?;
                    stream.read_exact(&mut [0; CONNECTED]).await?;
                    drop(permit);
                    hold(stream).await
                });
            }
            let everybody = u32::try_from(OPENING).unwrap_or(u32::MAX);
            gate.acquire_many(everybody)
                .await
                .map(drop)
                .map_err(io::Error::other)
        })
    }
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

/// Two descriptors a session.
fn raise_limit() {
    let limit = libc::rlimit {
        rlim_cur: 100_000,
        rlim_max: 100_000,
    };
    // SAFETY: reads a limit; refused, the sockets run out and say so.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}
