//! Stories of many: one stalled server thread with ten thousand sessions is one incident; of two
//! thousand sessions of a real server the one that freezes is flagged and no other; ten thousand
//! connections that come and go in a minute, well-behaved or not, leave nothing behind.

use crate::harness::clock;
use crate::harness::crowd;
use crate::harness::crowd::Crowd;
use crate::harness::daemon::{Daemon, GRACE_US, Home};
use crate::harness::event::{Event, Stage};
use crate::harness::faults::Stopped;
use crate::harness::zookeeper::{Listen, ZooKeeper};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sessions of one server.
const SESSIONS: u32 = 10_000;
/// It is not the daemon's own cost that is looked at here, by builds of any kind.
const LIMITS: &str = "limits: { cpu: 100%, memory: 1GiB }\n";
/// Long enough for ten thousand of anything on a machine that does much else.
const LONG: Duration = Duration::from_secs(90);

/// One crowd at a time: ten thousand of anything take what CPU there is, and each story judges what a
/// daemon sees in some seconds.
fn alone() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::new(());
    CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn starting(home: &Home, flows: u32) -> Daemon {
    let mut command = home.command();
    command.args(["--flows", &flows.to_string()]);
    let daemon = Daemon::launch(command);
    daemon.wait_for("`started`", LONG, |event| event.is("started"));
    daemon
}

/// A sample of the metrics page, by the beginning of its line.
pub fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    let page = daemon.get("/metrics")?;
    let line = page.body.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

pub fn nothing_lost(daemon: &Daemon) {
    let page = daemon.get("/metrics").expect("the metrics page").body;
    let lost = page.lines().filter(|line| {
        line.starts_with("lease_watchdog_lost_total{")
            && !line.ends_with(" 0")
            // A question that finds its queue full is asked again half a second later.
            && !line.contains("\"question\"")
    });
    let lost: Vec<&str> = lost.collect();
    daemon.check(lost.is_empty(), &format!("something was lost: {lost:?}"));
    let dropped = daemon
        .events_since(0)
        .into_iter()
        .find(|one| one.is("dropped"));
    daemon.check(dropped.is_none(), &format!("dropped: {dropped:?}"));
}

