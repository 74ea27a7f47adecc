//! Options that receivers of text have in common.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;
use tailwater_config::Section;
use tailwater_golang::regexp;

use super::charset::Charset;
use super::frame::{Split, Units};

/// The collector's `retry_on_failure`. Accepted as written; what was not delivered is read again
/// without end in any case, since positions move by delivery only.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RetryOnFailure {
    /// Default false.
    pub enabled: bool,
    /// Default 1 s.
    pub initial_interval: Duration,
    /// Default 30 s.
    pub max_interval: Duration,
    /// Default 5 min, 0 = without end.
    pub max_elapsed_time: Duration,
    /// Default 1.5.
    pub multiplier: f64,
    /// Default 0.5.
    pub randomization_factor: f64,
}

/// `multiline`.
#[derive(Clone, Debug)]
pub struct MultilineConfig {
    /// Compiled, with `(?m)`.
    pub pattern: Arc<Regex>,
    /// `line_end_pattern` instead of `line_start_pattern`.
    pub at_end: bool,
    /// `omit_pattern`.
    pub omit: bool,
}

impl MultilineConfig {
    /// Where records end by it.
    pub fn split(&self) -> Split {
        let (pattern, omit) = (self.pattern.clone(), self.omit);
        if self.at_end {
            Split::LineEnd { pattern, omit }
        } else {
            Split::LineStart { pattern, omit }
        }
    }
}

/// What its options do.
const ENCODING: &[(&str, &str)] = &[(
    "encoding",
    "How bytes are read as text: utf-8 (unless set), utf-8-raw, ascii, utf-16, utf-16le, utf-16be, iso-8859-1, nop, and the names of the WHATWG standard (big5, gbk, shift_jis, windows-1252 and others).",
)];

/// Reads `encoding`.
pub fn charset(s: &mut Section<'_, '_>) -> Charset {
    s.describe(ENCODING);
    let Some(name) = s.string_optional("encoding") else {
        return Charset::Utf8;
    };
    Charset::by_name(&name).unwrap_or_else(|| {
        s.invalid(
            "encoding",
            format!(
                "unsupported encoding {name:?}, allowed: utf-8, utf-8-raw, ascii, utf-16, \
                 utf-16le, utf-16be, nop, and the names of the WHATWG Encoding Standard"
            ),
        );
        Charset::Utf8
    })
}

/// What its options do.
const MULTILINE: &[(&str, &str)] = &[
    ("line_start_pattern", "Pattern of what begins a record."),
    ("line_end_pattern", "Pattern of what ends a record."),
    (
        "omit_pattern",
        "What the pattern matches is no part of a record.",
    ),
];

/// Reads `multiline`. `None` without a pattern.
pub fn multiline(s: &mut Section<'_, '_>, charset: Charset) -> Option<MultilineConfig> {
    let multiline = s.section_if_present("multiline", |s| {
        s.describe(MULTILINE);
        let start = s.string("line_start_pattern", "");
        let end = s.string("line_end_pattern", "");
        let omit = s.bool("omit_pattern", false);
        let (key, pattern, at_end) = match (start.as_str(), end.as_str()) {
            ("", "") => {
                if omit {
                    s.invalid("omit_pattern", "there is no pattern to omit");
                }
                return None;
            }
            (pattern, "") => ("line_start_pattern", pattern, false),
            ("", pattern) => ("line_end_pattern", pattern, true),
            _ => {
                s.error("only one of line_start_pattern or line_end_pattern can be set");
                return None;
            }
        };
        let pattern = format!("(?m){pattern}");
        let outcome = match charset.units() {
            Units::Bytes => regexp::compile_for_bytes(&pattern),
            _ => regexp::compile(&pattern),
        };
        let pattern = Arc::new(compiled(s, key, &pattern, outcome)?);
        Some(MultilineConfig {
            pattern,
            at_end,
            omit,
        })
    });
    let multiline = multiline.flatten();
    if multiline.is_some() && charset == Charset::Nop {
        s.invalid(
            "multiline",
            "cannot be used with encoding nop, which does not cut content",
        );
    }
    multiline
}

/// The outcome of compiling `pattern`.
pub fn compiled(
    s: &mut Section<'_, '_>,
    key: &str,
    pattern: &str,
    outcome: Result<Regex, regex::Error>,
) -> Option<Regex> {
    match outcome {
        Ok(regex) => Some(regex),
        Err(e) => {
            // The engine's text draws the pattern over several lines; the last one says it.
            let text = e.to_string();
            let why = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            s.invalid(key, format!("{pattern:?} is no regular expression: {why}"));
            None
        }
    }
}

/// What its options do.
const RETRY: &[(&str, &str)] = &[
    (
        "enabled",
        "Accepted with a warning: what was not delivered is read or offered again in any case, and exporters retry.",
    ),
    ("initial_interval", "Has nothing to act on."),
    ("max_interval", "Has nothing to act on."),
    ("max_elapsed_time", "Has nothing to act on."),
    ("multiplier", "Has nothing to act on."),
    ("randomization_factor", "Has nothing to act on."),
];

/// What its options do.
const RETRY_SECTION: &[(&str, &str)] = &[(
    "retry_on_failure",
    "Of no effect: what was not delivered is never given up.",
)];

/// Reads `retry_on_failure`. `kept` says why what was not delivered comes again without it.
pub fn retry_on_failure(s: &mut Section<'_, '_>, kept: &str) -> RetryOnFailure {
    s.describe(RETRY_SECTION);
    let retry = s.section("retry_on_failure", |s| {
        s.describe(RETRY);
        let enabled = s.bool("enabled", false);
        if enabled && s.has("max_elapsed_time") {
            s.warn(
                "max_elapsed_time",
                "has no effect: what was not delivered is never given up",
            );
        }
        RetryOnFailure {
            enabled,
            initial_interval: s.duration("initial_interval", Duration::from_secs(1)),
            max_interval: s.duration("max_interval", Duration::from_secs(30)),
            max_elapsed_time: s.duration("max_elapsed_time", Duration::from_secs(300)),
            multiplier: s.f64("multiplier", 1.5, 0.0..),
            randomization_factor: s.f64("randomization_factor", 0.5, 0.0..=1.0),
        }
    });
    if retry.enabled {
        s.warn(
            "retry_on_failure",
            format!("is not needed: {kept}, and exporters retry by themselves"),
        );
    }
    retry
}
