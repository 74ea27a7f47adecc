//! Whole configurations: each validates, or is refused by the name of what is not supported.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use tailwater_config::{MemoryEnvironment, Node, Source, parse, resolve, to_yaml};
use tailwater_tests::agent::find_binary;

use crate::case::{Tally, Verdict, guarded};
use crate::confmap::to_json;

/// What the agent writes before a type of component that it does not have.
const UNKNOWN: [&str; 2] = ["unknown type: \"", "unsupported type: \""];

/// Runs the files of `collector` and the scenarios of `merge` below `folder`; a folder without
/// them is one of configurations itself.
pub fn run(folder: &Path, tally: &mut Tally) {
    let collector = folder.join("collector");
    let configs = if collector.is_dir() {
        collector
    } else {
        folder.to_owned()
    };
    let index = index(&configs.join("index.json"));
    for file in yaml_files(&configs) {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let expected = index.get(&name);
        tally.add(
            &format!("config/{name}"),
            &guarded(|| validate(&file, expected)),
        );
    }
    for file in yaml_files(&folder.join("merge")) {
        merge_scenarios(&file, tally);
    }
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|item| item.path());
    let yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let mut files: Vec<PathBuf> = items.filter(yaml).collect();
    files.sort();
    files
}

/// The facts known of each configuration, by file name.
fn index(path: &Path) -> BTreeMap<String, Json> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let json: Json = serde_json::from_str(&text).unwrap_or_default();
    let configs = json["configs"].as_array().into_iter().flatten();
    configs
        .filter_map(|c| Some((c["file"].as_str()?.to_owned(), c.clone())))
        .collect()
}

