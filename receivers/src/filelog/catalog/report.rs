//! What there is to say of the files under way, when somebody asks.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tailwater_pipeline::files::{FileState, FileStatus, FilesPage, FilesPart, FilesQuery};

use super::super::logfs::Meta;
use super::cut::Begin;
use super::{Catalog, FileNo, Live, Shared};

impl Shared {
    /// Bytes that are not delivered, of a file of `size` bytes on the disk.
    fn behind(&self, size: u64, gzip: bool) -> u64 {
        // What moves first is read last.
        let acked = self.acked_offset.load(Ordering::Acquire);
        let read = self.read_offset.load(Ordering::Acquire);
        // The length of compressed content is known at its end.
        let at_end = gzip && self.looked_into.load(Ordering::Acquire);
        let size = if at_end { 0 } else { size };
        size.max(read).saturating_sub(acked)
    }
}

impl Catalog {
    /// The files under way that `query` asks for, at the wall time `wall_ns`.
    pub fn report(&self, query: &FilesQuery, wall_ns: i64) -> FilesPage {
        let is_asked = |l: &Live| {
            let paths = query.paths.as_ref();
            paths.is_none_or(|takes| takes(&l.named) || takes(&l.place))
        };
        let kept: HashSet<FileNo> = self.kept().collect();
        let one = |no: &FileNo, live: &Live| self.status(*no, live, &kept, wall_ns);
        match query.part {
            FilesPart::After(no) => {
                let behind = self.live.range((Bound::Excluded(no), Bound::Unbounded));
                let mut asked = behind.filter(|(_, l)| is_asked(l));
                FilesPage {
                    files: asked
                        .by_ref()
                        .take(query.limit)
                        .map(|(no, l)| one(no, l))
                        .collect(),
                    more: asked.next().is_some(),
                }
            }
            FilesPart::FurthestBehind => {
                // By what is known without a look: there may be many.
                let lag = |l: &Live| {
                    let size = l.shared.size.load(Ordering::Acquire);
                    l.shared.behind(size, l.gzip)
                };
                let asked = self.live.iter().filter(|(_, l)| is_asked(l));
                let mut asked: Vec<_> = asked.map(|(no, l)| (Reverse(lag(l)), *no)).collect();
                let more = asked.len() > query.limit;
                if more {
                    asked.select_nth_unstable(query.limit);
                    asked.truncate(query.limit);
                }
                asked.sort_unstable();
                let files = asked
                    .iter()
                    .filter_map(|(_, no)| self.live.get_key_value(no));
                let files = files.map(|(no, l)| one(no, l)).collect();
                FilesPage { files, more }
            }
        }
    }

    /// The size of a file as it is on the disk now, whatever is at its path; none if that cannot be told.
    pub fn size_now(&self, no: FileNo) -> Option<u64> {
        Some(self.meta_now(self.live.get(&no)?)?.size)
    }

    /// What the file is now on the disk: as its reader has it open, else by its name.
    fn meta_now(&self, live: &Live) -> Option<Meta> {
        let meta = match live.shared.handle() {
            Some(handle) => handle.meta(),
            None => self.fs.meta(&live.place),
        };
        meta.ok().filter(|meta| meta.id == live.id)
    }

    fn status(&self, no: FileNo, live: &Live, kept: &HashSet<FileNo>, wall_ns: i64) -> FileStatus {
        let shared = &live.shared;
        let meta = self.meta_now(live);
        let known = shared.size.load(Ordering::Acquire);
        let size = meta.map_or(known, |m| m.size);
        let lag_bytes = shared.behind(size, live.gzip);
        let since = shared.pending_since_ns.load(Ordering::Acquire);
        let lag = match (lag_bytes, since) {
            (0, _) => Some(Duration::ZERO),
            (_, 0) => None,
            (_, since) => Some(Duration::from_nanos((wall_ns as u64).saturating_sub(since))),
        };
        let deleted = meta.is_some_and(|m| m.links == 0);
        let waits = || {
            let waits = shared.waits.load(Ordering::Acquire);
            waits || live.begin == Begin::Asked || kept.contains(&no)
        };
        let state = if shared.finished.load(Ordering::Acquire) {
            FileState::Finished
        } else if shared.cut.load(Ordering::Acquire) {
            FileState::Cut
        } else if deleted {
            FileState::Deleted
        } else if waits() {
            FileState::Waiting
        } else if live.deselected {
            FileState::Deselected
        } else if live.gone {
            FileState::Rotated
        } else if shared.closed.load(Ordering::Acquire) {
            FileState::Closed
        } else {
            FileState::Open
        };
        let acknowledged = shared.acked_offset.load(Ordering::Acquire);
        let elsewhere = !deleted && live.place != live.named;
        FileStatus {
            no,
            path: live.named.shared(),
            place: elsewhere.then(|| live.place.shared()),
            device: live.id.dev,
            inode: live.id.ino,
            birth_ns: (live.id.birth_ns != 0).then_some(live.id.birth_ns),
            generation: live.generation,
            compressed: live.gzip,
            size,
            read: shared.read_offset.load(Ordering::Acquire),
            acknowledged,
            lag_bytes,
            lag,
            changed_ns: meta.map_or(live.mtime_ns, |m| m.mtime_ns),
            state,
            held_deleted_bytes: if deleted { lag_bytes } else { 0 },
        }
    }
}
