//! Which records a processor applies to: `include` and `exclude`.
//!
//! Within one `include` every kind of property that is given must match; of bodies, severity
//! texts and libraries any one is enough, of attributes and resources each one must match.

pub(crate) mod config;
mod encoded;

use std::io::Write;

use regex::bytes::Regex;
use tailwater_pdata::{Key, LogsBatch, Value, ValueRef};

pub use config::{MatchConfig, decode_match, decode_names};
pub(crate) use encoded::{Chosen, Place};

/// One text condition.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// Equal bytes.
    Strict(Box<[u8]>),
    /// Somewhere in the text.
    Regexp(Regex),
}

impl TextMatch {
    /// Whether the text is meant.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            TextMatch::Strict(wanted) => **wanted == *text,
            TextMatch::Regexp(pattern) => pattern.is_match(text),
        }
    }
}

/// What an attribute's value must be.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// The attribute must exist.
    Any,
    /// Same type and same value.
    Equal(Value),
    /// The value as text; lists, maps and bytes never match.
    Regexp(Regex),
}

impl ValueMatch {
    fn matches(&self, value: ValueRef<'_>) -> bool {
        match (self, value) {
            (ValueMatch::Any, _) => true,
            (ValueMatch::Equal(wanted), value) => wanted.as_ref() == value,
            (ValueMatch::Regexp(pattern), ValueRef::Str(text)) => pattern.is_match(text),
            (ValueMatch::Regexp(pattern), ValueRef::Bool(b)) => {
                pattern.is_match(if b { b"true" } else { b"false" })
            }
            (ValueMatch::Regexp(pattern), ValueRef::Int(i)) => matches_shown(pattern, i),
            (ValueMatch::Regexp(pattern), ValueRef::Double(d)) => matches_shown(pattern, d),
            (ValueMatch::Regexp(_), _) => false,
        }
    }
}

/// Longest text of a double: a sign, 309 digits before the point or 324 and more after it.
const NUMBER_TEXT_BYTES_MAX: usize = 400;

/// Matches the text of a number without allocating it.
fn matches_shown(pattern: &Regex, number: impl std::fmt::Display) -> bool {
    let mut buffer = [0_u8; NUMBER_TEXT_BYTES_MAX];
    let mut rest = &mut buffer[..];
    let shown = write!(rest, "{number}");
    let left = rest.len();
    shown.is_ok() && pattern.is_match(&buffer[..NUMBER_TEXT_BYTES_MAX - left])
}

/// A condition on one attribute.
#[derive(Clone, Debug)]
pub struct AttributeMatch {
    /// Its name.
    pub key: Key,
    /// Its value.
    pub value: ValueMatch,
}

/// A condition on the instrumentation scope.
#[derive(Clone, Debug)]
pub struct LibraryMatch {
    /// Its name.
    pub name: TextMatch,
    /// Its version; `None` = any, also none.
    pub version: Option<TextMatch>,
}

/// A condition on the severity number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeverityMatch {
    /// The least severe number that matches, 1..=24.
    pub min: u8,
    /// Whether records without a severity match.
    pub match_undefined: bool,
}

/// Conditions on a log record; empty lists do not count.
#[derive(Clone, Debug, Default)]
pub struct LogMatch {
    /// On the body; only text bodies match.
    pub bodies: Vec<TextMatch>,
    /// On the severity text.
    pub severity_texts: Vec<TextMatch>,
    /// On the severity number.
    pub severity: Option<SeverityMatch>,
    /// On the record's attributes.
    pub attributes: Vec<AttributeMatch>,
    /// On the resource's attributes.
    pub resources: Vec<AttributeMatch>,
    /// On the instrumentation scope.
    pub libraries: Vec<LibraryMatch>,
}

/// Conditions on items of any signal; empty lists do not count.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// What log records are asked, and, of attributes, resources and libraries, spans and metrics, too.
    pub record: LogMatch,
    /// On the attribute `service.name` of the resource of a span.
    pub services: Vec<TextMatch>,
    /// On the name of a span.
    pub span_names: Vec<TextMatch>,
    /// On the kind of a span, as `SPAN_KIND_SERVER`.
    pub span_kinds: Vec<TextMatch>,
    /// On the name of a metric.
    pub metric_names: Vec<TextMatch>,
}

/// True if any matches, or there are none.
fn any_of<'t>(wanted: &[TextMatch], text: impl FnOnce() -> &'t [u8]) -> bool {
    wanted.is_empty() || {
        let text = text();
        wanted.iter().any(|w| w.matches(text))
    }
}

