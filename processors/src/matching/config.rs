//! `include` and `exclude` as they are written.
//!
//! The collector's format serves all signals. All of it is understood here, so that a configuration
//! can be read for what it is; what a signal does not have is refused when it is used for that signal.

use regex::bytes::Regex;
use tailwater_config::reference::ValueKind;
use tailwater_config::{ConfigError, Errors, KeyPath, Section, Span};
use tailwater_pdata::Signal;

use super::{
    AttributeMatch, Conditions, LibraryMatch, LogMatch, SeverityMatch, TextMatch, ValueMatch,
};
use crate::action::value_of;

/// Properties and the signals that have them. Metrics are selected by name and resource alone, as in
/// the collector.
const PROPERTIES: [(&str, &[Signal]); 10] = [
    ("services", &[Signal::Traces]),
    ("span_names", &[Signal::Traces]),
    ("span_kinds", &[Signal::Traces]),
    ("metric_names", &[Signal::Metrics]),
    ("log_bodies", &[Signal::Logs]),
    ("log_severity_texts", &[Signal::Logs]),
    ("log_severity_number", &[Signal::Logs]),
    ("attributes", &[Signal::Logs, Signal::Traces]),
    (
        "resources",
        &[Signal::Logs, Signal::Traces, Signal::Metrics],
    ),
    ("libraries", &[Signal::Logs, Signal::Traces]),
];

/// Kinds of spans by number, as OTLP names them.
pub(super) const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// Severity numbers by name, as OTLP's data model numbers them.
const SEVERITIES: [(&str, u8); 6] = [
    ("TRACE", 1),
    ("DEBUG", 5),
    ("INFO", 9),
    ("WARN", 13),
    ("ERROR", 17),
    ("FATAL", 21),
];

/// Conditions as written, with where each of them is.
#[derive(Clone, Debug)]
pub struct MatchConfig {
    conditions: Conditions,
    given: Vec<(&'static str, Span)>,
    place: (Span, KeyPath),
}

impl MatchConfig {
    /// The conditions for `signal`; what it does not have is a mistake, as is no condition at all.
    pub fn for_signal(&self, signal: Signal, errors: &mut Errors) -> Conditions {
        let (span, path) = &self.place;
        let has = |key: &str| {
            PROPERTIES
                .iter()
                .any(|(k, of)| *k == key && of.contains(&signal))
        };
        for (key, span) in self.given.iter().filter(|(key, _)| !has(key)) {
            let why =
                format!("{key} is a property of another signal and cannot be used for {signal}");
            errors.push(ConfigError::new(span.clone(), path.child(key), why));
        }
        if self.given.is_empty() {
            let names: Vec<&str> = PROPERTIES
                .iter()
                .map(|(key, _)| *key)
                .filter(|key| has(key))
                .collect();
            let why = format!("at least one of {} must be specified", names.join(", "));
            errors.push(ConfigError::new(span.clone(), path.clone(), why));
        }
        self.conditions.clone()
    }
}

/// How texts are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchType {
    Strict,
    Regexp,
}

/// What its options do.
const MATCH_TYPE: &[(&str, &str)] = &[
    (
        "match_type",
        "How texts are compared: as they are, or as expressions that match somewhere in them. Required.",
    ),
    ("regexp", "Accepted: matching needs no cache."),
    ("regexp::cacheenabled", "Has nothing to act on."),
    ("regexp::cachemaxnumentries", "Has nothing to act on."),
];

/// How the texts of a section are compared.
pub(crate) fn match_type(s: &mut Section<'_, '_>) -> MatchType {
    s.describe(MATCH_TYPE);
    let types = [("strict", MatchType::Strict), ("regexp", MatchType::Regexp)];
    if !s.is_given("match_type") {
        s.invalid("match_type", "is required: strict or regexp");
    }
    let how = s.choice("match_type", &types, MatchType::Strict);
    // Matching needs no cache here, so the two options only have to be right.
    s.section("regexp", |r| {
        r.bool("cacheenabled", false);
        r.u64("cachemaxnumentries", 0, ..);
    });
    how
}

