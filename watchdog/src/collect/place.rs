//! Where a process runs, in the words of those who run it: unit, container, pod.
//!
//! In: a process id; or, purely, a cgroup's path and the names of the node's pod logs. Out: what
//! they say. A path is all that every runtime leaves in common: none is asked. Never: a guess; what
//! a path does not say is left out.
//!
//! | runtime | the part of the path that names the container |
//! |---|---|
//! | docker | `docker-ID.scope` (systemd), `docker/ID` (cgroupfs) |
//! | containerd under Kubernetes | `cri-containerd-ID.scope`; `ID` below the pod; `SLICE:cri-containerd:ID` |
//! | CRI-O | `crio-ID.scope`, `crio-ID` |
//! | podman | `libpod-ID.scope`, `libpod-ID`, `libpod-payload-ID` below a unit |
//! | LXC, Incus | `lxc.payload.NAME`, `lxc/NAME` |
//! | systemd-nspawn | `systemd-nspawn@NAME.service`, `machine-NAME.scope` |
//!
//! A pod is `kubepods…-podUID.slice` (systemd, with `_` for `-`) or `podUID` (cgroupfs). Its name
//! stands in that of its folder of logs, `/var/log/pods/NAMESPACE_NAME_UID`.

use std::fs;
use std::path::Path;

use super::membership;

/// Where the kubelet keeps a folder for each pod (--pod-log-dir's default).
const POD_LOGS: &str = "/var/log/pods";

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its cgroup: the v2 path, on a v1 node systemd's.
    pub cgroup: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The innermost container: its id, or its name where the runtime uses one.
    pub container: Option<String>,
    /// The pod: `namespace/name`, or its UID where that is all that is known.
    pub pod: Option<String>,
    /// Its process id as it sees it itself, where that is another than the node's.
    pub inner_pid: Option<u32>,
}

impl Place {
    /// Looks at a process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let text = membership::of(pid);
        let mut place = Self {
            cgroup: cgroup_in(&text),
            ..Self::default()
        };
        // On a hybrid node a runtime may use any of the hierarchies.
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        for path in place.cgroup.clone().as_deref().into_iter().chain(paths) {
            let named = named(path);
            place.unit = place.unit.or(named.unit);
            place.container = place.container.or(named.container);
            place.pod = place.pod.or(named.pod);
        }
        if let Some(uid) = &place.pod
            && let Some(name) = pod_name(uid, &folders(Path::new(POD_LOGS)))
        {
            place.pod = Some(name);
        }
        let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
        place.inner_pid = inner_pid(&String::from_utf8_lossy(&status)).filter(|own| *own != pid);
        place
    }
}

/// The cgroup that a process's `cgroup` file tells of.
fn cgroup_in(text: &str) -> Option<String> {
    let path_of = |head: &str| {
        let line = text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.strip_prefix(head)
        })?;
        Some(line.to_owned())
    };
    // On a hybrid node the v2 hierarchy exists, but what runs may sit at its root.
    let unified = path_of(":");
    match unified.as_deref() {
        None | Some("/") => path_of("name=systemd:").or(unified),
        Some(_) => unified,
    }
}

/// The last of the ids in a `status` file's line `NSpid:`, the process's in its own namespace.
fn inner_pid(status: &str) -> Option<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

fn folders(at: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(at) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|one| one.file_name().into_string().ok());
    names.collect()
}

/// `namespace/name` of the pod with this UID, from the names of the pods' folders of logs.
fn pod_name(uid: &str, folders: &[String]) -> Option<String> {
    folders.iter().find_map(|folder| {
        // Neither a namespace nor a pod's name may contain an underscore.
        let (pod, of) = folder.rsplit_once('_')?;
        let (namespace, name) = pod.split_once('_')?;
        (of == uid).then(|| format!("{namespace}/{name}"))
    })
}

/// What a cgroup's path names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    unit: Option<String>,
    container: Option<String>,
    pod: Option<String>,
}

/// Reads a path from the outside in: what stands further in is the nearer.
fn named(path: &str) -> Named {
    let mut named = Named::default();
    let mut before = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let container = container(part, before, named.pod.is_some());
        if let Some(uid) = pod(part) {
            // A container of a pod around this one is not this one's.
            named.pod = Some(uid);
            named.container = None;
        }
        if let Some(container) = container {
            named.container = Some(container);
            if part.starts_with("systemd-nspawn@") {
                named.unit = Some(part.to_owned());
            }
        } else if is_unit(part) {
            named.unit = Some(part.to_owned());
        }
        before = part;
    }
    named
}

