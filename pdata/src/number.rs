//! Whole numbers as decimal text: on the path of every number that leaves the agent, and several
//! times faster than the formatting machinery of the standard library.

/// Up to this size a double holds every whole number, and its shortest form has no exponent.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number as text. Holds the digits itself, so nothing is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    bytes: [u8; 20],
    start: u8,
    end: u8,
}

impl Digits {
    /// The digits of `n`, with a sign if it is negative.
    #[inline]
    pub fn of(n: i64) -> Digits {
        match u32::try_from(n) {
            Ok(n) if n < 100_000_000 => Digits::of_eight(n),
            _ => Digits::of_any(n),
        }
    }

    /// A number of at most eight digits: all of them at once, each in a byte of one word, so that
    /// they are written by one store and can be read back without waiting.
    #[inline]
    fn of_eight(n: u32) -> Digits {
        let (high, low) = (u64::from(n / 10_000), u64::from(n % 10_000));
        // Two numbers of four digits, then four of two, then eight of one; the first is lowest.
        // 10486 / 2^20 is 1/100 for numbers below 10,000, and 103 / 2^10 is 1/10 below 100.
        let fours = high | low << 32;
        let hundreds = (fours * 10_486) >> 20 & 0x0000_007f_0000_007f;
        let twos = hundreds + ((fours - hundreds * 100) << 16);
        let tens = (twos * 103) >> 10 & 0x000f_000f_000f_000f;
        let ones = tens + ((twos - tens * 10) << 8);
        // The last digit is written even if it is 0.
        let zeros = (ones | 1 << 56).trailing_zeros() / 8;
        let text = (ones | 0x3030_3030_3030_3030) >> (zeros * 8);
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&text.to_le_bytes());
        Digits {
            bytes,
            start: 0,
            end: 8 - zeros as u8,
        }
    }

    #[cold]
    fn of_any(n: i64) -> Digits {
        let (mut bytes, mut at) = ([0; 20], 20);
        let mut rest = n.unsigned_abs();
        loop {
            at -= 1;
            bytes[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if n < 0 {
            at -= 1;
            bytes[at] = b'-';
        }
        Digits {
            bytes,
            start: at as u8,
            end: 20,
        }
    }

    /// The digits of a double that is a whole number and whose text form is that of an integer;
    /// `None` for any other (fractions, -0, what is not exact).
    #[inline]
    pub fn of_whole(d: f64) -> Option<Digits> {
        let n = d as i64;
        let same = (n as f64).to_bits() == d.to_bits();
        (same && d.abs() <= EXACT_MAX).then(|| Digits::of(n))
    }

    /// The text, ASCII.
    #[inline]
    pub fn text(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..usize::from(self.end)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(d: Digits) -> String {
        String::from_utf8(d.text().to_vec()).expect("ASCII")
    }

    #[test]
    fn the_ends_of_the_range_have_all_their_digits() {
        for n in [0, 1, -1, 9, 10, -10, i64::MAX, i64::MIN] {
            assert_eq!(text(Digits::of(n)), n.to_string());
        }
        for n in (0..9).map(|digits| 10i64.pow(digits)) {
            for n in [n - 1, n, n + 1, 7 * n] {
                assert_eq!(text(Digits::of(n)), n.to_string());
            }
        }
        for n in (0..10_000).chain((0..100_000_000).step_by(9_973)) {
            assert_eq!(text(Digits::of(n)), n.to_string());
        }
    }

    #[test]
    fn only_whole_doubles_have_digits() {
        for d in [0.5, -0.0, f64::NAN, f64::INFINITY, 1e16, -1e300, 5e-324] {
            assert!(Digits::of_whole(d).is_none(), "{d}");
        }
        for d in [0.0, 304.0, -7.0, 9_007_199_254_740_992.0] {
            let digits = Digits::of_whole(d).map(text);
            assert_eq!(digits, Some(d.to_string()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_text_is_that_of_the_standard_library(n in any::<i64>(), d in any::<f64>()) {
            prop_assert_eq!(text(Digits::of(n)), n.to_string());
            let whole = n as f64;
            for d in [d, whole, (n as i32).into()] {
                if let Some(digits) = Digits::of_whole(d) {
                    prop_assert_eq!(text(digits), d.to_string());
                }
            }
        }
    }
}
