//! What must hold of any file that is given as a log, and of any bytes that are unpacked: for the property tests
//! and for `cargo xtask fuzz` alike.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::readers::{Kind, READERS};
use super::report::Report;
use super::unpack::unpacked;
use super::{ExplainArgs, explain, html, retold, text, wrap};
use crate::failure::Failure;
use crate::printable::obeyed;
use crate::recorder::format::{MAGIC, Recording};

/// Of what comes out of a packed file so much is looked at.
const MOST_UNPACKED: u64 = 16 << 20;

/// A line of everything that is read, and some that nobody reads.
pub const SEEDS: [&str; 44] = [
    "W1104 22:36:43.185218 147990 session.cc:288] [SESSION KEEPALIVE FAILURE] x",
    "[ETimedOut] expect timeout ms: 11999 elapsed ms: 12794 socket: 10.0.0.1:40112-->10.0.0.1:10103 x",
    "W20221104 22:36:43.185218 147990 session.cc:288] I am the leader now, seq is 14",
    "E1104 22:36:49.492303 147990 m.cc:1] [SESSION EXPIRED] uuid: \"6513270e\" group: \"access\" lease_expire_ns: 1667572603000000000 epoch: 1 x",
    "E1104 22:36:49.492313 147990 m.cc:1] session expired caused by delayed RPC",
    "I1104 22:36:43.185218 1 leaderelection.go:285] failed to renew lease kube-system/x: timed out",
    "W1104 22:36:43.405140 139813 zk.cc:9] 2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@zookeeper_interest@2288: Exceeded deadline by 3302ms",
    "I1104 22:36:53.009012 1 s.cc:1] META_RUNNING new status: META_RUNNING meta addr: 10.0.0.3:1 Last status was: META_BOOTING last for 3585 ms ",
    "2022-11-04 22:36:43,020:138783(0x7f28408aa700):ZOO_WARN@zookeeper_interest@2288: Exceeded deadline by 3302ms",
    "2022-11-04 22:36:48,655:138783(0x7f28408aa700):ZOO_ERROR@handle_socket_error_msg@2514: Socket [10.0.0.1:2181] zk retcode=-7, errno=110(Connection timed out): connection to 10.0.0.1:2181 timed out (exceeded timeout by 3302ms)",
    "2022-11-04 22:36:49,690:138783(0x7f28408aa700):ZOO_ERROR@h@1: Socket [10.0.0.1:2181] zk retcode=-112, errno=116(Stale file handle): sessionId=0x300001 has expired.",
    "2016-03-01 12:00:00,100 [myid:] - INFO  [main-SendThread(zk1:2181):ClientCnxn$SendThread@1299] - Session establishment complete on server zk1/10.1.0.1:2181, sessionid = 0x15332b2cf1b0000, negotiated timeout = 6000",
    "2016-03-01 12:10:04,103 [myid:] - INFO  [main-SendThread(zk1:2181):ClientCnxn$SendThread@1158] - Client session timed out, have not heard from server in 4003ms for sessionid 0x15332b2cf1b0000",
    "2016-03-01 12:10:12,402 [myid:] - INFO  [x] - Unable to reconnect to ZooKeeper service, session 0x15332b2cf1b0000 has expired, closing",
    "2023-02-02 10:05:09,500 [myid:3] - WARN  [SyncThread:3:FileTxnLog@338] - fsync-ing the write ahead log in SyncThread:3 took 8500ms which",
    "2023-02-02 10:05:09,700 [myid:3] - INFO  [SessionTracker:ZooKeeperServer@398] - Expiring session 0x300001, timeout of 6000ms exceeded",
    "2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Established session 0x300001 with negotiated timeout 6000 for client /10.1.0.9:40000",
    "INFO  [2023-02-02 10:05:09,700] a.b: State change: SUSPENDED",
    "Nov 04, 2022 10:36:43 PM a.b.C d",
    "time=\"2016-03-01T12:00:00Z\" level=warning msg=\"State change: LOST\"",
    "2022-11-04 22:40:43,020 WARNING kazoo.client: Connection dropped: outstanding heartbeat ping not received",
    "2022-11-04 22:40:53,500 WARNING kazoo.client: Session has expired",
    "[123456.789012] INFO: task jbd2/sda1-8:345 blocked for more than 120 seconds.",
    "[Fri Nov  4 22:36:43 2022] blk_update_request: I/O error, dev sda, sector 123",
    "kern  :err   : [123456.789012] watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [java:1234]",
    "Nov  4 22:39:20 n1 kernel: [123456.789] INFO: task x:345 blocked for more than 120 seconds.",
    "Nov  4 22:39:20 n1 etcd[9]: raft.node: 8e9e05c52164694d lost leader 91bc3c398fb3c146 at term 4",
    "2022-11-04T22:39:20.123+08:00 n1 zookeeper[7]: 2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x300001, timeout of 6000ms exceeded",
    r#"{"level":"warn","ts":"2022-11-04T22:36:43.020Z","caller":"wal/wal.go:805","msg":"slow fdatasync","took":"3.302s","expected-duration":"1s"}"#,
    "2019-03-01 12:00:00.123456 W | wal: sync duration of 2.5s, expected less than 1s",
    "2019-03-01 12:00:00.123456 W | etcdserver: failed to send out heartbeat on time (exceeded the 100ms timeout for 3.302s)",
    "[2022-11-04T22:36:43.020+0800][info][gc] GC(1) Pause Young (Normal) 24M->4M(256M) 3302.1ms",
    "[1667572603020ms][info][safepoint] Safepoint \"Cleanup\", Time since last: 1 ns, Total: 3302000000 ns",
    "2015-05-26T14:45:37.987-0200: 151.126: [Full GC (Ergonomics) x, 3.3 secs] [Times: user=0.06 sys=0.00, real=3.30 secs]",
    "Journal start:            9113",
    "Journal size:             256M",
    r#"{"log":"2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x300001, timeout of 6000ms exceeded\n","stream":"stdout","time":"2023-02-02T02:05:09.7Z"}"#,
    r#"{"__REALTIME_TIMESTAMP":"1667572603020000","_HOSTNAME":"n1","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"INFO: task x:345 blocked for more than 120 seconds."}"#,
    "2023-02-02T02:05:09.700456789Z stdout P 2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x30",
    "2023-02-02T02:05:09.700456789Z stdout F 0001, timeout of 6000ms exceeded",
    "zk-3  | 2023-02-02 10:05:09,700 [myid:3] - INFO  [x] - Expiring session 0x300001, timeout of 6000ms exceeded",
    "<14>1 2023-02-02T10:05:10.5Z n3 zookeeper 77 - [a@1 b=\"c\\]\"] 2023-02-02 10:05:09,700 [myid:3] - INFO [x] - State change: LOST",
    "\tat org.apache.zookeeper.server.NIOServerCnxn.doIO(NIOServerCnxn.java:333)",
    "",
];

