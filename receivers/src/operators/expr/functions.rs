//! The functions of expressions.

use std::borrow::Cow;

use tailwater_pdata::{Value, ValueRef};

use super::eval::{EvalError, Record, TEXT_BYTES_MAX, Val};
use super::{Pos, check::Type, lists};

/// A function that is called for each record. `env` is not here: it is answered when compiling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    Len,
    Upper,
    Lower,
    Trim,
    TrimPrefix,
    TrimSuffix,
    HasPrefix,
    HasSuffix,
    Split,
    Join,
    Replace,
    IndexOf,
    Int,
    Float,
    String,
    Type,
    Abs,
    Floor,
    Ceil,
    Round,
    First,
    Last,
    Keys,
    Values,
    LastIndexOf,
    Repeat,
    SplitAfter,
    Max,
    Min,
    Sum,
    Get,
    Take,
    /// Not called by a name: `value[from:to]`.
    Slice,
    Reverse,
    Uniq,
    Concat,
    ToJson,
    FromJson,
    ToBase64,
    FromBase64,
}

/// Name, function, least and most arguments, kind of the result.
const FUNCTIONS: &[(&str, Function, usize, usize, Type)] = &[
    ("len", Function::Len, 1, 1, Type::Int),
    ("upper", Function::Upper, 1, 1, Type::Str),
    ("lower", Function::Lower, 1, 1, Type::Str),
    ("trim", Function::Trim, 1, 2, Type::Str),
    ("trimPrefix", Function::TrimPrefix, 2, 2, Type::Str),
    ("trimSuffix", Function::TrimSuffix, 2, 2, Type::Str),
    ("hasPrefix", Function::HasPrefix, 2, 2, Type::Bool),
    ("hasSuffix", Function::HasSuffix, 2, 2, Type::Bool),
    ("split", Function::Split, 2, 3, Type::List),
    ("join", Function::Join, 1, 2, Type::Str),
    ("replace", Function::Replace, 3, 3, Type::Str),
    ("indexOf", Function::IndexOf, 2, 2, Type::Int),
    ("int", Function::Int, 1, 1, Type::Int),
    ("float", Function::Float, 1, 1, Type::Float),
    ("string", Function::String, 1, 1, Type::Str),
    ("type", Function::Type, 1, 1, Type::Str),
    ("abs", Function::Abs, 1, 1, Type::Any),
    ("floor", Function::Floor, 1, 1, Type::Float),
    ("ceil", Function::Ceil, 1, 1, Type::Float),
    ("round", Function::Round, 1, 1, Type::Float),
    ("first", Function::First, 1, 1, Type::Any),
    ("last", Function::Last, 1, 1, Type::Any),
    ("keys", Function::Keys, 1, 1, Type::List),
    ("values", Function::Values, 1, 1, Type::List),
    ("lastIndexOf", Function::LastIndexOf, 2, 2, Type::Int),
    ("repeat", Function::Repeat, 2, 2, Type::Str),
    ("splitAfter", Function::SplitAfter, 2, 3, Type::List),
    ("max", Function::Max, 1, ARGUMENTS_MAX, Type::Any),
    ("min", Function::Min, 1, ARGUMENTS_MAX, Type::Any),
    ("sum", Function::Sum, 1, 1, Type::Any),
    ("get", Function::Get, 2, 2, Type::Any),
    ("take", Function::Take, 2, 2, Type::List),
    (SLICE, Function::Slice, 3, 3, Type::Any),
    ("reverse", Function::Reverse, 1, 1, Type::List),
    ("uniq", Function::Uniq, 1, 1, Type::List),
    ("concat", Function::Concat, 1, ARGUMENTS_MAX, Type::List),
    ("toJSON", Function::ToJson, 1, 1, Type::Str),
    ("fromJSON", Function::FromJson, 1, 1, Type::Any),
    ("toBase64", Function::ToBase64, 1, 1, Type::Str),
    ("fromBase64", Function::FromBase64, 1, 1, Type::Str),
];

/// How a slice is written; no name can be so.
const SLICE: &str = "[:]";

/// Arguments of a function that takes any number of them.
const ARGUMENTS_MAX: usize = 64;

/// Elements of a list that are compared with each other.
pub(super) const UNIQ_MAX: usize = 4096;

