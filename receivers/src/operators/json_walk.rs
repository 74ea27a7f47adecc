//! A JSON object to the places of its fields, without copying text and without building a tree.
//!
//! Grammar: RFC 8259. Strings may hold bytes that are not UTF-8 (a receiver may keep raw bytes);
//! an escape that is half a surrogate pair becomes U+FFFD, as Go decodes it.

use tailwater_pdata::{Map, Value};

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
/// they fit, else every number is a double.
pub(super) fn walk(
    text: &[u8],
    parse_ints: bool,
    fields: &mut Vec<RawField>,
) -> Result<(), JsonError> {
    fields.clear();
    let mut w = Walk {
        text,
        at: 0,
        parse_ints,
    };
    w.blanks();
    w.byte(b'{', "expected {")?;
    w.blanks();
    if w.peek() == b'}' {
        w.at += 1;
    } else {
        loop {
            let key = w.key()?;
            let value = w.raw(1)?;
            fields.push(RawField { key, value });
            if w.another(b'}')? {
                break;
            }
        }
    }
    w.blanks();
    match w.at == text.len() {
        true => Ok(()),
        false => Err(w.error("text after the object")),
    }
}

/// Appends the string that `escaped` (the text between the quotes) stands for. False if it has an
/// escape that does not exist; then a part may have been appended.
pub(super) fn unescape(escaped: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = escaped;
    while let Some(i) = memchr::memchr(b'\\', rest) {
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
    fn string(&mut self) -> Result<Range, JsonError> {
        let start = self.at;
        let mut escape = None;
        loop {
            self.at = special(self.text, self.at);
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    escape.get_or_insert(self.at - start);
                    self.at += 2;
                }
                _ if self.at >= self.text.len() => return Err(self.error("unclosed string")),
                _ => return Err(self.error("control character in a string")),
            }
        }
        let len = self.at - start;
        let range = Range {
            start: start as u32,
            len: len as u32,
            escape: escape.unwrap_or(len) as u32,
        };
        self.at += 1;
        if range.is_escaped() && !escapes_are_valid(&range.of(self.text)[range.escape as usize..]) {
            return Err(JsonError {
                what: "unknown escape in a string",
                at: start,
            });
        }
        Ok(range)
    }

    fn raw(&mut self, depth: usize) -> Result<Raw, JsonError> {
        self.blanks();
        Ok(match self.peek() {
            b'"' => {
                self.at += 1;
                Raw::Str(self.string()?)
            }
            b'{' => Raw::Nested(Value::Map(self.map(depth)?)),
            b'[' => Raw::Nested(Value::List(self.list(depth)?)),
            b't' => self.word(b"true", Raw::Bool(true))?,
            b'f' => self.word(b"false", Raw::Bool(false))?,
            b'n' => self.word(b"null", Raw::Null)?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return Err(self.error("expected a value")),
        })
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

    fn number(&mut self) -> Result<Raw, JsonError> {
        let start = self.at;
        self.at += usize::from(self.peek() == b'-');
        let leading_zero = self.peek() == b'0';
        let digits = self.digits()?;
        if leading_zero && digits > 1 {
            return Err(self.error("a number with a leading zero"));
        }
        let mut whole = true;
        if self.peek() == b'.' {
            whole = false;
            self.at += 1;
            self.digits()?;
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
        // Up to 15 digits a double holds every integer exactly.
        if whole
            && (self.parse_ints || digits <= 15)
            && let Ok(i) = text.parse::<i64>()
        {
            let negative_zero = i == 0 && text.starts_with('-');
            return Ok(match self.parse_ints {
                true => Raw::Int(i),
                false if negative_zero => Raw::Double(-0.0),
                false => Raw::Double(i as f64),
            });
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
        Ok(match self.raw(depth)? {
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

fn escapes_are_valid(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(i) = memchr::memchr(b'\\', rest) {
        let skip = match rest.get(i + 1) {
            Some(b'"' | b'\\' | b'/' | b'n' | b't' | b'r' | b'b' | b'f') => 2,
            Some(b'u') if hex4(&rest[i + 2..]).is_some() => 6,
            _ => return false,
        };
        rest = &rest[i + skip..];
    }
    true
}

/// The first quote, backslash or control character at or after `at`, or the end. Eight bytes at
/// a time: a byte is zero after xor with what is sought, and the borrow of a subtraction shows
/// bytes below a bound; the lowest hit of a word is exact.
#[inline]
fn special(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(word) = text.get(at..).and_then(|t| t.first_chunk::<8>()) {
        let w = u64::from_le_bytes(*word);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let quote = zero(w ^ (ONES * u64::from(b'"')));
        let backslash = zero(w ^ (ONES * u64::from(b'\\')));
        let control = w.wrapping_sub(ONES * 0x20) & !w;
        let hit = (quote | backslash | control) & HIGH;
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&b) = text.get(at) {
        if b == b'"' || b == b'\\' || b < 0x20 {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The object as a map, duplicates resolved as the operator does: the last wins.
    fn map(text: &[u8], parse_ints: bool) -> Result<Map, JsonError> {
        let mut fields = Vec::new();
        walk(text, parse_ints, &mut fields)?;
        let value = |raw: &Raw| match raw {
            Raw::Null => Value::Null,
            Raw::Bool(b) => Value::Bool(*b),
            Raw::Int(i) => Value::Int(*i),
            Raw::Double(d) => Value::Double(*d),
            Raw::Str(r) => Value::from(decoded(*r, text)),
            Raw::Nested(v) => v.clone(),
        };
        Ok(fields
            .iter()
            .map(|f| (decoded(f.key, text), value(&f.value)))
            .collect())
    }

    fn reference(v: &serde_json::Value) -> Value {
        match v {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Double(n.as_f64().expect("finite")),
            serde_json::Value::String(s) => Value::str(s),
            serde_json::Value::Array(a) => Value::List(a.iter().map(reference).collect()),
            serde_json::Value::Object(o) => {
                Value::Map(o.iter().map(|(k, v)| (k.as_str(), reference(v))).collect())
            }
        }
    }

    #[test]
    fn numbers_are_doubles_or_integers_as_asked() {
        let text = br#"{"a":1,"b":-0,"c":1.5e3,"d":9007199254740993,"e":99999999999999999999}"#;
        let doubles = map(text, false).expect("valid");
        assert_eq!(doubles.get("a"), Some(&Value::Double(1.0)));
        assert_eq!(
            doubles.get("d"),
            Some(&Value::Double(9_007_199_254_740_992.0))
        );
        let ints = map(text, true).expect("valid");
        assert_eq!(ints.get("a"), Some(&Value::Int(1)));
        assert_eq!(ints.get("c"), Some(&Value::Double(1500.0)));
        assert_eq!(ints.get("d"), Some(&Value::Int(9_007_199_254_740_993)));
        assert_eq!(ints.get("e"), Some(&Value::Double(1e20)));
    }

    #[test]
    fn the_last_of_several_equal_keys_wins_at_every_level() {
        let m = map(br#"{"a":1,"n":{"k":1,"k":2},"a":true}"#, true).expect("valid");
        assert_eq!(m.get("a"), Some(&Value::Bool(true)));
        let many: String = (0..200).map(|i| format!("\"k{}\":{i},", i % 100)).collect();
        let text = format!("{{\"n\":{{{}\"z\":0}}}}", many);
        let Some(Value::Map(n)) = map(text.as_bytes(), true).expect("valid").remove("n") else {
            panic!("a map");
        };
        assert_eq!((n.len(), n.get("k7")), (101, Some(&Value::Int(107))));
    }

    #[test]
    fn escapes_become_the_characters_they_stand_for() {
        let m = map(
            br#"{"a\u0062":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83dx"}"#,
            false,
        );
        let want = "\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1F600}\u{FFFD}x";
        assert_eq!(m.expect("valid").get("ab"), Some(&Value::str(want)));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in [
            "",
            " ",
            "x",
            "[]",
            "1",
            "null",
            "{",
            "{}x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":+1}",
            "{\"a\":\"x}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":tru}",
            "{\"a\":[1,]}",
            "{\"a\":{\"b\":1,}}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":1e999}",
            "{\"a\":\"\\",
            "{\"a\":1 \"b\":2}",
        ] {
            assert!(map(text.as_bytes(), false).is_err(), "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(
            map(deep.as_bytes(), false).expect_err("deep").what,
            "nested too deeply"
        );
    }

    fn document() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            (-1e6f64..1e6).prop_map(serde_json::Value::from),
            "\\PC{0,12}|[a-z\\\\\"\n\t\u{1}/]{0,20}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[a-c\\\\\"\u{e9}]{0,3}", inner, 0..4)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Every object serde_json writes is read as what it was.
        #[test]
        fn agrees_with_serde_json(
            fields in prop::collection::btree_map("\\PC{0,6}", document(), 0..8),
            pretty in any::<bool>(),
        ) {
            let object = serde_json::Value::Object(fields.into_iter().collect());
            let text = match pretty {
                true => serde_json::to_string_pretty(&object),
                false => serde_json::to_string(&object),
            }.expect("valid here");
            let got = map(text.as_bytes(), false);
            let got = got.map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
            prop_assert_eq!(Value::Map(got), reference(&object), "{}", text);
        }

        /// What serde_json refuses we refuse, but for half surrogate pairs; nothing panics.
        #[test]
        fn damaged_documents_are_refused_as_by_serde_json(
            fields in prop::collection::btree_map("[a-c]{0,3}", document(), 0..4),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let object = serde_json::Value::Object(fields.into_iter().collect());
            let mut text = serde_json::to_vec(&object).expect("valid here");
            let at = at.index(text.len());
            text[at] = byte;
            let theirs = serde_json::from_slice::<serde_json::Value>(&text).ok();
            let theirs_object = theirs.as_ref().is_some_and(|v| v.is_object());
            if std::str::from_utf8(&text).is_ok() {
                prop_assert_eq!(map(&text, false).is_ok(), theirs_object, "{:?}", text);
            }
        }
    }
}
