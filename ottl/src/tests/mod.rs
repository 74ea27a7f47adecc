//! Each function and rule of the language, restated from its documentation as tables.

mod conditions;
mod converters;
mod editors;
mod mistakes;
mod properties;

use std::sync::Arc;

use tailwater_pdata::{LogsBatch, Map, Value};

use crate::compile::Compiler;
use crate::logs::LogScene;
use crate::scene::Cx;
use crate::value::Val;
use crate::{Condition, Context, Options, Statement, parser};

pub(super) const LOG: Options = Options {
    context: Context::Log,
    prefixed: false,
    encoded: false,
};

pub(super) const NOW_NS: i64 = 1_772_370_309_250_000_000;

/// A list of a record.
pub(super) fn list(items: &[Value]) -> Value {
    Value::List(items.to_vec())
}

/// A map of a record.
pub(super) fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().cloned().collect())
}

/// Two records, of which the first is looked at: its body is `GET /a?x=1 200`.
pub(super) fn batch() -> LogsBatch {
    let text = b"GET /a?x=1 200 other";
    let mut b = LogsBatch::from_lines(text.as_slice().into(), &[(0, 14), (15, 5)]);
    b.resource = Arc::new(
        [("service.name", "shop"), ("host", "h1")]
            .into_iter()
            .collect(),
    );
    let attributes = [
        ("s", Value::str("text")),
        ("i", Value::Int(7)),
        ("d", Value::Double(1.5)),
        ("t", Value::Bool(true)),
        ("b", Value::Bytes(vec![1, 0xab].into())),
        (
            "l",
            list(&[Value::str("x"), Value::str("y"), Value::Int(3)]),
        ),
        (
            "m",
            map(&[
                ("k", Value::str("v")),
                ("n", map(&[("deep", Value::Int(1))])),
            ]),
        ),
        ("json", Value::str(r#"{"a":1,"b":{"c":[true,null]},"a":2}"#)),
    ];
    for (key, value) in attributes {
        let cell = b.cell(&value);
        b.set_attribute(0, key, cell);
    }
    let scope = Arc::make_mut(&mut b.scope);
    scope.name = "lib".into();
    scope.version = "1.2".into();
    b.time.each_mut(2)[0] = NOW_NS;
    b.severity.each_mut(2)[0] = 9;
    b
}

/// What an expression gives for the record.
pub(super) fn eval(text: &str) -> Result<Val<'static>, String> {
    let parsed = parser::value(text).map_err(|m| m.in_text(text).to_string())?;
    let compiler = Compiler {
        context: Context::Log,
        prefixed: false,
        encoded: false,
    };
    let (expr, _) = compiler
        .value(&parsed)
        .map_err(|m| m.in_text(text).to_string())?;
    let mut batch = batch();
    let scene = LogScene::new(&mut batch);
    let cx = Cx {
        scene: &scene,
        now_ns: NOW_NS,
    };
    let val = expr.eval(&cx).map_err(|f| f.to_string())?;
    Ok(val.into_static())
}

/// The same as something that can be compared.
pub(super) fn shown(val: &Val<'_>) -> String {
    match val {
        Val::Nil => "nil".into(),
        Val::Time(ns) => format!("time {ns}"),
        Val::Duration(ns) => format!("duration {ns}"),
        Val::Double(d) => format!("double {d}"),
        Val::Bytes(b) => format!("bytes {}", crate::functions::hex(b)),
        Val::Str(s) => format!("{:?}", String::from_utf8_lossy(s)),
        other => other.as_value().unwrap().to_display_string(),
    }
}

/// Expressions and what they give.
pub(super) fn check(table: &[(&str, &str)]) {
    for (text, want) in table {
        let got = eval(text).map_or_else(|e| format!("error: {e}"), |v| shown(&v));
        let same = match want.strip_prefix("error: ") {
            Some(part) => got.starts_with("error: ") && got.contains(part),
            None => got == *want,
        };
        assert!(same, "{text}\n  gave {got}\n  want {want}");
    }
}

/// Carries statements out on the first record.
pub(super) fn run(statements: &[&str]) -> Result<LogsBatch, String> {
    let mut batch = batch();
    let mut scene = LogScene::new(&mut batch);
    for text in statements {
        let statement = Statement::compile(text, LOG).map_err(|e| format!("{text}: {e}"))?;
        statement
            .run(&mut scene, NOW_NS)
            .map_err(|f| format!("{text}: {f}"))?;
    }
    Ok(batch)
}

pub(super) fn attributes(batch: &LogsBatch) -> Map {
    batch.attributes_of(0)
}

pub(super) fn holds(text: &str) -> Result<bool, String> {
    let condition = Condition::compile(text, LOG).map_err(|e| e.to_string())?;
    let mut batch = batch();
    let scene = LogScene::new(&mut batch);
    condition.holds(&scene, NOW_NS).map_err(|f| f.to_string())
}
