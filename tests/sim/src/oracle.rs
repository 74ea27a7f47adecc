//! Knows which lines were written, which are still there, and which arrived.

use std::collections::{BTreeMap, BTreeSet};

use tailwater_pipeline::clock::Mono;
use tailwater_testkit::loki::model::ModelEntry;

use crate::disk::{Disk, Node, Uid};
use crate::lines::{Format, LineId, id_of, physical_id, written};
use crate::world::START_NS;

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// How it was written.
    pub format: Format,
    /// When it was complete.
    pub written: Option<Mono>,
    /// When the last copy of it was destroyed.
    pub gone: Option<Mono>,
    /// A power cut took a part of a file that it was in.
    pub shaken: bool,
    /// It was under way while positions could not be saved.
    unsaved: bool,
    /// Loki refused it for good, and said so.
    pub refused: bool,
    /// Times with which it is visible in Loki.
    pub times: Vec<i64>,
    /// Loki stored later ones without it, or nothing after it while it was there to be read.
    passed: bool,
    /// Some of its pieces were destroyed when it had arrived: if it is read again, the others are lines by
    /// themselves.
    halved: bool,
    /// Its pieces that arrived apart, a bit each.
    apart: u8,
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Violation {
    /// A line that could be read did not arrive and is in no counted drop.
    Lost(LineId),
    /// A line is visible more than once, with these times.
    Repeated(LineId, Vec<i64>),
    /// What arrived is no line of anybody.
    Damaged(String),
    /// A line arrived before an earlier one of its stream.
    Disordered {
        /// The line.
        id: LineId,
        /// What had arrived already.
        after: LineId,
    },
    /// The time of a line is not the one it carries.
    WrongTime(LineId, i64),
    /// The account does not add up, or says something else than what Loki was sent and answered.
    Account(String),
    /// Some of it panicked.
    Panic(String),
    /// The agent does not catch up, although nothing is wrong.
    Stuck(String),
    /// The agent does not start.
    NoStart(String),
}

/// See the module's documentation.
#[derive(Default)]
pub struct Oracle {
    /// Every line that was begun, by writer.
    lines: BTreeMap<u16, Vec<Line>>,
    /// Lines that are there and did not arrive.
    pub missing: BTreeSet<LineId>,
    /// What was found wrong so far.
    pub violations: Vec<Violation>,
    /// Pieces of lines that power cuts left in files.
    pub(crate) fragments: Vec<Vec<u8>>,
    /// Lines that arrived and are none, to be looked for among the fragments.
    strays: Vec<Vec<u8>>,
    /// The newest line that arrived of each writer.
    newest: BTreeMap<u16, LineId>,
    /// Writers of whom this life of the agent sent something.
    pub fresh: BTreeSet<u16>,
    /// Writers whose logs the agent knows, whatever happens to it. What is rotated before that
    /// counts as read when it starts for the first time.
    pub known: BTreeSet<u16>,
    /// Writers whose lines may come out of order.
    pub unordered: BTreeSet<u16>,
    /// Writers whose lines may come again with other times: without birth times, the position of a
    /// file is lost when another one gets its inode, and a compressed copy is not recognised by it.
    pub repeating: BTreeSet<u16>,
    /// Files may not be readable for a time: then the pieces of a line may arrive apart.
    pub pieces_apart: bool,
    /// What Loki refuses behind a success cannot be known: it has other limits than configured.
    pub hidden_excused: bool,
    /// A power cut took a part of a compressed file, which may be nothing that can be told from
    /// text.
    pub(crate) torn_gzip: bool,
    /// Positions cannot be saved: what is sent now may come again with other times.
    pub unsaved: bool,
}

/// A line that is joined from more fragments than this is damaged by who read it.
const JOINED_FRAGMENTS_MAX: usize = 3;

impl Oracle {
    /// A line is begun. Each writer begins its lines in their order.
    pub fn planned(&mut self, (writer, _): LineId, format: Format) {
        let line = Line {
            format,
            written: None,
            gone: None,
            shaken: false,
            unsaved: false,
            refused: false,
            times: Vec::new(),
            passed: false,
            halved: false,
            apart: 0,
        };
        self.lines.entry(writer).or_default().push(line);
    }

    /// A line.
    pub fn line(&self, (writer, seq): LineId) -> Option<&Line> {
        self.lines.get(&writer)?.get(seq as usize)
    }

