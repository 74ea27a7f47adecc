//! The state in memory: what is live, and which of it the disk does not have yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::frame::{Part, Record, put_bytes};
use super::store::StoreStats;
use super::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// A key, shared by the live and the changed set.
pub(super) type Key = Arc<[u8]>;

/// What is stored under a key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Everything before this position is delivered. In bytes.
    pub offset: u64,
    /// Raised when the content under the key starts anew. Never lowered.
    pub generation: u64,
    /// What the owner of the key needs besides, at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
}

/// Why a checkpoint was not taken. The one that was stored before stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PutError {
    /// The offset or the generation is lower than the stored one.
    #[error("a checkpoint cannot move back: stored generation {generation}, offset {offset}")]
    Backwards {
        /// The stored generation.
        generation: u64,
        /// The stored offset.
        offset: u64,
    },
    /// The key is empty or too long.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes, not {0}")]
    KeyLength(usize),
    /// The payload is too long.
    #[error("a payload has at most {PAYLOAD_BYTES_MAX} bytes, not {0}")]
    PayloadTooLong(usize),
    /// A new key would exceed the store's `live_bytes_max`; known keys are still updated.
    #[error("checkpoints take their limit of {live_bytes_max} bytes: no room for another key")]
    Full {
        /// The limit.
        live_bytes_max: u64,
    },
}

/// A live checkpoint.
#[derive(Debug)]
struct Entry {
    checkpoint: Checkpoint,
    /// Number of the change that wrote it.
    written: u64,
    /// Its owner has put it in this run and has not released it.
    held: bool,
}

/// A key that the disk does not have as it is.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// Its number.
    sequence: u64,
    /// Number of the oldest change of the key that is not saved.
    first: u64,
    /// Somebody waits for it.
    urgent: bool,
    /// The changes that are saved together with it.
    group: Option<u64>,
}

/// Keys that are being written, and how far that is.
pub(super) struct Pass {
    keys: std::vec::IntoIter<Key>,
    /// Changes are written: removed keys are recorded, groups are kept together.
    of_changes: bool,
    /// Groups that are written.
    groups: BTreeSet<u64>,
}

impl Pass {
    fn new(keys: Vec<Key>, of_changes: bool) -> Pass {
        Pass {
            keys: keys.into_iter(),
            of_changes,
            groups: BTreeSet::new(),
        }
    }
}

/// Which changes a commit saves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changes {
    /// Everything that was put and removed.
    All,
    /// Those that somebody waits for.
    Urgent,
    /// Those, and keys that have not been saved since before this change.
    Older(u64),
}

impl Changes {
    fn has(self, change: Change) -> bool {
        match self {
            Changes::All => true,
            Changes::Urgent => change.urgent,
            Changes::Older(than) => change.urgent || change.first < than,
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Table {
    live: BTreeMap<Key, Entry>,
    /// Live keys that are not held, by when they were written.
    evictable: BTreeMap<u64, Key>,
    /// Keys that changed or were removed since they were saved.
    changed: BTreeMap<Key, Change>,
    /// Keys by the group of their changes. A key whose change has another group by now counts no
    /// more.
    groups: BTreeMap<u64, Vec<Key>>,
    /// Number of the newest group.
    group: u64,
    /// Number of the newest change.
    sequence: u64,
    live_bytes: u64,
    live_bytes_max: u64,
    /// Checkpoints that were refused for their size or for lack of room.
    refused: u64,
    /// Keys that made room for others.
    evicted: u64,
    /// The newest put of a new key was refused for lack of room.
    full: bool,
}

fn in_order<'a>(numbered: impl Iterator<Item = (u64, &'a Key)>) -> Vec<Key> {
    let mut keys: Vec<(u64, Key)> = numbered.map(|(n, key)| (n, key.clone())).collect();
    keys.sort_unstable_by_key(|(n, _)| *n);
    keys.into_iter().map(|(_, key)| key).collect()
}

impl Table {
    pub fn new(live_bytes_max: u64) -> Table {
        Table {
            live_bytes_max,
            ..Table::default()
        }
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// `stats` with the numbers that the table knows.
    pub fn count_into(&self, stats: StoreStats) -> StoreStats {
        StoreStats {
            keys: self.live.len(),
            unsaved_keys: self.changed.len(),
            live_bytes: self.live_bytes,
            refused: self.refused,
            evicted: self.evicted,
            full: self.full,
            ..stats
        }
    }

    /// Bytes that a snapshot of the live records takes.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Of the keys that have not been saved since before change number `than`, the ones that waited
    /// for the longest time and take `bytes_max` bytes together, at least one: the number of the first
    /// change that is not of these. `None` if there are no such keys.
    pub fn older_within(&self, than: u64, bytes_max: u64) -> Option<u64> {
        let old = self
            .changed
            .iter()
            .filter(|(_, change)| change.first < than);
        let bytes = |key: &Key| match self.live.get(key) {
            Some(entry) => put_bytes(key, &entry.checkpoint.payload),
            None => put_bytes(key, &[]),
        };
        let mut old: Vec<(u64, u64)> = old.map(|(key, c)| (c.first, bytes(key))).collect();
        old.sort_unstable();
        let mut left = bytes_max.max(old.first()?.1);
        for (first, bytes) in old {
            match left.checked_sub(bytes) {
                Some(less) => left = less,
                None => return Some(first),
            }
        }
        Some(than)
    }

    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn get(&self, key: &[u8]) -> Option<&Checkpoint> {
        self.live.get(key).map(|entry| &entry.checkpoint)
    }

    /// Live records whose keys begin with `prefix`, in order of keys.
    pub fn with_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Checkpoint)> {
        let from: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(prefix), Bound::Unbounded);
        let all = self.live.range::<[u8], _>(from);
        let all = all.map(|(k, v)| (&**k, &v.checkpoint));
        all.take_while(move |(k, _)| k.starts_with(prefix))
    }

