//! Makes a machine ready. In: what is installed. Out: a BPF toolchain, and the software that tests
//! run against. Idempotent, and quick when there is nothing to do.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    apt::{self, Package},
    layout::Layout,
    process::{Missing, apart_from_host, gather, output_of, program, run as run_child, say},
    toolchain::{self, Choice, Compiler, LINKER, LINKER_LLVMS, LINKER_VERSION, Toolchain},
};

/// Debian's matching pair: a compiler with its sources, and the LLVM that its linker is built with.
const DEBIAN_TOOLCHAIN: &[Package] = &[
    Package::from("rustc-web", "1.96"),
    Package::from("cargo-web", "1.96"),
    Package::from("rust-web-src", "1.96"),
    Package::from("rust-web-llvm", "1.96"),
    Package::any("llvm-22-dev"),
];
/// The linter of Debian's pair, for `cargo xtask test`.
const DEBIAN_LINTER: Package = Package::from("rust-web-clippy", "1.96");

/// What the tests run: real servers, clients and faults.
const TEST_SOFTWARE: &[Package] = &[
    // A ZooKeeper server, its C client and its admin server.
    Package::any("zookeeper"),
    Package::any("zookeeper-bin"),
    Package::any("libzookeeper-java"),
    Package::any("libservlet-api-java"),
    // A Python client, for /usr/bin/python3.
    Package::any("python3-kazoo"),
    // Clients of Kafka; etcd and its client.
    Package::any("python3-kafka"),
    Package::any("kcat"),
    Package::any("etcd-server"),
    Package::any("etcd-client"),
    // What reads the metrics and takes the alerts.
    Package::any("prometheus"),
    // Certificates for the stories of https.
    Package::any("curl"),
    Package::any("openssl"),
    Package::any("prometheus-alertmanager"),
    // What judges the package, and makes a Debian to install it into.
    Package::any("lintian"),
    Package::any("systemd"),
    Package::any("debootstrap"),
    Package::any("systemd-container"),
    Package::any("runc"),
    // What looks at the status page, and at the terminal view.
    Package::any("chromium"),
    Package::any("tmux"),
    // Broken networks and hung disks, and a call that the kernel refuses.
    Package::any("iproute2"),
    Package::any("nftables"),
    Package::any("bindfs"),
    Package::any("fuse3"),
    Package::any("e2fsprogs"),
    Package::any("strace"),
];
/// What the bench compares with: runqlat, runqslower.
const BENCH_SOFTWARE: &[Package] = &[Package::any("libbpf-tools")];
/// A Java compiler, where there is none yet.
const JAVA_COMPILER: Package = Package::any("default-jdk-headless");

/// Makes this machine ready to build and test; quick when it is.
///
/// The BPF toolchain is rustup's nightly with the component `rust-src`, where that is there, or
/// Debian's rustc-web with its sources; and bpf-linker built with the same LLVM. The test software is
/// ZooKeeper, its clients, Prometheus and Alertmanager; no service is started.
#[derive(clap::Args)]
pub struct Args {
    /// Which part
    #[arg(value_enum, default_value_t = Part::All)]
    part: Part,
}

/// A part of the setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What `build` and `demo` need
    Toolchain,
    /// What `test` needs beside the toolchain
    Tests,
    /// Both
    All,
}

/// `cargo xtask setup`.
pub fn run(layout: &Layout, choice: Choice, args: &Args) -> Result<ExitCode> {
    if args.part != Part::Tests {
        let found = toolchain(layout, choice)?;
        let linker = found.linker.path.display();
        say(format_args!("BPF toolchain: {}, {linker}", found.compiler));
    }
    if args.part != Part::Toolchain {
        if let Some(found) = toolchain::find(layout, choice) {
            linter(&found)?;
        }
        test_software()?;
        say("test software: ready");
    }
    Ok(ExitCode::SUCCESS)
}

/// The BPF toolchain, installed where it is missing.
pub fn toolchain(layout: &Layout, choice: Choice) -> Result<Toolchain> {
    if let Some(found) = toolchain::find(layout, choice) {
        return Ok(found);
    }
    let with_llvm = |compiler: &Compiler| llvm_bin(compiler.llvm).is_some();
    if let Some(compiler) = toolchain::compilers(choice).into_iter().find(with_llvm) {
        install_linker(layout, &compiler)?;
    } else if choice == Choice::Nightly {
        return Err(no_nightly());
    } else {
        install_debian_pair(layout)?;
    }
    toolchain::find(layout, choice)
        .context("the BPF toolchain is installed and yet not found; see `cargo xtask setup --help`")
}

fn no_nightly() -> anyhow::Error {
    let (first, last) = (LINKER_LLVMS.start(), LINKER_LLVMS.end());
    let line = format!(
        "missing: rustup's nightly with rust-src, and {LINKER} {LINKER_VERSION} or an LLVM \
         ({first} to {last}) to build it with; get them by `rustup toolchain install nightly \
         --component rust-src` and `cargo install {LINKER} --version {LINKER_VERSION} --locked`"
    );
    Missing(line).into()
}

