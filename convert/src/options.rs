//! Reading a map of a foreign configuration so that no key is left out in silence.

use tailwater_config::{Node, NodeValue, Span};

use crate::note::{Notes, Weight};

/// A map that is being read. What nobody asked for is noted by [`Options::rest`].
pub struct Options<'n> {
    /// Where it stands, for notes.
    pub path: String,
    /// Where it was written.
    pub span: Span,
    node: &'n Node,
    read: Vec<&'n str>,
}

impl<'n> Options<'n> {
    /// Begins to read. A node that is no map has no keys.
    pub fn new(node: &'n Node, path: impl Into<String>) -> Options<'n> {
        Options {
            path: path.into(),
            span: node.span.clone(),
            node,
            read: Vec::new(),
        }
    }

    /// The path of an option.
    pub fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// A value; `None` if it is not there or null.
    pub fn node(&mut self, key: &str) -> Option<&'n Node> {
        let (key, node) = self.node.entry(key)?;
        self.read.push(&key.text);
        Some(node).filter(|n| !n.is_null())
    }

    /// Whether a key is there, with whatever value; it counts as read.
    pub fn has(&mut self, key: &str) -> bool {
        let found = self.node.entry(key);
        if let Some((key, _)) = found {
            self.read.push(&key.text);
        }
        found.is_some()
    }

    /// A scalar as text.
    pub fn text(&mut self, key: &str) -> Option<String> {
        text(self.node(key)?)
    }

    /// A boolean.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.node(key)?.as_bool()
    }

    /// A number.
    pub fn number(&mut self, key: &str) -> Option<f64> {
        self.node(key)?.as_f64()
    }

    /// Another map in it.
    pub fn sub(&mut self, key: &str) -> Option<Options<'n>> {
        let path = self.path_of(key);
        Some(Options::new(self.node(key)?, path))
    }

    /// The elements of a list, or a single value as a list of one.
    pub fn list(&mut self, key: &str) -> Vec<&'n Node> {
        match self.node(key) {
            None => Vec::new(),
            Some(node) => match &node.value {
                NodeValue::List(items) => items.iter().collect(),
                _ => vec![node],
            },
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &str) -> Vec<String> {
        self.list(key).into_iter().filter_map(text).collect()
    }

    /// The entries of a map.
    pub fn entries(&mut self, key: &str) -> Vec<(String, &'n Node)> {
        let node = self.node(key);
        let entries = node.and_then(Node::as_map).unwrap_or_default();
        entries.iter().map(|(k, n)| (k.text.clone(), n)).collect()
    }

    /// Notes an option; gives the comment.
    pub fn note(&self, notes: &mut Notes, weight: Weight, key: &str, say: &str) -> String {
        let span = self.node.entry(key).map_or(&self.span, |(k, _)| &k.span);
        notes.add(weight, span, &self.path_of(key), say)
    }

    /// If an option is there: notes it, and gives the comment.
    pub fn remark(
        &mut self,
        notes: &mut Notes,
        weight: Weight,
        key: &str,
        say: &str,
    ) -> Option<String> {
        self.has(key).then(|| self.note(notes, weight, key, say))
    }

    /// Notes every option that nobody asked for; gives the comments.
    pub fn rest(self, notes: &mut Notes) -> Vec<String> {
        let all = self.node.as_map().unwrap_or_default();
        let left = all
            .iter()
            .filter(|(k, _)| !self.read.iter().any(|r| *r == k.text));
        left.map(|(k, n)| {
            let say = format!("nothing here does this; it was {}", shown(&k.text, n));
            notes.add(Weight::NoEqual, &k.span, &self.path_of(&k.text), say)
        })
        .collect()
    }
}

/// A scalar as text; `None` of a map, a list or a null.
pub fn text(node: &Node) -> Option<String> {
    match &node.value {
        NodeValue::Str(text) => Some(text.clone()),
        NodeValue::Bool(b) => Some(b.to_string()),
        NodeValue::Int(i) => Some(
            node.text
                .as_deref()
                .map_or_else(|| i.to_string(), str::to_owned),
        ),
        NodeValue::Float(x) => Some(
            node.text
                .as_deref()
                .map_or_else(|| x.to_string(), str::to_owned),
        ),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
    }
}

/// A value in a note: short, on one line, and no secret.
fn shown(key: &str, node: &Node) -> String {
    let key = key.to_ascii_lowercase();
    let secret = ["pass", "token", "secret", "credential", "key"];
    match node.value {
        NodeValue::Str(_) if secret.iter().any(|s| key.contains(s)) => "set".to_owned(),
        _ => node.describe(),
    }
}
