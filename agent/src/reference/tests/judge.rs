//! What a schema says of a value: as much of draft 2020-12 as ours uses, and anything else is a panic. It is
//! no general validator; it shows where our own schema and our own configurations disagree.

use regex::Regex;
use serde_json::{Map, Value};

/// What is wrong, each with the place in the value, as a JSON pointer, before a colon.
pub fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Judge { root: schema }.judge(schema, value, "", &mut found);
    found
}

struct Judge<'a> {
    root: &'a Value,
}

impl Judge<'_> {
    fn judge(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let schema = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return found.push(format!("{at}: nothing may be here")),
            Value::Object(schema) => schema,
            other => panic!("no schema: {other}"),
        };
        for (key, rule) in schema {
            match key.as_str() {
                "$ref" => self.judge(self.referred(rule), value, at, found),
                "type" => check(
                    is_type(rule, value),
                    format!("{at}: no {rule}: {value}"),
                    found,
                ),
                "enum" => {
                    let is_one = rule.as_array().expect("a list").contains(value);
                    check(is_one, format!("{at}: {value} is none of {rule}"), found);
                }
                "const" => check(rule == value, format!("{at}: {value} is not {rule}"), found),
                "pattern" => {
                    let fits = value.as_str().is_none_or(|text| matches(rule, text));
                    check(
                        fits,
                        format!("{at}: {value} is not of the form {rule}"),
                        found,
                    );
                }
                "minimum" | "maximum" => {
                    let limit = rule.as_f64().expect("a number");
                    let fits = value.as_f64().is_none_or(|n| {
                        if key == "minimum" {
                            n >= limit
                        } else {
                            n <= limit
                        }
                    });
                    check(fits, format!("{at}: {value} is beyond {rule}"), found);
                }
                "anyOf" => self.any_of(rule, value, at, found),
                "allOf" => {
                    for inner in rule.as_array().expect("a list") {
                        self.judge(inner, value, at, found);
                    }
                }
                "if" => {
                    let mut not = Vec::new();
                    self.judge(rule, value, at, &mut not);
                    if let (true, Some(then)) = (not.is_empty(), schema.get("then")) {
                        self.judge(then, value, at, found);
                    }
                }
                "items" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.judge(rule, item, &format!("{at}/{i}"), found);
                    }
                }
                "required" => {
                    let keys = rule
                        .as_array()
                        .expect("a list")
                        .iter()
                        .filter_map(Value::as_str);
                    for key in
                        keys.filter(|key| value.as_object().is_some_and(|v| !v.contains_key(*key)))
                    {
                        found.push(format!("{at}: {key} is missing"));
                    }
                }
                "properties" | "patternProperties" | "additionalProperties" => {}
                "then" | "description" | "default" | "$schema" | "$comment" | "title" | "$defs" => {
                }
                other => panic!("not known here: {other}"),
            }
        }
        for (key, inner) in value.as_object().into_iter().flatten() {
            let place = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            self.property(schema, key, inner, &place, found);
        }
    }

    fn property(
        &self,
        schema: &Map<String, Value>,
        key: &str,
        value: &Value,
        at: &str,
        found: &mut Vec<String>,
    ) {
        let mut is_known = false;
        if let Some(rule) = schema.get("properties").and_then(|p| p.get(key)) {
            is_known = true;
            self.judge(rule, value, at, found);
        }
        for (pattern, rule) in schema
            .get("patternProperties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if Regex::new(pattern).expect("a pattern").is_match(key) {
                is_known = true;
                self.judge(rule, value, at, found);
            }
        }
        if let (false, Some(rule)) = (is_known, schema.get("additionalProperties")) {
            self.judge(rule, value, at, found);
        }
    }

    /// Of several ways that all fail, what the one says that goes deepest.
    fn any_of(&self, ways: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let mut failed = Vec::new();
        for way in ways.as_array().expect("a list") {
            let mut own = Vec::new();
            self.judge(way, value, at, &mut own);
            if own.is_empty() {
                return;
            }
            failed.extend(own);
        }
        found.push(format!("{at}: {value} fits nothing that is allowed"));
        found.extend(failed);
    }

    fn referred(&self, name: &Value) -> &Value {
        let pointer = name
            .as_str()
            .and_then(|n| n.strip_prefix('#'))
            .expect("a reference");
        self.root
            .pointer(pointer)
            .unwrap_or_else(|| panic!("nothing at {pointer}"))
    }
}

fn check(fits: bool, problem: String, found: &mut Vec<String>) {
    if !fits {
        found.push(problem);
    }
}

fn matches(pattern: &Value, text: &str) -> bool {
    Regex::new(pattern.as_str().expect("a pattern"))
        .expect("a pattern")
        .is_match(text)
}

fn is_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    };
    match rule {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}
