//! From a file that a thread waits for to the disks below it, and whether these stand still.
//!
//! In: a process's descriptor or memory map, the mount table, /sys/dev/block, what the kernel
//! programs saw. Out: a [`DeviceLook`]. Never: a call that a hung disk could hold up: nothing here
//! looks at the file itself, only at what the kernel keeps about it in memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use watchdog_common::layout::device_number;
use watchdog_model::Mono;
use watchdog_model::causes::collected::DeviceLook;
use watchdog_model::causes::text::Text;
use watchdog_model::causes::verdict::HARD_STALL_NS;

use super::proc;
use super::stacked::{Held, Standing};
use crate::kernel::state::Devices;

/// Requests in flight looked through for the oldest.
const OLDEST_AMONG: usize = 4096;
/// Levels of devices upon devices (a file system on LVM on RAID on partitions).
const DEPTH: usize = 5;

/// The device (major, minor) of the mount that a descriptor's file lies on.
#[must_use]
pub fn of_descriptor(pid: u32, descriptor: u64) -> Option<(u32, u32)> {
    let info = proc::descriptor_info(pid, descriptor)?;
    let mount_id = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
    mounts
        .lines()
        .find(|line| line.split(' ').next() == Some(mount_id))
        .and_then(of_mount)
}

/// The device of a line of mountinfo. Some file systems (btrfs) lie on a device but have a number
/// of their own; then it is the source's. An overlay lies on what its upper directory lies on.
fn of_mount(line: &str) -> Option<(u32, u32)> {
    let number = line.split(' ').nth(2)?;
    let (major, minor) = number.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    if major != 0 {
        return Some((major, minor));
    }
    let (_, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (kind, source, options) = (kind.next()?, kind.next()?, kind.next()?);
    if kind == "overlay" {
        let upper = options
            .split(',')
            .find_map(|option| option.strip_prefix("upperdir="))?;
        return of_path(upper);
    }
    let name = Path::new(source).file_name()?;
    of_sysfs(&Path::new("/sys/class/block").join(name))
}

/// The device of the mount that a path of this node lies on, by the mount table alone.
fn of_path(path: &str) -> Option<(u32, u32)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let below = |line: &&str| {
        line.split(' ')
            .nth(4)
            .is_some_and(|at| at == "/" || Path::new(path).starts_with(at))
    };
    let line = mounts
        .lines()
        .filter(below)
        .max_by_key(|line| line.split(' ').nth(4).map_or(0, str::len))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn of_sysfs(place: &Path) -> Option<(u32, u32)> {
    let text = fs::read_to_string(place.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The files that a process has in its memory, with the devices that they lie on.
#[must_use]
pub fn mapped(pid: u32) -> BTreeSet<((u32, u32), String)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter_map(mapping).collect()
}

/// `address perms offset major:minor inode path` (proc_pid_maps(5)).
fn mapping(line: &str) -> Option<((u32, u32), String)> {
    let (head, path) = line.split_once('/')?;
    let (major, minor) = head.split_ascii_whitespace().nth(3)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = (number(major)?, number(minor)?);
    (device != (0, 0)).then(|| (device, format!("/{path}")))
}

/// The one of these files that lies on this disk, if it is one.
#[must_use]
pub fn only_file<'a>(
    mapped: &'a BTreeSet<((u32, u32), String)>,
    disk: &DeviceLook,
) -> Option<&'a str> {
    let lies_on = |device: (u32, u32)| {
        let mut disks = Vec::new();
        disks_under(device, DEPTH, &mut disks);
        disks
            .iter()
            .any(|(_, name)| name.as_bytes() == disk.name.as_bytes())
    };
    let mut files = mapped.iter().filter(|(device, _)| lies_on(*device));
    let (_, first) = files.next()?;
    files.next().is_none().then_some(first.as_str())
}

/// The disks under a device, and their names: itself, or the disk that it is a partition of, or
/// what it is composed of.
fn disks_under(device: (u32, u32), depth: usize, into: &mut Vec<(u32, String)>) {
    walk(device, depth, into, &mut Vec::new());
}

