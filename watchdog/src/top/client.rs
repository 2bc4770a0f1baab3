//! Asks the daemon's API, by the Unix socket or the port.
//!
//! In: a path. Out: JSON, or what went wrong in a line. Each question has a connection of its own
//! and a limit in time and size, so that whatever answers there can hold up or flood nobody.

use std::io::Read as _;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;

/// A daemon that does not answer in this time does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A page of 1,000 leases with evidence is a tenth of this.
const MAX_ANSWER: u64 = 16 << 20;

/// Where the daemon answers.
#[derive(Clone, Debug)]
pub enum Place {
    /// On a Unix socket.
    Socket(PathBuf),
    /// On a host and port.
    Port(String),
}

/// Somebody who asks.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where.
    pub place: Place,
    /// What is shown at the port.
    pub token: Option<String>,
}

impl Client {
    /// What the daemon answers.
    ///
    /// # Errors
    /// It does not, or with a refusal.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let answer = match &self.place {
            Place::Socket(file) => UnixStream::connect(file)
                .and_then(|stream| {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    self.converse(stream, path)
                })
                .map_err(|error| format!("{}: {error}", file.display())),
            Place::Port(host) => self
                .connect(host)
                .and_then(|stream| self.converse(stream, path))
                .map_err(|error| format!("http://{host}: {error}")),
        }?;
        let head_end = find(&answer, b"\r\n\r\n").ok_or("it does not speak HTTP")?;
        let (head, body) = answer.split_at(head_end);
        let head = String::from_utf8_lossy(head);
        let status = head.split(' ').nth(1).unwrap_or_default();
        let body = body.get(4..).unwrap_or_default();
        if status != "200" {
            let why: Option<serde_json::Value> = serde_json::from_slice(body).ok();
            let why = why.and_then(|why| Some(why["error"].as_str()?.to_owned()));
            return Err(why.unwrap_or_else(|| format!("status {status} for {path}")));
        }
        serde_json::from_slice(body).map_err(|error| format!("{path}: {error}"))
    }

    fn connect(&self, host: &str) -> std::io::Result<TcpStream> {
        let mut last = std::io::Error::other("no such host");
        for address in host.to_socket_addrs()? {
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

    /// HTTP/1.0: the body ends with the connection and never comes in chunks.
    fn converse(
        &self,
        mut stream: impl std::io::Read + std::io::Write,
        path: &str,
    ) -> std::io::Result<Vec<u8>> {
        let token = match (&self.place, &self.token) {
            (Place::Port(_), Some(token)) => format!("Authorization: Bearer {token}\r\n"),
            _ => String::new(),
        };
        stream.write_all(
            format!("GET {path} HTTP/1.0\r\nHost: lease-watchdog\r\n{token}\r\n").as_bytes(),
        )?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}
