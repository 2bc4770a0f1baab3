//! The incident: to the letter, and shuffled, repeated, cut, shifted and renamed.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::{testdata, told};
use crate::explain::report::{Incident, Report};
use crate::explain::stamp;
use crate::explain::text;
use crate::explain::wall::{DAY, MS, SECOND, Wall, civil_from_days, days_from_civil};

const NAMES: [&str; 4] = ["data-21.log", "meta-21.log", "meta-23.log", "journal.txt"];

fn logs() -> Vec<(String, String)> {
    NAMES
        .iter()
        .map(|name| {
            let text = fs::read_to_string(testdata().join("incident").join(name)).unwrap();
            ((*name).to_owned(), text)
        })
        .collect()
}

/// What must not depend on the order of lines: all but the numbers of lines, and how many lines were read.
fn essence(report: &Report) -> serde_json::Value {
    let mut value = serde_json::to_value(&report.incidents).unwrap();
    without_places(&mut value);
    value
}

fn without_places(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            if fields.get("rule").is_some_and(serde_json::Value::is_null) {
                fields.remove("from");
            }
            fields.values_mut().for_each(without_places);
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(without_places),
        _ => {}
    }
}

fn only(report: &Report) -> &Incident {
    assert_eq!(report.incidents.len(), 1, "{}", text::render(report));
    &report.incidents[0]
}

fn at(seconds: f64) -> Wall {
    let midnight = days_from_civil(2022, 11, 4) * DAY;
    Wall(midnight + (22 * 3600 + 36 * 60) * SECOND + (seconds * 1e3).round() as i64 * MS)
}

/// A minimal generator for shuffles: seeded, so that a failure is told again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }
}

