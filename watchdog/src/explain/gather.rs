//! From what was typed to files that can be read: directories, standard input, archives.
//!
//! In: `[KIND:]FILE…`. Out: an [`Input`] for each log, and why the others are not read. What cannot be read
//! twice (a pipe, a member of an archive) is put into a directory that goes with the process. Never: a
//! file of a directory or an archive that ends the reading of the others.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::input::{Input, open};
use super::readers::{Kind, READERS};

/// Files that are taken of a directory or an archive; more are said to be left out.
const MOST_FILES: usize = 4096;
/// Directories in directories.
const DEEP: usize = 8;
/// Where an archive's first member has `ustar`.
const USTAR: std::ops::Range<usize> = 257..262;

/// All that is to be read.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Logs and recordings.
    pub inputs: Vec<Input>,
    /// What is not read, and why.
    pub unread: Vec<String>,
    /// Copies of what cannot be read twice; they go when this does.
    spool: Option<TempDir>,
    copies: usize,
}

/// What was typed.
///
/// # Errors
///
/// A name that is no file's, a kind that does not exist, nothing that could be read: by name.
pub fn gather(args: &[String]) -> Result<Gathered> {
    let mut all = Gathered::default();
    for arg in args {
        let (kind, path) = split_kind(arg)?;
        if path == "-" {
            let copy = all.spool(&mut io::stdin().lock(), "standard input")?;
            all.file(kind, &copy, "standard input");
            continue;
        }
        let path = Path::new(path);
        let name = path.display().to_string();
        let about = std::fs::metadata(path).with_context(|| format!("{name}: cannot be opened"))?;
        if about.is_dir() {
            all.directory(kind, path, DEEP);
        } else if about.is_file() {
            // Named by itself: what is wrong with the file itself is an error.
            File::open(path).with_context(|| format!("{name}: cannot be opened"))?;
            all.file(kind, path, &name);
        } else {
            let mut pipe = File::open(path).with_context(|| format!("{name}: cannot be opened"))?;
            let copy = all.spool(&mut pipe, &name)?;
            all.file(kind, &copy, &name);
        }
    }
    if all.inputs.is_empty() && !args.is_empty() {
        let why = match all.unread.as_slice() {
            [] => "there is no file in it".to_owned(),
            unread => unread.join("\n"),
        };
        let kinds: Vec<_> = READERS.iter().map(|reader| reader.name).collect();
        bail!(
            "nothing to explain: {why}\nA log's kind can be named, as in --log glog:FILE (kinds: {})",
            kinds.join(", ")
        );
    }
    Ok(all)
}

impl Gathered {
    /// One file: a log, or an archive of some.
    fn file(&mut self, kind: Option<Kind>, path: &Path, name: &str) {
        match is_archive(path) {
            Ok(false) => self.log(kind, path, name),
            Ok(true) => {
                if let Err(error) = self.archive(kind, path, name) {
                    self.unread
                        .push(format!("{name}: {error:#}; read up to there"));
                }
            }
            Err(error) => self.unread.push(format!("{name}: {error:#}")),
        }
    }

    fn log(&mut self, kind: Option<Kind>, path: &Path, name: &str) {
        match Input::open(kind, path, name) {
            Ok(input) => self.inputs.push(input),
            Err(error) => self.unread.push(format!("{error:#}")),
        }
    }

    fn directory(&mut self, kind: Option<Kind>, dir: &Path, deep: usize) {
        let listed = std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut paths: Vec<PathBuf> = match listed {
            Ok(entries) => entries.iter().map(std::fs::DirEntry::path).collect(),
            Err(error) => return self.unread.push(format!("{}: {error}", dir.display())),
        };
        paths.sort();
        for path in paths {
            let name = path.display().to_string();
            match std::fs::metadata(&path) {
                // A link to a directory may lead back here.
                Ok(about) if about.is_dir() => {
                    if deep > 0 && !path.is_symlink() {
                        self.directory(kind, &path, deep - 1);
                    }
                }
                Ok(about) if about.is_file() => {
                    if self.full() {
                        self.unread.push(format!("{name}: one of too many files"));
                        return;
                    }
                    self.file(kind, &path, &name);
                }
                Ok(_) => {}
                Err(error) => self.unread.push(format!("{name}: {error}")),
            }
        }
    }