fn install_debian_pair(layout: &Layout) -> Result<()> {
    apt::ensure(DEBIAN_TOOLCHAIN, "to build the kernel programs").map_err(with_other_way)?;
    let compiler = toolchain::compilers(Choice::System)
        .pop()
        .context("rustc-web is installed, but /usr/bin/rustc is not a compiler with sources")?;
    match toolchain::find(layout, Choice::System) {
        Some(_) => Ok(()),
        None => install_linker(layout, &compiler),
    }
}

/// Where apt can't help, rustup may.
fn with_other_way(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Missing>() {
        Ok(Missing(line)) => Missing(format!(
            "{line} (or without: `rustup toolchain install nightly --component rust-src` and \
             {LINKER} {LINKER_VERSION} on PATH)"
        ))
        .into(),
        Err(other) => other,
    }
}

/// Builds the linker with the compiler's LLVM; about a minute.
fn install_linker(layout: &Layout, compiler: &Compiler) -> Result<()> {
    let llvm = compiler.llvm;
    let bin = llvm_bin(llvm).with_context(|| format!("LLVM {llvm} has no llvm-config here"))?;
    say(format_args!(
        "building {LINKER} {LINKER_VERSION} with LLVM {llvm} (about a minute)"
    ));
    let mut cargo = program("cargo");
    cargo
        .env("PATH", toolchain::path_with_first(&bin))
        .args(["install", LINKER, "--version", LINKER_VERSION, "--locked"])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{llvm}"));
    if is_on_path(LINKER) {
        // One of another version or LLVM, which someone else may need: it stays.
        cargo.arg("--root").arg(layout.tools());
    }
    run_child(&mut cargo).with_context(|| format!("building {LINKER} with LLVM {llvm}"))
}

/// A program that cargo builds, of this version's major number, installed for this tree where there is none.
///
/// # Errors
/// It cannot be built.
pub fn tool(layout: &Layout, name: &str, version: &str) -> Result<PathBuf> {
    let major = version.split('.').next().unwrap_or(version);
    let (own, said) = (
        layout.tools().join("bin").join(name),
        format!("{name} {major}."),
    );
    for found in [own.clone(), PathBuf::from(name)] {
        let version = gather(program(&found).arg("--version"));
        if version.is_ok_and(|output| output.stdout.starts_with(said.as_bytes())) {
            return Ok(found);
        }
    }
    say(format_args!("building {name} {version} (some minutes)"));
    let mut cargo = program("cargo");
    cargo
        .args(["install", name, "--version", version, "--locked"])
        .arg("--root")
        .arg(layout.tools())
        // It runs for seconds: what counts is how long it takes to build.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    run_child(&mut cargo).with_context(|| format!("building {name}"))?;
    Ok(own)
}

/// The folder of an LLVM's llvm-config, if the linker can be built with it.
fn llvm_bin(major: u32) -> Option<PathBuf> {
    if !LINKER_LLVMS.contains(&major) {
        return None;
    }
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(debian)
        .chain(env::split_paths(&path))
        .find(|folder| is_llvm(folder, major))
}

fn is_llvm(folder: &Path, major: u32) -> bool {
    let config = folder.join("llvm-config");
    config.is_file()
        && output_of(apart_from_host(config).arg("--version"))
            .is_ok_and(|version| version.starts_with(&format!("{major}.")))
}

fn is_on_path(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// The real software that `cargo xtask test` runs against.
pub fn test_software() -> Result<()> {
    let mut packages = TEST_SOFTWARE.to_vec();
    if !is_on_path("javac") {
        packages.push(JAVA_COMPILER);
    }
    let was_there = apt::lacking(&packages).is_empty();
    apt::ensure(&packages, "to test against real software")?;
    if !was_there && Path::new("/run/systemd/system").is_dir() {
        say(
            "no service was started; Debian's prometheus and prometheus-alertmanager start with \
             the next boot, unless you `systemctl disable` them",
        );
    }
    Ok(())
}

/// The tools that the bench compares with.
pub fn bench_software() -> Result<()> {
    apt::ensure(BENCH_SOFTWARE, "to measure against other tools")
}

/// The linter for the kernel programs, where it is a package of its own.
pub fn linter(toolchain: &Toolchain) -> Result<()> {
    if !is_debians(&toolchain.compiler) {
        return Ok(());
    }
    apt::ensure(&[DEBIAN_LINTER], "to lint the kernel programs")
}

fn is_debians(compiler: &Compiler) -> bool {
    compiler.bin == Path::new("/usr/bin") && apt::lacking(&DEBIAN_TOOLCHAIN[..1]).is_empty()
}
