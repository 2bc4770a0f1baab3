//! Story of a secret: what clients say beyond the heads of frames is nowhere kept, be it said in the open or
//! inside TLS. Not in the daemon's memory (the kernel's slots are mapped into it), nor in anything it writes
//! or serves.

use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home};
use crate::harness::event::Stage;
use crate::harness::faults::Stopped;
use crate::harness::program::Program;
use crate::protocols::{LONG, of};
use crate::tls::Secure;
use memchr::memmem::Finder;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What no program says by chance. Put together here, so that this file does not hold it whole.
fn secret() -> String {
    ["xyzzy", "plugh", "frotz", "gnusto"].join("").repeat(2)
}

/// Where in a process's memory that can be written a text stands, and how many bytes were looked at.
fn in_memory(pid: i32, text: &str) -> (Vec<String>, usize) {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
    let finder = Finder::new(text);
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut bytes = vec![0; 1 << 20];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line
            .split_once(' ')
            .and_then(|(range, _)| range.split_once('-'))
            .expect("a range");
        let end = u64::from_str_radix(to, 16).expect("an address");
        let mut at = u64::from_str_radix(from, 16).expect("an address");
        while at < end {
            let most = usize::try_from(end - at).map_or(bytes.len(), |left| left.min(bytes.len()));
            // What is mapped may be no memory of its own.
            let Ok(read) = memory.read_at(&mut bytes[..most], at) else {
                break;
            };
            if read == 0 {
                break;
            }
            looked += read;
            if finder.find(&bytes[..read]).is_some() {
                found.push(line.to_owned());
            }
            if read < most {
                break;
            }
            // A text may lie across two pieces.
            let step = if at + (read as u64) < end {
                read - text.len()
            } else {
                read
            };
            at += step as u64;
        }
    }
    (found, looked)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(files(&path)),
            Ok(kind) if kind.is_file() => all.push(path),
            _ => {}
        }
    }
    all
}

#[test]
fn nothing_that_is_said_beyond_the_heads_of_frames_is_kept() {
    let secure = Secure::start("TLSv1.3");
    let home = Home::with(&format!(
        "leases:\n  - name: open\n    protocol: zookeeper\n    ports: [{}]\n  - name: sealed\n    \
         protocol: zookeeper\n    tls: true\n    ports: [{}]\nhttp: {{ listen: \"127.0.0.1:0\" }}\n",
        secure.server.port(),
        secure.port
    ));
    let all = home.path().join("all.lwr");
    let mut command = home.command();
    command.arg("-v").arg("--record-all").arg(&all);
    let daemon = Daemon::launch(command);
    daemon.wait_for("`started`", LONG, |event| event.is("started"));

    let secret = secret();
    let ports = [(secure.server.port(), "open"), (secure.port, "tls")];
    let mut clients = ports.map(|(port, how)| {
        let client = Program::python("secrets.py", &[&port.to_string(), how]);
        client.wait(0, "there");
        client
    });
    // From here on the calls of the one inside TLS are read.
    daemon.wait_stderr("plaintext is had", LONG);
    for client in &mut clients {
        client.tell(&secret);
        client.wait(0, "told");
    }
    // Both ends of two in the open, and the holder's of the second inside TLS.
    let revealed = clock::poll(LONG, || {
        let page = daemon.get("/api/v1/leases")?.body;
        (page.matches("\"timeout_source\":\"handshake\"").count() == 5).then_some(page)
    });
    daemon.check(revealed.is_some(), "the leases are followed");
    // Trouble, so that evidence is gathered and told.
    let mark = daemon.mark();
    let stopped = Stopped::stop(clients[0].pid());
    daemon.wait_from(mark, "at risk", LONG, |event| {
        of("holder", "transition")(event) && event.stage() == Some(Stage::AtRisk)
    });
    drop(stopped);

    let (found, looked) = in_memory(daemon.pid(), &secret);
    daemon.check(found.is_empty(), &format!("in its memory: {found:?}"));
    daemon.check(looked > 1 << 20, "its memory was looked at");
    // The same search finds what is there.
    let (kept, _) = in_memory(clients[0].pid(), &secret);
    assert!(!kept.is_empty(), "its own client knows it");
    let (known, _) = in_memory(daemon.pid(), "python3");
    daemon.check(!known.is_empty(), "a name that the daemon knows is found");

    for page in [
        "/metrics",
        "/api/v1/leases",
        "/api/v1/events",
        "/api/v1/incidents",
    ] {
        let body = daemon.get(page).expect("an answer").body;
        daemon.check(!body.contains(&secret), page);
    }
    for event in daemon.events_since(0) {
        daemon.check(!event.value.to_string().contains(&secret), "an event");
    }
    daemon.check(!daemon.stderr().contains(&secret), "its log");
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    let written = files(home.path());
    assert!(written.contains(&all), "{written:?}");
    for path in written {
        let bytes = std::fs::read(&path).expect("a file of the daemon's");
        assert!(
            Finder::new(&secret).find(&bytes).is_none(),
            "{}",
            path.display()
        );
    }
    // Recordings are packed: what can be read out of one.
    let told = Command::new(crate::harness::daemon::binary())
        .args(["explain", "--json", "--recording"])
        .arg(&all)
        .output()
        .expect("explain");
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    assert!(
        Finder::new(&secret).find(&told.stdout).is_none(),
        "explained"
    );
}
