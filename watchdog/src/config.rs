//! The configuration file.
//!
//! In: a YAML file (or none). Out: [`Config`], complete with defaults and checked, or every
//! mistake in it at once, each with file, line, key path and mend. Never: a value used before all
//! of it was found right; a key ignored.

mod alerts;
mod exchange;
mod identity;
pub mod keys;
#[cfg(any(test, fuzzing))]
pub mod laws;
mod read;
mod tree;
mod trust;
mod units;
mod walk;

use std::fmt;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::sign::CertifiedKey;
use watchdog_common::layout::{ENTRIES, ShapeTable};
use watchdog_model::leases::settings::{self, EntrySettings, Share};
use watchdog_model::time::SECOND;

use crate::collect::admission::Admission;
use crate::printable::printable;

pub use alerts::{
    Alert, Alertmanager, Destination as AlertDestination, ExecHook, Filter, Url, Webhook,
};
pub use exchange::{Exchange, Frame, Signature};
pub use identity::IdentityFiles;
pub use keys::KEYS;
pub use trust::program as trusted_program;
pub use walk::Problem;

/// Files beyond this are no configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Brackets beyond which a file is none.
const MAX_GROUPS: usize = 10_000;

/// Entries beyond this would make labels, and so the cost of being scraped, unbounded.
pub const MAX_LEASES: usize = ENTRIES;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What to watch; never empty.
    pub leases: Vec<LeaseEntry>,
    /// What of the node to watch.
    pub scope: Scope,
    /// Thresholds of entries that have none of their own.
    pub stages: Stages,
    /// Whom to tell; empty: log-only.
    pub alerts: Vec<Alert>,
    /// Where metrics and health are served.
    pub http_listen: SocketAddr,
    /// Who else may ask, and how.
    pub http: Http,
    /// Where incidents are recorded; None: nowhere.
    pub recorder: Option<Recorder>,
    /// Own cost beyond which the daemon leaves.
    pub limits: Limits,
    /// Whether what the kernel programs cost is counted for a second a minute.
    pub probe_cost: bool,
}

/// Where incidents are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// The directory.
    pub dir: PathBuf,
    /// Bytes that may lie there.
    pub keep_bytes: u64,
}

/// Recordings that are kept unless told otherwise: a few hundred incidents of a small node.
pub const KEEP_BYTES: u64 = 64 << 20;
/// Less than two whole memories of the recorder would keep nothing but the newest incident.
pub const MIN_KEEP_BYTES: u64 = 8 << 20;

/// What of the node to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Only what runs under this cgroup (path from the root of a hierarchy); `/`: everything.
    pub cgroup: String,
    /// Only the sockets of this network namespace: `self`, or a path to it; None: of all.
    pub netns: Option<String>,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            cgroup: "/".to_owned(),
            netns: None,
        }
    }
}

/// Who may ask besides whoever reaches the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The Unix socket.
    pub socket: ApiSocket,
    /// Its mode: who may connect may ask.
    pub socket_mode: u32,
    /// The file with the token that is asked of whoever comes by the port; None: nothing is.
    pub token_file: Option<PathBuf>,
    /// What the port shows to who comes by TLS, which it then speaks alone; None: it speaks none.
    pub tls: Option<IdentityFiles>,
}

/// Where the Unix socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiSocket {
    /// `api.sock` in the state directory.
    InStateDir,
    /// Nowhere.
    Off,
    /// At this absolute path.
    At(PathBuf),
}

impl Default for Http {
    fn default() -> Self {
        Self {
            socket: ApiSocket::InStateDir,
            // It tells no more than the port, which is open to every user of the node too.
            socket_mode: 0o666,
            token_file: None,
            tls: None,
        }
    }
}

impl Http {
    /// Reads the token.
    ///
    /// # Errors
    /// The file cannot be trusted or holds no token.
    pub fn token(&self) -> Result<Option<Arc<str>>, String> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        trust::secret(path)
            .map(|token| Some(Arc::from(token)))
            .map_err(|what| format!("http.token_file: {} {what}", path.display()))
    }

    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// One of the files cannot be used.
    pub fn identity(&self) -> Result<Option<Arc<CertifiedKey>>, String> {
        let Some(files) = &self.tls else {
            return Ok(None);
        };
        files.load().map(Some).map_err(|wrong| {
            let cert = wrong.cert.map(|what| format!("http.tls.cert: {what}"));
            let key = wrong.key.map(|what| format!("http.tls.key: {what}"));
            let both: Vec<String> = cert.into_iter().chain(key).collect();
            both.join("\n")
        })
    }
}

