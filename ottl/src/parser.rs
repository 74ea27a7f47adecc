//! Tokens to statements. Each token is looked at a bounded number of times, and nesting is limited.

use crate::ast::{Arg, At, Call, Condition, Key, Math, Part, Path, Statement, Value};
use crate::error::Mistake;
use crate::lexer::{Token, lex};

/// Deepest nesting of parentheses, lists, maps, calls and keys.
pub const NESTING_MAX: usize = 64;

/// Reads a statement: an editor, and perhaps a condition.
pub(crate) fn statement(text: &str) -> Result<Statement, Mistake> {
    let tokens = lex(text)?;
    let mut p = Parser::new(&tokens);
    let at = p.at();
    let editor = match p.peek() {
        Token::Lower(name) => (*name).to_owned(),
        Token::Upper(name) => {
            let why = format!(
                "{name:?} is a converter; a statement begins with an editor, such as set(...)"
            );
            return Err(p.mistake(why));
        }
        other => return Err(expected(at, other, "an editor, such as set(...)")),
    };
    p.next();
    if !p.is_mark(b'(') {
        return Err(expected(
            p.at(),
            p.peek(),
            "\"(\" behind the name of the editor",
        ));
    }
    let args = p.arguments()?;
    let mut condition = None;
    if p.word("where") {
        condition = Some(p.condition()?);
    }
    p.end("where or the end of the statement")?;
    let call = Call { name: editor, args };
    Ok(Statement {
        editor: At { at, it: call },
        condition,
    })
}

/// Reads a condition alone.
pub(crate) fn condition(text: &str) -> Result<Condition, Mistake> {
    let tokens = lex(text)?;
    let mut p = Parser::new(&tokens);
    let condition = p.condition()?;
    p.end("and, or or the end of the condition")?;
    Ok(condition)
}

/// Reads a value alone.
#[cfg(test)]
pub(crate) fn value(text: &str) -> Result<At<Value>, Mistake> {
    let tokens = lex(text)?;
    let mut p = Parser::new(&tokens);
    let value = p.value()?;
    p.end("the end of the value")?;
    Ok(value)
}

fn expected(at: usize, found: &Token<'_>, wanted: &str) -> Mistake {
    Mistake::new(at, format!("found {}, expected {wanted}", found.describe()))
}

struct Parser<'p, 't> {
    tokens: &'p [(usize, Token<'t>)],
    next: usize,
    depth: usize,
}

