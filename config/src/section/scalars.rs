//! Getters of options with one value.

use std::fmt::Display;
use std::ops::RangeBounds;
use std::time::Duration;

use crate::component_id::ComponentId;
use crate::duration::{DURATION_FORM, format_duration, parse_duration};
use crate::error::{ConfigError, DefaultValue};
use crate::node::{Node, NodeValue, quote};
use crate::reference::{Bounds, SAMPLE, ValueKind};
use crate::secret::Secret;
use crate::section::Section;
use crate::section::recorded::{bounds, one_of};
use crate::size::{BYTE_SIZE_FORM, parse_byte_size};
use crate::suggest::{name_list, nearest};

impl<'n> Section<'n, '_> {
    /// A switch.
    pub fn bool(&mut self, key: &str, default: bool) -> bool {
        let value = self.bool_optional(key);
        self.or_default(key, value, default, bool::to_string)
    }

    /// A switch that may be left open.
    pub fn bool_optional(&mut self, key: &str) -> Option<bool> {
        self.note(key, || ValueKind::Bool);
        match self.way(key, "switch", 3) {
            0 => {}
            way => return Some(way == 1),
        }
        let node = self.value(key)?;
        let value = node.as_bool();
        if value.is_none() {
            self.reject(node, key, "true, false");
        }
        value
    }

    /// A text. A number is no text, unless it came out of `${}`.
    pub fn string(&mut self, key: &str, default: &str) -> String {
        let value = self.str_optional(key).map(str::to_owned);
        self.or_default(key, value, default.to_owned(), |text| quote(text))
    }

    /// A text that may be left out.
    pub fn string_optional(&mut self, key: &str) -> Option<String> {
        self.str_optional(key).map(str::to_owned)
    }

    /// A text that may be left out, borrowed from the configuration.
    pub fn str_optional(&mut self, key: &str) -> Option<&'n str> {
        self.note(key, || ValueKind::Text);
        if self.way(key, "text", 2) == 1 {
            return Some(SAMPLE);
        }
        let (_, node) = self.take(key)?;
        match node.as_text() {
            Some(text) => Some(text),
            None if node.is_null() => None,
            None => {
                let error = string_mismatch(node, self, key);
                self.errors().push(error);
                None
            }
        }
    }

    /// A text that must be given and must not be empty.
    pub fn string_required(&mut self, key: &str) -> Option<String> {
        if self.is_recording() {
            self.note(key, || ValueKind::Text);
            self.record(|recording, path| recording.require(&path.child(key)));
            return Some(SAMPLE.to_owned());
        }
        let before = self.errors().len();
        match self.str_optional(key) {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => {
                if self.errors().len() == before {
                    self.missing(key);
                }
                None
            }
        }
    }

    /// A text that is never shown, not even in problems.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        self.note(key, || ValueKind::Secret);
        if self.way(key, "text", 2) == 1 {
            return Some(Secret::new(SAMPLE));
        }
        let (_, node) = self.take(key)?;
        match node.as_text() {
            Some(text) => Some(Secret::new(text)),
            None if node.is_null() => None,
            None => {
                let found = format!("{} (not shown)", node.type_name());
                let path = self.path().child(key);
                let error = ConfigError::new(node.span.clone(), path, "").found(found);
                self.errors().push(error.allowed("a string"));
                None
            }
        }
    }

    /// As [`Section::secret`], but it must be given and must not be empty.
    pub fn secret_required(&mut self, key: &str) -> Option<Secret> {
        self.record(|recording, path| recording.require(&path.child(key)));
        let before = self.errors().len();
        let secret = self.secret(key).filter(|s| !s.is_empty());
        if secret.is_none() && self.errors().len() == before {
            self.missing(key);
        }
        secret
    }

    /// A whole number within a range.
    pub fn i64(&mut self, key: &str, default: i64, range: impl RangeBounds<i64>) -> i64 {
        let value = self.i64_optional(key, range);
        self.or_default(key, value, default, i64::to_string)
    }

    /// A whole number within a range that may be left out.
    pub fn i64_optional(&mut self, key: &str, range: impl RangeBounds<i64>) -> Option<i64> {
        self.integer(key, &range)
    }

    /// A whole number from 0 within a range.
    pub fn u64(&mut self, key: &str, default: u64, range: impl RangeBounds<u64>) -> u64 {
        let value = self.u64_optional(key, range);
        self.or_default(key, value, default, u64::to_string)
    }

    /// A whole number from 0 within a range that may be left out.
    pub fn u64_optional(&mut self, key: &str, range: impl RangeBounds<u64>) -> Option<u64> {
        self.integer(key, &range)
    }

    /// A count within a range.
    pub fn usize(&mut self, key: &str, default: usize, range: impl RangeBounds<usize>) -> usize {
        let value = self.usize_optional(key, range);
        self.or_default(key, value, default, usize::to_string)
    }

    /// A count within a range that may be left out.
    pub fn usize_optional(&mut self, key: &str, range: impl RangeBounds<usize>) -> Option<usize> {
        self.integer(key, &range)
    }

    /// A number within a range. A whole number is one as well; `.nan` is none.
    pub fn f64(&mut self, key: &str, default: f64, range: impl RangeBounds<f64>) -> f64 {
        let value = self.f64_optional(key, range);
        self.or_default(key, value, default, f64::to_string)
    }

    /// A number within a range that may be left out.
    pub fn f64_optional(&mut self, key: &str, range: impl RangeBounds<f64>) -> Option<f64> {
        self.note(key, || {
            ValueKind::Number(bounds(&range, f64::to_string, |n| Some(*n)))
        });
        let node = self.value(key)?;
        let value = node.as_f64().filter(|x| !x.is_nan() && range.contains(x));
        if value.is_none() {
            self.reject(
                node,
                key,
                &describe_range("a number", &range, f64::to_string),
            );
        }
        value
    }

    /// A duration that is not negative: Go's syntax, or whole nanoseconds without a unit.
    pub fn duration(&mut self, key: &str, default: Duration) -> Duration {
        let value = self.duration_optional(key);
        self.or_default(key, value, default, show_duration)
    }

    /// A duration that may be left out.
    pub fn duration_optional(&mut self, key: &str) -> Option<Duration> {
        self.duration_in_optional(key, ..)
    }

    /// A duration within a range.
    pub fn duration_in(
        &mut self,
        key: &str,
        default: Duration,
        range: impl RangeBounds<Duration>,
    ) -> Duration {
        let value = self.duration_in_optional(key, range);
        self.or_default(key, value, default, show_duration)
    }

    /// A duration within a range that may be left out.
    pub fn duration_in_optional(
        &mut self,
        key: &str,
        range: impl RangeBounds<Duration>,
    ) -> Option<Duration> {
        self.note(key, || {
            ValueKind::Duration(bounds(&range, show_duration, |d| Some(d.as_nanos() as f64)))
        });
        let node = self.value(key)?;
        let nanoseconds = self.nanoseconds(node, key)?;
        let value = u64::try_from(nanoseconds).ok().map(Duration::from_nanos);
        match value {
            Some(value) if range.contains(&value) => Some(value),
            Some(_) => {
                self.reject(
                    node,
                    key,
                    &describe_range("a duration", &range, show_duration),
                );
                None
            }
            None => {
                self.reject(node, key, "a duration that is not negative");
                None
            }
        }
    }

    /// A duration that may be negative, in nanoseconds.
    pub fn duration_signed(&mut self, key: &str, default_nanoseconds: i64) -> i64 {
        self.record(|recording, path| {
            let path = path.child(key);
            recording.note(&path, ValueKind::Duration(Bounds::default()));
            recording.set_default(&path, format_duration(default_nanoseconds));
        });
        match self.value(key) {
            Some(node) => self.nanoseconds(node, key).unwrap_or(default_nanoseconds),
            None => default_nanoseconds,
        }
    }

    /// A number of bytes within a range, plain or with a unit (`16MiB`, `1kb`).
    pub fn byte_size(&mut self, key: &str, default: u64, range: impl RangeBounds<u64>) -> u64 {
        let value = self.byte_size_optional(key, range);
        self.or_default(key, value, default, show_bytes)
    }

    /// A number of bytes within a range that may be left out.
    pub fn byte_size_optional(&mut self, key: &str, range: impl RangeBounds<u64>) -> Option<u64> {
        self.note(key, || {
            ValueKind::Bytes(bounds(&range, show_bytes, |n| Some(*n as f64)))
        });
        let node = self.value(key)?;
        let size = match &node.value {
            NodeValue::Int(i) => u64::try_from(*i).ok(),
            NodeValue::Str(text) => parse_byte_size(text),
            // As the collector: a fraction of a byte is cut off. The bound is exact in a double.
            NodeValue::Float(x) if *x >= 0.0 && *x < 9_223_372_036_854_775_808.0 => Some(*x as u64),
            _ => None,
        };
        match size {
            Some(size) if range.contains(&size) => return Some(size),
            Some(_) => self.reject(
                node,
                key,
                &describe_range("a number of bytes", &range, u64::to_string),
            ),
            None => self.reject(node, key, BYTE_SIZE_FORM),
        }
        None
    }

    /// One of some names, compared exactly.
    pub fn one_of<'a>(&mut self, key: &str, allowed: &[&'a str], default: &'a str) -> &'a str {
        let value = self.one_of_optional(key, allowed);
        self.or_default(key, value, default, |name| (*name).to_owned())
    }

    /// One of some names that may be left out.
    pub fn one_of_optional<'a>(&mut self, key: &str, allowed: &[&'a str]) -> Option<&'a str> {
        self.note(key, || one_of(allowed.iter().copied(), false));
        if let Some(shown) = self.way(key, "name", allowed.len() + 1).checked_sub(1) {
            return allowed.get(shown).copied();
        }
        let (_, node) = self.take(key)?;
        let Some(text) = node.as_text() else {
            if !node.is_null() {
                self.reject(node, key, &name_list(allowed.iter().copied()));
            }
            return None;
        };
        let value = allowed.iter().find(|name| **name == text).copied();
        if value.is_none() {
            let near = nearest(text, allowed.iter().copied());
            let path = self.path().child(key);
            let error = ConfigError::new(node.span.clone(), path, "").found(quote(text));
            self.errors().push(
                error
                    .allowed(name_list(allowed.iter().copied()))
                    .suggest(near),
            );
        }
        value
    }

    /// One of some names, each standing for a value.
    pub fn choice<T: Clone + PartialEq>(
        &mut self,
        key: &str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        let value = self.choice_optional(key, choices);
        self.or_default(key, value, default, |default| {
            let name = choices.iter().find(|(_, value)| value == default);
            name.map_or("", |(name, _)| *name).to_owned()
        })
    }

    /// One of some names, each standing for a value, that may be left out.
    pub fn choice_optional<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let name = self.one_of_optional(key, &names)?;
        choices
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value.clone())
    }

    /// As [`Section::choice`] where the case of the word does not count, as with the collector's
    /// levels.
    pub fn choice_any_case<T: Clone + PartialEq>(
        &mut self,
        key: &str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        self.note(key, || one_of(choices.iter().map(|(name, _)| *name), true));
        let written = self.peek(key).and_then(|(_, node)| node.as_text());
        let same = written.and_then(|w| choices.iter().find(|(n, _)| n.eq_ignore_ascii_case(w)));
        match same {
            Some((_, value)) => {
                self.take(key);
                value.clone()
            }
            None => self.choice(key, choices, default),
        }
    }

    /// The id of a component, as in `storage: file_storage/a`; it is not looked up here.
    pub fn component_id(&mut self, key: &str) -> Option<ComponentId> {
        self.note(key, || ValueKind::ComponentId);
        if self.is_recording() {
            let shown = self.way(key, "id", 2) == 1;
            return shown.then(|| ComponentId::parse(SAMPLE).ok()).flatten();
        }
        let span = self.span_of(key);
        let text = self.str_optional(key)?;
        match ComponentId::parse(text) {
            Ok(id) => Some(id),
            Err(error) => {
                let path = self.path().child(key);
                self.errors()
                    .push(ConfigError::new(span, path, error.to_string()));
                None
            }
        }
    }

    /// The value, or the default, of which account is taken unless something else was written.
    fn or_default<T>(
        &mut self,
        key: &str,
        value: Option<T>,
        default: T,
        show: impl Fn(&T) -> String,
    ) -> T {
        self.record(|recording, path| recording.set_default(&path.child(key), show(&default)));
        let is_written = self.peek(key).is_some_and(|(_, node)| !node.is_null());
        if value.is_none() && !is_written {
            let default = DefaultValue {
                span: self.span().clone(),
                path: self.path().child(key),
                value: show(&default),
            };
            self.errors().note_default(default);
        }
        value.unwrap_or(default)
    }

    fn integer<T>(&mut self, key: &str, range: &impl RangeBounds<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        self.note(key, || {
            ValueKind::Integer(bounds(range, T::to_string, |n| n.to_string().parse().ok()))
        });
        let node = self.value(key)?;
        let value = whole_number(node);
        let value = value
            .and_then(|v| T::try_from(v).ok())
            .filter(|v| range.contains(v));
        if value.is_none() {
            self.reject(
                node,
                key,
                &describe_range("an integer", range, T::to_string),
            );
        }
        value
    }

    fn nanoseconds(&mut self, node: &Node, key: &str) -> Option<i64> {
        let value = match &node.value {
            NodeValue::Str(text) => parse_duration(text),
            _ => whole_number(node).and_then(|v| i64::try_from(v).ok()),
        };
        match value {
            None => self.reject(node, key, DURATION_FORM),
            Some(n) if n != 0 && !matches!(node.value, NodeValue::Str(_)) => {
                let means = format_duration(n);
                self.warn(key, format!("{n} without a unit is {means}; write a unit"));
            }
            Some(_) => {}
        }
        value
    }
}

