//! One story in every layout that loggers write, and the words of each version.

use super::told;
use crate::explain::report::{Report, Standing};
use crate::explain::text;

const ID: &str = "0x15332b2cf1b0000";

fn one(name: &str, text: &str) -> Report {
    told(&[(name.to_owned(), text.to_owned())])
}

fn says(report: &Report, what: &str) {
    let said = text::render(report);
    assert!(said.contains(what), "not there: {what}\n{said}");
}

/// A client that is told of its loss, by the words of 3.4, 3.5 and 3.6 to 3.9.
fn stories() -> [[String; 3]; 3] {
    [
        [
            format!(
                "Session establishment complete on server zk1/10.1.0.1:2181, sessionid = {ID}, negotiated timeout = 6000"
            ),
            format!(
                "Client session timed out, have not heard from server in 4003ms for sessionid {ID}, closing socket connection and attempting reconnect"
            ),
            format!(
                "Unable to reconnect to ZooKeeper service, session {ID} has expired, closing socket connection"
            ),
        ],
        [
            format!(
                "Session establishment complete on server zk1/10.1.0.1:2181, sessionid = {ID}, negotiated timeout = 6000"
            ),
            format!(
                "Client session timed out, have not heard from server in 4003ms for sessionid {ID}"
            ),
            format!("Unable to reconnect to ZooKeeper service, session {ID} has expired"),
        ],
        [
            format!(
                "Session establishment complete on server zk1/10.1.0.1:2181, session id = {ID}, negotiated timeout = 6000"
            ),
            format!(
                "Client session timed out, have not heard from server in 4003ms for session id {ID}"
            ),
            format!("Unable to reconnect to ZooKeeper service, session {ID} has expired"),
        ],
    ]
}

/// Every layout, with `T` (to the ms, with a comma), `t` (with a dot), and the message.
type Layout = fn(&str, &str) -> String;
const LAYOUTS: [(&str, Layout); 13] = [
    ("log4j of 3.4", |t, m| {
        format!(
            "2016-03-01 {t} [myid:] - INFO  [main-SendThread(zk1:2181):ClientCnxn$SendThread@1299] - {m}"
        )
    }),
    ("logback of 3.8", |t, m| {
        format!(
            "2016-03-01 {t} [myid:1] - WARN  [main-SendThread(zk1:2181):o.a.z.ClientCnxn$SendThread@1258] - {m}"
        )
    }),
    ("HBase", |t, m| {
        format!("2016-03-01 {t} WARN  [main-SendThread(zk1:2181)] zookeeper.ClientCnxn: {m}")
    }),
    ("Kafka", |t, m| {
        format!("[2016-03-01 {t}] INFO {m} (org.apache.zookeeper.ClientCnxn)")
    }),
    ("Solr", |t, m| {
        format!(
            "2016-03-01 {} WARN  (main-SendThread(zk1:2181)) [   ] o.a.z.ClientCnxn {m}",
            t.replace(',', ".")
        )
    }),
    ("Spring Boot", |t, m| {
        format!(
            "2016-03-01 {}  WARN 1 --- [ain-SendThread(zk1:2181)] org.apache.zookeeper.ClientCnxn          : {m}",
            t.replace(',', ".")
        )
    }),
    ("Spring Boot 3", |t, m| {
        format!(
            "2016-03-01T{}+01:00  WARN 1 --- [app] [ain-SendThread(zk1:2181)] o.a.z.ClientCnxn : {m}",
            t.replace(',', ".")
        )
    }),
    ("Pulsar", |t, m| {
        format!(
            "2016-03-01T{t}+0000 [main-SendThread(zk1:2181)] INFO  org.apache.zookeeper.ClientCnxn - {m}"
        )
    }),
    ("Dropwizard", |t, m| {
        format!("INFO  [2016-03-01 {t}] org.apache.zookeeper.ClientCnxn: {m}")
    }),
    ("Hadoop's console", |t, m| {
        format!("16/03/01 {} INFO zookeeper.ClientCnxn: {m}", &t[..8])
    }),
    ("Tomcat", |t, m| {
        format!(
            "01-Mar-2016 {} INFO [main-SendThread(zk1:2181)] org.apache.zookeeper.ClientCnxn.run {m}",
            t.replace(',', ".")
        )
    }),
    ("log4j's DATE", |t, m| {
        format!("01 Mar 2016 {t} INFO [main-SendThread(zk1:2181)] ClientCnxn - {m}")
    }),
    ("logfmt", |t, m| {
        format!(
            "time=\"2016-03-01T{}Z\" level=warning msg=\"{m}\"",
            t.replace(',', ".")
        )
    }),
];

