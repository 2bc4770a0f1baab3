//! Logs and recordings of two nodes whose clocks are apart: one timeline, in the right order, with the right
//! node to blame.
//!
//! The recordings are one real recording of a disk that hung under a server, taken apart into what a daemon
//! on the holders' node and what one on the server's node would have seen; the second by a clock that is
//! wrong. The logs beside them are stamped by their nodes' clocks.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use watchdog_model::leases::note::{LeaseId, Note, Subject};
use watchdog_model::leases::observation::{Endpoints, Role};

use crate::explain::report::Report;
use crate::explain::wall::{MS, SECOND, Wall};
use crate::explain::{ExplainArgs, explain, text};
use crate::recorder::Op;
use crate::recorder::format::{BlockWriter, Context, Header, Recording, beginning};

const HOLDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));
const GRANTOR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
/// Calls in a block.
const BLOCK: usize = 500;

fn real() -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/server-disk.lwr.gz");
    Recording::read(&path).unwrap()
}

fn moved(ends: Endpoints, role: Role) -> Endpoints {
    let (local, peer) = match role {
        Role::Holder => (HOLDER, GRANTOR),
        Role::Grantor => (GRANTOR, HOLDER),
    };
    Endpoints {
        local: SocketAddr::new(local, ends.local.port()),
        peer: SocketAddr::new(peer, ends.peer.port()),
    }
}

fn subject(note: &mut Note) -> &mut Subject {
    match note {
        Note::Seen { subject, .. } | Note::Gone { subject, .. } => subject,
        Note::Transition(said) => &mut said.subject,
        Note::FalseExpiry(said) => &mut said.subject,
    }
}

/// What a daemon on the node of this role would have recorded by a clock so far ahead.
fn of(role: Role, ahead: i64, name: &str, dir: &Path) -> PathBuf {
    let whole = real();
    let header = Header {
        node: name.to_owned(),
        ..whole.header
    };
    let mut context = Context {
        names: whole.context.names,
        ..Context::default()
    };
    for (at, mut flow) in whole.context.flows {
        if flow.role == role {
            flow.endpoints = moved(flow.endpoints, role);
            context.flows.push((at, flow));
        }
    }
    let mut bytes = beginning(&header, &context);
    let mut block = BlockWriter::default();
    let mut wall = 0;
    for (at, less, op) in whole.calls {
        let op = match op {
            Op::Observe {
                mut flow,
                cadence_ns,
            } if flow.role == role => {
                flow.endpoints = moved(flow.endpoints, role);
                Op::Observe { flow, cadence_ns }
            }
            Op::Said(mut note) => {
                let subject = subject(&mut note);
                if subject.role != role {
                    continue;
                }
                subject.endpoints = moved(subject.endpoints, role);
                assert!(matches!(subject.id, LeaseId::Session(_)));
                Op::Said(note)
            }
            Op::Observe { .. } => continue,
            other => other,
        };
        if less + ahead != wall || block.calls() as usize >= BLOCK {
            bytes.extend(block.close(wall).unwrap_or_default());
        }
        wall = less + ahead;
        block.push(at, &op);
    }
    bytes.extend(block.close(wall).unwrap_or_default());
    let path = dir.join(format!("{name}.lwr"));
    fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    path
}

/// When the first warning was said, by the clock of the recording.
fn first_warning() -> Wall {
    let whole = real();
    let warning = whole.calls.iter().find_map(|(at, less, op)| match op {
        Op::Said(Note::Transition(_)) => Some(i64::try_from(at.0).unwrap() + less),
        _ => None,
    });
    Wall(warning.unwrap())
}

fn stamp(at: Wall) -> String {
    format!("{} {}", at.date(), at.to_ms().time().replace('.', ","))
}

