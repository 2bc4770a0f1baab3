//! The journal signal: a commit is seen while it is under way, and counted when it is done.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use super::bed::{here, load};
use super::hung_disk::{HungDisk, pause, wait_for};
use watchdog_model::time::MS;

#[test]
fn a_commit_that_hangs_is_under_way_until_it_is_done() {
    let Some(mut kernel) = load(here!(), &["journal"]) else {
        return;
    };
    let disk = HungDisk::new("journal");
    let devices = kernel.state.take_devices().expect("not given away yet");
    let number = disk.number();
    let create = |path| File::create(path)?.sync_all();
    create(disk.path().join("before")).expect("a healthy disk takes it");
    let before = devices.slot(number).expect("a commit was seen");
    assert!(before.commits > 0 && before.commit_since_ns == 0);

    let write = |path| {
        let mut file = File::create(path)?;
        // Written before the disk hangs, so that the sync waits in the commit and not for data.
        file.write_all(b"x")?;
        Ok::<File, std::io::Error>(file)
    };
    let file = write(disk.path().join("after")).expect("page cache");
    disk.hang();
    let syncer = std::thread::spawn(move || file.sync_all());
    // The data hangs first; the kernel's own commit follows within its interval of 5 s.
    let mut since = 0;
    wait_for("a commit under way", || {
        since = devices.slot(number).map_or(0, |slot| slot.commit_since_ns);
        since != 0
    });
    pause(Duration::from_millis(300));
    let still = devices.slot(number).map_or(0, |slot| slot.commit_since_ns);
    disk.heal();
    syncer
        .join()
        .expect("no panic")
        .expect("the disk came back");
    assert_eq!(still, since, "the same commit all the time");
    wait_for("the commit's end", || {
        devices
            .slot(number)
            .is_some_and(|slot| slot.commits > before.commits && slot.commit_since_ns == 0)
    });
    let after = devices.slot(number).expect("known");
    // Other journals of the node count there too.
    let all = kernel.state.waits().commits;
    assert!(all.bins.iter().sum::<u64>() >= after.commits);
    assert!(all.sum_ns >= after.commit_sum_ns);
    // Longer than 2^18 µs, which is 262 ms.
    assert!(all.bins[19..].iter().sum::<u64>() >= 1, "{all:?}");
    assert!(after.commit_sum_ns - before.commit_sum_ns >= 300 * MS);
}
