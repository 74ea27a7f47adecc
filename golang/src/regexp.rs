//! Regular expressions as the collector's users write them (Go's RE2 syntax) for the `regex` crate.
//!
//! Both engines share most of their syntax. What differs and is translated here:
//! - `\d \w \s \b` and their negations are ASCII in RE2, Unicode in `regex`;
//! - `\Q...\E` quotes text in RE2 and is unknown to `regex`;
//! - inside a class `[`, `&&`, `--` and `~~` are plain characters in RE2, operators in `regex`;
//! - a hyphen behind `\w` and the like in a class is a plain character in RE2;
//! - a `{` that begins no count is a plain character in RE2, an error in `regex`;
//! - `\<` and `\>` are plain characters in RE2, word boundaries in `regex`.
//!
//! Source of the syntax: the `regexp/syntax` documentation of Go.

use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled size of one pattern in bytes; keeps a hostile pattern from taking the memory.
const COMPILED_BYTES_MAX: usize = 10 << 20;

/// Compiles `pattern`, written in Go's syntax, for byte text.
///
/// # Errors
/// The engine's description of what is wrong with the pattern.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    builder(pattern).build()
}

/// [`compile`] for text that is in some encoding other than UTF-8: `.` and negated classes match
/// any byte. Patterns that ask for Unicode see UTF-8 only, as nothing else can be meant.
///
/// # Errors
/// As [`compile`].
pub fn compile_for_bytes(pattern: &str) -> Result<Regex, regex::Error> {
    builder(pattern)
        .unicode(false)
        .build()
        .or_else(|_| compile(pattern))
}

fn builder(pattern: &str) -> RegexBuilder {
    let mut builder = RegexBuilder::new(&translate(pattern));
    builder.octal(true).size_limit(COMPILED_BYTES_MAX);
    builder
}

/// Rewrites Go's syntax into that of the `regex` crate. Invalid patterns stay invalid.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        match c {
            '\\' => rest = escape(&rest[1..], false, &mut out),
            '[' => rest = class(rest, &mut out),
            '{' if !is_count(rest) => {
                out.push_str("\\{");
                rest = &rest[1..];
            }
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// True for `{2}`, `{2,}` and `{2,3}` at the start of `rest`.
fn is_count(rest: &str) -> bool {
    let Some((inner, _)) = rest[1..].split_once('}') else {
        return false;
    };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// Translates the escape whose text after the backslash is `rest`; returns what follows it.
fn escape<'p>(rest: &'p str, in_class: bool, out: &mut String) -> &'p str {
    let Some(c) = rest.chars().next() else {
        out.push('\\');
        return rest;
    };
    let after = &rest[c.len_utf8()..];
    if c == 'Q' {
        let (quoted, after) = after.split_once("\\E").unwrap_or((after, ""));
        out.push_str(&regex::escape(quoted));
        return after;
    }
    match (c, in_class) {
        // In a class these are classes of their own: a hyphen behind them begins no range.
        ('d', _) => out.push_str("[0-9]"),
        ('D', _) => out.push_str("[^0-9]"),
        ('w', _) => out.push_str("[0-9A-Za-z_]"),
        ('W', _) => out.push_str("[^0-9A-Za-z_]"),
        ('s', _) => out.push_str("[\\t\\n\\f\\r ]"),
        ('S', _) => out.push_str("[^\\t\\n\\f\\r ]"),
        ('b', false) => out.push_str("(?-u:\\b)"),
        ('B', false) => out.push_str("(?-u:\\B)"),
        ('<' | '>', _) => out.push(c),
        // The braces of \p{Greek} and \x{263a} are no count.
        ('p' | 'P' | 'x', _) if after.starts_with('{') => {
            let end = after.find('}').map_or(after.len(), |i| i + 1);
            out.push('\\');
            out.push(c);
            out.push_str(&after[..end]);
            return &after[end..];
        }
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    after
}

/// Translates the class that `rest` begins with; returns what follows it.
fn class<'p>(rest: &'p str, out: &mut String) -> &'p str {
    out.push('[');
    let mut rest = &rest[1..];
    if let Some(r) = rest.strip_prefix('^') {
        out.push('^');
        rest = r;
    }
    let body = rest.len();
    // A bracket right at the start is a member, not the end.
    if let Some(r) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = r;
    }
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            ']' => {
                out.push(']');
                return after;
            }
            '\\' => {
                rest = escape(after, true, out);
                continue;
            }
            '[' if after.starts_with(':') => match rest.find(":]") {
                Some(end) => {
                    out.push_str(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                    continue;
                }
                None => out.push_str("\\["),
            },
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            // The first of two begins a range right at the start, else the second ends one.
            '-' if after.starts_with('-') && rest.len() == body => out.push_str("\\-"),
            '-' if after.starts_with('-') => {
                out.push_str("-\\-");
                rest = &after[1..];
                continue;
            }
            _ => out.push(c),
        }
        rest = after;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax_matches_what_go_matches() {
        for (pattern, text, want) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "\u{663}", false),
            (r"^\w+$", "h\u{e9}", false),
            (r"^[\w.]+$", "a.b_1", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[\S]+$", "ab", true),
            (r"\Qa.b\E+", "a.bb", true),
            (r"\Qa.b\E", "axb", false),
            (r"^[[]a[]]$", "[a]", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^[[:alpha:]]+$", "a1", false),
            (r"\<a\>", "<a>", true),
            (r"\bfoo\b", "a foo b", true),
            (r"(?P<n>x)(?i)Y", "xy", true),
            (r"^[+--]+$", ",", true),
            (r"^[--/]+$", ".", true),
            (r"\x41\101", "AA", true),
            (r"^.$", "\u{e9}", true),
            (r"^[\w-.]+$", "a-b.c_1", true),
            (r"^[\w-.]+$", "a`b", false),
            (r"^[\w.-]+$", "a-b.c", true),
            (r"^[\s-a]+$", "- a", true),
            (r"^[\s-a]+$", "A", false),
            (r"^[^\d-x]+$", "-", false),
            (r"^[^\d-x]+$", "yz", true),
            (r"^[\D-]+$", "-a", true),
            (r"^{.*}$", r#"{"a":1}"#, true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^a{2}b{1,}c{1,2}$", "aabcc", true),
            (r"^{a}{b", "{a}{b", true),
            (r"^\p{Greek}\x{41}\pL$", "\u{3b1}Ab", true),
            (r"^[\p{Greek}\x{41}]+$", "\u{3b1}A", true),
            (r#"^\"\/\-\_\ \'\:$"#, "\"/-_ ':", true),
        ] {
            let re = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(re.is_match(text.as_bytes()), want, "{pattern} on {text}");
        }
        for bad in ["(", "[a", r"\", "*", r"(?P<n>", r"\C", "{2}", r"\p{Gr"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_for_bytes_see_bytes() {
        for (pattern, text, want) in [
            (r"^\d+ .* x$", &b"12 caf\xe9 x"[..], true),
            (r"^[^ ]+ x$", b"\xe9\xff x", true),
            (r"^\pL$", "\u{e9}".as_bytes(), true),
        ] {
            let re = compile_for_bytes(pattern).unwrap();
            assert_eq!(re.is_match(text), want, "{pattern}");
        }
        assert!(compile_for_bytes("(").is_err());
    }
}
