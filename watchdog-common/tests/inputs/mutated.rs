//! Streams of every protocol that begin as they should and then go wrong: bytes changed, taken away, put
//! in, said twice; segments cut anywhere, lost, repeated, swapped. The same are run on the host and
//! through the kernel programs.

use super::{START, Segment, connect, connected, frame, reply, request};
use proptest::prelude::*;
use watchdog_common::layout::{
    EntryShape, PROTOCOL_CONSUL, PROTOCOL_ETCD, PROTOCOL_KAFKA, PROTOCOL_REQUEST_REPLY,
    PROTOCOL_TLS, PROTOCOL_ZOOKEEPER,
};

/// A parser, and streams of both directions that it understands.
pub struct Subject {
    /// Its name.
    pub name: &'static str,
    /// What the entry says.
    pub shape: EntryShape,
    /// What a holder sends.
    pub requests: Vec<u8>,
    /// What answers it.
    pub replies: Vec<u8>,
}

fn of(protocol: u8) -> EntryShape {
    EntryShape {
        protocol,
        ..EntryShape::default()
    }
}

/// A request of Kafka's: key, version, correlation id, the client's name.
fn kafka(key: u8, version: u8, id: u8, body: &[u8]) -> Vec<u8> {
    frame(&[&[0, key, 0, version, 0, 0, 0, id, 0, 2, b'm', b'e'], body].concat())
}

/// A frame of HTTP/2, on stream 5.
fn http2(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 5];
    bytes.extend(payload);
    bytes
}

/// The same with a message of gRPC's.
fn grpc(flags: u8, body: &[u8]) -> Vec<u8> {
    http2(0, flags, &[&[0, 0, 0, 0, body.len() as u8], body].concat())
}

fn tls(kind: u8, length: u8) -> Vec<u8> {
    let mut bytes = vec![kind, 3, 3, 0, length];
    bytes.resize(5 + usize::from(length), 0xa5);
    bytes
}

/// Every parser.
pub fn subjects() -> Vec<Subject> {
    let bare = of(PROTOCOL_REQUEST_REPLY);
    let mut framed = EntryShape {
        length_bytes: 2,
        length_at: 1,
        little: 1,
        adjust: 3,
        signature_at: 4,
        signature_len: 2,
        ..bare
    };
    (framed.signature[0], framed.signature_mask[0]) = (7, 0x0f);
    let plain = [9, 4, 0, 0, 7, 0, 1, 9, 2, 0, 1, 1, 9, 4, 0, 3, 0x17, 0, 2];
    let put =
        b"PUT /v1/session/renew/adf4238a-882b-9ddc-4a9d-5b6758e4159e HTTP/1.1\r\nHost: a\r\n\r\n";
    let end = b"PUT /v1/session/destroy/adf4238a-882b-9ddc-4a9d-5b6758e4159e HTTP/1.1\r\n\r\n";
    vec![
        Subject {
            name: "zookeeper",
            shape: of(PROTOCOL_ZOOKEEPER),
            requests: [
                connect(6_000, 0),
                request(-2, 11, 0),
                request(1, 4, 90),
                request(2, -11, 0),
            ]
            .concat(),
            replies: [
                connected(6_000, 9),
                reply(-2, 0, 0),
                reply(1, 0, 300),
                reply(2, -112, 0),
            ]
            .concat(),
        },
        Subject {
            name: "request_reply",
            shape: bare,
            requests: plain.to_vec(),
            replies: plain.to_vec(),
        },
        Subject {
            name: "request_reply, framed",
            shape: framed,
            requests: plain.to_vec(),
            replies: plain.to_vec(),
        },
        Subject {
            name: "kafka",
            shape: of(PROTOCOL_KAFKA),
            requests: [
                kafka(18, 2, 1, &[]),
                kafka(11, 1, 2, &[0, 1, b'g', 0, 0, 0x17, 0x70, 0, 0, 0, 9]),
                kafka(12, 1, 3, &[0, 1, b'g', 0, 0, 0, 1]),
                kafka(68, 0, 4, &[0, 2, b'g']),
                kafka(13, 0, 5, &[0, 1, b'g']),
            ]
            .concat(),
            replies: (1..=5_u8)
                .flat_map(|id| frame(&[0, 0, 0, id, 0, 0, 0, 0, 0, 25, 1, 2]))
                .collect(),
        },
        Subject {
            name: "consul",
            shape: of(PROTOCOL_CONSUL),
            requests: [put.as_slice(), b"GET / HTTP/1.1\r\n\r\n", end].concat(),
            replies:
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]HTTP/1.1 404 Not Found\r\n\r\n"
                    .to_vec(),
        },
        Subject {
            name: "etcd",
            shape: of(PROTOCOL_ETCD),
            requests: [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                http2(4, 0, &[0; 6]),
                grpc(0, &[8, 0x85, 0x94, 0x8c, 0x1e]),
                grpc(0, &[8, 9]),
                grpc(1, &[8, 9]),
            ]
            .concat(),
            replies: [
                http2(4, 1, &[]),
                grpc(0, &[0x0a, 2, 8, 1, 0x10, 0x85, 0x94, 0x8c, 0x1e, 0x18, 6]),
                grpc(0, &[0x0a, 2, 8, 1, 0x10, 9]),
            ]
            .concat(),
        },
        Subject {
            name: "tls",
            shape: of(PROTOCOL_TLS),
            requests: [
                tls(22, 200),
                tls(20, 1),
                tls(23, 53),
                tls(23, 60),
                tls(23, 19),
            ]
            .concat(),
            replies: [tls(22, 90), tls(23, 250), tls(23, 60), tls(21, 26)].concat(),
        },
    ]
}

