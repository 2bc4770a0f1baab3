//! What `cargo xtask bench` runs: the cost of every hot program and of the daemon, in one run.
//!
//! In: the daemon's binary, an object of empty programs. Out: tables on standard output, each
//! target with its figure, met or missed. A missed target is a result and no failure.

mod bounds;
mod churn;
mod daemon;
mod frames;
mod growth;
mod peers;
mod programs;
mod protocols;
mod recorder;
mod sessions;
mod table;
mod ticks;
mod work;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Measures what the kernel programs and the daemon cost.
#[derive(Parser)]
#[command(name = "cargo xtask bench --")]
struct Args {
    /// The object of empty programs
    #[arg(long, value_name = "FILE")]
    empty: PathBuf,
    /// The daemon
    #[arg(long, value_name = "FILE")]
    daemon: PathBuf,
    /// How often each program is measured
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Numbers of sessions to measure the daemon with
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,50,100,1000,5000,10000"
    )]
    sessions: Vec<usize>,
    /// Measures what the flight recorder costs, and nothing else
    #[arg(long)]
    recorder_only: bool,
    /// Leaves the programs and the peers out
    #[arg(long, conflicts_with = "programs_only")]
    daemon_only: bool,
    /// Leaves the daemon out
    #[arg(long)]
    programs_only: bool,
}

/// Flows that ticks are simulated with.
const FLOWS: [usize; 4] = [1_000, 10_000, 30_000, 100_000];

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(sessions::HOLD) {
        return sessions::hold_all(words);
    }
    let args = Args::parse();
    println!("{}", table::machine());
    if args.recorder_only {
        return recorder::measure(&args.daemon);
    }
    if args.daemon_only {
        daemon::measure(&args.daemon, &args.sessions)?;
        churn::measure(&args.daemon)?;
        ticks::measure(&FLOWS)?;
        return Ok(());
    }
    let (over_ns, empty_ns) = programs::measure(&args.empty, args.rounds)?;
    protocols::measure(&args.empty, args.rounds)?;
    if args.programs_only {
        return Ok(());
    }
    peers::measure_programs(over_ns, empty_ns)?;
    peers::measure(&args.daemon)?;
    let sizes = daemon::measure(&args.daemon, &args.sessions)?;
    recorder::measure(&args.daemon)?;
    let churn_us = churn::measure(&args.daemon)?;
    bounds::measure(&args.daemon)?;
    let ticks = ticks::measure(&FLOWS)?;
    println!(
        "\n{}",
        growth::text(&growth::Measured {
            switch_ns: over_ns,
            sizes: &sizes,
            churn_us,
            ticks: &ticks,
        })
    );
    Ok(())
}
