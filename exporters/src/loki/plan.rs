//! How the rows of one batch become streams and entries: worked out once per batch.
//!
//! What is the same for all rows (constant columns, the resource, static labels) is turned into
//! text here. Rows only look at what varies.

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;

use tailwater_pdata::{Column, LogsBatch, Map, Value, ValueRef};

use tailwater_pipeline::probes::ATTRIBUTE as PROBE_ATTRIBUTE;

use super::metadata::MetadataPlan;
use super::names::{cut, label_name, level_name};
use super::options::{DefaultLabels, LabelMapping, LabelOptions, LineFormat, LokiOptions};

/// Names of the attributes that were hints for the collector's exporter.
const HINT_RESOURCE_LABELS: &str = "loki.resource.labels";
const HINT_ATTRIBUTE_LABELS: &str = "loki.attribute.labels";
const HINT_TENANT: &str = "loki.tenant";
const HINT_FORMAT: &str = "loki.format";
/// The label that tells sample lines from all others, whatever the labels are made of.
const PROBE_LABEL: &str = "tailwater_probe";
/// How much of a hint that cannot be followed is shown.
const HINT_SHOWN_BYTES_MAX: usize = 64;
/// Record attributes that change the plan.
const ROW_HINTS: [&str; 4] = [
    HINT_RESOURCE_LABELS,
    HINT_ATTRIBUTE_LABELS,
    HINT_TENANT,
    HINT_FORMAT,
];
/// Loki does not count this label.
const UNCOUNTED_LABEL: &str = "service_name";

/// Where a value of a row comes from.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Source {
    /// The same for all rows.
    Const(String),
    /// A column of the batch's attributes.
    Column(usize),
    /// Something inside the maps of a column, by the keys that lead there, joined by dots.
    Nested(usize, String),
    /// The attribute in the column, where there is one, else the name of the severity; nothing for
    /// rows without a severity.
    Level(Option<usize>),
    /// The level that Loki would detect, from the severity.
    DetectedLevel,
}

impl Source {
    /// The value at `row`, if it has one that is not empty.
    pub fn text<'a>(&'a self, logs: &'a LogsBatch, row: usize) -> Option<Cow<'a, str>> {
        let text = match self {
            Source::Const(text) => Cow::Borrowed(text.as_str()),
            Source::Column(i) => value_text(column(logs, *i, row)?),
            Source::Nested(i, path) => match column(logs, *i, row)? {
                ValueRef::Map(map) => value_text(lookup(map, path)?.as_ref()),
                _ => return None,
            },
            Source::Level(i) => match logs.severity.get(row) {
                0 => return None,
                severity => match i.and_then(|i| column(logs, i, row)) {
                    Some(value) => value_text(value),
                    None => Cow::Borrowed(level_name(severity)),
                },
            },
            Source::DetectedLevel => match logs.severity.get(row) {
                0 => return None,
                severity => Cow::Borrowed(super::names::detected_level(severity)),
            },
        };
        (!text.is_empty()).then_some(text)
    }

    fn columns(&self) -> impl Iterator<Item = usize> {
        let column = match self {
            Source::Column(i) | Source::Nested(i, _) | Source::Level(Some(i)) => Some(*i),
            Source::Const(_) | Source::Level(None) | Source::DetectedLevel => None,
        };
        column.into_iter()
    }

    fn uses_severity(&self) -> bool {
        matches!(self, Source::Level(_) | Source::DetectedLevel)
    }
}

fn column(logs: &LogsBatch, i: usize, row: usize) -> Option<ValueRef<'_>> {
    let (_, column) = logs.attributes.at(i)?;
    logs.value(column, row)
}

fn value_text(value: ValueRef<'_>) -> Cow<'_, str> {
    match value {
        ValueRef::Str(s) => String::from_utf8_lossy(s),
        other => Cow::Owned(other.to_display_string()),
    }
}

/// The value that a dotted name leads to: a key as it is, or keys of nested maps.
fn lookup<'m>(map: &'m Map, path: &str) -> Option<&'m Value> {
    if let Some(value) = map.get(path) {
        return Some(value);
    }
    let nested = |(at, _): (usize, &str)| match map.get(&path[..at]) {
        Some(Value::Map(inner)) => lookup(inner, &path[at + 1..]),
        _ => None,
    };
    path.match_indices('.').find_map(nested)
}

/// A label of a plan.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PlannedLabel {
    /// Its name, as Loki takes it.
    pub name: String,
    /// Its value.
    pub source: Source,
    /// The attribute it was made from; such a label can be moved to structured metadata.
    pub attribute: Option<String>,
}

