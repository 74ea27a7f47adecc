//! Thresholds and randomness of 56 bits, and what is made of them.
//!
//! An item is sampled when its threshold is not above its randomness. Source: the specification
//! "TraceState: Probability Sampling" of OpenTelemetry, and the sampling package of the collector
//! for rounding and for the hash.

/// Digits in hexadecimal of 56 bits.
pub(super) const DIGITS_MAX: usize = 14;
/// One more than the largest randomness.
const VALUES: u64 = 1 << 56;
/// The least probability that there is a threshold for.
pub(super) const LEAST: f64 = 1.0 / VALUES as f64;

/// How many of 2^56 values of randomness are not sampled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Threshold(u64);

/// 56 bits that are random, and the same for all that is to be sampled together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Randomness(u64);

/// A threshold or randomness as text that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Invalid;

/// A whole number in up to 14 hexadecimal digits.
fn parse(digits: &[u8]) -> Result<u64, Invalid> {
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return Err(Invalid);
    }
    digits.iter().try_fold(0, |sum, digit| {
        let value = (*digit as char).to_digit(16).ok_or(Invalid)?;
        Ok(sum << 4 | u64::from(value))
    })
}

/// 14 hexadecimal digits.
fn digits(value: u64) -> [u8; DIGITS_MAX] {
    let mut out = [0; DIGITS_MAX];
    for (i, digit) in out.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * i)) as usize & 15];
    }
    out
}

impl Threshold {
    /// Everything is sampled.
    pub const ALWAYS: Threshold = Threshold(0);
    /// Nothing is.
    pub const NEVER: Threshold = Threshold(VALUES);

    /// From a text of 1 to 14 hexadecimal digits; zeros at the end may be left out.
    pub fn parse(text: &[u8]) -> Result<Threshold, Invalid> {
        let value = parse(text)?;
        Ok(Threshold(value << (4 * (DIGITS_MAX - text.len()))))
    }

    /// Its text: no zeros at the end, but `0` for [`Threshold::ALWAYS`], and nothing for
    /// [`Threshold::NEVER`].
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Threshold::ALWAYS => out.push(b'0'),
            Threshold::NEVER => {}
            Threshold(value) => {
                let digits = digits(value);
                let end = digits.iter().rposition(|d| *d != b'0').map_or(0, |i| i + 1);
                out.extend_from_slice(&digits[..end]);
            }
        }
    }

    /// For a probability, in about `precision` hexadecimal digits: probabilities near 0 and 1 get as
    /// many more as are needed to tell them from those. `None` below [`LEAST`] and above 1.
    pub fn of(probability: f64, precision: usize) -> Option<Threshold> {
        if !(LEAST..=1.0).contains(&probability) {
            return None;
        }
        if probability == 1.0 {
            return Some(Threshold::ALWAYS);
        }
        let more = leading_digits(probability).max(leading_digits(1.0 - probability));
        let precision = (precision + more).min(DIGITS_MAX);
        let mut value = VALUES - (probability * VALUES as f64).round() as u64;
        let cut = 4 * (DIGITS_MAX - precision);
        if cut > 0 {
            value = (value + (1 << (cut - 1))) >> cut << cut;
        }
        Some(Threshold(value))
    }

    /// That `accepted` of 2^14 are sampled.
    pub fn of_14_bits(accepted: u64) -> Threshold {
        Threshold(((1 << 14) - accepted) << 42)
    }

    /// The share of items that are sampled.
    pub fn probability(self) -> f64 {
        (VALUES - self.0) as f64 / VALUES as f64
    }

    /// Whether an item is sampled.
    pub fn samples(self, randomness: Randomness) -> bool {
        self.0 <= randomness.0
    }
}

/// Digits 0 in hexadecimal that a number from 0 to 1 begins with, behind the point.
fn leading_digits(number: f64) -> usize {
    // The power of two just above the number, as `frexp` gives it.
    let exponent = if number < f64::MIN_POSITIVE {
        -1022
    } else {
        (number.to_bits() >> 52 & 0x7ff) as i64 - 1022
    };
    usize::try_from(-exponent / 4).unwrap_or(0)
}

impl Randomness {
    /// What is sampled with any probability.
    pub const ALL: Randomness = Randomness(VALUES - 1);

    /// From a text of 14 hexadecimal digits.
    pub fn parse(text: &[u8]) -> Result<Randomness, Invalid> {
        match text.len() {
            DIGITS_MAX => parse(text).map(Randomness),
            _ => Err(Invalid),
        }
    }

    /// Its 14 hexadecimal digits.
    pub fn text(self) -> [u8; DIGITS_MAX] {
        digits(self.0)
    }

