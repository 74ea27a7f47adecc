//! Configurations that people run the collector with: each is read, and exactly the references
//! that its index calls unresolved are reported.
//!
//! The files are not part of this repository. They are looked for in `configs/collector` of the
//! folder named by `TAILWATER_SHARED_DATA`, or of `../shared/data` beside the workspace.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tailwater_config::{Errors, MemoryEnvironment, Node, Source, load, parse, to_yaml};

/// The folder of the files; `None` (said aloud) if it does not exist.
fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TAILWATER_SHARED_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("../shared/data")
        });
    let folder = root.join(folder);
    if folder.is_dir() {
        return Some(folder);
    }
    println!(
        "SKIPPED: {} does not exist; set TAILWATER_SHARED_DATA",
        folder.display()
    );
    None
}

/// `pipeline: kind id` for every error that is about a reference; panics on any other.
fn unresolved(errors: &Errors) -> BTreeSet<String> {
    let one = |error: &tailwater_config::ConfigError| {
        assert!(error.span.is_some(), "{error}");
        let reference = error
            .message
            .strip_prefix("references ")
            .and_then(|m| m.strip_suffix(" which is not configured"))
            .unwrap_or_else(|| panic!("not about a reference: {error}"));
        let pipeline = error
            .path
            .as_str()
            .strip_prefix("service::pipelines::")
            .unwrap();
        format!("{pipeline}: {}", reference.replace('"', ""))
    };
    errors.iter().map(one).collect()
}

/// Problems that follow from what the index says of the file: a part that is empty, and the signal
/// that is refused by name.
fn is_other_problem(entry: &Value, error: &tailwater_config::ConfigError) -> bool {
    let pipelines = entry["pipelines"].as_object().unwrap();
    let empty = |key: &str| entry[key].as_array().unwrap().is_empty();
    match error.message.as_str() {
        "no receiver configuration specified in config" => empty("receivers"),
        "no exporter configuration specified in config" => empty("exporters"),
        "service must have at least one pipeline" => pipelines.is_empty(),
        message => pipelines.keys().any(|id| {
            id.starts_with("profiles")
                && error.path.as_str() == format!("service::pipelines::{id}")
                && message.contains("profiling signal support is at alpha level")
        }),
    }
}

#[test]
fn every_collector_file_is_read_and_its_unresolved_references_are_reported() {
    let Some(folder) = shared("configs/collector") else {
        return;
    };
    let index: Value =
        serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let files = index["configs"].as_array().unwrap();
    assert!(!files.is_empty());
    for entry in files {
        let name = entry["file"].as_str().unwrap();
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let mut env = MemoryEnvironment::new().with_file(name, text);
        for variable in entry["env"].as_array().unwrap() {
            env = env.with_variable(variable.as_str().unwrap(), "example");
        }
        let expect: BTreeSet<String> = entry["unresolved_references"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r.as_str().unwrap().to_owned())
            .collect();
        let mut errors = Errors::new();
        let loaded = load(&[Source::File(name.into())], &[], &env, &mut errors);
        match errors.into_result(loaded) {
            Ok(loaded) => {
                let loaded = loaded.expect("no problems");
                assert!(expect.is_empty(), "{name}: not reported: {expect:?}");
                same_structure(entry, &loaded.file, name);
                rendering_reads_back(&loaded.root, name);
            }
            Err(errors) => {
                let mut kept = Errors::new();
                for error in errors.clone() {
                    if !is_other_problem(entry, &error) {
                        kept.push(error);
                    }
                }
                assert_eq!(unresolved(&kept), expect, "{name}: {errors}");
            }
        }
    }
}

/// The ids and pipelines found are those of the index.
fn same_structure(entry: &Value, file: &tailwater_config::ConfigFile, name: &str) {
    for kind in tailwater_config::ComponentKind::ALL {
        let found: BTreeSet<String> = file
            .components(kind)
            .iter()
            .map(|c| c.id.to_string())
            .collect();
        let expect = entry[kind.section()].as_array().unwrap().iter();
        let expect: BTreeSet<String> = expect.map(|id| id.as_str().unwrap().to_owned()).collect();
        assert_eq!(found, expect, "{name}: {kind}");
    }
    let pipelines = entry["pipelines"].as_object().unwrap();
    assert_eq!(file.service.pipelines.len(), pipelines.len(), "{name}");
    for pipeline in &file.service.pipelines {
        let expect = &pipelines[&pipeline.id.to_string()];
        for (key, list) in [
            ("receivers", &pipeline.receivers),
            ("processors", &pipeline.processors),
            ("exporters", &pipeline.exporters),
        ] {
            let found: Vec<String> = list.iter().map(|r| r.id.to_string()).collect();
            assert_eq!(
                Value::from(found),
                expect[key],
                "{name}: {}: {key}",
                pipeline.id
            );
        }
    }
}

fn rendering_reads_back(root: &Node, name: &str) {
    let text = to_yaml(root);
    let again = parse(&text, "rendered").unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
    let (again, errors) = tailwater_config::substitute(again, &MemoryEnvironment::new());
    assert!(errors.is_empty(), "{name}: {errors}");
    assert!(again.same_value(root), "{name}: {text}");
}

#[test]
fn merging_gives_what_the_collector_gives() {
    let Some(folder) = shared("configs/merge") else {
        return;
    };
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let cases = parse(&fs::read_to_string(&path).unwrap(), "cases").unwrap();
        for case in cases.as_list().unwrap() {
            let configs = case.get("configs").unwrap().as_list().unwrap().to_vec();
            let merged = configs.into_iter().reduce(tailwater_config::merge).unwrap();
            let expect = case.get("expected").unwrap();
            assert!(merged.same_value(expect), "{}", to_yaml(&merged));
            count += 1;
        }
    }
    assert!(count > 0);
}
