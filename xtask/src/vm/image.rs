//! The guest's file system. In: programs and packages of this machine, a kernel's modules. Out: an
//! initramfs (cpio, "newc") with them, the shared libraries that they want, busybox, and the first process.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::process::{gather, output_of, program};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";
/// Folders that the first process mounts on or writes to.
const FOLDERS: [&str; 13] = [
    "bin", "dev", "etc", "lib", "lib64", "modules", "proc", "root", "run", "sys", "tests", "tmp",
    "usr",
];
/// Parts of packages that nothing in a guest reads.
const LEFT_OUT: [&str; 6] = [
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/locale",
    "/usr/share/lintian",
    "/usr/share/bash-completion",
    "/usr/share/bug",
];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// A program to take in.
pub struct Program {
    /// Where it is here.
    pub from: PathBuf,
    /// Where it will be there, without the first slash.
    pub to: &'static str,
}

/// What a guest is given.
#[derive(Default)]
pub struct Contents {
    /// Programs, each with its libraries.
    pub programs: Vec<Program>,
    /// Files, symbolic links among them, that keep their places; the libraries of those that are programs.
    pub files: Vec<PathBuf>,
    /// Modules, in order.
    pub modules: Vec<PathBuf>,
}

/// Writes the initramfs.
pub fn write(file: &Path, contents: &Contents) -> Result<()> {
    let mut files = vec![(PathBuf::from(BUSYBOX), "bin/busybox".to_owned())];
    let mut libraries = BTreeSet::new();
    for program in &contents.programs {
        libraries.extend(libraries_of(std::slice::from_ref(&program.from)));
        files.push((program.from.clone(), program.to.to_owned()));
    }
    let loaded: Vec<PathBuf> = contents
        .files
        .iter()
        .filter(|f| is_elf(f))
        .cloned()
        .collect();
    libraries.extend(libraries_of(&loaded));
    for library in libraries {
        // A library may lie in a package too.
        if !contents.files.contains(&PathBuf::from(&library)) {
            files.push((library.clone().into(), relative(&library)));
        }
    }
    for file in &contents.files {
        files.push((file.clone(), relative(&file.display().to_string())));
    }
    for module in &contents.modules {
        let name = module.file_name().map(|name| name.to_string_lossy());
        files.push((
            module.clone(),
            format!("modules/{}", name.unwrap_or_default()),
        ));
    }
    let mut folders: BTreeSet<String> = FOLDERS.iter().map(|&name| name.to_owned()).collect();
    for (_, to) in &files {
        let parents = Path::new(to).ancestors().skip(1);
        folders.extend(parents.filter_map(Path::to_str).map(str::to_owned));
    }
    folders.remove("");
    let out = File::create(file).with_context(|| format!("writing {}", file.display()))?;
    let mut archive = Archive {
        out: BufWriter::new(out),
        written: 0,
    };
    for folder in &folders {
        archive.add(folder, FOLDER, &[])?;
    }
    archive.add("init", PROGRAM, INIT.as_bytes())?;
    for (from, to) in &files {
        let reading = || format!("reading {}", from.display());
        let named = contents.files.contains(from);
        if named && from.is_symlink() {
            let target = fs::read_link(from).with_context(reading)?;
            archive.add(to, LINK, target.as_os_str().as_encoded_bytes())?;
        } else {
            let bytes = fs::read(from).with_context(reading)?;
            archive.add(to, PROGRAM, &bytes)?;
        }
    }
    archive
        .finish()
        .with_context(|| format!("writing {}", file.display()))
}

fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// The files of installed packages.
pub fn files_of(packages: &[String]) -> Result<Vec<PathBuf>> {
    let text = output_of(program("dpkg").arg("-L").args(packages))?;
    let wanted = |path: &&str| {
        path.starts_with('/') && !LEFT_OUT.iter().any(|folder| path.starts_with(folder))
    };
    let paths: BTreeSet<PathBuf> = text.lines().filter(wanted).map(PathBuf::from).collect();
    let is_file = |path: &PathBuf| path.is_symlink() || path.is_file();
    Ok(paths.into_iter().filter(is_file).collect())
}

/// Whether a file is a program or a library.
fn is_elf(file: &Path) -> bool {
    use io::Read as _;
    let mut magic = [0; 4];
    !file.is_symlink()
        && File::open(file).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
        && magic == *b"\x7fELF"
}

/// The shared libraries that programs are loaded with; none of a static one.
fn libraries_of(files: &[PathBuf]) -> Vec<String> {
    if files.is_empty() {
        return Vec::new();
    }
    // It fails if one of them is static, and tells of the others all the same.
    let output = gather(program("ldd").args(files));
    output.map_or_else(
        |_| Vec::new(),
        |output| parse_ldd(&String::from_utf8_lossy(&output.stdout)),
    )
}

fn parse_ldd(text: &str) -> Vec<String> {
    let path = |line: &str| {
        let words = line.split_whitespace();
        words
            .into_iter()
            .find(|word| word.starts_with('/'))
            .map(str::to_owned)
    };
    // A line that begins at its edge names the program itself.
    let of_library = |line: &&str| line.starts_with(char::is_whitespace);
    text.lines().filter(of_library).filter_map(path).collect()
}

/// A cpio archive of the kind that kernels unpack: "newc" (cpio(5)).
struct Archive<W: io::Write> {
    out: W,
    written: usize,
}

impl<W: io::Write> Archive<W> {
    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        // Magic, inode, mode, owner, group, links, time, size, device twice two, name, checksum.
        let fields = [
            0,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(bytes.len()).map_err(io::Error::other)?,
            0,
            0,
            0,
            0,
            u32::try_from(name.len() + 1).map_err(io::Error::other)?,
            0,
        ];
        self.put(b"070701")?;
        for field in fields {
            self.put(format!("{field:08x}").as_bytes())?;
        }
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(bytes)?;
        self.pad()
    }

    fn finish(mut self) -> io::Result<()> {
        self.add("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    /// Headers and contents begin at multiples of four.
    fn pad(&mut self) -> io::Result<()> {
        let rest = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..rest])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_what_cpio_reads() {
        let mut bytes = Vec::new();
        let mut archive = Archive {
            out: &mut bytes,
            written: 0,
        };
        archive.add("a", FOLDER, &[]).unwrap();
        archive.add("a/bc", PROGRAM, b"12345").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        // Header 110, "a\0" 2: the next header begins at 112.
        assert!(text[112..].starts_with("07070100000000000081ed"), "{text}");
        assert!(text[112 + 110..].starts_with("a/bc\0"), "{text}");
        assert!(
            text[112 + 116..].starts_with("12345\0\0\x00070701"),
            "{text}"
        );
    }

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tnot a dynamic executable\n";
        let found = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse_ldd(text), found);
    }
}
