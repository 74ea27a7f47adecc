//! Lists and maps.

use std::borrow::Cow;
use std::cmp::Ordering;

use tailwater_pdata::{Map, Value};

use crate::compare::is_equal;
use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::{Arg, Function, Takes, f, list, literal, map, opt, p, val};

const MAP: &[super::Param] = &[p("target", Takes::Value(Kind::Map))];

pub(super) const FUNCTIONS: &[Function] = &[
    f(
        "Coalesce",
        &[p("values", Takes::Values)],
        Kind::Any,
        coalesce,
    ),
    f(
        "ContainsValue",
        &[
            p("target", Takes::Value(Kind::List)),
            p("item", Takes::Value(Kind::Any)),
        ],
        Kind::Bool,
        contains,
    ),
    f("Keys", MAP, Kind::List, keys),
    f("Values", MAP, Kind::List, values),
    f(
        "SliceToMap",
        &[
            p("target", Takes::Value(Kind::List)),
            opt("key_path", Takes::Texts),
            opt("value_path", Takes::Texts),
        ],
        Kind::Map,
        slice_to_map,
    ),
    f(
        "Sort",
        &[
            p("target", Takes::Value(Kind::List)),
            opt("order", Takes::OneOf(&["asc", "desc"])),
        ],
        Kind::List,
        sort,
    ),
];

type Done<'a> = Result<Val<'a>, Fault>;

fn coalesce<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    if let Some(Arg::Values(values)) = args.first() {
        for value in values {
            let value = value.eval(cx)?;
            if !value.is_nil() {
                return Ok(value);
            }
        }
    }
    Ok(Val::Nil)
}

fn contains<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let list = list("ContainsValue", args, 0, cx)?;
    let wanted = val(args, 1, cx)?;
    Ok(Val::Bool(list.iter().any(|item| is_equal(item, &wanted))))
}

fn keys<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let map = map("Keys", args, 0, cx)?;
    let keys = map.iter().map(|(key, _)| Value::Str(key.clone()));
    Ok(Val::List(Cow::Owned(keys.collect())))
}

fn values<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let map = map("Values", args, 0, cx)?;
    let values = map.iter().map(|(_, value)| value.clone());
    Ok(Val::List(Cow::Owned(values.collect())))
}

fn at<'v>(item: &'v Value, path: &[Box<str>]) -> Option<&'v Value> {
    path.iter().try_fold(item, |value, key| match value {
        Value::Map(map) => map.get(key),
        _ => None,
    })
}

fn slice_to_map<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "SliceToMap";
    let list = list(PLACE, args, 0, cx)?;
    let path = |i: usize| match args.get(i) {
        Some(Arg::Texts(path)) => Some(&**path),
        _ => None,
    };
    let (key_path, value_path) = (path(1), path(2));
    let mut entries = Vec::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        let by_path = key_path.is_some() || value_path.is_some();
        if by_path && !matches!(item, Value::Map(_)) {
            return Err(Fault::failed(PLACE, "an item of the list is no map"));
        }
        let key = match key_path {
            None => i.to_string().into(),
            Some(path) => match at(item, path) {
                Some(Value::Str(key)) => key.clone(),
                _ => return Err(Fault::failed(PLACE, "an item has no text at key_path")),
            },
        };
        let value = match value_path {
            None => item,
            Some(path) => at(item, path)
                .ok_or_else(|| Fault::failed(PLACE, "an item has nothing at value_path"))?,
        };
        entries.push((key, value.clone()));
    }
    Ok(Val::Map(Cow::Owned(Map::from_entries(entries))))
}

fn sort<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "Sort";
    let mut list = list(PLACE, args, 0, cx)?.into_owned();
    let all = |is: fn(&Value) -> bool| list.iter().all(is);
    let number = |v: &Value| match v {
        Value::Int(i) => *i as f64,
        Value::Double(d) => *d,
        _ => 0.0,
    };
    let text = |v: &Value| v.as_ref().to_display_string();
    let scalar = |v: &Value| {
        matches!(
            v,
            Value::Null | Value::Int(_) | Value::Double(_) | Value::Str(_) | Value::Bool(_)
        )
    };
    if !all(scalar) {
        // There is no order of lists, maps and bytes.
        return Ok(Val::List(Cow::Owned(list)));
    }
    if all(|v| matches!(v, Value::Int(_))) {
        list.sort_by_key(|v| if let Value::Int(i) = v { *i } else { 0 });
    } else if all(|v| matches!(v, Value::Int(_) | Value::Double(_))) {
        list.sort_by(|a, b| number(a).partial_cmp(&number(b)).unwrap_or(Ordering::Equal));
    } else {
        list.sort_by_cached_key(text);
    }
    if literal(args, 1, "asc") == "desc" {
        list.reverse();
    }
    Ok(Val::List(Cow::Owned(list)))
}