#[test]
fn a_java_client_in_every_layout_and_version() {
    for (name, layout) in LAYOUTS {
        for story in stories() {
            let lines: String = ["12:00:00,100", "12:10:04,103", "12:10:12,402"]
                .iter()
                .zip(&story)
                .map(|(time, message)| layout(time, message) + "\r\n")
                .collect();
            let report = one("app.log", &lines);
            let counts = report.sources[0].counts;
            assert_eq!((counts.lines, counts.understood), (3, 3), "{name}: {lines}");
            let lapse = &report.incidents[0].lapsed[0];
            assert_eq!(lapse.lease.as_deref(), Some(ID), "{name}");
            assert_eq!(lapse.learned.unwrap().date(), "2016-03-01", "{name}");
            // Heard for the last time, and the deadline by the session's own timeout.
            let fraction = if name == "Hadoop's console" {
                "59.997"
            } else {
                "00.100"
            };
            let minute = if fraction == "59.997" {
                "12:09"
            } else {
                "12:10"
            };
            says(&report, &format!("{minute}:{fraction}"));
            says(&report, "+ 2/3 of 6.000 s");
        }
    }
}

/// 3.4.14 and 3.5 say it when they notice and again when the socket is closed; the figure is of the first.
#[test]
fn what_a_client_says_twice_counts_once() {
    let [_, [established, noticed, expired], _] = stories();
    let [[_, closed, _], ..] = stories();
    let java = LAYOUTS[0].1;
    let text = [
        java("12:00:00,100", &established),
        java("12:10:04,103", &noticed),
        java("12:10:24,700", &closed),
        java("12:10:25,402", &expired),
    ]
    .join("\n");
    let report = one("app.log", &text);
    says(&report, "noticed its read deadline on time");
    assert!(!text::render(&report).contains("20.6 s late"));
}

/// Two sessions in one process, of different timeouts.
#[test]
fn a_deadline_is_that_of_its_own_session() {
    let java = LAYOUTS[1].1;
    let text = [
        java("12:00:00,100", "Session establishment complete on server zk1/10.1.0.1:2181, session id = 0xa, negotiated timeout = 6000"),
        java("12:00:01,100", "Session establishment complete on server zk1/10.1.0.1:2181, session id = 0xb, negotiated timeout = 60000"),
        java("12:10:04,103", "Client session timed out, have not heard from server in 4003ms for session id 0xa"),
        java("12:10:12,402", "Unable to reconnect to ZooKeeper service, session 0xa has expired"),
    ]
    .join("\n");
    says(&one("app.log", &text), "+ 2/3 of 6.000 s");
}

#[test]
fn a_server_in_the_words_of_every_version() {
    let java = LAYOUTS[1].1;
    for (message, says_what) in [
        (
            "Detected pause in JVM or host machine (eg GC): pause of approximately 8345ms",
            "all threads stand still for 8.35 s",
        ),
        (
            "Detected pause in JVM or host machine (eg GC): pause of approximately 8345 ms, total pause: info level: 0, warn level: 8345 ",
            "all threads stand still for 8.35 s",
        ),
        (
            "fsync-ing the write ahead log in SyncThread:0 took 8500ms which will adversely effect operation latency. See the ZooKeeper troubleshooting guide",
            "a write to disk lasts 8.50 s",
        ),
        (
            "fsync-ing the write ahead log in SyncThread:0 took 8500ms which will adversely effect operation latency. File size is 67108880 bytes. See the ZooKeeper troubleshooting guide",
            "a write to disk lasts 8.50 s",
        ),
    ] {
        let text = [
            java("12:10:09,500", message),
            java(
                "12:10:09,700",
                "Expiring session 0x300001, timeout of 6000ms exceeded",
            ),
        ]
        .join("\n");
        let report = one("zookeeper.log", &text);
        says(&report, says_what);
        assert_eq!(report.sources[0].counts.understood, 2, "{message}");
        assert!(report.incidents[0].lapsed[0].false_expiry, "{message}");
    }
}

