//! Strict decoding of a map into typed options, reporting every problem at once.
//!
//! A [`Section`] reads one map. Each getter names an option, gives its value or its default, and
//! records a problem if the value does not fit; decoding goes on with the default. Whatever key
//! no getter asked for is reported by [`Section::finish`], with the nearest of the names that
//! were asked for, so the code that decodes is also the list of what is allowed.
//!
//! Typing is strict as in the collector: a number is no string, unless it came out of `${}`.
//! A null keeps the default.

mod nested;
mod recorded;
mod scalars;
#[cfg(test)]
mod tests;

use crate::error::{ConfigError, Errors, KeyPath, Warning};
use crate::node::{Key, Node, NodeValue, Span, quote};
use crate::reference::{ANY_NAME, SAMPLES, ValueKind};
use crate::suggest::{name_list, nearest};

/// A map being decoded.
#[must_use = "keys nobody asked for are reported by finish()"]
pub struct Section<'n, 'e> {
    entries: &'n [(Key, Node)],
    span: Span,
    path: KeyPath,
    errors: &'e mut Errors,
    /// Per entry, whether a getter asked for it.
    read: Vec<bool>,
    /// Names that getters asked for, in that order.
    known: Vec<String>,
    /// The node is no map: that was reported, and missing options are not reported again.
    broken: bool,
    /// Unknown names are warnings, here and below.
    tolerant: bool,
}

impl<'n, 'e> Section<'n, 'e> {
    /// Begins to read a map. A null is an empty map; anything else is a problem, after which all
    /// getters give their defaults.
    pub fn new(node: &'n Node, path: impl Into<KeyPath>, errors: &'e mut Errors) -> Self {
        let path = path.into();
        let (entries, broken): (&[_], bool) = match &node.value {
            NodeValue::Map(entries) => (entries, false),
            NodeValue::Null => (&[], false),
            _ => {
                errors.push(mismatch(node, &path, "a map"));
                (&[], true)
            }
        };
        let read = vec![false; entries.len()];
        errors.begin_recorded(&path);
        Self {
            entries,
            span: node.span.clone(),
            path,
            errors,
            read,
            known: Vec::new(),
            broken,
            tolerant: false,
        }
    }

    /// Begins to read a map that is not there: every getter gives its default. `span` is where
    /// problems such as a missing required option point to.
    pub fn absent(span: Span, path: impl Into<KeyPath>, errors: &'e mut Errors) -> Self {
        let path = path.into();
        errors.begin_recorded(&path);
        Self {
            entries: &[],
            span,
            path,
            errors,
            read: Vec::new(),
            known: Vec::new(),
            broken: false,
            tolerant: false,
        }
    }

    /// Makes warnings of unknown names, here and in what is below, where the collector takes no notice of
    /// them.
    pub fn tolerate_unknown(&mut self) {
        self.tolerant = true;
    }

