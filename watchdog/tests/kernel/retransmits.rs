//! Retransmits: what TCP sends again is counted, and that it got through at last.

use std::{net::Ipv4Addr, process::Command};

use watchdog_common::zookeeper::XID_WATCH;

use crate::{
    bed::{Bed, End, here},
    harness::{
        faults::Namespace,
        process::{self, Child},
    },
    inputs::{connected, reply},
};

const ONLY: &[&str] = &["flow_start", "packets_in", "packets_out", "retransmits"];

/// The namespace takes nothing in; undone when dropped.
struct Deaf<'a>(&'a Namespace);

impl<'a> Deaf<'a> {
    fn new(namespace: &'a Namespace) -> Self {
        let deaf = Self(namespace);
        deaf.nft("add table inet deaf");
        deaf.nft("add chain inet deaf in { type filter hook input priority 0 ; policy drop ; }");
        deaf
    }

    fn nft(&self, rule: &str) {
        let [ip, words @ ..] = self.0.enter();
        process::run(ip, &[&words[..], &["nft", rule]].concat());
    }
}

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.nft("delete table inet deaf");
    }
}

#[test]
fn what_is_sent_again_is_counted_until_it_is_acknowledged() {
    if Command::new("nft").arg("--version").output().is_err() {
        crate::bed::skip(here!(), "nft is not installed: `cargo xtask setup`");
        return;
    }
    let Some(bed) = Bed::at(here!(), ONLY, (Ipv4Addr::UNSPECIFIED, 0).into()) else {
        return;
    };
    let namespace = Namespace::create();
    let [ip, words @ ..] = namespace.enter();
    let mut command = Command::new(ip);
    command.args(words).args(["bash", "-c"]).arg(format!(
        "exec 3<>/dev/tcp/{}/{}; cat <&3",
        namespace.node_address, bed.port
    ));
    let _holder = Child::start(command);
    let grantor = End::of(bed.listener.accept().expect("it connects").0);
    grantor.send(&connected(6_000, 7));
    let healthy = bed.until(grantor.cookie, "an acknowledgement", |slot| {
        slot.life.acked_known == 1 && slot.life.acked_seq == slot.replies.edge_seq
    });
    assert_eq!(healthy.life.retransmits, 0);

    let deaf = Deaf::new(&namespace);
    grantor.send(&reply(XID_WATCH, 0, 30));
    let lost = bed.until(grantor.cookie, "two retransmissions", |slot| {
        slot.life.retransmits >= 2
    });
    assert_eq!(lost.life.acked_seq, healthy.life.acked_seq);
    assert_ne!(lost.replies.edge_seq, healthy.replies.edge_seq);
    assert!(lost.life.retransmit_ns > lost.replies.newest_ns);
    assert_eq!(lost.life.retransmits_at_ack, 0);
    assert_eq!(
        lost.replies.lost_syncs, 0,
        "bytes that come again are no new ones"
    );

    drop(deaf);
    let mended = bed.until(grantor.cookie, "an acknowledgement", |slot| {
        slot.life.acked_seq == slot.replies.edge_seq
    });
    assert_eq!(mended.life.retransmits_at_ack, mended.life.retransmits);
    assert!(mended.life.retransmits >= 2);
}
