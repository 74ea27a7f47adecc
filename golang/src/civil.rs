//! Dates and times of day, and how text is matched against the steps of a layout.

use crate::strptime::{OffsetForm, Step, TimeError};

/// A date and a time of day, without a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    /// 0 = the text has none.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 to 999,999,999.
    pub nanosecond: u32,
}

/// What the text says about its zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundZone<'t> {
    /// Nothing.
    None,
    /// Seconds east of UTC.
    Offset(i64),
    /// An abbreviation.
    Name(&'t [u8]),
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. Counts years from March,
/// so that the leap day is the last of its year.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = i64::from((153 * month + 2) / 5 + day - 1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month, 1 to 12.
pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Civil {
    /// ns since the epoch at `offset` seconds east of UTC.
    pub fn at_offset(&self, offset: i64) -> Result<i64, TimeError> {
        let days = days_from_civil(self.year, self.month, self.day);
        let of_day = i64::from(self.hour * 3600 + self.minute * 60 + self.second);
        let seconds = days * 86_400 + of_day - offset;
        let ns = i128::from(seconds) * 1_000_000_000 + i128::from(self.nanosecond);
        i64::try_from(ns).map_err(|_| TimeError::Range)
    }

    /// The 29th of February becomes the 1st of March in a year without one.
    pub fn clamped(self) -> Civil {
        match self.day > days_in_month(self.year, self.month) {
            true => Civil {
                month: self.month + 1,
                day: 1,
                ..self
            },
            false => self,
        }
    }
}

pub(crate) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(crate) const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// Matches `text` against `steps`. `lenient`: numbers may have blanks in front and lack zeros, and offsets have
/// any form.
pub(crate) fn scan<'t>(
    steps: &[Step],
    lenient: bool,
    text: &'t [u8],
) -> Result<(Civil, FoundZone<'t>), TimeError> {
    let mut s = Scan {
        text,
        at: 0,
        lenient,
        civil: Civil {
            year: 0,
            month: 1,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
            nanosecond: 0,
        },
        zone: FoundZone::None,
        half: None,
        day_of_year: None,
    };
    for (i, step) in steps.iter().enumerate() {
        s.step(step)?;
        let fraction_next = matches!(
            steps.get(i + 1),
            Some(Step::FractionAny(_) | Step::FractionExact(_))
        );
        if matches!(step, Step::Second { .. }) && !fraction_next {
            s.fraction_any();
        }
    }
    if s.at != text.len() {
        return Err(s.mismatch("the end"));
    }
    s.finish()
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    lenient: bool,
    civil: Civil,
    zone: FoundZone<'t>,
    /// True = after noon.
    half: Option<bool>,
    day_of_year: Option<u32>,
}

