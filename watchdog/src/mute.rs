//! Planned work: `mute`, `unmute`, `mutes`, and how mutes outlive the daemon.
//!
//! In: the command line's wishes, or a file of the state directory. Out: what the running daemon
//! answered by its Unix socket; the file. Never: a change of the configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use watchdog_model::time::Mono;

use crate::failure::Failure;
use crate::sinks::events::wall_clock;
use crate::sinks::mutes::{LONGEST_NS, Mutes};

/// Longer than the daemon itself takes to say that it is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// Name of the file in the state directory.
const FILE: &str = "mutes.json";

/// Asks the daemon by its socket; prints the mutes that are in force then.
///
/// # Errors
/// It does not answer, or refuses.
pub fn ask(socket: &Path, method: &str, query: &str) -> Result<(), Failure> {
    let (status, body) = exchange(socket, method, query).map_err(|error| {
        Failure::Running(format!(
            "{}: no daemon answers ({error}); is lease-watchdog running, with this socket?",
            socket.display()
        ))
    })?;
    let answer: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    if status != 200 {
        let why = answer["error"].as_str().unwrap_or(body.trim());
        return Err(Failure::Running(format!("refused: {why}")));
    }
    let mutes = answer["mutes"].as_array().map_or(&[][..], Vec::as_slice);
    if mutes.is_empty() {
        println!("nothing is muted");
    }
    for mute in mutes {
        let left = Duration::from_secs(mute["remaining_ms"].as_u64().unwrap_or(0) / 1000);
        println!(
            "{}: muted until {} ({} more)",
            mute["lease"].as_str().unwrap_or_default(),
            mute["until"].as_str().unwrap_or_default(),
            humantime::format_duration(left)
        );
    }
    Ok(())
}

fn exchange(socket: &Path, method: &str, query: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} /api/v1/mutes{query} HTTP/1.1\r\nhost: lease\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    // The daemon's answers of this kind are a few lines.
    stream.take(1 << 20).read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

/// The query of a mute.
///
/// # Errors
/// It is no time for a mute.
pub fn query(lease: &str, span: Duration) -> Result<String, Failure> {
    let longest = Duration::from_nanos(LONGEST_NS);
    if span < Duration::from_millis(1) || span > longest {
        return Err(Failure::Usage(format!(
            "--for must be between 1ms and {}",
            humantime::format_duration(longest)
        )));
    }
    let encoded = form_urlencoded::Serializer::new(String::new())
        .append_pair("lease", lease)
        .append_pair("for_ms", &span.as_millis().to_string())
        .finish();
    Ok(format!("?{encoded}"))
}

/// The query of the end of a mute.
#[must_use]
pub fn unmute_query(lease: &str) -> String {
    let encoded = form_urlencoded::Serializer::new(String::new())
        .append_pair("lease", lease)
        .finish();
    format!("?{encoded}")
}

/// Where mutes are kept.
#[must_use]
pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Mutes that an earlier run left, but for those that are over. What cannot be read is nothing: a
/// daemon that says too much is better than one that says nothing.
#[must_use]
pub fn load(file: &Path, now: Mono) -> Mutes {
    let mut mutes = Mutes::default();
    let Ok(text) = fs::read_to_string(file) else {
        return mutes;
    };
    let kept: BTreeMap<String, String> = match serde_json::from_str(&text) {
        Ok(kept) => kept,
        Err(error) => {
            tracing::warn!(
                "{}: not mutes, so nothing is muted ({error})",
                file.display()
            );
            return mutes;
        }
    };
    for (lease, until) in kept {
        let left = humantime::parse_rfc3339(&until)
            .ok()
            .and_then(|until| until.duration_since(wall_clock(now)).ok())
            .and_then(|left| u64::try_from(left.as_nanos()).ok())
            .filter(|left| *left <= LONGEST_NS);
        if let Some(left) = left {
            mutes.mute(&lease, Mono(now.0.saturating_add(left)));
        }
    }
    mutes
}

/// Keeps mutes for the next run.
///
/// # Errors
/// The disk's.
pub fn keep(file: &Path, mutes: &Mutes) -> io::Result<()> {
    let kept: BTreeMap<&str, String> = mutes
        .all()
        .map(|(lease, until)| {
            let until = humantime::format_rfc3339_millis(wall_clock(until)).to_string();
            (lease, until)
        })
        .collect();
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let beside = file.with_extension("json.new");
    fs::write(&beside, serde_json::to_vec(&kept)?)?;
    fs::rename(beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::clock;
    use watchdog_model::time::SECOND;

    #[test]
    fn mutes_outlive_the_daemon_and_not_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        let now = clock();
        let mut mutes = Mutes::default();
        mutes.mute("a", Mono(now.0 + 600 * SECOND));
        mutes.mute("b", now);
        keep(&file, &mutes).unwrap();
        let loaded = load(&file, clock());
        assert!(loaded.holds("a") && !loaded.holds("b"));
        let (_, until) = loaded.all().next().unwrap();
        assert!(until.0.abs_diff(now.0 + 600 * SECOND) < SECOND);
        fs::write(&file, "not json").unwrap();
        assert_eq!(load(&file, clock()), Mutes::default());
        // A clock that was set back far does not mute for years.
        fs::write(&file, "{\"a\":\"2999-01-01T00:00:00Z\",\"b\":\"soon\"}").unwrap();
        assert_eq!(load(&file, clock()), Mutes::default());
    }

    #[test]
    fn a_mute_has_an_end() {
        assert!(query("a", Duration::from_secs(600)).is_ok());
        assert!(query("a", Duration::ZERO).is_err());
        assert!(query("a", Duration::from_secs(86_400 * 8)).is_err());
        assert_eq!(unmute_query("a&b"), "?lease=a%26b");
    }
}
