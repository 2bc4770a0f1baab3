//! Questions and answers of the API, as plain values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde::Serialize;

/// What an answer's bytes come from.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub type Reply = Response<Body>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody who reaches the TCP port.
    Network(SocketAddr),
    /// A process of this node, by the Unix socket.
    Local {
        /// Process id, as the kernel says; None: it is in no namespace that is seen from here.
        pid: Option<u32>,
        /// User id, as the kernel says.
        uid: u32,
    },
}

/// A question, taken apart.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, still percent-encoded.
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub peer: Peer,
    /// What it brings along; not read unless a route does.
    pub body: Option<Incoming>,
    /// Held by an answer that takes its time, so that its connection is kept for so long.
    pub lasting: Arc<()>,
}

impl Asked {
    /// The parameters, each of which must be one of `known` and stand once.
    ///
    /// # Errors
    /// The answer that says which is not.
    #[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
    pub fn parameters(&self, known: &[&str]) -> Result<Parameters, Reply> {
        let mut given = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(self.query.as_bytes()) {
            if !known.contains(&key.as_ref()) {
                return Err(bad_request(format!(
                    "{key:?} is not a parameter of {}; known: {}",
                    self.path,
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                )));
            }
            if given
                .insert(key.clone().into_owned(), value.into_owned())
                .is_some()
            {
                return Err(bad_request(format!("{key} is given twice")));
            }
        }
        Ok(Parameters(given))
    }
}

/// What follows the question mark, decoded.
#[derive(Debug)]
pub struct Parameters(BTreeMap<String, String>);

#[expect(clippy::result_large_err, reason = "an error is an answer, made once")]
impl Parameters {
    /// One as it was given.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// A whole number between two others, ends included.
    ///
    /// # Errors
    /// The answer that says that it is none.
    pub fn number(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, Reply> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(bad_request(format!(
                "{key} is {text:?}; it must be a whole number from {least} to {most}"
            ))),
        }
    }

    /// One of some words.
    ///
    /// # Errors
    /// The answer that says which there are.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Reply> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| Some(*value))
            .ok_or_else(|| {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                bad_request(format!("{key} is {text:?}; known: {}", known.join(", ")))
            })
    }
}

/// A body that is there at once.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer of this type.
#[must_use]
pub fn of_type(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(bytes));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Every answer is of its moment, and none is to be taken for anything else than it says.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    reply
}

/// Plain text.
#[must_use]
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    of_type(status, "text/plain; charset=utf-8", text)
}

/// JSON.
#[must_use]
pub fn json(value: &impl Serialize) -> Reply {
    json_as(StatusCode::OK, value)
}

/// JSON with this status.
#[must_use]
pub fn json_as(status: StatusCode, value: &impl Serialize) -> Reply {
    // These objects hold numbers and text under keys that are text: nothing JSON could refuse.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    of_type(status, "application/json", text)
}

#[derive(Serialize)]
struct Problem<'a> {
    error: Cow<'a, str>,
}

/// A refusal: `{"error": …}`.
#[must_use]
pub fn refuse(status: StatusCode, why: impl Display) -> Reply {
    json_as(
        status,
        &Problem {
            error: why.to_string().into(),
        },
    )
}

/// 400.
#[must_use]
pub fn bad_request(why: impl Display) -> Reply {
    refuse(StatusCode::BAD_REQUEST, why)
}
