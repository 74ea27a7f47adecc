//! Building a [`Map`] from keys that are known to be unique.

use crate::column::Key;
use crate::value::{Map, Value};

impl Map {
    /// A map of `entries` in this order. The caller knows that no key comes twice; building a map
    /// by [`Map::insert`] would look through all keys for each.
    pub fn from_unique<K: Into<Key>>(entries: impl IntoIterator<Item = (K, Value)>) -> Map {
        Map {
            entries: entries.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_order() {
        let m = Map::from_unique([("b", Value::Int(1)), ("a", Value::Int(2))]);
        assert_eq!(m.iter().map(|(k, _)| &**k).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(m.get("a"), Some(&Value::Int(2)));
    }
}
