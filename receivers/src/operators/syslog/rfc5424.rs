//! Messages of RFC 5424.

use tailwater_pdata::{Map, Value, ValueRef};

use super::{Message, Reader, Span, Stamp};
use crate::operators::json_parser::FIELDS_MAX;
use crate::operators::record_error::RecordError;
use tailwater_golang::civil::{Civil, days_in_month};

/// Reads the message in `text[from..to]`.
pub(super) fn read(
    text: &[u8],
    from: usize,
    to: usize,
    skip_pri: bool,
) -> Result<Message, RecordError> {
    let mut r = Reader {
        text: &text[..to],
        at: from,
    };
    let priority = r.optional_priority(skip_pri)?;
    let version = version(&mut r)?;
    r.byte(b' ', "expected a blank behind the version")?;
    let time = stamp(&mut r)?;
    let hostname = word(
        &mut r,
        255,
        "expected a host name of 1 to 255 characters or -",
    )?;
    let appname = word(
        &mut r,
        48,
        "expected an app name of 1 to 48 characters or -",
    )?;
    let proc_id = word(
        &mut r,
        128,
        "expected a process id of 1 to 128 characters or -",
    )?;
    let msg_id = word(
        &mut r,
        32,
        "expected a message id of 1 to 32 characters or -",
    )?;
    r.byte(b' ', "expected a blank before the structured data")?;
    let structured_data = structured_data(&mut r)?;
    let message = match r.peek() {
        None => None,
        _ => {
            r.byte(b' ', "expected a blank before the message")?;
            Some((r.at, to)).filter(|(from, to)| from < to)
        }
    };
    Ok(Message {
        priority,
        version: Some(version),
        time,
        hostname,
        appname,
        proc_id,
        msg_id,
        message,
        structured_data,
    })
}

fn version(r: &mut Reader<'_>) -> Result<i64, RecordError> {
    const WHAT: &str = "expected a version from 1 to 999";
    let (from, to) = r.run(1, 3, WHAT, |b| b.is_ascii_digit())?;
    let digits = &r.text[from..to];
    if digits[0] == b'0' {
        r.at = from;
        return r.fail(WHAT);
    }
    Ok(digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
}

/// A blank and a word of the header, `None` for `-`.
fn word(r: &mut Reader<'_>, most: usize, what: &'static str) -> Result<Span, RecordError> {
    r.byte(b' ', what)?;
    let (from, to) = r.run(1, most, what, |b| b.is_ascii_graphic())?;
    Ok((&r.text[from..to] != b"-").then_some((from, to)))
}

/// `2003-10-11T22:14:15.003Z`, `2003-10-11T22:14:15+02:00` or `-`.
fn stamp(r: &mut Reader<'_>) -> Result<Stamp, RecordError> {
    const WHAT: &str = "expected a time as in 2003-10-11T22:14:15.003Z or -";
    if r.peek() == Some(b'-') {
        r.at += 1;
        return Ok(Stamp::None);
    }
    let start = r.at;
    let year = i64::from(r.number(4, 0, 9999, WHAT)?);
    r.byte(b'-', WHAT)?;
    let month = r.number(2, 1, 12, WHAT)?;
    r.byte(b'-', WHAT)?;
    let day = r.number(2, 1, days_in_month(year, month), WHAT)?;
    r.byte(b'T', WHAT)?;
    let [hour, minute, second] = r.time_of_day(WHAT)?;
    let mut nanosecond = 0;
    if r.peek() == Some(b'.') {
        r.at += 1;
        let (from, to) = r.run(1, 6, WHAT, |b| b.is_ascii_digit())?;
        let digits = &r.text[from..to];
        let value = digits.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'));
        nanosecond = value * 10u32.pow(9 - digits.len() as u32);
    }
    let offset = match r.peek() {
        Some(b'Z') => {
            r.at += 1;
            0
        }
        Some(sign @ (b'+' | b'-')) => {
            r.at += 1;
            let hours = r.number(2, 0, 23, WHAT)?;
            r.byte(b':', WHAT)?;
            let minutes = r.number(2, 0, 59, WHAT)?;
            let seconds = i64::from(hours * 3600 + minutes * 60);
            if sign == b'-' { -seconds } else { seconds }
        }
        _ => return r.fail(WHAT),
    };
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanosecond,
    };
    match civil.at_offset(offset) {
        Ok(ns) => Ok(Stamp::At(ns)),
        Err(_) => {
            r.at = start;
            r.fail("a time that is out of range")
        }
    }
}

fn is_name(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"')
}

/// `[id name="value" ...][...]` or `-`.
fn structured_data(r: &mut Reader<'_>) -> Result<Option<Map>, RecordError> {
    const ID: &str = "expected the id of structured data, 1 to 32 characters";
    if r.peek() == Some(b'-') {
        r.at += 1;
        return Ok(None);
    }
    if r.peek() != Some(b'[') {
        return r.fail("expected structured data or -");
    }
    let mut elements = Map::new();
    let mut found = 0;
    while r.peek() == Some(b'[') {
        r.at += 1;
        let (from, to) = r.run(1, 32, ID, is_name)?;
        let id = String::from_utf8_lossy(&r.text[from..to]).into_owned();
        if elements.get(&id).is_some() {
            r.at = from;
            return r.fail("an id of structured data that was there before");
        }
        let mut parameters = Map::new();
        while r.peek() == Some(b' ') {
            r.at += 1;
            found += 1;
            if found > FIELDS_MAX {
                return Err(RecordError::TooManyFields(FIELDS_MAX));
            }
            let (name, value) = parameter(r)?;
            parameters.insert(name, value);
        }
        r.byte(b']', "expected ] or another parameter")?;
        found += 1;
        if found > FIELDS_MAX {
            return Err(RecordError::TooManyFields(FIELDS_MAX));
        }
        elements.insert(id, Value::Map(parameters));
    }
    Ok(Some(elements))
}

/// `name="value"`; in the value `"`, `]` and `\` have a backslash before them.
fn parameter(r: &mut Reader<'_>) -> Result<(String, Value), RecordError> {
    const NAME: &str = "expected the name of a parameter, 1 to 32 characters";
    const VALUE: &str = "expected a parameter as in name=\"value\"";
    let (from, to) = r.run(1, 32, NAME, is_name)?;
    let name = String::from_utf8_lossy(&r.text[from..to]).into_owned();
    r.byte(b'=', VALUE)?;
    r.byte(b'"', VALUE)?;
    let start = r.at;
    let mut unescaped: Option<Vec<u8>> = None;
    let mut plain_from = start;
    loop {
        match r.peek() {
            Some(b'"') => break,
            Some(b'\\') => {
                if !matches!(r.text.get(r.at + 1), Some(b'"' | b']' | b'\\')) {
                    return r.fail("a backslash that escapes nothing");
                }
                let out = unescaped.get_or_insert_default();
                out.extend_from_slice(&r.text[plain_from..r.at]);
                plain_from = r.at + 1;
                r.at += 2;
            }
            Some(b']') => return r.fail("a ] without a backslash in a value"),
            Some(_) => r.at += 1,
            None => return r.fail("a value that is never closed"),
        }
    }
    if std::str::from_utf8(&r.text[start..r.at]).is_err() {
        r.at = start;
        return r.fail("a value that is not UTF-8");
    }
    let value = match unescaped {
        None => ValueRef::Str(&r.text[start..r.at]).to_value(),
        Some(mut out) => {
            out.extend_from_slice(&r.text[plain_from..r.at]);
            ValueRef::Str(&out).to_value()
        }
    };
    r.at += 1;
    Ok((name, value))
}