/// An integer, or a float that is whole and exact in a double, as the collector converts it.
fn whole_number(node: &Node) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match node.value {
        NodeValue::Int(i) => Some(i128::from(i)),
        NodeValue::Float(x) if x.fract() == 0.0 && x.abs() <= EXACT => Some(x as i128),
        // Integers beyond 63 bits are kept as text.
        NodeValue::Float(_) => node.text.as_deref()?.parse().ok(),
        _ => None,
    }
}

fn string_mismatch(node: &Node, section: &Section<'_, '_>, key: &str) -> ConfigError {
    let path = section.path().child(key);
    // A scalar is probably meant as text: show it in quotes.
    let quoted = node.text.as_deref().map(str::to_owned);
    ConfigError::new(node.span.clone(), path, "")
        .found(format!("{} ({})", node.describe(), node.type_name()))
        .allowed("a string")
        .suggest(quoted)
}

fn show_duration(value: &Duration) -> String {
    i64::try_from(value.as_nanos()).map_or_else(|_| format!("{value:?}"), format_duration)
}

/// A number of bytes, in the largest unit that it is a whole number of.
fn show_bytes(bytes: &u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units
        .iter()
        .find(|(bits, _)| *bytes > 0 && bytes.is_multiple_of(1 << bits));
    match unit {
        Some((bits, unit)) => format!("{}{unit}", bytes >> bits),
        None => bytes.to_string(),
    }
}

fn describe_range<T: PartialOrd>(
    what: &str,
    range: &impl RangeBounds<T>,
    show: impl Fn(&T) -> String,
) -> String {
    let limits = bounds(range, show, |_| None).text;
    format!("{what} {limits}").trim().to_owned()
}
