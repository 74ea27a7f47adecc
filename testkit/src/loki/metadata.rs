//! How Loki rewrites structured metadata names, and which it cannot.
//!
//! Observed rules: every character other than an ASCII letter, digit or underscore becomes an
//! underscore, and runs of underscores become one; a leading digit gets the prefix `key_`;
//! `__x__` is kept; a name that ends up empty or all underscores fails the whole request.

use std::borrow::Cow;

/// The name as stored, or the error text of the server (status 500).
pub fn normalise_name(name: &str) -> Result<Cow<'_, str>, String> {
    if name.is_empty() {
        return Err("label name is empty".to_owned());
    }
    if is_reserved(name) {
        return Ok(Cow::Borrowed(name));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out: Cow<'_, str> = Cow::Borrowed(name);
    if !name.chars().all(plain) || name.contains("__") {
        let mut rewritten = String::with_capacity(name.len());
        for c in name.chars() {
            let c = if plain(c) { c } else { '_' };
            if c != '_' || !rewritten.ends_with('_') {
                rewritten.push(c);
            }
        }
        out = Cow::Owned(rewritten);
    }
    if out.bytes().all(|byte| byte == b'_') {
        return Err(format!(
            "normalization for label name {name:?} resulted in invalid name {out:?}"
        ));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out = Cow::Owned(format!("key_{out}"));
    }
    Ok(out)
}

/// `__x__` with at least one other character in the middle.
fn is_reserved(name: &str) -> bool {
    let inner = name
        .strip_prefix("__")
        .and_then(|rest| rest.strip_suffix("__"));
    inner.is_some_and(|inner| {
        inner.bytes().any(|byte| byte != b'_')
            && inner
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rewritten_as_the_server_does() {
        for (name, expect) in [
            ("trace_id", "trace_id"),
            ("a.b", "a_b"),
            ("a..b", "a_b"),
            ("a__b", "a_b"),
            ("a-b c", "a_b_c"),
            ("1x", "key_1x"),
            ("__x__", "__x__"),
            ("x_", "x_"),
            ("\u{e9}x", "_x"),
        ] {
            assert_eq!(normalise_name(name).unwrap(), expect, "{name}");
        }
    }

    #[test]
    fn names_without_a_letter_or_digit_are_poison() {
        assert_eq!(normalise_name("").unwrap_err(), "label name is empty");
        for name in ["_", "____", "*", "\u{65e5}\u{672c}", "\u{e9}", "..."] {
            let text = normalise_name(name).unwrap_err();
            assert!(
                text.contains("resulted in invalid name \"_\""),
                "{name}: {text}"
            );
        }
    }
}
