//! What a checkpoint stores of a file: where to go on, and how to recognise it.
//!
//! The offset itself and its generation are fields of the checkpoint store; the rest is the
//! payload this module writes and reads. Version 1 is a byte `1`, then fixed-width little endian
//! integers and length-prefixed (u16) byte strings in the order of [`Position`]'s fields. Unknown
//! versions are refused by name, never guessed.

use super::file_path::FilePath;
use super::identity::{Head, Known, Trail};
use super::logfs::{FileId, Meta};
use super::stamp::{Marks, Ties};

/// State of a file at an offset up to which everything was delivered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// Where to go on, in bytes of content (decompressed for gzip).
    pub offset: u64,
    /// Raised when the content starts anew in the same inode.
    pub generation: u64,
    /// The kernel's identity.
    pub id: FileId,
    /// First bytes.
    pub head: Head,
    /// Bytes before `offset`.
    pub trail: Trail,
    /// Records read before `offset` (`log.file.record_number` of the last one).
    pub records: u64,
    /// Times for lines that carry none.
    pub marks: Marks,
    /// Tie-break state for equal records with equal times.
    pub ties: Ties,
    /// The splitter's state (see `frame`), empty when at rest.
    pub frame: Vec<u8>,
    /// Header attributes in order, and whether the header is complete.
    pub header: Vec<(String, String)>,
    /// The header was read to its end.
    pub header_done: bool,
    /// Content is compressed.
    pub gzip: bool,
    /// Nothing is left to read: it was read and delivered to its end and let go, or it was there
    /// before its log was first seen.
    pub complete: bool,
    /// The file holds other content by now. What is left of this one is in a copy, if anywhere.
    pub overwritten: bool,
    /// What was beside the log when it was first seen is remembered as read.
    pub surveyed: bool,
    /// Wall time of the newest read, ns since the epoch.
    pub seen_ns: i64,
    /// Where the file was seen last.
    pub path: FilePath,
}

/// Why a stored position cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PositionError {
    /// Written by a newer version.
    #[error("written by a newer version (format {0}, this version reads 1)")]
    Version(u8),
    /// Shorter than its own lengths say.
    #[error("cut short or damaged")]
    Damaged,
}

const VERSION: u8 = 1;

impl Position {
    /// What identity decisions need.
    pub fn known(&self) -> Known {
        Known {
            id: self.id,
            head: self.head,
            offset: self.offset,
            trail: self.trail,
        }
    }

    /// True if nothing is left to read in its file, of which `meta` is told. One that is shorter than what was read,
    /// as a truncation or a power loss leaves it, may have been written since.
    pub fn has_all_of(&self, meta: &Meta) -> bool {
        let is_unchanged = || meta.size < self.offset && meta.mtime_ns <= self.seen_ns;
        self.complete && (self.gzip || meta.size == self.offset || is_unchanged())
    }

    /// The start of other content in the same file: a new generation, whose first time comes after
    /// all times of this one.
    pub fn anew(&self, head: Head) -> Position {
        Position {
            generation: self.generation + 1,
            id: self.id,
            head,
            gzip: self.gzip,
            path: self.path.clone(),
            marks: self.marks.clone().restarted(),
            surveyed: self.surveyed,
            ..Position::default()
        }
    }

    /// The key it is stored under: the file's identity within the receiver of this id, so that it
    /// survives renames and restarts. Overwritten content has a key of its own.
    pub fn key(&self, receiver: &str) -> Vec<u8> {
        let id = self.id;
        let prefix = key_prefix(receiver);
        let key = format!("{prefix}{:x}:{:x}:{:x}", id.dev, id.ino, id.birth_ns);
        let key = if self.overwritten {
            format!("{key}:{:x}", self.generation)
        } else {
            key
        };
        key.into_bytes()
    }

