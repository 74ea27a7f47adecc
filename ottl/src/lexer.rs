//! Text to tokens, in one pass.

use tailwater_golang::quote::unquote;

use crate::error::Mistake;

/// Longest statement in bytes.
pub const STATEMENT_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Token<'t> {
    /// Begins with a lower-case letter or `_`: part of a path, an editor, the name of an argument, a word.
    Lower(&'t str),
    /// Begins with an upper-case letter: a converter or an enum.
    Upper(&'t str),
    /// Digits.
    Int(&'t str),
    /// Digits and a dot, perhaps an exponent.
    Float(&'t str),
    Str(String),
    Bytes(Vec<u8>),
    /// One of `( ) [ ] { } , . : = + - * /`.
    Mark(u8),
    /// A comparison.
    Compare(Comparison),
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Token<'_> {
    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self {
            Token::Lower(text) | Token::Upper(text) | Token::Int(text) | Token::Float(text) => {
                shown(text)
            }
            Token::Str(text) => format!("the string {}", shown(text)),
            Token::Bytes(_) => "bytes".into(),
            Token::Mark(mark) => format!("\"{}\"", char::from(*mark)),
            Token::Compare(op) => format!("\"{}\"", op.text()),
            Token::End => "the end".into(),
        }
    }
}

/// Text in quotes, not too much of it.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl Comparison {
    pub fn text(self) -> &'static str {
        match self {
            Comparison::Eq => "==",
            Comparison::Ne => "!=",
            Comparison::Lt => "<",
            Comparison::Le => "<=",
            Comparison::Gt => ">",
            Comparison::Ge => ">=",
        }
    }
}

/// The tokens of `text` with the offset each begins at; the last one is [`Token::End`].
pub(crate) fn lex(text: &str) -> Result<Vec<(usize, Token<'_>)>, Mistake> {
    if text.len() > STATEMENT_BYTES_MAX {
        let why = format!("longer than {STATEMENT_BYTES_MAX} bytes");
        return Err(Mistake::new(0, why));
    }
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((at, token));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn blanks(&mut self) {
        let blanks = self.rest().iter().take_while(|b| b.is_ascii_whitespace());
        self.at += blanks.count();
    }

    /// The run of bytes from here that `is_part` says true to.
    fn run(&mut self, is_part: impl Fn(u8) -> bool) -> &'t str {
        let length = self.rest().iter().take_while(|b| is_part(**b)).count();
        let run = &self.text[self.at..self.at + length];
        self.at += length;
        run
    }

    fn token(&mut self) -> Result<Token<'t>, Mistake> {
        let rest = self.rest();
        let Some(&first) = rest.first() else {
            return Ok(Token::End);
        };
        let second = rest.get(1).copied().unwrap_or(0);
        match first {
            b'"' => self.string(),
            b'0' if second == b'x' => self.bytes(),
            b'0'..=b'9' => self.number(),
            b'.' if second.is_ascii_digit() => self.number(),
            b'a'..=b'z' | b'_' => Ok(Token::Lower(self.run(is_word))),
            b'A'..=b'Z' => Ok(Token::Upper(self.run(is_word))),
            b'=' | b'!' | b'<' | b'>' => self.comparison(first, second),
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b',' | b'.' | b':' | b'+' | b'-' | b'*'
            | b'/' => {
                self.at += 1;
                Ok(Token::Mark(first))
            }
            _ => {
                let found = self.text[self.at..].chars().next().unwrap_or_default();
                let why = match found {
                    '\'' => "strings stand between \" and \", not '".to_owned(),
                    '&' | '|' => format!("unexpected {found:?}; and, or and not are words"),
                    _ => format!("unexpected {found:?}"),
                };
                Err(Mistake::new(self.at, why))
            }
        }
    }

    fn comparison(&mut self, first: u8, second: u8) -> Result<Token<'t>, Mistake> {
        let (length, token) = match (first, second) {
            (b'=', b'=') => (2, Token::Compare(Comparison::Eq)),
            (b'!', b'=') => (2, Token::Compare(Comparison::Ne)),
            (b'<', b'=') => (2, Token::Compare(Comparison::Le)),
            (b'>', b'=') => (2, Token::Compare(Comparison::Ge)),
            (b'<', _) => (1, Token::Compare(Comparison::Lt)),
            (b'>', _) => (1, Token::Compare(Comparison::Gt)),
            (b'=', _) => (1, Token::Mark(b'=')),
            _ => return Err(Mistake::new(self.at, "unexpected \"!\"; write not")),
        };
        self.at += length;
        Ok(token)
    }

    fn string(&mut self) -> Result<Token<'t>, Mistake> {
        let start = self.at;
        let rest = self.rest();
        let mut i = 1;
        loop {
            match rest.get(i) {
                Some(b'\\') => i += 2,
                Some(b'"') => break,
                Some(_) => i += 1,
                None => return Err(Mistake::new(start, "this string has no end")),
            }
        }
        // A line break is written as such in the configuration; Go's literals have it escaped only.
        let quoted = &rest[..=i];
        self.at += i + 1;
        let mut out = Vec::new();
        let text = if quoted.contains(&b'\n') {
            let escaped = self.text[start..self.at].replace('\n', "\\n");
            unquote(escaped.as_bytes(), &mut out).map(|plain| match plain {
                true => escaped.as_bytes()[1..escaped.len() - 1].to_vec(),
                false => std::mem::take(&mut out),
            })
        } else {
            unquote(quoted, &mut out).map(|plain| match plain {
                true => quoted[1..i].to_vec(),
                false => std::mem::take(&mut out),
            })
        };
        match text.and_then(|text| String::from_utf8(text).ok()) {
            Some(text) => Ok(Token::Str(text)),
            None => Err(Mistake::new(
                start,
                "this string has an escape that does not exist; \\ is written \\\\, so \\d of a pattern is \\\\d",
            )),
        }
    }

    fn bytes(&mut self) -> Result<Token<'t>, Mistake> {
        let start = self.at;
        self.at += 2;
        let digits = self.run(is_word).as_bytes();
        let digit = |b: u8| {
            char::from(b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        bytes.map(Token::Bytes).ok_or_else(|| {
            Mistake::new(
                start,
                "bytes are 0x and an even number of hexadecimal digits",
            )
        })
    }

    fn number(&mut self) -> Result<Token<'t>, Mistake> {
        let start = self.at;
        self.run(|b| b.is_ascii_digit());
        let mut float = false;
        if self.rest().first() == Some(&b'.') {
            float = true;
            self.at += 1;
            self.run(|b| b.is_ascii_digit());
            if let [b'e' | b'E', b'+' | b'-', digit, ..] | [b'e' | b'E', digit, ..] = self.rest()
                && (digit.is_ascii_digit())
            {
                self.at += 2;
                self.run(|b| b.is_ascii_digit());
            }
        }
        if self.rest().first().copied().is_some_and(is_word) {
            return Err(Mistake::new(start, "a number ends in letters"));
        }
        let text = &self.text[start..self.at];
        Ok(match float {
            true => Token::Float(text),
            false => Token::Int(text),
        })
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
