//! What others put around a log's lines: container runtimes, syslog, the journal, shippers of JSON, terminals.
//!
//! In: one line. Out: the line as its program wrote it, the stamp of who passed it on, and which program of
//! which host it was, where that is said. Never: what the line itself says; a line lost, for what is not
//! wrapped is handed on as it is.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::readers::{READERS, glog};
use super::stamp::{Stamp, iso, syslog};

/// Wraps in wraps.
const DEEP: usize = 3;
/// Lines that are looked at.
const LOOKED_AT: usize = 300;
/// A host's, program's or container's name.
const NAME: usize = 128;

/// One wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// Colours of a terminal.
    Colours,
    /// An object a line: Docker's `json-file`, the journal's `-o json`, fluentd, filebeat, logstash.
    Json,
    /// `2024-05-01T12:00:00.123456789Z stdout F message`: containerd and CRI-O.
    Cri,
    /// `Nov  4 22:36:43 host program[pid]: message`, or with an ISO stamp: syslog files, `journalctl`.
    Syslog,
    /// `<34>1 2003-10-11T22:14:15.003Z host program pid id - message`.
    Rfc5424,
    /// `name  | message`: `docker compose logs`.
    Compose,
    /// `[pod/name/container] message`: `kubectl logs --prefix`.
    Pod,
    /// A stamp with a zone before a line that has its own: `kubectl logs --timestamps`, `docker logs -t`.
    Stamped,
}

/// From the outside, tried in this order.
const WRAPS: [Wrap; 8] = [
    Wrap::Colours,
    Wrap::Json,
    Wrap::Cri,
    Wrap::Rfc5424,
    Wrap::Syslog,
    Wrap::Pod,
    Wrap::Compose,
    Wrap::Stamped,
];

/// A line without its wraps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peeled<'a> {
    /// What the program wrote.
    pub text: Cow<'a, [u8]>,
    /// When it was passed on.
    pub stamp: Option<Stamp>,
    /// The host, where a wrap names it.
    pub host: Cow<'a, [u8]>,
    /// The program or container, where a wrap names it.
    pub program: Cow<'a, [u8]>,
    /// The next line goes on with this one.
    pub partial: bool,
    /// Whether every wrap was there.
    pub whole: bool,
}

impl Wrap {
    /// Whether lines of several programs may stand in one file.
    #[must_use]
    pub const fn names_programs(&self) -> bool {
        matches!(self, Self::Syslog | Self::Rfc5424 | Self::Json)
    }

    fn peel(self, line: &[u8]) -> Option<Peeled<'_>> {
        match self {
            Self::Colours => colours(line),
            Self::Json => json(line),
            Self::Cri => cri(line),
            Self::Syslog => of_syslog(line),
            Self::Rfc5424 => rfc5424(line),
            Self::Compose => compose(line),
            Self::Pod => pod(line),
            Self::Stamped => stamped(line),
        }
    }

    /// Whether a line shows that its file is wrapped so.
    fn shows(self, line: &[u8]) -> bool {
        match self {
            Self::Stamped => stamped(line).is_some_and(|peeled| begins_anew(&peeled.text)),
            _ => self.peel(line).is_some(),
        }
    }

    /// Of so many lines so many must show it.
    const fn enough(self, shown: usize, of: usize) -> bool {
        match self {
            // Some loggers colour some lines.
            Self::Colours => shown > 0,
            // Between them stand lines that go on with others.
            Self::Stamped => shown * 4 >= of && shown > 0,
            _ => shown * 2 > of,
        }
    }
}

