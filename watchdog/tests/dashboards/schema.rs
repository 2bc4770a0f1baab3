//! The dashboards as values of the types that Grafana publishes (@grafana/schema 10.4), judged by
//! the TypeScript compiler. Only with `--long`: it takes npm, and a download of some 30 MB.

use super::queries::{dashboards, folder};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "downloads Grafana's schema"]
fn dashboards_have_the_types_that_grafana_publishes() {
    if Command::new("npm").arg("--version").output().is_err() {
        println!("SKIPPED: dashboards_have_the_types_that_grafana_publishes: no npm on PATH");
        return;
    }
    let room = tempfile::tempdir().expect("a temporary directory");
    for file in ["check.ts", "package.json"] {
        let from = folder().join("schema").join(file);
        fs::copy(from, room.path().join(file)).expect("the schema's check");
    }
    let install = ["install", "--no-audit", "--no-fund", "--silent"];
    let output = Command::new("npm")
        .args(install)
        .current_dir(room.path())
        .output()
        .expect("npm");
    assert!(
        output.status.success(),
        "npm install: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (file, dashboard) in dashboards() {
        let said = judged(room.path(), &dashboard);
        assert_eq!(said, None, "{file}");
        // A check that cannot fail is none.
        let mut broken = dashboard;
        broken["panels"][1]["gridPos"]["w"] = "wide".into();
        assert!(judged(room.path(), &broken).is_some(), "{file}");
    }
}

/// What the compiler says against a dashboard.
fn judged(room: &Path, dashboard: &serde_json::Value) -> Option<String> {
    let source = format!(
        "import type {{ Checked }} from \"./check\";\nexport const dashboard: Checked = {dashboard:#};\n"
    );
    fs::write(room.join("dashboard.ts"), source).expect("a file");
    let output = Command::new(room.join("node_modules/.bin/tsc"))
        .args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--target",
            "es2020",
        ])
        .args(["--moduleResolution", "node", "dashboard.ts"])
        .current_dir(room)
        .output()
        .expect("the compiler was installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (!output.status.success()).then_some(said)
}
