//! A JSON object to the places of its fields, without copying text and without building a tree.
//!
//! Grammar: RFC 8259, and what the collector's reader takes besides: control characters in strings, zeros
//! in front of a number, a dot without digits behind it, `null` for an object without fields. Strings may
//! hold bytes that are not UTF-8 (a receiver may keep raw bytes); an escape that is half a surrogate pair
//! becomes U+FFFD, as Go decodes it.

use tailwater_pdata::{Map, Value};
use wide::u8x16;

use super::json_shape::Shape;

/// Nesting beyond which a document is refused.
const DEPTH_MAX: usize = 128;

/// What is wrong with a document, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct JsonError {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// A range of the document's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) len: u32,
    /// Offset from `start` of the first backslash; equal to `len` without one.
    pub(super) escape: u32,
}

impl Range {
    /// The bytes as written.
    pub(super) fn of<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        &text[self.start as usize..(self.start + self.len) as usize]
    }

    /// True if the bytes as written are not the string.
    pub(super) fn is_escaped(&self) -> bool {
        self.escape < self.len
    }
}

/// A value of a field.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    /// The text between the quotes.
    Str(Range),
    /// A list or a map.
    Nested(Value),
}

/// A field of the object.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct RawField {
    pub(super) key: Range,
    pub(super) value: Raw,
}

/// Finds the fields of the object that `text` is, in the order they are written; `fields` is
/// cleared first. With `parse_ints` numbers without a fraction or exponent are integers where
/// they fit, and what is behind the object is not looked at, as in the collector; else every number is a
/// double. `shape` is that of the object before, and of this one
/// afterwards; any will do.
pub(super) fn walk(
    text: &[u8],
    parse_ints: bool,
    shape: &mut Shape,
    fields: &mut Vec<RawField>,
) -> Result<(), JsonError> {
    fields.clear();
    let mut w = Walk {
        text,
        at: 0,
        parse_ints,
    };
    w.blanks();
    if w.peek() == b'n' && text[w.at..].trim_ascii_end() == b"null" {
        return Ok(());
    }
    w.byte(b'{', "expected {")?;
    w.blanks();
    if w.peek() == b'}' {
        w.at += 1;
    } else {
        loop {
            let key = w.field_key(fields.len(), shape)?;
            fields.push(RawField {
                key,
                value: Raw::Null,
            });
            if let Some(field) = fields.last_mut() {
                w.raw(1, &mut field.value)?;
            }
            if w.another(b'}')? {
                break;
            }
        }
    }
    w.blanks();
    match w.at == text.len() || parse_ints {
        true => Ok(()),
        false => Err(w.error("text after the object")),
    }
}

/// Appends the string that `escaped` (the text between the quotes) stands for. False if it has an
/// escape that does not exist; then a part may have been appended.
pub(super) fn unescape(escaped: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = escaped;
    while let Some(i) = backslash(rest) {
        out.extend_from_slice(&rest[..i]);
        let Some(&c) = rest.get(i + 1) else {
            return false;
        };
        rest = &rest[i + 2..];
        let plain = match c {
            b'"' | b'\\' | b'/' => c,
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'u' => {
                let Some(mut code) = hex4(rest) else {
                    return false;
                };
                rest = &rest[4..];
                let low = rest.strip_prefix(b"\\u").and_then(hex4);
                if let (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) = (code, low) {
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    rest = &rest[6..];
                }
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return false,
        };
        out.push(plain);
    }
    out.extend_from_slice(rest);
    true
}

/// The first backslash. Where there are some they are mostly close together, as in JSON within
/// JSON, and a search over few bytes costs less than the call of one for many.
#[inline]
fn backslash(text: &[u8]) -> Option<usize> {
    const NEAR_BYTES: usize = 16;
    let (near, far) = text.split_at(text.len().min(NEAR_BYTES));
    let found = near.iter().position(|b| *b == b'\\');
    found.or_else(|| Some(memchr::memchr(b'\\', far)? + near.len()))
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?
        .iter()
        .try_fold(0, |n, &b| Some(n * 16 + char::from(b).to_digit(16)?))
}

struct Walk<'t> {
    text: &'t [u8],
    at: usize,
    parse_ints: bool,
}

