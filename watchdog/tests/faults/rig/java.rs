//! A real Java client beside a large heap, which it collects when told to.

use super::victim::Program;
use crate::harness::process;
use crate::harness::zookeeper::{LOGGER_JAR, ZOOKEEPER_JAR};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Objects on the heap, 24 bytes each, linked in an order that no cache likes.
const OBJECTS: &str = "50000000";

/// Starts one; it says `built` when its heap is there, and `connected`.
pub fn start(port: u16, timeout: Duration) -> Program {
    let mut command = Command::new("java");
    command
        .args([
            "-Xms3g",
            "-Xmx3g",
            "-Xmn16m",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp",
        ])
        .arg(format!(
            "{}:{ZOOKEEPER_JAR}:{LOGGER_JAR}",
            compiled().display()
        ))
        .arg("LargeHeap")
        .args([
            &format!("127.0.0.1:{port}"),
            &timeout.as_millis().to_string(),
            OBJECTS,
        ]);
    Program::launch(command, "Java, 3 GB")
}

fn compiled() -> &'static Path {
    static COMPILED: OnceLock<PathBuf> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fault-clients");
        std::fs::create_dir_all(&folder).expect("the target directory can be written");
        let source = folder.join("LargeHeap.java");
        std::fs::write(&source, include_str!("LargeHeap.java")).expect("a file");
        let (target, source) = (folder.display().to_string(), source.display().to_string());
        process::run("javac", &["-cp", ZOOKEEPER_JAR, "-d", &target, &source]);
        folder
    })
}