#[test]
fn one_stalled_thread_with_ten_thousand_sessions_is_one_incident() {
    let _alone = alone();
    let (server, port) = Crowd::server();
    let folder = tempfile::tempdir().expect("a folder");
    let paged = folder.path().join("paged");
    let page = folder.path().join("page.sh");
    std::fs::write(
        &page,
        format!("#!/bin/sh\nexec cat >> {}\n", paged.display()),
    )
    .expect("a hook");
    std::fs::set_permissions(&page, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it can be run");
    let home = Home::with(&format!(
        "leases:\n  - name: zookeeper\n    protocol: zookeeper\n    ports: [{port}]\n    \
         role: grantor\nhttp: {{ listen: \"127.0.0.1:0\" }}\n{LIMITS}\
         alerts:\n  - on: at_risk\n    exec: {{ argv: [\"{}\"] }}\n",
        page.display()
    ));
    let daemon = starting(&home, 3 * SESSIONS);
    let _holders = Crowd::holders(port, SESSIONS);
    let ends = SESSIONS as usize;
    let seen = clock::poll(LONG, || {
        let events = daemon.events_since(0);
        let seen = events.iter().filter(|event| event.is("lease_seen")).count();
        (seen == ends).then_some(())
    });
    daemon.check(seen.is_some(), "not all leases are seen");
    let mark = daemon.mark();
    let frozen_us = clock::now_us();
    let stopped = Stopped::stop(server.pid());
    let in_it = |count: i64| {
        move |event: &Event| {
            event.is("incident")
                && event.text("cause") == "process_stopped"
                && event.number("leases") == Some(count)
        }
    };
    let all = i64::try_from(ends).expect("not so many");
    let whole = daemon.wait_from(mark, "all in one incident", LONG, in_it(all));
    println!(
        "story: {all} leases are one incident {:.2} s after the server was stopped: {}",
        clock::seconds(whole.at_us - frozen_us),
        whole.text("summary")
    );
    daemon.check(!whole.text("worst").is_empty(), "the worst is named");
    let fired = clock::poll(LONG, || {
        let told = std::fs::read_to_string(&paged).ok()?;
        told.contains("\"firing\"").then_some(())
    });
    daemon.check(fired.is_some(), "somebody is paged");
    drop(stopped);
    let number = whole.text("incident").to_owned();
    daemon.wait_from(mark, "its end", LONG, |event| {
        event.is("incident")
            && event.text("state") == "closed"
            && event.text("incident") == number
            && event.number("leases") == Some(all)
            && event.number("expired") == Some(0)
    });
    let resolved = clock::poll(LONG, || {
        let told = std::fs::read_to_string(&paged).ok()?;
        told.contains("\"resolved\"").then_some(told)
    })
    .expect("the page is taken back");
    // What is told in between is how many it has become.
    for state in ["firing", "resolved"] {
        let said = format!("\"event\":\"alert\",\"state\":\"{state}\"");
        let pages = resolved.matches(&said).count();
        assert_eq!(pages, 1, "one page, one taken back: {resolved}");
    }
    let incidents: BTreeSet<String> = daemon
        .events_since(mark)
        .iter()
        .filter(|event| event.is("incident"))
        .map(|event| event.text("incident").to_owned())
        .collect();
    daemon.check(
        incidents.len() == 1,
        &format!("{incidents:?} are more incidents than one"),
    );
    nothing_lost(&daemon);
}

/// Sessions of one real server.
const REAL_SESSIONS: u32 = 2_000;

/// The sessions of one end that were seen.
fn seen_at(daemon: &Daemon, role: &str) -> BTreeSet<u64> {
    let events = daemon.events_since(0).into_iter();
    events
        .filter(|event| event.is("lease_seen") && event.text("role") == role)
        .filter_map(|event| event.session())
        .collect()
}

/// Whoever renews in time may be late, by this machine's fault, and no more. The story is told at length
/// with `--long`, to the end that the server's own log tells.
#[test]
fn of_two_thousand_sessions_of_a_real_server_the_one_that_freezes_is_flagged() {
    let timeout_us = i64::try_from(crowd::TIMEOUT.as_micros()).expect("a short timeout");
    let server = ZooKeeper::start(crowd::TIMEOUT, Listen::Loopback);
    let home = Home::watching(&[server.port()], LIMITS);
    let daemon = starting(&home, 3 * REAL_SESSIONS);
    let _holders = Crowd::holders(server.port(), REAL_SESSIONS - 1);
    let others: BTreeSet<u64> = server.sessions().into_keys().collect();
    let lone = Crowd::holders(server.port(), 1);
    let all: BTreeSet<u64> = server.sessions().into_keys().collect();
    assert_eq!(
        all.len(),
        REAL_SESSIONS as usize,
        "the server has them all, and no other"
    );
    let newest: Vec<u64> = all.difference(&others).copied().collect();
    let [id] = newest[..] else {
        panic!("{newest:x?} are not one session more");
    };
    for role in ["holder", "grantor"] {
        let seen = clock::poll(LONG, || (seen_at(&daemon, role) == all).then_some(()));
        daemon.check(
            seen.is_some(),
            &format!("{} {role}s' leases are seen", seen_at(&daemon, role).len()),
        );
    }
    // Each renews twice.
    clock::observe_for(crowd::TIMEOUT * 3 / 4);
    let mark = daemon.mark();
    let stopped = Stopped::stop(lone.pid());
    let renewed_us = server.session(id).answered_us;
    let late = daemon.wait_stage(mark, id, "holder", Stage::Late, crowd::TIMEOUT);
    let at_risk = daemon.wait_stage(mark, id, "holder", Stage::AtRisk, crowd::TIMEOUT);
    println!(
        "story: of {REAL_SESSIONS} sessions the one that froze is late after {:.2} s, at risk {:.2} s \
         before the server may expire it",
        clock::seconds(late.at_us - stopped.since_us),
        clock::seconds(renewed_us + timeout_us - at_risk.at_us),
    );
    daemon.check(
        late.at_us <= stopped.since_us + clock::SECOND + GRACE_US,
        "late within a second of the stop",
    );
    // Proven for two seconds, and a third of the timeout gone.
    let due_us = (stopped.since_us + timeout_us / 6).max(renewed_us + timeout_us / 3);
    daemon.check(
        at_risk.at_us <= due_us + GRACE_US,
        &format!(
            "at risk {:.2} s after it was due",
            clock::seconds(at_risk.at_us - due_us)
        ),
    );
    daemon.check(
        at_risk.text("cause") == "process_stopped",
        "the cause is right",
    );
    if std::env::var_os("LEASE_WATCHDOG_LONG").is_some() {
        let expired_us = server.wait_expiry(id, crowd::TIMEOUT * 2);
        daemon.check(at_risk.at_us < expired_us, "flagged before it expired");
        daemon.wait_from(mark, "its end at the grantor's", LONG, |event| {
            event.of(id, "grantor") && event.enters("expired")
        });
        let expired: BTreeSet<u64> = server.expiries().into_iter().map(|one| one.0).collect();
        assert_eq!(
            expired,
            BTreeSet::from([id]),
            "nobody else's session expired"
        );
    }
    let accused = daemon.events_since(0).into_iter().find(|event| {
        event.session() != Some(id) && event.stage().is_some_and(|stage| stage > Stage::Late)
    });
    daemon.check(accused.is_none(), &format!("falsely accused: {accused:?}"));
    nothing_lost(&daemon);
    drop(stopped);
}

/// Ends of connections with this port, by /proc/net/tcp: none that listens (0A), is not yet
/// established (02, 03), or is over (06, 07).
pub fn sockets(port: u16) -> u32 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
    let port = format!(":{port:04X}");
    let open = |line: &&str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let ours = words[1].ends_with(&port) || words[2].ends_with(&port);
        ours && !["0A", "02", "03", "06", "07"].contains(&words[3])
    };
    u32::try_from(table.lines().skip(1).filter(open).count()).expect("few")
}

