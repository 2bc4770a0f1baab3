//! Which protocol a flow speaks, by the heads of its frames.
//!
//! In: the first bytes of a segment. Out: evidence, counted; a verdict once it is enough. What a head
//! means is written in `watchdog-common`; here it is enough to tell protocols apart. Never: a verdict by
//! port number.

/// The head of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its first bytes.
    pub head: &'a [u8],
    /// Bytes of the whole payload.
    pub len: u32,
    /// Whether the client sent it.
    pub is_request: bool,
}

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// ZooKeeper's client protocol.
    Zookeeper,
    /// etcd's lease keepalives.
    Etcd,
    /// Kafka's group memberships.
    Kafka,
    /// Consul's session renewals.
    Consul,
    /// Some other HTTP: scrapes, health checks, page views.
    Http,
    /// Encrypted.
    Tls,
}

/// What a flow's frames said so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spoken {
    zookeeper: u32,
    etcd: u32,
    kafka: u32,
    consul: u32,
    http: u32,
    tls: u32,
    /// The timeout, as a handshake or a reply told it, ms.
    pub timeout_ms: Option<u32>,
}

impl Spoken {
    /// The verdict.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        // Each of these bytes is a proof; where a proof takes several, they are counted.
        if self.zookeeper >= 1 {
            Some(Protocol::Zookeeper)
        } else if self.etcd >= 2 {
            Some(Protocol::Etcd)
        } else if self.consul >= 1 {
            Some(Protocol::Consul)
        } else if self.kafka >= 2 {
            Some(Protocol::Kafka)
        } else if self.http >= 1 {
            Some(Protocol::Http)
        } else if self.tls >= 1 {
            Some(Protocol::Tls)
        } else {
            None
        }
    }
}

/// Takes a segment's head in.
pub fn look(spoken: &mut Spoken, seen: &Seen<'_>) {
    if zookeeper(seen, spoken) {
        spoken.zookeeper += 1;
    } else if etcd(seen, spoken) {
        spoken.etcd += 1;
    } else if seen.is_request && seen.head.starts_with(b"PUT /v1/session/renew/") {
        spoken.consul += 1;
    } else if kafka(seen) {
        spoken.kafka += 1;
    } else if http(seen.head) {
        spoken.http += 1;
    } else if tls(seen.head) {
        spoken.tls += 1;
    }
}

fn word(head: &[u8], at: usize) -> Option<u32> {
    let bytes = head.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn half(head: &[u8], at: usize) -> Option<u16> {
    let bytes = head.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// A ping (length 8, xid −2, type 11) or its reply (length 16, xid −2), or a handshake: ConnectRequest of
/// 44 or 45 bytes, ConnectResponse of 36 or 37, both of protocol version 0 (zookeeper.jute).
fn zookeeper(seen: &Seen<'_>, spoken: &mut Spoken) -> bool {
    let head = seen.head;
    let (Some(length), Some(first)) = (word(head, 0), word(head, 4)) else {
        return false;
    };
    const PING: u32 = 0xffff_fffe;
    match (seen.is_request, length) {
        (true, 8) => first == PING && word(head, 8) == Some(11),
        (false, 16) => first == PING && word(head, 16) == Some(0),
        (true, 44 | 45) => {
            let password = word(head, 28);
            let timeout = word(head, 16).unwrap_or(0);
            first == 0 && password == Some(16) && plausible(timeout) && seen.len == length + 4
        }
        (false, 36 | 37) => {
            let (password, timeout) = (word(head, 20), word(head, 8).unwrap_or(0));
            let is_one = first == 0 && password == Some(16) && plausible(timeout);
            if is_one {
                spoken.timeout_ms = Some(timeout);
            }
            is_one
        }
        _ => false,
    }
}

/// Half a second to an hour: no session is shorter or longer.
const fn plausible(timeout_ms: u32) -> bool {
    timeout_ms >= 500 && timeout_ms <= 3_600_000
}

/// A DATA frame with one uncompressed gRPC message: a request of one number that does not end its stream,
/// or a reply of a header (field 1), an id and a TTL; see `watchdog_common::etcd`. Frames before it in the
/// segment (pings, window updates) are walked over.
fn etcd(seen: &Seen<'_>, spoken: &mut Spoken) -> bool {
    let mut rest = seen.head;
    // The preface comes once, before all frames.
    if let Some(behind) = rest.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        rest = behind;
    }
    for _ in 0..8 {
        let Some(length) = word(rest, 0).map(|word| (word >> 8) as usize) else {
            return false;
        };
        let (Some(kind), Some(flags)) = (rest.get(3), rest.get(4)) else {
            return false;
        };
        if *kind >= 0x20 {
            return false;
        }
        let Some(message) = rest.get(9..) else {
            return false;
        };
        if *kind == 0 && *flags & 9 == 0 && keepalive(message, length, seen.is_request, spoken) {
            return true;
        }
        let Some(next) = rest.get(9 + length..) else {
            return false;
        };
        rest = next;
    }
    false
}

fn keepalive(message: &[u8], length: usize, is_request: bool, spoken: &mut Spoken) -> bool {
    let whole = message.first() == Some(&0)
        && word(message, 1).is_some_and(|own| own as usize + 5 == length && own > 0);
    if !whole {
        return false;
    }
    let body = &message[5..];
    if is_request {
        return body.first() == Some(&8)
            && varint(body, 1).is_some_and(|(id, end)| id != 0 && end + 5 == length);
    }
    let (Some(0x0a), Some(header)) = (body.first(), body.get(1)) else {
        return false;
    };
    let Some(behind) = body.get(2 + usize::from(*header)..) else {
        return false;
    };
    let Some((_, end)) = varint(behind, 1).filter(|_| behind.first() == Some(&0x10)) else {
        return false;
    };
    let ttl = varint(behind, end + 1).filter(|_| behind.get(end) == Some(&0x18));
    if let Some((seconds, _)) = ttl {
        spoken.timeout_ms = u32::try_from(seconds)
            .ok()
            .and_then(|s| s.checked_mul(1000));
    }
    ttl.is_some()
}

fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for n in 0..10 {
        let byte = *bytes.get(at + n)?;
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, at + n + 1));
        }
    }
    None
}

