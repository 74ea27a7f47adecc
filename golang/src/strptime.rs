//! Time layouts of the collector: `strptime`, `gotime` and `epoch`.
//!
//! Both text forms become one small program with the matching rules of Go's `time.Parse` (the
//! collector translates strptime to Go layouts): names in any case, one or two digits where no
//! zero padding is asked for, a run of blanks in the layout matches any run of blanks, fractional
//! seconds are taken after seconds even if the layout has none. With strptime blanks in front of a number are
//! left out, numbers may lack the zeros in front, and `%z` takes offsets in every form, as in the collector.
//! Sources: the collector's time parser and its ctimefmt table, the documentation of Go's `time`.
//!
//! ```
//! use tailwater_golang::strptime::{Layout, LayoutType, Zone};
//! let layout = Layout::parse("%Y-%m-%d %H:%M:%S.%L", LayoutType::Strptime).unwrap();
//! let ns = layout.parse_time(b"2026-03-01 12:00:00.250", &Zone::utc(), 0).unwrap();
//! assert_eq!(ns, 1_772_366_400_250_000_000);
//! ```

use tailwater_pdata::ValueRef;

use crate::civil::{Civil, days_in_month, scan};
use crate::layout;

pub use crate::zone::{Zone, ZoneError};

/// How a layout is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutType {
    /// `%Y-%m-%d`, the collector's set of directives.
    Strptime,
    /// The reference time of Go, `2006-01-02`.
    Gotime,
    /// Time since 1970: `s`, `ms`, `us`, `ns`, `s.ms`, `s.us`, `s.ns`.
    Epoch,
}

/// Why a layout cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// There is nothing in it.
    #[error("the layout is empty")]
    Empty,
    /// A directive that does not exist.
    #[error("there is no strptime directive {0:?}")]
    Directive(String),
    /// Digits as literal text: a layout of Go's was meant.
    #[error("digits are no strptime layout; is it one of Go's (layout_type: gotime)?")]
    Digits,
    /// `%L`, `%f` or `%s` without a separator in front.
    #[error("{0} has to follow a dot or a comma")]
    Fraction(String),
    /// Not one of the epoch layouts.
    #[error("an epoch layout is one of s, ms, us, ns, s.ms, s.us, s.ns, not {0:?}")]
    Epoch(String),
}

/// Why a value is not a time of a layout.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TimeError {
    /// The text does not follow the layout.
    #[error("the text does not match the time layout at byte {at}: expected {wanted}")]
    Mismatch {
        /// Where in the text.
        at: usize,
        /// What the layout has there.
        wanted: &'static str,
    },
    /// The day does not exist, or the time is out of the range that 64 bit nanoseconds hold
    /// (the years 1678 to 2261).
    #[error("the time does not exist or is out of range")]
    Range,
    /// A zone abbreviation that neither the default zone nor the zone database knows.
    #[error("unknown time zone {0:?}")]
    Zone(String),
    /// A value of this kind is not a time.
    #[error("{0} cannot be parsed as a time")]
    Kind(&'static str),
    /// Not a number of the epoch layout.
    #[error("not a number of the epoch layout {0}")]
    Epoch(&'static str),
}

/// One element of a layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Text as it is; a run of blanks stands for any run of blanks.
    Literal(Box<[u8]>),
    /// Four digits.
    Year,
    /// Two digits, 69 to 99 are of the last century.
    YearOfCentury,
    /// Four digits, or two as above; written with four.
    YearOrOfCentury,
    /// A name, full or of three letters.
    MonthName {
        full: bool,
    },
    /// One or two digits, or two if padded.
    Month {
        padded: bool,
    },
    /// A name, full or of three letters; not checked against the date.
    Weekday {
        full: bool,
    },
    /// One or two digits, or two if padded; `blank` allows one in front.
    Day {
        padded: bool,
        blank: bool,
    },
    /// Three digits, blanks in front if `blank`.
    DayOfYear {
        blank: bool,
    },
    /// 0 to 23.
    Hour,
    /// 0 to 12.
    Hour12 {
        padded: bool,
    },
    Minute {
        padded: bool,
    },
    Second {
        padded: bool,
    },
    /// A dot or comma and exactly so many digits.
    FractionExact(usize),
    /// A dot or comma and any digits, or nothing; written with at most so many digits.
    FractionAny(usize),
    /// `PM` or `pm`.
    HalfDay {
        lower: bool,
    },
    /// An abbreviation.
    ZoneName,
    /// An offset.
    ZoneOffset(OffsetForm),
}

/// How an offset is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OffsetForm {
    /// `Z` stands for no offset.
    pub(crate) z: bool,
    /// Minutes are there.
    pub(crate) minutes: bool,
    /// Seconds are there.
    pub(crate) seconds: bool,
    /// Parts are separated by colons.
    pub(crate) colon: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Epoch {
    name: &'static str,
    /// ns of one unit of the whole number.
    unit_ns: i64,
    /// ns and digits of one unit behind the dot.
    fraction: Option<(i64, usize)>,
}

