//! A list of attributes kept apart from the message it is in.
//!
//! What is around many items is read and changed for each of them. With its attributes in the message that
//! would take as long as the message is, each time; here one attribute takes as long as it is itself.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::super::edit::{Attributes, Found, found, pairs};
use super::super::value::{KeyValue, put_pair};
use super::super::wire::{Fields, Raw};
use crate::value::{Map, Value, ValueRef};

/// The list.
#[derive(Clone, Debug)]
pub(super) struct Apart {
    /// The message in which the list is, and its name there.
    pub within: Option<&'static str>,
    pub name: &'static str,
    /// The number of its field.
    number: u32,
    /// A message with nothing but that field.
    bytes: Vec<u8>,
    /// Where the pairs are, in order of keys; of a key that comes twice the last one.
    order: OnceCell<Vec<(u32, u32)>>,
    /// What is not yet in the bytes.
    changes: BTreeMap<Box<str>, Option<Value>>,
    /// Bytes of them, about.
    changes_bytes: usize,
}

impl Apart {
    pub fn new(
        (within, name): (Option<&'static str>, &'static str),
        number: u32,
        bytes: Vec<u8>,
    ) -> Apart {
        Apart {
            within,
            name,
            number,
            bytes,
            order: OnceCell::new(),
            changes: BTreeMap::new(),
            changes_bytes: 0,
        }
    }

    /// Bytes it takes, about.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.changes_bytes
    }

    /// The list without what was changed since it was written.
    fn in_order(&self) -> &[(u32, u32)] {
        self.order.get_or_init(|| {
            let mut all = Vec::new();
            for field in Fields::new(&self.bytes, 0) {
                if let (_, Raw::Len(from, to)) = field {
                    // No message is as long as that.
                    let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
                    all.push((narrow(from), narrow(to)));
                }
            }
            // Equal ones stay in the order in which they came.
            all.sort_by(|a, b| self.key(*a).cmp(self.key(*b)));
            all.reverse();
            all.dedup_by(|later, kept| self.key(*later) == self.key(*kept));
            all.reverse();
            all
        })
    }

    fn pair(&self, (from, to): (u32, u32)) -> KeyValue {
        KeyValue::of(&self.bytes, from as usize, to as usize)
    }

    fn key(&self, at: (u32, u32)) -> &[u8] {
        self.pair(at).key(&self.bytes)
    }

    fn written(&self, key: &str) -> Option<Found<'_>> {
        let all = self.in_order();
        let at = all.binary_search_by(|at| self.key(*at).cmp(key.as_bytes()));
        let pair = self.pair(*all.get(at.ok()?)?);
        Some(found(&self.bytes, &pair))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Found<'_>> {
        match self.changes.get(key) {
            Some(change) => change.as_ref().map(|v| Found::Plain(v.as_ref())),
            None => self.written(key),
        }
    }

    /// Sets `key`; false if it has that value.
    pub fn set(&mut self, key: &str, value: ValueRef<'_>) -> bool {
        if self.get(key).is_some_and(|old| old.as_ref() == value) {
            return false;
        }
        self.change(key, Some(value.to_value()));
        true
    }

    /// Removes `key`; false if it is not there.
    pub fn remove(&mut self, key: &str) -> bool {
        let is_there = self.get(key).is_some();
        if is_there {
            self.change(key, None);
        }
        is_there
    }

    fn change(&mut self, key: &str, value: Option<Value>) {
        let bytes = |v: &Option<Value>| v.as_ref().map_or(0, Value::heap_bytes);
        self.changes_bytes += bytes(&value);
        match self.changes.get_mut(key) {
            Some(old) => self.changes_bytes -= bytes(&std::mem::replace(old, value)),
            None => {
                self.changes_bytes += key.len() + size_of::<Value>();
                self.changes.insert(key.into(), value);
            }
        }
    }

    /// The list as a map.
    pub fn map(&self) -> Map {
        let is_same = |key: &str| !self.changes.contains_key(key);
        let written = pairs(&self.bytes, self.number).filter_map(|pair| {
            let key = super::super::value::text(pair.key(&self.bytes));
            is_same(&key).then(|| {
                (
                    key.as_ref().into(),
                    found(&self.bytes, &pair).as_ref().to_value(),
                )
            })
        });
        let changed = self.changes.iter();
        let changed = changed.filter_map(|(k, v)| Some((crate::Key::from(&**k), v.clone()?)));
        Map::from_entries(written.chain(changed).collect())
    }

    /// Lets `edit` work on all of the list; true if it changed anything.
    pub fn edit(
        &mut self,
        pool: &mut Vec<Vec<u8>>,
        edit: impl FnOnce(&mut Attributes<'_>),
    ) -> bool {
        self.settle();
        let mut attributes = Attributes::of((&self.bytes[..]).into(), self.number, pool);
        edit(&mut attributes);
        let new = attributes.into_changed();
        let Some(new) = new.filter(|new| *new != self.bytes) else {
            return false;
        };
        self.bytes = new;
        self.order = OnceCell::new();
        true
    }

    /// Writes what was changed.
    fn settle(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let mut out = Vec::with_capacity(self.len());
        self.write(&mut out);
        self.bytes = out;
        self.order = OnceCell::new();
        self.changes.clear();
        self.changes_bytes = 0;
    }

    /// Appends the list.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.changes.is_empty() {
            return out.extend_from_slice(&self.bytes);
        }
        let mut fields = Fields::new(&self.bytes, 0);
        loop {
            let from = fields.at();
            let Some((_, raw)) = fields.next() else {
                break;
            };
            let Raw::Len(at, to) = raw else { continue };
            let pair = KeyValue::of(&self.bytes, at, to);
            let key = super::super::value::text(pair.key(&self.bytes));
            if !self.changes.contains_key(&*key) {
                out.extend_from_slice(&self.bytes[from..to]);
            }
        }
        for (key, value) in &self.changes {
            if let Some(value) = value {
                put_pair(out, self.number, key, value.as_ref());
            }
        }
    }
}