/// The wraps of a file that begins so, from the outside.
#[must_use]
pub fn detect(head: &[u8]) -> Vec<Wrap> {
    let mut lines: Vec<Cow<'_, [u8]>> = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .take(LOOKED_AT)
        .map(Cow::Borrowed)
        .collect();
    // The last may have been cut.
    if lines.len() > 1 && !head.ends_with(b"\n") {
        lines.pop();
    }
    let mut wraps = Vec::new();
    while wraps.len() < DEEP {
        let of = lines.len();
        let found = WRAPS.into_iter().find(|wrap| {
            let shown = lines.iter().filter(|line| wrap.shows(line)).count();
            wrap.enough(shown, of) && !wraps.contains(wrap)
        });
        let Some(wrap) = found else { break };
        wraps.push(wrap);
        lines = lines
            .iter()
            .map(|line| {
                let inner = wrap.peel(line).map(|peeled| peeled.text.into_owned());
                Cow::Owned(inner.unwrap_or_else(|| line.to_vec()))
            })
            .collect();
    }
    wraps
}

/// A line without any of its wraps; as it is from the first that is not there.
#[must_use]
pub fn peel<'a>(wraps: &[Wrap], line: &'a [u8]) -> Peeled<'a> {
    let mut all = Peeled {
        text: Cow::Borrowed(line),
        whole: true,
        ..Peeled::default()
    };
    for wrap in wraps {
        let next = match &all.text {
            Cow::Borrowed(text) => wrap.peel(text),
            Cow::Owned(text) => wrap.peel(text).map(Peeled::into_owned),
        };
        let Some(next) = next else {
            all.whole &= *wrap == Wrap::Colours;
            continue;
        };
        all.text = next.text;
        all.stamp = next.stamp.or(all.stamp);
        all.partial |= next.partial;
        if !next.host.is_empty() {
            all.host = next.host;
        }
        if !next.program.is_empty() {
            all.program = next.program;
        }
    }
    if memchr::memchr(b'\n', &all.text).is_some() {
        // A trace of calls in one object: one line here.
        let mut flat = all.text.into_owned();
        flat.iter_mut()
            .filter(|byte| **byte == b'\n')
            .for_each(|byte| *byte = b' ');
        all.text = Cow::Owned(flat);
    }
    all
}

/// Lines without their wraps, and the wraps' stamps.
#[must_use]
pub fn plain(wraps: &[Wrap], lines: &[u8]) -> (Vec<u8>, Vec<Stamp>) {
    let mut text = Vec::with_capacity(lines.len());
    let mut stamps = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let peeled = peel(wraps, line.strip_suffix(b"\r").unwrap_or(line));
        text.extend_from_slice(&peeled.text);
        text.push(b'\n');
        stamps.extend(peeled.stamp);
    }
    (text, stamps)
}

impl Peeled<'_> {
    fn into_owned<'b>(self) -> Peeled<'b> {
        Peeled {
            text: Cow::Owned(self.text.into_owned()),
            host: Cow::Owned(self.host.into_owned()),
            program: Cow::Owned(self.program.into_owned()),
            stamp: self.stamp,
            partial: self.partial,
            whole: self.whole,
        }
    }
}

fn of(text: &[u8]) -> Peeled<'_> {
    Peeled {
        text: Cow::Borrowed(text),
        ..Peeled::default()
    }
}

/// `ESC [ … letter` taken out; `None` if there is none.
fn colours(line: &[u8]) -> Option<Peeled<'_>> {
    memchr::memchr(0x1b, line)?;
    let mut text = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = memchr::memchr(0x1b, rest) {
        text.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(sequence) = rest.strip_prefix(b"[") {
            let length = sequence
                .iter()
                .take_while(|byte| matches!(byte, b'0'..=b'?' | b' '..=b'/'))
                .count();
            rest = sequence.get(length + 1..).unwrap_or(b"");
        }
    }
    text.extend_from_slice(rest);
    Some(Peeled {
        text: Cow::Owned(text),
        ..Peeled::default()
    })
}

/// The names that those who pass lines on give to the line, its time and its program. Numbers and arrays
/// stand in some of them.
#[derive(Deserialize)]
struct Object {
    log: Option<String>,
    message: Option<Value>,
    #[serde(rename = "MESSAGE")]
    of_journal: Option<Value>,
    #[serde(rename = "textPayload")]
    payload: Option<String>,
    time: Option<Value>,
    timestamp: Option<Value>,
    #[serde(rename = "@timestamp")]
    shipped: Option<Value>,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    journal_us: Option<String>,
    #[serde(rename = "_HOSTNAME")]
    host: Option<String>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    program: Option<String>,
    /// etcd's own objects and their like are no wrap.
    msg: Option<IgnoredAny>,
    caller: Option<IgnoredAny>,
}

