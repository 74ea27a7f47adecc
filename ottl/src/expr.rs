//! Compiled expressions: names are resolved, literals are values, functions are pointers. Evaluating
//! borrows from the record, and allocates only for what has to be computed.

use std::borrow::Cow;

use tailwater_pdata::{Key as Name, Map, Value};

use crate::ast::Math;
use crate::compare::{calculate, compare, negate};
use crate::error::Fault;
use crate::field::Field;
use crate::functions::{Arg, Run};
use crate::lexer::Comparison;
use crate::scene::Cx;
use crate::value::Val;

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Const(Val<'static>),
    Field(Field),
    Entry(Field, Name),
    Index(Box<Expr>, Vec<Key>),
    Call(Run, Box<[Arg]>),
    Math(Math, Box<(Expr, Expr)>),
    Negative(Box<Expr>),
    List(Box<[Expr]>),
    Map(Box<[(Name, Expr)]>),
}

#[derive(Clone, Debug)]
pub(crate) enum Key {
    Text(Name),
    Int(i64),
    Computed(Expr),
}

#[derive(Clone, Debug)]
pub(crate) enum Cond {
    Const(bool),
    Is(Expr),
    Compare(Comparison, Expr, Expr),
    Not(Box<Cond>),
    And(Box<[Cond]>),
    Or(Box<[Cond]>),
}

impl<'v> Val<'v> {
    /// The same, borrowed.
    pub(crate) fn reborrow(&self) -> Val<'_> {
        match self {
            Val::Nil => Val::Nil,
            Val::Bool(b) => Val::Bool(*b),
            Val::Int(i) => Val::Int(*i),
            Val::Double(d) => Val::Double(*d),
            Val::Str(s) => Val::Str(Cow::Borrowed(s)),
            Val::Bytes(b) => Val::Bytes(Cow::Borrowed(b)),
            Val::Time(t) => Val::Time(*t),
            Val::Duration(d) => Val::Duration(*d),
            Val::List(l) => Val::List(Cow::Borrowed(l)),
            Val::Map(m) => Val::Map(Cow::Borrowed(m)),
        }
    }

    /// The same, owned.
    pub(crate) fn into_static(self) -> Val<'static> {
        match self {
            Val::Nil => Val::Nil,
            Val::Bool(b) => Val::Bool(b),
            Val::Int(i) => Val::Int(i),
            Val::Double(d) => Val::Double(d),
            Val::Str(s) => Val::Str(Cow::Owned(s.into_owned())),
            Val::Bytes(b) => Val::Bytes(Cow::Owned(b.into_owned())),
            Val::Time(t) => Val::Time(t),
            Val::Duration(d) => Val::Duration(d),
            Val::List(l) => Val::List(Cow::Owned(l.into_owned())),
            Val::Map(m) => Val::Map(Cow::Owned(m.into_owned())),
        }
    }
}

impl Expr {
    pub fn eval<'a>(&'a self, cx: &Cx<'a>) -> Result<Val<'a>, Fault> {
        match self {
            Expr::Const(val) => Ok(val.reborrow()),
            Expr::Field(field) => Ok(cx.scene.get(*field)),
            Expr::Entry(field, key) => Ok(cx.scene.entry(*field, key)),
            Expr::Call(run, args) => run(args, cx),
            Expr::Index(inner, keys) => {
                let mut val = match (&**inner, keys.split_first()) {
                    // The entry of a map, without the map.
                    (Expr::Field(field), Some((Key::Computed(key), rest)))
                        if !rest.is_empty() || is_map(*field) =>
                    {
                        let key = key.eval(cx)?;
                        let found = by_key(cx, *field, &key)?;
                        return rest.iter().try_fold(found, |val, key| index(val, key, cx));
                    }
                    _ => inner.eval(cx)?,
                };
                for key in keys {
                    val = index(val, key, cx)?;
                }
                Ok(val)
            }
            Expr::Math(op, sides) => calculate(*op, sides.0.eval(cx)?, sides.1.eval(cx)?),
            Expr::Negative(inner) => negate(inner.eval(cx)?),
            Expr::List(items) => {
                let item = |e: &'a Expr| e.eval(cx)?.into_value("a list");
                let items: Result<Vec<Value>, Fault> = items.iter().map(item).collect();
                Ok(Val::List(Cow::Owned(items?)))
            }
            Expr::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    map.insert(key.clone(), value.eval(cx)?.into_value("a map")?);
                }
                Ok(Val::Map(Cow::Owned(map)))
            }
        }
    }

    /// The value, if it is the same for every record.
    pub fn constant(&self) -> Option<&Val<'static>> {
        match self {
            Expr::Const(val) => Some(val),
            _ => None,
        }
    }
}

