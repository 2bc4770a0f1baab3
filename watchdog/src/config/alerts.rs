//! Whom to tell of what: the entries of `alerts`.
//!
//! In: the places under `alerts`. Out: [`Alert`]s, and every mistake noted in the walk. Never: a
//! look-up of a host name, a connection; that is the sinks' business, and may take its time.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use watchdog_model::causes::Cause;
use watchdog_model::leases::note::Stage;
use watchdog_model::leases::observation::Role;
use watchdog_model::time::secs;

use super::tree::Value;
use super::walk::{Group, Place, flag, one_of, text};
use super::{LeaseEntry, keys, trust, units};
use crate::sinks::words;

/// A hook that has not come to its end by then is not going to page anyone.
const HOOK_TIMEOUT_NS: u64 = secs(5);

/// A server that has not answered by then is asked again.
const POST_TIMEOUT_NS: u64 = secs(5);

/// While a sink is tried, later alerts of the same sink wait.
const MAX_TIMEOUT_NS: u64 = secs(60);

/// Prometheus' own `resend_delay`.
const RESEND_NS: u64 = secs(60);

/// Alertmanager's `resolve_timeout` is 5 min: what is not sent again by then counts as over.
const MAX_RESEND_NS: u64 = secs(240);

/// Where the project explains causes.
const RUNBOOK: &str = "docs/runbook.md#{cause}";

/// Labels that the sink sets itself.
const OWN_LABELS: [&str; 6] = ["alertname", "lease", "role", "cause", "grantor", "thing"];

/// Whom to tell of what.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// This stage and worse.
    pub on: Stage,
    /// Of which leases and causes.
    pub filter: Filter,
    /// The way out.
    pub to: Destination,
}

/// Which leases and causes an alert is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only leases of this role.
    pub role: Option<Role>,
    /// Only leases of these entries (their indexes); empty: all.
    pub entries: Vec<u16>,
    /// Only these causes; empty: all.
    pub causes: Vec<Cause>,
}

impl Filter {
    /// Whether it is about the leases of an entry in a role.
    #[must_use]
    pub fn takes_lease(&self, entry: u16, role: Role) -> bool {
        self.role.is_none_or(|only| only == role)
            && (self.entries.is_empty() || self.entries.contains(&entry))
    }

    /// Whether it is about a cause.
    #[must_use]
    pub fn takes_cause(&self, cause: Cause) -> bool {
        self.causes.is_empty() || self.causes.contains(&cause)
    }
}

/// A way out.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// A program.
    Exec(ExecHook),
    /// An HTTP server of the user's own.
    Webhook(Webhook),
    /// Prometheus' Alertmanager.
    Alertmanager(Alertmanager),
}

impl Destination {
    /// Its word in configuration, log and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Webhook(_) => "webhook",
            Self::Alertmanager(_) => "alertmanager",
        }
    }
}

/// A program that is told by JSON lines on its standard input.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecHook {
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// Started early and kept, told of every alert; else one run per alert.
    pub persistent: bool,
    /// One-shot: after this long it is killed. Persistent: it must take a line within it. ns.
    pub timeout_ns: u64,
}

/// A server that takes JSON by POST.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Where.
    pub url: Url,
    /// Sent with each.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of one try, connecting included, ns.
    pub timeout_ns: u64,
}

/// An Alertmanager.
#[derive(Clone, Debug, PartialEq)]
pub struct Alertmanager {
    /// Where it is served, without `/api/v2/alerts`.
    pub url: Url,
    /// Sent with each.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of one try, connecting included, ns.
    pub timeout_ns: u64,
    /// How often what still fires is sent again, ns.
    pub resend_ns: u64,
    /// More labels on each alert.
    pub labels: Vec<(String, String)>,
    /// Annotation; `{cause}` is replaced.
    pub runbook: String,
}

/// An http or https URL with what is needed to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port, the scheme's own if none is written.
    pub port: u16,
    /// As it stands in the `Host` header.
    pub authority: String,
    /// Path and query, at least "/".
    pub path: String,
}