/// What stands on the client names no session; with the client's own line it is one loss.
#[test]
fn programs_that_stand_on_the_client() {
    let java = LAYOUTS[1].1;
    let [.., [_, _, expired]] = stories();
    for message in [
        "State change: LOST",
        "Session expired event received",
        "[ZooKeeperClient Kafka server] Session expired.",
        "***** ABORTING region server n1,16020,1: regionserver:16020-0x1 received expired from ZooKeeper, aborting *****",
        "Session expired. Entering neutral mode and rejoining...",
        "Our previous ZooKeeper session was expired. Attempting to reconnect to recover relationship with ZooKeeper...",
    ] {
        let both = [
            java("12:10:12,402", &expired),
            java("12:10:12,900", message),
        ]
        .join("\n");
        for text in [both, java("12:10:12,900", message)] {
            let report = one("app.log", &text);
            assert_eq!(report.incidents[0].lapsed.len(), 1, "{message}");
            assert_eq!(report.sources[0].counts.unknown, 0, "{message}");
        }
    }
}

#[test]
fn kafka_without_zookeeper_and_kubernetes() {
    let kafka = LAYOUTS[3].1;
    let report = one(
        "controller.log",
        &kafka(
            "12:10:12,402",
            "[QuorumController id=1] Fencing broker 3 because its session has timed out.",
        ),
    );
    assert_eq!(
        report.incidents[0].lapsed[0].lease.as_deref(),
        Some("broker 3")
    );
    let report = one(
        "server.log",
        &kafka(
            "12:10:12,402",
            "[GroupCoordinator 1]: Member c-1-abc in group orders has failed, removing it from the group",
        ),
    );
    assert_eq!(report.incidents[0].lapsed[0].what, "\"orders\" lease");
    let report = one(
        "scheduler.log",
        "E1104 22:36:38.185218       1 leaderelection.go:332] error retrieving resource lock kube-system/kube-scheduler: context deadline exceeded\n\
         I1104 22:36:43.185218       1 leaderelection.go:285] failed to renew lease kube-system/kube-scheduler: timed out waiting for the condition\n\
         F1104 22:36:43.185300       1 server.go:205] leaderelection lost\n",
    );
    let lapse = &report.incidents[0].lapsed[0];
    assert_eq!(lapse.lease.as_deref(), Some("kube-system/kube-scheduler"));
    assert_eq!(lapse.what, "lease");
}

/// A loss beside which a log of another sort is put.
fn beside(name: &str, log: &str) -> Report {
    told(&[
        (
            "client.log".to_owned(),
            "2022-11-04 22:38:43,020:7(0x7f11):ZOO_WARN@zookeeper_interest@2000: Exceeded deadline by 90100ms\n\
             2022-11-04 22:38:44,020:7(0x7f11):ZOO_ERROR@handle_socket_error_msg@2514: Socket [10.1.0.1:2181] zk retcode=-112, errno=116(Stale file handle): sessionId=0x300001 has expired.\n"
                .to_owned(),
        ),
        (name.to_owned(), log.to_owned()),
    ])
}

fn supported(report: &Report, cause: &str) -> bool {
    report.incidents[0]
        .causes
        .iter()
        .any(|found| found.cause == cause && found.standing == Standing::Supported)
}

