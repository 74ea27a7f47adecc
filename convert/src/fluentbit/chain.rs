//! Operators in the making, over records as Fluent Bit has them: attributes are the record, and a line is its
//! key `log`.

use crate::expr;
use crate::note::{Notes, Weight};
use crate::yaml::{Item, Map, Value, map};

/// What came of an input and the filters on it.
#[derive(Default)]
pub struct Chain {
    operators: Vec<Item>,
    pending: Vec<String>,
}

impl Chain {
    /// A comment in front of the next operator.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.pending.push(text.into());
    }

    /// Comments in front of the next operator.
    pub fn comments(&mut self, all: impl IntoIterator<Item = String>) {
        self.pending.extend(all);
    }

    /// Has the operator container say what the path of a log says; false if there is none.
    pub fn with_paths(&mut self) -> bool {
        let mut found = false;
        for item in &mut self.operators {
            if let Some(Value::Map(op)) = &mut item.value
                && op.has("add_metadata_from_filepath")
            {
                op.set("add_metadata_from_filepath", true);
                found = true;
            }
        }
        found
    }

    /// An operator.
    pub fn push<const N: usize>(&mut self, kind: &str, entries: [(&str, Value); N]) {
        let mut op = map([("type", kind.into())]);
        for (key, value) in entries {
            op.set(key, value);
        }
        self.push_map(op);
    }

    /// An operator that leaves a record as it is when it fails, and acts only if `condition` holds.
    pub fn quiet<const N: usize>(
        &mut self,
        kind: &str,
        condition: Option<&str>,
        entries: [(&str, &str); N],
    ) {
        let mut op = map([("type", kind.into())]);
        for (key, value) in entries {
            op.set(key, value);
        }
        op.set("on_error", "send_quiet");
        op.set_some("if", condition);
        self.push_map(op);
    }

    /// Makes the body of all fields, as JSON on one line.
    pub fn json(&mut self, condition: Option<&str>) {
        let all = expr::value("toJSON(attributes)");
        self.quiet("add", condition, [("field", "body"), ("value", &all)]);
        // It is written with line ends and indented; in texts line ends are escaped.
        self.quiet(
            "regex_replace",
            condition,
            [("field", "body"), ("regex", expr::INDENTATION)],
        );
    }

    /// Keeps of the record only these fields.
    pub fn retain(&mut self, fields: Vec<String>, condition: Option<&str>) {
        let mut op = map([("type", "retain".into()), ("fields", fields.into())]);
        op.set("on_error", "send_quiet");
        op.set_some("if", condition);
        self.push_map(op);
    }

    /// An operator.
    pub fn push_map(&mut self, op: Map) {
        self.operators.push(Item {
            comments: std::mem::take(&mut self.pending),
            value: Some(op.into()),
        });
    }

    /// All of them.
    pub fn finish(mut self) -> Vec<Item> {
        let comments = std::mem::take(&mut self.pending);
        if !comments.is_empty() {
            self.operators.push(Item {
                comments,
                value: None,
            });
        }
        self.operators
    }
}

/// The key of a record as a field.
pub fn key(name: &str) -> String {
    expr::field("attributes", name)
}

/// A record accessor, `$a['b']`, or a name, as a field.
pub fn accessor(text: &str) -> String {
    let Some(rest) = text.strip_prefix('$') else {
        return key(text);
    };
    let mut parts = rest.split(['[', ']']).filter(|p| !p.is_empty());
    let first = key(parts.next().unwrap_or_default());
    parts.fold(first, |field, part| {
        expr::field(&field, part.trim_matches(['\'', '"']))
    })
}

/// The condition that a pattern of Fluent Bit is in a field; `None`, with a remark, if it is not one of RE2.
pub fn matching(
    field: &str,
    pattern: &str,
    place: &str,
    path: &str,
    notes: &mut Notes,
) -> Result<String, String> {
    let pattern = re2(pattern);
    if regex::Regex::new(&pattern).is_err() {
        let say = format!(
            "the pattern {pattern:?} has no equal in RE2, which looks neither ahead nor back"
        );
        return Err(notes.add(Weight::Decide, place, path, say));
    }
    Ok(format!(
        "{} matches {}",
        expr::text_of(field),
        expr::quoted(&pattern)
    ))
}

/// A pattern of Onigmo as RE2 writes it: without slashes around it, and with named groups as `(?P<name>...)`.
pub fn re2(pattern: &str) -> String {
    let bare = pattern
        .strip_prefix('/')
        .and_then(|p| p.strip_suffix('/'))
        .unwrap_or(pattern);
    let mut out = String::with_capacity(bare.len() + 8);
    let mut rest = bare;
    while let Some((before, after)) = rest.split_once("(?<") {
        out.push_str(before);
        let look = after.starts_with(['=', '!']);
        out.push_str(if look { "(?<" } else { "(?P<" });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessors_are_fields() {
        for (text, expect) in [
            ("a", "attributes.a"),
            ("$a", "attributes.a"),
            ("$a['b']['c-d']", "attributes.a.b[\"c-d\"]"),
            ("$kubernetes[\"pod\"]", "attributes.kubernetes.pod"),
        ] {
            assert_eq!(accessor(text), expect);
        }
    }

    #[test]
    fn patterns_are_written_as_re2() {
        assert_eq!(re2("/^(?<a>x)(?<b>y)$/"), "^(?P<a>x)(?P<b>y)$");
        assert_eq!(re2("(?<=a)b"), "(?<=a)b");
    }
}
