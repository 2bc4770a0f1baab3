//! The configuration as its writer meets it: what is accepted, and what is said of mistakes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(Path::new("x.yaml"), text)
}

fn said(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

const LEASE: &str = "leases:\n  - name: a\n    protocol: zookeeper\n    ports: [2181]\n";

#[test]
fn the_example_holds_the_defaults() {
    let example = include_str!("../../../configs/lease-watchdog.yaml");
    assert_eq!(parse(example).unwrap(), Config::default());
}

#[test]
fn nothing_means_the_defaults() {
    assert_eq!(Config::load(None).unwrap(), Config::default());
    assert_eq!(parse("# nothing yet\n").unwrap(), Config::default());
}

#[test]
fn a_full_entry_is_understood() {
    let config = parse(
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
    stages: { at_risk: 40%, late_after: 5s }
scope: { cgroup: /kubepods, netns: self }
stages: { jeopardy: 70%, margin: 500ms }
http: { listen: \"[::1]:0\" }
limits: { cpu: 10%, memory: 1GiB }
",
    )
    .unwrap();
    assert_eq!(
        config.port_entries(),
        [(2181..=2181, 0), (12181..=12190, 0), (10103..=10103, 1)]
    );
    let settings = config.entry_settings();
    assert!(!settings[0].roles.holder && settings[0].roles.grantor);
    assert_eq!(settings[0].jeopardy, Share::percent(70));
    assert_eq!(settings[0].at_risk, Share::HALF);
    assert_eq!(settings[1].at_risk, Share::percent(40));
    assert_eq!(settings[1].jeopardy, Share::percent(70));
    assert_eq!(settings[1].margin_ns, Some(500_000_000));
    assert_eq!(settings[1].late_after_ns, Some(5_000_000_000));
    assert_eq!(settings[1].timeout_ns, Some(12_000_000_000));
    assert_eq!(settings[1].renew_every_ns, Some(4_000_000_000));
    assert_eq!(
        config.leases[1].processes,
        ["chunkd", "/system.slice/meta.service"]
    );
    assert_eq!(config.scope.cgroup, "/kubepods");
    assert_eq!(config.scope.netns.as_deref(), Some("self"));
    assert_eq!(config.limits.memory_bytes, 1 << 30);
    assert_eq!(config.http_listen.port(), 0);
}

#[test]
fn no_share_is_rounded_away_and_the_defaults_are_the_models_own() {
    let config = parse("stages: { at_risk_stalled: 0.4%, at_risk: 33.5% }\n").unwrap();
    let settings = config.entry_settings()[0];
    assert_eq!(settings.at_risk_stalled, Share::millionths(4_000));
    assert_eq!(settings.at_risk, Share::millionths(335_000));
    assert_eq!(
        Config::default().entry_settings(),
        [EntrySettings::default()]
    );
}

/// Text after [`LEASE`] (whose last line is 4), and what is said of it.
#[test]
fn each_mistake_names_line_key_and_mend() {
    let entry = |more: &str| format!("{LEASE}{more}");
    for (text, expected) in [
        (
            entry("  - name: b\n    protocol: request_reply\n    ports: [1]\n    timeout: 12\n"),
            "x.yaml:8: leases[1].timeout: \"12\" has no unit; write \"12s\"",
        ),
        (
            entry("    timout: 12s\n"),
            "x.yaml:5: leases[0].timout: unknown key; write \"timeout\"",
        ),
        (
            entry("colour: {}\n"),
            "x.yaml:5: colour: unknown key; known keys: leases, scope, stages, alerts, http, recorder, limits",
        ),
        (
            entry("    role: holder\n    role: holder\n"),
            "x.yaml:6: leases[0].role: stands twice; remove one",
        ),
        (
            entry("    timeout:\n"),
            "x.yaml:5: leases[0].timeout: has no value; write one or remove the key",
        ),
        (
            entry("    role: client\n"),
            "x.yaml:5: leases[0].role: \"client\" is not known; write one of: holder, grantor, both",
        ),
        (
            entry("    tls: true\n"),
            "x.yaml:5: leases[0].tls: encrypted streams are not supported yet; remove the entry",
        ),
        (
            entry("    tls: yes please\n"),
            "x.yaml:5: leases[0].tls: \"yes please\" is neither true nor false",
        ),
        (
            entry("    renews_from: reply\n"),
            "x.yaml:5: leases[0].renews_from: \"reply\" is not supported yet; write \"request\" or remove the entry",
        ),
        (
            entry("    processes: [a-name-that-is-long]\n"),
            "x.yaml:5: leases[0].processes[0]: \"a-name-that-is-long\" is longer than the 15 bytes that the kernel keeps; write \"a-name-that-is-\"",
        ),
        (
            entry("    timeout: 4s\n    renew_every: 5s\n"),
            "x.yaml:6: leases[0].renew_every: 5s is not shorter than timeout 4s; a lease renewed that rarely always lapses",
        ),
        (
            entry("    timeout: 800ms\n"),
            "x.yaml:2: leases[0]: stages.hard_stall 1s is not shorter than timeout 800ms; set it under the entry's own stages",
        ),
        (
            entry("  - name: a\n    protocol: zookeeper\n    ports: [2182]\n"),
            "x.yaml:5: leases[1]: name \"a\" is taken by leases[0]; give it another",
        ),
        (
            entry(
                "  - name: b\n    protocol: zookeeper\n    ports: [\"2000-3000\"]\n    role: holder\n",
            ),
            "x.yaml:5: leases[1]: port 2181 belongs to leases[0] too, in the same role; leave it to one of them",
        ),
        (
            entry("  - {}\n"),
            "x.yaml:5: leases[1]: name is missing; add one, like \"name: zookeeper\"\n\
             x.yaml:5: leases[1]: ports is missing; add the grantor's, like \"ports: [2181]\"\n\
             x.yaml:5: leases[1]: protocol is missing; add \"protocol: zookeeper\" or \"protocol: request_reply\"",
        ),
        (
            "leases: []\n".to_owned(),
            "x.yaml:1: leases: is empty, so nothing would be watched; add an entry or remove the key",
        ),
        (
            "leases: zookeeper\n".to_owned(),
            "x.yaml:1: leases: \"zookeeper\" is not a list; write it as [zookeeper]",
        ),
        (
            "leases:\n- name: a b\n  protocol: etcd\n  ports: [0]\n".to_owned(),
            "x.yaml:2: leases[0].name: \"a b\" cannot be a label; use up to 64 letters, digits, \"-\", \"_\" and \".\"\n\
             x.yaml:3: leases[0].protocol: \"etcd\" is not supported yet; write \"zookeeper\" or \"request_reply\", or remove the entry\n\
             x.yaml:4: leases[0].ports[0]: port 0 does not exist; ports go from 1 to 65535",
        ),
        (
            "leases:\n- name: r\n  protocol: request_reply\n  ports: [65536]\n".to_owned(),
            "x.yaml:2: leases[0]: timeout is missing; request_reply has no handshake that tells it; add one, like \"timeout: 12s\"\n\
             x.yaml:4: leases[0].ports[0]: port 65536 does not exist; ports go from 1 to 65535",
        ),
        (
            "stages: { at_risk: 70% }\n".to_owned(),
            "x.yaml:1: stages: at_risk 70% does not come before jeopardy 67%; lower at_risk or raise jeopardy",
        ),
        (
            "stages:\n  at_risk_stalled: 60%\n".to_owned(),
            "x.yaml:2: stages: at_risk_stalled 60% comes after at_risk 50%; proof of a stall must not delay the warning: lower it to 50% or less",
        ),
        (
            "stages: { jeopardy: 100%, at_risk: 0.5 }\n".to_owned(),
            "x.yaml:1: stages: jeopardy 100% does not come before the lease lapses (100%); lower it, 67% is usual\n\
             x.yaml:1: stages.at_risk: \"0.5\" has no unit; write \"50%\"",
        ),
        (
            "scope: { cgroup: system.slice }\n".to_owned(),
            "x.yaml:1: scope.cgroup: \"system.slice\" is not a cgroup path; write \"/system.slice\"",
        ),
        (
            "scope: { netns: blue }\n".to_owned(),
            "x.yaml:1: scope.netns: \"blue\" is not a path; write \"/run/netns/blue\", or \"self\" for the daemon's own",
        ),
        (
            "http: { listen: \"localhost:80\" }\n".to_owned(),
            "x.yaml:1: http.listen: \"localhost:80\" is not an address with a port; write \"127.0.0.1:80\"",
        ),
        (
            "recorder: { dir: x, keep: 1MiB }\n".to_owned(),
            "x.yaml:1: recorder.dir: \"x\" is not an absolute path; write \"/var/lib/lease-watchdog\"\n\
             x.yaml:1: recorder.keep: \"1MiB\" is too little; write at least \"8MiB\"",
        ),
        (
            "alerts:\n- on: at_risk\n".to_owned(),
            "x.yaml:2: alerts[0]: exec is missing; say whom to tell, like \"exec: { argv: [/path/to/page.sh] }\"",
        ),
        (
            "alerts:\n- on: at-risk\n  webhook: { url: x }\n".to_owned(),
            "x.yaml:2: alerts[0].on: \"at-risk\" is not known; write \"at_risk\"\n\
             x.yaml:3: alerts[0].webhook: not supported yet; call it from a program under \"exec\"",
        ),
        (
            "alerts:\n- on: at_risk\n  exec: { argv: [page.sh] }\n".to_owned(),
            "x.yaml:3: alerts[0].exec.argv[0]: \"page.sh\" is not an absolute path, and hooks are not looked up; write \"/…/page.sh\"",
        ),
        (
            "alerts:\n- on: at_risk\n  exec: { argv: [/no/such/page.sh], timeout: 2m }\n"
                .to_owned(),
            "x.yaml:3: alerts[0].exec.argv[0]: /no/such/page.sh does not exist; check the path\n\
             x.yaml:3: alerts[0].exec.timeout: 120s is too long for an alert; write at most 60s",
        ),
        (
            "- a\n".to_owned(),
            "x.yaml:1: a list is not a group of keys; known keys: leases, scope, stages, alerts, http, recorder, limits",
        ),
    ] {
        assert_eq!(said(&text), expected, "of {text}");
    }
}

#[test]
fn a_syntax_error_names_its_line() {
    let said = said("leases:\n  - name: [a\nstages: {}\n");
    assert!(said.starts_with("x.yaml:"), "{said}");
    assert!(!said.starts_with("x.yaml: "), "{said}");
}

#[test]
fn mistakes_are_bounded() {
    let text: String = (0..2000).map(|n| format!("key{n}: 1\n")).collect();
    assert_eq!(parse(&text).unwrap_err().problems.len(), 100);
}

fn load(path: &Path) -> String {
    let error = Config::load(Some(path)).unwrap_err().to_string();
    error.replace(path.to_str().unwrap(), "FILE")
}

#[test]
fn files_that_cannot_be_obeyed_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.yaml");
    assert_eq!(load(&file), "FILE: does not exist; check the path");
    assert_eq!(
        load(dir.path()),
        "FILE: is a directory; name the file in it"
    );

    fs::write(&file, b"a: 1\nb: \xff\n").unwrap();
    assert_eq!(
        load(&file),
        "FILE: line 2 is not UTF-8; save the file as UTF-8"
    );

    fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(
        load(&file),
        "FILE: is larger than 1 MiB; a configuration is a few lines"
    );

    fs::write(&file, "# fine\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
    assert_eq!(
        load(&file),
        "FILE: may be written by others (mode 0664); run: chmod go-w FILE"
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Config::load(Some(&file)).unwrap(), Config::default());

    assert_eq!(
        load(Path::new("/dev/null")),
        "FILE: is not a regular file; write the configuration into one"
    );
}

#[test]
fn hooks_that_cannot_be_trusted_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hook = dir.path().join("page.sh");
    let text = format!(
        "alerts:\n- on: at_risk\n  exec: {{ argv: [\"{}\"] }}\n",
        hook.display()
    );
    let said = || said(&text).replace(hook.to_str().unwrap(), "HOOK");
    fs::write(&hook, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        said(),
        "x.yaml:3: alerts[0].exec.argv[0]: HOOK is not executable; run: chmod +x HOOK"
    );
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        said(),
        "x.yaml:3: alerts[0].exec.argv[0]: HOOK may be written by others (mode 0777); run: chmod go-w HOOK"
    );
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        parse(&text).unwrap().alerts[0].hook.timeout_ns,
        5_000_000_000
    );
}
