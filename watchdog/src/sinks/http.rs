//! The TCP port and the Unix socket, and what a connection may cost.
//!
//! In: connections. Out: answers by [`api`]. Never: a connection kept for a peer that dawdles; one
//! peer's dawdling at another's cost (the socket has places of its own); more CPU time for all who ask
//! than their [`Allowance`], whatever they send.

#[cfg(any(test, fuzzing))]
pub mod laws;

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::allowance::{Allowance, Metered};
use super::api::reply::{Asked, Body, Peer};
use super::api::{self, Sources};

/// Connections at once, of the port and of the socket each: scrapers, pages and programs of one
/// node are fewer. More wait in the listener's queue and cost no memory here.
const MAX_CONNECTIONS: usize = 256;

/// A connection's life; a scraper that keeps one opens another. Answers that go on for longer by
/// their nature (a stream, a wait) are let end.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Time for a connection's first byte, and for its handshake where TLS is spoken.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Time for a request's head, and for the next one on a connection that is kept.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// To who speaks plain HTTP where TLS is spoken.
const SPEAK_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    this port speaks TLS; write https:// instead of http://\n";

/// Listeners that are bound and do not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    socket: Option<BoundSocket>,
}

impl Bound {
    /// Where it listens; the port is a real one even where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers on this socket too.
    #[must_use]
    pub fn and(self, socket: Option<BoundSocket>) -> Self {
        Self { socket, ..self }
    }
}

/// A Unix socket that is bound; its file goes when it is dropped.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // Another daemon may have taken the place meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Binds, before anything else is done: a taken port is found out at once.
pub fn bind(address: SocketAddr) -> Result<Bound, String> {
    let bound = || -> io::Result<Bound> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Bound {
            listener,
            address,
            socket: None,
        })
    };
    bound().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "http.listen: {address} is taken by another process; stop it or set http.listen to \
             another port"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "http.listen: {} is not an address of this node; set http.listen to one, like \
             \"127.0.0.1:{}\"",
            address.ip(),
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "http.listen: this user may not listen on {address}; set http.listen to a port above \
             1023"
        ),
        _ => format!("http.listen: cannot listen on {address}: {error}"),
    })
}

/// Binds the Unix socket with this mode. A file that a daemon left behind that is gone is
/// replaced; one that somebody answers on is not.
pub fn bind_socket(path: &Path, mode: u32) -> Result<BoundSocket, String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(meta) if !std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => {
            return Err(format!(
                "http.socket: {shown} is there and no socket; remove it or set http.socket to \
                 another path"
            ));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(format!(
                "http.socket: {shown} is taken by another process; stop it or set http.socket to \
                 another path"
            ));
        }
        Ok(_) | Err(_) => {}
    }
    let bound = || -> io::Result<BoundSocket> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        // Beside and renamed, so that nobody finds it with another mode than it is to have.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let _left = fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&beside, Permissions::from_mode(mode))?;
        let inode = fs::symlink_metadata(&beside)?.ino();
        fs::rename(&beside, path)?;
        Ok(BoundSocket {
            listener,
            path: path.to_owned(),
            inode,
        })
    };
    bound().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "http.socket: this user may not make {shown}; set http.socket to another path or to \
             off"
        ),
        _ => format!("http.socket: {shown} cannot be made: {error}"),
    })
}

/// How those who come are met.
#[derive(Clone)]
pub struct Doors {
    /// Who greets those at the port; None: TLS is not spoken.
    pub tls: Option<TlsAcceptor>,
    /// What those at the port may cost.
    pub port: Arc<Allowance>,
    /// What those at the socket may cost.
    pub socket: Arc<Allowance>,
}

impl Doors {
    /// Without TLS, for a daemon that may use a whole core.
    #[must_use]
    pub fn open() -> Self {
        let allowance = || Allowance::new(1.0, crate::tick::clock);
        Self {
            tls: None,
            port: allowance(),
            socket: allowance(),
        }
    }
}

/// A connection on which HTTP is spoken, whatever lies below.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// Answers until the task is dropped.
pub async fn serve(bound: Bound, sources: Sources, doors: Doors) -> io::Result<Infallible> {
    let Bound {
        listener, socket, ..
    } = bound;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tls = doors.tls.as_ref();
    let port = accept(
        || async {
            let (stream, address) = listener.accept().await?;
            Ok((stream, Peer::Network(address)))
        },
        |stream| greet(stream, tls.cloned()),
        &sources,
        &doors.port,
    );
    let Some(socket) = socket else {
        return port.await;
    };
    let listener = tokio::net::UnixListener::from_std(socket.listener.try_clone()?)?;
    let local = accept(
        || async {
            let (stream, _) = listener.accept().await?;
            let who = stream.peer_cred()?;
            let peer = Peer::Local {
                pid: who
                    .pid()
                    .and_then(|pid| u32::try_from(pid).ok())
                    .filter(|pid| *pid != 0),
                uid: who.uid(),
            };
            Ok((stream, peer))
        },
        |stream| async { Some(Box::new(stream) as Box<dyn Duplex>) },
        &sources,
        &doors.socket,
    );
    let (never, _) = tokio::try_join!(port, local)?;
    Ok(never)
}