/// One change of a stream.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Drop(usize, usize),
    Insert(usize, Vec<u8>),
    Again(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let short = || 1..40_usize;
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, to)| Change::Set(at, to)),
        // Lengths and kinds are small numbers or all ones.
        (any::<usize>(), prop_oneof![0..8_u8, Just(0xff), Just(0x80)])
            .prop_map(|(at, to)| Change::Set(at, to)),
        (any::<usize>(), short()).prop_map(|(at, count)| Change::Drop(at, count)),
        (any::<usize>(), prop::collection::vec(any::<u8>(), short()))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<usize>(), 1..200_usize).prop_map(|(at, count)| Change::Again(at, count)),
    ]
}

fn change_all(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let stretch = |at: usize, count: usize| {
            let from = at % bytes.len();
            from..(from + count).min(bytes.len())
        };
        match change {
            Change::Set(at, to) => {
                let at = at % bytes.len();
                bytes[at] = *to;
            }
            Change::Drop(at, count) => drop(bytes.drain(stretch(*at, *count))),
            Change::Insert(at, more) => {
                let at = at % bytes.len();
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Again(at, count) => {
                let stretch = stretch(*at, *count);
                let (end, again) = (stretch.end, bytes[stretch].to_vec());
                bytes.splice(end..end, again);
            }
        }
    }
    bytes
}

/// The stream, repeated a few times and changed here and there.
pub fn bytes(seed: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    (1..4_usize, prop::collection::vec(change(), 0..8)).prop_map(move |(times, changes)| {
        let mut bytes = change_all(&seed.repeat(times), &changes);
        if bytes.is_empty() {
            bytes.push(0);
        }
        bytes
    })
}

/// The same in segments, of which some are lost, repeated, or swapped with the next.
pub fn segments(seed: Vec<u8>) -> impl Strategy<Value = Vec<Segment>> {
    let cuts = prop::collection::vec(any::<usize>(), 0..24);
    let fates = prop::collection::vec(0..12_u8, 32);
    (bytes(seed), cuts, fates, any::<bool>()).prop_map(|(bytes, cuts, fates, orderly)| {
        let mut parts = super::cut(&bytes, &cuts);
        if orderly {
            return parts;
        }
        let mut fated = Vec::new();
        for n in 0..parts.len() {
            match fates[n % fates.len()] {
                0 => {}
                1 => fated.extend([parts[n].clone(), parts[n].clone()]),
                2 if n + 1 < parts.len() => {
                    parts.swap(n, n + 1);
                    fated.push(parts[n].clone());
                }
                3 => fated.push((parts[n].0.wrapping_add(1), parts[n].1.clone())),
                4 => fated.push((START, parts[n].1.clone())),
                _ => fated.push(parts[n].clone()),
            }
        }
        fated
    })
}
