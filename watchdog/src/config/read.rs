//! What the keys mean: a tree becomes a [`Config`].
//!
//! In: a tree. Out: a configuration, and every mistake noted in the walk; where there is a
//! mistake the value in the result is a default, and the caller throws the result away.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::netns::Netns;

use super::tree::Value;
use super::walk::{Group, Place, flag, one_of, text};
use super::{
    ApiSocket, Config, IdentityFiles, KEEP_BYTES, LeaseEntry, MAX_LEASES, MIN_KEEP_BYTES, Protocol,
    Recorder, Roles, Stages, alerts, exchange, trust, units,
};

/// Reads the top of the tree into the defaults.
pub fn config(top: &Place<'_>) -> Config {
    let mut config = Config::default();
    let Some(keys) = top.group() else {
        return config;
    };
    if let Some(place) = keys.get("stages") {
        stages(place, &mut config.stages);
        for lease in &mut config.leases {
            lease.stages = config.stages;
        }
    }
    if let Some(place) = keys.get("leases") {
        config.leases = leases(place, &config.stages);
    }
    if let Some(scope) = keys.get("scope").and_then(Place::group) {
        if let Some(cgroup) = scope.read("cgroup", cgroup_path) {
            config.scope.cgroup = cgroup;
        }
        config.scope.netns = scope.read("netns", network_namespace);
    }
    if let Some(place) = keys.get("alerts") {
        config.alerts = alerts::read(place, &config.leases);
    }
    if let Some(http) = keys.get("http").and_then(Place::group) {
        if let Some(listen) = http.read("listen", address) {
            config.http_listen = listen;
        }
        if let Some(socket) = http.read("socket", api_socket) {
            config.http.socket = socket;
        }
        if let Some(mode) = http.read("socket_mode", file_mode) {
            config.http.socket_mode = mode;
        }
        config.http.token_file = http.read("token_file", token_file);
        config.http.tls = http.get("tls").and_then(identity);
    }
    if let Some(place) = keys.get("recorder") {
        config.recorder = recorder(place);
    }
    if let Some(limits) = keys.get("limits").and_then(Place::group) {
        if let Some(cpu) = limits.read("cpu", units::share) {
            config.limits.cpu = cpu;
        }
        if let Some(memory) = limits.read("memory", units::size) {
            config.limits.memory_bytes = memory;
        }
        if let Some(count) = limits.read("probe_cost", flag) {
            config.probe_cost = count;
        }
    }
    config
}

fn recorder(place: &Place<'_>) -> Option<Recorder> {
    let keys = place.group()?;
    let keep_bytes = keys.read("keep", kept).unwrap_or(KEEP_BYTES);
    if keys.get("dir").is_none() {
        place
            .complain("dir is missing; say where to record, like \"dir: /var/lib/lease-watchdog\"");
        return None;
    }
    let dir = keys.read("dir", directory)?;
    Some(Recorder { dir, keep_bytes })
}

fn directory(value: &Value) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!(
            "{:?} is not an absolute path; write \"/var/lib/lease-watchdog\"",
            path.display()
        ))
    }
}

fn kept(value: &Value) -> Result<u64, String> {
    match units::size(value)? {
        little if little < MIN_KEEP_BYTES => {
            Err(format!("{value} is too little; write at least \"8MiB\""))
        }
        bytes => Ok(bytes),
    }
}

fn cgroup_path(value: &Value) -> Result<String, String> {
    let path = text(value)?;
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not a cgroup path; write \"/{path}\""));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!(
            "{path:?} leads upwards; write the path without \"..\""
        ));
    }
    Ok(path)
}

fn network_namespace(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    Netns::open(&name)?;
    Ok(name)
}

fn api_socket(value: &Value) -> Result<ApiSocket, String> {
    // YAML takes an unquoted off for false.
    if *value == Value::Bool(false) {
        return Ok(ApiSocket::Off);
    }
    match text(value)?.as_str() {
        "off" => Ok(ApiSocket::Off),
        path if path.starts_with('/') => Ok(ApiSocket::At(path.into())),
        other => Err(format!(
            "{other:?} is neither an absolute path nor off; write \"/run/lease-watchdog/api.sock\""
        )),
    }
}

fn file_mode(value: &Value) -> Result<u32, String> {
    let written = text(value)?;
    u32::from_str_radix(&written, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && written.len() >= 3)
        .ok_or_else(|| format!("{written:?} is no file mode; write it in quotes, like \"0660\""))
}

fn token_file(value: &Value) -> Result<std::path::PathBuf, String> {
    let path = std::path::PathBuf::from(text(value)?);
    trust::secret(&path)?;
    Ok(path)
}

