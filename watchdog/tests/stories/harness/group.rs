//! Control groups of a story, removed when dropped.

use super::clock;
use std::path::PathBuf;
use std::time::Duration;

/// What was killed in a group leaves it so much later, at most.
const LEAVE: Duration = Duration::from_secs(3);

/// A control group.
#[derive(Debug)]
pub struct Group {
    root: PathBuf,
    name: String,
}

impl Group {
    /// A group of the v2 hierarchy.
    ///
    /// # Panics
    /// If none is mounted.
    pub fn create(name: &str) -> Self {
        Self::in_hierarchy(name, |kind, _| kind == "cgroup2").expect("a cgroup v2 hierarchy")
    }

    /// A group that counts processes: of the v1 hierarchy where there is one, else of v2.
    ///
    /// # Panics
    /// If neither is mounted.
    pub fn counting(name: &str) -> Self {
        let counts = |kind: &str, options: &str| {
            kind == "cgroup" && options.split(',').any(|option| option == "pids")
        };
        Self::in_hierarchy(name, counts).unwrap_or_else(|| Self::create(name))
    }

    fn in_hierarchy(name: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("procfs");
        let root = mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            wanted(words[2], words[3]).then(|| PathBuf::from(words[1]))
        })?;
        let name = format!("lease-story-{name}-{}", std::process::id());
        std::fs::create_dir(root.join(&name)).expect("a group can be made");
        Some(Self { root, name })
    }

    /// Its name in its hierarchy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets it hold so many processes and threads, and no more.
    ///
    /// # Panics
    /// If the kernel does not count them.
    pub fn bound(&self, most: u32) {
        let file = self.root.join(&self.name).join("pids.max");
        std::fs::write(&file, most.to_string())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// The words that start a command in it.
    pub fn enter(&self) -> String {
        let procs = self.root.join(&self.name).join("cgroup.procs");
        format!("echo $$ > {} && exec \"$@\"", procs.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let path = self.root.join(&self.name);
        if clock::poll(LEAVE, || std::fs::remove_dir(&path).ok()).is_none() {
            eprintln!("left behind: {}", path.display());
        }
    }
}
