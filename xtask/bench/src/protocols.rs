//! What a packet of a watched flow costs in the kernel, protocol by protocol, and the same packets
//! unwatched.
//!
//! As in `programs`: over an empty program on the same hook that sees the same packets, round by round.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::Result;
use watchdog::kernel::{Kernel, self_cost};
use watchdog_common::layout::{
    EntryShape, FLOWS, PORTS, PROTOCOL_CONSUL, PROTOCOL_ETCD, PROTOCOL_KAFKA,
    PROTOCOL_REQUEST_REPLY, PROTOCOL_TLS, PROTOCOL_ZOOKEEPER, ShapeTable,
};

use crate::{
    programs::{Empty, between_empty_ones, per_run, sweep},
    table::Spread,
    work,
};

/// How long a protocol is measured at a time.
const SPAN: Duration = Duration::from_millis(100);

/// A protocol as its packets look.
struct Talk {
    name: &'static str,
    shape: EntryShape,
    /// What each end sends first.
    begin: [Vec<u8>; 2],
    renewal: Vec<u8>,
    answer: Vec<u8>,
}

fn of(protocol: u8) -> EntryShape {
    EntryShape {
        protocol,
        ..EntryShape::default()
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, body.len() as u8], body].concat()
}

fn record(kind: u8, length: u8) -> Vec<u8> {
    let mut bytes = vec![kind, 3, 3, 0, length];
    bytes.resize(5 + usize::from(length), 0xa5);
    bytes
}

fn grpc(body: &[u8]) -> Vec<u8> {
    let length = body.len() as u8;
    [
        &[0, 0, length + 5, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, length],
        body,
    ]
    .concat()
}

fn talks() -> [Talk; 7] {
    use crate::frames::{PING, PONG, connect, connected};
    let opaque = of(PROTOCOL_REQUEST_REPLY);
    let framed_opaque = EntryShape {
        length_bytes: 4,
        adjust: 4,
        ..opaque
    };
    let put =
        b"PUT /v1/session/renew/adf4238a-882b-9ddc-4a9d-5b6758e4159e HTTP/1.1\r\nHost: a\r\n\r\n";
    let none = || [Vec::new(), Vec::new()];
    [
        Talk {
            name: "zookeeper",
            shape: of(PROTOCOL_ZOOKEEPER),
            begin: [connect(6_000).to_vec(), connected(6_000, 7).to_vec()],
            renewal: PING.to_vec(),
            answer: PONG.to_vec(),
        },
        Talk {
            name: "request_reply",
            shape: opaque,
            begin: none(),
            renewal: framed(b"renew"),
            answer: framed(b"granted"),
        },
        Talk {
            name: "request_reply, framed",
            shape: framed_opaque,
            begin: none(),
            renewal: framed(b"renew"),
            answer: framed(b"granted"),
        },
        Talk {
            name: "kafka",
            shape: of(PROTOCOL_KAFKA),
            begin: none(),
            renewal: framed(&[
                0, 12, 0, 1, 0, 0, 0, 7, 0, 2, b'm', b'e', 0, 1, b'g', 0, 0, 0, 1,
            ]),
            answer: framed(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0]),
        },
        Talk {
            name: "consul",
            shape: of(PROTOCOL_CONSUL),
            begin: none(),
            renewal: put.to_vec(),
            answer: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_vec(),
        },
        Talk {
            name: "etcd",
            shape: of(PROTOCOL_ETCD),
            begin: [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Vec::new()],
            renewal: grpc(&[8, 0x85, 0x94, 0x8c, 0x1e]),
            answer: grpc(&[0x0a, 2, 8, 1, 0x10, 0x85, 0x94, 0x8c, 0x1e, 0x18, 6]),
        },
        Talk {
            name: "any, inside TLS",
            shape: of(PROTOCOL_TLS),
            begin: [record(22, 200), record(22, 200)],
            renewal: record(23, 60),
            answer: record(23, 60),
        },
    ]
}

/// Both ends of a connection, in this thread.
struct Pair([TcpStream; 2]);

impl Pair {
    fn say(&mut self, from: usize, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.0[from].write_all(bytes)?;
        self.0[1 - from].read_exact(&mut vec![0; bytes.len()])
    }
}