/// The files are read here, so that whatever is wrong with them is found with the other mistakes.
fn identity(place: &Place<'_>) -> Option<IdentityFiles> {
    let keys = place.group()?;
    let [cert, key] = ["cert", "key"].map(|name| {
        let example = format!("name one, like \"{name}: /etc/lease-watchdog/{name}.pem\"");
        let place = keys.required(name, &example)?;
        Some((place, place.read(pem_file)?))
    });
    let ((cert_place, cert), (key_place, key)) = (cert?, key?);
    let files = IdentityFiles { cert, key };
    if let Err(wrong) = files.load() {
        for (place, what) in [(cert_place, wrong.cert), (key_place, wrong.key)] {
            if let Some(what) = what {
                place.complain(what);
            }
        }
    }
    Some(files)
}

fn pem_file(value: &Value) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!(
            "{:?} is not an absolute path; write \"/etc/lease-watchdog/{}\"",
            path.display().to_string(),
            path.display()
        ))
    }
}

fn address(value: &Value) -> Result<SocketAddr, String> {
    let written = text(value)?;
    written.parse().map_err(|_| {
        let port = written
            .rsplit(':')
            .next()
            .and_then(|port| port.parse::<u16>().ok());
        format!(
            "{written:?} is not an address with a port; write \"127.0.0.1:{}\"",
            port.unwrap_or(9527)
        )
    })
}

