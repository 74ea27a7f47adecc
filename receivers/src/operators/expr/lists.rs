//! Functions of lists and of encoded texts.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use tailwater_pdata::{Map, Value, ValueRef};

use super::eval::{EvalError, Val};
use super::functions::{Call, Function, UNIQ_MAX};

/// Functions that give text.
pub(super) fn text(call: &Call<'_, '_>) -> Result<Vec<u8>, EvalError> {
    Ok(match call.function {
        Function::Repeat => {
            let text = call.bytes(0)?;
            let times = match call.args.get(1) {
                Some(Val::Int(n)) => usize::try_from(*n).ok(),
                _ => None,
            };
            let times = times.ok_or_else(|| call.refused(call.args.get(1).unwrap_or(&Val::Nil)))?;
            call.limited(text.len().saturating_mul(times))?;
            text.repeat(times)
        }
        Function::ToBase64 => STANDARD.encode(call.bytes(0)?).into_bytes(),
        Function::FromBase64 => {
            let decoded = STANDARD.decode(call.bytes(0)?);
            decoded.map_err(|_| call.refused(call.first()))?
        }
        _ => {
            let json = json_of(call.first().to_value(call.record).as_ref());
            // Nothing in it can be refused.
            serde_json::to_string_pretty(&json)
                .unwrap_or_default()
                .into_bytes()
        }
    })
}

/// A part of a list, or of the bytes of a text. Ends beyond it are its own, and negative ones count from its end.
fn slice<'a>(call: &Call<'_, 'a>) -> Result<Val<'a>, EvalError> {
    let end = |i: usize, length: usize| match call.args.get(i) {
        Some(Val::Int(n)) => Ok(match usize::try_from(n.unsigned_abs()) {
            Ok(back) if *n < 0 => length.saturating_sub(back),
            Ok(at) => at.min(length),
            Err(_) if *n < 0 => 0,
            Err(_) => length,
        }),
        v => Err(call.refused(v.unwrap_or(&Val::Nil))),
    };
    let range = |length: usize| {
        let to = end(2, length)?;
        Ok(end(1, length)?.min(to)..to)
    };
    Ok(match call.first() {
        Val::Str(text) => Val::bytes(text[range(text.len())?].to_vec()),
        _ => {
            let items = call.list()?;
            Val::List(Cow::Owned(items[range(items.len())?].to_vec()))
        }
    })
}

/// Functions that give lists, or what the record has.
pub(super) fn other<'a>(call: &Call<'_, 'a>) -> Result<Val<'a>, EvalError> {
    let list = |items: Vec<Value>| Val::List(Cow::Owned(items));
    Ok(match call.function {
        Function::Split | Function::SplitAfter => list(split(call)?),
        Function::Values => {
            let map = call.first().to_map(call.record);
            let map = map.ok_or_else(|| call.refused(call.first()))?;
            list(map.iter().map(|(_, v)| v.clone()).collect())
        }
        Function::Take => {
            let items = call.list()?;
            let most = match call.args.get(1) {
                Some(Val::Int(n)) => usize::try_from(*n).unwrap_or(0),
                v => return Err(call.refused(v.unwrap_or(&Val::Nil))),
            };
            list(items.iter().take(most).cloned().collect())
        }
        Function::Slice => slice(call)?,
        Function::Reverse => list(call.list()?.iter().rev().cloned().collect()),
        Function::Uniq => {
            let items = call.list()?;
            call.limited(if items.len() > UNIQ_MAX {
                usize::MAX
            } else {
                0
            })?;
            let mut out: Vec<Value> = Vec::new();
            for item in items {
                if !out.contains(item) {
                    out.push(item.clone());
                }
            }
            list(out)
        }
        Function::Concat => {
            let mut out = Vec::new();
            for arg in call.args {
                match arg {
                    Val::List(items) => out.extend(items.iter().cloned()),
                    v => return Err(call.refused(v)),
                }
            }
            list(out)
        }
        Function::Get => get(call),
        Function::FromJson => {
            let json: Result<Json, _> = serde_json::from_slice(call.bytes(0)?);
            let json = json.map_err(|_| call.refused(call.first()))?;
            Val::owned(value_of(json))
        }
        _ => numbers(call)?,
    })
}

