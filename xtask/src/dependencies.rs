//! What others' code the product is built of. In: Cargo.lock, configs/deny.toml. Out: what cargo-deny finds
//! wrong with licences, sources and versions, and with advisories where their database can be had.

use anyhow::Result;

use crate::{
    layout::Layout,
    process::{program, run as run_child, say},
    setup,
};

const JUDGE: &str = "cargo-deny";
const JUDGE_VERSION: &str = "0.20.2";

/// What failed, and what could not be tried.
///
/// # Errors
/// cargo-deny cannot be had.
pub fn check(layout: &Layout) -> Result<(Vec<String>, Vec<String>)> {
    let judge = setup::tool(layout, JUDGE, JUDGE_VERSION)?;
    let asked = |what: &[&str]| {
        let mut command = program(&judge);
        command.current_dir(layout.root()).arg("--config");
        command.arg(layout.root().join("configs/deny.toml"));
        run_child(command.arg("check").args(what))
    };
    let mut failed = Vec::new();
    if asked(&["bans", "licenses", "sources"]).is_err() {
        failed.push("dependencies: licences, sources, versions".to_owned());
    }
    let database = program(&judge)
        .current_dir(layout.root())
        .args(["fetch", "db"])
        .status();
    if !database.is_ok_and(|status| status.success()) {
        say("the advisories' database cannot be had");
        return Ok((failed, vec!["dependencies: advisories".to_owned()]));
    }
    if asked(&["advisories"]).is_err() {
        failed.push("dependencies: advisories".to_owned());
    }
    Ok((failed, Vec::new()))
}
