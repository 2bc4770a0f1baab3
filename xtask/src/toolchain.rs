//! The compiler and linker of the kernel programs. In: what is installed. Out: a pair that fits, or
//! what is lacking. Changes nothing on the machine; `setup` does.
//!
//! The kernel programs need `core` compiled for BPF, hence a compiler with its library sources and
//! unstable options: rustup's nightly with the component `rust-src`, or a distribution's compiler
//! with a sources package. The linker reads the compiler's LLVM bitcode, so its LLVM must be as new.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    layout::{BPF_TARGET, Layout},
    process::{apart_from_host, gather, output_of},
};

/// The oldest compiler whose `core` and LLVM build the kernel programs.
pub const OLDEST_RUSTC: (u32, u32) = (1, 96);
/// The linker's version, and its crate.
pub const LINKER_VERSION: &str = "0.13.0";
/// LLVM versions that this linker can be built with.
pub const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;
/// The linker's name.
pub const LINKER: &str = "bpf-linker";

/// Which compiler builds the kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// rustup's nightly if it has `rust-src` and a linker fits, else the distribution's
    Auto,
    /// rustup's nightly
    Nightly,
    /// The distribution's, in /usr/bin
    System,
}

/// A compiler with its cargo and library sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// How messages call it.
    pub name: &'static str,
    /// The folder of `rustc` and `cargo`.
    pub bin: PathBuf,
    /// `rustc`'s version.
    pub release: (u32, u32),
    /// Major version of its LLVM.
    pub llvm: u32,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.release;
        write!(f, "{} {major}.{minor} (LLVM {})", self.name, self.llvm)
    }
}

/// A linker, with the major version of its LLVM where that can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// Its LLVM; `None` when that is linked statically and can't be told.
    pub llvm: Option<u32>,
}

impl Linker {
    /// Reads what the compiler writes: older bitcode is fine, newer isn't.
    fn fits(&self, compiler: &Compiler) -> bool {
        self.llvm.is_none_or(|llvm| llvm >= compiler.llvm)
    }
}

/// A compiler and a linker that fit.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The linker.
    pub linker: Linker,
}

impl Toolchain {
    /// The BPF cargo in the kernel programs' crate of a tree: `verb`, then what every verb needs.
    pub fn cargo(&self, layout: &Layout, verb: &str) -> Command {
        let mut command = self.tool("cargo", layout);
        command.arg(verb);
        self.common_args(&mut command, layout);
        command
    }

    /// The linter of the same compiler; `None` if it isn't installed.
    pub fn clippy(&self, layout: &Layout) -> Option<Command> {
        if !self.compiler.bin.join("cargo-clippy").is_file() {
            return None;
        }
        let mut command = self.tool("cargo-clippy", layout);
        command.arg("clippy");
        self.common_args(&mut command, layout);
        Some(command)
    }

    fn tool(&self, name: &str, layout: &Layout) -> Command {
        let bin = &self.compiler.bin;
        let mut command = apart_from_host(bin.join(name));
        command
            .current_dir(layout.ebpf())
            .env("PATH", path_with_first(bin))
            .env("CARGO", bin.join("cargo"))
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTC_WRAPPER", "")
            // Stable compilers of distributions take -Z options only so.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags());
        command
    }

    fn common_args(&self, command: &mut Command, layout: &Layout) {
        command
            .args(["--release", "--target", BPF_TARGET])
            .args(["-Z", "build-std=core", "--target-dir"])
            .arg(layout.bpf_target());
    }

    fn rustflags(&self) -> String {
        let linker = format!("-Clinker={}", self.linker.path.display());
        // --btf: the kernel wants type information. v3: 32-bit registers and atomics.
        [linker.as_str(), "-Clink-arg=--btf", "-Ctarget-cpu=v3"].join("\x1f")
    }
}

/// PATH with `first` before all.
pub fn path_with_first(first: &Path) -> std::ffi::OsString {
    let rest = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_owned()).chain(env::split_paths(&rest));
    env::join_paths(all).unwrap_or(rest)
}

/// The first compiler for which a linker is there.
pub fn find(layout: &Layout, choice: Choice) -> Option<Toolchain> {
    let linkers = linkers(layout);
    compilers(choice).into_iter().find_map(|compiler| {
        let linker = linkers.iter().find(|l| l.fits(&compiler))?.clone();
        Some(Toolchain { compiler, linker })
    })
}

