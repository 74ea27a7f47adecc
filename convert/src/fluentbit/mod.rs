//! Fluent Bit, by its manual (version 4), in its classic form and as YAML.
//!
//! A record of Fluent Bit is a map; here it is the attributes of a log record, until the end of the operators,
//! where the line is made of it that its outputs send. Each input is a pipeline with the outputs that match
//! its tag.

mod chain;
mod filters;
mod inputs;
mod outputs;
mod parsers;
mod routing;
mod source;

use crate::Converted;
use crate::assembly::{Assembly, Pipeline};
use crate::note::{Notes, Weight};
use crate::yaml::{Map, Value, map};

use self::chain::Chain;
use self::filters::Wanted;
use self::inputs::Input;
use self::outputs::{Line, Output};
use self::routing::Matches;
use self::source::{Include, Properties, Section, Source};

/// Converts a configuration of Fluent Bit; `name` is what places are called by, and a name that ends in `.yaml`
/// or `.yml` says that it is YAML. `include` reads files that the configuration names.
///
/// # Errors
/// It cannot be read.
pub fn fluent_bit(text: &str, name: &str, include: Include<'_>) -> Result<Converted, String> {
    let mut notes = Notes::default();
    let mut source = Source::read(text, name, include, &mut notes)?;
    include_parsers(&mut source, &mut notes);
    let sections = source.sections;
    let mut a = Assembly::default();
    a.head.push(
        "Converted from a configuration of Fluent Bit. Look for DECIDE and NO EQUAL.".to_owned(),
    );
    let of = |kind: &'static str| sections.iter().filter(move |s| s.kind == kind);
    for section in of("service") {
        service(Properties::new(section), &mut a, &mut notes);
    }
    let mut outputs: Vec<(String, &Section, Line)> = Vec::new();
    for section in of("output") {
        match outputs::output(Properties::new(section), &mut notes) {
            Ok(output) => {
                let Output {
                    kind,
                    exporter,
                    line,
                } = output;
                let id = Assembly::id(|id| a.exporters.has(id), kind, "");
                match exporter.is_empty() {
                    true => a.exporters.set_empty(&id),
                    false => a.exporters.set(&id, exporter),
                };
                outputs.push((id, section, line));
            }
            Err(comment) => a.tail.push(comment),
        }
    }
    for (number, section) in of("input").enumerate() {
        match inputs::input(Properties::new(section), number, &sections, &mut notes) {
            Ok(input) => add(input, section, &sections, &outputs, &mut a, &mut notes),
            Err(comment) => a.tail.push(comment),
        }
    }
    let known = [
        "service",
        "input",
        "filter",
        "output",
        "parser",
        "multiline_parser",
    ];
    for section in sections
        .iter()
        .filter(|s| !known.contains(&s.kind.as_str()))
    {
        let say = "there is no such section here";
        a.tail
            .push(notes.add(Weight::NoEqual, &section.place, &section.kind, say));
    }
    if a.exporters.is_empty() {
        a.exporters
            .comment("No output could be converted: this one forgets everything.")
            .set_empty("nop");
    }
    Ok(Converted {
        yaml: a.into_yaml(),
        notes: notes.into_vec(),
    })
}

/// Reads the files with parsers that the service names.
fn include_parsers(source: &mut Source<'_>, notes: &mut Notes) {
    let services = source.sections.iter().filter(|s| s.kind == "service");
    let properties = services.flat_map(|s| &s.properties);
    let files: Vec<(String, String)> = properties
        .filter(|p| p.key.eq_ignore_ascii_case("parsers_file"))
        .map(|p| (p.value.clone(), p.place.clone()))
        .collect();
    for (file, place) in files {
        source.add_file(&file, &place, 1, notes);
    }
}

