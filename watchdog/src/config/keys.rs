//! The table of configuration keys. `walk` refuses what is not in it, the example
//! configuration must mention each, and tests hold both to it.

/// One key.
pub struct Key {
    /// Where it stands; `[]` is any item of a list.
    pub path: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// What it is for, in a line.
    pub about: &'static str,
}

const fn key(path: &'static str, takes: &'static str, about: &'static str) -> Key {
    Key { path, takes, about }
}

/// All keys.
pub const KEYS: &[Key] = &[
    key("leases", "list", "what to watch; absent: ZooKeeper on 2181"),
    key("leases[].name", "word", "label in events and metrics"),
    key(
        "leases[].protocol",
        "protocol",
        "zookeeper, request_reply, kafka, consul, etcd",
    ),
    key("leases[].ports", "ports", "the grantor's TCP ports"),
    key(
        "leases[].timeout",
        "duration",
        "length where no handshake tells it",
    ),
    key(
        "leases[].renew_every",
        "duration",
        "usual gap between renewals; learned if absent",
    ),
    key(
        "leases[].renews_from",
        "request | reply",
        "which end of the exchange renews",
    ),
    key(
        "leases[].hold",
        "duration",
        "how long a reply is held back; learned if absent",
    ),
    key(
        "leases[].signature",
        "group",
        "tells renewals from other requests (request_reply)",
    ),
    key("leases[].signature.offset", "number", "where in a request"),
    key("leases[].signature.mask", "hex", "which bits count"),
    key("leases[].signature.bytes", "hex", "what they are"),
    key(
        "leases[].frame",
        "group",
        "where a message says its length (request_reply)",
    ),
    key(
        "leases[].frame.length_offset",
        "number",
        "where in a message the length field begins",
    ),
    key("leases[].frame.length_bytes", "number", "its width, 1 to 4"),
    key("leases[].frame.endian", "big | little", "its byte order"),
    key(
        "leases[].frame.adjust",
        "number",
        "added to the field's value: the whole message's length",
    ),
    key(
        "leases[].role",
        "holder | grantor | both",
        "which ends to watch",
    ),
    key(
        "leases[].processes",
        "list",
        "only these: exact comm, or cgroup prefix",
    ),
    key(
        "leases[].tls",
        "bool",
        "whether the stream is inside TLS: read in OpenSSL's calls where it can be, else judged by timing",
    ),
    key(
        "leases[].stages",
        "group",
        "thresholds of this entry; others as in stages",
    ),
    key(
        "leases[].stages.margin",
        "duration | auto",
        "grace added to what is usual",
    ),
    key(
        "leases[].stages.late_after",
        "duration | auto",
        "silence that is late",
    ),
    key(
        "leases[].stages.at_risk",
        "share",
        "of the timeout, when late",
    ),
    key(
        "leases[].stages.at_risk_stalled",
        "share",
        "of the timeout, in a hard stall",
    ),
    key(
        "leases[].stages.jeopardy",
        "share",
        "of the timeout since the last reply",
    ),
    key(
        "leases[].stages.hard_stall",
        "duration or off",
        "no progress for this long is proof; off: only silence counts",
    ),
    key(
        "leases[].stages.assumed_cadence",
        "share",
        "of the timeout, until learned",
    ),
    key("scope", "group", "where to look"),
    key("scope.cgroup", "path", "only what runs under it"),
    key(
        "scope.netns",
        "path | self",
        "only the sockets of this network namespace; all if absent",
    ),
    key("stages", "group", "thresholds of all entries"),
    key(
        "stages.margin",
        "duration | auto",
        "grace added to what is usual",
    ),
    key(
        "stages.late_after",
        "duration | auto",
        "silence that is late",
    ),
    key("stages.at_risk", "share", "of the timeout, when late"),
    key(
        "stages.at_risk_stalled",
        "share",
        "of the timeout, in a hard stall",
    ),
    key(
        "stages.jeopardy",
        "share",
        "of the timeout since the last reply",
    ),
    key(
        "stages.hard_stall",
        "duration or off",
        "no progress for this long is proof; off: only silence counts",
    ),
    key(
        "stages.assumed_cadence",
        "share",
        "of the timeout, until learned",
    ),
    key("alerts", "list", "whom to tell; absent: nobody"),
    key("alerts[].on", "stage", "this stage and worse"),
    key("alerts[].exec", "group", "run a program"),
    key(
        "alerts[].exec.argv",
        "list",
        "program (absolute path) and arguments",
    ),
    key(
        "alerts[].exec.persistent",
        "bool",
        "one program for all alerts, started early",
    ),
    key(
        "alerts[].exec.real_time",
        "bool",
        "runs while the CPUs are taken; default as persistent",
    ),
    key(
        "alerts[].exec.timeout",
        "duration",
        "after which it is killed",
    ),
    key(
        "alerts[].role",
        "holder | grantor | both",
        "only leases of this role",
    ),
    key(
        "alerts[].lease",
        "word or list",
        "only leases of these entries",
    ),
    key("alerts[].cause", "word or list", "only these causes"),
    key("alerts[].webhook", "group", "POST JSON to a server"),
    key("alerts[].webhook.url", "url", "http or https"),
    key(
        "alerts[].webhook.headers",
        "names and texts",
        "sent with each",
    ),
    key("alerts[].webhook.timeout", "duration", "of one try"),
    key(
        "alerts[].alertmanager",
        "group",
        "Prometheus' Alertmanager, v2 API",
    ),
    key("alerts[].alertmanager.url", "url", "without /api/v2/alerts"),
    key(
        "alerts[].alertmanager.headers",
        "names and texts",
        "sent with each",
    ),
    key("alerts[].alertmanager.timeout", "duration", "of one try"),
    key(
        "alerts[].alertmanager.resend",
        "duration",
        "how often what still fires is sent again",
    ),
    key(
        "alerts[].alertmanager.labels",
        "names and texts",
        "more labels on each alert",
    ),
    key(
        "alerts[].alertmanager.runbook",
        "url",
        "annotation; {cause} is replaced",
    ),
    key("http", "group", "metrics and health"),
    key("http.listen", "address", "where"),
    key(
        "http.socket",
        "path or off",
        "the same on a Unix socket; absent: api.sock in the state directory",
    ),
    key("http.socket_mode", "mode", "who may connect to it"),
    key(
        "http.token_file",
        "path",
        "a file with the token to be shown at the port",
    ),
    key("http.tls", "group", "https at the port; absent: http"),
    key(
        "http.tls.cert",
        "path",
        "its certificate and those up to the authority, PEM",
    ),
    key(
        "http.tls.key",
        "path",
        "the certificate's key, PEM; not readable by everybody",
    ),
    key("recorder", "group", "flight recorder; absent: none"),
    key("recorder.dir", "path", "where incidents are written"),
    key("recorder.keep", "size", "how much may lie there"),
    key("limits", "group", "own cost beyond which the daemon leaves"),
    key("limits.cpu", "share", "of one core"),
    key("limits.memory", "size", "resident"),
    key(
        "limits.probe_cost",
        "bool",
        "count what each kernel program costs, one second a minute; needs CAP_SYS_ADMIN",
    ),
];

