//! Attributes that are a map, and fields in bodies.

use std::mem;

use tailwater_pdata::{Key, Map, Value, ValueRef};

use super::rules::{Judge, KeyFate, ValueFate};
use super::summary::{Kind, Notes};

/// Does what the rules say to the attributes of a resource, scope, point or span, and says whether that
/// changed anything.
pub(super) fn change_attributes(judge: &mut Judge, map: &mut Map, notes: &mut Notes) -> bool {
    let before = (judge.masked, judge.removed);
    let mut told = false;
    let mut kept = Vec::with_capacity(map.len());
    for (key, mut value) in mem::take(map).into_entries() {
        let (fate, kind) = match judge.key(&key) {
            KeyFate::Ignored => (ValueFate::Same, Some(Kind::Ignored)),
            KeyFate::Removed => (ValueFate::Same, Some(Kind::Redacted)),
            key => {
                let fate = judge.attribute(key == KeyFate::Masked, value.as_ref());
                (fate, kind_of(fate))
            }
        };
        if fate == ValueFate::Masked {
            value = text(judge);
        }
        if let Some(kind) = kind.filter(|_| judge.tells()) {
            notes.add(0, kind, &key);
            told = true;
        }
        match kind {
            Some(Kind::Redacted) => judge.removed += 1,
            _ => kept.push((key, value)),
        }
    }
    *map = Map::from_unique(kept);
    notes.tell_map(judge.rules.summary, map);
    told || before != (judge.masked, judge.removed)
}

/// Whether [`change_attributes`] would change anything about one attribute.
pub(super) fn touches(judge: &mut Judge, key: &str, value: ValueRef<'_>) -> bool {
    let masked = judge.masked;
    let fate = judge.key(key);
    let touches = match fate {
        KeyFate::Ignored => judge.tells(),
        KeyFate::Removed => true,
        KeyFate::Masked | KeyFate::Checked => {
            match judge.attribute(fate == KeyFate::Masked, value) {
                ValueFate::Same => false,
                ValueFate::Allowed => judge.tells(),
                ValueFate::Masked => true,
            }
        }
    };
    judge.masked = masked;
    touches
}

fn kind_of(fate: ValueFate) -> Option<Kind> {
    match fate {
        ValueFate::Same => None,
        ValueFate::Allowed => Some(Kind::Allowed),
        ValueFate::Masked => Some(Kind::Masked),
    }
}

/// What a value was masked to.
fn text(judge: &Judge) -> Value {
    ValueRef::Str(judge.masked_text()).to_value()
}

/// Does what the rules say to a body that is a map or a list.
pub(super) fn change_body(judge: &mut Judge, body: &mut Value, row: usize, notes: &mut Notes) {
    Body { judge, row, notes }.value(None, body);
}

/// Whether [`change_body`] would change anything, or have something to tell.
pub(super) fn touches_body(judge: &mut Judge, body: ValueRef<'_>) -> bool {
    match body {
        ValueRef::Map(map) => map.iter().any(|(key, value)| match judge.key(key) {
            KeyFate::Ignored => judge.tells(),
            KeyFate::Removed | KeyFate::Masked => true,
            KeyFate::Checked => touches_body(judge, value.as_ref()),
        }),
        ValueRef::List(list) => list.iter().any(|value| touches_body(judge, value.as_ref())),
        value => {
            let masked = judge.masked;
            let fate = judge.body(value);
            judge.masked = masked;
            match fate {
                ValueFate::Same => false,
                ValueFate::Allowed => judge.tells(),
                ValueFate::Masked => true,
            }
        }
    }
}

struct Body<'j> {
    judge: &'j mut Judge,
    row: usize,
    notes: &'j mut Notes,
}

impl Body<'_> {
    /// `path` is where the value is in the body: keys with dots between them, `[0]` in lists.
    fn value(&mut self, path: Option<&Key>, value: &mut Value) {
        match value {
            Value::Map(map) => self.map(path, map),
            Value::List(list) => {
                for (i, value) in list.iter_mut().enumerate() {
                    let path = self.path(path, &format_args!("[{i}]"));
                    self.value(path.as_ref(), value);
                }
            }
            scalar => {
                let fate = self.judge.body(scalar.as_ref());
                if fate == ValueFate::Masked {
                    *scalar = text(self.judge);
                }
                let kind = match fate {
                    ValueFate::Same => return,
                    ValueFate::Allowed => Kind::BodyAllowed,
                    ValueFate::Masked => Kind::BodyMasked,
                };
                self.note(kind, path);
            }
        }
    }

    fn map(&mut self, path: Option<&Key>, map: &mut Map) {
        let mut kept = Vec::with_capacity(map.len());
        for (key, mut value) in mem::take(map).into_entries() {
            let path = self.path(path, &key);
            match self.judge.key(&key) {
                KeyFate::Ignored => self.note(Kind::BodyIgnored, path.as_ref()),
                KeyFate::Removed => {
                    self.judge.removed += 1;
                    self.note(Kind::BodyRedacted, path.as_ref());
                    continue;
                }
                KeyFate::Masked => {
                    self.judge.blocked_field(value.as_ref());
                    value = text(self.judge);
                    self.note(Kind::BodyMasked, path.as_ref());
                }
                KeyFate::Checked => self.value(path.as_ref(), &mut value),
            }
            kept.push((key, value));
        }
        *map = Map::from_unique(kept);
    }

    /// The path of what is in `path`, if paths are told.
    fn path(&self, path: Option<&Key>, name: &dyn std::fmt::Display) -> Option<Key> {
        if !self.judge.tells() {
            return None;
        }
        Some(match path {
            Some(path) => format!("{path}.{name}").into(),
            None => name.to_string().into(),
        })
    }

    fn note(&mut self, kind: Kind, path: Option<&Key>) {
        if let Some(path) = path {
            self.notes.add(self.row, kind, path);
        }
    }
}