#[test]
fn the_kernels_words() {
    for (cause, message) in [
        (
            "disk_stall",
            "INFO: task kworker/u8:3:345 blocked for more than 120 seconds.",
        ),
        (
            "disk_stall",
            "INFO: task jbd2/sda1-8:345 blocked for more than 241 seconds.",
        ),
        (
            "disk_stall",
            "INFO: task Log writer #1:345 blocked in I/O wait for more than 120 seconds.",
        ),
        (
            "disk_stall",
            "blk_update_request: I/O error, dev sda, sector 123 op 0x1:(WRITE)",
        ),
        (
            "disk_stall",
            "I/O error, dev nvme0n1, sector 123 op 0x1:(WRITE) flags 0x800",
        ),
        (
            "disk_stall",
            "critical medium error, dev sda, sector 4 op 0x0:(READ)",
        ),
        (
            "disk_stall",
            "Buffer I/O error on device dm-0, logical block 5",
        ),
        ("disk_stall", "nvme nvme0: I/O 641 QID 8 timeout, aborting"),
        (
            "disk_stall",
            "nvme nvme0: I/O tag 641 (c281) opcode 0x1 (I/O Cmd) QID 8 timeout, aborting req_op:WRITE(1) size:4096",
        ),
        (
            "disk_stall",
            "ata1.00: exception Emask 0x0 SAct 0x1 SErr 0x0 action 0x6 frozen",
        ),
        ("disk_stall", "ata1.00: failed command: WRITE FPDMA QUEUED"),
        (
            "disk_stall",
            "sd 0:0:0:0: [sda] tag#12 timing out command, waited 180s",
        ),
        (
            "disk_stall",
            "sd 0:0:0:0: [sda] tag#0 FAILED Result: hostbyte=DID_TIME_OUT driverbyte=DRIVER_OK",
        ),
        (
            "disk_stall",
            "EXT4-fs (sda1): Remounting filesystem read-only",
        ),
        ("disk_stall", "Aborting journal on device sda1-8."),
        (
            "disk_stall",
            "XFS (sdb1): Filesystem has been shut down due to log error (0x2).",
        ),
        (
            "cpu_starved",
            "watchdog: BUG: soft lockup - CPU#3 stuck for 92s! [java:1234]",
        ),
        (
            "cpu_starved",
            "rcu: INFO: rcu_sched self-detected stall on CPU",
        ),
        (
            "cpu_starved",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        ),
        (
            "cpu_starved",
            "rcu: rcu_sched kthread starved for 2500 jiffies! g5 f0x0",
        ),
        (
            "memory_pressure",
            "Out of memory: Killed process 77 (java) total-vm:1kB, anon-rss:1kB",
        ),
        (
            "memory_pressure",
            "Memory cgroup out of memory: Killed process 77 (java) total-vm:1kB",
        ),
        (
            "memory_pressure",
            "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0",
        ),
    ] {
        for line in [
            format!("Nov  4 22:38:40 n1 kernel: [123456.789] {message}"),
            format!("2022-11-04T22:38:40.123456+00:00 n1 kernel: {message}"),
            format!("[Fri Nov  4 22:38:40 2022] {message}"),
            format!("kern  :err   : [Fri Nov  4 22:38:40 2022] {message}"),
        ] {
            let report = beside("kern.log", &format!("{line}\n"));
            assert_eq!(report.sources[1].counts.understood, 1, "{line}");
            assert!(
                supported(&report, cause),
                "{line}: {:?}",
                report.incidents[0].causes
            );
        }
    }
}

