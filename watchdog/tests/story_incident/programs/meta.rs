//! The metadata server: one thread that grants access leases, expires them, writes its log to disk
//! before it goes on, and holds a session of ZooKeeper by a real client.
//!
//! Its two faults are those of the incident. The log is written in the path that serves, so a disk
//! that hangs stops everything at once, the client of ZooKeeper included. And when it runs again it
//! looks for expired leases before it looks for renewals that wait in its sockets.

use super::{LEASE_US, end_with_input, frame, name_in, say};
use crate::harness::clock;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use zookeeper_client::{Client, SessionState};

/// The session's timeout: with the client's pings a fifth of it apart and a server that looks every
/// half second, it is lost within the ten seconds for which the disk hangs.
const SESSION: Duration = Duration::from_secs(9);
/// How often it looks at everything, and writes a line about it.
const TURN: Duration = Duration::from_millis(100);
/// Bytes of an answer.
const ANSWER: usize = 41;

struct Lease {
    stream: TcpStream,
    name: String,
    renewed_us: i64,
    input: Vec<u8>,
}

pub fn run(listen: &str, zookeeper: &str, log: &str) {
    end_with_input();
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap_or_else(|error| panic!("{log}: {error}"));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(serve(listen, zookeeper, log));
}

async fn serve(listen: &str, zookeeper: &str, mut log: File) {
    let client = Client::connector()
        .with_session_timeout(SESSION)
        .connect(zookeeper)
        .await
        .unwrap_or_else(|error| panic!("cannot connect to {zookeeper}: {error}"));
    let session = format!("{:#x}", client.session_id().0);
    let mut states = client.state_watcher();
    say("session", &session);
    let listener = TcpListener::bind(listen).await.expect("the port is free");
    say("listening", listen);
    let mut leases: Vec<Lease> = Vec::new();
    let mut session_lost = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, peer) = accepted.expect("a connection");
                stream.set_nodelay(true).expect("a TCP socket");
                leases.push(Lease {
                    stream,
                    name: peer.to_string(),
                    renewed_us: clock::now_us(),
                    input: Vec::new(),
                });
            }
            state = states.changed(), if !session_lost => {
                session_lost = state == SessionState::Expired || state == SessionState::Closed;
                say(&format!("zookeeper-{state:?}").to_lowercase(), &session);
            }
            () = tokio::time::sleep(TURN) => {}
        }
        write(&mut log, &format!("{} leases", leases.len()));
        leases.retain(|lease| {
            let alive = clock::now_us() - lease.renewed_us < LEASE_US;
            if !alive {
                // Dropping it closes its connection, with the renewal still unread in it.
                say("expired", &lease.name);
            }
            alive
        });
        leases.retain_mut(|lease| read(lease, &mut log));
    }
}

/// Reads what has come; whether the connection lives.
fn read(lease: &mut Lease, log: &mut File) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match lease.stream.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => lease.input.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return false,
        }
    }
    while let Some(body) = next_body(&mut lease.input) {
        lease.name = name_in(&body);
        write(log, &format!("renewal of {}", lease.name));
        lease.renewed_us = clock::now_us();
        say("renewed", &lease.name);
        // A short answer always fits into the socket's buffer.
        if lease.stream.try_write(&frame("ok", ANSWER)).is_err() {
            return false;
        }
    }
    true
}

fn next_body(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(input.get(..4)?.try_into().ok()?) as usize;
    let body = input.get(4..4 + length)?.to_vec();
    input.drain(..4 + length);
    Some(body)
}

/// Writes a line, and waits until the disk has it.
fn write(log: &mut File, line: &str) {
    drop(writeln!(log, "{} {line}", clock::now_us()));
    drop(log.sync_data());
}