fn json(line: &[u8]) -> Option<Peeled<'_>> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let object: Object = serde_json::from_slice(line).ok()?;
    if object.msg.is_some() || object.caller.is_some() {
        return None;
    }
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    let times = [object.time, object.timestamp, object.shipped];
    let stamp = times
        .into_iter()
        .flatten()
        .find_map(|time| iso(text(time)?.as_bytes()))
        .or_else(|| Stamp::of_unix_us(object.journal_us?.parse().ok()?));
    let said = object
        .log
        .or_else(|| object.of_journal.and_then(text))
        .or_else(|| object.message.and_then(text))
        .or(object.payload)?;
    let mut text = said.into_bytes();
    let ends = text.last() == Some(&b'\n');
    while matches!(text.last(), Some(b'\n' | b'\r')) {
        text.pop();
    }
    // Docker splits lines at 16 KiB; only the last part has the end.
    let partial = !ends && text.len() >= 16 << 10;
    let name = |text: Option<String>| Cow::Owned(text.unwrap_or_default().into_bytes());
    Some(Peeled {
        text: Cow::Owned(text),
        stamp,
        host: name(object.host),
        program: name(object.program),
        partial,
        whole: true,
    })
}

/// A stamp with a zone, and what is behind it.
fn zoned(line: &[u8]) -> Option<(Stamp, &[u8])> {
    let stamp = iso(line)?;
    stamp.zone?;
    (line[10] == b'T').then_some(())?;
    Some((stamp, line.get(stamp.len..)?.strip_prefix(b" ")?))
}

fn cri(line: &[u8]) -> Option<Peeled<'_>> {
    let (stamp, rest) = zoned(line)?;
    let rest = rest
        .strip_prefix(b"stdout ")
        .or_else(|| rest.strip_prefix(b"stderr "))?;
    let (tag, text) = (rest.first()?, rest.get(1..)?);
    Some(Peeled {
        text: Cow::Borrowed(text.strip_prefix(b" ").unwrap_or(text)),
        stamp: Some(stamp),
        partial: *tag == b'P',
        ..Peeled::default()
    })
}

/// A word up to a blank.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', &line[..line.len().min(NAME)])?;
    (end > 0).then(|| (&line[..end], &line[end + 1..]))
}

fn of_syslog(line: &[u8]) -> Option<Peeled<'_>> {
    const LEVELS: [&[u8]; 9] = [
        b"TRACE",
        b"DEBUG",
        b"INFO",
        b"NOTICE",
        b"WARN",
        b"WARNING",
        b"ERROR",
        b"CRITICAL",
        b"FATAL",
    ];
    let line = without_priority(line).unwrap_or(line);
    let (stamp, rest) = match syslog(line) {
        Some(stamp) => (stamp, line.get(stamp.len..)?.strip_prefix(b" ")?),
        None => zoned(line)?,
    };
    let (host, rest) = word(rest)?;
    if LEVELS.iter().any(|level| host.eq_ignore_ascii_case(level)) {
        return None;
    }
    let colon = memchr::memchr(b':', &rest[..rest.len().min(NAME)])?;
    let program = &rest[..colon];
    let text = &rest[colon + 1..];
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let program = memchr::memchr(b'[', program).map_or(program, |open| &program[..open]);
    // A program's name is not one number: that is a time of day.
    let named = program.iter().any(|byte| !byte.is_ascii_digit())
        && !program.iter().any(u8::is_ascii_whitespace);
    named.then_some(Peeled {
        text: Cow::Borrowed(text),
        stamp: Some(stamp),
        host: Cow::Borrowed(host),
        program: Cow::Borrowed(program),
        ..Peeled::default()
    })
}

/// `<13>`.
fn without_priority(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"<")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=3).contains(&digits).then_some(())?;
    rest[digits..].strip_prefix(b">")
}

