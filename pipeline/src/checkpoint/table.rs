//! The state in memory: what is live, and which of it the disk does not have yet.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::frame::{Record, put_bytes};
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
    /// Somebody waits for it.
    urgent: bool,
}

/// Which changes a commit saves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changes {
    /// Everything that was put and removed.
    All,
    /// Those that somebody waits for.
    Urgent,
}

impl Changes {
    fn has(self, change: Change) -> bool {
        self == Changes::All || change.urgent
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

    /// Keys of changes that are not saved, in order of the changes: so the log knows the order.
    pub fn changed_keys(&self, which: Changes) -> Vec<Key> {
        let wanted = self
            .changed
            .iter()
            .filter(|(_, change)| which.has(**change));
        in_order(wanted.map(|(key, change)| (change.sequence, key)))
    }

    /// Live keys, the ones first that were not written for the longest time.
    pub fn oldest_first(&self) -> Vec<Key> {
        in_order(self.live.iter().map(|(key, entry)| (entry.written, key)))
    }

    /// Appends the records of `keys` until `out` has `bytes_max` bytes; returns their number, 0 at
    /// the end. Keys that are not live are left out, or recorded as removed.
    pub fn encode(
        &self,
        keys: &mut std::slice::Iter<'_, Key>,
        record_removed: bool,
        salt: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> u64 {
        let mut count = 0;
        for key in keys {
            let record = match self.live.get(key) {
                Some(entry) => put_record(key, entry),
                None if record_removed => Record::Remove { key },
                None => continue,
            };
            record.encode(salt, out);
            count += 1;
            if out.len() >= bytes_max {
                break;
            }
        }
        count
    }

    /// Forgets changes up to number `sequence`: the disk has them.
    pub fn saved(&mut self, which: Changes, sequence: u64) {
        self.changed
            .retain(|_, change| !which.has(*change) || change.sequence > sequence);
    }

    fn mark(&mut self, key: Key, urgent: bool) {
        let sequence = self.sequence;
        let change = self
            .changed
            .entry(key)
            .or_insert(Change { sequence, urgent });
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
