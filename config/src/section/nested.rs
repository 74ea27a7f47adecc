//! Getters of options that hold several values: sections, lists and maps.

use crate::error::{ConfigError, KeyPath};
use crate::node::{Key, Node, NodeValue, quote};
use crate::reference::{SAMPLE, SAMPLES, ValueKind};
use crate::secret::Secret;
use crate::section::{Section, mismatch};

impl<'n> Section<'n, '_> {
    /// A section that always has a value: absent or null, it is decoded as an empty map, so the
    /// defaults are those of `decode`. Unknown keys are reported when `decode` returns.
    pub fn section<T>(&mut self, key: &str, decode: impl FnOnce(&mut Section<'n, '_>) -> T) -> T {
        self.note(key, || ValueKind::Section);
        let path = self.path.child(key);
        let (node, broken) = (self.take(key).map(|(_, node)| node), self.broken);
        let mut inner = self.inner(node, path);
        inner.broken |= broken;
        let value = decode(&mut inner);
        inner.finish();
        value
    }

    /// A section that is `None` if absent or null.
    pub fn section_if_present<T>(
        &mut self,
        key: &str,
        decode: impl FnOnce(&mut Section<'n, '_>) -> T,
    ) -> Option<T> {
        self.note(key, || ValueKind::Section);
        let node = match self.value(key) {
            None if self.is_recording() && self.way(key, "section", 2) == 0 => &SAMPLES.map,
            written => written?,
        };
        Some(decode_node(node, self.path.child(key), self, decode))
    }

    /// A section that can be switched, as the collector's optional sections: absent gives `None`,
    /// or the defaults if it is on by default; present gives a value even if null; and an own key
    /// `enabled: false` switches it off, whatever else it holds.
    pub fn optional_section<T>(
        &mut self,
        key: &str,
        on_by_default: bool,
        decode: impl FnOnce(&mut Section<'n, '_>) -> T,
    ) -> Option<T> {
        self.note(key, || ValueKind::Section);
        let shown = self.is_recording() && self.way(key, "section", 2) == 0;
        let path = self.path.child(key);
        let node = match self.take(key) {
            Some((_, node)) => Some(node),
            None if shown => Some(&SAMPLES.map),
            None if !on_by_default => return None,
            None => None,
        };
        let mut inner = self.inner(node, path);
        if !inner.bool("enabled", true) {
            return None;
        }
        let value = decode(&mut inner);
        inner.finish();
        Some(value)
    }

    /// A list of sections; `None` if absent or null. The path of an element ends with its index,
    /// from 0.
    pub fn section_list<T>(
        &mut self,
        key: &str,
        mut decode: impl FnMut(&mut Section<'n, '_>) -> T,
    ) -> Option<Vec<T>> {
        let items = self.list(key)?;
        let path = self.path.child(key);
        let decoded = items.iter().enumerate();
        Some(
            decoded
                .map(|(i, n)| decode_node(n, path.child(i), self, &mut decode))
                .collect(),
        )
    }

    /// A map of free names to sections, in the order as written; `None` if absent or null.
    pub fn section_map<T>(
        &mut self,
        key: &str,
        mut decode: impl FnMut(&str, &mut Section<'n, '_>) -> T,
    ) -> Option<Vec<(String, T)>> {
        let entries = self.map(key)?;
        let path = self.path.child(key);
        let mut decoded = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            let value = decode_node(node, path.child(&name.text), self, |inner| {
                decode(&name.text, inner)
            });
            decoded.push((name.text.clone(), value));
        }
        Some(decoded)
    }

    /// The elements of a list as raw nodes; `None` if absent or null.
    pub fn list(&mut self, key: &str) -> Option<&'n [Node]> {
        self.note(key, || ValueKind::List);
        if self.is_recording() {
            let shown = SAMPLES.lists.get(self.way(key, "list", 3));
            return shown.map(Vec::as_slice);
        }
        let node = self.value(key)?;
        let items = node.as_list();
        if items.is_none() {
            self.reject(node, key, "a list");
        }
        items
    }

    /// The entries of a map as raw nodes; `None` if absent or null.
    pub fn map(&mut self, key: &str) -> Option<&'n [(Key, Node)]> {
        self.map_of(key, ValueKind::Map)
    }

    fn map_of(&mut self, key: &str, kind: ValueKind) -> Option<&'n [(Key, Node)]> {
        if self.is_recording() {
            // What is a map of texts is shown one.
            let first = usize::from(kind != ValueKind::Map);
            self.note(key, || kind);
            let shown = SAMPLES.maps.get(self.way(key, "map", 3 - first) + first);
            return shown.map(Vec::as_slice);
        }
        let node = self.value(key)?;
        let entries = node.as_map();
        if entries.is_none() {
            self.reject(node, key, "a map");
        }
        entries
    }

    /// A list of texts; `None` if absent or null. One text is split at each comma, as the
    /// collector does; an empty text is an empty list.
    pub fn string_list(&mut self, key: &str) -> Option<Vec<String>> {
        let items = self.text_nodes(key)?;
        Some(items.into_iter().map(|(text, _)| text.to_owned()).collect())
    }

    /// As [`Section::string_list`], with the node of each text for its position.
    pub fn text_nodes(&mut self, key: &str) -> Option<Vec<(&'n str, &'n Node)>> {
        self.note(key, || ValueKind::TextList);
        if self.way(key, "texts", 2) == 1 {
            return Some(vec![(SAMPLE, &SAMPLES.text)]);
        }
        let node = self.value(key)?;
        let items = match &node.value {
            NodeValue::List(items) => items,
            NodeValue::Str(text) if text.is_empty() => return Some(Vec::new()),
            NodeValue::Str(text) => return Some(text.split(',').map(|t| (t, node)).collect()),
            _ => {
                self.reject(node, key, "a list of strings");
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match item.as_text() {
                Some(text) => texts.push((text, item)),
                None => {
                    let path = self.path.child(key).child(i);
                    self.errors.push(text_mismatch(item, &path));
                }
            }
        }
        Some(texts)
    }

    /// A map of free names to texts, in the order as written; `None` if absent or null. A null
    /// value is an empty text.
    pub fn string_map(&mut self, key: &str) -> Option<Vec<(String, String)>> {
        let entries = self.map_of(key, ValueKind::TextMap)?;
        let path = self.path.child(key);
        let mut texts = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            match node.as_text() {
                Some(text) => texts.push((name.text.clone(), text.to_owned())),
                None if node.is_null() => texts.push((name.text.clone(), String::new())),
                None => self
                    .errors
                    .push(text_mismatch(node, &path.child(&name.text))),
            }
        }
        Some(texts)
    }

    /// A map of free names to secrets, such as headers; `None` if absent or null. The collector
    /// also takes a list of maps with `name` and `value`, no name twice, and so does this.
    pub fn secret_map(&mut self, key: &str) -> Option<Vec<(String, Secret)>> {
        if matches!(self.peek(key), Some((_, n)) if n.as_list().is_some()) {
            let pairs = self.section_list(key, |item| {
                let name = item.string_required("name");
                let value = item.secret("value").unwrap_or_default();
                Some((name?, value))
            })?;
            let pairs: Vec<(String, Secret)> = pairs.into_iter().flatten().collect();
            for (n, (name, _)) in pairs.iter().enumerate() {
                if pairs[..n].iter().any(|(before, _)| before == name) {
                    self.invalid(key, format!("{} is there twice", quote(name)));
                }
            }
            return Some(pairs);
        }
        let entries = self.map_of(key, ValueKind::SecretMap)?;
        let path = self.path.child(key);
        let mut secrets = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            match node.as_text() {
                Some(text) => secrets.push((name.text.clone(), Secret::new(text))),
                None if node.is_null() => secrets.push((name.text.clone(), Secret::default())),
                None => {
                    let found = format!("{} (not shown)", node.type_name());
                    let at = path.child(&name.text);
                    let error = ConfigError::new(node.span.clone(), at, "").found(found);
                    self.errors.push(error.allowed("a string"));
                }
            }
        }
        Some(secrets)
    }
}

fn decode_node<'n, T>(
    node: &'n Node,
    path: KeyPath,
    outer: &mut Section<'n, '_>,
    decode: impl FnOnce(&mut Section<'n, '_>) -> T,
) -> T {
    let mut inner = outer.inner(Some(node), path);
    let value = decode(&mut inner);
    inner.finish();
    value
}

fn text_mismatch(node: &Node, path: &KeyPath) -> ConfigError {
    mismatch(node, path, "a string").suggest(node.text.as_deref())
}
