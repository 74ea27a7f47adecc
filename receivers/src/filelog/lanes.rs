//! The lanes of a receiver: a set of positions for each exporter it reaches.
//!
//! A receiver with one exporter has its positions under its own id. One with several has a set for
//! each of them, so that each goes on where it was, however far behind the others. [`arrange`] brings
//! the sets of the store in line with the exporters that are configured now; it runs once at a start,
//! before anything is read. Sets of exporters that are not configured are kept for a week.
//!
//! The set of a lane has a mark in the store, so that a lane that has no position yet is told from one
//! that never was.
//!
//! Lanes that come while others run are arranged [`beside`] these, by the same rules. What runs keeps
//! its set where it is, and what goes may still save positions; marks say whose a set is, and the next
//! start moves it.

mod beside;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_pipeline::checkpoint::{Checkpoint, CheckpointHandle, PutError};

use super::driver::FORGET_AFTER;
use super::identity::Trail;
use super::logfs::FileId;
use super::position::{Position, key_prefix};

/// Between a receiver and the exporter of a set that is in use. No id holds it.
const IN_USE: char = '\u{1}';
/// The same of a set whose exporter is not configured any more.
const KEPT: char = '\u{2}';
/// Ends the namespace in a key.
const END: char = '\0';

/// Where the positions of the lane from `receiver` to `exporter` are stored, if there are others.
pub fn namespace(receiver: &str, exporter: &str) -> String {
    format!("{receiver}{IN_USE}{exporter}")
}

/// True if `key` marks a set and is no position.
pub fn is_mark(key: &[u8]) -> bool {
    key.ends_with(&[END as u8])
}

/// Whose position a stored one is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Owner {
    /// The receiver's id.
    pub receiver: String,
    /// The exporter, if the receiver has several.
    pub exporter: Option<String>,
    /// The exporter was not configured at the newest start.
    pub kept: bool,
}

impl Owner {
    /// Whose `key` is, of a position that a receiver of files has stored.
    pub fn of(key: &[u8]) -> Owner {
        let namespace = key.split(|b| *b == END as u8).next().unwrap_or_default();
        let namespace = String::from_utf8_lossy(namespace);
        match namespace.split_once([IN_USE, KEPT]) {
            None => Owner {
                receiver: namespace.into_owned(),
                exporter: None,
                kept: false,
            },
            Some((receiver, exporter)) => Owner {
                receiver: receiver.to_owned(),
                exporter: Some(exporter.to_owned()),
                kept: namespace.contains(KEPT),
            },
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exporter {
            None => f.write_str(&self.receiver),
            Some(exporter) if self.kept => write!(f, "{} to {exporter} (kept)", self.receiver),
            Some(exporter) => write!(f, "{} to {exporter}", self.receiver),
        }
    }
}

/// The namespaces in which positions of `receiver` are in use, among `keys` of a store; its own if
/// there are none yet.
pub fn namespaces_in_use<'a>(
    keys: impl IntoIterator<Item = &'a [u8]>,
    receiver: &str,
) -> Vec<String> {
    let receiver = canonical(receiver);
    let owners = keys.into_iter().map(Owner::of);
    let of_lanes = owners.filter(|o| o.receiver == receiver && !o.kept);
    let namespace = |o: Owner| match o.exporter {
        // Lanes came beside it while it ran.
        None => receiver.clone(),
        Some(exporter) => namespace(&receiver, &exporter),
    };
    let mut found: Vec<String> = of_lanes.map(namespace).collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        found.push(receiver);
    }
    found
}

/// An id as it stands in keys.
fn canonical(id: &str) -> String {
    let mut prefix = key_prefix(id);
    prefix.pop();
    prefix
}

/// Positions of one set by what follows the namespace in their keys; nothing does in that of the mark.
type Set = BTreeMap<Vec<u8>, Checkpoint>;

/// What follows the namespace in the key of a mark.
const MARK: &[u8] = b"";
/// In the offset of a mark: the positions are those of the receiver itself, since the lane was its only
/// one when it began.
const IN_SINGLE: u64 = 1;
/// In the offset of a mark: the exporter is not served any more.
const GONE: u64 = 2;

