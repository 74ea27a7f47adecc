//! From sources to configuration: a pure function, so the same sources always give the same digest.
//!
//! All sources whose lines look alike are files of one receiver, each with a resource of its own (the
//! receiver's option `files`). One source more or less is then an update of that receiver in place:
//! no thread, no inotify instance, no change of a pipeline, and positions stay in one place, which forgets
//! those of files that are gone. A receiver for each source would cost all of these.
//!
//! A base says what happens to records. It is a configuration of the agent that knows nothing of
//! sources; what is rendered here is laid over it by the agent, which merges maps and replaces lists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tailwater_config::{Node, parse};

use crate::model::{Descriptor, Digest, Format};

/// What this builder calls itself in manifests.
pub const BUILDER: &str = concat!("tailwater/", env!("CARGO_PKG_VERSION"));
/// The pipeline that sources are put in front of.
pub const PIPELINE: &str = "logs";
/// The longest value of a label, in bytes: Loki's own limit.
const LABEL_VALUE_BYTES_MAX: usize = 2048;
/// The longest name of a label, in bytes: Loki's own limit.
const LABEL_NAME_BYTES_MAX: usize = 1024;
/// The longest path, in bytes (`PATH_MAX` of Linux).
const PATH_BYTES_MAX: usize = 4096;

/// The receiver that reads sources of this format.
pub fn receiver(format: Format) -> &'static str {
    match format {
        Format::Docker => "file_log/docker",
        Format::Plain => "file_log/files",
        Format::Container => "file_log/containers",
        Format::ContainerJson => "file_log/containers_json",
        Format::ContainerLogfmt => "file_log/containers_logfmt",
    }
}

/// All receivers that may be rendered.
pub const RECEIVERS: [&str; 5] = [
    "file_log/docker",
    "file_log/files",
    "file_log/containers",
    "file_log/containers_json",
    "file_log/containers_logfmt",
];

/// Why a base cannot be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BaseError(pub String);

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    text: String,
    digest: Digest,
    /// What stands before the pipeline already.
    receivers: Vec<String>,
}

impl Base {
    /// Reads a base; `name` is for messages. Only as far as sources need it: the rest is the agent's, and
    /// what refers to secrets is not followed.
    ///
    /// # Errors
    /// It is no YAML, has no pipeline `logs`, or configures a receiver that is rendered here.
    pub fn parse(text: &str, name: &str) -> Result<Base, BaseError> {
        let fail = |message: String| BaseError(message);
        let root = parse(text, name).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            fail(lines.join("\n"))
        })?;
        let pipelines = root.get("service").and_then(|s| s.get("pipelines"));
        let pipeline = pipelines.and_then(|p| p.get(PIPELINE)).ok_or_else(|| {
            fail(format!(
                "{name}: service::pipelines has no {PIPELINE:?}: that is where sources go in"
            ))
        })?;
        for id in RECEIVERS {
            if root.get("receivers").and_then(|r| r.get(id)).is_some() {
                return Err(fail(format!(
                    "{name}: receivers::{id} is made of what is found; call this one otherwise"
                )));
            }
        }
        let listed = pipeline.get("receivers").and_then(Node::as_list);
        let ids = listed.unwrap_or_default().iter().filter_map(Node::as_text);
        Ok(Base {
            receivers: ids.map(str::to_owned).collect(),
            digest: Digest::of(text.as_bytes()),
            text: text.to_owned(),
        })
    }

    /// As it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Of its text.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// What came of sources.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// What is to be laid over the base: YAML, which JSON is.
    pub targets: String,
    /// Of it.
    pub digest: Digest,
    /// Which sources are in it, and what they look like.
    pub sources: BTreeMap<String, Digest>,
    /// Which are not, and why.
    pub refused: BTreeMap<String, String>,
}

/// Renders sources over a base, one by one: what is wrong with one of them stops no other.
pub fn build<'a>(base: &Base, sources: impl IntoIterator<Item = &'a Descriptor>) -> Rendered {
    let mut rendered = BTreeMap::new();
    let mut refused = BTreeMap::new();
    // By id: the order in which they are given does not matter.
    let sources: BTreeMap<&str, &Descriptor> =
        sources.into_iter().map(|s| (s.id.as_str(), s)).collect();
    let mut files: BTreeMap<Format, Vec<Value>> = BTreeMap::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (id, source) in &sources {
        match render(source, &taken) {
            Ok(list) => {
                files.entry(source.format).or_default().extend(list);
                taken.extend(source.paths.iter().map(String::as_str));
                rendered.insert((*id).to_owned(), source.digest());
            }
            Err(reason) => {
                refused.insert((*id).to_owned(), reason);
            }
        }
    }
    let targets = targets(base, files);
    Rendered {
        digest: Digest::of(targets.as_bytes()),
        targets,
        sources: rendered,
        refused,
    }
}

