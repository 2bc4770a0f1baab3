//! The block signal: a request in flight is seen while it hangs, with its age, under its disk.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use watchdog_model::time::{MS, SECOND};

use super::bed::{here, load};
use super::hung_disk::{HungDisk, pause, wait_for};
use watchdog::tick::clock;

#[test]
fn a_request_that_hangs_is_in_flight_until_it_is_finished() {
    let Some(mut kernel) = load(here!(), &["block"]) else {
        return;
    };
    let disk = HungDisk::new("block");
    let devices = kernel.state.take_devices().expect("not given away yet");
    let number = disk.number();
    let write = |path| {
        let mut file = File::create(path)?;
        file.write_all(&[7; 4096])?;
        file.sync_all()
    };
    write(disk.path().join("before")).expect("a healthy disk takes it");
    let healthy = devices.in_flight(number).expect("requests were seen");
    assert!(healthy.completed > 0, "{healthy:?}");

    disk.hang();
    let hung_at = clock();
    let file = disk.path().join("after");
    let writer = std::thread::spawn(move || write(file));
    wait_for("a request in flight", || {
        devices
            .in_flight(number)
            .is_some_and(|now| now.requests > 0)
    });
    pause(Duration::from_millis(1200));
    let hung = devices.in_flight(number).expect("known");
    let oldest = devices.oldest(number, 10_000).expect("one is in flight");
    let age = clock().0 - oldest;
    disk.heal();
    writer
        .join()
        .expect("no panic")
        .expect("the disk came back");
    assert!(hung.requests > 0, "{hung:?}");
    assert!(hung.completed_ns < hung_at.0 + 100 * MS, "{hung:?}");
    assert!(
        (SECOND..10 * SECOND).contains(&age),
        "the oldest is {age} ns old"
    );
    wait_for("nothing in flight", || {
        devices
            .in_flight(number)
            .is_some_and(|now| now.requests == 0)
    });
    assert_eq!(devices.oldest(number, 10_000), None);
    let healed = devices.in_flight(number).expect("known");
    assert!(healed.completed > hung.completed && healed.completed_ns > oldest);
}
