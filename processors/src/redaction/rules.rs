//! What is to become of a key and of a value.

use std::collections::{HashMap, HashSet};

use regex::bytes::Regex;
use tailwater_pdata::ValueRef;

use super::mask::Mask;
use super::patterns::Finder;
use super::summary::{self, Summary};

/// Keys whose fate is remembered at most. Beyond them all are looked at anew.
const REMEMBERED_MAX: usize = 4096;

/// What a `redaction` does.
#[derive(Clone, Debug)]
pub struct Rules {
    pub(super) allow_all_keys: bool,
    pub(super) allowed_keys: HashSet<Box<str>>,
    pub(super) ignored_keys: HashSet<Box<str>>,
    pub(super) ignored_key_patterns: Vec<Regex>,
    pub(super) blocked_key_patterns: Vec<Regex>,
    pub(super) allowed_values: Vec<Regex>,
    pub(super) blocked: Vec<Finder>,
    pub(super) redact_all_types: bool,
    pub(super) mask: Mask,
    pub(super) summary: Summary,
}

/// What becomes of what a key stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyFate {
    /// It stays, whatever its value is.
    Ignored,
    /// It goes.
    Removed,
    /// Its value is masked.
    Masked,
    /// Its value decides.
    Checked,
}

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ValueFate {
    /// It stays.
    Same,
    /// It stays because it is allowed by name.
    Allowed,
    /// It becomes the text that [`Judge::masked_text`] gives.
    Masked,
}

impl Rules {
    /// True if nothing can ever change.
    pub fn is_idle(&self) -> bool {
        let says_so = self.summary != Summary::Silent;
        let reports = says_so
            && !(self.ignored_keys.is_empty()
                && self.ignored_key_patterns.is_empty()
                && self.allowed_values.is_empty());
        self.allow_all_keys
            && self.blocked.is_empty()
            && self.blocked_key_patterns.is_empty()
            && !reports
    }

    fn fate_of(&self, key: &str) -> KeyFate {
        let any = |patterns: &[Regex]| patterns.iter().any(|p| p.is_match(key.as_bytes()));
        if self.ignored_keys.contains(key) || any(&self.ignored_key_patterns) {
            KeyFate::Ignored
        } else if !self.allow_all_keys
            && !self.allowed_keys.contains(key)
            && !summary::KEYS.contains(&key)
        {
            KeyFate::Removed
        } else if any(&self.blocked_key_patterns) {
            KeyFate::Masked
        } else {
            KeyFate::Checked
        }
    }

    fn looks_at_keys(&self) -> bool {
        !self.allow_all_keys
            || !self.ignored_keys.is_empty()
            || !self.ignored_key_patterns.is_empty()
            || !self.blocked_key_patterns.is_empty()
    }

    fn is_allowed(&self, text: &[u8]) -> bool {
        self.allowed_values.iter().any(|p| p.is_match(text))
    }
}

/// Applies rules, with the buffers that it takes.
pub(super) struct Judge {
    pub rules: Rules,
    looks_at_keys: bool,
    /// What a value that is no text counts as, unless all types are looked at: empty text.
    empty: ValueFate,
    fates: HashMap<Box<str>, KeyFate>,
    text: Vec<u8>,
    out: Vec<u8>,
    next: Vec<u8>,
    /// Values that were masked since the last time this was taken.
    pub masked: u64,
    /// Attributes and fields that were removed.
    pub removed: u64,
}

impl Judge {
    pub fn new(rules: Rules) -> Judge {
        let empty = match rules.is_allowed(b"") {
            true => ValueFate::Allowed,
            false if rules.blocked.iter().any(|f| f.is_in(b"")) => ValueFate::Masked,
            false => ValueFate::Same,
        };
        Judge {
            looks_at_keys: rules.looks_at_keys(),
            empty,
            rules,
            fates: HashMap::new(),
            text: Vec::new(),
            out: Vec::new(),
            next: Vec::new(),
            masked: 0,
            removed: 0,
        }
    }

    /// Whether what was done is to be told in the data.
    pub fn tells(&self) -> bool {
        self.rules.summary != Summary::Silent
    }

