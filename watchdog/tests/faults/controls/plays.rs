//! What is done in each control. A play gives what else was wrong, in words.

use super::Control;
use crate::harness::client::{Kind, Order};
use crate::harness::clock::{self, SECOND};
use crate::harness::event::Stage;
use crate::harness::faults::Stopped;
use crate::rig::programs::Habit;
use crate::rig::random;
use crate::rig::switch::{self, Switch};
use crate::rig::victim::{Holder, Program, Victim, own_file, real};
use crate::scene::Scene;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Both ends of a lease.
const BOTH: &[&str] = &["holder", "grantor"];
/// What the file-system controls write at once.
const CHUNK: usize = 4 << 20;

pub const ALL: &[Control] = &[
    Control::new("idle", "eight idle clients of four kinds", idle).short(),
    Control::new("busy", "eight busy clients of four kinds", busy),
    Control::new(
        "bursts",
        "bursts of 5,000 requests beside idle clients",
        bursts,
    ),
    Control::new(
        "churn",
        "1,000 sessions opened and closed beside idle clients",
        churn,
    ),
    Control::new("cpu-load", "four hogs at normal priority", cpu_load),
    Control::new(
        "fsync-load",
        "heavy, healthy fsync, also on I/O threads",
        fsync_load,
    ),
    Control::new(
        "log-rotation",
        "logs written on I/O threads, rotated beside them",
        log_rotation,
    ),
    Control::new(
        "deploy",
        "50 clients killed with SIGKILL and restarted",
        deploy,
    ),
    Control::new(
        "debugger",
        "each client stopped for 1.5 s at T = 12 s",
        debugger,
    )
    .with_timeout(12),
    Control::new(
        "long-polls",
        "eight slow, healthy long polls beside idle clients",
        super::polls::long_polls,
    ),
    Control::new(
        "daemon-stopped",
        "the daemon itself stopped for 3 s, all else well",
        daemon_stopped,
    )
    .short(),
];

pub(super) fn clients(
    scene: &Scene,
    count: usize,
    order: fn(Kind, u16, Duration) -> Order<'static>,
) -> Vec<Victim> {
    let (port, timeout) = (scene.server.port(), scene.timeout);
    let clients = real(count, |kind| order(kind, port, timeout), timeout);
    scene.settle(&clients, BOTH);
    clients
}

fn idle(scene: &Scene, span: Duration) -> Vec<String> {
    let _clients = clients(scene, 8, Order::idle);
    clock::observe_for(span);
    Vec::new()
}

fn busy(scene: &Scene, span: Duration) -> Vec<String> {
    let _clients = clients(scene, 8, Order::busy);
    clock::observe_for(span);
    Vec::new()
}

fn bursts(scene: &Scene, span: Duration) -> Vec<String> {
    let _clients = clients(scene, 4, Order::idle);
    let holder = Holder {
        pace: Duration::from_secs(5),
        ..Holder::new(
            scene.server.port(),
            scene.timeout,
            Habit::Burst,
            Path::new("-"),
        )
    };
    let holders = [holder.start(), holder.start()];
    let before: u64 = holders
        .iter()
        .map(|holder| received(scene, holder.id()))
        .sum();
    clock::observe_for(span);
    let after: u64 = holders
        .iter()
        .map(|holder| received(scene, holder.id()))
        .sum();
    if after - before < 5_000 {
        return vec![format!("the server read {} requests only", after - before)];
    }
    Vec::new()
}

fn received(scene: &Scene, id: u64) -> u64 {
    let sessions = scene.server.sessions();
    sessions.get(&id).map_or(0, |session| session.received)
}

fn churn(scene: &Scene, span: Duration) -> Vec<String> {
    let _clients = clients(scene, 4, Order::idle);
    let address = format!("127.0.0.1:{}", scene.server.port());
    let words = [
        "churn".to_owned(),
        address,
        scene.timeout.as_millis().to_string(),
        "250".to_owned(),
        span.as_secs().to_string(),
    ];
    let programs: Vec<Program> = (0..4)
        .map(|_| Program::start(&[], &words, "churn"))
        .collect();
    clock::observe_for(span + Duration::from_secs(3));
    let closed: usize = programs.iter().map(|program| program.count("closed")).sum();
    if closed < 1_000 {
        return vec![format!(
            "{closed} sessions were opened and closed, not 1,000"
        )];
    }
    Vec::new()
}

fn cpu_load(scene: &Scene, span: Duration) -> Vec<String> {
    let _clients = clients(scene, 8, Order::idle);
    let _hogs: Vec<Program> = (0..4)
        .map(|_| Program::start(&[], &["hog".to_owned()], "hog"))
        .collect();
    clock::observe_for(span);
    Vec::new()
}