impl<'t> Scan<'t> {
    fn rest(&self) -> &'t [u8] {
        &self.text[self.at..]
    }

    fn mismatch(&self, wanted: &'static str) -> TimeError {
        TimeError::Mismatch {
            at: self.at,
            wanted,
        }
    }

    /// Whether blanks in front are left out.
    fn skips_blanks(&self, step: &Step) -> bool {
        self.lenient
            && self.rest().first().is_some_and(u8::is_ascii_whitespace)
            && !matches!(
                step,
                Step::Literal(_)
                    | Step::MonthName { .. }
                    | Step::Weekday { .. }
                    | Step::FractionExact(_)
                    | Step::FractionAny(_)
                    | Step::HalfDay { .. }
                    | Step::ZoneName
            )
    }

    fn step(&mut self, step: &Step) -> Result<(), TimeError> {
        if self.skips_blanks(step) {
            self.at = self.text.len() - self.rest().trim_ascii_start().len();
        }
        match *step {
            Step::Literal(ref text) => self.literal(text)?,
            Step::Year => self.civil.year = i64::from(self.digits(4, 4, "a year")?),
            Step::YearOrOfCentury if self.digits_ahead(4) => {
                self.civil.year = i64::from(self.digits(4, 4, "a year")?);
            }
            Step::YearOfCentury | Step::YearOrOfCentury => {
                let year = i64::from(self.digits(2, 2, "a year of two digits")?);
                self.civil.year = year + if year >= 69 { 1900 } else { 2000 };
            }
            Step::MonthName { full } => {
                self.civil.month = self.name(&MONTHS, full, "a month's name")? as u32 + 1;
            }
            Step::Weekday { full } => {
                self.name(&WEEKDAYS, full, "a weekday's name")?;
            }
            Step::Month { padded } => {
                self.civil.month = self.number(padded, 1..=12, "a month")?;
            }
            Step::Day { padded, blank } => {
                if blank && self.rest().first() == Some(&b' ') {
                    self.at += 1;
                }
                self.civil.day = self.number(padded, 1..=31, "a day")?;
            }
            Step::DayOfYear { blank } => {
                for _ in 0..2 {
                    if blank && self.rest().first() == Some(&b' ') {
                        self.at += 1;
                    }
                }
                let least = if blank { 1 } else { 3 };
                self.day_of_year = Some(self.digits(least, 3, "a day of the year")?);
            }
            Step::Hour => self.civil.hour = self.number(false, 0..=23, "an hour")?,
            Step::Hour12 { padded } => {
                self.civil.hour = self.number(padded, 0..=12, "an hour")?;
            }
            Step::Minute { padded } => {
                self.civil.minute = self.number(padded, 0..=59, "a minute")?;
            }
            Step::Second { padded } => {
                self.civil.second = self.number(padded, 0..=59, "a second")?;
            }
            Step::FractionExact(digits) => {
                let valid = matches!(self.rest(), [b'.' | b',', ..]);
                let found = self.rest().iter().skip(1).take(digits);
                if !valid || found.clone().filter(|b| b.is_ascii_digit()).count() != digits {
                    return Err(self.mismatch("a fraction of a second"));
                }
                self.fraction(digits);
            }
            Step::FractionAny(_) => self.fraction_any(),
            Step::HalfDay { lower } => self.half_day(lower)?,
            Step::ZoneName => self.zone_name()?,
            Step::ZoneOffset(form) => self.zone_offset(form)?,
        }
        Ok(())
    }

    fn half_day(&mut self, lower: bool) -> Result<(), TimeError> {
        self.half = Some(match (self.rest(), lower) {
            ([b'P', b'M', ..], false) | ([b'p', b'm', ..], true) => true,
            ([b'A', b'M', ..], false) | ([b'a', b'm', ..], true) => false,
            _ => return Err(self.mismatch("AM or PM")),
        });
        self.at += 2;
        Ok(())
    }

    /// Matches literal text as Go does: a run of blanks in it matches any run, or none at its end.
    fn literal(&mut self, literal: &[u8]) -> Result<(), TimeError> {
        let mut literal = literal;
        while let Some((&first, tail)) = literal.split_first() {
            if first == b' ' {
                if self.rest().first().is_some_and(|&b| b != b' ') {
                    return Err(self.mismatch("a blank"));
                }
                literal = literal.trim_ascii_start_blanks();
                self.at = self.text.len() - self.rest().trim_ascii_start_blanks().len();
                continue;
            }
            if self.rest().first() != Some(&first) {
                return Err(self.mismatch("the layout's own text"));
            }
            self.at += 1;
            literal = tail;
        }
        Ok(())
    }

    /// Whether so many digits follow.
    fn digits_ahead(&self, many: usize) -> bool {
        let head = self.rest().get(..many);
        head.is_some_and(|head| head.iter().all(u8::is_ascii_digit))
    }

    /// A number of `least` to `most` digits.
    fn digits(&mut self, least: usize, most: usize, what: &'static str) -> Result<u32, TimeError> {
        let len = self
            .rest()
            .iter()
            .take(most)
            .take_while(|b| b.is_ascii_digit())
            .count();
        if len < least {
            return Err(self.mismatch(what));
        }
        let value = self.rest()[..len]
            .iter()
            .fold(0, |n, b| n * 10 + u32::from(b - b'0'));
        self.at += len;
        Ok(value)
    }

    fn number(
        &mut self,
        padded: bool,
        range: std::ops::RangeInclusive<u32>,
        what: &'static str,
    ) -> Result<u32, TimeError> {
        let at = self.at;
        let least = if padded && !self.lenient { 2 } else { 1 };
        let value = self.digits(least, 2, what)?;
        match range.contains(&value) {
            true => Ok(value),
            false => Err(TimeError::Mismatch { at, wanted: what }),
        }
    }

    fn name(&mut self, names: &[&str], full: bool, what: &'static str) -> Result<usize, TimeError> {
        let found = names.iter().position(|name| {
            let name = if full { name } else { &name[..3] };
            let head = self.rest().get(..name.len());
            head.is_some_and(|h| h.eq_ignore_ascii_case(name.as_bytes()))
        });
        let i = found.ok_or_else(|| self.mismatch(what))?;
        self.at += if full { names[i].len() } else { 3 };
        Ok(i)
    }

    fn fraction_any(&mut self) {
        if let [b'.' | b',', d, ..] = self.rest()
            && d.is_ascii_digit()
        {
            let digits = self.rest()[1..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            self.fraction(digits);
        }
    }

    /// A separator and `digits` digits; what is beyond ns is cut off.
    fn fraction(&mut self, digits: usize) {
        let mut ns = 0;
        for i in 0..9 {
            let digit = if i < digits {
                self.rest()[1 + i] - b'0'
            } else {
                0
            };
            ns = ns * 10 + u32::from(digit);
        }
        self.civil.nanosecond = ns;
        self.at += 1 + digits;
    }

    fn zone_offset(&mut self, form: OffsetForm) -> Result<(), TimeError> {
        let wanted = "an offset from UTC";
        if form.z && self.rest().first() == Some(&b'Z') {
            self.at += 1;
            self.zone = FoundZone::Offset(0);
            return Ok(());
        }
        let sign = match self.rest().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.mismatch(wanted)),
        };
        self.at += 1;
        let mut seconds = i64::from(self.part_of_offset(24)?) * 3600;
        // `%z`: +0700, +07:00 and +07.
        let any = self.lenient && form.z;
        let colon = form.colon || (any && self.rest().first() == Some(&b':'));
        let minutes = form.minutes && !(any && !colon && !self.digits_ahead(2));
        for (there, unit) in [(minutes, 60), (form.seconds, 1)] {
            if !there {
                break;
            }
            if colon {
                if self.rest().first() != Some(&b':') {
                    return Err(self.mismatch(wanted));
                }
                self.at += 1;
            }
            seconds += i64::from(self.part_of_offset(60)?) * unit;
        }
        self.zone = FoundZone::Offset(sign * seconds);
        Ok(())
    }

    /// Two digits.
    fn part_of_offset(&mut self, most: u32) -> Result<u32, TimeError> {
        let (at, wanted) = (self.at, "an offset from UTC");
        match self.digits(2, 2, wanted)? {
            value if value <= most => Ok(value),
            _ => Err(TimeError::Mismatch { at, wanted }),
        }
    }

    /// An abbreviation of three to five capitals, `GMT+3`, or a signed number of hours.
    fn zone_name(&mut self) -> Result<(), TimeError> {
        let rest = self.rest();
        let capitals = rest
            .iter()
            .take(6)
            .take_while(|b| b.is_ascii_uppercase())
            .count();
        let signed = |rest: &[u8]| {
            let digits = rest
                .iter()
                .skip(1)
                .take(2)
                .take_while(|b| b.is_ascii_digit())
                .count();
            if matches!(rest.first(), Some(b'+' | b'-')) && digits > 0 {
                1 + digits
            } else {
                0
            }
        };
        let len = if rest.starts_with(b"UTC") {
            3
        } else if rest.starts_with(b"ChST") || rest.starts_with(b"MeST") {
            4
        } else if rest.starts_with(b"GMT") {
            3 + signed(&rest[3..])
        } else if matches!(rest.first(), Some(b'+' | b'-')) {
            signed(rest)
        } else {
            match capitals {
                5 if rest[4] == b'T' => 5,
                4 if rest[3] == b'T' || rest.starts_with(b"WITA") => 4,
                3 => 3,
                _ => 0,
            }
        };
        if len == 0 {
            return Err(self.mismatch("a zone abbreviation"));
        }
        self.zone = FoundZone::Name(&rest[..len]);
        self.at += len;
        Ok(())
    }

    fn finish(mut self) -> Result<(Civil, FoundZone<'t>), TimeError> {
        let c = &mut self.civil;
        match self.half {
            Some(true) if c.hour < 12 => c.hour += 12,
            Some(false) if c.hour == 12 => c.hour = 0,
            _ => {}
        }
        if let Some(day_of_year) = self.day_of_year {
            let mut left = day_of_year;
            c.month = 1;
            while c.month <= 12 && left > days_in_month(c.year, c.month) {
                left -= days_in_month(c.year, c.month);
                c.month += 1;
            }
            if c.month > 12 || left == 0 {
                return Err(TimeError::Range);
            }
            c.day = left;
        }
        match c.day > days_in_month(c.year, c.month) {
            true => Err(TimeError::Range),
            false => Ok((self.civil, self.zone)),
        }
    }
}

/// Removing blanks only; tabs and line ends are text.
trait TrimBlanks {
    fn trim_ascii_start_blanks(&self) -> &Self;
}

impl TrimBlanks for [u8] {
    fn trim_ascii_start_blanks(&self) -> &[u8] {
        let blanks = self.iter().take_while(|&&b| b == b' ').count();
        &self[blanks..]
    }
}
