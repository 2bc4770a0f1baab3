//! JSON by HTTP POST, to one server.
//!
//! In: bodies. Out: whether the server took them, or why not and whether trying again may help.
//! Never: a file, a look-up of a name in the path of an alert (names are looked up beforehand and
//! now and then, on a thread that may hang); an answer waited for beyond the time limit.
//!
//! Each post has a connection of its own: that costs a round trip and spares the question whether
//! a kept one is still good when it matters.

#[cfg(any(test, fuzzing))]
pub mod laws;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::Url;
use crate::trusted;

/// How often a name is looked up again; a resolver's own answers rarely hold longer.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);
/// And while it is not known yet.
const LOOK_UP_SOON: Duration = Duration::from_secs(2);
/// A resolver that has not answered by then is asked again.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(10);

/// Of an answer no more than this is read; it is only shown in the log.
const MAX_ANSWER: usize = 16 * 1024;

/// What is shown of an answer.
const SHOWN: usize = 200;

/// Why a post did not get through.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub what: String,
    /// Whether it may get through later.
    pub again: bool,
}

/// Pauses between tries: half a second, doubled up to half a minute, with jitter, so that the
/// daemons of a fleet do not come back to a server all at once.
#[must_use]
pub fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter()
        .build()
}

/// One server and what it is sent with each post.
pub struct Post {
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    limit: Duration,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    looks_up: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Post {
    fn drop(&mut self) {
        if let Some(task) = &self.looks_up {
            task.abort();
        }
    }
}

impl Post {
    /// Makes ready what a post needs. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(url: Url, headers: Vec<(HeaderName, HeaderValue)>, limit_ns: u64) -> Self {
        let addresses: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let literal: Option<IpAddr> = url.host.parse().ok();
        let looks_up = match literal {
            Some(ip) => {
                set(&addresses, vec![SocketAddr::new(ip, url.port)]);
                None
            }
            None => Some(tokio::spawn(keep_looking_up(
                url.host.clone(),
                url.port,
                Arc::clone(&addresses),
            ))),
        };
        let tls = url.tls.then(|| tls(&url.host)).flatten();
        Self {
            url,
            headers,
            limit: Duration::from_nanos(limit_ns),
            tls,
            addresses,
            looks_up,
        }
    }

    /// Posts a body; gives what the server answered.
    ///
    /// # Errors
    /// It did not get through.
    pub async fn post(&self, body: Bytes) -> Result<StatusCode, Refusal> {
        match timeout(self.limit, self.exchange(body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refusal {
                what: format!("did not answer within {:?}", self.limit),
                again: true,
            }),
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<StatusCode, Refusal> {
        let stream = self.connect().await?;
        match &self.tls {
            None if self.url.tls => Err(again("https could not be set up at the start".to_owned())),
            None => self.speak(stream, body).await,
            Some((connector, name)) => {
                let stream = connector
                    .connect(name.clone(), stream)
                    .await
                    .map_err(|error| again(format!("TLS: {error}")))?;
                self.speak(stream, body).await
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, Refusal> {
        let addresses = self.known();
        if addresses.is_empty() {
            return Err(again(format!("the name {:?} is not known", self.url.host)));
        }
        let mut why = String::new();
        // A host that is down in one address family must not use up all the time.
        let each = self.limit / u32::try_from(addresses.len().min(4)).unwrap_or(1);
        for address in addresses.into_iter().take(4) {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small bodies, sent at once; a refusal costs a few milliseconds.
                    let _set = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address}: no connection within {each:?}"),
            }
        }
        Err(again(why))
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Bytes,
    ) -> Result<StatusCode, Refusal> {
        let wrong = |error: hyper::Error| again(format!("broke off: {error}"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(wrong)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.path.as_str())
            .header(HOST, self.url.authority.as_str())
            .header(
                USER_AGENT,
                concat!("lease-watchdog/", env!("CARGO_PKG_VERSION")),
            )
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| Refusal {
            what: format!("no request can be made of it: {error}"),
            again: false,
        })?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(wrong)?;
            let status = response.status();
            let said = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map(|body| body.to_bytes())
                // The status has said all that matters.
                .unwrap_or_default();
            judge(status, &said)
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        // The connection is driven here and not in a task: what is dropped at the time limit is
        // closed at once.
        tokio::select! {
            outcome = &mut exchange => outcome,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(again(format!("broke off: {error}"))),
            },
        }
    }

    fn known(&self) -> Vec<SocketAddr> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until the server's name is known, for as long as a post may take.
    pub async fn known_soon(&self) {
        let known = async {
            while self.known().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // If it is not, the post will say so.
        let _known = timeout(self.limit, known).await;
    }
}

fn again(what: String) -> Refusal {
    Refusal { what, again: true }
}

fn judge(status: StatusCode, said: &[u8]) -> Result<StatusCode, Refusal> {
    if status.is_success() {
        return Ok(status);
    }
    let text = String::from_utf8_lossy(&said[..said.len().min(SHOWN)]);
    let text = text.trim().escape_debug().to_string();
    let what = match (status.is_redirection(), text.is_empty()) {
        (true, _) => format!("answered {status}; redirections are not followed, correct the url"),
        (false, true) => format!("answered {status}"),
        (false, false) => format!("answered {status}: {text}"),
    };
    // What a server calls the sender's mistake will not be better the next time, but for these.
    let again = !(status.is_client_error() || status.is_redirection())
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::TOO_EARLY
        );
    Err(Refusal { what, again })
}

fn set(addresses: &Mutex<Vec<SocketAddr>>, to: Vec<SocketAddr>) {
    *addresses.lock().unwrap_or_else(PoisonError::into_inner) = to;
}

/// Keeps the addresses of a name. What was known stays while the resolver says nothing.
async fn keep_looking_up(host: String, port: u16, into: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut said = false;
    let mut known = false;
    loop {
        let (name, mine) = (host.clone(), Arc::clone(&into));
        // Reads files (resolv.conf, hosts), which may lie on a frozen disk: such a thread is
        // waited for before there is another.
        let mut asked = tokio::task::spawn_blocking(move || look_up(&name, port, &mine));
        let answer = match timeout(LOOK_UP_LIMIT, &mut asked).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::debug!("the look-up of {host:?} hangs; what is known stays");
                asked.await
            }
        };
        match answer {
            Ok(Ok(())) => {
                known = true;
                said = false;
            }
            Ok(Err(error)) => {
                if !said {
                    tracing::warn!("alerts: {host:?} cannot be looked up ({error}); tried again");
                }
                said = true;
            }
            Err(_) => return,
        }
        tokio::time::sleep(if known { LOOK_UP_EVERY } else { LOOK_UP_SOON }).await;
    }
}

fn look_up(host: &str, port: u16, into: &Mutex<Vec<SocketAddr>>) -> io::Result<()> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if !found.is_empty() {
        set(into, found);
    }
    Ok(())
}

/// The node's own trust, read now and kept in memory.
fn tls(host: &str) -> Option<(TlsConnector, ServerName<'static>)> {
    let name = ServerName::try_from(host.to_owned())
        .inspect_err(|error| tracing::error!("alerts: {host:?} is no name for https: {error}"))
        .ok()?;
    let unreached = |error: &String| tracing::error!("alerts: https reaches nobody: {error}");
    // Trusting nobody, each post says of itself who is not trusted.
    let roots = trusted::by_the_node().inspect_err(unreached);
    let config = trusted::client(roots.unwrap_or_else(|_| RootCertStore::empty()))
        .inspect_err(unreached)
        .ok()?;
    Some((TlsConnector::from(config), name))
}
