//! The `json_array_parser` operator: a JSON array to a list, or to a map with the names of a header.
//!
//! Numbers without a fraction or exponent are integers, nested objects stay text (without blanks),
//! nested arrays are errors, and strings may hold control characters, as in the collector.

use tailwater_config::Section;
use tailwater_pdata::{Cell, LogsBatch, Slice, Value, ValueRef};

use super::json_parser::FIELDS_MAX;
use super::json_walk::unescape;
use super::operator::{Operator, OperatorCx, Rows};
use super::parsing::{Parsing, push_names};
use super::record_error::RecordError;

/// Nesting of an object beyond which a text is refused.
const DEPTH_MAX: usize = 128;

/// See the module.
#[derive(Debug)]
pub(super) struct JsonArrayParser {
    parsing: Parsing,
    /// Names of the values; none: the result is a list.
    header: Vec<String>,
    /// The header in the batch.
    names: Vec<Slice>,
    /// Memory for one record.
    items: Vec<Item>,
    fields: Vec<(Slice, Cell)>,
    buffer: Vec<u8>,
}

/// A value of the array.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Item {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    /// The range between the quotes, and whether it has escapes.
    Str(usize, usize, bool),
    /// The range of an object.
    Object(usize, usize),
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[(
    "header",
    "Names of the elements, with commas between them; without it the array becomes a list, which needs `parse_to`.",
)];

impl JsonArrayParser {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> JsonArrayParser {
        s.describe(OPTIONS);
        let parsing = Parsing::decode("json_array_parser", s);
        let header = s.str_optional("header").filter(|h| !h.is_empty());
        let names = header.into_iter().flat_map(|h| h.split(','));
        JsonArrayParser {
            parsing,
            header: names.map(str::to_owned).collect(),
            names: Vec::new(),
            items: Vec::new(),
            fields: Vec::new(),
            buffer: Vec::new(),
        }
    }

    fn apply(&mut self, batch: &mut LogsBatch, row: usize) -> Result<(), RecordError> {
        let text = self.parsing.text_or_bytes(batch, row)?;
        read(batch.text.get(text), &mut self.items)?;
        if self.header.is_empty() {
            let bytes = batch.text.get(text);
            let list = self.items.iter().map(|item| value(*item, bytes));
            let list = Value::List(list.collect());
            return self.parsing.set_value(batch, row, list);
        }
        if self.items.len() != self.header.len() {
            let (wanted, found) = (self.header.len(), self.items.len());
            return Err(RecordError::FieldCount { wanted, found });
        }
        self.fields.clear();
        for (name, item) in self.names.iter().zip(&self.items) {
            let cell = cell(*item, text, batch, &mut self.buffer);
            self.fields.push((*name, cell));
        }
        self.parsing.set(batch, row, &self.fields);
        Ok(())
    }
}

impl Operator for JsonArrayParser {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        self.parsing.begin(batch);
        push_names(&self.header, batch, &mut self.names);
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Err(e) = self.apply(batch, row) {
                rows.fail(row, || e);
            }
        }
        self.parsing.finish(batch, rows, cx);
    }
}

fn value(item: Item, text: &[u8]) -> Value {
    match item {
        Item::Null => Value::Null,
        Item::Bool(b) => Value::Bool(b),
        Item::Int(i) => Value::Int(i),
        Item::Double(d) => Value::Double(d),
        Item::Str(start, end, false) => ValueRef::Str(&text[start..end]).to_value(),
        Item::Str(start, end, true) => {
            let mut out = Vec::new();
            unescape(&text[start..end], &mut out);
            ValueRef::Str(&out).to_value()
        }
        Item::Object(start, end) => {
            let mut out = Vec::new();
            compact(&text[start..end], &mut out);
            ValueRef::Str(&out).to_value()
        }
    }
}

fn cell(item: Item, text: Slice, batch: &mut LogsBatch, buffer: &mut Vec<u8>) -> Cell {
    buffer.clear();
    match item {
        Item::Null => return Cell::Null,
        Item::Bool(b) => return Cell::Bool(b),
        Item::Int(i) => return Cell::Int(i),
        Item::Double(d) => return Cell::Double(d),
        Item::Str(start, end, false) => return Cell::Str(text.part(start, end - start)),
        Item::Str(start, end, true) => {
            unescape(&batch.text.get(text)[start..end], buffer);
        }
        Item::Object(start, end) => compact(&batch.text.get(text)[start..end], buffer),
    }
    Cell::Str(batch.text.push(buffer))
}

