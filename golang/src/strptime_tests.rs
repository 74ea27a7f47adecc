use super::*;
use proptest::prelude::*;

/// 2026-03-10T00:00:00Z.
const NOW: i64 = 1_773_100_800_000_000_000;

fn ns(rfc3339: &str) -> i64 {
    let time: jiff::Timestamp = rfc3339.parse().expect("a time of this test");
    i64::try_from(time.as_nanosecond()).expect("in range")
}

fn check(kind: LayoutType, rows: &[(&str, &str, &str, Option<&str>)]) {
    for (layout, location, text, want) in rows {
        let l = Layout::parse(layout, kind).unwrap_or_else(|e| panic!("{layout}: {e}"));
        let zone = Zone::named(location).expect("a zone of this test");
        let got = l.parse_time(text.as_bytes(), &zone, NOW);
        match want {
            Some(want) => assert_eq!(got, Ok(ns(want)), "{layout} on {text}"),
            None => assert!(got.is_err(), "{layout} on {text}: {got:?}"),
        }
    }
}

/// Rows of which each was run by the collector's own time parser.
#[test]
fn strptime_is_as_lenient_as_the_collectors() {
    check(
        LayoutType::Strptime,
        &[
            ("%Y-%m-%d", "", " 2021-02-03", Some("2021-02-03T00:00:00Z")),
            ("%F", "", " 2021-2-3", Some("2021-02-03T00:00:00Z")),
            (
                "%Y-%m-%dT%H:%M:%S%z",
                "",
                "2021-02-03T04:05:06+02:00",
                Some("2021-02-03T02:05:06Z"),
            ),
            (
                "%Y-%m-%dT%H:%M:%S%z",
                "",
                "2021-02-03T04:05:06-0700",
                Some("2021-02-03T11:05:06Z"),
            ),
            (
                "%Y-%m-%dT%H:%M:%S%z",
                "",
                "2021-02-03T04:05:06+02",
                Some("2021-02-03T02:05:06Z"),
            ),
            (
                "%Y-%m-%dT%H:%M:%S%z",
                "",
                "2021-02-03T04:05:06Z",
                Some("2021-02-03T04:05:06Z"),
            ),
            ("%Y-%m-%dT%H:%M:%S%z", "", "2021-02-03T04:05:06+2", None),
            (
                "%b %d %H:%M:%S %Y",
                "",
                "Feb 3 4:5:6 2021",
                Some("2021-02-03T04:05:06Z"),
            ),
            (
                "%b %d %H:%M:%S %Y",
                "",
                "Feb  3 04:05:06 2021",
                Some("2021-02-03T04:05:06Z"),
            ),
            (
                "%c",
                "Europe/Rome",
                "Wed Feb  3 04:05:06 2021",
                Some("2021-02-03T03:05:06Z"),
            ),
            ("%D", "", "02/03/21", Some("2021-02-03T00:00:00Z")),
            ("%D", "", "02/03/2021", Some("2021-02-03T00:00:00Z")),
            ("%x", "Europe/Rome", "2/3/21", Some("2021-02-02T23:00:00Z")),
            (
                "%y-%o-%g",
                "Europe/Rome",
                "21-2-3",
                Some("2021-02-02T23:00:00Z"),
            ),
            ("%Y-%m-%d", "", "2021-13-01", None),
            ("%Y-%m-%d", "", "202-1-1", None),
        ],
    );
}