/// Names of the keys directly under a place ("" is the top).
pub fn under(place: &str) -> impl Iterator<Item = &'static str> + '_ {
    KEYS.iter().filter_map(move |key| {
        let rest = match place {
            "" => key.path,
            _ => key.path.strip_prefix(place)?.strip_prefix('.')?,
        };
        (!rest.contains(['.', '['])).then_some(rest)
    })
}

/// The nearest of some words, if one is near enough to be a slip of the finger.
pub fn nearest<'a>(word: &str, of: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    of.map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance (Levenshtein), with a bound on the work.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_said_what_for() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(
                !key.takes.is_empty() && !key.about.is_empty(),
                "{}",
                key.path
            );
            assert!(
                KEYS[at + 1..].iter().all(|other| other.path != key.path),
                "{} stands twice",
                key.path
            );
        }
    }

    #[test]
    fn every_key_has_a_parent() {
        for key in KEYS {
            if let Some((parent, _)) = key.path.rsplit_once('.') {
                let parent = parent.trim_end_matches("[]");
                assert!(KEYS.iter().any(|other| other.path == parent), "{parent}");
            }
        }
    }

    #[test]
    fn the_example_mentions_every_key() {
        let example = include_str!("../../../configs/lease-watchdog.yaml");
        for key in KEYS {
            let name = key.path.rsplit('.').next().unwrap().trim_end_matches("[]");
            assert!(example.contains(&format!("{name}:")), "{}", key.path);
        }
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        assert_eq!(nearest("timout", under("leases[]")), Some("timeout"));
        assert_eq!(
            nearest("renew-every", under("leases[]")),
            Some("renew_every")
        );
        assert_eq!(nearest("protocl", under("leases[]")), Some("protocol"));
        assert_eq!(nearest("colour", under("leases[]")), None);
    }
}
