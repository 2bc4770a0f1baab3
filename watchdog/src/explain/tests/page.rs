//! The page: whole, alone, and safe whatever a log says.

use super::{testdata, told};
use crate::explain::html::render;

fn incident() -> Vec<(String, String)> {
    ["data-21.log", "meta-21.log", "meta-23.log", "journal.txt"]
        .map(|name| {
            let text = std::fs::read_to_string(testdata().join("incident").join(name)).unwrap();
            (name.to_owned(), text)
        })
        .to_vec()
}

#[test]
fn lanes_bars_and_marks_are_there() {
    let page = render(&told(&incident()));
    assert!(page.starts_with("<!DOCTYPE html>"));
    // One picture of all, one of the crowded end.
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("class=\"host\""));
    assert!(page.matches("class=\"stall\"").count() >= 3);
    assert!(page.contains("class=\"wait\""));
    assert!(page.contains("class=\"deadline-mark\""));
    assert_eq!(page.matches("class=\"warn\"").count(), 7);
    for lane in [
        "data-21 · 10.20.0.21",
        "meta-21 · 10.20.0.21",
        "meta-23 · 10.20.0.23",
    ] {
        assert!(page.contains(lane), "{lane}");
    }
}

#[test]
fn it_needs_nothing_else_and_runs_nothing() {
    let mut files = incident();
    for (_, text) in &mut files {
        *text = text
            .replace("lease", "<script>alert(1)</script>")
            .replace("CONNECTED_STATE", "\"><u>&");
    }
    let page = render(&told(&files));
    for forbidden in [
        "<script", "http://", "https://", "<link", "<img", "url(", "@import", "\"><u>",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn without_incident_it_says_so() {
    let page = render(&told(&[(
        "a.log".to_owned(),
        "I1104 22:36:43.185218 1 a.cc:1] fine\n".to_owned(),
    )]));
    assert!(page.contains("No incident"));
}
