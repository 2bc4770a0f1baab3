//! ZooKeeper's frames, as far as the demo's server and clients speak them.
//!
//! In: bytes of one connection, cut anyhow. Out: whole frames without their length, and the bodies of
//! requests and replies. No clock, no state but the bytes gathered so far.

use std::io::{self, ErrorKind, Read};

/// Frames beyond this are refused; the demo's own are under 200 bytes.
pub const MAX_FRAME: usize = 64 * 1024;
/// The xid of a ping and of its reply.
pub const XID_PING: i32 = -2;
/// Opcode: read a node's data.
pub const OP_GET_DATA: i32 = 4;
/// Opcode: ping.
pub const OP_PING: i32 = 11;
/// Opcode: end the session.
pub const OP_CLOSE: i32 = -11;
/// Error: the server doesn't know this operation.
pub const ERR_UNIMPLEMENTED: i32 = -6;
/// A session's password.
pub type Password = [u8; 16];

/// Gathers one frame after the other from reads of any size.
#[derive(Debug, Default)]
pub struct FrameReader {
    header: [u8; 4],
    body: Vec<u8>,
    /// Bytes of header and body gathered so far.
    have: usize,
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Got {
    /// A whole frame, without its length.
    Frame(Vec<u8>),
    /// Not enough yet, or the read timed out or was interrupted.
    Pending,
    /// The peer has closed. Inside a frame or between two: to the demo it is the same.
    Eof,
}

impl FrameReader {
    /// Makes one read call. Fails on a broken connection and, with `InvalidData`, on a length that no
    /// frame has; `header` then tells the four bytes.
    pub fn read_from(&mut self, source: &mut impl Read) -> io::Result<Got> {
        // Header and body by separate reads, as the C and the Java client do it.
        let target = match self.have {
            have @ 0..4 => &mut self.header[have..],
            have => &mut self.body[have - 4..],
        };
        match source.read(target) {
            Ok(0) => return Ok(Got::Eof),
            Ok(n) => self.have += n,
            Err(e) => {
                return match e.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        Ok(Got::Pending)
                    }
                    _ => Err(e),
                };
            }
        }
        if self.have == 4 {
            let length = u32::from_be_bytes(self.header) as usize;
            if length == 0 || length > MAX_FRAME {
                let what = format!("a frame of {length} bytes");
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
            self.body = vec![0; length];
        }
        if self.have < 4 || self.have < 4 + self.body.len() {
            return Ok(Got::Pending);
        }
        self.have = 0;
        Ok(Got::Frame(std::mem::take(&mut self.body)))
    }

    /// The four bytes that stood where the newest frame's length stands.
    pub fn header(&self) -> [u8; 4] {
        self.header
    }
}

/// A frame of this body, length first.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend(body);
    frame
}

/// Reads big-endian integers off a body; `None` where it is too short.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }
    fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
    /// A password with its length; any other length than 16 is no password of ours.
    fn password(&mut self) -> Option<Password> {
        if self.int()? != 16 {
            return None;
        }
        self.take()
    }
}

/// The first frame of a connection, from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The timeout asked for, in milliseconds.
    pub timeout_ms: i32,
    /// The session to be renewed, 0 for a new one.
    pub session: u64,
    /// That session's password.
    pub password: Password,
}

impl ConnectRequest {
    /// The body; `read_only` says whether the trailing flag is sent, which older clients don't.
    pub fn encode(&self, read_only: bool) -> Vec<u8> {
        let mut body = Vec::with_capacity(45);
        body.extend(0i32.to_be_bytes());
        body.extend(0u64.to_be_bytes());
        body.extend(self.timeout_ms.to_be_bytes());
        body.extend(self.session.to_be_bytes());
        body.extend(16i32.to_be_bytes());
        body.extend(self.password);
        if read_only {
            body.push(0);
        }
        body
    }

    /// `None` if the body is no ConnectRequest.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        if fields.int()? != 0 {
            return None;
        }
        let _last_zxid = fields.long()?;
        let timeout_ms = fields.int()?;
        let session = fields.long()?;
        let password = fields.password()?;
        (fields.0.len() <= 1).then_some(Self {
            timeout_ms,
            session,
            password,
        })
    }
}

/// The server's answer to it. All zero: the session has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectResponse {
    /// The negotiated timeout in milliseconds.
    pub timeout_ms: i32,
    /// The session.
    pub session: u64,
    /// Its password, for later renewals.
    pub password: Password,
}

