//! Editors of maps and lists.

use std::collections::{HashMap, HashSet};

use tailwater_pdata::{Key as Name, Map, Value};

use crate::compile::Target;
use crate::error::Fault;
use crate::expr::{Expr, is_map};
use crate::field::Field;
use crate::scene::{Cx, SceneMut};
use crate::value::{Stored, Val};

use super::write::{read, with_map, write};
use super::{Merge, evaluated};

fn text_of(
    place: &'static str,
    expr: &Expr,
    scene: &dyn SceneMut,
    now_ns: i64,
) -> Result<String, Fault> {
    let cx = Cx { scene, now_ns };
    match expr.eval(&cx)? {
        Val::Str(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        other => Err(Fault::Kind {
            place,
            wanted: "text",
            found: other.kind(),
        }),
    }
}

pub(super) fn delete_key(
    target: &Target,
    key: &Expr,
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    // The name of most keys is written in the statement.
    let made;
    let key = match key.constant() {
        Some(Val::Str(text)) => match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => return Ok(()),
        },
        _ => {
            made = text_of("delete_key", key, scene, now_ns)?;
            &made
        }
    };
    if target.keys.is_empty() && is_map(target.field) {
        scene.remove_entry(target.field, key);
        return Ok(());
    }
    with_map(target, scene, now_ns, &mut |map| {
        map.remove(key);
        Ok(())
    })
}

/// Keeps the entries whose keys `keep` says true to.
pub(super) fn retain(
    target: &Target,
    scene: &mut dyn SceneMut,
    now_ns: i64,
    keep: &mut dyn FnMut(&str) -> bool,
) -> Result<(), Fault> {
    if target.keys.is_empty() && is_map(target.field) {
        scene.retain(target.field, keep);
        return Ok(());
    }
    with_map(target, scene, now_ns, &mut |map| {
        map.retain(|key, _| keep(key));
        Ok(())
    })
}

pub(super) fn keep_keys(
    target: &Target,
    keys: &[Expr],
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    let literal = |e: &Expr| match e.constant() {
        Some(Val::Str(text)) => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    };
    let mut names = Vec::with_capacity(keys.len());
    for key in keys {
        names.push(match literal(key) {
            Some(name) => name,
            None => text_of("keep_keys", key, scene, now_ns)?,
        });
    }
    retain(target, scene, now_ns, &mut |key| {
        names.iter().any(|n| n == key)
    })
}

/// Drops entries from the end until no more than `limit` are left; those with priority stay.
pub(super) fn limit(map: &mut Map, limit: usize, priority: &[Box<str>]) {
    if map.len() <= limit {
        return;
    }
    let first = |key: &str| priority.iter().any(|p| **p == *key);
    let there = map.iter().filter(|(key, _)| first(key)).count();
    let mut others = limit.saturating_sub(there);
    map.retain(|key, _| {
        if first(key) {
            return true;
        }
        let keep = others > 0;
        others = others.saturating_sub(1);
        keep
    });
}

pub(super) fn merge(
    target: &Target,
    source: &Expr,
    strategy: Merge,
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    let source = match evaluated(source, scene, now_ns)? {
        Val::Map(map) => map.into_owned(),
        other => {
            return Err(Fault::Kind {
                place: "merge_maps",
                wanted: "a map",
                found: other.kind(),
            });
        }
    };
    // Columns are changed one by one; what is one map is made anew, in linear time.
    if target.keys.is_empty() && target.field == Field::Attributes && scene.has_columns() {
        for (key, value) in source.iter() {
            let wanted = match strategy {
                Merge::Upsert => true,
                Merge::Insert => scene.entry(target.field, key).is_nil(),
                Merge::Update => !scene.entry(target.field, key).is_nil(),
            };
            if wanted {
                scene.set_entry(target.field, key, Stored::Value(value.clone()))?;
            }
        }
        return Ok(());
    }
    with_map(target, scene, now_ns, &mut |map| {
        let there: HashSet<&Name> = map.iter().map(|(k, _)| k).collect();
        let wanted = |(key, _): &(&Name, &Value)| match strategy {
            Merge::Upsert => true,
            Merge::Insert => !there.contains(key),
            Merge::Update => there.contains(key),
        };
        let more = source.iter().filter(wanted);
        let entries = map.iter().chain(more);
        *map = Map::from_entries(entries.map(|(k, v)| (k.clone(), v.clone())).collect());
        Ok(())
    })
}

/// Moves what is in nested maps and lists to the root.
pub(super) fn flatten(
    map: &mut Map,
    prefix: &str,
    depth: usize,
    resolve: bool,
) -> Result<(), Fault> {
    if depth == 0 {
        return Ok(());
    }
    let mut flat = Flat {
        entries: Vec::new(),
        index: HashMap::new(),
        copies: HashMap::new(),
        key_bytes: 0,
        depth,
        resolve,
    };
    flat.map(prefix, map, 0)?;
    *map = Map::from_unique(flat.entries);
    Ok(())
}