/// What keeps a membership alive or makes it, in a frame that is the whole segment, with a client's name
/// that fits in it: JoinGroup 11, Heartbeat 12, BrokerHeartbeat 63, ConsumerGroupHeartbeat 68.
fn kafka(seen: &Seen<'_>) -> bool {
    let head = seen.head;
    let (Some(length), Some(key), Some(version), Some(name)) =
        (word(head, 0), half(head, 4), half(head, 6), half(head, 12))
    else {
        return false;
    };
    let name = name.cast_signed();
    seen.is_request
        && length.checked_add(4) == Some(seen.len)
        && matches!(key, 11 | 12 | 63 | 68)
        && version < 16
        && (name == -1 || (name >= 0 && name.unsigned_abs() < 256))
        && u32::from(name.max(0).unsigned_abs()) + 10 <= length
}

fn http(head: &[u8]) -> bool {
    const HEADS: [&[u8]; 9] = [
        b"GET ",
        b"PUT ",
        b"POST ",
        b"HEAD ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"HTTP/1.",
        b"PRI * HTTP/2",
    ];
    HEADS.iter().any(|known| head.starts_with(known))
}

/// A record of TLS: handshake or data, of version 3.x.
fn tls(head: &[u8]) -> bool {
    matches!(head, [0x16 | 0x17, 3, 0..=4, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(messages: &[(bool, &[u8])]) -> Spoken {
        let mut spoken = Spoken::default();
        for (is_request, bytes) in messages {
            let len = u32::try_from(bytes.len()).unwrap();
            let seen = Seen {
                head: bytes,
                len,
                is_request: *is_request,
            };
            look(&mut spoken, &seen);
        }
        spoken
    }

    #[test]
    fn zookeeper_by_a_ping_or_a_handshake() {
        let ping = b"\0\0\0\x08\xff\xff\xff\xfe\0\0\0\x0b";
        assert_eq!(told(&[(true, ping)]).protocol(), Some(Protocol::Zookeeper));
        let mut response = vec![0, 0, 0, 37, 0, 0, 0, 0, 0, 0, 0x2e, 0xe0];
        response.extend([1; 8]);
        response.extend([0, 0, 0, 16]);
        response.extend([2; 17]);
        let spoken = told(&[(false, &response)]);
        assert_eq!(spoken.protocol(), Some(Protocol::Zookeeper));
        assert_eq!(spoken.timeout_ms, Some(12_000));
        assert_eq!(
            told(&[(false, ping)]).protocol(),
            None,
            "from the wrong end"
        );
    }

    #[test]
    fn etcd_by_its_keepalives_and_the_ttl_in_their_replies() {
        let mut request = vec![0, 0, 10, 0, 0, 0, 0, 0, 1];
        request.extend([0, 0, 0, 0, 5, 8, 0xff, 0xff, 0xff, 0x07]);
        let mut reply = vec![0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        reply.extend([0, 0, 16, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 11]);
        reply.extend([0x0a, 2, 8, 1, 0x10, 0xff, 0xff, 0xff, 0x07, 0x18, 6]);
        let spoken = told(&[(true, &request), (false, &reply)]);
        assert_eq!(spoken.protocol(), Some(Protocol::Etcd), "{spoken:?}");
        assert_eq!(spoken.timeout_ms, Some(6_000));
        request[4] = 1;
        let unary = told(&[(true, &request), (true, &request)]);
        assert_eq!(unary.protocol(), None, "a request that ends its stream");
    }

    #[test]
    fn kafka_consul_http_and_tls() {
        let heartbeat = b"\0\0\0\x13\0\x0c\0\x03\0\0\0\x07\0\x03abcdefghi";
        assert_eq!(
            told(&[(true, heartbeat), (true, heartbeat)]).protocol(),
            Some(Protocol::Kafka)
        );
        assert_eq!(told(&[(true, heartbeat)]).protocol(), None, "one is chance");
        let renew = b"PUT /v1/session/renew/adf4238a-882b HTTP/1.1\r\n";
        assert_eq!(told(&[(true, renew)]).protocol(), Some(Protocol::Consul));
        let scrape = b"GET /metrics HTTP/1.1\r\n";
        assert_eq!(told(&[(true, scrape)]).protocol(), Some(Protocol::Http));
        let hello = b"\x16\x03\x01\x02\x00\x01";
        assert_eq!(told(&[(true, hello)]).protocol(), Some(Protocol::Tls));
    }

    #[test]
    fn an_opaque_keepalive_is_none_of_them() {
        let spoken = told(&[(true, b"\0\x05renew"), (false, b"\0\x07granted")]);
        assert_eq!(spoken.protocol(), None);
    }
}