    /// Stores a checkpoint and holds its key. `urgent`: somebody waits until it is saved.
    pub fn put(&mut self, key: &[u8], new: Checkpoint, urgent: bool) -> Result<(), PutError> {
        let result = self.check_size(key, &new);
        result.inspect_err(|_| self.refused += 1)?;
        self.hold(key);
        let bytes = put_bytes(key, &new.payload);
        let old = self.live.get(key).map(|entry| &entry.checkpoint);
        match old {
            Some(old) if (new.generation, new.offset) < (old.generation, old.offset) => {
                let Checkpoint {
                    generation, offset, ..
                } = *old;
                return Err(PutError::Backwards { generation, offset });
            }
            Some(old) if *old == new => {
                if urgent && let Some(change) = self.changed.get_mut(key) {
                    // A new number: a commit under way may have passed it by.
                    self.sequence += 1;
                    (change.urgent, change.sequence) = (true, self.sequence);
                }
                return Ok(());
            }
            _ => {}
        }
        let (known, before) = (
            old.is_some(),
            old.map_or(0, |old| put_bytes(key, &old.payload)),
        );
        self.make_room(bytes.saturating_sub(before));
        if !known && self.live_bytes + bytes > self.live_bytes_max {
            self.refused += 1;
            self.full = true;
            return Err(PutError::Full {
                live_bytes_max: self.live_bytes_max,
            });
        }
        self.full &= known;
        let key = self.insert(key, new, true);
        self.mark(key, urgent);
        Ok(())
    }

    /// Stores checkpoints that are right only together: no crash leaves a part of them, nor of those
    /// that an earlier call has tied to one of them and that are not saved yet.
    ///
    /// # Errors
    /// The first checkpoint that is refused; the others are stored.
    pub fn put_all<'a>(
        &mut self,
        batch: impl IntoIterator<Item = (&'a [u8], Checkpoint)>,
    ) -> Result<(), PutError> {
        let mut result = Ok(());
        let mut together: BTreeSet<Key> = BTreeSet::new();
        for (key, checkpoint) in batch {
            result = result.and(self.put(key, checkpoint, false));
            let Some((key, change)) = self.changed.get_key_value(key) else {
                continue;
            };
            together.insert(key.clone());
            if let Some(group) = change.group {
                together.extend(self.members(group).cloned());
            }
        }
        self.tie(together);
        result
    }

    /// Makes a group of changed keys.
    fn tie(&mut self, together: BTreeSet<Key>) {
        if together.len() > 1 {
            self.group += 1;
            for key in &together {
                if let Some(change) = self.changed.get_mut(key) {
                    change.group = Some(self.group);
                }
            }
            let members = together.into_iter().collect();
            self.groups.insert(self.group, members);
        }
    }