fn is_unit(part: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|end| part.len() > end.len() && part.ends_with(end))
}

/// A runtime's id of a container: 64 hexadecimal digits.
fn is_id(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The container that a part of a path names, given the part before it and whether a pod has been
/// named already.
fn container(part: &str, before: &str, in_pod: bool) -> Option<String> {
    let word = part.strip_suffix(".scope").unwrap_or(part);
    // containerd told to use systemd's form without systemd.
    if let Some((_, id)) = word.rsplit_once(':')
        && is_id(id)
    {
        return Some(id.to_owned());
    }
    if let Some(name) = word.strip_prefix("lxc.payload.") {
        return Some(name.to_owned());
    }
    if before == "lxc" {
        return Some(word.to_owned());
    }
    let nspawn = part
        .strip_prefix("systemd-nspawn@")
        .and_then(|rest| rest.strip_suffix(".service"));
    if let Some(name) = nspawn {
        return Some(name.to_owned());
    }
    if before == "machine.slice"
        && let Some(name) = part
            .strip_prefix("machine-")
            .and_then(|rest| rest.strip_suffix(".scope"))
    {
        return Some(name.replace("\\x2d", "-"));
    }
    // What stands before an id and watches over the container is not in it.
    if word.contains("conmon") {
        return None;
    }
    if is_id(word) {
        // Bare ids stand below a pod or a runtime's own group; anything might be called so.
        return (in_pod || !before.is_empty()).then(|| word.to_owned());
    }
    let (_, id) = word.rsplit_once('-')?;
    is_id(id).then(|| id.to_owned())
}

/// The UID of the pod that a part of a path names.
fn pod(part: &str) -> Option<String> {
    // The systemd form may be followed by `:cri-containerd:ID`.
    let slice = part.split(':').next()?;
    let uid = match slice.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => {
            slice.rsplit_once("-pod")?.1.replace('_', "-")
        }
        Some(_) => return None,
        None => slice.strip_prefix("pod")?.to_owned(),
    };
    is_uid(&uid).then_some(uid)
}