impl ConnectResponse {
    /// The body, with the trailing read-only flag.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(37);
        body.extend(0i32.to_be_bytes());
        body.extend(self.timeout_ms.to_be_bytes());
        body.extend(self.session.to_be_bytes());
        body.extend(16i32.to_be_bytes());
        body.extend(self.password);
        body.push(0);
        body
    }

    /// `None` if the body is no ConnectResponse.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let _protocol = fields.int()?;
        let timeout_ms = fields.int()?;
        let session = fields.long()?;
        let password = fields.password()?;
        Some(Self {
            timeout_ms,
            session,
            password,
        })
    }

    /// Whether it says that the session has expired.
    pub fn expired(&self) -> bool {
        self.timeout_ms == 0 && self.session == 0
    }
}

/// A request's body: xid, opcode, payload.
pub fn request(xid: i32, opcode: i32, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 + payload.len());
    body.extend(xid.to_be_bytes());
    body.extend(opcode.to_be_bytes());
    body.extend(payload);
    body
}

/// The payload of getData: the path, and no watch.
pub fn get_data(path: &str) -> Vec<u8> {
    let mut payload = framed(path.as_bytes());
    payload.push(0);
    payload
}

/// xid and opcode of a request's body.
pub fn request_head(body: &[u8]) -> Option<(i32, i32)> {
    let mut fields = Fields(body);
    Some((fields.int()?, fields.int()?))
}

/// A reply's body: xid, zxid, error, payload.
pub fn reply(xid: i32, zxid: u64, err: i32, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(16 + payload.len());
    body.extend(xid.to_be_bytes());
    body.extend(zxid.to_be_bytes());
    body.extend(err.to_be_bytes());
    body.extend(payload);
    body
}

/// xid and error of a reply's body.
pub fn reply_head(body: &[u8]) -> Option<(i32, i32)> {
    let mut fields = Fields(body);
    let xid = fields.int()?;
    let _zxid = fields.long()?;
    Some((xid, fields.int()?))
}

/// The payload of a getData reply: the data, and a Stat that is zero but for the data's length.
pub fn data_and_stat(data: &[u8]) -> Vec<u8> {
    let mut payload = framed(data);
    let mut stat = [0u8; 68];
    stat[52..56].copy_from_slice(&(data.len() as u32).to_be_bytes());
    payload.extend(stat);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields its bytes in pieces of `size`.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(self.1).min(self.0.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_frames() {
        let bodies = [
            vec![1],
            request(7, OP_GET_DATA, &get_data("/demo")),
            vec![9; 300],
        ];
        let bytes: Vec<u8> = bodies.iter().flat_map(|b| framed(b)).collect();
        for size in 1..=bytes.len() {
            let (mut reader, mut source) = (FrameReader::default(), Pieces(&bytes, size));
            let mut frames = Vec::new();
            loop {
                match reader.read_from(&mut source).unwrap() {
                    Got::Frame(body) => frames.push(body),
                    Got::Pending => {}
                    Got::Eof => break,
                }
            }
            assert_eq!(frames, bodies, "pieces of {size}");
        }
    }

    #[test]
    fn a_four_letter_word_is_no_frame() {
        let mut reader = FrameReader::default();
        assert!(reader.read_from(&mut Pieces(b"ruok", 4)).is_err());
        assert_eq!(&reader.header(), b"ruok");
    }

    #[test]
    fn handshakes_have_the_published_layout() {
        let ask = ConnectRequest {
            timeout_ms: 6000,
            session: 0x1_0203,
            password: [5; 16],
        };
        let frame = framed(&ask.encode(true));
        assert_eq!(
            (frame.len(), frame[3], &frame[16..20]),
            (49, 45, &6000i32.to_be_bytes()[..])
        );
        assert_eq!(&frame[20..28], &0x1_0203u64.to_be_bytes());
        assert_eq!(ConnectRequest::decode(&frame[4..]), Some(ask));
        assert_eq!(ask.encode(false).len(), 44);
        assert_eq!(ConnectRequest::decode(&ask.encode(false)), Some(ask));
        assert_eq!(ConnectRequest::decode(&ask.encode(false)[..43]), None);

        let answer = ConnectResponse {
            timeout_ms: 6000,
            session: 9,
            password: [7; 16],
        };
        let frame = framed(&answer.encode());
        assert_eq!(
            (frame.len(), frame[3], &frame[8..12]),
            (41, 37, &6000i32.to_be_bytes()[..])
        );
        assert_eq!(ConnectResponse::decode(&frame[4..]), Some(answer));
        assert!(!answer.expired() && ConnectResponse::default().expired());
    }

    #[test]
    fn a_ping_is_twelve_bytes_and_its_reply_twenty() {
        let ping = framed(&request(XID_PING, OP_PING, &[]));
        assert_eq!(ping, [0, 0, 0, 8, 255, 255, 255, 254, 0, 0, 0, 11]);
        assert_eq!(framed(&reply(XID_PING, 1, 0, &[])).len(), 20);
    }
}