/// The report on a file of this name; none: there was nothing to explain.
pub fn told(kind: Option<Kind>, name: &str, bytes: &[u8]) -> Option<Report> {
    let dir = tempfile::tempdir().expect("done");
    let path = dir.path().join(name);
    fs::write(&path, bytes).expect("done");
    let path = path.display();
    let report = explain(&ExplainArgs {
        logs: vec![kind.map_or_else(
            || path.to_string(),
            |kind| format!("{}:{path}", kind.name()),
        )],
        ..ExplainArgs::default()
    });
    match report {
        Ok(report) => Some(report),
        Err(error) => {
            let error = Failure::Usage(format!("{error:#}")).to_string();
            assert!(!error.contains(obeyed), "{error:?}");
            assert!(error.contains("nothing to explain"), "{error}");
            None
        }
    }
}

/// All that it says, but for where the files were.
pub fn whole(report: &Report) -> String {
    let mut json = serde_json::to_string_pretty(report).expect("done");
    for source in &report.sources {
        for file in &source.files {
            json = json.replace(file.as_str(), "FILE");
        }
    }
    let shown = text::render(report);
    assert!(!shown.contains(obeyed), "{shown:?}");
    let _page = html::render(report);
    for incident in &report.incidents {
        assert!(incident.from <= incident.to, "{incident:?}");
    }
    for pair in report.incidents.windows(2) {
        assert!(pair[0].from <= pair[1].from, "not the oldest first");
    }
    json
}

