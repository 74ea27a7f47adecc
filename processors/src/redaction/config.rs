//! The section of a `redaction` processor.

use std::collections::HashSet;

use regex::bytes::Regex;
use tailwater_config::{ConfigError, Section, nearest};
use tailwater_golang::regexp;

use super::mask::Mask;
use super::patterns::{self, Finder};
use super::rules::Rules;
use super::summary::Summary;

const SUMMARIES: [(&str, Summary); 4] = [
    ("debug", Summary::Debug),
    ("info", Summary::Info),
    ("silent", Summary::Silent),
    ("", Summary::Silent),
];

const FUNCTIONS: [&str; 6] = ["", "md5", "sha1", "sha3", "hmac-sha256", "hmac-sha512"];

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("allow_all_keys", "True: no key is removed."),
    (
        "allowed_keys",
        "Keys that stay; without any, all are removed, and the agent warns. Holds for the fields of bodies that are maps, too.",
    ),
    (
        "ignored_keys",
        "Keys whose values stay as they are; they need not be allowed.",
    ),
    ("ignored_key_patterns", "Expressions for such keys."),
    (
        "blocked_key_patterns",
        "Expressions for keys whose values are masked as a whole, line by line.",
    ),
    (
        "allowed_values",
        "Expressions; a value that one matches stays whole, but for one in a body whose key is blocked.",
    ),
    (
        "blocked_values",
        "Expressions; what matches in a value is masked, one expression after another.",
    ),
    (
        "patterns",
        "own: Ready-made ones by name, see [CONFIGURATION](CONFIGURATION.md#processor-redaction); they come behind `blocked_values`.",
    ),
    (
        "redact_all_types",
        "Of attributes, also what is no text is looked at in the form that it prints as, and becomes text where that is masked. In bodies that is always so.",
    ),
    (
        "hash_function",
        "What stands in place of what is masked, in hexadecimal digits; `****` unless set.",
    ),
    ("hmac_key", "For the HMACs, of 32 and 64 bytes at least."),
    (
        "summary",
        "Attributes that say how many were removed, masked, allowed and ignored; with debug also which.",
    ),
];

impl Rules {
    /// Reads the section; mistakes are in it.
    pub fn decode(s: &mut Section<'_, '_>) -> Rules {
        s.describe(OPTIONS);
        let allow_all_keys = s.bool("allow_all_keys", false);
        let allowed_keys = keys(s, "allowed_keys");
        if !allow_all_keys && allowed_keys.is_empty() {
            let key = match s.has("allow_all_keys") {
                true => "allow_all_keys",
                false => "allowed_keys",
            };
            s.warn(
                key,
                "no key is allowed, so every attribute but those of ignored_keys is removed, and so are the \
                 fields of bodies that are maps; allow_all_keys: true keeps them",
            );
        }
        let rules = Rules {
            allow_all_keys,
            allowed_keys,
            ignored_keys: keys(s, "ignored_keys"),
            ignored_key_patterns: expressions(s, "ignored_key_patterns"),
            blocked_key_patterns: expressions(s, "blocked_key_patterns"),
            allowed_values: expressions(s, "allowed_values"),
            blocked: blocked(s),
            redact_all_types: s.bool("redact_all_types", false),
            mask: mask(s),
            summary: s.choice("summary", &SUMMARIES, Summary::Silent),
        };
        s.refuse(
            "url_sanitizer",
            "URLs are not generalised; url_credentials in patterns masks passwords in them, and blocked_values what \
             else is to be masked",
        );
        s.refuse(
            "db_sanitizer",
            "statements of databases are not taken apart; mask their attributes with blocked_key_patterns",
        );
        for key in ["skip_conditions", "error_mode"] {
            s.refuse(
                key,
                "nothing is left out by condition; use ignored_keys, or a pipeline of its own",
            );
        }
        rules
    }
}

fn keys(s: &mut Section<'_, '_>, key: &str) -> HashSet<Box<str>> {
    let keys = s.string_list(key).unwrap_or_default();
    keys.into_iter().map(String::into_boxed_str).collect()
}

/// Regular expressions, in the collector's syntax.
fn expressions(s: &mut Section<'_, '_>, key: &str) -> Vec<Regex> {
    let path = s.path().child(key);
    let mut compiled = Vec::new();
    for (i, (text, node)) in s.text_nodes(key).unwrap_or_default().iter().enumerate() {
        match regexp::compile(text) {
            Ok(regex) => compiled.push(regex),
            Err(error) => {
                let message = format!("is not a valid regular expression: {error}");
                let error = ConfigError::new(node.span.clone(), path.child(i), message);
                s.errors().push(error);
            }
        }
    }
    compiled
}

/// `blocked_values`, and behind them `patterns`.
fn blocked(s: &mut Section<'_, '_>) -> Vec<Finder> {
    let values = expressions(s, "blocked_values");
    let mut blocked: Vec<Finder> = values.into_iter().map(Finder::Expression).collect();
    let path = s.path().child("patterns");
    let named = s.text_nodes("patterns").unwrap_or_default();
    for (i, (name, node)) in named.iter().enumerate() {
        let twice = named[..i].iter().any(|(before, _)| before == name);
        let known = || patterns::ALL.iter().map(|p| p.name);
        let error = ConfigError::new(node.span.clone(), path.child(i), "");
        if twice {
            s.errors().push(ConfigError::new(
                node.span.clone(),
                path.child(i),
                format!("{name:?} is there twice"),
            ));
        } else if !known().any(|k| k == *name) {
            let allowed = known().collect::<Vec<_>>().join(", ");
            let error = error.found(format!("{name:?}")).allowed(allowed);
            s.errors().push(error.suggest(nearest(name, known())));
        }
    }
    let wanted = |p: &&patterns::Named| named.iter().any(|(name, _)| *name == p.name);
    let ready = patterns::ALL.iter().filter(wanted);
    blocked.extend(ready.filter_map(|p| Finder::named(p.name)));
    blocked
}

fn mask(s: &mut Section<'_, '_>) -> Mask {
    let function = s.one_of("hash_function", &FUNCTIONS, "");
    let key = s.secret("hmac_key").filter(|key| !key.is_empty());
    let least = match function {
        "hmac-sha256" => 32,
        "hmac-sha512" => 64,
        _ if key.is_some() => {
            s.invalid(
                "hmac_key",
                "is used with hash_function hmac-sha256 or hmac-sha512 only",
            );
            0
        }
        _ => 0,
    };
    let bytes = key.as_ref().map_or(&b""[..], |key| key.expose().as_bytes());
    if bytes.len() < least {
        let place = match s.has("hmac_key") {
            true => "hmac_key",
            false => "hash_function",
        };
        s.invalid(
            place,
            format!("{function} needs an hmac_key of {least} bytes at least"),
        );
    }
    match function {
        "md5" => Mask::Md5,
        "sha1" => Mask::Sha1,
        "sha3" => Mask::Sha3,
        "hmac-sha256" => Mask::hmac_sha256(bytes),
        "hmac-sha512" => Mask::hmac_sha512(bytes),
        _ => Mask::Asterisks,
    }
}