/// A pod's UID: five groups of digits, or, of a pod that a file on the node describes, the 32
/// digits of a hash.
fn is_uid(word: &str) -> bool {
    let digits = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let groups: Vec<&str> = word.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    (lengths == [8, 4, 4, 4, 12] || lengths == [32]) && groups.iter().all(|group| digits(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OUTER: &str = "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d5c1f0a-37b1-4d0e-9a4e-52c1d3f3a7b9";
    const HASH: &str = "3b0a4e6d2c1f5a7890b1c2d3e4f5a6b7";

    /// A path with ID, UID, UID_ (underscores), OUTER and HASH in it; unit, container, pod.
    #[test]
    fn every_runtimes_paths_are_read() {
        let (id, uid, outer, hash) = (Some(ID), Some(UID), Some(OUTER), Some(HASH));
        for (path, unit, container, pod) in [
            ("/", None, None, None),
            (
                "/system.slice/meta.service",
                Some("meta.service"),
                None,
                None,
            ),
            (
                "/system.slice/system-zk.slice/zk@1.service",
                Some("zk@1.service"),
                None,
                None,
            ),
            (
                "/user.slice/user-0.slice/session-3.scope",
                Some("session-3.scope"),
                None,
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/chunk.service",
                Some("chunk.service"),
                None,
                None,
            ),
            // A service that makes groups of its own below its unit's.
            (
                "/system.slice/meta.service/workers",
                Some("meta.service"),
                None,
                None,
            ),
            // docker
            ("/system.slice/docker-ID.scope", None, id, None),
            ("/docker/ID", None, id, None),
            ("/docker/OUTER/docker/ID", None, id, None),
            (
                "/system.slice/docker-ID.scope/init.scope",
                Some("init.scope"),
                id,
                None,
            ),
            (
                "/system.slice/docker.service",
                Some("docker.service"),
                None,
                None,
            ),
            // containerd
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
                None,
                id,
                uid,
            ),
            (
                "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
                None,
                id,
                uid,
            ),
            ("/kubepods/besteffort/podUID/ID", None, id, uid),
            ("/kubepods/podUID/ID", None, id, uid),
            ("/kubepods/podUID", None, None, uid),
            (
                "/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
                Some("containerd.service"),
                id,
                uid,
            ),
            ("/kubepods/burstable/podHASH/ID", None, id, hash),
            (
                "/kubepods.slice/kubepods-podHASH.slice/cri-containerd-ID.scope",
                None,
                id,
                hash,
            ),
            ("/default/ID", None, id, None),
            ("/system.slice/nerdctl-ID.scope", None, id, None),
            // As a daemon in a cgroup namespace of its own sees it.
            ("/../../kubepods/podUID/ID", None, id, uid),
            // Docker that runs a Kubernetes node (kind), and a pod that runs docker.
            (
                "/docker/OUTER/kubelet/kubepods/burstable/podUID/ID",
                None,
                id,
                uid,
            ),
            (
                "/docker/OUTER/kubelet/kubepods/burstable/podUID",
                None,
                None,
                uid,
            ),
            ("/kubepods/podUID/OUTER/docker/ID", None, id, uid),
            ("/kubepods/podUID/OUTER", None, outer, uid),
            // CRI-O
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope",
                None,
                id,
                uid,
            ),
            ("/kubepods/podUID/crio-ID", None, id, uid),
            ("/kubepods/podUID/crio-conmon-ID", None, None, uid),
            // podman
            ("/machine.slice/libpod-ID.scope", None, id, None),
            ("/machine.slice/libpod-ID.scope/container", None, id, None),
            (
                "/machine.slice/libpod-conmon-ID.scope",
                Some("libpod-conmon-ID.scope"),
                None,
                None,
            ),
            ("/libpod_parent/libpod-ID", None, id, None),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                Some("user@1000.service"),
                id,
                None,
            ),
            (
                "/system.slice/meta.service/libpod-payload-ID",
                Some("meta.service"),
                id,
                None,
            ),
            // machines
            (
                "/lxc.payload.web/system.slice/a.service",
                Some("a.service"),
                Some("web"),
                None,
            ),
            ("/lxc/web", None, Some("web"), None),
            (
                "/machine.slice/systemd-nspawn@web.service/payload",
                Some("systemd-nspawn@web.service"),
                Some("web"),
                None,
            ),
            (
                "/machine.slice/machine-web\\x2d1.scope",
                None,
                Some("web-1"),
                None,
            ),
            // What only looks like it.
            ("/podcast", None, None, None),
            ("/a/podUIDx", None, None, None),
            ("/ID", None, None, None),
        ] {
            let filled = |text: &str| {
                text.replace("UID_", &UID.replace('-', "_"))
                    .replace("UID", UID)
                    .replace("OUTER", OUTER)
                    .replace("HASH", HASH)
                    .replace("ID", ID)
            };
            let expected = Named {
                unit: unit.map(filled),
                container: container.map(str::to_owned),
                pod: pod.map(str::to_owned),
            };
            assert_eq!(named(&filled(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_pod_has_its_name_from_its_logs() {
        let folders = [
            format!("kube-system_etcd-node1_{HASH}"),
            format!("prod_chunk-0_{UID}"),
            "lost+found".to_owned(),
        ];
        assert_eq!(pod_name(UID, &folders).as_deref(), Some("prod/chunk-0"));
        assert_eq!(
            pod_name(HASH, &folders).as_deref(),
            Some("kube-system/etcd-node1")
        );
        assert_eq!(pod_name("other", &folders), None);
    }

    #[test]
    fn cgroups_of_either_version() {
        assert_eq!(cgroup_in("0::/a.slice/b\n").as_deref(), Some("/a.slice/b"));
        let hybrid = "5:cpu,cpuacct:/a\n1:name=systemd:/a.slice/b:c\n0::/\n";
        assert_eq!(cgroup_in(hybrid).as_deref(), Some("/a.slice/b:c"));
        assert_eq!(cgroup_in("0::/\n").as_deref(), Some("/"));
        assert_eq!(cgroup_in(""), None);
    }

    #[test]
    fn the_last_of_its_ids_is_its_own() {
        let status = "Name:\tjava\nPid:\t4711\nNSpid:\t4711\t31\t1\nThreads:\t9\n";
        assert_eq!(inner_pid(status), Some(1));
        assert_eq!(inner_pid("NSpid:\t4711\n"), Some(4711));
        assert_eq!(inner_pid("Name:\tjava\n"), None);
    }

    #[test]
    fn this_very_process_has_one_id() {
        let own = Place::of(std::process::id());
        assert!(own.cgroup.is_some_and(|path| path.starts_with('/')));
        assert_eq!(own.inner_pid, None);
        assert_eq!(Place::of(u32::MAX), Place::default());
    }
}
