//! Consul's session renewals over HTTP/1.1: which request is one, of which session, and whether it was
//! refused.
//!
//! In: the first bytes of a request and of its reply, as `exchange` gathers them. Out: whether it renews,
//! the session's first 64 bits as `handshake`, destruction and refusal as `ending_ns`. Bodies are never
//! read.
//!
//! Source: Consul's HTTP API, `PUT /v1/session/renew/:uuid` (200, or 404 where the session is gone) and
//! `PUT /v1/session/destroy/:uuid`.

use crate::layout::{Direction, KIND_OTHER, KIND_RENEWAL};

const RENEW: &[u8; 22] = b"PUT /v1/session/renew/";
const DESTROY: &[u8; 24] = b"PUT /v1/session/destroy/";
/// Groups of the UUID that are read: 8, 4 and 4 digits with a dash between.
const ID: usize = 18;
/// Bytes of a request that must be seen.
pub const REQUEST_HEAD: u32 = (RENEW.len() + ID) as u32;
/// Bytes of a reply that must be seen: `HTTP/1.1 404`.
pub const REPLY_HEAD: u32 = 12;

/// What a request is, of which [`REQUEST_HEAD`] bytes lie in `head`.
#[inline(always)]
pub fn request(dir: &mut Direction, now_ns: u64) -> u32 {
    if begins(dir, RENEW) {
        let id = id(dir);
        if id == 0 {
            return KIND_OTHER;
        }
        dir.handshake.session = id;
        dir.ending_ns = 0;
        return KIND_RENEWAL;
    }
    if begins(dir, DESTROY) {
        dir.ending_ns = now_ns;
    }
    KIND_OTHER
}

/// Whether `head` begins so. Without a branch for each byte, which the verifier would all follow.
#[inline(always)]
fn begins<const N: usize>(dir: &Direction, with: &[u8; N]) -> bool {
    let mut difference = 0;
    let mut n = 0;
    while n < N {
        difference |= dir.head[n] ^ with[n];
        n += 1;
    }
    core::hint::black_box(difference) == 0
}

/// The first sixteen digits of the UUID behind [`RENEW`]; 0: there is none. What is no digit there makes
/// an id as well: that of no session.
#[inline(always)]
fn id(dir: &Direction) -> u64 {
    let mut id = 0_u64;
    let mut difference = 0;
    let mut n = 0;
    while n < ID {
        let byte = dir.head[RENEW.len() + n];
        if n == 8 || n == 13 {
            difference |= byte ^ b'-';
        } else {
            // '0' to '9' have no bit above their digit that letters of either case have.
            let digit = (byte & 0xf) + 9 * (byte >> 6);
            id = id << 4 | u64::from(digit & 0xf);
        }
        n += 1;
    }
    if core::hint::black_box(difference) == 0 {
        id
    } else {
        0
    }
}

/// A reply to a renewal, of which [`REPLY_HEAD`] bytes lie in `head`.
#[inline(always)]
pub fn reply(dir: &mut Direction, now_ns: u64) {
    let refused = dir.head[9] == b'4' && dir.head[10] == b'0' && dir.head[11] == b'4';
    dir.ending_ns = if refused { now_ns } else { 0 };
}