/// What its options do.
const PROPERTIES_OF_ITEMS: &[(&str, &str)] = &[
    (
        "log_bodies",
        "Of logs: texts of the body, of which one is enough.",
    ),
    ("log_severity_texts", "Of logs: texts of the severity."),
    ("log_severity_number", "Of logs: the severity."),
    ("services", "Of traces: names of services."),
    ("span_names", "Of traces: names of spans."),
    (
        "span_kinds",
        "Of traces: kinds of spans, such as `SPAN_KIND_SERVER`.",
    ),
    ("metric_names", "Of metrics: names."),
    (
        "attributes",
        "Attributes that must all be there. Not of metrics.",
    ),
    ("attributes::0::key", "Its key."),
    ("resources::0::key", "Its key."),
    ("attributes::0::value", "Its value; any unless set."),
    ("resources::0::value", "Its value; any unless set."),
    (
        "resources",
        "Attributes of the resource that must all be there.",
    ),
    (
        "libraries",
        "Scopes, of which one is enough. Not of metrics.",
    ),
    ("libraries::0::name", "Name of the scope."),
    ("libraries::0::version", "Its version; any unless set."),
];

/// The conditions in a section.
pub fn decode_match(s: &mut Section<'_, '_>) -> MatchConfig {
    s.describe(PROPERTIES_OF_ITEMS);
    // A severity alone is compared, not matched.
    let is_severity_alone = !s.is_recording()
        && !s.is_given("match_type")
        && s.is_given("log_severity_number")
        && !PROPERTIES
            .iter()
            .any(|(key, _)| *key != "log_severity_number" && s.is_given(key));
    let how = match is_severity_alone {
        true => MatchType::Strict,
        false => match_type(s),
    };
    let c = Conditions {
        record: LogMatch {
            bodies: texts(s, "log_bodies", how),
            severity_texts: texts(s, "log_severity_texts", how),
            severity: s
                .section_if_present("log_severity_number", severity)
                .flatten(),
            attributes: attributes(s, "attributes", how),
            resources: attributes(s, "resources", how),
            libraries: libraries(s, how),
        },
        services: texts(s, "services", how),
        span_names: texts(s, "span_names", how),
        span_kinds: span_kinds(s, how),
        metric_names: texts(s, "metric_names", how),
    };
    let r = &c.record;
    let counts = [
        c.services.len(),
        c.span_names.len(),
        c.span_kinds.len(),
        c.metric_names.len(),
        r.bodies.len(),
        r.severity_texts.len(),
        usize::from(r.severity.is_some()),
        r.attributes.len(),
        r.resources.len(),
        r.libraries.len(),
    ];
    let given = PROPERTIES.iter().zip(counts).filter(|(_, n)| *n > 0);
    MatchConfig {
        given: given.map(|((key, _), _)| (*key, s.span_of(key))).collect(),
        place: (s.span().clone(), s.path().clone()),
        conditions: c,
    }
}

/// What its options do.
const NAMES: &[(&str, &str)] = &[
    (
        "match_type",
        "How names are compared: as they are, or as expressions that match somewhere in them. Required with names.",
    ),
    ("regexp", "Accepted: matching needs no cache."),
    ("regexp::cacheenabled", "Has nothing to act on."),
    ("regexp::cachemaxnumentries", "Has nothing to act on."),
];

/// Names under `key` of a section that has nothing else to match, with its `match_type`; both are given
/// or none.
pub fn decode_names(s: &mut Section<'_, '_>, key: &str) -> Vec<TextMatch> {
    s.describe(NAMES);
    let types = [("strict", MatchType::Strict), ("regexp", MatchType::Regexp)];
    let how = s.choice_optional("match_type", &types);
    s.section("regexp", |r| {
        r.bool("cacheenabled", false);
        r.u64("cachemaxnumentries", 0, ..);
    });
    let given = s.string_list(key).unwrap_or_default();
    match (how, given.is_empty()) {
        (None, false) => s.invalid("match_type", format!("must be set if {key} are supplied")),
        (Some(_), true) => s.invalid(key, "must be supplied if match_type is set"),
        _ => {}
    }
    let Some(how) = how else {
        return Vec::new();
    };
    let names = given.iter();
    names
        .filter_map(|name| text_match(s, key, name, how))
        .collect()
}