/// The pipeline of an input.
fn add(
    mut input: Input,
    section: &Section,
    all: &[Section],
    outputs: &[(String, &Section, Line)],
    a: &mut Assembly,
    notes: &mut Notes,
) {
    let mut comments = Vec::new();
    let mut wanted = Wanted::default();
    for filter in all.iter().filter(|s| s.kind == "filter") {
        let mut p = Properties::new(filter);
        match input.tags.of(&mut p) {
            Matches::None => continue,
            Matches::Some => {
                let say = "it is about some of the tags of an input only; here it is about all of them: give its files a \
                           receiver of their own, or the operators an if";
                input.chain.comment(p.note(notes, Weight::Decide, say));
            }
            Matches::All => {}
        }
        match input.has_operators {
            true => filters::filter(p, all, &mut input.chain, &mut wanted, notes),
            false => {
                let say = "the receiver has no operators: write it as statements of transform, or conditions of filter";
                comments.push(p.note(notes, Weight::Decide, say));
            }
        }
    }
    let mut exporters = Vec::new();
    let mut lines = Vec::new();
    for (id, output, line) in outputs {
        let mut p = Properties::new(output);
        match input.tags.of(&mut p) {
            Matches::None => continue,
            Matches::Some => {
                let say = "it matches some of the tags of an input only; here it gets all of them: give its files a receiver of \
                           their own";
                comments.push(p.note(notes, Weight::Decide, say));
            }
            Matches::All => {}
        }
        exporters.push(id.clone());
        lines.push(*line);
    }
    let p = Properties::new(section);
    if exporters.is_empty() {
        let say = "no output that could be converted matches its tag; it is not read";
        return a.tail.push(p.note(notes, Weight::NoEqual, say));
    }
    if wanted.kubernetes.is_some() {
        let found = input.chain.with_paths();
        let all = ["/var/log/containers/*.log"];
        let say = match found && input.paths == all {
            true => {
                input
                    .receiver
                    .set("include", vec!["/var/log/pods/*/*/*.log"]);
                "logs are read below /var/log/pods, whose paths say which pod they are of"
            }
            false => {
                "k8s_attributes has to know of which pod a log is: read it below /var/log/pods, with the operator container and \
                 add_metadata_from_filepath: true"
            }
        };
        comments.push(Properties::new(section).note(notes, Weight::Decide, say));
    }
    if input.has_operators {
        finish(&mut input.chain, &lines, &mut comments, &p, notes);
        input
            .receiver
            .set("operators", Value::List(input.chain.finish()));
    }
    let tag = section
        .properties
        .iter()
        .find(|p| p.key.eq_ignore_ascii_case("tag"));
    let name = tag.map_or("", |t| t.value.as_str()).replace('*', "");
    let name = name.trim_matches('.');
    let id = Assembly::id(|id| a.receivers.has(id), input.kind, name);
    a.receivers.set(&id, input.receiver);
    let mut processors = Vec::new();
    if let Some((labels, annotations)) = wanted.kubernetes {
        let id = Assembly::id(|id| a.processors.has(id), "k8s_attributes", name);
        a.processors.set(&id, kubernetes(labels, annotations));
        processors.push(id);
    }
    a.pipelines.push(Pipeline {
        name: name.to_owned(),
        comments,
        receivers: vec![id],
        processors,
        exporters,
    });
}

/// Makes the body that the outputs want.
fn finish(
    chain: &mut Chain,
    lines: &[Line],
    comments: &mut Vec<String>,
    p: &Properties<'_>,
    notes: &mut Notes,
) {
    let mut kinds: Vec<Line> = Vec::new();
    for line in lines {
        if !kinds.contains(line) {
            kinds.push(*line);
        }
    }
    if kinds.len() > 1 {
        let say = "its outputs want different lines of a record: here the field log is the line and all others are attributes. \
                   line_format: json of the exporter loki puts them into the line";
        comments.push(p.note(notes, Weight::Decide, say));
    }
    let log = "attributes.log";
    match kinds[..] {
        [Line::Json] => chain.json(None),
        [Line::JsonOrSingle] => {
            let single = "len(keys(attributes)) == 1 and attributes.log != nil";
            chain.json(Some(&format!("not ({single})")));
            chain.quiet("copy", Some(single), [("from", log), ("to", "body")]);
        }
        _ => {
            chain.quiet(
                "move",
                Some("attributes.log != nil"),
                [("from", log), ("to", "body")],
            );
            let message = "attributes.message";
            let only = "body == nil and attributes.message != nil";
            chain.quiet("move", Some(only), [("from", message), ("to", "body")]);
        }
    }
}