/// The function `name` and how many arguments it takes.
pub(super) fn find(name: &str) -> Option<(Function, std::ops::RangeInclusive<usize>)> {
    let f = FUNCTIONS.iter().find(|f| f.0 == name)?;
    Some((f.1, f.2..=f.3))
}

/// All names, for error messages.
pub(super) fn names() -> String {
    let names = FUNCTIONS.iter().map(|f| f.0);
    let names: Vec<&str> = names.filter(|name| *name != SLICE).collect();
    format!("env, {}", names.join(", "))
}

impl Function {
    fn row(self) -> &'static (&'static str, Function, usize, usize, Type) {
        FUNCTIONS
            .iter()
            .find(|f| f.1 == self)
            .expect("the table has a row for every function")
    }

    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        self.row().0
    }

    /// What it gives.
    pub(super) fn result(self) -> Type {
        self.row().4
    }

    /// Calls it. The number of arguments was checked when compiling.
    pub(super) fn call<'a>(
        self,
        pos: Pos,
        args: Vec<Val<'a>>,
        record: Record<'a>,
    ) -> Result<Val<'a>, EvalError> {
        let call = Call {
            function: self,
            pos,
            args: &args,
            record,
        };
        match self.result() {
            Type::Str => call.text_result().map(Val::bytes),
            Type::Int | Type::Float => call.number_result(),
            _ => call.other_result(),
        }
    }
}

/// A function and what it is called with.
pub(super) struct Call<'c, 'a> {
    pub(super) function: Function,
    pos: Pos,
    pub(super) args: &'c [Val<'a>],
    pub(super) record: Record<'a>,
}

impl<'c, 'a> Call<'c, 'a> {
    pub(super) fn first(&self) -> &'c Val<'a> {
        self.args.first().unwrap_or(&Val::Nil)
    }

    pub(super) fn refused(&self, v: &Val<'_>) -> EvalError {
        EvalError::Argument {
            pos: self.pos,
            name: self.function.name(),
            kind: v.kind(),
        }
    }

