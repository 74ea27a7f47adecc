//! Times in answers: the bounds that Loki names in its errors.

use crate::client::http_date::{digits, unix_ns};

/// Reads the time that `text` begins with, in RFC 3339 or as Go prints a `time.Time`
/// (`2006-01-02 15:04:05.9 +0000 UTC`). Returns ns since the epoch.
pub(super) fn leading_time(text: &str) -> Option<i64> {
    let date = (
        digits(text, 0, 4)?,
        digits(text, 5, 2)?,
        digits(text, 8, 2)?,
    );
    let clock = (
        digits(text, 11, 2)?,
        digits(text, 14, 2)?,
        digits(text, 17, 2)?,
    );
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let n = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let value: i64 = fraction.get(..n.min(9))?.parse().ok()?;
        nanos = value * 10i64.pow(9 - n.min(9) as u32);
        rest = &fraction[n..];
    }
    let zone = rest.trim_start();
    let offset_seconds = match zone.bytes().next() {
        Some(b'Z') => 0,
        Some(sign @ (b'+' | b'-')) => {
            let colon = usize::from(zone.as_bytes().get(3) == Some(&b':'));
            let minutes = digits(zone, 1, 2)? * 60 + digits(zone, 3 + colon, 2)?;
            if sign == b'-' {
                -minutes * 60
            } else {
                minutes * 60
            }
        }
        _ => return None,
    };
    unix_ns(date, clock, nanos)?.checked_sub(offset_seconds * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_loki_prints_them() {
        let t = 1_763_909_608_000_000_000;
        for (text, want) in [
            ("2025-11-23T14:53:28Z", Some(t)),
            ("2025-11-23T14:53:28.5Z, more", Some(t + 500_000_000)),
            ("2025-11-23T16:53:28+02:00", Some(t)),
            ("2025-11-23 14:53:28.000000001 +0000 UTC", Some(t + 1)),
            ("2025-11-23 09:23:28 -0530 X", Some(t)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400_000_000_000)),
            ("2025-13-23T14:53:28Z", None),
            ("2025-11-23T14:53", None),
            ("2025-11-23T14:53:28", None),
            ("\u{e9}\u{e9}25-11-23T14:53:28Z", None),
            ("", None),
        ] {
            assert_eq!(leading_time(text), want, "{text}");
        }
    }
}
