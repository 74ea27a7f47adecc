//! The `csv_parser` operator: values between delimiters to attributes, named by a header.
//!
//! The value is one row, also if it has line ends: the last value of a line goes on in the first
//! one of the next. Rules of quotes are those of Go's `encoding/csv` (RFC 4180), which the
//! collector uses.

use tailwater_config::Section;
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

/// How quotes are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quotes {
    /// As RFC 4180 says.
    Strict,
    /// A quote within a value is a plain character.
    Lazy,
    /// Every quote is a plain character, and so is a line end.
    Ignored,
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

impl CsvParser {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<CsvParser> {
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
            values: Values::default(),
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
            Quotes::Ignored => self.values.split(bytes, &self.delimiter)?,
            quotes => self.values.read(bytes, &self.delimiter, quotes)?,
        }
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

fn error(what: &'static str, at: usize) -> RecordError {
    RecordError::Format {
        format: "a CSV row",
        what,
        at,
    }
}

/// A value: a range of the text, or of what was copied.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Value {
    start: usize,
    end: usize,
    copied: bool,
}

/// The values of one record.
#[derive(Debug, Default)]
struct Values {
    all: Vec<Value>,
    copied: Vec<u8>,
}

impl Values {
    fn clear(&mut self) {
        self.all.clear();
        self.copied.clear();
    }

    fn begin(&mut self) -> Result<(), RecordError> {
        if self.all.len() >= FIELDS_MAX {
            return Err(RecordError::TooManyFields(FIELDS_MAX));
        }
        self.all.push(Value {
            start: usize::MAX,
            end: usize::MAX,
            copied: false,
        });
        Ok(())
    }

    /// Appends a range of `text` to the last value. It is copied only if it does not follow on
    /// what is there.
    fn append(&mut self, text: &[u8], start: usize, end: usize) {
        let Some(last) = self.all.last_mut() else {
            return;
        };
        if start == end {
            return;
        }
        if last.copied {
            self.copied.extend_from_slice(&text[start..end]);
            last.end = self.copied.len();
        } else if last.start == usize::MAX {
            (last.start, last.end) = (start, end);
        } else if last.end == start {
            last.end = end;
        } else {
            let at = self.copied.len();
            self.copied.extend_from_slice(&text[last.start..last.end]);
            self.copied.extend_from_slice(&text[start..end]);
            *last = Value {
                start: at,
                end: self.copied.len(),
                copied: true,
            };
        }
    }

    fn close(&mut self) {
        if let Some(last) = self.all.last_mut().filter(|v| v.start == usize::MAX) {
            (last.start, last.end) = (0, 0);
        }
    }

    /// Values between delimiters; nothing else counts.
    fn split(&mut self, text: &[u8], delimiter: &[u8]) -> Result<(), RecordError> {
        self.clear();
        let mut from = 0;
        loop {
            self.begin()?;
            let found = memchr::memmem::find(&text[from..], delimiter);
            let end = found.map_or(text.len(), |i| from + i);
            self.append(text, from, end);
            self.close();
            match found {
                Some(_) => from = end + delimiter.len(),
                None => return Ok(()),
            }
        }
    }

    /// Values by the rules of quotes.
    fn read(&mut self, text: &[u8], delimiter: &[u8], quotes: Quotes) -> Result<(), RecordError> {
        self.clear();
        let mut line = Line::at(text, 0);
        let mut before: Option<usize> = None;
        while line.start < text.len() {
            if line.start == line.end {
                // Empty lines are no part of the row.
                line = Line::at(text, line.next);
                continue;
            }
            match before {
                // Goes on with the last value of the line before.
                Some(line_end) => self.append(text, line_end, line_end + 1),
                None => self.begin()?,
            }
            line = self.read_line(text, line, delimiter, quotes)?;
            before = line.newline();
            line = Line::at(text, line.next);
        }
        self.close();
        match self.all.is_empty() {
            true => Err(error("it is empty", 0)),
            false => Ok(()),
        }
    }

    /// Reads a line; gives the one it ends in, which is another one if quotes have line ends in them.
    fn read_line(
        &mut self,
        text: &[u8],
        mut line: Line,
        delimiter: &[u8],
        quotes: Quotes,
    ) -> Result<Line, RecordError> {
        let mut at = line.start;
        loop {
            if at >= line.end || text[at] != b'"' {
                let found = memchr::memmem::find(&text[at..line.end], delimiter);
                let end = found.map_or(line.end, |i| at + i);
                let bare = memchr::memchr(b'"', &text[at..end]);
                if let (Some(i), Quotes::Strict) = (bare, quotes) {
                    return Err(error("a quote in a value that is not quoted", at + i));
                }
                self.append(text, at, end);
                if found.is_none() {
                    return Ok(line);
                }
                at = end + delimiter.len();
            } else {
                let end;
                (line, end) = self.read_quoted(text, line, at, delimiter, quotes)?;
                match end {
                    Some(next) => at = next,
                    None => return Ok(line),
                }
            }
            self.close();
            self.begin()?;
        }
    }

