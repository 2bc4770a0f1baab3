//! Where in an executable file a TLS library's functions are.
//!
//! In: a file that a watched process has mapped: its owner may have written whatever bytes into it, and made it as
//! long as it likes. Out: offsets that lie within it. Never: more than [`MOST_READ`] of it in memory; a panic.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use object::read::ReadRef;
use object::{Object, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};

use crate::kernel::plaintext::Function;

/// Bytes of headers and symbols. Large programs have some 10 MiB of them; a sparse file can claim to have a
/// terabyte.
pub const MOST_READ: u64 = 64 << 20;

/// Opens what is at a path that others may change: a pipe in its place holds up nobody.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Where in a file the functions are; none in what is no ELF file, or one with too much in it.
#[must_use]
pub fn functions(file: impl Read + Seek) -> Vec<(Function, u64)> {
    let cache = ReadCache::new(file);
    let Ok(length) = (&cache).len() else {
        return Vec::new();
    };
    let bounded = Bounded {
        cache: &cache,
        left: Cell::new(MOST_READ),
    };
    let Ok(elf) = object::File::parse(&bounded) else {
        return Vec::new();
    };
    let mut found: Vec<(Function, u64)> = Vec::new();
    for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
        if symbol.kind() != SymbolKind::Text || !symbol.is_definition() {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        let Some(function) = Function::ALL.into_iter().find(|one| one.symbol() == name) else {
            continue;
        };
        if found.iter().any(|(one, _)| *one == function) {
            continue;
        }
        let address = symbol.address();
        let offset = elf.segments().find_map(|segment| {
            let into = address.checked_sub(segment.address())?;
            let (start, size) = segment.file_range();
            (into < size).then(|| start.checked_add(into))?
        });
        if let Some(offset) = offset.filter(|offset| *offset < length) {
            found.push((function, offset));
        }
    }
    found
}

/// A file of which only so much is read.
#[derive(Debug)]
struct Bounded<'c, R: Read + Seek> {
    cache: &'c ReadCache<R>,
    left: Cell<u64>,
}

impl<R: Read + Seek> Bounded<'_, R> {
    fn take(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl<'a, R: Read + Seek> ReadRef<'a> for &'a Bounded<'a, R> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.take(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        // The cache keeps what it was asked for, a name's length each.
        self.take(1)?;
        self.cache.read_bytes_at_until(range, delimiter)
    }
}

/// What must hold of any file: for the property tests and for `cargo xtask fuzz` alike.
#[cfg(any(test, fuzzing))]
pub mod laws {
    use std::io::Cursor;

    use super::functions;
    use crate::kernel::plaintext::Function;

    /// Whatever the bytes, each function is found once at most, and within them.
    ///
    /// # Panics
    /// Where that does not hold.
    pub fn any_bytes(bytes: &[u8]) {
        let found = functions(Cursor::new(bytes));
        assert!(found.len() <= Function::ALL.len());
        for (at, (function, offset)) in found.iter().enumerate() {
            assert!(*offset < bytes.len() as u64);
            assert!(found[..at].iter().all(|(other, _)| other != function));
        }
    }

    /// A library with two functions, in so many bytes at the address that its one segment has.
    #[must_use]
    pub fn sample() -> Vec<u8> {
        let names = b"\0SSL_write\0SSL_read\0.dynsym\0.dynstr\0";
        let (symbols, strings, sections) = (0x78_u64, 0x78 + 3 * 24, 0x100_u64);
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let put16 = |bytes: &mut Vec<u8>, all: &[u16]| {
            all.iter().for_each(|one| bytes.extend(one.to_le_bytes()));
        };
        let put32 = |bytes: &mut Vec<u8>, all: &[u32]| {
            all.iter().for_each(|one| bytes.extend(one.to_le_bytes()));
        };
        let put64 = |bytes: &mut Vec<u8>, all: &[u64]| {
            all.iter().for_each(|one| bytes.extend(one.to_le_bytes()));
        };
        // A shared object for x86-64: headers of programs at 64, of sections behind all.
        put16(&mut bytes, &[3, 62]);
        put32(&mut bytes, &[1]);
        put64(&mut bytes, &[0, 64, sections]);
        put32(&mut bytes, &[0]);
        put16(&mut bytes, &[64, 56, 1, 64, 3, 2]);
        // To be loaded and run: all of it, at 0x1000.
        put32(&mut bytes, &[1, 5]);
        put64(&mut bytes, &[0, 0x1000, 0x1000, 0x400, 0x400, 0x1000]);
        // No symbol, then a function each.
        bytes.extend([0; 24]);
        for (name, address) in [(1, 0x1200_u64), (11, 0x1210)] {
            put32(&mut bytes, &[name]);
            bytes.extend([0x12, 0]);
            put16(&mut bytes, &[1]);
            put64(&mut bytes, &[address, 16]);
        }
        bytes.extend(names);
        bytes.resize(usize::try_from(sections).unwrap_or(0), 0);
        bytes.extend([0; 64]);
        let strings_len = names.len() as u64;
        for (name, kind, at, size, link, each) in [
            (20_u32, 11_u32, symbols, 72_u64, 2_u32, 24_u64),
            (28, 3, strings, strings_len, 0, 0),
        ] {
            put32(&mut bytes, &[name, kind]);
            put64(&mut bytes, &[2, 0, at, size]);
            put32(&mut bytes, &[link, 1]);
            put64(&mut bytes, &[8, each]);
        }
        bytes.resize(0x400, 0xc3);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn functions_are_where_the_segment_has_them() {
        let sample = laws::sample();
        let found = functions(io::Cursor::new(&sample));
        assert_eq!(found, [(Function::Write, 0x200), (Function::Read, 0x210)]);
        laws::any_bytes(&sample);
    }

    /// Found while the fuzzer's target was written: what the sections claim was read into memory.
    #[test]
    fn a_sparse_file_that_claims_endless_symbols_is_passed_over() {
        let mut sample = laws::sample();
        // The size of the section of symbols.
        let claimed = 40_u64 << 30;
        sample[0x140 + 32..0x140 + 40].copy_from_slice(&(claimed / 24 * 24).to_le_bytes());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&sample).unwrap();
        file.set_len(claimed + (1 << 20)).unwrap();
        assert!(functions(file).is_empty());
    }

    #[test]
    fn an_offset_beyond_the_file_is_none() {
        let mut sample = laws::sample();
        // Where the segment begins in the file.
        sample[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(functions(io::Cursor::new(&sample)).is_empty());
        sample[72..80].copy_from_slice(&0x300_u64.to_le_bytes());
        assert!(functions(io::Cursor::new(&sample)).is_empty());
    }

    #[test]
    fn a_pipe_in_a_librarys_place_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libssl.so.3");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let opened = open(&path).unwrap();
        assert!(!opened.metadata().unwrap().is_file());
    }
}
