//! What must hold of any file that is given as a configuration: for the property tests and for
//! `cargo xtask fuzz` alike.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Config, MAX_FILE_BYTES, MAX_LEASES, walk};

/// What the mistakes of one file may come to on the terminal, bytes.
const MOST_SAID: usize = 256 << 10;

/// The example, with its comments and with what they tell of; and files that use more.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../configs/lease-watchdog.yaml");
    let told = |line: &str| {
        let text = line.strip_prefix("# ").or(line.strip_prefix('#'));
        text.unwrap_or(line).to_owned()
    };
    let all: Vec<String> = example.lines().map(told).collect();
    let mut seeds = vec![example.as_bytes().to_vec(), all.join("\n").into_bytes()];
    seeds.extend(SEEDS.iter().map(|seed| seed.as_bytes().to_vec()));
    seeds
}

const SEEDS: [&str; 4] = [
    "leases:
  - name: zookeeper
    protocol: zookeeper
    ports: [2181, \"12181-12190\"]
    role: grantor
  - name: chunk-keepalive
    protocol: request_reply
    ports: [10103]
    timeout: 12s
    renew_every: 4s
    renews_from: request
    role: both
    processes: [chunkd, /system.slice/meta.service]
    tls: false
    frame: { length_bytes: 4, length_at: 0 }
    signature: { at: 4, bytes: \"01 0?\" }
    stages: { at_risk: 40%, late_after: 5s }
scope: { cgroup: /kubepods, netns: self }
stages: { jeopardy: 70%, margin: 500ms }
http: { listen: \"[::1]:0\", socket: off, socket_mode: \"0660\" }
recorder: { dir: /var/lib/lease-watchdog, keep: 64MiB }
limits: { cpu: 10%, memory: 1GiB, probe_cost: true }
",
    "alerts:
  - name: page
    on: at_risk
    leases: [zookeeper]
    causes: [disk_stall, cpu_starved]
    after: 2s
    every: 5m
    webhook: { url: \"https://a.example:9/x?y=z\", headers: { A: b }, timeout: 5s }
  - name: am
    on: [late, lapsed]
    alertmanager: { url: http://127.0.0.1:9093, labels: { team: x }, resend: 1m }
  - exec: [/bin/true, a]
",
    "leases: &a [{name: b, protocol: kafka, ports: 9092}, {name: c, protocol: etcd, ports: [2379]}]\nx: *a\n",
    "? [a]\n: !!binary aGk=\n--- |\n  text\n...\n",
];

/// Bytes are a whole configuration, the same each time they are read, or every mistake is said with the file,
/// where in it, and what; in lines that a terminal may be given.
///
/// # Panics
/// Where one of that does not hold.
pub fn any_bytes(bytes: &[u8]) {
    let file = Path::new("/etc/any.yaml");
    let errors = match Config::of_bytes(file, bytes) {
        Ok(config) => return whole(&config, bytes),
        Err(errors) => errors,
    };
    assert!(!errors.problems.is_empty());
    assert!(errors.problems.len() <= walk::MAX_PROBLEMS);
    let told = errors.to_string();
    assert!(told.len() <= MOST_SAID, "{} bytes of mistakes", told.len());
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!told.contains(control), "{told:?}");
    assert_eq!(told.lines().count(), errors.problems.len(), "{told:?}");
    // YAML ends lines by more than line feeds.
    let ends = |c: &char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let lines = String::from_utf8_lossy(bytes).chars().filter(ends).count() + 1;
    for (problem, line) in errors.problems.iter().zip(told.lines()) {
        assert!(line.starts_with("/etc/any.yaml:"), "{line:?}");
        assert!(!problem.what.trim().is_empty());
        // The end of a file may be the line behind its last.
        let found = problem.line.is_none_or(|at| (1..=lines + 1).contains(&at));
        assert!(found, "{line:?} of {lines} lines");
    }
}

fn whole(config: &Config, bytes: &[u8]) {
    assert!(bytes.len() as u64 <= MAX_FILE_BYTES);
    let count = config.leases.len();
    assert!((1..=MAX_LEASES).contains(&count), "{count} entries");
    let names: BTreeSet<String> = config.entry_names().into_iter().collect();
    assert_eq!(names.len(), count, "two of one name");
    for name in &names {
        assert!(!name.contains(char::is_control), "{name:?}");
    }
    assert_eq!(config.entry_settings().len(), count);
    let mut ports = config.port_entries();
    ports.sort_by_key(|(ports, _)| *ports.start());
    for (range, _) in &ports {
        assert!(*range.start() >= 1 && range.start() <= range.end());
    }
    for pair in ports.windows(2) {
        assert!(pair[0].0.end() < pair[1].0.start(), "a port of two entries");
    }
    let _told = (config.shapes(), config.admission(), config.has_tls());
    let again = Config::of_bytes(Path::new("/etc/any.yaml"), bytes);
    // Not a number is unlike itself, and no share.
    assert_eq!(again.as_ref(), Ok(config));
}