/// All of it, with the server's clock so far ahead.
fn told(ahead: i64, turned: bool) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let mut recordings = vec![
        of(Role::Holder, 0, "n7", dir.path()),
        of(Role::Grantor, ahead, "n9", dir.path()),
    ];
    let warned = first_warning();
    let server = dir.path().join("zookeeper-n9.log");
    let dropped = dir.path().join("worker-n7.log");
    // The disk hung from before the warning on for 3 s; the holder gave up a second before that was over.
    let wrote = warned.plus(2500 * MS + ahead);
    fs::write(
        &server,
        format!(
            "{} [myid:] - WARN  [SyncThread:0:o.a.z.s.p.FileTxnLog@405] - fsync-ing the write ahead log in SyncThread:0 took 3000ms which will adversely effect operation latency. See the ZooKeeper troubleshooting guide\n",
            stamp(wrote)
        ),
    )
    .unwrap();
    fs::write(
        &dropped,
        format!(
            "{} WARNING kazoo.client: Connection dropped: outstanding heartbeat ping not received\n",
            stamp(warned.plus(1500 * MS))
        ),
    )
    .unwrap();
    if turned {
        recordings.reverse();
    }
    explain(&ExplainArgs {
        logs: vec![server.display().to_string(), dropped.display().to_string()],
        recordings,
        ..ExplainArgs::default()
    })
    .unwrap()
}

/// The timeline without times.
fn order(report: &Report) -> Vec<String> {
    let rows = report.incidents[0].timeline.iter();
    rows.map(|row| format!("{} {}", row.party, row.text))
        .collect()
}

/// The row that says this.
fn at(report: &Report, what: &str) -> Wall {
    let found = report.incidents[0]
        .timeline
        .iter()
        .find(|row| row.text.contains(what));
    found
        .unwrap_or_else(|| panic!("{what} not in\n{}", text::render(report)))
        .at
}

#[test]
fn clocks_that_are_apart_make_one_timeline() {
    let right = told(0, false);
    assert_eq!(right.incidents.len(), 1);
    for ahead in [7_300 * MS, -3600 * SECOND, 40 * MS, -250 * MS] {
        let report = told(ahead, false);
        let said = text::render(&report);
        let word = if ahead < 0 { "behind" } else { "ahead of" };
        let stated = report
            .assumptions
            .iter()
            .find(|line| line.starts_with("the clock of n9 is") && line.contains(word));
        assert!(stated.is_some(), "{said}");
        assert_eq!(report.incidents.len(), 1, "{said}");
        // Where it was and who did it does not hang on clocks.
        assert_eq!(order(&report), order(&right), "{ahead}");
        let fault = report.incidents[0].fault.as_ref().unwrap();
        assert!(fault.who.contains("10.0.0.9"), "{said}");
        let cause = &report.incidents[0].causes[0];
        assert_eq!(cause.cause, "disk_stall", "{said}");
        // The server's own line stands where it was written, by the holders' clock.
        let wrote = at(&report, "a write to disk lasts 3.00 s");
        let truth = first_warning().plus(-500 * MS);
        let off = wrote.since(truth).abs();
        assert!(off <= 3 * MS, "{off} ns off\n{said}");
        assert!(wrote < at(&report, "loses its connection"));
        let host = |name: &str| {
            let source = report
                .sources
                .iter()
                .find(|source| source.party.name == name);
            source.map(|source| source.party.host.clone())
        };
        assert_eq!(host("zookeeper-n9").as_deref(), Some("10.0.0.9"), "{said}");
        assert_eq!(host("worker-n7").as_deref(), Some("10.0.0.7"), "{said}");
    }
}

/// Told by the server's clock, if its recording is named first.
#[test]
fn the_first_recordings_clock_is_the_reports() {
    let report = told(7_300 * MS, true);
    let said = text::render(&report);
    assert!(
        said.contains("the clock of n7 is 7.30 s behind that of n9"),
        "{said}"
    );
    let off = at(&report, "loses its connection").since(first_warning().plus(8_800 * MS));
    assert!(off.abs() <= 3 * MS, "{off}\n{said}");
}