    /// A line.
    pub fn line_mut(&mut self, (writer, seq): LineId) -> Option<&mut Line> {
        self.lines.get_mut(&writer)?.get_mut(seq as usize)
    }

    /// All lines that were begun.
    pub fn lines(&self) -> impl Iterator<Item = (LineId, &Line)> {
        self.lines.iter().flat_map(|(writer, lines)| {
            let numbered = lines.iter().enumerate();
            numbered.map(|(seq, line)| ((*writer, seq as u32), line))
        })
    }

    /// What there is of a line cannot be told from what it follows, or is not there any more.
    pub fn taint(&mut self, id: LineId, now: Mono) {
        // A power cut may bring it back, when lines after it have arrived.
        let is_newest = self.newest.get(&id.0).is_none_or(|newest| *newest < id);
        if let Some(line) = self.line_mut(id) {
            if line.gone.is_none() && line.times.is_empty() {
                line.passed |= is_newest;
            }
            line.gone.get_or_insert(now);
            self.missing.remove(&id);
        }
    }

    /// A line is complete.
    pub fn written(&mut self, id: LineId, now: Mono) {
        if let Some(line) = self.line_mut(id) {
            line.written = Some(now);
            if line.times.is_empty() && line.gone.is_none() {
                self.missing.insert(id);
            }
        }
    }

    /// The line that this is.
    fn whole(&self, bytes: &[u8]) -> Option<LineId> {
        let (id, _) = id_of(bytes)?;
        let whole = written(id, self.line(id)?.format)?;
        (whole.text == bytes).then_some(id)
    }

    /// Loki stored an entry, maybe once more. `alive`: its sender lives. `unsaved`: it was sent
    /// while positions could not be saved.
    pub fn arrived(&mut self, ts_ns: i64, bytes: &[u8], alive: bool, unsaved: bool) {
        let Some(id) = self.whole(bytes) else {
            return self.arrived_apart(bytes);
        };
        let unsaved = unsaved || self.unsaved;
        let Some(line) = self.line_mut(id) else {
            return;
        };
        line.unsaved |= unsaved;
        let (first, passed) = (line.times.is_empty(), line.passed);
        if !line.times.contains(&ts_ns) {
            line.times.push(ts_ns);
        }
        let own = written(id, line.format).map_or(0, |w| w.time_ns);
        // A power cut may take the time and leave the text.
        let intact = line.gone.is_none() && !line.shaken;
        if line.format.is_cri() && ts_ns != own && intact {
            self.violations.push(Violation::WrongTime(id, ts_ns));
        }
        if alive {
            self.fresh.insert(id.0);
        }
        if !first {
            return;
        }
        self.missing.remove(&id);
        if own < START_NS {
            // A request is in the order of times.
            return;
        }
        let newest = self.newest.entry(id.0).or_insert(id);
        if *newest > id {
            let after = *newest;
            // What was under way when its sender died may be stored whenever the network likes.
            if alive && !passed && !self.unordered.contains(&id.0) {
                self.violations.push(Violation::Disordered { id, after });
            }
        } else {
            *newest = id;
        }
    }

    /// Something arrived that is no line: pieces, in a world in which they may come apart, or not.
    fn arrived_apart(&mut self, bytes: &[u8]) {
        // Whose end is gone is joined with what comes next: no reader can tell.
        let is_gone = |id| self.line(id).is_some_and(|l| l.gone.is_some() || l.halved);
        let may_be = |p: &Vec<(LineId, usize)>| self.pieces_apart || p.iter().any(|p| is_gone(p.0));
        let pieces = pieces_of(bytes).filter(may_be);
        let Some(pieces) = pieces else {
            if let Some(id) = self.swallowed(bytes) {
                self.missing.remove(&id);
            }
            self.strays.push(bytes.to_vec());
            return;
        };
        for (id, piece) in pieces {
            let Some(line) = self.line_mut(id) else {
                continue;
            };
            line.apart |= 1 << piece;
            let all = written(id, line.format).map_or(0, |w| (1 << w.physical.len()) - 1);
            if line.apart == all {
                self.missing.remove(&id);
            }
        }
    }

