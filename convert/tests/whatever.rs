//! Whatever is converted: an option that nobody knows is said, and damaged text ends in an error or in YAML.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use tailwater_config::{Key, Node, NodeValue, Span, parse, to_yaml};
use tailwater_convert::{Converted, Weight, fluent_bit, promtail};

/// Maps whose keys are names that people choose.
const FREE: [&str; 11] = [
    "labels",
    "external_labels",
    "headers",
    "expressions",
    "mapping",
    "static_labels",
    "structured_metadata",
    "metrics",
    "env",
    "lines_total",
    "config",
];

const UNKNOWN: &str = "frobnicate";

fn files(of: &str, end: &str) -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = fs::read_dir(dir.join(of)).unwrap();
    let paths = entries.map(|e| e.unwrap().path());
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(end) && !name.ends_with(".golden.yaml") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(!found.is_empty());
    found
}

/// Puts an unknown key into the `at`-th map that has options; gives its path, if there is such a map.
fn spoil(node: &mut Node, path: &str, at: &mut usize) -> Option<String> {
    match &mut node.value {
        NodeValue::Map(entries) => {
            if *at == 0 {
                let span = Span::start_of("test");
                let key = Key {
                    text: UNKNOWN.to_owned(),
                    span: span.clone(),
                };
                entries.push((key, Node::new(NodeValue::Int(1), span)));
                return Some(path.to_owned());
            }
            *at -= 1;
            let options = entries
                .iter_mut()
                .filter(|(k, _)| !FREE.contains(&k.text.as_str()));
            options
                .map(|(key, inner)| spoil(inner, &format!("{path}.{}", key.text), at))
                .find_map(|found| found)
        }
        NodeValue::List(items) => items
            .iter_mut()
            .enumerate()
            .map(|(i, inner)| spoil(inner, &format!("{path}[{i}]"), at))
            .find_map(|found| found),
        _ => None,
    }
}

fn is_said(converted: &Converted, path: &str) -> bool {
    // Or something that it is a part of was left out, and that was said.
    converted.notes.iter().any(|note| {
        let whole = note.weight != Weight::NotNeeded && path.contains(&note.path);
        note.path.contains(UNKNOWN) || note.text.contains(UNKNOWN) || whole
    })
}

#[test]
fn an_option_that_nobody_knows_is_said_wherever_it_is() {
    for (of, end) in [("promtail", ".yaml"), ("fluent-bit", ".yaml")] {
        for (name, text) in files(of, end) {
            let root = parse(&text, &name).unwrap();
            for n in 0.. {
                let (mut spoiled, mut at) = (root.clone(), n);
                let Some(path) = spoil(&mut spoiled, "config", &mut at) else {
                    assert!(n > 5, "{name}");
                    break;
                };
                let text = to_yaml(&spoiled);
                let converted = match of {
                    "promtail" => promtail(&text, &name),
                    _ => fluent_bit(&text, &name, &|_| Err("none".to_owned())),
                };
                let converted = converted.unwrap_or_else(|e| panic!("{name}: {path}: {e}"));
                // Notes on Fluent Bit call a section by its kind and name.
                let place = path
                    .replace("config.", "")
                    .replace('[', "::")
                    .replace(']', "");
                let section = root.at(&format!("{}::name", place.replace('.', "::")));
                let kind = place.rsplit('.').next().unwrap_or_default();
                let kind = kind.split("s::").next().unwrap_or_default();
                let own = section.and_then(Node::as_str).unwrap_or_default();
                let known_as = format!("{path} {kind}.{own}");
                assert!(is_said(&converted, &known_as), "{name}: {path}");
            }
        }
    }
}

#[test]
fn a_property_that_nobody_knows_is_said_in_each_section() {
    for (name, text) in files("fluent-bit", ".conf") {
        let lines: Vec<&str> = text.lines().collect();
        for (i, _) in lines.iter().enumerate().filter(|(_, l)| l.starts_with('[')) {
            let mut spoiled = lines.clone();
            let line = format!("    {UNKNOWN}  1");
            spoiled.insert(i + 1, &line);
            let text = spoiled.join("\n");
            let converted = fluent_bit(&text, &name, &|_| Err("none".to_owned())).unwrap();
            let kind = lines[i].trim_matches(['[', ']']).to_ascii_lowercase();
            let mut after = lines[i + 1..].iter().map(|l| l.trim());
            let named = after
                .find_map(|l| l.strip_prefix("Name"))
                .unwrap_or_default();
            let path = match kind.as_str() {
                "service" => kind.clone(),
                _ => format!("{kind}.{}", named.trim()),
            };
            // Parsers that nobody uses are not looked at.
            let unused = kind == "parser";
            assert!(unused || is_said(&converted, &path), "{name}: {path}");
        }
    }
}

/// Guarantee: no text makes it panic, and what it writes is YAML.
#[test]
fn damaged_text_ends_in_an_error_or_in_yaml() {
    let check = |of: &str, name: &str, text: &str| {
        let converted = match of {
            "promtail" => promtail(text, name),
            _ => fluent_bit(text, name, &|_| Ok(text.to_owned())),
        };
        if let Ok(converted) = converted {
            let yaml = &converted.yaml;
            parse(yaml, "written").unwrap_or_else(|e| panic!("{name}: {e}\n{yaml}"));
        }
    };
    for of in ["promtail", "fluent-bit"] {
        for (name, text) in files(of, "") {
            let lines: Vec<&str> = text.lines().collect();
            // Each by itself takes long, and tells no more.
            for i in (0..lines.len()).step_by(9) {
                let without = [&lines[..i], &lines[i + 1..]].concat().join("\n");
                check(of, &name, &without);
                check(of, &name, &lines[..i].join("\n"));
            }
            for (from, to) in [
                (": ", ": '"),
                (": ", ": [] #"),
                ("name", "na\u{0}me"),
                ("(", ""),
                (")", ""),
                ("}", ""),
                ("job", "\u{e000}"),
                ("$", "$$${"),
                ("/", "\u{2028}"),
                (" ", "\t"),
            ] {
                check(of, &name, &text.replace(from, to));
                check(of, &name, &text.replacen(from, to, 3));
            }
        }
    }
}
