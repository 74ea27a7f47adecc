//! Structured metadata: what is not a label, with names that Loki does not change or refuse.

use std::borrow::Cow;
use std::collections::HashSet;

use tailwater_pdata::{Cell, Column, Digits, LogsBatch, Severities, Value, ValueRef};

use super::names::{detected_level, metadata_key};
use super::options::{Limits, LokiOptions};
use super::wire::{PairName, put_pair};

/// Where the value of a pair that differs between rows comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    Column(usize),
    SeverityNumber,
    SeverityText,
    DetectedLevel,
    TraceId,
    SpanId,
    Flags,
}

/// The structured metadata of the rows of a batch.
#[derive(Debug, Default)]
pub(super) struct MetadataPlan {
    /// Pairs that all rows have, encoded.
    pub fixed: Vec<u8>,
    size: Size,
    varying: Vec<(PairName, From)>,
    /// Pairs of `fixed` that found no room.
    pub trimmed: u32,
}

/// Pairs, and bytes of names and values: what Loki limits.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    pairs: usize,
    bytes: usize,
}

impl Size {
    /// Counts a pair if there is room for it.
    #[inline]
    fn take(&mut self, limits: &Limits, name_bytes: usize, value: &[u8]) -> bool {
        let bytes = self.bytes + name_bytes + value.len();
        let fits = self.pairs < limits.metadata_pairs_max && bytes <= limits.metadata_bytes_max;
        if fits {
            self.pairs += 1;
            self.bytes = bytes;
        }
        fits
    }
}

/// Names that are taken: two attributes whose names become the same both stay.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn claim(&mut self, attribute: &str, fallback_prefix: &str) -> String {
        let key = metadata_key(attribute);
        if self.0.insert(key.clone().into_owned()) {
            return key.into_owned();
        }
        let prefixed = format!("{fallback_prefix}{key}");
        if prefixed != key && self.0.insert(prefixed.clone()) {
            return prefixed;
        }
        let numbered = |n: u32| format!("{prefixed}_{n}");
        let free = (2u32..).map(numbered).find(|k| self.0.insert(k.clone()));
        free.unwrap_or(prefixed)
    }
}

struct Builder<'a> {
    limits: &'a Limits,
    plan: MetadataPlan,
    names: Names,
}

impl Builder<'_> {
    fn fixed(&mut self, attribute: &str, prefix: &str, value: ValueRef<'_>) {
        if let ValueRef::Map(map) = value {
            for (k, v) in map.iter() {
                self.fixed(&format!("{attribute}_{k}"), prefix, v.as_ref());
            }
            return;
        }
        let text = value_bytes(value);
        if text.is_empty() {
            return;
        }
        let name = self.names.claim(attribute, prefix);
        if self.plan.size.take(self.limits, name.len(), &text) {
            put_pair(&mut self.plan.fixed, name.as_bytes(), &text);
        } else {
            self.plan.trimmed += 1;
        }
    }

    fn varying(&mut self, attribute: &str, from: From) {
        let name = self.names.claim(attribute, "");
        self.plan.varying.push((PairName::new(&name), from));
    }
}

