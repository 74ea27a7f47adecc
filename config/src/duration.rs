//! Durations as Go writes them: signed decimals with a unit, combinable, `1h30m`, `-1.5s`.
//! The grammar is that of `time.ParseDuration` in Go's standard library.

/// What `parse_duration` accepts, as messages say it.
pub const DURATION_FORM: &str =
    "a duration such as 500ms, 30s or 1h30m (units ns, us, ms, s, m, h)";

/// Parses a duration into nanoseconds. `None` if the text is no duration or does not fit 64 bits.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (part, after) = parse_part(rest)?;
        total = total.checked_add(part)?;
        rest = after;
    }
    match (negative, total) {
        (true, t) if t == i64::MIN.unsigned_abs() => Some(i64::MIN),
        (true, t) => i64::try_from(t).ok().map(|t| -t),
        (false, t) => i64::try_from(t).ok(),
    }
}

/// One number with its unit; nanoseconds and the remaining text.
fn parse_part(text: &str) -> Option<(u64, &str)> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => split_digits(after),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let scale = nanoseconds_of(unit)?;
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let total = whole
        .checked_mul(scale)?
        .checked_add(fraction_of(fraction, scale))?;
    Some((total, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// The fraction `0.digits` of `scale`, rounded down. Digits beyond what a nanosecond of an hour
/// can show are without effect and left out.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let (mut value, mut divisor) = (0u128, 1u128);
    for digit in digits.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        divisor *= 10;
    }
    // value < divisor, so the quotient is less than scale and fits.
    (value * u128::from(scale) / divisor) as u64
}

fn nanoseconds_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A duration as messages and rendered configurations show it: the largest units that are exact,
/// `1h30m`, `1.5s` as `1s500ms`, nothing as `0s`. `parse_duration` reads it back.
pub fn format_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    if nanoseconds < 0 {
        text.push('-');
    }
    let mut rest = nanoseconds.unsigned_abs();
    for unit in ["h", "m", "s", "ms", "us", "ns"] {
        let scale = nanoseconds_of(unit).unwrap_or(1);
        let count = rest / scale;
        rest %= scale;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, expect) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1ns", Some(1)),
            ("1us", Some(1_000)),
            ("1\u{b5}s", Some(1_000)),
            ("1\u{3bc}s", Some(1_000)),
            ("200ms", Some(200_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1h0.5m", Some(3_630_000_000_000)),
            ("-10s", Some(-10_000_000_000)),
            ("+5s", Some(5_000_000_000)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("2562048h", None),
            ("0.3333333333333333333h", Some(1_199_999_999_999)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("1s ", None),
            (" 1s", None),
            ("1S", None),
            ("1.2.3s", None),
            ("1h-5m", None),
        ] {
            assert_eq!(parse_duration(text), expect, "{text:?}");
        }
    }

    #[test]
    fn a_formatted_duration_reads_back_as_itself() {
        for ns in [
            0,
            1,
            -1,
            999,
            1_500_000_000,
            5_400_000_000_000,
            i64::MAX,
            i64::MIN,
        ] {
            assert_eq!(parse_duration(&format_duration(ns)), Some(ns), "{ns}");
        }
        assert_eq!(format_duration(5_400_000_000_000), "1h30m");
    }
}
