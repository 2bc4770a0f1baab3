//! Stories of many: one stalled server thread with ten thousand sessions is one incident; ten
//! thousand connections that come and go in a minute, well-behaved or not, leave nothing behind.

use crate::harness::clock;
use crate::harness::crowd::Crowd;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Event;
use crate::harness::faults::Stopped;
use std::collections::BTreeSet;
use std::time::Duration;

/// Sessions of one server.
const SESSIONS: u32 = 10_000;
/// It is not the daemon's own cost that is looked at here, by builds of any kind.
const LIMITS: &str = "limits: { cpu: 100%, memory: 1GiB }\n";
/// Long enough for ten thousand of anything on a machine that does much else.
const LONG: Duration = Duration::from_secs(90);

fn starting(home: &Home, flows: u32) -> Daemon {
    let mut command = home.command();
    command.args(["--flows", &flows.to_string()]);
    let daemon = Daemon::launch(command);
    daemon.wait_for("`started`", LONG, |event| event.is("started"));
    daemon
}

/// A sample of the metrics page, by the beginning of its line.
fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    let page = daemon.get("/metrics")?;
    let line = page.body.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn nothing_lost(daemon: &Daemon) {
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
    let alerts = resolved.lines().filter(|line| line.contains("\"alert\""));
    assert_eq!(alerts.count(), 2, "one page, one taken back: {resolved}");
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

/// Ends of connections with this port, by /proc/net/tcp: none that listens (0A), is not yet
/// established (02, 03), or is over (06, 07).
fn sockets(port: u16) -> u32 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
    let port = format!(":{port:04X}");
    let open = |line: &&str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let ours = words[1].ends_with(&port) || words[2].ends_with(&port);
        ours && !["0A", "02", "03", "06", "07"].contains(&words[3])
    };
    u32::try_from(table.lines().skip(1).filter(open).count()).expect("few")
}

#[test]
fn ten_thousand_short_connections_leave_no_slot_behind() {
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
    // What is still there is still followed.
    let mark = daemon.mark();
    let stopped = Stopped::stop(server.pid());
    daemon.wait_from(mark, "an incident of the twenty", LONG, |event| {
        event.is("incident") && event.number("leases") == Some(20)
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
