//! Files that come out of a guest. In: a step's lines, `file NAME` before each file and its base64 in
//! lines of their own, `file` after the last. Out: the files. Never: a file that is not whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    name: String,
    bytes: Vec<u8>,
}

impl Parcel {
    /// Puts it into a folder; its path there.
    pub fn write_to(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(&self.name);
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        fs::write(&path, &self.bytes).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// The files of a step.
pub fn read(lines: &[String]) -> Result<Vec<Parcel>> {
    let mut parcels = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in lines {
        let said = line.trim_end();
        if said == "file" || said.starts_with("file ") {
            if let Some((name, text)) = open.take() {
                let bytes = STANDARD
                    .decode(&text)
                    .with_context(|| format!("the guest's {name}"))?;
                parcels.push(Parcel { name, bytes });
            }
            let name = said.strip_prefix("file ").unwrap_or_default();
            ensure!(!name.contains('/'), "a guest names a file {name}");
            open = (!name.is_empty()).then(|| (name.to_owned(), String::new()));
        } else if let Some((_, text)) = &mut open {
            text.push_str(said);
        }
    }
    ensure!(open.is_none(), "the guest ended within a file");
    Ok(parcels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn files_are_read_whole_or_not_at_all() {
        let found = read(&lines(
            "test loss ... ok\nfile a\naGVs\r\nbG8=\nfile b\nfile\nmore",
        ))
        .unwrap();
        let file = |name: &str, bytes: &[u8]| Parcel {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        };
        assert_eq!(found, [file("a", b"hello"), file("b", b"")]);
        assert!(read(&lines("file a\naGVsbG8=")).is_err(), "cut off");
        assert!(
            read(&lines("file a\naG[ 1.2] lo8=\nfile")).is_err(),
            "garbled"
        );
        assert!(read(&lines("file ../a\nfile")).is_err(), "elsewhere");
    }
}
