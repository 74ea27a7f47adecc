//! What a power cut means for the lines that were written: which of them nobody can tell any more.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use tailwater_pipeline::clock::Mono;

use crate::disk::{Disk, Journal, Uid};
use crate::lines::{LineId, id_of, physical_id, written};
use crate::oracle::{Oracle, log_files, pieces_in};

/// What a file's lines are, in order, with `None` for what is no line.
fn lines_in(data: &[u8]) -> impl Iterator<Item = (&[u8], Option<(LineId, usize)>)> {
    let lines = data.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    lines.map(|l| (l, physical_id(l)))
}

impl Oracle {
    /// The power failed: files may have lost their ends. `before` is what inodes held.
    pub fn power_cut(&mut self, disk: &mut Disk, before: &[Vec<u8>], now: Mono) {
        for (uid, before) in before.iter().enumerate() {
            // What follows a position may be other content now, so the file is read again as a
            // whole; lines without a time of their own get another one.
            let data = &disk.inodes[uid].data;
            if !data.starts_with(before) {
                self.shake(before);
            }
            // A truncation that is undone: its copy may be gone, with the positions in it.
            self.shake(data.strip_prefix(&before[..]).unwrap_or(data));
        }
        let files = log_files(disk);
        self.shake_doubles(disk, &files);
        self.shake_returned(disk, &files);
        for &uid in &files {
            if disk.inodes[uid].plain.is_some() {
                self.unpack(disk, uid, before);
            }
        }
        self.recheck(disk, now);
        let mut open_ended = Vec::new();
        for &uid in &files {
            open_ended.extend(self.taint_followers(disk.inodes[uid].content(), now));
        }
        // What is first in the file after it is taken for the end of a line that a file begins.
        // Which file that is, is lost with the names where each goes for itself.
        let loose = disk.journal_kind() == Journal::Loose;
        for &uid in &files {
            let first = lines_in(disk.inodes[uid].content()).next();
            let Some((_, Some((id, _)))) = first else {
                continue;
            };
            let of_writer = |(writer, _): &&(u16, LineId)| *writer == id.0;
            let mut ends = open_ended.iter().filter(of_writer).peekable();
            let goes_on = ends.clone().any(|(_, open)| *open == id) && !loose;
            if ends.peek().is_some() && !goes_on && self.is_container(id) {
                self.taint(id, now);
            }
        }
        for (_, id) in open_ended.iter().filter(|_| loose) {
            self.taint(*id, now);
        }
    }

    /// A rotation that is broken off between copying and truncating leaves two files with the same
    /// lines for good. Small ones are read rather than taken for copies.
    fn shake_doubles(&mut self, disk: &Disk, files: &[Uid]) {
        let mut seen = BTreeMap::new();
        for &uid in files {
            for (id, _) in pieces_in(&disk.inodes[uid].data) {
                if *seen.entry(id).or_insert(uid) != uid
                    && let Some(line) = self.line_mut(id)
                {
                    line.shaken = true;
                }
            }
        }
    }

    /// A deletion that is undone. Without birth times, the position of a file is lost when another one
    /// gets its inode.
    fn shake_returned(&mut self, disk: &Disk, files: &[Uid]) {
        for &uid in files {
            let inode = &disk.inodes[uid];
            let mut later = disk.inodes[uid + 1..].iter();
            if disk.no_birth && later.any(|l| l.ino == inode.ino) {
                self.shake(inode.content());
            }
        }
    }

    fn shake(&mut self, content: &[u8]) {
        for (id, _) in pieces_in(content) {
            if let Some(line) = self.line_mut(id) {
                line.shaken = true;
            }
        }
    }

    fn unpack(&mut self, disk: &mut Disk, uid: Uid, before: &[Vec<u8>]) {
        let inode = &mut disk.inodes[uid];
        let mut plain = Vec::new();
        // What is damaged is read as far as it goes.
        let read = MultiGzDecoder::new(&inode.data[..]).read_to_end(&mut plain);
        // Torn, or never finished: whoever wrote it died with the power.
        if read.is_err() || before.get(uid).is_none_or(|b| *b != inode.data) {
            self.torn_gzip = true;
            // How much is read of what is damaged, each decoder has its own answer to.
            let whole = inode.plain.take().unwrap_or_default();
            self.shake(&whole);
            // It may end within a line's name.
            self.fragments.push(whole);
            // Without its first bytes it is read as text.
            self.fragments.push(inode.data.clone());
        }
        // The plain file may be back beside it. Small ones are read rather than taken for copies.
        self.shake(&plain);
        // And the line in which the damage is.
        let end = plain.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        for at in end..plain.len() {
            if let Some((id, _)) = id_of(&plain[at..])
                && let Some(line) = self.line_mut(id)
            {
                line.shaken = true;
            }
        }
        inode.plain = Some(plain);
    }

    pub(crate) fn is_container(&self, id: LineId) -> bool {
        self.line(id).is_some_and(|l| l.format.is_cri())
    }

    /// Whatever follows a container's line that lost its end is taken for its end. Returns whose
    /// file it is and the line that is open at its end.
    fn taint_followers(&mut self, data: &[u8], now: Mono) -> Option<(u16, LineId)> {
        let (mut open, mut writer) = (None, None);
        let mut tainted = Vec::new();
        for (bytes, found) in lines_in(data) {
            let Some((id, piece)) = found else {
                self.fragments.push(bytes.to_vec());
                // It may look like the beginning of a line.
                open = Some((u16::MAX, 0));
                continue;
            };
            writer = Some(id.0);
            if !self.is_container(id) {
                continue;
            }
            if open.is_some_and(|o| o != id) {
                tainted.push(id);
            }
            let format = self.line(id).map(|l| l.format);
            let pieces = format
                .and_then(|f| written(id, f))
                .map_or(1, |w| w.physical.len());
            open = (piece + 1 < pieces).then_some(id);
        }
        for id in tainted {
            if let Some(line) = self.line_mut(id) {
                line.shaken = true;
            }
            self.taint(id, now);
        }
        writer.zip(open)
    }
}
