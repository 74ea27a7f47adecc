//! Texts, each kept once.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

/// The number of a text.
pub(super) type Symbol = u32;

/// Slots of an empty table; a power of two.
const SLOTS_MIN: usize = 256;

/// Texts with numbers, and a hash of each.
#[derive(Default)]
pub(super) struct Symbols {
    text: Vec<u8>,
    /// Where each text ends; it begins where the one before it does.
    ends: Vec<usize>,
    hashes: Vec<u64>,
    /// Number of a text plus one; 0 = free.
    slots: Vec<u32>,
}

impl Symbols {
    /// The number of `text`.
    #[inline]
    pub fn intern(&mut self, text: &[u8]) -> Symbol {
        if self.slots.len() < 2 * (self.ends.len() + 1) {
            self.grow();
        }
        let hash = FixedState::default().hash_one(text);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                0 => break,
                taken => {
                    let symbol = taken - 1;
                    if self.hashes[symbol as usize] == hash && self.get(symbol) == text {
                        return symbol;
                    }
                }
            }
            at = (at + 1) & mask;
        }
        let symbol = self.ends.len() as Symbol;
        self.text.extend_from_slice(text);
        self.ends.push(self.text.len());
        self.hashes.push(hash);
        self.slots[at] = symbol + 1;
        symbol
    }

    fn grow(&mut self) {
        let slots = (2 * self.slots.len()).max(SLOTS_MIN);
        self.slots.clear();
        self.slots.resize(slots, 0);
        for (symbol, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & (slots - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (slots - 1);
            }
            self.slots[at] = symbol as u32 + 1;
        }
    }

    /// The text with the number `symbol`.
    #[inline]
    pub fn get(&self, symbol: Symbol) -> &[u8] {
        let at = symbol as usize;
        let from = match at {
            0 => 0,
            _ => self.ends[at - 1],
        };
        &self.text[from..self.ends[at]]
    }

    /// A hash of the text, the same in all tables.
    #[inline]
    pub fn hash(&self, symbol: Symbol) -> u64 {
        self.hashes[symbol as usize]
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of memory.
    pub fn heap_bytes(&self) -> usize {
        self.text.capacity() + 16 * self.ends.capacity() + 4 * self.slots.capacity()
    }

    /// Forgets all texts.
    pub fn clear(&mut self) {
        *self = Symbols::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number() {
        let mut symbols = Symbols::default();
        let texts: Vec<String> = (0..1000).map(|i| format!("text {i}")).collect();
        for round in 0..2 {
            for (i, text) in texts.iter().enumerate() {
                assert_eq!(symbols.intern(text.as_bytes()), i as u32, "round {round}");
            }
        }
        assert_eq!((symbols.len(), symbols.get(999)), (1000, &b"text 999"[..]));
        let mut other = Symbols::default();
        let (empty, again) = (other.intern(b""), other.intern(b"text 7"));
        assert_eq!((other.get(empty), again), (&b""[..], 1));
        assert_eq!(other.hash(again), symbols.hash(7));
    }
}
