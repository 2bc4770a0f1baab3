//! The file: a magic word, then frames, each with its length and checksum.
//!
//! In: a file of any run, whole, torn, or not a recording at all. Out: what stands in it up to the last whole
//! frame. Never: a panic; more memory than 4 GiB, or for a frame than one may have.
//!
//! A frame is `kind u8 · length u32 LE · CRC-32 of kind and payload u32 LE · payload`. Payloads are postcard;
//! that of a block is compressed by LZ4. postcard names no fields, so a change of any recorded type is a new
//! [`VERSION`], and a recording of another version is refused by number.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use watchdog_model::leases::note::{LeaseHandle, LeaseId};
use watchdog_model::leases::observation::{FlowObservation, Role};
use watchdog_model::leases::settings::EntrySettings;
use watchdog_model::time::Mono;

use super::{Op, Stamped};

/// The first bytes of a file.
pub const MAGIC: &[u8; 8] = b"lwrecord";
/// Of the recorded types.
pub const VERSION: u16 = 2;
/// A frame above this is no frame: blocks are closed far below.
const MOST_BYTES: u32 = 16 << 20;
/// What a block may unpack to: it is closed at 32 KiB, and one call is smaller than the rest. LZ4 makes 255
/// times as much of what it is given, and a call of two bytes takes hundreds in memory.
const MOST_UNPACKED: u32 = 1 << 20;
/// What all calls of a recording may take in memory, bytes.
const MOST_HELD: usize = 4 << 30;

/// How gzip begins: a recording that was packed to be kept or sent is read as it is.
const GZIP: [u8; 2] = [0x1f, 0x8b];

const HEADER: u8 = b'H';
const CONTEXT: u8 = b'C';
const BLOCK: u8 = b'B';

/// What a recording is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: u16,
    /// The daemon's version.
    pub daemon: String,
    /// The node's name.
    pub node: String,
    /// The boot that its times count from.
    pub boot: String,
    /// Names and settings of the configuration's entries.
    pub entries: Vec<(String, EntrySettings)>,
    /// Leases that the book had room for.
    pub capacity: u32,
    /// Why it was written.
    pub reason: String,
    /// Whether observations of healthy leases were left out: it can be told, not replayed.
    pub thin: bool,
}

/// What was known when the first block begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The flows, each as it was last seen before, and when.
    pub flows: Vec<(Mono, FlowObservation)>,
    /// What leases the numbers in [`Op::Evidence`] mean.
    pub names: Vec<(LeaseHandle, u16, LeaseId, Role)>,
}

/// A block's own header, before what is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BlockHead {
    pub(super) first: Mono,
    /// Wall clock less monotonic clock, ns since 1970.
    pub(super) wall_less_mono_ns: i64,
    pub(super) calls: u32,
}

/// Packs calls until it is closed.
#[derive(Debug, Default)]
pub struct BlockWriter {
    first: Option<Mono>,
    last: Mono,
    calls: u32,
    raw: Vec<u8>,
}

impl BlockWriter {
    /// Adds a call.
    pub fn push(&mut self, at: Mono, op: &Op) {
        let first = *self.first.get_or_insert(at);
        let before = if self.calls == 0 { first } else { self.last };
        let raw = std::mem::take(&mut self.raw);
        // Into a vector nothing but memory can be missing.
        match postcard::to_extend(&(at.since(before), op), raw) {
            Ok(raw) => self.raw = raw,
            Err(error) => tracing::error!(%error, "a call cannot be packed"),
        }
        self.last = at;
        self.calls += 1;
    }

    /// When its first call was made.
    #[must_use]
    pub const fn first(&self) -> Option<Mono> {
        self.first
    }

    /// How many are in it.
    #[must_use]
    pub const fn calls(&self) -> u32 {
        self.calls
    }

    /// Bytes so far, not compressed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The frame; begins anew.
    pub fn close(&mut self, wall_less_mono_ns: i64) -> Option<Vec<u8>> {
        let head = BlockHead {
            first: self.first.take()?,
            wall_less_mono_ns,
            calls: std::mem::take(&mut self.calls),
        };
        let bytes = block_frame(&head, &self.raw);
        self.raw.clear();
        bytes
    }
}

pub(super) fn block_frame(head: &BlockHead, raw: &[u8]) -> Option<Vec<u8>> {
    let mut payload = postcard::to_stdvec(head).ok()?;
    payload.extend(lz4_flex::compress_prepend_size(raw));
    Some(frame(BLOCK, &payload))
}

pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 9);
    out.push(kind);
    out.extend(
        u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend(checksum(kind, payload).to_le_bytes());
    out.extend(payload);
    out
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}

/// A file's beginning.
#[must_use]
pub fn beginning(header: &Header, context: &Context) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    // Only memory could be missing.
    out.extend(frame(
        HEADER,
        &postcard::to_stdvec(header).unwrap_or_default(),
    ));
    out.extend(frame(
        CONTEXT,
        &postcard::to_stdvec(context).unwrap_or_default(),
    ));
    out
}

/// The calls of a block that was just packed.
#[must_use]
pub fn unpack(frame: &[u8]) -> Vec<Stamped> {
    frame
        .get(9..)
        .and_then(|payload| block(payload).ok())
        .map(|(_, calls)| calls)
        .unwrap_or_default()
}

