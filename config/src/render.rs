//! A tree as YAML or JSON text.

use std::fmt::Write as _;

use crate::node::{Node, NodeValue};
use crate::placeholder::escape;
use crate::scalar::resolve;

/// The tree as YAML in block style, two spaces a level. Read and substituted again it gives the
/// same values: `$` is doubled in texts where it would have a meaning. Numbers are written as they
/// were, a value out of `${}` as its text if that is no string.
pub fn to_yaml(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        NodeValue::Map(entries) if !entries.is_empty() => yaml_block(node, 0, &mut out),
        NodeValue::List(items) if !items.is_empty() => yaml_block(node, 0, &mut out),
        _ => {
            out.push_str(&yaml_inline(node));
            out.push('\n');
        }
    }
    out
}

/// Writes a list or map that is not empty, beginning on a line of its own.
fn yaml_block(node: &Node, level: usize, out: &mut String) {
    match &node.value {
        NodeValue::Map(entries) => {
            for (i, (key, inner)) in entries.iter().enumerate() {
                // The first line of a map in a list stands behind the dash.
                if i > 0 || !out.ends_with("- ") {
                    indent(level, out);
                }
                put_key(&yaml_string(&key.text), level, out);
                yaml_value(inner, level, out);
            }
        }
        NodeValue::List(items) => {
            for (i, inner) in items.iter().enumerate() {
                if i > 0 || !out.ends_with("- ") {
                    indent(level, out);
                }
                out.push('-');
                match is_block(inner) {
                    true => {
                        out.push(' ');
                        yaml_block(inner, level + 1, out);
                    }
                    false => yaml_value(inner, level, out),
                }
            }
        }
        _ => {}
    }
}

/// Longest key, in characters, that may stand before its colon without a question mark in front of it
/// (YAML 1.2.2, section 7.4.2).
const PLAIN_KEY_MAX: usize = 1024;

/// Writes a key, its colon included.
fn put_key(key: &str, level: usize, out: &mut String) {
    if key.chars().count() < PLAIN_KEY_MAX {
        out.push_str(key);
    } else {
        out.push_str("? ");
        out.push_str(key);
        out.push('\n');
        indent(level, out);
    }
    out.push(':');
}

/// Writes what stands behind a key or a dash, to the end of the line or block.
fn yaml_value(node: &Node, level: usize, out: &mut String) {
    if is_block(node) {
        out.push('\n');
        yaml_block(node, level + 1, out);
    } else {
        out.push(' ');
        out.push_str(&yaml_inline(node));
        out.push('\n');
    }
}

fn is_block(node: &Node) -> bool {
    match &node.value {
        NodeValue::Map(entries) => !entries.is_empty(),
        NodeValue::List(items) => !items.is_empty(),
        _ => false,
    }
}

fn indent(level: usize, out: &mut String) {
    for _ in 0..level {
        out.push_str("  ");
    }
}

fn yaml_inline(node: &Node) -> String {
    match &node.value {
        NodeValue::Null => "null".to_owned(),
        NodeValue::Bool(b) => b.to_string(),
        NodeValue::Int(i) => number_text(node).unwrap_or_else(|| i.to_string()),
        NodeValue::Float(x) => number_text(node).unwrap_or_else(|| yaml_float(*x)),
        NodeValue::Str(text) => yaml_string(&escape(text)),
        NodeValue::List(_) => "[]".to_owned(),
        NodeValue::Map(_) => "{}".to_owned(),
    }
}

/// The number as it was written, if that is still what it means.
fn number_text(node: &Node) -> Option<String> {
    let text = node.text.as_deref()?;
    let again = Node::new(resolve(text), node.span.clone());
    let bare = Node::new(node.value.clone(), node.span.clone());
    again.same_value(&bare).then(|| text.to_owned())
}

fn yaml_float(x: f64) -> String {
    if x.is_nan() {
        ".nan".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { ".inf" } else { "-.inf" }.to_owned()
    } else {
        format!("{x:?}")
    }
}

/// What other readers of YAML take for a boolean.
const OLD_BOOLEANS: &[&str] = &["y", "n", "yes", "no", "on", "off"];

fn yaml_string(text: &str) -> String {
    let plain = is_plain_text(text)
        && matches!(resolve(text), NodeValue::Str(_))
        && !OLD_BOOLEANS
            .iter()
            .any(|word| word.eq_ignore_ascii_case(text));
    if plain { text.to_owned() } else { quoted(text) }
}

/// Whether a text can stand without quotes in every place. Stricter than YAML, for readers that
/// are less so.
fn is_plain_text(text: &str) -> bool {
    let first_is_safe = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '^' | '$');
    let is_safe = |c: char| {
        !c.is_control()
            && !matches!(
                c,
                '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}'
            )
    };
    text.starts_with(first_is_safe)
        && !text.ends_with([' ', ':'])
        && text.chars().all(is_safe)
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.contains(['{', '}', '[', ']', ','])
        && text != "..."
        && !text.starts_with("... ")
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                push_escape(c, &mut out)
            }
            '\u{fffe}' | '\u{ffff}' => push_escape(c, &mut out),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `\uXXXX`, which JSON and YAML have in common. Only for characters below U+10000.
fn push_escape(c: char, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\u{:04x}", u32::from(c));
}

/// The tree as JSON, two spaces a level. What JSON has no number for (`.inf`, `.nan`) is a string.
/// Nothing is escaped for substitution.
pub fn to_json(node: &Node) -> String {
    let mut out = String::new();
    json(node, 0, &mut out);
    out.push('\n');
    out
}

