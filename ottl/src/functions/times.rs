//! Times and durations. Times carry no zone: their parts and texts are those of UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tailwater_config::parse_duration;

use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::{Arg, Function, Takes, duration, f, int, opt, p, text, time};

const TIME: Takes = Takes::Value(Kind::Time);
const DURATION: Takes = Takes::Value(Kind::Duration);
const OF_TIME: &[super::Param] = &[p("time", TIME)];
const OF_DURATION: &[super::Param] = &[p("duration", DURATION)];

const MINUTE: f64 = 60e9;
const SECOND_NS: i64 = 1_000_000_000;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "Now",
        params: &[],
        returns: Kind::Time,
        run: |_, cx| Ok(Val::Time(cx.now_ns)),
        pure: false,
        prepare: None,
        context: None,
    },
    Function {
        name: "Time",
        params: &[
            p("time", Takes::Value(Kind::Text)),
            p("format", Takes::Layout),
            opt("location", Takes::Zone),
            opt("locale", Takes::Locale),
        ],
        returns: Kind::Time,
        run: time_of,
        // The year of a time without one is that of now.
        pure: false,
        prepare: None,
        context: None,
    },
    f(
        "FormatTime",
        &[p("time", TIME), p("format", Takes::Layout)],
        Kind::Text,
        format_time,
    ),
    f(
        "TruncateTime",
        &[p("time", TIME), p("duration", DURATION)],
        Kind::Time,
        truncate,
    ),
    f(
        "Unix",
        &[
            p("seconds", Takes::Value(Kind::Int)),
            opt("nanoseconds", Takes::Value(Kind::Int)),
        ],
        Kind::Time,
        unix,
    ),
    f("UnixNano", OF_TIME, Kind::Int, |a, cx| {
        since("UnixNano", 1, a, cx)
    }),
    f("UnixMicro", OF_TIME, Kind::Int, |a, cx| {
        since("UnixMicro", 1_000, a, cx)
    }),
    f("UnixMilli", OF_TIME, Kind::Int, |a, cx| {
        since("UnixMilli", 1_000_000, a, cx)
    }),
    f("UnixSeconds", OF_TIME, Kind::Int, |a, cx| {
        since("UnixSeconds", SECOND_NS, a, cx)
    }),
    f("Year", OF_TIME, Kind::Int, |a, cx| {
        part("Year", a, cx, |t| t.year().into())
    }),
    f("Month", OF_TIME, Kind::Int, |a, cx| {
        part("Month", a, cx, |t| t.month().into())
    }),
    f("Day", OF_TIME, Kind::Int, |a, cx| {
        part("Day", a, cx, |t| t.day().into())
    }),
    f("Weekday", OF_TIME, Kind::Int, |a, cx| {
        part("Weekday", a, cx, |t| {
            t.weekday().to_sunday_zero_offset().into()
        })
    }),
    f("Hour", OF_TIME, Kind::Int, |a, cx| {
        part("Hour", a, cx, |t| t.hour().into())
    }),
    f("Minute", OF_TIME, Kind::Int, |a, cx| {
        part("Minute", a, cx, |t| t.minute().into())
    }),
    f("Second", OF_TIME, Kind::Int, |a, cx| {
        part("Second", a, cx, |t| t.second().into())
    }),
    f("Nanosecond", OF_TIME, Kind::Int, |a, cx| {
        part("Nanosecond", a, cx, |t| t.subsec_nanosecond().into())
    }),
    f(
        "Duration",
        &[p("duration", Takes::Value(Kind::Text))],
        Kind::Duration,
        duration_of,
    ),
    f("Hours", OF_DURATION, Kind::Double, |a, cx| {
        float("Hours", 60.0 * MINUTE, a, cx)
    }),
    f("Minutes", OF_DURATION, Kind::Double, |a, cx| {
        float("Minutes", MINUTE, a, cx)
    }),
    f("Seconds", OF_DURATION, Kind::Double, |a, cx| {
        float("Seconds", 1e9, a, cx)
    }),
    f("Milliseconds", OF_DURATION, Kind::Int, |a, cx| {
        whole("Milliseconds", 1_000_000, a, cx)
    }),
    f("Microseconds", OF_DURATION, Kind::Int, |a, cx| {
        whole("Microseconds", 1_000, a, cx)
    }),
    f("Nanoseconds", OF_DURATION, Kind::Int, |a, cx| {
        whole("Nanoseconds", 1, a, cx)
    }),
];

