//! Finding `${...}` in a text, and the escape `$$`.
//!
//! The rules are those of the collector's resolver (confmap/expand.go): the candidate is the last
//! `${` in front of the first `}`, so the innermost comes first; if an odd number of further `$`
//! stands in front of it, it is escaped, and then nothing else in the text is replaced either.

/// The next placeholder of a text with its braces, `${...}`; `None` if there is none, or it is
/// escaped.
pub(crate) fn find(text: &str) -> Option<&str> {
    let mut start = 0;
    loop {
        let close = start + text[start..].find('}')?;
        let Some(open) = text[start..close].rfind("${") else {
            start = close + 1;
            continue;
        };
        let open = start + open;
        let before = text[start..open]
            .bytes()
            .rev()
            .take_while(|b| *b == b'$')
            .count();
        return (before % 2 == 0).then(|| &text[open..=close]);
    }
}

/// Replaces every `$$` by `$`.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("$$", "$")
}

/// Writes a text so that substitution gives it back: every `$` doubled, where it matters at all.
pub(crate) fn escape(text: &str) -> String {
    if text.contains("$$") || text.contains("${") {
        text.replace('$', "$$")
    } else {
        text.to_owned()
    }
}

/// What is inside of a placeholder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    /// `${NAME}` or `${env:NAME}`, with `:-default`.
    Variable {
        name: &'a str,
        default: Option<&'a str>,
    },
    /// `${file:PATH}`
    File(&'a str),
    /// `${yaml:TEXT}`
    Yaml(&'a str),
}

/// Reads a placeholder, `${...}`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn parse_reference(placeholder: &str) -> Result<Reference<'_>, String> {
    let inner = placeholder
        .strip_prefix("${")
        .and_then(|p| p.strip_suffix('}'));
    let inner = inner.unwrap_or(placeholder);
    let (scheme, opaque) = match crate::source::split_scheme(inner) {
        Some(parts) => parts,
        None if !inner.contains(':') => ("env", inner),
        None => return Err(format!("invalid uri: {inner:?}{}", hint(inner))),
    };
    if opaque.contains('$') {
        return Err(format!(
            "the uri {inner:?} contains unsupported characters ('$')"
        ));
    }
    match scheme {
        "env" => variable(opaque),
        "file" => Ok(Reference::File(opaque)),
        "yaml" => Ok(Reference::Yaml(opaque)),
        "http" | "https" => Err(format!("{inner:?}: {}", crate::source::NO_HTTP)),
        _ => Err(format!(
            "scheme {scheme:?} is not supported for uri {inner:?}{}; allowed: env, file, yaml",
            hint(inner)
        )),
    }
}

fn variable(opaque: &str) -> Result<Reference<'_>, String> {
    let (name, default) = match opaque.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (opaque, None),
    };
    if is_variable_name(name) {
        return Ok(Reference::Variable { name, default });
    }
    Err(format!(
        "environment variable {name:?} has invalid name: must match regex \
         ^[a-zA-Z_][a-zA-Z0-9_]*$"
    ))
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A default needs the scheme to be written.
fn hint(inner: &str) -> String {
    match inner.split_once(":-") {
        Some((name, _)) if is_variable_name(name) => {
            format!(" (a default needs the scheme: ${{env:{inner}}})")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_placeholder_is_found_first_and_an_escaped_one_ends_the_search() {
        for (text, expect) in [
            ("${A}", Some("${A}")),
            ("x${A}y${B}", Some("${A}")),
            ("${env:${A}}", Some("${A}")),
            ("a}${B}", Some("${B}")),
            ("$${A}", None),
            ("$$${A}", Some("${A}")),
            ("$$$${A}", None),
            ("$${A} ${B}", None),
            ("${A", None),
            ("$A", None),
            ("{A}", None),
            ("", None),
            ("}$", None),
        ] {
            assert_eq!(find(text), expect, "{text}");
        }
    }

    #[test]
    fn references_name_a_variable_a_file_or_yaml() {
        let variable = |name, default| Ok(Reference::Variable { name, default });
        assert_eq!(parse_reference("${A}"), variable("A", None));
        assert_eq!(parse_reference("${env:_a1}"), variable("_a1", None));
        assert_eq!(parse_reference("${env:A:-}"), variable("A", Some("")));
        assert_eq!(
            parse_reference("${env:A:-b:-c}"),
            variable("A", Some("b:-c"))
        );
        assert_eq!(parse_reference("${file:/a b}"), Ok(Reference::File("/a b")));
        assert_eq!(parse_reference("${yaml:a: 1}"), Ok(Reference::Yaml("a: 1")));
        for (bad, expect) in [
            ("${}", "invalid name"),
            ("${1A}", "invalid name"),
            ("${env:a.b}", "\"a.b\" has invalid name"),
            ("${A_B:-x}", "${env:A_B:-x}"),
            ("${AB:-x}", "${env:AB:-x}"),
            ("${http://a/b}", "HTTP is not supported"),
            ("${vault:a}", "scheme \"vault\" is not supported"),
            ("${file:$a}", "unsupported characters"),
        ] {
            let error = parse_reference(bad).unwrap_err();
            assert!(error.contains(expect), "{bad}: {error}");
        }
    }

    #[test]
    fn escaping_is_undone_by_unescaping() {
        for text in ["", "$", "$a", "$$", "${A}", "$$$", "a$${B}$", "^x$"] {
            let escaped = escape(text);
            assert_eq!(find(&escaped), None, "{text}");
            assert_eq!(unescape(&escaped), text);
        }
        assert_eq!(escape("^x$"), "^x$");
    }
}