    /// The line that was taken for the end of one that a power cut tore: whatever was between them may
    /// be gone by the time that they are read.
    fn swallowed(&self, bytes: &[u8]) -> Option<LineId> {
        let at = (1..bytes.len()).filter(|i| matches!(bytes[*i], b'w' | b'#'));
        let whole = |at: usize| Some((at, self.whole(&bytes[at..])?));
        let (at, id) = at.filter_map(whole).next()?;
        (self.is_container(id) && self.is_torn(&bytes[..at])).then_some(id)
    }

    /// Loki stored a part of a request. What it left out of a stream cannot come in its order.
    pub fn stored_in_part(&mut self, stored: &[ModelEntry], refused: &[ModelEntry]) {
        for (_, bytes) in refused {
            let Some(id) = self.whole(bytes) else {
                continue;
            };
            let later = |e: &ModelEntry| id_of(&e.1).is_some_and(|(s, _)| s.0 == id.0 && s > id);
            if let Some(line) = self.line_mut(id) {
                line.passed |= stored.iter().any(later);
            }
        }
    }

    /// Loki refused these entries for good, and told the agent `status`.
    pub fn refused(&mut self, entries: &[ModelEntry], status: u16) {
        // A success that hides a refusal is none.
        if status == 204 && !self.hidden_excused {
            return;
        }
        for (_, bytes) in entries {
            if let Some(id) = self.whole(bytes) {
                self.missing.remove(&id);
                if let Some(line) = self.line_mut(id) {
                    line.refused = true;
                    // Its sender was told that it is stored, and sends what comes after it. If a power
                    // cut makes it read the line again, nobody can put it back before that.
                    line.passed |= status == 204;
                }
            } else {
                self.arrived_apart(bytes);
            }
        }
    }

    /// All positions are on disk.
    pub fn saved(&mut self) {
        self.known.extend(&self.fresh);
        self.unsaved = false;
    }

    /// Content was destroyed: which lines are not there any more?
    pub fn destroyed(&mut self, content: &[Vec<u8>], disk: &Disk, now: Mono) {
        let pieces = content.iter().flat_map(|c| pieces_in(c));
        let matters = |(id, _): &(LineId, usize)| self.is_open(*id) || self.is_split(*id);
        let pieces: Vec<(LineId, usize)> = pieces.filter(matters).collect();
        if pieces.is_empty() {
            return;
        }
        let there = present(disk);
        for (id, piece) in pieces {
            if there.contains(&(id, piece)) {
                continue;
            }
            if self.is_open(id) {
                self.taint(id, now);
            } else if let Some(line) = self.line_mut(id) {
                line.halved = true;
            }
        }
    }

    /// True if the line has several pieces.
    fn is_split(&self, id: LineId) -> bool {
        let format = self.line(id).map(|l| l.format).filter(|f| f.is_cri());
        let line = format.and_then(|f| written(id, f));
        line.is_some_and(|w| w.physical.len() > 1)
    }

    /// True if nobody knows yet what becomes of the line.
    fn is_open(&self, id: LineId) -> bool {
        let line = self.line(id);
        line.is_some_and(|l| l.times.is_empty() && l.gone.is_none() && !l.refused)
    }

    /// As [`Oracle::destroyed`], where anything may be.
    pub(crate) fn recheck(&mut self, disk: &Disk, now: Mono) {
        let there = present(disk);
        let open = self
            .lines()
            .map(|(id, _)| id)
            .filter(|id| self.is_open(*id));
        let whole = |id: &LineId| {
            let format = self.line(*id).map_or(Format::Plain, |l| l.format);
            let pieces = written(*id, format).map_or(0, |w| w.physical.len());
            (0..pieces).all(|piece| there.contains(&(*id, piece)))
        };
        let gone: Vec<LineId> = open.filter(|id| !whole(id)).collect();
        for id in gone {
            self.taint(id, now);
        }
        // What nobody had but who had it open is gone with that.
        for (writer, lines) in &mut self.lines {
            let lines = lines.iter_mut().enumerate();
            for (seq, line) in lines.filter(|(_, line)| line.format.is_cri()) {
                let id = (*writer, seq as u32);
                let pieces = written(id, line.format).map_or(0, |w| w.physical.len());
                let left = (0..pieces).filter(|piece| there.contains(&(id, *piece)));
                let left = left.count();
                line.halved |= left > 0 && left < pieces;
            }
        }
    }

