//! Reading and writing what a target leads to.

use tailwater_pdata::{Key as Name, Map, Value};

use crate::compile::Target;
use crate::error::Fault;
use crate::expr::{Expr, Key, is_map};
use crate::scene::{Cx, SceneMut};
use crate::value::{Stored, Val};

/// Sets the target, unless the value is nil.
pub(super) fn set(
    target: &Target,
    value: &Expr,
    literal: Option<&Value>,
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    if let Some(value) = literal {
        match &target.keys[..] {
            [] => return scene.set_literal(target.field, None, value),
            [Key::Text(key)] if is_map(target.field) => {
                return scene.set_literal(target.field, Some(key), value);
            }
            _ => {}
        }
    }
    let stored = {
        let cx = Cx {
            scene: &*scene,
            now_ns,
        };
        let val = value.eval(&cx)?;
        if val.is_nil() {
            return Ok(());
        }
        scene.store(val)
    };
    write(target, stored, scene, now_ns)
}

/// Puts a value where the target leads to.
pub(super) fn write(
    target: &Target,
    value: Stored,
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    match &target.keys[..] {
        [] => return scene.set(target.field, value),
        [Key::Text(key)] if is_map(target.field) => {
            return scene.set_entry(target.field, key, value);
        }
        _ => {}
    }
    let steps = steps(target, scene, now_ns)?;
    let (first, nested) = match (steps.split_first(), is_map(target.field)) {
        (Some((Step::Name(first), rest)), true) => (Some(first), rest),
        (_, true) => {
            return Err(Fault::Index {
                found: "a map",
                key: "position",
            });
        }
        (_, false) => (None, &steps[..]),
    };
    if let (Some(first), []) = (first, nested) {
        return scene.set_entry(target.field, first, value);
    }
    let value = owned(value, scene)?;
    let mut root = {
        let found = match first {
            Some(first) => scene.entry(target.field, first),
            None => scene.get(target.field),
        };
        found.into_value("a nested value")?
    };
    put(&mut root, nested, value)?;
    match first {
        Some(first) => scene.set_entry(target.field, first, Stored::Value(root)),
        None => scene.set(target.field, Stored::Value(root)),
    }
}

/// A value as one of the data model.
fn owned(value: Stored, scene: &dyn SceneMut) -> Result<Value, Fault> {
    value.into_value("a nested value", |slice| scene.text_of(slice))
}

/// A key that is known.
enum Step {
    Name(Name),
    At(usize),
}

fn steps(target: &Target, scene: &dyn SceneMut, now_ns: i64) -> Result<Vec<Step>, Fault> {
    let cx = Cx { scene, now_ns };
    let at = |i: i64| {
        let at = usize::try_from(i).map(Step::At);
        at.map_err(|_| Fault::failed("a key", "the list has no such position"))
    };
    let step = |key: &Key| match key {
        Key::Text(name) => Ok(Step::Name(name.clone())),
        Key::Int(i) => at(*i),
        Key::Computed(expr) => match expr.eval(&cx)? {
            Val::Str(text) => Ok(Step::Name(String::from_utf8_lossy(&text).into())),
            Val::Int(i) => at(i),
            other => Err(Fault::Kind {
                place: "a key",
                wanted: "text or an integer",
                found: other.kind(),
            }),
        },
    };
    target.keys.iter().map(step).collect()
}

/// Most items of a list that is made to put something at one of its positions.
const NEW_ITEMS_MAX: usize = 1024;

/// Puts `value` where `steps` lead to within `root`; maps and lists that are missing on the way are made.
fn put(root: &mut Value, steps: &[Step], value: Value) -> Result<(), Fault> {
    let mut at = root;
    for step in steps {
        match step {
            Step::Name(_) if matches!(at, Value::Null) => *at = Value::Map(Map::new()),
            // As in the collector, a list with nothing in front.
            Step::At(i) if matches!(at, Value::Null) && *i < NEW_ITEMS_MAX => {
                *at = Value::List(vec![Value::Null; i + 1]);
            }
            _ => {}
        }
        at = match (at, step) {
            (Value::Map(map), Step::Name(name)) => {
                if map.get(name).is_none() {
                    map.insert(name.clone(), Value::Null);
                }
                map.get_mut(name)
                    .ok_or_else(|| Fault::failed("a key", "it cannot be set"))?
            }
            (Value::List(list), Step::At(i)) => list
                .get_mut(*i)
                .ok_or_else(|| Fault::failed("a key", "the list has no such position"))?,
            (other, step) => {
                return Err(Fault::Index {
                    found: other.as_ref().kind_name(),
                    key: match step {
                        Step::Name(_) => "key of text",
                        Step::At(_) => "position",
                    },
                });
            }
        };
    }
    *at = value;
    Ok(())
}

/// What the target leads to now.
pub(super) fn read<'s>(
    target: &Target,
    scene: &'s dyn SceneMut,
    now_ns: i64,
) -> Result<Val<'s>, Fault> {
    let cx = Cx { scene, now_ns };
    let (mut val, keys) = match target.keys.split_first() {
        Some((Key::Text(first), rest)) if is_map(target.field) => {
            (scene.entry(target.field, first), rest)
        }
        _ => (scene.get(target.field), &target.keys[..]),
    };
    for key in keys {
        val = crate::expr::index(val, key, &cx)?;
    }
    Ok(val)
}

/// Lets `change` work on the map that the target leads to.
pub(super) fn with_map(
    target: &Target,
    scene: &mut dyn SceneMut,
    now_ns: i64,
    change: &mut dyn FnMut(&mut Map) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if target.keys.is_empty() && is_map(target.field) {
        return scene.update(target.field, change);
    }
    let mut map = match read(target, scene, now_ns)? {
        Val::Map(map) => map.into_owned(),
        other => {
            return Err(Fault::Kind {
                place: "an editor of maps",
                wanted: "a map",
                found: other.kind(),
            });
        }
    };
    change(&mut map)?;
    write(target, Stored::Value(Value::Map(map)), scene, now_ns)
}
