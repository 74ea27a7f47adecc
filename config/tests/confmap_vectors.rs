//! Runs the confmap vectors: facts restated from the collector's tests, one JSON file each, with
//! the test they come from in `source`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use tailwater_config::{
    Errors, KeyPath, MemoryEnvironment, Node, NodeValue, Section, Source, resolve,
};

/// The tree as JSON values; the typed comparison keeps 1 and 1.0 apart.
fn to_value(node: &Node) -> Value {
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(b) => Value::from(*b),
        NodeValue::Int(i) => Value::from(*i),
        NodeValue::Float(x) => Value::from(*x),
        NodeValue::Str(text) => Value::from(text.as_str()),
        NodeValue::List(items) => items.iter().map(to_value).collect(),
        NodeValue::Map(entries) => entries
            .iter()
            .map(|(key, inner)| (key.text.clone(), to_value(inner)))
            .collect(),
    }
}

/// Reads the option `field` as a type; the value, or the problems.
fn read_as(root: &Node, kind: &str) -> Result<Value, Errors> {
    let mut errors = Errors::new();
    let mut section = Section::new(root, KeyPath::root(), &mut errors);
    let value = match kind {
        "int" => section.i64_optional("field", ..).map(Value::from),
        "string" => section.string_optional("field").map(Value::from),
        "bool" => section.bool_optional("field").map(Value::from),
        "list" => section
            .list("field")
            .map(|items| items.iter().map(to_value).collect()),
        other => panic!("a vector reads a field as {other}"),
    };
    section.finish();
    errors.into_result(value.unwrap_or(Value::Null))
}

fn run(vector: &Value) {
    let mut env = MemoryEnvironment::new();
    for (name, value) in vector["env"].as_object().into_iter().flatten() {
        env = env.with_variable(name, value.as_str().unwrap());
    }
    assert_eq!(
        vector["config"]["default_scheme"], "env",
        "the only default scheme there is"
    );
    let sources: Vec<Source> = vector["config"]["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| Source::Yaml(text.as_str().unwrap().to_owned()))
        .collect();
    let (root, _) = resolve(&sources, &[], &env).unwrap();
    let expect = &vector["expect"];
    let mut compared = 0;
    if let Some(map) = expect.get("map") {
        assert_eq!(&to_value(&root), map);
        compared += 1;
    }
    for typed in expect["typed"].as_array().into_iter().flatten() {
        let kind = typed["as"].as_str().unwrap();
        let got = read_as(&root, kind);
        match typed.get("value") {
            Some(value) => assert_eq!(&got.unwrap(), value, "as {kind}"),
            None => assert!(got.is_err(), "as {kind}: {got:?}"),
        }
        compared += 1;
    }
    assert!(compared > 0, "a vector that expects nothing");
}

#[test]
fn every_confmap_vector_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/confmap");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        println!("{}", vector["id"]);
        run(&vector);
        count += 1;
    }
    assert!(count >= 5, "only {count} vectors found");
}
