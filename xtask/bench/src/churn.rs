//! Connections that come and go, two thousand a second, each with a session that is opened and closed.
//!
//! Out: the rate that was reached, what the daemon used meanwhile, what it lost, and the slots that are
//! left in use.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use watchdog::tick::clock;

use crate::{
    daemon::{Daemon, wait},
    frames::{CONNECTED, PONG, connect},
    sessions::Sessions,
};

/// Connections a second.
const RATE: u64 = 2_000;
/// For so long.
const SECONDS: u64 = 10;
/// Opened at once, every so often.
const AT_ONCE: u64 = 20;
/// closeSession.
const CLOSE: [u8; 12] = *b"\0\0\0\x08\0\0\0\x01\xff\xff\xff\xf5";

fn visit(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(&connect(12_000))?;
    stream.read_exact(&mut [0; CONNECTED])?;
    stream.write_all(&CLOSE)?;
    stream.read_exact(&mut [0; PONG.len()])?;
    Ok(())
}

/// Measures and prints; gives the CPU time that a connection costs, µs.
pub fn measure(binary: &Path) -> Result<f64> {
    let sessions = Sessions::serve()?;
    let home = tempfile::tempdir()?;
    let daemon = Daemon::start(binary, home.path(), sessions.port, 1)?;
    let (cpu, begun) = (daemon.cpu()?, clock());
    for batch in 0..RATE * SECONDS / AT_ONCE {
        for _ in 0..AT_ONCE {
            visit(sessions.port)?;
        }
        let due = begun.plus((batch + 1) * AT_ONCE * 1_000_000_000 / RATE);
        wait(Duration::from_nanos(due.since(clock())));
    }
    let took_s = clock().since(begun) as f64 / 1e9;
    let used = daemon.cpu()?.saturating_sub(cpu).as_secs_f64() / took_s * 100.0;
    // The last ones' ends.
    wait(Duration::from_secs(2));
    let metrics = daemon.metrics()?;
    let sum = |name: &str, but: &str| -> f64 {
        metrics
            .lines()
            .filter(|line| line.starts_with(name) && (but.is_empty() || !line.contains(but)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    let each_us = used / 100.0 * 1e6 * took_s / (RATE * SECONDS) as f64;
    println!(
        "\nChurn: {:.0} connections a second for {took_s:.0} s, each a session opened and closed: {used:.1} % \
         of a core, {each_us:.0} us each, {} lost, {} slots in use afterwards",
        (RATE * SECONDS) as f64 / took_s,
        sum("lease_watchdog_lost_total{", "\"question\""),
        sum("lease_watchdog_slots{state=\"used\"}", ""),
    );
    Ok(each_us)
}