/// The sets of positions of one receiver.
struct Sets<'a> {
    store: &'a CheckpointHandle,
    receiver: String,
    /// Of a receiver with one exporter, or imported.
    single: Set,
    in_use: BTreeMap<String, Set>,
    kept: BTreeMap<String, Set>,
}

impl Sets<'_> {
    /// The sets of lanes.
    fn of_lanes<'a>(store: &'a CheckpointHandle, receiver: &str) -> Sets<'a> {
        let receiver = canonical(receiver);
        let by_exporter = |separator| {
            let mut sets: BTreeMap<String, Set> = BTreeMap::new();
            for (rest, checkpoint) in below(store, &receiver, separator) {
                let Some(at) = rest.iter().position(|b| *b == END as u8) else {
                    continue;
                };
                let exporter = String::from_utf8_lossy(&rest[..at]).into_owned();
                let set = sets.entry(exporter).or_default();
                set.insert(rest[at + 1..].to_vec(), checkpoint);
            }
            sets
        };
        Sets {
            single: Set::new(),
            in_use: by_exporter(IN_USE),
            kept: by_exporter(KEPT),
            store,
            receiver,
        }
    }

    fn read_single(&mut self) {
        self.single = below(self.store, &self.receiver, END).collect();
    }

    fn key(&self, place: Option<(char, &str)>, file: &[u8]) -> Vec<u8> {
        let receiver = &self.receiver;
        let prefix = match place {
            None => format!("{receiver}{END}"),
            Some((separator, exporter)) => format!("{receiver}{separator}{exporter}{END}"),
        };
        [prefix.as_bytes(), file].concat()
    }

    /// A set as it is stored at a place.
    fn at<'s>(
        &'s self,
        place: Option<(char, &'s str)>,
        set: &'s Set,
    ) -> impl Iterator<Item = (Vec<u8>, Checkpoint)> + 's {
        let file = move |(file, checkpoint): (&Vec<u8>, &Checkpoint)| {
            (self.key(place, file), checkpoint.clone())
        };
        set.iter().map(file)
    }

    /// A set as it is to be stored at the place of a lane, with its mark.
    fn marked(&self, separator: char, exporter: &str, set: &Set) -> Vec<(Vec<u8>, Checkpoint)> {
        let place = Some((separator, exporter));
        let mark = (self.key(place, MARK), Checkpoint::default());
        let positions = self.at(place, set).filter(|(key, _)| !is_mark(key));
        std::iter::once(mark).chain(positions).collect()
    }

    /// Where an exporter begins that has no positions of its own. If it takes the place of another,
    /// where that one was, the one furthest behind of several: nothing is left out. Else it gets what
    /// comes from now on: it begins where the furthest of the others is.
    fn of_a_new_one(&self, wanted: &[String]) -> Option<&Set> {
        let gone = self.in_use.iter().filter(|(e, _)| !wanted.contains(e));
        let behind = gone.map(|(_, set)| set).min_by(|a, b| compare(a, b));
        let single = (!self.single.is_empty()).then_some(&self.single);
        let furthest = || self.in_use.values().max_by(|a, b| compare(a, b));
        behind.or(single).or_else(furthest)
    }
}

/// What is stored of `receiver` behind a separator, by the rest of the keys.
fn below(
    store: &CheckpointHandle,
    receiver: &str,
    separator: char,
) -> impl Iterator<Item = (Vec<u8>, Checkpoint)> {
    let prefix = format!("{receiver}{separator}");
    let found = store.with_prefix(prefix.as_bytes()).into_iter();
    found.map(move |(key, checkpoint)| (key[prefix.len()..].to_vec(), checkpoint))
}

/// Which of two lanes is further, by the files that both know.
fn compare(a: &Set, b: &Set) -> Ordering {
    let mut ahead = 0i64;
    for (file, a) in a.iter().filter(|(file, _)| **file != *MARK) {
        if let Some(b) = b.get(file) {
            ahead += match (a.generation, a.offset).cmp(&(b.generation, b.offset)) {
                Ordering::Less => -1,
                Ordering::Equal => 0,
                Ordering::Greater => 1,
            };
        }
    }
    ahead.cmp(&0)
}

