//! The package under a systemd that is PID 1: a Debian of its own is booted (systemd-nspawn), the package
//! installed there, and the service does what its unit promises.
//!
//! That Debian has a pid, a network and a cgroup namespace of its own, and a v2 hierarchy alone. What it sees
//! of this kernel is the real thing: the programs are loaded and attached by the unit's user with the unit's
//! rights. What this machine itself may not do (raise a memlock limit or lower an OOM score, without
//! CAP_SYS_RESOURCE; limit memory, where that controller belongs to v1) its systemd cannot do either, and
//! then it is only asked what it was told.

use super::harness::{clock, process};
use super::installed::Tree;
use super::{package, shown};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const UNIT: &str = "lease-watchdog";

/// cgroups of these names are made for it, and are gone when dropped.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    /// One in each hierarchy in which nspawn makes some.
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").expect("procfs");
        let ours = mounts.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let systemds = fields[2] == "cgroup" && fields[3].contains("name=systemd");
            (fields[2] == "cgroup2" || systemds).then(|| Path::new(fields[1]).join(name))
        });
        let ours: Vec<PathBuf> = ours.collect();
        for folder in &ours {
            fs::create_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        Self(ours)
    }
}

fn remove_cgroups(folder: &Path) {
    let inside = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in inside.filter(|entry| entry.path().is_dir()) {
        remove_cgroups(&entry.path());
    }
    let _gone = fs::remove_dir(folder);
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Its processes are gone; the kernel may take a moment over them.
            let _gone = clock::poll(Duration::from_secs(5), || {
                remove_cgroups(folder);
                (!folder.exists()).then_some(())
            });
        }
    }
}

/// A booted Debian; shut down when dropped.
struct Machine {
    nspawn: Child,
    leader: i32,
    _cgroups: Cgroups,
    tree: Tree,
}

