//! What fuzzing demands of the language.

use tailwater_pdata::{LogsBatch, Value};

use crate::logs::LogScene;
use crate::{Condition, Context, Options, RouteStatement, Statement, contexts_of};

/// Any text, as a statement and as a condition, before and behind the first line break: reading it ends
/// without a panic, and what can be compiled can be carried out on records of several kinds.
pub fn statements(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));
    for context in Context::ALL {
        let options = Options {
            context,
            prefixed: false,
            encoded: false,
        };
        let statement = Statement::compile(first, options).ok();
        let condition =
            Condition::compile(if second.is_empty() { first } else { second }, options).ok();
        let route = RouteStatement::compile(first, options).ok();
        if statement.is_none() && condition.is_none() && route.is_none() {
            continue;
        }
        let body = b"{\"a\":1,\"b\":[1,2]} k=v 2026-03-01 \xff";
        let length = body.len() as u32;
        let mut batch =
            LogsBatch::from_lines(body.as_slice().into(), &[(0, 17), (18, 14), (0, length)]);
        let list = batch.cell(&Value::List(vec![Value::Int(1), Value::str("x")]));
        batch.set_attribute(1, "a", list);
        let mut scene = LogScene::new(&mut batch);
        for row in 0..scene.rows() {
            scene.go_to(row);
            if let Some(condition) = &condition {
                let once = condition.holds(&scene, 1);
                // Each UUID is another one.
                assert!(
                    condition.text().contains("UUID") || once == condition.holds(&scene, 1),
                    "a condition changes nothing"
                );
            }
            if let Some(route) = &route
                && route.picks(&scene, 1) == Ok(true)
            {
                let _ = route.edit(&mut scene, 1);
            }
            if let Some(statement) = &statement {
                // What cannot be done is an error.
                let _ = statement.run(&mut scene, 1);
            }
        }
    }
    let _ = contexts_of(first);
    let _ = RouteStatement::contexts_of(first);
}
