//! Stream label strings: `{name="value", ...}` as LogQL writes them.
//!
//! Grammar from the observed behaviour of Loki's push endpoint: names are identifiers or quoted
//! strings, the only operator is `=`, values are quoted with `"`, `'` (Go escapes) or backticks
//! (raw). Label order does not matter; labels with an empty value do not exist.

use std::fmt;

/// Longest label string read; Loki's own limit.
const LABELS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a label string cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelError {
    /// Byte offset in the string, counted from 1 as the server prints it.
    pub column: usize,
    /// What is wrong there.
    pub text: String,
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1:{}: parse error: {}", self.column, self.text)
    }
}

impl std::error::Error for LabelError {}

/// The labels of one stream, sorted by name. Duplicates are kept for validation to find.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels {
    pairs: Vec<(String, String)>,
}

impl Labels {
    /// Parses a label string.
    ///
    /// # Errors
    /// Where and why the text is not one.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > LABELS_BYTES_MAX {
            return Err(parser.error("label string too long"));
        }
        let pairs = parser.pairs()?;
        Ok(Self::from_pairs(pairs))
    }

    /// Sorts the pairs and leaves out those with an empty value.
    pub fn from_pairs(mut pairs: Vec<(String, String)>) -> Self {
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.sort();
        Self { pairs }
    }

    /// The pairs, sorted by name.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A name that occurs twice.
    pub fn duplicate(&self) -> Option<&str> {
        let twice = self.pairs.windows(2).find(|pair| pair[0].0 == pair[1].0);
        twice.map(|pair| pair[0].0.as_str())
    }
}

/// The canonical form: sorted, `, ` between pairs, values in double quotes.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (n, (name, value)) in self.pairs.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            if is_identifier(name) {
                f.write_str(name)?;
            } else {
                write_quoted(f, name)?;
            }
            f.write_str("=")?;
            write_quoted(f, value)?;
        }
        f.write_str("}")
    }
}

