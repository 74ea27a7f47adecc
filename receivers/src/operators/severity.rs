//! `severity_parser` and the embedded `severity`.
//!
//! Source of names, presets and ranges: the collector's severity type. Severity numbers are
//! OTLP's, 1 (TRACE) to 24 (FATAL4).

use foldhash::HashMap;
use tailwater_pdata::{Cell, LogsBatch, ValueRef};

use super::embedded::required;
use super::field::Field;
use super::record_error::{RecordError, kind_of};

/// Which values are known without a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preset {
    /// The names of OTLP in any case, their numbers, `warning` and `err`, both also with 2 to 4.
    #[default]
    Default,
    /// The names of OTLP in any case and their numbers.
    Otel,
    /// None.
    None,
}

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// The severity number of a name of OTLP in any case (`info`, `WARN3`) or of its number as text.
pub fn number_of(name: &str) -> Option<u8> {
    known(&name.to_ascii_lowercase())
}

/// [`number_of`] of a lower-case name.
fn known(name: &str) -> Option<u8> {
    if let Ok(n @ 1..=24) = name.parse::<u8>() {
        // Only the plain spelling is a name, neither "007" nor "+7" is.
        return name
            .starts_with(|c: char| ('1'..='9').contains(&c))
            .then_some(n);
    }
    level(name, &LEVELS).map(|(i, step)| i as u8 * 4 + step)
}

/// Position in `levels` and step, 1 to 4, of a lower-case name.
fn level(name: &str, levels: &[&str]) -> Option<(usize, u8)> {
    levels
        .iter()
        .enumerate()
        .find_map(|(i, level)| match name.strip_prefix(level)? {
            "" => Some((i, 1)),
            "2" => Some((i, 2)),
            "3" => Some((i, 3)),
            "4" => Some((i, 4)),
            _ => None,
        })
}

/// The name of a severity number, 1 to 24, as OTLP writes it.
pub fn name_of(number: u8) -> &'static str {
    const NAMES: [&str; 24] = [
        "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4", "INFO",
        "INFO2", "INFO3", "INFO4", "WARN", "WARN2", "WARN3", "WARN4", "ERROR", "ERROR2", "ERROR3",
        "ERROR4", "FATAL", "FATAL2", "FATAL3", "FATAL4",
    ];
    NAMES
        .get(usize::from(number).wrapping_sub(1))
        .copied()
        .unwrap_or_default()
}

/// What values mean.
#[derive(Clone, Debug, Default)]
pub struct SeverityMap {
    preset: Preset,
    /// By lower-case text.
    texts: HashMap<Box<[u8]>, u8>,
    /// Least and most value, both included.
    ranges: Vec<(i64, i64, u8)>,
}

impl SeverityMap {
    /// Only what `preset` knows.
    pub fn new(preset: Preset) -> SeverityMap {
        SeverityMap {
            preset,
            ..SeverityMap::default()
        }
    }

    /// Lets `text` mean `number`. `2xx` to `5xx`, in small letters, stand for the classes of HTTP status codes.
    pub fn add_text(&mut self, text: &str, number: u8) {
        match text {
            "2xx" => self.add_range(200, 299, number),
            "3xx" => self.add_range(300, 399, number),
            "4xx" => self.add_range(400, 499, number),
            "5xx" => self.add_range(500, 599, number),
            _ => {
                let text = text.to_lowercase().into_bytes();
                self.texts.insert(text.into(), number);
            }
        }
    }

    /// Lets the integers from one to the other mean `number`; which is the lesser does not matter.
    pub fn add_range(&mut self, a: i64, b: i64, number: u8) {
        self.ranges.push((a.min(b), a.max(b), number));
    }

