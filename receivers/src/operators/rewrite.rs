//! The operators that rewrite a text: `regex_replace`, `unquote` and `sanitize_utf8`.

use regex::bytes::Regex;
use tailwater_config::Section;
use tailwater_pdata::{Cell, LogsBatch, Slice};

use super::field::Field;
use super::operator::{Operator, OperatorCx, Rows};
use super::options::{field, parsed, required_field};
use super::record_error::{RecordError, kind_of};
use tailwater_golang::regexp;

/// Most text one record is rewritten to, in bytes.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Most text that the records of one batch are rewritten to, in bytes.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Control sequences of terminals (ECMA-48): `ESC [`, parameters, intermediates, a final byte.
const ANSI: &str = r"\x1B\[[\x30-\x3F]*[\x20-\x2F]*[\x40-\x7E]";

/// The text of `field`; `Ok(None)` if the record does not have it, which is no error of operators
/// that rewrite.
fn text(
    field: &Field,
    batch: &mut LogsBatch,
    row: usize,
    parser: &'static str,
) -> Result<Option<Slice>, RecordError> {
    match field.cell(batch, row) {
        None => Ok(None),
        Some(Cell::Str(slice)) => Ok(Some(slice)),
        Some(_) => {
            let found = field.get(batch, row).map_or("nothing", kind_of);
            Err(RecordError::NotText { parser, found })
        }
    }
}

/// Rewrites the text of `field` in all active rows by `rewrite`, which leaves the new text in the
/// buffer, or says that it stays.
fn rewrite_all(
    field: &Field,
    name: &'static str,
    batch: &mut LogsBatch,
    rows: &mut Rows,
    mut rewrite: impl FnMut(&[u8], &mut Vec<u8>) -> Result<bool, RecordError>,
    buffer: &mut Vec<u8>,
) {
    let mut made = 0;
    for row in 0..rows.len() {
        if !rows.is_active(row) {
            continue;
        }
        let result = text(field, batch, row, name).and_then(|slice| {
            let Some(slice) = slice else { return Ok(()) };
            buffer.clear();
            if !rewrite(batch.text.get(slice), buffer)? {
                return Ok(());
            }
            made += buffer.len();
            if made > BATCH_BYTES_MAX {
                return Err(RecordError::TooLong(BATCH_BYTES_MAX));
            }
            let slice = batch.text.push(buffer);
            field.set(batch, row, Cell::Str(slice))
        });
        if let Err(e) = result {
            rows.fail(row, || e);
        }
    }
}

/// `regex_replace`: replaces what a regular expression matches.
#[derive(Debug)]
pub(super) struct RegexReplace {
    field: Field,
    regex: Regex,
    with: Vec<u8>,
    buffer: Vec<u8>,
}

/// What its options do.
const REPLACE: &[(&str, &str)] = &[
    ("field", "The field that is changed."),
    ("regex", "What is replaced. It or `regex_name` is required."),
    (
        "regex_name",
        "The name of a known pattern: `ansi_control_sequences`.",
    ),
    (
        "replace_with",
        "What is put in its place; `$1` and `${name}` are what groups found.",
    ),
];

impl RegexReplace {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<RegexReplace> {
        s.describe(REPLACE);
        let field = required_field(s, "field", Field::parse);
        let with = s.string("replace_with", "").into_bytes();
        let pattern = s.str_optional("regex").filter(|t| !t.is_empty());
        let name = s.str_optional("regex_name").filter(|t| !t.is_empty());
        let (key, pattern) = match (pattern, name) {
            (Some(pattern), None) => ("regex", pattern),
            (None, Some("ansi_control_sequences")) => ("regex_name", ANSI),
            (None, Some(_)) => {
                s.invalid("regex_name", "the only one is ansi_control_sequences");
                return None;
            }
            _ => {
                s.error("set one of regex and regex_name");
                return None;
            }
        };
        let compiled = regexp::compile(pattern).map_err(|e| e.to_string());
        let regex = parsed(s, key, compiled)?;
        Some(RegexReplace {
            field: field?,
            regex,
            with,
            buffer: Vec::new(),
        })
    }
}