/// What to do with the rows of a batch.
#[derive(Debug)]
pub(super) struct RowPlan {
    /// In order of names, without repeats.
    pub labels: Vec<PlannedLabel>,
    /// Where the tenant comes from; the fixed one is for rows without.
    pub tenant: Option<Source>,
    /// `None`: a hint asked for a format that does not exist, and the rows are dropped.
    pub format: Option<LineFormat>,
    /// Record attributes that are labels or hints.
    pub hidden_attributes: Vec<String>,
    /// Resource attributes that are labels or hints.
    pub hidden_resource: Vec<String>,
    /// Structured metadata.
    pub metadata: MetadataPlan,
    /// Labels that found no room.
    pub labels_dropped: usize,
    /// Columns that labels or the tenant depend on and that are not constant.
    varying: Vec<usize>,
    /// True if labels depend on a severity that is not constant.
    varying_severity: bool,
}

/// Labels while they are gathered: later sources replace earlier ones of the same name.
#[derive(Default)]
struct Gathered(Vec<PlannedLabel>);

impl Gathered {
    fn set(&mut self, name: String, source: Source, attribute: Option<&str>) {
        let label = PlannedLabel {
            name,
            source,
            attribute: attribute.map(str::to_owned),
        };
        match self.0.iter_mut().find(|l| l.name == label.name) {
            Some(same) => *same = label,
            None => self.0.push(label),
        }
    }
}

impl RowPlan {
    /// The plan for the rows of `logs` that have the same hints as `row`. The batch must have been
    /// split by resource.
    pub fn new(options: &LokiOptions, logs: &LogsBatch, row: usize) -> RowPlan {
        let mut gathered = Gathered::default();
        // Before all others: where there is room for one label only, it is this one.
        if logs.resource.get(PROBE_ATTRIBUTE).is_some() {
            gathered.set(
                PROBE_LABEL.to_owned(),
                Source::Const("true".to_owned()),
                None,
            );
        }
        let mut format = Some(options.line_format);
        let (mut hidden_attributes, mut hidden_resource) = match &options.labels {
            LabelOptions::Hints(defaults) => {
                let names = hinted(*defaults, logs, row, &mut gathered);
                format = hinted_format(logs, row, options.line_format);
                (names.clone(), names)
            }
            LabelOptions::Mapping(mapping) => mapped(mapping, logs, &mut gathered),
        };
        let Gathered(mut labels) = gathered;
        let labels_dropped = limit_labels(&mut labels, options);
        for label in labels.iter().skip(labels.len() - labels_dropped) {
            if let Some(attribute) = &label.attribute {
                hidden_attributes.retain(|h| h != attribute);
                hidden_resource.retain(|h| h != attribute);
            }
        }
        labels.truncate(labels.len() - labels_dropped);
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        let tenant = tenant_source(options, logs, row);
        let metadata = MetadataPlan::new(options, logs, &hidden_attributes, &hidden_resource);
        let sources = || labels.iter().map(|l| &l.source).chain(&tenant);
        let mut varying: Vec<usize> = sources().flat_map(Source::columns).collect();
        varying.sort_unstable();
        varying.dedup();
        let constant = |i: &usize| {
            let column = logs.attributes.at(*i);
            column.is_some_and(|(_, c)| c.as_const().is_some())
        };
        varying.retain(|i| !constant(i));
        let each = matches!(logs.severity, tailwater_pdata::Severities::Each(_));
        let varying_severity = each && sources().any(Source::uses_severity);
        RowPlan {
            labels,
            tenant,
            format,
            hidden_attributes,
            hidden_resource,
            metadata,
            labels_dropped,
            varying,
            varying_severity,
        }
    }

    /// A hash of everything that decides about labels and tenant of `row`.
    #[inline]
    pub fn hash(&self, logs: &LogsBatch, row: usize, hasher: &mut impl Hasher) {
        if self.varying_severity {
            hasher.write_u8(logs.severity.get(row));
        }
        for &i in &self.varying {
            let Some((_, column)) = logs.attributes.at(i) else {
                continue;
            };
            if let Column::Dict { codes, .. } = column {
                hasher.write_u8(codes[row]);
                continue;
            }
            match logs.value(column, row) {
                Some(ValueRef::Str(s)) => {
                    hasher.write(s);
                    hasher.write_usize(s.len());
                }
                Some(other) => hasher.write(other.to_display_string().as_bytes()),
                None => hasher.write_u8(0xff),
            }
        }
    }

