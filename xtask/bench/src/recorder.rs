//! What the flight recorder costs: the same daemon with and without it, calm and in a storm.
//!
//! In: the daemon's binary. Out: one table. The storm is the worst there is: the holders of all leases stand
//! still at once, so that each changes, is judged and is said in the same few ticks.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::daemon::{Daemon, wait};
use crate::sessions::Sessions;

/// Sessions, each a lease at both of its ends.
const SESSIONS: usize = 5000;
/// For so long the storm is recorded: past the floor of all.
const STORM: Duration = Duration::from_secs(20);

/// Measures and prints.
pub fn measure(binary: &Path) -> Result<()> {
    println!("\nThe flight recorder, {} leases", SESSIONS * 2);
    println!(
        "{:>10} {:>8} {:>9} {:>13} {:>14} {:>14}",
        "", "CPU %", "RSS MiB", "late p99 ms", "lost, calm", "lost, storm"
    );
    for recorded in [false, true] {
        let mut sessions = Sessions::serve()?;
        let home = tempfile::tempdir()?;
        let records = home.path().join("records");
        // The default ends it: ten thousand leases that are late, with a recorder, are more than 128 MiB.
        let limits = "limits: { memory: 512MiB, cpu: 50% }\n";
        let section = match recorded {
            true => format!("recorder: {{ dir: \"{}\" }}\n", records.display()),
            false => String::new(),
        };
        let section = format!("{limits}{section}");
        let daemon = Daemon::start_with(binary, home.path(), sessions.port, SESSIONS, &section)?;
        sessions.open(SESSIONS)?;
        daemon.wait_for_leases(SESSIONS * 2)?;
        wait(Duration::from_secs(2));
        let opened = daemon.lost("record")?;
        let share = daemon.cpu_share()? * 100.0;
        let [_, p99] = daemon.tick_late_ms([0.5, 0.99])?;
        let calm = daemon.lost("record")? - opened;
        sessions.stop()?;
        wait(STORM);
        let storm = daemon.lost("record")? - opened - calm;
        println!(
            "{:>10} {share:>8.2} {:>9.1} {p99:>13.1} {calm:>14} {storm:>14}",
            if recorded { "recorded" } else { "not" },
            daemon.resident_mib()?,
        );
    }
    Ok(())
}