/// Brings the stored positions of `receiver` in line with the `exporters` it reaches now, in one step
/// whatever happens meanwhile.
///
/// # Errors
/// There is no room for the positions of another exporter. Nothing is changed then.
pub fn arrange(
    store: &CheckpointHandle,
    receiver: &str,
    exporters: &[Arc<str>],
    wall_ns: i64,
) -> Result<(), PutError> {
    beside::settle(store, receiver, wall_ns)?;
    let mut sets = Sets::of_lanes(store, receiver);
    let wanted: Vec<String> = exporters.iter().map(|e| canonical(e)).collect();
    let alone = wanted.len() == 1;
    if alone && sets.in_use.is_empty() && sets.kept.is_empty() {
        return Ok(());
    }
    sets.read_single();
    let mut moves = Moves::default();
    begin(&sets, &wanted, &mut moves);
    leave(&sets, &wanted, wall_ns, &mut moves);
    store.replace(&moves.remove, &moves.put)?;
    if !alone {
        // Whoever reads a file takes hold of its position; of the marks nobody else does.
        for exporter in &wanted {
            let mark = sets.key(Some((IN_USE, exporter)), MARK);
            store.put(&mark, Checkpoint::default())?;
        }
    }
    Ok(())
}

/// Changes of a store that are right only together.
#[derive(Default)]
struct Moves {
    remove: Vec<Vec<u8>>,
    put: Vec<(Vec<u8>, Checkpoint)>,
}

impl Moves {
    fn remove(&mut self, sets: &Sets<'_>, place: Option<(char, &str)>, set: &Set) {
        self.remove
            .extend(set.keys().map(|file| sets.key(place, file)));
    }
}

/// Sets of the exporters that are wanted.
fn begin(sets: &Sets<'_>, wanted: &[String], moves: &mut Moves) {
    let alone = wanted.len() == 1;
    let new = sets.of_a_new_one(wanted);
    for exporter in wanted {
        let own = sets.in_use.get(exporter);
        let set = own.or(sets.kept.get(exporter)).or(new);
        if !alone && own.is_none() {
            let none = Set::new();
            let set = sets.marked(IN_USE, exporter, set.unwrap_or(&none));
            moves.put.extend(set);
        } else if let Some(set) = set.filter(|set| alone && !std::ptr::eq(*set, &sets.single)) {
            let positions = sets.at(None, set).filter(|(key, _)| !is_mark(key));
            moves.put.extend(positions);
            moves.remove(sets, None, &sets.single);
        }
        if let Some(kept) = sets.kept.get(exporter) {
            moves.remove(sets, Some((KEPT, exporter)), kept);
        }
    }
}

/// Sets that are not in use any more: they are kept for a while.
fn leave(sets: &Sets<'_>, wanted: &[String], wall_ns: i64, moves: &mut Moves) {
    let alone = wanted.len() == 1;
    for (exporter, set) in &sets.in_use {
        let is_wanted = wanted.contains(exporter);
        if !is_wanted {
            let seen = |(file, c): (&Vec<u8>, &Checkpoint)| (file.clone(), seen_at(c, wall_ns));
            let seen = set.iter().map(seen).collect();
            moves.put.extend(sets.marked(KEPT, exporter, &seen));
        }
        if alone || !is_wanted {
            moves.remove(sets, Some((IN_USE, exporter)), set);
        }
    }
    if !alone {
        moves.remove(sets, None, &sets.single);
    }
    for (exporter, set) in &sets.kept {
        let seen = set.values().filter_map(|c| Some(position(c)?.seen_ns));
        let age = wall_ns.saturating_sub(seen.max().unwrap_or(i64::MIN));
        if age > FORGET_AFTER.as_nanos() as i64 && !sets.in_use.contains_key(exporter) {
            moves.remove(sets, Some((KEPT, exporter)), set);
        }
    }
}

fn position(c: &Checkpoint) -> Option<Position> {
    Position::decode(c.offset, c.generation, &c.payload).ok()
}

/// The time for which a position is kept begins now.
fn seen_at(c: &Checkpoint, wall_ns: i64) -> Checkpoint {
    let Some(mut position) = position(c) else {
        return c.clone();
    };
    position.seen_ns = wall_ns;
    Checkpoint {
        payload: position.encode(),
        ..c.clone()
    }
}

/// How far each lane has delivered a file, with the bytes before that.
type Ends = Vec<Option<(u64, Trail)>>;

