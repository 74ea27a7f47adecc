//! Tells a shard which of its files have batches that were settled, without a lock or an
//! allocation where it happens (the sender's thread).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tailwater_pipeline::{AckSink, Counts, Outcome, Wake};

const WORDS: usize = 256;
const BITS: u64 = WORDS as u64 * 64;

/// One bit per file number, modulo 16,384: a set bit means "look at these files".
pub struct SettledFiles {
    words: [AtomicU64; WORDS],
    waker: Arc<dyn Wake>,
}

impl SettledFiles {
    /// A set whose shard is woken by `waker`.
    pub fn new(waker: Arc<dyn Wake>) -> Arc<SettledFiles> {
        Arc::new(SettledFiles {
            words: [const { AtomicU64::new(0) }; WORDS],
            waker,
        })
    }

    /// Takes the bits that are set; `f` gets each bit's number. A file `no` belongs to bit
    /// [`SettledFiles::bit_of`].
    pub fn take(&self, mut f: impl FnMut(u64)) {
        for (i, word) in self.words.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                f(i as u64 * 64 + u64::from(bits.trailing_zeros()));
                bits &= bits - 1;
            }
        }
    }

    /// The bit of file number `no`.
    pub fn bit_of(no: u64) -> u64 {
        no % BITS
    }
}

impl AckSink for SettledFiles {
    fn settled(&self, key: u64, _outcome: Outcome, _counts: &Counts) {
        let bit = SettledFiles::bit_of(key);
        self.words[(bit / 64) as usize].fetch_or(1 << (bit % 64), Ordering::AcqRel);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;
    impl Wake for Nobody {
        fn wake(&self) {}
    }

    #[test]
    fn each_settled_file_is_told_once() {
        let s = SettledFiles::new(Arc::new(Nobody));
        for no in [0, 63, 64, 16_383, 16_384 + 5, 5] {
            s.settled(no, Outcome::Delivered, &Counts::default());
        }
        let mut bits = Vec::new();
        s.take(|b| bits.push(b));
        assert_eq!(bits, [0, 5, 63, 64, 16_383]);
        s.take(|_| panic!("taken"));
    }
}
