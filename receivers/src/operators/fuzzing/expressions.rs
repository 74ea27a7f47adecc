//! The expression language.

use tailwater_config::MemoryEnvironment;
use tailwater_pdata::{LogsBatch, Map, Value};

use super::batch;
use crate::operators::expr::{Expr, ExprError, Record, Template};

/// The longest expression that is tried: they are written by people.
const EXPRESSION_BYTES_MAX: usize = 1 << 10;

/// The first line is an expression and a template, the second a record: errors point into the
/// text, evaluation ends in a value or an error, and always in the same.
pub fn expressions(data: &[u8]) {
    let (text, body) = match data.iter().position(|b| *b == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if text.len() > EXPRESSION_BYTES_MAX {
        return;
    }
    let environment = MemoryEnvironment::new().with_variable("NODE", "node-1");
    let batch = record(body);
    let record = Record {
        batch: &batch,
        row: 0,
    };
    if let Ok(expr) = points_into(text, Expr::compile(text, &environment)) {
        let value = || {
            expr.eval(record)
                .map(|v| format!("{:?}", v.to_value(record)))
        };
        assert_eq!(value(), value());
    }
    if let Ok(condition) = points_into(text, Expr::compile_condition(text, &environment)) {
        assert_eq!(condition.truth(record), condition.truth(record));
    }
    let template = points_into(text, Template::compile(text, &environment));
    if let Ok(template) = template {
        let mut out = b"before".to_vec();
        let rendered = template.render(record, &mut out);
        assert!(out.starts_with(b"before") && (rendered.is_ok() || out.len() == 6));
        if template.is_plain() {
            assert_eq!(&out[6..], text.as_bytes());
        }
    }
}

/// A record with `body`, parts of it as attributes, and values of other kinds.
fn record(body: &[u8]) -> LogsBatch {
    let (mut batch, _) = batch(&[body], 0);
    let word = body.split(|b| *b == b' ').next().unwrap_or_default();
    let word = Value::str(String::from_utf8_lossy(word));
    let nested: Map = [("k", word.clone()), ("i", Value::Int(7))]
        .into_iter()
        .collect();
    let list = Value::List(vec![word.clone(), Value::Null, Value::Double(0.5)]);
    let all = [
        ("w", word),
        ("i", Value::Int(i64::MIN)),
        ("d", Value::Double(f64::NAN)),
        ("m", Value::Map(nested)),
        ("l", list),
    ];
    for (key, value) in all {
        let cell = batch.cell(&value);
        batch.set_attribute(0, key, cell);
    }
    batch
}

fn points_into<T>(text: &str, compiled: Result<T, ExprError>) -> Result<T, ExprError> {
    if let Err(e) = &compiled {
        assert!(
            e.pos.0 <= text.len() && !e.message.is_empty(),
            "{text:?}: {e}"
        );
    }
    compiled
}
