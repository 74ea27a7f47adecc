//! Calendar text for Unix times, as far as log formats and Loki's error texts need it.
//!
//! Days to date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"
//! (`civil_from_days`), proleptic Gregorian calendar, UTC only.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A moment in UTC, split into calendar fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Year; 1 is the year 1 CE.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, 1 to 31.
    pub day: u32,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute, 0 to 59.
    pub minute: u32,
    /// Second, 0 to 59; leap seconds do not exist in Unix time.
    pub second: u32,
    /// Nanoseconds of the second.
    pub nanos: u32,
}

impl Civil {
    /// The fields of a Unix time in nanoseconds; every `i64` is a valid moment (1677 to 2262).
    pub fn from_unix_nanos(unix_nanos: i64) -> Self {
        let seconds = unix_nanos.div_euclid(NANOS_PER_SECOND);
        let day_seconds = seconds.rem_euclid(86_400) as u32;
        let shifted = seconds.div_euclid(86_400) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
        let month = ((month_from_march + 2) % 12 + 1) as u32;
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day,
            hour: day_seconds / 3_600,
            minute: day_seconds / 60 % 60,
            second: day_seconds % 60,
            nanos: unix_nanos.rem_euclid(NANOS_PER_SECOND) as u32,
        }
    }
}

/// `2024-01-02T15:04:05.000000006Z`: RFC 3339 with all nine digits, as container runtimes write.
pub fn rfc3339_nanos(unix_nanos: i64) -> String {
    let c = Civil::from_unix_nanos(unix_nanos);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second, c.nanos
    )
}

/// `2024-01-02T15:04:05Z`: RFC 3339 to the second, as in Loki's validation errors.
pub fn rfc3339_seconds(unix_nanos: i64) -> String {
    let c = Civil::from_unix_nanos(unix_nanos);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// `2024-01-02 15:04:05.000000006 +0000 UTC`: how Go prints a time, trailing zeros cut.
pub fn go_time(unix_nanos: i64) -> String {
    let c = Civil::from_unix_nanos(unix_nanos);
    let fraction = format!(".{:09}", c.nanos);
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{fraction} +0000 UTC",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// `20240102-150405`: the suffix the kubelet gives a rotated container log.
pub fn kubelet_suffix(unix_nanos: i64) -> String {
    let c = Civil::from_unix_nanos(unix_nanos);
    format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// The wall clock in Unix nanoseconds; 0 for a clock set before 1970.
pub fn system_unix_nanos() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_printed_right() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_704_207_845_000_000_006, "2024-01-02T15:04:05.000000006Z"),
            (1_709_164_799_999_999_999, "2024-02-28T23:59:59.999999999Z"),
            (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000000Z"),
            (951_868_799_000_000_000, "2000-02-29T23:59:59.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ];
        for (nanos, expect) in cases {
            assert_eq!(rfc3339_nanos(nanos), expect);
        }
    }

    #[test]
    fn other_forms_agree_with_their_writers() {
        let t = 1_704_207_845_120_000_000;
        assert_eq!(rfc3339_seconds(t), "2024-01-02T15:04:05Z");
        assert_eq!(go_time(t), "2024-01-02 15:04:05.12 +0000 UTC");
        assert_eq!(go_time(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(kubelet_suffix(t), "20240102-150405");
        assert!(system_unix_nanos() > t);
    }
}
