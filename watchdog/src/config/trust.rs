//! Whether a file may be obeyed: the daemon runs as root, so what others may write is refused.
//!
//! In: a path. Out: an open file or a verdict with its mend. Never: a change of anything.

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

fn running_user() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}

/// Refuses what someone other than root or the running user could have written.
fn owned_and_closed(path: &Path, meta: &Metadata) -> Result<(), String> {
    let shown = path.display();
    let owner = meta.uid();
    if owner != 0 && owner != running_user() {
        return Err(format!(
            "belongs to uid {owner}, who could change it; run: chown root {shown}"
        ));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!(
            "may be written by others (mode {:04o}); run: chmod go-w {shown}",
            meta.mode() & 0o7777
        ));
    }
    Ok(())
}

/// Refuses what stands in a directory in which others could put something else in its place. In a
/// directory with the sticky bit (/tmp) they cannot, nor in one that is mounted read-only: Kubernetes
/// gives everybody the right to write in a configuration's directory, and mounts it so.
fn reached_safely(path: &Path) -> Result<(), String> {
    let whole = std::fs::canonicalize(path).map_err(|error| reason(&error))?;
    for directory in whole.ancestors().skip(1) {
        let meta = std::fs::metadata(directory).map_err(|error| reason(&error))?;
        if meta.mode() & 0o002 != 0 && meta.mode() & 0o1000 == 0 && !mounted_read_only(directory) {
            return Err(format!(
                "may be exchanged by others, who may write in {shown}; run: chmod o-w {shown}",
                shown = directory.display()
            ));
        }
    }
    Ok(())
}

fn mounted_read_only(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    let mut about = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero, and `about` is a place for what is written.
    if unsafe { libc::statvfs(path.as_ptr(), about.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has succeeded, so it is written.
    let about = unsafe { about.assume_init() };
    about.f_flag & libc::ST_RDONLY != 0
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist; check the path".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "may not be read by this user; run as root or change its mode".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// Opens a configuration file. The checks are made on the open file, so it cannot be exchanged
/// between check and reading.
pub fn config(path: &Path) -> Result<File, String> {
    // Non-blocking: opening a pipe without a writer would otherwise hang.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| reason(&error))?;
    let meta = file.metadata().map_err(|error| reason(&error))?;
    if meta.is_dir() {
        return Err("is a directory; name the file in it".to_owned());
    }
    if !meta.is_file() {
        return Err("is not a regular file; write the configuration into one".to_owned());
    }
    owned_and_closed(path, &meta)?;
    reached_safely(path)?;
    Ok(file)
}

/// Whether a program may be run as a hook.
pub fn program(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!(
            "{:?} is not an absolute path, and hooks are not looked up; write \"/…/{}\"",
            path.display().to_string(),
            path.display()
        ));
    }
    let said = |what: String| format!("{} {what}", path.display());
    let meta = std::fs::metadata(path).map_err(|error| said(reason(&error)))?;
    if !meta.is_file() {
        return Err(said("is not a program; name an executable file".to_owned()));
    }
    if meta.mode() & 0o111 == 0 {
        return Err(said(format!(
            "is not executable; run: chmod +x {}",
            path.display()
        )));
    }
    owned_and_closed(path, &meta)
        .and_then(|()| reached_safely(path))
        .map_err(said)
}

/// Bytes beyond which a file holds something else than a token.
const MAX_SECRET_BYTES: u64 = 4096;
/// Characters below which a token can be guessed.
const MIN_SECRET: usize = 16;

/// Opens a file that holds a secret: also refuses what everybody may read.
pub fn kept_to_few(path: &Path) -> Result<File, String> {
    let file = config(path)?;
    let meta = file.metadata().map_err(|error| reason(&error))?;
    if meta.mode() & 0o007 != 0 {
        return Err(format!(
            "may be read by everybody; run: chmod o= {}",
            path.display()
        ));
    }
    Ok(file)
}

/// Reads a token: one line of visible characters, in a file that nobody else may read.
pub fn secret(path: &Path) -> Result<String, String> {
    let file = kept_to_few(path)?;
    let mut text = String::new();
    file.take(MAX_SECRET_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| reason(&error))?;
    let token = text.trim();
    if token.len() < MIN_SECRET || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "must hold one line of at least {MIN_SECRET} visible characters; make one with: \
             head -c 32 /dev/urandom | base64 > {}",
            path.display()
        ));
    }
    Ok(token.to_owned())
}
