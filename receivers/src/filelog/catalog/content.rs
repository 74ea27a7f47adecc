//! What is in a file, and whether it is the content of another one that was read before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::gzip_reader::GzipFile;
use super::super::hash::stable_hash;
use super::super::holes::hole_bytes;
use super::super::identity::{
    Found, Head, Known, Likeness, TRAIL_BYTES, Trail, Verdict, judge, likeness,
};
use super::super::logfs::{FileId, LogFile, Meta};
use super::super::position::Position;
use super::memory::bases;
use super::{Catalog, GzipRule, TICK_NS};

/// Where file systems have no birth times, smaller files may be equal by chance: they are read rather
/// than taken for copies.
const DOUBLE_BYTES_MIN: u64 = 4096;

/// So much behind a position is looked at whether it is blank; what is behind that has to be a hole.
const BLANK_BYTES: usize = 64 << 10;

/// An open file and its content.
pub(super) struct Opened {
    pub(super) file: Box<dyn LogFile>,
    /// The same as it is on the disk.
    pub(super) handle: Arc<dyn LogFile>,
    pub(super) meta: Meta,
    pub(super) gzip: bool,
    pub(super) head: Vec<u8>,
    /// Bytes of content; `u64::MAX` if only reading it tells.
    pub(super) size: u64,
    /// Bytes of content, if it can be told without reading it: for gzip what the last member says
    /// (RFC 1952, ISIZE), which is right for a file of one member below 4 GiB.
    pub(super) told_size: Option<u64>,
}

/// Where a position comes from that was reached in the same content.
enum Origin {
    Remembered(FileId),
    Overwritten(PathBuf, usize),
}

/// The position that fits best so far.
struct Best {
    /// The file is just as long; more of it was to be read; how many bytes agree; lines of it may have
    /// been sent.
    rank: (bool, bool, u64, bool),
    likeness: Likeness,
    origin: Origin,
    known: Position,
}

/// What is known of the content of a file.
pub(super) enum Content {
    /// Nothing.
    Unknown,
    /// What would tell cannot be read now.
    Unreadable,
    /// This position was reached in it, and no other file holds it any more.
    Reached(Box<Position>),
    /// All of it was read, and more that the copy has not got.
    Read,
    /// Another file holds it too.
    Doubled,
}

impl Catalog {
    /// What is known of the content of `opened`, whose `start` this is, from files that were at
    /// `bases` or are rotated forms of them. `fresh`: it was just found, and is more likely to be a
    /// copy than to be equal by chance.
    pub(super) fn content(
        &mut self,
        opened: &Opened,
        start: &Position,
        bases: &[PathBuf],
        fresh: bool,
    ) -> Content {
        let mut best: Option<Best> = None;
        let mut cut_short = None;
        let mut candidates = Vec::new();
        for base in bases {
            let overwritten = self.memory.overwritten_of(base).iter().enumerate();
            let origin = |i| Origin::Overwritten(base.clone(), i);
            candidates.extend(overwritten.map(|(i, p)| (origin(i), p.clone())));
            let remembered = self.memory.that_begin(base, &opened.head);
            let remembered = remembered.filter(|p| p.id != start.id);
            candidates.extend(remembered.map(|p| (Origin::Remembered(p.id), p.clone())));
        }
        for (origin, p) in candidates {
            let Ok(likeness) = opened.told_likeness(&p.known()) else {
                return Content::Unreadable;
            };
            if likeness == Likeness::None && !p.overwritten {
                continue;
            }
            let original = match origin {
                Origin::Remembered(id) => self.find(id, &p.path),
                Origin::Overwritten(..) => None,
            };
            if let Some(original) = original {
                // An error says nothing about what is there.
                match self.doubles(opened, &p, &original, fresh) {
                    Ok(Some(true)) => return Content::Doubled,
                    // The original has lost its end.
                    Ok(Some(false)) if likeness == Likeness::Holds && !p.complete => {
                        return Content::Reached(Box::new(resumed(&p, start)));
                    }
                    Ok(Some(false)) => continue,
                    Ok(None) => {}
                    Err(_) => return Content::Unreadable,
                }
            }
            // What is written between copying and truncating is not in the copy.
            let is_copy = p.overwritten && p.id != start.id;
            if is_copy && opened.is_shorter_than_read(&p) && !self.has_copy(&p) {
                cut_short.get_or_insert(origin);
                continue;
            }
            let whole = p.complete && opened.told_size == Some(p.offset);
            // The one of which more bytes agree; then the one of which lines may have been sent.
            let bytes = p.offset.max(u64::from(p.head.len));
            let rank = (whole, !p.complete, bytes, !p.marks.is_empty_at(p.offset));
            if likeness > Likeness::None && best.as_ref().is_none_or(|b| b.rank < rank) {
                best = Some(Best {
                    rank,
                    likeness,
                    origin,
                    known: p,
                });
            }
        }
        // What holds all that was read of some content is no part of another one; nor can what begins as
        // content of which not all was read be taken for read.
        let is_other = |b: &Best| b.likeness == Likeness::Holds || !b.known.complete;
        if let Some(origin) = cut_short
            && !best.as_ref().is_some_and(is_other)
        {
            self.give_up(origin);
            return Content::Read;
        }
        let Some(best) = best else {
            return Content::Unknown;
        };
        let Best {
            rank: (whole, ..),
            likeness,
            origin,
            known,
        } = best;
        self.give_up(origin);
        if whole || (likeness == Likeness::Holds && !known.complete) {
            return Content::Reached(Box::new(resumed(&known, start)));
        }
        // Too little is known to be sure. Read again with the same times, it does no harm.
        Content::Reached(Box::new(Position {
            marks: known.marks,
            ..start.clone()
        }))
    }

