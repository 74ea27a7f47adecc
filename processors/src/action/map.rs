//! Actions on one map: the attributes of a resource.

use regex::Regex;
use tailwater_pdata::{Key, Map, ValueRef};

use super::value::{self, Made};
use super::{Action, Origin, Put, Source};

/// Applies one action to `map`.
pub(crate) fn apply(action: &Action, map: &mut Map) {
    match action {
        Action::Put { key, put, source } => apply_put(map, key, *put, source),
        Action::Delete { key, pattern } => {
            map.retain(|k, _| !means(k, key.as_ref(), pattern.as_ref()));
        }
        Action::Hash { key, pattern } => {
            let wanted = |k: &&Key| means(k, key.as_ref(), pattern.as_ref());
            let names: Vec<Key> = map.iter().map(|(k, _)| k).filter(wanted).cloned().collect();
            for name in names {
                rewrite(map, &name, value::hash);
            }
        }
        Action::Convert { key, to } => rewrite(map, key, |v, s| value::convert(v, *to, s)),
        Action::Extract {
            key,
            pattern,
            targets,
        } => {
            let Some(value) = map.get(key).cloned() else {
                return;
            };
            let Some(text) = value.as_ref().as_text() else {
                return;
            };
            let Some(found) = pattern.captures(text) else {
                return;
            };
            for (i, target) in targets.iter().enumerate() {
                let group = found.get(i + 1).map_or(&b""[..], |m| m.as_bytes());
                map.insert(target.clone(), ValueRef::Str(group).to_value());
            }
        }
    }
}

fn means(name: &str, key: Option<&Key>, pattern: Option<&Regex>) -> bool {
    key.is_some_and(|k| &**k == name) || pattern.is_some_and(|p| p.is_match(name))
}

fn apply_put(map: &mut Map, key: &Key, put: Put, source: &Source) {
    let value = match &source.origin {
        Origin::Value(value) => Some(value.clone()),
        Origin::Attribute(from) => map.get(from).cloned(),
        Origin::Context(_) => None,
    };
    let Some(value) = value.or_else(|| source.default.clone()) else {
        return;
    };
    let wanted = match put {
        Put::Insert => map.get(key).is_none(),
        Put::Update => map.get(key).is_some(),
        Put::Upsert => true,
    };
    if wanted {
        map.insert(key.clone(), value);
    }
}

fn rewrite(map: &mut Map, key: &str, f: impl FnOnce(ValueRef<'_>, &mut Vec<u8>) -> Made) {
    let mut scratch = Vec::new();
    if let Some(value) = map.get_mut(key)
        && let Some(new) = f(value.as_ref(), &mut scratch).into_value(&scratch)
    {
        *value = new;
    }
}
