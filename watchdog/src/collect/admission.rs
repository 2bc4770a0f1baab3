//! Whose flows are watched: `scope.cgroup` and an entry's `processes`.
//!
//! In: the configuration, and what procfs says of a process. Out: the entries that take it, a bit
//! each. Never: a process taken for another because it bears the same id: answers age.

use std::fs;

use super::{membership, proc};

/// Threads of a process whose names are looked at.
const THREADS: usize = 1_024;

/// What the configuration demands of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// A cgroup; None: any.
    scope: Option<String>,
    /// By entry: names and cgroups, one of which must fit; none: any process.
    entries: Vec<Vec<String>>,
}

/// What a process says of itself.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Its cgroup in every hierarchy.
    pub cgroups: Vec<String>,
    /// Its name and its threads'.
    pub names: Vec<String>,
}

impl Shown {
    /// What a process shows now; nothing if it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let cgroups = membership::of(pid)
            .lines()
            .filter_map(|line| Some(line.splitn(3, ':').nth(2)?.to_owned()))
            .collect();
        let named = |at: String| {
            let name = fs::read(at).ok()?;
            Some(
                String::from_utf8_lossy(&name)
                    .trim_end_matches('\n')
                    .to_owned(),
            )
        };
        let threads = proc::threads(pid, THREADS).into_iter();
        let names = std::iter::once(format!("/proc/{pid}/comm"))
            .chain(threads.map(|tid| format!("/proc/{pid}/task/{tid}/comm")))
            .filter_map(named)
            .collect();
        Self { cgroups, names }
    }
}

impl Admission {
    /// `cgroup` is `/` where there is no demand.
    #[must_use]
    pub fn new(cgroup: &str, entries: Vec<Vec<String>>) -> Self {
        let scope = cgroup.trim_end_matches('/');
        Self {
            scope: (!scope.is_empty()).then(|| scope.to_owned()),
            entries,
        }
    }

    /// The entries that demand anything, a bit each.
    #[must_use]
    pub fn demanding(&self) -> u64 {
        if self.scope.is_some() {
            return u64::MAX;
        }
        self.bits(|demands| !demands.is_empty())
    }

    /// The entries that take a process, a bit each.
    #[must_use]
    pub fn takes(&self, shown: &Shown) -> u64 {
        let under = |top: &str| {
            let top = top.trim_end_matches('/');
            shown.cgroups.iter().any(|path| {
                path.strip_prefix(top)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        if self.scope.as_deref().is_some_and(|scope| !under(scope)) {
            return 0;
        }
        self.bits(|demands| {
            demands.is_empty()
                || demands.iter().any(|demand| {
                    if demand.starts_with('/') {
                        under(demand)
                    } else {
                        shown.names.contains(demand)
                    }
                })
        })
    }

    fn bits(&self, of: impl Fn(&[String]) -> bool) -> u64 {
        // There are at most 64 entries (`MAX_LEASES`).
        self.entries
            .iter()
            .zip(0_u32..u64::BITS)
            .filter(|(demands, _)| of(demands))
            .fold(0, |bits, (_, entry)| bits | 1 << entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cgroups: &[&str], names: &[&str]) -> Shown {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Shown {
            cgroups: owned(cgroups),
            names: owned(names),
        }
    }

    fn entries(entries: &[&[&str]]) -> Vec<Vec<String>> {
        let owned = |words: &&[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        entries.iter().map(owned).collect()
    }

    #[test]
    fn an_entry_takes_whom_it_names() {
        let admission = Admission::new("/", entries(&[&[], &["chunkd", "/meta.slice"]]));
        assert_eq!(admission.demanding(), 0b10);
        for (cgroup, name, taken) in [
            ("/", "chunkd", 0b11),
            ("/", "chunkd2", 0b01),
            ("/meta.slice", "x", 0b11),
            ("/meta.slice/a.service", "x", 0b11),
            ("/meta.slices", "x", 0b01),
            ("/a/meta.slice", "x", 0b01),
        ] {
            let of = shown(&["/", cgroup], &["main", name]);
            assert_eq!(admission.takes(&of), taken, "{cgroup} {name}");
        }
        assert_eq!(admission.takes(&Shown::default()), 0b01, "it is gone");
    }

    #[test]
    fn a_scope_comes_before_all_entries() {
        let admission = Admission::new("/pods/", entries(&[&[], &["chunkd"]]));
        assert_eq!(admission.demanding(), u64::MAX);
        let inside = shown(&["/", "/pods/a"], &["chunkd"]);
        assert_eq!(admission.takes(&inside), 0b11);
        assert_eq!(admission.takes(&shown(&["/pods"], &[])), 0b01);
        assert_eq!(admission.takes(&shown(&["/podsy"], &["chunkd"])), 0);
        assert_eq!(admission.takes(&Shown::default()), 0);
    }

    #[test]
    fn this_very_process_shows_itself() {
        let own = Shown::of(std::process::id());
        assert!(!own.cgroups.is_empty() && own.cgroups.iter().all(|path| path.starts_with('/')));
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(own.names.iter().any(|shown| shown == name.trim_end()));
        assert!(Shown::of(u32::MAX).cgroups.is_empty());
    }
}