#[test]
fn strptime_directives_mean_what_the_collectors_mean() {
    let berlin = "Europe/Berlin";
    check(
        LayoutType::Strptime,
        &[
            (
                "%d/%b/%Y:%H:%M:%S %z",
                "",
                "05/Aug/2019:20:38:46 +0000",
                Some("2019-08-05T20:38:46Z"),
            ),
            (
                "%d/%b/%Y:%H:%M:%S %z",
                "",
                "05/aug/2019:20:38:46 -0730",
                Some("2019-08-06T04:08:46Z"),
            ),
            (
                "%Y-%m-%dT%H:%M:%S.%sZ",
                "",
                "2019-03-08T18:41:12.152531115Z",
                Some("2019-03-08T18:41:12.152531115Z"),
            ),
            (
                "%Y-%m-%dT%H:%M:%S.%LZ",
                "",
                "2019-03-08T18:41:12.15Z",
                Some("2019-03-08T18:41:12.15Z"),
            ),
            (
                "%a %b %e %H:%M:%S %Z %Y",
                "",
                "Mon Jan 2 15:04:05 UTC 2006",
                Some("2006-01-02T15:04:05Z"),
            ),
            (
                "%a %b %e %H:%M:%S %Z %Y",
                "",
                "Mon Jan  2 15:04:05 MST 2006",
                Some("2006-01-02T22:04:05Z"),
            ),
            (
                "%Y-%m-%dT%H:%M:%S",
                "HST",
                "2020-06-09T15:39:58",
                Some("2020-06-10T01:39:58Z"),
            ),
            (
                "%Y-%m-%d %H:%M:%S",
                berlin,
                "2020-06-09 12:00:00",
                Some("2020-06-09T10:00:00Z"),
            ),
            (
                "%Y-%m-%d %H:%M:%S",
                berlin,
                "2020-01-09 12:00:00",
                Some("2020-01-09T11:00:00Z"),
            ),
            (
                "%Y-%m-%d %H:%M:%S %Z",
                berlin,
                "2020-01-09 12:00:00 CEST",
                Some("2020-01-09T10:00:00Z"),
            ),
            (
                "%Y-%m-%d %H:%M:%S",
                "",
                "2020-01-09 12:00:00.5",
                Some("2020-01-09T12:00:00.5Z"),
            ),
            (
                "%Y-%m-%d %H:%M:%S",
                "",
                "2020-01-09 12:00:00,123",
                Some("2020-01-09T12:00:00.123Z"),
            ),
            (
                "%y%m%d %I:%M:%S %p",
                "",
                "690102 12:00:01 AM",
                Some("1969-01-02T00:00:01Z"),
            ),
            ("%y%m%d %l:%M %P", "", "680102 3:05 PM", None),
            (
                "%y-%q-%g %l:%M:%S %P",
                "",
                "20-1-2 3:04:05 pm",
                Some("2020-01-02T15:04:05Z"),
            ),
            ("%o %d %Y", "", " 7 04 2021", Some("2021-07-04T00:00:00Z")),
            (
                "%A, %B %d %Y",
                "",
                "sunday, JULY 04 2021",
                Some("2021-07-04T00:00:00Z"),
            ),
            (
                "%F %T%k",
                "",
                "2021-07-04 01:02:03+01:00:30",
                Some("2021-07-04T00:01:33Z"),
            ),
            (
                "%F %R%j",
                "",
                "2021-07-04 01:02-01:30",
                Some("2021-07-04T02:32:00Z"),
            ),
            (
                "%F %X%i",
                "",
                "2021-07-04 01:02:03+01",
                Some("2021-07-04T00:02:03Z"),
            ),
            (
                "%F %X%w",
                "",
                "2021-07-04 01:02:03+010203",
                Some("2021-07-04T00:00:00Z"),
            ),
            (
                "%D %r",
                "",
                "07/04/2021 12:02:03 pm",
                Some("2021-07-04T12:02:03Z"),
            ),
            (
                "%x%n%t%%%Y",
                "",
                "07/04/2021\n\t%2021",
                Some("2021-07-04T00:00:00Z"),
            ),
            (
                "%c",
                "",
                "Sun Jul 04 01:02:03 2021",
                Some("2021-07-04T01:02:03Z"),
            ),
            ("%h %d %Y", "", "Feb 29 2020", Some("2020-02-29T00:00:00Z")),
            ("%h %d %Y", "", "Feb 29 2021", None),
            ("%Y-%m-%d", "", "2021-13-01", None),
            ("%Y-%m-%d", "", "2021-1-01", Some("2021-01-01T00:00:00Z")),
            ("%Y-%m-%d", "", "2021-01-01x", None),
            ("%Y-%m-%d", "", "2021-01-0", None),
            ("%H:%M:%S %Y", "", "24:00:00 2020", None),
            ("%H:%M:%S %Y", "", "23:59:60 2020", None),
            ("%Y %Z", "", "2020 XYZ", None),
            ("%Y %Z", "", "2020 GMT+3", Some("2019-12-31T21:00:00Z")),
            ("%Y", "", "9999", None),
            ("%Y", "", "", None),
        ],
    );
}

