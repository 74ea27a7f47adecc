//! The `split` and `match` vectors: facts of the collector's own tests (each file names its
//! source), run against framing, configuration and discovery.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tailwater_config::{Errors, Section, parse};
use tailwater_receivers::filelog::config::FilelogConfig;
use tailwater_receivers::filelog::discover::Discovery;
use tailwater_receivers::filelog::logfs::OsLogFs;
use tailwater_receivers::input::frame::{FrameSpec, FrameState, Frames, Input, Trim};

fn vectors(group: &str) -> Vec<(PathBuf, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(group);
    let mut vectors = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        vectors.push((path, serde_json::from_str(&text).unwrap()));
    }
    assert!(
        vectors.len() >= 3,
        "vectors are missing in {}",
        dir.display()
    );
    vectors
}

/// Decodes receiver options given as JSON, which is YAML.
fn decode(options: &Value) -> Result<FilelogConfig, Errors> {
    let node = parse(&options.to_string(), "vector")?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "filelog", &mut errors);
    let config = FilelogConfig::decode(&mut section);
    section.finish();
    errors.into_result(config)
}

/// True if the vector wants an error, which must have come with the collector's words.
fn refused(vector: &Value, outcome: &Result<FilelogConfig, Errors>, name: &str) -> bool {
    let Some(error) = vector.pointer("/expect/error") else {
        return false;
    };
    let text = outcome
        .as_ref()
        .err()
        .unwrap_or_else(|| panic!("{name}: accepted"))
        .to_string();
    let want = error["contains"].as_str().unwrap();
    assert!(text.contains(want), "{name}: {text}");
    true
}

#[test]
fn split_vectors_hold() {
    for (path, v) in vectors("split") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut options = v["config"].clone();
        options["include"] = Value::from("x");
        let outcome = decode(&options);
        if refused(&v, &outcome, name) {
            continue;
        }
        let config = outcome.unwrap();
        // The vectors hold tokens before trimming.
        let spec = FrameSpec {
            trim: Trim::NONE,
            ..config.frame_spec(config.charset)
        };
        let text = v["input"]["text"].as_str().unwrap();
        let remainder = v["expect"].get("remainder").and_then(Value::as_str);
        let input = if remainder.is_some() {
            Input::End
        } else {
            Input::Flush
        };
        let mut frames = Frames::default();
        spec.frame(
            &mut FrameState::default(),
            text.as_bytes(),
            input,
            &mut frames,
        );
        let got: Vec<Value> = frames
            .tokens
            .iter()
            .map(|t| Value::from(&text[t.range()]))
            .collect();
        assert_eq!(Value::from(got), v["expect"]["tokens"], "{name}");
        assert_eq!(&text[frames.consumed..], remainder.unwrap_or(""), "{name}");
    }
}

#[test]
fn match_vectors_hold() {
    for (path, v) in vectors("match") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for file in v["input"]["files"].as_array().unwrap() {
            let file = dir.path().join(file.as_str().unwrap());
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let mut options = v["config"].clone();
        for key in ["include", "exclude"] {
            for pattern in options
                .get_mut(key)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                *pattern = format!("{}/{}", dir.path().display(), pattern.as_str().unwrap()).into();
            }
        }
        let outcome = decode(&options);
        if refused(&v, &outcome, name) {
            continue;
        }
        let c = outcome.unwrap();
        let (include, exclude, ordering) = (c.include, c.exclude, c.ordering);
        let exclude_older_than = c.exclude_older_than;
        let discovery = Discovery {
            include,
            exclude,
            exclude_older_than,
            ordering,
        };
        let scan = discovery.scan(&OsLogFs, 0);
        let found = scan
            .files
            .iter()
            .map(|f| f.path.strip_prefix(dir.path()).unwrap());
        let got: Vec<Value> = found.map(|f| Value::from(f.to_str().unwrap())).collect();
        assert_eq!(Value::from(got), v["expect"]["files"], "{name}");
    }
}
