//! Consul's renewals on a host, in any split.

#[expect(dead_code, reason = "shared with the tests of other protocols")]
mod inputs;

use inputs::{Flow, START, cut};
use proptest::prelude::*;
use watchdog_common::layout::{EntryShape, PROTOCOL_CONSUL};

const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

fn consul() -> EntryShape {
    EntryShape {
        protocol: PROTOCOL_CONSUL,
        ..EntryShape::default()
    }
}

fn put(verb: &str, id: &str) -> Vec<u8> {
    format!("PUT /v1/session/{verb}/{id} HTTP/1.1\r\nHost: consul\r\nContent-Length: 0\r\n\r\n")
        .into()
}

fn status(status: u32) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n[]").into()
}

proptest! {
    #[test]
    fn any_split_tells_renewals_from_all_else(
        cuts in prop::collection::vec(any::<usize>(), 0..40),
        holder in any::<bool>(),
    ) {
        let flow = if holder { Flow::started() } else { Flow::accepted() };
        let mut flow = flow.of(consul());
        let (mut to, mut from) = (START, START);
        let mut exchange = |flow: &mut Flow, ask: Vec<u8>, tell: Vec<u8>| {
            for (at, part) in cut(&ask, &cuts) {
                flow.request(to.wrapping_add(at.wrapping_sub(START)), &part);
            }
            to = to.wrapping_add(ask.len() as u32);
            for (at, part) in cut(&tell, &cuts) {
                flow.reply(from.wrapping_add(at.wrapping_sub(START)), &part);
            }
            from = from.wrapping_add(tell.len() as u32);
            flow.slot.replies.answers
        };
        let other = b"GET /v1/kv/some/key?recurse HTTP/1.1\r\nHost: consul\r\n\r\n".to_vec();
        prop_assert_eq!(exchange(&mut flow, other.clone(), status(200)), 0);
        prop_assert_eq!(exchange(&mut flow, put("renew", ID), status(200)), 1);
        prop_assert_eq!(flow.slot.requests.handshake.session, 0xadf4_238a_882b_9ddc);
        prop_assert_eq!(flow.slot.replies.ending_ns, 0);
        prop_assert_eq!(exchange(&mut flow, other, status(404)), 1);
        prop_assert_eq!(flow.slot.replies.ending_ns, 0, "another request was not found");
        prop_assert_eq!(exchange(&mut flow, put("renew", &ID.to_uppercase()), status(404)), 2);
        prop_assert_eq!(flow.slot.requests.handshake.session, 0xadf4_238a_882b_9ddc);
        prop_assert_ne!(flow.slot.replies.ending_ns, 0);
        prop_assert_eq!(exchange(&mut flow, put("destroy", ID), status(200)), 2);
        prop_assert_ne!(flow.slot.requests.ending_ns, 0);
    }

    #[test]
    fn garbage_neither_panics_nor_answers_what_was_not_asked(
        segments in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 1..40),
    ) {
        let mut flow = Flow::middle().of(consul());
        for (seq, requests, bytes) in segments {
            flow.feed(requests, seq, &bytes);
            prop_assert!(flow.slot.replies.answers <= flow.slot.requests.messages);
        }
    }
}
