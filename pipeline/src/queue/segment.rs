//! The bytes of a segment. All integers are little endian.
//!
//! ```text
//! header  "tw-queue"  version u16  zero [6]  first sequence number u64  serial number u64  salt u64
//!         crc32 u32 of the bytes before
//! frame   A3 51 C7 0E  item length u32  sequence number u64  crc32 u32 of (salt, item)
//!         crc32 u32 of (salt, the bytes before)  item
//! ```
//!
//! A frame's header has a checksum of its own, so a damaged length asks for no memory and hides no
//! later frame: the next one is looked for byte by byte. The salt makes frames of other files, in
//! reused disk blocks or inside items, invalid. CRC-32 is the IEEE 802.3 polynomial.

use std::io;

use super::ITEM_BYTES_MAX;
use crate::fs::FsFile;

/// The format this version writes, and the newest it reads.
pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: u64 = 44;
pub(super) const FRAME_BYTES: u64 = 24;
const MAGIC: [u8; 8] = *b"tw-queue";
const MARKER: [u8; 4] = [0xA3, 0x51, 0xC7, 0x0E];
/// What is read at once while the next whole frame is looked for.
const WINDOW_BYTES: usize = 64 << 10;
/// How often a failing read is tried at once. It says nothing about what is there: whoever reads tries
/// again later.
const READ_TRIES: u32 = 3;

/// What tells a segment from all others; it is in its name, so that a damaged header costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SegmentId {
    /// The sequence number of its first item.
    pub first: u64,
    /// Raised with every segment. Of two with the same `first`, nothing in the older one counts.
    pub serial: u64,
    pub salt: u64,
}

impl SegmentId {
    pub fn file_name(&self) -> String {
        let SegmentId {
            first,
            serial,
            salt,
        } = self;
        format!("{first:016x}-{serial:016x}-{salt:016x}.queue")
    }

    pub fn of_file_name(name: &str) -> Option<SegmentId> {
        let mut parts = name.strip_suffix(".queue")?.split('-');
        let mut number = || {
            let part = parts.next().filter(|p| p.len() == 16)?;
            u64::from_str_radix(part, 16).ok()
        };
        let (first, serial, salt) = (number()?, number()?, number()?);
        let id = SegmentId {
            first,
            serial,
            salt,
        };
        (id.file_name() == name).then_some(id)
    }

    pub fn header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        for n in [self.first, self.serial, self.salt] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }
}

/// The version of a whole header that is later than [`VERSION`]. Later formats keep magic, version
/// and checksum where they are.
pub(super) fn newer_version(file: &dyn FsFile) -> io::Result<Option<u16>> {
    let mut bytes = [0; HEADER_BYTES as usize];
    if read_up_to(file, 0, &mut bytes)? < bytes.len() {
        return Ok(None);
    }
    let (content, crc) = bytes.split_at(bytes.len() - 4);
    if bytes[..8] != MAGIC || u32_at(crc, 0) != crc32fast::hash(content) {
        return Ok(None);
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    Ok((version > VERSION).then_some(version))
}

/// Panics if there are not four bytes.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Panics if there are not eight bytes.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn salted(salt: u64, bytes: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    bytes.iter().for_each(|b| crc.update(b));
    crc.finalize()
}

/// The frame's header in front of an item, which may be in pieces.
pub(super) fn frame(salt: u64, seq: u64, item: &[&[u8]]) -> Vec<u8> {
    let len: usize = item.iter().map(|piece| piece.len()).sum();
    let mut out = Vec::with_capacity(FRAME_BYTES as usize);
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&salted(salt, item).to_le_bytes());
    out.extend_from_slice(&salted(salt, &[&out]).to_le_bytes());
    out
}

/// A frame's header that is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// Where it begins.
    pub at: u64,
    pub seq: u64,
    /// Bytes of the item.
    pub len: u64,
    crc: u32,
}

impl Frame {
    fn decode(salt: u64, at: u64, bytes: &[u8]) -> Option<Frame> {
        let bytes = bytes.get(..FRAME_BYTES as usize)?;
        if bytes[..4] != MARKER || u32_at(bytes, 20) != salted(salt, &[&bytes[..20]]) {
            return None;
        }
        Some(Frame {
            at,
            len: u64::from(u32_at(bytes, 4)),
            seq: u64_at(bytes, 8),
            crc: u32_at(bytes, 16),
        })
    }

