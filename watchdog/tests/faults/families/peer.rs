//! The other end: a server that stands still, in sight of the daemon and out of it; whose disk hangs;
//! that stops reading. And the daemon itself, stopped while all else is well.

use crate::fault::Fault;
use crate::harness::client::Order;
use crate::harness::clock::{self, SECOND};
use crate::harness::zookeeper::free_port;
use crate::rig::hung_disk::HungDisk;
use crate::rig::path::Path;
use crate::rig::programs::Habit;
use crate::rig::switch::{self, Switch};
use crate::rig::victim::{Holder, Program, Victim, real};
use crate::sample::{Harm, Sample};
use crate::scene::{Scene, T, of_lease};
use std::net::SocketAddr;
use std::time::Duration;

/// The faults of this family.
pub const FAULTS: &[Fault] = &[
    Fault::new(
        "server-stopped",
        "SIGSTOP of the server, which the daemon sees",
        &["process_stopped"],
        |scene, count| server_stopped(scene, count, "holder"),
    )
    .sized(8, 2)
    .alone(),
    Fault::new(
        "server-stopped-grantor",
        "the same, told of the server's own leases",
        &["process_stopped"],
        |scene, count| server_stopped(scene, count, "grantor"),
    ),
    Fault::new(
        "server-out-of-sight",
        "SIGSTOP of a server that the daemon does not see",
        &["peer_silent"],
        out_of_sight,
    ),
    Fault::new(
        "server-disk",
        "disk hung under the server's transaction log, one writer, idle clients",
        &["disk_stall"],
        |_, count| transaction_log(count, "holder"),
    ),
    Fault::new(
        "server-disk-grantor",
        "the same, told of the server's own leases",
        &["disk_stall"],
        |_, count| transaction_log(count, "grantor"),
    ),
    Fault::new(
        "peer-stops-reading",
        "the peer stops reading: its window is full",
        &["peer_window"],
        full_window,
    )
    .sized(6, 0),
];

fn stop(pid: i32) -> (i64, Box<dyn Send>) {
    let switch = Switch::arm(switch::FAULT, &format!("kill -CONT {pid}"));
    let stopped = crate::harness::faults::Stopped::stop(pid);
    (stopped.since_us, Box::new((stopped, switch)))
}

/// A stopped server expires nobody until it goes on: then its log tells, and the daemon is judged by
/// what it had said before.
fn judge_after_resuming(
    scene: &Scene,
    clients: &[Victim],
    role: &'static str,
    inject: impl FnOnce() -> (i64, Box<dyn Send>),
) -> Vec<Sample> {
    let mark = scene.daemon.mark();
    clock::observe_for(crate::rig::random::within(scene.timeout / 3));
    let (onset_us, guard) = inject();
    clock::observe_until(onset_us + clock::micros(scene.timeout) * 4 / 3);
    drop(guard);
    let limit_us = clock::now_us() + 8 * SECOND;
    let all = || {
        let gone = |client: &Victim| scene.expired_us(client.id(), onset_us).is_some();
        clients.iter().all(gone)
    };
    while clock::now_us() < limit_us && !all() {
        clock::observe_for(Duration::from_millis(50));
    }
    clock::observe_for(Duration::from_millis(300));
    let onsets = vec![onset_us; clients.len()];
    let mut samples = scene.collect(clients, &onsets, mark, role);
    for (sample, client) in samples.iter_mut().zip(clients) {
        // A client that is taken back at the last moment has lost its connection all the same.
        let given_up = client
            .lost_us(onset_us)
            .filter(|at_us| *at_us < sample.harm_us);
        if let Some(at_us) = given_up {
            let after = clock::seconds(at_us - onset_us);
            let given_up = format!("the client gave its connection up after {after:.1} s");
            match &mut sample.proof {
                Ok(proof) => proof.push_str(&format!("; {given_up}")),
                Err(_) => {
                    sample.proof = Ok(given_up);
                    sample.harm_us = at_us;
                    sample.harm = Harm::GivenUp;
                }
            }
        }
    }
    samples
}

fn server_stopped(scene: &Scene, count: usize, role: &'static str) -> Vec<Sample> {
    let port = scene.server.port();
    let clients = real(count, |kind| Order::idle(kind, port, T), T);
    scene.settle(&clients, &["holder", "grantor"]);
    judge_after_resuming(scene, &clients, role, || stop(scene.server.pid()))
}

/// The clients know the server by a port that is not its own: the daemon watches the port that they
/// know, and so sees their ends alone.
fn out_of_sight(_: &Scene, count: usize) -> Vec<Sample> {
    let known = free_port();
    let scene = Scene::watching(T, &[known], "", false);
    let path = Path::create();
    path.lead(known, scene.server.port());
    let words: Vec<&'static str> = path.enter().map(|word| &*word.to_owned().leak()).to_vec();
    let words: &'static [&'static str] = words.leak();
    let server = SocketAddr::new(path.node, known);
    let clients = real(
        count,
        |kind| Order {
            server,
            before: words,
            ..Order::idle(kind, 0, T)
        },
        T,
    );
    scene.settle(&clients, &["holder"]);
    let samples = judge_after_resuming(&scene, &clients, "holder", || stop(scene.server.pid()));
    drop(clients);
    samples
}