fn value_bytes(value: ValueRef<'_>) -> Cow<'_, [u8]> {
    match value {
        ValueRef::Str(s) => Cow::Borrowed(s),
        other => {
            let mut out = Vec::new();
            other.write_string(&mut out);
            Cow::Owned(out)
        }
    }
}

impl MetadataPlan {
    /// The plan for a batch; attributes in `hidden_*` are left out. Names are given to record
    /// attributes first, then to the record's own fields, the scope and the resource, each in
    /// order of names, so that they do not depend on the order of columns.
    pub fn new(
        options: &LokiOptions,
        logs: &LogsBatch,
        hidden_attributes: &[String],
        hidden_resource: &[String],
    ) -> MetadataPlan {
        let wanted = &options.structured_metadata;
        if !wanted.enabled {
            return MetadataPlan::default();
        }
        let mut b = Builder {
            limits: &options.limits,
            plan: MetadataPlan::default(),
            names: Names::default(),
        };
        let takes =
            |key: &str, hidden: &[String]| wanted.takes(key) && !hidden.iter().any(|h| h == key);
        let columns = logs.attributes.iter().enumerate();
        let columns = columns.filter(|(_, (k, _))| takes(k, hidden_attributes));
        let mut columns: Vec<_> = columns.collect();
        columns.sort_by(|a, b| a.1.0.cmp(b.1.0));
        for (i, (key, column)) in columns {
            match column {
                Column::Const(value) => b.fixed(key, "", value.as_ref()),
                _ => b.varying(key, From::Column(i)),
            }
        }
        record_fields(&mut b, logs, &|key| takes(key, &[]));
        for (key, text) in [
            ("scope_name", &logs.scope.name),
            ("scope_version", &logs.scope.version),
        ] {
            if takes(key, &[]) {
                b.fixed(key, "", ValueRef::Str(text.as_bytes()));
            }
        }
        let sorted = |map: &tailwater_pdata::Map, hidden: &[String]| {
            let items = map.iter().filter(|(k, _)| takes(k, hidden));
            let mut items: Vec<_> = items.map(|(k, v)| (k.clone(), v.clone())).collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            items
        };
        for (key, value) in sorted(&logs.scope.attributes, &[]) {
            b.fixed(&key, "scope_", value.as_ref());
        }
        for (key, value) in sorted(&logs.resource, hidden_resource) {
            b.fixed(&key, "resource_", value.as_ref());
        }
        b.plan
    }

    /// Appends the pairs of row `at` that not all rows have. Returns how many found no room.
    #[inline]
    pub fn row(&self, limits: &Limits, logs: &LogsBatch, at: usize, out: &mut Vec<u8>) -> u32 {
        if self.varying.is_empty() {
            return 0;
        }
        let mut row = RowPairs {
            limits,
            size: self.size,
            trimmed: 0,
            out,
        };
        for (name, from) in &self.varying {
            match *from {
                From::Column(i) => {
                    let Some((_, column)) = logs.attributes.at(i) else {
                        continue;
                    };
                    if let Column::Cells(cells) = column
                        && let Cell::Str(text) = cells[at]
                    {
                        // The usual case, the shortest way.
                        row.put(name, logs.bytes(text));
                    } else if let Some(value) = logs.value(column, at) {
                        row.value(name, value);
                    }
                }
                other => row.field(other, name, logs, at),
            }
        }
        row.trimmed
    }
}

/// The record's own fields, under the names that Loki's OTLP endpoint gives them. The observed
/// time is left out: it is the time of reading, and would make a repeated entry a different one.
fn record_fields(b: &mut Builder<'_>, logs: &LogsBatch, takes: &dyn Fn(&str) -> bool) {
    match logs.severity {
        Severities::Const(0) => {}
        Severities::Const(n) => {
            if takes("severity_number") {
                b.fixed("severity_number", "", ValueRef::Int(i64::from(n)));
            }
            if takes("detected_level") {
                let level = detected_level(n).as_bytes();
                b.fixed("detected_level", "", ValueRef::Str(level));
            }
        }
        Severities::Each(_) => {
            for (name, from) in [
                ("severity_number", From::SeverityNumber),
                ("detected_level", From::DetectedLevel),
            ] {
                if takes(name) {
                    b.varying(name, from);
                }
            }
        }
    }
    match &logs.severity_text {
        Some(Column::Const(value)) if takes("severity_text") => {
            b.fixed("severity_text", "", value.as_ref());
        }
        Some(_) if takes("severity_text") => b.varying("severity_text", From::SeverityText),
        _ => {}
    }
    if logs.trace.is_some() {
        for (name, from) in [
            ("trace_id", From::TraceId),
            ("span_id", From::SpanId),
            ("flags", From::Flags),
        ] {
            if takes(name) {
                b.varying(name, from);
            }
        }
    }
}

/// The pairs of one row while they are written.
struct RowPairs<'a> {
    limits: &'a Limits,
    size: Size,
    trimmed: u32,
    out: &'a mut Vec<u8>,
}

impl RowPairs<'_> {
    #[inline]
    fn put(&mut self, name: &PairName, text: &[u8]) {
        if text.is_empty() {
        } else if self.size.take(self.limits, name.len(), text) {
            name.put(self.out, text);
        } else {
            self.trimmed += 1;
        }
    }

    #[inline]
    fn value(&mut self, name: &PairName, value: ValueRef<'_>) {
        match value {
            ValueRef::Str(text) => self.put(name, text),
            ValueRef::Int(n) => self.put(name, Digits::of(n).text()),
            ValueRef::Double(d) => match Digits::of_whole(d) {
                Some(digits) => self.put(name, digits.text()),
                None => self.put(name, &value_bytes(value)),
            },
            ValueRef::Map(map) => {
                for (k, v) in map.iter() {
                    let nested = format!("{}_{k}", name.as_str());
                    self.value(&PairName::new(&metadata_key(&nested)), Value::as_ref(v));
                }
            }
            other => self.put(name, &value_bytes(other)),
        }
    }

    fn field(&mut self, from: From, name: &PairName, logs: &LogsBatch, row: usize) {
        let number = |n: u32| Digits::of(n.into());
        let severity = logs.severity.get(row);
        match from {
            From::SeverityNumber if severity != 0 => self.put(name, number(severity.into()).text()),
            From::DetectedLevel if severity != 0 => {
                self.put(name, detected_level(severity).as_bytes());
            }
            From::SeverityText => {
                if let Some(value) = logs.severity_text(row) {
                    self.put(name, &value_bytes(value));
                }
            }
            From::TraceId | From::SpanId | From::Flags => {
                let Some(trace) = logs.trace.as_deref() else {
                    return;
                };
                let mut hex = [0; 32];
                let id: &[u8] = match from {
                    From::TraceId => &trace.trace_id[row],
                    From::SpanId => &trace.span_id[row],
                    _ if trace.flags[row] == 0 => return,
                    _ => return self.put(name, number(trace.flags[row]).text()),
                };
                if id.iter().any(|b| *b != 0) {
                    self.put(name, to_hex(id, &mut hex));
                }
            }
            From::SeverityNumber | From::DetectedLevel | From::Column(_) => {}
        }
    }
}

fn to_hex<'h>(id: &[u8], hex: &'h mut [u8; 32]) -> &'h [u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, b) in hex.chunks_exact_mut(2).zip(id) {
        pair[0] = DIGITS[usize::from(b >> 4)];
        pair[1] = DIGITS[usize::from(b & 15)];
    }
    &hex[..id.len() * 2]
}
