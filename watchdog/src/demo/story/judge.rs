//! The verdict over the story: each thing that had to be seen, and whether it was.
//!
//! In: the story. Out: a `Verdict`. No clock, no I/O.

use super::super::lines::{ClientKind, Role, Stage};
use super::super::verdict::{FrozenClient, FrozenServer, Verdict};
use super::{End, STOPPED, Story, Warning, ms_between};

impl Story {
    /// What was seen and what was not.
    pub fn verdict(&self) -> Verdict {
        let mut missing = Vec::new();
        if !self.daemon_started {
            missing.push("the daemon's `started` event".to_owned());
        }
        for client in ClientKind::ALL {
            if !self.clients.contains_key(&client) {
                missing.push(format!("a session of client {}", client.name()));
            }
        }
        let with_session = |(client, _): &(ClientKind, Role)| self.clients.contains_key(client);
        for (client, role) in self.unseen().into_iter().filter(with_session) {
            missing.push(format!(
                "the daemon's `lease_seen` of client {} as {role}",
                client.name()
            ));
        }
        let frozen_client = self.frozen_client(&mut missing);
        let frozen_server = self.frozen_server(&mut missing);
        Verdict {
            passed: missing.is_empty(),
            not_seen: missing,
            frozen_client,
            frozen_server,
            stray_warnings: self.stray_warnings,
        }
    }

    fn frozen_client(&self, missing: &mut Vec<String>) -> Option<FrozenClient> {
        let found = self.freezes.iter().find_map(|f| Some((f, f.client?)));
        let found = found.and_then(|(f, c)| Some((f, c, *self.clients.get(&c)?)));
        let Some((freeze, client, session)) = found else {
            missing.push("a frozen client's session warned of and expired: not reached".to_owned());
            return None;
        };
        let expired_us = match self.end_of(client) {
            Some(End::Expired(at)) => Some(at),
            _ => {
                missing.push(format!(
                    "the server's expiry of client {}'s session",
                    client.name()
                ));
                None
            }
        };
        // Too late is as good as never.
        let mut warnings = freeze.warnings.iter().filter(|w| {
            let about_it = w.session == session && w.role == Role::Holder;
            about_it && expired_us.is_none_or(|at| w.received_us < at)
        });
        let first = warnings.clone().next();
        let proven =
            warnings.find(|w| w.stage >= Stage::AtRisk && w.cause.as_deref() == Some(STOPPED));
        if first.is_none() {
            let name = client.name();
            missing.push(format!(
                "a warning of client {name}'s session before it expired"
            ));
        }
        if proven.is_none() {
            missing.push(format!(
                "`at_risk` or worse with cause {STOPPED} for client {} before its session expired",
                client.name()
            ));
        }
        if !self.told_expired.contains(&client) {
            missing.push(format!(
                "client {} told of its session's expiry",
                client.name()
            ));
        }
        let after = |at: u64| seconds(freeze.frozen_us, at);
        Some(FrozenClient {
            client,
            session,
            first_stage: first.map(|w| w.stage),
            first_warning_after_s: first.map(|w| after(w.received_us)),
            at_risk_after_s: proven.map(|w| after(w.received_us)),
            expired_after_s: expired_us.map(after),
            lead_s: first
                .zip(expired_us)
                .map(|(w, at)| seconds(w.received_us, at)),
            at_risk_lead_s: proven
                .zip(expired_us)
                .map(|(w, at)| seconds(w.received_us, at)),
            cause: proven.or(first).and_then(|w| w.cause.clone()),
        })
    }

    fn frozen_server(&self, missing: &mut Vec<String>) -> Option<FrozenServer> {
        let found = self.freezes.iter().find(|f| f.client.is_none());
        let Some((freeze, thawed_us)) = found.and_then(|f| Some((f, f.thawed_us?))) else {
            missing.push("the other sessions warned of and renewed: not reached".to_owned());
            return None;
        };
        let frozen_client = self.freezes.iter().find_map(|f| f.client);
        let others = self
            .clients
            .iter()
            .filter(|(c, _)| Some(**c) != frozen_client);
        let (mut sessions, mut blamed) = (0, 0);
        for (client, session) in others {
            let name = client.name();
            sessions += 1;
            let mut warnings = freeze
                .warnings
                .iter()
                .filter(|w| w.session == *session)
                .peekable();
            let warned = warnings.peek().is_some();
            if warnings.any(Warning::blames_server) {
                blamed += 1;
            } else if warned {
                missing.push(format!(
                    "the blame on the server in a warning of client {name}"
                ));
            } else {
                missing.push(format!(
                    "a warning of client {name} while the server stood still"
                ));
            }
            if let Some(End::Expired(_)) = self.end_of(*client) {
                missing.push(format!(
                    "client {name}'s session alive after the server's return"
                ));
            }
        }
        let warned = freeze.warnings.iter().map(|w| (w.session, w.role));
        let mut pending: Vec<_> = warned
            .filter(|key| !freeze.renewed.contains_key(key))
            .collect();
        pending.sort();
        pending.dedup();
        for (session, role) in pending {
            let client = self.client_of(session).map_or("?", ClientKind::name);
            missing.push(format!(
                "the daemon's `renewed` of client {client} as {role}"
            ));
        }
        let first = freeze
            .warnings
            .iter()
            .find(|w| w.blames_server())
            .map(|w| w.received_us);
        Some(FrozenServer {
            frozen_for_s: seconds(freeze.frozen_us, thawed_us),
            sessions,
            blamed_on_server: blamed,
            first_warning_after_s: first.map(|at| seconds(freeze.frozen_us, at)),
            last_renewed_after_s: freeze
                .renewed
                .values()
                .max()
                .map(|at| seconds(thawed_us, *at)),
        })
    }
}

fn seconds(from_us: u64, to_us: u64) -> f64 {
    (ms_between(from_us, to_us)).round() / 1e3
}
