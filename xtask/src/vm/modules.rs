//! A stock kernel's modules. In: an unpacked kernel. Out: those of the list that it has, and what they
//! depend on, plain and in the order in which they are loaded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::kernels::Fetched;
use crate::process::{gather, output_of, program, run};

/// What faults in a guest are made of. A kernel that lacks one has no such fault.
const WANTED: [&str; 7] = [
    "loop",
    "ext4",
    "fuse",
    "dm-mod",
    "dm-delay",
    "veth",
    "sch_netem",
];

/// The modules, unpacked to `folder`.
pub fn unpack(kernel: &Fetched, folder: &Path) -> Result<Vec<PathBuf>> {
    let (root, release) = (&kernel.root, &kernel.release);
    // From 7.x on the packages have usr/lib alone, as the systems have that they are made for.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).context("linking lib")?;
    }
    run(program("depmod").arg("-b").arg(root).arg(release))?;
    let mut files: Vec<String> = Vec::new();
    for name in WANTED {
        let mut show = program("modprobe");
        show.arg("-d").arg(root).args(["-S", release]);
        let output = gather(show.args(["--show-depends", name]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for file in text.lines().filter_map(file_of) {
            if !files.iter().any(|other| other == file) {
                files.push(file.to_owned());
            }
        }
    }
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let plain = |(number, file): (usize, &String)| plain(Path::new(file), number, folder);
    files.iter().enumerate().map(plain).collect()
}

/// The file of a line of `modprobe --show-depends`; built in ones have none.
fn file_of(line: &str) -> Option<&str> {
    line.strip_prefix("insmod ")?.split_whitespace().next()
}

/// A module without its compression, its place in the order in front of its name.
fn plain(file: &Path, number: usize, folder: &Path) -> Result<PathBuf> {
    let name = file
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let stem = name.split('.').next().unwrap_or_default();
    let to = folder.join(format!("{number:02}-{stem}.ko"));
    let by = match file.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => {
            fs::copy(file, &to).with_context(|| format!("copying {}", file.display()))?;
            return Ok(to);
        }
    };
    let mut unpack = program("sh");
    unpack.args(["-c", "\"$1\" -dc \"$2\" > \"$3\"", "sh", by]);
    output_of(unpack.arg(file).arg(&to))?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_loaded_is_read_from_modprobes_words() {
        assert_eq!(file_of("insmod /k/loop.ko.xz "), Some("/k/loop.ko.xz"));
        assert_eq!(file_of("builtin ext4"), None);
    }
}
