//! Knows which lines were written, which are still there, and which arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tailwater_pipeline::clock::Mono;

use crate::disk::{Disk, Node};
use crate::lines::{Format, LineId, id_of, physical, physical_id, text, time_ns};
use crate::world::LOG_DIR;

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
    /// Times with which it is visible in Loki.
    pub times: Vec<i64>,
    /// The entries as they arrived: stream, and number of the arrival.
    pub first: Option<u64>,
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
    /// The account does not add up.
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
    /// Every line that was begun.
    pub lines: BTreeMap<LineId, Line>,
    /// Lines that are there and did not arrive.
    pub missing: BTreeSet<LineId>,
    /// What was found wrong so far.
    pub violations: Vec<Violation>,
    /// Pieces of lines that power cuts left in files.
    pub fragments: Vec<Vec<u8>>,
    /// Lines that arrived and are none, to be looked for among the fragments.
    strays: Vec<Vec<u8>>,
    /// The newest line that arrived of each writer.
    newest: BTreeMap<u16, LineId>,
    arrivals: u64,
    /// Writers of whom this life of the agent sent something.
    pub fresh: BTreeSet<u16>,
    /// Writers whose logs the agent knows, whatever happens to it. What is rotated before that
    /// counts as read when it starts for the first time.
    pub known: BTreeSet<u16>,
    /// Writers whose lines may come out of order.
    pub unordered: BTreeSet<u16>,
    /// A power cut took a part of a compressed file, which may be nothing that can be told from text.
    torn_gzip: bool,
    /// Positions could not be saved at some time: what was sent then may come again with other
    /// times.
    pub unsaved: bool,
}

impl Oracle {
    /// A line is begun.
    pub fn planned(&mut self, id: LineId, format: Format) {
        let line = Line {
            format,
            written: None,
            gone: None,
            shaken: false,
            times: Vec::new(),
            first: None,
        };
        self.lines.insert(id, line);
    }

