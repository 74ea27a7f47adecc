//! The bytes of checkpoint files. All integers are little endian.
//!
//! ```text
//! header  "tw-ckpt\n"  version u16  kind u8 (1 snapshot, 2 log)  zero [5]  generation u64
//!         salt u64  crc32 u32 of the bytes before
//! frame   F5 77  body length u16  crc32 u32 of (salt, body length, body)  body
//! body    1  key length u16  generation u64  offset u64  key  payload       put
//!         2  key                                                            remove
//!         3  number of records u64                                          end of a snapshot
//!         4  index u32  count u32  body of a put or remove                  part of a group
//! ```
//!
//! The `count` parts of a group follow each other without a gap, `index` from 0 on. They count only
//! together: where one is missing, none of them is there. Groups are in logs only.
//!
//! Version 1 knew no groups; its files are read like those of version 2.
//!
//! The salt makes frames of other files, found in reused disk blocks or inside a payload, invalid.
//! A generation's snapshot and log share one salt, so that either header can be damaged. CRC-32 is
//! the IEEE 802.3 polynomial.

use std::io;

use super::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::fs::FsFile;

/// The format this version writes, and the newest it reads.
pub(super) const VERSION: u16 = 2;
pub(super) const HEADER_BYTES: usize = 36;
const MAGIC: [u8; 8] = *b"tw-ckpt\n";
const MARKER: [u8; 2] = [0xF5, 0x77];
const FRAME_HEADER_BYTES: usize = 8;
const PUT_BYTES: usize = 1 + 2 + 8 + 8;
const PART_BYTES: usize = 1 + 4 + 4;
/// The frame of an end record.
pub(super) const END_BYTES: u64 = (FRAME_HEADER_BYTES + 1 + 8) as u64;
/// The longest frame.
const FRAME_BYTES_MAX: usize =
    FRAME_HEADER_BYTES + PART_BYTES + PUT_BYTES + KEY_BYTES_MAX + PAYLOAD_BYTES_MAX;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// How often a failing read is tried before the rest of the file counts as unreadable.
const READ_TRIES: u32 = 3;

const KIND_PUT: u8 = 1;
const KIND_REMOVE: u8 = 2;
const KIND_END: u8 = 3;
const KIND_PART: u8 = 4;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileKind {
    Snapshot = 1,
    Log = 2,
}

