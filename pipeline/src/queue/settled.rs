//! Which items are settled: all below a mark, and some above it.
//!
//! ```text
//! "tw-done\n"  version u16  zero [6]  generation u64  mark u64  durable u64  number of ranges u64
//! (from u64, to u64) ...  crc32 u32 of the bytes before
//! ```
//!
//! There are two files, written by turns: a crash tears at most the older state. All integers are
//! little endian, ranges are half open and ascending. CRC-32 is the IEEE 802.3 polynomial.

use std::collections::BTreeMap;

const MAGIC: [u8; 8] = *b"tw-done\n";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 48;
/// Ranges that are written at most; items of further ones are handed out again after a crash.
const RANGES_MAX: usize = 4096;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// All items below it are settled.
    pub mark: u64,
    /// Ranges above it: from, to.
    ranges: BTreeMap<u64, u64>,
}

impl Settled {
    /// All items below `mark`.
    pub fn below(mark: u64) -> Settled {
        Settled {
            mark,
            ranges: BTreeMap::new(),
        }
    }

    /// The end of the range that `seq` is in, if it is settled.
    pub fn end_of(&self, seq: u64) -> Option<u64> {
        if seq < self.mark {
            return Some(self.mark);
        }
        let (_, &to) = self.ranges.range(..=seq).next_back()?;
        (seq < to).then_some(to)
    }

    /// Number of items from `from` up to `to` that are not settled.
    pub fn open_between(&self, from: u64, to: u64) -> u64 {
        let from = from.max(self.mark);
        let settled = self.ranges.range(..to).map(|(a, b)| {
            let (a, b) = ((*a).max(from), (*b).min(to));
            b.saturating_sub(a)
        });
        to.saturating_sub(from) - settled.sum::<u64>().min(to.saturating_sub(from))
    }

    /// Adds a range.
    pub fn insert(&mut self, from: u64, to: u64) {
        let (mut from, mut to) = (from.max(self.mark), to);
        if from >= to {
            return;
        }
        if let Some((&before, &end)) = self.ranges.range(..=from).next_back()
            && end >= from
        {
            (from, to) = (before, to.max(end));
        }
        while let Some((&next, &end)) = self.ranges.range(from..=to).next() {
            self.ranges.remove(&next);
            to = to.max(end);
        }
        if from == self.mark {
            self.mark = to;
        } else {
            self.ranges.insert(from, to);
        }
    }

    /// Number of settled items above the mark.
    pub fn above_mark(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }

    /// The end of the highest range.
    pub fn highest(&self) -> u64 {
        let last = self.ranges.last_key_value();
        last.map_or(self.mark, |(_, to)| *to)
    }
}

/// What one of the two files says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// The greater one is newer.
    pub generation: u64,
    pub settled: Settled,
    /// All items below it are surely on disk, or were.
    pub durable: u64,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SavedRead {
    Whole(Saved),
    Damaged,
    Newer(u16),
}

impl Saved {
    /// Whether it says on disk that the items from `from` up to `to`, of which there are some or which
    /// are below the mark, are settled.
    pub fn covers(&self, from: u64, to: u64) -> bool {
        let all_written = self.settled.ranges.len() <= RANGES_MAX;
        let in_range = || self.settled.end_of(from).is_some_and(|end| end >= to);
        to <= self.settled.mark || (all_written && from < to && in_range())
    }

    pub fn encode(&self) -> Vec<u8> {
        let ranges: Vec<_> = self.settled.ranges.iter().take(RANGES_MAX).collect();
        let mut out = Vec::with_capacity(FIXED_BYTES + 16 * ranges.len() + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        let fixed = [self.generation, self.settled.mark, self.durable];
        for n in fixed.into_iter().chain([ranges.len() as u64]) {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for (from, to) in ranges {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> SavedRead {
        let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
            return SavedRead::Damaged;
        };
        if content.len() < FIXED_BYTES
            || content[..8] != MAGIC
            || u32::from_le_bytes(*crc) != crc32fast::hash(content)
        {
            return SavedRead::Damaged;
        }
        let version = u16::from_le_bytes([content[8], content[9]]);
        if version > VERSION {
            return SavedRead::Newer(version);
        }
        let mut numbers = content[16..].chunks_exact(8).map(|n| {
            let n: [u8; 8] = n.try_into().expect("chunks_exact(8) gives 8 bytes");
            u64::from_le_bytes(n)
        });
        let mut number = || numbers.next().unwrap_or_default();
        let (generation, mark, durable, count) = (number(), number(), number(), number());
        let mut settled = Settled::below(mark);
        for _ in 0..count.min(content.len() as u64 / 16) {
            let (from, to) = (number(), number());
            settled.insert(from, to);
        }
        SavedRead::Whole(Saved {
            generation,
            settled,
            durable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    proptest::proptest! {
        /// Guarantee: exactly what was inserted is settled, in whatever order, and it survives being
        /// written.
        #[test]
        fn it_is_a_set(ranges in proptest::collection::vec((0u64..60, 0u64..9), 0..40)) {
            let mut settled = Settled::below(3);
            let mut model: BTreeSet<u64> = (0..3).collect();
            for (from, len) in ranges {
                settled.insert(from, from + len);
                model.extend(from..from + len);
            }
            let saved = Saved { generation: 7, settled: settled.clone(), durable: 99 };
            assert_eq!(Saved::decode(&saved.encode()), SavedRead::Whole(saved));
            for seq in 0..70 {
                let end = (seq..).find(|n| !model.contains(n)).unwrap();
                assert_eq!(settled.end_of(seq), (end > seq).then_some(end), "{seq}");
            }
            for (from, to) in [(0, 70), (5, 20), (20, 5), (30, 31), (0, 2)] {
                let open = (from..to).filter(|n| !model.contains(n)).count();
                assert_eq!(settled.open_between(from, to), open as u64);
            }
            let mark = (0..).find(|n| !model.contains(n)).unwrap();
            assert_eq!(settled.mark, mark);
            assert_eq!(settled.above_mark(), model.iter().filter(|n| **n > mark).count() as u64);
            assert_eq!(settled.highest(), model.last().map_or(mark, |n| n + 1));
        }
    }

    #[test]
    fn damage_is_noticed_and_never_a_panic() {
        let mut settled = Settled::below(3);
        settled.insert(5, 9);
        let bytes = Saved {
            generation: 1,
            settled,
            durable: 9,
        }
        .encode();
        for cut in 0..bytes.len() {
            assert_eq!(Saved::decode(&bytes[..cut]), SavedRead::Damaged);
        }
        for i in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[i] ^= 0x10;
            assert_eq!(Saved::decode(&bytes), SavedRead::Damaged, "byte {i}");
        }
    }
}
