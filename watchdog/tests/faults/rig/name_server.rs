//! A name server on a loopback address of its own, which can fall silent. The programs that ask it
//! run in a mount namespace with their own `resolv.conf`; the node's is left alone.

use super::names;
use crate::harness::clock;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    folder: tempfile::TempDir,
    silent: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

/// The time of silence. The thread that answers lives in this program: with it gone, nobody waits.
#[derive(Debug)]
pub struct Silence(Arc<AtomicBool>);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl NameServer {
    /// Starts it on port 53 of an address that nobody else uses.
    ///
    /// # Panics
    /// If the port cannot be had; it needs root.
    pub fn start() -> Self {
        let number = std::process::id() * 7 + names::number();
        let [_, _, third, fourth] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, 53, third, fourth.clamp(1, 254));
        let socket = UdpSocket::bind((address, 53)).expect("a loopback port 53");
        let limit = Duration::from_millis(100);
        socket.set_read_timeout(Some(limit)).expect("a UDP socket");
        let folder = tempfile::tempdir().expect("a temporary directory");
        let config = format!("nameserver {address}\noptions timeout:30 attempts:1\n");
        std::fs::write(folder.path().join("resolv.conf"), config).expect("a file");
        let silent = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let (quiet, end) = (Arc::clone(&silent), Arc::clone(&ended));
        std::thread::spawn(move || {
            let mut packet = [0; 1_500];
            while !end.load(Ordering::Acquire) {
                match socket.recv_from(&mut packet) {
                    Ok((length, asker)) if !quiet.load(Ordering::Acquire) => {
                        drop(socket.send_to(&answer(&packet[..length]), asker));
                    }
                    Ok(_) => {}
                    Err(error)
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => clock::observe_for(limit),
                }
            }
        });
        Self {
            folder,
            silent,
            ended,
        }
    }

    /// The words that run a command so that it asks this server.
    pub fn enter(&self) -> Vec<String> {
        let own = self.folder.path().join("resolv.conf").display().to_string();
        let script = format!("mount --bind {own} /etc/resolv.conf && exec \"$@\"");
        ["unshare", "-m", "sh", "-c", &script, "sh"]
            .map(str::to_owned)
            .to_vec()
    }

    /// It answers nobody until the guard is dropped.
    pub fn silence(&self) -> Silence {
        self.silent.store(true, Ordering::Release);
        Silence(Arc::clone(&self.silent))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// 127.0.0.1 for every question of type A, nothing for the others.
fn answer(question: &[u8]) -> Vec<u8> {
    if question.len() < 17 {
        return Vec::new();
    }
    let name_end = 12
        + question[12..]
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(0)
        + 1;
    let asked = &question[12..(name_end + 4).min(question.len())];
    let is_a = question.get(name_end..name_end + 2) == Some(&[0, 1]);
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(asked);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    reply
}
