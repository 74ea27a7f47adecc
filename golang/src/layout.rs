//! Reads Go's layouts, in which the reference time Mon Jan 2 15:04:05 MST 2006 is written out.

use crate::strptime::{OffsetForm, Step};

const fn offset(z: bool, minutes: bool, seconds: bool, colon: bool) -> Step {
    Step::ZoneOffset(OffsetForm {
        z,
        minutes,
        seconds,
        colon,
    })
}

/// Elements by their text, longer ones before those they begin with.
const ELEMENTS: &[(&str, Step)] = &[
    ("January", Step::MonthName { full: true }),
    ("Jan", Step::MonthName { full: false }),
    ("Monday", Step::Weekday { full: true }),
    ("Mon", Step::Weekday { full: false }),
    ("MST", Step::ZoneName),
    ("002", Step::DayOfYear { blank: false }),
    ("01", Step::Month { padded: true }),
    (
        "02",
        Step::Day {
            padded: true,
            blank: false,
        },
    ),
    ("03", Step::Hour12 { padded: true }),
    ("04", Step::Minute { padded: true }),
    ("05", Step::Second { padded: true }),
    ("06", Step::YearOfCentury),
    ("15", Step::Hour),
    ("1", Step::Month { padded: false }),
    ("2006", Step::Year),
    (
        "2",
        Step::Day {
            padded: false,
            blank: false,
        },
    ),
    ("__2", Step::DayOfYear { blank: true }),
    (
        "_2",
        Step::Day {
            padded: false,
            blank: true,
        },
    ),
    ("3", Step::Hour12 { padded: false }),
    ("4", Step::Minute { padded: false }),
    ("5", Step::Second { padded: false }),
    ("PM", Step::HalfDay { lower: false }),
    ("pm", Step::HalfDay { lower: true }),
    ("-070000", offset(false, true, true, false)),
    ("-07:00:00", offset(false, true, true, true)),
    ("-0700", offset(false, true, false, false)),
    ("-07:00", offset(false, true, false, true)),
    ("-07", offset(false, false, false, false)),
    ("Z070000", offset(true, true, true, false)),
    ("Z07:00:00", offset(true, true, true, true)),
    ("Z0700", offset(true, true, false, false)),
    ("Z07:00", offset(true, true, false, true)),
    ("Z07", offset(true, false, false, false)),
];

/// The steps of a Go layout. Every text is one: what is no element is literal.
pub(crate) fn steps(layout: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut literal: Vec<u8> = Vec::new();
    let mut rest = layout.as_bytes();
    while let [first, tail @ ..] = rest {
        let Some((len, step)) = element(rest) else {
            literal.push(*first);
            rest = tail;
            continue;
        };
        if !literal.is_empty() {
            steps.push(Step::Literal(std::mem::take(&mut literal).into()));
        }
        steps.push(step);
        rest = &rest[len..];
    }
    if !literal.is_empty() {
        steps.push(Step::Literal(literal.into()));
    }
    steps
}

/// The element that `rest` begins with and its length.
fn element(rest: &[u8]) -> Option<(usize, Step)> {
    if let [b'.' | b',', digit @ (b'0' | b'9'), ..] = rest {
        let run = rest[1..].iter().take_while(|b| *b == digit).count();
        if rest.get(1 + run).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let step = if *digit == b'0' {
            Step::FractionExact(run)
        } else {
            Step::FractionAny(run)
        };
        return Some((1 + run, step));
    }
    // "_2006" is an underscore and a year.
    if rest.starts_with(b"_2006") {
        return None;
    }
    let (text, step) = ELEMENTS
        .iter()
        .find(|(text, _)| rest.starts_with(text.as_bytes()))?;
    let short_name = matches!(*text, "Jan" | "Mon");
    if short_name && rest.get(3).is_some_and(u8::is_ascii_lowercase) {
        return None;
    }
    Some((text.len(), step.clone()))
}
