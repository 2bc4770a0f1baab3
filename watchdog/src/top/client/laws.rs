//! What must hold whatever answers in the daemon's place: for the property tests and for `cargo xtask fuzz`
//! alike.

use std::io::{self, Cursor, Read, Write};
use std::path::PathBuf;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde::de::DeserializeOwned;

use super::{BufReader, Client, Place};
use crate::top::screen::{Means, draw};
use crate::top::{Popup, View};

/// Longer lines of error fill nobody's screen.
const MOST_SAID: usize = 4096;

/// An answer that is there before the question.
struct Told(Cursor<Vec<u8>>);

impl Read for Told {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A script is which of the view's questions is asked, and what is answered. What is understood can be shown;
/// what is not is said in a line.
///
/// # Panics
/// Where that does not hold.
pub fn any_answer(script: &[u8]) {
    let Some((which, answer)) = script.split_first() else {
        return;
    };
    let mut view = View::default();
    let understood = match which % 3 {
        0 => asked(answer, "/api/v1/leases").map(|leases| view.leases = leases),
        1 => asked(answer, "/api/v1/overview").map(|overview| view.overview = overview),
        _ => asked(answer, "/api/v1/incidents").map(|incidents| view.incidents = incidents),
    };
    if understood.is_some() {
        shown(&view);
    }
}

fn asked<T: DeserializeOwned>(answer: &[u8], path: &str) -> Option<T> {
    // There is nobody at this place: a second question is refused at once.
    let client = Client::new(Place::Socket(PathBuf::from("/proc/self/none")), None);
    let wire: super::Wire = BufReader::new(Box::new(Told(Cursor::new(answer.to_vec()))));
    let told = match client.converse(wire, path) {
        Ok((told, _)) => super::understood(told, path),
        Err(error) => Err(error.to_string()),
    };
    told.inspect_err(|why| {
        assert!(!why.is_empty() && why.len() <= MOST_SAID, "{why:?}");
        assert!(!why.contains(char::is_control), "{why:?}");
    })
    .ok()
}

fn shown(view: &View) {
    let pictures = [
        (120, true, None),
        (70, false, Some(Popup::Evidence)),
        (30, true, Some(Popup::Incident)),
    ];
    for (width, unicode, popup) in pictures {
        let view = &View {
            popup,
            ..view.clone()
        };
        let means = Means {
            colours: unicode,
            unicode,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, 12)).expect("a terminal");
        terminal
            .draw(|frame| draw(frame, view, means, 1000))
            .expect("a picture");
        for cell in terminal.backend().buffer().content() {
            let symbol = cell.symbol();
            assert!(!symbol.contains(char::is_control), "{symbol:?}");
        }
    }
}

/// What a daemon answers.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let lease = r#"{"handle":1,"lease":"zookeeper","id":"0x100","role":"holder","stage":"at_risk","condition":"reply_unread","cause":"process_stopped","incident":"3","timeout_ms":10000,"remaining_ms":3000,"silent_ms":7000,"cadence_ms":3000,"timeout_source":"handshake","local":"1.2.3.4:5","peer":"1.2.3.5:2181","pid":4711,"comm":"meta","transition":{"summary":"x","evidence":[{"fact":"thread_state","tid":7,"state":"T","for_ms":1040}]}}"#;
    let incident = r#"{"incident":"1","state":"open","opened_ts":"2026-11-24T00:00:00Z","lasted_ms":5,"stage":"late","cause":"unknown","thing":"x","leases":3,"expired":1,"summary":"process meta/4711"}"#;
    let bodies = [
        (0, format!(r#"{{"total":1,"leases":[{lease}]}}"#)),
        (
            1,
            r#"{"node":"n","watching":true,"total":2,"stages":{"late":1,"healthy":1}}"#.to_owned(),
        ),
        (2, format!(r#"{{"incidents":[{incident}]}}"#)),
        (0, r#"{"error":"a token"}"#.to_owned()),
        // No daemon's figures.
        (
            0,
            format!(
                r#"{{"total":2,"leases":[{},{}]}}"#,
                lease.replace(":3000,", ":-9223372036854775808,"),
                lease
                    .replace(r#""remaining_ms":3000"#, r#""x":1"#)
                    .replace(":10000,", ":-9223372036854775808,"),
            ),
        ),
    ];
    let heads = |length: usize| {
        [
            format!(
                "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\nConnection: keep-alive\r\n\r\n"
            ),
            "HTTP/1.0 200 OK\r\n\r\n".to_owned(),
            format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\n\r\n"),
        ]
    };
    bodies
        .iter()
        .flat_map(|(which, body)| {
            heads(body.len()).map(|head| [&[*which], head.as_bytes(), body.as_bytes()].concat())
        })
        .collect()
}
