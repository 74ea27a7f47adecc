//! Rows of values between delimiters, as Go's `encoding/csv` reads them (RFC 4180).
//!
//! The text is one row, also if it has line ends: the last value of a line goes on in the first one of
//! the next, as the collector puts them together.

/// How quotes are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quotes {
    /// As RFC 4180 says.
    Strict,
    /// A quote within a value is a plain character.
    Lazy,
    /// Every quote is a plain character, and so is a line end.
    Ignored,
}

/// Why a text is no row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CsvError {
    /// It is not written as one.
    #[error("{what} at byte {at}")]
    Format {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// It has more values than are allowed.
    #[error("more than {0} values")]
    TooMany(usize),
}

fn error(what: &'static str, at: usize) -> CsvError {
    CsvError::Format { what, at }
}

/// A value: a range of the text, or of what was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// It is a range of [`Values::copied`].
    pub copied: bool,
}

/// The values of one row, to use again.
#[derive(Clone, Debug)]
pub struct Values {
    /// In order.
    pub all: Vec<Value>,
    /// What does not stand in one piece in the text.
    pub copied: Vec<u8>,
    limit: usize,
}

impl Values {
    /// None yet, and never more than `limit`.
    pub fn with_limit(limit: usize) -> Values {
        Values {
            all: Vec::new(),
            copied: Vec::new(),
            limit,
        }
    }

    fn clear(&mut self) {
        self.all.clear();
        self.copied.clear();
    }

    fn begin(&mut self) -> Result<(), CsvError> {
        if self.all.len() >= self.limit {
            return Err(CsvError::TooMany(self.limit));
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
    ///
    /// # Errors
    /// There are too many.
    pub fn split(&mut self, text: &[u8], delimiter: &[u8]) -> Result<(), CsvError> {
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
    ///
    /// # Errors
    /// The text is no row, or has too many values.
    pub fn read(&mut self, text: &[u8], delimiter: &[u8], quotes: Quotes) -> Result<(), CsvError> {
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
    ) -> Result<Line, CsvError> {
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
    ) -> Result<(Line, Option<usize>), CsvError> {
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

    fn row(text: &str, delimiter: &str, quotes: Quotes) -> Result<Vec<String>, CsvError> {
        let mut values = Values::with_limit(64);
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