/// One kind of lease.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseEntry {
    /// Label in events and metrics.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The grantor's ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Length where no handshake tells it, ns.
    pub timeout_ns: Option<u64>,
    /// Usual gap between renewals, ns; None: learned.
    pub renew_every_ns: Option<u64>,
    /// Which ends to watch.
    pub roles: Roles,
    /// Only these processes: an exact comm or, with a leading `/`, a cgroup prefix. Empty: all.
    pub processes: Vec<String>,
    /// Thresholds, global ones filled in.
    pub stages: Stages,
    /// How its requests look.
    pub exchange: Exchange,
    /// Whether its streams are encrypted: then only when data goes and comes is seen.
    pub tls: bool,
}

/// A lease protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ZooKeeper's client protocol.
    Zookeeper,
    /// Any request that is answered.
    RequestReply,
    /// Kafka: memberships in consumer groups, and brokers with their controller.
    Kafka,
    /// Sessions of Consul, renewed over HTTP.
    Consul,
    /// Leases of etcd, kept alive over gRPC.
    Etcd,
}

/// Which ends of a flow to watch; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The end that renews.
    pub holder: bool,
    /// The end that grants and expires.
    pub grantor: bool,
}

/// Thresholds between the stages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    /// Grace added to what is usual, ns; None: by rule.
    pub margin_ns: Option<u64>,
    /// Silence that is late, ns; None: by rule.
    pub late_after_ns: Option<u64>,
    /// Share of the timeout, when late.
    pub at_risk: f64,
    /// Share of the timeout, in a hard stall.
    pub at_risk_stalled: f64,
    /// Share of the timeout since the last reply.
    pub jeopardy: f64,
    /// No progress for this long is proof of a stall, ns.
    pub hard_stall_ns: Option<u64>,
    /// Share of the timeout that a cadence is assumed to be until it is learned.
    pub assumed_cadence: f64,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            margin_ns: None,
            late_after_ns: None,
            at_risk: 0.50,
            // A third is where most clients renew: a stall past it has cost a renewal.
            at_risk_stalled: 0.33,
            // Clients give up two thirds after the last reply.
            jeopardy: 0.67,
            hard_stall_ns: Some(SECOND),
            // The slowest healthy client known renews every two thirds.
            assumed_cadence: 0.67,
        }
    }
}

/// Own cost beyond which the daemon detaches, says so and exits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Share of one core.
    pub cpu: f64,
    /// Resident bytes.
    pub memory_bytes: u64,
}

impl Default for Config {
    /// What holds where there is no file: ZooKeeper on its usual port, nobody told.
    fn default() -> Self {
        let stages = Stages::default();
        Self {
            leases: vec![LeaseEntry {
                name: "zookeeper".to_owned(),
                protocol: Protocol::Zookeeper,
                ports: vec![2181..=2181],
                timeout_ns: None,
                renew_every_ns: None,
                roles: Roles {
                    holder: true,
                    grantor: true,
                },
                processes: Vec::new(),
                stages,
                exchange: Exchange::default(),
                tls: false,
            }],
            scope: Scope::default(),
            stages,
            alerts: Vec::new(),
            http_listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9527)),
            http: Http::default(),
            recorder: None,
            limits: Limits {
                cpu: 0.05,
                memory_bytes: 256 << 20,
            },
            probe_cost: false,
        }
    }
}

impl LeaseEntry {
    /// Whether nothing is known of what a message says.
    const fn is_opaque(&self) -> bool {
        matches!(self.protocol, Protocol::RequestReply)
    }

    fn settings(&self) -> EntrySettings {
        let stages = &self.stages;
        EntrySettings {
            margin_ns: stages.margin_ns,
            late_after_ns: stages.late_after_ns,
            at_risk: share(stages.at_risk),
            at_risk_stalled: share(stages.at_risk_stalled),
            jeopardy: share(stages.jeopardy),
            hard_stall_ns: stages.hard_stall_ns.unwrap_or(u64::MAX),
            use_stall_proof: stages.hard_stall_ns.is_some(),
            assumed_cadence: share(stages.assumed_cadence),
            timeout_ns: self.timeout_ns,
            renew_every_ns: self.renew_every_ns,
            has_keepalives: !self.is_opaque() || self.exchange.signature.is_some(),
            has_goodbye: !self.is_opaque() && self.protocol != Protocol::Etcd,
            rejoins: !self.is_opaque()
                && matches!(
                    self.protocol,
                    Protocol::Kafka | Protocol::Consul | Protocol::Etcd
                ),
            comes_and_goes: !self.is_opaque() && self.protocol == Protocol::Consul,
            renews_from_reply: self.exchange.renews_from_reply,
            hold_ns: self.exchange.hold_ns,
            roles: settings::Roles {
                holder: self.roles.holder,
                grantor: self.roles.grantor,
            },
            ..EntrySettings::default()
        }
    }
}

