//! `lease-watchdog demo`: shows on any machine, without a ZooKeeper, that the daemon warns before a
//! session expires and names the reason.
//!
//! In: a few switches. Out: a story on the terminal, or JSON lines, and an exit code that is 0 only
//! if all of it was really seen.
//!
//! Every actor is a process of its own: a session server, three clients, and the daemon as a user
//! would start it. The daemon shares nothing with the others, so what it knows it has from its
//! probes; warnings are taken from its output alone, expiry from the server's alone.
//!
//! | file | what |
//! |---|---|
//! | `driver` | starts the actors, freezes them, waits |
//! | `story`, `verdict` | pure: what was seen and what was not, from the actors' lines |
//! | `happening`, `screen` | what is told, and where: the terminal, plain lines, JSON |
//! | `children` | processes that never outlive the demo |
//! | `server`, `client`, `wire` | the session server and its clients |
//! | `lines` | what the actors say on stdout |
//! | `clock` | the one clock |

mod children;
mod client;
mod clock;
mod driver;
mod happening;
mod lines;
mod screen;
mod server;
mod story;
mod verdict;
mod wire;

use std::ffi::CStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

pub use lines::ClientKind;

/// Show, without a ZooKeeper, that the warning comes before the session expires.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Say what happens as JSON lines
    #[arg(long)]
    pub json: bool,
    /// The client to freeze in the first act
    #[arg(long, value_enum, value_name = "CLIENT", default_value = "java")]
    pub freeze: ClientKind,
    /// Run the daemon without its probes; the demo must then fail
    #[arg(long, hide = true)]
    pub no_probes: bool,
    /// The daemon to run instead of this very program
    #[arg(long, hide = true, value_name = "PATH")]
    pub daemon: Option<PathBuf>,
}

/// The demo's actors; started by the demo, not by users.
#[derive(Clone, Debug, clap::Subcommand)]
// Flattened into the program's commands, this text would else become the program's own.
#[command(about = None, long_about = None)]
pub enum DemoRole {
    /// The demo's session server
    #[command(name = "demo-server", hide = true)]
    Server {
        /// Port on 127.0.0.1; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Length of the server's tick
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
        tick_ms: u64,
    },
    /// One of the demo's clients
    #[command(name = "demo-client", hide = true)]
    Client {
        /// How it behaves
        #[arg(long, value_enum)]
        kind: ClientKind,
        /// The server's port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// The session timeout it asks for
        #[arg(long, default_value_t = 6_000, value_parser = clap::value_parser!(i32).range(1..))]
        timeout_ms: i32,
    },
}

/// Runs the demo: 0 if all was seen, 1 if not, 3 if the daemon lacks something it needs, 130 if
/// interrupted.
pub fn run(args: DemoArgs) -> ExitCode {
    driver::run(&args)
}

/// Runs one of the actors.
pub fn run_role(role: DemoRole) -> ExitCode {
    let done = match role {
        DemoRole::Server { port, tick_ms } => {
            name_process(c"demo-zk");
            server::serve(port, tick_ms, Arc::new(|line| say(&line))).map_err(anyhow::Error::from)
        }
        DemoRole::Client {
            kind,
            port,
            timeout_ms,
        } => {
            name_process(match kind {
                ClientKind::C => c"client-c",
                ClientKind::Java => c"client-java",
                ClientKind::Busy => c"client-busy",
            });
            run_client(kind, port, timeout_ms)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_client(kind: ClientKind, port: u16, timeout_ms: i32) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGTERM, Arc::clone(&stop))?;
    let setup = client::Setup {
        kind,
        port,
        timeout_ms,
        tell: &|line| say(&line),
        stop: &stop,
    };
    client::keep_session(&setup);
    Ok(())
}

/// Names this process and the threads it will start, so that the daemon's evidence is readable.
fn name_process(name: &CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string, and `name` outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// An actor's line. One write under stdout's lock, so lines of threads don't mix.
fn say(line: &impl Serialize) {
    let Ok(mut text) = serde_json::to_string(line) else {
        return;
    };
    text.push('\n');
    let mut out = std::io::stdout().lock();
    // Whoever reads this is the demo; without it the actor has nobody to tell, and is killed anyway.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
