//! What is written is what the code says, all of it, and the schema agrees with `validate`.

mod judge;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;
use tailwater_config::reference::{ELEMENT, OptionRecord};
use tailwater_config::{
    Errors, Key, KeyPath, MemoryEnvironment, Node, NodeValue, Source, Span, parse, to_json,
};

use super::examples::example;
use super::{Entry, entries, json_schema, names, page, pages, schema};
use crate::commands::check::check_sources;
use crate::registry::registry;

/// Set to write the files in place of comparing them, as `cargo xtask docs` does.
const WRITE: &str = "TAILWATER_WRITE_DOCS";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below a folder, from the root of the repository.
fn below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
            if is_folder && entry.file_name() != "target" {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every generated file: its path from the root of the repository, and its text.
fn files() -> Vec<(PathBuf, String)> {
    let entries = entries();
    let mut files = vec![
        ("docs/components/README.md".into(), page::index(entries)),
        (
            "docs/schema/tailwater.schema.json".into(),
            schema::text(entries),
        ),
    ];
    files
        .extend(page::operators(entries).map(|text| ("docs/components/operators.md".into(), text)));
    for entry in entries {
        files.push((entry.path(), page::text(entry)));
    }
    files
}

impl Entry {
    /// Where its page is, from the root of the repository.
    fn path(&self) -> PathBuf {
        match self.class {
            "service" => "docs/components/service.md".into(),
            class => format!("docs/components/{class}/{}.md", self.kind).into(),
        }
    }
}

/// Guarantee: the pages and the schema in `docs/` are those of this code, and there are no others.
#[test]
fn written_files_are_those_of_the_code() {
    let wanted = files();
    let known: BTreeSet<&PathBuf> = wanted.iter().map(|(path, _)| path).collect();
    let left = below("docs/components", ".md");
    let left: Vec<&PathBuf> = left.iter().filter(|path| !known.contains(path)).collect();
    if std::env::var_os(WRITE).is_some() {
        for (path, text) in &wanted {
            let path = root().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            fs::write(path, text).expect("the file");
        }
        for path in left {
            fs::remove_file(root().join(path)).expect("removed");
        }
        return;
    }
    let mut stale: Vec<String> = Vec::new();
    for (path, text) in &wanted {
        if fs::read_to_string(root().join(path)).ok().as_ref() != Some(text) {
            stale.push(path.display().to_string());
        }
    }
    stale.extend(
        left.iter()
            .map(|path| format!("{} (nothing has it)", path.display())),
    );
    assert!(
        stale.is_empty(),
        "not what the code says; run `cargo xtask docs` and look at what changes:\n{}",
        stale.join("\n")
    );
}

/// Guarantee: links on the pages lead to files that are there.
#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in files()
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "md"))
    {
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            let target = root().join(path.parent().expect("a folder")).join(file);
            if !link.contains("://") && !target.exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn path_of(option: &OptionRecord) -> String {
    option.path.join("::")
}

/// Guarantee: every option has a description, and every description an option.
#[test]
fn options_and_descriptions_belong_together() {
    let mut problems = Vec::new();
    for entry in entries() {
        let name = format!("{}/{}", entry.class, entry.kind);
        assert!(
            !entry.reference.is_cut,
            "{name}: not all alternatives were walked"
        );
        for option in entry.reference.options.iter().filter(|o| o.text.is_none()) {
            problems.push(format!("{name}: no description: {}", path_of(option)));
        }
        for stray in &entry.reference.strays {
            problems.push(format!("{name}: no such option: {stray}"));
        }
    }
    assert!(
        problems.is_empty(),
        "{}\n{}",
        problems.len(),
        problems.join("\n")
    );
}

/// Guarantee: what the code asks for by name is in the reference of something. It looks at what is written in
/// the code, so it sees what no run has come by.
#[test]
fn every_key_in_the_code_is_in_the_reference() {
    let mut known = BTreeSet::from(["service".to_owned()]);
    for entry in entries() {
        known.extend(
            entry
                .reference
                .options
                .iter()
                .flat_map(|o| o.path.iter().cloned()),
        );
    }
    let getter = "bool|string|str|secret|i64|u64|usize|f64|duration|duration_in|duration_signed|byte_size|\
                  one_of|choice|choice_any_case|component_id|section|section_if_present|optional_section|\
                  section_list|section_map|list|map|string_list|text_nodes|string_map|secret_map";
    let call = Regex::new(&format!(
        r#"\b[a-z]{{1,12}}\s*\.(?:{getter})(?:_optional|_required)?\(\s*"([a-z0-9_/.]+)"[,)]"#
    ));
    let call = call.expect("a pattern");
    let crates = [
        "config/src",
        "telemetry/src",
        "pipeline/src",
        "receivers/src",
        "processors/src",
        "exporters/src",
        "connectors/src",
        "agent/src/extensions",
    ];
    let mut seen = 0;
    let mut missing = Vec::new();
    for path in crates.iter().flat_map(|folder| below(folder, ".rs")) {
        let name = path.display().to_string();
        let text = fs::read_to_string(root().join(&path)).expect("the source");
        // Only what decodes sections; tests of getters have keys of their own.
        if name.contains("test") || !text.contains("Section") {
            continue;
        }
        let text = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let code: String = text
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
            .map(|l| format!("{l}\n"))
            .collect();
        for found in call.captures_iter(&code) {
            seen += 1;
            if !known.contains(&found[1]) {
                missing.push(format!("{name}: {}", &found[1]));
            }
        }
    }
    assert!(
        seen > 400,
        "only {seen} calls were found: has their form changed?"
    );
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Decodes as when a configuration is read.
fn decode(entry: &Entry, node: &Node) -> Errors {
    let mut errors = Errors::new();
    let path = KeyPath::root();
    let r = registry();
    macro_rules! of {
        ($factories:expr) => {
            for f in $factories.iter().filter(|f| f.kind == entry.kind) {
                (f.decode)(node, &path, &mut errors);
            }
        };
    }
    match entry.class {
        "receivers" => of!(r.receivers),
        "processors" => of!(r.processors),
        "exporters" => of!(r.exporters),
        "connectors" => of!(r.connectors),
        "extensions" => of!(r.extensions),
        _ => {}
    }
    errors
}

/// A configuration in which nothing but this option is written, as null.
fn with_option(path: &[String]) -> Node {
    let span = Span::start_of("test");
    let node = |value| Node::new(value, span.clone());
    let entry = |key: &str, inner: Node| {
        let text = key.to_owned();
        (
            Key {
                text,
                span: span.clone(),
            },
            inner,
        )
    };
    let Some((first, rest)) = path.split_first() else {
        return node(NodeValue::Null);
    };
    if first == ELEMENT {
        return node(NodeValue::List(vec![with_option(rest)]));
    }
    if let Some(name) = first.strip_prefix('<').and_then(|n| n.strip_suffix('>')) {
        let mut entries = match with_option(rest).value {
            NodeValue::Map(entries) => entries,
            _ => Vec::new(),
        };
        entries.push(entry("type", node(NodeValue::Str(name.to_owned()))));
        return node(NodeValue::Map(entries));
    }
    node(NodeValue::Map(vec![entry(first, with_option(rest))]))
}

/// Guarantee: every option of the reference is one when a configuration is really read.
#[test]
fn every_option_of_the_reference_is_read() {
    let mut unknown = Vec::new();
    for entry in entries().iter().filter(|e| e.class != "service") {
        for option in &entry.reference.options {
            let errors = decode(entry, &with_option(&option.path));
            let refused = errors.iter().map(|e| &e.message);
            let ignored = errors.warnings().iter().map(|w| &w.message);
            let is_unknown = refused
                .chain(ignored)
                .any(|message| message.starts_with("unknown option"));
            if is_unknown {
                unknown.push(format!(
                    "{}/{}: {}",
                    entry.class,
                    entry.kind,
                    path_of(option)
                ));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// Guarantee: the names that an unknown option is answered with are those of the reference.
#[test]
fn what_messages_allow_is_in_the_reference() {
    for entry in entries().iter().filter(|e| e.class != "service") {
        let errors = decode(entry, &with_option(&["no_such_option".to_owned()]));
        let error = errors
            .iter()
            .find(|e| e.message.starts_with("unknown option"));
        let error = error.unwrap_or_else(|| panic!("{}: not refused: {errors}", entry.kind));
        let allowed = error.allowed.clone().unwrap_or_default();
        for name in allowed
            .split(", ")
            .filter(|n| *n != "none" && !n.starts_with("..."))
        {
            let is_known = entry.reference.options.iter().any(|o| o.path == [name]);
            assert!(is_known, "{}/{}: {name}", entry.class, entry.kind);
        }
    }
}

/// Guarantee: every component has an example, and every example is valid without a warning.
#[test]
fn examples_are_valid() {
    let mut problems = Vec::new();
    let mut all: Vec<(&str, &str)> = entries().iter().map(|e| (e.class, e.kind)).collect();
    all.push(("operators", "operators"));
    for (class, kind) in all {
        let Some(yaml) = example(class, kind) else {
            problems.push(format!("{class}/{kind}: no example"));
            continue;
        };
        let source = Source::parse(&format!("yaml:{yaml}")).expect("a source");
        match check_sources(&[source], &[], &[], &MemoryEnvironment::new()) {
            Ok(checked) => problems.extend(
                checked
                    .warnings
                    .iter()
                    .map(|w| format!("{class}/{kind}: {w}")),
            ),
            Err(errors) => problems.push(format!("{class}/{kind}: {errors}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn as_json(yaml: &str) -> Value {
    let node = parse(yaml, "test").unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    serde_json::from_str(&to_json(&node)).expect("JSON")
}

/// The configurations that the repository shows and tests with, by the files they are in.
fn configurations() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let folders = [
        "examples",
        "agent/src/reference/examples",
        "convert/tests/fixtures",
    ];
    for path in folders.iter().flat_map(|folder| below(folder, ".yaml")) {
        let name = path.display().to_string();
        // What is converted is no configuration of ours, what comes of it is.
        if name.contains("fixtures") && !name.ends_with(".golden.yaml") {
            continue;
        }
        all.push((
            name,
            fs::read_to_string(root().join(path)).expect("the file"),
        ));
    }
    let name = "deploy/kubernetes/base/agent.yaml";
    let text = fs::read_to_string(root().join(name)).expect("the file");
    all.push((name.to_owned(), text));
    all
}

/// Guarantee: the schema passes what is valid, with old spellings and with `${}` in place of values.
#[test]
fn the_schema_passes_what_is_valid() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    let mut all = configurations();
    assert!(all.len() > 50, "only {} configurations", all.len());
    let others = [
        "receivers: {filelog: {include: ['/a'], fingerprint_size: 1kb, poll_interval: 0, max_log_size: '${env:SIZE}'}}",
        "receivers: {'file_log/a b': {include: '${env:FILES}', start_at: '${env:AT}', include_file_path: '${P}'}}",
        "exporters: {otlp: {endpoint: 'x:1', sending_queue: {num_consumers: '${env:N:-3}'}}, otlphttp: , debug: {verbosity: Detailed}}",
        "exporters: {loki: {endpoint: x, structured_metadata: true, headers: [{name: a, value: b}], timeout: 1h2.5m}}",
        "exporters: {loki: {endpoint: x, structured_metadata: {include: [a]}, headers: {a: b}}}",
        "receivers: {otlp: {protocols: {grpc: , http: }}}\nservice: {extensions: , pipelines: {logs/x: {receivers: [a]}}}",
        "processors: {filter: {logs: {exclude: {match_type: strict, severity_number: {min: INFO}}}}}",
        "service: {telemetry: {resource: {service.name: x, y: 1}, metrics: {level: NONE}}}",
        "service: {telemetry: {resource: {attributes: [{name: a, value: 1}]}}}",
    ];
    all.extend(others.map(|yaml| (yaml.to_owned(), yaml.to_owned())));
    for (name, yaml) in all {
        let problems = judge::problems(&schema, &as_json(&yaml));
        assert!(problems.is_empty(), "{name}: {}", problems.join("\n"));
    }
}

/// Guarantee: the schema flags what is wrong, where it is.
#[test]
fn the_schema_flags_what_is_wrong() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    for (yaml, place) in [
        ("receiver: {}", "/receiver"),
        (
            "receivers: {filelogs: {include: [a]}}",
            "/receivers/filelogs",
        ),
        (
            "receivers: {file_log: {includes: [a]}}",
            "/receivers/file_log/includes",
        ),
        (
            "receivers: {file_log/x: {start_at: middle}}",
            "/receivers/file_log~1x/start_at",
        ),
        (
            "receivers: {filelog: {poll_interval: 5 seconds}}",
            "/receivers/filelog/poll_interval",
        ),
        (
            "receivers: {file_log: {max_log_size: 1Mibi}}",
            "/receivers/file_log/max_log_size",
        ),
        (
            "receivers: {file_log: {include_file_path: yes}}",
            "/receivers/file_log/include_file_path",
        ),
        (
            "receivers: {file_log: {operators: [{type: json_parse}]}}",
            "/receivers/file_log/operators/0/type",
        ),
        (
            "receivers: {file_log: {operators: [{type: json_parser, regex: a}]}}",
            "/receivers/file_log/operators/0/regex",
        ),
        (
            "receivers: {file_log: {operators: [{type: move, from: a}]}}",
            "/receivers/file_log/operators/0",
        ),
        (
            "receivers: {file_log: {operators: [{}]}}",
            "/receivers/file_log/operators/0",
        ),
        (
            "receivers: {otlp: {protocols: {grpcs: {}}}}",
            "/receivers/otlp/protocols/grpcs",
        ),
        ("exporters: {loki: {labels: {}}}", "/exporters/loki"),
        (
            "exporters: {loki: {endpoint: 1}}",
            "/exporters/loki/endpoint",
        ),
        (
            "exporters: {otlp: {endpoint: a, sending_queue: {num_consumers: 0}}}",
            "/exporters/otlp/sending_queue/num_consumers",
        ),
        (
            "exporters: {otlp: {endpoint: a, compression: brotli}}",
            "/exporters/otlp/compression",
        ),
        (
            "processors: {transform: {log_statements: [{context: span, statements: []}]}}",
            "/processors/transform/log_statements",
        ),
        ("service: {pipelines: {log: {}}}", "/service/pipelines/log"),
        (
            "service: {pipelines: {logs: {reciever: [a]}}}",
            "/service/pipelines/logs/reciever",
        ),
        (
            "service: {telemetry: {logs: {encoding: xml}}}",
            "/service/telemetry/logs/encoding",
        ),
        ("service: {workers: 1.5}", "/service/workers"),
    ] {
        let problems = judge::problems(&schema, &as_json(yaml));
        let is_there = problems
            .iter()
            .any(|p| p.starts_with(&format!("{place}: ")));
        assert!(is_there, "{yaml}: wanted {place}: {problems:?}");
    }
}

/// Guarantee: a page is found by each of its names, and nothing by others.
#[test]
fn pages_are_found_by_name() {
    for name in names() {
        assert!(
            pages(Some(&name)).is_some_and(|t| t.contains("\n# ")),
            "{name}"
        );
    }
    let both = pages(Some("loki")).expect("two pages");
    assert_eq!(both.matches("\n# ").count(), 2);
    let one = pages(Some("exporters/loki")).expect("a page");
    assert!(one.contains("# Exporter loki") && !one.contains("# Receiver loki"));
    assert!(pages(Some("filelog")).is_some_and(|t| t.contains("# Receiver file_log")));
    assert!(pages(Some("filelogs")).is_none());
    assert!(pages(None).is_some_and(|t| t.contains("operators.md")));
}
