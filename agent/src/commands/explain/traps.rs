//! What is valid and often not meant: places where data is left out, or where a setting does something
//! else than it seems to.

use tailwater_config::{
    DefaultValue, Environment, KeyPath, Node, NodeValue, Source, Warning, resolve,
};

/// Is there for these values of an option.
type IsTrap = fn(&str) -> bool;

/// An option, the values that are a trap, and what there is to know: what happens, and what to do.
const TRAPS: [(&str, IsTrap, &str); 14] = [
    (
        "on_truncate",
        |v| v == "ignore",
        "after a copytruncate nothing is read until the file is as long as it was; leave the option out, \
         and new content is recognised and read from its beginning",
    ),
    (
        "on_truncate",
        |v| v == "read_whole_file" || v == "read_new",
        "what was not read when the file was cut may be lost or read twice; leave the option out, and the \
         rest is looked for in the copy that copytruncate made",
    ),
    (
        "start_at",
        |v| v == "end",
        "what is in the files at the first start is not read; write start_at: beginning to deliver it",
    ),
    (
        "max_log_size_behavior",
        |v| v == "truncate",
        "the rest of a longer record is dropped; write split, or raise max_log_size",
    ),
    (
        "on_error",
        |v| v == "drop" || v == "drop_quiet",
        "a record that the operator cannot treat is dropped; write send to keep it as it is",
    ),
    (
        "drop_ratio",
        |v| v.parse() != Ok(1.0) && v.parse() != Ok(1.0_f64),
        "records that match are dropped at random, so a replay drops others; keep 1 to decide by content",
    ),
    (
        "max_elapsed_time",
        |v| !is_zero(v),
        "what is not delivered for so long is dropped; write 0 to never give up",
    ),
    (
        "error_mode",
        |v| v == "propagate",
        "one statement that fails drops the whole batch; write ignore to go on with the next one",
    ),
    (
        "exclude_older_than",
        |v| !is_zero(v),
        "files that were not written to for so long are not read, also when they were never read to their \
         end; leave it out to read them",
    ),
    (
        "delete_after_read",
        |v| v == "true",
        "files are deleted when all of them is delivered; leave it out to keep them",
    ),
    (
        "outside_window",
        |v| v == "drop",
        "records whose time the destination would not take are dropped; write clamp to send them with the \
         nearest time that it takes",
    ),
    (
        "line_too_long",
        |v| v == "drop" || v == "truncate",
        "a longer line is cut or dropped; raise line_bytes_max to what the destination takes",
    ),
    (
        "use_incoming_timestamp",
        |v| v == "false",
        "records have the time of their arrival, so what a client sends again is shown twice; write true to \
         keep the times that clients send",
    ),
    (
        "insecure_skip_verify",
        |v| v == "true",
        "whoever answers is believed to be the destination; name its certificate authority in ca_file",
    ),
];

/// Whether an option does there what is told of it: a receiver reads again what was not delivered, for
/// however long that is.
fn counts(option: &str, path: &str) -> bool {
    option != "max_elapsed_time" || !path.starts_with("receivers")
}

fn is_zero(value: &str) -> bool {
    tailwater_config::parse_duration(value) == Some(0) || value.parse() == Ok(0.0)
}

/// Options that hold patterns or replacements.
const PATTERNS: [&str; 12] = [
    "regex",
    "pattern",
    "replacement",
    "replace_with",
    "line_start_pattern",
    "line_end_pattern",
    "expr",
    "is_first_entry",
    "is_last_entry",
    "include",
    "key_regex",
    "tag_name",
];

/// The sections of components; what is around them is the agent's own.
const SECTIONS: [&str; 5] = [
    "receivers",
    "processors",
    "exporters",
    "connectors",
    "extensions",
];

/// The traps among what is written.
pub fn written(root: &Node) -> Vec<Warning> {
    let mut out = Vec::new();
    for section in SECTIONS {
        if let Some(node) = root.get(section) {
            walk(node, &KeyPath::from(section), &mut out);
        }
    }
    out
}

fn walk(node: &Node, path: &KeyPath, out: &mut Vec<Warning>) {
    for (key, child) in node.as_map().unwrap_or_default() {
        let path = path.child(&key.text);
        let value = match &child.value {
            NodeValue::Str(text) => Some(text.clone()),
            NodeValue::Bool(b) => Some(b.to_string()),
            NodeValue::Int(i) => Some(i.to_string()),
            NodeValue::Float(x) => Some(x.to_string()),
            _ => None,
        };
        if let Some(value) = value {
            for (option, is_trap, text) in &TRAPS {
                if key.text == *option && is_trap(&value) && counts(option, path.as_str()) {
                    out.push(warning(child, &path, format!("{value}: {text}")));
                }
            }
        }
        walk(child, &path, out);
    }
    for (i, child) in node.as_list().unwrap_or_default().iter().enumerate() {
        walk(child, &path.child(i), out);
    }
}