/// Bytes of all keys that flattening makes.
const KEY_BYTES_MAX: usize = 16 << 20;

struct Flat {
    entries: Vec<(Name, Value)>,
    index: HashMap<Name, usize>,
    /// How many more of a key there were.
    copies: HashMap<Name, usize>,
    key_bytes: usize,
    depth: usize,
    resolve: bool,
}

impl Flat {
    fn map(&mut self, prefix: &str, map: &Map, level: usize) -> Result<(), Fault> {
        for (key, value) in map.iter() {
            let key = match prefix {
                "" => key.to_string(),
                _ => format!("{prefix}.{key}"),
            };
            self.value(key, value, level)?;
        }
        Ok(())
    }

    fn value(&mut self, key: String, value: &Value, level: usize) -> Result<(), Fault> {
        // What is nested has the keys of all that is around it in its own.
        self.key_bytes += key.len();
        if self.key_bytes > KEY_BYTES_MAX {
            return Err(Fault::failed("flatten", "the keys become too long"));
        }
        match value {
            Value::Map(map) if level < self.depth => return self.map(&key, map, level + 1),
            Value::List(list) if level < self.depth => {
                for (i, item) in list.iter().enumerate() {
                    let key = match self.resolve {
                        true => key.clone(),
                        false => format!("{key}.{i}"),
                    };
                    self.value(key, item, level + 1)?;
                }
            }
            _ => self.put(key.into(), value.clone()),
        }
        Ok(())
    }

    fn put(&mut self, mut key: Name, value: Value) {
        if let Some(i) = self.index.get(&key).copied() {
            if !self.resolve {
                self.entries[i].1 = value;
                return;
            }
            let base = key;
            loop {
                let n = self.copies.entry(base.clone()).or_insert(0);
                key = format!("{base}.{n}").into();
                *n += 1;
                if !self.index.contains_key(&key) {
                    break;
                }
            }
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
    }
}

pub(super) fn stringify(map: &mut Map) {
    each(map, |value| match value {
        Value::Str(_) => None,
        other => Some(Value::from(other.as_ref().to_display_string())),
    });
}

pub(super) fn truncate(map: &mut Map, limit: usize, marker: &str) {
    each(map, |value| match value {
        Value::Str(text) if text.len() > limit => {
            let mut end = limit - marker.len();
            // Text of a map is UTF-8: cut elsewhere, what is left of a character would have to be
            // replaced by something longer.
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            Some(Value::from(format!("{}{marker}", &text[..end])))
        }
        _ => None,
    });
}

/// Replaces the values for which `change` gives another one.
pub(super) fn each(map: &mut Map, mut change: impl FnMut(&Value) -> Option<Value>) {
    let mut changed: Vec<(Name, Value)> = Vec::with_capacity(map.len());
    let mut any = false;
    for (key, value) in map.iter() {
        let new = change(value);
        any |= new.is_some();
        changed.push((key.clone(), new.unwrap_or_else(|| value.clone())));
    }
    if any {
        *map = Map::from_unique(changed);
    }
}

pub(super) fn append(
    target: &Target,
    value: Option<&Expr>,
    values: &[Expr],
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    let mut list = match read(target, scene, now_ns)? {
        Val::Nil => Vec::new(),
        Val::List(list) => list.into_owned(),
        Val::Map(_) => {
            return Err(Fault::Kind {
                place: "append",
                wanted: "a list or a plain value",
                found: "a map",
            });
        }
        other => vec![other.into_value("a list")?],
    };
    for expr in value.into_iter().chain(values) {
        match evaluated(expr, scene, now_ns)? {
            // The items of a list are appended one by one.
            Val::List(more) => list.extend(more.into_owned()),
            Val::Nil => {}
            other => list.push(other.into_value("a list")?),
        }
    }
    write(target, Stored::Value(Value::List(list)), scene, now_ns)
}

pub(super) fn delete_index(
    target: &Target,
    start: &Expr,
    end: Option<&Expr>,
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    const PLACE: &str = "delete_index";
    let position = |expr: &Expr, scene: &dyn SceneMut| match evaluated(expr, scene, now_ns)? {
        Val::Int(i) => usize::try_from(i).map_err(|_| Fault::failed(PLACE, "an index is below 0")),
        other => Err(Fault::Kind {
            place: PLACE,
            wanted: "an integer",
            found: other.kind(),
        }),
    };
    let from = position(start, scene)?;
    let to = match end {
        Some(end) => position(end, scene)?,
        None => from + 1,
    };
    let mut list = match read(target, scene, now_ns)? {
        Val::List(list) => list.into_owned(),
        other => {
            return Err(Fault::Kind {
                place: PLACE,
                wanted: "a list",
                found: other.kind(),
            });
        }
    };
    if from > to || to > list.len() {
        return Err(Fault::failed(PLACE, "the list has no such positions"));
    }
    list.drain(from..to);
    write(target, Stored::Value(Value::List(list)), scene, now_ns)
}