/// The server's SyncThread hangs: pings are touched and not answered, and the clients give up at
/// 2T/3 by their own clocks. Their giving up is the harm, for the server expires nobody.
fn transaction_log(count: usize, role: &'static str) -> Vec<Sample> {
    let disk = HungDisk::create("defaults");
    let scene = Scene::new(T, &[], &format!("dataLogDir={}", disk.mount().display()));
    let port = scene.server.port();
    let writer = Holder {
        pace: Duration::from_millis(200),
        ..Holder::new(port, T, Habit::Write, std::path::Path::new("-"))
    };
    let writer = writer.start();
    let clients = real(count, |kind| Order::idle(kind, port, T), T);
    scene.settle(&clients, &["holder", "grantor"]);
    let mark = scene.daemon.mark();
    clock::observe_for(crate::rig::random::within(T / 3));
    let hanging = disk.hang();
    let onset_us = hanging.since_us;
    let limit_us = onset_us + clock::micros(T) * 3 / 2;
    while clock::now_us() < limit_us
        && clients
            .iter()
            .any(|client| client.lost_us(onset_us).is_none())
    {
        clock::observe_for(Duration::from_millis(50));
    }
    clock::observe_for(Duration::from_millis(200));
    let stuck = kernel_stack_of(scene.server.pid(), "SyncThread");
    let onsets = vec![onset_us; clients.len()];
    let mut samples = scene.collect(&clients, &onsets, mark, role);
    drop(hanging);
    for (sample, client) in samples.iter_mut().zip(&clients) {
        sample.thing = Some(disk.device.clone());
        sample.proof = match (client.lost_us(onset_us), &stuck) {
            (Some(at_us), Some(state)) => {
                sample.harm_us = at_us;
                sample.harm = Harm::GivenUp;
                Ok(format!(
                    "the client gave its connection up {:.1} s after the onset; the server's SyncThread: {state}",
                    clock::seconds(at_us - onset_us)
                ))
            }
            (None, _) => Err("the client kept its connection".to_owned()),
            (_, None) => Err("the server's SyncThread is not in D".to_owned()),
        };
    }
    drop((clients, writer, scene));
    samples
}

/// The state of a process's thread by name, if it is in `D`.
fn kernel_stack_of(pid: i32, name: &str) -> Option<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks.flatten().find_map(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let wchan = std::fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        let waits = comm.starts_with(name) && stat.rsplit_once(") ")?.1.starts_with('D');
        waits.then(|| format!("D in {wchan}"))
    })
}

/// A grantor of our own, which lives and does not read; the holders write until its window is full.
fn full_window(_: &Scene, count: usize) -> Vec<Sample> {
    let (known, own) = (free_port(), free_port());
    let scene = Scene::watching(T, &[known], "", false);
    let path = Path::create();
    path.lead(known, own);
    let words = [
        "grantor".to_owned(),
        format!("0.0.0.0:{own}"),
        T.as_millis().to_string(),
    ];
    let grantor = Program::start(&[], &words, "grantor");
    grantor.wait("listening", 0).expect("the grantor listens");
    let server = SocketAddr::new(path.node, known);
    let enter = path.enter();
    let start = |_| {
        clock::observe_for(crate::rig::random::within(T / 4));
        let holder = Holder {
            server,
            pace: Duration::from_millis(250),
            inside: &enter,
            ..Holder::new(0, T, Habit::Flood, std::path::Path::new("-"))
        };
        Victim::Own(holder.start())
    };
    let holders: Vec<Victim> = (0..count).map(start).collect();
    scene.settle(&holders, &["holder"]);
    let mark = scene.daemon.mark();
    clock::observe_for(crate::rig::random::within(T / 3));
    let onset_us = clock::now_us();
    grantor.commands().go();
    let expired = |id| grantor.first_of("expired", id);
    let limit_us = onset_us + clock::micros(T) * 2;
    while clock::now_us() < limit_us && holders.iter().any(|holder| expired(holder.id()).is_none())
    {
        clock::observe_for(Duration::from_millis(50));
    }
    clock::observe_for(Duration::from_millis(300));
    let events = scene.daemon.events_since(mark);
    let sample = |holder: &Victim| {
        let id = holder.id();
        let harm_us = expired(id).unwrap_or_else(clock::now_us);
        // The holder's last complete write: after it, it hangs in the next.
        let sent = holder.last_said_us("sent", harm_us).unwrap_or(harm_us);
        let proof = match expired(id) {
            Some(_) if harm_us - sent > 2 * SECOND => Ok(format!(
                "the grantor read nothing for T and let it expire; the holder's last write ended {:.1} s before",
                clock::seconds(harm_us - sent)
            )),
            Some(_) => Err("the holder's writes went on".to_owned()),
            None => Err("the grantor did not let it expire".to_owned()),
        };
        Sample {
            victim: holder.name(),
            id,
            role: "holder",
            onset_us,
            stood_us: onset_us,
            harm_us,
            harm: Harm::Expired,
            proof,
            thing: None,
            events: of_lease(&events, id, "holder"),
        }
    };
    let samples = holders.iter().map(sample).collect();
    drop(holders);
    samples
}
