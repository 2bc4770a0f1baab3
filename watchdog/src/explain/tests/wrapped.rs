//! The same logs as they come out of containers, syslog, shippers and archives.

use std::fs;

use serde_json::json;

use super::{testdata, told};
use crate::explain::report::Report;
use crate::explain::{ExplainArgs, explain, text};

/// The client's side of the incident as it is told, apart from what was read.
fn story(report: &Report) -> String {
    let said = text::render(report);
    let (_, told) = said.split_once("INCIDENT 1").unwrap_or_default();
    // Where a line stands, without its directories.
    let dirs = regex::Regex::new(r"\[[^\]\s]*/").unwrap();
    let places = regex::Regex::new(r"\[([^\]\s]*)\.(xz|zst):").unwrap();
    places
        .replace_all(&dirs.replace_all(told, "["), "[$1:")
        .into_owned()
}

/// Line by line, so that what differs is seen.
fn same(one: &str, two: &str, of: &str) {
    for (one, two) in one.lines().zip(two.lines()) {
        assert_eq!(one, two, "{of}");
    }
    assert_eq!(one.lines().count(), two.lines().count(), "{of}");
}

const SERVER: &str = "\
2023-02-02 10:00:00,000 [myid:3] - INFO  [CommitProcessor:3:ZooKeeperServer@694] - Established session 0x300001 with negotiated timeout 6000 for client /10.1.0.9:40000
2023-02-02 10:05:08,100 [myid:3] - WARN  [NIOWorkerThread-1:NIOServerCnxn@366] - Unable to read additional data from client sessionid 0x300001, likely client has closed socket
java.io.IOException: it goes on
\tat org.apache.zookeeper.server.NIOServerCnxn.doIO(NIOServerCnxn.java:333)
2023-02-02 10:05:09,500 [myid:3] - WARN  [SyncThread:3:FileTxnLog@338] - fsync-ing the write ahead log in SyncThread:3 took 8500ms which will adversely effect operation latency.File size is 67108880 bytes. See the ZooKeeper troubleshooting guide
2023-02-02 10:05:09,700 [myid:3] - INFO  [SessionTracker:ZooKeeperServer@398] - Expiring session 0x300001, timeout of 6000ms exceeded
";

type Wrap = fn(usize, &str) -> String;

#[test]
fn every_wrap_tells_the_same_story() {
    let plain = told(&[("zk.log".to_owned(), SERVER.to_owned())]);
    let wraps: [(&str, Wrap); 10] = [
        ("json-file", |_, line| {
            json!({"log": format!("{line}\n"), "stream": "stdout", "time": "2023-02-02T10:05:10.123456789Z"}).to_string()
        }),
        ("CRI", |_, line| {
            format!("2023-02-02T10:05:10.123456789Z stdout F {line}")
        }),
        ("syslog", |_, line| {
            format!("Feb  2 10:05:10 n3 zookeeper[77]: {line}")
        }),
        ("journal", |_, line| {
            format!("2023-02-02T10:05:10+0000 n3 zookeeper[77]: {line}")
        }),
        ("RFC 5424", |_, line| {
            format!("<14>1 2023-02-02T10:05:10.5Z n3 zookeeper 77 - - {line}")
        }),
        ("journal -o json", |_, line| {
            json!({"__REALTIME_TIMESTAMP": "1675332310123456", "_HOSTNAME": "n3", "_COMM": "java", "SYSLOG_IDENTIFIER": "zookeeper", "MESSAGE": line}).to_string()
        }),
        ("compose", |_, line| format!("zk-3  | {line}")),
        ("colours", |place, line| {
            format!("\x1b[{}mzk-3  |\x1b[0m {line}", 31 + place)
        }),
        ("kubectl", |_, line| {
            format!("[pod/zk-3/zookeeper] 2023-02-02T10:05:10.123456789Z {line}")
        }),
        ("filebeat", |_, line| {
            json!({"@timestamp": "2023-02-02T10:05:10.123Z", "host": {"name": "n3"}, "message": line}).to_string()
        }),
    ];
    for (name, wrap) in wraps {
        let wrapped: String = SERVER
            .lines()
            .enumerate()
            .map(|(place, line)| wrap(place, line) + "\n")
            .collect();
        let report = told(&[("zk.log".to_owned(), wrapped)]);
        let (counts, as_plain) = (report.sources[0].counts, plain.sources[0].counts);
        assert_eq!(counts.lines, as_plain.lines, "{name}");
        assert_eq!(counts.understood, as_plain.understood, "{name}");
        assert_eq!(counts.continued, as_plain.continued, "{name}");
        let host = &report.sources[0].party.host;
        let alike = story(&report)
            .replace(&format!("zk ({host})"), "zk")
            .replace(&format!("zk on {host}"), "zk")
            .replace(host.as_str(), "zk");
        same(&alike, &story(&plain), name);
    }
}

