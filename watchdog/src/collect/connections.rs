//! Every TCP connection of the node, and who owns it.
//!
//! In: procfs, once. Out: sockets by network namespace, with their owners where those may be seen.
//! Never: a byte that is sent on them; a socket opened, duplicated or changed.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process};

/// A process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// A TCP socket.
#[derive(Clone, Debug)]
pub struct Connection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// Who has it; None: it may not be seen, or belongs to nobody.
    pub owner: Option<Owner>,
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Its inode number.
    pub number: u64,
    /// A process in it.
    pub pid: u32,
    /// Addresses that are listened on.
    pub listening: Vec<Connection>,
    /// Established connections, each end that is on this node.
    pub established: Vec<Connection>,
}

/// Lists them.
#[must_use]
pub fn list() -> Vec<Namespace> {
    let Ok(processes) = procfs::process::all_processes() else {
        return Vec::new();
    };
    let processes: Vec<Process> = processes.flatten().collect();
    let mut known = HashSet::new();
    let mut found = Vec::new();
    let mut inodes = HashSet::new();
    for process in &processes {
        let Some(number) = namespace(process) else {
            continue;
        };
        if known.insert(number) {
            let entries: Vec<TcpNetEntry> = [process.tcp(), process.tcp6()]
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| matches!(entry.state, TcpState::Listen | TcpState::Established))
                .collect();
            inodes.extend(entries.iter().map(|entry| entry.inode));
            found.push((number, process.pid.unsigned_abs(), entries));
        }
    }
    let owners = owners(&processes, &inodes);
    let connection = |entry: &TcpNetEntry| Connection {
        local: canonical(entry.local_address),
        peer: canonical(entry.remote_address),
        owner: owners.get(&entry.inode).cloned(),
    };
    let of = |entries: &[TcpNetEntry], state: &TcpState| {
        let wanted = entries.iter().filter(|entry| entry.state == *state);
        wanted.map(connection).collect()
    };
    found
        .iter()
        .map(|(number, pid, entries)| Namespace {
            number: *number,
            pid: *pid,
            listening: of(entries, &TcpState::Listen),
            established: of(entries, &TcpState::Established),
        })
        .collect()
}

fn owners(processes: &[Process], wanted: &HashSet<u64>) -> HashMap<u64, Owner> {
    let mut owners = HashMap::new();
    for process in processes {
        let Ok(descriptors) = process.fd() else {
            continue;
        };
        let mut own = None;
        for descriptor in descriptors.flatten() {
            let FDTarget::Socket(inode) = descriptor.target else {
                continue;
            };
            if wanted.contains(&inode) && !owners.contains_key(&inode) {
                let owner = own.get_or_insert_with(|| Owner {
                    pid: process.pid.unsigned_abs(),
                    comm: process.stat().map(|stat| stat.comm).unwrap_or_default(),
                });
                owners.insert(inode, owner.clone());
            }
        }
    }
    owners
}

fn namespace(process: &Process) -> Option<u64> {
    let namespaces = process.namespaces().ok()?;
    let net = namespaces.0.get(std::ffi::OsStr::new("net"))?;
    Some(net.identifier)
}

/// IPv4 in IPv6 form as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_own_connection_is_listed_at_both_ends_with_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let _accepted = listener.accept().unwrap();
        let all = list();
        let own = std::process::id();
        let owned = |one: &&Connection| one.owner.as_ref().is_some_and(|owner| owner.pid == own);
        let here = |one: &&Connection| one.local == server;
        let namespace = all
            .iter()
            .find(|namespace| {
                namespace
                    .listening
                    .iter()
                    .filter(owned)
                    .any(|one| here(&one))
            })
            .unwrap();
        let ends = |local, peer| {
            let one = |one: &&Connection| (one.local, one.peer) == (local, peer);
            namespace
                .established
                .iter()
                .filter(owned)
                .any(|at| one(&at))
        };
        assert!(ends(server, client.local_addr().unwrap()));
        assert!(ends(client.local_addr().unwrap(), server));
    }
}
