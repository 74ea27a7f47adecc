//! The JSON schema (draft 2020-12) of a configuration, for editors.
//!
//! It is meant to help while typing, so where it cannot know it allows: whatever may come out of `${}` passes,
//! and so does null, which keeps a default. What `validate` says counts.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use tailwater_config::reference::{Bounds, OptionRecord, ValueKind};
use tailwater_config::{ComponentKind, Signal};

use super::Entry;
use super::tree::Tree;

/// Text of Go's durations.
const DURATION: &str = r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";
/// Text of sizes.
const BYTES: &str = r"^[0-9]+(\.[0-9]*)?\s*([kKmMgGtTpP][iI]?[bB])?$";
/// A schema that is shorter than this is written wherever it is used.
const SHARED_LEAST: usize = 400;

/// The schema as JSON.
pub fn text(entries: &[Entry]) -> String {
    let mut defs = Map::new();
    defs.insert(
        "placeholder".to_owned(),
        json!({"type": "string", "pattern": r"\$\{"}),
    );
    let mut top = Map::new();
    for kind in ComponentKind::ALL {
        let class = kind.section();
        let mut types = Map::new();
        for entry in entries.iter().filter(|e| e.class == class) {
            let name = format!("{class}.{}", entry.kind);
            let names: Vec<&str> = [entry.kind]
                .into_iter()
                .chain(entry.aliases.iter().copied())
                .collect();
            let pattern = format!("^({})(/.*)?$", names.join("|"));
            types.insert(pattern, json!({"$ref": format!("#/$defs/{name}")}));
            defs.insert(name, component(entry));
        }
        top.insert(
            class.to_owned(),
            json!({"type": ["object", "null"], "patternProperties": types, "additionalProperties": false}),
        );
    }
    for entry in entries.iter().filter(|e| e.class == "service") {
        defs.insert("service".to_owned(), component(entry));
        top.insert("service".to_owned(), json!({"$ref": "#/$defs/service"}));
    }
    share(&mut defs);
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Written by `cargo xtask docs` from the code. Change it there.",
        "title": "Configuration of Tailwater",
        "type": ["object", "null"],
        "properties": top,
        "additionalProperties": false,
        "$defs": defs,
    });
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

fn component(entry: &Entry) -> Value {
    let tree = Tree::new(&entry.reference.options, &[]);
    let mut schema = object(&tree);
    let mut about = entry.about.trim_end_matches('.').to_owned();
    about.push('.');
    schema.insert("description".to_owned(), about.into());
    if entry.class == "service"
        && let Some(pipelines) = schema
            .get_mut("properties")
            .and_then(|p| p.get_mut("pipelines"))
    {
        pipelines_by_signal(pipelines);
    }
    Value::Object(schema)
}

/// The names of pipelines begin with a signal.
fn pipelines_by_signal(schema: &mut Value) {
    let Some(any) = schema.get_mut("anyOf").and_then(|any| any.get_mut(0)) else {
        return;
    };
    let pipeline = any["additionalProperties"].take();
    let pattern = format!("^({})(/.*)?$", Signal::ALL.map(Signal::as_str).join("|"));
    any["patternProperties"] = json!({ pattern: pipeline });
    any["additionalProperties"] = false.into();
}

/// A map of options.
fn object(tree: &Tree<'_>) -> Map<String, Value> {
    let variants: Vec<(&str, &Tree<'_>)> = tree.variants().collect();
    if !variants.is_empty() {
        return by_variant(tree, &variants);
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!(["object", "null"]));
    let properties: Map<String, Value> = tree
        .options()
        .map(|(key, t)| (key.to_owned(), value(t)))
        .collect();
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), properties.into());
    }
    let others = tree.named().map_or(json!(false), value);
    schema.insert("additionalProperties".to_owned(), others);
    require(tree, &mut schema);
    schema
}

/// What must be there, unless all of it is null.
fn require(tree: &Tree<'_>, schema: &mut Map<String, Value>) {
    let required = tree
        .options()
        .filter(|(_, t)| t.option.is_some_and(|o| o.required));
    let required: Vec<&str> = required.map(|(key, _)| key).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
}

