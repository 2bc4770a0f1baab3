use super::*;
use crate::top::data::{Incident, Incidents, Leases, Overview};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

const COLOURS: Means = Means {
    colours: true,
    unicode: true,
};
const MONOCHROME: Means = Means {
    colours: false,
    unicode: false,
};

fn lease(stage: &str, cause: Option<&str>, remaining_ms: i64) -> Lease {
    Lease {
        handle: 1,
        lease: "zookeeper".into(),
        id: "0x100012c4e5f0000".into(),
        role: "holder".into(),
        stage: stage.into(),
        cause: cause.map(str::to_owned),
        timeout_ms: Some(10_000),
        remaining_ms: Some(remaining_ms),
        pid: Some(4711),
        comm: Some("meta".into()),
        transition: cause.map(|_| {
            json!({"summary": "zookeeper session: 3.0 s left", "evidence": [
                {"fact": "thread_state", "tid": 7, "state": "T", "for_ms": 1040}]})
        }),
        ..Lease::default()
    }
}

fn view() -> View {
    View {
        overview: Overview {
            node: "node-1".into(),
            watching: true,
            total: 2,
            stages: [("at_risk".to_owned(), 1), ("healthy".to_owned(), 1)].into(),
        },
        leases: Leases {
            total: 2,
            leases: vec![
                lease("at_risk", Some("process_stopped"), 3000),
                lease("healthy", None, 8800),
            ],
        },
        incidents: Incidents {
            incidents: vec![Incident {
                incident: "1".into(),
                state: "open".into(),
                stage: "at_risk".into(),
                cause: "process_stopped".into(),
                summary: "process meta/4711: the process is stopped".into(),
                ..Incident::default()
            }],
        },
        ..View::default()
    }
}

fn picture(view: &View, means: Means, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, view, means, 1000))
        .unwrap();
    let buffer = terminal.backend().buffer();
    buffer
        .content()
        .chunks(usize::from(width))
        .map(|line| {
            let text: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
            text.trim_end().to_owned()
        })
        .collect()
}

#[test]
fn everything_on_a_wide_terminal() {
    let lines = picture(&view(), COLOURS, 150, 8);
    assert_eq!(lines[0], "node-1 2 leases  ▲ 1 at risk  ● 1 healthy");
    assert!(lines[2].starts_with("▲ at risk process meta/4711: the process is stopped"));
    let row = &lines[3];
    for shown in [
        "▲ at risk",
        "██████░",
        "2.0 s of 10.0 s",
        "meta/4711",
        "process stopped",
        "0x100012c4e5f0000",
    ] {
        assert!(row.contains(shown), "{shown}: {row}");
    }
    assert!(lines[7].contains("1/2  by risk"), "{}", lines[7]);
}

#[test]
fn a_narrow_and_monochrome_terminal_has_what_matters() {
    let lines = picture(&view(), MONOCHROME, 34, 8);
    assert_eq!(lines[3], "! ##...... 2.0 s    meta/4711");
    assert_eq!(lines[4], "  #######. 7.8 s    meta/4711");
    // No colour anywhere.
    let mut terminal = Terminal::new(TestBackend::new(34, 8)).unwrap();
    terminal
        .draw(|frame| draw(frame, &view(), MONOCHROME, 0))
        .unwrap();
    for cell in terminal.backend().buffer().content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
}

#[test]
fn the_evidence_and_the_incident_lie_over_it() {
    let mut view = view();
    view.popup = Some(Popup::Evidence);
    let text = picture(&view, COLOURS, 100, 24).join("\n");
    assert!(
        text.contains("thread state: tid 7, state T, for 1.0 s")
            || text.contains("for 1.0 s, state T, tid 7"),
        "{text}"
    );
    view.popup = Some(Popup::Incident);
    let text = picture(&view, COLOURS, 100, 24).join("\n");
    assert!(
        text.contains("incident 1 (open), process stopped"),
        "{text}"
    );
}

#[test]
fn a_daemon_that_does_not_answer_is_said() {
    let mut view = view();
    view.trouble = Some("api.sock: Connection refused".into());
    let lines = picture(&view, COLOURS, 100, 8);
    assert!(
        lines[0].contains("no word from the daemon: api.sock"),
        "{}",
        lines[0]
    );
}

#[test]
fn no_size_is_too_small() {
    let mut view = view();
    // As in a single picture, where nothing is.
    view.selected = usize::MAX;
    picture(&view, COLOURS, 150, 8);
    view.selected = 0;
    for popup in [
        None,
        Some(Popup::Keys),
        Some(Popup::Evidence),
        Some(Popup::Incident),
    ] {
        view.popup = popup;
        for (width, height) in [(1, 1), (3, 2), (10, 4), (300, 100)] {
            picture(&view, COLOURS, width, height);
        }
    }
}

#[test]
fn what_a_terminal_would_obey_is_not_passed_on() {
    let mut view = view();
    view.leases.leases[0].comm = Some("\x1b]0;x\x07\u{9b}31m".into());
    let text = picture(&view, COLOURS, 130, 8).join("\n");
    assert!(
        !text.contains(|letter: char| letter.is_control() && letter != '\n'),
        "{text:?}"
    );
}