/// The dollars in patterns and replacements as they are written, before anything is replaced.
pub fn dollars(sources: &[Source], env: &dyn Environment) -> Vec<Warning> {
    let mut out = Vec::new();
    for source in sources {
        if let Ok(root) = source.read(env) {
            dollars_below(&root, &KeyPath::root(), &mut out);
        }
    }
    out
}

fn dollars_below(node: &Node, path: &KeyPath, out: &mut Vec<Warning>) {
    for (key, child) in node.as_map().unwrap_or_default() {
        let path = path.child(&key.text);
        let text = child.as_text().unwrap_or_default();
        if let Some(group) = group(text).filter(|_| PATTERNS.contains(&key.text.as_str())) {
            let text = match group.strip_prefix('{') {
                Some(name) => format!(
                    "${{{name}}} is replaced by the environment variable {name}; for a group of a pattern \
                     write $${{{name}}}, for the variable ${{env:{name}}}"
                ),
                None => format!(
                    "${group} stands as it is here, and is a variable to older collectors; for a group of \
                     a pattern write $${group}, for a variable ${{env:{group}}}"
                ),
            };
            out.push(warning(child, &path, text));
        }
        dollars_below(child, &path, out);
    }
    for (i, child) in node.as_list().unwrap_or_default().iter().enumerate() {
        dollars_below(child, &path.child(i), out);
    }
}

/// What stands behind the first dollar that is not doubled, if that is a name or a number; with its brace
/// if it has one.
fn group(text: &str) -> Option<&str> {
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let behind = rest[at..].trim_start_matches('$');
        let dollars = rest.len() - at - behind.len();
        let inner = behind.strip_prefix('{').unwrap_or(behind);
        let name = inner.split(|c| !is_name(c)).next().unwrap_or_default();
        let in_braces = inner.len() < behind.len();
        let is_whole = !in_braces || inner[name.len()..].starts_with('}');
        if dollars % 2 == 1 && !name.is_empty() && is_whole {
            let brace = usize::from(in_braces);
            return Some(&behind[..brace + name.len()]);
        }
        rest = behind;
    }
    None
}

fn warning(node: &Node, path: &KeyPath, message: String) -> Warning {
    Warning {
        span: Some(node.span.clone()),
        path: path.clone(),
        message,
    }
}

/// The traps among the defaults that are in force.
pub fn in_defaults(defaults: &[DefaultValue]) -> Vec<Warning> {
    let mut out: Vec<Warning> = Vec::new();
    for default in defaults {
        let path = default.path.as_str();
        let option = path.rsplit("::").next().unwrap_or_default();
        let in_section = SECTIONS.iter().any(|s| path.starts_with(s));
        for (name, is_trap, text) in &TRAPS {
            let is_it = option == *name && counts(option, path);
            if in_section && is_it && is_trap(&default.value) {
                out.push(Warning {
                    span: Some(default.span.clone()),
                    path: default.path.clone(),
                    message: format!("{} by default: {text}", default.value),
                });
            }
        }
    }
    out.dedup();
    out
}

/// The traps of laying sources over each other: a null that deletes, a list that replaces.
pub fn between(sources: &[Source], env: &dyn Environment) -> Vec<Warning> {
    let mut out = Vec::new();
    for i in 1..sources.len() {
        let below = resolve(&sources[..i], &[], env);
        let above = resolve(&sources[i..=i], &[], env);
        if let (Ok((below, _)), Ok((above, _))) = (below, above) {
            compare(&below, &above, &KeyPath::root(), &mut out);
        }
    }
    out
}

