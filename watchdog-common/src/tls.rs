//! Exchanges inside TLS, told by the records alone: where no plaintext can be had, when data went and
//! came still can.
//!
//! In: the five bytes of a record's header. Out: whether application data has gone or come, as
//! requests and replies; with them a request begins with the first data after a reply has begun, as in
//! a stream that is not framed. Never: a byte of what is encrypted; a record of the handshake or an
//! alert taken for data where that can be told.
//!
//! In TLS 1.3 all that is encrypted says that it is application data. The end of the handshake is so
//! taken for a first request, and the server's session tickets for its answer: both come before the
//! first true request is answered, so what is credited is early. An alert (`close_notify`) is told by
//! its length.
//!
//! Sources: RFC 8446 (5.1, 5.2, B.1), RFC 5246 (6.2).

use crate::frames::Next;
use crate::layout::{Direction, KIND_OTHER, KIND_RENEWAL};
use crate::stream::{Framing, Length};

/// Types of records: change_cipher_spec, alert, handshake, application_data, heartbeat.
const FIRST_TYPE: u8 = 20;
const APPLICATION_DATA: u8 = 23;
const LAST_TYPE: u8 = 24;
/// Every version from SSL 3.0 on begins so.
const MAJOR_VERSION: u8 = 3;
/// An alert's two bytes and its type inside TLS 1.3, with the tag of 16 bytes that all usual ciphers
/// have …
const ALERT: u32 = 19;
/// … and with the one of 8 bytes (AES-CCM-8).
const SHORT_ALERT: u32 = 11;
/// The longest record of TLS 1.2 and before (2^14 + 2048); of TLS 1.3 they are shorter.
const LONGEST: u32 = (1 << 14) + 2_048;

/// Both directions: type, version, and a big-endian length of what follows.
pub const FRAMING: Framing = Framing {
    length: Length {
        at: 3,
        bytes: 2,
        little: false,
        adjust: 5,
    },
    head: 5,
    handshake_head: 0,
    min_len: 1,
    max_len: LONGEST,
};

/// Reads the header gathered in `head`.
#[inline(always)]
pub fn understand(dir: &mut Direction) -> Next {
    let (kind, version) = (dir.head[0], dir.head[1]);
    if !(FIRST_TYPE..=LAST_TYPE).contains(&kind) || version != MAJOR_VERSION {
        return Next::Broken;
    }
    let is_alert = dir.frame_left == ALERT || dir.frame_left == SHORT_ALERT;
    dir.kind = if kind == APPLICATION_DATA && !is_alert {
        KIND_RENEWAL
    } else {
        KIND_OTHER
    };
    Next::Rest
}
