//! Names that Loki accepts.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// True for names that Loki's label parser takes without quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(super) fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    bytes.next().is_some_and(first) && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name of a label that is made from an attribute's name, as the collector's exporter made it:
/// what is not a letter or digit becomes `_`, a leading digit gets the prefix `key_`, a single
/// leading `_` the prefix `key`. Unlike there, only ASCII letters count, as others are refused.
pub(super) fn label_name(attribute: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = attribute.chars().map(keep).collect();
    match name.as_bytes() {
        [] => "key_".to_owned(),
        [b'0'..=b'9', ..] => format!("key_{name}"),
        [b'_'] => "key_".to_owned(),
        [b'_', second, ..] if *second != b'_' => format!("key{name}"),
        _ => name,
    }
}

/// The key of a pair of structured metadata, so that Loki neither changes it nor refuses the whole
/// request for it: other characters and runs of `_` become one `_`, a leading digit gets the
/// prefix `key_`, and a name of which nothing is left becomes `key_` and a hash.
pub(super) fn metadata_key(attribute: &str) -> Cow<'_, str> {
    if is_label_name(attribute) && !attribute.contains("__") && attribute.bytes().any(|b| b != b'_')
    {
        return Cow::Borrowed(attribute);
    }
    let mut name = String::with_capacity(attribute.len() + 4);
    for c in attribute.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    if name.bytes().all(|b| b == b'_') {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        hasher.write(attribute.as_bytes());
        return Cow::Owned(format!("key_{:08x}", hasher.finish() as u32));
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "key_");
    }
    Cow::Owned(name)
}

/// The names of the levels that the collector's exporter used for OTLP's severity numbers.
pub(super) fn level_name(severity: u8) -> &'static str {
    const NAMES: [&str; 25] = [
        "UNSPECIFIED",
        "TRACE",
        "TRACE2",
        "TRACE3",
        "TRACE4",
        "DEBUG",
        "DEBUG2",
        "DEBUG3",
        "DEBUG4",
        "INFO",
        "INFO2",
        "INFO3",
        "INFO4",
        "WARN",
        "WARN2",
        "WARN3",
        "WARN4",
        "ERROR",
        "ERROR2",
        "ERROR3",
        "ERROR4",
        "FATAL",
        "FATAL2",
        "FATAL3",
        "FATAL4",
    ];
    NAMES.get(usize::from(severity)).unwrap_or(&NAMES[0])
}

/// Loki's `detected_level` for OTLP's severity numbers (1..=24).
pub(super) fn detected_level(severity: u8) -> &'static str {
    match severity {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => "unknown",
    }
}

/// What is allowed in a tenant id: Loki's rule, at most 150 of these characters, and neither `.`
/// nor `..`.
pub fn is_tenant_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b) || b == b':';
    (1..=150).contains(&id.len()) && id.bytes().all(allowed) && id != "." && id != ".."
}

/// `text` without what is beyond `bytes_max`, cut between characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|i| text.is_char_boundary(*i));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn label_names_are_those_of_the_collectors_exporter() {
        for (attribute, want) in [
            ("host.name", "host_name"),
            ("1st", "key_1st"),
            ("_x", "key_x"),
            ("__x", "__x"),
            ("a-b c", "a_b_c"),
            ("\u{e9}", "key_"),
            ("", "key_"),
        ] {
            assert_eq!(label_name(attribute), want);
            assert!(is_label_name(&label_name(attribute)), "{attribute}");
        }
    }

    #[test]
    fn metadata_keys_never_poison_a_request() {
        for (attribute, want) in [
            ("plain", "plain"),
            ("a.b", "a_b"),
            ("a..b__c", "a_b_c"),
            ("9x", "key_9x"),
            ("_x", "_x"),
        ] {
            assert_eq!(metadata_key(attribute), want);
        }
        let poison = ["", "_", "__", "*", "\u{65e5}\u{672c}", "\u{e9}", "..."];
        let keys: std::collections::HashSet<_> = poison.iter().map(|p| metadata_key(p)).collect();
        assert_eq!(keys.len(), poison.len(), "each keeps a name of its own");
        assert!(keys.iter().all(|k| k.starts_with("key_") && k.len() == 12));
    }

    #[test]
    fn tenant_ids_follow_lokis_rule() {
        for good in ["a", "team-1", "a.b", "!-_.*'()", "x:y"] {
            assert!(is_tenant_id(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a|b",
            "\u{e9}",
            &"x".repeat(151),
        ] {
            assert!(!is_tenant_id(bad), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_name_becomes_acceptable_and_stays_so(name in ".{0,20}") {
            let key = metadata_key(&name).into_owned();
            prop_assert!(is_label_name(&key) && key.bytes().any(|b| b != b'_'));
            prop_assert_eq!(metadata_key(&key).into_owned(), key.clone());
            prop_assert!(is_label_name(&label_name(&name)));
            prop_assert!(cut(&name, 7).len() <= 7 && name.starts_with(cut(&name, 7)));
        }
    }
}
