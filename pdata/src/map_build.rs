//! Building a [`Map`] from many keys at once.

use std::collections::HashMap;

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

    /// The keys and values, in order.
    pub fn into_entries(self) -> Vec<(Key, Value)> {
        self.entries
    }

    /// A map of `entries`; of a key that comes several times the last value is there, in the place of
    /// the first. Takes linear time, whatever the keys.
    pub fn from_entries(entries: Vec<(Key, Value)>) -> Map {
        /// Up to so many entries looking through all of them is faster than an index.
        const FEW: usize = 16;
        if entries.len() <= FEW {
            return entries.into_iter().collect();
        }
        let mut index: HashMap<Key, usize> = HashMap::with_capacity(entries.len());
        let mut kept: Vec<(Key, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match index.get(&key) {
                Some(i) => kept[*i].1 = value,
                None => {
                    index.insert(key.clone(), kept.len());
                    kept.push((key, value));
                }
            }
        }
        Map { entries: kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_key_that_comes_twice_the_last_value_counts() {
        for many in [3, 40] {
            let twice = (0..many).chain(0..many).enumerate();
            let entries = twice.map(|(n, i)| (Key::from(format!("k{i}")), Value::Int(n as i64)));
            let m = Map::from_entries(entries.collect());
            assert_eq!(m.len(), many);
            assert_eq!(m.get("k1"), Some(&Value::Int(many as i64 + 1)));
            assert_eq!(m.iter().next().map(|(k, _)| &**k), Some("k0"));
        }
    }

    #[test]
    fn entries_keep_their_order() {
        let m = Map::from_unique([("b", Value::Int(1)), ("a", Value::Int(2))]);
        assert_eq!(m.iter().map(|(k, _)| &**k).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(m.get("a"), Some(&Value::Int(2)));
    }
}
