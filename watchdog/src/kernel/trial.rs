//! Tries everything that the daemon needs of the kernel, for `doctor`.
//!
//! In: the same object, types and cgroup root as a start. Out: for each step and each hook what the
//! kernel said, the hooks beyond a refused one too. Never: a flow watched (no port is), or anything
//! that stays: what was attached is detached when the trial is over.

use aya::{Btf, Endianness};

use super::{Missing, Options, attach, btf, cgroup};

/// What one hook came to.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What it tells.
    pub signal: &'static str,
    /// Where it was attached.
    pub hook: &'static str,
    /// Whether the daemon starts without the signal.
    pub required: bool,
    /// Why it is not; None: it was loaded, attached and detached.
    pub refused: Option<String>,
}

/// What the kernel said.
#[derive(Debug)]
pub struct Trial {
    /// Its type information can be read and has every field that is needed.
    pub types: Result<(), Missing>,
    /// Its cgroup v2 root can be had.
    pub cgroup: Result<(), Missing>,
    /// It takes the maps; `Ok(false)`: not tried, because types are missing.
    pub maps: Result<bool, Missing>,
    /// Each hook of each signal; those that could not be tried are refused with the reason.
    pub hooks: Vec<Tried>,
}

/// Loads and attaches each hook, then detaches all of them.
#[must_use]
pub fn run(options: &Options) -> Trial {
    let offsets = btf::offsets(&options.btf);
    let types = offsets.and_then(|offsets| {
        let parsed = Btf::parse_file(&options.btf, Endianness::default())
            .map_err(|error| Missing(format!("{}: {error}", options.btf.display())))?;
        Ok((offsets, parsed))
    });
    let root = cgroup::root(options.cgroup_root.as_deref());
    let mut maps = Ok(false);
    let mut loaded = None;
    if let Ok((offsets, parsed)) = &types {
        match attach::object(options, offsets, parsed) {
            Ok(programs) => {
                maps = Ok(true);
                loaded = Some((programs, offsets, parsed));
            }
            Err(missing) => maps = Err(missing),
        }
    }
    let mut hooks: Vec<Tried> = Vec::new();
    for signal in attach::SIGNALS {
        for way in signal.ways {
            let refused = match (&mut loaded, &root) {
                (None, _) => {
                    Some("not tried: the kernel's types or its maps are missing".to_owned())
                }
                (_, Err(_)) => Some("not tried: there is no cgroup v2 root".to_owned()),
                (Some((programs, offsets, parsed)), Ok(root)) => {
                    attach::lacking(signal, &offsets[..])
                        .or_else(|| attach::attach(programs, way, parsed, root).err())
                }
            };
            hooks.push(Tried {
                signal: signal.name,
                hook: way.hook,
                required: signal.required,
                refused,
            });
        }
    }
    // Where a signal has several ways, one that the kernel takes is enough.
    drop(loaded);
    Trial {
        types: types.map(|_| ()),
        cgroup: root.map(|_| ()),
        maps,
        hooks,
    }
}