/// Appends `text` with every match replaced by `with`, in which `$1` and `${name}` stand for groups.
fn replaced(
    regex: &Regex,
    with: &[u8],
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, RecordError> {
    let mut done = 0;
    let limit = |out: &Vec<u8>| match out.len() > RECORD_BYTES_MAX {
        true => Err(RecordError::TooLong(RECORD_BYTES_MAX)),
        false => Ok(()),
    };
    if with.contains(&b'$') {
        for found in regex.captures_iter(text) {
            let all = found.get_match();
            if regexp::is_within_character(text, all.range()) {
                continue;
            }
            out.extend_from_slice(&text[done..all.start()]);
            found.expand(with, out);
            done = all.end();
            limit(out)?;
        }
    } else {
        for found in regex.find_iter(text) {
            if regexp::is_within_character(text, found.range()) {
                continue;
            }
            out.extend_from_slice(&text[done..found.start()]);
            out.extend_from_slice(with);
            done = found.end();
            limit(out)?;
        }
    }
    out.extend_from_slice(&text[done..]);
    limit(out)?;
    Ok(true)
}

impl Operator for RegexReplace {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        let (regex, with) = (&self.regex, &self.with);
        let rewrite = |text: &[u8], out: &mut Vec<u8>| match regex.is_match(text) {
            true => replaced(regex, with, text, out),
            false => Ok(false),
        };
        rewrite_all(
            &self.field,
            "regex_replace",
            batch,
            rows,
            rewrite,
            &mut self.buffer,
        );
    }
}

/// `unquote`: takes the quotes of a Go string literal away, with its escapes.
#[derive(Debug)]
pub(super) struct Unquote {
    field: Field,
    buffer: Vec<u8>,
}

/// What its options do.
const UNQUOTE: &[(&str, &str)] = &[(
    "field",
    "A string literal of Go, which becomes the text that it means.",
)];

impl Unquote {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<Unquote> {
        s.describe(UNQUOTE);
        let field = required_field(s, "field", Field::parse)?;
        let buffer = Vec::new();
        Some(Unquote { field, buffer })
    }
}

impl Operator for Unquote {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            let result = text(&self.field, batch, row, "unquote").and_then(|slice| {
                let Some(slice) = slice else { return Ok(()) };
                let quoted = batch.text.get(slice);
                let plain = tailwater_golang::quote::unquote(quoted, &mut self.buffer);
                let slice = match plain.ok_or(RecordError::Unquote)? {
                    // The usual case: what is between the quotes is the string.
                    true => slice.part(1, slice.len() - 2),
                    false => batch.text.push(&self.buffer),
                };
                self.field.set(batch, row, Cell::Str(slice))
            });
            if let Err(e) = result {
                rows.fail(row, || e);
            }
        }
    }
}

/// `sanitize_utf8`: replaces bytes that are not UTF-8 by U+FFFD, a run of them by one.
#[derive(Debug)]
pub(super) struct SanitizeUtf8 {
    field: Field,
    buffer: Vec<u8>,
}

/// What its options do.
const SANITIZE: &[(&str, &str)] = &[(
    "field",
    "The text that becomes valid UTF-8; `body` unless set.",
)];

impl SanitizeUtf8 {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> SanitizeUtf8 {
        s.describe(SANITIZE);
        SanitizeUtf8 {
            field: field(s, "field").unwrap_or_else(Field::body),
            buffer: Vec::new(),
        }
    }
}

impl Operator for SanitizeUtf8 {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, _: &mut OperatorCx) {
        let rewrite = |text: &[u8], out: &mut Vec<u8>| {
            if std::str::from_utf8(text).is_ok() {
                return Ok(false);
            }
            let mut in_run = false;
            for chunk in text.utf8_chunks() {
                in_run &= chunk.valid().is_empty();
                out.extend_from_slice(chunk.valid().as_bytes());
                if !chunk.invalid().is_empty() && !in_run {
                    out.extend_from_slice("\u{fffd}".as_bytes());
                    in_run = true;
                }
            }
            Ok(true)
        };
        rewrite_all(
            &self.field,
            "sanitize_utf8",
            batch,
            rows,
            rewrite,
            &mut self.buffer,
        );
    }
}
