//! How the requests of an entry look on the wire: `signature`, `frame`, `renews_from`, `hold`.
//!
//! In: an entry's keys. Out: [`Exchange`], and from it what the kernel programs are told.

use watchdog_common::layout::{
    EntryShape, HEAD_MOST, LENGTH_WITHIN, PROTOCOL_CONSUL, PROTOCOL_ETCD, PROTOCOL_KAFKA,
    PROTOCOL_REQUEST_REPLY, PROTOCOL_TLS, PROTOCOL_ZOOKEEPER, SIGNATURE,
};

use super::tree::Value;
use super::walk::{Group, Place, one_of};
use super::{LeaseEntry, Protocol, units};

/// How requests and replies look, and which of both renews.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exchange {
    /// What tells renewals from other requests; None: every request renews.
    pub signature: Option<Signature>,
    /// How messages are framed; None: a request begins after a reply.
    pub frame: Option<Frame>,
    /// Whether the lease is renewed from when the reply was sent (a long poll), and not from when
    /// its request was.
    pub renews_from_reply: bool,
    /// How long the grantor holds its reply back, ns; None: learned.
    pub hold_ns: Option<u64>,
}

/// Bytes in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Where they lie.
    pub offset: u8,
    /// Which of their bits count.
    pub mask: Vec<u8>,
    /// What those bits are.
    pub bytes: Vec<u8>,
}

/// Where a message's length stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where in the message the field begins.
    pub length_offset: u8,
    /// Its width, bytes.
    pub length_bytes: u8,
    /// Whether it is little-endian.
    pub little: bool,
    /// Added to its value it gives the whole message's length.
    pub adjust: i32,
}

/// Reads the keys of an entry.
pub fn read(keys: &Group<'_>, protocol: Option<Protocol>, timeout_ns: Option<u64>) -> Exchange {
    let exchange = Exchange {
        signature: keys.get("signature").and_then(signature),
        frame: keys.get("frame").and_then(frame),
        renews_from_reply: keys
            .read(
                "renews_from",
                one_of(&[("request", false), ("reply", true)]),
            )
            .unwrap_or(false),
        hold_ns: keys.read("hold", units::positive_duration),
    };
    if protocol.is_some_and(|protocol| protocol != Protocol::RequestReply) {
        for key in ["signature", "frame", "hold"] {
            if let Some(place) = keys.get(key) {
                place.complain("goes with \"protocol: request_reply\" only; remove it");
            }
        }
        if exchange.renews_from_reply
            && let Some(place) = keys.get("renews_from")
        {
            place.complain("\"reply\" goes with \"protocol: request_reply\" only; remove it");
        }
        return Exchange::default();
    }
    if let (Some(hold_ns), Some(timeout_ns), Some(place)) =
        (exchange.hold_ns, timeout_ns, keys.get("hold"))
    {
        let show = units::show_duration;
        if hold_ns >= timeout_ns {
            place.complain(format!(
                "{} is not shorter than timeout {}; a lease whose reply is held that long always \
                 lapses",
                show(hold_ns),
                show(timeout_ns)
            ));
        } else if !exchange.renews_from_reply && hold_ns > timeout_ns / 3 {
            place.complain(format!(
                "{} is more than a third of timeout {}: counted from requests, the lease would be \
                 late while all is well; write \"renews_from: reply\"",
                show(hold_ns),
                show(timeout_ns)
            ));
        }
    }
    exchange
}

fn signature(place: &Place<'_>) -> Option<Signature> {
    let keys = place.group()?;
    let bytes = keys
        .required("bytes", "add what to look for, like \"bytes: '0c01'\"")?
        .read(hex)?;
    let offset = keys.read("offset", |value| whole(value, 0, HEAD_MOST as i64 - 1));
    let mask = match keys.get("mask") {
        None => vec![0xff; bytes.len()],
        Some(place) => {
            let mask = place.read(hex)?;
            if mask.len() != bytes.len() {
                place.complain(format!(
                    "has {} bytes, \"bytes\" has {}; write as many",
                    mask.len(),
                    bytes.len()
                ));
                return None;
            }
            mask
        }
    };
    let offset = u8::try_from(offset.unwrap_or(0)).unwrap_or(0);
    if usize::from(offset) + bytes.len() > HEAD_MOST {
        place.complain(format!(
            "ends at byte {}; only the first {HEAD_MOST} of a request are looked at",
            usize::from(offset) + bytes.len()
        ));
        return None;
    }
    if let Some(at) = (0..bytes.len()).find(|at| bytes[*at] & !mask[*at] != 0) {
        place.complain(format!(
            "byte {at} wants bits that the mask leaves out, so it would never match; clear them in \
             \"bytes\" or set them in \"mask\""
        ));
        return None;
    }
    Some(Signature {
        offset,
        mask,
        bytes,
    })
}

