//! The table of devices: finds or makes a device's slot.
//!
//! In: device numbers, from the block and journal programs. Out: slots. Never: a slot given back;
//! a node has few devices, and a table that is full only means that the others go unseen.

use watchdog_common::layout::{DEVICE_TRIES, DEVICES as COUNT, DeviceSlot, device_place};

use crate::maps::DEVICES;

/// The slot of a device.
#[inline(always)]
pub fn slot(device: u32) -> Option<*mut DeviceSlot> {
    let place = device_place(device);
    for step in 0..DEVICE_TRIES {
        let slot = DEVICES.get_ptr_mut(((place + step) & (COUNT - 1)) as u32)?;
        // SAFETY: a word of a map value.
        let number = unsafe { &raw mut (*slot).device };
        // SAFETY: as above.
        let seen = unsafe { number.read_volatile() };
        if seen == device {
            return Some(slot);
        }
        if seen != 0 {
            continue;
        }
        // SAFETY: as above.
        if unsafe { take(number, device) } {
            return Some(slot);
        }
    }
    None
}

/// Makes a free place the device's; false: another device's was quicker.
///
/// # Safety
/// `number` is a word of a map value.
#[cfg(not(feature = "old"))]
#[inline(always)]
unsafe fn take(number: *mut u32, device: u32) -> bool {
    use core::intrinsics::{AtomicOrdering, atomic_cxchg};
    // SAFETY: by contract. SeqCst: with Relaxed the compiler drops the fetched value.
    let (before, taken) = unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            number, 0, device,
        )
    };
    taken || before == device
}

/// The same where nothing can be swapped. Of two devices that are first seen in the same
/// nanoseconds, on two CPUs, and belong to the same place, one may count its first request there.
///
/// # Safety
/// As above.
#[cfg(feature = "old")]
#[inline(always)]
unsafe fn take(number: *mut u32, device: u32) -> bool {
    // SAFETY: by contract.
    unsafe {
        number.write_volatile(device);
        number.read_volatile() == device
    }
}
