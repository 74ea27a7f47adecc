//! Writing times by a layout, as Go's `time.Format` does.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::civil::{MONTHS, WEEKDAYS};
use crate::strptime::{OffsetForm, Step};

/// Appends the time `ns` since the epoch, in UTC.
pub(crate) fn steps(steps: &[Step], ns: i64, out: &mut String) {
    // 64 bits of nanoseconds reach from 1677 to 2262, all of which have dates.
    let at = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    let t = TimeZone::UTC.to_datetime(at);
    for step in steps {
        out.push_str(&text(step, t));
    }
}

fn text(step: &Step, t: DateTime) -> String {
    let two = |n: i8, padded: bool| match padded {
        true => format!("{n:02}"),
        false => n.to_string(),
    };
    let name = |names: &[&str], i: i8, full: bool| {
        let name = usize::try_from(i).ok().and_then(|i| names.get(i)).copied();
        let name = name.unwrap_or_default();
        if full {
            name
        } else {
            &name[..name.len().min(3)]
        }
        .to_owned()
    };
    match step {
        Step::Literal(text) => String::from_utf8_lossy(text).into_owned(),
        Step::Year | Step::YearOrOfCentury => format!("{:04}", t.year()),
        Step::YearOfCentury => format!("{:02}", t.year().rem_euclid(100)),
        Step::MonthName { full } => name(&MONTHS, t.month() - 1, *full),
        Step::Month { padded } => two(t.month(), *padded),
        Step::Weekday { full } => name(&WEEKDAYS, t.weekday().to_sunday_zero_offset(), *full),
        Step::Day { blank: true, .. } => format!("{:>2}", t.day()),
        Step::Day { padded, .. } => two(t.day(), *padded),
        Step::DayOfYear { blank: true } => format!("{:>3}", t.day_of_year()),
        Step::DayOfYear { .. } => format!("{:03}", t.day_of_year()),
        Step::Hour => two(t.hour(), true),
        Step::Hour12 { padded } => two((t.hour() + 11) % 12 + 1, *padded),
        Step::Minute { padded } => two(t.minute(), *padded),
        Step::Second { padded } => two(t.second(), *padded),
        Step::FractionExact(digits) => {
            let all = format!("{:09}", t.subsec_nanosecond());
            format!(".{:0<1$}", &all[..(*digits).min(9)], (*digits).min(9))
        }
        Step::FractionAny(digits) => {
            let all = format!("{:09}", t.subsec_nanosecond());
            match all[..(*digits).min(9)].trim_end_matches('0') {
                "" => String::new(),
                digits => format!(".{digits}"),
            }
        }
        Step::HalfDay { lower } => {
            let half = if t.hour() < 12 { "AM" } else { "PM" };
            if *lower {
                half.to_lowercase()
            } else {
                half.to_owned()
            }
        }
        Step::ZoneName => "UTC".into(),
        Step::ZoneOffset(form) => offset(*form),
    }
}

/// The offset of UTC.
fn offset(form: OffsetForm) -> String {
    if form.z {
        return "Z".into();
    }
    let colon = if form.colon { ":" } else { "" };
    let mut out = String::from("+00");
    for there in [form.minutes, form.seconds] {
        if there {
            out.push_str(colon);
            out.push_str("00");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::strptime::{Layout, LayoutType};

    #[test]
    fn times_are_written_as_go_writes_them() {
        // 2026-03-01 13:05:09.250 UTC, a Sunday.
        let ns = 1_772_370_309_250_000_000;
        for (layout, want) in [
            ("%Y-%m-%dT%H:%M:%S%z", "2026-03-01T13:05:09Z"),
            ("%y %o %q %g %e|%l %I %p %P", "26 3 3 1  1|1 01 PM pm"),
            ("%A %a %B %b %h", "Sunday Sun March Mar Mar"),
            ("%S.%L %S.%f %S.%s", "09.25 09.25 09.25"),
            (
                "%D %F %T %R %r",
                "03/01/2026 2026-03-01 13:05:09 13:05 01:05:09 pm",
            ),
            ("%i %j %k %w %Z", "+00 +00:00 +00:00:00 +000000 UTC"),
            ("x%%%t%n", "x%\t\n"),
        ] {
            let layout = Layout::parse(layout, LayoutType::Strptime).unwrap();
            let mut out = String::new();
            layout.write_utc(ns, &mut out);
            assert_eq!(out, want);
        }
    }
}
