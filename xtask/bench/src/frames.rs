//! The few ZooKeeper frames that the bench speaks.

/// A ping.
pub const PING: [u8; 12] = *b"\0\0\0\x08\xff\xff\xff\xfe\0\0\0\x0b";
/// Its reply.
pub const PONG: [u8; 20] = *b"\0\0\0\x10\xff\xff\xff\xfe\0\0\0\0\0\0\0\x05\0\0\0\0";
/// Length of [`connect`].
pub const CONNECT: usize = 49;
/// Length of [`connected`].
pub const CONNECTED: usize = 41;

/// A ConnectRequest.
pub fn connect(timeout_ms: i32) -> [u8; CONNECT] {
    let mut frame = [0; CONNECT];
    frame[3] = 45;
    frame[16..20].copy_from_slice(&timeout_ms.to_be_bytes());
    frame[31] = 16;
    frame
}

/// The ConnectResponse that grants it.
pub fn connected(timeout_ms: i32, session: u64) -> [u8; CONNECTED] {
    let mut frame = [0; CONNECTED];
    frame[3] = 37;
    frame[8..12].copy_from_slice(&timeout_ms.to_be_bytes());
    frame[12..20].copy_from_slice(&session.to_be_bytes());
    frame[23] = 16;
    frame
}
