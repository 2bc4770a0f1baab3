use super::*;

const S: u64 = 1_000_000;
const C: SessionId = SessionId(1);
const JAVA: SessionId = SessionId(2);
const BUSY: SessionId = SessionId(3);
const FROZEN: u64 = 10 * S;
const EXPIRED: u64 = 16 * S;
const SERVER_FROZEN: u64 = 20 * S;
const THAWED: u64 = 23 * S;

/// The daemon's share of the demo; `None` for one that says nothing.
struct Daemon {
    seen: bool,
    /// What it says of the frozen client: stage, cause, when.
    frozen_client: Vec<(&'static str, &'static str, u64)>,
    /// What it says of the others while the server is frozen: role, side, cause.
    frozen_server: Option<(&'static str, &'static str, &'static str)>,
    renews: bool,
}

impl Daemon {
    fn good() -> Self {
        Self {
            seen: true,
            frozen_client: vec![
                ("late", "process_stopped", FROZEN + S),
                ("at_risk", "process_stopped", FROZEN + 2 * S),
            ],
            frozen_server: Some(("holder", "peer", "process_stopped")),
            renews: true,
        }
    }
}

fn transition(s: &mut Story, id: SessionId, role: &str, to: &str, more: &str, at: u64) {
    let text = format!(
        r#"{{"event":"transition","mono_us":{at},"id":"{id}","role":"{role}","to":"{to}"{more}}}"#
    );
    s.daemon_said(&serde_json::from_str(&text).unwrap(), at + 100);
}

fn play(daemon: &Daemon) -> Story {
    let mut s = Story::default();
    s.server_said(&ServerLine::Listening {
        at_mono_us: 0,
        port: 1,
    });
    s.daemon_said(&serde_json::from_str(r#"{"event":"started"}"#).unwrap(), 0);
    for (client, session) in ClientKind::ALL.into_iter().zip([C, JAVA, BUSY]) {
        let (at_mono_us, timeout_ms) = (S, 6_000);
        s.server_said(&ServerLine::Opened {
            at_mono_us,
            session,
            timeout_ms,
        });
        s.client_said(
            client,
            &ClientLine::Connected {
                at_mono_us,
                session,
                timeout_ms,
            },
        );
        for role in ["holder", "grantor"].iter().filter(|_| daemon.seen) {
            let line = format!(r#"{{"event":"lease_seen","id":"{session}","role":"{role}"}}"#);
            s.daemon_said(&serde_json::from_str(&line).unwrap(), S);
        }
    }
    s.froze(Some(ClientKind::Java), FROZEN);
    for (stage, cause, at) in &daemon.frozen_client {
        let more = format!(r#","cause":"{cause}","remaining_ms":3000"#);
        transition(&mut s, JAVA, "holder", stage, &more, *at);
    }
    s.server_said(&ServerLine::Expired {
        at_mono_us: EXPIRED,
        session: JAVA,
        touched_mono_us: FROZEN - S,
        due_mono_us: EXPIRED,
    });
    s.thaws(EXPIRED + S);
    s.client_said(
        ClientKind::Java,
        &ClientLine::Expired {
            at_mono_us: EXPIRED + S,
            session: JAVA,
        },
    );
    s.froze(None, SERVER_FROZEN);
    let others = [C, BUSY];
    if let Some((role, side, cause)) = daemon.frozen_server {
        let more = format!(r#","cause":"{cause}","evidence":[{{"side":"{side}"}}]"#);
        for id in others {
            transition(&mut s, id, role, "late", &more, SERVER_FROZEN + S);
        }
    }
    s.thaws(THAWED);
    if let Some((role, ..)) = daemon.frozen_server.filter(|_| daemon.renews) {
        for id in others {
            transition(&mut s, id, role, "renewed", "", THAWED + 1_000);
        }
    }
    s
}

#[test]
fn all_seen_passes_and_the_lead_is_counted_from_the_warning_received() {
    let verdict = play(&Daemon::good()).verdict();
    assert!(verdict.passed, "{:?}", verdict.not_seen);
    let act = verdict.frozen_client.as_ref().unwrap();
    assert_eq!((act.lead_s, act.at_risk_lead_s), (Some(5.0), Some(4.0)));
    assert_eq!(
        (act.first_warning_after_s, act.at_risk_after_s),
        (Some(1.0), Some(2.0))
    );
    let lines = verdict.lines();
    assert!(
        lines[0].contains("(java): warned 5.0 s before"),
        "{lines:?}"
    );
    assert!(
        lines[0].contains("(late +1.0 s, at_risk +2.0 s after"),
        "{lines:?}"
    );
    assert!(lines[1].contains("2 of 2 sessions warned"), "{lines:?}");
}

fn missing(daemon: &Daemon) -> String {
    let verdict = play(daemon).verdict();
    assert!(!verdict.passed);
    verdict.not_seen.join("\n")
}

#[test]
fn without_the_daemons_warnings_nothing_passes_whatever_server_and_clients_say() {
    let blind = Daemon {
        seen: false,
        frozen_client: Vec::new(),
        frozen_server: None,
        renews: false,
    };
    let missing = missing(&blind);
    for what in [
        "`lease_seen` of client c as holder",
        "`lease_seen` of client busy as grantor",
        "a warning of client java's session before it expired",
        "`at_risk` or worse with cause process_stopped for client java",
        "a warning of client c while the server stood still",
        "a warning of client busy while the server stood still",
    ] {
        assert!(missing.contains(what), "{what} in:\n{missing}");
    }
}

#[test]
fn a_warning_after_the_expiry_is_none() {
    let at = ("at_risk", "process_stopped", EXPIRED);
    let missing = missing(&Daemon {
        frozen_client: vec![at],
        ..Daemon::good()
    });
    assert!(
        missing.contains("a warning of client java's session before"),
        "{missing}"
    );
}

#[test]
fn a_warning_stamped_before_the_freeze_is_not_about_it() {
    let at = ("at_risk", "process_stopped", FROZEN - 1);
    let missing = missing(&Daemon {
        frozen_client: vec![at],
        ..Daemon::good()
    });
    assert!(
        missing.contains("a warning of client java's session before"),
        "{missing}"
    );
}

#[test]
fn another_cause_is_not_enough() {
    let at = ("at_risk", "unknown", FROZEN + S);
    let missing = missing(&Daemon {
        frozen_client: vec![at],
        ..Daemon::good()
    });
    assert!(
        missing.starts_with("`at_risk` or worse with cause process_stopped"),
        "{missing}"
    );
}

#[test]
fn the_blame_must_fall_on_the_server() {
    let blamed = |said| {
        missing(&Daemon {
            frozen_server: Some(said),
            ..Daemon::good()
        })
    };
    assert!(blamed(("holder", "own", "process_stopped")).contains("blame on the server"));
    assert!(blamed(("holder", "peer", "unknown")).contains("blame on the server"));
    let own = Some(("grantor", "own", "process_stopped"));
    assert!(
        play(&Daemon {
            frozen_server: own,
            ..Daemon::good()
        })
        .verdict()
        .passed
    );
}

#[test]
fn what_was_warned_of_must_be_renewed() {
    let daemon = Daemon {
        renews: false,
        ..Daemon::good()
    };
    assert!(!play(&daemon).all_renewed());
    let missing = missing(&daemon);
    assert!(
        missing.contains("`renewed` of client c as holder"),
        "{missing}"
    );
}

#[test]
fn a_story_that_has_not_begun_misses_everything() {
    let verdict = Story::default().verdict();
    assert!(!verdict.passed);
    assert!(
        verdict
            .not_seen
            .iter()
            .any(|what| what.contains("not reached"))
    );
    assert!(
        verdict
            .lines()
            .iter()
            .any(|line| line.starts_with("FAILED"))
    );
}

#[test]
fn the_rows_count_down_by_the_daemon_while_it_warns_and_by_the_server_else() {
    let mut s = play(&Daemon::good());
    let row = |s: &Story, at| s.rows(at).swap_remove(0);
    s.server_said(&ServerLine::Touched {
        at_mono_us: 30 * S,
        session: C,
    });
    assert_eq!(row(&s, 31 * S).remaining_ms, Some(5_000.0));
    let more = r#","remaining_ms":2500,"cause":"thread_busy","summary":"head; facts""#;
    transition(&mut s, C, "grantor", "at_risk", more, 33 * S);
    let warned = row(&s, 34 * S);
    assert_eq!(
        (warned.remaining_ms, warned.stage),
        (Some(1_500.0), Some(Stage::AtRisk))
    );
    assert_eq!(warned.reason, "thread_busy  facts");
    assert_eq!(s.rows(34 * S)[1].end, Some(End::Expired(EXPIRED)));
}