impl fmt::Display for Url {
    /// Without the query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

impl Url {
    /// Reads one, or says what is wrong and the mend.
    ///
    /// # Errors
    /// What is wrong with it, and the mend.
    pub fn parse(written: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{written:?} {what}"));
        let Some((scheme, rest)) = written.split_once("://") else {
            return wrong(&format!("is not a URL; write \"http://{written}\""));
        };
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return wrong("is neither http nor https; write one of these"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = &rest[..end];
        if authority.contains('@') {
            // Not quoted: it holds a password.
            return Err(
                "holds a user or password; take it out and send it under \"headers\"".to_owned(),
            );
        }
        if written.contains('#') {
            return wrong("holds a \"#\", which no server gets to see; remove it and the rest");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, port)) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => {
                    (host, port)
                }
                _ => return wrong("has no address between \"[\" and \"]\"; write an IPv6 address"),
            },
            None => match authority.find(':') {
                Some(at) => (&authority[..at], &authority[at..]),
                None => (authority, ""),
            },
        };
        if host.is_empty() {
            return wrong("names no host; write \"http://HOST:PORT/…\"");
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            None => return wrong("has something other than a port after its address; remove it"),
            Some(port) => match port.parse::<u64>() {
                Ok(number @ 1..=65_535) => number as u16,
                Ok(number) => {
                    return wrong(&format!(
                        "has port {number}, which does not exist; ports go from 1 to 65535"
                    ));
                }
                Err(_) => return wrong("has no number as port; write a port from 1 to 65535"),
            },
        };
        // What is left to be found wrong are letters that may not stand in a URL.
        let uri: Uri = match written.parse() {
            Ok(uri) => uri,
            Err(error) => {
                return wrong(&format!(
                    "is not a URL ({error}); write \"http://HOST:PORT/…\""
                ));
            }
        };
        let path = match uri.path_and_query().map(|path| path.as_str()) {
            None | Some("") => "/".to_owned(),
            Some(query) if query.starts_with('?') => format!("/{query}"),
            Some(path) => path.to_owned(),
        };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            path,
        })
    }

    /// A place below it.
    #[must_use]
    pub fn join(&self, below: &str) -> Self {
        let path = self.path.split('?').next().unwrap_or_default();
        Self {
            path: format!("{}{below}", path.trim_end_matches('/')),
            ..self.clone()
        }
    }
}

/// Reads `alerts`.
pub fn read(place: &Place<'_>, leases: &[LeaseEntry]) -> Vec<Alert> {
    place
        .items()
        .iter()
        .filter_map(|item| alert(item, leases))
        .collect()
}

fn alert(place: &Place<'_>, leases: &[LeaseEntry]) -> Option<Alert> {
    let keys = place.group()?;
    let on = keys
        .required("on", "add the stage, like \"on: at_risk\"")
        .and_then(|on| {
            on.read(one_of(&[
                ("late", Stage::Late),
                ("at_risk", Stage::AtRisk),
                ("jeopardy", Stage::Jeopardy),
                ("lapsed", Stage::Lapsed),
            ]))
        });
    let filter = filter(&keys, leases);
    let to = destination(place, &keys);
    Some(Alert {
        on: on?,
        filter,
        to: to?,
    })
}

fn filter(keys: &Group<'_>, leases: &[LeaseEntry]) -> Filter {
    let role = keys.read(
        "role",
        one_of(&[
            ("holder", Some(Role::Holder)),
            ("grantor", Some(Role::Grantor)),
            ("both", None),
        ]),
    );
    let entry = |value: &Value| {
        let name = text(value)?;
        let names = || leases.iter().map(|entry| entry.name.as_str());
        match names().position(|entry| entry == name) {
            Some(index) => Ok(u16::try_from(index).unwrap_or(u16::MAX)),
            None => Err(match keys::nearest(&name, names()) {
                Some(near) => format!("{name:?} is not an entry of leases; write \"{near}\""),
                None => format!(
                    "{name:?} is not an entry of leases; write one of: {}",
                    names().collect::<Vec<_>>().join(", ")
                ),
            }),
        }
    };
    let causes = words::CAUSES.map(|cause| (words::cause(cause), cause));
    Filter {
        role: role.flatten(),
        entries: keys
            .get("lease")
            .map_or_else(Vec::new, |place| place.one_or_more(entry)),
        causes: keys.get("cause").map_or_else(Vec::new, |place| {
            place.one_or_more(|value| one_of(&causes)(value))
        }),
    }
}

fn destination(place: &Place<'_>, keys: &Group<'_>) -> Option<Destination> {
    let ways = ["exec", "webhook", "alertmanager"];
    let there: Vec<&str> = ways
        .into_iter()
        .filter(|way| keys.get(way).is_some())
        .collect();
    if there.len() > 1 {
        place.complain(format!(
            "{} stand in one entry; write an entry with an \"on\" of its own for each",
            there.join(" and ")
        ));
    }
    // Each is read, so that all mistakes are told at once.
    let exec = keys.get("exec").map(exec_hook);
    let webhook = keys.get("webhook").map(webhook);
    let alertmanager = keys.get("alertmanager").map(alertmanager);
    if there.is_empty() && !ways.iter().any(|way| keys.is_written(way)) {
        place.complain(
            "says not whom to tell; add \"exec: { argv: [/path/to/page.sh] }\", \
             \"webhook: { url: http://… }\" or \"alertmanager: { url: http://… }\"",
        );
    }
    exec.flatten()
        .map(Destination::Exec)
        .or(webhook.flatten().map(Destination::Webhook))
        .or(alertmanager.flatten().map(Destination::Alertmanager))
}