fn kubernetes(labels: bool, annotations: bool) -> Map {
    let mut out = map([("auth_type", "serviceAccount".into())]);
    out.comment("The variable has to be set to spec.nodeName in the manifest of the DaemonSet.");
    out.set("filter", map([("node_from_env_var", "NODE_NAME".into())]));
    let metadata = vec![
        "k8s.namespace.name",
        "k8s.pod.name",
        "k8s.pod.uid",
        "k8s.node.name",
        "k8s.deployment.name",
    ];
    let mut extract = map([("metadata", metadata.into())]);
    for (on, section, tag) in [
        (labels, "labels", "label"),
        (annotations, "annotations", "annotation"),
    ] {
        if on {
            let all = map([
                ("tag_name", format!("k8s.pod.{tag}.$1").into()),
                ("key_regex", "(.*)".into()),
                ("from", "pod".into()),
            ]);
            extract.set(section, vec![all]);
        }
    }
    out.set("extract", extract);
    let source = map([
        ("from", "resource_attribute".into()),
        ("name", "k8s.pod.uid".into()),
    ]);
    let association = map([("sources", vec![source].into())]);
    out.set("pod_association", vec![association]);
    out
}

fn service(mut p: Properties<'_>, a: &mut Assembly, notes: &mut Notes) {
    if let Some(grace) = p.text("grace") {
        let grace = if grace.bytes().all(|b| b.is_ascii_digit()) {
            format!("{grace}s")
        } else {
            grace
        };
        a.service.set("shutdown_timeout", Value::Plain(grace));
    }
    let mut logs = Map::default();
    if let Some(level) = p.text("log_level") {
        let level = match level.to_ascii_lowercase().as_str() {
            "error" => "error",
            "warn" | "warning" => "warn",
            "debug" | "trace" => "debug",
            _ => "info",
        };
        logs.set("level", level);
    }
    logs.set_some("output_paths", p.text("log_file").map(|f| vec![f]));
    if !logs.is_empty() {
        a.service.sub("telemetry").set("logs", logs);
    }
    let (on, listen, port) = (
        p.flag("http_server"),
        p.text("http_listen"),
        p.text("http_port"),
    );
    if on == Some(true) {
        let host = listen.unwrap_or_else(|| "0.0.0.0".to_owned());
        let port = port.unwrap_or_else(|| "2020".to_owned());
        let at = map([("host", host.into()), ("port", Value::Plain(port))]);
        let exporter = map([("prometheus", at.into())]);
        let reader = map([("pull", map([("exporter", exporter.into())]).into())]);
        let say = "metrics of this agent are at /metrics of this address; health is the extension health_check, at an address of \
                   its own";
        a.service
            .sub("telemetry")
            .comment(p.note(notes, Weight::Decide, say))
            .set("metrics", map([("readers", vec![reader].into())]));
    }
    p.all("parsers_file");
    for (option, weight, say) in [
        (
            "flush",
            Weight::NotNeeded,
            "lines are sent as they come, or as sending_queue::batch of an exporter says",
        ),
        (
            "daemon",
            Weight::NotNeeded,
            "it runs in the foreground; a service manager starts it",
        ),
        (
            "hot_reload",
            Weight::NotNeeded,
            "SIGHUP, --watch and the admin API change a running agent",
        ),
        (
            "storage.path",
            Weight::NotNeeded,
            "files are the buffer; for what is pushed there is sending_queue::storage",
        ),
        ("storage.sync", Weight::NotNeeded, "files are the buffer"),
        (
            "storage.checksum",
            Weight::NotNeeded,
            "files are the buffer",
        ),
        ("storage.metrics", Weight::NotNeeded, "metrics are there"),
        (
            "storage.max_chunks_up",
            Weight::NotNeeded,
            "files are the buffer",
        ),
        (
            "storage.backlog.mem_limit",
            Weight::NotNeeded,
            "files are the buffer",
        ),
        (
            "scheduler.cap",
            Weight::Decide,
            "set retry_on_failure::max_interval of the exporters",
        ),
        (
            "scheduler.base",
            Weight::Decide,
            "set retry_on_failure::initial_interval of the exporters",
        ),
        (
            "health_check",
            Weight::Decide,
            "the extension health_check says whether records make progress",
        ),
        (
            "hc_errors_count",
            Weight::NotNeeded,
            "health means progress",
        ),
        (
            "hc_retry_failure_count",
            Weight::NotNeeded,
            "health means progress",
        ),
        ("hc_period", Weight::NotNeeded, "health means progress"),
    ] {
        let comment = p.remark(notes, weight, option, say);
        if weight != Weight::NotNeeded {
            comment.into_iter().for_each(|c| a.tail.push(c));
        }
    }
    a.tail.extend(p.rest(notes));
}
