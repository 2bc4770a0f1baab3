//! `doctor` on this node, and with each prerequisite taken away: it says what is missing, how to mend it,
//! and how bad that is; the daemon itself then does what the doctor foretold.

use crate::harness::daemon::{Home, binary};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

/// What the doctor said.
struct Diagnosis {
    code: i32,
    report: Value,
}

impl Diagnosis {
    /// Runs it from a home, behind `wrapper` words, with more arguments.
    fn of(home: &Home, wrapper: &[&str], arguments: &[&str]) -> Self {
        let output = run(home, wrapper, &[&["--json"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}\n{:?}", output.stderr));
        let code = output.status.code().expect("it leaves by itself");
        assert_eq!(report["exit_code"], code, "{report}");
        Self { code, report }
    }

    /// The worst state of the rows with this name, and the row.
    fn row(&self, check: &str) -> &Value {
        let rows = self.report["checks"].as_array().expect("rows");
        let named = || rows.iter().filter(|row| row["check"] == check);
        named()
            .find(|row| row["state"] != "ok")
            .or_else(|| named().next())
            .unwrap_or_else(|| panic!("no row {check}: {:#}", self.report))
    }

    #[track_caller]
    fn has(&self, check: &str, state: &str) {
        let row = self.row(check);
        assert_eq!(row["state"], state, "{row}");
        assert_eq!(row["mend"].is_string(), state != "ok", "{row}");
    }
}

fn run(home: &Home, wrapper: &[&str], arguments: &[&str]) -> Output {
    let program = binary();
    let mut words: Vec<&str> = wrapper.to_vec();
    words.push(program.to_str().expect("a plain path"));
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("doctor");
    command.arg("--config").arg(home.config());
    // A later argument overrides nothing: each test names its own state directory or none.
    if !arguments.contains(&"--state-dir") {
        command.arg("--state-dir").arg(home.state());
    }
    command.args(arguments).output().expect("it can be started")
}

const ANY_PORT: u16 = 2181;

#[test]
fn a_node_that_has_everything_is_ready_and_nothing_stays() {
    let home = Home::watching(&[ANY_PORT], "");
    let well = Diagnosis::of(&home, &[], &[]);
    assert_eq!(well.code, 0, "{:#}", well.report);
    for hook in ["flow_start", "packets_in", "switches", "block"] {
        well.has(&format!("hook {hook}"), "ok");
    }
    for row in well.report["checks"].as_array().expect("rows") {
        assert!(row["state"] == "ok" || row["state"] == "note", "{row}");
    }
    let left = std::fs::read_dir(home.state())
        .expect("it is there")
        .count();
    assert_eq!(left, 0, "what was tried is gone");
}

#[test]
fn the_table_has_a_row_each_and_no_colour_in_a_pipe() {
    let home = Home::watching(&[ANY_PORT], "");
    let output = run(&home, &[], &["--btf", "/nonexistent"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains('\x1b'), "{text}");
    let missing = text
        .lines()
        .position(|line| line.starts_with("missing  kernel types (BTF)"))
        .unwrap_or_else(|| panic!("{text}"));
    let mend = text.lines().nth(missing + 1).unwrap_or_default();
    assert!(
        mend.trim_start().starts_with("mend: run a kernel"),
        "{text}"
    );
    assert!(text.contains("\ndoes not start: "), "{text}");
}

#[test]
fn types_and_cgroups_that_are_missing_stop_it() {
    let home = Home::watching(&[ANY_PORT], "");
    let types = Diagnosis::of(&home, &[], &["--btf", "/nonexistent"]);
    assert_eq!(types.code, 3);
    types.has("kernel types (BTF)", "missing");
    types.has("hook packets_in", "missing");
    types.has("hook switches", "less");
    let cgroups = Diagnosis::of(&home, &[], &["--cgroup-root", "/proc"]);
    assert_eq!(cgroups.code, 3);
    cgroups.has("cgroup v2 root", "missing");
    cgroups.has("eBPF maps", "ok");
}

/// Runs without these capabilities.
fn without<'a>(list: &'a str, bounds: &'a str) -> Vec<&'a str> {
    vec!["setpriv", "--inh-caps", list, "--bounding-set", bounds]
}

#[test]
fn each_capability_that_is_taken_away_is_named() {
    let home = Home::watching(&[ANY_PORT], "");
    for (capability, code, also) in [
        ("bpf", 3, Some(("eBPF maps", "missing"))),
        ("perfmon", 3, None),
        ("net_admin", 3, None),
        ("sys_ptrace", 1, None),
        ("dac_read_search", 1, None),
        ("sys_nice", 1, Some(("real-time priority", "less"))),
    ] {
        // CAP_SYS_ADMIN does what CAP_BPF does.
        let taken = format!("-{capability},-sys_admin");
        let ill = Diagnosis::of(&home, &without(&taken, &taken), &[]);
        assert_eq!(ill.code, code, "{capability}: {:#}", ill.report);
        let state = if code == 3 { "missing" } else { "less" };
        ill.has(&format!("CAP_{}", capability.to_uppercase()), state);
        if let Some((check, state)) = also {
            ill.has(check, state);
        }
    }
}

#[test]
fn memory_that_may_not_be_locked_is_less() {
    let home = Home::watching(&[ANY_PORT], "");
    let taken = "-ipc_lock";
    let mut wrapper = vec!["prlimit", "--memlock=65536"];
    wrapper.extend(without(taken, taken));
    let ill = Diagnosis::of(&home, &wrapper, &[]);
    assert_eq!(ill.code, 1, "{:#}", ill.report);
    ill.has("locked memory", "less");
    ill.has("CAP_IPC_LOCK", "less");
}

#[test]
fn places_that_cannot_be_used_are_told_by_their_keys() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    // Whoever comes is sent away at once.
    std::thread::spawn(move || taken.incoming().for_each(drop));
    let home = Home::watching(&[ANY_PORT], "recorder: { dir: /proc/no/such }");
    let below = home.config().join("below");
    let below = below.to_str().expect("a plain path");
    let ill = Diagnosis::of(&home, &[], &["--state-dir", below]);
    assert_eq!(ill.code, 1, "{:#}", ill.report);
    for check in ["run directory", "http.socket", "recorder.dir"] {
        ill.has(check, "less");
    }
    let ill = Diagnosis::of(&home, &[], &["--events", "/no/such/file"]);
    assert_eq!(ill.code, 2);
    ill.has("events file", "wrong");
    let home = Home::with(&format!("http: {{ listen: \"{address}\" }}\n"));
    let ill = Diagnosis::of(&home, &[], &[]);
    assert_eq!(ill.code, 2, "{:#}", ill.report);
    ill.has("http.listen", "wrong");
    let home = Home::with("lease: []\n");
    let ill = Diagnosis::of(&home, &[], &[]);
    assert_eq!(ill.code, 2);
    ill.has("configuration", "wrong");
    // A file that the daemon would not trust either.
    let home = Home::watching(&[ANY_PORT], "");
    std::fs::remove_file(home.config()).expect("it is there");
    symlink("/proc/version", home.config()).expect("a link can be made");
    assert_eq!(Diagnosis::of(&home, &[], &[]).code, 2);
}
