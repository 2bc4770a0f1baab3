//! A grantor that can stop reading while its process lives: it answers every request until a line on
//! standard input, then leaves the socket alone. It expires by ZooKeeper's rule, and says so.

use super::say;
use super::wire;
use crate::harness::clock;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

static MUTE: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn run(listen: &str, timeout_ms: &str) {
    let timeout_ms: i32 = timeout_ms.parse().expect("a timeout in ms");
    let listener = TcpListener::bind(listen).expect("the port is free");
    say("listening", 0);
    std::thread::spawn(|| {
        for _line in std::io::stdin().lines().map_while(Result::ok) {
            MUTE.store(true, Ordering::Release);
        }
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        std::thread::spawn(move || drop(serve(stream, timeout_ms)));
    }
}

fn serve(mut stream: TcpStream, timeout_ms: i32) -> std::io::Result<()> {
    // A small buffer: a window that is soon full.
    set_receive_buffer(&stream, 32_768);
    stream.set_nodelay(true)?;
    wire::read_frame(&mut stream)?;
    let id = 0x77_0000_0000_0000
        | u64::from(std::process::id()) << 16
        | NEXT.fetch_add(1, Ordering::Relaxed);
    stream.write_all(&wire::connect_response(timeout_ms, id))?;
    say("granted", id);
    let mut read_us = clock::now_us();
    while !MUTE.load(Ordering::Acquire) {
        let request = wire::read_frame(&mut stream)?;
        read_us = clock::now_us();
        stream.write_all(&wire::reply(wire::int(&request, 0)))?;
    }
    say("mute", id);
    clock::observe_until(read_us + i64::from(timeout_ms) * 1_000);
    say("expired", id);
    loop {
        std::thread::park_timeout(Duration::from_secs(60));
    }
}

fn set_receive_buffer(stream: &TcpStream, bytes: libc::c_int) {
    use std::os::fd::AsRawFd as _;
    let size = libc::socklen_t::try_from(size_of_val(&bytes)).expect("four");
    // SAFETY: the option's value is a c_int that lives through the call, and its size is given.
    let status = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            size,
        )
    };
    assert_eq!(status, 0, "SO_RCVBUF");
}