impl Machine {
    fn boot(tree: Tree) -> Self {
        let name = format!("lease-watchdog-booted-{}", std::process::id());
        let cgroups = Cgroups::new(&name);
        let enter: String = cgroups.0.iter().fold(String::new(), |script, folder| {
            script + &format!("echo $$ > {}/cgroup.procs; ", folder.display())
        });
        let script = format!(
            "{enter} exec systemd-nspawn --directory={} --machine={name} --boot --register=no --keep-unit \
             --console=read-only --private-network --capability=all \
             --system-call-filter='bpf perf_event_open'",
            shown(&tree.path(""))
        );
        let log = fs::File::create(tree.path("tmp/boot.log")).expect("own folder");
        let nspawn = Command::new("sh")
            .args(["-ec", &script])
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("own file"))
            .stderr(log)
            .spawn()
            .expect("systemd-nspawn is installed: cargo xtask setup");
        let mut machine = Self {
            nspawn,
            leader: 0,
            _cgroups: cgroups,
            tree,
        };
        let pid = machine.nspawn.id();
        let leader = clock::poll(SOON, || {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            let leader = children.split_whitespace().next()?.parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
            (name.trim() == "systemd").then_some(leader)
        });
        machine.leader = leader.unwrap_or_else(|| panic!("no boot: {}", machine.console()));
        let up = clock::poll(SOON, || {
            let said = machine.try_run("systemctl is-system-running");
            let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            (said == "running" || said == "degraded").then_some(())
        });
        assert!(up.is_some(), "it does not come up: {}", machine.console());
        machine
    }

    fn console(&self) -> String {
        fs::read_to_string(self.tree.path("tmp/boot.log")).unwrap_or_default()
    }

    fn try_run(&self, line: &str) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.leader.to_string(), "--all", "--"])
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["LC_ALL=C", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive"])
            .args(["sh", "-ec", line])
            .output()
            .expect("nsenter is there")
    }

    /// Runs a line of shell inside; gives its output.
    fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(
            output.status.success(),
            "{line}: {said}\n{}",
            self.journal()
        );
        said
    }

    /// A property of the service, as its systemd has it.
    fn property(&self, name: &str) -> String {
        let said = self.run(&format!("systemctl show {UNIT} --value -p {name}"));
        said.trim().to_owned()
    }

    fn journal(&self) -> String {
        let output = self.try_run(&format!("journalctl --no-pager -o cat -u {UNIT}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the journal has a line, from its line `from` on, that fits; gives it.
    #[track_caller]
    fn wait_journal(&self, from: usize, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let found = clock::poll(SOON, || {
            let journal = self.journal();
            journal
                .lines()
                .skip(from)
                .find(|line| fits(line))
                .map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no {what} in\n{}", self.journal()))
    }

    /// Lines of the journal so far.
    fn mark(&self) -> usize {
        self.journal().lines().count()
    }

    /// Waits until the service runs and has been started again so often.
    #[track_caller]
    fn wait_running(&self, restarts: u32) {
        let wanted = restarts.to_string();
        let runs = clock::poll(SOON, || {
            let runs = self.property("SubState") == "running";
            (runs && self.property("NRestarts") == wanted).then_some(())
        });
        assert!(runs.is_some(), "{}", self.journal());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pid = self.nspawn.id();
        process::send_signal(i32::try_from(pid).expect("a process id"), libc::SIGTERM);
        let ended = clock::poll(Duration::from_secs(10), || {
            self.nspawn.try_wait().ok().flatten()
        });
        if ended.is_none() {
            // Its PID 1 takes all others along.
            if self.leader > 1 {
                process::send_signal(self.leader, libc::SIGKILL);
            }
            let _gone = self.nspawn.kill();
            let _gone = self.nspawn.wait();
        }
    }
}

/// The `lease_seen` of this session, with the length that its handshake told.
fn is_seen(line: &str, session: &str) -> bool {
    line.contains("\"event\":\"lease_seen\"")
        && line.contains(session)
        && line.contains("\"timeout_source\":\"handshake\"")
}

fn is_restricted(machine: &Machine) {
    let pid = machine.property("MainPID");
    let status = machine.run(&format!("cat /proc/{pid}/status"));
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {status}"));
        line.split_whitespace().last().expect("a value").to_owned()
    };
    assert_ne!(field("Uid:"), "0");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    // DAC_READ_SEARCH, IPC_LOCK, SYS_PTRACE, SYS_NICE; before Linux 5.19 also BPF.
    let kept: u64 = (1 << 2) | (1 << 14) | (1 << 19) | (1 << 23);
    for tasks in ["CapEff:", "CapPrm:"] {
        let held = machine.run(&format!("grep -h {tasks} /proc/{pid}/task/*/status"));
        for line in held.lines() {
            let held = line.split_whitespace().last().expect("a set");
            let held = u64::from_str_radix(held, 16).expect("hexadecimal");
            assert_eq!(held & !kept & !(1 << 39), 0, "{line}");
        }
    }
    for (place, what) in [
        ("/etc/probe", "Read-only file system"),
        ("/usr/probe", "Read-only file system"),
        ("/proc/sys/vm/swappiness", "Read-only file system"),
        ("/sys/fs/cgroup/probe", "Read-only file system"),
    ] {
        let output = machine.try_run(&format!("nsenter --target {pid} --mount touch {place}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(what),
            "{place}: {said}"
        );
    }
    machine.run(&format!(
        "nsenter --target {pid} --mount touch /run/{UNIT}/probe /var/lib/{UNIT}/probe; \
         rm /run/{UNIT}/probe /var/lib/{UNIT}/probe"
    ));
    assert_eq!(machine.property("OOMScoreAdjust"), "-900");
    assert_eq!(machine.property("MemoryMax"), (384_u64 << 20).to_string());
    // What the machine allows is in force.
    let own = fs::read_to_string("/proc/self/status").expect("procfs");
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let own = u64::from_str_radix(own.expect("a set").trim(), 16).expect("hexadecimal");
    if own & (1 << 24) != 0 {
        let score = machine.run(&format!("cat /proc/{pid}/oom_score_adj"));
        assert_eq!(score.trim(), "-900");
    }
    let memory = format!("/sys/fs/cgroup/system.slice/{UNIT}.service/memory.max");
    let memory = machine.run(&format!(
        "cat {memory} 2>/dev/null || echo {}",
        384_u64 << 20
    ));
    assert_eq!(memory.trim(), (384_u64 << 20).to_string());
}

#[test]
fn under_systemd_as_pid_1_the_unit_keeps_its_promises() {
    let Some(tree) = Tree::new() else {
        println!("SKIPPED: under_systemd_as_pid_1: no Debian can be fetched");
        return;
    };
    fs::copy(package(), tree.path("it.deb")).expect("the package");
    let began = clock::now_us();
    let machine = Machine::boot(tree);
    println!("booted in {:.1} s", clock::seconds(clock::now_us() - began));
    machine.run("dpkg -i /it.deb");

    // Ready means attached: systemd says "Started" after the daemon has.
    machine.wait_running(0);
    let journal = machine.journal();
    let place = |what: &str| {
        let found = journal.lines().position(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("no {what} in {journal}"))
    };
    let told = place("\"event\":\"started\"");
    assert!(journal.contains("\"refused\":[]"), "{journal}");
    assert!(told <= place("Started lease-watchdog") + 1, "{journal}");
    assert_eq!(machine.property("StatusText"), "watching");
    assert_eq!(machine.property("Type"), "notify");
    assert_eq!(machine.property("UnitFileState"), "enabled");
    is_restricted(&machine);
    // Fed.
    let fed = || machine.property("WatchdogTimestampMonotonic");
    let before = fed();
    let again = clock::poll(Duration::from_secs(10), || (fed() != before).then_some(()));
    assert!(again.is_some(), "the service manager's watchdog is not fed");

    // A holder and its grantor, services of that Debian; the holder is stopped.
    machine.run(
        "systemd-run --quiet --unit=grantor lease-watchdog demo-server --port 2181 --tick-ms 1000; \
         systemd-run --quiet --unit=holder lease-watchdog demo-client --kind c --port 2181 --timeout-ms 8000",
    );
    let seen = machine.wait_journal(0, "lease", |line| is_seen(line, "\"role\":\"holder\""));
    let session = seen.split('"').find(|word| word.starts_with("0x"));
    let session = session.expect("a session").to_owned();
    machine.run("systemctl kill --signal=STOP holder");
    let warned = machine.wait_journal(0, "warning", |line| line.contains("\"to\":\"at_risk\""));
    assert!(
        warned.contains(&session) && warned.contains("\"cause\":\"process_stopped\""),
        "{warned}"
    );
    machine.run("systemctl kill --signal=CONT holder");
    machine.wait_journal(0, "renewal", |line| line.contains("\"to\":\"renewed\""));

    // A restart keeps what is known: no handshake is made anew.
    let mark = machine.mark();
    machine.run(&format!("systemctl restart {UNIT}"));
    machine.wait_journal(mark, "lease after a restart", |line| {
        is_seen(line, &session)
    });

    // A reload; and one of a file with mistakes, which fails and says why.
    let mark = machine.mark();
    machine.run(&format!("systemctl reload {UNIT}"));
    machine.wait_journal(mark, "reload", |line| {
        line.contains("configuration reloaded")
    });
    let config = "/etc/lease-watchdog/lease-watchdog.yaml";
    machine.run(&format!("sed -i s/^leases:/leasez:/ {config}"));
    let refused = machine.try_run(&format!("systemctl reload {UNIT}"));
    assert!(!refused.status.success(), "a reload with mistakes fails");
    machine.wait_journal(mark, "mistake", |line| line.contains("write \"leases\""));
    machine.wait_running(0);
    // Started with mistakes it is not started again and again.
    let refused = machine.try_run(&format!("systemctl restart {UNIT}"));
    assert!(!refused.status.success(), "a start with mistakes fails");
    assert_eq!(machine.property("ExecMainStatus"), "2");
    assert_eq!(machine.property("ActiveState"), "failed");
    machine.run(&format!(
        "sed -i s/^leasez:/leases:/ {config}; systemctl start {UNIT}"
    ));

    // One that stands still is started again, by a shorter limit than the unit's, and so is one that is killed.
    machine.run(&format!(
        "mkdir -p /run/systemd/system/{UNIT}.service.d; \
         printf '[Service]\\nWatchdogSec=2\\n' > /run/systemd/system/{UNIT}.service.d/short.conf; \
         systemctl daemon-reload; systemctl restart {UNIT}"
    ));
    let mark = machine.mark();
    machine.run(&format!(
        "systemctl kill --kill-whom=main --signal=STOP {UNIT}"
    ));
    machine.wait_journal(mark, "timeout", |line| line.contains("Watchdog timeout"));
    machine.wait_running(1);
    machine.wait_journal(mark, "lease after a standstill", |line| {
        is_seen(line, &session)
    });
    machine.run(&format!(
        "systemctl kill --kill-whom=main --signal=KILL {UNIT}"
    ));
    machine.wait_running(2);

    // Gone with its package, and its API with it.
    machine.run("dpkg -P lease-watchdog");
    let gone = machine.try_run(&format!("systemctl is-active {UNIT}"));
    assert!(!gone.status.success(), "a purged service runs on");
    machine.run("! test -e /run/lease-watchdog && ! test -e /var/lib/lease-watchdog");
    println!(
        "booted, installed, warned, restarted, reloaded, purged in {:.1} s",
        clock::seconds(clock::now_us() - began)
    );
}
