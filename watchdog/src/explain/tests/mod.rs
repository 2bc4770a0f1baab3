//! `explain` on logs written for the purpose: as they are, and changed in every way that must not matter.

mod fuzz;
mod incident;
mod nodes;
mod other_logs;
mod page;
mod shapes;
mod wrapped;

use std::fs;
use std::path::{Path, PathBuf};

use super::report::Report;
use super::{ExplainArgs, explain};

/// Writes logs into a directory of their own and explains them.
pub fn told(files: &[(String, String)]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let logs = files
        .iter()
        .map(|(name, text)| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        })
        .collect();
    explain(&ExplainArgs {
        logs,
        ..ExplainArgs::default()
    })
    .unwrap()
}

pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/explain/testdata")
}
