//! The reference pages, made of the tables that the daemon itself works by.
//!
//! In: the table of metrics, the table of configuration keys, the example configuration. Out:
//! Markdown, as it stands in `docs/`; tests hold the two together. Never: a fact that stands only
//! here.

use std::fmt::Write as _;

use serde_yaml::Value;

use crate::config::keys::KEYS;
use crate::sinks::metrics;

/// What the configuration is without a file, said with comments.
const EXAMPLE: &str = include_str!("../../configs/lease-watchdog.yaml");

/// `docs/metrics.md`.
#[must_use]
pub fn of_metrics() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Made by `lease-watchdog reference metrics` from the table that the daemon registers; a test \
         keeps it current (`cargo xtask docs`).\n\n\
         Served at `http.listen`, `127.0.0.1:9527` unless set, under `/metrics`, in Prometheus' text \
         format. How many series there are depends on the entries of `leases`, not on the number of \
         leases: no label is a pid, a port, an address or a session; those stand in the events. \
         Counters that can be foreseen are there with 0 before anything happens.\n\n",
    );
    page.push_str("| metric | type | labels | |\n|---|---|---|---|\n");
    for row in metrics::rows() {
        let labels: Vec<String> = row
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let _infallible = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            row.name,
            row.kind,
            labels.join(", "),
            row.help
        );
    }
    page.push_str(
        "\nBeside them the usual `process_*` metrics of the daemon's own process.\n\n\
         ## Labels\n\n| label | values |\n|---|---|\n",
    );
    for (label, values) in metrics::label_values() {
        let _infallible = writeln!(page, "| `{label}` | {values} |");
    }
    page.push_str("\n## Buckets\n\n| histogram | upper bounds |\n|---|---|\n");
    for row in metrics::rows() {
        if row.buckets.is_empty() {
            continue;
        }
        let bounds = if row.buckets.len() > 16 {
            let (first, last) = (row.buckets[0], row.buckets[row.buckets.len() - 1]);
            format!("{first} to {last}, doubling")
        } else {
            let each: Vec<String> = row.buckets.iter().map(f64::to_string).collect();
            each.join(", ")
        };
        let _infallible = writeln!(page, "| `{}` | {bounds} |", row.name);
    }
    page
}

/// `docs/config.md`.
#[must_use]
pub fn of_config() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Made by `lease-watchdog reference config` from the table that the daemon reads \
         configurations by; a test keeps it current (`cargo xtask docs`).\n\n\
         One YAML file, named by `run --config`; without one the defaults hold. Unknown keys are \
         refused, all mistakes are told at once, each with line, key and mend: `lease-watchdog \
         check-config FILE`. The file must belong to root or the daemon's user and be writable by \
         nobody else. SIGHUP reads it again; a file with mistakes changes nothing.\n\n\
         Durations need a unit (`ms`, `s`, `m`, `h`), shares a percent sign, sizes a unit like \
         `MiB`.\n\n| key | takes | default | |\n|---|---|---|---|\n",
    );
    let example: Value = serde_yaml::from_str(EXAMPLE).unwrap_or(Value::Null);
    for key in KEYS {
        let default = default(&example, key.path).unwrap_or_default();
        let _infallible = writeln!(
            page,
            "| `{}` | {} | {default} | {} |",
            key.path,
            key.takes.replace('|', "\\|"),
            key.about.replace('|', "\\|")
        );
    }
    let _infallible = write!(
        page,
        "\n## The file with every key\n\nWhat stands in it uncommented is what holds without any \
         file.\n\n```yaml\n{EXAMPLE}```\n"
    );
    page
}

/// What the example says of a key, if it is one value.
fn default(example: &Value, path: &str) -> Option<String> {
    let mut at = example;
    for part in path.split('.') {
        at = at.get(part.trim_end_matches("[]"))?;
        if part.ends_with("[]") {
            at = at.get(0)?;
        }
    }
    let shown = match at {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Sequence(items) if items.is_empty() => "[]".to_owned(),
        Value::Sequence(items) if items.iter().all(Value::is_u64) => {
            let items: Vec<String> = items
                .iter()
                .filter_map(|item| Some(item.as_u64()?.to_string()))
                .collect();
            format!("[{}]", items.join(", "))
        }
        _ => return None,
    };
    Some(format!("`{shown}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEND: &str = "run `cargo xtask docs`";

    #[test]
    fn the_page_of_metrics_is_current() {
        let page = include_str!("../../docs/metrics.md");
        assert!(page == of_metrics(), "docs/metrics.md is not: {MEND}");
    }

    #[test]
    fn the_page_of_configuration_keys_is_current() {
        let page = include_str!("../../docs/config.md");
        assert!(page == of_config(), "docs/config.md is not: {MEND}");
    }

    #[test]
    fn defaults_are_the_examples() {
        let example: Value = serde_yaml::from_str(EXAMPLE).unwrap();
        assert_eq!(
            default(&example, "leases[].ports"),
            Some("`[2181]`".to_owned())
        );
        assert_eq!(default(&example, "limits.cpu"), Some("`5%`".to_owned()));
        assert_eq!(default(&example, "leases[].timeout"), None);
    }

    #[test]
    fn every_label_is_explained() {
        for row in metrics::rows() {
            for label in row.labels {
                assert!(
                    metrics::label_values()
                        .iter()
                        .any(|(name, _)| name == label),
                    "{label} of {}",
                    row.name
                );
            }
        }
    }
}