    fn archive(&mut self, kind: Option<Kind>, path: &Path, name: &str) -> Result<()> {
        let first = self.inputs.len();
        let outcome = self.members(kind, path, name);
        // As of a directory; in the archive they are in the order in which they were put there.
        self.inputs[first..].sort_by(|one, two| one.name.cmp(&two.name));
        outcome
    }

    fn members(&mut self, kind: Option<Kind>, path: &Path, name: &str) -> Result<()> {
        let mut archive = tar::Archive::new(open(path, None)?);
        for member in archive.entries()? {
            let mut member = member?;
            if !member.header().entry_type().is_file() {
                continue;
            }
            let inside = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            let inside = format!("{name}/{}", inside.trim_start_matches("./"));
            if self.full() {
                bail!("{inside} is one of too many files");
            }
            let modified = member.header().mtime().ok();
            let copy = self.spool(&mut member, &inside)?;
            let before = self.inputs.len();
            self.log(kind, &copy, &inside);
            if let Some(input) = self.inputs.get_mut(before) {
                input.modified = modified.and_then(|at| i64::try_from(at).ok());
            }
        }
        Ok(())
    }

    fn full(&self) -> bool {
        self.inputs.len() + self.unread.len() >= MOST_FILES
    }

    /// A copy that can be read again.
    fn spool(&mut self, from: &mut dyn Read, name: &str) -> Result<PathBuf> {
        let wrong = || {
            format!(
                "{name}: cannot be copied to {}",
                std::env::temp_dir().display()
            )
        };
        if self.spool.is_none() {
            self.spool = Some(TempDir::with_prefix("lease-watchdog-").with_context(wrong)?);
        }
        let Some(dir) = &self.spool else {
            bail!(wrong());
        };
        self.copies += 1;
        let path = dir.path().join(self.copies.to_string());
        let mut copy = File::create(&path).with_context(wrong)?;
        io::copy(from, &mut copy).with_context(wrong)?;
        Ok(path)
    }
}

/// Whether it is a tar archive, packed or not.
fn is_archive(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    open(path, None)?
        .take(512)
        .read_to_end(&mut start)
        // What cannot be unpacked is said when it is read as a log.
        .unwrap_or_default();
    Ok(start.get(USTAR) == Some(b"ustar"))
}

fn split_kind(arg: &str) -> Result<(Option<Kind>, &str)> {
    let Some((kind, path)) = arg.split_once(':') else {
        return Ok((None, arg));
    };
    if let Some(kind) = Kind::from_name(kind) {
        return Ok((Some(kind), path));
    }
    // A colon in a file's own name, or a typing error in one that is not there.
    if Path::new(arg).exists() || kind.contains(['/', '.']) {
        return Ok((None, arg));
    }
    let names: Vec<_> = READERS.iter().map(|reader| reader.name).collect();
    bail!(
        "--log {arg}: no kind {kind:?}; write one of {}",
        names.join(", ")
    )
}

