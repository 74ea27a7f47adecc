//! The `csv_parser` operator: values between delimiters to attributes, named by a header.
//!
//! The value is one row, read by [`tailwater_golang::csv`].

use tailwater_config::Section;
use tailwater_golang::csv::{CsvError, Quotes, Values};
use tailwater_pdata::{Cell, LogsBatch, Slice, ValueRef};

use super::json_parser::FIELDS_MAX;
use super::operator::{Operator, OperatorCx, Rows};
use super::parsing::{Parsing, push_names};
use super::record_error::{RecordError, kind_of};

/// Where the names of the values are.
#[derive(Debug)]
enum Header {
    Fixed(Vec<String>),
    /// In an attribute of each record.
    Attribute(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct CsvParser {
    parsing: Parsing,
    header: Header,
    header_delimiter: char,
    delimiter: Vec<u8>,
    quotes: Quotes,
    /// The header of the record before, and its names in the batch.
    last_header: Vec<u8>,
    names: Vec<Slice>,
    /// Memory for one record.
    values: Values,
    fields: Vec<(Slice, Cell)>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "header",
        "The names of the columns, with `header_delimiter` between them. It or `header_attribute` is required.",
    ),
    (
        "header_attribute",
        "The attribute that holds such a header.",
    ),
    (
        "header_delimiter",
        "What stands between names; that of columns unless set.",
    ),
    (
        "delimiter",
        "What stands between columns, one character; a comma unless set.",
    ),
    ("lazy_quotes", "Quotes may stand where none can be."),
    ("ignore_quotes", "Quotes mean nothing."),
];

impl CsvParser {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<CsvParser> {
        s.describe(OPTIONS);
        let parsing = Parsing::decode("csv_parser", s);
        let delimiter = character(s, "delimiter", ',');
        let header_delimiter = character(s, "header_delimiter", delimiter);
        if matches!(delimiter, '"' | '\r' | '\n' | '\u{fffd}') {
            s.invalid("delimiter", "cannot be a quote or a line end");
        }
        let (lazy, ignored) = (s.bool("lazy_quotes", false), s.bool("ignore_quotes", false));
        if lazy && ignored {
            s.error("only one of lazy_quotes and ignore_quotes can be true");
        }
        let fixed = s.str_optional("header").filter(|h| !h.is_empty());
        let attribute = s.str_optional("header_attribute").filter(|h| !h.is_empty());
        let header = match (fixed, attribute) {
            (Some(names), None) => {
                if !names.contains(header_delimiter) {
                    s.invalid("header", format!("has no delimiter {header_delimiter:?}"));
                    return None;
                }
                Header::Fixed(names.split(header_delimiter).map(str::to_owned).collect())
            }
            (None, Some(key)) => Header::Attribute(key.to_owned()),
            _ => {
                s.error("set one of header and header_attribute");
                return None;
            }
        };
        Some(CsvParser {
            parsing,
            header,
            header_delimiter,
            delimiter: delimiter.to_string().into_bytes(),
            quotes: match (lazy, ignored) {
                (_, true) => Quotes::Ignored,
                (true, _) => Quotes::Lazy,
                _ => Quotes::Strict,
            },
            last_header: Vec::new(),
            names: Vec::new(),
            values: Values::with_limit(FIELDS_MAX),
            fields: Vec::new(),
        })
    }

    /// Puts the names for the values of `row` into the batch.
    fn read_header(&mut self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let Header::Attribute(key) = &self.header else {
            return Ok(());
        };
        let text = match batch.attribute(row, key) {
            Some(ValueRef::Str(text)) => text,
            Some(other) => {
                let (wanted, found) = ("the header of a csv_parser", kind_of(other));
                return Err(RecordError::Kind { wanted, found });
            }
            None => return Err(RecordError::Missing(format!("attributes.{key}"))),
        };
        if !self.names.is_empty() && self.last_header == text {
            return Ok(());
        }
        self.last_header = text.to_vec();
        let text = String::from_utf8_lossy(text).into_owned();
        if text.matches(self.header_delimiter).count() >= FIELDS_MAX {
            self.names.clear();
            return Err(RecordError::TooManyFields(FIELDS_MAX));
        }
        let names: Vec<&str> = text.split(self.header_delimiter).collect();
        push_names(&names, batch, &mut self.names);
        Ok(())
    }

    fn apply(&mut self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        self.read_header(batch, row)?;
        let text = self.parsing.text_or_bytes(batch, row)?;
        let bytes = batch.text.get(text);
        match self.quotes {
            Quotes::Ignored => self.values.split(bytes, &self.delimiter),
            quotes => self.values.read(bytes, &self.delimiter, quotes),
        }
        .map_err(error)?;
        if self.values.all.len() != self.names.len() {
            let (wanted, found) = (self.names.len(), self.values.all.len());
            return Err(RecordError::FieldCount { wanted, found });
        }
        let copied = batch.text.push(&self.values.copied);
        self.fields.clear();
        for (name, value) in self.names.iter().zip(&self.values.all) {
            let of = if value.copied { copied } else { text };
            let slice = of.part(value.start, value.end - value.start);
            self.fields.push((*name, Cell::Str(slice)));
        }
        self.parsing.set(batch, row, &self.fields);
        Ok(())
    }
}

impl Operator for CsvParser {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        self.parsing.begin(batch);
        self.names.clear();
        if let Header::Fixed(names) = &self.header {
            push_names(names, batch, &mut self.names);
        }
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

/// An option that is one character.
fn character(s: &mut Section<'_, '_>, key: &str, default: char) -> char {
    let Some(text) = s.str_optional(key).filter(|t| !t.is_empty()) else {
        return default;
    };
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(c), None) => c,
        _ => {
            s.invalid(key, "has to be one character");
            default
        }
    }
}

fn error(e: CsvError) -> RecordError {
    match e {
        CsvError::TooMany(limit) => RecordError::TooManyFields(limit),
        CsvError::Format { what, at } => RecordError::Format {
            format: "a CSV row",
            what,
            at,
        },
    }
}
