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
        let trace = hex::<16>(&self.trace_id, batch, row, "trace_id");
        let span = hex::<8>(&self.span_id, batch, row, "span_id");
        let flags = hex::<1>(&self.trace_flags, batch, row, "trace_flags");
        let nothing = matches!((&trace, &span, &flags), (Ok(None), Ok(None), Ok(None)));
        if nothing && batch.trace.is_none() {
            return Ok(());
        }
        // One part that is wrong does not take the others with it.
        let columns = batch.trace_mut();
        columns.trace_id[row] = found(&trace);
        columns.span_id[row] = found(&span);
        let [flag] = found(&flags);
        columns.flags[row] = u32::from(flag);
        trace.map(drop).and(span.map(drop)).and(flags.map(drop))
    }
}

/// What was found, or zeros.
fn found<const N: usize>(part: &Result<Option<[u8; N]>, RecordError>) -> [u8; N] {
    part.as_ref().ok().copied().flatten().unwrap_or([0; N])
}

/// The bytes of a field in hexadecimal; `None` if it is not there. As in the collector a value of
/// another length is cut, or filled up with zeros.
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
    if !rest.is_empty() {
        return Err(RecordError::Id(name));
    }
    for (i, pair) in pairs.iter().enumerate() {
        let digit = |b: u8| char::from(b).to_digit(16).ok_or(RecordError::Id(name));
        let byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        if let Some(place) = out.get_mut(i) {
            *place = byte;
        }
    }
    Ok(Some(out))
}