/// One source.
fn render(source: &Descriptor, taken: &BTreeSet<&str>) -> Result<Vec<Value>, String> {
    let mut resource = serde_json::Map::new();
    for (name, value) in &source.labels {
        if name.is_empty() || name.len() > LABEL_NAME_BYTES_MAX {
            return Err(format!("the name of label {name:?} is empty or too long"));
        }
        if value.len() > LABEL_VALUE_BYTES_MAX {
            let most = LABEL_VALUE_BYTES_MAX;
            return Err(format!(
                "label {name} has {} bytes; at most {most} are possible",
                value.len()
            ));
        }
        if name.chars().chain(value.chars()).any(char::is_control) {
            return Err(format!("label {name:?} holds a control character"));
        }
        resource.insert(name.clone(), escape(value).into());
    }
    if source.paths.is_empty() {
        return Err("it has no file".to_owned());
    }
    let mut files = Vec::new();
    for path in &source.paths {
        let possible = path.starts_with('/') && path.len() < PATH_BYTES_MAX;
        if !possible || path.chars().any(char::is_control) {
            return Err(format!("{path:?} is no path that can be configured"));
        }
        if taken.contains(path.as_str()) {
            return Err(format!("{path} is another source's"));
        }
        files.push(json!({"path": escape(path), "resource": resource}));
    }
    Ok(files)
}

/// A text that stays as it is when placeholders are replaced.
fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// The operators that lines of a format go through.
fn operators(format: Format) -> Value {
    let container = |format: &str| {
        let mut operator = json!({"type": "container", "add_metadata_from_filepath": false});
        if !format.is_empty() {
            operator["format"] = format.into();
        }
        operator
    };
    // A line that is nothing of the kind goes on as it is.
    let parser = |kind: &str| json!({"type": kind, "on_error": "send_quiet"});
    match format {
        Format::Docker => json!([container("docker")]),
        Format::Plain => json!([]),
        Format::Container => json!([container("")]),
        Format::ContainerJson => json!([container(""), parser("json_parser")]),
        Format::ContainerLogfmt => json!([container(""), parser("key_value_parser")]),
    }
}

/// Whether there is a receiver of this format also without files: one source more changes no pipeline then.
fn is_always_there(format: Format) -> bool {
    matches!(format, Format::Docker | Format::Plain)
}

