//! A network path that can lose packets one way: clients in a namespace, a router in another, and the
//! node, where the server is. Rules live in the router's namespace and vanish with it.

use super::names;
use super::switch::{self, Switch};
use crate::harness::process::run;
use std::net::{IpAddr, Ipv4Addr};

/// The path.
#[derive(Debug)]
pub struct Path {
    /// The namespace of the clients.
    pub clients: String,
    router: String,
    /// The node's address, as the clients know it.
    pub node: IpAddr,
    _ground: Switch,
}

/// What the router does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Loses what goes from the clients to the node.
    DropToNode,
    /// Loses what goes from the node to the clients.
    DropToClients,
    /// Answers the clients' packets with RST: the port is closed.
    Reset,
}

impl Path {
    /// Makes both namespaces and the links.
    ///
    /// # Panics
    /// If a step fails; it needs root and iproute2.
    pub fn create() -> Self {
        let (pid, number) = (std::process::id(), names::number());
        let name = names::unique();
        let (router, clients) = (format!("{name}-r"), format!("{name}-c"));
        let near = format!("lf{}-{number}", pid % 100_000);
        let octet = (pid + number) % 250;
        let undo = format!(
            "ip link del {near}; ip netns del {clients}; ip netns del {router}; ip route del 10.215.{octet}.0/24 2>/dev/null; true"
        );
        let ground = Switch::arm(switch::GROUND, &undo);
        for step in [
            format!("netns add {router}"),
            format!("netns add {clients}"),
            format!("link add {near} type veth peer name tonode netns {router}"),
            format!("addr add 10.214.{octet}.1/24 dev {near}"),
            format!("link set {near} up"),
            format!("-n {router} addr add 10.214.{octet}.2/24 dev tonode"),
            format!("-n {router} link set tonode up"),
            format!("-n {router} link add toclients type veth peer name torouter netns {clients}"),
            format!("-n {router} addr add 10.215.{octet}.1/24 dev toclients"),
            format!("-n {router} link set toclients up"),
            format!("-n {router} link set lo up"),
            format!("-n {clients} addr add 10.215.{octet}.2/24 dev torouter"),
            format!("-n {clients} link set torouter up"),
            format!("-n {clients} link set lo up"),
            format!("-n {clients} route add default via 10.215.{octet}.1"),
            format!("route add 10.215.{octet}.0/24 via 10.214.{octet}.2"),
            format!("netns exec {router} sysctl -q -w net.ipv4.ip_forward=1"),
        ] {
            run("ip", &step.split(' ').collect::<Vec<_>>());
        }
        let octet = u8::try_from(octet).expect("below 250");
        Self {
            clients,
            router,
            node: IpAddr::V4(Ipv4Addr::new(10, 214, octet, 1)),
            _ground: ground,
        }
    }

    /// The words that run a command among the clients.
    pub fn enter(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.clients]
    }

    /// Leads what the clients send to the node's port `from` to its port `to`: a server whose own
    /// port is another than the one that its clients know.
    pub fn lead(&self, from: u16, to: u16) {
        let nft = format!("ip netns exec {} nft", self.router);
        let script = format!(
            "{nft} add table ip lead && \
             {nft} 'add chain ip lead way {{ type nat hook prerouting priority -100 ; }}' && \
             {nft} 'add rule ip lead way tcp dport {from} dnat to {}:{to}'",
            self.node
        );
        run("sh", &["-c", &script]);
    }

    /// Why [`Path::lose_all`] cannot be had here, if so.
    pub fn netem_lacking() -> Option<&'static str> {
        let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
        let loaded = modules.lines().any(|line| line.starts_with("sch_netem "));
        (!loaded).then_some("the module sch_netem is not loaded")
    }

    /// Loses every packet both ways, in the queues of the router's devices, until the guard is dropped.
    pub fn lose_all(&self) -> Switch {
        let tc = format!("ip netns exec {} tc qdisc", self.router);
        let all = |word: &str, end: &str| {
            let one = |device: &str| format!("{tc} {word} dev {device} root{end}");
            format!("{}; {}", one("tonode"), one("toclients"))
        };
        let switch = Switch::arm(switch::FAULT, &format!("{}; true", all("del", "")));
        run("sh", &["-ec", &all("add", " netem loss 100%")]);
        switch
    }

    /// Applies a rule until the guard is dropped, one minute at most.
    pub fn apply(&self, rule: Rule) -> Switch {
        let verdict = match rule {
            Rule::DropToNode => "iifname toclients drop",
            Rule::DropToClients => "iifname tonode drop",
            Rule::Reset => "iifname toclients meta l4proto tcp reject with tcp reset",
        };
        let nft = format!("ip netns exec {} nft", self.router);
        let undo = format!(
            "if ip netns list | grep -q '^{} *'; then {nft} delete table inet faults; fi; true",
            self.router
        );
        let switch = Switch::arm(switch::FAULT, &undo);
        let script = format!(
            "{nft} add table inet faults && \
             {nft} 'add chain inet faults way {{ type filter hook forward priority 0 ; }}' && \
             {nft} 'add rule inet faults way {verdict}'"
        );
        run("sh", &["-c", &script]);
        switch
    }
}