/// Segments that this node's TCP has sent and received, both ends of a loopback connection counted
/// (/proc/net/snmp).
fn segments() -> i64 {
    let table = std::fs::read_to_string("/proc/net/snmp").expect("/proc");
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, counts) = (rows.next().expect("names"), rows.next().expect("counts"));
    names
        .split(' ')
        .zip(counts.split(' '))
        .filter(|(name, _)| ["InSegs", "OutSegs"].contains(name))
        .map(|(_, count)| count.parse::<i64>().expect("a count"))
        .sum()
}

/// A storm of packets on a watched port costs the daemon no more than calm: it stays, and sees. Where it
/// is told to cost less than it does, it goes in the middle of the storm, and takes everything along.
#[test]
fn a_storm_of_packets_does_not_end_the_daemon_and_a_limit_does() {
    const SESSIONS: u32 = 8;
    let _alone = alone();
    let (_server, port) = Crowd::gentle_server();
    let home = Home::watching(&[port], "");
    let daemon = starting(&home, 1_024);
    let mark = daemon.mark();
    let _flood = Crowd::flood(port, SESSIONS);
    for role in ["holder", "grantor"] {
        let all = || seen_at(&daemon, role).len() == SESSIONS as usize;
        let seen = clock::poll(LONG, || all().then_some(()));
        daemon.check(seen.is_some(), &format!("all {role}s' leases are seen"));
    }
    let (begun_us, before) = (clock::now_us(), segments());
    // Whoever uses a whole core has used up the limit after three seconds.
    clock::observe_for(Duration::from_secs(6));
    let rate = (segments() - before) * clock::SECOND / (clock::now_us() - begun_us);
    println!("story: {SESSIONS} sessions exchange {rate} segments a second, and the daemon stays");
    daemon.check(
        rate > 5_000,
        &format!("{rate} segments a second are no storm"),
    );
    let health = daemon.get("/healthz").map(|page| page.status);
    daemon.check(health == Some(200), &format!("it watches: {health:?}"));
    let accused = daemon
        .events_since(mark)
        .into_iter()
        .find(|event| event.stage().is_some_and(|stage| stage > Stage::Late));
    daemon.check(accused.is_none(), &format!("falsely accused: {accused:?}"));

    let frugal = Home::watching(&[port], "limits: { cpu: 0.001% }\n");
    let mut ended = starting(&frugal, 1_024);
    let attached = ended.bpf_objects();
    ended.check(!attached.is_empty(), "its programs run");
    let said = ended.wait_for("`limit_exceeded`", LONG, |event| event.is("limit_exceeded"));
    ended.check(said.text("what") == "cpu", "it says which limit");
    let exit = ended.exit(Duration::from_secs(30));
    ended.check(exit.code() == Some(1), &format!("it goes: {exit:?}"));
    let detached = clock::poll(LONG, || {
        let left = attached.iter().any(|object| object.exists());
        (!left).then_some(())
    });
    ended.check(detached.is_some(), "nothing of it is left in the kernel");
    // The storm goes on without it, and the other is not touched.
    let before = segments();
    let goes_on = clock::poll(LONG, || (segments() > before + 10_000).then_some(()));
    daemon.check(goes_on.is_some(), "the sessions go on");
    daemon.check(
        daemon.get("/healthz").map(|page| page.status) == Some(200),
        "the other daemon goes on",
    );
}