fn targets(base: &Base, mut files: BTreeMap<Format, Vec<Value>>) -> String {
    let mut rendered = serde_json::Map::new();
    let mut receivers = base.receivers.clone();
    for format in Format::ALL {
        let files = files.remove(&format).unwrap_or_default();
        if files.is_empty() && !is_always_there(format) {
            continue;
        }
        let mut section = json!({
            "files": files,
            "start_at": "beginning",
            "include_file_name": false,
            "preserve_leading_whitespaces": true,
            "preserve_trailing_whitespaces": true,
        });
        match format {
            Format::Plain => section["include_file_path"] = true.into(),
            _ => section["operators"] = operators(format),
        }
        rendered.insert(receiver(format).to_owned(), section);
        receivers.push(receiver(format).to_owned());
    }
    let all = json!({
        "receivers": rendered,
        "service": {"pipelines": {PIPELINE: {"receivers": receivers}}},
    });
    // A line for each file: differences of two of them can be read.
    let text = all.to_string();
    text.replace("{\"path\":", "\n{\"path\":")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Origin;

    const BASE: &str = "
receivers: {otlp: {}}
exporters: {loki: {endpoint: 'http://127.0.0.1:1', headers: {Authorization: '${env:TOKEN}'}}}
service: {pipelines: {logs: {receivers: [otlp], exporters: [loki]}}}
";

    fn source(id: &str, path: &str, label: &str) -> Descriptor {
        Descriptor {
            id: id.into(),
            origin: Origin::Docker,
            paths: vec![path.into()],
            format: Format::Docker,
            labels: BTreeMap::from([("container".into(), label.into())]),
        }
    }

    fn base() -> Base {
        Base::parse(BASE, "base.yaml").unwrap()
    }

    /// What the agent would read of it.
    fn read(rendered: &Rendered) -> Node {
        parse(&rendered.targets, "targets").unwrap()
    }

    #[test]
    fn sources_become_files_of_a_receiver_in_front_of_the_pipeline() {
        let rendered = build(
            &base(),
            &[
                source("docker:b", "/c/b.log", "web"),
                source("docker:a", "/c/a.log", "d$b"),
            ],
        );
        let root = read(&rendered);
        let files = root.get("receivers").unwrap().get("file_log/docker");
        let files = files.unwrap().get("files").unwrap().as_list().unwrap();
        let path = |n: &Node| n.get("path").unwrap().as_str().unwrap().to_owned();
        assert_eq!(
            files.iter().map(path).collect::<Vec<_>>(),
            ["/c/a.log", "/c/b.log"]
        );
        let label = files[0].get("resource").unwrap().get("container").unwrap();
        assert_eq!(label.as_str(), Some("d$$b"));
        let pipelines = root.get("service").unwrap().get("pipelines").unwrap();
        let receivers = pipelines.get("logs").unwrap().get("receivers").unwrap();
        let ids: Vec<_> = receivers
            .as_list()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        assert_eq!(ids, ["otlp", "file_log/docker", "file_log/files"]);
        assert!(!rendered.targets.contains("TOKEN"));
    }

    /// Guarantee: each kind of bad source is left out with its reason, and none of the good ones.
    #[test]
    fn a_bad_source_stops_no_other() {
        let long = "x".repeat(2049);
        let mut nowhere = source("docker:nowhere", "/x", "a");
        nowhere.paths.clear();
        let bad = [
            source("docker:long", "/c/long", &long),
            source("docker:control", "/c/control", "a\nb"),
            source("docker:relative", "c/relative", "a"),
            source("docker:newline", "/c/new\nline", "a"),
            source("docker:same", "/c/good", "a"),
            nowhere,
        ];
        let good = source("docker:good", "/c/good", "fine");
        let rendered = build(&base(), bad.iter().chain([&good]));
        let ids: Vec<_> = rendered.sources.keys().map(String::as_str).collect();
        assert_eq!(ids, ["docker:good"]);
        let refused: Vec<_> = rendered.refused.keys().map(String::as_str).collect();
        assert_eq!(
            refused,
            [
                "docker:control",
                "docker:long",
                "docker:newline",
                "docker:nowhere",
                "docker:relative",
                "docker:same"
            ]
        );
        assert_eq!(rendered.targets, build(&base(), [&good]).targets);
    }

    /// Guarantee: what containers write is taken apart as it is said, in a receiver that is there only then.
    #[test]
    fn what_containers_write_decides_their_receiver() {
        let of = |format, id: &str| Descriptor {
            format,
            ..source(id, &format!("/p/{id}.log"), "c")
        };
        let rendered = build(
            &base(),
            &[
                of(Format::Container, "a"),
                of(Format::ContainerJson, "b"),
                of(Format::ContainerLogfmt, "c"),
            ],
        );
        assert!(rendered.refused.is_empty());
        let root = read(&rendered);
        for (id, path, operators) in [
            ("file_log/containers", "/p/a.log", vec!["container"]),
            (
                "file_log/containers_json",
                "/p/b.log",
                vec!["container", "json_parser"],
            ),
            (
                "file_log/containers_logfmt",
                "/p/c.log",
                vec!["container", "key_value_parser"],
            ),
        ] {
            let section = root.get("receivers").unwrap().get(id).unwrap();
            let first = &section.get("files").unwrap().as_list().unwrap()[0];
            assert_eq!(first.get("path").unwrap().as_str(), Some(path));
            let kinds: Vec<_> = section
                .get("operators")
                .unwrap()
                .as_list()
                .unwrap()
                .iter()
                .map(|o| o.get("type").unwrap().as_str().unwrap())
                .collect();
            assert_eq!(kinds, operators, "{id}");
        }
        let none = read(&build(&base(), &[]));
        let receivers = none.get("receivers").unwrap();
        assert!(receivers.get("file_log/docker").is_some());
        assert!(receivers.get("file_log/containers").is_none());
        for format in Format::ALL {
            assert!(RECEIVERS.contains(&receiver(format)));
        }
    }

    #[test]
    fn a_base_that_is_none_is_refused_with_its_place() {
        for (text, about) in [
            ("service: {pipelines: {metrics: {}}}", "has no \"logs\""),
            ("a: [", "base.yaml:"),
            (
                "receivers: {file_log/docker: {}}\nservice: {pipelines: {logs: {}}}",
                "file_log/docker",
            ),
        ] {
            let error = Base::parse(text, "base.yaml").unwrap_err();
            assert!(error.0.contains(about), "{error}");
        }
    }

    proptest! {
        /// Guarantee: what is rendered is YAML that says just what the source said, whatever that is, and
        /// depends on the set of sources alone.
        #[test]
        fn any_text_comes_through(
            texts in prop::collection::vec(("\\PC{1,20}", "\\PC{0,20}"), 1..5),
        ) {
            let sources: Vec<_> = texts
                .iter()
                .enumerate()
                .map(|(i, (path, label))| source(&format!("docker:{i}"), &format!("/{i}/{path}"), label))
                .collect();
            let rendered = build(&base(), &sources);
            prop_assert!(rendered.refused.is_empty(), "{:?}", rendered.refused);
            let root = read(&rendered);
            let files = root.at("receivers::file_log/docker::files").unwrap().as_list().unwrap();
            prop_assert_eq!(files.len(), sources.len());
            for source in &sources {
                let found = files.iter().any(|f| {
                    let path = f.get("path").unwrap().as_str().unwrap();
                    let label = f.get("resource").unwrap().get("container").unwrap();
                    path == escape(&source.paths[0])
                        && label.as_str() == Some(&*escape(&source.labels["container"]))
                });
                prop_assert!(found, "{}", rendered.targets);
            }
            let turned: Vec<_> = sources.iter().rev().collect();
            prop_assert_eq!(build(&base(), turned).digest, rendered.digest);
        }
    }
}
