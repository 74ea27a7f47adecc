//! The actions that the `attributes` and `resource` processors share.

mod columns;
mod config;
mod map;
mod value;

use regex::Regex;
use tailwater_pdata::otlp::edit::{Attributes, Found};
use tailwater_pdata::{Key, LogsBatch, Map, Value};
use tailwater_pipeline::client::{ClientInfo, ContextKey};

pub(crate) use columns::Rows;
pub(crate) use config::value_of;
pub use config::{ActionsConfig, decode_actions};
pub use value::ConvertTo;
pub(crate) use value::parse_double;

/// When a value is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Only where the attribute does not exist.
    Insert,
    /// Only where it exists.
    Update,
    /// Everywhere.
    Upsert,
}

/// Where the value of a `Put` comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The configuration.
    Value(Value),
    /// Another attribute of the same record or resource.
    Attribute(Key),
    /// What is known of the client that sent the data. [`for_client`] makes a value of it; what is left is
    /// not there, as with data that was read from files.
    Context(ContextKey),
}

/// The value of a `Put`.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it comes from.
    pub origin: Origin,
    /// What stands in when it is not there.
    pub default: Option<Value>,
}

/// One action.
#[derive(Clone, Debug)]
pub enum Action {
    /// `insert`, `update`, `upsert`.
    Put {
        /// The attribute.
        key: Key,
        /// When it is put.
        put: Put,
        /// Its value.
        source: Source,
    },
    /// `delete`: one attribute, and all whose names match.
    Delete {
        /// The attribute.
        key: Option<Key>,
        /// A pattern of names.
        pattern: Option<Regex>,
    },
    /// `hash`: SHA-256 of one attribute, and of all whose names match.
    Hash {
        /// The attribute.
        key: Option<Key>,
        /// A pattern of names.
        pattern: Option<Regex>,
    },
    /// `extract`: the named groups of a pattern become attributes.
    Extract {
        /// The attribute that is searched; only text is.
        key: Key,
        /// The pattern.
        pattern: regex::bytes::Regex,
        /// The attribute each of its groups goes to, in order.
        targets: Vec<Key>,
    },
    /// `convert`: another type for the value.
    Convert {
        /// The attribute.
        key: Key,
        /// The type.
        to: ConvertTo,
    },
}

/// Whether any action reads what is known of the client.
pub(crate) fn need_client(actions: &[Action]) -> bool {
    actions.iter().any(|action| context(action).is_some())
}

fn context(action: &Action) -> Option<&ContextKey> {
    match action {
        Action::Put { source, .. } => match &source.origin {
            Origin::Context(key) => Some(key),
            _ => None,
        },
        _ => None,
    }
}

/// The actions for data of one client: what they read of it are values in them.
pub(crate) fn for_client(actions: &[Action], client: Option<&ClientInfo>) -> Vec<Action> {
    let bound = |action: &Action| {
        let mut action = action.clone();
        let value = context(&action).zip(client).and_then(|(key, c)| key.of(c));
        if let (Some(value), Action::Put { source, .. }) = (value, &mut action) {
            source.origin = Origin::Value(Value::str(value));
        }
        action
    };
    actions.iter().map(bound).collect()
}

/// Applies `actions` in order to the attributes of the rows.
pub(crate) fn apply_to_rows(actions: &[Action], batch: &mut LogsBatch, rows: Rows<'_>) {
    for action in actions {
        columns::apply(action, batch, rows);
    }
}

/// Applies `actions` in order to a map.
pub(crate) fn apply_to_map(actions: &[Action], map: &mut Map) {
    for action in actions {
        map::apply(action, map);
    }
}

/// Applies `actions` in order to a list that is still encoded. One that they do not change stays the
/// bytes it is.
pub(crate) fn apply_to_encoded(actions: &[Action], attributes: &mut Attributes<'_>) {
    if !actions.iter().any(|action| may_change(action, attributes)) {
        return;
    }
    if actions.iter().all(is_simple) {
        return actions
            .iter()
            .for_each(|action| apply_simple(action, attributes));
    }
    attributes.update(|map| {
        let before = map.clone();
        apply_to_map(actions, map);
        *map != before
    });
}

/// Whether an action needs no value of the list, so that the list need not be decoded.
fn is_simple(action: &Action) -> bool {
    match action {
        Action::Put { source, .. } => matches!(source.origin, Origin::Value(_)),
        Action::Delete { .. } => true,
        Action::Hash { .. } | Action::Extract { .. } | Action::Convert { .. } => false,
    }
}

/// Applies an action that [`is_simple`] to the bytes of a list.
fn apply_simple(action: &Action, attributes: &mut Attributes<'_>) {
    if !may_change(action, attributes) {
        return;
    }
    match action {
        Action::Put { key, source, .. } => {
            if let Origin::Value(value) = &source.origin {
                let same = |found: Found<'_>| found.as_ref() == value.as_ref();
                if !attributes.get(key).is_some_and(same) {
                    attributes.set(key, value.as_ref());
                }
            }
        }
        Action::Delete { key, pattern } => attributes.remove_if(|name| {
            let matches = |p: &Regex| p.is_match(name);
            key.as_ref().is_some_and(|key| **key == *name) || pattern.as_ref().is_some_and(matches)
        }),
        Action::Hash { .. } | Action::Extract { .. } | Action::Convert { .. } => {}
    }
}

/// False if the action does nothing to such a list. If no action does, neither do all together.
fn may_change(action: &Action, attributes: &Attributes<'_>) -> bool {
    let has = |key: &Key| attributes.get(key).is_some();
    match action {
        Action::Put { key, put, .. } => match put {
            Put::Insert => !has(key),
            Put::Update => has(key),
            Put::Upsert => true,
        },
        Action::Delete { key, pattern } | Action::Hash { key, pattern } => {
            let matches = |p: &Regex| attributes.iter().any(|(name, _)| p.is_match(&name));
            key.as_ref().is_some_and(has) || pattern.as_ref().is_some_and(matches)
        }
        Action::Extract { key, .. } | Action::Convert { key, .. } => has(key),
    }
}

#[cfg(test)]
mod tests;
