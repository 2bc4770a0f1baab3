//! Packet sockets: the heads of TCP segments, in every network namespace.
//!
//! In: a network namespace. Out: segments, 160 bytes of each packet at most (the kernel's filter cuts
//! them), into whoever is called. What is too busy is excluded by the filter itself, so that looking
//! costs a bounded share of a CPU. Never: a packet held up, changed or kept.

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Bytes of a packet that the kernel hands over: headers of 100 bytes at most and frame heads.
pub const SNAP: u32 = 192;
/// For packets that are not read yet: what a busy node sends while this thread waits for a CPU. It is taken
/// only as it fills.
const ROOM_BYTES: libc::c_int = 16 << 20;
/// Ports that a filter can exclude: its jumps reach 255 instructions.
pub const MAX_EXCLUDED: usize = 48;

/// An open packet socket.
#[derive(Debug)]
pub struct Sniffer {
    socket: OwnedFd,
}

/// What a packet's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// Sequence number of the first byte of payload.
    pub seq: u32,
    /// Bytes of payload.
    pub len: u32,
    /// The first of them.
    pub head: &'a [u8],
}

impl Sniffer {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's refusal (CAP_NET_RAW).
    pub fn open() -> io::Result<Self> {
        // SAFETY: integers only. Protocol 0: nothing is received before it is bound below, with its
        // filter in place.
        let made = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made for us.
        let socket = unsafe { OwnedFd::from_raw_fd(made) };
        let sniffer = Self { socket };
        sniffer.enlarge();
        sniffer.exclude(&[])?;
        // SAFETY: all-zero is a valid sockaddr_ll: of every interface.
        let mut at: libc::sockaddr_ll = unsafe { zeroed() };
        at.sll_family = libc::AF_PACKET as libc::sa_family_t;
        at.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let length = libc::socklen_t::try_from(size_of_val(&at)).unwrap_or(0);
        // SAFETY: an address of that length.
        let bound =
            unsafe { libc::bind(sniffer.socket.as_raw_fd(), (&raw const at).cast(), length) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(sniffer)
    }

    /// Has room for a burst. Where that is refused (CAP_NET_ADMIN) more is dropped, and counted.
    fn enlarge(&self) {
        let room = ROOM_BYTES;
        let length = libc::socklen_t::try_from(size_of_val(&room)).unwrap_or(0);
        // SAFETY: an integer of that length.
        unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const room).cast(),
                length,
            )
        };
    }

    /// Lets the kernel pass over everything but TCP, and over these ports.
    ///
    /// # Errors
    /// The kernel refuses the filter.
    pub fn exclude(&self, ports: &[u16]) -> io::Result<()> {
        let mut program = filter(ports);
        let program = libc::sock_fprog {
            len: u16::try_from(program.len()).unwrap_or(0),
            filter: program.as_mut_ptr(),
        };
        let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0);
        // SAFETY: a program of that length, copied by the kernel during the call.
        let answer = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                length,
            )
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Reads a packet; None: there is none now. `buffer` takes its beginning.
    ///
    /// # Errors
    /// The socket's.
    pub fn next<'a>(
        &self,
        buffer: &'a mut [u8; SNAP as usize],
    ) -> io::Result<Option<Option<Packet<'a>>>> {
        // SAFETY: a buffer of that length.
        let read = unsafe {
            libc::recv(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            )
        };
        let Ok(whole) = usize::try_from(read) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                // An interface went down: its packets just end.
                _ if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                _ => Err(error),
            };
        };
        let kept = whole.min(buffer.len());
        Ok(Some(parse(&buffer[..kept])))
    }

    /// Its descriptor, to wait on.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Packets that the kernel dropped because nobody read them in time, since the last question.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        let mut statistics = [0_u32; 2];
        let mut length = libc::socklen_t::try_from(size_of_val(&statistics)).unwrap_or(0);
        // SAFETY: a place of that length; struct tpacket_stats has these two words.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if answer == 0 { statistics[1] } else { 0 }
    }
}

