//! The `key_value_parser` operator: `a=1 b="two words"` to attributes.
//!
//! Rules of the collector: quotes (`"` and `'`) protect the delimiters between pairs and are taken
//! away, a backslash keeps the quote behind it and stays, keys and values lose blanks at their ends,
//! of equal keys the last counts. A piece without a delimiter makes the record an error.

use tailwater_config::Section;
use tailwater_pdata::{Cell, LogsBatch, Slice};

use super::json_parser::FIELDS_MAX;
use super::operator::{Operator, OperatorCx, Rows};
use super::parsing::Parsing;
use super::record_error::RecordError;

/// See the module.
#[derive(Debug)]
pub(super) struct KeyValueParser {
    parsing: Parsing,
    delimiter: Vec<u8>,
    pair_delimiter: Vec<u8>,
    /// Memory for one record.
    fields: Vec<(Slice, Cell)>,
    runs: Vec<(usize, usize)>,
    pieces: Vec<usize>,
    buffer: Vec<u8>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("delimiter", "What stands between a key and its value."),
    (
        "pair_delimiter",
        "What stands between pairs; a blank unless set.",
    ),
];

impl KeyValueParser {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<KeyValueParser> {
        s.describe(OPTIONS);
        let parsing = Parsing::decode("key_value_parser", s);
        let delimiter = s.string("delimiter", "=");
        let pairs = s.str_optional("pair_delimiter").filter(|d| !d.is_empty());
        let pairs = pairs.unwrap_or(" ");
        if delimiter.is_empty() {
            s.invalid("delimiter", "cannot be empty");
            return None;
        }
        if delimiter == pairs {
            s.invalid("delimiter", "cannot be the same as pair_delimiter");
            return None;
        }
        Some(KeyValueParser {
            parsing,
            delimiter: delimiter.into_bytes(),
            pair_delimiter: pairs.as_bytes().to_vec(),
            fields: Vec::new(),
            runs: Vec::new(),
            pieces: Vec::new(),
            buffer: Vec::new(),
        })
    }

    fn apply(&mut self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let text = self.parsing.text(batch, row)?;
        let bytes = batch.text.get(text);
        if bytes.is_empty() {
            return Err(error("it is empty", 0));
        }
        split(
            bytes,
            &self.pair_delimiter,
            &mut self.runs,
            &mut self.pieces,
        )?;
        if self.pieces.len() > FIELDS_MAX {
            return Err(RecordError::TooManyFields(FIELDS_MAX));
        }
        self.fields.clear();
        let mut first = 0;
        for &end in &self.pieces {
            let runs = &self.runs[first..end];
            let (key, value) = pair(batch, text, runs, &self.delimiter, &mut self.buffer)?;
            let (key, value) = (trimmed(batch, key), trimmed(batch, value));
            self.fields.push((key, Cell::Str(value)));
            first = end;
        }
        self.parsing.set(batch, row, &self.fields);
        Ok(())
    }
}

impl Operator for KeyValueParser {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        self.parsing.begin(batch);
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if self.parsing.is_full(batch) {
                rows.split(row);
                break;
            }
            if let Err(e) = self.apply(batch, row) {
                rows.fail(row, || e);
            }
        }
        self.parsing.finish(batch, rows, cx);
    }
}

fn error(what: &'static str, at: usize) -> RecordError {
    RecordError::Format {
        format: "key value pairs",
        what,
        at,
    }
}

/// Splits `text` at `delimiter` outside of quotes. A piece is what its runs of bytes join to: quotes
/// stand between them. `pieces` says where in `runs` each piece ends; there are no empty ones.
fn split(
    text: &[u8],
    delimiter: &[u8],
    runs: &mut Vec<(usize, usize)>,
    pieces: &mut Vec<usize>,
) -> Result<(), RecordError> {
    runs.clear();
    pieces.clear();
    let (mut quote, mut quoted_at, mut escaped, mut begun) = (None, 0, false, false);
    let mut at = 0;
    while at < text.len() {
        let b = text[at];
        if quote.is_none() && b == delimiter[0] && text[at..].starts_with(delimiter) {
            if begun {
                pieces.push(runs.len());
                begun = false;
            }
            at += delimiter.len();
            continue;
        }
        at += 1;
        if escaped {
            escaped = false;
        } else {
            match (quote, b) {
                (None, b'"' | b'\'') => {
                    (quote, quoted_at) = (Some(b), at - 1);
                    continue;
                }
                (Some(q), _) if q == b => {
                    quote = None;
                    continue;
                }
                _ => escaped = b == b'\\',
            }
        }
        match runs.last_mut() {
            Some((_, end)) if begun && *end == at - 1 => *end = at,
            _ => runs.push((at - 1, at)),
        }
        begun = true;
    }
    if quote.is_some() {
        return Err(error("a quote that is never closed", quoted_at));
    }
    if begun {
        pieces.push(runs.len());
    }
    Ok(())
}

/// Key and value of a piece. Copied only if they do not stand together in the text.
fn pair(
    batch: &mut LogsBatch,
    text: Slice,
    runs: &[(usize, usize)],
    delimiter: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(Slice, Slice), RecordError> {
    let bytes = batch.text.get(text);
    let part = |from: usize, to: usize| text.part(from, to - from);
    let (start, end) = runs.first().copied().unwrap_or_default();
    let found = find(&bytes[start..end], delimiter).map(|i| start + i);
    match (found, runs) {
        (Some(at), [_]) => return Ok((part(start, at), part(at + delimiter.len(), end))),
        (Some(at), [_, (from, to)]) if at + delimiter.len() == end => {
            return Ok((part(start, at), part(*from, *to)));
        }
        (None, [_]) => return Err(error("a piece without a delimiter", start)),
        _ => {}
    }
    buffer.clear();
    for (from, to) in runs {
        buffer.extend_from_slice(&bytes[*from..*to]);
    }
    let at = find(buffer, delimiter).ok_or_else(|| error("a piece without a delimiter", start))?;
    let whole = batch.text.push(buffer);
    let value = whole.part(at + delimiter.len(), usize::MAX);
    Ok((whole.part(0, at), value))
}

fn find(text: &[u8], delimiter: &[u8]) -> Option<usize> {
    match delimiter {
        [byte] => memchr::memchr(*byte, text),
        _ => memchr::memmem::find(text, delimiter),
    }
}

/// Without blanks at its ends.
fn trimmed(batch: &LogsBatch, slice: Slice) -> Slice {
    let bytes = batch.text.get(slice);
    let plain = |b: Option<&u8>| b.is_none_or(|b| b.is_ascii_graphic());
    if plain(bytes.first()) && plain(bytes.last()) {
        return slice;
    }
    let (start, len) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.len() - text.trim_start().len(), text.trim().len()),
        Err(_) => {
            let start = bytes.len() - bytes.trim_ascii_start().len();
            (start, bytes.trim_ascii().len())
        }
    };
    slice.part(start, len)
}
