//! Which of the generated messages have arrived: what is missing, repeated or out of order.

use crate::content::place_of;

/// Most files and messages of a file that are told apart: a bound on what a broken line can cost.
const FILES_MAX: u64 = 100_000;
const MESSAGES_MAX: u64 = 1 << 30;

/// Counts of lines that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Places {
    /// Different messages.
    pub unique: u64,
    /// Messages that had arrived before.
    pub repeated: u64,
    /// First arrivals behind a later message of the same stream of a file.
    pub out_of_order: u64,
    /// Lines that are no generated message.
    pub unknown: u64,
}

/// Marks messages as they arrive.
#[derive(Debug, Default)]
pub struct Seen {
    files: Vec<File>,
    places: Places,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// A bit for each message.
    bits: Vec<u64>,
    /// One more than the highest number that arrived, of each stream.
    ends: [u64; 2],
}

impl Seen {
    /// What was counted so far.
    pub fn places(&self) -> Places {
        self.places
    }

    /// Marks the message that `line` is.
    pub fn mark(&mut self, line: &[u8]) {
        let place = place_of(line).filter(|p| p.file < FILES_MAX && p.n < MESSAGES_MAX);
        let Some(place) = place else {
            self.places.unknown += 1;
            return;
        };
        let (index, n) = (place.file as usize, place.n);
        if self.files.len() <= index {
            self.files.resize(index + 1, File::default());
        }
        let file = &mut self.files[index];
        let (word, bit) = ((n / 64) as usize, 1 << (n % 64));
        if file.bits.len() <= word {
            file.bits.resize(word + 1, 0);
        }
        if file.bits[word] & bit != 0 {
            self.places.repeated += 1;
            return;
        }
        file.bits[word] |= bit;
        self.places.unique += 1;
        let end = &mut file.ends[usize::from(place.stderr)];
        if n < *end {
            self.places.out_of_order += 1;
        }
        *end = (*end).max(n + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_late_or_unknown_is_counted() {
        let mut seen = Seen::default();
        // 15 is of another stream than 14.
        for n in [0, 1, 3, 2, 3, 15, 14, 200] {
            seen.mark(format!("{{\"file\":4,\"n\":{n}}}").as_bytes());
        }
        seen.mark(b"{\"file\":0,\"n\":9}");
        seen.mark(b"something else");
        let want = Places {
            unique: 8,
            repeated: 1,
            out_of_order: 1,
            unknown: 1,
        };
        assert_eq!(seen.places(), want);
    }
}
