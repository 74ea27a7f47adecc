//! The stage `template`, as far as its templates only put values together.

use tailwater_config::Node;

use super::{QUIET, Stages};
use crate::expr;
use crate::note::Weight;
use crate::options::Options;

impl Stages<'_> {
    pub(super) fn template(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let source = o.text("source").unwrap_or_default();
        let template = o.text("template").unwrap_or_default();
        self.rest(o);
        let value = self.field_of(&source);
        let lookup = |name: &str| match name {
            "Value" => expr::text_of(&value),
            "Entry" => expr::text_of("body"),
            name => expr::text_of(&self.field_of(name)),
        };
        let Some(expression) = expression(&template, &lookup) else {
            let say = format!(
                "the template {template:?} is more than values and simple functions; write it as EXPR(...) of an add \
                 operator on {}, or as a statement of the processor transform",
                expr::field("attributes", &source)
            );
            return self.say(Weight::Decide, node, path, say);
        };
        let field = expr::field("attributes", &source);
        let mut op = self.op(
            "add",
            [("field", &field), ("value", &expr::value(&expression))],
        );
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
        self.extracted.insert(source);
        // What is empty then was not extracted.
        let mut op = self.op("remove", [("field", &field)]);
        op.set(QUIET.0, QUIET.1);
        self.push_if(op, &format!("{field} == \"\""));
    }
}

/// The expression of a template; `lookup` is that of a name behind a dot.
fn expression(template: &str, lookup: &impl Fn(&str) -> String) -> Option<String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        if !before.is_empty() {
            parts.push(expr::quoted(before));
        }
        let (action, after) = after.split_once("}}")?;
        parts.push(pipeline(action, lookup)?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(expr::quoted(rest));
    }
    match parts.is_empty() {
        true => Some("\"\"".to_owned()),
        false => Some(parts.join(" + ")),
    }
}

/// Commands, of which each gets the value of the one before as its last argument.
fn pipeline(action: &str, lookup: &impl Fn(&str) -> String) -> Option<String> {
    let mut value = None;
    for command in split(action, '|')? {
        let mut words = split(command.trim(), ' ')?.into_iter();
        let mut words: Vec<String> = words.by_ref().filter(|w| !w.is_empty()).collect();
        if words.is_empty() {
            return None;
        }
        let name = words.remove(0);
        let mut args = Vec::new();
        for word in words {
            args.push(argument(&word, lookup)?);
        }
        if name.starts_with(['.', '"']) && args.is_empty() && value.is_none() {
            value = argument(&name, lookup);
            continue;
        }
        let own = args.len();
        args.extend(value.take());
        value = Some(call(&name, &args, own)?);
    }
    value
}

fn argument(word: &str, lookup: &impl Fn(&str) -> String) -> Option<String> {
    if let Some(name) = word.strip_prefix('.') {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        return (!name.is_empty() && name.bytes().all(plain)).then(|| lookup(name));
    }
    if let Some(text) = word.strip_prefix('"').and_then(|w| w.strip_suffix('"')) {
        return (!text.contains('\\')).then(|| expr::quoted(text));
    }
    word.parse::<i64>().is_ok().then(|| word.to_owned())
}

/// A function of Promtail or Sprig. Those of Sprig take the text as the last argument.
fn call(name: &str, args: &[String], own: usize) -> Option<String> {
    let one = |f: &str| match args {
        [x] => Some(format!("{f}({x})")),
        _ => None,
    };
    match (name, args) {
        ("ToLower" | "lower", _) => one("lower"),
        ("ToUpper" | "upper", _) => one("upper"),
        ("TrimSpace" | "trim", _) => one("trim"),
        ("TrimPrefix", [x, what]) if own == 2 => Some(format!("trimPrefix({x}, {what})")),
        ("TrimSuffix", [x, what]) if own == 2 => Some(format!("trimSuffix({x}, {what})")),
        ("trimPrefix", [what, x]) => Some(format!("trimPrefix({x}, {what})")),
        ("trimSuffix", [what, x]) => Some(format!("trimSuffix({x}, {what})")),
        ("Replace", [x, from, to, n]) if own == 4 && n == "-1" => {
            Some(format!("replace({x}, {from}, {to})"))
        }
        ("replace", [from, to, x]) => Some(format!("replace({x}, {from}, {to})")),
        ("default", [or, x]) => Some(format!("({x} == \"\" ? {or} : {x})")),
        _ => None,
    }
}

/// Splits at a character outside of quotes.
fn split(text: &str, at: char) -> Option<Vec<String>> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for c in text.chars() {
        quoted ^= c == '"';
        match parts.last_mut() {
            Some(part) if c != at || quoted => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_templates_become_expressions() {
        let lookup = |name: &str| name.to_owned();
        for (template, expect) in [
            ("{{ .Value }}", Some("Value")),
            ("{{.a}} - {{.b}}!", Some("a + \" - \" + b + \"!\"")),
            ("{{ ToLower .Value }}", Some("lower(Value)")),
            (
                "{{ .Value | ToUpper | TrimSpace }}",
                Some("trim(upper(Value))"),
            ),
            (
                "{{ Replace .Value \"a b\" \"|\" -1 }}",
                Some("replace(Value, \"a b\", \"|\")"),
            ),
            ("{{ Replace .Value \"a\" \"b\" 1 }}", None),
            (
                "{{ .Value | trimSuffix \"x\" }}",
                Some("trimSuffix(Value, \"x\")"),
            ),
            (
                "{{ TrimPrefix .Value \"x\" }}",
                Some("trimPrefix(Value, \"x\")"),
            ),
            (
                "{{ .Value | default \"none\" }}",
                Some("(Value == \"\" ? \"none\" : Value)"),
            ),
            ("plain", Some("\"plain\"")),
            ("", Some("\"\"")),
            ("{{ if .Value }}a{{ end }}", None),
            ("{{- .Value }}", None),
            ("{{ Hash \"salt\" .Value }}", None),
            ("{{ .Value", None),
            ("{{ \"a }}", None),
        ] {
            assert_eq!(
                expression(template, &lookup).as_deref(),
                expect,
                "{template}"
            );
        }
    }
}
