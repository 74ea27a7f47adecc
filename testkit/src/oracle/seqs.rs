//! Which numbers arrived, and in which form, in little memory.

/// Numbers per chunk.
const CHUNK: u64 = 65_536;
/// Words of a chunk's bitmap.
const WORDS: usize = (CHUNK / 64) as usize;

/// Chunks whose forms are remembered if nothing else is said: 64 of them hold 4 million lines in
/// 16 MiB. The forms of older chunks are forgotten first.
const FORM_CHUNKS_MAX: usize = 64;

/// Further forms of the same lines that are remembered.
const EXTRA_FORMS_MAX: usize = 65_536;

/// What a delivery was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The first of its number.
    First,
    /// Another one, equal to an earlier one in everything: Loki shows one.
    SameForm,
    /// Another one that differs in stream, time or metadata: Loki shows both.
    OtherForm,
    /// Another one whose earlier form has been forgotten.
    Unknown,
}

/// A set of numbers with a 32-bit form for each. A chunk takes 8 KiB until it is full and nothing
/// afterwards, and 256 KiB for its forms while they are remembered.
#[derive(Debug)]
pub(super) struct SeqSet {
    chunks: Vec<Chunk>,
    form_chunks_max: usize,
    forms: std::collections::BTreeMap<u64, Box<[u32]>>,
    extra: std::collections::HashSet<(u64, u32)>,
}

#[derive(Debug)]
enum Chunk {
    Empty,
    Some { bits: Box<[u64; WORDS]>, count: u64 },
    Full,
}

impl Default for SeqSet {
    fn default() -> Self {
        Self::with_form_chunks(FORM_CHUNKS_MAX)
    }
}

impl SeqSet {
    fn with_form_chunks(form_chunks_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            form_chunks_max,
            forms: Default::default(),
            extra: Default::default(),
        }
    }

    /// A set that remembers the forms of the newest `lines` numbers, and of up to a chunk more.
    pub(super) fn remembering(lines: u64) -> Self {
        let chunks = lines.div_ceil(CHUNK).saturating_add(1);
        Self::with_form_chunks(usize::try_from(chunks).unwrap_or(usize::MAX))
    }

    /// Adds a number; the caller bounds it, for memory grows with the largest.
    pub(super) fn insert(&mut self, seq: u64, form: u32) -> Delivery {
        let index = seq / CHUNK;
        // Zero stands for "no form".
        let form = form.max(1);
        if self.set_bit(index as usize, seq % CHUNK) {
            self.remember(index, seq, form);
            return Delivery::First;
        }
        match self
            .forms
            .get(&index)
            .map(|forms| forms[(seq % CHUNK) as usize])
        {
            None | Some(0) => Delivery::Unknown,
            Some(first) if first == form => Delivery::SameForm,
            Some(_) if self.extra.contains(&(seq, form)) => Delivery::SameForm,
            Some(_) => {
                if self.extra.len() < EXTRA_FORMS_MAX {
                    self.extra.insert((seq, form));
                }
                Delivery::OtherForm
            }
        }
    }

    /// How many numbers of a range are in.
    pub(super) fn count(&self, from: u64, to: u64) -> u64 {
        let mut count = 0;
        let mut at = from;
        while at < to {
            let end = to.min((at / CHUNK + 1) * CHUNK);
            count += match self.chunks.get((at / CHUNK) as usize) {
                None | Some(Chunk::Empty) => 0,
                Some(Chunk::Full) => end - at,
                Some(Chunk::Some { bits, .. }) => count_bits(bits, at % CHUNK, end - at),
            };
            at = end;
        }
        count
    }

    /// The first number of a range that is not in.
    pub(super) fn first_absent(&self, from: u64, to: u64) -> Option<u64> {
        let mut at = from;
        while at < to {
            match self.chunks.get((at / CHUNK) as usize) {
                None | Some(Chunk::Empty) => return Some(at),
                Some(Chunk::Full) => at = (at / CHUNK + 1) * CHUNK,
                Some(Chunk::Some { bits, .. }) => {
                    let word = bits[(at % CHUNK / 64) as usize] >> (at % 64);
                    let run = u64::from(word.trailing_ones());
                    // The shift fills with zeros from above, so a run never passes its word.
                    if run < 64 - at % 64 {
                        return (at + run < to).then_some(at + run);
                    }
                    at += run;
                }
            }
        }
        None
    }

    /// Sets a bit; false when it was set.
    fn set_bit(&mut self, index: usize, place: u64) -> bool {
        while self.chunks.len() <= index {
            self.chunks.push(Chunk::Empty);
        }
        let chunk = &mut self.chunks[index];
        if matches!(chunk, Chunk::Empty) {
            *chunk = Chunk::Some {
                bits: Box::new([0; WORDS]),
                count: 0,
            };
        }
        let Chunk::Some { bits, count } = chunk else {
            return false;
        };
        let (word, bit) = (&mut bits[(place / 64) as usize], 1 << (place % 64));
        let new = *word & bit == 0;
        *word |= bit;
        *count += u64::from(new);
        if *count == CHUNK {
            *chunk = Chunk::Full;
        }
        new
    }

    fn remember(&mut self, index: u64, seq: u64, form: u32) {
        let forms = self
            .forms
            .entry(index)
            .or_insert_with(|| vec![0; CHUNK as usize].into_boxed_slice());
        forms[(seq % CHUNK) as usize] = form;
        while self.forms.len() > self.form_chunks_max {
            self.forms.pop_first();
        }
    }
}