impl Walk<'_> {
    fn error(&self, what: &'static str) -> JsonError {
        JsonError { what, at: self.at }
    }

    /// The next byte, 0 at the end (0 is never valid outside of strings).
    #[inline]
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    #[inline]
    fn byte(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.peek() != byte {
            return Err(self.error(what));
        }
        self.at += 1;
        Ok(())
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Range, JsonError> {
        self.blanks();
        self.byte(b'"', "expected a key")?;
        let key = self.string()?;
        self.blanks();
        self.byte(b':', "expected a colon")?;
        Ok(key)
    }

    /// The `i`-th key of the object that is walked, and its colon.
    #[inline]
    fn field_key(&mut self, i: usize, shape: &mut Shape) -> Result<Range, JsonError> {
        self.blanks();
        let start = self.at;
        if let Some(written) = shape.matches(i, &self.text[start..]) {
            self.at += written;
            let len = (written - 3) as u32;
            return Ok(Range {
                start: start as u32 + 1,
                len,
                escape: len,
            });
        }
        let key = self.key()?;
        let plain = !key.is_escaped() && self.at - start == key.len as usize + 3;
        shape.learn(i, plain.then(|| &self.text[start..self.at]));
        Ok(key)
    }

    /// After a value: false after a comma, true after `close`.
    fn another(&mut self, close: u8) -> Result<bool, JsonError> {
        self.blanks();
        let found = self.peek();
        if found != b',' && found != close {
            return Err(self.error("expected a comma or the end of the list or object"));
        }
        self.at += 1;
        Ok(found == close)
    }

    /// The rest of a string whose opening quote was taken.
    #[inline(always)]
    fn string(&mut self) -> Result<Range, JsonError> {
        let start = self.at;
        let mut escape = None;
        loop {
            self.at = special(self.text, self.at);
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    escape.get_or_insert(self.at - start);
                    self.at += match self.text.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'n' | b't' | b'r' | b'b' | b'f') => 2,
                        Some(b'u') if hex4(&self.text[self.at + 2..]).is_some() => 6,
                        _ => {
                            return Err(JsonError {
                                what: "unknown escape in a string",
                                at: start,
                            });
                        }
                    };
                }
                _ if self.at >= self.text.len() => return Err(self.error("unclosed string")),
                _ => self.at += 1,
            }
        }
        let len = self.at - start;
        let range = Range {
            start: start as u32,
            len: len as u32,
            escape: escape.unwrap_or(len) as u32,
        };
        self.at += 1;
        Ok(range)
    }

    /// A value, put where it stays: what is returned by value is copied, and a copy of what was
    /// just written in parts has to wait for them.
    #[inline(always)]
    fn raw(&mut self, depth: usize, out: &mut Raw) -> Result<(), JsonError> {
        self.blanks();
        match self.peek() {
            b'"' => {
                self.at += 1;
                let range = self.string()?;
                *out = Raw::Str(range);
                Ok(())
            }
            b'-' | b'0'..=b'9' => self.number(out),
            _ => {
                *out = self.other(depth)?;
                Ok(())
            }
        }
    }

    /// A value that is neither a string nor a number.
    #[inline(never)]
    fn other(&mut self, depth: usize) -> Result<Raw, JsonError> {
        match self.peek() {
            b'{' => Ok(Raw::Nested(Value::Map(self.map(depth)?))),
            b'[' => Ok(Raw::Nested(Value::List(self.list(depth)?))),
            b't' => self.word(b"true", Raw::Bool(true)),
            b'f' => self.word(b"false", Raw::Bool(false)),
            b'n' => self.word(b"null", Raw::Null),
            _ => Err(self.error("expected a value")),
        }
    }

    fn word(&mut self, word: &'static [u8], value: Raw) -> Result<Raw, JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        match self.at - start {
            0 => Err(self.error("expected a digit")),
            n => Ok(n),
        }
    }

    #[inline(always)]
    fn number(&mut self, out: &mut Raw) -> Result<(), JsonError> {
        let start = self.at;
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let (first, mut n) = (self.at, 0i64);
        if let Some(word) = self.text.get(first..).and_then(|t| t.first_chunk::<8>()) {
            let (value, digits) = leading_digits(u64::from_le_bytes(*word));
            n = value;
            self.at += digits;
        }
        loop {
            let digit = self.peek().wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            n = n.wrapping_mul(10).wrapping_add(digit.into());
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 {
            return Err(self.error("expected a digit"));
        }
        // Up to 15 digits a double holds every integer exactly.
        if digits <= 15 && !matches!(self.peek(), b'.' | b'e' | b'E') {
            let sign = if negative { -1 } else { 1 };
            if self.parse_ints {
                *out = Raw::Int(n * sign);
            } else {
                // Multiplied as doubles: -0 stays what it is.
                *out = Raw::Double(n as f64 * sign as f64);
            }
            return Ok(());
        }
        *out = self.long_number(start)?;
        Ok(())
    }

    /// A number that has a fraction, an exponent or many digits, of which the whole part is read.
    #[inline(never)]
    fn long_number(&mut self, start: usize) -> Result<Raw, JsonError> {
        let mut whole = true;
        if self.peek() == b'.' {
            whole = false;
            self.at += 1;
            while self.peek().is_ascii_digit() {
                self.at += 1;
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            whole = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), b'+' | b'-'));
            self.digits()?;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).map_err(|_| JsonError {
            what: "not a number",
            at: start,
        })?;
        if whole
            && self.parse_ints
            && let Ok(i) = text.parse::<i64>()
        {
            return Ok(Raw::Int(i));
        }
        match text.parse::<f64>() {
            Ok(d) if d.is_finite() => Ok(Raw::Double(d)),
            _ => Err(JsonError {
                what: "a number out of range",
                at: start,
            }),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut raw = Raw::Null;
        self.raw(depth, &mut raw)?;
        Ok(match raw {
            Raw::Null => Value::Null,
            Raw::Bool(b) => Value::Bool(b),
            Raw::Int(i) => Value::Int(i),
            Raw::Double(d) => Value::Double(d),
            Raw::Str(range) => Value::from(decoded(range, self.text)),
            Raw::Nested(v) => v,
        })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>, JsonError> {
        let mut out = Vec::new();
        if self.opened(depth, b']')? {
            return Ok(out);
        }
        loop {
            out.push(self.value(depth + 1)?);
            if self.another(b']')? {
                return Ok(out);
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Map, JsonError> {
        // Map::insert looks through all keys; a large object is sorted out by hashing first.
        const HASHED_FROM: usize = 32;
        let mut entries: Vec<(String, Value)> = Vec::new();
        if !self.opened(depth, b'}')? {
            loop {
                let key = self.key()?;
                let key = decoded(key, self.text);
                entries.push((key, self.value(depth + 1)?));
                if self.another(b'}')? {
                    break;
                }
            }
        }
        if entries.len() < HASHED_FROM {
            return Ok(entries.into_iter().collect());
        }
        let mut last = foldhash::HashMap::default();
        for (i, (key, _)) in entries.iter().enumerate() {
            last.insert(key.clone(), i);
        }
        let keep = |(i, (key, value)): (usize, (String, Value))| {
            (last.get(&key) == Some(&i)).then_some((key, value))
        };
        Ok(Map::from_unique(
            entries.into_iter().enumerate().filter_map(keep),
        ))
    }

    /// Takes an opening bracket; true if the closing one follows at once.
    fn opened(&mut self, depth: usize, close: u8) -> Result<bool, JsonError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        self.at += 1;
        self.blanks();
        let empty = self.peek() == close;
        self.at += usize::from(empty);
        Ok(empty)
    }
}

fn decoded(range: Range, text: &[u8]) -> String {
    let raw = range.of(text);
    if !range.is_escaped() {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let mut out = Vec::with_capacity(raw.len());
    unescape(raw, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The number that up to eight digits at the beginning of eight bytes (the first is the lowest) stand for, and how many
/// they are. All at once: how many there are cannot be guessed.
#[inline(always)]
fn leading_digits(word: u64) -> (i64, usize) {
    const HIGH: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const SIX: u64 = 0x0606_0606_0606_0606;
    // The upper half of a digit is 3, and stays so when 6 is added to the lower one.
    let (upper, lower) = (word & HIGH, word & !HIGH);
    let others = (upper ^ 0x3030_3030_3030_3030) | ((lower + SIX) & HIGH);
    let digits = others.trailing_zeros() / 8;
    if digits == 0 {
        return (0, 0);
    }
    // The last digit becomes the last byte, behind zeros. Then two, four and eight digits are one number.
    let ones = lower << (64 - 8 * digits);
    let tens = (ones & 0x00FF_00FF_00FF_00FF) * 10 + (ones >> 8 & 0x00FF_00FF_00FF_00FF);
    let hundreds = (tens & 0x0000_FFFF_0000_FFFF) * 100 + (tens >> 16 & 0x0000_FFFF_0000_FFFF);
    let all = (hundreds & 0xFFFF_FFFF) * 10_000 + (hundreds >> 32);
    (all as i64, digits as usize)
}

/// Bytes that are looked at together: most strings are not longer, so it cannot be guessed wrong how often to look.
const WINDOW: usize = 32;

/// The first quote, backslash or control character at or after `at`, or the end.
#[inline(always)]
fn special(text: &[u8], mut at: usize) -> usize {
    while let Some(window) = text.get(at..).and_then(|t| t.first_chunk::<WINDOW>()) {
        let hits = specials(window);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize;
        }
        at += WINDOW;
    }
    let Some(last) = text.last_chunk::<WINDOW>() else {
        let rest = text.get(at..).unwrap_or_default();
        let found = rest.iter().position(|b| is_special(*b));
        return found.map_or(text.len(), |i| at + i);
    };
    // Less than a window is left, at its end.
    let hits = u64::from(specials(last)) >> (at + WINDOW - text.len());
    match hits {
        0 => text.len(),
        _ => at + hits.trailing_zeros() as usize,
    }
}

fn is_special(b: u8) -> bool {
    b == b'"' || b == b'\\' || b < 0x20
}

/// A bit for each byte that is a quote, a backslash or a control character; the lowest for the first.
#[inline(always)]
fn specials(window: &[u8; WINDOW]) -> u32 {
    let half = |bytes: [u8; 16]| {
        let v = u8x16::new(bytes);
        let control = v.min(u8x16::splat(0x1f)).simd_eq(v);
        let quote = v.simd_eq(u8x16::splat(b'"'));
        let backslash = v.simd_eq(u8x16::splat(b'\\'));
        (control | quote | backslash).to_bitmask()
    };
    let (mut low, mut high) = ([0; 16], [0; 16]);
    low.copy_from_slice(&window[..16]);
    high.copy_from_slice(&window[16..]);
    half(low) | half(high) << 16
}

#[cfg(test)]
#[path = "json_walk_tests.rs"]
mod tests;