fn block(payload: &[u8]) -> Result<(BlockHead, Vec<Stamped>)> {
    let (head, packed): (BlockHead, _) = postcard::take_from_bytes(payload)?;
    let size = packed
        .first_chunk::<4>()
        .map_or(0, |size| u32::from_le_bytes(*size));
    if size > MOST_UNPACKED {
        bail!("a block of {size} bytes");
    }
    let raw = lz4_flex::decompress_size_prepended(packed)?;
    let mut rest = raw.as_slice();
    let mut at = head.first;
    let mut calls = Vec::new();
    for _ in 0..head.calls {
        let ((after_ns, op), left): ((u64, Op), _) = postcard::take_from_bytes(rest)?;
        rest = left;
        at = at.plus(after_ns);
        calls.push((at, op));
    }
    Ok((head, calls))
}

/// A recording, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What it is of.
    pub header: Header,
    /// What was known before.
    pub context: Context,
    /// Calls, and the wall clock at each less the monotonic clock, ns.
    pub calls: Vec<(Mono, i64, Op)>,
    /// Why it ends early, if it does.
    pub torn: Option<String>,
}

impl Recording {
    /// Reads a file, gzip or not, up to the last whole frame.
    ///
    /// # Errors
    /// It cannot be opened, is no recording, is of another version, or breaks before its first block.
    pub fn read(path: &Path) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let packed = file
            .fill_buf()
            .with_context(|| path.display().to_string())?
            .starts_with(&GZIP);
        if packed {
            Self::from_reader(MultiGzDecoder::new(file))
        } else {
            Self::from_reader(file)
        }
        .with_context(|| path.display().to_string())
    }

    /// The same from anything.
    ///
    /// # Errors
    /// As [`Recording::read`].
    pub fn from_reader(mut reader: impl Read) -> Result<Self> {
        let mut magic = [0; 8];
        let got = fill(&mut reader, &mut magic)?;
        if got < magic.len() || magic != *MAGIC {
            bail!("is no recording of lease-watchdog");
        }
        let (header, context) = match (next(&mut reader)?, next(&mut reader)?) {
            (Next::Frame(HEADER, header), Next::Frame(CONTEXT, context)) => {
                // The version stands first, so that it can be read of any.
                let (version, _): (u16, _) = postcard::take_from_bytes(&header)?;
                if version != VERSION {
                    bail!(
                        "is a recording of format {version}; this lease-watchdog reads format {VERSION}: use the \
                         version that wrote it"
                    );
                }
                (
                    postcard::from_bytes(&header)?,
                    postcard::from_bytes(&context)?,
                )
            }
            _ => bail!("is torn before anything was recorded"),
        };
        let mut recording = Self {
            header,
            context,
            calls: Vec::new(),
            torn: None,
        };
        let mut blocks = 0_u64;
        let most_held = MOST_HELD / size_of::<(Mono, i64, Op)>();
        loop {
            let next = match next(&mut reader) {
                Ok(next) => next,
                // A packed file that was cut, a disk that fails: what was read is worth telling.
                Err(error) => {
                    recording.torn =
                        Some(format!("after block {blocks}: {error}; read up to there"));
                    return Ok(recording);
                }
            };
            match next {
                Next::End => return Ok(recording),
                Next::Torn(why) => {
                    recording.torn = Some(format!("after block {blocks}: {why}; read up to there"));
                    return Ok(recording);
                }
                Next::Frame(BLOCK, payload) => match block(&payload) {
                    Ok((_, calls)) if recording.calls.len() + calls.len() > most_held => {
                        recording.torn = Some(format!(
                            "after block {blocks}: its calls take more than {} GiB; read up to there",
                            MOST_HELD >> 30
                        ));
                        return Ok(recording);
                    }
                    Ok((head, calls)) => {
                        let wall = head.wall_less_mono_ns;
                        recording
                            .calls
                            .extend(calls.into_iter().map(|(at, op)| (at, wall, op)));
                        blocks += 1;
                    }
                    Err(error) => {
                        recording.torn =
                            Some(format!("after block {blocks}: {error:#}; read up to there"));
                        return Ok(recording);
                    }
                },
                // A kind of a later time, whole: passed over.
                Next::Frame(..) => {}
            }
        }
    }
}

enum Next {
    End,
    Torn(&'static str),
    Frame(u8, Vec<u8>),
}

fn next(reader: &mut impl Read) -> io::Result<Next> {
    let mut head = [0; 9];
    match fill(reader, &mut head)? {
        0 => return Ok(Next::End),
        9 => {}
        _ => return Ok(Next::Torn("a frame's head is cut")),
    }
    let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > MOST_BYTES {
        return Ok(Next::Torn("a frame's length makes no sense"));
    }
    let mut payload = Vec::new();
    reader
        .by_ref()
        .take(length.into())
        .read_to_end(&mut payload)?;
    if payload.len() < length as usize {
        return Ok(Next::Torn("a frame is cut"));
    }
    if checksum(kind, &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(Next::Torn("a frame's checksum does not fit"));
    }
    Ok(Next::Frame(kind, payload))
}

/// Reads until it is full or the end has come.
fn fill(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match reader.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
