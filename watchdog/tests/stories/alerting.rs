//! Stories of alerts, each with a real fault on a real client: Alertmanager fires and resolves; an
//! alert leaves a node whose disk hangs; servers that fail; a test alert; planned work.

use crate::harness::client::{Client, Kind, Order};
use crate::harness::clock;
use crate::harness::daemon::{Daemon, Home, binary};
use crate::harness::event::Stage;
use crate::harness::http;
use crate::harness::process::{Child, run};
use crate::harness::receiver::{Alertmanager, Receiver};
use crate::harness::transcript::{Line, Transcript, text_of};
use crate::harness::world::{TIMEOUT, World};
use crate::harness::zookeeper::Listen;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[expect(dead_code, reason = "the kernel's tests ask more of it")]
#[path = "../kernel/hung_disk.rs"]
mod hung_disk;
use hung_disk::HungDisk;

const SOON: Duration = Duration::from_secs(20);

fn client_seen(world: &World, daemon: &Daemon, kind: Kind) -> Client {
    let client = Client::start(Order::idle(kind, world.server.port(), TIMEOUT));
    daemon.wait_seen(client.id(), "holder", Duration::from_secs(5));
    client
}

fn alerts_of(notification: &Value) -> &[Value] {
    notification["alerts"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether a page of Alertmanager speaks of a stopped holder.
fn of_stopped_holder(page: &Value, status: &str) -> bool {
    alerts_of(page).iter().any(|alert| {
        alert["status"] == status
            && alert["labels"]["cause"] == "process_stopped"
            && alert["labels"]["alertname"] == "LeaseAtRisk"
    })
}

#[test]
fn alertmanager_fires_and_resolves() {
    // A server of its own: the same kind of client that another story freezes would be the same
    // alert to Alertmanager, and keep it firing.
    let world = World::new(TIMEOUT, Listen::Loopback, "");
    let pager = Receiver::start();
    let alertmanager = Alertmanager::start(&pager);
    let alerts = format!(
        "alerts:\n  - on: at_risk\n    alertmanager: {{ url: \"{}\", resend: 1s }}",
        alertmanager.url()
    );
    let home = Home::watching(&[world.server.port()], &alerts);
    let daemon = Daemon::start(&home);
    let client = client_seen(&world, &daemon, Kind::C);
    world.server.next_renewal(client.id());
    let mark = daemon.mark();
    let stopped = client.freeze();
    let warned = daemon.wait_stage(mark, client.id(), "holder", Stage::AtRisk, TIMEOUT);
    let known = clock::poll(Duration::from_secs(5), || {
        let alerts = alertmanager.alerts();
        let firing = alerts
            .iter()
            .find(|alert| alert["labels"]["cause"] == "process_stopped")?;
        Some((clock::now_us(), firing.clone()))
    });
    let (known_us, firing) = known.unwrap_or_else(|| panic!("unknown\n{}", daemon.report()));
    let id = format!("{:#x}", client.id());
    let annotations = &firing["annotations"];
    daemon.check(
        annotations["worst"] == id.as_str()
            && annotations["summary"]
                .as_str()
                .is_some_and(|text| text.contains("stopped"))
            && annotations["remaining"]
                .as_str()
                .is_some_and(|text| text.contains("may lapse"))
            && annotations["evidence"]
                .as_str()
                .is_some_and(|text| text.contains("stopped for"))
            && annotations["runbook"]
                .as_str()
                .is_some_and(|text| text.ends_with("#process_stopped")),
        &format!("annotations: {annotations}"),
    );
    pager.wait(0, "page that fires", SOON, |page| {
        of_stopped_holder(page, "firing")
    });
    stopped.resume();
    pager.wait(0, "page that it is over", SOON, |page| {
        of_stopped_holder(page, "resolved")
    });
    println!(
        "story (alerts): Alertmanager knows {:.2} s after the warning, pages, and resolves",
        clock::seconds(known_us - warned.at_us)
    );
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// An Alertmanager that was away learns of what fires when it is back.
#[test]
fn what_fires_is_told_to_an_alertmanager_that_comes_back() {
    let world = World::shared();
    let pager = Receiver::start();
    let gone = Alertmanager::start(&pager);
    let url = gone.url();
    gone.kill();
    let alerts =
        format!("alerts:\n  - on: at_risk\n    alertmanager: {{ url: \"{url}\", resend: 1s }}");
    let home = Home::watching(&[world.server.port()], &alerts);
    let daemon = Daemon::start(&home);
    let client = client_seen(&world, &daemon, Kind::C);
    world.server.next_renewal(client.id());
    let mark = daemon.mark();
    let _stopped = client.freeze();
    daemon.wait_stage(mark, client.id(), "holder", Stage::AtRisk, TIMEOUT);
    daemon.wait_stderr("tried again", SOON);
    let back = Alertmanager::start_at(&pager, url.trim_start_matches("http://"));
    pager.wait(0, "page that fires", Duration::from_secs(60), |page| {
        of_stopped_holder(page, "firing")
    });
    drop(back);
}

/// Binary, configuration, state, events and log of the daemon lie on the disk that hangs; what is
/// not in memory by then cannot be read any more.
#[test]
fn alerts_leave_a_node_whose_disk_hangs() {
    let world = World::shared();
    let pager = Receiver::start();
    let disk = HungDisk::new("alerts");
    let place = disk.path();
    let program = place.join("lease-watchdog");
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(&program)
        .arg(binary())
        .status();
    assert!(stripped.is_ok_and(|status| status.success()), "strip works");
    // The hook keeps what it needs in memory: it sends by a pipe that is open already.
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let told = elsewhere.path().join("told");
    let hook = place.join("page.sh");
    let script = format!(
        "#!/bin/sh\nexec 3>> {}\necho ready >&3\nwhile read -r line; do echo \"$line\" >&3; done\n",
        told.display()
    );
    fs::write(&hook, script).expect("the hook can be written");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let port = pager
        .url("")
        .rsplit(':')
        .next()
        .map(str::to_owned)
        .unwrap_or_default();
    let config = place.join("watchdog.yaml");
    fs::write(
        &config,
        format!(
            "leases: [{{ name: zookeeper, protocol: zookeeper, ports: [{}] }}]\n\
             http: {{ listen: \"127.0.0.1:0\", socket: off }}\n\
             alerts:\n\
             - {{ on: at_risk, exec: {{ argv: [\"{}\"], persistent: true }} }}\n\
             - {{ on: at_risk, webhook: {{ url: \"http://localhost:{port}/webhook\" }} }}\n\
             - {{ on: at_risk, alertmanager: {{ url: \"{}\" }} }}\n",
            world.server.port(),
            hook.display(),
            pager.url("/am")
        ),
    )
    .expect("the configuration can be written");
    let log = fs::File::create(place.join("log")).expect("the log can be made");
    let mut command = Command::new(&program);
    command.args(["run", "--config"]).arg(&config);
    command.arg("--events").arg(place.join("events"));
    command.arg("--state-dir").arg(place.join("state"));
    command.env("RUST_LOG", "watchdog=debug").stderr(log);
    let child = KilledChild(command.spawn().expect("it starts"));
    let ready = clock::poll(SOON, || {
        let events = fs::read_to_string(place.join("events")).ok()?;
        let told = fs::read_to_string(&told).ok()?;
        (events.contains("started") && told.contains("ready")).then_some(())
    });
    assert!(ready.is_some(), "it does not start");
    let client = Client::start(Order::idle(Kind::C, world.server.port(), TIMEOUT));
    world
        .daemon
        .wait_seen(client.id(), "holder", Duration::from_secs(5));
    world.server.next_renewal(client.id());
    forget(&place);

    disk.hang();
    // Something is in flight, so that it really hangs.
    let probe = place.join("probe");
    let probing = std::thread::spawn(move || {
        let file = fs::File::create(&probe)?;
        file.sync_all()
    });
    let mark = world.daemon.mark();
    let stopped = client.freeze();
    let warned = world
        .daemon
        .wait_stage(mark, client.id(), "holder", Stage::AtRisk, TIMEOUT);
    let id = format!("{:#x}", client.id());
    let within = Duration::from_secs(10);
    let hooked = clock::poll(within, || {
        let text = fs::read_to_string(&told).ok()?;
        text.contains(&id).then(clock::now_us)
    });
    let of_it = |body: &Value| body.to_string().contains(&id);
    let posted = pager.wait(0, "post of the webhook", within, |body| {
        body["event"] == "alert" && of_it(body)
    });
    let managed = pager.wait(0, "post to Alertmanager", within, |body| {
        body[0]["labels"]["alertname"] == "LeaseAtRisk" && of_it(body)
    });
    let hung_all_along = !probing.is_finished();
    disk.heal();
    drop(stopped);
    drop(child);
    drop(probing.join());
    let said = fs::read_to_string(place.join("log")).unwrap_or_default();
    let hooked = hooked.unwrap_or_else(|| panic!("the kept hook is not told\n{said}"));
    assert!(hung_all_along, "the disk hung");
    let after = |at_us: i64| clock::seconds(at_us - warned.at_us);
    println!(
        "story (alerts): with a hung disk, after the warning: hook {:.2} s, webhook {:.2} s, \
         Alertmanager {:.2} s",
        after(hooked),
        after(posted.at_us),
        after(managed.at_us)
    );
}

/// Drops what the kernel has cached of the files here and nobody has locked.
fn forget(place: &Path) {
    run("sync", &["-f", &place.display().to_string()]);
    for file in [
        "lease-watchdog",
        "page.sh",
        "watchdog.yaml",
        "log",
        "events",
    ] {
        let input = format!("if={}", place.join(file).display());
        run(
            "dd",
            &[
                "status=none",
                "of=/dev/null",
                "count=0",
                "iflag=nocache",
                &input,
            ],
        );
    }
}

struct KilledChild(std::process::Child);

impl Drop for KilledChild {
    fn drop(&mut self) {
        // It may be gone already.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// Four servers that take nothing; the fifth, and the warnings, come as fast as ever.
#[test]
fn servers_that_fail_hold_up_nothing() {
    let world = World::shared();
    let pager = Receiver::start();
    let hangs = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let refuses = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.local_addr().expect("it is bound")
    };
    let says = |answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 65_536];
                // Whatever becomes of it, it is a server that fails.
                let _read = std::io::Read::read(&mut stream, &mut buffer);
                let _written = std::io::Write::write_all(&mut stream, answer.as_bytes());
            }
        });
        address
    };
    let fails = says("HTTP/1.1 500 Oh no\r\ncontent-length: 0\r\n\r\n");
    let babbles = says("what?");
    let hook =
        |url: &str| format!("- {{ on: late, webhook: {{ url: \"{url}\", timeout: 1s }} }}\n");
    let mut alerts = "alerts:\n".to_owned();
    for address in [
        hangs.local_addr().expect("it is bound"),
        refuses,
        fails,
        babbles,
    ] {
        alerts += &hook(&format!("http://{address}/"));
    }
    alerts += &hook(&pager.url("/"));
    let home = Home::watching(&[world.server.port()], &alerts);
    let daemon = Daemon::start(&home);
    for kind in [Kind::C, Kind::Kazoo] {
        let client = client_seen(&world, &daemon, kind);
        world.server.next_renewal(client.id());
        let (mark, posts) = (daemon.mark(), pager.mark());
        let _stopped = client.freeze();
        let late = daemon.wait_stage(mark, client.id(), "holder", Stage::Late, TIMEOUT);
        let posted = pager.wait(posts, "post that fires", SOON, |body| {
            body["state"] == "firing" && body["worst"] == format!("{:#x}", client.id())
        });
        let after = posted.at_us - late.at_us;
        daemon.check(
            after < 1_000_000,
            &format!("told only {:.2} s after the warning", clock::seconds(after)),
        );
    }
    let counted = clock::poll(SOON, || {
        let metrics = daemon.get("/metrics")?.body;
        let retries = |index| {
            let head =
                format!("lease_watchdog_alert_retries_total{{alert=\"{index}\",to=\"webhook\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&head))?;
            line.parse::<u64>().ok()
        };
        (0..4)
            .all(|index| retries(index).is_some_and(|count| count > 0))
            .then(|| retries(4))
    });
    daemon.check(counted == Some(Some(0)), "what fails is counted");
    let healthy = http::get(&daemon.http(), "/healthz").is_some_and(|answer| answer.status == 200);
    daemon.check(healthy, "the daemon is well");
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn a_test_alert_says_what_came_back() {
    let pager = Receiver::start();
    let alertmanager = Alertmanager::start(&pager);
    let home = Home::watching(
        &[2181],
        &format!(
            "alerts:\n\
             - {{ on: late, exec: {{ argv: [\"/bin/cat\"], persistent: true }} }}\n\
             - {{ on: late, webhook: {{ url: \"{}\" }} }}\n\
             - {{ on: late, alertmanager: {{ url: \"{}\" }} }}\n",
            pager.url("/hook"),
            alertmanager.url()
        ),
    );
    let test = || {
        let mut command = Command::new(binary());
        command.args(["test-alert", "--config"]).arg(home.config());
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = test();
    assert_eq!(code, Some(0), "{said}");
    let ok = said.lines().filter(|line| line.contains(": ok, ")).count();
    assert_eq!(ok, 3, "{said}");
    let hooked = pager.wait(0, "post", SOON, |body| body["event"] == "alert");
    assert_eq!(hooked.body["test"], true);
    pager.wait(0, "page", SOON, |page| {
        alerts_of(page)
            .iter()
            .any(|alert| alert["labels"]["alertname"] == "LeaseWatchdogTest")
    });
    alertmanager.kill();
    let (code, said) = test();
    assert_eq!(code, Some(1), "{said}");
    let failed: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("FAILED"))
        .collect();
    assert!(
        failed.len() == 1 && failed[0].starts_with("alerts[2] (alertmanager "),
        "{said}"
    );
}

/// By https, to a server whose certificate this node trusts, and to one that it does not.
#[test]
fn https_is_spoken_with_whom_the_node_trusts() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| place.path().join(name).display().to_string();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-extensions",
            "usr_cert",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &path("key"),
            "-out",
            &path("cert"),
        ],
    );
    let server = "import http.server, ssl, sys\n\
        class Hook(http.server.BaseHTTPRequestHandler):\n\
        \x20   def do_POST(self):\n\
        \x20       body = self.rfile.read(int(self.headers['content-length']))\n\
        \x20       print(body.decode(), end='', flush=True)\n\
        \x20       self.send_response(200)\n\
        \x20       self.end_headers()\n\
        server = http.server.HTTPServer(('127.0.0.1', 0), Hook)\n\
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        context.load_cert_chain(sys.argv[1], sys.argv[2])\n\
        server.socket = context.wrap_socket(server.socket, server_side=True)\n\
        print(server.server_port, flush=True)\n\
        server.serve_forever()\n";
    let mut command = Command::new("python3");
    command.args(["-c", server, &path("cert"), &path("key")]);
    let mut server = Child::start(command);
    let said = Transcript::new();
    said.feed(server.take_stdout(), Line::keep);
    let port = said
        .wait(0, SOON, |line| line.text.parse::<u16>().ok())
        .expect("the server says its port");
    let home = Home::watching(
        &[2181],
        &format!("alerts: [{{ on: late, webhook: {{ url: \"https://localhost:{port}/\" }} }}]"),
    );
    let test = |trusted: &str| {
        let mut command = Command::new(binary());
        command.args(["test-alert", "--config"]).arg(home.config());
        command
            .env("SSL_CERT_FILE", trusted)
            .env_remove("SSL_CERT_DIR");
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let (code, told) = test(&path("cert"));
    assert_eq!(code, Some(0), "{told}");
    let came = said.wait(0, SOON, |line| {
        line.text.contains("\"test\":true").then_some(())
    });
    assert!(came.is_some(), "{}", text_of(&said.since(0)));
    let (code, told) = test("/nonexistent");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("TLS"), "{told}");
}

