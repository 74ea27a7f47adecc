//! Evaluation of a compiled expression on one record.

use std::borrow::Cow;
use std::cmp::Ordering;

use tailwater_pdata::{LogsBatch, Map, Value, ValueRef};

use super::Pos;
use super::ast::{Binary, Kind, Node, Pattern, Variable};
use tailwater_golang::regexp;

/// Most text that a function makes, in bytes: with texts of a record in more than one place, what
/// `replace` and `join` make grows with the product of their lengths.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 20;

/// Why an expression could not be evaluated on a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EvalError {
    /// An operator does not take values of these kinds.
    #[error("{pos}: {op} does not take {left} and {right}")]
    Operands {
        /// Where the operator is.
        pos: Pos,
        /// The operator.
        op: &'static str,
        /// Kind of the left value.
        left: &'static str,
        /// Kind of the right value.
        right: &'static str,
    },
    /// A function or an operator with one operand does not take a value of this kind.
    #[error("{pos}: {name} does not take {kind}")]
    Argument {
        /// Where it is called.
        pos: Pos,
        /// Its name.
        name: &'static str,
        /// Kind of the value.
        kind: &'static str,
    },
    /// Something was looked up in a value that has no members.
    #[error("{pos}: cannot look up {member} in {kind}; write ?. where it may be missing")]
    NoMembers {
        /// Where the lookup is.
        pos: Pos,
        /// What was looked up.
        member: String,
        /// Kind of the value.
        kind: &'static str,
    },
    /// A list has no such index.
    #[error("{pos}: the list has no index {index}")]
    NoIndex {
        /// Where the lookup is.
        pos: Pos,
        /// The index.
        index: i64,
    },
    /// A computed pattern of `matches` is not a regular expression.
    #[error("{pos}: not a regular expression")]
    Pattern {
        /// Where the pattern is.
        pos: Pos,
    },
    /// A division of integers by zero.
    #[error("{pos}: division by zero")]
    DivisionByZero {
        /// Where the operator is.
        pos: Pos,
    },
    /// A function would make more text than a value may have.
    #[error("{pos}: {name} would make more than {TEXT_BYTES_MAX} bytes")]
    TooLong {
        /// Where it is called.
        pos: Pos,
        /// Its name.
        name: &'static str,
    },
    /// The result has to be of another kind.
    #[error("the result is {kind}, it has to be {wanted}")]
    Result {
        /// Kind of the result.
        kind: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A `?.` met nil; never leaves the evaluation.
    #[error("{pos}: nil")]
    #[doc(hidden)]
    CutShort {
        /// Where the `?.` is.
        pos: Pos,
    },
}

/// The record an expression reads.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its batch.
    pub batch: &'a LogsBatch,
    /// Its row, below `batch.rows()`.
    pub row: usize,
}