fn rfc5424(line: &[u8]) -> Option<Peeled<'_>> {
    let rest = without_priority(line)?.strip_prefix(b"1 ")?;
    let (stamp, rest) = match rest.strip_prefix(b"- ") {
        Some(rest) => (None, rest),
        None => {
            let (stamp, rest) = zoned(rest)?;
            (Some(stamp), rest)
        }
    };
    let (host, rest) = word(rest)?;
    let (program, rest) = word(rest)?;
    let (_pid, rest) = word(rest)?;
    let (_id, rest) = word(rest)?;
    let mut text = rest;
    if let Some(rest) = text.strip_prefix(b"-") {
        text = rest;
    } else {
        while text.first() == Some(&b'[') {
            let close = text
                .iter()
                .enumerate()
                .position(|(at, byte)| *byte == b']' && text[at - 1] != b'\\')?;
            text = &text[close + 1..];
        }
    }
    let text = text.strip_prefix(b" ").unwrap_or(text);
    Some(Peeled {
        text: Cow::Borrowed(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)),
        stamp,
        host: Cow::Borrowed(host),
        program: Cow::Borrowed(program),
        ..Peeled::default()
    })
}

fn compose(line: &[u8]) -> Option<Peeled<'_>> {
    let name = line
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        .count();
    let blanks = line[name..]
        .iter()
        .take_while(|byte| **byte == b' ')
        .count();
    if !(1..=NAME).contains(&name) || blanks == 0 {
        return None;
    }
    let text = line[name + blanks..].strip_prefix(b"|")?;
    Some(Peeled {
        program: Cow::Borrowed(&line[..name]),
        ..of(text.strip_prefix(b" ").unwrap_or(text))
    })
}

fn pod(line: &[u8]) -> Option<Peeled<'_>> {
    let rest = line.strip_prefix(b"[pod/")?;
    let close = memchr::memchr(b']', &rest[..rest.len().min(2 * NAME)])?;
    let text = &rest[close + 1..];
    Some(Peeled {
        program: Cow::Borrowed(&rest[..close]),
        ..of(text.strip_prefix(b" ").unwrap_or(text))
    })
}

fn stamped(line: &[u8]) -> Option<Peeled<'_>> {
    let (stamp, rest) = zoned(line)?;
    Some(Peeled {
        stamp: Some(stamp),
        ..of(rest)
    })
}