    /// Reads the value whose opening quote is at `at`; gives the line it ends in and where the next
    /// value begins, if one follows.
    fn read_quoted(
        &mut self,
        text: &[u8],
        mut line: Line,
        at: usize,
        delimiter: &[u8],
        quotes: Quotes,
    ) -> Result<(Line, Option<usize>), RecordError> {
        let open = at;
        let mut at = at + 1;
        loop {
            let Some(i) = memchr::memchr(b'"', &text[at..line.end]) else {
                self.append(text, at, line.end);
                match line.newline() {
                    Some(newline) => self.append(text, newline, newline + 1),
                    None if quotes == Quotes::Lazy => return Ok((line, None)),
                    None => return Err(error("a quote that is never closed", open)),
                }
                if line.next >= text.len() && quotes != Quotes::Lazy {
                    return Err(error("a quote that is never closed", open));
                }
                line = Line::at(text, line.next);
                at = line.start;
                continue;
            };
            let quote = at + i;
            self.append(text, at, quote);
            at = quote + 1;
            let rest = &text[at..line.end];
            if rest.first() == Some(&b'"') {
                self.append(text, quote, quote + 1);
                at += 1;
            } else if rest.starts_with(delimiter) {
                return Ok((line, Some(at + delimiter.len())));
            } else if rest.is_empty() {
                return Ok((line, None));
            } else if quotes == Quotes::Lazy {
                self.append(text, quote, quote + 1);
            } else {
                return Err(error("text behind a closing quote", at));
            }
        }
    }
}

/// A line of the text.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: usize,
    /// Without its line end.
    end: usize,
    /// Where the next one begins.
    next: usize,
    ends: bool,
}

impl Line {
    fn at(text: &[u8], start: usize) -> Line {
        let found = memchr::memchr(b'\n', &text[start..]);
        let next = found.map_or(text.len(), |i| start + i + 1);
        let mut end = next - usize::from(found.is_some());
        if end > start && text[end - 1] == b'\r' {
            end -= 1;
        }
        let ends = found.is_some();
        Line {
            start,
            end,
            next,
            ends,
        }
    }

    /// Where its line end is, if it has one.
    fn newline(&self) -> Option<usize> {
        self.ends.then(|| self.next - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, delimiter: &str, quotes: Quotes) -> Result<Vec<String>, RecordError> {
        let mut values = Values::default();
        let (text, delimiter) = (text.as_bytes(), delimiter.as_bytes());
        match quotes {
            Quotes::Ignored => values.split(text, delimiter)?,
            quotes => values.read(text, delimiter, quotes)?,
        }
        let of = |v: &Value| if v.copied { &values.copied } else { text };
        let shown = |v: &Value| String::from_utf8_lossy(&of(v)[v.start..v.end]).into_owned();
        Ok(values.all.iter().map(shown).collect())
    }

    #[test]
    fn rows_are_read_as_go_reads_them() {
        use Quotes::{Ignored, Lazy, Strict};
        for (text, quotes, want) in [
            ("a,b,c", Strict, &["a", "b", "c"][..]),
            ("a,,", Strict, &["a", "", ""]),
            (",", Strict, &["", ""]),
            (r#"a,"b,""c""",d"#, Strict, &["a", r#"b,"c""#, "d"]),
            (r#""a,b",c"#, Strict, &["a,b", "c"]),
            (r#""a" "b",c"#, Lazy, &[r#"a" "b"#, "c"]),
            (r#"x "y",1"#, Lazy, &[r#"x "y""#, "1"]),
            (r#"a,"b"#, Lazy, &["a", "b"]),
            (r#"a,"b,""#, Ignored, &["a", "\"b", "\""]),
            ("a,b\nc,d", Strict, &["a", "b\nc", "d"]),
            ("a,b\r\nc,d\r\n", Strict, &["a", "b\nc", "d"]),
            ("\na,b\n\n\nc,d\n", Strict, &["a", "b\nc", "d"]),
            ("a,\"b\n\nc\",d", Strict, &["a", "b\n\nc", "d"]),
            ("a,\"b\r\nc\"\nd", Strict, &["a", "b\nc\nd"]),
            ("a\n,b", Strict, &["a\n", "b"]),
            ("a,b\n", Ignored, &["a", "b\n"]),
            ("a,b\r", Strict, &["a", "b"]),
        ] {
            assert_eq!(
                row(text, ",", quotes).as_deref(),
                Ok(&want.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]),
                "{text:?}"
            );
        }
        assert_eq!(
            row("a\u{b7}b", "\u{b7}", Strict),
            Ok(vec!["a".into(), "b".into()])
        );
        for (text, quotes) in [
            ("", Strict),
            ("\n\n", Strict),
            (r#"a,b"c"#, Strict),
            (r#""a"b,c"#, Strict),
            (r#"a,"b"#, Strict),
            ("a,\"b\n", Strict),
        ] {
            assert!(row(text, ",", quotes).is_err(), "{text:?}");
        }
    }
}