/// The same, with those that are composed of others.
fn walk(
    device: (u32, u32),
    depth: usize,
    into: &mut Vec<(u32, String)>,
    stacked: &mut Vec<PathBuf>,
) {
    let link = PathBuf::from(format!("/sys/dev/block/{}:{}", device.0, device.1));
    let Ok(mut place) = fs::canonicalize(link) else {
        return;
    };
    if place.join("partition").exists() {
        place.pop();
    }
    let below: Vec<(u32, u32)> = fs::read_dir(place.join("slaves"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| of_sysfs(&entry.path()))
        .collect();
    if depth > 0 && !below.is_empty() {
        stacked.push(place);
        for device in below {
            walk(device, depth - 1, into, stacked);
        }
        return;
    }
    let name = name_of(&place);
    if let Some((major, minor)) = of_sysfs(&place) {
        into.push((device_number(major, minor), name));
    }
}

fn name_of(place: &Path) -> String {
    let name = place.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// How the device stands that a thread is known to wait for: as the disks under it do, but where none
/// of these stands still, as a device in between that does.
#[must_use]
pub fn look(
    device: (u32, u32),
    devices: Option<&Devices>,
    held: &mut Held,
    now: Mono,
) -> Option<DeviceLook> {
    let (mut disks, mut stacked) = (Vec::new(), Vec::new());
    walk(device, DEPTH, &mut disks, &mut stacked);
    let lowest = stand(device, &disks, true, devices, now)?;
    // Always asked: it counts from the first time that it is.
    let holders = stacked.iter().filter_map(|place| {
        let (major, minor) = of_sysfs(place)?;
        let standing = Standing::of(place)?;
        let silent_ns = held.silent_ns(device_number(major, minor), standing, now);
        Some(DeviceLook {
            name: Text::end_of(name_of(place).as_bytes()),
            in_flight: standing.in_flight,
            silent_ns: Some(silent_ns),
            oldest_ns: None,
            ..lowest
        })
    });
    let holder = holders.max_by_key(|look| look.silent_ns);
    let is_still = |look: &DeviceLook| look.silent_ns.is_some_and(|ns| ns >= HARD_STALL_NS);
    Some(match holder {
        Some(holder) if is_still(&holder) && !is_still(&lowest) => holder,
        _ => lowest,
    })
}

/// How a device stands: the disk under it that has been still for longest.
fn stand(
    device: (u32, u32),
    disks: &[(u32, String)],
    proven: bool,
    devices: Option<&Devices>,
    now: Mono,
) -> Option<DeviceLook> {
    let committing_ns = devices
        .and_then(|devices| devices.in_flight(device_number(device.0, device.1)))
        .filter(|flight| flight.commit_since_ns != 0)
        .map(|flight| now.since(Mono(flight.commit_since_ns)));
    disks
        .iter()
        .map(|(number, name)| {
            let mut look = DeviceLook {
                name: Text::end_of(name.as_bytes()),
                proven,
                in_flight: 0,
                silent_ns: None,
                oldest_ns: None,
                committing_ns,
            };
            if let Some(devices) = devices {
                fill(&mut look, *number, devices, now);
            }
            look
        })
        .max_by_key(|look| look.silent_ns)
}

fn fill(look: &mut DeviceLook, number: u32, devices: &Devices, now: Mono) {
    let Some(flight) = devices.in_flight(number) else {
        return;
    };
    look.in_flight = flight.requests;
    if flight.requests == 0 {
        return;
    }
    let oldest = devices.oldest(number, OLDEST_AMONG);
    look.oldest_ns = oldest.map(|oldest| now.since(Mono(oldest)));
    // A disk that was idle has finished nothing for long; it counts from what it was given.
    let since = oldest.unwrap_or(flight.issued_ns).max(flight.completed_ns);
    look.silent_ns = Some(now.since(Mono(since)));
}

/// The one disk of the node that stands still, if it is one: for a thread of which it is not known
/// what file it waits for. With `among`, only disks that these files lie on.
#[must_use]
pub fn still(
    devices: &Devices,
    among: Option<&BTreeSet<((u32, u32), String)>>,
    now: Mono,
) -> Option<DeviceLook> {
    let allowed = among.map(|among| {
        let mut disks = Vec::new();
        let devices: BTreeSet<_> = among.iter().map(|(device, _)| *device).collect();
        for device in devices {
            disks_under(device, DEPTH, &mut disks);
        }
        disks
    });
    let mut found = devices
        .all()
        .filter(|slot| slot.issued > slot.completed)
        .filter(|slot| {
            allowed
                .as_ref()
                .is_none_or(|disks| disks.iter().any(|(number, _)| *number == slot.device))
        })
        .filter_map(|slot| {
            let device = split(slot.device);
            let mut disks = Vec::new();
            disks_under(device, DEPTH, &mut disks);
            stand(device, &disks, false, Some(devices), now)
        })
        .filter(|look| look.silent_ns.is_some_and(|silent| silent >= HARD_STALL_NS));
    let first = found.next()?;
    found.all(|other| other.name == first.name).then_some(first)
}

/// A device number as (major, minor) (MAJOR and MINOR, include/linux/kdev_t.h).
fn split(device: u32) -> (u32, u32) {
    (device >> 20, device & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounts_device_is_its_own_or_its_sources() {
        let ext4 = "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw";
        assert_eq!(of_mount(ext4), Some((254, 0)));
        let proc = "20 29 0:18 / /proc rw - proc proc rw";
        assert_eq!(of_mount(proc), None);
    }

    #[test]
    fn the_test_binarys_own_file_is_mapped() {
        let files = mapped(std::process::id());
        let own = std::env::current_exe().unwrap();
        assert!(files.iter().any(|(_, path)| Path::new(path) == own));
        assert_eq!(mapping("7f00-7f01 rw-p 00000000 00:00 0 [stack]"), None);
        assert_eq!(
            mapping("7f00-7f01 r--s 00000000 07:0a 12    /mnt/a file"),
            Some(((7, 10), "/mnt/a file".to_owned()))
        );
        assert_eq!(split(device_number(254, 3)), (254, 3));
    }
}
