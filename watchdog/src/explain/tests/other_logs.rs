//! Logs of other shapes: ZooKeeper 3.4 to 3.9 in log4j and logback layouts, kazoo, the C client's own log,
//! kernel, etcd and JVM.

use super::told;
use crate::explain::report::{Report, Standing};
use crate::explain::text;

fn one(name: &str, text: &str) -> Report {
    told(&[(name.to_owned(), text.to_owned())])
}

fn says(report: &Report, what: &str) {
    let said = text::render(report);
    assert!(said.contains(what), "not there: {what}\n{said}");
}

/// A Java client whose loop ran on time: its server or the path is to blame, and which is not told.
#[test]
fn a_java_client_of_3_4_that_noticed_on_time() {
    let report = one(
        "app.log",
        "\
2016-03-01 12:00:00,100 [myid:] - INFO  [main-SendThread(zk1:2181):ClientCnxn$SendThread@1299] - Session establishment complete on server zk1/10.1.0.1:2181, sessionid = 0x15332b2cf1b0000, negotiated timeout = 6000
2016-03-01 12:10:04,103 [myid:] - INFO  [main-SendThread(zk1:2181):ClientCnxn$SendThread@1158] - Client session timed out, have not heard from server in 4003ms for sessionid 0x15332b2cf1b0000, closing socket connection and attempting reconnect
2016-03-01 12:10:12,310 [myid:] - INFO  [main-SendThread(zk2:2181):ClientCnxn$SendThread@1032] - Opening socket connection to server zk2/10.1.0.2:2181. Will not attempt to authenticate using SASL (unknown error)
2016-03-01 12:10:12,402 [myid:] - INFO  [main-SendThread(zk2:2181):ClientCnxn$SendThread@1197] - Unable to reconnect to ZooKeeper service, session 0x15332b2cf1b0000 has expired, closing socket connection
",
    );
    says(
        &report,
        "12:10:00.100  app: the client hears from its server for the last time",
    );
    says(&report, "noticed its read deadline on time");
    says(&report, "AT FAULT  cannot be told");
    assert_eq!(
        report.incidents[0].lapsed[0].lease.as_deref(),
        Some("0x15332b2cf1b0000")
    );
    assert_eq!(report.sources[0].counts.unknown, 0);
}

/// The same, but it notices 20 s late: it stood still itself.
#[test]
fn a_java_client_of_3_9_that_stood_still_with_its_gc_log() {
    let client = "\
2024-05-01 11:59:00,100 [myid:] - INFO  [main-SendThread(zk1:2181):o.a.z.ClientCnxn$SendThread@1432] - Session establishment complete on server zk1/10.1.0.1:2181, session id = 0x1000058ad020001, negotiated timeout = 6000
2024-05-01 12:00:24,900 [myid:] - WARN  [main-SendThread(zk1:2181):o.a.z.ClientCnxn$SendThread@1258] - Client session timed out, have not heard from server in 24800ms for session id 0x1000058ad020001
2024-05-01 12:00:25,300 [myid:] - WARN  [main-SendThread(zk2:2181):o.a.z.ClientCnxn$SendThread@1300] - Unable to reconnect to ZooKeeper service, session 0x1000058ad020001 has expired
";
    let gc = "\
[2024-05-01T11:59:59.000+0000][info][gc] GC(11) Pause Young (Normal) (G1 Evacuation Pause) 512M->128M(2048M) 12.345ms
[2024-05-01T12:00:24.600+0000][info][gc] GC(12) Pause Full (G1 Compaction Pause) 2000M->1500M(2048M) 23302.123ms
";
    let report = told(&[
        ("app-n1.log".to_owned(), client.to_owned()),
        ("gc-n1.log".to_owned(), gc.to_owned()),
    ]);
    let incident = &report.incidents[0];
    let cause = incident
        .causes
        .iter()
        .find(|cause| cause.cause == "runtime_pause")
        .unwrap();
    assert_eq!(cause.standing, Standing::Supported);
    says(&report, "noticed its read deadline 20.8 s late");
    says(&report, "as holder: app-n1");
}

#[test]
fn a_server_that_was_held_up_by_its_disk_expires_sessions() {
    let report = one(
        "zookeeper-n3.log",
        "\
2023-02-02 10:00:00,000 [myid:3] - INFO  [CommitProcessor:3:ZooKeeperServer@694] - Established session 0x300001 with negotiated timeout 6000 for client /10.1.0.9:40000
2023-02-02 10:05:09,500 [myid:3] - WARN  [SyncThread:3:FileTxnLog@338] - fsync-ing the write ahead log in SyncThread:3 took 8500ms which will adversely effect operation latency.File size is 67108880 bytes. See the ZooKeeper troubleshooting guide
2023-02-02 10:05:09,700 [myid:3] - INFO  [SessionTracker:ZooKeeperServer@398] - Expiring session 0x300001, timeout of 6000ms exceeded
",
    );
    let incident = &report.incidents[0];
    assert_eq!(incident.lapsed.len(), 1);
    assert_eq!(incident.lapsed[0].holder, "10.1.0.9:40000");
    let disk = incident
        .causes
        .iter()
        .find(|cause| cause.cause == "disk_stall")
        .unwrap();
    assert_eq!(disk.standing, Standing::Supported);
    says(&report, "a write to disk lasts 8.50 s");
}

