//! The `regex_parser` operator: named groups to attributes.

use regex::bytes::{CaptureLocations, Regex};
use tailwater_pdata::{Cell, Column, Key, LogsBatch, Map, Slice, ValueRef};

use super::container::text_of;
use super::embedded::Embedded;
use super::field::{Field, Root};
use super::operator::{Operator, OperatorCx, Rows};
use super::record_error::RecordError;
use tailwater_golang::regexp;

/// A pattern with named groups.
#[derive(Debug)]
pub(super) struct Groups {
    regex: Regex,
    /// Index and name of each named group.
    names: Vec<(usize, Key)>,
    locations: CaptureLocations,
}

impl Groups {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// It is no pattern, or it has no named groups.
    pub(super) fn new(pattern: &str) -> Result<Groups, String> {
        let regex = regexp::compile(pattern).map_err(|e| e.to_string())?;
        let named = |(i, name): (usize, Option<&str>)| name.map(|n| (i, Key::from(n)));
        let names: Vec<_> = regex
            .capture_names()
            .enumerate()
            .filter_map(named)
            .collect();
        if names.is_empty() {
            return Err("no named capture groups; name one as in (?P<name>...)".to_owned());
        }
        let locations = regex.capture_locations();
        Ok(Groups {
            regex,
            names,
            locations,
        })
    }
}

/// See the module. Groups stay where they are in the text. A group that took no part in the match
/// is empty text, as in the collector.
#[derive(Debug)]
pub(super) struct RegexParser {
    pub(super) parse_from: Field,
    pub(super) parse_to: Field,
    pub(super) groups: Groups,
    pub(super) embedded: Embedded,
}

impl RegexParser {
    fn matched(&mut self, batch: &mut LogsBatch, row: usize) -> Result<Slice, RecordError> {
        let text = text_of(&self.parse_from, batch, row, "regex_parser")?;
        let Groups {
            regex, locations, ..
        } = &mut self.groups;
        match regex.captures_read(locations, batch.text.get(text)) {
            Some(_) => Ok(text),
            None => Err(RecordError::NoMatch),
        }
    }

    /// The text of a group of the last match.
    fn group(&self, text: Slice, group: usize) -> Slice {
        match self.groups.locations.get(group) {
            Some((start, end)) => text.part(start, end - start),
            None => Slice::EMPTY,
        }
    }
}

impl Operator for RegexParser {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        let to_attributes = self.parse_to.root == Root::Attributes && self.parse_to.keys.is_empty();
        let names = self.groups.names.clone();
        let n = rows.len();
        // A group that has no column yet gets one of its own; others go in cell by cell.
        let new = |key: &Key| to_attributes && batch.attributes.get(key).is_none();
        let mut columns: Vec<Option<Vec<Slice>>> = names
            .iter()
            .map(|(_, key)| new(key).then(|| vec![Slice::ABSENT; n]))
            .collect();
        for row in 0..n {
            if !rows.is_active(row) {
                continue;
            }
            let text = match self.matched(batch, row) {
                Ok(text) => text,
                Err(e) => {
                    rows.fail(row, || e);
                    continue;
                }
            };
            if !to_attributes {
                let value = |i| ValueRef::Str(batch.text.get(self.group(text, i))).to_value();
                let map: Map = names.iter().map(|(i, k)| (k.clone(), value(*i))).collect();
                self.parse_to.merge(batch, row, map);
                continue;
            }
            for ((group, key), column) in names.iter().zip(&mut columns) {
                let slice = self.group(text, *group);
                match column {
                    Some(slices) => slices[row] = slice,
                    None => batch.set_attribute(row, key, Cell::Str(slice)),
                }
            }
        }
        for ((_, key), column) in names.into_iter().zip(columns) {
            if let Some(slices) = column.filter(|s| s.iter().any(|s| !s.is_absent())) {
                batch.attributes.set(key, Column::Slices(slices));
            }
        }
        self.embedded.process(batch, rows, cx);
    }
}