const EPOCHS: [Epoch; 7] = [
    Epoch {
        name: "s",
        unit_ns: 1_000_000_000,
        fraction: None,
    },
    Epoch {
        name: "ms",
        unit_ns: 1_000_000,
        fraction: None,
    },
    Epoch {
        name: "us",
        unit_ns: 1_000,
        fraction: None,
    },
    Epoch {
        name: "ns",
        unit_ns: 1,
        fraction: None,
    },
    Epoch {
        name: "s.ms",
        unit_ns: 1_000_000_000,
        fraction: Some((1_000_000, 3)),
    },
    Epoch {
        name: "s.us",
        unit_ns: 1_000_000_000,
        fraction: Some((1_000, 6)),
    },
    Epoch {
        name: "s.ns",
        unit_ns: 1_000_000_000,
        fraction: Some((1, 9)),
    },
];

#[derive(Clone, Debug)]
enum Program {
    /// With whether numbers are matched as strptime matches them.
    Text(Vec<Step>, bool),
    Epoch(Epoch),
}

/// A compiled layout.
#[derive(Clone, Debug)]
pub struct Layout {
    program: Program,
    ends_in_z: bool,
}

impl Layout {
    /// Compiles `layout`.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn parse(layout: &str, kind: LayoutType) -> Result<Layout, LayoutError> {
        if layout.is_empty() {
            return Err(LayoutError::Empty);
        }
        let program = match kind {
            LayoutType::Strptime => Program::Text(strptime_steps(layout)?, true),
            LayoutType::Gotime => Program::Text(layout::steps(layout), false),
            LayoutType::Epoch => {
                let epoch = EPOCHS.iter().find(|e| e.name == layout);
                let epoch = epoch.ok_or_else(|| LayoutError::Epoch(layout.to_owned()))?;
                Program::Epoch(*epoch)
            }
        };
        Ok(Layout {
            program,
            ends_in_z: layout.ends_with('Z'),
        })
    }

    /// Whether times have the abbreviation of a zone.
    pub fn has_zone_name(&self) -> bool {
        matches!(&self.program, Program::Text(steps, _) if steps.contains(&Step::ZoneName))
    }

    /// The zone of times without one when no location is set: UTC if the layout ends in `Z`,
    /// else the machine's zone, as the collector decides it.
    pub fn default_zone(&self) -> Zone {
        if self.ends_in_z {
            Zone::utc()
        } else {
            Zone::local()
        }
    }

    /// The time `text` stands for, in ns since the epoch. `zone` applies when the text names
    /// none. `now_ns` (ns since the epoch) decides the year when the layout has none: the current
    /// one, or the one before if that would be more than seven days ahead.
    ///
    /// # Errors
    /// See [`TimeError`].
    pub fn parse_time(&self, text: &[u8], zone: &Zone, now_ns: i64) -> Result<i64, TimeError> {
        match &self.program {
            Program::Text(steps, lenient) => {
                let (mut civil, found) = scan(steps, *lenient, text)?;
                let dated = civil.year > 0;
                if !dated {
                    civil.year = zone.year_at(now_ns);
                    // The 29th of February of a year that has none is the day after the 28th.
                    if civil.day > days_in_month(civil.year, civil.month) {
                        (civil.month, civil.day) = (3, 1);
                    }
                }
                let ns = zone.resolve(&civil, &found)?;
                const WEEK_NS: i64 = 7 * 86_400 * 1_000_000_000;
                if dated || ns <= now_ns.saturating_add(WEEK_NS) {
                    return Ok(ns);
                }
                zone.resolve(
                    &Civil {
                        year: civil.year - 1,
                        ..civil
                    }
                    .clamped(),
                    &found,
                )
            }
            Program::Epoch(epoch) => epoch.text(text),
        }
    }

    /// [`Layout::parse_time`] of a value: text, and numbers for the epoch layouts.
    ///
    /// # Errors
    /// See [`TimeError`].
    pub fn parse_value(
        &self,
        value: ValueRef<'_>,
        zone: &Zone,
        now_ns: i64,
    ) -> Result<i64, TimeError> {
        match (value, &self.program) {
            (ValueRef::Str(text) | ValueRef::Bytes(text), _) => self.parse_time(text, zone, now_ns),
            (ValueRef::Int(i), Program::Epoch(e)) => {
                i.checked_mul(e.unit_ns).ok_or(TimeError::Range)
            }
            (ValueRef::Double(d), Program::Epoch(e)) => e.double(d),
            (other, _) => Err(TimeError::Kind(other.kind_name())),
        }
    }
}