/// Usable compilers, best first.
pub fn compilers(choice: Choice) -> Vec<Compiler> {
    let mut found = Vec::new();
    if choice != Choice::System {
        found.extend(nightly_bin().and_then(|bin| compiler_at("rustup's nightly", bin)));
    }
    if choice != Choice::Nightly {
        found.extend(compiler_at("the system's rustc", "/usr/bin".into()));
    }
    found
}

/// The nightly's own folder of programs; never lets rustup install one.
fn nightly_bin() -> Option<PathBuf> {
    let mut rustup = apart_from_host("rustup");
    rustup
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["which", "--toolchain", "nightly", "rustc"]);
    let rustc = output_of_quiet(&mut rustup)?;
    Some(Path::new(rustc.trim()).parent()?.to_owned())
}

/// The compiler of a folder, if it is new enough and has its library sources.
fn compiler_at(name: &'static str, bin: PathBuf) -> Option<Compiler> {
    let rustc = bin.join("rustc");
    let sources = bin
        .parent()?
        .join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !sources.is_file() || !bin.join("cargo").is_file() {
        return None;
    }
    let (release, llvm) = parse_versions(&output_of_quiet(apart_from_host(rustc).arg("-vV"))?)?;
    (release >= OLDEST_RUSTC).then_some(Compiler {
        name,
        bin,
        release,
        llvm,
    })
}

fn output_of_quiet(command: &mut Command) -> Option<String> {
    let output = gather(command).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// Compiler version and LLVM major from `rustc -vV`.
fn parse_versions(text: &str) -> Option<((u32, u32), u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mut release = field("release: ")?.split('.');
    let major = release.next()?.parse().ok()?;
    let minor = release.next()?.parse().ok()?;
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some(((major, minor), llvm))
}

/// Linkers of the right version: this tree's own, then those on PATH.
fn linkers(layout: &Layout) -> Vec<Linker> {
    let own = layout.tools().join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<Linker> = Vec::new();
    for folder in std::iter::once(own).chain(env::split_paths(&path)) {
        let file = folder.join(LINKER);
        if found.iter().any(|known| known.path == file) || !file.is_file() {
            continue;
        }
        found.extend(linker_at(file));
    }
    found
}

fn linker_at(path: PathBuf) -> Option<Linker> {
    let version = output_of(apart_from_host(&path).arg("--version")).ok()?;
    if version.split_whitespace().nth(1) != Some(LINKER_VERSION) {
        return None;
    }
    let llvm = linked_llvm(&path).ok()?;
    Some(Linker { path, llvm })
}

/// The LLVM that a program is linked with, read from the library names in it.
fn linked_llvm(program: &Path) -> Result<Option<u32>> {
    let bytes =
        fs::read(program).with_context(|| format!("reading the linker {}", program.display()))?;
    Ok(llvm_major_in(&bytes))
}

fn llvm_major_in(bytes: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-"].iter().find_map(|name| {
        let name = name.as_bytes();
        let at = bytes
            .windows(name.len())
            .position(|window| window == name)?;
        let digits: Vec<u8> = bytes[at + name.len()..]
            .iter()
            .copied()
            .take_while(u8::is_ascii_digit)
            .collect();
        std::str::from_utf8(&digits).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(llvm: u32) -> Compiler {
        Compiler {
            name: "a compiler",
            bin: "/nowhere".into(),
            release: (1, 96),
            llvm,
        }
    }

    fn linker(llvm: Option<u32>) -> Linker {
        Linker {
            path: "/nowhere/bpf-linker".into(),
            llvm,
        }
    }

    #[test]
    fn versions_are_read_from_what_rustc_says() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_versions(text), Some(((1, 97), 22)));
        assert_eq!(parse_versions("rustc 1.97.0\n"), None);
    }

    #[test]
    fn a_linker_reads_bitcode_up_to_its_own_llvm() {
        assert!(linker(Some(22)).fits(&compiler(22)));
        assert!(linker(Some(23)).fits(&compiler(22)));
        assert!(!linker(Some(21)).fits(&compiler(22)));
        assert!(linker(None).fits(&compiler(22)));
    }

    #[test]
    fn the_linkers_llvm_is_read_from_its_library_names() {
        assert_eq!(llvm_major_in(b"\0libLLVM.so.22.1\0libc.so.6\0"), Some(22));
        assert_eq!(llvm_major_in(b"\0libLLVM-21-rust.so\0"), Some(21));
        assert_eq!(llvm_major_in(b"\0libc.so.6\0"), None);
    }
}