/// Whether a line begins as lines of known logs do, or is wrapped in its turn.
fn begins_anew(text: &[u8]) -> bool {
    let open = usize::from(text.first() == Some(&b'['));
    text.get(open..).and_then(iso).is_some()
        || (glog::READER.head)(text).is_some()
        || text.first() == Some(&b'{') && READERS.iter().any(|reader| (reader.claims)(text) > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JAVA: &str = "2016-03-01 12:00:00,123 [myid:1] - INFO  [main:A@1] - x";

    fn wrapped(line: &str) -> (Vec<Wrap>, String, String, String) {
        let wraps = detect(line.as_bytes());
        let peeled = peel(&wraps, line.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            wraps,
            text(&peeled.host),
            text(&peeled.program),
            text(&peeled.text),
        )
    }

    #[test]
    fn every_wrap_is_found_and_taken_off() {
        use Wrap::*;
        let json = serde_json::to_string(&format!("{JAVA} \"q\"\n")).unwrap();
        for (line, wraps, host, program) in [
            (JAVA.to_owned(), vec![], "", ""),
            (
                format!("\x1b[36mzk1  |\x1b[0m {JAVA}"),
                vec![Colours, Compose],
                "",
                "zk1",
            ),
            (
                format!(
                    r#"{{"log":{},"stream":"stdout","time":"2016-03-01T12:00:00.5Z"}}"#,
                    json.replace(r#" \"q\""#, "")
                ),
                vec![Json],
                "",
                "",
            ),
            (
                format!(
                    r#"{{"__REALTIME_TIMESTAMP":"1456833600500000","_HOSTNAME":"n1","SYSLOG_IDENTIFIER":"java","MESSAGE":"{JAVA}"}}"#
                ),
                vec![Json],
                "n1",
                "java",
            ),
            (
                format!("2016-03-01T12:00:00.123456789Z stdout F {JAVA}"),
                vec![Cri],
                "",
                "",
            ),
            (
                format!("2016-03-01T12:00:00.123456789+08:00 stderr F {JAVA}"),
                vec![Cri],
                "",
                "",
            ),
            (
                format!("Mar  1 12:00:00 n1 zookeeper[77]: {JAVA}"),
                vec![Syslog],
                "n1",
                "zookeeper",
            ),
            (
                format!("<13>Mar  1 12:00:00 n1 zookeeper: {JAVA}"),
                vec![Syslog],
                "n1",
                "zookeeper",
            ),
            (
                format!("2016-03-01T12:00:00.5+0100 n1 java[77]: {JAVA}"),
                vec![Syslog],
                "n1",
                "java",
            ),
            (
                format!("<34>1 2016-03-01T12:00:00.5Z n1 java 77 - [a@1 b=\"c\"] {JAVA}"),
                vec![Rfc5424],
                "n1",
                "java",
            ),
            (
                format!("<34>1 2016-03-01T12:00:00.5Z n1 java 77 - - {JAVA}"),
                vec![Rfc5424],
                "n1",
                "java",
            ),
            (
                format!("[pod/zk-0/zookeeper] 2016-03-01T12:00:00.5Z {JAVA}"),
                vec![Pod, Stamped],
                "",
                "zk-0/zookeeper",
            ),
            (
                format!("2016-03-01T12:00:00.123456789Z {JAVA}"),
                vec![Stamped],
                "",
                "",
            ),
            (
                format!(
                    "Mar  1 12:00:00 n1 dockerd[77]: {{\"log\":\"{JAVA}\\n\",\"time\":\"2016-03-01T12:00:00.5Z\"}}"
                ),
                vec![Syslog, Json],
                "n1",
                "dockerd",
            ),
        ] {
            let found = wrapped(&line);
            assert_eq!(
                found,
                (wraps, host.to_owned(), program.to_owned(), JAVA.to_owned()),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_a_logs_own_is_no_wrap() {
        for line in [
            "2022-11-04 22:36:43,020 WARNING kazoo.client: Connection dropped",
            "2022-11-04T22:36:43.020Z WARNING kazoo.client: Connection dropped",
            "2019-03-01 12:00:00.123456 W | wal: sync duration of 3.302s",
            r#"{"level":"warn","ts":"2022-11-04T22:36:43.020Z","caller":"a/b.go:1","msg":"x","log":"y"}"#,
            "2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@zookeeper_interest@2288: Exceeded",
            "W1104 22:36:43.185218 147990 a.cc:288] x | y",
            "[123456.789012] INFO: task jbd2/sda1-8:345 blocked",
            "[2022-11-04T22:36:43.020+0800][info][gc] GC(1) Pause Young 3.3ms",
            "2022-11-04T22:36:43.020+0800: 12.345: [GC pause 3.3ms]",
        ] {
            assert_eq!(detect(line.as_bytes()), [], "{line}");
        }
    }

    #[test]
    fn lines_that_runtimes_split_are_told() {
        let cri = peel(&[Wrap::Cri], b"2016-03-01T12:00:00.1Z stdout P first half");
        assert!(cri.partial && cri.whole);
        assert_eq!(&*cri.text, b"first half");
        let long = format!(
            r#"{{"log":"{}","time":"2016-03-01T12:00:00.5Z"}}"#,
            "x".repeat(16 << 10)
        );
        assert!(peel(&[Wrap::Json], long.as_bytes()).partial);
        assert!(!peel(&[Wrap::Json], br#"{"log":"no end"}"#).partial);
        let not = peel(&[Wrap::Syslog], b"\tat a.b.C(D.java:1)");
        assert!(!not.whole && &*not.text == b"\tat a.b.C(D.java:1)");
    }
}
