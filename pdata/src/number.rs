//! Whole numbers as decimal text: on the path of every number that leaves the agent, and several
//! times faster than the formatting machinery of the standard library.

/// Up to this size a double holds every whole number, and its shortest form has no exponent.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number as text. Holds the digits itself, so nothing is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    bytes: [u8; 20],
    start: u8,
}

impl Digits {
    /// The digits of `n`, with a sign if it is negative.
    #[inline]
    pub fn of(n: i64) -> Digits {
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
        &self.bytes[usize::from(self.start)..]
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