#[test]
fn a_layout_without_a_year_takes_this_one_or_the_last() {
    check(
        LayoutType::Strptime,
        &[
            (
                "%b %e %H:%M:%S",
                "",
                "Mar  9 23:00:00",
                Some("2026-03-09T23:00:00Z"),
            ),
            (
                "%b %e %H:%M:%S",
                "",
                "Mar 16 23:00:00",
                Some("2026-03-16T23:00:00Z"),
            ),
            (
                "%b %e %H:%M:%S",
                "",
                "Mar 17 00:00:01",
                Some("2025-03-17T00:00:01Z"),
            ),
            (
                "%b %e %H:%M:%S",
                "",
                "Dec 31 00:00:01",
                Some("2025-12-31T00:00:01Z"),
            ),
            ("%b %e", "", "Feb 29", Some("2026-03-01T00:00:00Z")),
        ],
    );
}

#[test]
fn go_layouts_are_read_as_go_reads_them() {
    check(
        LayoutType::Gotime,
        &[
            (
                "2006-01-02T15:04:05.999999999Z07:00",
                "",
                "2024-04-13T07:59:37.505201169-10:00",
                Some("2024-04-13T17:59:37.505201169Z"),
            ),
            (
                "2006-01-02T15:04:05Z07:00",
                "",
                "2024-04-13T07:59:37Z",
                Some("2024-04-13T07:59:37Z"),
            ),
            (
                "2006-01-02 15:04:05.000",
                "",
                "2024-04-13 07:59:37.250",
                Some("2024-04-13T07:59:37.25Z"),
            ),
            (
                "2006-01-02 15:04:05.000",
                "",
                "2024-04-13 07:59:37.25",
                None,
            ),
            (
                "Mon Jan _2 15:04:05 2006",
                "",
                "Sat Apr 13 07:59:37 2024",
                Some("2024-04-13T07:59:37Z"),
            ),
            (
                "Monday, 02-Jan-06 15:04:05 MST",
                "",
                "Saturday, 13-Apr-24 07:59:37 UTC",
                Some("2024-04-13T07:59:37Z"),
            ),
            ("2006-002", "", "2024-060", Some("2024-02-29T00:00:00Z")),
            ("2006 __2", "", "2024   1", Some("2024-01-01T00:00:00Z")),
            ("2006-002", "", "2023-366", None),
            (
                "1/2/2006 3:4:5 PM",
                "",
                "4/3/2024 1:2:3 PM",
                Some("2024-04-03T13:02:03Z"),
            ),
            (
                "Janitor 2006",
                "",
                "Janitor 2024",
                Some("2024-01-01T00:00:00Z"),
            ),
            ("2006_2006", "", "2024_2023", Some("2023-01-01T00:00:00Z")),
        ],
    );
}

#[test]
fn epoch_layouts_take_numbers_and_text() {
    let zone = Zone::utc();
    for (layout, value, want) in [
        (
            "s",
            ValueRef::Str(b"1136214245"),
            Some(1_136_214_245_000_000_000),
        ),
        (
            "ms",
            ValueRef::Str(b"1136214245123"),
            Some(1_136_214_245_123_000_000),
        ),
        (
            "us",
            ValueRef::Int(1_136_214_245_123_456),
            Some(1_136_214_245_123_456_000),
        ),
        ("ns", ValueRef::Int(7), Some(7)),
        (
            "s",
            ValueRef::Double(1_136_214_245.9),
            Some(1_136_214_245_000_000_000),
        ),
        (
            "s.ms",
            ValueRef::Double(1_136_214_245.123),
            Some(1_136_214_245_123_000_000),
        ),
        (
            "s.us",
            ValueRef::Str(b"1136214245.123456"),
            Some(1_136_214_245_123_456_000),
        ),
        (
            "s.ns",
            ValueRef::Int(1_136_214_245),
            Some(1_136_214_245_000_000_000),
        ),
        ("s.ms", ValueRef::Str(b"1136214245"), None),
        ("s", ValueRef::Str(b"not-a-number"), None),
        ("s", ValueRef::Int(i64::MAX), None),
        ("s", ValueRef::Double(f64::NAN), None),
        ("s", ValueRef::Bool(true), None),
    ] {
        let l = Layout::parse(layout, LayoutType::Epoch).expect("an epoch layout");
        assert_eq!(
            l.parse_value(value, &zone, 0).ok(),
            want,
            "{layout} {value:?}"
        );
    }
    let strptime = Layout::parse("%Y", LayoutType::Strptime).expect("a layout");
    assert!(strptime.parse_value(ValueRef::Int(2020), &zone, 0).is_err());
}

