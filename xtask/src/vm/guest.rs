//! A guest: boots a kernel under QEMU without any help of the processor's, reads its console, sorts
//! what it says by step.
//!
//! The guest's clock counts instructions (`-icount`) and skips the time in which nothing happens. So
//! neither a loaded machine nor a slow emulation makes anything late in there, and its 20 s of
//! waiting cost nothing.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::process::{line_of, program, run_by_line};

/// What a guest that hangs is ended after; a whole run takes one to three minutes.
const AT_MOST: &str = "1500";
/// The guest's memory.
const MEMORY: &str = "3072";
/// What a kernel says of itself when it is lost. (Lockups and stalls are made panics, and a panic
/// ends QEMU.)
const LOST: [&str; 5] = [
    "Kernel panic",
    "rcu: INFO: rcu",
    "soft lockup",
    "BUG: ",
    "WARNING: CPU",
];

/// How a guest is started.
pub struct Boot<'a> {
    /// The kernel image.
    pub image: &'a Path,
    /// The initramfs.
    pub files: &'a Path,
    /// What is run, in order.
    pub steps: &'a [&'a str],
    /// Which of the kernel tests: those whose names contain it.
    pub filter: &'a str,
    /// Which cgroup hierarchies there are: v2, or v1 alone.
    pub cgroups: &'a str,
}

impl Boot<'_> {
    /// The command that is the guest.
    pub fn command(&self) -> Command {
        let mut command = program("timeout");
        command.args(["--kill-after=5", AT_MOST, "nice", "-n", "5"]);
        command.args(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"]);
        // One instruction in a nanosecond, as a slow processor does.
        command.args(["-icount", "shift=0,sleep=off", "-m", MEMORY]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        command.args(["-display", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(self.image);
        command.arg("-initrd").arg(self.files);
        let steps = self.steps.join(",");
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic softlockup_panic=1 \
             sysctl.kernel.panic_on_rcu_stall=1 vm.steps={steps} vm.filter={} vm.cgroups={}",
            self.filter, self.cgroups
        ));
        command
    }

    /// Runs it to its end. Every line of the console goes to `log` too.
    pub fn run(&self, mut log: impl FnMut(&str)) -> Result<Console> {
        let mut command = self.command();
        let mut console = Console::default();
        let status = run_by_line(&mut command, |line| {
            log(line);
            console.feed(line);
        })?;
        match (&console.lost, console.done) {
            (None, true) => Ok(console),
            (Some(line), _) => bail!("the guest is lost: {line}"),
            (None, false) => bail!("the guest ended early ({status}): {}", line_of(&command)),
        }
    }
}

/// What a step said and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Its lines.
    pub lines: Vec<String>,
    /// Its exit code; None: it has not ended.
    pub code: Option<i32>,
}

/// A guest's console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The line by which the kernel said that it is lost.
    pub lost: Option<String>,
    /// Whether the first process came to its end.
    pub done: bool,
}

impl Console {
    /// Takes a line in.
    pub fn feed(&mut self, line: &str) {
        if LOST.iter().any(|word| line.contains(word)) {
            self.lost.get_or_insert_with(|| line.to_owned());
        }
        // The firmware's control sequences may stand before the first.
        let said = line.find("vm: ").map(|at| &line[at + 4..]);
        let open = self.steps.last_mut().filter(|step| step.code.is_none());
        match (said.map(|said| said.split(' ').collect::<Vec<_>>()), open) {
            (Some(words), _) if words[..] == ["done"] => self.done = true,
            (Some(words), _) if words.len() == 2 && words[0] == "begin" => {
                self.steps.push(Step {
                    name: words[1].to_owned(),
                    ..Step::default()
                });
            }
            (Some(words), Some(step)) if words.len() == 3 && words[0] == "end" => {
                step.code = words[2].parse().ok();
            }
            (_, Some(step)) => step.lines.push(line.to_owned()),
            (_, None) => {}
        }
    }

    /// A step's outcome.
    #[cfg(test)]
    fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        lines.iter().for_each(|line| console.feed(line));
        console
    }

    #[test]
    fn steps_are_told_apart() {
        let console = console(&[
            "\u{1b}[2J vm: kernel 6.1.0",
            "vm: begin probes",
            "{\"signal\":\"reads\"}",
            "vm: end probes 3",
            "said by nobody",
            "vm: begin demo",
            "vm: end demo 0",
            "vm: done",
        ]);
        let probes = console.step("probes").unwrap();
        assert_eq!(probes.lines, ["{\"signal\":\"reads\"}"]);
        assert_eq!(probes.code, Some(3));
        assert_eq!(console.step("demo").unwrap().code, Some(0));
        assert!(console.done && console.lost.is_none());
    }

    #[test]
    fn a_lost_guest_is_known() {
        let console = console(&["vm: begin demo", "[ 1.0] Kernel panic - not syncing: oops"]);
        assert!(console.lost.is_some());
        assert!(!console.done);
    }
}