#[test]
fn a_mute_is_kept_over_a_restart_and_ends() {
    let world = World::shared();
    let pager = Receiver::start();
    let alerts = format!(
        "alerts:\n- {{ on: late, webhook: {{ url: \"{}\" }} }}\n",
        pager.url("/")
    );
    let home = Home::watching(&[world.server.port()], &alerts);
    let control = |words: &[&str]| {
        let mut command = Command::new(binary());
        command
            .args(words)
            .arg("--socket")
            .arg(home.state().join("api.sock"));
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let muted = |daemon: &Daemon, value: &str| {
        let metrics = daemon.get("/metrics").expect("it answers").body;
        let line = format!("lease_watchdog_muted{{lease=\"zookeeper\"}} {value}");
        daemon.check(metrics.lines().any(|there| there == line), &line);
    };
    let daemon = Daemon::start(&home);
    let (code, said) = control(&["mute", "--lease", "zoo", "--for", "10m"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there are: zookeeper"), "{said}");
    let (code, said) = control(&["mute", "--lease", "zookeeper", "--for", "10m"]);
    assert_eq!(code, Some(0), "{said}");
    daemon.wait_for("event of the mute", SOON, |event| {
        event.is("mute") && event.text("state") == "muted"
    });
    muted(&daemon, "1");
    let kept = clock::poll(SOON, || fs::read(home.state().join("mutes.json")).ok());
    assert!(kept.is_some(), "it is kept");
    assert_eq!(daemon.terminate().code(), Some(0));

    let daemon = Daemon::start(&home);
    muted(&daemon, "1");
    let (code, said) = control(&["mutes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("zookeeper: muted until "), "{said}");
    let client = client_seen(&world, &daemon, Kind::C);
    world.server.next_renewal(client.id());
    let mark = daemon.mark();
    let _stopped = client.freeze();
    daemon.wait_stage(mark, client.id(), "holder", Stage::AtRisk, TIMEOUT);
    let id = format!("{:#x}", client.id());
    let of_it = |body: &Value| body.to_string().contains(&id);
    assert!(
        pager.since(0).iter().all(|posted| !of_it(&posted.body)),
        "it is muted"
    );
    let (code, said) = control(&["unmute", "--lease", "zookeeper"]);
    assert_eq!(code, Some(0), "{said}");
    // What still stands is told now.
    pager.wait(0, "post", SOON, |body| {
        body["state"] == "firing" && of_it(body)
    });
    muted(&daemon, "0");
    let (code, said) = control(&["unmute", "--lease", "zookeeper"]);
    assert_eq!((code, said.trim()), (Some(1), "refused: it is not muted"));
    assert_eq!(daemon.terminate().code(), Some(0));
}
