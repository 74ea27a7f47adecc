//! `include` and `exclude` as they are written.
//!
//! The collector's format serves all signals. What belongs to another signal is understood here,
//! so that a configuration can be read for what it is, and refused when it is used for logs.

use regex::bytes::Regex;
use tailwater_config::{ConfigError, Errors, Section};

use super::{AttributeMatch, LibraryMatch, LogMatch, SeverityMatch, TextMatch, ValueMatch};
use crate::action::value_of;

/// The properties of other signals.
const FOREIGN: [&str; 4] = ["services", "span_names", "span_kinds", "metric_names"];

/// Severity numbers by name, as OTLP's data model numbers them.
const SEVERITIES: [(&str, u8); 6] = [
    ("TRACE", 1),
    ("DEBUG", 5),
    ("INFO", 9),
    ("WARN", 13),
    ("ERROR", 17),
    ("FATAL", 21),
];

/// Conditions as written, with what is wrong about them if they are used for logs.
#[derive(Clone, Debug)]
pub struct MatchConfig {
    logs: LogMatch,
    not_for_logs: Vec<ConfigError>,
}

impl MatchConfig {
    /// The conditions for logs; properties of another signal are mistakes.
    pub fn for_logs(self, errors: &mut Errors) -> LogMatch {
        for error in self.not_for_logs {
            errors.push(error);
        }
        self.logs
    }
}

/// How texts are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MatchType {
    Strict,
    Regexp,
}

/// The conditions in a section.
pub fn decode_match(s: &mut Section<'_, '_>) -> MatchConfig {
    let types = [("strict", MatchType::Strict), ("regexp", MatchType::Regexp)];
    if s.node("match_type").is_none_or(|n| n.is_null()) {
        s.invalid("match_type", "is required: strict or regexp");
    }
    let how = s.choice("match_type", &types, MatchType::Strict);
    // Matching needs no cache here, so the two options only have to be right.
    s.section("regexp", |r| {
        r.bool("cacheenabled", false);
        r.u64("cachemaxnumentries", 0, ..);
    });
    let logs = LogMatch {
        bodies: texts(s, "log_bodies", how),
        severity_texts: texts(s, "log_severity_texts", how),
        severity: s
            .section_if_present("log_severity_number", severity)
            .flatten(),
        attributes: attributes(s, "attributes", how),
        resources: attributes(s, "resources", how),
        libraries: libraries(s, how),
    };
    let mut not_for_logs = Vec::new();
    for key in FOREIGN {
        // Patterns are checked even where they are of no use.
        if texts(s, key, how).is_empty() {
            continue;
        }
        let why = format!("{key} is a property of another signal and cannot be used for logs");
        not_for_logs.push(ConfigError::new(s.span_of(key), s.path().child(key), why));
    }
    if not_for_logs.is_empty() && logs.is_empty() {
        let why = "at least one of log_bodies, log_severity_texts, log_severity_number, \
                   attributes, resources and libraries must be specified";
        not_for_logs.push(ConfigError::new(s.span().clone(), s.path(), why));
    }
    MatchConfig { logs, not_for_logs }
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

fn texts(s: &mut Section<'_, '_>, key: &str, how: MatchType) -> Vec<TextMatch> {
    let texts = s.string_list(key).unwrap_or_default();
    texts
        .iter()
        .filter_map(|text| text_match(s, key, text, how))
        .collect()
}

fn attributes(s: &mut Section<'_, '_>, key: &str, how: MatchType) -> Vec<AttributeMatch> {
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

fn severity(s: &mut Section<'_, '_>) -> Option<SeverityMatch> {
    let match_undefined = s.bool("match_undefined", false);
    let named = s.node("min").and_then(|n| n.as_text());
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

impl LogMatch {
    /// True without any condition.
    pub fn is_empty(&self) -> bool {
        self.is_per_batch() && self.resources.is_empty() && self.libraries.is_empty()
    }
}
