//! `time_parser` and the embedded `timestamp`.

use tailwater_pdata::LogsBatch;

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
}

impl TimeParser {
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
        let time = self.layout.parse_value(value, &self.zone, now_ns)?;
        let rows = batch.rows();
        batch.time.each_mut(rows)[row] = time;
        Ok(())
    }
}