/// A value while evaluating. Text of the record is borrowed, not copied.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// Nothing, also what an unknown name reads as.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text; UTF-8 unless the receiver keeps raw bytes.
    Str(Cow<'a, [u8]>),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// ns since the epoch.
    Time(i64),
    /// A list.
    List(Cow<'a, [Value]>),
    /// A map.
    Map(Cow<'a, Map>),
    /// The attributes of the record, not gathered into a map until they have to be.
    Attributes,
    /// The resource attributes of the record, likewise.
    Resource,
}

impl<'a> Val<'a> {
    pub(super) fn bytes(b: Vec<u8>) -> Val<'a> {
        Val::Str(Cow::Owned(b))
    }

    /// A value that outlives what it was read from.
    pub(super) fn owned(v: Value) -> Val<'a> {
        match v {
            Value::Str(s) => Val::Str(Cow::Owned(s.as_bytes().to_vec())),
            Value::Bytes(b) => Val::Str(Cow::Owned(b.to_vec())),
            Value::List(l) => Val::List(Cow::Owned(l)),
            Value::Map(m) => Val::Map(Cow::Owned(m)),
            Value::Null => Val::Nil,
            Value::Bool(b) => Val::Bool(b),
            Value::Int(i) => Val::Int(i),
            Value::Double(d) => Val::Float(d),
        }
    }

    fn borrowed(v: ValueRef<'a>) -> Val<'a> {
        match v {
            ValueRef::Null => Val::Nil,
            ValueRef::Bool(b) => Val::Bool(b),
            ValueRef::Int(i) => Val::Int(i),
            ValueRef::Double(d) => Val::Float(d),
            ValueRef::Str(s) => Val::Str(Cow::Borrowed(s)),
            ValueRef::Bytes(b) => Val::Bytes(b),
            ValueRef::List(l) => Val::List(Cow::Borrowed(l)),
            ValueRef::Map(m) => Val::Map(Cow::Borrowed(m)),
        }
    }

    /// Name of the kind, as the function `type` gives it.
    pub fn kind(&self) -> &'static str {
        match self {
            Val::Nil => "nil",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Float(_) => "float",
            Val::Str(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Time(_) => "time",
            Val::List(_) => "array",
            Val::Map(_) | Val::Attributes | Val::Resource => "map",
        }
    }

    /// The value in owned form; a time becomes its RFC 3339 text.
    pub fn to_value(&self, record: Record<'_>) -> Value {
        match self {
            Val::Nil => Value::Null,
            Val::Bool(b) => Value::Bool(*b),
            Val::Int(i) => Value::Int(*i),
            Val::Float(f) => Value::Double(*f),
            Val::Str(s) => ValueRef::Str(s).to_value(),
            Val::Bytes(b) => ValueRef::Bytes(b).to_value(),
            Val::Time(ns) => {
                let time = jiff::Timestamp::from_nanosecond(i128::from(*ns));
                time.map_or(Value::Int(*ns), |t| Value::from(t.to_string()))
            }
            Val::List(l) => Value::List(l.to_vec()),
            Val::Map(m) => Value::Map(m.clone().into_owned()),
            Val::Attributes => Value::Map(record.batch.attributes_of(record.row)),
            Val::Resource => Value::Map(record.batch.resource_of(record.row)),
        }
    }

    pub(super) fn to_map(&self, record: Record<'_>) -> Option<Map> {
        match self.to_value(record) {
            Value::Map(m) => Some(m),
            _ => None,
        }
    }
}

/// Evaluates `node`.
pub(super) fn eval<'a>(node: &'a Node, record: Record<'a>) -> Result<Val<'a>, EvalError> {
    let pos = node.pos;
    Ok(match &node.kind {
        Kind::Literal(v) => Val::borrowed(v.as_ref()),
        Kind::Variable(v) => variable(*v, record),
        Kind::Not(n) => Val::Bool(!truth(n, record, "not")?),
        Kind::Negate(n) => match eval(n, record)? {
            Val::Int(i) => Val::Int(i.wrapping_neg()),
            Val::Float(f) => Val::Float(-f),
            v => {
                return Err(EvalError::Argument {
                    pos,
                    name: "-",
                    kind: v.kind(),
                });
            }
        },
        Kind::And(a, b) => Val::Bool(truth(a, record, "and")? && truth(b, record, "and")?),
        Kind::Or(a, b) => Val::Bool(truth(a, record, "or")? || truth(b, record, "or")?),
        Kind::Coalesce(a, b) => match eval(a, record) {
            Ok(Val::Nil) => eval(b, record)?,
            other => other?,
        },
        Kind::Binary(op, a, b) => binary(*op, pos, eval(a, record)?, eval(b, record)?, record)?,
        Kind::Matches(text, pattern) => Val::Bool(matches(text, pattern, pos, record)?),
        Kind::Member(of, name, optional) => {
            let of = guard(eval(of, record)?, *optional, pos)?;
            member(of, name, pos, record)?
        }
        Kind::Index(of, index, optional) => {
            let of = guard(eval(of, record)?, *optional, pos)?;
            index_of(of, eval(index, record)?, pos, record)?
        }
        Kind::Chain(n) => match eval(n, record) {
            Err(EvalError::CutShort { .. }) => Val::Nil,
            other => other?,
        },
        Kind::Between(parts) => Val::Bool(between(parts, pos, record)?),
        Kind::Range(..) | Kind::Choice(..) | Kind::List(_) | Kind::Map(_) | Kind::Call(..) => {
            return compound(node, record);
        }
    })
}

/// [`eval`] of choices, lists, maps and calls.
fn compound<'a>(node: &'a Node, record: Record<'a>) -> Result<Val<'a>, EvalError> {
    Ok(match &node.kind {
        Kind::Choice(condition, Some(then), otherwise) => {
            let branch = if truth(condition, record, "?")? {
                then
            } else {
                otherwise
            };
            eval(branch, record)?
        }
        Kind::Choice(condition, None, otherwise) => match truth(condition, record, "?:")? {
            true => Val::Bool(true),
            false => eval(otherwise, record)?,
        },
        Kind::List(items) => {
            let item = |n: &'a Node| Ok(eval(n, record)?.to_value(record));
            Val::List(Cow::Owned(
                items.iter().map(item).collect::<Result<_, EvalError>>()?,
            ))
        }
        Kind::Map(entries) => {
            let mut map = Map::new();
            for (k, v) in entries {
                let key = eval(k, record)?
                    .to_value(record)
                    .as_ref()
                    .to_display_string();
                map.insert(key, eval(v, record)?.to_value(record));
            }
            Val::Map(Cow::Owned(map))
        }
        Kind::Call(function, args) => {
            let args: Result<Vec<_>, _> = args.iter().map(|a| eval(a, record)).collect();
            function.call(node.pos, args?, record)?
        }
        // eval() gives it no others.
        _ => Val::Nil,
    })
}

/// `value in least..most`. What is no whole number is in no range.
fn between(parts: &[Node; 3], pos: Pos, record: Record<'_>) -> Result<bool, EvalError> {
    let [value, least, most] = parts;
    let end = |n| match eval(n, record)? {
        Val::Int(i) => Ok(i),
        v => Err(EvalError::Argument {
            pos,
            name: "..",
            kind: v.kind(),
        }),
    };
    let (least, most) = (end(least)?, end(most)?);
    Ok(match eval(value, record)? {
        Val::Int(i) => (least..=most).contains(&i),
        Val::Float(f) => f.fract() == 0.0 && least as f64 <= f && f <= most as f64,
        _ => false,
    })
}

fn guard(of: Val<'_>, optional: bool, pos: Pos) -> Result<Val<'_>, EvalError> {
    match (&of, optional) {
        (Val::Nil, true) => Err(EvalError::CutShort { pos }),
        _ => Ok(of),
    }
}

fn variable(v: Variable, Record { batch, row }: Record<'_>) -> Val<'_> {
    match v {
        Variable::Body => batch.body(row).map_or(Val::Nil, Val::borrowed),
        Variable::Attributes => Val::Attributes,
        Variable::Resource => Val::Resource,
        Variable::Timestamp => Val::Time(batch.time.get(row)),
        Variable::SeverityText => batch
            .severity_text(row)
            .map_or(Val::Str(Cow::Borrowed(b"")), Val::borrowed),
        Variable::SeverityNumber => Val::Int(i64::from(batch.severity.get(row))),
    }
}

fn truth(n: &Node, record: Record<'_>, name: &'static str) -> Result<bool, EvalError> {
    match eval(n, record)? {
        Val::Bool(b) => Ok(b),
        v => Err(EvalError::Argument {
            pos: n.pos,
            name,
            kind: v.kind(),
        }),
    }
}

fn matches(
    text: &Node,
    pattern: &Pattern,
    pos: Pos,
    record: Record<'_>,
) -> Result<bool, EvalError> {
    let text = match eval(text, record)? {
        Val::Str(s) => s,
        Val::Nil => return Ok(false),
        v => {
            let (left, right) = (v.kind(), "string");
            return Err(EvalError::Operands {
                pos,
                op: "matches",
                left,
                right,
            });
        }
    };
    match pattern {
        Pattern::Prefix(prefix) => Ok(text.starts_with(prefix)),
        Pattern::Anywhere(part) => Ok(memchr::memmem::find(&text, part).is_some()),
        Pattern::Fixed(re) => Ok(re.is_match(&text)),
        Pattern::Computed(n) => match eval(n, record)? {
            Val::Str(p) => {
                let re = std::str::from_utf8(&p)
                    .ok()
                    .and_then(|p| regexp::compile(p).ok());
                re.map(|re| re.is_match(&text))
                    .ok_or(EvalError::Pattern { pos: n.pos })
            }
            Val::Nil => Ok(false),
            v => {
                let (left, right) = ("string", v.kind());
                Err(EvalError::Operands {
                    pos,
                    op: "matches",
                    left,
                    right,
                })
            }
        },
    }
}

fn member<'a>(
    of: Val<'a>,
    name: &str,
    pos: Pos,
    Record { batch, row }: Record<'a>,
) -> Result<Val<'a>, EvalError> {
    let found = match of {
        Val::Attributes => batch.attribute(row, name).map(Val::borrowed),
        Val::Resource => batch.resource_attribute(row, name).map(Val::borrowed),
        Val::Map(Cow::Borrowed(m)) => m.get(name).map(|v| Val::borrowed(v.as_ref())),
        Val::Map(Cow::Owned(mut m)) => m.remove(name).map(Val::owned),
        v => {
            let member = format!("{name:?}");
            return Err(EvalError::NoMembers {
                pos,
                member,
                kind: v.kind(),
            });
        }
    };
    Ok(found.unwrap_or(Val::Nil))
}

fn index_of<'a>(
    of: Val<'a>,
    index: Val<'a>,
    pos: Pos,
    record: Record<'a>,
) -> Result<Val<'a>, EvalError> {
    match (of, index) {
        (Val::List(items), Val::Int(index)) => {
            let at = if index < 0 {
                index + items.len() as i64
            } else {
                index
            };
            let at = usize::try_from(at).ok().filter(|&i| i < items.len());
            let at = at.ok_or(EvalError::NoIndex { pos, index })?;
            Ok(match items {
                Cow::Borrowed(l) => Val::borrowed(l[at].as_ref()),
                Cow::Owned(mut l) => Val::owned(l.swap_remove(at)),
            })
        }
        (of, Val::Str(name)) => member(of, &String::from_utf8_lossy(&name), pos, record),
        (of, index) => {
            let member = format!("a key of kind {}", index.kind());
            Err(EvalError::NoMembers {
                pos,
                member,
                kind: of.kind(),
            })
        }
    }
}