/// Speaks TLS with who comes, if it is spoken; None: they do not.
async fn greet(mut stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Duplex>> {
    let Some(tls) = tls else {
        return Some(Box::new(stream));
    };
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 1 && first[0].is_ascii_uppercase() {
        // Whoever is gone has not asked.
        let _told = stream.write_all(SPEAK_TLS).await;
        let _told = stream.shutdown().await;
        return None;
    }
    match tls.accept(stream).await {
        Ok(stream) => Some(Box::new(stream)),
        Err(error) => {
            tracing::debug!("http: no TLS came about: {error}");
            None
        }
    }
}

async fn accept<S, F, G>(
    next: impl Fn() -> F,
    greet: impl Fn(S) -> G,
    sources: &Sources,
    allowance: &Arc<Allowance>,
) -> io::Result<Infallible>
where
    F: Future<Output = io::Result<(S, Peer)>>,
    G: Future<Output = Option<Box<dyn Duplex>>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Err(io::ErrorKind::Other.into());
        };
        drop(allowance.turn().await);
        match next().await {
            Ok((stream, peer)) => {
                let (greeting, sources) = (greet(stream), sources.clone());
                let charged = Arc::clone(allowance);
                let task = async move {
                    let greeted = tokio::time::timeout(HANDSHAKE_LIMIT, greeting).await;
                    // A peer that breaks off or dawdles is no event of ours.
                    if let Ok(Some(stream)) = greeted {
                        converse(stream, peer, sources, charged, place).await;
                    }
                };
                tokio::spawn(Metered::new(task, Arc::clone(allowance)));
            }
            Err(error) => {
                tracing::warn!("http: cannot accept: {error}");
                // Out of descriptors, most likely: turning in circles would not free one.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(
    stream: Box<dyn Duplex>,
    peer: Peer,
    sources: Sources,
    allowance: Arc<Allowance>,
    place: OwnedSemaphorePermit,
) {
    // One token goes along with each answer that takes its time.
    let lasting = Arc::new(());
    let held = Arc::clone(&lasting);
    let service = service_fn(move |request| {
        let sources = sources.clone();
        let token = Arc::clone(&held);
        let allowance = Arc::clone(&allowance);
        async move { Ok::<_, Infallible>(respond(request, peer, &sources, token, &allowance).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        // A peer that breaks off or dawdles is no event of ours.
        match tokio::time::timeout(CONNECTION_LIMIT, &mut connection).await {
            // Two of them are this function's and the service's own.
            Err(_) if Arc::strong_count(&lasting) > 2 => {}
            Ok(_) | Err(_) => break,
        }
    }
    drop(place);
}

async fn respond(
    request: Request<Incoming>,
    peer: Peer,
    sources: &Sources,
    lasting: Arc<()>,
    allowance: &Allowance,
) -> Response<Body> {
    let turn = allowance.turn().await;
    let (head, body) = request.into_parts();
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        peer,
        body: Some(body),
        lasting,
    };
    let answer = api::answer(&asked, sources);
    tokio::pin!(answer);
    // Whatever is to be computed is computed at once; who waits for something then waits without a turn.
    let at_once = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
    drop(turn);
    match at_once {
        Poll::Ready(reply) => reply,
        Poll::Pending => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::api::tests::sources;
    use tokio::io::AsyncReadExt as _;
    use watchdog_model::time::SECOND;

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn it_answers_on_the_port_it_was_given() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address();
        assert_ne!(address.port(), 0);
        let server = tokio::spawn(serve(bound, sources(10 * SECOND).0, Doors::open()));
        let connect = || tokio::net::TcpStream::connect(address);
        let text = ask(connect().await.unwrap(), "GET /metrics").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.contains("lease_watchdog_build_info{version="),
            "{text}"
        );
        let text = ask(connect().await.unwrap(), "POST /metrics").await;
        assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
        // Who asks there is not known.
        let text = ask(connect().await.unwrap(), "GET /api/v1/mine").await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        server.abort();
    }

    #[tokio::test]
    async fn the_socket_knows_who_asks_and_has_the_mode_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/api.sock");
        let socket = bind_socket(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(
            bind_socket(&path, 0o640)
                .unwrap_err()
                .contains("is taken by another process"),
        );
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = tokio::spawn(serve(
            bound.and(Some(socket)),
            sources(10 * SECOND).0,
            Doors::open(),
        ));
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let text = ask(stream, "GET /api/v1/mine").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let own = format!("\"pid\":{},", std::process::id());
        assert!(text.contains(&own), "{text}");
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "its file goes with it");
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(UnixListener::bind(&path).unwrap());
        drop(bind_socket(&path, 0o600).unwrap());
        fs::write(&path, "somebody's").unwrap();
        assert!(
            bind_socket(&path, 0o600)
                .unwrap_err()
                .contains("no socket; remove it")
        );
    }

    #[test]
    fn a_taken_port_names_key_and_mend() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.address();
        assert_eq!(
            bind(address).unwrap_err(),
            format!(
                "http.listen: {address} is taken by another process; stop it or set http.listen to another port"
            )
        );
        assert_eq!(
            bind("192.0.2.1:9527".parse().unwrap()).unwrap_err(),
            "http.listen: 192.0.2.1 is not an address of this node; set http.listen to one, like \"127.0.0.1:9527\""
        );
    }
}