/// What a file is that is no log, as far as its first bytes tell, and what to do.
#[must_use]
pub fn what_else(head: &[u8]) -> &'static str {
    let known: [(&[u8], &str); 9] = [
        (b"PK\x03\x04", "a zip archive: unpack it first"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
        (
            b"LPKSHHRH",
            "systemd's own journal: give what `journalctl --file FILE -o short-iso-precise` writes",
        ),
        (
            b"ZKLG",
            "a ZooKeeper transaction log, not what the server says: give its zookeeper.log or .out",
        ),
        (
            b"ZKSN",
            "a ZooKeeper snapshot, not what the server says: give its zookeeper.log or .out",
        ),
        (b"\x7fELF", "a program or a core dump"),
        (&[0xd4, 0xc3, 0xb2, 0xa1], "a packet capture"),
        (&[0x0a, 0x0d, 0x0d, 0x0a], "a packet capture"),
        (b"SQLite format 3", "a database"),
    ];
    if head.is_empty() {
        return "empty";
    }
    if let Some((_, what)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return what;
    }
    if head[..head.len().min(4096)].contains(&0) {
        return "binary, no log";
    }
    "no known kind of log; it can be named, as in --log glog:FILE"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LINE: &str = "W1104 22:36:43.185218 147990 a.cc:288] x\n";

    fn names(all: &Gathered) -> Vec<String> {
        let inputs = all.inputs.iter();
        inputs
            .map(|input| input.name.rsplit('/').next().unwrap_or("").to_owned())
            .collect()
    }

    #[test]
    fn a_directory_is_its_files_and_says_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("deeper")).unwrap();
        fs::write(at("a.log"), LINE).unwrap();
        fs::write(at("deeper/b.log"), LINE).unwrap();
        fs::write(at("notes.md"), "no log at all\n").unwrap();
        fs::write(at("empty.log"), "").unwrap();
        fs::write(at("version-2"), b"ZKLG\0\0\0\x02").unwrap();
        std::os::unix::fs::symlink(dir.path(), at("round")).unwrap();
        let all = gather(&[dir.path().display().to_string()]).unwrap();
        assert_eq!(names(&all), ["a.log", "b.log"]);
        let unread = all.unread.join("\n");
        for what in [
            "notes.md: no known kind",
            "empty.log: empty",
            "a ZooKeeper transaction log",
        ] {
            assert!(unread.contains(what), "{unread}");
        }
    }

    #[test]
    fn an_archive_is_its_members() {
        let dir = tempfile::tempdir().unwrap();
        let mut packed = tar::Builder::new(flate2::write::GzEncoder::new(
            Vec::new(),
            flate2::Compression::fast(),
        ));
        for (name, text) in [("./n1/meta.log", LINE), ("./n1/README", "hello\n")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mtime(1_667_572_603);
            header.set_mode(0o644);
            header.set_cksum();
            packed
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        }
        let packed = packed.into_inner().unwrap().finish().unwrap();
        let path = dir.path().join("bundle.tgz");
        fs::write(&path, packed).unwrap();
        let all = gather(&[path.display().to_string()]).unwrap();
        assert_eq!(names(&all), ["meta.log"]);
        assert_eq!(all.inputs[0].modified, Some(1_667_572_603));
        assert_eq!(all.inputs[0].series().stem, "meta.log");
        assert!(all.unread[0].contains("n1/README"), "{:?}", all.unread);
    }

    #[test]
    fn a_pipe_is_read_once_and_no_more() {
        let (mut writer, pipe) = {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("pipe");
            let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: a whole C string, and a mode.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            let both = File::options().read(true).write(true).open(&path).unwrap();
            (both, (dir, path))
        };
        let name = pipe.1.display().to_string();
        let reading = std::thread::spawn(move || gather(&[name]).map(|all| names(&all)));
        io::Write::write_all(&mut writer, LINE.as_bytes()).unwrap();
        // The reader has opened it once it has taken what was written.
        let mut waiting: libc::c_int = 1;
        while waiting > 0 {
            std::thread::yield_now();
            // SAFETY: an open descriptor, and a place for one int.
            let asked = unsafe {
                libc::ioctl(
                    std::os::fd::AsRawFd::as_raw_fd(&writer),
                    libc::FIONREAD,
                    &mut waiting,
                )
            };
            assert_eq!(asked, 0);
        }
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap(), ["pipe"]);
    }

    #[test]
    fn what_cannot_be_read_is_said_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        for (arg, says) in [
            (file("a", b""), "empty"),
            (file("b", b"PK\x03\x04..."), "zip"),
            (file("c", b"\0\x01\x02\x03"), "binary"),
            (file("d", b"\x1f\x8b\x08broken"), "d: cannot be read"),
            (file("e", b"hello\n"), "kinds: glog"),
            (
                dir.path().join("f").display().to_string(),
                "cannot be opened",
            ),
            ("nonsense:x".to_owned(), "no kind \"nonsense\""),
        ] {
            let error = format!("{:#}", gather(std::slice::from_ref(&arg)).unwrap_err());
            assert!(error.contains(says), "{arg}: {error}");
        }
    }
}
