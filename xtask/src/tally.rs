//! Counts what cargo test says. In: its output, line by line. Out: numbers, and the names of what
//! failed or was skipped. Knows libtest's summary line, and the project's own `SKIPPED: name: reason`.

/// Everything counted so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests marked `#[ignore]`: the long ones.
    pub ignored: u64,
    /// Failed tests, each as `binary::path::name`.
    pub failures: Vec<String>,
    /// `name: reason` of tests that ran and proved nothing.
    pub skipped: Vec<String>,
    /// The test binary that speaks now, as cargo announced it.
    binary: String,
}

impl Tally {
    /// Takes one line of output.
    pub fn feed(&mut self, line: &str) {
        let line = line.trim();
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.add_counts(counts);
        } else if let Some(skipped) = line.strip_prefix("SKIPPED: ") {
            self.skipped.push(skipped.to_owned());
        } else if let Some(name) = failed_name(line) {
            self.failures.push(format!("{}::{name}", self.binary));
        } else if let Some(binary) = announced_binary(line) {
            self.binary = binary.to_owned();
        }
    }

    /// Adds what another tally counted.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
        self.skipped.extend(other.skipped);
    }

    /// How many tests ran to a verdict.
    pub fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    fn add_counts(&mut self, counts: &str) {
        // "ok. 5 passed; 0 failed; 1 ignored; …"
        for part in counts.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Leaves out the bare lists of passed names that `--show-output` ends with; their lines stand above
/// already. What tests printed stays.
#[derive(Debug, Default)]
pub struct NameLists {
    inside: bool,
}

impl NameLists {
    /// Whether this line is part of such a list.
    pub fn holds(&mut self, line: &str) -> bool {
        self.inside =
            line == "successes:" || (self.inside && (line.is_empty() || line.starts_with("    ")));
        self.inside
    }
}

fn failed_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?;
    name.strip_suffix(" ... FAILED")
}

/// `story` from "Running tests/story.rs (target/debug/deps/story-0123abcd)".
fn announced_binary(line: &str) -> Option<&str> {
    if let Some((_, krate)) = line.split_once("Doc-tests") {
        return krate.split_whitespace().last();
    }
    let (before, path) = line.strip_suffix(')')?.rsplit_once('(')?;
    let file = path.rsplit('/').next()?;
    let (name, _hash) = file.rsplit_once('-')?;
    before.contains("Running").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_add_up() {
        let mut tally = Tally::default();
        for line in [
            "     Running unittests src/lib.rs (target/debug/deps/watchdog-96a3e9c5167bf7f6)",
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.01s",
            "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; \
             finished in 1.20s",
        ] {
            tally.feed(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.ignored), (8, 1, 1));
        assert_eq!(tally.failures, ["watchdog::a::c"]);
        assert_eq!(tally.ran(), 9);
    }

    #[test]
    fn a_skip_is_kept_with_its_reason() {
        let mut tally = Tally::default();
        tally.feed("SKIPPED: reads_on_old_kernels: no QEMU here");
        assert_eq!(tally.skipped, ["reads_on_old_kernels: no QEMU here"]);
        assert_eq!(tally.ran(), 0);
    }

    #[test]
    fn what_tests_print_is_shown_and_lists_of_names_are_not() {
        let mut lists = NameLists::default();
        let text = "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\n    lead 1.4 s\n\n\nsuccesses:\n    \
                    a\n\ntest result: ok.";
        let shown: Vec<_> = text.lines().filter(|line| !lists.holds(line)).collect();
        let whole = [
            "test a ... ok",
            "",
            "---- a stdout ----",
            "    lead 1.4 s",
            "",
            "",
            "test result: ok.",
        ];
        assert_eq!(shown, whole);
    }

    #[test]
    fn a_binary_is_known_by_what_cargo_announces() {
        let story =
            "\u{1b}[1m     Running\u{1b}[0m tests/story_a.rs (/x/target/debug/deps/story_a-09af)";
        assert_eq!(announced_binary(story), Some("story_a"));
        assert_eq!(
            announced_binary("   Doc-tests watchdog_model"),
            Some("watchdog_model")
        );
        assert_eq!(announced_binary("error: failed (as-is)"), None);
    }
}