    /// The position `own` in the file whose `start` this is. Where nothing was sent of it under its
    /// identity, it may have been compressed, read then, and be back after a power cut.
    pub(super) fn resumed_where_known(
        &mut self,
        base: &Path,
        opened: &Opened,
        own: &Position,
        start: &Position,
    ) -> Position {
        let is_sent = |p: &Position| p.offset > 0 || !p.marks.is_empty_at(0);
        if own.gzip || is_sent(own) {
            return resumed(own, start);
        }
        let is_form = |p: &&Position| {
            let is_other = p.gzip && p.id != own.id && is_sent(p);
            let is_as_long = !p.complete || opened.told_size == Some(p.offset);
            is_other && is_as_long && opened.likeness(&p.known()) > Likeness::None
        };
        let forms = self.memory.of(base).filter(is_form);
        let form = forms.max_by_key(|p| (p.offset, p.id)).cloned();
        match form {
            Some(p) if self.find(p.id, &p.path).is_none() => {
                self.give_up(Origin::Remembered(p.id));
                let start = Position {
                    generation: own.generation,
                    ..start.clone()
                };
                resumed(&p, &start)
            }
            _ => resumed(own, start),
        }
    }

    /// Whether `opened` is a copy of what is in the file `original`, which `p` was reached in; `None` if
    /// there is other content in that by now.
    fn doubles(
        &self,
        opened: &Opened,
        p: &Position,
        original: &Path,
        fresh: bool,
    ) -> io::Result<Option<bool>> {
        let known = p.known();
        let held = self.open(original, p.gzip)?;
        match held.compare(&known) {
            Verdict::Rewritten | Verdict::Other => return Ok(None),
            Verdict::Same if held.holds_up_to(&known).is_none() => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Verdict::Same | Verdict::Shrunk => {}
        }
        let likely = fresh || opened.is_no_chance(held.meta.id);
        Ok(Some(likely && opened.is_part_of(&held)?))
    }

    /// Content is known under another identity from now on. If its file is still there, it holds
    /// other content.
    fn give_up(&mut self, origin: Origin) {
        let position = match origin {
            Origin::Overwritten(base, i) => self.memory.take_overwritten(&base, i),
            Origin::Remembered(id) => self.memory.take(id),
        };
        let Some(position) = position else {
            return;
        };
        if !position.overwritten && self.find(position.id, &position.path).is_some() {
            // A head of no bytes fits whatever is there now.
            self.memory.insert(position.anew(Head::default()));
        } else {
            self.note_given_up(position.id, position.generation, position.offset);
            self.superseded.push(position);
        }
    }

    /// True if a file beside the log holds all that was read of this content.
    fn has_copy(&mut self, p: &Position) -> bool {
        let siblings = self.siblings(&p.path, true).files;
        let opened = siblings
            .iter()
            .filter_map(|s| self.open(&s.path, true).ok());
        let known = p.known();
        opened
            .into_iter()
            .any(|o| o.likeness(&known) == Likeness::Holds)
    }