/// The beginning of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub kind: FileKind,
    pub generation: u64,
    pub salt: u64,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadHeader {
    Damaged,
    /// Whole, and of this later format.
    Newer(u16),
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.kind as u8;
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        out[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&out[..32]);
        out[32..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; later formats keep magic, version and checksum where they are.
    pub fn decode(bytes: &[u8]) -> Result<Header, BadHeader> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        if bytes[..8] != MAGIC || !checksum_holds(crc32fast::hash(&bytes[..32]), &bytes[32..]) {
            return Err(BadHeader::Damaged);
        }
        let version = u16_at(bytes, 8).unwrap_or(0);
        if version > VERSION {
            return Err(BadHeader::Newer(version));
        }
        let kind = match bytes[10] {
            1 => FileKind::Snapshot,
            2 => FileKind::Log,
            _ => return Err(BadHeader::Damaged),
        };
        let number = |at| u64_at(bytes, at).ok_or(BadHeader::Damaged);
        Ok(Header {
            kind,
            generation: number(16)?,
            salt: number(24)?,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u16::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u64::from_le_bytes(*b))
}

/// Whether the computed checksum is the stored one.
fn checksum_holds(computed: u32, stored: &[u8]) -> bool {
    #[cfg(test)]
    if blind::is_on() {
        return true;
    }
    stored
        .first_chunk()
        .is_some_and(|b| u32::from_le_bytes(*b) == computed)
}

/// Switches checksums off for the running test, to prove that tests notice.
#[cfg(test)]
pub(super) mod blind {
    use std::cell::Cell;

    thread_local!(static ON: Cell<bool> = const { Cell::new(false) });

    pub fn is_on() -> bool {
        ON.get()
    }

    pub fn set(on: bool) {
        ON.set(on);
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record<'a> {
    Put {
        key: &'a [u8],
        offset: u64,
        generation: u64,
        payload: &'a [u8],
    },
    Remove {
        key: &'a [u8],
    },
    End {
        count: u64,
    },
}

/// Where a record stands in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub index: u32,
    /// Records in the group.
    pub count: u32,
}

/// Bytes that a put record takes.
pub(super) fn put_bytes(key: &[u8], payload: &[u8]) -> u64 {
    (FRAME_HEADER_BYTES + PUT_BYTES + key.len() + payload.len()) as u64
}

impl<'a> Record<'a> {
    /// Appends the record's frame. The caller keeps the limits of keys and payloads.
    pub fn encode(&self, salt: u64, out: &mut Vec<u8>) {
        self.encode_as(None, salt, out);
    }

    /// Appends the record's frame, as a part of a group if need be.
    pub fn encode_as(&self, part: Option<Part>, salt: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[MARKER[0], MARKER[1], 0, 0, 0, 0, 0, 0]);
        if let Some(Part { index, count }) = part {
            out.push(KIND_PART);
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        }
        self.encode_body(out);
        let body = start + FRAME_HEADER_BYTES;
        let len = (out.len() - body) as u16;
        let crc = frame_crc(salt, len, &out[body..]);
        out[start + 2..start + 4].copy_from_slice(&len.to_le_bytes());
        out[start + 4..body].copy_from_slice(&crc.to_le_bytes());
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match *self {
            Record::Put {
                key,
                offset,
                generation,
                payload,
            } => {
                out.push(KIND_PUT);
                out.extend_from_slice(&(key.len() as u16).to_le_bytes());
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(payload);
            }
            Record::Remove { key } => {
                out.push(KIND_REMOVE);
                out.extend_from_slice(key);
            }
            Record::End { count } => {
                out.push(KIND_END);
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
    }

    /// Reads a body that is no part of a group.
    pub fn decode(body: &'a [u8]) -> Option<Record<'a>> {
        let is_key = |key: &[u8]| (1..=KEY_BYTES_MAX).contains(&key.len());
        match *body.first()? {
            KIND_PUT => {
                let key_len = usize::from(u16_at(body, 1)?);
                let (generation, offset) = (u64_at(body, 3)?, u64_at(body, 11)?);
                let (key, payload) = body.get(PUT_BYTES..)?.split_at_checked(key_len)?;
                let fits = is_key(key) && payload.len() <= PAYLOAD_BYTES_MAX;
                fits.then_some(Record::Put {
                    key,
                    offset,
                    generation,
                    payload,
                })
            }
            KIND_REMOVE => Some(Record::Remove { key: &body[1..] }).filter(|_| is_key(&body[1..])),
            KIND_END if body.len() == 9 => Some(Record::End {
                count: u64_at(body, 1)?,
            }),
            _ => None,
        }
    }
}

impl Part {
    /// Reads a part of a group, and what it is a part of: the body of a put or a remove.
    fn decode(body: &[u8]) -> Option<(Part, &[u8])> {
        let number = |at| Some(u32::from_le_bytes(*body.get(at..)?.first_chunk()?));
        let (index, count) = (number(1)?, number(5)?);
        let record = body.get(PART_BYTES..)?;
        let known = matches!(
            Record::decode(record)?,
            Record::Put { .. } | Record::Remove { .. }
        );
        (known && index < count).then_some((Part { index, count }, record))
    }
}

/// Appends a frame with any body.
#[cfg(feature = "fuzzing")]
pub(super) fn frame(salt: u64, body: &[u8], out: &mut Vec<u8>) {
    let len = body.len() as u16;
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&frame_crc(salt, len, body).to_le_bytes());
    out.extend_from_slice(body);
}

fn frame_crc(salt: u64, len: u16, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&len.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

/// The length of the whole and true frame at the start of `bytes`.
fn frame_at(bytes: &[u8], salt: u64) -> Option<usize> {
    if !bytes.starts_with(&MARKER) {
        return None;
    }
    let len = u16_at(bytes, 2)?;
    let end = FRAME_HEADER_BYTES + usize::from(len);
    if end > FRAME_BYTES_MAX {
        return None;
    }
    let body = bytes.get(FRAME_HEADER_BYTES..end)?;
    checksum_holds(frame_crc(salt, len, body), &bytes[4..8]).then_some(end)
}

/// What a reader comes upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Record(Record<'a>),
    /// A record of a group, as a body that can be decoded.
    Part(Part, &'a [u8]),
    /// Bytes that are no record, before one that is.
    Damaged {
        bytes: u64,
    },
    /// Bytes that are no record, up to the end.
    Torn {
        bytes: u64,
    },
    /// The file cannot be read any further. Bytes read before that are lost with it.
    Unreadable(io::ErrorKind),
    End,
}

/// Reads frames in constant memory; finds the next one after damage.
pub(super) struct FrameReader<'f> {
    file: &'f dyn FsFile,
    salt: u64,
    /// Offset in the file of the end of what is buffered.
    offset: u64,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    at_eof: bool,
    /// Why the file could not be read to its end.
    unreadable: Option<io::ErrorKind>,
}

impl<'f> FrameReader<'f> {
    /// A reader of the frames behind the header.
    pub fn new(file: &'f dyn FsFile, salt: u64) -> FrameReader<'f> {
        FrameReader {
            file,
            salt,
            offset: HEADER_BYTES as u64,
            buf: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            at_eof: false,
            unreadable: None,
        }
    }

    /// The next item; after [`Item::Torn`] and [`Item::Unreadable`] always `End`.
    pub fn next(&mut self) -> Item<'_> {
        let mut skipped = 0;
        loop {
            self.fill();
            if self.start == self.end {
                return match self.unreadable.take() {
                    Some(kind) => Item::Unreadable(kind),
                    None if skipped > 0 => Item::Torn { bytes: skipped },
                    None => Item::End,
                };
            }
            match frame_at(&self.buf[self.start..self.end], self.salt) {
                Some(_) if skipped > 0 => return Item::Damaged { bytes: skipped },
                Some(len) => {
                    let body = self.start + FRAME_HEADER_BYTES..self.start + len;
                    self.start += len;
                    let body = &self.buf[body];
                    let item = match body.first() {
                        Some(&KIND_PART) => Part::decode(body).map(|(p, b)| Item::Part(p, b)),
                        _ => Record::decode(body).map(Item::Record),
                    };
                    // None: a true checksum over something unknown.
                    return item.unwrap_or(Item::Damaged { bytes: len as u64 });
                }
                None => {
                    self.start += 1;
                    skipped += 1;
                }
            }
        }
    }

    /// Makes sure that a whole frame is buffered, if the file has one.
    fn fill(&mut self) {
        if self.at_eof || self.end - self.start >= FRAME_BYTES_MAX {
            return;
        }
        self.buf.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < self.buf.len() && !self.at_eof {
            match read(self.file, self.offset, &mut self.buf[self.end..]) {
                Ok(n) => {
                    self.at_eof = n == 0;
                    self.end += n;
                    self.offset += n as u64;
                }
                Err(e) => (self.at_eof, self.unreadable) = (true, Some(e.kind())),
            }
        }
    }
}

/// Reads, and tries again a few times if that fails.
pub(super) fn read(file: &dyn FsFile, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut tries = 1;
    loop {
        match file.read_at(offset, buf) {
            Err(_) if tries < READ_TRIES => tries += 1,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Fs, SimFs};
    use std::path::Path;

    fn file_of(frames: &[u8]) -> Box<dyn FsFile> {
        let fs = SimFs::new(0);
        let mut file = fs.create(Path::new("/f")).unwrap();
        file.append(&[0; HEADER_BYTES]).unwrap();
        file.append(frames).unwrap();
        file
    }

    #[test]
    fn headers_come_back_and_no_flipped_bit_passes() {
        let header = Header {
            kind: FileKind::Log,
            generation: 7,
            salt: 9,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad), Err(BadHeader::Damaged), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Header::decode(&bytes[..len]), Err(BadHeader::Damaged));
        }
        let mut newer = bytes;
        newer[8] = 3;
        let crc = crc32fast::hash(&newer[..32]);
        newer[32..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(BadHeader::Newer(3)));
    }

    #[test]
    fn records_of_every_size_come_back_across_buffer_ends() {
        let payload = [5; PAYLOAD_BYTES_MAX];
        let key = [6; KEY_BYTES_MAX];
        let mut frames = Vec::new();
        let record = |i: usize| match i % 3 {
            0 => Record::Remove {
                key: &key[..1 + i % 256],
            },
            1 => Record::End { count: i as u64 },
            _ => Record::Put {
                key: &key[..1 + i % 256],
                offset: i as u64,
                generation: 1,
                payload: &payload[..i * 64 % (PAYLOAD_BYTES_MAX + 1)],
            },
        };
        (0..300).for_each(|i| record(i).encode(3, &mut frames));
        assert!(frames.len() > 4 * READ_BYTES);
        let file = file_of(&frames);
        let mut reader = FrameReader::new(&*file, 3);
        for i in 0..300 {
            assert_eq!(reader.next(), Item::Record(record(i)));
        }
        assert_eq!(reader.next(), Item::End);
        let mut other = FrameReader::new(&*file, 4);
        assert_eq!(
            other.next(),
            Item::Torn {
                bytes: frames.len() as u64
            },
            "another salt"
        );
        assert_eq!(other.next(), Item::End);
    }

    #[test]
    fn parts_of_groups_come_back_and_those_that_make_no_sense_do_not() {
        let longest = Record::Put {
            key: &[6; KEY_BYTES_MAX],
            offset: 1,
            generation: 2,
            payload: &[5; PAYLOAD_BYTES_MAX],
        };
        let remove = Record::Remove { key: b"k" };
        let end = Record::End { count: 1 };
        let part = |index, count| Some(Part { index, count });
        let mut frames = Vec::new();
        longest.encode_as(part(0, 2), 3, &mut frames);
        remove.encode_as(part(1, 2), 3, &mut frames);
        assert_eq!(
            frames.len(),
            FRAME_BYTES_MAX + FRAME_HEADER_BYTES + PART_BYTES + 2
        );
        let before = frames.len() as u64;
        remove.encode_as(part(2, 2), 3, &mut frames);
        end.encode_as(part(0, 1), 3, &mut frames);
        let file = file_of(&frames);
        let mut reader = FrameReader::new(&*file, 3);
        for (i, want) in [longest, remove].into_iter().enumerate() {
            let Item::Part(part, body) = reader.next() else {
                panic!("no part {i}");
            };
            assert_eq!((part.index, part.count), (i as u32, 2));
            assert_eq!(Record::decode(body), Some(want));
        }
        let mut bytes = 0;
        while let Item::Damaged { bytes: n } = reader.next() {
            bytes += n;
        }
        assert_eq!(bytes, frames.len() as u64 - before, "two parts of no group");
        assert_eq!(reader.next(), Item::End);
    }

    #[test]
    fn the_reader_finds_the_record_after_damage() {
        let mut frames = Vec::new();
        let remove = |k: &'static [u8]| Record::Remove { key: k };
        remove(b"a").encode(0, &mut frames);
        frames.extend_from_slice(&[MARKER[0], MARKER[1], 0xFF, 0xFF, 1, 2, 3]);
        remove(b"b").encode(0, &mut frames);
        frames.extend_from_slice(&MARKER);
        let file = file_of(&frames);
        let mut reader = FrameReader::new(&*file, 0);
        assert_eq!(reader.next(), Item::Record(remove(b"a")));
        assert_eq!(reader.next(), Item::Damaged { bytes: 7 });
        assert_eq!(reader.next(), Item::Record(remove(b"b")));
        assert_eq!(reader.next(), Item::Torn { bytes: 2 });
        assert_eq!(reader.next(), Item::End);
    }
}