fn compare(below: &Node, above: &Node, path: &KeyPath, out: &mut Vec<Warning>) {
    for (key, new) in above.as_map().unwrap_or_default() {
        let Some(old) = below.get(&key.text) else {
            continue;
        };
        let path = path.child(&key.text);
        match (&old.value, &new.value) {
            (NodeValue::Map(entries), NodeValue::Null) if !entries.is_empty() => {
                let text = format!(
                    "null deletes the {} options of {}; leave the key out to keep them, or write {{}}",
                    entries.len(),
                    old.span
                );
                out.push(warning(new, &path, text));
            }
            (NodeValue::List(items), NodeValue::List(_)) if !items.is_empty() => {
                let text = format!(
                    "this list replaces the {} elements of {}; lists are not merged, so write all of \
                     them here",
                    items.len(),
                    old.span
                );
                out.push(warning(new, &path, text));
            }
            _ => compare(old, new, &path, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::{MemoryEnvironment, parse};

    fn texts(warnings: &[Warning]) -> Vec<String> {
        warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_trap_is_told_with_its_place_and_a_remedy() {
        for (yaml, place, remedy) in [
            (
                "receivers: {x: {on_truncate: ignore}}",
                "t:1:30: receivers::x::on_truncate: ignore: ",
                "leave the option out",
            ),
            (
                "receivers: {x: {on_truncate: read_new}}",
                "t:1:30:",
                "leave the option out",
            ),
            (
                "receivers: {x: {start_at: end}}",
                "t:1:27:",
                "start_at: beginning",
            ),
            (
                "receivers: {x: {max_log_size_behavior: truncate}}",
                "t:1:40:",
                "split",
            ),
            (
                "receivers: {x: {operators: [{on_error: drop}]}}",
                "operators::0::on_error: drop: ",
                "send",
            ),
            (
                "receivers: {x: {operators: [{drop_ratio: 0.5}]}}",
                "drop_ratio: 0.5: ",
                "keep 1",
            ),
            (
                "exporters: {x: {retry_on_failure: {max_elapsed_time: 5m}}}",
                "max_elapsed_time: 5m: ",
                "write 0",
            ),
            (
                "processors: {x: {error_mode: propagate}}",
                "error_mode",
                "ignore",
            ),
            (
                "receivers: {x: {exclude_older_than: 24h}}",
                "exclude_older_than",
                "leave it out",
            ),
            (
                "receivers: {x: {delete_after_read: true}}",
                "delete_after_read",
                "keep them",
            ),
            (
                "exporters: {x: {outside_window: drop}}",
                "outside_window",
                "clamp",
            ),
            (
                "exporters: {x: {line_too_long: drop}}",
                "line_too_long",
                "line_bytes_max",
            ),
            (
                "exporters: {x: {tls: {insecure_skip_verify: true}}}",
                "insecure_skip_verify",
                "ca_file",
            ),
        ] {
            let found = texts(&written(&parse(yaml, "t").unwrap()));
            let [one] = &found[..] else {
                panic!("{yaml}: {found:?}");
            };
            assert!(one.contains(place) && one.contains(remedy), "{one}");
        }
    }

    #[test]
    fn what_is_no_trap_is_not_told() {
        for yaml in [
            "receivers: {x: {start_at: beginning, exclude_older_than: 0s, operators: [{drop_ratio: 1.0}, {drop_ratio: 1}]}}",
            "exporters: {x: {retry_on_failure: {max_elapsed_time: 0}}, y: {retry_on_failure: {max_elapsed_time: 0s}}}",
            "processors: {x: {pattern: '^a$', regex: 'a$|b'}}",
            "service: {on_truncate: ignore}",
            "receivers: {x: {retry_on_failure: {max_elapsed_time: 5m}}}",
        ] {
            assert_eq!(
                texts(&written(&parse(yaml, "t").unwrap())),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn dollars_are_told_as_they_are_written() {
        for (value, want) in [
            ("a$1", Some("write $$1")),
            ("a${1}b", Some("write $${1}, for the variable ${env:1}")),
            ("$${1} $name", Some("write $$name")),
            ("$$$x", Some("write $$x")),
            ("a$$1", None),
            ("^a$", None),
            ("(a$|b)", None),
            ("${env:NAME}", None),
            ("$${1}", None),
        ] {
            let found = texts(&dollars(
                &[Source::Yaml(format!("a: {{regex: '{value}', b: '$1'}}"))],
                &MemoryEnvironment::new(),
            ));
            match want {
                Some(want) => {
                    assert_eq!(found.len(), 1, "{value}: {found:?}");
                    assert!(
                        found[0].contains(want) && found[0].contains("a::regex: "),
                        "{found:?}"
                    );
                }
                None => assert_eq!(found, Vec::<String>::new(), "{value}"),
            }
        }
    }

    #[test]
    fn sources_over_each_other_are_compared() {
        let source = |text: &str| Source::Yaml(text.to_owned());
        let sources = [
            source("a: {b: {c: 1}, l: [1, 2], n: null}\nk: [1]"),
            source("a: {b: null, l: [3], n: {}}\nm: null"),
            source("k: [2]\na: {l: []}"),
        ];
        let found = texts(&between(&sources, &MemoryEnvironment::new()));
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found[0].contains("a::b: null deletes the 1 options"),
            "{found:?}"
        );
        assert!(
            found[1].contains("a::l: this list replaces the 2 elements"),
            "{found:?}"
        );
        assert!(
            found[2].contains("k: this list replaces the 1 elements"),
            "{found:?}"
        );
    }
}