#[test]
fn a_jvms_pauses_by_every_collector() {
    let at_end = [
        "[2022-11-04T22:38:42.500+0000][info][gc] GC(12) Pause Full (G1 Compaction Pause) 2000M->1500M(2048M) 20302.123ms",
        "[2022-11-04T22:38:42.500+0000][1234.567s][info][gc          ] GC(12) Pause Young (Allocation Failure) 24K->4K(256G) 20302.123ms",
        "[1667601522500ms][info][gc] GC(12) Pause Remark 20302.123ms",
        "[2022-11-04T22:38:42.500+0000][info][safepoint] Safepoint \"G1CollectForAllocation\", Time since last: 1 ns, Reaching safepoint: 2 ns, Cleanup: 1 ns, At safepoint: 3 ns, Total: 20302123000 ns",
        "[2022-11-04T22:38:42.500+0000][info][safepoint] Total time for which application threads were stopped: 20.3021230 seconds, Stopping threads took: 0.0000500 seconds",
        "2022-11-04T22:38:42.500+0000: 151.126: Total time for which application threads were stopped: 20.3021230 seconds, Stopping threads took: 0.0000500 seconds",
    ];
    // The older collectors stamp when they begin.
    let at_begin = [
        "2022-11-04T22:38:22.198+0000: 151.126: [GC (Allocation Failure) 151.126: [DefNew: 629119K->69888K(629120K), 20.2 secs] 1619346K->1273247K(2027264K), 20.3021230 secs] [Times: user=0.06 sys=0.00, real=20.30 secs]",
        "2022-11-04T22:38:22.198+0000: 151.126: [Full GC (Ergonomics) [PSYoungGen: 10K->0K(1M)] [ParOldGen: 1M->1M(2M)], 20.3021230 secs] [Times: user=0,06 sys=0,00, real=20,30 secs]",
        "2022-11-04T22:38:22.198+0000: 151.126: [GC pause (G1 Evacuation Pause) (young), 20.3021230 secs]",
    ];
    for line in at_end.iter().chain(&at_begin) {
        let report = beside("gc.log", &format!("{line}\n"));
        assert_eq!(report.sources[1].kind, "jvm-gc", "{line}");
        assert_eq!(report.sources[1].counts.understood, 1, "{line}");
        assert!(supported(&report, "runtime_pause"), "{line}");
        says(&report, "22:38:22.19");
    }
    // What is no pause, and what begins one, is no line that was cut.
    for line in [
        "[2022-11-04T22:38:42.500+0000][info][gc,start] GC(12) Pause Young (Normal) (G1 Evacuation Pause)",
        "2022-11-04T22:38:42.500+0000: 151.126: [GC concurrent-root-region-scan-start]",
        "2022-11-04T22:38:42.500+0000: 151.126: [CMS-concurrent-mark: 0.5/0.6 secs] [Times: user=1.06 sys=0.00, real=20.65 secs]",
    ] {
        let report = beside("gc.log", &format!("{}\n{line}\n", at_end[0]));
        let counts = report.sources[1].counts;
        assert_eq!(
            (counts.understood, counts.unknown, counts.cut),
            (1, 1, 0),
            "{line}"
        );
    }
}

#[test]
fn etcd_in_the_words_of_every_version() {
    for (line, what) in [
        (
            r#"{"level":"warn","ts":"2022-11-04T22:38:40.020Z","caller":"wal/wal.go:805","msg":"slow fdatasync","took":"3.302s","expected-duration":"1s"}"#,
            "lasts 3.30 s",
        ),
        (
            r#"{"level":"warn","ts":"2022-11-04T22:38:40.020186+0000","caller":"txn/util.go:93","msg":"apply request took too long","took":"4.99863799s","expected-duration":"100ms","prefix":"read-only range "}"#,
            "lasts 5.00 s",
        ),
        (
            r#"{"level":"warn","ts":"2022-11-04T22:38:40.020Z","caller":"etcdserver/raft.go:415","msg":"leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk","to":"8e9e05c52164694d","heartbeat-interval":"100ms","expected-duration":"200ms","exceeded-duration":"3.302s"}"#,
            "passes",
        ),
        (
            r#"{"level":"info","ts":"2022-11-04T22:38:40.020Z","caller":"raft/node.go:336","msg":"raft.node: 2c93ddd62e188857 lost leader 27ecc6d4a68d02f at term 899"}"#,
            "lost",
        ),
        (
            r#"{"level":"warn","ts":"2022-11-04T22:38:40.020Z","caller":"etcdserver/server.go:800","msg":"failed to revoke lease","lease-id":"694d7d1d0d0d0d0d","error":"etcdserver: request timed out"}"#,
            "READ",
        ),
        (
            "2022-11-04 22:38:40.020000 W | wal: sync duration of 3.302s, expected less than 1s",
            "lasts 3.30 s",
        ),
        (
            "2022-11-04 22:38:40.020000 W | etcdserver: failed to send out heartbeat on time (exceeded the 100ms timeout for 3.302s, to 8e9e05c52164694d)",
            "passes",
        ),
        (
            "2022-11-04 22:38:40.020000 W | etcdserver: apply entries took too long [20.185857579s for 1 entries]",
            "lasts 20.2 s",
        ),
        (
            "2022-11-04 22:38:40.020000 W | etcdserver: read-only range request \"key:\\\"a\\\"\" with result \"range_response_count:1\" took too long (4.302s) to execute",
            "lasts 4.30 s",
        ),
    ] {
        let report = beside("etcd.log", &format!("{line}\n"));
        assert_eq!(report.sources[1].kind, "etcd", "{line}");
        assert_eq!(report.sources[1].counts.understood, 1, "{line}");
        says(&report, what);
    }
}