    /// Where the next one begins.
    pub fn end(&self) -> u64 {
        self.at + FRAME_BYTES + self.len
    }
}

/// Goes through the frames of one segment.
pub(super) struct Walk {
    file: Box<dyn FsFile>,
    salt: u64,
    /// Where the next frame should begin.
    at: u64,
    /// Bytes passed over.
    pub skipped_bytes: u64,
}

impl Walk {
    /// Begins behind the header.
    pub fn new(file: Box<dyn FsFile>, salt: u64) -> Walk {
        Walk {
            file,
            salt,
            at: HEADER_BYTES,
            skipped_bytes: 0,
        }
    }

    /// The next whole frame header before `len`, which stays the next one until [`Walk::pass`].
    /// `None` = there is no more.
    ///
    /// # Errors
    /// The file cannot be read; the same is tried again next time.
    pub fn peek(&mut self, len: u64) -> io::Result<Option<Frame>> {
        let mut bytes = [0; FRAME_BYTES as usize];
        if self.at + FRAME_BYTES <= len
            && read_up_to(&*self.file, self.at, &mut bytes)? == bytes.len()
            && let Some(frame) = Frame::decode(self.salt, self.at, &bytes)
        {
            return Ok(Some(frame));
        }
        self.find(len)
    }

    /// Looks for the next whole frame header, byte by byte.
    fn find(&mut self, len: u64) -> io::Result<Option<Frame>> {
        let mut window = vec![0; WINDOW_BYTES];
        while self.at + FRAME_BYTES <= len {
            let want = (len - self.at).min(WINDOW_BYTES as u64) as usize;
            let n = read_up_to(&*self.file, self.at, &mut window[..want])?;
            if (n as u64) < FRAME_BYTES {
                break;
            }
            let bytes = &window[..n];
            let last = bytes.len() - FRAME_BYTES as usize;
            let found = (0..=last).find_map(|i| {
                let is_marker = bytes[i..].starts_with(&MARKER);
                let frame = || Frame::decode(self.salt, self.at + i as u64, &bytes[i..]);
                is_marker.then(frame).flatten()
            });
            match found {
                Some(frame) => {
                    self.skip(frame.at - self.at);
                    return Ok(Some(frame));
                }
                None => self.skip(last as u64 + 1),
            }
        }
        self.skip(len.saturating_sub(self.at));
        Ok(None)
    }

    fn skip(&mut self, bytes: u64) {
        self.at += bytes;
        self.skipped_bytes += bytes;
    }

    /// Goes on behind the frame.
    pub fn pass(&mut self, frame: &Frame) {
        self.at = frame.end();
    }

    /// Goes on within the frame, of which only the header is whole: its length is right, but what
    /// came after it may have been written over it.
    fn distrust(&mut self, frame: &Frame) {
        self.at = frame.at;
        self.skip(FRAME_BYTES);
    }

    /// Reads the frame's item into `buf`; false if it is damaged.
    ///
    /// # Errors
    /// It cannot be read, which says nothing about what it is.
    pub fn read(&self, frame: &Frame, len: u64, buf: &mut Vec<u8>) -> io::Result<bool> {
        buf.clear();
        if frame.end() > len || frame.len > ITEM_BYTES_MAX as u64 {
            return Ok(false);
        }
        buf.resize(frame.len as usize, 0);
        let read = read_up_to(&*self.file, frame.at + FRAME_BYTES, buf)?;
        Ok(read == buf.len() && salted(self.salt, &[buf]) == frame.crc)
    }

    /// Goes on behind a frame that is not wanted, or whose item is damaged. Where it cannot be read,
    /// its length is trusted.
    pub fn step_over(&mut self, frame: &Frame, len: u64) {
        let whole = self.read(frame, len, &mut Vec::new());
        if frame.end() <= len && whole.unwrap_or(true) {
            self.pass(frame);
        } else {
            self.distrust(frame);
        }
    }
}

/// Fills `buf` from `offset` on as far as the file goes.
pub(super) fn read_up_to(file: &dyn FsFile, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    let mut failures = 0;
    while done < buf.len() {
        match file.read_at(offset + done as u64, &mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) => {
                failures += 1;
                if failures >= READ_TRIES {
                    return Err(e);
                }
            }
        }
    }
    Ok(done)
}