/// Local times that do not exist, or exist twice, as Go decides them: east of Greenwich otherwise than west
/// of it.
#[test]
fn times_at_a_change_of_clocks_are_those_of_go() {
    check(
        LayoutType::Strptime,
        &[
            (
                "%F %T",
                "America/New_York",
                "2023-03-12 02:30:00",
                Some("2023-03-12T06:30:00Z"),
            ),
            (
                "%F %T",
                "America/New_York",
                "2023-11-05 01:30:00",
                Some("2023-11-05T05:30:00Z"),
            ),
            (
                "%F %T",
                "Europe/Paris",
                "2023-03-26 02:30:00",
                Some("2023-03-26T01:30:00Z"),
            ),
            (
                "%F %T",
                "Europe/Paris",
                "2023-10-29 02:30:00",
                Some("2023-10-29T01:30:00Z"),
            ),
            (
                "%F %T",
                "Europe/Paris",
                "2023-07-01 12:00:00",
                Some("2023-07-01T10:00:00Z"),
            ),
        ],
    );
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    for (layout, kind, want) in [
        ("", LayoutType::Strptime, "empty"),
        ("%Y %Q", LayoutType::Strptime, "\"%Q\""),
        ("%Y %", LayoutType::Strptime, "\"%\""),
        ("%H:%M:%S%L", LayoutType::Strptime, "dot or a comma"),
        ("2006-01-02", LayoutType::Strptime, "gotime"),
        ("%Y-%m-01", LayoutType::Strptime, "gotime"),
        ("minutes", LayoutType::Epoch, "s.ns"),
    ] {
        let e = Layout::parse(layout, kind)
            .map(|_| ())
            .expect_err(layout)
            .to_string();
        assert!(e.contains(want), "{layout}: {e}");
    }
    assert!(Zone::named("Mars/Base").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Where strptime means the same everywhere, we and jiff agree on every time.
    #[test]
    fn agrees_with_jiff(
        seconds in -9_000_000_000i64..9_000_000_000,
        ns in 0i64..1_000_000_000,
        minutes in -14i32 * 60..14 * 60,
    ) {
        let tz = jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(minutes * 60).expect("valid here"));
        let time = jiff::Timestamp::new(seconds, ns as i32).expect("valid here");
        let zoned = time.to_zoned_datetime(tz);
        let want = i64::try_from(time.as_nanosecond()).expect("valid here");
        for (ours, theirs) in [
            ("%Y-%m-%dT%H:%M:%S.%s%z", "%Y-%m-%dT%H:%M:%S.%9f%z"),
            ("%a, %d %b %Y %H:%M:%S.%L %z", "%a, %d %b %Y %H:%M:%S.%9f %z"),
            ("%A %B %e %I:%M:%S.%f %p %Y %j", "%A %B %e %I:%M:%S.%9f %p %Y %:z"),
        ] {
            let text = zoned.strftime(theirs).to_string();
            let layout = Layout::parse(ours, LayoutType::Strptime).expect("valid here");
            prop_assert_eq!(layout.parse_time(text.as_bytes(), &Zone::utc(), 0), Ok(want), "{}", text);
        }
    }

    /// No layout and no text make it panic.
    #[test]
    fn any_layout_and_text_give_a_time_or_an_error(
        layout in "(%[a-zA-Z%]|[-:. ,_Z0-9]|2006|Jan|MST|.000|-07:00){0,8}",
        text in "[-+:. ,0-9A-Za-z]{0,30}",
        now in any::<i64>(),
    ) {
        let zone = Zone::named("America/New_York").expect("valid here");
        for kind in [LayoutType::Strptime, LayoutType::Gotime] {
            if let Ok(l) = Layout::parse(&layout, kind) {
                let _ = l.parse_time(text.as_bytes(), &zone, now);
            }
        }
    }
}
