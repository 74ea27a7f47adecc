//! How characters are made of bytes, as far as framing needs it.

/// The byte form of the text. Every encoding but UTF-16 is framed by single bytes: none of them
/// uses LF, CR, space or tab as a part of another character.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Units {
    /// UTF-8 (and ASCII); a record is not split inside a character.
    #[default]
    Utf8,
    /// An encoding whose characters are not known here, or no text at all.
    Bytes,
    /// UTF-16, low byte first.
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
}

/// White space (space, tab, CR, LF) to remove from records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trim {
    /// At the start; off with `preserve_leading_whitespaces`.
    pub leading: bool,
    /// At the end; off with `preserve_trailing_whitespaces`.
    pub trailing: bool,
}

impl Default for Trim {
    fn default() -> Trim {
        Trim {
            leading: true,
            trailing: true,
        }
    }
}

impl Trim {
    /// Removes nothing.
    pub const NONE: Trim = Trim {
        leading: false,
        trailing: false,
    };
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

impl Units {
    /// Bytes of one unit.
    pub fn size(self) -> usize {
        match self {
            Units::Utf8 | Units::Bytes => 1,
            Units::Utf16Le | Units::Utf16Be => 2,
        }
    }

    /// `len` rounded down to whole units.
    pub(super) fn whole(self, len: usize) -> usize {
        len / self.size() * self.size()
    }

    /// The unit at the start of `bytes`, which holds one.
    pub(super) fn unit(self, bytes: &[u8]) -> u16 {
        match (self, bytes) {
            (Units::Utf16Le, &[a, b, ..]) => u16::from_le_bytes([a, b]),
            (Units::Utf16Be, &[a, b, ..]) => u16::from_be_bytes([a, b]),
            (_, &[a, ..]) => u16::from(a),
            (_, []) => 0,
        }
    }

    /// The part of `content` that is left after trimming.
    #[inline]
    pub(crate) fn trim(self, content: &[u8], trim: Trim) -> (usize, usize) {
        let (mut from, mut to) = (0, content.len());
        if self.size() == 1 {
            while trim.leading && from < to && is_space(content[from]) {
                from += 1;
            }
            while trim.trailing && to > from && is_space(content[to - 1]) {
                to -= 1;
            }
            return (from, to);
        }
        let space = |at: usize| u8::try_from(self.unit(&content[at..])).is_ok_and(is_space);
        while trim.leading && from + 2 <= to && space(from) {
            from += 2;
        }
        while trim.trailing && to >= from + 2 && space(to - 2) {
            to -= 2;
        }
        (from, to)
    }

    /// The last place at or before `at` where `bytes` can be split between characters; `at` itself
    /// if there is none. `at` must be at most `bytes.len()`.
    pub(crate) fn floor(self, bytes: &[u8], at: usize) -> usize {
        match self {
            Units::Bytes => at,
            Units::Utf8 => {
                let back = bytes[..at]
                    .iter()
                    .rev()
                    .take(3)
                    .take_while(|b| **b & 0xc0 == 0x80);
                let Some(lead) = at.checked_sub(back.count() + 1) else {
                    return at;
                };
                let length = match bytes[lead] {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    0xf0..=0xf4 => 4,
                    _ => 1,
                };
                if lead > 0 && lead + length > at {
                    lead
                } else {
                    at
                }
            }
            Units::Utf16Le | Units::Utf16Be => {
                let high = at >= 4 && (0xd800..0xdc00).contains(&self.unit(&bytes[at - 2..]));
                if high { at - 2 } else { at }
            }
        }
    }

    /// Bytes of NUL units at the start.
    pub(super) fn nul_run(self, bytes: &[u8]) -> usize {
        match bytes.first() {
            // The common case costs one comparison. UTF-16BE has NULs in every ASCII character.
            None | Some(1..) => 0,
            Some(0) => self.whole(leading_zeros(bytes)),
        }
    }

    /// Length of `bytes` without NUL units at the end, at least one unit.
    pub(super) fn without_nuls(self, bytes: &[u8]) -> usize {
        let mut end = bytes.len();
        while end > self.size() && bytes[end - self.size()..end].iter().all(|b| *b == 0) {
            end -= self.size();
        }
        end
    }

    /// The last character as ASCII, `x` if it is none.
    pub(super) fn last_ascii(self, bytes: &[u8]) -> u8 {
        let last = self.unit(&bytes[bytes.len().saturating_sub(self.size())..]);
        u8::try_from(last).ok().filter(u8::is_ascii).unwrap_or(b'x')
    }
}

/// Zero bytes at the start, counted by words.
fn leading_zeros(bytes: &[u8]) -> usize {
    let words = bytes
        .chunks_exact(16)
        .take_while(|w| **w == [0u8; 16])
        .count()
        * 16;
    words + bytes[words..].iter().take_while(|b| **b == 0).count()
}
