//! Lets tests decode configuration that is written as JSON.

use serde_json::Value;
use tailwater_config::{Errors, Key, Node, NodeValue, Section, Span};

fn node(value: &Value) -> Node {
    let span = || Span::start_of("test");
    let inner = match value {
        Value::Null => NodeValue::Null,
        Value::Bool(b) => NodeValue::Bool(*b),
        Value::Number(n) => match n.as_i64() {
            Some(i) => NodeValue::Int(i),
            None => NodeValue::Float(n.as_f64().expect("numbers fit")),
        },
        Value::String(s) => NodeValue::Str(s.clone()),
        Value::Array(items) => NodeValue::List(items.iter().map(node).collect()),
        Value::Object(map) => {
            let key = |text: &String| Key {
                text: text.clone(),
                span: span(),
            };
            NodeValue::Map(map.iter().map(|(k, v)| (key(k), node(v))).collect())
        }
    };
    Node::new(inner, span())
}

/// Decodes `config`; all problems as one text.
pub(crate) fn decode_json<T>(
    config: &Value,
    decode: impl FnOnce(&mut Section<'_, '_>) -> T,
) -> Result<T, String> {
    let root = node(config);
    let mut errors = Errors::new();
    let mut section = Section::new(&root, "exporters::test", &mut errors);
    let value = decode(&mut section);
    section.finish();
    errors.into_result(value).map_err(|e| e.to_string())
}
