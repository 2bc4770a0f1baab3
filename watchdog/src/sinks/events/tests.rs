//! Golden lines: what is written here is what readers out there rely on.

use watchdog_model::causes::collected::{Doing, Part};
use watchdog_model::causes::text::{Label, Text};
use watchdog_model::causes::{CauseSet, Side};
use watchdog_model::leases::note::Condition;
use watchdog_model::leases::observation::{CloseHow, Role, TimeoutSource};

use super::*;
use crate::sinks::incidents::Thing;
use crate::sinks::samples::{Sample, comm, gone, subject};

const AT: Mono = Mono(4_123_456_789);

fn note(note: &Note) -> String {
    Renderer::in_test().note(AT, note, Some(IncidentId(7)))
}

#[test]
fn a_transition_as_designed() {
    let mut renderer = Renderer::in_test();
    let sample = Sample::late(0x0300_1e64_7d60_0030)
        .pid(138_783)
        .from(Stage::Late)
        .to(Outcome::Stage(Stage::AtRisk))
        .condition(Condition::ThreadStalled, Mono(1_123_456_789))
        .cause(Cause::ProcessStopped)
        .stopped(Side::Own);
    assert_eq!(
        renderer.note(AT, &sample.note(), Some(IncidentId(7))),
        concat!(
            r#"{"ts":"2026-11-24T10:00:04.123456Z","mono_us":4123456,"event":"transition","#,
            r#""lease":"zookeeper","id":"0x3001e647d600030","role":"holder","#,
            r#""from":"late","to":"at_risk","condition":"thread_stalled","#,
            r#""cause":"process_stopped","incident":"7","#,
            r#""summary":"zookeeper session 0x3001e647d600030: 8.0 s left of 12.0 s; renewal due now; thread meta/138783 stopped for 3.0 s","#,
            r#""evidence":[{"fact":"thread_state","side":"own","tid":138783,"comm":"meta","state":"T","for_ms":3000}],"#,
            r#""timeout_ms":12000,"timeout_source":"handshake","remaining_ms":8000,"silent_ms":4000,"#,
            r#""local":"10.10.10.161:40222","peer":"10.10.10.163:2181","pid":138783,"comm":"meta","cgroup":"/system.slice/meta.service"}"#,
            "\n"
        )
    );
}

#[test]
fn a_container_is_named_where_there_is_one() {
    let sample = Sample::late(1).pid(7).stopped(Side::Own);
    let line = note(&sample.note());
    assert!(
        line.ends_with(concat!(
            r#""cgroup":"/system.slice/meta.service","inner_pid":1,"unit":"meta.service","#,
            r#""container":"0123","pod":"prod/meta-0"}"#,
            "\n"
        )),
        "{line}"
    );
}