/// Whether a name may stand unquoted, and may be selected in a query.
pub fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn write_quoted(f: &mut impl fmt::Write, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(f, "\\x{:02x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// Builds the text of a JSON push's label object. Names go in bare, as the server does it, so
/// that a bad name fails in the parser.
pub(super) fn bare_label_text(pairs: &[(String, String)]) -> String {
    let mut text = String::from("{");
    for (n, (name, value)) in pairs.iter().enumerate() {
        text.push_str(if n > 0 { ", " } else { "" });
        text.push_str(name);
        text.push('=');
        // Writing to a String cannot fail.
        let _ = write_quoted(&mut text, value);
    }
    text.push('}');
    text
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, text: impl Into<String>) -> LabelError {
        LabelError {
            column: self.at + 1,
            text: text.into(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip_blanks(&mut self) {
        while self
            .peek()
            .is_some_and(|c| matches!(c, ' ' | '\t' | '\n' | '\r'))
        {
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), LabelError> {
        self.skip_blanks();
        match self.peek() {
            Some(c) if c == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(c) => Err(self.error(format!("unexpected character inside braces: {c:?}"))),
            None => Err(self.error("unexpected end of input inside braces")),
        }
    }

    fn pairs(&mut self) -> Result<Vec<(String, String)>, LabelError> {
        let mut pairs = Vec::new();
        self.expect('{')?;
        loop {
            self.skip_blanks();
            if self.peek() == Some('}') {
                break;
            }
            let name = self.name()?;
            self.expect('=')?;
            self.skip_blanks();
            let value = self.string()?;
            pairs.push((name, value));
            self.skip_blanks();
            if self.peek() != Some(',') {
                break;
            }
            self.at += 1;
        }
        self.expect('}')?;
        self.skip_blanks();
        match self.peek() {
            None => Ok(pairs),
            Some(c) => Err(self.error(format!("unexpected {c:?} after labels"))),
        }
    }

    fn name(&mut self) -> Result<String, LabelError> {
        if self.peek().is_some_and(|c| matches!(c, '"' | '\'' | '`')) {
            return self.string();
        }
        let rest = &self.text[self.at..];
        let len = rest
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
            .count();
        if !is_identifier(&rest[..len]) {
            let found = self.peek();
            return Err(self.error(match found {
                Some(c) => format!("unexpected character inside braces: {c:?}"),
                None => "unexpected end of input inside braces".to_owned(),
            }));
        }
        self.at += len;
        Ok(rest[..len].to_owned())
    }

    fn string(&mut self) -> Result<String, LabelError> {
        let quote = match self.peek() {
            Some(c @ ('"' | '\'' | '`')) => c,
            _ => return Err(self.error("expected a quoted string")),
        };
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                None => return Err(self.error("unterminated quoted string")),
                Some(c) if c == quote => break,
                Some('\n') if quote != '`' => {
                    return Err(self.error("unterminated quoted string"));
                }
                Some('\\') if quote != '`' => self.escape(quote, &mut bytes)?,
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        // Escapes can spell any bytes.
        String::from_utf8(bytes).map_err(|_| self.error("string is not valid UTF-8"))
    }

    /// One escape sequence of a Go string literal, the backslash already read.
    fn escape(&mut self, quote: char, out: &mut Vec<u8>) -> Result<(), LabelError> {
        let simple = match self.next() {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 0x0b,
            Some('\\') => b'\\',
            Some(c) if c == quote => c as u8,
            Some('x') => self.digits(2, 16)? as u8,
            Some('u') => return self.character(4, out),
            Some('U') => return self.character(8, out),
            Some(c @ '0'..='7') => {
                self.at -= c.len_utf8();
                let value = self.digits(3, 8)?;
                u8::try_from(value).map_err(|_| self.error("octal escape above 255"))?
            }
            _ => return Err(self.error("unknown escape sequence")),
        };
        out.push(simple);
        Ok(())
    }

    fn character(&mut self, count: usize, out: &mut Vec<u8>) -> Result<(), LabelError> {
        let value = self.digits(count, 16)?;
        let c = char::from_u32(value).ok_or_else(|| self.error("escape is not a character"))?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn digits(&mut self, count: usize, radix: u32) -> Result<u32, LabelError> {
        let mut value = 0u32;
        for _ in 0..count {
            let digit = self.next().and_then(|c| c.to_digit(radix));
            let digit = digit.ok_or_else(|| self.error("malformed escape sequence"))?;
            // Eight hex digits are the longest and fill a u32 exactly.
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_strings_have_one_canonical_form() {
        for (text, expect) in [
            ("{}", "{}"),
            (r#"{a="1"}"#, r#"{a="1"}"#),
            (r#" { b = "2" , a="1", } "#, r#"{a="1", b="2"}"#),
            (r#"{a='x"y',b=`r\n`}"#, r#"{a="x\"y", b="r\\n"}"#),
            (
                r#"{a="\x41\u00e9\101\n\t\\\""}"#,
                "{a=\"A\u{e9}A\\n\\t\\\\\\\"\"}",
            ),
            (r#"{a="",b="1"}"#, r#"{b="1"}"#),
            (r#"{"a.b"="1", __x__="2"}"#, r#"{__x__="2", "a.b"="1"}"#),
            ("{a=`x\ny`}", r#"{a="x\ny"}"#),
        ] {
            let labels = Labels::parse(text).unwrap();
            assert_eq!(labels.to_string(), expect, "{text}");
            assert_eq!(Labels::parse(expect).unwrap(), labels, "{text}");
        }
    }

    #[test]
    fn what_loki_does_not_parse_is_refused_with_its_place() {
        for (text, column) in [
            ("", 1),
            ("a=\"1\"", 1),
            (r#"{a-b="1"}"#, 3),
            (r#"{a.b="1"}"#, 3),
            ("{a=b}", 4),
            (r#"{1a="1"}"#, 2),
            (r#"{a!="1"}"#, 3),
            (r#"{a=~"1"}"#, 4),
            (r#"{a="1""#, 7),
            (r#"{a="1"} x"#, 9),
            (r#"{a="1" b="2"}"#, 8),
            ("{a=\"x\ny\"}", 7),
            (r#"{a="\q"}"#, 7),
            (r#"{a="\xff"}"#, 10),
            (r#"{a="\ud800"}"#, 11),
            (r#"{a="\777"}"#, 9),
            (r#"{a="1"#, 6),
        ] {
            let error = Labels::parse(text).unwrap_err();
            assert_eq!(error.column, column, "{text}: {error}");
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_without_a_panic() {
        let mut rng = crate::rng::Rng::new(4);
        let alphabet: Vec<char> = "{}=\",'`\\x0u1a_ \n\u{e9}".chars().collect();
        for _ in 0..20_000 {
            let len = rng.below(16);
            let text: String = (0..len)
                .map(|_| alphabet[rng.below(alphabet.len() as u64) as usize])
                .collect();
            if let Ok(labels) = Labels::parse(&text) {
                assert_eq!(
                    Labels::parse(&labels.to_string()).unwrap(),
                    labels,
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn duplicates_and_values_are_found() {
        let labels = Labels::parse(r#"{a="1", b="2", a="3"}"#).unwrap();
        assert_eq!(labels.duplicate(), Some("a"));
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(Labels::parse(r#"{a="1"}"#).unwrap().duplicate(), None);
    }

    #[test]
    fn json_label_objects_fail_on_names_that_need_quotes() {
        let text = bare_label_text(&[("a".into(), "x\"y".into()), ("b".into(), "2".into())]);
        assert_eq!(
            Labels::parse(&text).unwrap().to_string(),
            r#"{a="x\"y", b="2"}"#
        );
        assert!(Labels::parse(&bare_label_text(&[("a-b".into(), "1".into())])).is_err());
    }
}
