//! A disk that can hang, and go on later as a slow one would: an ext4 file system on a loop device
//! whose image lies behind a FUSE process, and the process is stopped.
//!
//! While it hangs, every block request waits; nothing returns an error. Going on is SIGCONT, and so a
//! kill -9 of this program cannot leave a thread in `D` for good.

use super::names;
use super::switch::{self, Switch};
use crate::harness::process::{Child, run, send_signal, state};
use crate::harness::{clock, process};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The disk. Unmounted and removed when dropped.
#[derive(Debug)]
pub struct HungDisk {
    mount: PathBuf,
    /// The block device's name, as evidence should have it: `loop3`.
    pub device: String,
    fuse: Child,
    /// Before the FUSE process in dropping, for the unmount needs it.
    ground: Option<Switch>,
}

/// The time in which the disk hangs.
#[derive(Debug)]
pub struct Hanging {
    /// Since when, in microseconds of CLOCK_MONOTONIC.
    pub since_us: i64,
    _switch: Switch,
}

impl HungDisk {
    /// A disk of 256 MB, mounted with `options`.
    ///
    /// # Panics
    /// If a step fails; it needs root, bindfs and e2fsprogs.
    pub fn create(options: &str) -> Self {
        let base = std::env::temp_dir().join(names::unique());
        let folder = |name: &str| base.join(name).display().to_string();
        let [store, behind, mount] = ["store", "behind", "mount"].map(folder);
        for path in [&store, &behind, &mount] {
            std::fs::create_dir_all(path).expect("a folder for the disk");
        }
        let mut command = Command::new("bindfs");
        command.args(["-f", "--no-allow-other", &store, &behind]);
        let fuse = Child::start(command);
        let ready = clock::poll(Duration::from_secs(5), || {
            let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
            mounts.contains(&format!(" {behind} ")).then_some(())
        });
        assert!(ready.is_some(), "bindfs does not mount {behind}");
        let image = format!("{behind}/image");
        run("truncate", &["-s", "256M", &image]);
        run("mkfs.ext4", &["-q", "-F", &image]);
        let device = run("losetup", &["-f", "--show", &image]).trim().to_owned();
        let fuse_pid = fuse.pid();
        let undo = [
            format!("kill -CONT {fuse_pid} 2>/dev/null"),
            // Asked of the list of mounts: a mount whose FUSE process is dead answers nothing itself.
            switch::patiently(&format!(
                "{{ ! grep -q ' {mount} ' /proc/mounts || umount {mount}; }}"
            )),
            format!("losetup -d {device}"),
            switch::patiently(&format!(
                "{{ ! grep -q ' {behind} ' /proc/mounts || fusermount3 -u {behind} || umount -l {behind}; }}"
            )),
            format!("rm -rf --one-file-system {}", base.display()),
            "true".to_owned(),
        ];
        let ground = Switch::arm(switch::GROUND, &undo.join("; "));
        run("mount", &["-o", options, &device, &mount]);
        Self {
            mount: mount.into(),
            device: device.trim_start_matches("/dev/").to_owned(),
            fuse,
            ground: Some(ground),
        }
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The process behind it.
    pub fn fuse_pid(&self) -> i32 {
        self.fuse.pid()
    }

    /// Forgets what the kernel has cached of it, so that the next read must ask the device.
    pub fn forget_cache(&self) {
        run("sync", &["-f", &self.mount.display().to_string()]);
        run("umount", &[&self.mount.display().to_string()]);
        let image = self.mount.with_file_name("behind").join("image");
        let device = format!("/dev/{}", self.device);
        for path in [image.display().to_string(), device.clone()] {
            run(
                "dd",
                &[
                    "status=none",
                    "of=/dev/null",
                    "count=0",
                    "iflag=nocache",
                    &format!("if={path}"),
                ],
            );
        }
        run("mount", &[&device, &self.mount.display().to_string()]);
    }

    /// Hangs it until the guard is dropped, one minute at most.
    ///
    /// # Panics
    /// If the FUSE process does not stop.
    pub fn hang(&self) -> Hanging {
        let pid = self.fuse.pid();
        let switch = Switch::arm(switch::FAULT, &format!("kill -CONT {pid}"));
        let since_us = clock::now_us();
        send_signal(pid, libc::SIGSTOP);
        let stopped = clock::poll(Duration::from_secs(2), || {
            (state(pid)? == 'T').then_some(())
        });
        assert!(stopped.is_some(), "bindfs {pid} did not stop");
        Hanging {
            since_us,
            _switch: switch,
        }
    }
}

impl Drop for HungDisk {
    fn drop(&mut self) {
        process::send_signal(self.fuse.pid(), libc::SIGCONT);
        drop(self.ground.take());
    }
}
