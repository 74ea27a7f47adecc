//! Byte sizes as the collector's log receivers read them: `^(\d+\.?\d*)\s*([kKmMgGtTpP]i?[bB])?$`.

/// What `parse_byte_size` accepts, as messages say it.
pub const BYTE_SIZE_FORM: &str =
    "a number of bytes, with or without a unit such as kb, KiB, MB, MiB, GiB";

/// Parses a size into bytes: `kb` is 1000, `kib` 1024, up to `pb` and `pib`; no unit is bytes.
/// A fraction is cut to whole bytes. `None` if the text has another form or does not fit.
pub fn parse_byte_size(text: &str) -> Option<u64> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    if digits_end == 0 {
        return None;
    }
    let mut number_end = digits_end;
    if text[number_end..].starts_with('.') {
        let after = &text[number_end + 1..];
        number_end += 1 + after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
    }
    let unit = text[number_end..].trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
    let scale = scale_of(unit)?;
    let whole: u64 = text[..digits_end].parse().ok()?;
    let fraction = text[digits_end..number_end].trim_start_matches('.');
    let (mut part, mut divisor) = (0u128, 1u128);
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        divisor *= 10;
    }
    let total = u128::from(whole) * u128::from(scale) + part * u128::from(scale) / divisor;
    // The collector keeps sizes in a signed 64-bit integer.
    i64::try_from(total).ok().map(i64::unsigned_abs)
}

fn scale_of(unit: &str) -> Option<u64> {
    let mut power = 0;
    let mut base = 1000u64;
    let bytes = unit.as_bytes();
    match bytes {
        [] => return Some(1),
        [prefix, b'b' | b'B'] | [prefix, b'i', b'b' | b'B'] => {
            power += match prefix.to_ascii_lowercase() {
                b'k' => 1,
                b'm' => 2,
                b'g' => 3,
                b't' => 4,
                b'p' => 5,
                _ => return None,
            };
            if bytes.len() == 3 {
                base = 1024;
            }
        }
        _ => return None,
    }
    Some(base.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_with_decimal_and_binary_units() {
        for (text, expect) in [
            ("0", Some(0)),
            ("123", Some(123)),
            ("1kb", Some(1_000)),
            ("1 KB", Some(1_000)),
            ("1KiB", Some(1_024)),
            ("1kib", Some(1_024)),
            ("16MiB", Some(16 << 20)),
            ("1.5kib", Some(1_536)),
            ("1.", Some(1)),
            ("2 gb", Some(2_000_000_000)),
            ("1tib", Some(1 << 40)),
            ("1PiB", Some(1 << 50)),
            ("8192PiB", None),
            ("99999999999999999999", None),
            ("", None),
            ("kb", None),
            (".5kb", None),
            ("-1kb", None),
            ("1b", None),
            ("1k", None),
            ("1KIB", None),
            ("1kb ", None),
            ("1eb", None),
        ] {
            assert_eq!(parse_byte_size(text), expect, "{text:?}");
        }
    }
}
