//! Time zones of times that do not name one, and of those that do.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::civil::{Civil, FoundZone};
use crate::strptime::TimeError;

/// A name that is not in the zone database.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no time zone {0:?} in the zone database")]
pub struct ZoneError(
    /// The name.
    pub String,
);

/// A time zone.
#[derive(Clone, Debug)]
pub struct Zone(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Utc,
    Named(TimeZone),
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Zone {
        Zone(Kind::Utc)
    }

    /// The zone of this machine, UTC if it has none.
    pub fn local() -> Zone {
        match TimeZone::try_system() {
            Ok(tz) if tz.iana_name() != Some("UTC") => Zone(Kind::Named(tz)),
            _ => Zone::utc(),
        }
    }

    /// A zone of the IANA database, such as `Europe/Berlin`. As in Go an empty name and `UTC` are
    /// UTC and `Local` is the machine's zone.
    ///
    /// # Errors
    /// The database does not have it.
    pub fn named(name: &str) -> Result<Zone, ZoneError> {
        match name {
            "" | "UTC" => Ok(Zone::utc()),
            "Local" => Ok(Zone::local()),
            _ => match TimeZone::get(name) {
                Ok(tz) => Ok(Zone(Kind::Named(tz))),
                Err(_) => Err(ZoneError(name.to_owned())),
            },
        }
    }

    /// A time in ns since the epoch as it is in this zone, as Go's `time.RFC3339` writes it: seconds,
    /// and `Z` where the offset is nothing.
    pub fn rfc3339(&self, ns: i64) -> String {
        let at = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
        let tz = match &self.0 {
            Kind::Utc => TimeZone::UTC,
            Kind::Named(tz) => tz.clone(),
        };
        let offset = tz.to_offset(at);
        let local = offset.to_datetime(at);
        let zone = match offset.seconds() {
            0 => "Z".to_owned(),
            seconds => {
                let sign = if seconds < 0 { '-' } else { '+' };
                let minutes = seconds.abs() / 60;
                format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        };
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{zone}",
            local.year(),
            local.month(),
            local.day(),
            local.hour(),
            local.minute(),
            local.second()
        )
    }

    /// The year it is at `now_ns`.
    pub(crate) fn year_at(&self, now_ns: i64) -> i64 {
        let at = Timestamp::from_nanosecond(i128::from(now_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
        let tz = match &self.0 {
            Kind::Utc => TimeZone::UTC,
            Kind::Named(tz) => tz.clone(),
        };
        i64::from(tz.to_datetime(at).year())
    }

    /// ns since the epoch of `civil` in the zone it was found with, in this one if with none.
    pub(crate) fn resolve(&self, civil: &Civil, found: &FoundZone<'_>) -> Result<i64, TimeError> {
        match *found {
            FoundZone::None => self.local_time(civil),
            FoundZone::Offset(seconds) => civil.at_offset(seconds),
            FoundZone::Name(b"UTC") => civil.at_offset(0),
            FoundZone::Name(name) => self.abbreviated(civil, &String::from_utf8_lossy(name)),
        }
    }

    fn local_time(&self, civil: &Civil) -> Result<i64, TimeError> {
        let tz = match &self.0 {
            Kind::Utc => return civil.at_offset(0),
            Kind::Named(tz) => tz,
        };
        // As Go finds the offset of a local time, also of one that does not exist, or exists twice, when
        // clocks are changed: that of the time it would be with the offset there is at this time in UTC.
        let offset_at = |ns: i64| {
            let at = Timestamp::from_nanosecond(i128::from(ns)).map_err(|_| TimeError::Range)?;
            Ok(i64::from(tz.to_offset(at).seconds()))
        };
        let guess = civil.at_offset(offset_at(civil.at_offset(0)?)?)?;
        civil.at_offset(offset_at(guess)?)
    }

    /// An abbreviation is looked up in this zone, then as a name of the database, as the
    /// collector does it; `GMT+3` and `+03` carry their offset themselves.
    fn abbreviated(&self, civil: &Civil, name: &str) -> Result<i64, TimeError> {
        if let Kind::Named(tz) = &self.0 {
            let year = civil.year.clamp(1, 9999) as i16;
            let probes = [
                datetime(civil)?,
                DateTime::constant(year, 1, 1, 0, 0, 0, 0),
                DateTime::constant(year, 7, 1, 0, 0, 0, 0),
            ];
            for probe in probes {
                let at = tz.to_timestamp(probe).map_err(|_| TimeError::Range)?;
                let info = tz.to_offset_info(at);
                if info.abbreviation() == name {
                    return civil.at_offset(i64::from(info.offset().seconds()));
                }
            }
        }
        if let Some(hours) = name.strip_prefix("GMT").filter(|h| !h.is_empty()) {
            let hours: i64 = hours
                .parse()
                .map_err(|_| TimeError::Zone(name.to_owned()))?;
            return civil.at_offset(hours * 3600);
        }
        if name.starts_with(['+', '-']) {
            let hours: i64 = name.parse().map_err(|_| TimeError::Zone(name.to_owned()))?;
            return civil.at_offset(hours * 3600);
        }
        let zone = Zone::named(name).map_err(|_| TimeError::Zone(name.to_owned()))?;
        zone.local_time(civil)
    }
}

fn datetime(c: &Civil) -> Result<DateTime, TimeError> {
    let year = i16::try_from(c.year).map_err(|_| TimeError::Range)?;
    let date = (c.month as i8, c.day as i8);
    let time = (
        c.hour as i8,
        c.minute as i8,
        c.second as i8,
        c.nanosecond as i32,
    );
    DateTime::new(year, date.0, date.1, time.0, time.1, time.2, time.3)
        .map_err(|_| TimeError::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_rfc_3339() {
        // 2024-10-04 19:21:48.9 UTC.
        let ns = 1_728_069_708_900_000_000;
        for (zone, want) in [
            ("UTC", "2024-10-04T19:21:48Z"),
            ("America/Los_Angeles", "2024-10-04T12:21:48-07:00"),
            ("Asia/Kathmandu", "2024-10-05T01:06:48+05:45"),
            ("Africa/Abidjan", "2024-10-04T19:21:48Z"),
        ] {
            assert_eq!(Zone::named(zone).expect(zone).rfc3339(ns), want);
        }
        assert_eq!(Zone::utc().rfc3339(-1), "1969-12-31T23:59:59Z");
    }
}
