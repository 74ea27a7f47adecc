//! `trace_parser` and the embedded `trace`.

use tailwater_pdata::{LogsBatch, ValueRef};

use super::field::Field;
use super::record_error::{RecordError, kind_of};

/// Sets the trace context of a record from fields in hexadecimal. A field that is missing is no
/// error: that part is cleared, as in the collector.
#[derive(Debug)]
pub(super) struct TraceParser {
    pub(super) trace_id: Field,
    pub(super) span_id: Field,
    pub(super) trace_flags: Field,
}

impl TraceParser {
    pub(super) fn apply(&self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let trace: Option<[u8; 16]> = hex(&self.trace_id, batch, row, "trace_id")?;
        let span: Option<[u8; 8]> = hex(&self.span_id, batch, row, "span_id")?;
        let flags: Option<[u8; 1]> = hex(&self.trace_flags, batch, row, "trace_flags")?;
        if trace.is_none() && span.is_none() && flags.is_none() && batch.trace.is_none() {
            return Ok(());
        }
        let columns = batch.trace_mut();
        columns.trace_id[row] = trace.unwrap_or_default();
        columns.span_id[row] = span.unwrap_or_default();
        columns.flags[row] = flags.map_or(0, |[flags]| u32::from(flags));
        Ok(())
    }
}

/// The bytes of a field in hexadecimal; `None` if it is not there.
fn hex<const N: usize>(
    field: &Field,
    batch: &LogsBatch,
    row: usize,
    name: &'static str,
) -> Result<Option<[u8; N]>, RecordError> {
    let text = match field.get(batch, row) {
        None | Some(ValueRef::Null) => return Ok(None),
        Some(ValueRef::Str(text) | ValueRef::Bytes(text)) => text,
        Some(v) => {
            return Err(RecordError::Kind {
                wanted: name,
                found: kind_of(v),
            });
        }
    };
    let mut out = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(RecordError::Id(name));
    }
    for (byte, pair) in out.iter_mut().zip(pairs) {
        let digit = |b: u8| char::from(b).to_digit(16).ok_or(RecordError::Id(name));
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(Some(out))
}