fn fsync_load(scene: &Scene, span: Duration) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let port = scene.server.port();
    let holders: Vec<Victim> = (0..4)
        .map(|_| {
            let file = own_file(folder.path());
            let holder = Holder {
                pace: Duration::from_millis(50),
                ..Holder::new(port, scene.timeout, Habit::Fsync, &file)
            };
            Victim::Own(holder.start())
        })
        .collect();
    scene.settle(&holders, BOTH);
    let _clients = clients(scene, 4, Order::idle);
    let end_us = clock::now_us() + clock::micros(span);
    while clock::now_us() < end_us {
        let mut file = File::create(folder.path().join("load")).expect("a file");
        file.write_all(&vec![7; CHUNK])
            .and_then(|()| file.sync_all())
            .expect("a healthy disk");
    }
    Vec::new()
}

fn log_rotation(scene: &Scene, span: Duration) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let port = scene.server.port();
    let holders: Vec<Victim> = (0..4)
        .map(|_| {
            let file = own_file(folder.path());
            let holder = Holder {
                pace: Duration::from_millis(100),
                ..Holder::new(port, scene.timeout, Habit::Log, &file)
            };
            Victim::Own(holder.start())
        })
        .collect();
    scene.settle(&holders, BOTH);
    let end_us = clock::now_us() + clock::micros(span);
    let path = |name: &str| folder.path().join(name);
    while clock::now_us() < end_us {
        let mut log = File::create(path("log")).expect("a file");
        for _ in 0..16 {
            log.write_all(&vec![b'l'; CHUNK]).expect("room");
        }
        std::fs::rename(path("log"), path("log.1")).expect("a rename");
        drop(std::fs::remove_file(path("log.2")));
        std::fs::copy(path("log.1"), path("log.2")).expect("a copy");
        clock::observe_for(Duration::from_millis(500));
    }
    Vec::new()
}

fn deploy(scene: &Scene, span: Duration) -> Vec<String> {
    let port = scene.server.port();
    let start = || Holder::new(port, scene.timeout, Habit::None, Path::new("-")).start();
    let mut programs: Vec<Program> = (0..46).map(|_| start()).collect();
    let mut real = clients(scene, 4, Order::idle);
    clock::observe_for(span / 3);
    for program in &mut programs {
        // Dropping kills with SIGKILL.
        *program = start();
    }
    for client in &mut real {
        if let Victim::Real(old, _) = client {
            let kind = old.kind;
            let order = Order::idle(kind, port, scene.timeout);
            *client = Victim::real(crate::harness::client::Client::start(order));
        }
    }
    for program in &programs {
        program.id();
    }
    clock::observe_for(span * 2 / 3);
    Vec::new()
}

fn debugger(scene: &Scene, span: Duration) -> Vec<String> {
    let clients = clients(scene, 8, Order::idle);
    let end_us = clock::now_us() + clock::micros(span);
    let pauses = |client: &Victim| {
        while clock::now_us() < end_us {
            clock::observe_for(random::within(scene.timeout));
            let pid = client.pid();
            let switch = Switch::arm(switch::FAULT, &format!("kill -CONT {pid}"));
            let stopped = Stopped::stop(pid);
            clock::observe_until(stopped.since_us + SECOND * 3 / 2);
            stopped.resume();
            drop(switch);
            // A second pause in the same cycle would be another matter.
            clock::observe_for(scene.timeout * 2 / 3);
        }
    };
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| pauses(client));
        }
    });
    Vec::new()
}

fn daemon_stopped(scene: &Scene, span: Duration) -> Vec<String> {
    let _clients = clients(scene, 8, Order::idle);
    let end_us = clock::now_us() + clock::micros(span);
    let mark = scene.daemon.mark();
    let mut times = 0;
    while clock::now_us() < end_us {
        clock::observe_for(random::within(scene.timeout));
        let pid = scene.daemon.pid();
        let switch = Switch::arm(switch::FAULT, &format!("kill -CONT {pid}"));
        let stopped = Stopped::stop(pid);
        clock::observe_for(Duration::from_secs(3));
        stopped.resume();
        drop(switch);
        times += 1;
        clock::observe_for(Duration::from_secs(3));
    }
    let events = scene.daemon.events_since(mark);
    let stalls = events.iter().filter(|event| {
        event.is("stalled") && event.number("for_ms").is_some_and(|ms| ms >= 2_500)
    });
    let stalls = stalls.count();
    let mut wrong = Vec::new();
    if stalls != times {
        wrong.push(format!(
            "stopped {times} times, said `stalled` {stalls} times"
        ));
    }
    let accused = events
        .iter()
        .filter(|event| event.stage() > Some(Stage::Healthy));
    wrong.extend(accused.map(|event| format!("accused: {}", event.value)));
    wrong
}