    /// Where the file `id` that was at `path` is now: there, or beside it under a rotated name.
    pub(super) fn find(&mut self, id: FileId, path: &Path) -> Option<PathBuf> {
        if self.fs.meta(path).is_ok_and(|m| m.id == id) {
            return Some(path.to_path_buf());
        }
        let (listings, fs, now) = (&mut self.listings, &*self.fs, self.now);
        let mut bases = bases(path).into_iter();
        bases.find_map(|base| listings.find(fs, &base, id, now))
    }

    /// True if the file of a position exists, by any name that rotation gives, and holds the content
    /// that the position was reached in.
    pub fn exists(&mut self, p: &Position) -> bool {
        self.find(p.id, &p.path)
            .is_some_and(|path| self.holds(p, &path))
    }

    /// True if the file at `path` still holds the content that `p` was read from.
    pub(super) fn holds(&self, p: &Position, path: &Path) -> bool {
        let Ok(opened) = self.open(path, p.gzip) else {
            return true;
        };
        matches!(opened.compare(&p.known()), Verdict::Same | Verdict::Shrunk)
    }

    /// Opens a file; `compressed`: content that is gzip is decompressed, whatever the rule.
    pub(super) fn open(&self, path: &Path, compressed: bool) -> io::Result<Opened> {
        self.opened(self.fs.open(path)?, compressed)
    }

    /// What is in an open file; see [`Catalog::open`].
    pub(super) fn opened(&self, file: Box<dyn LogFile>, compressed: bool) -> io::Result<Opened> {
        let file: Arc<dyn LogFile> = Arc::from(file);
        let meta = file.meta()?;
        let gzip = match self.rules.gzip {
            GzipRule::Never => compressed && is_gzip(&file)?,
            GzipRule::Always => true,
            GzipRule::Auto => is_gzip(&file)?,
        };
        let (mut size, mut told_size) = (meta.size, Some(meta.size));
        let mut content: Box<dyn LogFile> = Box::new(file.clone());
        if gzip {
            let mut last = Vec::new();
            file.read_whole_at(meta.size.saturating_sub(4), 4, &mut last)?;
            told_size = last
                .try_into()
                .ok()
                .map(|b| u64::from(u32::from_le_bytes(b)));
            size = u64::MAX;
            content = Box::new(GzipFile::new(content));
        }
        let mut head = Vec::new();
        match content.read_whole_at(0, self.rules.head_bytes, &mut head) {
            // Content that is damaged ends there.
            Err(e) if gzip && e.kind() == io::ErrorKind::InvalidData => {}
            read => drop(read?),
        }
        // Zeros behind a torn member, for example.
        if gzip && told_size.is_some_and(|told| told < head.len() as u64) {
            told_size = None;
        }
        Ok(Opened {
            file: content,
            handle: file,
            meta,
            gzip,
            head,
            size,
            told_size,
        })
    }
}

impl Opened {
    /// The position at its start.
    pub(super) fn start(&self, path: &Path) -> Position {
        Position {
            id: self.meta.id,
            head: Head::of(&self.head),
            gzip: self.gzip,
            path: path.into(),
            ..Position::default()
        }
    }

    /// The position at its start, where `known` is of other content of the same file.
    pub(super) fn anew(&self, known: &Position, start: &Position) -> Position {
        Position {
            gzip: self.gzip,
            ..known.anew(start.head)
        }
    }

