//! Names of fields and texts in the language of operators.

/// What `toJSON` puts between the members of what it writes.
pub const INDENTATION: &str = r"\n *";

/// Whether a name needs no quotes.
fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next();
    first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A text between quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The field `name` of `root`: `attributes.level`, `resource["k8s.pod.name"]`.
pub fn field(root: &str, name: &str) -> String {
    match is_plain(name) {
        true => format!("{root}.{name}"),
        false => format!("{root}[{}]", quoted(name)),
    }
}

/// A field as text, empty if it is not there.
pub fn text_of(field: &str) -> String {
    match field {
        "body" => "string(body)".to_owned(),
        _ => format!("string({field} ?? \"\")"),
    }
}

/// Whether a text matches a pattern as a whole.
pub fn matches_whole(text: &str, pattern: &str) -> String {
    format!("{text} matches {}", quoted(&format!("^(?:{pattern})$")))
}

/// An expression as the value of `add`.
pub fn value(expression: &str) -> String {
    format!("EXPR({expression})")
}
