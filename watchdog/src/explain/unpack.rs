//! From a file's bytes to a log's: packed ones unpacked, UTF-16 made UTF-8, byte order marks taken off.
//!
//! In: any reader. Out: a reader of plain bytes. What it is is told by its first bytes, never by its name.
//! Never: more than a buffer in memory; an end because of bytes that are no text.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// As much as is read at once.
pub const CHUNK: usize = 1 << 20;
/// A packed file in a packed file is unpacked so often.
const DEEP: usize = 3;

/// Unpacks what is packed.
///
/// # Errors
///
/// When the first bytes cannot be read.
pub fn unpacked(raw: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut reader: Box<dyn BufRead> = Box::new(BufReader::with_capacity(CHUNK, raw));
    for _ in 0..DEEP {
        let start = reader.fill_buf()?;
        reader = if start.starts_with(&[0x1f, 0x8b]) {
            buffered(MultiGzDecoder::new(reader))
        } else if start.starts_with(b"BZh") && start.get(3).is_some_and(u8::is_ascii_digit) {
            buffered(bzip2::bufread::MultiBzDecoder::new(reader))
        } else if start.starts_with(b"\xfd7zXZ\0") {
            buffered(liblzma::bufread::XzDecoder::new_multi_decoder(reader))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            buffered(Zstd::new(reader))
        } else {
            break;
        };
    }
    let start = reader.fill_buf()?;
    let utf16 = match start {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        _ => None,
    };
    if let Some(unit) = utf16 {
        reader.consume(2);
        return Ok(buffered(Utf16 {
            inner: reader,
            unit,
            pending: Vec::new(),
            given: 0,
            high: None,
        }));
    }
    if start.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    Ok(reader)
}

fn buffered(reader: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(CHUNK, reader))
}

/// Frame after frame: a decoder takes one.
struct Zstd {
    inner: Option<Box<dyn BufRead>>,
    frame: Option<Box<ZstdFrame>>,
}

type ZstdFrame =
    ruzstd::decoding::StreamingDecoder<Box<dyn BufRead>, ruzstd::decoding::FrameDecoder>;

impl Zstd {
    fn new(inner: Box<dyn BufRead>) -> Self {
        Self {
            inner: Some(inner),
            frame: None,
        }
    }
}

impl Read for Zstd {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let taken = frame.read(into)?;
                if taken > 0 || into.is_empty() {
                    return Ok(taken);
                }
                self.inner = self.frame.take().map(|frame| frame.into_inner());
            }
            let Some(mut inner) = self.inner.take() else {
                return Ok(0);
            };
            if inner.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let frame = ruzstd::decoding::StreamingDecoder::new(inner)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            self.frame = Some(Box::new(frame));
        }
    }
}

/// What Windows' programs write.
struct Utf16 {
    inner: Box<dyn BufRead>,
    unit: fn([u8; 2]) -> u16,
    /// UTF-8 that waits, and how much of it was given.
    pending: Vec<u8>,
    given: usize,
    /// The first half of a pair.
    high: Option<u16>,
}

impl Utf16 {
    fn refill(&mut self) -> io::Result<()> {
        self.pending.clear();
        self.given = 0;
        let mut bytes = vec![0; 1 << 16];
        let mut filled = 0;
        // An odd byte at the end of a read belongs to the next unit.
        while filled < bytes.len() {
            match self.inner.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(taken) => filled += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let units = bytes[..filled]
            .chunks_exact(2)
            .map(|pair| (self.unit)([pair[0], pair[1]]));
        let mut all: Vec<u16> = self.high.take().into_iter().chain(units).collect();
        if filled == bytes.len()
            && all
                .last()
                .is_some_and(|last| (0xd800..0xdc00).contains(last))
        {
            self.high = all.pop();
        }
        for unit in char::decode_utf16(all) {
            let character = unit.unwrap_or(char::REPLACEMENT_CHARACTER);
            self.pending
                .extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

impl Read for Utf16 {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.pending.len() {
            self.refill()?;
        }
        let left = &self.pending[self.given..];
        let taken = left.len().min(into.len());
        into[..taken].copy_from_slice(&left[..taken]);
        self.given += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn all(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        unpacked(io::Cursor::new(bytes))?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn bzip2(text: &[u8]) -> Vec<u8> {
        let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    fn xz(text: &[u8]) -> Vec<u8> {
        let mut packer = liblzma::write::XzEncoder::new(Vec::new(), 0);
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    /// Two packed files one behind the other are one, as the programs that pack them have it.
    #[test]
    fn every_way_to_pack_gives_the_same() {
        let text = "2022-11-04 22:36:43 a line\n".repeat(20_000).into_bytes();
        for pack in [gzip, zstd, bzip2, xz] {
            let mut twice = pack(&text[..1000]);
            twice.extend(pack(&text[1000..]));
            assert!(all(twice).unwrap() == text);
        }
        assert!(all(gzip(&xz(&text))).unwrap() == text);
    }

    #[test]
    fn a_packed_file_that_was_cut_gives_what_is_there_and_an_error() {
        let text: Vec<u8> = (0..400_000_u32)
            .flat_map(|number| format!("{}\n", number.wrapping_mul(2_654_435_761)).into_bytes())
            .collect();
        for pack in [gzip, zstd, bzip2, xz] {
            let packed = pack(&text);
            let mut out = Vec::new();
            let mut reader =
                unpacked(io::Cursor::new(packed[..packed.len() / 2].to_vec())).unwrap();
            assert!(reader.read_to_end(&mut out).is_err());
            assert!(!out.is_empty() && text.starts_with(&out));
        }
    }

    #[test]
    fn what_windows_writes_is_text() {
        let text = "2022-11-04 22:36:43 日志 🙂\r\n".repeat(9000);
        for (mark, bytes) in [
            (
                [0xff, 0xfe],
                text.encode_utf16()
                    .flat_map(u16::to_le_bytes)
                    .collect::<Vec<u8>>(),
            ),
            (
                [0xfe, 0xff],
                text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            ),
        ] {
            let marked = [mark.to_vec(), bytes].concat();
            assert!(all(marked).unwrap() == text.as_bytes());
        }
        assert_eq!(all(b"\xef\xbb\xbfx".to_vec()).unwrap(), b"x");
        assert_eq!(all(vec![0xff, 0xfe, 0x41]).unwrap(), b"");
    }
}
