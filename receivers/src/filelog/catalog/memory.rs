//! Positions of files that are not being read: of earlier runs, and of files that are finished.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::super::file_path::FilePath;
use super::super::identity::{Head, Heads, rotated_from};
use super::super::logfs::FileId;
use super::super::position::Position;

/// Positions that are remembered at most.
const REMEMBERED_MAX: usize = 50_000;
/// Contents of one path that were overwritten and are remembered.
const OVERWRITTEN_MAX: usize = 16;

/// See the module's documentation.
#[derive(Default)]
pub struct Memory {
    by_id: BTreeMap<FileId, Position>,
    /// Under every path whose rotated form a position's path may be, with the first bytes.
    by_base: HashMap<PathBuf, Vec<(Head, FileId)>>,
    /// Contents that were truncated away under a reader. Rotation may have made copies of them.
    overwritten: BTreeMap<FilePath, Vec<Position>>,
    /// Positions that were given up for want of room since it was last asked.
    pub evicted: Vec<Position>,
}

/// `path`, and what it could be a rotated form of.
pub fn bases(path: &Path) -> Vec<PathBuf> {
    let mut out = vec![path.to_path_buf()];
    if let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) {
        out.extend(rotated_from(name).into_iter().map(|base| dir.join(base)));
    }
    out
}

