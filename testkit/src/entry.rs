//! One delivered entry, as the fake server hands it to its hook and the oracle takes it.

use std::borrow::Cow;
use std::sync::Arc;

/// A structured metadata pair, name first.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A borrowed view of one stored log entry.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    /// The tenant it was stored for.
    pub tenant: &'a str,
    /// The canonical label string of its stream, e.g. `{app="web", job="x"}`.
    pub labels: &'a str,
    /// Unix time in nanoseconds.
    pub ts_ns: i64,
    /// The line; not necessarily UTF-8.
    pub line: &'a [u8],
    /// Structured metadata after name normalisation, in the order sent.
    pub metadata: &'a [Pair<'a>],
}

impl EntryRef<'_> {
    /// A hash over everything Loki compares when it removes repeated entries: tenant, labels,
    /// time, line and metadata.
    pub fn identity_hash(&self) -> u64 {
        let mut hash = hash_bytes(self.stream_hash(), &self.ts_ns.to_le_bytes());
        hash = hash_bytes(hash, self.line);
        for (name, value) in self.metadata {
            hash = hash_bytes(hash, name.as_bytes());
            hash = hash_bytes(hash, value.as_bytes());
        }
        hash
    }

    /// A hash of the stream this entry belongs to: tenant and labels.
    pub fn stream_hash(&self) -> u64 {
        hash_bytes(
            hash_bytes(0, self.tenant.as_bytes()),
            self.labels.as_bytes(),
        )
    }
}

/// What is called for each stored entry.
pub type EntryHook = Arc<dyn Fn(&EntryRef<'_>) + Send + Sync>;

/// Folds `bytes` and their length into `hash`, eight bytes a step with a full 128-bit multiply.
/// Fast and well mixed; not against an adversary who knows it.
pub(crate) fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |hash: u64, word: u64| {
        let product = u128::from(hash ^ K).wrapping_mul(u128::from(word ^ 0xd6e8_feb8_6659_fd93));
        // The rotation keeps a zero factor from erasing what came before.
        (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(29)
    };
    let mut hash = fold(hash, bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = fold(hash, u64::from_le_bytes(word));
    }
    let mut word = [0; 8];
    word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    fold(hash, u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(labels: &'a str, ts_ns: i64, line: &'a [u8], m: &'a [Pair<'a>]) -> EntryRef<'a> {
        EntryRef {
            tenant: "t",
            labels,
            ts_ns,
            line,
            metadata: m,
        }
    }

    #[test]
    fn identity_depends_on_every_part_and_on_nothing_else() {
        let m: [Pair<'_>; 1] = [("k".into(), "v".into())];
        let n: [Pair<'_>; 1] = [("kv".into(), "".into())];
        let all = [
            entry("{a=\"1\"}", 1, b"x", &[]).identity_hash(),
            entry("{a=\"2\"}", 1, b"x", &[]).identity_hash(),
            entry("{a=\"1\"}", 2, b"x", &[]).identity_hash(),
            entry("{a=\"1\"}", 1, b"y", &[]).identity_hash(),
            entry("{a=\"1\"}", 1, b"x", &m).identity_hash(),
            entry("{a=\"1\"}", 1, b"x", &n).identity_hash(),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], entry("{a=\"1\"}", 1, b"x", &[]).identity_hash());
    }

    #[test]
    fn the_hash_spreads_close_inputs_over_all_bits() {
        let low: std::collections::HashSet<u32> = (0u64..20_000)
            .map(|n| hash_bytes(0, &n.to_le_bytes()) as u32)
            .collect();
        let high: std::collections::HashSet<u32> = (0u64..20_000)
            .map(|n| (hash_bytes(0, &n.to_le_bytes()) >> 32) as u32)
            .collect();
        // 20,000 draws of 32 bits collide 0.05 times on average.
        assert!(
            low.len() > 19_990 && high.len() > 19_990,
            "{} {}",
            low.len(),
            high.len()
        );
    }
}
