//! Child processes: made with a clean environment, shown before they run, judged when they end.

use std::{
    env, fmt,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Command, ExitStatus, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::layout::Layout;

/// What cargo tells the program that it runs (this one), and no other cargo should hear.
const OWN_RUN: &[&str] = &[
    "CARGO",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_MAKEFLAGS",
    "LD_LIBRARY_PATH",
    "OUT_DIR",
];
/// The same, by prefix.
const OWN_RUN_PREFIXES: &[&str] = &["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_"];
/// Where output goes and for which target is xtask's business; an object from elsewhere is nobody's.
const PLACES: &[&str] = &[
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_TARGET",
    "WATCHDOG_EBPF_OBJECT",
];
/// Choices for the host's compiler that the BPF toolchain must not hear. How many jobs, which
/// registry and which proxy stay as they are.
const HOST_COMPILER_PREFIXES: &[&str] = &[
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "CARGO_ENCODED_RUST",
    "CARGO_BUILD_RUST",
    "CARGO_TARGET_",
    "CARGO_PROFILE_",
    "CARGO_INCREMENTAL",
    "CARGO_UNSTABLE_",
];

/// Something that this machine lacks: one line that says what, and how to get it.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// A progress line.
pub fn say(line: impl fmt::Display) {
    eprintln!("xtask: {line}");
}

/// A program without what cargo set for this one.
pub fn program(name: impl AsRef<Path>) -> Command {
    let mut command = Command::new(name.as_ref());
    let leaked = |key: &str| {
        OWN_RUN.contains(&key)
            || PLACES.contains(&key)
            || OWN_RUN_PREFIXES.iter().any(|p| key.starts_with(p))
    };
    forget(&mut command, leaked);
    command
}

/// The user's own cargo, at the top of a tree.
pub fn host_cargo(layout: &Layout, verb: &str) -> Command {
    let mut command = program("cargo");
    command
        .current_dir(layout.root())
        .args([verb, "--target-dir"])
        .arg(layout.target());
    command
}

/// A program that must not hear of the host's compiler either.
pub fn apart_from_host(name: impl AsRef<Path>) -> Command {
    let mut command = program(name);
    forget(&mut command, |key| {
        HOST_COMPILER_PREFIXES.iter().any(|p| key.starts_with(p))
    });
    command
}

fn forget(command: &mut Command, unwanted: impl Fn(&str) -> bool) {
    for (key, _) in env::vars_os() {
        if key.to_str().is_some_and(&unwanted) {
            command.env_remove(key);
        }
    }
}

/// Runs to the end with the terminal inherited; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {}", line_of(command)))?;
    judge(command, status)
}

/// Standard output of a program that must succeed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = gather(command)?;
    judge(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Both streams and the status, without judging.
pub fn gather(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", line_of(command)))
}

/// Runs with both streams joined in their true order, every line handed to `each`.
pub fn run_by_line(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let second = writer.try_clone().context("sharing a pipe")?;
    let shown = line_of(command);
    let mut child = command
        .stdout(writer)
        .stderr(second)
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    // The command still holds both writing ends: the pipe ends only when they are gone.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for_each_line(reader, &mut each).with_context(|| format!("reading from {shown}"))?;
    child.wait().with_context(|| format!("waiting for {shown}"))
}

fn for_each_line(reader: impl Read, each: &mut impl FnMut(&str)) -> std::io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
    Ok(())
}

fn judge(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    bail!("{} failed ({status})", line_of(command))
}

/// A command as one would type it, for messages only.
pub fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_streams_arrive_whole_and_in_order() {
        let mut lines = Vec::new();
        let mut command = program("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 4"]);
        let status = run_by_line(&mut command, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(4));
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(program("sh").args(["-c", "exit 7"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c exit 7"), "{text}");
        assert!(text.contains('7'), "{text}");
    }
}
