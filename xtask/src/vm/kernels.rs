//! Debian's stock kernels. In: a name of the list. Out: a kernel image, unpacked under target/vm.
//! Never: the machine's own apt sources, lists, cache or installed packages; apt is given folders of
//! its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process::{Missing, gather, output_of, program, run, say};

/// Debian's archive, where all of these come from.
const ARCHIVE: &str = "http://deb.debian.org/debian";
/// Debian's keys (package debian-archive-keyring).
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The package that depends on a suite's newest kernel: the variant for virtual machines, which has
/// no driver that QEMU does not need.
const META: &str = "linux-image-cloud-amd64";
/// What the kernel image and its modules come in: one package, from 7.x on several.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// A kernel that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// How it is asked for.
    pub name: &'static str,
    /// The suite it comes from.
    suite: &'static str,
}

/// The kernels, oldest first.
pub const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        suite: "bullseye",
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
    },
    Kernel {
        name: "6.12",
        suite: "bookworm-backports",
    },
    Kernel {
        name: "newest",
        suite: "sid",
    },
];

/// One that is here.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its bootable image.
    pub image: PathBuf,
    /// What `uname -r` will say.
    pub release: String,
    /// Where its packages are unpacked.
    pub root: PathBuf,
}

impl Kernel {
    /// The kernels of these names; all of them if there are none.
    pub fn named(names: &[String]) -> Result<Vec<Self>> {
        if names.is_empty() {
            return Ok(KERNELS.to_vec());
        }
        let find = |name: &String| {
            let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
            let found = KERNELS.iter().find(|kernel| kernel.name == name);
            found
                .copied()
                .with_context(|| format!("no kernel {name}; there are {}", known.join(", ")))
        };
        names.iter().map(find).collect()
    }

    /// Fetches and unpacks it, unless it is here already.
    pub fn fetch(self, folder: &Path) -> Result<Fetched> {
        let unpacked = folder.join("kernels").join(self.name);
        if let Some(found) = image_in(&unpacked) {
            return Ok(found);
        }
        self.fetch_anew(folder, &unpacked).map_err(|error| {
            Missing(format!(
                "kernel {} ({META} of {}) cannot be fetched: {error:#}",
                self.name, self.suite
            ))
        })?;
        image_in(&unpacked)
            .with_context(|| format!("{}: no vmlinuz in the packages", unpacked.display()))
    }

    fn fetch_anew(self, folder: &Path, unpacked: &Path) -> Result<()> {
        say(format_args!(
            "fetching kernel {} from Debian's {}",
            self.name, self.suite
        ));
        let apt = Apt::at(&folder.join("apt").join(self.name), self.suite)?;
        run(apt.command("apt-get").arg("update"))?;
        let packages = apt.packages()?;
        let half = folder.join("kernels").join(format!("{}.half", self.name));
        let _ = fs::remove_dir_all(&half);
        fs::create_dir_all(&half).with_context(|| format!("making {}", half.display()))?;
        run(apt
            .command("apt-get")
            .current_dir(&half)
            .arg("download")
            .args(&packages))?;
        for file in files_of(&half)? {
            run(program("dpkg-deb").arg("-x").arg(&file).arg(&half))?;
            fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
        fs::rename(&half, unpacked).with_context(|| format!("making {}", unpacked.display()))
    }
}

/// An apt with folders of its own and one suite.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn at(folder: &Path, suite: &str) -> Result<Self> {
        for part in ["empty", "state/lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("making {}", part.display()))?;
        }
        let keys = match Path::new(KEYS).exists() {
            true => format!(" signed-by={KEYS}"),
            false => bail!("{KEYS} is missing: install debian-archive-keyring"),
        };
        let sources = folder.join("sources.list");
        fs::write(
            &sources,
            format!("deb [arch=amd64{keys}] {ARCHIVE} {suite} main\n"),
        )
        .with_context(|| format!("writing {}", sources.display()))?;
        let status = folder.join("state/status");
        fs::write(&status, "").with_context(|| format!("writing {}", status.display()))?;
        let at = |part: &str| folder.join(part).display().to_string();
        let options = [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            format!("Dir::Etc::sourceparts={}", at("empty")),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            format!("Dir::Etc::preferencesparts={}", at("empty")),
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("state/status")),
            format!("Dir::Cache={}", at("cache")),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // The folders belong to whoever builds, and not to apt's own user.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self {
            options: options.into(),
        })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program(name);
        command.arg("-qq").env("LC_ALL", "C");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// The packages of the suite's newest kernel.
    fn packages(&self) -> Result<Vec<String>> {
        let image = self
            .depends(META)?
            .into_iter()
            .find(|name| name.starts_with(PARTS[0]))
            .with_context(|| format!("{META} depends on no kernel image"))?;
        let mut packages: Vec<String> = self
            .depends(&image)?
            .into_iter()
            .filter(|name| PARTS.iter().any(|part| name.starts_with(part)))
            .collect();
        packages.push(image);
        Ok(packages)
    }

    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = output_of(self.command("apt-cache").args(["show", package]))?;
        Ok(dependencies(&text))
    }
}

/// The names in the first `Depends:` of what `apt-cache show` says.
fn dependencies(text: &str) -> Vec<String> {
    let Some(list) = text.lines().find_map(|line| line.strip_prefix("Depends: ")) else {
        return Vec::new();
    };
    list.split(',')
        .filter_map(|item| item.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("listing {}", folder.display()))?
            .path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// The kernel image in unpacked packages: boot/vmlinuz-RELEASE, from 7.x on
/// usr/lib/modules/RELEASE/vmlinuz.
fn image_in(unpacked: &Path) -> Option<Fetched> {
    let mut find = program("find");
    find.arg(unpacked).args(["-name", "vmlinuz*", "-type", "f"]);
    let output = gather(&mut find).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let image = PathBuf::from(text.lines().next()?);
    let release = release_of(&image)?;
    Some(Fetched {
        image,
        release,
        root: unpacked.to_owned(),
    })
}

fn release_of(image: &Path) -> Option<String> {
    let name = image.file_name()?.to_str()?;
    let release = match name.strip_prefix("vmlinuz-") {
        Some(release) => release,
        None => image.parent()?.file_name()?.to_str()?,
    };
    Some(release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kernel_is_refused_with_the_list() {
        let error = Kernel::named(&["4.19".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no kernel 4.19; there are 5.10, 6.1, 6.12, newest");
        assert_eq!(Kernel::named(&[]).unwrap(), KERNELS);
    }

    #[test]
    fn what_a_package_depends_on_is_read_from_its_description() {
        let text = "Package: linux-image-cloud-amd64\n\
                    Depends: linux-base-cloud-amd64 (= 7.2-1), linux-image-7.2-cloud-amd64 (= 7.2-1)\n";
        let names = ["linux-base-cloud-amd64", "linux-image-7.2-cloud-amd64"];
        assert_eq!(dependencies(text), names);
    }

    #[test]
    fn the_release_is_in_the_images_name_or_in_its_folders() {
        let of = |path: &str| release_of(Path::new(path));
        assert_eq!(of("/x/boot/vmlinuz-6.1.0-50").as_deref(), Some("6.1.0-50"));
        assert_eq!(of("/x/usr/lib/modules/7.2/vmlinuz").as_deref(), Some("7.2"));
    }
}
