//! Which file on disk an imported entry is about, and our position for it.
//!
//! Files are rotated between the other agent's last save and the import. So an entry is looked for
//! among the files of today and their rotated neighbours, compressed ones included; a position that
//! belongs to a neighbour is stored under the neighbour's identity and the name of the live file, by
//! which the receiver finds it and reads the rest of it first.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::ImportedOffset;
use crate::filelog::discover::Discovery;
use crate::filelog::gzip::{Gunzip, is_gzip};
use crate::filelog::gzip_reader::GzipFile;
use crate::filelog::identity::{Head, TRAIL_BYTES, Trail, rotated_from};
use crate::filelog::logfs::{FileId, LogFile, LogFs, Meta};
use crate::filelog::position::Position;
use crate::input::frame::FrameState;

/// Bytes by which a file is recognised later, the receiver's default `fingerprint_size`. It is
/// stored with the position, so another size in the receiver does no harm.
const HEAD_BYTES: usize = 1000;

/// What became of one entry.
#[derive(Debug)]
pub struct Claim {
    /// The file, or `?` if there is none.
    pub path: PathBuf,
    /// What the other agent had read, as it counted.
    pub offset: u64,
    /// What to store, or why nothing is.
    pub outcome: Result<Position, String>,
}

/// A file of today.
pub(super) struct Candidate {
    pub path: PathBuf,
    /// The name the receiver knows it by: of the live file, if this is a rotated neighbour.
    pub live: PathBuf,
    pub meta: Meta,
    /// Begins like gzip.
    pub gzip: bool,
    /// First bytes of the content, decompressed.
    pub head: Vec<u8>,
}

impl Candidate {
    /// `None` if it cannot be read: it is gone, or is no file.
    pub fn at(
        path: PathBuf,
        live: PathBuf,
        head_bytes: usize,
        fs: &dyn LogFs,
    ) -> Option<Candidate> {
        let file = fs.open(&path).ok()?;
        let (meta, mut head) = (file.meta().ok()?, Vec::new());
        file.read_at(0, head_bytes.max(16), &mut head).ok()?;
        let gzip = is_gzip(&head);
        if gzip {
            head.clear();
            GzipFile::new(file).read_at(0, head_bytes, &mut head).ok()?;
        }
        Some(Candidate {
            path,
            live,
            meta,
            gzip,
            head,
        })
    }

    /// Its content.
    pub fn open(&self, fs: &dyn LogFs) -> io::Result<Box<dyn LogFile>> {
        let file = fs.open(&self.path)?;
        Ok(if self.gzip {
            Box::new(GzipFile::new(file))
        } else {
            file
        })
    }

    /// The position at `offset` of the content; `None` if there is less of it.
    pub fn position(&self, offset: u64, file: &dyn LogFile) -> io::Result<Option<Position>> {
        let from = offset.saturating_sub(TRAIL_BYTES as u64);
        let (want, mut trail, mut head) = ((offset - from) as usize, Vec::new(), Vec::new());
        if file.read_at(from, want, &mut trail)? < want {
            return Ok(None);
        }
        let head_bytes = HEAD_BYTES.min(usize::try_from(offset).unwrap_or(HEAD_BYTES));
        file.read_at(0, head_bytes, &mut head)?;
        Ok(Some(Position {
            offset,
            id: self.meta.id,
            head: Head::of(&head),
            trail: Trail::of(&trail),
            gzip: self.gzip,
            path: self.live.as_path().into(),
            ..Position::default()
        }))
    }
}

/// Finds the files of the collector's entries among those that `finder` finds and their rotated
/// neighbours. It knew files by their first bytes; among files that begin alike the name decides
/// that it stored with the entry.
pub fn claim_offsets(entries: &[ImportedOffset], finder: &Discovery, fs: &dyn LogFs) -> Vec<Claim> {
    let lengths = entries.iter().map(|e| e.fingerprint_first_bytes.len());
    let candidates = candidates(finder, lengths.max().unwrap_or(0), fs);
    // A long fingerprint tells more than a short one, which may be the beginning of many.
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(entries[*i].fingerprint_first_bytes.len()));
    let mut taken = HashSet::new();
    let mut claims: Vec<Option<Claim>> = entries.iter().map(|_| None).collect();
    for i in order {
        claims[i] = Some(claim_offset(&entries[i], &candidates, &mut taken, fs));
    }
    claims.into_iter().flatten().collect()
}