fn leases(place: &Place<'_>, global: &Stages) -> Vec<LeaseEntry> {
    let items = place.items();
    if items.is_empty() && matches!(place.node.value, Value::List(_)) {
        place.complain("is empty, so nothing would be watched; add an entry or remove the key");
    }
    if items.len() > MAX_LEASES {
        place.complain(format!(
            "{} entries are more than {MAX_LEASES}; give entries of one kind several ports",
            items.len()
        ));
        return Vec::new();
    }
    let entries: Vec<(Place<'_>, LeaseEntry)> = items
        .into_iter()
        .filter_map(|item| lease(&item, global).map(|entry| (item, entry)))
        .collect();
    for (at, (place, entry)) in entries.iter().enumerate() {
        for (earlier_place, earlier) in &entries[..at] {
            clash(place, entry, earlier_place, earlier);
        }
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Two entries must differ in name, and a flow must belong to one of them only.
fn clash(place: &Place<'_>, entry: &LeaseEntry, earlier_place: &Place<'_>, earlier: &LeaseEntry) {
    if entry.name == earlier.name && !entry.name.is_empty() {
        place.complain(format!(
            "name \"{}\" is taken by {}; give it another",
            entry.name, earlier_place.path
        ));
    }
    let same_role = (entry.roles.holder && earlier.roles.holder)
        || (entry.roles.grantor && earlier.roles.grantor);
    let (role, mend) = if same_role {
        ("in the same role", "leave it to one of them")
    } else {
        // A flow finds its entry by its port alone.
        (
            "and entries are told apart by their ports alone",
            "leave it to one of them, with \"role: both\"",
        )
    };
    for own in &entry.ports {
        for other in &earlier.ports {
            let (first, last) = (*own.start().max(other.start()), *own.end().min(other.end()));
            if first > last {
                continue;
            }
            let which = if first == last {
                format!("port {first} belongs")
            } else {
                format!("ports {first}-{last} belong")
            };
            place.complain(format!(
                "{which} to {} too, {role}; {mend}",
                earlier_place.path
            ));
        }
    }
}

fn lease(place: &Place<'_>, global: &Stages) -> Option<LeaseEntry> {
    let keys = place.group()?;
    let name = keys
        .required("name", "add one, like \"name: zookeeper\"")
        .and_then(|name| name.read(lease_name))
        .unwrap_or_default();
    let protocol = keys
        .required("protocol", "add one, like \"protocol: zookeeper\"")
        .and_then(|protocol| protocol.read(protocol_word));
    let mut ports = Vec::new();
    if let Some(place) = keys.required("ports", "add the grantor's, like \"ports: [2181]\"") {
        let items = place.items();
        if items.is_empty() && matches!(place.node.value, Value::List(_)) {
            place.complain("is empty, so nothing would match; write the grantor's ports");
        }
        ports = items
            .iter()
            .filter_map(|port| port.read(units::ports))
            .collect();
    }
    let timeout_ns = keys.read("timeout", units::positive_duration);
    let renew_every_ns = keys.read("renew_every", units::positive_duration);
    if let (Some(timeout), Some(every)) = (timeout_ns, renew_every_ns)
        && every >= timeout
        && let Some(place) = keys.get("renew_every")
    {
        place.complain(format!(
            "{} is not shorter than timeout {}; a lease renewed that rarely always lapses",
            units::show_duration(every),
            units::show_duration(timeout)
        ));
    }
    let exchange = exchange::read(&keys, protocol, timeout_ns);
    let both = Roles {
        holder: true,
        grantor: true,
    };
    let roles = keys.read(
        "role",
        one_of(&[
            (
                "holder",
                Roles {
                    grantor: false,
                    ..both
                },
            ),
            (
                "grantor",
                Roles {
                    holder: false,
                    ..both
                },
            ),
            ("both", both),
        ]),
    );
    let mut processes = Vec::new();
    if let Some(place) = keys.get("processes") {
        processes = place
            .items()
            .iter()
            .filter_map(|process| process.read(process_name))
            .collect();
    }
    let tls = keys.read("tls", flag).unwrap_or(false);
    let mut own = *global;
    if let Some(place) = keys.get("stages") {
        stages(place, &mut own);
    }
    fits_timeout(&keys, &own, timeout_ns);
    Some(LeaseEntry {
        name,
        protocol: protocol.unwrap_or(Protocol::Zookeeper),
        ports,
        timeout_ns,
        renew_every_ns,
        roles: roles.unwrap_or(both),
        processes,
        stages: own,
        exchange,
        tls,
    })
}

fn lease_name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() > 64 || !name.chars().all(plain) {
        return Err(format!(
            "{name:?} cannot be a label; use up to 64 letters, digits, \"-\", \"_\" and \".\""
        ));
    }
    Ok(name)
}

fn protocol_word(value: &Value) -> Result<Protocol, String> {
    one_of(&[
        ("zookeeper", Protocol::Zookeeper),
        ("request_reply", Protocol::RequestReply),
        ("kafka", Protocol::Kafka),
        ("consul", Protocol::Consul),
        ("etcd", Protocol::Etcd),
    ])(value)
}

fn process_name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    // The kernel keeps 15 bytes of a name; a longer one would never match.
    if !name.starts_with('/') && name.len() > 15 {
        let mut end = 15;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        return Err(format!(
            "{name:?} is longer than the 15 bytes that the kernel keeps; write {:?}",
            &name[..end]
        ));
    }
    Ok(name)
}

/// A stage's threshold against what comes after it, both values in the message.
fn stages(place: &Place<'_>, into: &mut Stages) {
    let Some(keys) = place.group() else { return };
    let set = |key: &str, target: &mut f64| {
        if let Some(share) = keys.read(key, units::share) {
            *target = share;
        }
    };
    set("at_risk", &mut into.at_risk);
    set("at_risk_stalled", &mut into.at_risk_stalled);
    set("jeopardy", &mut into.jeopardy);
    set("assumed_cadence", &mut into.assumed_cadence);
    if let Some(margin) = keys.read("margin", units::duration_or_auto) {
        into.margin_ns = margin;
    }
    if let Some(late) = keys.read("late_after", units::duration_or_auto) {
        into.late_after_ns = late;
    }
    if let Some(stall) = keys.read("hard_stall", units::duration_or_off) {
        into.hard_stall_ns = stall;
    }
    let show = units::show_share;
    if into.at_risk_stalled > into.at_risk {
        place.complain(format!(
            "at_risk_stalled {stalled} comes after at_risk {plain}; proof of a stall must not \
             delay the warning: lower it to {plain} or less",
            stalled = show(into.at_risk_stalled),
            plain = show(into.at_risk)
        ));
    }
    if into.at_risk >= into.jeopardy {
        place.complain(format!(
            "at_risk {} does not come before jeopardy {}; lower at_risk or raise jeopardy",
            show(into.at_risk),
            show(into.jeopardy)
        ));
    }
    if into.jeopardy >= 1.0 {
        place.complain(format!(
            "jeopardy {} does not come before the lease lapses (100%); lower it, 67% is usual",
            show(into.jeopardy)
        ));
    }
    if into.assumed_cadence >= 1.0 {
        place.complain(format!(
            "assumed_cadence {} is not shorter than the timeout (100%); lower it, 67% is usual",
            show(into.assumed_cadence)
        ));
    }
}

/// Absolute thresholds against a timeout that is known beforehand.
fn fits_timeout(keys: &Group<'_>, stages: &Stages, timeout_ns: Option<u64>) {
    let Some(timeout) = timeout_ns else { return };
    for (name, span) in [
        ("stages.late_after", stages.late_after_ns),
        ("stages.margin", stages.margin_ns),
        ("stages.hard_stall", stages.hard_stall_ns),
    ] {
        if let Some(span) = span.filter(|span| *span >= timeout) {
            keys.complain(format!(
                "{name} {} is not shorter than timeout {}; set it under the entry's own stages",
                units::show_duration(span),
                units::show_duration(timeout)
            ));
        }
    }
}