    /// What a trace id has: its last seven bytes.
    pub fn of_trace(id: &[u8; 16]) -> Randomness {
        let bytes = id[9..].iter();
        Randomness(bytes.fold(0, |sum, b| sum << 8 | u64::from(*b)))
    }

    /// A hash, of which the lowest 14 bits decide. Arranged so that comparing it with
    /// [`Threshold::of_14_bits`] decides the same; what is left of the 32 bits follows.
    pub fn of_hash(bytes: &[u8], seed: u32) -> Randomness {
        let hash = u64::from(fnv1a(&seed.to_le_bytes(), bytes));
        let decides = hash & 0x3fff;
        let rest = hash >> 18;
        let middle = rest ^ (rest << 10);
        Randomness((0x3fff - decides) << 42 | middle << 14 | decides)
    }
}

/// FNV-1a of 32 bits, of `first` and then `second`.
fn fnv1a(first: &[u8], second: &[u8]) -> u32 {
    let bytes = first.iter().chain(second);
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(threshold: Threshold) -> String {
        let mut out = Vec::new();
        threshold.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn thresholds_of_probabilities_are_those_of_the_specification() {
        // From the tables of the specification and of the collector's package.
        for (probability, precision, expect) in [
            (1.0, 4, "0"),
            (0.5, 4, "8"),
            (0.25, 4, "c"),
            (1.0 / 3.0, 14, "aaaaaaaaaaaaac"),
            (1.0 / 3.0, 1, "b"),
            (1.0 / 3.0, 3, "aab"),
            (2.0 / 3.0, 4, "5555"),
            (0.1, 4, "e666"),
            (0.01, 4, "fd70a"),
            (0.001, 4, "ffbe77"),
            (0.99, 4, "028f6"),
            (0.05, 4, "f3333"),
            (LEAST, 4, "ffffffffffffff"),
            (1.0 - f64::EPSILON, 4, "0000000000001"),
        ] {
            let threshold = Threshold::of(probability, precision).unwrap();
            assert_eq!(text(threshold), expect, "{probability} {precision}");
        }
        for none in [0.0, LEAST / 2.0, 1.000001, -1.0, f64::NAN] {
            assert_eq!(Threshold::of(none, 4), None);
        }
    }

    #[test]
    fn texts_are_hexadecimal_digits() {
        for (given, expect) in [
            ("0", Some("0")),
            ("8", Some("8")),
            ("c0", Some("c")),
            ("00F", Some("00f")),
            ("ffffffffffffff", Some("ffffffffffffff")),
            ("00000000000000", Some("0")),
            ("", None),
            ("g", None),
            ("+1", None),
            ("fffffffffffffff", None),
        ] {
            let got = Threshold::parse(given.as_bytes()).ok().map(text);
            assert_eq!(got.as_deref(), expect, "{given}");
        }
        assert_eq!(text(Threshold::NEVER), "");
        let randomness = Randomness::parse(b"0123456789abCD").unwrap();
        assert_eq!(&randomness.text(), b"0123456789abcd");
        assert!(Randomness::parse(b"0123456789abc").is_err());
    }

    #[test]
    fn randomness_is_the_end_of_a_trace_id() {
        let id = *b"\x01\x02\x03\x04\x05\x06\x07\x08\xff\xd2\x9d\x6a\x72\x15\xce\xd0";
        assert_eq!(&Randomness::of_trace(&id).text(), b"d29d6a7215ced0");
        let half = Threshold::of(0.5, 4).unwrap();
        assert!(half.samples(Randomness::of_trace(&id)));
        assert!(!half.samples(Randomness::parse(b"7fffffffffffff").unwrap()));
        assert!(half.samples(Randomness::parse(b"80000000000000").unwrap()));
        assert!(!Threshold::NEVER.samples(Randomness::ALL));
    }

    #[test]
    fn the_hash_is_the_known_one_and_its_14_bits_decide() {
        // Test vectors of FNV-1a 32.
        assert_eq!(fnv1a(b"", b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"", b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foo", b"bar"), 0xbf9c_f968);
        for seed in [0, 22, u32::MAX] {
            for n in 0..2000_u32 {
                let bytes = n.to_be_bytes();
                let bits = u64::from(fnv1a(&seed.to_le_bytes(), &bytes)) & 0x3fff;
                for accepted in [1, 2, 2457, 8192, 0x3fff, 0x4000] {
                    let threshold = Threshold::of_14_bits(accepted);
                    let sampled = threshold.samples(Randomness::of_hash(&bytes, seed));
                    assert_eq!(sampled, bits < accepted);
                }
            }
        }
    }
}