/// What the lanes of a receiver share.
pub struct Lanes {
    exporters: Vec<Arc<str>>,
    others: Mutex<Others>,
    /// How far each lane has delivered files that are to be deleted.
    delivered: Mutex<HashMap<FileId, Ends>>,
}

/// What there was before, if lanes ran already.
#[derive(Default)]
struct Others {
    arranged: bool,
    /// Lanes that go on, with the namespaces they have.
    running: Vec<(Arc<str>, Arc<str>)>,
    /// One that did not begin yet has the namespace of one among several.
    among_several: bool,
    /// Exporters whose places new ones take.
    gone: Vec<Arc<str>>,
}

impl Lanes {
    /// Lanes to these exporters; none: one to nobody knows whom.
    pub fn new(exporters: Vec<Arc<str>>) -> Lanes {
        Lanes {
            exporters,
            others: Mutex::default(),
            delivered: Mutex::default(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.exporters.len().max(1)
    }

    /// The namespace of the positions of one of them that begins.
    pub fn namespace(&self, receiver: &str, lane: usize) -> String {
        match self.exporters.get(lane) {
            Some(exporter) if self.exporters.len() > 1 => namespace(receiver, exporter),
            _ => receiver.to_owned(),
        }
    }

    /// One of these lanes was there `before`, with its positions in `namespace`. `begun`: it runs.
    pub fn succeed(&self, before: &Lanes, lane: usize, namespace: &Arc<str>, begun: bool) {
        let Some(exporter) = self.exporters.get(lane) else {
            return;
        };
        let mut others = self.others();
        match begun {
            true => others.running.push((exporter.clone(), namespace.clone())),
            false => others.among_several |= namespace.contains(IN_USE),
        }
        let earlier = before.others();
        let pending = !earlier.arranged && earlier.running.len() < before.exporters.len();
        // Whoever was to take their places did not begin.
        let pending = earlier.gone.iter().filter(|_| pending);
        for gone in before.exporters.iter().chain(pending) {
            if !self.exporters.contains(gone) && !others.gone.contains(gone) {
                others.gone.push(gone.clone());
            }
        }
    }

    /// Notes in the store that exporters are not served any more.
    ///
    /// # Errors
    /// There is no room for the note.
    pub fn note_gone(&self, store: &CheckpointHandle, receiver: &str) -> Result<(), PutError> {
        beside::note_gone(store, receiver, &self.others().gone)
    }

    /// As [`arrange`], or beside the lanes that run, by the first lane that asks for it.
    ///
    /// # Errors
    /// As [`arrange`].
    pub fn arrange(
        &self,
        store: &CheckpointHandle,
        receiver: &str,
        wall_ns: i64,
    ) -> Result<(), PutError> {
        let mut others = self.others();
        if self.exporters.is_empty() || others.arranged {
            return Ok(());
        }
        match others.running.is_empty() && !others.among_several {
            true => arrange(store, receiver, &self.exporters, wall_ns)?,
            false => {
                let Others { running, gone, .. } = &*others;
                beside::arrange(store, receiver, &self.exporters, running, gone)?;
            }
        }
        others.arranged = true;
        if self.count() > 1 {
            tracing::info!(
                receiver,
                exporters = self.count(),
                "files are read once for each exporter, with positions of its own"
            );
        }
        Ok(())
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane has delivered a file to its end, as it knows it. True if all have delivered as much.
    pub fn all_delivered(&self, lane: usize, position: &Position) -> bool {
        if self.count() == 1 {
            return true;
        }
        let mut delivered = self.delivered();
        let ends = delivered.entry(position.id).or_default();
        ends.resize(self.count(), None);
        let end = (position.offset, position.trail);
        ends[lane] = Some(end);
        ends.iter().all(|other| {
            other.is_some_and(|(offset, trail)| {
                // Trails of different lengths say nothing of each other.
                offset == end.0 && (trail.len != end.1.len || trail.hash == end.1.hash)
            })
        })
    }

    /// The file is gone.
    pub fn gone(&self, file: FileId) {
        self.delivered().remove(&file);
    }

    fn delivered(&self) -> MutexGuard<'_, HashMap<FileId, Ends>> {
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
