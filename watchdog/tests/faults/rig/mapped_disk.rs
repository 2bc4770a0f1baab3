//! A disk of the device mapper, which can be held: an ext4 file system on it, on a loop device, on a file
//! in memory. While it is suspended the mapper keeps what comes in and hands nothing to the disk below,
//! as it does under LVM while its tables change, or without a path to a storage network.

use super::names;
use super::switch::{self, Switch};
use crate::harness::clock;
use crate::harness::process::run;
use std::path::{Path, PathBuf};

/// No udev is asked to make device nodes: where this runs there may be none.
const ALONE: &str = "DM_DISABLE_UDEV=1";
/// Sectors of 512 bytes: 64 MB.
const SECTORS: u32 = 131_072;

/// The disk. Unmounted and removed when dropped.
#[derive(Debug)]
pub struct MappedDisk {
    name: String,
    mount: PathBuf,
    /// The mapper's device, as evidence should have it: `dm-0`.
    pub device: String,
    /// The loop device below it.
    below: String,
    _ground: Switch,
}

/// What keeps the mapper from passing requests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Suspended.
    Suspend,
    /// Every write waits for ten seconds (the target `delay`).
    Delay,
}

impl MappedDisk {
    /// Why there can be none here, if so.
    pub fn lacking() -> Option<&'static str> {
        let has = |path: &str| Path::new(path).exists();
        if !has("/sys/class/misc/device-mapper") {
            return Some("this kernel has no device mapper");
        }
        (!has("/sbin/dmsetup") && !has("/usr/sbin/dmsetup")).then_some("dmsetup is not installed")
    }

    /// Makes it.
    ///
    /// # Panics
    /// If a step fails; it needs root, dmsetup and e2fsprogs.
    pub fn create() -> Self {
        let name = names::unique();
        let base = std::env::temp_dir().join(&name);
        let mount = base.join("mount");
        std::fs::create_dir_all(&mount).expect("a folder for the disk");
        let image = base.join("image").display().to_string();
        run("truncate", &["-s", "64M", &image]);
        let below = run("losetup", &["-f", "--show", &image]).trim().to_owned();
        let at = mount.display();
        let undo = [
            format!("{ALONE} dmsetup resume {name} 2>/dev/null"),
            switch::patiently(&format!(
                "{{ ! grep -q ' {at} ' /proc/mounts || umount {at}; }}"
            )),
            switch::patiently(&format!("{ALONE} dmsetup remove {name}")),
            format!("losetup -d {below}"),
            format!("rm -rf --one-file-system {}", base.display()),
            "true".to_owned(),
        ];
        let ground = Switch::arm(switch::GROUND, &undo.join("; "));
        let table = format!("0 {SECTORS} linear {below} 0");
        dmsetup(&["create", &name, "--table", &table]);
        let node = format!("/dev/mapper/{name}");
        run("mkfs.ext4", &["-q", "-F", &node]);
        run("mount", &[&node, &mount.display().to_string()]);
        let target = std::fs::read_link(&node).unwrap_or_else(|_| node.clone().into());
        let device = dmsetup(&["info", "-c", "--noheadings", "-o", "blkdevname", &name]);
        assert!(
            !device.trim().is_empty(),
            "{} has no name",
            target.display()
        );
        Self {
            name,
            mount,
            device: device.trim().to_owned(),
            below,
            _ground: ground,
        }
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Holds it until the guard is dropped, one minute at most; since when.
    ///
    /// # Panics
    /// If the mapper refuses.
    pub fn hold(&self, how: Hold) -> (i64, Switch) {
        let Self { name, below, .. } = self;
        let swap = |table: &str| {
            format!(
                "{ALONE} dmsetup suspend --noflush --nolockfs {name} && \
                 {ALONE} dmsetup load {name} --table '{table}' && {ALONE} dmsetup resume {name}"
            )
        };
        let (begin, undo) = match how {
            Hold::Suspend => (
                format!("{ALONE} dmsetup suspend --noflush --nolockfs {name}"),
                format!("{ALONE} dmsetup resume {name}"),
            ),
            Hold::Delay => (
                swap(&format!("0 {SECTORS} delay {below} 0 0 {below} 0 10000")),
                swap(&format!("0 {SECTORS} linear {below} 0")),
            ),
        };
        let switch = Switch::arm(switch::FAULT, &undo);
        let since_us = clock::now_us();
        run("sh", &["-c", &begin]);
        (since_us, switch)
    }
}

fn dmsetup(words: &[&str]) -> String {
    run("env", &[&[ALONE, "dmsetup"], words].concat())
}