/// Compared by name; a name that no kind has is a mistake.
fn span_kinds(s: &mut Section<'_, '_>, how: MatchType) -> Vec<TextMatch> {
    let kinds = texts(s, "span_kinds", how);
    // As in the collector, the kind that means none is not one to ask for.
    let known = |kind: &TextMatch| {
        SPAN_KINDS[1..]
            .iter()
            .any(|name| kind.matches(name.as_bytes()))
    };
    if how == MatchType::Strict && !kinds.iter().all(known) {
        let why = format!(
            "with match_type strict, allowed: {}",
            SPAN_KINDS[1..].join(", ")
        );
        s.invalid("span_kinds", why);
    }
    kinds
}

fn text_match(s: &mut Section<'_, '_>, key: &str, text: &str, how: MatchType) -> Option<TextMatch> {
    match how {
        MatchType::Strict => Some(TextMatch::Strict(text.as_bytes().into())),
        MatchType::Regexp => compile(s, key, text).map(TextMatch::Regexp),
    }
}

fn compile(s: &mut Section<'_, '_>, key: &str, text: &str) -> Option<Regex> {
    match Regex::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            s.invalid(
                key,
                format!("{text:?} is not a valid regular expression: {error}"),
            );
            None
        }
    }
}

pub(crate) fn texts(s: &mut Section<'_, '_>, key: &str, how: MatchType) -> Vec<TextMatch> {
    let texts = s.string_list(key).unwrap_or_default();
    texts
        .iter()
        .filter_map(|text| text_match(s, key, text, how))
        .collect()
}

pub(crate) fn attributes(
    s: &mut Section<'_, '_>,
    key: &str,
    how: MatchType,
) -> Vec<AttributeMatch> {
    let list = s.section_list(key, |item| {
        let name = item.string_required("key");
        let node = item.node("value").filter(|n| !n.is_null());
        let value = match (node, how) {
            (None, _) => Some(ValueMatch::Any),
            (Some(node), MatchType::Strict) => Some(ValueMatch::Equal(value_of(node))),
            (Some(node), MatchType::Regexp) => match node.as_text() {
                Some(text) => compile(item, "value", text).map(ValueMatch::Regexp),
                None => {
                    item.invalid("value", "must be a string with match_type regexp");
                    None
                }
            },
        };
        Some(AttributeMatch {
            key: name?.into(),
            value: value?,
        })
    });
    list.unwrap_or_default().into_iter().flatten().collect()
}

fn libraries(s: &mut Section<'_, '_>, how: MatchType) -> Vec<LibraryMatch> {
    let list = s.section_list("libraries", |item| {
        let name = item.string("name", "");
        let name = text_match(item, "name", &name, how);
        let version = match item.string_optional("version") {
            Some(version) => Some(text_match(item, "version", &version, how)?),
            None => None,
        };
        Some(LibraryMatch {
            name: name?,
            version,
        })
    });
    list.unwrap_or_default().into_iter().flatten().collect()
}

/// What its options do.
const SEVERITY: &[(&str, &str)] = &[
    ("match_undefined", "Records without a severity match."),
    (
        "min",
        "The least severity: 1 to 24, or a name such as INFO or ERROR2.",
    ),
];

pub(crate) fn severity(s: &mut Section<'_, '_>) -> Option<SeverityMatch> {
    s.describe(SEVERITY);
    let match_undefined = s.bool("match_undefined", false);
    let named = s
        .node_of("min", || vec![ValueKind::Text])
        .and_then(|n| n.as_text());
    let min = match named {
        Some(name) => {
            let number = severity_number(name);
            if number.is_none() {
                s.invalid(
                    "min",
                    "must be a severity: 1 to 24, or a name such as INFO or ERROR2",
                );
            }
            number?
        }
        None => u8::try_from(s.u64("min", 0, 0..=24)).ok()?,
    };
    Some(SeverityMatch {
        min,
        match_undefined,
    })
}

/// `INFO` is 9, `INFO2` is 10, and so on.
fn severity_number(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    let (base, step) = match upper.strip_suffix(['2', '3', '4']) {
        Some(base) => (base, upper.as_bytes().last()? - b'1'),
        None => (upper.as_str(), 0),
    };
    let base = SEVERITIES.iter().find(|(known, _)| *known == base)?.1;
    Some(base + step)
}
