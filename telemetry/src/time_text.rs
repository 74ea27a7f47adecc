//! Times and durations as the collector writes them: RFC 3339 in UTC and Go's duration form.

use std::fmt::Write;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Year, month and day of a number of days since 1970-01-01 (proleptic Gregorian calendar).
///
/// Counts in eras of 400 years (146,097 days) that begin on the first of March, so that a leap
/// day is the last day of its year.
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// `2026-01-31T12:34:56`, without fraction and zone.
fn seconds_text(unix_ns: i64) -> String {
    let seconds = unix_ns.div_euclid(NANOS_PER_SECOND);
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
    let rest = seconds.rem_euclid(SECONDS_PER_DAY);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}")
}

/// ISO 8601 with milliseconds in UTC, the form of the collector's own log.
pub(crate) fn iso8601_millis(unix_ns: i64) -> String {
    let millis = unix_ns.rem_euclid(NANOS_PER_SECOND) / 1_000_000;
    format!("{}.{millis:03}Z", seconds_text(unix_ns))
}

/// RFC 3339 in UTC with as many digits of the fraction as needed (Go's `RFC3339Nano`).
pub fn rfc3339_nano(unix_ns: i64) -> String {
    let mut text = seconds_text(unix_ns);
    push_fraction(&mut text, unix_ns.rem_euclid(NANOS_PER_SECOND) as u64, 9);
    text.push('Z');
    text
}

fn push_fraction(text: &mut String, value: u64, digits: usize) {
    if value > 0 {
        let padded = format!("{value:0digits$}");
        text.push('.');
        text.push_str(padded.trim_end_matches('0'));
    }
}

/// A duration in Go's form: `1h2m3.5s`, `250ms`, `0s`.
pub fn go_duration(nanos: u64) -> String {
    let small = |unit: u64, digits: usize, name: &str| {
        let mut text = (nanos / unit).to_string();
        push_fraction(&mut text, nanos % unit, digits);
        text + name
    };
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return small(1_000, 3, "\u{b5}s"),
        1_000_000..1_000_000_000 => return small(1_000_000, 6, "ms"),
        _ => {}
    }
    let seconds = nanos / 1_000_000_000;
    let mut text = String::new();
    // Writing into a String cannot fail.
    if seconds >= 3600 {
        let _ = write!(text, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    let _ = write!(text, "{}", seconds % 60);
    push_fraction(&mut text, nanos % 1_000_000_000, 9);
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_as_go_writes_them() {
        for (ns, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_500_000_000, "2024-02-29T23:59:59.5Z"),
            (4_102_444_800_000_000_001, "2100-01-01T00:00:00.000000001Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(rfc3339_nano(ns), want);
        }
        assert_eq!(
            iso8601_millis(1_709_251_199_007_900_000),
            "2024-02-29T23:59:59.007Z"
        );
    }

    #[test]
    fn durations_read_as_go_writes_them() {
        for (ns, want) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5\u{b5}s"),
            (250_000_000, "250ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (360_000_000_000_000, "100h0m0s"),
        ] {
            assert_eq!(go_duration(ns), want);
        }
    }
}