    /// A line follows what a power cut left of a container's line: the two are read as one.
    pub fn taint(&mut self, id: LineId, now: Mono) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.gone = Some(now);
        }
    }

    /// A line is complete.
    pub fn written(&mut self, id: LineId, now: Mono) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.written = Some(now);
            if line.times.is_empty() && line.gone.is_none() {
                self.missing.insert(id);
            }
        }
    }

    /// Loki stored an entry, maybe once more. `alive`: its sender lives.
    pub fn arrived(&mut self, ts_ns: i64, bytes: &[u8], alive: bool) {
        self.arrivals += 1;
        let id = id_of(bytes).map(|(id, _)| id);
        let known = id.and_then(|id| Some((id, self.lines.get_mut(&id)?)));
        let Some((id, line)) = known.filter(|(id, l)| text(*id, l.format).as_bytes() == bytes)
        else {
            self.strays.push(bytes.to_vec());
            return;
        };
        if line.format == Format::Cri && ts_ns != time_ns(id) && line.gone.is_none() {
            self.violations.push(Violation::WrongTime(id, ts_ns));
        }
        if alive {
            self.fresh.insert(id.0);
        }
        if !line.times.contains(&ts_ns) {
            line.times.push(ts_ns);
        }
        if line.first.is_some() {
            return;
        }
        line.first = Some(self.arrivals);
        self.missing.remove(&id);
        let newest = self.newest.entry(id.0).or_insert(id);
        if *newest > id {
            let after = *newest;
            // What was under way when its sender died may be stored whenever the network likes.
            if alive && !self.unordered.contains(&id.0) {
                self.violations.push(Violation::Disordered { id, after });
            }
        } else {
            *newest = id;
        }
    }

    /// All positions are on disk.
    pub fn saved(&mut self) {
        self.known.extend(&self.fresh);
    }

    /// Content was destroyed: which lines are not there any more?
    pub fn recheck(&mut self, disk: &Disk, now: Mono) {
        let there = present(disk, &self.lines);
        let gone: Vec<LineId> = self
            .missing
            .iter()
            .copied()
            .filter(|id| !whole(id, &self.lines, &there))
            .collect();
        for id in gone {
            self.missing.remove(&id);
            if let Some(line) = self.lines.get_mut(&id) {
                line.gone = Some(now);
            }
        }
    }

    /// The power failed: files may have lost their ends. `before` is what inodes held.
    pub fn power_cut(&mut self, disk: &mut Disk, before: &[Vec<u8>], now: Mono) {
        for (uid, before) in before.iter().enumerate() {
            // What follows a position may be other content now, so the file is read again as a
            // whole; lines without a time of their own get another one.
            if !disk.inodes[uid].data.starts_with(before) {
                for (id, _) in pieces_in(before) {
                    if let Some(line) = self.lines.get_mut(&id) {
                        line.shaken = true;
                    }
                }
            }
        }
        for uid in log_files(disk) {
            let inode = &mut disk.inodes[uid];
            if inode.plain.is_some() {
                let mut plain = Vec::new();
                // What is damaged is read as far as it goes.
                let _ = MultiGzDecoder::new(&inode.data[..]).read_to_end(&mut plain);
                // The plain file may be back beside it. Small ones are read rather than taken for copies.
                for (id, _) in pieces_in(&plain) {
                    if let Some(line) = self.lines.get_mut(&id) {
                        line.shaken = true;
                    }
                }
                self.torn_gzip |= before.get(uid).is_none_or(|b| *b != inode.data);
                inode.plain = Some(plain);
            }
            let data = inode.plain.as_ref().unwrap_or(&inode.data);
            let mut open = None;
            for line in data.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                let formats = [Format::Plain, Format::Cri].into_iter();
                let Some((id, piece)) = formats.filter_map(|f| physical_id(line, f)).next() else {
                    self.fragments.push(line.to_vec());
                    // It may look like the beginning of a line.
                    open = Some((u16::MAX, 0));
                    continue;
                };
                // What follows a container's line that lost its end is taken for its end.
                if open.is_some_and(|o| o != id)
                    && let Some(line) = self.lines.get_mut(&id)
                    && line.format == Format::Cri
                {
                    line.shaken = true;
                    line.gone.get_or_insert(now);
                    self.missing.remove(&id);
                }
                let begins = self
                    .lines
                    .get(&id)
                    .map(|l| physical(id, l.format).len() > 1);
                open = (piece == 0 && begins == Some(true)).then_some(id);
            }
        }
    }

    /// True if this is joined from pieces, one of which a power cut tore.
    fn is_torn(&self, stray: &[u8]) -> bool {
        let text = String::from_utf8_lossy(stray);
        if self.torn_gzip && text.contains(|c: char| !c.is_ascii_graphic() && c != ' ') {
            return true;
        }
        let torn = |id: &LineId| {
            let line = self.lines.get(id);
            line.is_some_and(|l| l.shaken || l.gone.is_some() || l.written.is_none())
        };
        let marks = stray.split(|b| *b == b'#').filter_map(id_of);
        marks.into_iter().any(|(id, _)| torn(&id))
    }

    /// What is wrong at the end.
    pub fn verdict(&mut self) -> Vec<Violation> {
        let mut out = std::mem::take(&mut self.violations);
        out.extend(self.missing.iter().map(|id| Violation::Lost(*id)));
        for (id, line) in &self.lines {
            if line.times.len() > 1 && !line.shaken && !self.unsaved {
                out.push(Violation::Repeated(*id, line.times.clone()));
            }
        }
        for stray in &self.strays {
            let inside =
                |f: &Vec<u8>| stray.is_empty() || f.windows(stray.len()).any(|w| w == &stray[..]);
            if !self.fragments.iter().any(inside) && !self.is_torn(stray) {
                let text = String::from_utf8_lossy(stray);
                out.push(Violation::Damaged(text.chars().take(160).collect()));
            }
        }
        out.sort();
        out.dedup();
        out
    }
}

fn log_files(disk: &Disk) -> Vec<usize> {
    let dir = Path::new(LOG_DIR);
    let named = disk.names.iter().filter(|(p, _)| p.starts_with(dir));
    let mut uids: Vec<usize> = named.map(|(_, u)| *u).collect();
    // What has no name any more may be open.
    let open = |i: &usize| !disk.inodes[*i].freed && disk.inodes[*i].names == 0;
    uids.extend((0..disk.inodes.len()).filter(open));
    uids.retain(|u| disk.inodes[*u].node == Node::File);
    uids.sort_unstable();
    uids.dedup();
    uids
}

/// Every piece of a line that is in some content.
fn pieces_in(data: &[u8]) -> Vec<(LineId, usize)> {
    let mut pieces = Vec::new();
    let mut rest = data;
    // Only what a line end follows is a line.
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let formats = [Format::Plain, Format::Cri].into_iter();
        pieces.extend(formats.filter_map(|f| physical_id(&rest[..end], f)));
        rest = &rest[end + 1..];
    }
    pieces
}

/// Every piece of a line that is in some file.
fn present(disk: &Disk, lines: &BTreeMap<LineId, Line>) -> BTreeSet<(LineId, usize)> {
    let mut there = BTreeSet::new();
    for uid in log_files(disk) {
        let inode = &disk.inodes[uid];
        let found = pieces_in(inode.plain.as_ref().unwrap_or(&inode.data));
        there.extend(found.into_iter().filter(|(id, _)| lines.contains_key(id)));
    }
    there
}

fn whole(id: &LineId, lines: &BTreeMap<LineId, Line>, there: &BTreeSet<(LineId, usize)>) -> bool {
    let Some(line) = lines.get(id) else {
        return false;
    };
    (0..physical(*id, line.format).len()).all(|piece| there.contains(&(*id, piece)))
}