fn exec_hook(place: &Place<'_>) -> Option<ExecHook> {
    let keys = place.group()?;
    let argv_place = keys.required(
        "argv",
        "add program and arguments, like \"argv: [/path/to/page.sh]\"",
    )?;
    let items = argv_place.items();
    let argv: Vec<String> = items
        .iter()
        .filter_map(|item| item.read(argument))
        .collect();
    match items.first() {
        Some(program) => {
            if let Some(path) = argv.first()
                && let Err(what) = trust::program(Path::new(path))
            {
                program.complain(what);
            }
        }
        None if matches!(argv_place.node.value, Value::List(_)) => {
            argv_place.complain("is empty; write the program's absolute path");
        }
        None => {}
    }
    let persistent = keys.read("persistent", flag).unwrap_or(false);
    let timeout_ns = timeout(&keys, HOOK_TIMEOUT_NS);
    Some(ExecHook {
        argv,
        persistent,
        timeout_ns,
    })
}

/// A word of a command line. The kernel ends it at the first NUL.
fn argument(value: &Value) -> Result<String, String> {
    let word = text(value)?;
    if word.contains('\0') {
        return Err(format!("{word:?} holds a NUL; remove it"));
    }
    Ok(word)
}

fn timeout(keys: &Group<'_>, default_ns: u64) -> u64 {
    let timeout_ns = keys
        .read("timeout", units::positive_duration)
        .unwrap_or(default_ns);
    if timeout_ns > MAX_TIMEOUT_NS
        && let Some(place) = keys.get("timeout")
    {
        place.complain(format!(
            "{} is too long for an alert; write at most {}",
            units::show_duration(timeout_ns),
            units::show_duration(MAX_TIMEOUT_NS)
        ));
    }
    timeout_ns
}

fn url(keys: &Group<'_>, example: &str) -> Option<Url> {
    keys.required("url", &format!("add one, like \"url: {example}\""))?
        .read(|value| Url::parse(&text(value)?))
}

fn headers(keys: &Group<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(place) = keys.get("headers") else {
        return Vec::new();
    };
    let mut headers = Vec::new();
    for (name, value, place) in place.pairs() {
        let Ok(name) = name.parse::<HeaderName>() else {
            place.complain("is not the name of a header; use letters, digits and \"-\"");
            continue;
        };
        if matches!(
            name.as_str(),
            "host" | "content-length" | "content-type" | "transfer-encoding" | "connection"
        ) {
            place.complain("is set by the daemon itself; remove it");
            continue;
        }
        match HeaderValue::from_str(&value) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.push((name, value));
            }
            // Not quoted: it may be a secret.
            Err(_) => place.complain("has a value that no header can hold; use plain ASCII"),
        }
    }
    headers
}

fn webhook(place: &Place<'_>) -> Option<Webhook> {
    let keys = place.group()?;
    let url = url(&keys, "http://127.0.0.1:8080/alerts");
    let headers = headers(&keys);
    let timeout_ns = timeout(&keys, POST_TIMEOUT_NS);
    Some(Webhook {
        url: url?,
        headers,
        timeout_ns,
    })
}

fn alertmanager(place: &Place<'_>) -> Option<Alertmanager> {
    let keys = place.group()?;
    let url = url(&keys, "http://127.0.0.1:9093");
    if let (Some(url), Some(place)) = (&url, keys.get("url")) {
        if let Some((base, _)) = url.path.split_once("/api/") {
            place.complain(format!(
                "goes on to the API, which is added by the daemon; end it with {:?}",
                format!("{}{base}", url.authority)
            ));
        } else if url.path.contains('?') {
            place.complain("holds a \"?\"; write where Alertmanager is served, without a query");
        }
    }
    let headers = headers(&keys);
    let timeout_ns = timeout(&keys, POST_TIMEOUT_NS);
    let resend_ns = keys
        .read("resend", units::positive_duration)
        .unwrap_or(RESEND_NS);
    if !(secs(1)..=MAX_RESEND_NS).contains(&resend_ns)
        && let Some(place) = keys.get("resend")
    {
        place.complain(format!(
            "{} is out of range; write 1s to {}, after which Alertmanager may take an alert for over",
            units::show_duration(resend_ns),
            units::show_duration(MAX_RESEND_NS)
        ));
    }
    let runbook = keys
        .read("runbook", text)
        .unwrap_or_else(|| RUNBOOK.to_owned());
    let labels = labels(&keys);
    Some(Alertmanager {
        url: url?,
        headers,
        timeout_ns,
        resend_ns,
        labels,
        runbook,
    })
}

fn labels(keys: &Group<'_>) -> Vec<(String, String)> {
    let Some(place) = keys.get("labels") else {
        return Vec::new();
    };
    let mut labels = Vec::new();
    for (name, value, place) in place.pairs() {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let fits = name.starts_with(letter)
            && name.chars().all(|c| letter(c) || c.is_ascii_digit())
            && !name.starts_with("__");
        if !fits {
            place.complain("is not the name of a label; use letters, digits and \"_\"");
        } else if OWN_LABELS.contains(&name.as_str()) {
            place.complain("is set by the daemon itself; choose another name");
        } else if value.len() > 256 {
            place.complain("is longer than the 256 bytes that a label should have; shorten it");
        } else {
            labels.push((name, value));
        }
    }
    labels
}