/// Moves the calling thread, which must be one made for this, into a process's network namespace.
///
/// # Errors
/// It is gone, or CAP_SYS_ADMIN is missing.
pub fn enter(pid: u32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    // SAFETY: an open descriptor and a flag; it changes this thread alone.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Classic BPF: TCP over IPv4 (not a later fragment) or IPv6 (without extension headers), neither port
/// excluded. The value that it returns is how many bytes are handed over.
fn filter(excluded: &[u16]) -> Vec<libc::sock_filter> {
    const LOAD_HALF: u16 = 0x28; // ldh [k]
    const LOAD_BYTE: u16 = 0x30; // ldb [k]
    const LOAD_HALF_X: u16 = 0x48; // ldh [x + k]
    const HEADER_LENGTH: u16 = 0xb1; // ldx 4*([k]&0xf)
    const SET_X: u16 = 0x01; // ldx #k
    const EQUAL: u16 = 0x15; // jeq #k, jt, jf
    const ANY_BIT: u16 = 0x45; // jset #k, jt, jf
    const GO: u16 = 0x05; // ja k
    const RETURN: u16 = 0x06; // ret #k
    /// SKF_AD_OFF + SKF_AD_PROTOCOL (include/uapi/linux/filter.h).
    const PROTOCOL: u32 = 0xffff_f000;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let excluded = &excluded[..excluded.len().min(MAX_EXCLUDED)];
    let mut program = vec![
        step(LOAD_HALF, PROTOCOL, 0, 0),
        step(EQUAL, 0x0800, 0, 6),
        // IPv4.
        step(LOAD_BYTE, 9, 0, 0),
        step(EQUAL, 6, 0, 8),
        step(LOAD_HALF, 6, 0, 0),
        step(ANY_BIT, 0x1fff, 6, 0),
        step(HEADER_LENGTH, 0, 0, 0),
        // Behind the load of 40.
        step(GO, 6, 0, 0),
        // IPv6.
        step(EQUAL, 0x86dd, 0, 3),
        step(LOAD_BYTE, 6, 0, 0),
        step(EQUAL, 6, 0, 1),
        step(GO, 1, 0, 0),
        step(RETURN, 0, 0, 0),
        step(SET_X, 40, 0, 0),
    ];
    let ports = u8::try_from(excluded.len()).unwrap_or(0);
    for at in [0, 2] {
        program.push(step(LOAD_HALF_X, at, 0, 0));
        for (n, port) in (0_u8..).zip(excluded) {
            // To the refusal at the end: over what follows in this round, the other round, and `ret`.
            let other = if at == 0 { ports + 1 } else { 0 };
            let skip = ports - 1 - n + other + 1;
            program.push(step(EQUAL, u32::from(*port), skip, 0));
        }
    }
    program.push(step(RETURN, SNAP, 0, 0));
    program.push(step(RETURN, 0, 0, 0));
    program
}

/// Reads the headers; None: no TCP with payload.
fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let half = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (source, destination, header, total, unknown) = match bytes.first()? >> 4 {
        4 => {
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            let header = usize::from(bytes.first()? & 0xf) * 4;
            (address(12)?, address(16)?, header, usize::from(half(2)?), 0)
        }
        6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).to_canonical())
            };
            (
                address(8)?,
                address(24)?,
                40,
                usize::from(half(4)?) + 40,
                40,
            )
        }
        _ => return None,
    };
    let (from, to) = (half(header)?, half(header + 2)?);
    let seq = bytes.get(header + 4..header + 8)?.try_into().ok()?;
    let data = header + usize::from(bytes.get(header + 12)? >> 4) * 4;
    // A packet beyond 64 KiB says 0: it has payload.
    let len = if total == unknown {
        65_535
    } else {
        total.checked_sub(data)?
    };
    if len == 0 || data < header + 20 {
        return None;
    }
    let head = bytes.get(data..)?;
    // The link may have padded a short one.
    let head = &head[..head.len().min(len)];
    Some(Packet {
        from: SocketAddr::new(source, from),
        to: SocketAddr::new(destination, to),
        seq: u32::from_be_bytes(seq),
        len: u32::try_from(len).ok()?,
        head,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    /// Sends `what` over the loopback and gives how often its segment is seen.
    fn seen(sniffer: &Sniffer, address: SocketAddr, what: &[u8]) -> usize {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(what).unwrap();
        let own = stream.local_addr().unwrap();
        let mut buffer = [0; SNAP as usize];
        let mut count = 0;
        // The loopback hands packets over before `write` returns.
        while let Some(packet) = sniffer.next(&mut buffer).unwrap() {
            count += usize::from(packet.is_some_and(|packet| {
                packet.from == own && packet.to == address && packet.head == what
            }));
        }
        count
    }

    #[test]
    fn a_segment_on_the_loopback_is_seen_and_an_excluded_port_is_not() {
        let sniffer = match Sniffer::open() {
            Ok(sniffer) => sniffer,
            Err(error) => {
                println!("SKIPPED: a_segment_on_the_loopback_is_seen: {error}");
                return;
            }
        };
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(at).unwrap();
            let address = listener.local_addr().unwrap();
            sniffer.exclude(&[]).unwrap();
            assert_ne!(seen(&sniffer, address, b"\0\x05renew"), 0, "{at}");
            for ports in [vec![address.port()], vec![1, 2, address.port(), 3]] {
                sniffer.exclude(&ports).unwrap();
                assert_eq!(seen(&sniffer, address, b"\0\x05renew"), 0, "{at}");
            }
            let others: Vec<u16> = (1..=48).collect();
            sniffer.exclude(&others).unwrap();
            assert_ne!(seen(&sniffer, address, b"\0\x05renew"), 0, "{at}");
        }
    }

    #[test]
    fn padding_is_no_payload() {
        let mut packet = vec![
            0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        packet.extend([0x9c, 0x40, 0x08, 0x85, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x10]);
        packet.extend([0; 6]);
        packet.extend([0; 6]);
        assert_eq!(parse(&packet), None);
        packet[3] = 41;
        let one = parse(&packet).unwrap();
        assert_eq!((one.len, one.head.len()), (1, 1));
        assert_eq!(one.to, "10.0.0.2:2181".parse().unwrap());
    }

    proptest! {
        #[test]
        fn no_packet_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = parse(&bytes);
        }
    }
}