/// A map whose options depend on one of them.
fn by_variant(tree: &Tree<'_>, variants: &[(&str, &Tree<'_>)]) -> Map<String, Value> {
    let common: Vec<(&str, &Tree<'_>)> = tree.options().collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    let properties: Map<String, Value> = common
        .iter()
        .map(|(key, t)| ((*key).to_owned(), value(t)))
        .collect();
    schema.insert("properties".to_owned(), properties.into());
    require(tree, &mut schema);
    let key = common.first().map_or("type", |(key, _)| *key);
    let cases = variants.iter().map(|(name, tree)| {
        let mut then = object(tree);
        if let Some(Value::Object(properties)) = then.get_mut("properties") {
            for (key, _) in &common {
                properties.insert((*key).to_owned(), json!(true));
            }
        } else {
            let properties: Map<String, Value> = common
                .iter()
                .map(|(key, _)| ((*key).to_owned(), json!(true)))
                .collect();
            then.insert("properties".to_owned(), properties.into());
        }
        json!({"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then})
    });
    schema.insert("allOf".to_owned(), cases.collect());
    schema
}

/// The value of an option, or what is behind a free name.
fn value(tree: &Tree<'_>) -> Value {
    let Some(option) = tree.option else {
        return Value::Object(object(tree));
    };
    let mut ways: Vec<Value> = tree
        .kinds()
        .flat_map(|kind| self::kind(kind, tree))
        .collect();
    if option.kinds.contains(&ValueKind::Any) {
        ways = any(tree);
    }
    let takes_text = option.kinds.contains(&ValueKind::Any)
        || option.kinds.iter().all(|k| {
            use ValueKind as K;
            matches!(k, K::Text | K::Secret | K::ComponentId)
        });
    if !takes_text {
        ways.push(json!({"$ref": "#/$defs/placeholder"}));
    }
    let mut schema = match ways.len() {
        0 => Map::new(),
        1 => match ways.remove(0) {
            Value::Object(only) => only,
            _ => Map::new(),
        },
        _ => Map::from_iter([("anyOf".to_owned(), Value::Array(ways))]),
    };
    describe(option, &mut schema);
    Value::Object(schema)
}

fn describe(option: &OptionRecord, schema: &mut Map<String, Value>) {
    if let Some(text) = &option.text {
        let own = if text.own {
            " (An option of Tailwater's own.)"
        } else {
            ""
        };
        let text = format!("{}{own}", without_links(&text.text));
        schema.insert("description".to_owned(), text.into());
    }
    let Some(default) = &option.default else {
        return;
    };
    // As it would be written: YAML's scalars are JSON's here.
    let default = serde_json::from_str(default).unwrap_or_else(|_| Value::from(default.as_str()));
    schema.insert("default".to_owned(), default);
}

/// A text in which links are only their names.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let name = link
            .split_once("](")
            .and_then(|(name, to)| Some((name, to.split_once(')')?.1)));
        match name {
            Some((name, behind)) => {
                out.push_str(before);
                out.push_str(name);
                rest = behind;
            }
            None => break,
        }
    }
    out + rest
}

/// The forms that a value of this kind has.
fn kind(kind: &ValueKind, tree: &Tree<'_>) -> Vec<Value> {
    let text_or_null = || json!({"type": ["string", "null"]});
    match kind {
        ValueKind::Bool => vec![json!({"type": ["boolean", "null"]})],
        ValueKind::Text | ValueKind::Secret | ValueKind::ComponentId => vec![text_or_null()],
        ValueKind::Integer(bounds) => vec![number("integer", bounds)],
        ValueKind::Number(bounds) => vec![number("number", bounds)],
        ValueKind::Duration(_) => vec![
            json!({"type": "string", "pattern": DURATION}),
            json!({"type": ["integer", "null"]}),
        ],
        ValueKind::Bytes(bounds) => vec![
            number("number", bounds),
            json!({"type": "string", "pattern": BYTES}),
        ],
        ValueKind::OneOf { names, any_case } => one_of(names, *any_case),
        ValueKind::TextList => vec![
            json!({"type": "array", "items": {"type": "string"}}),
            text_or_null(),
        ],
        ValueKind::TextMap => vec![map(text_or_null())],
        ValueKind::SecretMap => vec![map(text_or_null()), json!({"type": "array"})],
        ValueKind::Section => vec![Value::Object(object(tree))],
        ValueKind::List => vec![match tree.element().filter(|e| !e.children.is_empty()) {
            Some(element) => json!({"type": ["array", "null"], "items": object(element)}),
            None => json!({"type": ["array", "null"]}),
        }],
        ValueKind::Map => vec![match tree.named() {
            Some(named) => map(value(named)),
            None => json!({"type": ["object", "null"]}),
        }],
        ValueKind::Any => Vec::new(),
    }
}

/// Anything, but where it is a map or a list of maps it has options.
fn any(tree: &Tree<'_>) -> Vec<Value> {
    if tree.children.is_empty() {
        return Vec::new();
    }
    let mut ways = vec![json!({"type": ["string", "number", "boolean", "null"]})];
    match tree.element() {
        Some(element) => ways.push(json!({"type": "array", "items": object(element)})),
        None => ways.push(Value::Object(object(tree))),
    }
    ways
}

fn map(of: Value) -> Value {
    json!({"type": ["object", "null"], "additionalProperties": of})
}

fn number(kind: &str, bounds: &Bounds) -> Value {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!([kind, "null"]));
    let whole = |n: f64| match n.fract() == 0.0 && n.abs() < 9e15 {
        true => json!(n as i64),
        false => json!(n),
    };
    for (key, bound) in [("minimum", bounds.least), ("maximum", bounds.most)] {
        if let Some(n) = bound {
            schema.insert(key.to_owned(), whole(n));
        }
    }
    schema.into()
}