    pub(super) fn bytes(&self, i: usize) -> Result<&'c [u8], EvalError> {
        match self.args.get(i) {
            Some(Val::Str(s)) => Ok(s),
            Some(v) => Err(self.refused(v)),
            None => Err(self.refused(&Val::Nil)),
        }
    }

    pub(super) fn text(&self, i: usize) -> Result<Cow<'c, str>, EvalError> {
        self.bytes(i).map(String::from_utf8_lossy)
    }

    pub(super) fn list(&self) -> Result<&'c [Value], EvalError> {
        match self.first() {
            Val::List(items) => Ok(items),
            v => Err(self.refused(v)),
        }
    }

    fn text_result(&self) -> Result<Vec<u8>, EvalError> {
        Ok(match self.function {
            Function::Upper => self.text(0)?.to_uppercase().into_bytes(),
            Function::Lower => self.text(0)?.to_lowercase().into_bytes(),
            Function::Trim if self.args.len() == 1 => self.text(0)?.trim().into(),
            Function::Trim => {
                let set: Vec<char> = self.text(1)?.chars().collect();
                self.text(0)?.trim_matches(&set[..]).into()
            }
            Function::TrimPrefix => {
                let (t, p) = (self.bytes(0)?, self.bytes(1)?);
                t.strip_prefix(p).unwrap_or(t).into()
            }
            Function::TrimSuffix => {
                let (t, s) = (self.bytes(0)?, self.bytes(1)?);
                t.strip_suffix(s).unwrap_or(t).into()
            }
            Function::Join => self.joined()?,
            Function::Replace => self.replaced()?,
            Function::Type => self.first().kind().into(),
            Function::Repeat | Function::ToJson | Function::ToBase64 | Function::FromBase64 => {
                return lists::text(self);
            }
            _ => to_text(self.first(), self.record).into_bytes(),
        })
    }

    fn joined(&self) -> Result<Vec<u8>, EvalError> {
        let separator = match self.args.len() {
            2 => self.text(1)?,
            _ => "".into(),
        };
        let items = self.list()?.iter().map(|v| v.as_ref().to_display_string());
        let items: Vec<String> = items.collect();
        let between = items
            .len()
            .saturating_sub(1)
            .saturating_mul(separator.len());
        let sum = items.iter().map(String::len).sum::<usize>();
        self.limited(sum.saturating_add(between))?;
        Ok(items.join(&separator).into_bytes())
    }

    fn replaced(&self) -> Result<Vec<u8>, EvalError> {
        let (text, from, to) = (self.text(0)?, self.text(1)?, self.text(2)?);
        if to.len() > from.len() {
            let more = to.len() - from.len();
            let found = text.matches(&*from).count();
            self.limited(text.len().saturating_add(found.saturating_mul(more)))?;
        }
        Ok(text.replace(&*from, &to).into_bytes())
    }

    /// Refuses a text of so many bytes before it is made.
    pub(super) fn limited(&self, bytes: usize) -> Result<(), EvalError> {
        let (pos, name) = (self.pos, self.function.name());
        match bytes > TEXT_BYTES_MAX {
            true => Err(EvalError::TooLong { pos, name }),
            false => Ok(()),
        }
    }

    fn number_result(&self) -> Result<Val<'a>, EvalError> {
        let first = self.first();
        let float = number(first);
        let result = match self.function {
            Function::Len => length(first, self.record).map(|n| Val::Int(n as i64)),
            Function::IndexOf => {
                let found = memchr::memmem::find(self.bytes(0)?, self.bytes(1)?);
                Some(Val::Int(found.map_or(-1, |i| i as i64)))
            }
            Function::LastIndexOf => {
                let found = memchr::memmem::rfind(self.bytes(0)?, self.bytes(1)?);
                Some(Val::Int(found.map_or(-1, |i| i as i64)))
            }
            Function::Int => to_int(first).map(Val::Int),
            Function::Float => to_float(first).map(Val::Float),
            Function::Floor => float.map(|f| Val::Float(f.floor())),
            Function::Ceil => float.map(|f| Val::Float(f.ceil())),
            _ => float.map(|f| Val::Float(f.round())),
        };
        result.ok_or_else(|| self.refused(first))
    }

    fn other_result(&self) -> Result<Val<'a>, EvalError> {
        let item = |v: Option<&Value>| v.map_or(Val::Nil, |v| Val::owned(v.clone()));
        Ok(match self.function {
            Function::HasPrefix => Val::Bool(self.bytes(0)?.starts_with(self.bytes(1)?)),
            Function::HasSuffix => Val::Bool(self.bytes(0)?.ends_with(self.bytes(1)?)),
            Function::First => item(self.list()?.first()),
            Function::Last => item(self.list()?.last()),
            Function::Keys => {
                let map = self.first().to_map(self.record);
                let map = map.ok_or_else(|| self.refused(self.first()))?;
                let keys = map.iter().map(|(k, _)| Value::Str(k.clone())).collect();
                Val::List(Cow::Owned(keys))
            }
            Function::Abs => match self.first() {
                Val::Int(i) => Val::Int(i.wrapping_abs()),
                Val::Float(f) => Val::Float(f.abs()),
                v => return Err(self.refused(v)),
            },
            _ => return lists::other(self),
        })
    }
}

fn length(v: &Val<'_>, record: Record<'_>) -> Option<usize> {
    Some(match v {
        Val::Str(s) => String::from_utf8_lossy(s).chars().count(),
        Val::List(l) => l.len(),
        v => v.to_map(record)?.len(),
    })
}

fn number(v: &Val<'_>) -> Option<f64> {
    match v {
        Val::Int(i) => Some(*i as f64),
        Val::Float(f) => Some(*f),
        _ => None,
    }
}

fn to_int(v: &Val<'_>) -> Option<i64> {
    match v {
        Val::Int(i) => Some(*i),
        Val::Float(f) => Some(*f as i64),
        Val::Str(s) => std::str::from_utf8(s).ok()?.parse().ok(),
        _ => None,
    }
}

fn to_float(v: &Val<'_>) -> Option<f64> {
    match v {
        Val::Str(s) => std::str::from_utf8(s).ok()?.parse().ok(),
        v => number(v),
    }
}

fn to_text(v: &Val<'_>, record: Record<'_>) -> String {
    match v {
        Val::Nil => "<nil>".to_owned(),
        Val::Str(s) => String::from_utf8_lossy(s).into_owned(),
        v => match v.to_value(record) {
            Value::Str(s) => s.to_string(),
            other => ValueRef::to_display_string(other.as_ref()),
        },
    }
}