/// `tailwater validate` on one file.
fn validate(file: &Path, expected: Option<&Json>) -> Verdict {
    let Some(binary) = find_binary() else {
        return Verdict::NotRun("needs the release binary: set TAILWATER_BIN".to_owned());
    };
    let mut command = Command::new(binary);
    command
        .arg("validate")
        .arg("--config")
        .arg(file)
        .stdin(Stdio::null());
    for (name, value) in expected
        .into_iter()
        .flat_map(|e| e["component_check_env"].as_object())
        .flatten()
    {
        command.env(name, value.as_str().unwrap_or_default());
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(e) => return Verdict::Failed(format!("cannot run the agent: {e}")),
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.contains("panicked") {
        return Verdict::Failed(format!("panicked: {text}"));
    }
    // A fragment to be merged with another file: without pipelines, or referring to what is not
    // in it. To refuse it is right.
    let incomplete = expected.is_some_and(|e| {
        let unresolved = e["unresolved_references"].as_array();
        let pipelines = e["pipelines"].as_object();
        unresolved.is_some_and(|list| !list.is_empty()) || pipelines.is_some_and(|p| p.is_empty())
    });
    match output.status.code() {
        Some(0) if incomplete => {
            Verdict::Failed("accepted, although it is not complete".to_owned())
        }
        Some(0) => Verdict::Passed,
        Some(1) => refused(&text, incomplete),
        code => Verdict::Failed(format!("exit code {code:?}: {text}")),
    }
}

/// Judges a refusal by its messages.
fn refused(text: &str, incomplete: bool) -> Verdict {
    let errors: Vec<&str> = text.lines().filter(|l| is_mistake(l)).collect();
    if errors.is_empty() {
        return Verdict::Failed(format!(
            "refused without a message that has a place: {text}"
        ));
    }
    let (mut needs, mut other) = (BTreeSet::new(), Vec::new());
    for error in &errors {
        match needed(error) {
            Some(name) => drop(needs.insert(name)),
            None => other.push(*error),
        }
    }
    if !other.is_empty() && !incomplete {
        return Verdict::Failed(other.join("\n         "));
    }
    // What is not complete has to be refused, whatever else it needs.
    if needs.is_empty() || incomplete && !other.is_empty() {
        return Verdict::Passed;
    }
    Verdict::NotRun(format!(
        "needs {}",
        needs.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

/// `file:line:column: ...`, and neither the sum at the end nor a warning.
fn is_mistake(line: &str) -> bool {
    !line.starts_with("warning: ") && !line.starts_with("error: ") && !line.trim().is_empty()
}

/// The unsupported part that an error names.
fn needed(error: &str) -> Option<String> {
    if let Some((_, rest)) = UNKNOWN.iter().find_map(|u| error.split_once(u)) {
        let name = rest.split('"').next().unwrap_or_default();
        let sections = [
            ("receivers::", "receiver"),
            ("processors::", "processor"),
            ("exporters::", "exporter"),
            ("connectors::", "connector"),
            ("extensions::", "extension"),
            ("operators::", "operator"),
        ];
        // The innermost one: an operator stands in a receiver.
        let kind = sections.iter().rev().find(|(path, _)| error.contains(path));
        return Some(format!(
            "{} {name}",
            kind.map_or("component", |(_, kind)| kind)
        ));
    }
    for kind in ["converter", "editor"] {
        if let Some((_, rest)) = error.split_once(&format!("there is no {kind} \"")) {
            let name = rest.split('"').next().unwrap_or_default();
            return Some(format!("{kind} {name}"));
        }
    }
    for kind in ["converter", "detector", "editor", "argument"] {
        let named = error.split_once(&format!("the {kind} "));
        if let Some((name, _)) = named.and_then(|(_, rest)| rest.split_once(" is not built")) {
            return Some(format!("{kind} {name}"));
        }
    }
    if let Some((_, signal)) = error.split_once(" does not support ") {
        return Some(format!(
            "{} in pipelines",
            signal.split(' ').next().unwrap_or_default()
        ));
    }
    if error.contains("profiling signal support") {
        return Some("profiles in pipelines".to_owned());
    }
    if let Some((before, _)) = error.split_once(" is not supported") {
        let mut words = before.rsplit(' ');
        let (name, kind) = (words.next().unwrap_or_default(), words.next());
        return Some(match kind {
            Some("operator") => format!("operator {name}"),
            _ => format!("[{}]", message(error)),
        });
    }
    let refused_by_name = error.contains("not supported");
    refused_by_name.then(|| format!("[{}]", message(error)))
}

/// An error without its `file:line:column: `.
fn message(error: &str) -> &str {
    error.splitn(4, ':').nth(3).unwrap_or(error).trim()
}

/// A file with a list of scenarios: `configs` merged in order give `expected`.
fn merge_scenarios(file: &Path, tally: &mut Tally) {
    let name = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let text = fs::read_to_string(file).unwrap_or_default();
    let root = match parse(&text, &name) {
        Ok(root) => root,
        Err(e) => return tally.add(&format!("merge/{name}"), &Verdict::Failed(e.to_string())),
    };
    for (i, scenario) in root.as_list().into_iter().flatten().enumerate() {
        let label = child(scenario, "name").map(to_json).unwrap_or_default();
        let label = label.as_str().map_or_else(|| i.to_string(), str::to_owned);
        tally.add(
            &format!("merge/{label}#{i}"),
            &guarded(|| merge(scenario).into()),
        );
    }
}

fn child<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.as_map()?
        .iter()
        .find(|(k, _)| k.text == key)
        .map(|(_, v)| v)
}

fn merge(scenario: &Node) -> Result<(), String> {
    let configs = child(scenario, "configs")
        .and_then(Node::as_list)
        .ok_or("no configs")?;
    let sources: Vec<Source> = configs.iter().map(|c| Source::Yaml(to_yaml(c))).collect();
    let merged = resolve(&sources, &[], &MemoryEnvironment::new());
    let (root, _) = merged.map_err(|e| e.to_string())?;
    let want = child(scenario, "expected")
        .map(to_json)
        .ok_or("no expectation")?;
    let got = to_json(&root);
    (got == want)
        .then_some(())
        .ok_or_else(|| format!("got {got}\n         want {want}"))
}
