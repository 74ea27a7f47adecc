//! A push as protobuf.
//!
//! Source: grafana/loki, pkg/push/push.proto. `PushRequest`: streams 1. `StreamAdapter`: labels 1, entries 2.
//! `EntryAdapter`: timestamp 1, line 2, structuredMetadata 3. `LabelPairAdapter`: name 1, value 2.
//! `google.protobuf.Timestamp`: seconds 1, nanos 2. All other fields are of answers, or unknown, and mean
//! nothing here.

use bytes::Bytes;
use tailwater_pdata::Slice;

use super::entries::{Entries, NO_TIME, Problem, Push, time};
use super::labels;

/// Reads a whole push.
///
/// # Errors
/// It is broken, or see [`Push::add`].
pub fn read(body: &Bytes, push: &mut Push<'_>) -> Result<(), Problem> {
    for field in Fields::new(body) {
        if let (1, value) = field.map_err(invalid)? {
            let (from, to) = value.range().map_err(invalid)?;
            stream(body.slice(from..to), push)?;
        }
    }
    Ok(())
}

fn invalid(problem: &str) -> Problem {
    Problem::Invalid(format!("not a push in protobuf: {problem}"))
}

fn stream(bytes: Bytes, push: &mut Push<'_>) -> Result<(), Problem> {
    let mut entries = Entries::new(bytes.clone());
    let mut name = (0, 0);
    for field in Fields::new(&bytes) {
        match field.map_err(invalid)? {
            (1, value) => name = value.range().map_err(invalid)?,
            (2, value) => {
                let (from, to) = value.range().map_err(invalid)?;
                entry(&bytes, from, to, &mut entries).map_err(invalid)?;
            }
            _ => {}
        }
    }
    let name = std::str::from_utf8(&bytes[name.0..name.1]);
    let name = name.map_err(|_| invalid("labels are not UTF-8"))?;
    // A stream without entries may have any name.
    let labels = match entries.is_empty() {
        true => labels::Labels::new(),
        false => labels::parse(name).map_err(Problem::Invalid)?,
    };
    push.add(entries, &labels)
}

/// The entry that is `bytes[from..to]`.
fn entry(bytes: &Bytes, from: usize, to: usize, entries: &mut Entries) -> Result<(), &'static str> {
    let (mut at, mut line) = (NO_TIME, Slice::EMPTY);
    entries.begin();
    for field in Fields::within(bytes, from, to) {
        match field? {
            (1, value) => at = timestamp(bytes, value.range()?)?,
            (2, value) => {
                let (from, to) = value.range()?;
                line = entries.shared(from, to);
            }
            (3, value) => pair(bytes, value.range()?, entries)?,
            _ => {}
        }
    }
    entries.end(at, line);
    Ok(())
}

fn timestamp(bytes: &[u8], (from, to): (usize, usize)) -> Result<i64, &'static str> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields::within(bytes, from, to) {
        match field? {
            (1, value) => seconds = value.number()? as i64,
            (2, value) => nanos = value.number()? as i64,
            _ => {}
        }
    }
    if !(0..1_000_000_000).contains(&nanos) {
        return Err("nanoseconds of a timestamp beyond a second");
    }
    Ok(time(seconds, nanos))
}

fn pair(
    bytes: &[u8],
    (from, to): (usize, usize),
    entries: &mut Entries,
) -> Result<(), &'static str> {
    let (mut name, mut value) = ((0, 0), (0, 0));
    for field in Fields::within(bytes, from, to) {
        match field? {
            (1, found) => name = found.range()?,
            (2, found) => value = found.range()?,
            _ => {}
        }
    }
    let value = entries.shared(value.0, value.1);
    entries.pair(&bytes[name.0..name.1], value);
    Ok(())
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Found {
    Number(u64),
    /// From and to.
    Range(usize, usize),
    /// Of a type that no known field has.
    Other,
}

const WRONG_TYPE: &str = "a field of the wrong type";

impl Found {
    fn range(self) -> Result<(usize, usize), &'static str> {
        match self {
            Found::Range(from, to) => Ok((from, to)),
            _ => Err(WRONG_TYPE),
        }
    }

    fn number(self) -> Result<u64, &'static str> {
        match self {
            Found::Number(n) => Ok(n),
            _ => Err(WRONG_TYPE),
        }
    }
}

/// The fields of a message. Ends with the first error.
struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Fields<'b> {
    fn new(bytes: &'b [u8]) -> Fields<'b> {
        Fields { bytes, at: 0 }
    }

    /// Of the message that is `bytes[from..to]`; ranges count from the begin of `bytes`.
    fn within(bytes: &'b [u8], from: usize, to: usize) -> Fields<'b> {
        Fields {
            bytes: &bytes[..to],
            at: from,
        }
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for i in 0..10 {
            let byte = *self.bytes.get(self.at).ok_or("it is cut off")?;
            self.at += 1;
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits")
    }

    fn skip(&mut self, length: u64) -> Result<(usize, usize), &'static str> {
        let left = (self.bytes.len() - self.at) as u64;
        if length > left {
            return Err("it is cut off");
        }
        let from = self.at;
        self.at += length as usize;
        Ok((from, self.at))
    }

    fn field(&mut self) -> Result<(u64, Found), &'static str> {
        let tag = self.varint()?;
        if tag >> 3 == 0 {
            return Err("a field without a number");
        }
        let value = match tag & 7 {
            0 => Found::Number(self.varint()?),
            1 => self.skip(8).map(|_| Found::Other)?,
            2 => {
                let length = self.varint()?;
                let (from, to) = self.skip(length)?;
                Found::Range(from, to)
            }
            5 => self.skip(4).map(|_| Found::Other)?,
            _ => return Err("a field of an unknown type"),
        };
        Ok((tag >> 3, value))
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<(u64, Found), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}
