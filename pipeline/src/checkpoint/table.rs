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

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Table {
    live: BTreeMap<Key, Checkpoint>,
    /// Keys that changed or were removed since they were saved, and when.
    changed: BTreeMap<Key, u64>,
    /// Number of the newest change.
    sequence: u64,
    live_bytes: u64,
    live_bytes_max: u64,
}

/// Where a walk over keys stands.
pub(super) type Cursor = Option<Key>;

fn after(cursor: &Cursor) -> (Bound<Key>, Bound<Key>) {
    let from = cursor.clone().map_or(Bound::Unbounded, Bound::Excluded);
    (from, Bound::Unbounded)
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
        self.live.get(key)
    }

    /// Live records whose keys begin with `prefix`, in order of keys.
    pub fn with_prefix<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Checkpoint)> {
        let from: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(prefix), Bound::Unbounded);
        let all = self.live.range::<[u8], _>(from).map(|(k, v)| (&**k, v));
        all.take_while(move |(k, _)| k.starts_with(prefix))
    }

    /// Stores a checkpoint.
    pub fn put(&mut self, key: &[u8], new: Checkpoint) -> Result<(), PutError> {
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(PutError::KeyLength(key.len()));
        }
        if new.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(PutError::PayloadTooLong(new.payload.len()));
        }
        let bytes = put_bytes(key, &new.payload);
        match self.live.get(key) {
            Some(old) if (new.generation, new.offset) < (old.generation, old.offset) => {
                let Checkpoint {
                    generation, offset, ..
                } = *old;
                return Err(PutError::Backwards { generation, offset });
            }
            Some(old) if *old == new => return Ok(()),
            None if self.live_bytes + bytes > self.live_bytes_max => {
                return Err(PutError::Full {
                    live_bytes_max: self.live_bytes_max,
                });
            }
            _ => {}
        }
        let key = self.insert(key, new);
        self.mark(key);
        Ok(())
    }

    /// Removes a key; false if there is none.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(key) = self.take(key) else {
            return false;
        };
        self.mark(key);
        true
    }

    /// Takes in a record read from disk: later ones win, nothing is marked as changed.
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
                );
            }
            Record::Remove { key } => {
                self.take(key);
            }
            Record::End { .. } => {}
        }
    }

    /// Appends changed records behind `cursor` until `out` has `bytes_max` bytes; moves `cursor`
    /// and returns their number, 0 at the end.
    pub fn encode_changed(
        &self,
        cursor: &mut Cursor,
        salt: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> u64 {
        let keys = self.changed.range(after(cursor)).map(|(key, _)| key);
        self.encode(keys, cursor, salt, bytes_max, out)
    }

    /// As [`Table::encode_changed`] for all live records.
    pub fn encode_live(
        &self,
        cursor: &mut Cursor,
        salt: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> u64 {
        let keys = self.live.range(after(cursor)).map(|(key, _)| key);
        self.encode(keys, cursor, salt, bytes_max, out)
    }

    fn encode<'a>(
        &self,
        keys: impl Iterator<Item = &'a Key>,
        cursor: &mut Cursor,
        salt: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> u64 {
        let mut count = 0;
        let mut last = None;
        for key in keys {
            let record = match self.live.get(key) {
                Some(Checkpoint {
                    offset,
                    generation,
                    payload,
                }) => {
                    let (offset, generation) = (*offset, *generation);
                    Record::Put {
                        key,
                        offset,
                        generation,
                        payload,
                    }
                }
                None => Record::Remove { key },
            };
            record.encode(salt, out);
            count += 1;
            last = Some(key);
            if out.len() >= bytes_max {
                break;
            }
        }
        if let Some(key) = last {
            *cursor = Some(key.clone());
        }
        count
    }

    /// Forgets changes up to number `sequence`: the disk has them.
    pub fn saved(&mut self, sequence: u64) {
        self.changed.retain(|_, changed_at| *changed_at > sequence);
    }

    fn mark(&mut self, key: Key) {
        self.sequence += 1;
        self.changed.insert(key, self.sequence);
    }

    fn insert(&mut self, key: &[u8], new: Checkpoint) -> Key {
        self.live_bytes += put_bytes(key, &new.payload);
        if let Some(old) = self.live.get_mut(key) {
            self.live_bytes -= put_bytes(key, &old.payload);
            *old = new;
            let known = self.live.get_key_value(key);
            return known.map_or_else(|| Key::from(key), |(key, _)| key.clone());
        }
        let key = Key::from(key);
        self.live.insert(key.clone(), new);
        key
    }

    fn take(&mut self, key: &[u8]) -> Option<Key> {
        let (key, old) = self.live.remove_entry(key)?;
        self.live_bytes -= put_bytes(&key, &old.payload);
        Some(key)
    }
}
