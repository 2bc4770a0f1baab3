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

/// So many pairs of threads that hand each other a byte for ever: two context switches each time.
pub fn switches(pairs: &str) -> ! {
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
