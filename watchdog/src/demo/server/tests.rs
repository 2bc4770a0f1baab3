use std::io::Read;
use std::sync::mpsc;

use super::*;

const TICK: u64 = 2_000;

#[test]
fn a_session_expires_at_the_end_of_the_bucket_its_timeout_falls_into() {
    let (tick, t) = (2_000 * MS, 6_000);
    assert_eq!(expiry(0, t, tick), 8_000 * MS);
    assert_eq!(expiry(1_999 * MS, t, tick), 8_000 * MS);
    assert_eq!(expiry(2_000 * MS, t, tick), 10_000 * MS);
    for touched in (0..20_000).map(|n| n * 137) {
        let left = expiry(touched, t, tick) - touched;
        assert!(left > t * MS && left <= t * MS + tick, "touched {touched}");
    }
}

#[test]
fn timeouts_are_clamped_to_two_and_twenty_ticks() {
    let books = Books::new(TICK, 0);
    assert_eq!(books.negotiate(6_000), 6_000);
    assert_eq!(books.negotiate(1_000), 4_000);
    assert_eq!(books.negotiate(-1), 4_000);
    assert_eq!(books.negotiate(100_000), 40_000);
}

#[test]
fn a_touch_moves_the_expiry_and_nothing_else_does() {
    let mut books = Books::new(TICK, 0);
    let id = books.open(6_000, 1, 0);
    assert!(books.take_due(8_000 * MS - 1).is_empty());
    assert_eq!(books.touch(id, 1, 2_000 * MS), Some(true));
    assert_eq!(books.touch(id, 1, 2_000 * MS + 1), Some(false));
    assert_eq!(books.touch(id, 2, 4_000 * MS), None, "another connection's");
    assert!(books.take_due(10_000 * MS - 1).is_empty());
    let due = books.take_due(10_000 * MS);
    assert_eq!(due.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id]);
    assert_eq!(books.touch(id, 1, 10_000 * MS), None);
}

#[test]
fn only_the_right_password_renews() {
    let mut books = Books::new(TICK, 0);
    let session = books.open(6_000, 1, 0);
    let password = books.sessions[&session].password;
    let mut ask = ConnectRequest {
        timeout_ms: 10_000,
        session,
        password: [0; 16],
    };
    assert!(!books.renew(&ask, 2, 5_000 * MS));
    ask.password = password;
    assert!(books.renew(&ask, 2, 5_000 * MS));
    assert_eq!(books.sessions[&session].timeout_ms, 10_000);
    assert_eq!(
        books.touch(session, 1, 5_000 * MS),
        None,
        "it belongs to the new connection"
    );
    assert!(books.take_due(16_000 * MS - 1).is_empty());
    assert_eq!(books.take_due(16_000 * MS).len(), 1);
}

/// A server on a thread; its lines, and its port.
pub fn started(tick_ms: u64) -> (mpsc::Receiver<ServerLine>, u16) {
    let (tx, rx) = mpsc::channel();
    let tell: Tell = Arc::new(move |line| {
        let _ = tx.send(line);
    });
    std::thread::spawn(move || serve(0, tick_ms, tell).unwrap());
    let ServerLine::Listening { port, .. } = rx.recv().unwrap() else {
        panic!("no port")
    };
    (rx, port)
}

fn told(rx: &mpsc::Receiver<ServerLine>) -> ServerLine {
    loop {
        match rx.recv_timeout(Duration::from_secs(5)).unwrap() {
            ServerLine::Touched { .. } => {}
            line => return line,
        }
    }
}

struct Peer(TcpStream, FrameReader);

impl Peer {
    fn new(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self(stream, FrameReader::default())
    }
    fn say(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        self.0.write_all(&wire::framed(body)).unwrap();
        next_frame(&self.0, &mut self.1).unwrap()
    }
    fn connect(port: u16, session: u64, password: Password) -> (Self, ConnectResponse) {
        let mut peer = Self::new(port);
        let ask = ConnectRequest {
            timeout_ms: 400,
            session,
            password,
        };
        let answer = peer.say(&ask.encode(true)).unwrap();
        (peer, ConnectResponse::decode(&answer).unwrap())
    }
}

