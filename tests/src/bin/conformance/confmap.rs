//! Kind `confmap`: sources merged and substituted give a map, or a field read as a type.

use serde_json::Value as Json;
use tailwater_config::{
    Errors, KeyPath, MemoryEnvironment, Node, NodeValue, Section, Source, resolve,
};

use crate::case::{Case, Verdict};

/// The tree as JSON; 1 and 1.0 stay apart.
pub fn to_json(node: &Node) -> Json {
    match &node.value {
        NodeValue::Null => Json::Null,
        NodeValue::Bool(b) => Json::from(*b),
        NodeValue::Int(i) => Json::from(*i),
        NodeValue::Float(x) => Json::from(*x),
        NodeValue::Str(text) => Json::from(text.as_str()),
        NodeValue::List(items) => items.iter().map(to_json).collect(),
        NodeValue::Map(entries) => entries
            .iter()
            .map(|(key, inner)| (key.text.clone(), to_json(inner)))
            .collect(),
    }
}

/// Runs the case.
pub fn run(case: &Case) -> Verdict {
    let scheme = &case.json["config"]["default_scheme"];
    if scheme != "env" {
        return Verdict::NotRun(format!("needs the default scheme {scheme}"));
    }
    compare(&case.json).into()
}

fn compare(vector: &Json) -> Result<(), String> {
    let mut env = MemoryEnvironment::new();
    for (name, value) in vector["env"].as_object().into_iter().flatten() {
        env = env.with_variable(name, value.as_str().unwrap_or_default());
    }
    let texts = vector["config"]["sources"].as_array().ok_or("no sources")?;
    let text = |t: &Json| Source::Yaml(t.as_str().unwrap_or_default().to_owned());
    let sources: Vec<Source> = texts.iter().map(text).collect();
    let (root, _) = resolve(&sources, &[], &env).map_err(|e| e.to_string())?;
    let expect = &vector["expect"];
    let typed = expect["typed"].as_array();
    if expect.get("map").is_none() && typed.is_none_or(Vec::is_empty) {
        return Err("the vector expects nothing".to_owned());
    }
    if let Some(want) = expect.get("map") {
        let got = to_json(&root);
        if got != *want {
            return Err(format!("got {got}, want {want}"));
        }
    }
    for case in typed.into_iter().flatten() {
        let kind = case["as"].as_str().unwrap_or_default();
        let got = read_as(&root, kind)?;
        let good = match (&got, case.get("value")) {
            (Ok(got), Some(want)) => got == want,
            (got, None) => got.is_err(),
            (Err(_), Some(_)) => false,
        };
        if !good {
            return Err(format!(
                "as {kind}: got {got:?}, want {:?}",
                case.get("value")
            ));
        }
    }
    Ok(())
}

/// Reads the option `field` as a type; the value, or the problems.
fn read_as(root: &Node, kind: &str) -> Result<Result<Json, Errors>, String> {
    let mut errors = Errors::new();
    let mut section = Section::new(root, KeyPath::root(), &mut errors);
    let value = match kind {
        "int" => section.i64_optional("field", ..).map(Json::from),
        "string" => section.string_optional("field").map(Json::from),
        "bool" => section.bool_optional("field").map(Json::from),
        "list" => section
            .list("field")
            .map(|items| items.iter().map(to_json).collect()),
        other => return Err(format!("no way to read a field as {other:?}")),
    };
    section.finish();
    Ok(errors.into_result(value.unwrap_or(Json::Null)))
}
