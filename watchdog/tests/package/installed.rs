//! The package in a Debian of its own, made by debootstrap: installed, run, upgraded, purged.
//!
//! The first time it takes a download of some 70 MB and two minutes; that Debian is kept, packed and untouched,
//! beside the package, and every other run begins with it.

use super::harness::process;
use super::{package, shown};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A fresh Debian; removed when dropped.
pub struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    /// None where no Debian can be had: no network, and none kept.
    pub fn new() -> Option<Self> {
        // The first makes it, the others wait: they all want the same.
        static MADE: Mutex<()> = Mutex::new(());
        let _made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a temporary directory");
        let package = package();
        let kept = package.with_file_name("debian-bookworm-systemd.tar.gz");
        if kept.exists() {
            let from = ["-xpzf", shown(&kept), "-C", shown(folder.path())];
            process::run("tar", &from);
            return Some(Self { folder });
        }
        let made = Command::new("debootstrap")
            .arg("--variant=minbase")
            .args(["--include=adduser,dbus,systemd,systemd-sysv", "bookworm"])
            .arg(folder.path())
            .output()
            .expect("debootstrap is installed");
        if !made.status.success() {
            print!("{}", String::from_utf8_lossy(&made.stdout));
            return None;
        }
        // Whole or not at all: a run may be ended in the middle.
        let half = kept.with_extension(format!("half-{}", std::process::id()));
        let into = [
            "-cpzf",
            shown(&half),
            "--exclude=./var/cache/apt/archives/*.deb",
        ];
        process::run(
            "tar",
            &[&into[..], &["-C", shown(folder.path()), "."]].concat(),
        );
        fs::rename(&half, &kept).expect("the build's own folder");
        Some(Self { folder })
    }

    /// The path of a file inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// Runs a line of shell inside, with /proc and /sys; the mounts end with it.
    pub fn run(&self, line: &str) -> String {
        let script = format!(
            "mount --bind /proc '{root}/proc' && mount --rbind /sys '{root}/sys' && \
             exec chroot '{root}' /bin/sh -ec '{line}'",
            root = shown(self.folder.path())
        );
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", &script])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .expect("unshare is installed");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{line}: {said}");
        said
    }
}

/// The same package with another version.
fn newer(folder: &Path) -> PathBuf {
    let files = folder.join("files");
    process::run("dpkg-deb", &["-R", shown(&package()), shown(&files)]);
    let control = files.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("a control file");
    let text: String = text
        .lines()
        .map(|line| match line.strip_prefix("Version: ") {
            Some(version) => format!("Version: {version}+newer\n"),
            None => format!("{line}\n"),
        })
        .collect();
    fs::write(&control, text).expect("a control file");
    let made = folder.join("newer.deb");
    process::run("dpkg-deb", &["-b", shown(&files), shown(&made)]);
    made
}

#[test]
fn it_installs_runs_upgrades_and_purges_clean() {
    let Some(tree) = Tree::new() else {
        println!("SKIPPED: it_installs_runs_upgrades_and_purges_clean: no Debian can be fetched");
        return;
    };
    fs::copy(package(), tree.path("tmp/first.deb")).expect("the package");
    let scratch = tempfile::tempdir().expect("a temporary directory");
    fs::copy(newer(scratch.path()), tree.path("tmp/newer.deb")).expect("the package");

    tree.run("dpkg -i /tmp/first.deb");
    let user = tree.run("getent passwd lease-watchdog");
    assert!(user.contains("nologin"), "{user}");
    let version = tree.run("lease-watchdog --version");
    assert!(version.starts_with("lease-watchdog "), "{version}");
    let said = tree.run("lease-watchdog check-config /etc/lease-watchdog/lease-watchdog.yaml");
    assert!(said.contains("alerts: 0"), "log-only, as shipped: {said}");
    // For three seconds, on a port of its own; 124 is the time limit's own exit code.
    let events = tree.run(
        "mkdir -p /run/lease-watchdog && chown lease-watchdog: /run/lease-watchdog && \
         sed s/9527/0/ /etc/lease-watchdog/lease-watchdog.yaml > /tmp/c.yaml && \
         timeout --signal=TERM 3 lease-watchdog run --config /tmp/c.yaml --events - || [ $? = 124 ]",
    );
    assert!(events.contains("\"event\":\"started\""), "{events}");

    // What an administrator changed, and what the daemon knows, outlive an upgrade.
    let config = tree.path("etc/lease-watchdog/lease-watchdog.yaml");
    let mut text = fs::read_to_string(&config).expect("a configuration");
    text.push_str("# mine\n");
    fs::write(&config, text).expect("a configuration");
    let flows = tree.path("run/lease-watchdog/flows.json");
    fs::write(&flows, "{}").expect("a state directory");
    tree.run("dpkg -i --force-confold /tmp/newer.deb");
    assert!(tree.run("dpkg -s lease-watchdog").contains("+newer"));
    let kept = fs::read_to_string(&config).expect("a configuration");
    assert!(kept.ends_with("# mine\n"));
    assert!(flows.exists(), "an upgrade forgets the leases");

    tree.run("dpkg -r lease-watchdog");
    assert!(config.exists(), "removed is not purged");
    tree.run("dpkg -P lease-watchdog");
    for left in [
        "etc/lease-watchdog",
        "run/lease-watchdog",
        "var/lib/lease-watchdog",
        "usr/share/lease-watchdog",
        "usr/share/doc/lease-watchdog",
        "usr/sbin/lease-watchdog",
    ] {
        assert!(!tree.path(left).exists(), "{left} is left behind");
    }
    tree.run("! getent passwd lease-watchdog");
    println!("installed, run, upgraded, purged");
}
