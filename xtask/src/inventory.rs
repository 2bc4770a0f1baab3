//! Holds ARCHITECTURE.md's list of unsafe code against the sources. In: both. Out: what is on one side only.
//! Tests alone; nothing of it is in the program.

use std::{collections::BTreeSet, fs, path::Path};

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn spread(pattern: &str) -> Vec<String> {
    let parts = pattern
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        None => vec![pattern.to_owned()],
        Some((before, (names, after))) => names
            .split(',')
            .map(|name| format!("{before}{name}{after}"))
            .collect(),
    }
}

fn listed(page: &str) -> BTreeSet<String> {
    let (_, from) = page.split_once("## Unsafe\n").expect("the section");
    let section = from.split("\n## ").next().expect("its text");
    let patterns = section.split('`').skip(1).step_by(2);
    patterns
        .filter(|pattern| pattern.ends_with(".rs"))
        .flat_map(spread)
        .collect()
}

fn is_unsafe(source: &str) -> bool {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    code.into_iter()
        .any(|line| words.iter().any(|word| line.contains(word)))
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn patterns_are_spread() {
    assert_eq!(spread("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
    assert_eq!(spread("a/b.rs"), ["a/b.rs"]);
}

#[test]
fn the_list_of_unsafe_code_is_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the page");
    let mut files = Vec::new();
    for krate in [
        "watchdog",
        "watchdog-common",
        "watchdog-ebpf",
        "watchdog-model",
        "xtask",
        "xtask/bench",
        "xtask/fuzz",
    ] {
        sources(&root.join(krate).join("src"), &mut files);
    }
    assert!(files.len() > 100, "the sources are looked at");
    let own = Path::new(file!()).file_name();
    let in_code: BTreeSet<String> = files
        .iter()
        .filter(|path| path.file_name() != own)
        .filter(|path| is_unsafe(&fs::read_to_string(path).expect("a source")))
        .map(|path| {
            path.strip_prefix(root)
                .expect("within")
                .display()
                .to_string()
        })
        .collect();
    let listed = listed(&page);
    let missing: Vec<_> = in_code.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&in_code).collect();
    assert!(
        missing.is_empty(),
        "unsafe, and not in ARCHITECTURE.md: {missing:?}"
    );
    assert!(
        gone.is_empty(),
        "in ARCHITECTURE.md, and not unsafe: {gone:?}"
    );
}