fn frame(place: &Place<'_>) -> Option<Frame> {
    let keys = place.group()?;
    let bytes = keys
        .required(
            "length_bytes",
            "add the length field's width, like \"length_bytes: 4\"",
        )?
        .read(|value| whole(value, 1, 4))?;
    let offset = keys
        .read("length_offset", |value| {
            whole(value, 0, LENGTH_WITHIN as i64 - 1)
        })
        .unwrap_or(0);
    if offset + bytes > LENGTH_WITHIN as i64 {
        place.complain(format!(
            "the length field ends at byte {}; it must end within the first {LENGTH_WITHIN}",
            offset + bytes
        ));
        return None;
    }
    let little = keys
        .read("endian", one_of(&[("big", false), ("little", true)]))
        .unwrap_or(false);
    // A length that counts what stands behind its field is the usual one.
    let adjust = keys
        .read("adjust", |value| whole(value, -65_536, 65_536))
        .unwrap_or(offset + bytes);
    Some(Frame {
        length_offset: u8::try_from(offset).unwrap_or(0),
        length_bytes: u8::try_from(bytes).unwrap_or(4),
        little,
        adjust: i32::try_from(adjust).unwrap_or(0),
    })
}

fn whole(value: &Value, least: i64, most: i64) -> Result<i64, String> {
    let wrong = || format!("{value} is not a whole number from {least} to {most}");
    let number = match value {
        Value::Int(number) => *number,
        Value::Text(text) | Value::Number(text) => text.parse().map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(wrong())
    }
}

/// Bytes as hexadecimal digits, spaces between them allowed.
fn hex(value: &Value) -> Result<Vec<u8>, String> {
    let Value::Text(text) = value else {
        return Err(format!(
            "{value} is not a text; put the hexadecimal digits in quotes, like \"0c01\""
        ));
    };
    let digits: Vec<u8> = text
        .trim_start_matches("0x")
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let value = |digit: u8| char::from(digit).to_digit(16);
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| {
            let [high, low] = pair else { return None };
            u8::try_from(value(*high)? << 4 | value(*low)?).ok()
        })
        .collect();
    match bytes {
        Some(bytes) if bytes.len() > SIGNATURE => Err(format!(
            "\"{text}\" has {} bytes; at most {SIGNATURE} are compared",
            bytes.len()
        )),
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(format!(
            "\"{text}\" is not whole bytes in hexadecimal; write two digits each, like \"0c01\""
        )),
    }
}

impl LeaseEntry {
    /// What the kernel programs are told of this entry's packets.
    #[must_use]
    pub fn shape(&self) -> EntryShape {
        if self.tls {
            return EntryShape {
                protocol: PROTOCOL_TLS,
                ..EntryShape::default()
            };
        }
        self.inside()
    }

    /// What they are told of what is said, in the open or inside TLS.
    #[must_use]
    pub fn inside(&self) -> EntryShape {
        let mut shape = EntryShape {
            protocol: match self.protocol {
                Protocol::Zookeeper => PROTOCOL_ZOOKEEPER,
                Protocol::RequestReply => PROTOCOL_REQUEST_REPLY,
                Protocol::Kafka => PROTOCOL_KAFKA,
                Protocol::Consul => PROTOCOL_CONSUL,
                Protocol::Etcd => PROTOCOL_ETCD,
            },
            ..EntryShape::default()
        };
        if let Some(frame) = self.exchange.frame {
            shape.length_at = frame.length_offset;
            shape.length_bytes = frame.length_bytes;
            shape.little = frame.little.into();
            shape.adjust = frame.adjust;
        }
        if let Some(signature) = &self.exchange.signature {
            shape.signature_at = signature.offset;
            shape.signature_len = u8::try_from(signature.bytes.len()).unwrap_or(0);
            shape.signature[..signature.bytes.len()].copy_from_slice(&signature.bytes);
            shape.signature_mask[..signature.mask.len()].copy_from_slice(&signature.mask);
        }
        shape
    }
}
