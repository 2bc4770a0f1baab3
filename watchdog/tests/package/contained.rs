//! The container that docs/deploy.md's manifest describes, run by runc as a kubelet would have it run: with
//! its capabilities, mounts, limits and a cgroup namespace of its own. It sees a frozen client that runs
//! outside, by its place on the node.

use super::harness::client::{Client, Kind, Order};
use super::harness::daemon::Daemon;
use super::harness::event::Stage;
use super::harness::zookeeper::{Listen, ZooKeeper};
use super::installed::Tree;
use super::{package, shown};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(8);

/// The manifest's documents.
fn manifest() -> Vec<Value> {
    let page = include_str!("../../../docs/deploy.md");
    let block = page
        .split("```yaml\n")
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .find(|block| block.contains("kind: DaemonSet"))
        .expect("the page has a manifest");
    serde_yaml::Deserializer::from_str(block)
        .map(|document| serde::Deserialize::deserialize(document).expect("YAML"))
        .collect()
}

fn of<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found = documents.iter().find(|one| one["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in the manifest"))
}

/// A ConfigMap's volume, as the kubelet makes it: everybody may write in it, and a file is a link over another.
fn volume(of: &Path, file: &str, text: &str) {
    fs::create_dir_all(of.join("..2026")).expect("own folder");
    fs::set_permissions(of, fs::Permissions::from_mode(0o777)).expect("own folder");
    let content = of.join("..2026").join(file);
    fs::write(&content, text).expect("own folder");
    fs::set_permissions(&content, fs::Permissions::from_mode(0o444)).expect("own file");
    symlink("..2026", of.join("..data")).expect("own folder");
    symlink(format!("..data/{file}"), of.join(file)).expect("own folder");
}

/// What runc is told, as a kubelet and containerd make it of a pod.
fn bundle(pod: &Value, root: &Path, volumes: &Path, cgroup: &str) -> Value {
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    let capabilities: Vec<String> = security["capabilities"]["add"]
        .as_array()
        .expect("capabilities")
        .iter()
        .map(|name| format!("CAP_{}", name.as_str().expect("a name")))
        .collect();
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"] }),
    ];
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let volume = pod["volumes"].as_array().expect("volumes").iter();
        let volume = volume.clone().find(|one| one["name"] == mount["name"]);
        let volume = volume.expect("a volume of this name");
        let source = match volume["hostPath"]["path"].as_str() {
            // The node's own is another daemon's, perhaps.
            Some("/run/lease-watchdog") => volumes.join("state"),
            Some(path) => PathBuf::from(path),
            None => volumes.join("config"),
        };
        let access = if mount["readOnly"] == true {
            "ro"
        } else {
            "rw"
        };
        mounts.push(json!({
            "destination": mount["mountPath"], "type": "bind", "source": source,
            "options": ["rbind", "rprivate", access],
        }));
    }
    assert_eq!(pod["hostPID"], true);
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(container["resources"]["limits"]["memory"], "384Mi");
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": security["runAsUser"], "gid": 0 },
            "args": container["command"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": security["allowPrivilegeEscalation"] == false,
        },
        "root": { "path": root, "readonly": security["readOnlyRootFilesystem"] },
        "mounts": mounts,
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{ "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" }],
            "resources": { "memory": { "limit": 384_u64 << 20 } },
        },
    })
}

/// Whatever became of the container, nothing of it stays.
struct Removed<'a> {
    state: &'a Path,
    name: &'a str,
}

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _gone = Command::new("runc")
            .args(["--root", shown(self.state), "delete", "--force", self.name])
            .output();
    }
}

#[test]
fn as_the_manifest_has_it_a_container_sees_a_frozen_client_outside() {
    let Some(tree) = Tree::new() else {
        println!("SKIPPED: as_the_manifest_has_it: no Debian can be fetched");
        return;
    };
    // As the page's Dockerfile does.
    fs::copy(package(), tree.path("tmp/lease-watchdog.deb")).expect("the package");
    tree.run("dpkg --unpack /tmp/lease-watchdog.deb && rm /tmp/lease-watchdog.deb");
    let server = ZooKeeper::start(TIMEOUT, Listen::Loopback);
    let place = tempfile::tempdir().expect("a temporary directory");
    let documents = manifest();
    let config = of(&documents, "ConfigMap")["data"]["lease-watchdog.yaml"].as_str();
    // On the story's ports.
    let config = config
        .expect("a configuration")
        .replace("2181", &server.port().to_string())
        .replace("0.0.0.0:9527", "127.0.0.1:0");
    let volumes = place.path().join("volumes");
    volume(&volumes.join("config"), "lease-watchdog.yaml", &config);
    fs::create_dir(volumes.join("state")).expect("own folder");
    let name = format!("lease-watchdog-contained-{}", std::process::id());
    let pod = &of(&documents, "DaemonSet")["spec"]["template"]["spec"];
    let told = bundle(pod, &tree.path(""), &volumes, &format!("/{name}"));
    fs::write(place.path().join("config.json"), told.to_string()).expect("own folder");

    let state = place.path().join("runc");
    let removed = Removed {
        state: &state,
        name: &name,
    };
    let mut command = Command::new("runc");
    command.args(["--root", shown(&state), "run", "--bundle"]);
    command.arg(place.path()).arg(&name);
    let daemon = Daemon::launch(command);
    let started = daemon.wait_for("`started`", SOON, |event| event.is("started"));
    let refused = started.value["refused"].as_array().map(Vec::len);
    assert_eq!(refused, Some(0), "{}", started.value);
    assert!(!daemon.stderr().contains("only what runs in this container"));

    let clients = Client::start_all(|kind| Order::idle(kind, server.port(), TIMEOUT));
    let holder = clients
        .iter()
        .find(|client| client.name() == Kind::C.name());
    let holder = holder.expect("a client of each kind");
    let seen = daemon.wait_seen(holder.id(), "holder", SOON);
    // By the node's numbers and paths, from within its own cgroup namespace.
    assert_eq!(seen.value["pid"], holder.pid());
    let own = fs::read_to_string("/proc/self/cgroup").expect("procfs");
    let path = seen.text("cgroup").to_owned();
    assert!(
        own.lines().any(|line| line.ends_with(&format!(":{path}"))),
        "{path} of {own}"
    );
    server.next_renewal(holder.id());
    let mark = daemon.mark();
    let stopped = holder.freeze();
    let warned = daemon.wait_stage(mark, holder.id(), "holder", Stage::AtRisk, TIMEOUT);
    assert_eq!(warned.text("cause"), "process_stopped", "{}", warned.value);
    stopped.resume();
    daemon.wait_from(mark, "`renewed`", TIMEOUT, |event| {
        event.of(holder.id(), "holder") && event.enters("renewed")
    });
    drop(clients);
    // runc passes the signal on.
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    drop(removed);
}
