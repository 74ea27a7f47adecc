//! Getters of options that only operators have: fields, expressions and values of records.

use tailwater_config::{Environment, Node, NodeValue, Section};
use tailwater_pdata::{Map, Value};

use super::expr::{Expr, ExprError};
use super::field::{Field, FieldError};

/// A field that names one value.
pub(super) fn field(s: &mut Section<'_, '_>, key: &str) -> Option<Field> {
    let text = s.str_optional(key)?;
    parsed(s, key, Field::parse(text))
}

/// A field that may also be the whole of attributes or resource.
pub(super) fn rootable_field(s: &mut Section<'_, '_>, key: &str) -> Option<Field> {
    let text = s.str_optional(key)?;
    parsed(s, key, Field::parse_rootable(text))
}

/// A field that has to be there; `parse` is [`Field::parse`] or [`Field::parse_rootable`].
pub(super) fn required_field(
    s: &mut Section<'_, '_>,
    key: &str,
    parse: fn(&str) -> Result<Field, FieldError>,
) -> Option<Field> {
    let text = s.string_required(key)?;
    parsed(s, key, parse(&text))
}

/// An expression that is true or false.
pub(super) fn condition(
    s: &mut Section<'_, '_>,
    key: &str,
    environment: &dyn Environment,
) -> Option<Expr> {
    let text = s.str_optional(key)?;
    compiled(s, key, Expr::compile_condition(text, environment))
}

/// The outcome of compiling the expression in `key`.
pub(super) fn compiled<T>(
    s: &mut Section<'_, '_>,
    key: &str,
    outcome: Result<T, ExprError>,
) -> Option<T> {
    parsed(s, key, outcome.map_err(|e| format!("expression, {e}")))
}

/// The outcome of reading the option `key`.
pub(super) fn parsed<T, E: ToString>(
    s: &mut Section<'_, '_>,
    key: &str,
    outcome: Result<T, E>,
) -> Option<T> {
    outcome.map_err(|e| s.invalid(key, e.to_string())).ok()
}

/// Any YAML value as a value of a record.
pub(super) fn value_of(node: &Node) -> Value {
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(b) => Value::Bool(*b),
        NodeValue::Int(i) => Value::Int(*i),
        NodeValue::Float(f) => Value::Double(*f),
        NodeValue::Str(s) => Value::str(s),
        NodeValue::List(items) => Value::List(items.iter().map(value_of).collect()),
        NodeValue::Map(entries) => {
            let entries = entries.iter().map(|(k, v)| (k.text.as_str(), value_of(v)));
            Value::Map(entries.collect::<Map>())
        }
    }
}