/// Every line is counted once.
pub fn counted(report: &Report, bytes: &[u8]) {
    let mut lines = 0;
    for source in &report.sources {
        let counts = source.counts;
        let once = counts.understood + counts.unknown + counts.continued + counts.cut;
        assert_eq!(counts.lines, once, "{:?}", counts);
        lines += counts.lines;
    }
    let other = report.unread.iter().find_map(|unread| {
        let (before, _) = unread.split_once(" lines of other programs")?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    });
    // A line that a runtime split in two is one.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let ends = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let all = ends + u64::from(text.last().is_some_and(|last| *last != b'\n'));
    let split = wrap::detect(text)
        .iter()
        .any(|wrap| matches!(wrap, wrap::Wrap::Cri | wrap::Wrap::Json));
    let read = lines + other.unwrap_or(0);
    assert!(
        read == all || split && read <= all,
        "{} read of {}",
        read,
        all
    );
}

/// A file of any bytes, by itself or taken for a kind of log, is told of or refused; every line of plain text is
/// counted once. A script is which kind, and the bytes.
///
/// # Panics
/// Where that does not hold.
pub fn any_log(script: &[u8]) {
    let Some((kind, bytes)) = script.split_first() else {
        return;
    };
    let kind = READERS.get(usize::from(*kind)).map(|reader| reader.kind);
    let kind = kind.filter(|kind| *kind != Kind::Recording);
    let Some(report) = told(kind, "x.log", bytes) else {
        return;
    };
    whole(&report);
    if is_plain(bytes) {
        counted(&report, bytes);
    }
}

/// Neither packed, nor an archive, nor UTF-16, nor a recording.
fn is_plain(bytes: &[u8]) -> bool {
    let packed: [&[u8]; 8] = [
        b"\x1f\x8b",
        b"BZh",
        b"\xfd7zXZ",
        b"\x28\xb5\x2f\xfd",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        MAGIC,
    ];
    let archive = bytes.get(257..262) == Some(b"ustar");
    !archive && !packed.iter().any(|start| bytes.starts_with(start))
}

/// A recording of any bytes, as `explain` tells of it.
///
/// # Panics
/// Where it does.
pub fn any_recording(bytes: &[u8]) {
    if let Some(report) = told(None, "x.lwr", bytes) {
        whole(&report);
    }
    let Ok(recording) = Recording::from_reader(bytes) else {
        return;
    };
    if let Ok(text) = retold(&recording, false) {
        assert!(!text.contains(obeyed), "{text:?}");
    }
    let _lines = retold(&recording, true);
}

/// Whatever is packed comes to an end: of the bytes, or an error.
///
/// # Panics
/// Where it does not.
pub fn any_packed(bytes: &[u8]) {
    let Ok(reader) = unpacked(io::Cursor::new(bytes.to_vec())) else {
        return;
    };
    let mut out = io::sink();
    let _end = io::copy(&mut reader.take(MOST_UNPACKED), &mut out);
}

/// Logs: each line by itself, those of each kind together, packed and in an archive.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let any = u8::MAX;
    let mut seeds: Vec<Vec<u8>> = SEEDS
        .iter()
        .map(|line| [&[any], line.as_bytes(), b"\n"].concat())
        .collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/explain/testdata/incident");
    for file in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Ok(bytes) = fs::read(file.path()) {
            seeds.push([&[any], &bytes[..bytes.len().min(8 << 10)]].concat());
        }
    }
    let all = SEEDS.join("\n");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(all.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    if archive
        .append_data(&mut header, "zk/zk.log", all.as_bytes())
        .is_ok()
        && let Ok(bytes) = archive.into_inner()
    {
        seeds.push([&[any], bytes.as_slice()].concat());
    }
    for packed in packed_seeds() {
        seeds.push([&[any], packed.as_slice()].concat());
    }
    seeds.push([&[any], all.as_bytes()].concat());
    seeds
}

/// A few lines, packed in each way.
#[must_use]
pub fn packed_seeds() -> Vec<Vec<u8>> {
    use std::io::Write as _;
    let lines = SEEDS[..8].join("\n");
    let bytes = lines.as_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    let written = gzip
        .write_all(bytes)
        .and_then(|()| bzip2.write_all(bytes))
        .and_then(|()| xz.write_all(bytes));
    written.expect("into memory");
    let utf16 = lines.encode_utf16().flat_map(u16::to_le_bytes);
    let packed = [gzip.finish(), bzip2.finish(), xz.finish()];
    packed
        .into_iter()
        .map(|packed| packed.expect("into memory"))
        .chain([
            ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
            [0xff, 0xfe].into_iter().chain(utf16).collect(),
        ])
        .collect()
}