impl Layout {
    /// Appends the time `ns` (since the epoch), in UTC, as the layout writes it. An epoch layout writes a
    /// whole number of its unit.
    pub fn write_utc(&self, ns: i64, out: &mut String) {
        match &self.program {
            Program::Text(steps, _) => crate::print::steps(steps, ns, out),
            Program::Epoch(epoch) => out.push_str(&ns.div_euclid(epoch.unit_ns).to_string()),
        }
    }
}

impl Epoch {
    fn text(&self, text: &[u8]) -> Result<i64, TimeError> {
        let bad = TimeError::Epoch(self.name);
        let text = std::str::from_utf8(text).map_err(|_| bad.clone())?;
        let number = |t: &str| t.parse::<i64>().map_err(|_| bad.clone());
        let whole = |t: &str| number(t)?.checked_mul(self.unit_ns).ok_or(TimeError::Range);
        let Some((unit_ns, _)) = self.fraction else {
            return whole(text);
        };
        let (seconds, rest) = text.split_once('.').ok_or_else(|| bad.clone())?;
        // As the collector: the digits behind the dot count units, "1.5" of s.ms is 5 ms.
        let rest = number(rest)?.checked_mul(unit_ns).ok_or(TimeError::Range)?;
        whole(seconds)?.checked_add(rest).ok_or(TimeError::Range)
    }

    fn double(&self, d: f64) -> Result<i64, TimeError> {
        // Beyond this the conversion would saturate to a time nobody meant.
        if !d.is_finite() || d.abs() >= 9.2e18 {
            return Err(TimeError::Range);
        }
        match self.fraction {
            Some((_, digits)) => self.text(format!("{d:.digits$}").as_bytes()),
            None => (d as i64).checked_mul(self.unit_ns).ok_or(TimeError::Range),
        }
    }
}

/// The steps of a strptime layout.
fn strptime_steps(layout: &str) -> Result<Vec<Step>, LayoutError> {
    let mut steps = Vec::new();
    let mut literal: Vec<u8> = Vec::new();
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        let len = c.len_utf8();
        if c.is_ascii_digit() {
            return Err(LayoutError::Digits);
        }
        if c != '%' {
            literal.extend_from_slice(&rest.as_bytes()[..len]);
            rest = &rest[len..];
            continue;
        }
        let directive = rest[1..].chars().next();
        let name = || rest.chars().take(2).collect::<String>();
        let directive = directive.ok_or_else(|| LayoutError::Directive(name()))?;
        match directive {
            '%' => literal.push(b'%'),
            'n' => literal.push(b'\n'),
            't' => literal.push(b'\t'),
            'L' | 'f' | 's' => match literal.pop() {
                Some(b'.' | b',') => {}
                _ => return Err(LayoutError::Fraction(name())),
            },
            _ => {}
        }
        let new = directive_steps(directive).ok_or_else(|| LayoutError::Directive(name()))?;
        if !new.is_empty() && !literal.is_empty() {
            steps.push(Step::Literal(std::mem::take(&mut literal).into()));
        }
        steps.extend(new);
        rest = &rest[1 + directive.len_utf8()..];
    }
    if !literal.is_empty() {
        steps.push(Step::Literal(literal.into()));
    }
    Ok(steps)
}

/// What a directive stands for; composite ones through the Go layout the collector gives them.
fn directive_steps(directive: char) -> Option<Vec<Step>> {
    let go = match directive {
        '%' | 'n' | 't' => return Some(Vec::new()),
        'L' => return Some(vec![Step::FractionAny(3)]),
        'f' => return Some(vec![Step::FractionAny(6)]),
        's' => return Some(vec![Step::FractionAny(9)]),
        'Y' => "2006",
        'y' => "06",
        'm' => "01",
        'o' | 'q' => "1",
        'b' | 'h' => "Jan",
        'B' => "January",
        'd' => "02",
        'e' => "_2",
        'g' => "2",
        'a' => "Mon",
        'A' => "Monday",
        'H' => "15",
        'l' => "3",
        'I' => "03",
        'p' => "PM",
        'P' => "pm",
        'M' => "04",
        'S' => "05",
        'Z' => "MST",
        'z' => "Z0700",
        'w' => "-070000",
        'i' => "-07",
        'j' => "-07:00",
        'k' => "-07:00:00",
        'D' | 'x' => {
            let mut steps = layout::steps("01/02/");
            steps.push(Step::YearOrOfCentury);
            return Some(steps);
        }
        'F' => "2006-01-02",
        'T' | 'X' => "15:04:05",
        'r' => "03:04:05 pm",
        'R' => "15:04",
        'c' => "Mon Jan 02 15:04:05 2006",
        _ => return None,
    };
    Some(layout::steps(go))
}

#[cfg(test)]
#[path = "strptime_tests.rs"]
mod tests;