    /// True if this is joined from pieces, one of which a power cut tore.
    fn is_torn(&self, stray: &[u8]) -> bool {
        let text = String::from_utf8_lossy(stray);
        // Decoders differ in how much they give of what is damaged.
        let begins = id_of(stray).is_some_and(|(id, _)| self.line(id).is_some());
        if self.torn_gzip && (begins || text.contains(|c: char| !c.is_ascii_graphic() && c != ' '))
        {
            return true;
        }
        let torn = |id: &LineId| {
            let line = self.line(*id);
            line.is_some_and(|l| l.shaken || l.gone.is_some() || l.written.is_none())
        };
        let at = (0..stray.len()).filter(|i| matches!(stray[*i], b'w' | b'#'));
        let ids = at.filter_map(|i| id_of(&stray[i..]));
        ids.into_iter().any(|(id, _)| torn(&id))
    }

    /// True if this is what is left of a line, or is joined from what is left of a few pieces.
    fn is_made_of_fragments(&self, stray: &[u8]) -> bool {
        let mut rest = stray;
        for _ in 0..JOINED_FRAGMENTS_MAX {
            let longest = self.fragments.iter().map(|f| longest_begin_in(rest, f));
            rest = &rest[longest.max().unwrap_or(0)..];
            if rest.is_empty() {
                return true;
            }
        }
        false
    }

    /// What is wrong at the end.
    pub fn verdict(&mut self) -> Vec<Violation> {
        let mut out = std::mem::take(&mut self.violations);
        out.extend(self.missing.iter().map(|id| Violation::Lost(*id)));
        for (id, line) in self.lines() {
            let excused = line.shaken || line.unsaved || self.repeating.contains(&id.0);
            if line.times.len() > 1 && !excused {
                out.push(Violation::Repeated(id, line.times.clone()));
            }
        }
        for stray in &self.strays {
            if !self.is_made_of_fragments(stray) && !self.is_torn(stray) {
                let text = String::from_utf8_lossy(stray);
                out.push(Violation::Damaged(text.chars().take(160).collect()));
            }
        }
        out.sort();
        out.dedup();
        out
    }
}

/// Bytes that `text` begins with and that `fragment` holds somewhere.
fn longest_begin_in(text: &[u8], fragment: &[u8]) -> usize {
    let alike = |at: usize| {
        let both = text.iter().zip(&fragment[at..]);
        both.take_while(|(a, b)| a == b).count()
    };
    (0..fragment.len()).map(alike).max().unwrap_or(0)
}

/// Every file of logs, with a name or open.
pub(crate) fn log_files(disk: &Disk) -> Vec<Uid> {
    let is_file = |uid: &Uid| {
        let i = &disk.inodes[*uid];
        i.is_log && !i.freed && i.node == Node::File
    };
    (0..disk.inodes.len()).filter(is_file).collect()
}

/// Every piece of a line that is in some content.
pub(crate) fn pieces_in(data: &[u8]) -> Vec<(LineId, usize)> {
    // Only what a line end follows is a line.
    let end = data.iter().rposition(|b| *b == b'\n').unwrap_or(0);
    let lines = data[..end].split(|b| *b == b'\n');
    lines.filter_map(physical_id).collect()
}

/// The files that hold a piece of a line, and their inodes.
pub(crate) fn holders(disk: &Disk, id: LineId) -> Vec<(Uid, u64)> {
    let holds = |uid: &Uid| {
        let pieces = pieces_in(disk.inodes[*uid].content());
        pieces.iter().any(|(of, _)| *of == id)
    };
    let files = log_files(disk).into_iter().filter(holds);
    files.map(|uid| (uid, disk.inodes[uid].ino)).collect()
}

/// Every piece of a line that is in some file.
fn present(disk: &Disk) -> BTreeSet<(LineId, usize)> {
    let content = |uid: Uid| disk.inodes[uid].content();
    let files = log_files(disk).into_iter();
    files.flat_map(|uid| pieces_in(content(uid))).collect()
}

/// The pieces that a text is joined from, if it is nothing else.
fn pieces_of(mut text: &[u8]) -> Option<Vec<(LineId, usize)>> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let (id, piece) = id_of(text)?;
        let line = written(id, Format::Cri)?.physical.get(piece)?;
        let body = line.splitn(4, |b| *b == b' ').nth(3)?;
        text = text.strip_prefix(body)?;
        found.push((id, piece));
    }
    Some(found)
}
