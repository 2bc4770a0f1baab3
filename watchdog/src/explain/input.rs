//! Files of logs, and which of them are one log.
//!
//! In: `[KIND:]FILE` as typed. Out: sources, each with its files oldest first; bytes, unpacked. Never: a
//! whole file in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::readers::{Kind, READERS, detect};

/// As much as is read at once.
pub const CHUNK: usize = 1 << 20;
/// As much as the kind, the year and the zone are guessed from.
const HEAD: usize = 256 << 10;

/// One file.
#[derive(Debug)]
pub struct Input {
    /// Its path as typed.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Its first bytes, unpacked.
    pub head: Vec<u8>,
    /// When it was last written, seconds since 1970.
    pub modified: Option<i64>,
}

/// What makes two files one log: directory, name without rotation, kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// The directory.
    pub dir: PathBuf,
    /// The name without `.1`, `.gz`, `-20221104` and such.
    pub stem: String,
    /// The kind.
    pub kind: Kind,
}

impl Input {
    /// Opens what was typed and finds its kind.
    ///
    /// # Errors
    ///
    /// A file that cannot be read; a kind that does not exist or cannot be told.
    pub fn from_arg(arg: &str) -> Result<Self> {
        let (named, path) = split_kind(arg)?;
        let path = PathBuf::from(path);
        let mut head = Vec::new();
        open(&path, None)?
            .take(HEAD as u64)
            .read_to_end(&mut head)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        let Some(kind) = named.or_else(|| detect(&head)) else {
            let names: Vec<_> = READERS.iter().map(|reader| reader.name).collect();
            bail!(
                "{}: no known kind of log; name it, as in --log glog:{} (kinds: {})",
                path.display(),
                path.display(),
                names.join(", ")
            );
        };
        let modified = std::fs::metadata(&path)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_secs()).ok());
        Ok(Self {
            path,
            kind,
            head,
            modified,
        })
    }

    /// Which log it is a part of.
    #[must_use]
    pub fn series(&self) -> Series {
        let name = self
            .path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Series {
            dir: self.path.parent().map_or_else(PathBuf::new, Path::to_owned),
            stem: without_rotation(&name).to_owned(),
            kind: self.kind,
        }
    }
}

fn split_kind(arg: &str) -> Result<(Option<Kind>, &str)> {
    let Some((kind, path)) = arg.split_once(':') else {
        return Ok((None, arg));
    };
    if let Some(kind) = Kind::from_name(kind) {
        return Ok((Some(kind), path));
    }
    if Path::new(arg).exists() {
        return Ok((None, arg));
    }
    let names: Vec<_> = READERS.iter().map(|reader| reader.name).collect();
    bail!(
        "--log {arg}: no kind {kind:?}; write one of {}",
        names.join(", ")
    )
}

/// A file's bytes, unpacked if it is gzip (by its first bytes, not its name).
///
/// # Errors
///
/// A file that cannot be opened, by name.
pub fn open(path: &Path, progress: Option<&ProgressBar>) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let counted: Box<dyn Read> = match progress {
        Some(bar) => Box::new(bar.wrap_read(file)),
        None => Box::new(file),
    };
    let mut raw = BufReader::with_capacity(CHUNK, counted);
    let packed = raw
        .fill_buf()
        .with_context(|| format!("{}: cannot be read", path.display()))?
        .starts_with(&[0x1f, 0x8b]);
    Ok(if packed {
        Box::new(BufReader::with_capacity(CHUNK, MultiGzDecoder::new(raw)))
    } else {
        Box::new(raw)
    })
}

/// `meta.log.2.gz`, `meta.log-20221104`, `meta.2022-11-04.log`: `meta.log`.
#[must_use]
pub fn without_rotation(name: &str) -> &str {
    let mut name = name;
    loop {
        let Some(at) = name.rfind(['.', '-', '_']) else {
            return name;
        };
        let (stem, last) = (&name[..at], &name[at + 1..]);
        let number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        // A host's number (`meta-161`) is no rotation; a rotation's is behind a dot, or is a date.
        let rotated = number && (name.as_bytes()[at] == b'.' || last.len() == 8);
        if stem.is_empty() || !(rotated || matches!(last, "gz" | "old")) {
            return name;
        }
        name = stem;
    }
}

/// A bar on standard error for what takes long; invisible where that is no terminal.
#[must_use]
pub fn progress(bytes: u64) -> ProgressBar {
    // Below this it is over before it could be read.
    const WORTH_IT: u64 = 64 << 20;
    let target = if bytes < WORTH_IT {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}",
    ) {
        bar.set_style(style);
    }
    bar
}

/// Calls `each` with whole lines, many at a time; the last may lack its end.
///
/// # Errors
///
/// As the reader's. A packed file that ends early gives what could be unpacked first.
pub fn blocks(mut reader: impl BufRead, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                each(&rest);
                return Err(error);
            }
        };
        if buffer.is_empty() {
            if !rest.is_empty() {
                each(&rest);
            }
            return Ok(());
        }
        let taken = buffer.len();
        match memchr::memrchr(b'\n', buffer) {
            None => rest.extend_from_slice(buffer),
            Some(end) if rest.is_empty() => {
                each(&buffer[..=end]);
                rest.extend_from_slice(&buffer[end + 1..]);
            }
            Some(end) => {
                // The line that was cut by the last block's end, then the rest of this block.
                let first = memchr::memchr(b'\n', buffer).unwrap_or(end);
                rest.extend_from_slice(&buffer[..=first]);
                each(&rest);
                rest.clear();
                if first < end {
                    each(&buffer[first + 1..=end]);
                }
                rest.extend_from_slice(&buffer[end + 1..]);
            }
        }
        reader.consume(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_is_taken_off_and_hosts_are_not() {
        for (name, stem) in [
            ("meta.log", "meta.log"),
            ("meta.log.2.gz", "meta.log"),
            ("meta.log-20221104.gz", "meta.log"),
            ("meta-161.log", "meta-161.log"),
            ("meta-161", "meta-161"),
            ("zookeeper.out.1", "zookeeper.out"),
            ("20221104", "20221104"),
        ] {
            assert_eq!(without_rotation(name), stem);
        }
    }

    #[test]
    fn any_buffer_gives_the_same_lines() {
        let text = b"one\ntwo\n\nfour is longer\nfive";
        for capacity in 1..40 {
            let mut lines = Vec::new();
            blocks(
                BufReader::with_capacity(capacity, text.as_slice()),
                |block| {
                    lines.extend_from_slice(block);
                },
            )
            .unwrap();
            assert_eq!(lines, text);
        }
    }
}