#[test]
fn golden() {
    let mut said = text::render(&told(&logs()));
    // The directory is the test's.
    let mut lines: Vec<String> = said
        .lines()
        .map(|line| match (line.rfind('['), line.rfind('/')) {
            (Some(open), Some(slash)) if slash > open && line.ends_with(']') => {
                format!("{}{}", &line[..=open], &line[slash + 1..])
            }
            _ => line.to_owned(),
        })
        .collect();
    lines.push(String::new());
    said = lines.join("\n");
    let file = testdata().join("expected.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &said).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap();
    assert!(
        said == expected,
        "explain says:\n{said}\nand not what {} says",
        file.display()
    );
}

/// The figures, apart from the words.
#[test]
fn figures() {
    let report = told(&logs());
    let incident = only(&report);
    let leads = incident.leads.as_ref().unwrap();
    assert_eq!(leads.until.to_ms(), at(49.490));
    let rows: Vec<(Wall, i64)> = leads
        .rows
        .iter()
        .map(|row| (row.at.to_ms(), row.lead_ms))
        .collect();
    assert_eq!(
        rows,
        [
            (at(31.391), 18_099),
            (at(34.391), 15_099),
            (at(36.391), 13_099),
            (at(38.391), 11_099),
            (at(39.522), 9_968),
            (at(42.390), 7_100),
            (at(43.185), 6_305),
        ]
    );
    let falsely: Vec<_> = incident
        .lapsed
        .iter()
        .filter(|lapse| lapse.false_expiry)
        .collect();
    assert_eq!(falsely.len(), 4);
    assert_eq!(incident.lapsed.len(), 5);
    let dual = incident.dual_leader.as_ref().unwrap();
    assert_eq!(dual.at_least_ms, 415);
    let stall = &incident.stalls[0];
    assert_eq!(
        (stall.host.as_str(), stall.from.to_ms(), stall.to.to_ms()),
        ("10.20.0.21", at(39.522), at(49.490))
    );
    assert_eq!(incident.fault.as_ref().unwrap().who, "10.20.0.21");
    let row = |text: &str| {
        let found = incident.timeline.iter().find(|row| row.text.contains(text));
        found.unwrap_or_else(|| panic!("no row says {text}"))
    };
    assert_eq!(row("keepalive sent").at, at(30.391));
}

#[test]
fn candidates_are_weighed_and_none_is_proven() {
    use crate::explain::report::Standing;
    let report = told(&logs());
    let incident = only(&report);
    let standing: BTreeMap<&str, Standing> = incident
        .causes
        .iter()
        .map(|cause| (cause.cause, cause.standing))
        .collect();
    assert_eq!(standing["disk_stall"], Standing::Candidate);
    assert_eq!(standing["cpu_starved"], Standing::Candidate);
    assert_eq!(standing["memory_pressure"], Standing::Candidate);
    assert_eq!(standing["network_loss"], Standing::Excluded);
    assert_eq!(standing["node_pause"], Standing::Excluded);
    assert_eq!(standing["waiting_elsewhere"], Standing::Partial);
    assert!(
        !standing
            .values()
            .any(|standing| *standing == Standing::Supported)
    );
    assert!(
        incident
            .not_claimed
            .iter()
            .any(|open| open.starts_with("the root cause"))
    );
}

#[test]
fn shuffled_lines_change_nothing() {
    let whole = essence(&told(&logs()));
    for seed in 0..40 {
        let mut random = Random(seed);
        let shuffled: Vec<_> = logs()
            .into_iter()
            .map(|(name, text)| {
                let mut lines: Vec<&str> = text.lines().collect();
                for place in (1..lines.len()).rev() {
                    lines.swap(place, random.below(place + 1));
                }
                (name, lines.join("\n"))
            })
            .collect();
        assert_eq!(essence(&told(&shuffled)), whole, "seed {seed}");
    }
}

#[test]
fn repeated_lines_change_nothing() {
    let whole = essence(&told(&logs()));
    let doubled = |by_line: bool| -> Vec<(String, String)> {
        logs()
            .into_iter()
            .map(|(name, text)| {
                let text = if by_line {
                    text.lines()
                        .flat_map(|line| [line, "\n", line, "\n"])
                        .collect()
                } else {
                    text.repeat(2)
                };
                (name, text)
            })
            .collect()
    };
    assert_eq!(essence(&told(&doubled(true))), whole);
    assert_eq!(essence(&told(&doubled(false))), whole);
}

#[test]
fn rotated_and_packed_files_are_one_log() {
    use std::io::Write as _;
    let whole = essence(&told(&logs()));
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, text) in logs() {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let middle = lines.len() / 2;
        let old = dir.path().join(format!("{name}.1.gz"));
        let file = fs::File::create(&old).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        packed
            .write_all(lines[..middle].concat().as_bytes())
            .unwrap();
        packed.finish().unwrap();
        let new = dir.path().join(&name);
        fs::write(&new, lines[middle..].concat()).unwrap();
        paths.extend([new, old]);
    }
    let report = crate::explain::explain(&crate::explain::ExplainArgs {
        logs: paths
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        ..Default::default()
    })
    .unwrap();
    assert_eq!(report.sources.len(), 4);
    assert_eq!(essence(&report), whole);
}

/// Every time in a text, moved.
fn shifted(text: &str, by: i64) -> String {
    let year = days_from_civil(2022, 1, 1);
    let move_ = |local: i64| {
        let moved = Wall(local + by);
        let (y, m, d) = civil_from_days(moved.0.div_euclid(DAY));
        (y, m, d, moved.0.rem_euclid(DAY))
    };
    let clock = |of_day: i64| {
        let s = of_day / SECOND;
        format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    };
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let mut line = line.to_owned();
        if let Some(at) = line.find("2022-") {
            let stamp = stamp::iso(&line.as_bytes()[at..]).unwrap();
            let (y, m, d, of_day) = move_(stamp.local);
            let new = format!(
                "{y:04}-{m:02}-{d:02} {},{:03}",
                clock(of_day),
                of_day % SECOND / MS
            );
            line.replace_range(at..at + stamp.len, &new);
        }
        let head = line.as_bytes().get(5) == Some(&b' ') && line.as_bytes()[0].is_ascii_uppercase();
        if head && let Some((of_day, len)) = stamp::clock(&line.as_bytes()[6..]) {
            let (month, day) = (line[1..3].parse().unwrap(), line[3..5].parse().unwrap());
            let local = days_from_civil(2022, month, day) * DAY + of_day;
            assert!(local / DAY >= year);
            let (_, m, d, of_day) = move_(local);
            let new = format!(
                "{m:02}{d:02} {}.{:06}",
                clock(of_day),
                of_day % SECOND / 1000
            );
            line.replace_range(1..6 + len, &new);
        }
        out.push_str(&line);
    }
    out
}