    fn found(&self) -> Found<'_> {
        Found {
            id: self.meta.id,
            size: self.size,
            head: &self.head,
        }
    }

    pub(super) fn compare(&self, known: &Known) -> Verdict {
        judge(known, &self.found(), |o, l| self.trail_hash(o, l))
    }

    pub(super) fn likeness(&self, known: &Known) -> Likeness {
        likeness(known, &self.found(), |o, l| self.trail_hash(o, l))
    }

    /// True if it begins as what was read and ends before the position that was reached.
    pub(super) fn is_cut_short(&self, known: &Known) -> bool {
        self.told_size.is_some_and(|size| size < known.offset)
            && known.head.len > 0
            && known.head.starts(&self.head)
    }

    /// True if it begins as what was read, ends before the position that was reached, and was made
    /// before the truncation was noticed: a later one is a copy of later content.
    fn is_shorter_than_read(&self, p: &Position) -> bool {
        self.is_cut_short(&p.known()) && self.meta.mtime_ns <= p.seen_ns.saturating_add(TICK_NS)
    }

    /// True if it is not by chance that it is like the file `original`: it is large, or a plain file that
    /// is younger. One that was rotated away by its name is older than what took its place.
    pub(super) fn is_no_chance(&self, original: FileId) -> bool {
        let (own, theirs) = (self.meta.id.birth_ns, original.birth_ns);
        self.is_large() || (!self.gzip && theirs != 0 && own > theirs)
    }

    /// True if its size is not known to be such that files are equal by chance.
    pub(super) fn is_large(&self) -> bool {
        self.told_size.is_none_or(|s| s >= DOUBLE_BYTES_MIN)
    }

    /// True if all that is behind `offset` reads as NUL: room that nobody filled, which its reader leaves
    /// unread. `None` if that cannot be told now.
    pub(super) fn is_blank_from(&self, offset: u64) -> Option<bool> {
        if self.gzip {
            return Some(false);
        }
        let mut seen = Vec::new();
        let read = self.file.read_whole_at(offset, BLANK_BYTES, &mut seen);
        let end = offset + read.ok()? as u64;
        if seen.iter().any(|b| *b != 0) {
            return Some(false);
        }
        let left = self.size.saturating_sub(end);
        let hole = hole_bytes(&*self.file, end, 0);
        Some(left == 0 || hole.ok()? >= left)
    }

    /// True if `original` begins with this content, as far as its first and its last bytes tell.
    pub(super) fn is_part_of(&self, original: &Opened) -> io::Result<bool> {
        let size = self.told_size.unwrap_or(self.head.len() as u64);
        // The last bytes of compressed content cost its decompression.
        if !original.head.starts_with(&self.head) || size > original.size {
            return Ok(false);
        }
        let last = |of: &Opened| {
            let from = size.saturating_sub(TRAIL_BYTES as u64);
            let mut bytes = Vec::new();
            of.file
                .read_whole_at(from, (size - from) as usize, &mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        Ok(last(self)? == last(original)?)
    }

    /// As [`Opened::likeness`]; an error where that cannot be told now.
    fn told_likeness(&self, known: &Known) -> io::Result<Likeness> {
        let mut error = None;
        let trail = |offset, len| match self.read_trail(offset, len) {
            Ok(hash) => hash,
            Err(e) => {
                error = Some(e);
                None
            }
        };
        let likeness = likeness(known, &self.found(), trail);
        error.map_or(Ok(likeness), Err)
    }

    fn trail_hash(&self, offset: u64, len: u16) -> Option<u64> {
        self.read_trail(offset, len).ok().flatten()
    }

    /// Hashes `len` bytes before `offset`; `None` if compressed content ends before.
    pub(super) fn read_trail(&self, offset: u64, len: u16) -> io::Result<Option<u64>> {
        let mut buf = Vec::new();
        let Some(from) = offset.checked_sub(u64::from(len)) else {
            return Ok(None);
        };
        match self.file.read_whole_at(from, usize::from(len), &mut buf) {
            Ok(n) if n == usize::from(len) => Ok(Some(stable_hash(&buf))),
            // It was cut just now.
            Ok(_) if !self.gzip => Err(io::ErrorKind::Interrupted.into()),
            Err(e) if !self.gzip || e.kind() != io::ErrorKind::InvalidData => Err(e),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    pub(super) fn trail_at(&self, offset: u64) -> Trail {
        let mut last = Vec::new();
        let from = offset.saturating_sub(TRAIL_BYTES as u64);
        match self
            .file
            .read_whole_at(from, (offset - from) as usize, &mut last)
        {
            Ok(_) => Trail::of(&last),
            Err(_) => Trail::default(),
        }
    }
}

/// The position `known`, in the file that `now` is the start of.
pub(super) fn resumed(known: &Position, now: &Position) -> Position {
    Position {
        id: now.id,
        path: now.path.clone(),
        gzip: now.gzip,
        generation: if known.id == now.id {
            known.generation
        } else {
            now.generation
        },
        complete: false,
        overwritten: false,
        ..known.clone()
    }
}

fn is_gzip(file: &dyn LogFile) -> io::Result<bool> {
    let mut magic = Vec::new();
    file.read_whole_at(0, 2, &mut magic)?;
    Ok(magic == [0x1f, 0x8b])
}
