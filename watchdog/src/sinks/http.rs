//! Metrics and health over HTTP.
//!
//! In: requests. Out: `/metrics`, `/healthz` (does the tick run?), `/readyz` (does the daemon
//! watch?). Never: anything that changes the daemon; a connection kept for a peer that dawdles.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use watchdog_model::time::{Mono, SECOND};

use super::metrics::Metrics;

/// A tick that has not run for this long is not watching.
const TICK_LIMIT_NS: u64 = SECOND;

/// Scrapers and probes are few; more are somebody's mistake and must not cost memory.
const MAX_CONNECTIONS: usize = 32;

/// A connection's life; a scraper that keeps one opens another.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// A listener that is bound and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Where it listens; the port is a real one even where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds, before anything else is done: a taken port is found out at once.
pub fn bind(address: SocketAddr) -> Result<Bound, String> {
    let bound = || -> io::Result<Bound> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Bound { listener, address })
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

/// What the answers are made of.
#[derive(Clone)]
pub struct Sources {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// When the tick last ran, ns; 0: it has not yet.
    pub last_tick: Arc<AtomicU64>,
    /// The monotonic clock.
    pub clock: fn() -> Mono,
}

/// Answers until the task is dropped.
pub async fn serve(bound: Bound, sources: Sources) -> io::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(bound.listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Err(io::ErrorKind::Other.into());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("http: cannot accept: {error}");
                // Out of descriptors, most likely: turning in circles would not free one.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let sources = sources.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &sources);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_LIMIT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // A peer that breaks off or dawdles is no event of ours.
            let _ended = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    route(request.method(), request.uri().path(), sources)
}

fn route(method: &Method, path: &str, sources: &Sources) -> Response<Full<Bytes>> {
    let plain = |status, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(
            CONTENT_TYPE,
            hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => {
            let mut response = Response::new(Full::new(Bytes::from(sources.metrics.text())));
            response.headers_mut().insert(
                CONTENT_TYPE,
                hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        }
        "/healthz" => match health(sources) {
            Ok(age) => plain(StatusCode::OK, format!("ok, the tick ran {age} ago\n")),
            Err(what) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
        },
        "/readyz" => match sources.last_tick.load(Ordering::Relaxed) {
            0 => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the tick has not run yet\n".to_owned(),
            ),
            _ => plain(StatusCode::OK, "ok\n".to_owned()),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "known paths: /metrics, /healthz, /readyz\n".to_owned(),
        ),
    }
}

fn health(sources: &Sources) -> Result<String, String> {
    let last = sources.last_tick.load(Ordering::Relaxed);
    if last == 0 {
        return Err("the tick has not run yet".to_owned());
    }
    let age = (sources.clock)().since(Mono(last));
    let shown = format!("{:.3} s", age as f64 / 1e9);
    if age > TICK_LIMIT_NS {
        Err(format!(
            "the tick last ran {shown} ago; nothing is watched meanwhile"
        ))
    } else {
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn sources(last_tick: u64) -> Sources {
        Sources {
            metrics: Arc::new(Metrics::new(&["zookeeper".to_owned()]).unwrap()),
            last_tick: Arc::new(AtomicU64::new(last_tick)),
            clock: || Mono(10 * SECOND),
        }
    }

    async fn get(path: &str, last_tick: u64) -> (u16, String) {
        let response = route(&Method::GET, path, &sources(last_tick));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_is_the_ticks() {
        let fresh = 9 * SECOND;
        assert_eq!(
            get("/healthz", fresh).await,
            (200, "ok, the tick ran 1.000 s ago\n".into())
        );
        assert_eq!(
            get("/healthz", fresh - 1_000_000).await,
            (
                503,
                "the tick last ran 1.001 s ago; nothing is watched meanwhile\n".into()
            )
        );
        assert_eq!(
            get("/healthz", 0).await,
            (503, "the tick has not run yet\n".into())
        );
        assert_eq!(get("/readyz", 0).await.0, 503);
        assert_eq!(get("/readyz", 1).await.0, 200);
        assert_eq!(get("/", fresh).await.0, 404);
    }

    #[tokio::test]
    async fn it_answers_on_the_port_it_was_given() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address();
        assert_ne!(address.port(), 0);
        let server = tokio::spawn(serve(bound, sources(10 * SECOND)));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.contains("lease_watchdog_build_info{version="),
            "{text}"
        );
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
        server.abort();
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