/// Whole percents as the model reads them (33 % is a third), others to the millionth.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the configuration takes what lies above 0 % and up to 100 %"
)]
fn share(of: f64) -> Share {
    let millionths = (of * 1e6).round() as u32;
    if millionths.is_multiple_of(10_000) {
        Share::percent(millionths / 10_000)
    } else {
        Share::millionths(millionths.max(1))
    }
}

/// Every mistake in a configuration file.
#[derive(Debug, PartialEq)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// The mistakes, at least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    /// One line each: `file:line: key.path: what; mend`. Keys and values are whatever the file holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            if !problem.path.is_empty() {
                write!(f, " {}:", printable(&short(&problem.path)))?;
            }
            write!(f, " {}", printable(&short(&problem.what)))?;
        }
        Ok(())
    }
}

/// What is quoted may be as long as the file: the middle is left out, the mend stands at the end.
fn short(what: &str) -> std::borrow::Cow<'_, str> {
    const HALF: usize = 300;
    let head = what.char_indices().nth(HALF);
    let tail = what.char_indices().nth_back(HALF);
    match (head, tail) {
        (Some((head, _)), Some((tail, _))) if head < tail => {
            format!("{} … {}", &what[..head], &what[tail..]).into()
        }
        _ => what.into(),
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads a file; no file: the defaults.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let bytes = read_file(file).map_err(|what| of_the_file(file, what))?;
        Self::of_bytes(file, &bytes)
    }

    /// Reads what stands in `file`.
    pub fn of_bytes(file: &Path, bytes: &[u8]) -> Result<Self, ConfigErrors> {
        let text = text_of(bytes).map_err(|what| of_the_file(file, what))?;
        Self::parse(file, text)
    }

    /// Reads a text that came from `file`.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let refused = |problems| ConfigErrors {
            file: file.to_owned(),
            problems,
        };
        let Some(node) = tree::parse(text).map_err(|malformed| {
            refused(vec![Problem {
                line: malformed.line,
                path: String::new(),
                what: malformed.what,
            }])
        })?
        else {
            return Ok(Self::default());
        };
        let walk = walk::Walk::new(text);
        let config = read::config(&walk.top(&node));
        let problems = walk.finish();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(refused(problems))
        }
    }

    /// What the model needs, entry by entry, in the order of [`Config::leases`].
    #[must_use]
    pub fn entry_settings(&self) -> Vec<EntrySettings> {
        self.leases.iter().map(LeaseEntry::settings).collect()
    }

    /// Whose flows are watched, entry by entry.
    #[must_use]
    pub fn admission(&self) -> Admission {
        let entries = self.leases.iter().map(|entry| entry.processes.clone());
        Admission::new(&self.scope.cgroup, entries.collect())
    }

    /// What the kernel programs are told of the entries, in the same order.
    #[must_use]
    pub fn shapes(&self) -> ShapeTable {
        let mut table = ShapeTable::default();
        for (at, entry) in self.leases.iter().enumerate().take(ENTRIES) {
            table.shapes[at] = entry.shape();
            table.inside[at] = entry.inside();
        }
        table
    }

    /// Whether any entry's streams are inside TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.leases.iter().any(|entry| entry.tls)
    }

    /// Every port range with the index of its entry.
    #[must_use]
    pub fn port_entries(&self) -> Vec<(RangeInclusive<u16>, usize)> {
        self.leases
            .iter()
            .enumerate()
            .flat_map(|(index, entry)| entry.ports.iter().map(move |ports| (ports.clone(), index)))
            .collect()
    }

    /// Names of the entries, in order.
    #[must_use]
    pub fn entry_names(&self) -> Vec<String> {
        self.leases.iter().map(|entry| entry.name.clone()).collect()
    }
}

fn of_the_file(file: &Path, what: String) -> ConfigErrors {
    ConfigErrors {
        file: file.to_owned(),
        problems: vec![Problem {
            line: None,
            path: String::new(),
            what,
        }],
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = trust::config(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    Ok(bytes)
}

fn text_of(bytes: &[u8]) -> Result<&str, String> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is larger than 1 MiB; a configuration is a few lines".to_owned());
    }
    if let Some(line) = too_deep(bytes) {
        return Err(format!(
            "line {line} opens more than {MAX_GROUPS} brackets in all; a file like this is not a configuration"
        ));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        format!("line {line} is not UTF-8; save the file as UTF-8")
    })
}

/// The line of the bracket that is one too many. The reader of YAML looks at all open brackets with each
/// further one, so that a file within [`MAX_FILE_BYTES`] could keep it busy for minutes.
fn too_deep(bytes: &[u8]) -> Option<usize> {
    let opens = |(_, byte): &(usize, &u8)| matches!(byte, b'[' | b'{');
    let (at, _) = bytes.iter().enumerate().filter(opens).nth(MAX_GROUPS)?;
    Some(1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count())
}

#[cfg(test)]
mod tests;