#[test]
fn a_session_lives_from_handshake_to_close() {
    let (rx, port) = started(TICK);
    let (mut peer, session) = Peer::connect(port, 0, [0; 16]);
    assert_eq!(session.timeout_ms, 4_000);
    let id = SessionId(session.session);
    assert!(matches!(told(&rx), ServerLine::Opened { session, .. } if session == id));

    let ping = peer
        .say(&wire::request(wire::XID_PING, wire::OP_PING, &[]))
        .unwrap();
    assert_eq!((wire::reply_head(&ping), ping.len()), (Some((-2, 0)), 16));
    let ask = wire::request(5, wire::OP_GET_DATA, &wire::get_data("/"));
    let data = peer.say(&ask).unwrap();
    assert_eq!(
        (wire::reply_head(&data), data.len()),
        (Some((5, 0)), 16 + 4 + 4 + 68)
    );
    let odd = peer.say(&wire::request(6, 3, &[])).unwrap();
    assert_eq!(wire::reply_head(&odd), Some((6, wire::ERR_UNIMPLEMENTED)));

    let bye = peer.say(&wire::request(7, wire::OP_CLOSE, &[])).unwrap();
    assert_eq!(wire::reply_head(&bye), Some((7, 0)));
    assert_eq!(peer.0.read(&mut [0]).unwrap(), 0, "the server closes");
    assert!(matches!(told(&rx), ServerLine::Closed { session, .. } if session == id));
    let (_, again) = Peer::connect(port, session.session, session.password);
    assert!(again.expired());
}

#[test]
fn a_session_moves_to_a_new_connection() {
    let (rx, port) = started(TICK);
    let (mut old, first) = Peer::connect(port, 0, [0; 16]);
    let (mut new, second) = Peer::connect(port, first.session, first.password);
    assert_eq!(second, first);
    assert_eq!(
        old.0.read(&mut [0]).unwrap(),
        0,
        "the old connection is closed"
    );
    assert!(
        new.say(&wire::request(wire::XID_PING, wire::OP_PING, &[]))
            .is_some()
    );
    let (_, wrong) = Peer::connect(port, first.session, [1; 16]);
    assert!(wrong.expired());
    assert!(matches!(told(&rx), ServerLine::Opened { .. }));
    assert!(matches!(told(&rx), ServerLine::Moved { .. }));
}

#[test]
fn a_silent_session_expires_and_its_connection_is_closed() {
    let (rx, port) = started(100);
    let (mut peer, session) = Peer::connect(port, 0, [0; 16]);
    assert_eq!(peer.0.read(&mut [0]).unwrap(), 0, "the server closes");
    assert!(matches!(told(&rx), ServerLine::Opened { .. }));
    let ServerLine::Expired {
        at_mono_us,
        touched_mono_us,
        due_mono_us,
        ..
    } = told(&rx)
    else {
        panic!("not expired");
    };
    assert_eq!(due_mono_us, expiry(touched_mono_us, 400, 100 * MS));
    assert!(at_mono_us >= due_mono_us);
    let (_, again) = Peer::connect(port, session.session, session.password);
    assert!(again.expired());
}

#[test]
fn garbage_harms_only_itself() {
    let (_rx, port) = started(TICK);
    let (mut good, _) = Peer::connect(port, 0, [0; 16]);
    let handshake = wire::framed(
        &ConnectRequest {
            timeout_ms: 1,
            session: 0,
            password: [0; 16],
        }
        .encode(true),
    );
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x04\0\0\0\0",
        &handshake[..20],
        &[&handshake[..], b"\0\0\0\x02ab"].concat(),
    ] {
        let mut bad = Peer::new(port);
        bad.0.write_all(garbage).unwrap();
        bad.0.shutdown(Shutdown::Write).unwrap();
        // A reset is as good an end: the server had bytes it didn't read.
        let _ = bad.0.read_to_end(&mut Vec::new());
    }
    assert!(
        good.say(&wire::request(wire::XID_PING, wire::OP_PING, &[]))
            .is_some()
    );
    let mut word = Peer::new(port);
    word.0.write_all(b"ruok").unwrap();
    let mut answer = String::new();
    word.0.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "imok");
}