/// Stamps without a zone are of the zone that who passed them on tells.
#[test]
fn a_runtimes_stamp_tells_the_zone() {
    let lines: String = SERVER
        .lines()
        .map(|line| {
            format!(
                "2023-02-02T02:05:09.700456789Z stdout F {}\n",
                line.replace(" 10:00:00,000", " 10:05:09,699")
            )
        })
        .collect();
    let report = told(&[("zk.log".to_owned(), lines)]);
    assert_eq!(
        report.incidents[0].lapsed[0].expired.unwrap().time(),
        "02:05:09.700"
    );
}

/// One file of syslog: kernel, server and others, each read for what it is.
#[test]
fn a_file_of_many_programs() {
    let mut lines = String::from("-- Journal begins at Thu 2023-02-02 --\n");
    for line in SERVER.lines() {
        lines.push_str(&format!("Feb  2 10:05:10 n3 zookeeper[77]: {line}\n"));
        lines.push_str("Feb  2 10:05:10 n3 sshd[1]: Accepted publickey for root\n");
        lines.push_str("Feb  2 10:05:10 n3 CRON[12]: (root) CMD (true)\n");
    }
    lines.push_str("Feb  2 10:05:11 n3 kernel: [1234.5] INFO: task jbd2/sda1-8:345 blocked for more than 120 seconds.\n");
    lines.push_str("Feb  2 10:05:11 n3 etcd[9]: raft.node: 2c93ddd62e188857 lost leader 27ecc6d4a68d02f at term 899\n");
    let report = told(&[("messages".to_owned(), lines.clone())]);
    let kinds: Vec<_> = report
        .sources
        .iter()
        .map(|source| {
            (
                source.party.name.as_str(),
                source.kind,
                source.party.host.as_str(),
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("messages:zookeeper", "zookeeper-java", "n3"),
            ("messages:kernel", "kernel", "n3"),
            ("messages:etcd", "etcd", "n3"),
        ]
    );
    assert!(
        report.unread[0].contains("CRON, sshd"),
        "{:?}",
        report.unread
    );
    let read: u64 = report
        .sources
        .iter()
        .map(|source| source.counts.lines)
        .sum();
    let said: u64 = report.unread[0]
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap();
    assert_eq!(read + said, lines.lines().count() as u64);
    assert!(text::render(&report).contains("task jbd2/sda1-8 waits"));
}

/// Libraries and the runtime may write into the same file, each in its own layout.
#[test]
fn a_file_of_many_layouts() {
    let text = "\
W1104 22:38:40.185218 147990 a.cc:288] an ordinary line
2022-11-04 22:38:43,020:7(0x7f11):ZOO_WARN@zookeeper_interest@2000: Exceeded deadline by 90100ms
2022-11-04 22:38:44,020:7(0x7f11):ZOO_ERROR@handle_socket_error_msg@2514: Socket [10.1.0.1:2181] zk retcode=-112, errno=116(Stale file handle): sessionId=0x300001 has expired.
W1104 22:38:44.185218 147990 a.cc:288] an ordinary line
W1104 22:38:44.185219 147990 a.cc:288] an ordinary line
";
    let report = told(&[("app.log".to_owned(), text.to_owned())]);
    assert_eq!(report.sources[0].kind, "glog");
    let counts = report.sources[0].counts;
    assert_eq!((counts.lines, counts.understood, counts.unknown), (5, 2, 3));
    assert_eq!(report.incidents[0].lapsed.len(), 1);
    let python = "\
2022-11-04 22:36:40,020 INFO app.main: an ordinary line
2022-11-04 22:36:41,020 INFO app.main: an ordinary line
2022-11-04 22:36:42,020 INFO app.main: an ordinary line
2022-11-04 22:36:43,020 INFO app.main: an ordinary line
2022-11-04 22:36:44,020 INFO app.main: an ordinary line
2022-11-04 22:40:53,500 WARNING kazoo.client: Session has expired
";
    let report = told(&[("app.log".to_owned(), python.to_owned())]);
    assert_eq!(report.sources[0].counts.understood, 1);
    assert_eq!(report.incidents[0].lapsed.len(), 1);
}

