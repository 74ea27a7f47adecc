//! Guarantee: every input that fuzzing kept, finds included, still does what its target demands.

use std::fs;
use std::path::{Path, PathBuf};

use tailwater_config::fuzzing as config;
use tailwater_exporters::loki::fuzzing as loki;
use tailwater_exporters::otlp::fuzzing as otlp_out;
use tailwater_ottl::fuzzing as ottl;
use tailwater_pdata::otlp::fuzzing as otlp;
use tailwater_pipeline::checkpoint::fuzzing as checkpoint;
use tailwater_receivers::filelog::fuzzing as filelog;
use tailwater_receivers::input::frame;
use tailwater_receivers::loki::fuzzing as pushes;
use tailwater_receivers::operators::fuzzing as operators;
use tailwater_receivers::server::fuzzing as server;
use tailwater_receivers::syslog::fuzzing as syslog;

/// What a target demands of an input.
type Body = fn(&[u8]);

/// The targets of `fuzz/fuzz_targets`, by name.
const TARGETS: [(&str, Body); 21] = [
    ("checkpoint", checkpoint::files),
    ("compressed", filelog::compressed),
    ("compression", loki::compression),
    ("config", config::configuration),
    ("container_paths", operators::container_paths),
    ("cri_lines", operators::cri_lines),
    ("docker_lines", operators::docker_lines),
    ("expressions", operators::expressions),
    ("formats", operators::formats),
    ("framing", frame::fuzzing::framing),
    ("loki_pushes", pushes::pushes),
    ("otlp_answers", otlp_out::answers),
    ("otlp_bodies", server::bodies),
    ("otlp_json", otlp::text),
    ("otlp_proto", otlp::proto),
    ("ottl", ottl::statements),
    ("parsers", operators::parsers),
    ("patterns", filelog::patterns),
    ("requests", loki::requests),
    ("responses", loki::responses),
    ("syslog_framing", syslog::framing),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz")
        .join(name)
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let list = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("a readable folder").file_name();
        name.into_string().expect("names of our own")
    };
    let mut names: Vec<String> = list.map(name).collect();
    names.sort();
    names
}

/// Feeds the corpora of some targets to their bodies.
fn replay(wanted: impl Fn(&str) -> bool) {
    let mut failed = Vec::new();
    for (target, body) in TARGETS.iter().filter(|(name, _)| wanted(name)) {
        let corpus = folder("corpus").join(target);
        let inputs = names(&corpus);
        assert!(inputs.len() >= 5, "{target}: {} inputs", inputs.len());
        for name in inputs {
            let input = fs::read(corpus.join(&name)).expect("a readable file");
            if std::panic::catch_unwind(|| body(&input)).is_err() {
                failed.push(format!("fuzz/corpus/{target}/{name}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn each_target_has_a_corpus_and_each_corpus_a_target() {
    let wanted: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&folder("corpus")), wanted);
    let sources: Vec<String> = wanted.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder("fuzz_targets")), sources);
}

// Several, so that they run side by side.

#[test]
fn inputs_of_the_parsers_do_what_they_must() {
    let parsers = [
        "container_paths",
        "expressions",
        "ottl",
        "parsers",
        "patterns",
    ];
    replay(|name| parsers.contains(&name));
}

#[test]
fn inputs_of_formats_do_what_they_must() {
    replay(|name| name == "formats");
}

#[test]
fn inputs_of_container_lines_do_what_they_must() {
    replay(|name| matches!(name, "cri_lines" | "docker_lines"));
}

#[test]
fn inputs_of_framing_do_what_they_must() {
    replay(|name| name == "framing");
}

#[test]
fn inputs_of_files_do_what_they_must() {
    replay(|name| matches!(name, "checkpoint" | "compressed" | "config"));
}

#[test]
fn inputs_of_otlp_do_what_they_must() {
    replay(|name| name.starts_with("otlp_"));
}

#[test]
fn inputs_of_loki_do_what_they_must() {
    replay(|name| {
        matches!(
            name,
            "compression" | "loki_pushes" | "requests" | "responses"
        )
    });
}
