//! Selectors of LogQL as expressions of operators: matchers of labels, and filters of lines.

use crate::expr;

/// The expression of a selector; `None` if there is more in it.
pub fn expression(selector: &str) -> Option<String> {
    let rest = selector.trim().strip_prefix('{')?;
    let mut conditions = Vec::new();
    let mut rest = rest.trim_start();
    while !rest.starts_with('}') {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
        let (name, after) = rest.split_at(end);
        let (op, after) = operator(after.trim_start(), &["=~", "!~", "!=", "="])?;
        let (text, after) = literal(after.trim_start())?;
        if name.is_empty() {
            return None;
        }
        let label = expr::text_of(&expr::field("resource", name));
        conditions.push(match op {
            "=" => format!("{label} == {}", expr::quoted(&text)),
            "!=" => format!("{label} != {}", expr::quoted(&text)),
            "=~" => expr::matches_whole(&label, &text),
            _ => format!("not ({})", expr::matches_whole(&label, &text)),
        });
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
    rest = rest[1..].trim_start();
    let line = expr::text_of("body");
    while !rest.is_empty() {
        let (op, after) = operator(rest, &["|=", "!=", "|~", "!~"])?;
        let (text, after) = literal(after.trim_start())?;
        let text = expr::quoted(&text);
        conditions.push(match op {
            "|=" => format!("{line} contains {text}"),
            "!=" => format!("not ({line} contains {text})"),
            "|~" => format!("{line} matches {text}"),
            _ => format!("not ({line} matches {text})"),
        });
        rest = after.trim_start();
    }
    match conditions.is_empty() {
        true => Some("true".to_owned()),
        false => Some(conditions.join(" and ")),
    }
}

/// Whether a selector that could be read is about this label.
pub fn names(selector: &str, label: &str) -> bool {
    let matchers = selector.split(['{', ',']).map(str::trim_start);
    let after = matchers.filter_map(|m| m.strip_prefix(label));
    after
        .map(str::trim_start)
        .any(|rest| rest.starts_with(['=', '!']))
}

fn operator<'t, 'o>(text: &'t str, all: &[&'o str]) -> Option<(&'o str, &'t str)> {
    all.iter()
        .find_map(|op| text.strip_prefix(op).map(|rest| (*op, rest)))
}

/// A text between double quotes or backticks, as Go writes them.
fn literal(text: &str) -> Option<(String, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (raw, rest) = raw.split_once('`')?;
        return Some((raw.to_owned(), rest));
    }
    let mut out = String::new();
    let body = text.strip_prefix('"')?;
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &body[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_become_expressions_or_are_left() {
        let app = r#"string(resource.app ?? "")"#;
        for (selector, expect) in [
            ("{}", Some("true".to_owned())),
            ("{app=\"a\"}", Some(format!("{app} == \"a\""))),
            ("{app!=\"a\",}", Some(format!("{app} != \"a\""))),
            (
                "{ app=~\"a|b\" }",
                Some(format!("{app} matches \"^(?:a|b)$\"")),
            ),
            (
                "{app!~`\\d`}",
                Some(format!("not ({app} matches \"^(?:\\\\d)$\")")),
            ),
            (
                "{app=\"a\"} |= \"x\\\"\" != `y` |~ \"z\" !~ \"w\"",
                Some(format!(
                    "{app} == \"a\" and string(body) contains \"x\\\"\" and not (string(body) contains \"y\") and \
                     string(body) matches \"z\" and not (string(body) matches \"w\")"
                )),
            ),
            ("{app=\"a\"} | json", None),
            ("{app=\"a\"} | logfmt | level=\"x\"", None),
            ("{app=\"a\"", None),
            ("{app}", None),
            ("{app=a}", None),
            ("app", None),
            ("{app=\"a\\x\"}", None),
        ] {
            assert_eq!(expression(selector), expect, "{selector}");
        }
    }
}
