//! Times in headers of answers.

use std::time::Duration;

/// ns since the epoch of a date and time of day. Days from civil: Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
pub(crate) fn unix_ns(date: (i64, i64, i64), clock: (i64, i64, i64), nanos: i64) -> Option<i64> {
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

/// The number in `len` bytes of `text`, if they are digits.
pub(crate) fn digits(text: &str, from: usize, len: usize) -> Option<i64> {
    let part = text.get(from..from + len)?;
    let all = part.bytes().all(|b| b.is_ascii_digit());
    all.then(|| part.parse().ok()).flatten()
}

/// The wait a `Retry-After` header asks for: seconds, or an HTTP date (RFC 9110, 10.2.3; only the
/// preferred form of dates). `now` is the wall clock in ns since the epoch.
pub fn retry_after(value: &str, now: i64) -> Option<Duration> {
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