fn json(node: &Node, level: usize, out: &mut String) {
    match &node.value {
        NodeValue::Null => out.push_str("null"),
        NodeValue::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        NodeValue::Int(i) => out.push_str(&i.to_string()),
        NodeValue::Float(x) if x.is_finite() => out.push_str(&format!("{x:?}")),
        NodeValue::Float(x) => out.push_str(&quoted(&yaml_float(*x))),
        NodeValue::Str(text) => out.push_str(&quoted(text)),
        NodeValue::List(items) => {
            json_block('[', ']', items.len(), level, out, |i, out| {
                json(&items[i], level + 1, out)
            });
        }
        NodeValue::Map(entries) => json_block('{', '}', entries.len(), level, out, |i, out| {
            let (key, inner) = &entries[i];
            out.push_str(&quoted(&key.text));
            out.push_str(": ");
            json(inner, level + 1, out);
        }),
    }
}

fn json_block(
    open: char,
    close: char,
    len: usize,
    level: usize,
    out: &mut String,
    write: impl Fn(usize, &mut String),
) {
    out.push(open);
    for i in 0..len {
        out.push_str(if i == 0 { "\n" } else { ",\n" });
        indent(level + 1, out);
        write(i, out);
    }
    if len > 0 {
        out.push('\n');
        indent(level, out);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::MemoryEnvironment;
    use crate::node::Span;
    use crate::parse::parse;
    use crate::substitute::substitute;
    use proptest::prelude::*;

    #[test]
    fn yaml_is_written_in_block_style_with_quotes_where_needed() {
        let text = "{a: {b: [1, 0x1f, {c: 'yes', d: '12'}, [x, []]], e: {}}, 'k: x': ~, f: 1.50, \
                    g: \"l1\\nl2\", h: '${X}', i: 'true', j: '^a$', '<<x': 1}";
        let expect = "\
a:
  b:
    - 1
    - 0x1f
    - c: \"yes\"
      d: \"12\"
    - - x
      - []
  e: {}
\"k: x\": null
f: 1.50
g: \"l1\\nl2\"
h: \"$${X}\"
i: \"true\"
j: ^a$
\"<<x\": 1
";
        assert_eq!(to_yaml(&parse(text, "t").unwrap()), expect);
    }

    /// Guarantee: keys beyond what YAML allows before a colon are written so that they are read again.
    #[test]
    fn long_keys_are_written_with_a_question_mark() {
        let (key, less) = ("k".repeat(1024), "j".repeat(1023));
        let text = format!("a:\n  - ? {key}\n    : {{{less}: 1, b: {{? {key} : [2]}}}}\n");
        let node = parse(&text, "t").unwrap();
        let yaml = to_yaml(&node);
        assert!(yaml.contains("? k") && !yaml.contains("? j"), "{yaml}");
        assert!(node.same_value(&parse(&yaml, "t").unwrap()), "{yaml}");
        let json = to_json(&node);
        assert!(node.same_value(&parse(&json, "t").unwrap()), "{json}");
    }

    #[test]
    fn json_is_valid_and_keeps_the_order_of_keys() {
        let text =
            "{b: [1, 1.0, .inf, ~, true], a: {}, c: \"q\\\"\\\\\\n\\x01\", d: [], e: '${X}'}";
        let out = to_json(&parse(text, "t").unwrap());
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let expect = serde_json::json!({
            "b": [1, 1.0, ".inf", null, true], "a": {}, "c": "q\"\\\n\u{1}", "d": [], "e": "${X}"
        });
        assert_eq!(value, expect);
        assert!(out.starts_with("{\n  \"b\": [\n    1,\n    1.0,"), "{out}");
    }

    fn any_value() -> impl Strategy<Value = NodeValue> {
        let leaf = prop_oneof![
            Just(NodeValue::Null),
            any::<bool>().prop_map(NodeValue::Bool),
            any::<i64>().prop_map(NodeValue::Int),
            any::<f64>()
                .prop_filter("a number", |x| !x.is_nan())
                .prop_map(NodeValue::Float),
            any::<String>().prop_map(NodeValue::Str),
            "[-a-z0-9 :#$%{}'\"\\n,?!|>&*@~.<]{0,12}".prop_map(NodeValue::Str),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let node = inner.prop_map(|value| Node::new(value, Span::start_of("p")));
            prop_oneof![
                prop::collection::vec(node.clone(), 0..4).prop_map(NodeValue::List),
                prop::collection::btree_map("[-a-z:# <{$\"\u{e9}]{0,6}", node, 0..4).prop_map(
                    |map| {
                        let key = |text| crate::node::Key {
                            text,
                            span: Span::start_of("p"),
                        };
                        NodeValue::Map(map.into_iter().map(|(k, n)| (key(k), n)).collect())
                    }
                ),
            ]
        })
    }

    proptest! {
        /// Guarantee: what is rendered as YAML reads back, after substitution, as the same values.
        #[test]
        fn rendered_yaml_reads_back_as_the_same_values(value in any_value()) {
            let node = Node::new(value, Span::start_of("p"));
            let text = to_yaml(&node);
            let fail = |e| TestCaseError::fail(format!("{e}\n{text}"));
            let again = parse(&text, "again").map_err(fail)?;
            let (again, errors) = substitute(again, &MemoryEnvironment::new());
            prop_assert!(errors.is_empty(), "{errors}\n{text}");
            prop_assert!(again.same_value(&node), "{text}");
        }

        /// Guarantee: what is rendered as JSON is JSON.
        #[test]
        fn rendered_json_is_json(value in any_value()) {
            let text = to_json(&Node::new(value, Span::start_of("p")));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
    }
}
