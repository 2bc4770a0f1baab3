//! Reads: how far the application has read, when, after how long, and which thread; a look that
//! takes nothing is no read.

use std::io::Read as _;

use crate::{
    bed::{Bed, here, tid},
    inputs::{connect, connected},
};

const ONLY: &[&str] = &["flow_start", "packets_in", "packets_out", "reads"];

#[test]
fn what_lies_unread_shows_and_a_read_by_any_thread_ends_it() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    let hello = connect(6_000, 0);
    pair.holder.send(&hello);
    let grantor = pair.grantor.cookie;
    let unread = bed.until(grantor, "an arrival", |slot| slot.requests.messages == 1);
    assert_eq!(unread.reads.reads, 0);
    assert_eq!(
        unread.reads.read_seq.wrapping_add(hello.len() as u32),
        unread.requests.newest_end_seq
    );

    // A look takes nothing.
    let mut room = vec![0; hello.len()];
    assert_eq!(
        pair.grantor.stream.peek(&mut room).expect("it lies there"),
        room.len()
    );
    assert_eq!(room, hello);
    let looked = bed.slot(grantor).expect("a slot");
    assert_eq!(looked.reads.read_seq, unread.reads.read_seq);
    assert_eq!((looked.reads.reads, looked.reads.servers), (0, 0));

    // Half a message is not the message.
    (&pair.grantor.stream)
        .read_exact(&mut room[..10])
        .expect("it lies there");
    let half = bed.slot(grantor).expect("a slot");
    assert_eq!(half.reads.read_seq, unread.reads.read_seq.wrapping_add(10));
    assert_eq!((half.reads.reads, half.reads.read_ns), (0, 0));

    let reader = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            (&pair.grantor.stream)
                .read_exact(&mut room[10..])
                .expect("it lies there");
            tid()
        });
        reading.join().expect("it reads")
    });
    let read = bed.slot(grantor).expect("a slot");
    assert_eq!(read.reads.read_seq, read.requests.newest_end_seq);
    assert_eq!((read.reads.reads, read.reads.servers), (1, 1));
    assert_eq!(read.reads.threads[0], reader);
    assert_ne!(reader, tid(), "another thread than this one");
    assert_eq!(read.owner, std::process::id());
    assert_eq!(
        read.reads.wait_ns,
        read.reads.read_ns - unread.requests.unread_at_ns
    );
}

#[test]
fn a_reply_that_is_read_at_the_holder_is_credited_once() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    pair.holder.send(&connect(6_000, 0));
    let back = connected(6_000, 7);
    pair.grantor.send(&back);
    let holder = pair.holder.cookie;
    bed.until(holder, "an arrival", |slot| slot.replies.messages == 1);
    // As the C client does: four bytes, then the rest.
    let mut room = vec![0; back.len()];
    for part in [0..4, 4..back.len()] {
        (&pair.holder.stream)
            .read_exact(&mut room[part])
            .expect("it lies there");
    }
    let slot = bed.slot(holder).expect("a slot");
    assert_eq!(slot.reads.reads, 1);
    assert_eq!(slot.reads.read_seq, slot.replies.newest_end_seq);
    // The other end has read nothing.
    assert_eq!(
        bed.slot(pair.grantor.cookie).expect("a slot").reads.reads,
        0
    );
}

#[test]
fn an_empty_socket_that_is_asked_says_nothing() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let pair = bed.pair();
    pair.grantor
        .stream
        .set_nonblocking(true)
        .expect("a socket option");
    let mut room = [0; 4];
    let asked = (&pair.grantor.stream).read(&mut room);
    assert_eq!(
        asked.expect_err("nothing lies there").kind(),
        std::io::ErrorKind::WouldBlock
    );
    let slot = bed.slot(pair.grantor.cookie).expect("a slot");
    assert_eq!((slot.reads.reads, slot.reads.servers), (0, 0));
}