    /// Removes keys and stores checkpoints in their place: all of it or nothing, here and on disk.
    /// What is stored may be behind what was there, and nobody holds it yet.
    ///
    /// # Errors
    /// One of them is too long, or there is no room for all. Nothing is changed then.
    pub fn replace(
        &mut self,
        remove: &[Vec<u8>],
        put: &[(Vec<u8>, Checkpoint)],
    ) -> Result<(), PutError> {
        for (key, new) in put {
            self.check_size(key, new)?;
        }
        let gone: BTreeSet<&[u8]> = remove
            .iter()
            .chain(put.iter().map(|p| &p.0))
            .map(Vec::as_slice)
            .collect();
        let live = gone.iter().filter_map(|key| self.live.get_key_value(*key));
        let freed: u64 = live
            .map(|(key, e)| put_bytes(key, &e.checkpoint.payload))
            .sum();
        let needed: u64 = put
            .iter()
            .map(|(key, new)| put_bytes(key, &new.payload))
            .sum();
        if self.live_bytes - freed + needed > self.live_bytes_max {
            return Err(PutError::Full {
                live_bytes_max: self.live_bytes_max,
            });
        }
        let mut together = BTreeSet::new();
        for key in gone {
            if let Some(key) = self.take(key) {
                self.mark(key.clone(), false);
                together.insert(key);
            }
        }
        for (key, new) in put {
            let key = self.insert(key, new.clone(), false);
            self.mark(key.clone(), false);
            together.insert(key);
        }
        let earlier: Vec<Key> = together
            .iter()
            .filter_map(|key| self.changed.get(key)?.group)
            .flat_map(|group| self.members(group).cloned())
            .collect();
        together.extend(earlier);
        self.full = false;
        self.tie(together);
        Ok(())
    }

    /// Keys whose changes are of this group.
    fn members(&self, group: u64) -> impl Iterator<Item = &Key> {
        let is_of = move |key: &&Key| {
            let change = self.changed.get(*key);
            change.is_some_and(|change| change.group == Some(group))
        };
        self.groups.get(&group).into_iter().flatten().filter(is_of)
    }

