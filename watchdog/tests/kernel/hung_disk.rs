//! A disk that hangs and comes back: ext4 on a loop device over a FUSE file system whose process
//! is stopped. Whatever waits for it waits in state D, as for a real disk.
//!
//! Dropping the guard undoes all of it, also while a test fails: the FUSE process continues first,
//! so that whatever hangs can go on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The disk.
pub struct HungDisk {
    directory: PathBuf,
    loop_device: Option<String>,
    mounted: bool,
    fuse: Child,
}

impl HungDisk {
    /// Makes the disk, healthy, of 64 MB.
    ///
    /// # Panics
    /// If a step fails: it needs root, bindfs, losetup and mkfs.ext4.
    pub fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("watchdog-{name}-{}", std::process::id()));
        for part in ["below", "fuse", "mount"] {
            std::fs::create_dir_all(directory.join(part)).expect("a folder can be made");
        }
        run(
            "truncate",
            &["-s", "64M", &text(&directory.join("below/img"))],
        );
        let fuse = Command::new("bindfs")
            .arg("-f")
            .args([directory.join("below"), directory.join("fuse")])
            .stdin(Stdio::null())
            .spawn()
            .expect("bindfs can be started");
        let mut disk = Self {
            directory,
            loop_device: None,
            mounted: false,
            fuse,
        };
        let image = disk.directory.join("fuse/img");
        wait_for("the FUSE mount", || image.exists());
        let device = run("losetup", &["--find", "--show", &text(&image)]);
        disk.loop_device = Some(device.trim().to_owned());
        let device = disk.device_path();
        run("mkfs.ext4", &["-q", "-F", &device]);
        run("mount", &[&device, &text(&disk.path())]);
        disk.mounted = true;
        disk
    }

    /// Where its file system is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.join("mount")
    }

    /// Its device's number, as the kernel keeps it.
    pub fn number(&self) -> u32 {
        use std::os::linux::fs::MetadataExt as _;
        let meta = std::fs::metadata(self.path()).expect("it is mounted");
        let device = meta.st_dev();
        watchdog_common::layout::device_number(libc::major(device), libc::minor(device))
    }

    fn device_path(&self) -> String {
        self.loop_device.clone().expect("it has a loop device")
    }

    /// From now on it completes nothing.
    pub fn hang(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// It works again.
    pub fn heal(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.fuse.id()).expect("a process id");
        // SAFETY: integers only; the child is ours and not yet waited for.
        unsafe { libc::kill(pid, signal) };
    }
}

impl Drop for HungDisk {
    fn drop(&mut self) {
        self.heal();
        if self.mounted {
            undo("umount", &[&text(&self.path())]);
        }
        if let Some(device) = &self.loop_device {
            undo("losetup", &["--detach", device]);
        }
        // Lazily: the kernel may hold the image for a moment longer than the loop device is there.
        undo("umount", &["-l", &text(&self.directory.join("fuse"))]);
        let _gone = self.fuse.kill();
        let _waited = self.fuse.wait();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Tries for a while: what still closes its files keeps a mount busy for a moment.
fn undo(program: &str, arguments: &[&str]) {
    let mut last = String::new();
    for _ in 0..50 {
        match Command::new(program).args(arguments).output() {
            Ok(output) if output.status.success() => return,
            Ok(output) => last = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => last = error.to_string(),
        }
        pause(Duration::from_millis(100));
    }
    eprintln!("left behind: {program} {arguments:?} failed: {last}");
}

/// Waits until something holds.
///
/// # Panics
/// If it does not within 10 s.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        pause(Duration::from_millis(10));
    }
    panic!("{what} did not come within 10 s");
}

/// Lets time pass.
pub fn pause(span: Duration) {
    std::thread::park_timeout(span);
}