#[test]
fn both_ends_of_a_session_are_one_loss() {
    let report = told(&[
        (
            "server.log".to_owned(),
            "2023-02-02 10:05:09,700 [myid:3] - INFO  [SessionTracker:ZooKeeperServer@398] - Expiring session 0x300001, timeout of 6000ms exceeded\n"
                .to_owned(),
        ),
        (
            "client.log".to_owned(),
            "2023-02-02 10:05:14,001:7(0x7f11):ZOO_WARN@zookeeper_interest@2000: Exceeded deadline by 8100ms\n\
             2023-02-02 10:05:14,020:7(0x7f11):ZOO_ERROR@handle_socket_error_msg@2514: Socket [10.1.0.1:2181] zk retcode=-112, errno=116(Stale file handle): sessionId=0x300001 has expired.\n"
                .to_owned(),
        ),
    ]);
    let incident = &report.incidents[0];
    assert_eq!(incident.lapsed.len(), 1);
    let lapse = &incident.lapsed[0];
    assert!(lapse.expired.is_some() && lapse.learned.is_some());
    says(
        &report,
        "10:05:05.901  client: the ZooKeeper client's next deadline (ping or read) passes",
    );
    assert_eq!(incident.fault.as_ref().unwrap().who, "client");
}

#[test]
fn kazoo() {
    let report = one(
        "worker.log",
        "\
2022-11-04 22:36:43,020 INFO kazoo.client: Connecting to zk1(10.1.0.1):2181, use_ssl: False
2022-11-04 22:36:43,040 INFO kazoo.client: Zookeeper connection established, state: CONNECTED
2022-11-04 22:40:43,020 WARNING kazoo.client: Connection dropped: outstanding heartbeat ping not received
2022-11-04 22:40:43,021 WARNING kazoo.client: Transition to CONNECTING
2022-11-04 22:40:53,500 WARNING kazoo.client: Session has expired
2022-11-04 22:40:53,501 INFO kazoo.client: Zookeeper session lost, state: EXPIRED_SESSION
",
    );
    assert_eq!(report.sources[0].kind, "kazoo");
    assert_eq!(report.incidents[0].lapsed.len(), 1);
}

#[test]
fn a_kernel_log_names_the_disk() {
    let report = told(&[
        (
            "client.log".to_owned(),
            "2022-11-04 22:38:43,020:7(0x7f11):ZOO_WARN@zookeeper_interest@2000: Exceeded deadline by 90100ms\n\
             2022-11-04 22:38:44,020:7(0x7f11):ZOO_ERROR@handle_socket_error_msg@2514: Socket [10.1.0.1:2181] zk retcode=-112, errno=116(Stale file handle): sessionId=0x300001 has expired.\n"
                .to_owned(),
        ),
        (
            "kern.log".to_owned(),
            "Nov  4 22:39:20 n1 kernel: [123456.789] INFO: task jbd2/sda1-8:345 blocked for more than 120 seconds.\n\
             Nov  4 22:39:20 n1 kernel: [123456.790] blk_update_request: I/O error, dev sda, sector 123\n"
                .to_owned(),
        ),
    ]);
    let disk = report.incidents[0]
        .causes
        .iter()
        .find(|cause| cause.cause == "disk_stall")
        .unwrap();
    assert_eq!(disk.standing, Standing::Supported);
    says(&report, "task jbd2/sda1-8 waits");
}

#[test]
fn etcd_of_both_layouts() {
    let report = told(&[
        (
            "etcd-1.log".to_owned(),
            r#"{"level":"warn","ts":"2022-11-04T22:36:43.020Z","caller":"wal/wal.go:805","msg":"slow fdatasync","took":"3.302s","expected-duration":"1s"}
{"level":"info","ts":"2022-11-04T22:36:44.020Z","caller":"raft/raft.go:1","msg":"raft.node: 8e9e05c52164694d lost leader 91bc3c398fb3c146 at term 4"}
"#
            .to_owned(),
        ),
        (
            "etcd-2.log".to_owned(),
            "2022-11-04 22:36:45.020000 W | wal: sync duration of 2.5s, expected less than 1s\n".to_owned(),
        ),
    ]);
    assert!(report.sources.iter().all(|source| source.kind == "etcd"));
    says(&report, "a write to disk lasts 3.30 s");
    says(&report, "a write to disk lasts 2.50 s");
    assert_eq!(report.incidents.len(), 1);
}

#[test]
fn healthy_logs_have_no_incident() {
    let mut text = String::new();
    for second in 0..3000 {
        text.push_str(&format!(
            "2023-02-02 10:{:02}:{:02},000 [myid:3] - INFO  [NIOWorkerThread-{}:ZooKeeperServer@1] - ordinary line {second}\n",
            second / 60 % 60,
            second % 60,
            second % 3
        ));
    }
    let report = one("zookeeper.log", &text);
    assert!(report.incidents.is_empty());
    says(&report, "No incident");
}

#[test]
fn a_pause_of_the_server_alone_is_no_proof_of_a_false_expiry() {
    // It ended long before the expiry.
    let report = one(
        "zookeeper.log",
        "\
2023-02-02 10:05:00,500 [myid:3] - WARN  [JvmPauseMonitor:JvmPauseMonitor@149] - Detected pause in JVM or host machine (eg GC): pause of approximately 2345ms
2023-02-02 10:05:09,700 [myid:3] - INFO  [SessionTracker:ZooKeeperServer@398] - Expiring session 0x300001, timeout of 6000ms exceeded
",
    );
    assert!(!report.incidents[0].lapsed[0].false_expiry);
}