    /// True if `a` and `b` are rows with the same labels and tenant.
    #[inline]
    pub fn same(&self, logs: &LogsBatch, a: usize, b: usize) -> bool {
        if self.varying_severity && logs.severity.get(a) != logs.severity.get(b) {
            return false;
        }
        self.varying.iter().all(|&i| match logs.attributes.at(i) {
            Some((_, Column::Dict { codes, .. })) => codes[a] == codes[b],
            Some((_, column)) => logs.value(column, a) == logs.value(column, b),
            None => true,
        })
    }
}

/// Hints of the rows: the values that make rows need different plans. `None` if no row can differ.
pub(super) fn row_hints(options: &LokiOptions, logs: &LogsBatch) -> Option<Vec<usize>> {
    if !matches!(options.labels, LabelOptions::Hints(_)) {
        return None;
    }
    let position = |hint: &&str| logs.attributes.position(hint);
    let varies = |i: &usize| {
        let column = logs.attributes.at(*i);
        column.is_some_and(|(_, c)| c.as_const().is_none())
    };
    let hints: Vec<usize> = ROW_HINTS
        .iter()
        .filter_map(position)
        .filter(varies)
        .collect();
    (!hints.is_empty()).then_some(hints)
}

/// True if two rows have the same hints.
pub(super) fn same_hints(logs: &LogsBatch, hints: &[usize], a: usize, b: usize) -> bool {
    let same = |&i: &usize| column(logs, i, a) == column(logs, i, b);
    hints.iter().all(same)
}

fn text_of(value: &Value) -> String {
    value_text(value.as_ref()).into_owned()
}

/// Source of a record attribute, nested ones included.
fn attribute_source(logs: &LogsBatch, name: &str) -> Option<Source> {
    let of_column = |i: usize| match logs.attributes.at(i) {
        Some((_, Column::Const(value))) => Source::Const(text_of(value)),
        _ => Source::Column(i),
    };
    if let Some(i) = logs.attributes.position(name) {
        return Some(of_column(i));
    }
    let nested = |(at, _): (usize, &str)| {
        let i = logs.attributes.position(&name[..at])?;
        Some(Source::Nested(i, name[at + 1..].to_owned()))
    };
    name.match_indices('.').find_map(nested)
}

/// The names in a hint: a list separated by commas, or an array.
fn hint_names(value: ValueRef<'_>) -> Vec<String> {
    let split = |text: &str| -> Vec<String> {
        let names = text.split(',').map(|n| n.trim().to_owned());
        names.filter(|n| !n.is_empty()).collect()
    };
    match value {
        ValueRef::Str(s) => split(&String::from_utf8_lossy(s)),
        ValueRef::List(l) => l.iter().map(text_of).collect(),
        _ => Vec::new(),
    }
}

/// Gathers the labels of the collector's exporter and returns the attributes they and the hints
/// take out of the line.
fn hinted(
    defaults: DefaultLabels,
    logs: &LogsBatch,
    row: usize,
    labels: &mut Gathered,
) -> Vec<String> {
    let mut hidden: Vec<String> = ROW_HINTS.iter().map(|h| (*h).to_owned()).collect();
    let mut set = |name: &str, source, attribute: Option<&str>| {
        hidden.push(name.to_owned());
        labels.set(label_name(name), source, attribute);
    };
    if defaults.exporter {
        set("exporter", Source::Const("OTLP".into()), None);
    }
    let resource = |key: &str| logs.resource.get(key).map(text_of);
    if let Some(service) = resource("service.name").filter(|_| defaults.job) {
        let job = match resource("service.namespace") {
            Some(namespace) => format!("{namespace}/{service}"),
            None => service,
        };
        set("job", Source::Const(job), None);
    }
    if let Some(id) = resource("service.instance.id").filter(|_| defaults.instance) {
        set("instance", Source::Const(id), None);
    }
    let in_resource = logs.resource.get(HINT_RESOURCE_LABELS).map(Value::as_ref);
    let in_record = logs.attribute(row, HINT_RESOURCE_LABELS);
    for hint in [in_resource, in_record].into_iter().flatten() {
        for name in hint_names(hint) {
            if let Some(value) = lookup(&logs.resource, &name) {
                set(&name, Source::Const(text_of(value)), Some(&name));
            }
        }
    }
    if let Some(hint) = logs.attribute(row, HINT_ATTRIBUTE_LABELS) {
        for name in hint_names(hint) {
            if let Some(source) = attribute_source(logs, &name) {
                set(&name, source, Some(&name));
            }
        }
    }
    if defaults.level && has_severity(logs) {
        let column = logs.attributes.position("level");
        set("level", Source::Level(column), None);
        // Rows without a severity do not get the label, so the attribute stays in their lines.
        if let tailwater_pdata::Severities::Each(all) = &logs.severity
            && all.contains(&0)
        {
            hidden.pop();
        }
    }
    hidden
}