/// Set bits among `len` from `from`, within one chunk.
fn count_bits(bits: &[u64; WORDS], from: u64, len: u64) -> u64 {
    let (mut at, end, mut count) = (from, from + len, 0);
    while at < end {
        let take = (64 - at % 64).min(end - at);
        let mask = if take == 64 {
            u64::MAX
        } else {
            ((1 << take) - 1) << (at % 64)
        };
        count += u64::from((bits[(at / 64) as usize] & mask).count_ones());
        at += take;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_agrees_with_a_plain_one() {
        let mut rng = crate::rng::Rng::new(9);
        let mut set = SeqSet::default();
        let mut model = std::collections::BTreeSet::new();
        let base = CHUNK - 300;
        for _ in 0..700 {
            let seq = base + rng.below(600);
            let first = set.insert(seq, 1) == Delivery::First;
            assert_eq!(first, model.insert(seq));
        }
        assert_eq!(set.count(0, 2 * CHUNK), model.len() as u64);
        for _ in 0..500 {
            let from = base + rng.below(610);
            let to = from + rng.below(200);
            assert_eq!(set.count(from, to), model.range(from..to).count() as u64);
            let absent = (from..to).find(|seq| !model.contains(seq));
            assert_eq!(set.first_absent(from, to), absent, "{from}..{to}");
        }
    }

    #[test]
    fn full_chunks_need_no_bits_and_still_know_repeats() {
        let mut set = SeqSet::default();
        for seq in 0..CHUNK {
            assert_eq!(set.insert(seq, 5), Delivery::First);
        }
        assert!(matches!(set.chunks[0], Chunk::Full));
        assert_eq!(set.insert(7, 5), Delivery::SameForm);
        assert_eq!(set.insert(7, 6), Delivery::OtherForm);
        assert_eq!(set.insert(7, 6), Delivery::SameForm);
        assert_eq!(set.count(0, CHUNK + 5), CHUNK);
        assert_eq!(set.first_absent(3, CHUNK + 5), Some(CHUNK));
        assert_eq!(set.first_absent(3, CHUNK), None);
    }

    #[test]
    fn forms_of_old_chunks_are_forgotten_not_guessed() {
        let mut set = SeqSet::default();
        for chunk in 0..=FORM_CHUNKS_MAX as u64 {
            assert_eq!(set.insert(chunk * CHUNK, 3), Delivery::First);
        }
        assert_eq!(set.insert(0, 3), Delivery::Unknown);
        assert_eq!(set.insert(CHUNK, 3), Delivery::SameForm);
        assert_eq!(set.forms.len(), FORM_CHUNKS_MAX);
    }

    #[test]
    fn forms_of_the_newest_lines_are_remembered_and_take_bounded_memory() {
        let mut set = SeqSet::remembering(CHUNK + 1);
        for chunk in 0..10 {
            assert_eq!(set.insert(chunk * CHUNK, 3), Delivery::First);
        }
        assert_eq!(set.forms.len(), 3);
        assert_eq!(set.insert(8 * CHUNK, 3), Delivery::SameForm);
        assert_eq!(set.insert(6 * CHUNK, 3), Delivery::Unknown);
    }
}