    /// What becomes of `key`.
    pub fn key(&mut self, key: &str) -> KeyFate {
        if !self.looks_at_keys {
            return KeyFate::Checked;
        }
        if let Some(fate) = self.fates.get(key) {
            return *fate;
        }
        let fate = self.rules.fate_of(key);
        if self.fates.len() >= REMEMBERED_MAX {
            self.fates.clear();
        }
        self.fates.insert(key.into(), fate);
        fate
    }

    /// What becomes of the value of an attribute; `masked_key` if its key is blocked.
    pub fn attribute(&mut self, masked_key: bool, value: ValueRef<'_>) -> ValueFate {
        let all = self.rules.redact_all_types;
        if !all && !masked_key && self.empty == ValueFate::Same && value.as_text().is_none() {
            return ValueFate::Same;
        }
        self.text_of(value, all, |judge, text| {
            if judge.rules.is_allowed(text) {
                ValueFate::Allowed
            } else if masked_key {
                judge.mask_whole(text)
            } else {
                judge.mask_parts(text)
            }
        })
    }

    /// What becomes of a field of a body whose key is blocked. What is no text counts as empty text.
    pub fn blocked_field(&mut self, value: ValueRef<'_>) -> ValueFate {
        self.text_of(value, false, Judge::mask_whole)
    }

    /// What becomes of a body, or of a value in it, that is neither a map nor a list.
    pub fn body(&mut self, value: ValueRef<'_>) -> ValueFate {
        self.text_of(value, true, |judge, text| {
            match judge.rules.is_allowed(text) {
                true => ValueFate::Allowed,
                false => judge.mask_parts(text),
            }
        })
    }

    /// The text that a masked value becomes, until the next value is looked at.
    pub fn masked_text(&self) -> &[u8] {
        &self.out
    }

    /// Hands on the text of a value: of one that is no text the form that the collector prints, or nothing.
    fn text_of(
        &mut self,
        value: ValueRef<'_>,
        all_types: bool,
        then: impl FnOnce(&mut Judge, &[u8]) -> ValueFate,
    ) -> ValueFate {
        match value {
            ValueRef::Str(text) => then(self, text),
            _ if !all_types => then(self, b""),
            other => {
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                other.write_string(&mut text);
                let fate = then(self, &text);
                self.text = text;
                fate
            }
        }
    }

    fn mask_whole(&mut self, text: &[u8]) -> ValueFate {
        self.out.clear();
        let lines = 1 + text.iter().filter(|b| **b == b'\n').count();
        match lines > WHOLE_LINES_MAX {
            true => self.rules.mask.put(text, &mut self.out),
            false => self.rules.mask.put_lines(text, &mut self.out),
        }
        self.masked += 1;
        ValueFate::Masked
    }

    /// Masks all that is blocked in `text`, pattern after pattern.
    fn mask_parts(&mut self, text: &[u8]) -> ValueFate {
        let mut touched = false;
        for finder in &self.rules.blocked {
            let current = if touched { &self.out[..] } else { text };
            if !finder.is_in(current) {
                continue;
            }
            self.next.clear();
            let (mut at, mut whole) = (0, false);
            let next = &mut self.next;
            finder.each(current, |range| {
                whole |= next.len() > longest(text.len());
                if whole {
                    return;
                }
                next.extend_from_slice(&current[at..range.start]);
                self.rules.mask.put(&current[range.clone()], next);
                at = range.end;
            });
            if whole {
                next.clear();
                self.rules.mask.put(text, next);
            } else {
                next.extend_from_slice(&current[at..]);
            }
            std::mem::swap(&mut self.out, &mut self.next);
            touched = true;
            if whole {
                break;
            }
        }
        if !touched || self.out == text {
            return ValueFate::Same;
        }
        self.masked += 1;
        ValueFate::Masked
    }
}

/// A blocked value with more lines than this is masked as one.
const WHOLE_LINES_MAX: usize = 64;

/// How long the text of a value may grow by what is put in; beyond it the whole value is masked as
/// one. A pattern that matches every letter would make text a hundred times as long.
fn longest(length: usize) -> usize {
    8 * length + 512
}
