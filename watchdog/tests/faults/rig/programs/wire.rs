//! ZooKeeper's frames, as far as these programs speak them.

use std::io::{Read, Result, Write};

/// The xid of keepalives.
pub const PING_XID: i32 = -2;
/// The request that ends a session.
pub const CLOSE: i32 = -11;

/// Asks for a new session.
pub fn connect_request(timeout_ms: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0_i32.to_be_bytes());
    body.extend(0_i64.to_be_bytes());
    body.extend(timeout_ms.to_be_bytes());
    body.extend(0_i64.to_be_bytes());
    body.extend(16_i32.to_be_bytes());
    body.extend([0; 16]);
    body.push(0);
    frame(&body)
}

/// Grants a session.
pub fn connect_response(timeout_ms: i32, id: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0_i32.to_be_bytes());
    body.extend(timeout_ms.to_be_bytes());
    body.extend(id.to_be_bytes());
    body.extend(16_i32.to_be_bytes());
    body.extend([7; 16]);
    body.push(0);
    frame(&body)
}

/// A keepalive.
pub fn ping() -> Vec<u8> {
    request(PING_XID, 11, &[])
}

/// Asks whether `/` exists.
pub fn exists(xid: i32) -> Vec<u8> {
    request(xid, 3, &[0, 0, 0, 1, b'/', 0])
}

/// Writes `size` bytes to `/`.
pub fn set_data(xid: i32, size: usize) -> Vec<u8> {
    let mut payload = vec![0, 0, 0, 1, b'/'];
    payload.extend(u32::try_from(size).expect("small data").to_be_bytes());
    payload.extend(std::iter::repeat_n(b'x', size));
    payload.extend((-1_i32).to_be_bytes());
    request(xid, 5, &payload)
}

/// Ends the session.
pub fn close(xid: i32) -> Vec<u8> {
    request(xid, CLOSE, &[])
}

/// An answer without payload.
pub fn reply(xid: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(xid.to_be_bytes());
    body.extend(1_i64.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    frame(&body)
}

/// Reads the body of one frame.
pub fn read_frame(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// A body's 32-bit number at an offset.
pub fn int(body: &[u8], at: usize) -> i32 {
    let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, i32::from_be_bytes)
}

/// A body's 64-bit number at an offset.
pub fn long(body: &[u8], at: usize) -> u64 {
    let bytes = body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_be_bytes)
}

/// Opens a session; gives its timeout and id.
pub fn open(stream: &mut (impl Read + Write), timeout_ms: i32) -> Result<(i32, u64)> {
    stream.write_all(&connect_request(timeout_ms))?;
    let answer = read_frame(stream)?;
    Ok((int(&answer, 4), long(&answer, 8)))
}

fn request(xid: i32, kind: i32, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(xid.to_be_bytes());
    body.extend(kind.to_be_bytes());
    body.extend(payload);
    frame(&body)
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len())
        .expect("a small frame")
        .to_be_bytes()
        .to_vec();
    frame.extend(body);
    frame
}