/// Docker and containerd split lines at 16 KiB.
#[test]
fn a_line_that_a_runtime_split_is_one() {
    let long = "x".repeat(20_000);
    let line = format!(
        "2023-02-02 10:05:09,700 [myid:3] - INFO  [SessionTracker:ZooKeeperServer@398] - Expiring session 0x300001, {long} timeout of 6000ms exceeded"
    );
    let (one, two) = line.split_at(16 << 10);
    let cri = format!(
        "2023-02-02T10:05:09.700Z stdout P {one}\n2023-02-02T10:05:09.700Z stdout F {two}\n"
    );
    let docker = format!(
        "{}\n{}\n",
        json!({"log": one, "stream": "stdout", "time": "2023-02-02T10:05:09.700Z"}),
        json!({"log": format!("{two}\n"), "stream": "stdout", "time": "2023-02-02T10:05:09.700Z"})
    );
    for text in [cri, docker] {
        let report = told(&[("zk.log".to_owned(), text)]);
        let counts = report.sources[0].counts;
        assert_eq!((counts.lines, counts.understood), (1, 1));
        assert!(text::render(&report).contains("10:05:03.700"));
    }
}

/// The incident's logs in whatever they were kept: the story does not change.
#[test]
fn packed_archived_and_other_encodings_tell_the_same() {
    let source = testdata().join("incident");
    let of = |logs: Vec<String>| {
        explain(&ExplainArgs {
            logs,
            ..ExplainArgs::default()
        })
        .unwrap()
    };
    let mut names: Vec<_> = fs::read_dir(&source)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let plain = of(names
        .iter()
        .map(|path| path.display().to_string())
        .collect());
    let dir = tempfile::tempdir().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("incident", &source).unwrap();
    let tar = dir.path().join("all.tar.xz");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    std::io::Write::write_all(&mut xz, &archive.into_inner().unwrap()).unwrap();
    fs::write(&tar, xz.finish().unwrap()).unwrap();
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for (place, path) in names.iter().enumerate() {
        let text = fs::read_to_string(path).unwrap();
        let bytes = match place % 4 {
            0 => [
                b"\xff\xfe".to_vec(),
                text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            ]
            .concat(),
            1 => format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes(),
            2 => text.trim_end().as_bytes().to_vec(),
            _ => ruzstd::encoding::compress_to_vec(
                text.as_bytes(),
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
        };
        fs::write(other.join(path.file_name().unwrap()), bytes).unwrap();
    }
    for logs in [
        source.display().to_string(),
        tar.display().to_string(),
        other.display().to_string(),
    ] {
        let report = of(vec![logs.clone()]);
        same(&story(&report), &story(&plain), &logs);
        assert_eq!(report.sources.len(), plain.sources.len(), "{logs}");
    }
}