impl Memory {
    /// A memory of stored positions. If they are too many, those of files that are not read to their end and are
    /// where they were, as `is_there` tells, are kept first, and then those that were seen last: what earlier runs
    /// left of files that are gone does not push out what is known of those that are there.
    pub fn new(stored: Vec<Position>, is_there: impl Fn(&Position) -> bool) -> Memory {
        let mut memory = Memory::default();
        let (overwritten, mut stored): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|p| p.overwritten);
        if stored.len() > REMEMBERED_MAX {
            stored.sort_by_cached_key(|p| (!p.complete && is_there(p), p.seen_ns, p.id));
            let too_many = stored.len() - REMEMBERED_MAX;
            memory.evicted.extend(stored.drain(..too_many));
        }
        stored.into_iter().for_each(|p| memory.insert(p));
        for p in overwritten {
            memory.insert_overwritten(p);
        }
        memory
    }

    /// The position of exactly this file.
    pub fn get(&self, id: FileId) -> Option<&Position> {
        self.by_id.get(&id)
    }

    /// For what changes neither identity nor path.
    pub fn get_mut(&mut self, id: FileId) -> Option<&mut Position> {
        self.by_id.get_mut(&id)
    }

    /// Every position of a file.
    pub fn iter(&self) -> impl Iterator<Item = &Position> {
        self.by_id.values()
    }

    /// Every position in content that was overwritten.
    pub fn overwritten(&self) -> impl Iterator<Item = &Position> {
        self.overwritten.values().flatten()
    }

    /// The paths that positions are known by, each once, in order.
    pub fn paths(&self) -> Vec<FilePath> {
        let all = self.iter().chain(self.overwritten());
        let mut paths: Vec<FilePath> = all.map(|p| p.path.clone()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Remembers a position, instead of an older one of the same file.
    pub fn insert(&mut self, position: Position) {
        self.take(position.id);
        if self.by_id.len() >= REMEMBERED_MAX {
            self.make_room();
        }
        for base in bases(&position.path) {
            let known = (position.head, position.id);
            self.by_base.entry(base).or_default().push(known);
        }
        self.by_id.insert(position.id, position);
    }

    /// Gives a position up, to its reader for example.
    pub fn take(&mut self, id: FileId) -> Option<Position> {
        let position = self.by_id.remove(&id)?;
        for base in bases(&position.path) {
            if let Some(ids) = self.by_base.get_mut(&base) {
                ids.retain(|(_, i)| *i != id);
                if ids.is_empty() {
                    self.by_base.remove(&base);
                }
            }
        }
        Some(position)
    }

    /// Positions of files that were written at `base` or are rotated forms of it.
    pub fn of(&self, base: &Path) -> impl Iterator<Item = &Position> {
        let ids = self.by_base.get(base).into_iter().flatten();
        ids.filter_map(|(_, id)| self.by_id.get(id))
    }

    /// True if a log at `base` was read before.
    pub fn knows(&self, base: &Path) -> bool {
        self.of(base).next().is_some() || !self.overwritten_of(base).is_empty()
    }

    /// Those of them in content that begins as `bytes` do.
    pub fn that_begin(&self, base: &Path, bytes: &[u8]) -> impl Iterator<Item = &Position> {
        let mut heads = Heads::new(bytes);
        let known = self.by_base.get(base).into_iter().flatten();
        let alike = known.filter(move |(head, _)| head.len > 0 && heads.begin_with(head));
        alike.filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Remembers content that is gone from its file. `position` is where delivery stood in it.
    pub fn insert_overwritten(&mut self, mut position: Position) {
        position.overwritten = true;
        let list = self.overwritten.entry(position.path.clone()).or_default();
        if list.len() == OVERWRITTEN_MAX {
            list.remove(0);
        }
        list.push(position);
    }

    /// Contents that were overwritten at `base`, oldest first.
    pub fn overwritten_of(&self, base: &Path) -> &[Position] {
        self.overwritten.get(base).map_or(&[], Vec::as_slice)
    }

    /// Gives up an overwritten content: a copy of it was found.
    pub fn take_overwritten(&mut self, base: &Path, index: usize) -> Option<Position> {
        let list = self.overwritten.get_mut(base)?;
        let position = (index < list.len()).then(|| list.remove(index));
        if list.is_empty() {
            self.overwritten.remove(base);
        }
        position
    }

    /// Gives up a twentieth of the positions: those that were not seen for the longest time, finished or not. After
    /// a kill, most of those that are not finished are of files that are gone.
    fn make_room(&mut self) {
        let mut order: Vec<(i64, FileId)> =
            self.by_id.values().map(|p| (p.seen_ns, p.id)).collect();
        order.sort_unstable();
        for (_, id) in order.into_iter().take(REMEMBERED_MAX / 20) {
            let position = self.take(id);
            self.evicted.extend(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(ino: u64, path: &str, complete: bool) -> Position {
        Position {
            id: FileId {
                dev: 1,
                ino,
                birth_ns: 1,
            },
            path: path.into(),
            complete,
            ..Position::default()
        }
    }

    #[test]
    fn a_rotated_name_is_found_under_what_it_was() {
        let mut m = Memory::new(
            vec![
                position(1, "/d/a.log", false),
                position(2, "/d/a.log.1", false),
                position(3, "/d/b.log", false),
            ],
            |_| false,
        );
        let inos = |m: &Memory, base: &str| {
            let mut inos: Vec<u64> = m.of(Path::new(base)).map(|p| p.id.ino).collect();
            inos.sort_unstable();
            inos
        };
        assert_eq!(inos(&m, "/d/a.log"), [1, 2]);
        assert_eq!(inos(&m, "/d/a.log.1"), [2]);
        m.insert(position(1, "/d/b.log", false));
        assert_eq!(inos(&m, "/d/a.log"), [2]);
        assert_eq!(inos(&m, "/d/b.log"), [1, 3]);
        m.take(FileId {
            dev: 1,
            ino: 2,
            birth_ns: 1,
        });
        assert_eq!(inos(&m, "/d/a.log"), [0u64; 0]);
    }

    /// Position `i` of `/d/i`, seen at `i`.
    fn seen(i: u64, complete: bool) -> Position {
        Position {
            seen_ns: i as i64,
            ..position(i, &format!("/d/{i}"), complete)
        }
    }

    #[test]
    fn room_is_made_by_giving_up_what_was_not_seen_for_the_longest_time() {
        let mut m = Memory::default();
        // What earlier runs left behind, and then many that are finished.
        let max = REMEMBERED_MAX as u64;
        for i in 0..2 * max {
            m.insert(seen(i, i >= max / 2));
        }
        let oldest = m.iter().map(|p| p.seen_ns).min();
        assert!(oldest >= Some(max as i64), "{oldest:?}");
        assert!(m.by_id.len() > REMEMBERED_MAX * 9 / 10);
    }

    #[test]
    fn of_too_many_stored_ones_the_newest_and_those_of_files_that_are_there_are_kept() {
        let max = REMEMBERED_MAX as u64;
        // One quiet log, and what kills left of files that are gone.
        let quiet = seen(0, false);
        let stored: Vec<Position> = (0..2 * max).map(|i| seen(i, i % 4 == 3)).collect();
        let m = Memory::new(stored, |p| p.path == quiet.path);
        assert_eq!(m.by_id.len(), REMEMBERED_MAX);
        assert_eq!(m.evicted.len(), REMEMBERED_MAX);
        assert!(m.get(quiet.id).is_some());
        let others = m.iter().filter(|p| p.id != quiet.id);
        assert_eq!(others.map(|p| p.seen_ns).min(), Some(max as i64 + 1));
    }
}
