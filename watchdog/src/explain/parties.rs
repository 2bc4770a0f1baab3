//! Who wrote each log: which process, on which host.
//!
//! In: sources and events. Out: a name, a host and how that is known. Never: a resolver; only what the logs
//! and their names say.

use std::collections::BTreeSet;

use serde::Serialize;

use super::meaning::{Event, Meaning, host_of};
use super::scan::{Logs, Source};

/// The writer of one log.
#[derive(Clone, Debug, Serialize)]
pub struct Party {
    /// The log's name, without its ending: unique where file names are.
    pub name: String,
    /// The host: an address where one is known.
    pub host: String,
    /// What tells the host.
    pub host_from: &'static str,
}

/// Their writers, in the order of the sources.
#[must_use]
pub fn parties(logs: &Logs) -> Vec<Party> {
    let addresses = addresses(&logs.events);
    let mut parties: Vec<Party> = logs
        .sources
        .iter()
        .enumerate()
        .map(|(number, source)| {
            let (host, host_from) = host(logs, number, source, &addresses);
            Party {
                name: name(source),
                host,
                host_from,
            }
        })
        .collect();
    by_grantor(logs, &mut parties);
    by_node(logs, &addresses, &mut parties);
    // Two logs of one name: told apart by their directories.
    for place in 0..parties.len() {
        let same = parties
            .iter()
            .filter(|party| party.name == parties[place].name);
        if same.count() > 1 {
            let dir = logs.sources[place].series.dir.file_name();
            let dir = dir.map_or_else(
                || place.to_string(),
                |dir| dir.to_string_lossy().into_owned(),
            );
            parties[place].name = format!("{dir}/{}", parties[place].name);
        }
    }
    parties
}

fn name(source: &Source) -> String {
    let stem = &source.series.stem;
    let stem = [
        ".log", ".out", ".txt", ".json", ".jsonl", ".INFO", ".WARNING", ".ERROR", ".lwr",
    ]
    .iter()
    .fold(stem.as_str(), |stem, ending| {
        stem.strip_suffix(ending).unwrap_or(stem)
    });
    stem.to_owned()
}

/// Every address that any line names.
fn addresses(events: &[Event]) -> BTreeSet<String> {
    let fields = ["local", "peer", "server", "ip", "host"];
    events
        .iter()
        .flat_map(|event| fields.iter().filter_map(|field| event.get(field)))
        .map(host_of)
        .filter(|host| names_a_host(host))
        .map(str::to_owned)
        .collect()
}

/// Not the wildcard, not loopback.
pub fn names_a_host(host: &str) -> bool {
    !host.is_empty()
        && !host.starts_with("127.")
        && !matches!(host, "0.0.0.0" | "::" | "::1" | "localhost")
}

fn host(
    logs: &Logs,
    number: usize,
    source: &Source,
    addresses: &BTreeSet<String>,
) -> (String, &'static str) {
    let own = |field: &str| {
        logs.events
            .iter()
            .filter(|event| event.source == number)
            .filter_map(|event| event.get(field).map(host_of))
            .find(|host| names_a_host(host))
            .map(str::to_owned)
    };
    if let Some(host) = own("host") {
        return (host, "its own line about its address");
    }
    if let Some(host) = own("local") {
        return (host, "the local end of its connection");
    }
    if let Some(host) = source.heads.iter().find_map(|head| host_in(head)) {
        return (host, "the log's header");
    }
    let name = name(source);
    let tokens = || {
        name.rsplit(['-', '_', '.', '@'])
            .filter(|token| token.len() > 1)
    };
    for token in tokens() {
        let mut fits = addresses
            .iter()
            .filter(|host| *host == token || host.rsplit('.').next() == Some(token));
        if let (Some(host), None) = (fits.next(), fits.next()) {
            return (host.clone(), "the log's name");
        }
    }
    // A node that recorded is known by its name, whole or up to the first dot.
    let alias = logs.aliases.iter().find(|alias| {
        let short = alias.name.split('.').next().unwrap_or("");
        name.split(['-', '_', '@', '/'])
            .any(|token| token == alias.name || token.len() > 1 && token == short)
    });
    if let Some(alias) = alias {
        return (alias.name.clone(), "the log's name");
    }
    if let Some(host) = source.host.as_deref().filter(|host| names_a_host(host)) {
        return (host.to_owned(), "the host that syslog names");
    }
    (name.clone(), "nothing")
}

/// `Running on machine: X` of glog, `environment:host.name=X` of ZooKeeper.
fn host_in(head: &[u8]) -> Option<String> {
    for mark in [b"Running on machine: ".as_slice(), b"nvironment:host.name="] {
        if let Some(at) = memchr::memmem::find(head, mark) {
            let rest = &head[at + mark.len()..];
            let end = rest.iter().position(u8::is_ascii_whitespace)?;
            let host = String::from_utf8_lossy(&rest[..end]).into_owned();
            if names_a_host(&host) {
                return Some(host);
            }
        }
    }
    None
}

/// A node that recorded is one host, by its name and by each of its addresses.
fn by_node(logs: &Logs, spoken_of: &BTreeSet<String>, parties: &mut [Party]) {
    for alias in &logs.aliases {
        let spoken = alias
            .addresses
            .iter()
            .find(|host| spoken_of.contains(*host));
        let Some(address) = spoken.or(alias.addresses.first()) else {
            continue;
        };
        for party in parties.iter_mut() {
            if party.host == alias.name || alias.addresses.contains(&party.host) {
                if party.host != *address {
                    party.host_from = "its node's recording, which knows name and addresses";
                }
                party.host.clone_from(address);
            }
        }
    }
}

/// The only log that expires leases is that of the host that the holders' renewals go to.
fn by_grantor(logs: &Logs, parties: &mut [Party]) {
    let of = |wanted: fn(&Event) -> bool| -> BTreeSet<usize> {
        logs.events
            .iter()
            .filter(|event| wanted(event))
            .map(|event| event.source)
            .collect()
    };
    let grantors =
        of(|event| event.meaning == Meaning::LeaseExpired && event.get("lease").is_some());
    let peers: BTreeSet<&str> = logs
        .events
        .iter()
        .filter(|event| event.meaning == Meaning::RenewalTimedOut)
        .filter_map(|event| event.get("peer").map(host_of))
        .filter(|host| names_a_host(host))
        .collect();
    let grantors: Vec<usize> = grantors.into_iter().collect();
    let peers: Vec<&str> = peers.into_iter().collect();
    if let ([grantor], [peer]) = (grantors.as_slice(), peers.as_slice())
        && parties[*grantor].host_from == "nothing"
    {
        parties[*grantor].host = (*peer).to_owned();
        parties[*grantor].host_from = "it grants what is renewed there";
    }
}