impl<'p, 't> Parser<'p, 't> {
    fn new(tokens: &'p [(usize, Token<'t>)]) -> Parser<'p, 't> {
        Parser {
            tokens,
            next: 0,
            depth: 0,
        }
    }

    fn token(&self, ahead: usize) -> &'p (usize, Token<'t>) {
        // The last token is the end, which nothing goes past.
        &self.tokens[(self.next + ahead).min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> &'p Token<'t> {
        &self.token(0).1
    }

    fn at(&self) -> usize {
        self.token(0).0
    }

    fn next(&mut self) {
        self.next += 1;
    }

    fn is_mark(&self, mark: u8) -> bool {
        *self.peek() == Token::Mark(mark)
    }

    fn mark(&mut self, mark: u8) -> bool {
        let is = self.is_mark(mark);
        self.next += usize::from(is);
        is
    }

    fn word(&mut self, word: &str) -> bool {
        let is = matches!(self.peek(), Token::Lower(w) if *w == word);
        self.next += usize::from(is);
        is
    }

    fn mistake(&self, why: String) -> Mistake {
        Mistake::new(self.at(), why)
    }

    fn end(&self, wanted: &str) -> Result<(), Mistake> {
        match self.peek() {
            Token::End => Ok(()),
            other => Err(expected(self.at(), other, wanted)),
        }
    }

    fn close(&mut self, mark: u8, wanted: &str) -> Result<(), Mistake> {
        match self.mark(mark) {
            true => Ok(()),
            false => Err(expected(self.at(), self.peek(), wanted)),
        }
    }

    /// Goes one level deeper for `read`.
    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Mistake>,
    ) -> Result<T, Mistake> {
        if self.depth == NESTING_MAX {
            return Err(self.mistake(format!("nested more than {NESTING_MAX} levels deep")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn condition(&mut self) -> Result<Condition, Mistake> {
        self.nested(|p| {
            let mut any = vec![p.all()?];
            while p.word("or") {
                any.push(p.all()?);
            }
            Ok(match any.len() {
                1 => any.remove(0),
                _ => Condition::Or(any),
            })
        })
    }

    fn all(&mut self) -> Result<Condition, Mistake> {
        let mut all = vec![self.one()?];
        while self.word("and") {
            all.push(self.one()?);
        }
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Condition::And(all),
        })
    }

    fn one(&mut self) -> Result<Condition, Mistake> {
        if self.word("not") {
            let inner = self.nested(Self::one)?;
            return Ok(Condition::Not(Box::new(inner)));
        }
        if self.is_mark(b'(') && self.opens_condition() {
            self.next();
            let inner = self.condition()?;
            self.close(b')', "\")\"")?;
            return Ok(inner);
        }
        let left = self.value()?;
        if let Token::Compare(op) = self.peek() {
            self.next();
            let right = self.value()?;
            return Ok(Condition::Compare(left, *op, right));
        }
        match &left.it {
            Value::Bool(_) | Value::Call(..) => Ok(Condition::Is(left)),
            Value::Path(_) => Err(expected(
                self.at(),
                self.peek(),
                "a comparison: a path alone is no condition, write == true",
            )),
            _ => Err(expected(self.at(), self.peek(), "a comparison")),
        }
    }

    /// Whether the parenthesis here is around a condition; otherwise it is one of arithmetic. It is if
    /// a comparison or a word of conditions stands directly in it, or if what follows it compares nothing.
    fn opens_condition(&self) -> bool {
        let (mut depth, mut i) = (0usize, 0);
        loop {
            match &self.token(i).1 {
                Token::End => return true,
                Token::Mark(b'(' | b'[' | b'{') => depth += 1,
                Token::Mark(b')' | b']' | b'}') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break;
                    }
                }
                Token::Compare(_) | Token::Lower("and" | "or" | "not") => return true,
                _ => {}
            }
            i += 1;
        }
        let behind = &self.token(i + 1).1;
        !matches!(
            behind,
            Token::Compare(_) | Token::Mark(b'+' | b'-' | b'*' | b'/')
        )
    }

    fn value(&mut self) -> Result<At<Value>, Mistake> {
        let mut left = self.product()?;
        loop {
            let op = match self.peek() {
                Token::Mark(b'+') => Math::Add,
                Token::Mark(b'-') => Math::Sub,
                _ => return Ok(left),
            };
            self.next();
            let right = self.product()?;
            left = At {
                at: left.at,
                it: Value::Math(Box::new(left), op, Box::new(right)),
            };
            self.long(&left)?;
        }
    }

    fn product(&mut self) -> Result<At<Value>, Mistake> {
        let mut left = self.primary()?;
        loop {
            let op = match self.peek() {
                Token::Mark(b'*') => Math::Mul,
                Token::Mark(b'/') => Math::Div,
                _ => return Ok(left),
            };
            self.next();
            let right = self.primary()?;
            left = At {
                at: left.at,
                it: Value::Math(Box::new(left), op, Box::new(right)),
            };
            self.long(&left)?;
        }
    }

    /// A chain of operators nests to the left, so it is limited like all that is nested.
    fn long(&self, left: &At<Value>) -> Result<(), Mistake> {
        let (mut depth, mut value) = (0, left);
        while let Value::Math(left, ..) = &value.it {
            depth += 1;
            value = left;
        }
        match depth > NESTING_MAX {
            true => Err(self.mistake(format!("more than {NESTING_MAX} operators in a row"))),
            false => Ok(()),
        }
    }

    fn primary(&mut self) -> Result<At<Value>, Mistake> {
        let at = self.at();
        let token = self.peek();
        let it = match token {
            Token::Str(text) => {
                self.next();
                Value::Str(text.clone())
            }
            Token::Bytes(bytes) => {
                self.next();
                Value::Bytes(bytes.clone())
            }
            Token::Int(_) | Token::Float(_) => self.number(false)?,
            Token::Mark(sign @ (b'-' | b'+')) => {
                self.next();
                let negative = *sign == b'-';
                match self.peek() {
                    Token::Int(_) | Token::Float(_) => self.number(negative)?,
                    _ => {
                        let inner = self.nested(Self::primary)?;
                        match negative {
                            true => Value::Negative(Box::new(inner)),
                            false => inner.it,
                        }
                    }
                }
            }
            Token::Mark(b'(') => {
                self.next();
                let inner = self.nested(Self::value)?;
                self.close(b')', "\")\"")?;
                inner.it
            }
            Token::Mark(b'[') => self.nested(Self::list)?,
            Token::Mark(b'{') => self.nested(Self::map)?,
            Token::Lower("nil") => self.literal(Value::Nil),
            Token::Lower("true") => self.literal(Value::Bool(true)),
            Token::Lower("false") => self.literal(Value::Bool(false)),
            Token::Lower(word @ ("and" | "or" | "not" | "where")) => {
                return Err(Mistake::new(
                    at,
                    format!("found {word:?}, expected a value"),
                ));
            }
            Token::Lower(_) => self.path()?,
            Token::Upper(name) => {
                self.next();
                if self.is_mark(b'(') {
                    let args = self.arguments()?;
                    let keys = self.keys()?;
                    let name = (*name).to_owned();
                    Value::Call(Call { name, args }, keys)
                } else {
                    Value::Name((*name).to_owned())
                }
            }
            other => return Err(expected(at, other, "a value")),
        };
        Ok(At { at, it })
    }

    fn literal(&mut self, value: Value) -> Value {
        self.next();
        value
    }

    fn number(&mut self, negative: bool) -> Result<Value, Mistake> {
        let at = self.at();
        let sign = if negative { "-" } else { "" };
        let value = match self.peek() {
            Token::Int(digits) => format!("{sign}{digits}").parse().ok().map(Value::Int),
            Token::Float(digits) => format!("{sign}{digits}").parse().ok().map(Value::Float),
            _ => None,
        };
        self.next();
        value.ok_or_else(|| Mistake::new(at, "this number does not fit 64 bits"))
    }

    fn list(&mut self) -> Result<Value, Mistake> {
        self.next();
        let mut items = Vec::new();
        if self.mark(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value()?);
            if self.mark(b']') {
                return Ok(Value::List(items));
            }
            self.close(b',', "\",\" or \"]\"")?;
        }
    }

    fn map(&mut self) -> Result<Value, Mistake> {
        self.next();
        let mut entries = Vec::new();
        if self.mark(b'}') {
            return Ok(Value::Map(entries));
        }
        loop {
            let Token::Str(key) = self.peek() else {
                return Err(expected(self.at(), self.peek(), "a key: a string"));
            };
            self.next();
            self.close(b':', "\":\"")?;
            entries.push((key.clone(), self.value()?));
            if self.mark(b'}') {
                return Ok(Value::Map(entries));
            }
            self.close(b',', "\",\" or \"}\"")?;
            if self.mark(b'}') {
                return Ok(Value::Map(entries));
            }
        }
    }

    fn path(&mut self) -> Result<Value, Mistake> {
        let mut parts = Vec::new();
        loop {
            let at = self.at();
            let Token::Lower(name) = self.peek() else {
                return Err(expected(at, self.peek(), "a name behind the dot"));
            };
            self.next();
            if self.is_mark(b'(') {
                let why = format!(
                    "{name:?} is an editor or does not exist; only converters, which begin with a capital, are values"
                );
                return Err(Mistake::new(at, why));
            }
            let name = At {
                at,
                it: (*name).to_owned(),
            };
            let keys = self.keys()?;
            parts.push(Part { name, keys });
            if !self.mark(b'.') {
                return Ok(Value::Path(Path { parts }));
            }
        }
    }

    fn keys(&mut self) -> Result<Vec<Key>, Mistake> {
        let mut keys = Vec::new();
        while self.is_mark(b'[') {
            self.next();
            let value = self.nested(Self::value)?;
            self.close(b']', "\"]\"")?;
            let (at, value) = (value.at, value.it);
            keys.push(Key { at, value });
            if keys.len() > NESTING_MAX {
                return Err(Mistake::new(at, format!("more than {NESTING_MAX} keys")));
            }
        }
        Ok(keys)
    }

    fn arguments(&mut self) -> Result<Vec<Arg>, Mistake> {
        self.nested(|p| {
            p.next();
            let mut args: Vec<Arg> = Vec::new();
            if p.mark(b')') {
                return Ok(args);
            }
            loop {
                let at = p.at();
                let name = match (p.peek(), &p.token(1).1) {
                    (Token::Lower(name) | Token::Upper(name), Token::Mark(b'=')) => {
                        p.next += 2;
                        let it = (*name).to_owned();
                        Some(At { at, it })
                    }
                    _ => None,
                };
                if name.is_none() && args.iter().any(|a| a.name.is_some()) {
                    let why = "an argument without a name stands behind one with a name";
                    return Err(Mistake::new(at, why));
                }
                let value = p.value()?;
                args.push(Arg { name, value });
                if p.mark(b')') {
                    return Ok(args);
                }
                p.close(b',', "\",\" or \")\"")?;
            }
        })
    }
}
