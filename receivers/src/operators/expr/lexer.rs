//! Text to tokens.

use super::{ExprError, Pos};

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    /// A name, also `true`, `false`, `nil` and the word operators.
    Name(String),
    /// `$` and `$env`: the record itself.
    Dollar,
    /// A decoded string literal.
    Str(String),
    /// An integer literal.
    Int(i64),
    /// A literal with a fraction or an exponent.
    Float(f64),
    /// An operator or a bracket.
    Op(&'static str),
    /// The end of the text.
    End,
}

/// Operators, longest first so that the first match is the right one.
const OPS: &[&str] = &[
    "...", "&&", "||", "==", "!=", "<=", ">=", "??", "?.", "**", "..", "::", "?", ":", "!", "<",
    ">", "+", "-", "*", "/", "%", "^", "(", ")", "[", "]", "{", "}", ",", ".", "|", "#", ";", "=",
];

/// The tokens of `text` with the byte offset each begins at. Ends with [`Tok::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Tok, Pos)>, ExprError> {
    let mut out = Vec::new();
    let mut lexer = Lexer { text, at: 0 };
    loop {
        let (tok, pos) = lexer.next()?;
        let end = tok == Tok::End;
        out.push((tok, pos));
        if end {
            return Ok(out);
        }
    }
}

/// Length of the expression that `text` begins with, up to the parenthesis that closes it.
/// `None` if it is never closed.
pub(super) fn closing_parenthesis(text: &str) -> Result<Option<usize>, ExprError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut depth = 0usize;
    loop {
        match lexer.next()? {
            (Tok::End, _) => return Ok(None),
            (Tok::Op("("), _) => depth += 1,
            (Tok::Op(")"), pos) if depth == 0 => return Ok(Some(pos.0)),
            (Tok::Op(")"), _) => depth -= 1,
            _ => {}
        }
    }
}

/// True for what names are made of.
fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn next(&mut self) -> Result<(Tok, Pos), ExprError> {
        self.skip_blank()?;
        let pos = Pos(self.at);
        let Some(c) = self.rest().chars().next() else {
            return Ok((Tok::End, pos));
        };
        let tok = match c {
            '"' | '\'' => self.quoted(c)?,
            '`' => self.raw()?,
            '0'..='9' => self.number()?,
            '.' if self.rest()[1..].starts_with(|d: char| d.is_ascii_digit()) => self.number()?,
            '$' if !self.rest()[1..].starts_with(is_word) => {
                self.at += 1;
                Tok::Dollar
            }
            // A name may begin with a dollar: `$body` is one that nothing is called by.
            c if matches!(c, '_' | '$') || c.is_alphabetic() => {
                let rest = self.rest();
                let len = rest.find(|c: char| c != '$' && !is_word(c));
                let name = rest[..len.unwrap_or(rest.len())].to_owned();
                self.at += name.len();
                Tok::Name(name)
            }
            _ => {
                let op = OPS.iter().find(|op| self.rest().starts_with(**op));
                let op = op.ok_or_else(|| ExprError::new(pos, format!("unexpected {c:?}")))?;
                // `a ? .5 : 1` is a choice, not optional chaining.
                let digit_follows = self
                    .rest()
                    .as_bytes()
                    .get(2)
                    .is_some_and(u8::is_ascii_digit);
                let op = if *op == "?." && digit_follows {
                    &"?"
                } else {
                    op
                };
                self.at += op.len();
                Tok::Op(op)
            }
        };
        Ok((tok, pos))
    }

    fn skip_blank(&mut self) -> Result<(), ExprError> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            let (start, blank) = (self.at, rest.len() - trimmed.len());
            let comment = if trimmed.starts_with("//") {
                trimmed.find('\n').unwrap_or(trimmed.len())
            } else if let Some(body) = trimmed.strip_prefix("/*") {
                let end = body.find("*/").ok_or_else(|| {
                    ExprError::new(Pos(start + blank), "this comment is never closed")
                })?;
                end + 4
            } else {
                0
            };
            self.at += blank + comment;
            if comment == 0 {
                return Ok(());
            }
        }
    }

    fn raw(&mut self) -> Result<Tok, ExprError> {
        let body = &self.rest()[1..];
        let end = body
            .find('`')
            .ok_or_else(|| ExprError::new(Pos(self.at), "this string is never closed"))?;
        let text = body[..end].to_owned();
        self.at += end + 2;
        Ok(Tok::Str(text))
    }

    fn quoted(&mut self, quote: char) -> Result<Tok, ExprError> {
        let start = Pos(self.at);
        let mut out = String::new();
        self.at += 1;
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(ExprError::new(start, "this string is never closed"));
            };
            self.at += c.len_utf8();
            match c {
                c if c == quote => return Ok(Tok::Str(out)),
                '\\' => out.push(self.escape()?),
                '\n' => return Err(ExprError::new(start, "this string is never closed")),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ExprError> {
        let pos = Pos(self.at - 1);
        let bad = || ExprError::new(pos, "unknown escape; write \\\\ for a backslash");
        let c = self.rest().chars().next().ok_or_else(bad)?;
        self.at += c.len_utf8();
        let digits = match c {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'a' => return Ok('\x07'),
            'b' => return Ok('\x08'),
            'f' => return Ok('\x0c'),
            'v' => return Ok('\x0b'),
            '\\' | '"' | '\'' | '`' => return Ok(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(bad()),
        };
        let hex = self.rest().get(..digits).ok_or_else(bad)?;
        let code = u32::from_str_radix(hex, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(bad)?;
        self.at += digits;
        Ok(code)
    }

    fn number(&mut self) -> Result<Tok, ExprError> {
        let pos = Pos(self.at);
        let bytes = self.rest().as_bytes();
        let radix = match bytes {
            [b'0', b'x' | b'X', ..] => 16,
            [b'0', b'b' | b'B', ..] => 2,
            [b'0', b'o' | b'O', ..] => 8,
            _ => 10,
        };
        let mut end = if radix == 10 { 0 } else { 2 };
        let mut fraction = false;
        while let Some(&b) = bytes.get(end) {
            let range = bytes.get(end + 1) == Some(&b'.');
            match b {
                b'_' => {}
                b'0'..=b'9' => {}
                b'a'..=b'f' | b'A'..=b'F' if radix == 16 => {}
                b'.' if radix == 10 && !fraction && !range => fraction = true,
                b'e' | b'E' if radix == 10 => {
                    fraction = true;
                    if matches!(bytes.get(end + 1), Some(b'+' | b'-')) {
                        end += 1;
                    }
                }
                _ => break,
            }
            end += 1;
        }
        let digits = self.rest()[..end].replace('_', "");
        self.at += end;
        let bad = || ExprError::new(pos, format!("{digits} is not a number"));
        match (radix, fraction) {
            (10, true) => digits.parse().map(Tok::Float).map_err(|_| bad()),
            (10, false) => digits.parse().map(Tok::Int).map_err(|_| bad()),
            _ => i64::from_str_radix(&digits[2..], radix)
                .map(Tok::Int)
                .map_err(|_| bad()),
        }
    }
}