fn moved_back(value: &mut serde_json::Value, by: i64) {
    match value {
        serde_json::Value::String(text) => {
            if text.len() >= 23
                && let Some(stamp) = stamp::iso(text.as_bytes())
                && stamp.len == text.len()
            {
                *text = Wall(stamp.local - by).to_string();
            } else {
                *text = times_moved_back(text, by);
            }
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(|value| moved_back(value, by)),
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(|value| moved_back(value, by));
        }
        _ => {}
    }
}

/// Times of day inside sentences.
fn times_moved_back(text: &str, by: i64) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut place = 0;
    while place < bytes.len() {
        if let Some((of_day, len)) = stamp::clock(&bytes[place..]).filter(|(_, len)| *len > 8) {
            out.push_str(&Wall((of_day - by).rem_euclid(DAY)).time());
            place += len;
        } else {
            let end = (place + 1..=text.len())
                .find(|end| text.is_char_boundary(*end))
                .unwrap();
            out.push_str(&text[place..end]);
            place = end;
        }
    }
    out
}

#[test]
fn other_times_give_the_same_spans() {
    let mut whole = essence(&told(&logs()));
    moved_back(&mut whole, 0);
    // An hour, over midnight, over the year's end, into a leap day, back.
    for by in [
        3600 * SECOND,
        83 * 60 * SECOND + 15 * SECOND,
        57 * DAY + 83 * 60 * SECOND + 15 * SECOND,
        477 * DAY,
        -200 * DAY - 12_345_678 * 1000,
    ] {
        // Figures are in milliseconds, so whole ones are moved by.
        let by = by / MS * MS;
        let files: Vec<_> = logs()
            .into_iter()
            .map(|(name, text)| (name, shifted(&text, by)))
            .collect();
        let mut value = essence(&told(&files));
        moved_back(&mut value, by);
        assert_eq!(value, whole, "moved by {by} ns");
    }
}

#[test]
fn other_names_give_the_same_story() {
    let renames = [
        ("10.20.0.21", "192.168.77.5"),
        ("10.20.0.22", "192.168.77.9"),
        ("10.20.0.23", "192.168.77.12"),
        ("10.20.0.24", "192.168.77.40"),
        ("0x20017ac4e5b0041", "0x1000058ad020001"),
        ("6513270e-269e-4d37-b2a7-4de452e6b438", "lease-a"),
        ("d23f0824-128b-4f33-bc5c-7fd0a6a3a450", "lease-b"),
        ("30177", "511"),
        ("30175", "7000001"),
        ("40871", "12"),
        ("40860", "9"),
        ("30144", "30"),
        ("0x7fa2b07fe700", "0x55aa"),
    ];
    // Nothing in these names tells a host.
    for (number, names) in [
        ["a.log", "b.log", "c.log", "d.txt"],
        ["holder.log", "grantor.log", "other.log", "j"],
    ]
    .into_iter()
    .enumerate()
    {
        let files: Vec<_> = logs()
            .into_iter()
            .zip(names)
            .map(|((_, mut text), name)| {
                for (from, to) in renames {
                    text = text.replace(from, to);
                }
                (name.to_owned(), text)
            })
            .collect();
        let report = told(&files);
        let incident = only(&report);
        let first = told(&logs());
        let model = only(&first);
        assert_eq!(incident.stalls[0].host, "192.168.77.5", "{number}");
        assert_eq!(incident.stalls[0].from, model.stalls[0].from);
        assert_eq!(incident.stalls[0].to, model.stalls[0].to);
        assert_eq!(incident.fault.as_ref().unwrap().who, "192.168.77.5");
        let rows = |incident: &Incident| -> Vec<(Wall, i64)> {
            let leads = incident.leads.as_ref().unwrap();
            leads.rows.iter().map(|row| (row.at, row.lead_ms)).collect()
        };
        assert_eq!(rows(incident), rows(model));
        assert_eq!(incident.lapsed.len(), 5);
        assert_eq!(incident.lapsed[0].lease.as_deref(), Some("lease-a"));
        assert_eq!(incident.dual_leader.as_ref().unwrap().at_least_ms, 415);
        let times = |incident: &Incident| -> Vec<Wall> {
            incident.timeline.iter().map(|row| row.at).collect()
        };
        assert_eq!(times(incident), times(model));
    }
}