/// Nanoseconds over an empty program, by round.
type Figures = BTreeMap<(&'static str, bool, &'static str), Vec<f64>>;

struct Bench {
    kernel: Kernel,
    empty: [Empty; 2],
    figures: Figures,
}

impl Bench {
    fn take(&mut self, talk: &Talk, watched: bool) -> Result<()> {
        let listener = work::listener()?;
        let port = listener.local_addr()?.port();
        let mut shapes = ShapeTable::default();
        (shapes.shapes[0], shapes.inside[0]) = (talk.shape, talk.shape);
        let mut table = Box::new([0; PORTS]);
        table[usize::from(port)] = watched.into();
        self.kernel.state.describe_entries(&shapes);
        self.kernel.state.watch_ports(&table);
        let (holder, grantor) = work::pair(&listener)?;
        let mut pair = Pair([holder, grantor]);
        for end in [0, 1] {
            pair.say(end, &talk.begin[end])?;
        }
        let readings = |bench: &Self| {
            let [first, last] = &bench.empty;
            [
                bench.kernel.costs(),
                self_cost::of(&first.0),
                self_cost::of(&last.0),
            ]
        };
        let before = readings(self);
        let until = work::over(SPAN);
        while watchdog::tick::clock() < until {
            for _ in 0..16 {
                pair.say(0, &talk.renewal)?;
                pair.say(1, &talk.answer)?;
            }
        }
        let after = readings(self);
        let [ours, first, last] = [0, 1, 2].map(|n| per_run(&before[n], &after[n]));
        for program in ["packet_in", "packet_out"] {
            if let (Some(ours), Some(first), Some(last)) =
                (ours.get(program), first.get(program), last.get(program))
            {
                let figures = self.figures.entry((talk.name, watched, program));
                figures
                    .or_default()
                    .push(ours - f64::midpoint(*first, *last));
            }
        }
        if watched && !self.followed(port) {
            anyhow::bail!("{}: its renewals were not seen", talk.name);
        }
        drop(pair);
        sweep(&mut self.kernel);
        Ok(())
    }

    /// Whether both ends' renewals were told as what they are.
    fn followed(&self, port: u16) -> bool {
        let slots = (0..FLOWS).map_while(|index| self.kernel.state.flows.at(index));
        let ends = slots.filter(|slot| {
            // SAFETY: single words of a mapped slot.
            unsafe {
                let ports = ((**slot).local_port, (**slot).peer_port);
                let answers = (&raw const (**slot).replies.answers).read_volatile();
                (ports.0 == port || ports.1 == port) && answers > 0
            }
        });
        ends.count() == 2
    }
}

/// Measures and prints.
pub fn measure(empty: &Path, rounds: usize) -> Result<()> {
    let (kernel, empty) = between_empty_ones(empty)?;
    let mut bench = Bench {
        kernel,
        empty,
        figures: Figures::new(),
    };
    let rounds = rounds.max(1);
    let figures = std::thread::spawn(move || -> Result<Figures> {
        work::pin();
        let _counting = self_cost::count()?;
        let talks = talks();
        // The first round is for caches.
        for round in 0..=rounds {
            if round == 1 {
                bench.figures.clear();
            }
            for talk in &talks {
                bench.take(talk, true)?;
                bench.take(talk, false)?;
            }
        }
        Ok(bench.figures)
    });
    let figures = figures
        .join()
        .map_err(|_| anyhow::anyhow!("the measuring thread has panicked"))??;
    println!(
        "\nA packet of a flow, by protocol: nanoseconds over an empty program, median of {rounds} \
         rounds (and middle half); renewals and their answers by turns"
    );
    println!(
        "{:<24} {:>20} {:>20} {:>20} {:>20}",
        "protocol", "watched, in", "watched, out", "unwatched, in", "unwatched, out"
    );
    for talk in talks() {
        let cell = |watched, program| {
            let figures = figures.get(&(talk.name, watched, program));
            figures
                .and_then(|figures| Spread::of(figures.clone()))
                .map_or_else(|| "-".to_owned(), |spread| spread.to_string())
        };
        println!(
            "{:<24} {:>20} {:>20} {:>20} {:>20}",
            talk.name,
            cell(true, "packet_in"),
            cell(true, "packet_out"),
            cell(false, "packet_in"),
            cell(false, "packet_out"),
        );
    }
    Ok(())
}
