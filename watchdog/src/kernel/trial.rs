//! Tries everything that the daemon needs of the kernel, for `doctor` and `probes`.
//!
//! In: the same object, types and cgroup root as a start. Out: for each step and each hook what the
//! kernel said, the hooks beyond the first that it takes too. Never: a flow watched (no port is), or anything
//! that stays: what was attached is detached when the trial is over.

use super::{Missing, Options, attach, btf, cgroup};

/// What one hook came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Tried {
    /// What it tells.
    pub signal: &'static str,
    /// Where it was attached.
    pub hook: &'static str,
    /// Its program in the object.
    pub program: &'static str,
    /// Hooks of one group are there for each other.
    #[serde(skip)]
    pub group: usize,
    /// Whether the daemon starts without the signal.
    pub required: bool,
    /// Why it is not; None: it was loaded, attached and detached.
    pub refused: Option<String>,
    /// How many instructions the verifier walked through (the kernel tells from 5.16 on).
    pub instructions: Option<u32>,
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
    of(None, options)
}

/// The same with one of the objects, whichever this kernel would be given.
#[must_use]
pub fn of(which: Option<attach::Object>, options: &Options) -> Trial {
    let types = btf::facts(&options.btf).and_then(|facts| Ok((facts, attach::types(options)?)));
    let root = cgroup::root(options.cgroup_root.as_deref());
    let mut maps = Ok(false);
    let mut loaded = None;
    if let Ok((facts, parsed)) = &types {
        let which = which.unwrap_or_else(|| attach::Object::of(facts));
        match attach::object(which, options, facts, parsed) {
            Ok(programs) => {
                maps = Ok(true);
                loaded = Some((programs, facts, parsed));
            }
            Err(missing) => maps = Err(missing),
        }
    }
    let mut hooks: Vec<Tried> = Vec::new();
    for (group, signal) in attach::SIGNALS.iter().enumerate() {
        for way in signal.ways {
            let refused = match (&mut loaded, &root) {
                (None, _) => {
                    Some("not tried: the kernel's types or its maps are missing".to_owned())
                }
                (_, Err(_)) => Some("not tried: there is no cgroup v2 root".to_owned()),
                (Some((programs, facts, parsed)), Ok(root)) => {
                    attach::lacking(signal, &facts.offsets).or_else(|| {
                        let refusal = attach::attach(programs, way, parsed, root).err()?;
                        Some(refusal.line)
                    })
                }
            };
            let info = loaded
                .as_ref()
                .and_then(|(programs, ..)| programs.program(way.program)?.info().ok());
            hooks.push(Tried {
                signal: signal.name,
                hook: way.hook,
                program: way.program,
                group,
                required: signal.required,
                refused,
                instructions: info.and_then(|info| info.verified_instruction_count()),
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