/// Of a log that lacks lines, or parts of them, less is told, and nothing else.
fn tells_no_more(files: &[(String, String)]) {
    let whole = told(&logs());
    let model = only(&whole);
    let report = told(files);
    for incident in &report.incidents {
        for lapse in &incident.lapsed {
            assert!(
                model
                    .lapsed
                    .iter()
                    .any(|known| known.lease == lapse.lease || lapse.lease.is_none()),
                "{lapse:?}"
            );
        }
        assert!(
            incident
                .lapsed
                .iter()
                .filter(|lapse| lapse.false_expiry)
                .count()
                <= 4
        );
        for row in incident.timeline.iter().filter(|row| row.deadline) {
            // A deadline of which the nearer line is gone is told by the other, later. Where no line is
            // left that has a year, the day is another.
            let of_day = |at: Wall| at.0.rem_euclid(DAY);
            assert!(
                model
                    .timeline
                    .iter()
                    .any(|known| of_day(known.at) == of_day(row.at))
                    || of_day(row.at) == of_day(at(39.718))
                    || row.text.ends_with("at the latest"),
                "{row:?}"
            );
        }
        if let Some(dual) = &incident.dual_leader {
            // Where the line is gone by which the old leader learned it, a later one tells.
            assert!((415..=450).contains(&dual.at_least_ms));
        }
    }
    // And it can be told.
    let _ = text::render(&report);
    let _ = crate::explain::html::render(&report);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn cut_lines_and_missing_lines_tell_less_and_nothing_else(seed in any::<u64>(), share in 1_usize..6) {
        let mut random = Random(seed);
        let files: Vec<_> = logs().into_iter().map(|(name, text)| {
            let mut out = String::new();
            for line in text.lines() {
                match random.below(share * 2) {
                    0 => out.push_str(&line[..random.below(line.len() + 1)]),
                    1 => continue,
                    _ => out.push_str(line),
                }
                out.push('\n');
            }
            (name, out)
        })
        // Nothing at all is of no kind.
        .filter(|(_, text)| crate::explain::readers::detect(text.as_bytes()).is_some())
        .collect();
        if !files.is_empty() {
            tells_no_more(&files);
        }
    }

    #[test]
    fn a_file_that_ends_anywhere_is_read_up_to_there(part in 0.0_f64..1.0) {
        let files: Vec<_> = logs().into_iter().map(|(name, text)| {
            let end = (text.len() as f64 * part) as usize;
            (name, text[..end].to_owned())
        })
        .filter(|(_, text)| crate::explain::readers::detect(text.as_bytes()).is_some())
        .collect();
        if !files.is_empty() {
            tells_no_more(&files);
        }
    }

    #[test]
    fn bytes_of_any_kind_end_nothing(
        garbage in proptest::collection::vec(any::<u8>(), 0..2000),
        place in 0.0_f64..1.0,
        kind in 0_usize..8,
    ) {
        let reader = &crate::explain::readers::READERS[kind];
        let mut bytes = logs()[1].1.clone().into_bytes();
        let at = (bytes.len() as f64 * place) as usize;
        bytes.splice(at..at, garbage);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        fs::write(&path, &bytes).unwrap();
        let report = crate::explain::explain(&crate::explain::ExplainArgs {
            logs: vec![format!("{}:{}", reader.name, path.display())],
            ..Default::default()
        }).unwrap();
        let counts = report.sources[0].counts;
        let lines = bytes.split(|byte| *byte == b'\n').count() as u64
            - u64::from(bytes.last() == Some(&b'\n'));
        prop_assert_eq!(counts.lines, lines);
        let _ = text::render(&report);
    }
}
