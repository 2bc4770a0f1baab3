//! The configuration as its writer meets it: what is accepted, and what is said of mistakes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use watchdog_common::layout::{EntryShape, PROTOCOL_REQUEST_REPLY};

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

/// Found by `cargo xtask fuzz`: a key is shown as a part of where it stands.
#[test]
fn a_key_is_no_command_to_the_terminal() {
    let told = said(&format!("{LEASE}    \"\\e[2J\\nx.yaml: all is well\": 1\n"));
    assert!(!told.contains(char::is_control), "{told:?}");
    assert!(told.contains("unknown key"), "{told}");
    let told = said(&format!("{LEASE}    {}: 1\n", "k".repeat(100_000)));
    assert!(told.len() < 2000, "{} bytes", told.len());
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
limits: { cpu: 10%, memory: 1GiB, probe_cost: true }
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
    assert!(config.probe_cost);
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

#[test]
fn the_kernel_is_told_where_lengths_and_signatures_lie() {
    let config = parse(
        "leases:
  - { name: zk, protocol: zookeeper, ports: [1] }
  - name: rpc
    protocol: request_reply
    ports: [2]
    renews_from: reply
    hold: 8s
    signature: { offset: 6, bytes: \"0C 01\", mask: \"ff0f\" }
    frame: { length_bytes: 2, length_offset: 4, endian: little, adjust: -1 }
  - { name: bare, protocol: request_reply, ports: [3], frame: { length_bytes: 3, length_offset: 1 } }
",
    )
    .unwrap();
    let shapes = config.shapes().shapes;
    assert_eq!(shapes[0], EntryShape::default());
    let mut rpc = EntryShape {
        protocol: PROTOCOL_REQUEST_REPLY,
        little: 1,
        length_bytes: 2,
        length_at: 4,
        adjust: -1,
        signature_at: 6,
        signature_len: 2,
        ..EntryShape::default()
    };
    rpc.signature[..2].copy_from_slice(&[0x0c, 0x01]);
    rpc.signature_mask[..2].copy_from_slice(&[0xff, 0x0f]);
    assert_eq!(shapes[1], rpc);
    assert_eq!((shapes[2].adjust, shapes[2].signature_len), (4, 0));
    let settings = config.entry_settings();
    assert!(settings[0].has_goodbye && settings[0].has_keepalives);
    assert!(settings[1].renews_from_reply && settings[1].has_keepalives);
    assert_eq!(settings[1].hold_ns, Some(8_000_000_000));
    assert!(!settings[2].has_goodbye && !settings[2].has_keepalives);
}

/// Text after [`LEASE`] (whose last line is 4), and what is said of it.
#[test]
fn each_mistake_names_line_key_and_mend() {
    let entry = |more: &str| format!("{LEASE}{more}");
    let rpc = |more: &str| {
        let head =
            "leases:\n  - name: a\n    protocol: request_reply\n    ports: [1]\n    timeout: 12s\n";
        format!("{head}{more}")
    };
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
            entry("    tls: yes please\n"),
            "x.yaml:5: leases[0].tls: \"yes please\" is neither true nor false",
        ),
        (
            entry("    renews_from: reply\n"),
            "x.yaml:5: leases[0].renews_from: \"reply\" goes with \"protocol: request_reply\" only; remove it",
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
            "leases:\n- name: a\n  protocol: zookeeper\n  ports: [2181]\n  role: holder\n\
             - name: b\n  protocol: zookeeper\n  ports: [\"2180-2182\"]\n  role: grantor\n"
                .to_owned(),
            "x.yaml:6: leases[1]: port 2181 belongs to leases[0] too, and entries are told apart by their ports alone; leave it to one of them, with \"role: both\"",
        ),
        (
            entry("  - {}\n"),
            "x.yaml:5: leases[1]: name is missing; add one, like \"name: zookeeper\"\n\
             x.yaml:5: leases[1]: ports is missing; add the grantor's, like \"ports: [2181]\"\n\
             x.yaml:5: leases[1]: protocol is missing; add one, like \"protocol: zookeeper\"",
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
            "leases:\n- name: a b\n  protocol: etdc\n  ports: [0]\n".to_owned(),
            "x.yaml:2: leases[0].name: \"a b\" cannot be a label; use up to 64 letters, digits, \"-\", \"_\" and \".\"\n\
             x.yaml:3: leases[0].protocol: \"etdc\" is not known; write \"etcd\"\n\
             x.yaml:4: leases[0].ports[0]: port 0 does not exist; ports go from 1 to 65535",
        ),
        (
            "leases:\n- name: r\n  protocol: request_reply\n  ports: [65536]\n".to_owned(),
            "x.yaml:4: leases[0].ports[0]: port 65536 does not exist; ports go from 1 to 65535",
        ),
        (
            rpc("    hold: 5s\n"),
            "x.yaml:6: leases[0].hold: 5s is more than a third of timeout 12s: counted from requests, the lease would be late while all is well; write \"renews_from: reply\"",
        ),
        (
            rpc("    renews_from: reply\n    hold: 12s\n"),
            "x.yaml:7: leases[0].hold: 12s is not shorter than timeout 12s; a lease whose reply is held that long always lapses",
        ),
        (
            rpc("    signature: { offset: 60, bytes: \"0c01 0203 04\" }\n"),
            "x.yaml:6: leases[0].signature: ends at byte 65; only the first 64 of a request are looked at",
        ),
        (
            rpc("    signature: { bytes: \"0c01\", mask: \"ff\" }\n"),
            "x.yaml:6: leases[0].signature.mask: has 1 bytes, \"bytes\" has 2; write as many",
        ),
        (
            rpc("    signature: { bytes: \"0c01\", mask: \"f0ff\" }\n"),
            "x.yaml:6: leases[0].signature: byte 0 wants bits that the mask leaves out, so it would never match; clear them in \"bytes\" or set them in \"mask\"",
        ),
        (
            rpc("    signature: { bytes: 0x0c01 }\n"),
            "x.yaml:6: leases[0].signature.bytes: \"3073\" is not a text; put the hexadecimal digits in quotes, like \"0c01\"",
        ),
        (
            rpc("    signature: { bytes: \"0c1\" }\n"),
            "x.yaml:6: leases[0].signature.bytes: \"0c1\" is not whole bytes in hexadecimal; write two digits each, like \"0c01\"",
        ),
        (
            rpc("    frame: { length_bytes: 8 }\n"),
            "x.yaml:6: leases[0].frame.length_bytes: \"8\" is not a whole number from 1 to 4",
        ),
        (
            rpc("    frame: { length_bytes: 4, length_offset: 14 }\n"),
            "x.yaml:6: leases[0].frame: the length field ends at byte 18; it must end within the first 16",
        ),
        (
            rpc("    frame: {}\n"),
            "x.yaml:6: leases[0].frame: length_bytes is missing; add the length field's width, like \"length_bytes: 4\"",
        ),
        (
            entry("    frame: { length_bytes: 4 }\n"),
            "x.yaml:5: leases[0].frame: goes with \"protocol: request_reply\" only; remove it",
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
            "x.yaml:2: alerts[0]: says not whom to tell; add \"exec: { argv: [/path/to/page.sh] }\", \"webhook: { url: http://… }\" or \"alertmanager: { url: http://… }\"",
        ),
        (
            "alerts:\n- on: at-risk\n  webhook: { url: x }\n".to_owned(),
            "x.yaml:2: alerts[0].on: \"at-risk\" is not known; write \"at_risk\"\n\
             x.yaml:3: alerts[0].webhook.url: \"x\" is not a URL; write \"http://x\"",
        ),
        (
            "alerts:\n- on: late\n  exec: { argv: [/bin/true] }\n  webhook: { url: \"http://h\" }\n".to_owned(),
            "x.yaml:2: alerts[0]: exec and webhook stand in one entry; write an entry with an \"on\" of its own for each",
        ),
        (
            "alerts:\n- on: late\n  webhok: { url: \"http://h\" }\n".to_owned(),
            "x.yaml:2: alerts[0]: says not whom to tell; add \"exec: { argv: [/path/to/page.sh] }\", \"webhook: { url: http://… }\" or \"alertmanager: { url: http://… }\"\n\
             x.yaml:3: alerts[0].webhok: unknown key; write \"webhook\"",
        ),
        (
            "alerts:\n- on: late\n  lease: [zookeper]\n  cause: disk\n  webhook: { url: \"ftp://h\", timeout: 0s, headers: { Host: x, \"a b\": c } }\n".to_owned(),
            "x.yaml:3: alerts[0].lease[0]: \"zookeper\" is not an entry of leases; write \"zookeeper\"\n\
             x.yaml:4: alerts[0].cause: \"disk\" is not known; write one of: node_pause, process_stopped, disk_stall, memory_pressure, cpu_throttled, cpu_starved, runtime_pause, lock_wait, thread_busy, waiting_elsewhere, network_loss, peer_down, peer_window, peer_silent, unknown\n\
             x.yaml:5: alerts[0].webhook.headers.Host: is set by the daemon itself; remove it\n\
             x.yaml:5: alerts[0].webhook.headers.a b: is not the name of a header; use letters, digits and \"-\"\n\
             x.yaml:5: alerts[0].webhook.timeout: \"0s\" is no time at all; write at least \"1ms\"\n\
             x.yaml:5: alerts[0].webhook.url: \"ftp://h\" is neither http nor https; write one of these",
        ),
        (
            "alerts:\n- on: late\n  alertmanager: { url: \"http://h:0/api/v2/alerts\", resend: 1h, labels: { cause: x, \"a-b\": y } }\n".to_owned(),
            "x.yaml:3: alerts[0].alertmanager.labels.a-b: is not the name of a label; use letters, digits and \"_\"\n\
             x.yaml:3: alerts[0].alertmanager.labels.cause: is set by the daemon itself; choose another name\n\
             x.yaml:3: alerts[0].alertmanager.resend: 3600s is out of range; write 1s to 240s, after which Alertmanager may take an alert for over\n\
             x.yaml:3: alerts[0].alertmanager.url: \"http://h:0/api/v2/alerts\" has port 0, which does not exist; ports go from 1 to 65535",
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

/// The file's own text is quoted, but not all of it; the mend stays.
#[test]
fn a_long_value_is_not_quoted_whole() {
    let said = said(&format!(
        "http: {{ listen: \"{}\" }}\n",
        "ä".repeat(100_000)
    ));
    assert!(
        said.chars().count() < 1000 && said.contains(" … "),
        "{said}"
    );
    assert!(said.starts_with("x.yaml:1: http.listen: "), "{said}");
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

    fs::write(&file, format!("a: 1\nleases: {}\n", "[".repeat(500_000))).unwrap();
    assert_eq!(
        load(&file),
        "FILE: line 2 opens more than 10000 brackets in all; a file like this is not a configuration"
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
    let AlertDestination::Exec(exec) = &parse(&text).unwrap().alerts[0].to else {
        panic!("an exec hook")
    };
    assert_eq!(exec.timeout_ns, 5_000_000_000);
    // Others could put another file in its place.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let text = said().replace(dir.path().to_str().unwrap(), "DIR");
    assert_eq!(
        text,
        "x.yaml:3: alerts[0].exec.argv[0]: HOOK may be exchanged by others, who may write in DIR; run: chmod o-w DIR"
    );
}

#[test]
fn urls_are_taken_apart_and_their_mistakes_named() {
    let url =
        |text: &str| Url::parse(text).map(|url| (url.host.clone(), url.port, url.path.clone()));
    let fine = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
    assert_eq!(url("http://h"), fine("h", 80, "/"));
    assert_eq!(url("https://h/a?b=c"), fine("h", 443, "/a?b=c"));
    assert_eq!(url("http://[::1]:9093/"), fine("::1", 9093, "/"));
    assert_eq!(url("http://h?x=1"), fine("h", 80, "/?x=1"));
    for (text, what) in [
        ("h:9093", "write \"http://h:9093\""),
        ("http://", "names no host"),
        ("http://:80/", "names no host"),
        ("http://h:65536", "ports go from 1 to 65535"),
        ("http://h:x/", "has no number as port"),
        ("http://h/#a", "\"#\""),
        ("http://u:geheim@h/", "under \"headers\""),
        ("http://[::1/", "IPv6"),
        ("http://a b/", "is not a URL"),
    ] {
        let said = url(text).unwrap_err();
        assert!(said.contains(what), "{text}: {said}");
        assert!(!said.contains("geheim"), "{said}");
    }
    let base = Url::parse("http://h:9093/am/").unwrap();
    assert_eq!(base.join("/api/v2/alerts").path, "/am/api/v2/alerts");
}

#[test]
fn a_full_alert_is_understood() {
    let config = parse(
        "alerts:
- on: jeopardy
  role: holder
  lease: zookeeper
  cause: [disk_stall, node_pause]
  alertmanager: { url: \"http://h:9093\", labels: { cluster: a }, resend: 30s }
",
    )
    .unwrap();
    let alert = &config.alerts[0];
    assert!(
        alert
            .filter
            .takes_lease(0, watchdog_model::leases::observation::Role::Holder)
    );
    assert!(
        !alert
            .filter
            .takes_lease(0, watchdog_model::leases::observation::Role::Grantor)
    );
    assert!(
        !alert
            .filter
            .takes_lease(1, watchdog_model::leases::observation::Role::Holder)
    );
    assert_eq!(alert.filter.causes.len(), 2);
    assert_eq!(alert.to.kind(), "alertmanager");
}
