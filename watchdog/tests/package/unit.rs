//! The unit as a list of settings, and setpriv with what it says.

use std::path::Path;
use std::process::Command;

/// A unit file.
#[derive(Debug)]
pub struct Unit {
    /// As written.
    pub text: String,
}

impl Unit {
    /// The unit among a package's files.
    pub fn read(files: &Path) -> Self {
        let path = files.join("usr/lib/systemd/system/lease-watchdog.service");
        let text = std::fs::read_to_string(&path);
        Self {
            text: text.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    }

    /// The last value of a setting.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut lines = self.text.lines().rev();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// A command that runs another as this user, with the unit's capabilities and no others.
    pub fn setpriv(&self, user: u32) -> Command {
        let bounded = self.value("CapabilityBoundingSet");
        let ambient = self.value("AmbientCapabilities").expect("capabilities");
        assert_eq!(bounded, Some(ambient), "what is bounded is what is given");
        let mut set = "-all".to_owned();
        for name in ambient.split(' ') {
            let name = name.strip_prefix("CAP_").expect("a capability");
            set.push_str(",+");
            set.push_str(&name.to_lowercase());
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user.to_string(), "--regid", &user.to_string()]);
        command.args(["--clear-groups", "--no-new-privs"]);
        for which in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.args([which, &set]);
        }
        command
    }
}