/// Appends the object without the blanks between its parts.
fn compact(object: &[u8], out: &mut Vec<u8>) {
    let mut in_string = false;
    let mut escaped = false;
    for &b in object {
        if !in_string && matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        }
        if b == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && b == b'\\' && !escaped;
        out.push(b);
    }
}

/// Finds the values of the array that `text` is.
fn read(text: &[u8], items: &mut Vec<Item>) -> Result<(), RecordError> {
    items.clear();
    let mut r = Reader { text, at: 0 };
    r.blanks();
    r.byte(b'[', "expected [")?;
    r.blanks();
    if r.peek() == b']' {
        r.at += 1;
    } else {
        loop {
            r.blanks();
            if items.len() >= FIELDS_MAX {
                return Err(RecordError::TooManyFields(FIELDS_MAX));
            }
            items.push(r.item()?);
            r.blanks();
            match r.peek() {
                b',' => r.at += 1,
                b']' => {
                    r.at += 1;
                    break;
                }
                _ => return Err(r.error("expected a comma or ]")),
            }
        }
    }
    r.blanks();
    match r.at == text.len() {
        true => Ok(()),
        false => Err(r.error("text after the array")),
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, what: &'static str) -> RecordError {
        RecordError::Format {
            format: "a JSON array",
            what,
            at: self.at,
        }
    }

    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn byte(&mut self, byte: u8, what: &'static str) -> Result<(), RecordError> {
        if self.text.get(self.at) != Some(&byte) {
            return Err(self.error(what));
        }
        self.at += 1;
        Ok(())
    }

    fn item(&mut self) -> Result<Item, RecordError> {
        match self.peek() {
            b'"' => {
                let (start, end, escaped) = self.string()?;
                Ok(Item::Str(start, end, escaped))
            }
            b'{' => {
                let start = self.at;
                self.object()?;
                Ok(Item::Object(start, self.at))
            }
            b'[' => Err(self.error("an array within the array")),
            b't' => self.word("true", Item::Bool(true)),
            b'f' => self.word("false", Item::Bool(false)),
            b'n' => self.word("null", Item::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, item: Item) -> Result<Item, RecordError> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(item)
    }

    fn number(&mut self) -> Result<Item, RecordError> {
        let rest = &self.text[self.at..];
        let is_part = |b: &&u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(is_part).count();
        let written = std::str::from_utf8(&rest[..length]).unwrap_or_default();
        let starts = written
            .trim_start_matches('-')
            .starts_with(|c: char| c.is_ascii_digit());
        let number = match written.parse::<i64>() {
            Ok(i) if starts => Some(Item::Int(i)),
            _ if starts => written.parse().ok().map(Item::Double),
            _ => None,
        };
        let number = number.ok_or_else(|| self.error("expected a value"))?;
        self.at += length;
        Ok(number)
    }

    /// The range of a string between its quotes, and whether it has escapes.
    fn string(&mut self) -> Result<(usize, usize, bool), RecordError> {
        self.byte(b'"', "expected a string")?;
        let (start, mut escaped) = (self.at, false);
        loop {
            let found = memchr::memchr2(b'"', b'\\', &self.text[self.at..]);
            let Some(found) = found else {
                return Err(self.error("unclosed string"));
            };
            self.at += found;
            if self.text[self.at] == b'"' {
                break;
            }
            escaped = true;
            self.at = (self.at + 2).min(self.text.len());
        }
        let end = self.at;
        self.at += 1;
        if escaped && !unescape(&self.text[start..end], &mut Vec::new()) {
            return Err(self.error("unknown escape in a string"));
        }
        Ok((start, end, escaped))
    }

    /// Goes to the end of an object. What is in it is looked at no closer than its end needs: that
    /// brackets match and that strings end.
    fn object(&mut self) -> Result<(), RecordError> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.text.get(self.at) {
                Some(b @ (b'{' | b'[')) => {
                    open.push(if *b == b'{' { b'}' } else { b']' });
                    if open.len() > DEPTH_MAX {
                        return Err(self.error("nested too deeply"));
                    }
                }
                Some(b @ (b'}' | b']')) => {
                    if open.pop() != Some(*b) {
                        return Err(self.error("brackets that do not match"));
                    }
                    if open.is_empty() {
                        self.at += 1;
                        return Ok(());
                    }
                }
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(_) => {}
                None => return Err(self.error("unclosed object")),
            }
            self.at += 1;
        }
    }
}
