//! Times in answers: `Retry-After` and the bounds that Loki names in its errors.

use std::time::Duration;

/// ns since the epoch of a date and time of day. Days from civil: Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn unix_ns(date: (i64, i64, i64), clock: (i64, i64, i64), nanos: i64) -> Option<i64> {
    let (year, month, day) = date;
    let (hour, minute, second) = clock;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !valid {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn digits(text: &str, from: usize, len: usize) -> Option<i64> {
    let part = text.get(from..from + len)?;
    let all = part.bytes().all(|b| b.is_ascii_digit());
    all.then(|| part.parse().ok()).flatten()
}

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

/// The wait a `Retry-After` header asks for: seconds, or an HTTP date (RFC 9110, 10.2.3; only the
/// preferred form of dates). `now` is the wall clock in ns since the epoch.
pub(super) fn retry_after(value: &str, now: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = value.split_once(", ")?.1.strip_suffix(" GMT")?;
    let month = MONTHS.iter().position(|m| date.get(3..6) == Some(m))? as i64 + 1;
    let day = (digits(date, 7, 4)?, month, digits(date, 0, 2)?);
    let clock = (
        digits(date, 12, 2)?,
        digits(date, 15, 2)?,
        digits(date, 18, 2)?,
    );
    let wait = unix_ns(day, clock, 0)?.saturating_sub(now);
    Some(Duration::from_nanos(u64::try_from(wait).unwrap_or(0)))
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

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let now = 1_763_909_608_000_000_000;
        for (text, want) in [
            ("17", Some(17)),
            (" 0 ", Some(0)),
            ("Sun, 23 Nov 2025 14:53:38 GMT", Some(10)),
            ("Sun, 23 Nov 2025 14:53:18 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
            ("Sun, 23 Foo 2025 14:53:38 GMT", None),
        ] {
            assert_eq!(retry_after(text, now).map(|d| d.as_secs()), want, "{text}");
        }
    }
}
