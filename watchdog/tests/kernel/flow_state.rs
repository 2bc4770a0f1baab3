//! Flow state: when a connection ended, and by whom.

use std::{io::Read as _, process::Command};

use watchdog_common::layout::{
    CLOSE_EXIT, CLOSE_OWN, CLOSE_PEER_FIN, CLOSE_PEER_RESET, SLOT_DEAD, SLOT_LIVE,
};

use crate::{
    bed::{Bed, End, FLOWS, Pair, here},
    harness::process::Child,
};

const ONLY: &[&str] = &["flow_start", "flow_state"];

#[test]
fn who_closes_and_who_is_left_are_told_apart() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let Pair { holder, grantor } = bed.pair();
    let (left, closed) = (grantor.cookie, holder.cookie);
    let open = bed.slot(closed).expect("a slot");
    assert_eq!((open.life.how, open.life.closed_ns), (0, 0));
    drop(holder);
    let own = bed.until(closed, "closed", |slot| slot.life.closed_ns != 0);
    assert_eq!(own.life.how, CLOSE_OWN);
    let peer = bed.until(left, "closed", |slot| slot.life.closed_ns != 0);
    assert_eq!(peer.life.how, CLOSE_PEER_FIN);
    assert_eq!(peer.state, SLOT_LIVE, "this end is open still");
    assert!(own.life.opened_ns < own.life.closed_ns);
    drop(grantor);
    for cookie in [closed, left] {
        bed.until(cookie, "dead", |slot| slot.state == SLOT_DEAD);
    }
    // The later close changes nothing of how it ended.
    assert_eq!(
        bed.slot(left).expect("a slot").life.closed_ns,
        peer.life.closed_ns
    );
}

/// The kernel skips a program that is on this CPU already: then the state change is not told.
#[test]
fn a_socket_that_is_gone_leaves_no_slot_though_its_state_was_missed() {
    let Some(bed) = Bed::with(here!(), &["flow_start", "flow_end"]) else {
        return;
    };
    let Pair { holder, grantor } = bed.pair();
    let cookies = [holder.cookie, grantor.cookie];
    drop(holder);
    drop(grantor);
    for cookie in cookies {
        let gone = bed.until(cookie, "dead", |slot| slot.state == SLOT_DEAD);
        assert_eq!(gone.life.how, CLOSE_OWN);
        assert!(gone.life.opened_ns < gone.life.closed_ns);
    }
}

#[test]
fn a_reset_is_told_from_a_fin() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let Pair { holder, grantor } = bed.pair();
    let (reset, hit) = (holder.cookie, grantor.cookie);
    holder.reset();
    let own = bed.until(reset, "dead", |slot| slot.state == SLOT_DEAD);
    assert_eq!(own.life.how, CLOSE_OWN);
    let peer = bed.until(hit, "dead", |slot| slot.state == SLOT_DEAD);
    assert_eq!(peer.life.how, CLOSE_PEER_RESET);
}

/// A process that has a connection to the listener, and a child that keeps it alive or not.
fn connected_process(bed: &Bed, then: &str) -> (Child, End) {
    let mut command = Command::new("bash");
    let port = bed.port;
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; {then}");
    command.args(["-c", &script]);
    let child = Child::start(command);
    let (stream, _) = bed.listener.accept().expect("it connects");
    (child, End::of(stream))
}

/// The slot of the other end, which belongs to another process.
fn other_end(bed: &Bed, end: &End) -> u64 {
    let port = end.stream.peer_addr().expect("connected").port();
    let flows = &bed.kernel.state.flows;
    (0..flows.len())
        .filter_map(|index| flows.at(index))
        // SAFETY: a mapped slot whose identity does not change.
        .map(|slot| unsafe { slot.read_volatile() })
        .find(|slot| slot.state != 0 && slot.local_port == port)
        .expect("a slot at the other end")
        .cookie
}

#[test]
fn an_exit_is_told_from_a_close() {
    let Some(bed) = Bed::with(here!(), ONLY) else {
        return;
    };
    let (mut killed, left) = connected_process(&bed, "read -r");
    let cookie = other_end(&bed, &left);
    killed.kill();
    let slot = bed.until(cookie, "closed", |slot| slot.life.closed_ns != 0);
    assert_eq!(slot.life.how, CLOSE_EXIT, "killed");
    let peer = bed.until(left.cookie, "closed", |slot| slot.life.closed_ns != 0);
    assert_eq!(peer.life.how, CLOSE_PEER_FIN);

    let (mut child, left) = connected_process(&bed, "read -r <&3; exit 3");
    let cookie = other_end(&bed, &left);
    left.send(b"go\n");
    let status = child.wait_exit(crate::bed::SOON).expect("it exits");
    assert_eq!(status.code(), Some(3));
    let slot = bed.until(cookie, "closed", |slot| slot.life.closed_ns != 0);
    assert_eq!(slot.life.how, CLOSE_EXIT, "exited by itself");

    // The same process closes and lives on.
    let (_child, left) = connected_process(&bed, "exec 3<&-; read -r");
    (&left.stream)
        .read_exact(&mut [0])
        .expect_err("the end of the stream");
    let port = left.stream.peer_addr().expect("connected").port();
    let cookie = other_end(&bed, &left);
    let slot = bed.until(cookie, "closed", |slot| slot.life.closed_ns != 0);
    assert_eq!(slot.local_port, port);
    assert_eq!(slot.life.how, CLOSE_OWN);
}

/// More of them than the kernel side has room to remember at once: what is noted of a refused socket goes
/// with it.
#[test]
fn a_refused_flow_gets_no_slot_again_and_what_is_noted_of_it_ends_with_it() {
    const SIGNALS: &[&str] = &[
        "flow_start",
        "packets_in",
        "packets_out",
        "flow_state",
        "flow_end",
    ];
    let Some(mut bed) = Bed::with(here!(), SIGNALS) else {
        return;
    };
    for _ in 0..2 * FLOWS {
        let Pair { holder, grantor } = bed.pair();
        bed.refuse(holder.cookie);
        bed.refuse(grantor.cookie);
        holder.send(b"hello");
        let mut room = [0; 5];
        (&grantor.stream).read_exact(&mut room).expect("it is sent");
        // Whoever has read it knows that its packet has passed both ends.
        for end in [&holder, &grantor] {
            assert!(bed.slot(end.cookie).is_none(), "it has a slot again");
        }
        holder.reset();
    }
    let Pair { holder, grantor } = bed.pair();
    for end in [&holder, &grantor] {
        assert!(bed.slot(end.cookie).is_some(), "no room for a new one");
    }
}