fn has_severity(logs: &LogsBatch) -> bool {
    logs.severity != tailwater_pdata::Severities::Const(0)
}

fn format_hint(logs: &LogsBatch, row: usize) -> Option<ValueRef<'_>> {
    let in_resource = logs.resource.get(HINT_FORMAT).map(Value::as_ref);
    in_resource.or_else(|| logs.attribute(row, HINT_FORMAT))
}

/// Why a row without a format has none, for people.
pub(super) fn unknown_format(logs: &LogsBatch, row: usize) -> String {
    let hint = format_hint(logs, row).map_or_else(String::new, ValueRef::to_display_string);
    let shown = cut(&hint, HINT_SHOWN_BYTES_MAX);
    format!("{HINT_FORMAT} is {shown:?}; it can be json, logfmt or raw")
}

fn hinted_format(logs: &LogsBatch, row: usize, default: LineFormat) -> Option<LineFormat> {
    let Some(hint) = format_hint(logs, row) else {
        return Some(default);
    };
    match hint {
        ValueRef::Str(b"json") => Some(LineFormat::Json),
        ValueRef::Str(b"logfmt") => Some(LineFormat::Logfmt),
        ValueRef::Str(b"raw") => Some(LineFormat::Raw),
        _ => None,
    }
}

/// Gathers the labels that the configuration names and returns the attributes, of the record and
/// of the resource, that need not be repeated.
fn mapped(
    mapping: &LabelMapping,
    logs: &LogsBatch,
    labels: &mut Gathered,
) -> (Vec<String>, Vec<String>) {
    let (mut attributes, mut resource) = (Vec::new(), Vec::new());
    for (name, value) in &mapping.fixed {
        labels.set(name.clone(), Source::Const(value.clone()), None);
    }
    for (name, key) in &mapping.resource {
        if let Some(value) = lookup(&logs.resource, key) {
            labels.set(name.clone(), Source::Const(text_of(value)), Some(key));
            resource.push(key.clone());
        }
    }
    for (name, key) in &mapping.attributes {
        if let Some(source) = attribute_source(logs, key) {
            labels.set(name.clone(), source, Some(key));
            attributes.push(key.clone());
        }
    }
    if let Some(name) = mapping.severity.as_ref().filter(|_| has_severity(logs)) {
        labels.set(name.clone(), Source::DetectedLevel, None);
    }
    (attributes, resource)
}

/// Cuts names and constant values that are too long, and moves the labels beyond the limit to the
/// end. Returns how many those are.
fn limit_labels(labels: &mut Vec<PlannedLabel>, options: &LokiOptions) -> usize {
    let limits = &options.limits;
    for label in labels.iter_mut() {
        label.name = cut(&label.name, limits.label_name_bytes_max).to_owned();
    }
    let counted = |l: &PlannedLabel| l.name != UNCOUNTED_LABEL;
    let (free, mut rest): (Vec<_>, Vec<_>) = std::mem::take(labels)
        .into_iter()
        .partition(|l| !counted(l));
    let over = rest.len().saturating_sub(limits.label_names_max);
    labels.extend(free);
    labels.append(&mut rest);
    over
}

fn tenant_source(options: &LokiOptions, logs: &LogsBatch, row: usize) -> Option<Source> {
    let named = |resource: Option<&str>, attribute: Option<&str>| {
        let in_resource = resource.and_then(|name| logs.resource.get(name));
        match in_resource {
            Some(value) => Some(Source::Const(text_of(value))),
            None => attribute.and_then(|name| attribute_source(logs, name)),
        }
    };
    if let LabelOptions::Hints(_) = options.labels {
        let in_resource = logs.resource.get(HINT_TENANT).map(Value::as_ref);
        let hint = in_resource.or_else(|| logs.attribute(row, HINT_TENANT));
        if let Some(hint) = hint {
            let name = value_text(hint);
            return named(Some(&name), Some(&name));
        }
    }
    let tenant = &options.tenant;
    named(
        tenant.from_resource.as_deref(),
        tenant.from_attribute.as_deref(),
    )
}

/// The tenant of a row: what the plan's source says, else the fixed one.
pub(super) fn tenant_of<'a>(
    plan: &'a RowPlan,
    fixed: Option<&'a Arc<str>>,
    logs: &'a LogsBatch,
    row: usize,
) -> Option<Cow<'a, str>> {
    let own = plan.tenant.as_ref().and_then(|s| s.text(logs, row));
    own.or_else(|| fixed.map(|t| Cow::Borrowed(&**t)))
}