#[test]
fn ten_thousand_short_connections_leave_no_slot_behind() {
    let _alone = alone();
    let (server, port) = Crowd::server();
    let home = Home::watching(&[port], LIMITS);
    let daemon = starting(&home, 4_096);
    // Some stay, to be seen in the end as in the beginning.
    let _holders = Crowd::holders(port, 10);
    let used = "lease_watchdog_slots{state=\"used\"}";
    let at_first = clock::poll(LONG, || metric(&daemon, used).filter(|used| *used >= 20.0));
    assert_eq!(at_first, Some(20.0), "ten connections have twenty ends");
    let _visits = Crowd::visits(port, SESSIONS, 45);
    // The kernel's own count is the truth: a busy machine may leave a socket or two half closed.
    let in_the_end = clock::poll(LONG, || {
        let open = sockets(port);
        metric(&daemon, used).filter(|used| (20..30).contains(&open) && *used == f64::from(open))
    });
    daemon.check(
        in_the_end.is_some(),
        &format!(
            "slots in use: {:?}, sockets: {}",
            metric(&daemon, used),
            sockets(port)
        ),
    );
    nothing_lost(&daemon);
    // Sessions of connections that went without a word are leases too, until they have expired.
    let leases = || {
        let page = daemon.get("/metrics")?.body;
        let counts = page
            .lines()
            .filter(|line| line.starts_with("lease_watchdog_leases{"));
        let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u32>().ok());
        Some(counts.sum::<u32>())
    };
    let twenty = clock::poll(LONG, || leases().filter(|count| *count == 20));
    daemon.check(
        twenty.is_some(),
        &format!("{:?} leases are left of twenty", leases()),
    );
    // What is still there is still followed.
    let mark = daemon.mark();
    let stopped = Stopped::stop(server.pid());
    daemon.wait_from(mark, "an incident of the twenty", LONG, |event| {
        event.is("incident")
            && event.text("cause") == "process_stopped"
            && event.number("leases") == Some(20)
    });
    drop(stopped);
}

#[test]
fn a_port_that_is_used_again_is_another_lease_each_time() {
    const TIMES: u32 = 200;
    let (_server, port) = Crowd::server();
    let home = Home::watching(&[port], "");
    let daemon = starting(&home, 1_024);
    let (_again, own) = Crowd::again(port, TIMES);
    let own = format!("127.0.0.1:{own}");
    for end in ["local", "peer"] {
        let sessions = || {
            let events = daemon.events_since(0).into_iter();
            let seen = events.filter(|one| one.is("lease_seen") && one.text(end) == own);
            seen.map(|one| one.text("id").to_owned())
                .collect::<BTreeSet<String>>()
        };
        let all = clock::poll(LONG, || (sessions().len() == TIMES as usize).then_some(()));
        daemon.check(
            all.is_some(),
            &format!("with {end} = {own}: {} sessions seen", sessions().len()),
        );
    }
    let used = "lease_watchdog_slots{state=\"used\"}";
    let free = clock::poll(LONG, || metric(&daemon, used).filter(|used| *used == 0.0));
    daemon.check(free.is_some(), "slots are left behind");
    nothing_lost(&daemon);
}
