//! The demo: passes with probes, and cannot pass without them.

use crate::harness::daemon;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(daemon::binary())
        .args(["demo", "--json"])
        .args(arguments)
        .output()
        .expect("the demo can be run")
}

/// The last line that it printed.
fn result(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let result: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    assert_eq!(
        result["event"],
        "demo_result",
        "no result; standard error: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    result
}

#[test]
fn the_demo_sees_what_it_promises() {
    let output = demo(&[]);
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result:#}");
    assert_eq!(result["passed"], true);
    println!("story (demo): {result}");
}

#[test]
fn with_its_probes_detached_the_demo_fails() {
    let output = demo(&["--no-probes"]);
    let result = result(&output);
    assert_eq!(output.status.code(), Some(1), "{result:#}");
    assert_eq!(result["passed"], false);
    assert!(result["not_seen"].to_string().contains("lease_seen"));
    println!("story (demo): without probes nothing is seen, and it says so");
}