    /// Begins to read a map below this one, or that there is none.
    fn inner<'s>(&'s mut self, node: Option<&'n Node>, path: KeyPath) -> Section<'n, 's> {
        let tolerant = self.tolerant;
        let inner = match node {
            Some(node) => Section::new(node, path, self.errors),
            None => Section::absent(self.span.clone(), path, self.errors),
        };
        Section { tolerant, ..inner }
    }

    /// Where this section stands in the configuration.
    pub fn path(&self) -> &KeyPath {
        &self.path
    }

    /// Where this section was written.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Where the value of an option was written, or this section if the option is not given.
    pub fn span_of(&self, key: &str) -> Span {
        self.peek(key)
            .map_or_else(|| self.span.clone(), |(_, node)| node.span.clone())
    }

    /// Whether the option is written, and not as null. Does not count as reading it.
    pub fn is_given(&mut self, key: &str) -> bool {
        let written = self.peek(key).is_some_and(|(_, node)| !node.is_null());
        written || self.way(key, "has", 2) == 1
    }

    /// Whether the option is written, even as null. Does not count as reading it.
    pub fn has(&mut self, key: &str) -> bool {
        self.way(key, "has", 2) == 1 || self.peek(key).is_some()
    }

    /// The names that were asked for so far.
    pub fn known_keys(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str)
    }

    /// The collection of problems, for decoding that goes beyond this type.
    pub fn errors(&mut self) -> &mut Errors {
        self.errors
    }

    /// Records a problem with the whole section.
    pub fn error(&mut self, message: impl Into<String>) {
        self.errors
            .push(ConfigError::new(self.span.clone(), &self.path, message));
    }

    /// Records a problem with the value of an option, at its position.
    pub fn invalid(&mut self, key: &str, message: impl Into<String>) {
        let error = ConfigError::new(self.span_of(key), self.path.child(key), message);
        self.errors.push(error);
    }

    /// Records a warning about an option, at its position.
    pub fn warn(&mut self, key: &str, message: impl Into<String>) {
        let (span, path) = (Some(self.span_of(key)), self.path.child(key));
        self.errors.warn(Warning {
            span,
            path,
            message: message.into(),
        });
    }

    /// Refuses an option by name: it is a problem if it is written, even as null. `why` says why
    /// it is not supported and what to do instead.
    pub fn refuse(&mut self, key: &str, why: &str) {
        self.record(|recording, path| recording.refuse(&path.child(key), why));
        // Not registered as known: what is refused is not suggested.
        if let Some(i) = self.position(key) {
            self.read[i] = true;
            let (key, _) = &self.entries[i];
            let error = ConfigError::new(
                key.span.clone(),
                self.path.child(&key.text),
                format!("is not supported: {why}"),
            );
            self.errors.push(error);
        }
    }

    /// Reads the raw value of an option that takes any; `None` if it is not written. A null is given as
    /// such.
    pub fn node(&mut self, key: &str) -> Option<&'n Node> {
        self.node_of(key, || vec![ValueKind::Any])
    }

    /// As [`Section::node`], of an option that takes values of these kinds, which the caller checks.
    pub fn node_of(
        &mut self,
        key: &str,
        kinds: impl FnOnce() -> Vec<ValueKind>,
    ) -> Option<&'n Node> {
        if self.is_recording() {
            for kind in kinds() {
                self.note(key, || kind);
            }
        }
        match self.way(key, "node", 4) {
            1 => Some(&SAMPLES.map),
            2 => Some(&SAMPLES.text),
            3 => Some(&SAMPLES.list),
            _ => self.take(key).map(|(_, node)| node),
        }
    }

    /// Reads every key that nobody asked for yet, with its value: for sections whose keys are
    /// free names. Values are of these kinds, which the caller checks.
    pub fn remaining(
        &mut self,
        kinds: impl FnOnce() -> Vec<ValueKind>,
    ) -> Vec<(&'n Key, &'n Node)> {
        let mut rest = Vec::new();
        if self.is_recording() {
            for kind in kinds() {
                self.note(ANY_NAME, || kind);
            }
            let (key, node) = &SAMPLES.entry;
            return vec![(key, node)];
        }
        for (i, (key, node)) in self.entries.iter().enumerate() {
            if !std::mem::replace(&mut self.read[i], true) {
                rest.push((key, node));
            }
        }
        rest
    }

    /// Ends reading: every key that no getter asked for is a problem, with the nearest name that
    /// is allowed; or a warning, see [`Section::tolerate_unknown`].
    pub fn finish(self) {
        for ((key, _), read) in self.entries.iter().zip(&self.read) {
            if *read {
                continue;
            }
            let names = || self.known.iter().map(String::as_str);
            let path = &self.path;
            if self.tolerant {
                let name = quote(&key.text);
                let mut message = format!("unknown option {name}: the collector ignores it, too");
                if let Some(meant) = nearest(&key.text, names()) {
                    message += &format!("; did you mean {}?", quote(meant));
                }
                self.errors.warn(Warning {
                    span: Some(key.span.clone()),
                    path: path.child(&key.text),
                    message,
                });
                continue;
            }
            self.errors.push_with(|| {
                let message = format!("unknown option {}", quote(&key.text));
                ConfigError::new(key.span.clone(), path.child(&key.text), message)
                    .allowed(name_list(names()))
                    .suggest(nearest(&key.text, names()))
            });
        }
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|(k, _)| k.text == key)
    }

    fn peek(&self, key: &str) -> Option<&'n (Key, Node)> {
        self.entries.iter().find(|(k, _)| k.text == key)
    }

    /// Registers the name and gives the entry.
    fn take(&mut self, key: &str) -> Option<&'n (Key, Node)> {
        if !self.known.iter().any(|k| k == key) {
            self.known.push(key.to_owned());
        }
        let i = self.position(key)?;
        self.read[i] = true;
        Some(&self.entries[i])
    }

    /// As `take`, without nulls that were written as such.
    fn value(&mut self, key: &str) -> Option<&'n Node> {
        self.take(key)
            .map(|(_, node)| node)
            .filter(|node| !node.is_null())
    }

    fn reject(&mut self, node: &Node, key: &str, expected: &str) {
        let error = mismatch(node, &self.path.child(key), expected);
        self.errors.push(error);
    }

    fn missing(&mut self, key: &str) {
        if !self.broken {
            let span = self.span_of(key);
            self.errors
                .push(ConfigError::new(span, self.path.child(key), "is required"));
        }
    }
}

/// The problem that a value has another type or form than expected. A value in place of a section
/// is not shown: it may be the secret that one of its options should hold.
pub(crate) fn mismatch(node: &Node, path: &KeyPath, expected: &str) -> ConfigError {
    let found = if expected.starts_with("a map") {
        node.type_name().to_owned()
    } else {
        node.describe()
    };
    ConfigError::new(node.span.clone(), path, "")
        .found(found)
        .allowed(expected)
}
