//! Writes: how far the application has written, and which thread; with the peer's window shut
//! that is further than what was sent.

use std::io::{Read as _, Write as _};

use crate::{
    bed::{Bed, SOON, here, tid},
    harness::clock,
    inputs::{connect, request},
};

const ONLY: &[&str] = &["flow_start", "packets_out", "writes"];

#[test]
fn with_an_open_window_all_that_was_written_is_sent() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    let writer = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            pair.holder.send(&connect(6_000, 0));
            tid()
        });
        writing.join().expect("it writes")
    });
    let slot = bed.slot(pair.holder.cookie).expect("a slot");
    assert_eq!(slot.writes.writes, 1);
    assert_eq!(slot.writes.write_seq, slot.requests.edge_seq);
    assert!(slot.writes.write_ns >= slot.requests.newest_ns);
    assert_eq!((slot.writes.servers, slot.writes.threads[0]), (1, writer));
    assert_ne!(writer, tid(), "another thread than this one");
    assert_eq!(slot.owner, std::process::id());
    let other = bed.slot(pair.grantor.cookie).expect("a slot");
    assert_eq!(other.writes.writes, 0);
}

#[test]
fn with_a_shut_window_what_was_written_stays_behind_until_it_opens() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    pair.holder.send(&connect(6_000, 0));
    pair.holder
        .stream
        .set_nonblocking(true)
        .expect("a socket option");
    let bulk = request(1, 5, 60_000);
    let mut written = connect(6_000, 0).len();
    loop {
        match (&pair.holder.stream).write(&bulk) {
            Ok(taken) => written += taken,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("writing: {error}"),
        }
    }
    let shut = bed.slot(pair.holder.cookie).expect("a slot");
    let begin = bed.slot(pair.holder.cookie).expect("a slot").life.acked_seq;
    let unsent = shut.writes.write_seq.wrapping_sub(shut.requests.edge_seq) as i32;
    assert!(unsent > 0, "{unsent} bytes wait");
    assert_ne!(shut.writes.unsent_at_ns, 0);
    assert!(shut.writes.unsent_at_ns <= shut.writes.write_ns);
    assert_eq!(
        shut.writes.write_seq.wrapping_sub(begin),
        written as u32,
        "counted from the first byte, since without packets_in nothing is known to be acknowledged"
    );

    let mut room = vec![0; 1 << 16];
    let mut left = written;
    while left > 0 {
        left -= (&pair.grantor.stream).read(&mut room).expect("it comes");
    }
    let opened = clock::poll(SOON, || {
        let slot = bed.slot(pair.holder.cookie)?;
        (slot.writes.write_seq == slot.requests.edge_seq).then_some(slot)
    });
    let opened = opened.expect("all is sent");
    // Nothing was written meanwhile: what moved is what was sent.
    assert_eq!(opened.writes.write_seq, shut.writes.write_seq);
    assert_eq!(opened.writes.writes, shut.writes.writes);
}