type Done<'a> = Result<Val<'a>, Fault>;

/// The date and time of day of a time in UTC.
fn civil(ns: i64) -> DateTime {
    // 64 bits of nanoseconds reach from 1677 to 2262, all of which have dates.
    let at = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(at)
}

/// A time as text where a function takes anything.
pub(super) fn rfc3339(ns: i64) -> String {
    let at = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_string()
}

fn part<'a>(
    place: &'static str,
    args: &'a [Arg],
    cx: &Cx<'a>,
    of: fn(DateTime) -> i64,
) -> Done<'a> {
    Ok(Val::Int(of(civil(time(place, args, 0, cx)?))))
}

fn since<'a>(place: &'static str, unit_ns: i64, args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(Val::Int(time(place, args, 0, cx)?.div_euclid(unit_ns)))
}

fn whole<'a>(place: &'static str, unit_ns: i64, args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(Val::Int(duration(place, args, 0, cx)? / unit_ns))
}

fn float<'a>(place: &'static str, unit_ns: f64, args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    Ok(Val::Double(duration(place, args, 0, cx)? as f64 / unit_ns))
}

fn duration_of<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "Duration";
    let text = text(PLACE, args, 0, cx)?;
    let parsed = std::str::from_utf8(&text).ok().and_then(parse_duration);
    let parsed =
        parsed.ok_or_else(|| Fault::failed(PLACE, "the text is no duration such as 1h30m"))?;
    Ok(Val::Duration(parsed))
}

fn time_of<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "Time";
    let text = text(PLACE, args, 0, cx)?;
    let Some(Arg::Layout(layout, default)) = args.get(1) else {
        return Err(Fault::failed(PLACE, "there is no format"));
    };
    let zone = match args.get(2) {
        Some(Arg::Zone(zone)) => zone,
        _ => default,
    };
    let parsed = layout.parse_time(&text, zone, cx.now_ns);
    parsed
        .map(Val::Time)
        .map_err(|e| Fault::failed(PLACE, e.to_string()))
}

fn format_time<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let ns = time("FormatTime", args, 0, cx)?;
    let mut out = String::new();
    if let Some(Arg::Layout(layout, _)) = args.get(1) {
        layout.write_utc(ns, &mut out);
    }
    Ok(Val::text(out))
}

/// Rounds down to a multiple of the duration, counted from the year 1 as Go does.
fn truncate<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "TruncateTime";
    const YEAR_1_TO_1970_NS: i128 = 62_135_596_800 * 1_000_000_000;
    let ns = time(PLACE, args, 0, cx)?;
    let step = duration(PLACE, args, 1, cx)?;
    if step <= 0 {
        return Ok(Val::Time(ns));
    }
    let beyond = (i128::from(ns) + YEAR_1_TO_1970_NS).rem_euclid(i128::from(step));
    let cut = i64::try_from(i128::from(ns) - beyond);
    let cut = cut.map_err(|_| Fault::failed(PLACE, "the time is out of range"))?;
    Ok(Val::Time(cut))
}

fn unix<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "Unix";
    let seconds = int(PLACE, args, 0, cx)?;
    let nanoseconds = match args.get(1) {
        Some(Arg::Value(_)) => int(PLACE, args, 1, cx)?,
        _ => 0,
    };
    let ns = seconds
        .checked_mul(SECOND_NS)
        .and_then(|ns| ns.checked_add(nanoseconds));
    let ns = ns.ok_or_else(|| Fault::failed(PLACE, "the time is out of range"))?;
    Ok(Val::Time(ns))
}
