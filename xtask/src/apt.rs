//! Debian's packages. In: names. Out: installed packages, with no service started. Never guesses: a
//! package that no source offers, or only in a version too old, is an error that says so.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{self, Command},
};

use anyhow::{Context as _, Result};

use crate::process::{Missing, gather, output_of, program, run, say};

/// Consulted by every package script that would start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// By which a policy file that a killed setup left behind is known as ours.
const POLICY_MARK: &str = "lease-watchdog: cargo xtask setup";
/// Another apt may be at work; it gets this long.
const LOCK_SECONDS: &str = "DPkg::Lock::Timeout=600";

/// A package, and from which version on it will do.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// Oldest version that will do; any if `None`.
    pub from: Option<&'static str>,
}

impl Package {
    /// Any version will do.
    pub const fn any(name: &'static str) -> Self {
        Self { name, from: None }
    }

    /// This version or a newer one.
    pub const fn from(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            from: Some(version),
        }
    }

    fn will_do(&self, version: &str) -> bool {
        self.from.is_none_or(|oldest| at_least(version, oldest))
    }
}

/// Those of the packages that aren't installed, or are too old.
pub fn lacking(packages: &[Package]) -> Vec<Package> {
    let installed = installed_versions(packages);
    let is_there = |package: &&Package| {
        let own = installed.iter().find(|(name, _)| name == package.name);
        own.is_some_and(|(_, version)| package.will_do(version))
    };
    packages.iter().filter(|p| !is_there(p)).copied().collect()
}

/// Installs what is lacking of the packages; does nothing, fast, if nothing is. `why` ends the
/// sentence "… is needed".
pub fn ensure(packages: &[Package], why: &str) -> Result<()> {
    let lacking = lacking(packages);
    if lacking.is_empty() {
        return Ok(());
    }
    may_install(&lacking, why)?;
    say(format_args!("installing {} {why}", names(&lacking)));
    if !all_offered(&lacking)? {
        update()?;
        refuse_unless_offered(&lacking)?;
    }
    let _guard = ServiceGuard::hold()?;
    if install(&lacking).is_err() {
        // A list older than the archive names files that are gone.
        update()?;
        install(&lacking)?;
    }
    Ok(())
}

/// Whether apt is there and may be used.
pub fn usable() -> bool {
    is_root() && Path::new("/usr/bin/apt-get").exists()
}

fn may_install(lacking: &[Package], why: &str) -> Result<()> {
    if usable() {
        return Ok(());
    }
    let names = names(lacking);
    let line = match is_root() {
        true => {
            format!("missing {why}: {names}; without apt-get, install your system's own by hand")
        }
        false => format!("missing {why}; as root: `apt-get update && apt-get install {names}`"),
    };
    Err(Missing(line).into())
}

fn is_root() -> bool {
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn names(packages: &[Package]) -> String {
    let names: Vec<_> = packages.iter().map(|p| p.name).collect();
    names.join(" ")
}

fn installed_versions(packages: &[Package]) -> Vec<(String, String)> {
    let mut query = program("dpkg-query");
    query
        .args(["-W", "-f", "${Package} ${db:Status-Status} ${Version}\n"])
        .args(packages.iter().map(|p| p.name));
    // It fails when any package is unknown, and still lists the others.
    let Ok(output) = gather(&mut query) else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(parse_installed)
        .collect()
}

fn parse_installed(line: &str) -> Option<(String, String)> {
    match line.split(' ').collect::<Vec<_>>()[..] {
        [name, "installed", version] => Some((name.to_owned(), version.to_owned())),
        _ => None,
    }
}

/// The version that apt would install, if any.
fn candidate(package: &Package) -> Result<Option<String>> {
    let text = output_of(
        program("apt-cache")
            .env("LC_ALL", "C")
            .args(["policy", package.name]),
    )?;
    Ok(parse_candidate(&text))
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn at_least(version: &str, oldest: &str) -> bool {
    let mut compare = program("dpkg");
    compare.args(["--compare-versions", version, "ge", oldest]);
    gather(&mut compare).is_ok_and(|output| output.status.success())
}

fn all_offered(packages: &[Package]) -> Result<bool> {
    for package in packages {
        match candidate(package)? {
            Some(version) if package.will_do(&version) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn refuse_unless_offered(packages: &[Package]) -> Result<()> {
    for package in packages {
        let offered = candidate(package)?;
        if offered.as_deref().is_some_and(|v| package.will_do(v)) {
            continue;
        }
        let wanted = package
            .from
            .map_or(String::new(), |v| format!(" from {v} on"));
        let offered = offered.map_or("none".to_owned(), |v| format!("only {v}"));
        let line = format!(
            "missing: {}{wanted}, of which apt's sources offer {offered}; \
             add Debian's security archive to /etc/apt/sources.list",
            package.name
        );
        return Err(Missing(line).into());
    }
    Ok(())
}

fn update() -> Result<()> {
    say("refreshing apt's package lists");
    run(apt_get().arg("update")).context("refreshing apt's package lists")
}

fn install(packages: &[Package]) -> Result<()> {
    let mut command = apt_get();
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages.iter().map(|p| p.name));
    run(&mut command).context("installing Debian packages")
}

fn apt_get() -> Command {
    let mut command = program("apt-get");
    command
        .args(["-qq", "-o", LOCK_SECONDS, "-o", "Dpkg::Use-Pty=0"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Keeps package scripts from starting services while it lives; leaves no file behind. If xtask
/// dies first, the file itself sees that and allows everything again.
struct ServiceGuard {
    ours: bool,
}

impl ServiceGuard {
    fn hold() -> Result<Self> {
        let standing = fs::read_to_string(POLICY).ok();
        if standing.is_some_and(|text| !text.contains(POLICY_MARK)) {
            // The machine has a rule of its own.
            return Ok(Self { ours: false });
        }
        let pid = process::id();
        let text =
            format!("#!/bin/sh\n# {POLICY_MARK}\nkill -0 {pid} 2>/dev/null && exit 101\nexit 0\n");
        fs::write(POLICY, text).with_context(|| format!("writing {POLICY}"))?;
        let guard = Self { ours: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("making {POLICY} executable"))?;
        Ok(guard)
    }
}

impl Drop for ServiceGuard {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            say(format_args!("{POLICY} is left behind ({error}): remove it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_installations_count() {
        let whole = parse_installed("iproute2 installed 6.1.0-3");
        assert_eq!(whole, Some(("iproute2".into(), "6.1.0-3".into())));
        assert_eq!(parse_installed("iproute2 config-files 6.1.0-3"), None);
        assert_eq!(parse_installed("iproute2 not-installed "), None);
    }

    #[test]
    fn an_unknown_package_has_no_candidate() {
        let known = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n";
        assert_eq!(parse_candidate(known).as_deref(), Some("1.96.0+dfsg1-1"));
        assert_eq!(parse_candidate("x:\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }
}
