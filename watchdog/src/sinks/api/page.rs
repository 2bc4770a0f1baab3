//! `/`: the status page, one file without any other, that asks the rest of the API.
//!
//! It holds nothing about leases itself, so it is given to whoever asks, token or not. What it
//! shows it puts in as text, never as HTML, and the browser is told to run nothing else.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use super::reply::{Reply, of_type};

const PAGE: &str = include_str!("page.html");
/// Where the page has a nonce.
const MARK: &str = "NONCE";

/// `GET /`.
pub fn answer() -> Reply {
    // Seeded by the system for each of them.
    let random = || RandomState::new().build_hasher().finish();
    let nonce = format!("{:016x}{:016x}", random(), random());
    let mut reply = of_type(
        StatusCode::OK,
        "text/html; charset=utf-8",
        PAGE.replace(MARK, &nonce),
    );
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src \
         'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    reply
}
