//! `time_parser` and the embedded `timestamp`.

use tailwater_pdata::{LogsBatch, ValueRef};

use super::embedded::required;
use super::field::Field;
use super::record_error::RecordError;
use tailwater_golang::strptime::{Layout, Zone};

/// Sets the time of a record from a field.
#[derive(Debug)]
pub(super) struct TimeParser {
    pub(super) parse_from: Field,
    pub(super) layout: Layout,
    pub(super) zone: Zone,
    /// What abbreviations stand for.
    pub(super) zones: Vec<(String, Zone)>,
}

impl TimeParser {
    /// The zone that the first known abbreviation in `text` stands for: a word of two to five capitals.
    fn zone_of(&self, text: &[u8]) -> &Zone {
        let words = text.split(|b| !(b.is_ascii_alphanumeric() || *b == b'_'));
        let abbreviations = words.filter(|word| {
            (2..=5).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase)
        });
        let zone = |word: &[u8]| self.zones.iter().find(|(name, _)| name.as_bytes() == word);
        let mut known = abbreviations.filter_map(zone);
        known.next().map_or(&self.zone, |(_, zone)| zone)
    }

    pub(super) fn apply(
        &self,
        batch: &mut LogsBatch,
        row: usize,
        now_ns: i64,
    ) -> Result<(), RecordError> {
        let value = self
            .parse_from
            .get(batch, row)
            .ok_or_else(required(&self.parse_from))?;
        let zone = match value {
            ValueRef::Str(text) if !self.zones.is_empty() => self.zone_of(text),
            _ => &self.zone,
        };
        let time = self.layout.parse_value(value, zone, now_ns)?;
        let rows = batch.rows();
        batch.time.each_mut(rows)[row] = time;
        Ok(())
    }
}