#[test]
fn what_is_not_known_is_null() {
    let mut sample = Sample::late(1).to(Outcome::Renewed).from(Stage::Late);
    sample.0.condition = Condition::None;
    sample.0.remaining_ns = None;
    sample.0.silent_ns = None;
    sample.0.subject.timeout_ns = None;
    let line = Renderer::in_test().note(AT, &sample.note(), None);
    assert_eq!(
        line.split_once(r#""from""#).unwrap().1,
        concat!(
            r#":"late","to":"renewed","condition":null,"cause":null,"incident":null,"#,
            r#""summary":"zookeeper session 0x1: renewed, was late","evidence":[],"#,
            r#""timeout_ms":null,"timeout_source":null,"remaining_ms":null,"silent_ms":null,"#,
            r#""local":"10.10.10.161:40222","peer":"10.10.10.163:2181","pid":null,"comm":null,"cgroup":null}"#,
            "\n"
        )
    );
}

#[test]
fn remaining_time_is_never_rounded_up() {
    let mut sample = Sample::late(1);
    sample.0.remaining_ns = Some(-1);
    assert!(note(&sample.note()).contains(r#""remaining_ms":-1,"#));
}

#[test]
fn every_fact_is_an_object() {
    let sample = Sample::late(1)
        .fact(Fact::Unanswered { for_ns: 1_000_000 })
        .fact(Fact::Unread {
            side: Side::Peer,
            for_ns: 2_000_000,
        })
        .fact(Fact::Silent { for_ns: 3_000_000 })
        .fact(Fact::Unacknowledged {
            for_ns: 4_000_000,
            retransmits: 5,
        })
        .fact(Fact::FlowClosed {
            how: CloseHow::PeerReset,
            for_ns: 6_000_000,
        });
    let line = note(&sample.note());
    let evidence = concat!(
        r#""evidence":[{"fact":"unanswered","for_ms":1},{"fact":"unread","side":"peer","for_ms":2},"#,
        r#"{"fact":"silent","for_ms":3},{"fact":"unacknowledged","for_ms":4,"retransmits":5},"#,
        r#"{"fact":"flow_closed","how":"peer_reset","for_ms":6}],"#
    );
    assert!(line.contains(evidence), "{line}");
}

#[test]
fn every_gathered_fact_is_an_object() {
    let label = |name: &str| Label::end_of(name.as_bytes());
    let side = Side::Own;
    let pairs = [
        (
            Fact::ThreadWaits {
                side,
                part: Part::Serving,
                tid: 7,
                comm: comm(b"meta"),
                doing: Doing::Uninterruptible,
                at: label("fsync of /data/log"),
            },
            r#"{"fact":"thread_waits","side":"own","part":"serving","tid":7,"comm":"meta","state":"D","at":"fsync of /data/log"}"#,
        ),
        (
            Fact::Device {
                side,
                name: Text::end_of(b"sda"),
                in_flight: 3,
                silent_ns: 4_000_000,
                oldest_ns: 5_000_000,
                committing_ns: 0,
            },
            r#"{"fact":"device","side":"own","device":"sda","in_flight":3,"silent_ms":4,"oldest_ms":5,"committing_ms":null}"#,
        ),
        (
            Fact::Frozen {
                side,
                cgroup: label("/a"),
            },
            r#"{"fact":"cgroup_frozen","side":"own","cgroup":"/a"}"#,
        ),
        (
            Fact::Throttled {
                side,
                cgroup: label("/a"),
                throttled_ns: 1_000_000,
                over_ns: 2_000_000,
            },
            r#"{"fact":"cgroup_throttled","side":"own","cgroup":"/a","throttled_ms":1,"over_ms":2}"#,
        ),
        (
            Fact::CpuTime {
                side,
                tid: 7,
                ran_ns: 1_000_000,
                waited_ns: 2_000_000,
                over_ns: 3_000_000,
            },
            r#"{"fact":"cpu_time","side":"own","tid":7,"ran_ms":1,"waited_ms":2,"over_ms":3}"#,
        ),
        (
            Fact::RunsInstead {
                side,
                tid: 9,
                comm: comm(b"hog"),
                cgroup: label("/b"),
            },
            r#"{"fact":"runs_instead","side":"own","tid":9,"comm":"hog","cgroup":"/b"}"#,
        ),
        (
            Fact::Memory {
                side,
                major_faults: 1,
                refaults: 2,
                pressure_ns: 3_000_000,
                over_ns: 4_000_000,
            },
            r#"{"fact":"memory","side":"own","major_faults":1,"refaults":2,"pressure_ms":3,"over_ms":4}"#,
        ),
        (
            Fact::WaitsForSocket {
                side,
                peer: "192.0.2.53:53".parse().unwrap(),
            },
            r#"{"fact":"waits_for_socket","side":"own","peer":"192.0.2.53:53"}"#,
        ),
        (
            Fact::Tcp {
                unacked: 1,
                unsent_bytes: 2,
                send_window: 3,
                rto_ns: 4_000_000,
            },
            r#"{"fact":"tcp","unacked_segments":1,"unsent_bytes":2,"send_window_bytes":3,"rto_ms":4}"#,
        ),
        (
            Fact::NodePaused {
                for_ns: 1_000_000,
                steal_ns: 2_000_000,
            },
            r#"{"fact":"node_paused","for_ms":1,"steal_ms":2}"#,
        ),
        (
            Fact::RuledOut {
                causes: CauseSet::default()
                    .with(Cause::LockWait)
                    .with(Cause::DiskStall),
            },
            r#"{"fact":"ruled_out","causes":["disk_stall","lock_wait"]}"#,
        ),
    ];
    for (fact, expected) in pairs {
        let line = note(&Sample::late(1).fact(fact).note());
        assert!(
            line.contains(&format!(r#""evidence":[{expected}],"#)),
            "{line}"
        );
    }
}

#[test]
fn seen_and_gone() {
    let mut subject = subject(0xa);
    subject.timeout_source = TimeoutSource::Config;
    let was = LeaseId::Flow {
        local: subject.endpoints.local,
        peer: subject.endpoints.peer,
    };
    let seen = |was| note(&Note::Seen { subject, was });
    let head = r#"{"ts":"2026-11-24T10:00:04.123456Z","mono_us":4123456,"event":"lease_seen","lease":"zookeeper","id":"0xa","role":"holder","#;
    let tail = concat!(
        r#""timeout_ms":12000,"timeout_source":"config","local":"10.10.10.161:40222","#,
        r#""peer":"10.10.10.163:2181","pid":null,"comm":null,"cgroup":null}"#,
        "\n"
    );
    assert_eq!(seen(None), format!("{head}{tail}"));
    assert_eq!(
        seen(Some(was)),
        format!(r#"{head}"was":"10.10.10.161:40222>10.10.10.163:2181",{tail}"#)
    );
    assert_eq!(
        note(&gone(0xa, GoneReason::FlowLost)),
        concat!(
            r#"{"ts":"2026-11-24T10:00:04.123456Z","mono_us":4123456,"event":"lease_gone","#,
            r#""lease":"zookeeper","id":"0xa","role":"holder","reason":"flow_lost","#,
            r#""local":"10.10.10.161:40222","peer":"10.10.10.163:2181","pid":null,"comm":null,"cgroup":null}"#,
            "\n"
        )
    );
}

#[test]
fn a_false_expiry() {
    let line = note(&Note::FalseExpiry(FalseExpiry {
        subject: subject(0xa),
        arrived_at: Mono(1_000_000_000),
        read_at: None,
        expired_at: Mono(3_500_000_000),
        verdict: Verdict {
            cause: Cause::DiskStall,
            ..Verdict::UNKNOWN
        },
    }));
    let expected = concat!(
        r#""arrived_mono_us":1000000,"read_mono_us":null,"expired_mono_us":3500000,"#,
        r#""cause":"disk_stall","incident":"7","#,
        r#""summary":"zookeeper session 0xa: expired by its server although the renewal had arrived 2.5 s before and was never read; waits for a disk that completes nothing","#,
        r#""evidence":[],"timeout_ms":12000,"#
    );
    assert!(line.contains(expected), "{line}");
}

fn change() -> Change {
    Change {
        id: IncidentId(7),
        cause: Cause::ProcessStopped,
        thing: Thing::Process(138_783),
        comm: Some(comm(b"meta")),
        leases: 3,
        expired: 0,
        worst: LeaseId::Session(0xa),
        entry: 0,
        stage: Stage::AtRisk,
        joined: None,
    }
}

#[test]
fn an_incident_and_its_alert() {
    let renderer = Renderer::in_test();
    let head = r#"{"ts":"2026-11-24T10:00:04.123456Z","mono_us":4123456,"event":"#;
    let body = r#""incident":"7","leases":3,"worst":"0xa","stage":"at_risk","cause":"process_stopped","thing":"process meta/138783","#;
    let what = "process meta/138783: the process is stopped; 3 leases, worst zookeeper session 0xa";
    assert_eq!(
        renderer.incident(AT, &change(), State::Grown),
        format!(
            "{head}\"incident\",\"state\":\"grown\",{body}\"expired\":0,\"summary\":\"{what}, at_risk\"}}\n"
        )
    );
    assert_eq!(
        renderer.alert(
            AT,
            &change(),
            AlertFields {
                state: crate::sinks::alerts::message::State::Firing,
                on: Stage::AtRisk,
                node: "n1",
                key: "n1/k",
                role: Role::Holder,
                remaining_ns: Some(3_999_999_999),
            }
        ),
        format!(
            "{head}\"alert\",\"state\":\"firing\",\"on\":\"at_risk\",{body}\"expired\":0,\"summary\":\"{what}, at_risk\",\"node\":\"n1\",\"key\":\"n1/k\",\"lease\":\"zookeeper\",\"role\":\"holder\",\"remaining_ms\":3999}}\n"
        )
    );
    let closed = Change {
        expired: 1,
        ..change()
    };
    assert_eq!(
        renderer.incident(AT, &closed, State::Closed),
        format!(
            "{head}\"incident\",\"state\":\"closed\",{body}\"expired\":1,\"summary\":\"over, 1 expired: {what}, was at_risk\"}}\n"
        )
    );
    let joined = Change {
        joined: Some(IncidentId(2)),
        ..change()
    };
    assert_eq!(
        renderer.incident(AT, &joined, State::Closed),
        format!(
            "{head}\"incident\",\"state\":\"closed\",{body}\"expired\":0,\"joined\":\"2\",\"summary\":\"part of incident 2 now: {what}, was at_risk\"}}\n"
        )
    );
}

#[test]
fn what_the_daemon_says_of_itself() {
    let renderer = Renderer::in_test();
    let head = r#"{"ts":"2026-11-24T10:00:04.123456Z","mono_us":4123456,"event":"#;
    assert_eq!(
        renderer.stalled(AT, Mono(1_000_000_000), Mono(2_500_000_000)),
        format!("{head}\"stalled\",\"for_ms\":1500}}\n")
    );
    assert_eq!(
        renderer.dropped(AT, Lost::Note, 12, Mono(2_000_000)),
        format!("{head}\"dropped\",\"what\":\"note\",\"count\":12,\"since_mono_us\":2000}}\n")
    );
    let started = Started {
        version: "0.1.0".to_owned(),
        kernel: "6.1.0".to_owned(),
        attached: vec![Attached {
            signal: "packets".to_owned(),
            hook: "cgroup_skb".to_owned(),
        }],
        refused: vec![Refused {
            signal: "writes".to_owned(),
            hook: "tp_btf sock_send_length".to_owned(),
            why: "not in this kernel".to_owned(),
        }],
        timeout_sources: vec!["handshake", "config"],
        real_time: true,
        priority: crate::priority::Granted::RealTime,
        memory_locked: false,
        http: Some("127.0.0.1:34567".parse().unwrap()),
        scope: ScopeSaid {
            cgroup: "/pods".to_owned(),
            netns: None,
        },
        programs: "5.17",
    };
    assert_eq!(
        renderer.started(AT, &started),
        format!(
            "{head}{}\n",
            concat!(
                r#""started","version":"0.1.0","kernel":"6.1.0","#,
                r#""attached":[{"signal":"packets","hook":"cgroup_skb"}],"#,
                r#""refused":[{"signal":"writes","hook":"tp_btf sock_send_length","why":"not in this kernel"}],"#,
                r#""timeout_sources":["handshake","config"],"real_time":true,"priority":"real_time","memory_locked":false,"http":"127.0.0.1:34567","#,
                r#""scope":{"cgroup":"/pods","netns":null},"programs":"5.17"}"#
            )
        )
    );
}

#[test]
fn wall_time_is_that_of_the_moment_and_not_of_the_line() {
    let now = crate::tick::clock();
    let second = Duration::from_secs(1);
    let apart = wall_clock(now)
        .duration_since(wall_clock(now.minus(1_000_000_000)))
        .unwrap();
    // The two calls differ by what lies between the readings of the two clocks.
    assert!(
        apart.abs_diff(second) < Duration::from_millis(500),
        "{apart:?}"
    );
}