    fn check_size(&self, key: &[u8], new: &Checkpoint) -> Result<(), PutError> {
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(PutError::KeyLength(key.len()));
        }
        if new.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(PutError::PayloadTooLong(new.payload.len()));
        }
        Ok(())
    }

    /// The owner of a key uses it: it makes no room for others.
    fn hold(&mut self, key: &[u8]) {
        if let Some(entry) = self.live.get_mut(key)
            && !std::mem::replace(&mut entry.held, true)
        {
            self.evictable.remove(&entry.written);
        }
    }

    /// What a key belongs to is gone; its checkpoint is kept while there is room.
    pub fn release(&mut self, key: &[u8]) {
        let known = self.live.get_key_value(key).map(|(key, _)| key.clone());
        if let Some(key) = known
            && let Some(entry) = self.live.get_mut(&key)
        {
            entry.held = false;
            self.evictable.insert(entry.written, key);
            self.full = false;
        }
    }

    /// Removes keys that nobody holds, the ones first that were not written for the longest
    /// time, until `bytes` more fit or none is left.
    fn make_room(&mut self, bytes: u64) {
        while self.live_bytes + bytes > self.live_bytes_max
            && let Some((_, key)) = self.evictable.pop_first()
        {
            self.take(&key);
            self.mark(key, false);
            self.evicted += 1;
        }
    }

    /// Removes a key; false if there is none.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(key) = self.take(key) else {
            return false;
        };
        self.mark(key, false);
        self.full = false;
        true
    }

    /// Takes in a record read from disk: later ones win, nothing is marked as changed or held.
    pub fn replay(&mut self, record: Record<'_>) {
        match record {
            Record::Put {
                key,
                offset,
                generation,
                payload,
            } => {
                let payload = payload.to_vec();
                self.insert(
                    key,
                    Checkpoint {
                        offset,
                        generation,
                        payload,
                    },
                    false,
                );
            }
            Record::Remove { key } => {
                self.take(key);
            }
            Record::End { .. } => {}
        }
    }

    /// Changes that are not saved, in order of the changes: so the log knows the order.
    pub fn changes(&self, which: Changes) -> Pass {
        let wanted = self
            .changed
            .iter()
            .filter(|(_, change)| which.has(**change));
        let keys = in_order(wanted.map(|(key, change)| (change.sequence, key)));
        Pass::new(keys, true)
    }

    /// All that is live, the ones first that were not written for the longest time.
    pub fn oldest_first(&self) -> Pass {
        let keys = in_order(self.live.iter().map(|(key, entry)| (entry.written, key)));
        Pass::new(keys, false)
    }

    /// Appends the next records until `out` has `bytes_max` bytes, or more by what is left of a
    /// group; returns their number, 0 at the end.
    pub fn encode(&self, pass: &mut Pass, salt: u64, bytes_max: usize, out: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        while out.len() < bytes_max
            && let Some(key) = pass.keys.next()
        {
            let change = self.changed.get(&key).filter(|_| pass.of_changes);
            // What is of a group now may have been of none when the pass began.
            if let Some(group) = change.and_then(|change| change.group) {
                if pass.groups.insert(group) {
                    count += self.encode_group(group, salt, out);
                }
                continue;
            }
            let record = self.record(&key);
            if pass.of_changes || matches!(record, Record::Put { .. }) {
                record.encode(salt, out);
                count += 1;
            }
        }
        count
    }

    /// Appends the records of a group; returns their number.
    fn encode_group(&self, group: u64, salt: u64, out: &mut Vec<u8>) -> u64 {
        let members: Vec<&Key> = self.members(group).collect();
        let count = members.len() as u32;
        for (index, key) in (0..).zip(members) {
            let part = (count > 1).then_some(Part { index, count });
            self.record(key).encode_as(part, salt, out);
        }
        u64::from(count)
    }

    /// Appends all groups that came to be after change number `sequence`.
    pub fn encode_groups_since(&self, sequence: u64, salt: u64, out: &mut Vec<u8>) {
        let newest = |group: u64| {
            let members = self.members(group).filter_map(|key| self.changed.get(key));
            members.map(|change| change.sequence).max()
        };
        for &group in self.groups.keys() {
            if newest(group) > Some(sequence) {
                self.encode_group(group, salt, out);
            }
        }
    }

    /// What is to be saved of a key.
    fn record<'a>(&'a self, key: &'a Key) -> Record<'a> {
        match self.live.get(key) {
            Some(entry) => put_record(key, entry),
            None => Record::Remove { key },
        }
    }

    /// Forgets changes up to number `sequence`: the disk has them.
    pub fn saved(&mut self, which: Changes, sequence: u64) {
        self.changed.retain(|_, change| {
            let is_saved = which.has(*change) && change.sequence <= sequence;
            if which.has(*change) {
                // What came while it was saved is not older than that.
                change.first = change.first.max(sequence + 1);
            }
            !is_saved
        });
        let mut groups = std::mem::take(&mut self.groups);
        groups.retain(|group, keys| {
            let is_of = |key: &Key| {
                self.changed
                    .get(key)
                    .is_some_and(|c| c.group == Some(*group))
            };
            keys.iter().any(is_of)
        });
        self.groups = groups;
    }

    fn mark(&mut self, key: Key, urgent: bool) {
        let sequence = self.sequence;
        let change = self.changed.entry(key).or_insert(Change {
            sequence,
            first: sequence,
            urgent,
            group: None,
        });
        change.sequence = sequence;
        change.urgent |= urgent;
    }

    /// Stores under a new number.
    fn insert(&mut self, key: &[u8], checkpoint: Checkpoint, held: bool) -> Key {
        self.sequence += 1;
        let written = self.sequence;
        self.live_bytes += put_bytes(key, &checkpoint.payload);
        let entry = Entry {
            checkpoint,
            written,
            held,
        };
        let key = match self.live.get_key_value(key) {
            Some((known, old)) => {
                self.live_bytes -= put_bytes(key, &old.checkpoint.payload);
                self.evictable.remove(&old.written);
                known.clone()
            }
            None => Key::from(key),
        };
        if !held {
            self.evictable.insert(written, key.clone());
        }
        self.live.insert(key.clone(), entry);
        key
    }

    fn take(&mut self, key: &[u8]) -> Option<Key> {
        let (key, old) = self.live.remove_entry(key)?;
        self.evictable.remove(&old.written);
        self.live_bytes -= put_bytes(&key, &old.checkpoint.payload);
        self.sequence += 1;
        Some(key)
    }
}

fn put_record<'a>(key: &'a Key, entry: &'a Entry) -> Record<'a> {
    let Checkpoint {
        offset,
        generation,
        ref payload,
    } = entry.checkpoint;
    Record::Put {
        key,
        offset,
        generation,
        payload,
    }
}
