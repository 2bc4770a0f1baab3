//! Asks the daemon's API, by the Unix socket or the port.
//!
//! In: a path. Out: JSON, or what went wrong in a line. A connection is kept for the next question where
//! the daemon agrees; each question has a limit in time and size, so that whatever answers there can hold
//! up or flood nobody.

#[cfg(any(test, fuzzing))]
pub mod laws;

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::printable::printable;
use crate::tick::clock;

/// A daemon that does not answer in this time does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer that is not whole after this time is given up, however it goes on.
const LIMIT_NS: u64 = 10_000_000_000;
/// A page of 1,000 leases with evidence is a tenth of this.
const MAX_ANSWER: u64 = 16 << 20;
/// What is shown of a refusal that is no JSON.
const SHOWN: usize = 200;
/// Bytes of an answer's head.
const MAX_HEAD: u64 = 64 << 10;

/// Where the daemon answers.
#[derive(Clone, Debug)]
pub enum Place {
    /// On a Unix socket.
    Socket(PathBuf),
    /// On a host and port.
    Port {
        /// `HOST:PORT`.
        at: String,
        /// How TLS is spoken there, and with whom; None: it is not.
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    },
}

trait Duplex: Read + Write + Send {}
impl<S: Read + Write + Send> Duplex for S {}
type Wire = BufReader<Box<dyn Duplex>>;

/// Somebody who asks.
pub struct Client {
    place: Place,
    token: Option<String>,
    kept: Mutex<Option<Wire>>,
}

struct Answer {
    status: String,
    body: Vec<u8>,
}

impl Client {
    /// Asks there, and shows the token at a port.
    #[must_use]
    pub fn new(place: Place, token: Option<String>) -> Self {
        Self {
            place,
            token,
            kept: Mutex::new(None),
        }
    }

    /// What the daemon answers.
    ///
    /// # Errors
    /// It does not, or with a refusal.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let answer = self.exchange(path).map_err(|error| {
            let place = match &self.place {
                Place::Socket(file) => file.display().to_string(),
                Place::Port { at, tls: None } => format!("http://{at}"),
                Place::Port { at, tls: Some(_) } => format!("https://{at}"),
            };
            format!("{place}: {error}")
        })?;
        understood(answer, path)
    }

    /// What to look at after such an error, to be put behind it.
    #[must_use]
    pub fn hint(&self, why: &str) -> &'static str {
        match &self.place {
            Place::Socket(_) => {
                "; does the daemon run? Its socket is api.sock in its --state-dir; for another's, or \
                 another node's: --socket, --url"
            }
            Place::Port { .. } if why.contains("UnknownIssuer") => {
                "; name the authority that vouches for it: --ca FILE"
            }
            Place::Port { .. } if why.contains("NotValidForName") => {
                "; ask by a name that stands in its certificate"
            }
            Place::Port { .. } if why.contains("Bearer") => {
                "; name a file with it: --token-file FILE"
            }
            Place::Port { .. } if why.contains("refused") => {
                "; does the daemon run, with this http.listen?"
            }
            Place::Port { .. } => "",
        }
    }

    fn exchange(&self, path: &str) -> io::Result<Answer> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = kept.take()
            // Whatever went wrong: the daemon gives a connection up after a while.
            && let Ok((answer, wire)) = self.converse(wire, path)
        {
            *kept = wire;
            return Ok(answer);
        }
        let (answer, wire) = self.converse(self.connect()?, path)?;
        *kept = wire;
        Ok(answer)
    }

    fn connect(&self) -> io::Result<Wire> {
        let stream: Box<dyn Duplex> = match &self.place {
            Place::Socket(file) => {
                let stream = UnixStream::connect(file)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Place::Port { at, tls: None } => Box::new(to_port(at)?),
            Place::Port {
                at,
                tls: Some((config, name)),
            } => {
                let tls = ClientConnection::new(Arc::clone(config), name.clone())
                    .map_err(io::Error::other)?;
                Box::new(StreamOwned::new(tls, to_port(at)?))
            }
        };
        Ok(BufReader::new(stream))
    }

    /// HTTP/1.0: the body never comes in chunks. Gives the connection back if it stays.
    fn converse(&self, mut wire: Wire, path: &str) -> io::Result<(Answer, Option<Wire>)> {
        let (host, token) = match (&self.place, &self.token) {
            (Place::Socket(_), _) => ("lease-watchdog", String::new()),
            (Place::Port { at, .. }, None) => (at.as_str(), String::new()),
            (Place::Port { at, .. }, Some(token)) => {
                (at.as_str(), format!("Authorization: Bearer {token}\r\n"))
            }
        };
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n{token}\r\n");
        wire.get_mut().write_all(request.as_bytes())?;
        wire.get_mut().flush()?;
        let began = clock();
        let mut status = None;
        let (mut length, mut stays) = (None, false);
        let mut room = MAX_HEAD;
        loop {
            let mut line = Vec::new();
            let read = (&mut wire).take(room).read_until(b'\n', &mut line)?;
            room -= read as u64;
            if read == 0 || clock().since(began) > LIMIT_NS {
                return Err(io::Error::other("it does not speak HTTP"));
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if status.is_none() {
                if !line.starts_with("HTTP/1.") {
                    return Err(io::Error::other("it does not speak HTTP"));
                }
                status = line.split(' ').nth(1).map(str::to_owned);
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(':') {
                let value = value.trim();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.parse::<u64>().ok();
                } else if name.eq_ignore_ascii_case("connection") {
                    stays = value.eq_ignore_ascii_case("keep-alive");
                }
            }
        }
        let mut body = Vec::new();
        let mut left = length.unwrap_or(MAX_ANSWER).min(MAX_ANSWER);
        while left > 0 {
            let taken = match (&mut wire).take(left.min(64 << 10)).read_to_end(&mut body) {
                Ok(taken) => taken,
                // Of a length that was not told, all has come.
                Err(error) if length.is_none() && error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Err(error) => return Err(error),
            };
            if taken == 0 && length.is_some() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if taken == 0 {
                break;
            }
            if clock().since(began) > LIMIT_NS {
                return Err(io::ErrorKind::TimedOut.into());
            }
            left -= taken as u64;
        }
        let answer = Answer {
            status: status.unwrap_or_default(),
            body,
        };
        Ok((answer, (stays && length.is_some()).then_some(wire)))
    }
}

/// What stands in an answer.
fn understood<T: DeserializeOwned>(answer: Answer, path: &str) -> Result<T, String> {
    let Answer { status, body } = answer;
    if status != "200" {
        let why: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let why = why.and_then(|why| Some(why["error"].as_str()?.to_owned()));
        // Of whoever answers there: no daemon of ours, perhaps.
        return Err(printable(&why.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&body);
            let first = text.lines().next().unwrap_or_default();
            let first: String = first.chars().take(SHOWN).collect();
            format!("status {status} for {path}: {first}")
        })));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
}

fn to_port(at: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no such host");
    for address in at.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