/// `split` and `splitAfter`, in up to a number of parts if one is given.
fn split(call: &Call<'_, '_>) -> Result<Vec<Value>, EvalError> {
    let (text, separator) = (call.text(0)?, call.text(1)?);
    let most = match call.args.get(2) {
        None => usize::MAX,
        // As in Go, a negative number is no limit.
        Some(Val::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
        Some(v) => return Err(call.refused(v)),
    };
    let after = call.function == Function::SplitAfter;
    let mut parts = Vec::new();
    let mut rest = &*text;
    while parts.len() + 1 < most && !(separator.is_empty() && rest.is_empty()) {
        let (end, next) = if separator.is_empty() {
            let first = rest.chars().next().map_or(0, char::len_utf8);
            (first, first)
        } else {
            match rest.find(&*separator) {
                Some(at) if after => (at + separator.len(), at + separator.len()),
                Some(at) => (at, at + separator.len()),
                None => break,
            }
        };
        parts.push(Value::str(&rest[..end]));
        rest = &rest[next..];
    }
    if most > 0 && !(separator.is_empty() && rest.is_empty()) {
        parts.push(Value::str(rest));
    }
    Ok(parts)
}

/// An element of a list or a value of a map; nil if there is none.
fn get<'a>(call: &Call<'_, 'a>) -> Val<'a> {
    let found = match (call.first(), call.args.get(1)) {
        (Val::List(items), Some(Val::Int(i))) => {
            let at = if *i < 0 { *i + items.len() as i64 } else { *i };
            let at = usize::try_from(at).ok();
            at.and_then(|at| items.get(at).cloned())
        }
        (map, Some(Val::Str(key))) => {
            let key = String::from_utf8_lossy(key);
            map.to_map(call.record).and_then(|mut m| m.remove(&key))
        }
        _ => None,
    };
    found.map_or(Val::Nil, Val::owned)
}

/// `max`, `min` and `sum` of numbers, alone or in lists.
fn numbers<'a>(call: &Call<'_, 'a>) -> Result<Val<'a>, EvalError> {
    let mut all = Vec::new();
    for arg in call.args {
        match arg {
            Val::Int(i) => all.push(Value::Int(*i)),
            Val::Float(f) => all.push(Value::Double(*f)),
            Val::List(items) => all.extend(items.iter().cloned()),
            v => return Err(call.refused(v)),
        }
    }
    let float = |v: &Value| match v {
        Value::Int(i) => Some(*i as f64),
        Value::Double(d) => Some(*d),
        _ => None,
    };
    let mut result: Option<Value> = None;
    for value in all {
        let new = float(&value).ok_or_else(|| call.refused(call.first()))?;
        let Some(before) = &result else {
            result = Some(value);
            continue;
        };
        let old = float(before).unwrap_or_default();
        result = match (call.function, before, &value) {
            (Function::Max, ..) if new > old => Some(value),
            (Function::Min, ..) if new < old => Some(value),
            (Function::Sum, Value::Int(a), Value::Int(b)) => Some(Value::Int(a.wrapping_add(*b))),
            (Function::Sum, ..) => Some(Value::Double(old + new)),
            _ => continue,
        };
    }
    Ok(match (result, call.function) {
        (Some(value), _) => Val::owned(value),
        (None, Function::Sum) => Val::Int(0),
        (None, _) => Val::Nil,
    })
}

fn json_of(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Bool(b) => Json::Bool(b),
        ValueRef::Int(i) => Json::from(i),
        ValueRef::Double(d) => Json::from(d),
        ValueRef::Str(s) => Json::from(String::from_utf8_lossy(s).into_owned()),
        ValueRef::Bytes(b) => Json::from(STANDARD.encode(b)),
        ValueRef::List(items) => items.iter().map(|v| json_of(v.as_ref())).collect(),
        ValueRef::Map(map) => {
            let mut entries: Vec<(String, Json)> = map
                .iter()
                .map(|(k, v)| (k.to_string(), json_of(v.as_ref())))
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(entries.into_iter().collect())
        }
    }
}

/// As in Go, every number is a double.
fn value_of(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(b),
        Json::Number(n) => Value::Double(n.as_f64().unwrap_or_default()),
        Json::String(s) => Value::from(s),
        Json::Array(items) => Value::List(items.into_iter().map(value_of).collect()),
        Json::Object(entries) => {
            let entries = entries.into_iter().map(|(k, v)| (k, value_of(v)));
            Value::Map(Map::from_unique(entries))
        }
    }
}