/// Equality across the kinds of numbers; everything else is equal within its kind only.
fn equal(a: &Val<'_>, b: &Val<'_>, record: Record<'_>) -> bool {
    match (a, b) {
        (Val::Nil, Val::Nil) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Int(a), Val::Int(b)) => a == b,
        (Val::Float(a), Val::Float(b)) => a == b,
        (Val::Int(i), Val::Float(f)) | (Val::Float(f), Val::Int(i)) => *i as f64 == *f,
        (Val::Str(a), Val::Str(b)) => a == b,
        (Val::Bytes(a), Val::Bytes(b)) => a == b,
        (Val::Time(a), Val::Time(b)) => a == b,
        (Val::List(a), Val::List(b)) => a == b,
        _ => match (a.to_map(record), b.to_map(record)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}

fn compare(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) | (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
        (Val::Str(a), Val::Str(b)) => Some(a.cmp(b)),
        // NaN compares as neither less nor greater; Equal with itself would be wrong as well, so
        // callers of a comparison with NaN get the kind error.
        (Val::Int(a), Val::Float(b)) => (*a as f64).partial_cmp(b),
        (Val::Float(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Val::Float(a), Val::Float(b)) => a.partial_cmp(b),
        _ => None,
    }
}

/// Whether `a` is an element of the list or a key of the map `b`; `None` if that cannot be asked.
fn is_in(a: &Val<'_>, b: &Val<'_>, record: Record<'_>) -> Option<bool> {
    Some(match (a, b) {
        (_, Val::Nil) => false,
        (a, Val::List(l)) => l
            .iter()
            .any(|v| equal(a, &Val::borrowed(v.as_ref()), record)),
        (Val::Str(k), map @ (Val::Map(_) | Val::Attributes | Val::Resource)) => {
            let key = String::from_utf8_lossy(k);
            match map {
                Val::Map(m) => m.get(&key).is_some(),
                Val::Attributes => record.batch.attribute(record.row, &key).is_some(),
                _ => record.batch.resource_attribute(record.row, &key).is_some(),
            }
        }
        (Val::Nil, Val::Map(_) | Val::Attributes | Val::Resource) => false,
        _ => return None,
    })
}

fn binary<'a>(
    op: Binary,
    pos: Pos,
    a: Val<'a>,
    b: Val<'a>,
    record: Record<'a>,
) -> Result<Val<'a>, EvalError> {
    let fail = |a: &Val<'_>, b: &Val<'_>| {
        let (left, right) = (a.kind(), b.kind());
        Err(EvalError::Operands {
            pos,
            op: op.text(),
            left,
            right,
        })
    };
    Ok(match op {
        Binary::Eq => Val::Bool(equal(&a, &b, record)),
        Binary::Ne => Val::Bool(!equal(&a, &b, record)),
        Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge => {
            let Some(order) = compare(&a, &b) else {
                return fail(&a, &b);
            };
            Val::Bool(match op {
                Binary::Lt => order.is_lt(),
                Binary::Le => order.is_le(),
                Binary::Gt => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        Binary::Add => match (a, b) {
            (Val::Str(a), Val::Str(b)) => Val::Str(Cow::Owned([&*a, &*b].concat())),
            (a, b) => return arithmetic(op, pos, &a, &b).unwrap_or_else(|| fail(&a, &b)),
        },
        Binary::Sub | Binary::Mul | Binary::Div | Binary::Rem | Binary::Pow => {
            return arithmetic(op, pos, &a, &b).unwrap_or_else(|| fail(&a, &b));
        }
        Binary::In => match is_in(&a, &b, record) {
            Some(found) => Val::Bool(found),
            None => return fail(&a, &b),
        },
        Binary::Contains | Binary::StartsWith | Binary::EndsWith => match (&a, &b) {
            (Val::Nil, _) | (_, Val::Nil) => Val::Bool(false),
            (Val::Str(a), Val::Str(b)) => Val::Bool(match op {
                Binary::Contains => memchr::memmem::find(a, b).is_some(),
                Binary::StartsWith => a.starts_with(b),
                _ => a.ends_with(b),
            }),
            (a, b) => return fail(a, b),
        },
    })
}

/// Arithmetic on numbers; `None` if one is not a number. Integers wrap around as in Go.
fn arithmetic<'a>(
    op: Binary,
    pos: Pos,
    a: &Val<'_>,
    b: &Val<'_>,
) -> Option<Result<Val<'a>, EvalError>> {
    let ints = match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some((*a, *b)),
        _ => None,
    };
    let float = |v: &Val<'_>| match v {
        Val::Int(i) => Some(*i as f64),
        Val::Float(f) => Some(*f),
        _ => None,
    };
    let (x, y) = (float(a)?, float(b)?);
    Some(Ok(match (op, ints) {
        (Binary::Add, Some((a, b))) => Val::Int(a.wrapping_add(b)),
        (Binary::Sub, Some((a, b))) => Val::Int(a.wrapping_sub(b)),
        (Binary::Mul, Some((a, b))) => Val::Int(a.wrapping_mul(b)),
        (Binary::Rem, Some((_, 0))) => return Some(Err(EvalError::DivisionByZero { pos })),
        (Binary::Rem, Some((a, b))) => Val::Int(a.wrapping_rem(b)),
        (Binary::Rem, None) => return None,
        (Binary::Add, None) => Val::Float(x + y),
        (Binary::Sub, None) => Val::Float(x - y),
        (Binary::Mul, None) => Val::Float(x * y),
        // A quotient is never an integer in this language, not even of two integers.
        (Binary::Div, _) => Val::Float(x / y),
        (Binary::Pow, _) => Val::Float(x.powf(y)),
        _ => return None,
    }))
}
