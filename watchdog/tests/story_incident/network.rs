//! The cluster's network: a namespace per node, a bridge in a namespace of its own, and the machine
//! itself as the node where ZooKeeper runs.
//!
//! In: nothing. Out: addresses, and the words that run a command on a node. Never: an interface or a
//! namespace that outlives this program, kill -9 included.

use crate::harness::process::run;
use crate::rig::names;
use crate::rig::switch::{self, Switch};

/// The nodes, by the last part of their addresses.
pub const NODES: [u8; 4] = [161, 162, 163, 164];

/// The network.
#[derive(Debug)]
pub struct Network {
    name: String,
    part: u32,
    _ground: Switch,
}

impl Network {
    /// Makes it.
    ///
    /// # Panics
    /// If a step fails; it needs root and iproute2.
    pub fn create() -> Self {
        let name = names::unique().replace("faults", "incident");
        let pid = std::process::id();
        let part = pid % 250;
        let near = format!("li{}", pid % 1_000_000);
        let bridge = format!("{name}-b");
        let mut undo = vec![format!("ip link del {near}")];
        undo.extend(NODES.map(|node| format!("ip netns del {name}-{node}")));
        undo.push(format!("ip netns del {bridge}"));
        let ground = Switch::arm(
            switch::GROUND,
            &format!("{{ {}; }} 2>/dev/null; true", undo.join("; ")),
        );
        let mut steps = vec![
            format!("netns add {bridge}"),
            format!("-n {bridge} link add name middle type bridge"),
            format!("-n {bridge} link set middle up"),
            format!("link add {near} type veth peer name machine netns {bridge}"),
            format!("addr add 10.212.{part}.1/24 dev {near}"),
            format!("link set {near} up"),
            format!("-n {bridge} link set machine master middle up"),
        ];
        for node in NODES {
            let inside = format!("{name}-{node}");
            steps.extend([
                format!("netns add {inside}"),
                format!("-n {inside} link add eth0 type veth peer name n{node} netns {bridge}"),
                format!("-n {inside} addr add 10.212.{part}.{node}/24 dev eth0"),
                format!("-n {inside} link set eth0 up"),
                format!("-n {inside} link set lo up"),
                format!("-n {bridge} link set n{node} master middle up"),
            ]);
        }
        for step in steps {
            run("ip", &step.split(' ').collect::<Vec<_>>());
        }
        Self {
            name,
            part,
            _ground: ground,
        }
    }

    /// A node's address.
    pub fn address(&self, node: u8) -> String {
        format!("10.212.{}.{node}", self.part)
    }

    /// The machine's own.
    pub fn machine(&self) -> String {
        self.address(1)
    }

    /// A node's namespace, by its path.
    pub fn path(&self, node: u8) -> String {
        format!("/run/netns/{}-{node}", self.name)
    }

    /// The words that run a command on a node. It keeps its process id and sees the same mounts.
    pub fn enter(&self, node: u8) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.path(node))]
    }
}
