//! Is anything there that the configuration would watch?

use super::{Check, State};
use crate::collect::connections::{self, Connection, Namespace};
use crate::config::{Config, LeaseEntry};

/// A row for each entry of `leases`.
pub fn ports(config: &Config) -> Vec<Check> {
    let all = connections::list();
    config.leases.iter().map(|entry| of(entry, &all)).collect()
}

fn of(entry: &LeaseEntry, all: &[Namespace]) -> Check {
    let name = format!("leases: {}", entry.name);
    let watched = |port: u16| entry.ports.iter().any(|ports| ports.contains(&port));
    let listening: Vec<&Connection> = all
        .iter()
        .flat_map(|namespace| &namespace.listening)
        .filter(|one| watched(one.local.port()))
        .collect();
    let established = || all.iter().flat_map(|namespace| &namespace.established);
    let served = established()
        .filter(|one| watched(one.local.port()))
        .count();
    let held = established().filter(|one| watched(one.peer.port())).count();
    let ports: Vec<String> = entry
        .ports
        .iter()
        .map(|ports| {
            if ports.start() == ports.end() {
                ports.start().to_string()
            } else {
                format!("{}-{}", ports.start(), ports.end())
            }
        })
        .collect();
    let ports = ports.join(", ");
    if listening.is_empty() && served + held == 0 {
        return Check::new(
            &name,
            State::Note,
            format!("nobody listens on port {ports} or is connected to it now"),
        )
        .mend("if there should be somebody: lease-watchdog discover");
    }
    let mut servers: Vec<&str> = listening
        .iter()
        .filter_map(|one| Some(one.owner.as_ref()?.comm.as_str()))
        .collect();
    servers.sort_unstable();
    servers.dedup();
    let by = match servers.as_slice() {
        [] if listening.is_empty() => "nobody here".to_owned(),
        [] => "a process that may not be seen".to_owned(),
        some => some.join(", "),
    };
    Check::ok(
        &name,
        format!("port {ports}: listening: {by}; {held} connections to it, {served} accepted"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_that_is_listened_on_is_told_from_one_that_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut config = Config::default();
        config.leases[0].ports = vec![port..=port];
        let rows = ports(&config);
        assert_eq!(rows[0].state, State::Ok, "{rows:?}");
        drop(listener);
        assert_eq!(ports(&config)[0].state, State::Note);
    }
}
