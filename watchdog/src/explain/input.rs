//! Files of logs, and which of them are one log.
//!
//! In: a file and, where it was typed, its kind. Out: what its lines are; which files are one log; whole
//! lines, unpacked. Never: a whole file, or a whole line of any length, in memory.

use std::fs::File;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::gather::what_else;
use super::readers::{Kind, detect};
use super::stamp::Stamp;
use super::unpack::{CHUNK, unpacked};
use super::wrap::{self, Wrap};

/// A line is kept up to here, the rest of it is passed over; as long as a buffer, so that it does not
/// matter where buffers end.
const LINE: usize = CHUNK;
/// As much as the kind, the year and the zone are guessed from.
const HEAD: usize = 256 << 10;

/// One file.
#[derive(Debug)]
pub struct Input {
    /// Where its bytes are.
    pub path: PathBuf,
    /// What it is called: its path as typed, an archive's and the member's.
    pub name: String,
    /// Its kind as typed.
    pub named: Option<Kind>,
    /// Its kind, as typed or found.
    pub kind: Kind,
    /// What its lines are wrapped in, from the outside.
    pub wraps: Vec<Wrap>,
    /// Its first lines, unpacked and unwrapped.
    pub head: Vec<u8>,
    /// The stamps that these lines' wraps have.
    pub stamps: Vec<Stamp>,
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
    /// Opens a file, finds what its lines are wrapped in, and its kind.
    ///
    /// # Errors
    ///
    /// A file that cannot be read; a kind that cannot be told.
    pub fn open(named: Option<Kind>, path: &Path, name: &str) -> Result<Self> {
        let mut head = Vec::new();
        let read = open(path, None)?.take(HEAD as u64).read_to_end(&mut head);
        if let Err(error) = read
            && head.is_empty()
        {
            return Err(error).with_context(|| format!("{name}: cannot be read"));
        }
        let wraps = wrap::detect(&head);
        let recording = detect(&head) == Some(Kind::Recording);
        let (inner, stamps) = if wraps.is_empty() {
            (head, Vec::new())
        } else {
            wrap::plain(&wraps, &head)
        };
        // Of a log of many programs each is looked at by itself, and their kinds may only be known later.
        let fallback = wraps.iter().any(wrap::Wrap::names_programs);
        let kind = named
            .or_else(|| detect(&inner))
            .or(fallback.then_some(Kind::Kernel));
        let Some(kind) = kind else {
            bail!("{name}: {}", what_else(&inner));
        };
        let modified = std::fs::metadata(path)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_secs()).ok());
        Ok(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            named,
            kind: if recording { Kind::Recording } else { kind },
            wraps,
            head: inner,
            stamps,
            modified,
        })
    }

    /// Which log it is a part of.
    #[must_use]
    pub fn series(&self) -> Series {
        let path = Path::new(&self.name);
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // Of one that many programs write, the first lines' kind is chance.
        let mixed = self.named.is_none() && !self.wraps.is_empty();
        Series {
            dir: path.parent().map_or_else(PathBuf::new, Path::to_owned),
            stem: without_rotation(&name).to_owned(),
            kind: if mixed { Kind::Kernel } else { self.kind },
        }
    }
}

/// A file's bytes, unpacked.
///
/// # Errors
///
/// A file that cannot be opened or whose first bytes cannot be read, by name.
pub fn open(path: &Path, progress: Option<&ProgressBar>) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let bytes = match progress {
        Some(bar) => unpacked(bar.wrap_read(file)),
        None => unpacked(file),
    };
    bytes.with_context(|| format!("{}: cannot be read", path.display()))
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
        if stem.is_empty() || !(rotated || matches!(last, "gz" | "xz" | "bz2" | "zst" | "old")) {
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
            None => append(&mut rest, buffer),
            Some(end) if rest.is_empty() => {
                each(&buffer[..=end]);
                rest.extend_from_slice(&buffer[end + 1..]);
            }
            Some(end) => {
                // The line that was cut by the last block's end, then the rest of this block.
                let first = memchr::memchr(b'\n', buffer).unwrap_or(end);
                append(&mut rest, &buffer[..first]);
                rest.push(b'\n');
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

fn append(line: &mut Vec<u8>, more: &[u8]) {
    let room = LINE.saturating_sub(line.len());
    line.extend_from_slice(&more[..more.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

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

    #[test]
    fn a_line_without_end_is_kept_in_part() {
        let mut text = vec![b'x'; 3 * LINE];
        text.extend_from_slice(b"\nnext\n");
        let mut got = Vec::new();
        blocks(BufReader::with_capacity(CHUNK, text.as_slice()), |block| {
            got.extend_from_slice(block)
        })
        .unwrap();
        assert_eq!(got.len(), LINE + 6);
        assert!(got.ends_with(b"x\nnext\n"));
    }
}