fn claim_offset(
    entry: &ImportedOffset,
    candidates: &[Candidate],
    taken: &mut HashSet<FileId>,
    fs: &dyn LogFs,
) -> Claim {
    let mut fitting: Vec<(&Candidate, Position)> = Vec::new();
    let (mut alike, mut problem) = (0, None);
    for c in candidates {
        if taken.contains(&c.meta.id) || !c.head.starts_with(&entry.fingerprint_first_bytes) {
            continue;
        }
        alike += 1;
        let position = |offset| c.position(offset, &*c.open(fs)?);
        match content_offset(entry, c, fs).and_then(position) {
            Ok(Some(position)) => fitting.push((c, position)),
            Ok(None) => {}
            Err(e) => problem = Some(format!("{}: {e}", c.path.display())),
        }
    }
    if fitting.len() > 1 {
        let named: Vec<bool> = fitting.iter().map(|(c, _)| is_named(entry, c)).collect();
        if named.iter().filter(|n| **n).count() == 1 {
            let mut named = named.into_iter();
            fitting.retain(|_| named.next() == Some(true));
        }
    }
    let claim = |path: &Path, outcome| Claim {
        path: path.to_path_buf(),
        offset: entry.offset,
        outcome,
    };
    let fits = fitting.len();
    match (&mut fitting[..], alike) {
        ([(c, position)], _) => {
            taken.insert(c.meta.id);
            let mut position = std::mem::take(position);
            position.records = entry.record_number;
            position.header_done = entry.header_done;
            position.header = header_of(entry);
            if entry.skips_line {
                position.frame = FrameState::in_skipped_line().encode();
            }
            claim(&c.path, Ok(position))
        }
        ([], 0) => claim(Path::new("?"), Err("no file begins like it".to_owned())),
        ([], _) => {
            let why = "the files that begin like it are shorter than what was read".to_owned();
            claim(Path::new("?"), Err(problem.unwrap_or(why)))
        }
        ([(first, _), ..], _) => {
            let why = format!("{fits} files begin alike; it is not clear which");
            claim(&first.path, Err(why))
        }
    }
}

/// True if the entry's attributes name this file.
fn is_named(entry: &ImportedOffset, c: &Candidate) -> bool {
    let text = |keys: [&str; 2]| {
        let value = keys.iter().find_map(|key| entry.attributes.get(*key));
        value.and_then(serde_json::Value::as_str).map(Path::new)
    };
    match text(["log.file.path", "Path"]) {
        Some(path) => path == c.path,
        None => match text(["log.file.name", "Name"]) {
            Some(name) => c.path.file_name() == Some(name.as_os_str()),
            None => false,
        },
    }
}

/// What the entry's offset is in content. Of a file that it read as gzip, the collector counted
/// compressed bytes: all of them up to there are read.
fn content_offset(entry: &ImportedOffset, c: &Candidate, fs: &dyn LogFs) -> io::Result<u64> {
    let was_gzip = entry.file_type == ".gz" || entry.offset == c.meta.size;
    if !c.gzip || !was_gzip {
        return Ok(entry.offset);
    }
    inflated_bytes(&*fs.open(&c.path)?, entry.offset)
}

/// How many bytes the first `end` bytes of a gzip file become.
fn inflated_bytes(file: &dyn LogFile, end: u64) -> io::Result<u64> {
    const STEP: usize = 64 << 10;
    let (mut gunzip, mut at, mut total) = (Gunzip::default(), 0u64, 0u64);
    let (mut input, mut out) = (Vec::with_capacity(STEP), Vec::with_capacity(STEP));
    loop {
        input.clear();
        out.clear();
        let want = usize::try_from(end - at).unwrap_or(STEP).min(STEP);
        file.read_at(at, want, &mut input)?;
        let used = gunzip
            .push(&input, &mut out, STEP)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        at += used as u64;
        total += out.len() as u64;
        if used == 0 && out.is_empty() {
            return Ok(total);
        }
    }
}

/// What the header said of the file: attributes that are none of the file's own.
fn header_of(entry: &ImportedOffset) -> Vec<(String, String)> {
    if !entry.header_done {
        return Vec::new();
    }
    let own = ["Name", "Path", "NameResolved", "PathResolved"];
    let header = entry.attributes.iter();
    let header = header.filter(|(k, _)| !k.starts_with("log.file.") && !own.contains(&k.as_str()));
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    header.map(|(k, v)| (k.clone(), text(v))).collect()
}

/// The files of today, each once, with their rotated neighbours.
fn candidates(finder: &Discovery, head_bytes: usize, fs: &dyn LogFs) -> Vec<Candidate> {
    let scan = finder.scan(fs, 0);
    let mut known: HashSet<FileId> = HashSet::new();
    let mut out = Vec::new();
    for f in scan.files {
        // Links to one file are one file.
        if known.insert(f.meta.id) {
            out.extend(Candidate::at(f.path.clone(), f.path, head_bytes, fs));
        }
    }
    for dir in &scan.dirs {
        let Ok(mut names) = fs.names(dir) else {
            continue;
        };
        names.sort();
        for name in names {
            let (path, text) = (dir.join(&name), name.to_string_lossy());
            let bases = rotated_from(&text);
            let live = bases.iter().map(|base| dir.join(base));
            let Some(live) = live.into_iter().find(|p| finder.matches(p)) else {
                continue;
            };
            let is_new = fs.meta(&path).is_ok_and(|m| known.insert(m.id));
            if is_new {
                out.extend(Candidate::at(path, live, head_bytes, fs));
            }
        }
    }
    out
}

/// The bytes of the file at `path`, at most `max` of them.
///
/// # Errors
/// It is no regular file, is larger, or cannot be read.
pub fn read_bounded(path: &Path, max: u64, fs: &dyn LogFs) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    let size = file.meta()?.size;
    if size > max {
        let text = format!("it has {size} bytes; at most {max} are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let mut bytes = Vec::new();
    // One byte more than there were shows a file that grows meanwhile.
    let mut left = usize::try_from(size)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    while left > 0 {
        let n = file.read_at(bytes.len() as u64, left.min(1 << 20), &mut bytes)?;
        if n == 0 {
            break;
        }
        left -= n;
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
