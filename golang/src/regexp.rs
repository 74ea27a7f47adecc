//! Regular expressions as the collector's users write them (Go's RE2 syntax) for the `regex` crate.
//!
//! Both engines share most of their syntax. What differs and is translated here:
//! - `\d \w \s \b` and their negations are ASCII in RE2, Unicode in `regex`;
//! - `\Q...\E` quotes text in RE2 and is unknown to `regex`;
//! - inside a class `[`, `&&`, `--` and `~~` are plain characters in RE2, operators in `regex`;
//! - a hyphen behind `\w` and the like in a class is a plain character in RE2;
//! - a `{` that begins no count is a plain character in RE2, an error in `regex`;
//! - `\<` and `\>` are plain characters in RE2, word boundaries in `regex`;
//! - groups may share a name in RE2: what the last of them found counts, so the others lose it;
//! - what RE2 refuses is refused: references to groups, counts beyond 1000, an operator of repetition behind
//!   another, names that are not made of `[A-Za-z0-9_]`.
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
    allowed(pattern)?;
    builder(pattern).build()
}

/// Whether a match is nothing, and lies within a character of UTF-8: there is no such match in Go.
pub fn is_within_character(text: &[u8], found: std::ops::Range<usize>) -> bool {
    let inner = |at: usize| text.get(at).is_some_and(|b| (0x80..0xc0).contains(b));
    found.is_empty() && inner(found.start) && found.start > 0 && text[found.start - 1] >= 0x80
}

/// [`compile`] for text that is in some encoding other than UTF-8: `.` and negated classes match
/// any byte. Patterns that ask for Unicode see UTF-8 only, as nothing else can be meant.
///
/// # Errors
/// As [`compile`].
pub fn compile_for_bytes(pattern: &str) -> Result<Regex, regex::Error> {
    allowed(pattern)?;
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

/// An error for what Go's engine refuses and the other one takes.
fn allowed(pattern: &str) -> Result<(), regex::Error> {
    match refused(pattern) {
        Some(why) => Err(regex::Error::Syntax(why)),
        None => Ok(()),
    }
}

/// Why Go's engine refuses `pattern`; `None` if it does not, or the other engine does as well.
fn refused(pattern: &str) -> Option<String> {
    let mut rest = pattern;
    let mut repeated = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let mut repeats = false;
        rest = match c {
            '\\' => {
                let mut next = after.chars();
                match (next.next(), next.next()) {
                    (Some(digit @ '1'..='9'), then)
                        if digit > '7' || !matches!(then, Some('0'..='7')) =>
                    {
                        return Some(format!("there are no references to groups: \\{digit}"));
                    }
                    (Some('Q'), _) => after.split_once("\\E").map_or("", |(_, after)| after),
                    (Some(c), _) => &after[c.len_utf8()..],
                    (None, _) => "",
                }
            }
            '[' => class(rest, &mut String::new()),
            '*' | '+' | '?' => {
                repeats = true;
                after.strip_prefix('?').unwrap_or(after)
            }
            '{' if is_count(rest) => {
                repeats = true;
                let (count, after) = after.split_once('}')?;
                let large = |n: &str| n.parse::<u32>().map_or(!n.is_empty(), |n| n > 1000);
                if count.split(',').any(large) {
                    return Some(format!("a count is 1000 at most: {{{count}}}"));
                }
                after.strip_prefix('?').unwrap_or(after)
            }
            '(' => {
                let name = after.strip_prefix("?P<").or(after.strip_prefix("?<"));
                match name.and_then(|name| name.split_once('>')) {
                    Some((name, after)) if !name.starts_with(['=', '!']) => {
                        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                        if !name.chars().all(part) {
                            return Some(format!(
                                "the name of a group is letters, digits and _: {name:?}"
                            ));
                        }
                        after
                    }
                    _ => after.strip_prefix('?').unwrap_or(after),
                }
            }
            _ => after,
        };
        if repeats && repeated {
            return Some(format!("{c:?} repeats what is repeated already"));
        }
        repeated = repeats;
    }
    None
}

/// The name of the group that `rest`, which begins with its parenthesis, opens, and what is behind it.
fn group_name(rest: &str) -> Option<(&str, &str)> {
    let named = rest.strip_prefix("(?P<").or(rest.strip_prefix("(?<"))?;
    named
        .split_once('>')
        .filter(|(name, _)| !name.is_empty() && !name.starts_with(['=', '!']))
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
            '(' => match group_name(rest) {
                // Of groups of one name the last one keeps it.
                Some((name, after)) if has_group(after, name) => {
                    out.push('(');
                    rest = after;
                }
                _ => {
                    out.push(c);
                    rest = &rest[1..];
                }
            },
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// Whether a group with this name is opened in `pattern`.
fn has_group(pattern: &str, name: &str) -> bool {
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '\\' => escape(&rest[1..], false, &mut String::new()),
            '[' => class(rest, &mut String::new()),
            '(' if group_name(rest).is_some_and(|(other, _)| other == name) => return true,
            _ => &rest[c.len_utf8()..],
        };
    }
    false
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
        let refused = [
            r"(a)\1",
            r"\8",
            "a{1001}",
            "a{1,2000}",
            "a**",
            "a+*",
            "a{2}{3}",
            "a*?+",
            "(?P<\u{e9}>a)",
            "(?P<a.b>a)",
        ];
        let bad = ["(", "[a", r"\", "*", r"(?P<n>", r"\C", "{2}", r"\p{Gr"];
        for bad in bad.into_iter().chain(refused) {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_looks_refused_and_is_not_is_taken() {
        for pattern in [
            r"a*?b+?c??d{2,3}?",
            r"\12",
            r"\0",
            "[*+]+",
            r"\*+",
            r"\Q**\E*",
            "{2,1001x}",
            "(?i)a+",
            "(?:a+)+",
            "(a{1000})",
            "(?P<n_1>a)",
        ] {
            compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        }
    }

    #[test]
    fn of_groups_of_one_name_the_last_counts() {
        let re = compile(r"(?P<x>a)(?:(?P<y>b)|(?P<x>c))?[(?P<y>]*").expect("valid");
        for (text, x) in [("ac", Some("c")), ("ab", None), ("a", None)] {
            let found = re.captures(text.as_bytes()).expect("matches");
            assert_eq!(
                found.name("x").map(|m| m.as_bytes()),
                x.map(str::as_bytes),
                "{text}"
            );
        }
        assert_eq!(
            re.captures(b"ab")
                .expect("matches")
                .name("y")
                .map(|m| m.as_bytes()),
            Some(&b"b"[..])
        );
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
