//! Programs that take the node away from others, until they are killed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// So many threads that compute.
pub fn crowd(count: &str) -> ! {
    many(count, |_| {
        loop {
            std::hint::spin_loop();
        }
    })
}

/// So many pairs of threads that hand each other a byte for ever: two context switches each time. They
/// have the shortest slice, so that they run before others of their weight.
pub fn switches(pairs: &str) -> ! {
    // struct sched_attr (sched_setattr(2)) at its first size: SCHED_OTHER, the nice value that there is,
    // and a slice in ns. What starts from here has it too.
    let mut attr = [0_u8; 48];
    attr[0] = 48;
    attr[16..20].copy_from_slice(&(-20_i32).to_ne_bytes());
    attr[24..32].copy_from_slice(&100_000_u64.to_ne_bytes());
    // SAFETY: a structure of the size that it names; 0 is the calling thread. A refusal makes it a
    // lighter load, which is told.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, attr.as_ptr(), 0) };
    many(pairs, |_| {
        let (mut here, mut there) = UnixStream::pair().expect("a pair of sockets");
        std::thread::spawn(move || {
            let mut byte = [0];
            while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
        });
        let mut byte = [0];
        while here.write_all(&byte).is_ok() && here.read_exact(&mut byte).is_ok() {}
    })
}

/// So many threads that write and fsync, a file each.
pub fn fsyncs(file: &str, count: &str) -> ! {
    let file = file.to_owned();
    many(count, move |number| {
        let mut file = File::create(format!("{file}-{number}")).expect("a file");
        for round in 0_u64.. {
            if round % 256 == 0 {
                file.set_len(0).expect("an open file");
            }
            file.write_all(&[b'x'; 16_384]).expect("room");
            file.sync_all().expect("an open file");
        }
    })
}

/// Holds so many MiB of its own, and reads a file of 160 MiB again and again.
pub fn squeezed(file: &str, mib: &str) -> ! {
    let mib: usize = mib.parse().expect("MiB");
    let chunk = vec![b'x'; 1 << 20];
    let mut written = File::create(file).expect("a file");
    for _ in 0..160 {
        written.write_all(&chunk).expect("room");
    }
    written.sync_all().expect("an open file");
    let mut held = vec![1_u8; mib << 20];
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut read = File::open(file).expect("it was just written");
        while read.read(&mut buffer).is_ok_and(|length| length > 0) {}
        for page in held.chunks_mut(4096) {
            page[0] = page[0].wrapping_add(1);
        }
    }
}

fn many(count: &str, run: impl Fn(usize) + Clone + Send + 'static) -> ! {
    let count: usize = count.parse().expect("a count");
    for number in 0..count {
        let run = run.clone();
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || run(number))
            .expect("room for threads");
    }
    loop {
        std::thread::park();
    }
}