/// Whether a field is always a map, so that its entries can be read one by one.
pub(crate) fn is_map(field: Field) -> bool {
    matches!(
        field,
        Field::Cache
            | Field::Attributes
            | Field::SpanAttributes
            | Field::ResourceAttributes
            | Field::ScopeAttributes
            | Field::MetricMetadata
    )
}

fn by_key<'a>(cx: &Cx<'a>, field: Field, key: &Val<'_>) -> Result<Val<'a>, Fault> {
    match key {
        Val::Str(key) if is_map(field) => Ok(cx.scene.entry(field, &String::from_utf8_lossy(key))),
        Val::Str(_) | Val::Int(_) => index_by(cx.scene.get(field), key),
        other => Err(Fault::Kind {
            place: "a key",
            wanted: "text or an integer",
            found: other.kind(),
        }),
    }
}

/// What `val` has at `key`; of nothing that is nothing.
pub(crate) fn index<'a>(val: Val<'a>, key: &Key, cx: &Cx<'_>) -> Result<Val<'a>, Fault> {
    match key {
        Key::Text(name) => at_name(val, name),
        Key::Int(i) => at_position(val, *i),
        Key::Computed(expr) => index_by(val, &expr.eval(cx)?),
    }
}

fn index_by<'a>(val: Val<'a>, key: &Val<'_>) -> Result<Val<'a>, Fault> {
    match key {
        Val::Str(name) => at_name(val, &String::from_utf8_lossy(name)),
        Val::Int(i) => at_position(val, *i),
        other => Err(Fault::Kind {
            place: "a key",
            wanted: "text or an integer",
            found: other.kind(),
        }),
    }
}

fn at_name<'a>(val: Val<'a>, name: &str) -> Result<Val<'a>, Fault> {
    match val {
        Val::Nil => Ok(Val::Nil),
        Val::Map(Cow::Borrowed(map)) => Ok(map.get(name).map_or(Val::Nil, |v| v.as_ref().into())),
        Val::Map(Cow::Owned(mut map)) => Ok(map.remove(name).map_or(Val::Nil, Val::from)),
        other => Err(Fault::Index {
            found: other.kind(),
            key: "key of text",
        }),
    }
}

fn at_position(val: Val<'_>, i: i64) -> Result<Val<'_>, Fault> {
    let beyond = || Fault::failed("a key", "the list has no such position");
    let position = |len: usize| {
        usize::try_from(i)
            .ok()
            .filter(|i| *i < len)
            .ok_or_else(beyond)
    };
    match val {
        Val::Nil => Ok(Val::Nil),
        Val::List(Cow::Borrowed(list)) => Ok(list[position(list.len())?].as_ref().into()),
        Val::List(Cow::Owned(mut list)) => {
            let i = position(list.len())?;
            Ok(list.swap_remove(i).into())
        }
        other => Err(Fault::Index {
            found: other.kind(),
            key: "position",
        }),
    }
}

impl Cond {
    pub fn holds(&self, cx: &Cx<'_>) -> Result<bool, Fault> {
        match self {
            Cond::Const(b) => Ok(*b),
            Cond::Is(expr) => match expr.eval(cx)? {
                Val::Bool(b) => Ok(b),
                other => Err(Fault::NoTruth(other.kind())),
            },
            Cond::Compare(op, a, b) => Ok(compare(*op, &a.eval(cx)?, &b.eval(cx)?)),
            Cond::Not(inner) => Ok(!inner.holds(cx)?),
            Cond::And(all) => {
                for cond in all {
                    if !cond.holds(cx)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Cond::Or(any) => {
                for cond in any {
                    if cond.holds(cx)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}
