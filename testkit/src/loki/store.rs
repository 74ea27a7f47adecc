//! What was stored: per tenant and stream, raw copies counted and repeats recognised.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::labels::Labels;
use super::rate::Bucket;
use crate::entry::{EntryRef, Pair};

/// Whether entries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// Kept, up to this many distinct entries over all tenants; later ones are counted only, and
    /// [`super::LokiStats::entries_not_kept`] says how many.
    Entries {
        /// The bound.
        entries_max: usize,
    },
    /// Only counted; queries answer 501. Memory grows with the number of streams alone.
    CountOnly,
}

impl Default for StoreMode {
    fn default() -> Self {
        Self::Entries {
            entries_max: 10_000_000,
        }
    }
}

/// One distinct stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Unix time in nanoseconds.
    pub ts_ns: i64,
    /// The line.
    pub line: Bytes,
    /// Structured metadata, names normalised, in the order sent.
    pub metadata: Vec<(String, String)>,
    /// How often it was pushed; above 1 it is a repeat that queries do not show.
    pub copies: u64,
}

impl StoredEntry {
    fn equals(&self, entry: &EntryRef<'_>) -> bool {
        let pairs = self
            .metadata
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        self.ts_ns == entry.ts_ns
            && self.line == entry.line
            && pairs.eq(entry
                .metadata
                .iter()
                .map(|(name, value)| (&**name, &**value)))
    }
}

/// One stream of one tenant.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) labels: Labels,
    /// Distinct entries in the order they first arrived.
    pub(super) entries: Vec<StoredEntry>,
    /// Identity hash to place in `entries`; a colliding hash is moved on by one.
    places: HashMap<u64, usize>,
    /// Entries accepted, repeats included.
    pub(super) copies: u64,
    /// The newest time accepted.
    pub(super) head_ns: Option<i64>,
    pub(super) bucket: Bucket,
}

/// One tenant. Streams are kept by canonical label string.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    pub(super) streams: BTreeMap<String, Stream>,
    pub(super) bucket: Bucket,
}

/// What [`Stream::keep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    New,
    Repeat,
    NoRoom,
}

impl Stream {
    /// A stream without entries.
    pub(super) fn new(labels: Labels) -> Self {
        Self {
            labels,
            ..Self::default()
        }
    }

    /// Stores an entry under Loki's rule that equal ones are one; `room` is whether a new one may
    /// be kept.
    pub(super) fn keep(&mut self, entry: &EntryRef<'_>, room: bool) -> Kept {
        let mut hash = entry.identity_hash();
        while let Some(place) = self.places.get(&hash) {
            let stored = &mut self.entries[*place];
            if stored.equals(entry) {
                stored.copies += 1;
                return Kept::Repeat;
            }
            hash = hash.wrapping_add(1);
        }
        if !room {
            return Kept::NoRoom;
        }
        self.places.insert(hash, self.entries.len());
        let owned = |(name, value): &Pair<'_>| (name.to_string(), value.to_string());
        self.entries.push(StoredEntry {
            ts_ns: entry.ts_ns,
            line: Bytes::copy_from_slice(entry.line),
            metadata: entry.metadata.iter().map(owned).collect(),
            copies: 1,
        });
        Kept::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_entries_are_one_and_any_difference_makes_two() {
        let mut stream = Stream::default();
        let metadata: [Pair<'_>; 1] = [("k".into(), "v".into())];
        let entry = |ts_ns, line, metadata| EntryRef {
            tenant: "t",
            labels: "{}",
            ts_ns,
            line,
            metadata,
        };
        assert_eq!(stream.keep(&entry(1, b"x", &[]), true), Kept::New);
        assert_eq!(stream.keep(&entry(1, b"x", &[]), false), Kept::Repeat);
        assert_eq!(stream.keep(&entry(2, b"x", &[]), true), Kept::New);
        assert_eq!(stream.keep(&entry(1, b"y", &[]), true), Kept::New);
        assert_eq!(stream.keep(&entry(1, b"x", &metadata), true), Kept::New);
        assert_eq!(stream.keep(&entry(3, b"x", &[]), false), Kept::NoRoom);
        let copies: Vec<u64> = stream.entries.iter().map(|entry| entry.copies).collect();
        assert_eq!(copies, [2, 1, 1, 1]);
    }
}