    /// The severity number of `text`, 0 if it is unknown. A mapping goes before the preset.
    pub fn find(&self, text: &[u8]) -> u8 {
        // Everything known is short, but for mapped texts.
        let mut short = [0; 32];
        let long;
        let lower: &[u8] = match short.get_mut(..text.len()) {
            Some(room) if text.is_ascii() => {
                room.copy_from_slice(text);
                room.make_ascii_lowercase();
                room
            }
            _ => {
                long = String::from_utf8_lossy(text).to_lowercase();
                long.as_bytes()
            }
        };
        if let Some(&number) = self.texts.get(lower) {
            return number;
        }
        let lower = std::str::from_utf8(lower).unwrap_or_default();
        if !self.ranges.is_empty()
            && let Ok(i) = lower.parse::<i64>()
        {
            let found = self
                .ranges
                .iter()
                .find(|(least, most, _)| (*least..=*most).contains(&i));
            if let Some(&(_, _, number)) = found {
                return number;
            }
        }
        let extra = || {
            let (i, step) = level(lower, &["warning", "err"])?;
            Some(13 + 4 * i as u8 + step - 1)
        };
        match self.preset {
            Preset::None => 0,
            Preset::Otel => known(lower).unwrap_or(0),
            Preset::Default => known(lower).or_else(extra).unwrap_or(0),
        }
    }
}

/// Sets the severity of a record from a field.
#[derive(Debug)]
pub(super) struct SeverityParser {
    pub(super) parse_from: Field,
    pub(super) map: SeverityMap,
    /// The severity text becomes the name of the number instead of the value found.
    pub(super) overwrite_text: bool,
}

impl SeverityParser {
    pub(super) fn apply(&self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let value = self
            .parse_from
            .get(batch, row)
            .ok_or_else(required(&self.parse_from))?;
        let refused = |v: ValueRef<'_>| RecordError::Kind {
            wanted: "a severity",
            found: kind_of(v),
        };
        let (number, text) = match value {
            ValueRef::Str(text) => (self.map.find(text), None),
            ValueRef::Bytes(text) => (self.map.find(text), Some(text.to_vec())),
            ValueRef::Int(i) => integer(&self.map, i),
            ValueRef::Double(d) if d.fract() == 0.0 && d.abs() < 1e15 => {
                integer(&self.map, d as i64)
            }
            other => return Err(refused(other)),
        };
        let cell = match text {
            _ if self.overwrite_text && number > 0 => {
                Some(Cell::Str(batch.text.push(name_of(number).as_bytes())))
            }
            Some(text) => Some(Cell::Str(batch.text.push(&text))),
            None => self.parse_from.cell(batch, row),
        };
        let rows = batch.rows();
        batch.severity.each_mut(rows)[row] = number;
        if let Some(cell) = cell {
            batch.set_severity_text(row, cell);
        }
        Ok(())
    }
}

fn integer(map: &SeverityMap, i: i64) -> (u8, Option<Vec<u8>>) {
    let text = i.to_string().into_bytes();
    (map.find(&text), Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_mappings_give_severities() {
        let mut mapped = SeverityMap::new(Preset::Default);
        mapped.add_text("Oops", 17);
        mapped.add_text("info", 21);
        mapped.add_text("5xx", 18);
        mapped.add_text("4XX", 13);
        mapped.add_range(20, 10, 5);
        let none = SeverityMap::new(Preset::None);
        let otel = SeverityMap::new(Preset::Otel);
        let default = SeverityMap::new(Preset::Default);
        for (map, text, want) in [
            (&default, "tRaCe", 1),
            (&default, "WARN3", 15),
            (&default, "Warning", 13),
            (&default, "warning4", 16),
            (&default, "err", 17),
            (&default, "ERR2", 18),
            (&default, "error4", 20),
            (&default, "fatal4", 24),
            (&default, "9", 9),
            (&default, "09", 0),
            (&default, "25", 0),
            (&default, "0", 0),
            (&default, "warn5", 0),
            (&default, "", 0),
            (&default, "a text that is longer than any known one is", 0),
            (&otel, "warning", 0),
            (&otel, "info", 9),
            (&none, "info", 0),
            (&mapped, "oOPS", 17),
            (&mapped, "INFO", 21),
            (&mapped, "503", 18),
            (&mapped, "15", 5),
            (&mapped, "9", 9),
            (&mapped, "404", 0),
            (&mapped, "4xx", 13),
        ] {
            assert_eq!(map.find(text.as_bytes()), want, "{text}");
        }
        for n in 1..=24 {
            assert_eq!(number_of(name_of(n)), Some(n));
        }
    }
}
