//! Hooks as they come: that hang, fail, leave, talk, or are not there.

use super::*;
use std::path::PathBuf;
use std::sync::Arc;

const LONG: Duration = Duration::from_secs(30);

struct Bench {
    dir: tempfile::TempDir,
    tally: Tally,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            tally: Tally::of_a_test(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn hook(&self, script: &str, persistent: bool, limit: Duration) -> Hook {
        // By way of sh: a program that was just written may still be open for writing in a
        // child that another test is starting, and would be refused as busy.
        let argv = ["/bin/sh", "-c", script, "sh"];
        self.running(&argv, persistent, limit)
    }

    fn running(&self, argv: &[&str], persistent: bool, limit: Duration) -> Hook {
        let dir = self.dir.path().to_str().unwrap();
        let config = ExecHook {
            argv: argv.iter().chain([&dir]).map(ToString::to_string).collect(),
            persistent,
            timeout_ns: 1,
        };
        Hook {
            limit,
            backoff: Backoff {
                first: Duration::from_millis(1),
                longest: Duration::from_millis(4),
            },
            ..Hook::new(&config, "hook".to_owned(), self.tally.clone())
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

/// A message with this text for a line.
fn queued(text: &str) -> Queued {
    let test = crate::sinks::alerts::message::test(
        std::time::SystemTime::UNIX_EPOCH,
        "node",
        "zookeeper",
        watchdog_model::leases::note::Stage::AtRisk,
    );
    let message = Message {
        line: Arc::from(text),
        ..test
    };
    (clock(), Arc::new(message))
}

/// Sends all messages and waits until the hook's task has ended.
async fn tell(hook: Hook, all: &[&str]) {
    let (sender, messages) = mpsc::channel(16);
    for message in all {
        sender.try_send(queued(message)).unwrap();
    }
    drop(sender);
    timeout(LONG, run(hook, messages)).await.unwrap();
}

#[tokio::test]
async fn a_one_shot_hook_gets_each_message_on_its_input() {
    let bench = Bench::new();
    let hook = bench.hook("cat >> $1/got; echo . >> $1/got", false, LONG);
    tell(hook, &["a\n", "b\nc\n"]).await;
    assert_eq!(bench.read("got"), "a\n.\nb\nc\n.\n");
    assert_eq!(bench.tally.lost.get(), 0);
}

#[tokio::test]
async fn it_runs_in_a_clean_environment_and_a_group_of_its_own() {
    let bench = Bench::new();
    let hook = bench.hook(
        "env > $1/env; pwd > $1/pwd; cat /proc/$$/stat > $1/stat",
        false,
        LONG,
    );
    tell(hook, &["a\n"]).await;
    let env = bench.read("env");
    assert!(
        env.lines().any(|line| line == format!("PATH={PATH}")),
        "{env}"
    );
    assert!(!env.contains("CARGO"), "{env}");
    assert_eq!(bench.read("pwd"), "/\n");
    let stat = bench.read("stat");
    let fields: Vec<_> = stat.split(' ').collect();
    assert_eq!(fields[0], fields[4], "leads its own group: {stat}");
}

#[tokio::test]
async fn a_hook_that_does_not_read_its_input_is_not_at_fault() {
    let bench = Bench::new();
    let hook = bench.hook("exec <&-; exit 0", false, LONG);
    // More than a pipe holds.
    tell(hook, &[&"x".repeat(1 << 20)]).await;
    assert_eq!(bench.tally.lost.get(), 0);
}

#[tokio::test]
async fn a_hook_that_fails_or_does_not_exist_is_counted() {
    let bench = Bench::new();
    tell(bench.hook("exit 3", false, LONG), &["a\n", "b\n"]).await;
    assert_eq!(bench.tally.lost.get(), 2);
    tell(bench.running(&["/no/such/hook"], false, LONG), &["a\n"]).await;
    assert_eq!(bench.tally.lost.get(), 3);
    tell(bench.running(&["/no/such/hook"], true, LONG), &["a\n"]).await;
    assert_eq!(bench.tally.lost.get(), 4);
}

/// Whether a process is there (a zombie is not).
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}

#[tokio::test]
async fn a_hook_that_hangs_is_killed_with_all_it_started() {
    let bench = Bench::new();
    let hook = bench.hook(
        "sleep 1000 & echo $! > $1/pid.new; mv $1/pid.new $1/pid; wait",
        false,
        Duration::from_millis(500),
    );
    tell(hook, &["a\n"]).await;
    assert_eq!(bench.tally.lost.get(), 1);
    let pid = bench.read("pid");
    assert!(
        !pid.is_empty(),
        "the machine was too slow to start a shell in half a second"
    );
    timeout(LONG, async {
        while alive(&pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("what the hook started outlives it");
}

#[tokio::test]
async fn what_a_hook_leaves_in_the_background_holds_nothing_up() {
    let bench = Bench::new();
    let hook = bench.hook("sleep 5 & echo . >> $1/got", false, LONG);
    // Both long before the sleep is over.
    timeout(Duration::from_secs(4), tell(hook, &["a\n", "b\n"]))
        .await
        .expect("held up");
    assert_eq!(bench.read("got"), ".\n.\n");
    assert_eq!(bench.tally.lost.get(), 0);
}

#[tokio::test]
async fn a_kept_hook_is_started_before_the_first_message_and_gets_all() {
    let bench = Bench::new();
    let hook = bench.hook("echo up >> $1/got; exec cat >> $1/got", true, LONG);
    let (sender, messages) = mpsc::channel(16);
    let task = tokio::spawn(run(hook, messages));
    timeout(LONG, async {
        while bench.read("got") != "up\n" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("started early");
    for message in ["a\n", "b\n"] {
        sender.send(queued(message)).await.unwrap();
    }
    drop(sender);
    timeout(LONG, task).await.unwrap().unwrap();
    assert_eq!(bench.read("got"), "up\na\nb\n");
    assert_eq!(bench.tally.lost.get(), 0);
}

#[tokio::test]
async fn a_kept_hook_that_leaves_is_started_again() {
    let bench = Bench::new();
    // Leaves three times before it takes anything.
    let hook = bench.hook(
        "echo . >> $1/starts; test $(wc -l < $1/starts) -ge 4 || exit 1; exec cat >> $1/got",
        true,
        LONG,
    );
    let (sender, messages) = mpsc::channel(16);
    let task = tokio::spawn(run(hook, messages));
    timeout(LONG, async {
        while bench.read("starts").lines().count() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("started again and again");
    sender.send(queued("a\n")).await.unwrap();
    drop(sender);
    timeout(LONG, task).await.unwrap().unwrap();
    assert_eq!(bench.read("got"), "a\n");
}

#[tokio::test]
async fn a_kept_hook_that_takes_nothing_is_given_up_for_that_message() {
    let bench = Bench::new();
    let hook = bench.hook("exec sleep 1000", true, Duration::from_millis(100));
    // More than a pipe holds, so that not taking it shows.
    tell(hook, &[&"x".repeat(1 << 20)]).await;
    assert_eq!(bench.tally.lost.get(), 1);
}

#[tokio::test]
async fn a_kept_hook_that_leaves_without_reading_gets_it_again() {
    let bench = Bench::new();
    // Leaves twice with the alert in its pipe, then reads.
    let hook = bench.hook(
        "echo . >> $1/starts; test $(wc -l < $1/starts) -ge 3 || { sleep 0.1; exit 1; }; \
         exec cat >> $1/got",
        true,
        LONG,
    );
    let (sender, messages) = mpsc::channel(16);
    let task = tokio::spawn(run(hook, messages));
    for message in ["a\n", "b\n"] {
        sender.send(queued(message)).await.unwrap();
    }
    timeout(LONG, async {
        while bench.read("got") != "a\nb\n" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("offered again, in order");
    drop(sender);
    timeout(LONG, task).await.unwrap().unwrap();
    assert_eq!(bench.read("got"), "a\nb\n");
    assert_eq!(bench.tally.lost.get(), 0);
    assert_eq!(bench.tally.sent.get(), 2);
    assert!(bench.tally.retries.get() >= 2);
}

#[tokio::test]
async fn a_kept_hook_that_does_not_read_is_killed_and_one_that_reads_slowly_is_not() {
    let bench = Bench::new();
    let short = Duration::from_millis(500);
    tell(bench.hook("exec sleep 1000", true, short), &["a\n"]).await;
    assert_eq!(bench.tally.lost.get(), 1);
    // Longer than the limit in all, shorter for each.
    let slow = "while read line; do sleep 0.3; echo $line >> $1/got; done";
    let limit = Duration::from_secs(2);
    let lines: Vec<String> = (0..10).map(|n| format!("{n}\n")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let bench = Bench::new();
    tell(bench.hook(slow, true, limit), &lines).await;
    assert_eq!(bench.tally.sent.get(), 10);
    assert_eq!(bench.tally.lost.get(), 0);
}

#[tokio::test]
async fn a_hook_that_was_given_away_is_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    let path = bench.path("page.sh");
    std::fs::write(&path, "#!/bin/sh\ntouch $1/ran\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let hook = bench.running(&[path.to_str().unwrap()], false, LONG);
    tell(hook, &["a\n"]).await;
    assert_eq!(bench.tally.lost.get(), 1);
    assert!(!bench.path("ran").exists());
}

#[tokio::test]
async fn a_test_says_what_a_hook_did() {
    let bench = Bench::new();
    let (_, message) = queued("a\n");
    let config = |script: &str, persistent| ExecHook {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        persistent,
        timeout_ns: 2_000_000_000,
    };
    let tested = |script: &str, persistent| {
        let (config, message) = (config(script, persistent), Arc::clone(&message));
        let tally = bench.tally.clone();
        async move { test(&config, tally, &message).await }
    };
    assert!(tested("cat", false).await.is_ok());
    assert!(
        tested("exit 3", false)
            .await
            .unwrap_err()
            .contains("exit status: 3")
    );
    assert!(
        tested("cat", true)
            .await
            .unwrap()
            .contains("read the alert")
    );
    assert!(tested("exit 3", true).await.is_err());
    assert!(
        tested("exec sleep 100", true)
            .await
            .unwrap_err()
            .contains("did not read")
    );
}

#[tokio::test]
async fn a_kept_hook_that_was_told_nothing_for_long_has_its_whole_time() {
    let bench = Bench::new();
    // Longer idle than the limit, then slower than a look.
    let limit = Duration::from_secs(1);
    let hook = bench.hook("sleep 2; exec cat >> $1/got", true, LONG);
    let hook = Hook { limit, ..hook };
    let (sender, messages) = mpsc::channel(16);
    let task = tokio::spawn(run(hook, messages));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    sender.send(queued("a\n")).await.unwrap();
    drop(sender);
    timeout(LONG, task).await.unwrap().unwrap();
    assert_eq!(bench.read("got"), "a\n");
    assert_eq!(bench.tally.retries.get(), 0, "it was not killed");
}
