//! Both objects, loaded and attached whole: the one with `bpf_loop` where the kernel has it and nowhere else,
//! the old one everywhere; and how far the verifier had to walk.

use std::path::Path;

use watchdog::kernel::{
    Options,
    attach::Object,
    btf,
    trial::{self, Tried},
};

use crate::bed::{here, skip};

/// A third of what a verifier walks before it gives up (BPF_COMPLEXITY_LIMIT_INSNS, kernel/bpf/verifier.c):
/// other kernels walk more than this one, 6.1 for one half as much again as 6.12.
const WALKED_AT_MOST: u32 = 1_000_000 / 3;

/// What a kernel makes of every hook of an object; None, said aloud: this user may not load.
fn tried(name: &str, which: Object) -> Option<Vec<Tried>> {
    // SAFETY: has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        skip(name, "loading programs takes root");
        return None;
    }
    let options = Options {
        btf: "/sys/kernel/btf/vmlinux".into(),
        cgroup_root: None,
        flows: 64,
        debug: false,
        netns: None,
        plaintext: true,
        only: None,
    };
    if !options.btf.exists() {
        skip(name, "this kernel has no BTF");
        return None;
    }
    Some(trial::of(Some(which), &options).hooks)
}

/// The signals that cannot be had, with the reason.
fn lost(all: &[Tried]) -> Vec<(&'static str, String)> {
    let served = |tried: &Tried| {
        let mut others = all.iter().filter(|other| other.group == tried.group);
        others.any(|other| other.refused.is_none())
    };
    let lost = all.iter().filter(|tried| !served(tried));
    let why = |tried: &Tried| tried.refused.clone().unwrap_or_default();
    lost.map(|tried| (tried.signal, why(tried))).collect()
}

fn walks_no_further_than_it_may(all: &[Tried]) {
    for tried in all {
        let walked = tried.instructions.unwrap_or(0);
        assert!(walked <= WALKED_AT_MOST, "{}: {walked}", tried.program);
    }
}

#[test]
fn the_old_programs_load_on_every_kernel() {
    let Some(all) = tried(here!(), Object::Old) else {
        return;
    };
    let lost = lost(&all);
    // What is inside TLS is parsed by a loop without bound alone.
    let signals: Vec<&str> = lost.iter().map(|(signal, _)| *signal).collect();
    assert_eq!(signals, ["plaintext"], "{lost:#?}");
    walks_no_further_than_it_may(&all);
}

#[test]
fn the_programs_with_a_loop_load_where_the_kernel_has_it_and_nowhere_else() {
    let Some(all) = tried(here!(), Object::Looping) else {
        return;
    };
    let facts = btf::facts(Path::new("/sys/kernel/btf/vmlinux")).expect("every field is there");
    let lost = lost(&all);
    assert_eq!(lost.is_empty(), facts.has_loop, "{lost:#?}");
    walks_no_further_than_it_may(&all);
}