fn one_of(names: &[String], any_case: bool) -> Vec<Value> {
    let mut all: Vec<Value> = names.iter().map(|n| json!(n)).collect();
    all.push(Value::Null);
    let mut ways = vec![json!({"enum": all})];
    if any_case {
        let letters = |name: &String| -> String {
            let both = |c: char| match c.is_ascii_alphabetic() {
                true => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
                false => c.to_string(),
            };
            name.chars().map(both).collect()
        };
        let names: Vec<String> = names
            .iter()
            .filter(|n| !n.is_empty())
            .map(letters)
            .collect();
        ways.push(json!({"type": "string", "pattern": format!("^({})$", names.join("|"))}));
    }
    ways
}

/// Writes what is used in several places once, under the key that it has there.
fn share(defs: &mut Map<String, Value>) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    defs.values().for_each(|schema| count(schema, &mut uses));
    let mut shared = Shared {
        uses,
        names: HashMap::new(),
        made: BTreeMap::new(),
    };
    for schema in defs.values_mut() {
        shared.within(schema);
    }
    for (name, schema) in shared.made {
        defs.insert(name, schema);
    }
}

/// Counts the options that are long enough to be shared.
fn count(schema: &Value, uses: &mut HashMap<String, usize>) {
    match schema {
        Value::Object(map) => {
            let properties = map.get("properties").and_then(Value::as_object);
            let elements = map.get("items").filter(|e| e.is_object());
            for option in properties.into_iter().flat_map(Map::values).chain(elements) {
                let text = option.to_string();
                if text.len() >= SHARED_LEAST {
                    *uses.entry(text).or_default() += 1;
                }
            }
            map.values().for_each(|inner| count(inner, uses));
        }
        Value::Array(items) => items.iter().for_each(|inner| count(inner, uses)),
        _ => {}
    }
}

struct Shared {
    uses: HashMap<String, usize>,
    names: HashMap<String, String>,
    made: BTreeMap<String, Value>,
}

impl Shared {
    fn within(&mut self, schema: &mut Value) {
        match schema {
            Value::Object(map) => {
                if let Some(Value::Object(properties)) = map.get_mut("properties") {
                    for (key, option) in properties.iter_mut() {
                        self.option(key, option);
                    }
                }
                for (key, inner) in map.iter_mut().filter(|(key, _)| *key != "properties") {
                    // The values of these are data, not schemas.
                    match key.as_str() {
                        "default" | "enum" | "const" => {}
                        "items" => self.option("element", inner),
                        _ => self.within(inner),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|inner| self.within(inner)),
            _ => {}
        }
    }

    fn option(&mut self, key: &str, option: &mut Value) {
        let text = option.to_string();
        if self.uses.get(&text).is_none_or(|uses| *uses < 2) {
            return self.within(option);
        }
        let name = match self.names.get(&text) {
            Some(name) => name.clone(),
            None => {
                let key = key.replace(['/', '~', '%', '.'], "_");
                let taken = self
                    .names
                    .values()
                    .filter(|n| n.split('.').nth(1) == Some(key.as_str()))
                    .count();
                let name = match taken {
                    0 => format!("option.{key}"),
                    n => format!("option.{key}.{}", n + 1),
                };
                self.names.insert(text, name.clone());
                let mut schema = option.clone();
                self.within(&mut schema);
                self.made.insert(name.clone(), schema);
                name
            }
        };
        *option = json!({"$ref": format!("#/$defs/{name}")});
    }
}