/// `include` and `exclude` for items of one signal.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Items that are processed; `None` = all.
    pub include: Option<Conditions>,
    /// Of those, items that are left alone.
    pub exclude: Option<Conditions>,
}

impl Choice {
    /// The same for log records in columns.
    pub fn for_columns(&self) -> Selection {
        let record = |c: &Option<Conditions>| c.as_ref().map(|c| c.record.clone());
        Selection {
            include: record(&self.include),
            exclude: record(&self.exclude),
        }
    }
}

impl LogMatch {
    fn library_matches(&self, name: &[u8], version: &[u8]) -> bool {
        let one = |library: &LibraryMatch| {
            let wanted = library.version.as_ref();
            library.name.matches(name) && wanted.is_none_or(|v| v.matches(version))
        };
        self.libraries.is_empty() || self.libraries.iter().any(one)
    }

    fn resource_matches(&self, batch: &LogsBatch, row: usize) -> bool {
        let value = |m: &AttributeMatch| batch.resource_attribute(row, &m.key);
        self.resources
            .iter()
            .all(|m| value(m).is_some_and(|v| m.value.matches(v)))
    }

    /// True if all rows of a batch with one resource get the same answer.
    fn is_per_batch(&self) -> bool {
        self.bodies.is_empty()
            && self.severity_texts.is_empty()
            && self.severity.is_none()
            && self.attributes.is_empty()
    }

    fn row_matches(&self, batch: &LogsBatch, row: usize) -> bool {
        let text = |value: Option<ValueRef<'_>>, any_of: &[TextMatch], absent: Option<&[u8]>| {
            any_of.is_empty() || {
                let text = value.and_then(ValueRef::as_text).or(absent);
                text.is_some_and(|t| any_of.iter().any(|m| m.matches(t)))
            }
        };
        let severity = batch.severity.get(row);
        let number = |s: SeverityMatch| match severity {
            0 => s.match_undefined,
            n => n >= s.min,
        };
        let value = |m: &AttributeMatch| batch.attribute(row, &m.key);
        self.severity.is_none_or(number)
            && text(batch.body(row), &self.bodies, None)
            // An absent severity text is an empty one, as in OTLP.
            && text(batch.severity_text(row), &self.severity_texts, Some(b""))
            && self.attributes.iter().all(|m| value(m).is_some_and(|v| m.value.matches(v)))
    }

    /// Clears the flag of every row whose answer is not `wanted`.
    fn narrow(&self, batch: &LogsBatch, wanted: bool, flags: &mut [bool]) {
        let scope = &batch.scope;
        let library = self.library_matches(scope.name.as_bytes(), scope.version.as_bytes());
        let shared = batch.resource_rows.is_empty();
        let first = library && batch.rows() > 0 && self.resource_matches(batch, 0);
        if shared && (!first || self.is_per_batch()) {
            if first != wanted {
                flags.fill(false);
            }
            return;
        }
        for (row, flag) in flags.iter_mut().enumerate().filter(|(_, flag)| **flag) {
            let matches = library
                && (shared || self.resource_matches(batch, row))
                && self.row_matches(batch, row);
            *flag = matches == wanted;
        }
    }
}

/// `include` and `exclude` of one processor.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Records that are processed; `None` = all.
    pub include: Option<LogMatch>,
    /// Of those, records that are left alone.
    pub exclude: Option<LogMatch>,
}

/// The answer of a [`Selection`] for one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// Every row.
    All,
    /// No row.
    None,
    /// The rows whose flag is set.
    Marked,
}

impl Selection {
    /// Which rows are processed. `flags` is a buffer to use again; it holds one flag per row
    /// afterwards, unless the answer is [`Selected::All`] without conditions.
    pub fn select(&self, batch: &LogsBatch, flags: &mut Vec<bool>) -> Selected {
        if self.include.is_none() && self.exclude.is_none() {
            return Selected::All;
        }
        flags.clear();
        flags.resize(batch.rows(), true);
        if let Some(include) = &self.include {
            include.narrow(batch, true, flags);
        }
        if let Some(exclude) = &self.exclude {
            exclude.narrow(batch, false, flags);
        }
        match (flags.contains(&true), flags.contains(&false)) {
            (true, false) => Selected::All,
            (false, _) => Selected::None,
            (true, true) => Selected::Marked,
        }
    }
}

#[cfg(test)]
mod tests;
