//! The demo's result, for people and for machines.
//!
//! In: what the story has worked out. Out: JSON by serde, and the summary's lines. No clock, no I/O.

use serde::Serialize;

use super::lines::{ClientKind, SessionId, Stage};
use super::story::STOPPED;

/// The result.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whether all was seen.
    pub passed: bool,
    /// What was not.
    pub not_seen: Vec<String>,
    /// The first act.
    pub frozen_client: Option<FrozenClient>,
    /// The second act.
    pub frozen_server: Option<FrozenServer>,
    /// Warnings that belong to no freeze. They fail nothing: a loaded machine may well be late.
    pub stray_warnings: u32,
}

/// The first act; times in seconds after the freeze, leads in seconds before the expiry.
#[derive(Debug, Serialize)]
pub struct FrozenClient {
    /// Who was frozen.
    pub client: ClientKind,
    /// Its session.
    pub session: SessionId,
    /// What the first warning said.
    pub first_stage: Option<Stage>,
    /// When it was received.
    pub first_warning_after_s: Option<f64>,
    /// When `at_risk` or worse, with the right cause, was received.
    pub at_risk_after_s: Option<f64>,
    /// When the server expired the session.
    pub expired_after_s: Option<f64>,
    /// How long before that the first warning came.
    pub lead_s: Option<f64>,
    /// The same for `at_risk`.
    pub at_risk_lead_s: Option<f64>,
    /// Why, by the daemon.
    pub cause: Option<String>,
}

/// The second act.
#[derive(Debug, Serialize)]
pub struct FrozenServer {
    /// How long the server stood still.
    pub frozen_for_s: f64,
    /// How many sessions it held.
    pub sessions: usize,
    /// How many of them were warned of, with the blame on the server.
    pub blamed_on_server: usize,
    /// When the first such warning was received, after the freeze.
    pub first_warning_after_s: Option<f64>,
    /// When the last `renewed` was received, after the thaw.
    pub last_renewed_after_s: Option<f64>,
}

impl Verdict {
    /// The summary's lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(text) = self.frozen_client.as_ref().and_then(FrozenClient::line) {
            lines.push(text);
        }
        if let Some(text) = self.frozen_server.as_ref().and_then(FrozenServer::line) {
            lines.push(text);
        }
        if self.stray_warnings > 0 {
            lines.push(format!(
                "{} other warnings, outside both freezes",
                self.stray_warnings
            ));
        }
        if self.passed {
            lines.push("passed: all of it was seen".to_owned());
        } else {
            lines.push("FAILED; not seen:".to_owned());
            lines.extend(self.not_seen.iter().map(|what| format!("  - {what}")));
        }
        lines
    }
}

impl FrozenClient {
    fn line(&self) -> Option<String> {
        let name = self.client.name();
        let (lead, first, stage) = (self.lead_s?, self.first_warning_after_s?, self.first_stage?);
        let at_risk = match self.at_risk_after_s {
            Some(_) if stage > Stage::Late => String::new(),
            Some(after) => format!(", at_risk +{after:.1} s"),
            None => String::new(),
        };
        let cause = self.cause.as_deref().unwrap_or("none");
        Some(format!(
            "frozen client ({name}): warned {lead:.1} s before the server expired its session \
             ({stage} +{first:.1} s{at_risk} after the freeze; cause {cause})"
        ))
    }
}

impl FrozenServer {
    fn line(&self) -> Option<String> {
        let (first, frozen_for) = (self.first_warning_after_s?, self.frozen_for_s);
        let renewed = match self.last_renewed_after_s {
            Some(after) => format!("; renewed within {after:.1} s of its return"),
            None => String::new(),
        };
        Some(format!(
            "frozen server ({frozen_for:.1} s): {} of {} sessions warned, first after {first:.1} s, \
             cause {STOPPED} on the server's side{renewed}",
            self.blamed_on_server, self.sessions
        ))
    }
}