    /// The payload for the checkpoint store (without offset and generation).
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(192));
        w.0.push(VERSION);
        w.u64(self.id.dev)
            .u64(self.id.ino)
            .u64(self.id.birth_ns as u64);
        w.u64(u64::from(self.head.len)).u64(self.head.hash);
        w.u64(u64::from(self.trail.len)).u64(self.trail.hash);
        w.u64(self.records);
        w.u64(self.marks.entries().len() as u64);
        for &(offset, time_ns) in self.marks.entries() {
            w.u64(offset).u64(time_ns as u64);
        }
        w.u64(self.ties.time_ns as u64)
            .u64(self.ties.seen.len() as u64);
        for &(hash, next) in &self.ties.seen {
            w.u64(hash).u64(u64::from(next));
        }
        w.bytes(&self.frame);
        w.u64(self.header.len() as u64);
        for (k, v) in &self.header {
            w.bytes(k.as_bytes()).bytes(v.as_bytes());
        }
        w.0.push(
            u8::from(self.header_done)
                | u8::from(self.gzip) << 1
                | u8::from(self.complete) << 2
                | u8::from(self.overwritten) << 3
                | u8::from(self.surveyed) << 4,
        );
        w.u64(self.seen_ns as u64);
        w.bytes(std::os::unix::ffi::OsStrExt::as_bytes(
            self.path.as_os_str(),
        ));
        // It is kept for as long as the file is known.
        w.0.shrink_to_fit();
        w.0
    }

    /// Reads a payload back.
    pub fn decode(offset: u64, generation: u64, payload: &[u8]) -> Result<Position, PositionError> {
        let mut r = Reader(payload);
        match r.byte()? {
            VERSION => {}
            other => return Err(PositionError::Version(other)),
        }
        let id = FileId {
            dev: r.u64()?,
            ino: r.u64()?,
            birth_ns: r.u64()? as i64,
        };
        let head = Head {
            len: r.u64()? as u32,
            hash: r.u64()?,
        };
        let trail = Trail {
            len: r.u64()? as u16,
            hash: r.u64()?,
        };
        let records = r.u64()?;
        let pair = |r: &mut Reader<'_>| Ok((r.u64()?, r.u64()?));
        let marks = r.list(|r| pair(r).map(|(o, t)| (o, t as i64)))?;
        let time_ns = r.u64()? as i64;
        let seen = r.list(|r| pair(r).map(|(h, n)| (h, n as u32)))?;
        let frame = r.bytes()?.to_vec();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let header = r.list(|r| Ok((text(r.bytes()?), text(r.bytes()?))))?;
        let flags = r.byte()?;
        let seen_ns = r.u64()? as i64;
        let path = std::path::Path::new(
            <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(r.bytes()?),
        );
        Ok(Position {
            offset,
            generation,
            id,
            head,
            trail,
            records,
            marks: Marks::from_entries(marks),
            ties: Ties { time_ns, seen },
            frame,
            header,
            header_done: flags & 1 != 0,
            gzip: flags & 2 != 0,
            complete: flags & 4 != 0,
            overwritten: flags & 8 != 0,
            surveyed: flags & 16 != 0,
            seen_ns,
            path: path.into(),
        })
    }
}

/// What the keys of all positions in a namespace begin with: a receiver, or one of its lanes. The
/// types of ids count without underscores, so that `filelog` may be renamed to `file_log` (as the
/// collector's storage keys do).
pub fn key_prefix(namespace: &str) -> String {
    let mut prefix = String::with_capacity(namespace.len() + 1);
    for id in namespace.split_inclusive(char::is_control) {
        let (kind, name) = id.split_at(id.find('/').unwrap_or(id.len()));
        prefix.extend(kind.chars().filter(|c| *c != '_'));
        prefix.push_str(name);
    }
    prefix.push('\0');
    prefix
}

struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, v: u64) -> &mut Writer {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    fn bytes(&mut self, b: &[u8]) -> &mut Writer {
        let b = &b[..b.len().min(u16::MAX as usize)];
        self.0.extend_from_slice(&(b.len() as u16).to_le_bytes());
        self.0.extend_from_slice(b);
        self
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], PositionError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(PositionError::Damaged)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, PositionError> {
        Ok(self.take(1)?[0])
    }

    fn u64(&mut self) -> Result<u64, PositionError> {
        let b = self.take(8)?;
        Ok(u64::from_le_bytes(
            b.try_into().expect("take(8) gives 8 bytes"),
        ))
    }

    fn bytes(&mut self) -> Result<&'a [u8], PositionError> {
        let b = self.take(2)?;
        self.take(usize::from(u16::from_le_bytes([b[0], b[1]])))
    }

    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, PositionError>,
    ) -> Result<Vec<T>, PositionError> {
        let n = self.u64()?;
        // Every item takes at least four bytes, so a damaged count cannot ask for much memory.
        if n > self.0.len() as u64 / 4 {
            return Err(PositionError::Damaged);
        }
        (0..n).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Position {
        Position {
            offset: 5,
            generation: 2,
            id: FileId {
                dev: 1,
                ino: 2,
                birth_ns: -3,
            },
            head: Head::of(b"abc"),
            trail: Trail::of(b"abcde"),
            records: 9,
            marks: Marks::from_entries(vec![(0, 10), (3, 20)]),
            ties: Ties {
                time_ns: 77,
                seen: vec![(1, 2)],
            },
            frame: vec![1, 2, 3],
            header: vec![("k".into(), "v".into())],
            header_done: true,
            gzip: true,
            complete: true,
            overwritten: true,
            surveyed: true,
            seen_ns: 99,
            path: "/var/log/x".into(),
        }
    }

    #[test]
    fn positions_survive_storage() {
        for p in [sample(), Position::default()] {
            assert_eq!(Position::decode(p.offset, p.generation, &p.encode()), Ok(p));
        }
    }

    #[test]
    fn both_spellings_of_a_receivers_type_have_the_same_keys() {
        assert_eq!(sample().key("file_log/a_b"), sample().key("filelog/a_b"));
        assert_ne!(sample().key("filelog/a_b"), sample().key("filelog/ab"));
        assert!(sample().key("filelog").starts_with(b"filelog\0"));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let bytes = sample().encode();
        for n in 0..bytes.len() {
            assert!(Position::decode(0, 0, &bytes[..n]).is_err(), "cut at {n}");
        }
        for i in 0..bytes.len() {
            let mut b = bytes.clone();
            b[i] ^= 0xff;
            let _ = Position::decode(0, 0, &b);
        }
        assert_eq!(Position::decode(0, 0, &[9]), Err(PositionError::Version(9)));
    }
}
