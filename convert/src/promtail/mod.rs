//! Promtail, by its reference of the configuration (Loki 3).

mod clients;
mod jobs;
mod kubernetes;
mod relabel;
mod selector;
mod server;
mod sources;
mod stages;

use std::collections::BTreeSet;

use tailwater_config::{Node, NodeValue, parse};

use crate::Converted;
use crate::assembly::{Assembly, Pipeline};
use crate::note::{Notes, Weight};
use crate::options::Options;
use crate::yaml::{Item, Map, Value, map, with_environment};

use self::jobs::{Job, job};

/// A key and its value.
type Setting = (&'static str, Value);

/// Converts a configuration of Promtail; `name` is what places are called by.
///
/// # Errors
/// It is no YAML, or no map.
pub fn promtail(text: &str, name: &str) -> Result<Converted, String> {
    let root = parse(text, name).map_err(|e| e.to_string())?;
    if !matches!(root.value, NodeValue::Map(_)) {
        return Err(format!("{name}: a configuration of Promtail is a map"));
    }
    let mut notes = Notes::default();
    let mut a = Assembly::default();
    a.head.push(
        "Converted from a configuration of Promtail. Look for DECIDE and NO EQUAL.".to_owned(),
    );
    let mut o = Options::new(&root, "");
    o.path = "config".to_owned();
    let global = server::apply(&mut o, &mut a, &mut notes);
    let clients = clients(&mut o, &mut a, &mut notes);
    let mut all = Union::default();
    for (i, node) in o.list("scrape_configs").into_iter().enumerate() {
        let path = format!("scrape_configs[{i}]");
        let job = job(node, &path, &global, &a.receivers, &mut notes);
        add_job(job, &clients, &mut a, &mut all);
    }
    all.finish(&clients, &mut a, &global);
    positions(&mut o, &mut a, &mut notes);
    let rest = o.rest(&mut notes);
    a.tail.extend(rest);
    let notes = notes.into_vec();
    if with_environment(text).1 {
        a.head.push(
            "${NAME} is taken for a variable of the environment, as with -config.expand-env=true."
                .to_owned(),
        );
    }
    Ok(Converted {
        yaml: a.into_yaml(),
        notes,
    })
}

/// What the jobs have together.
#[derive(Default)]
struct Union {
    labels: BTreeSet<String>,
    /// Attributes of records that are labels, where a source has no operators.
    label_attributes: BTreeSet<String>,
    metadata: BTreeSet<String>,
    tenant: bool,
    /// Of each job: its receivers, what it extracts, and what of that is metadata.
    jobs: Vec<(Vec<String>, BTreeSet<String>, BTreeSet<String>)>,
}

fn clients(o: &mut Options<'_>, a: &mut Assembly, notes: &mut Notes) -> Vec<String> {
    let mut ids = Vec::new();
    let nodes: Vec<&Node> = o
        .list("client")
        .into_iter()
        .chain(o.list("clients"))
        .collect();
    for (i, node) in nodes.into_iter().enumerate() {
        let path = format!("clients[{i}]");
        let (id, exporter) = clients::client(node, &path, &a.exporters, notes);
        a.exporters.set(&id, exporter);
        ids.push(id);
    }
    if ids.is_empty() {
        let say = "there is no client (or it is on the command line): this is a Loki at home";
        a.exporters
            .comment(o.note(notes, Weight::Decide, "clients", say));
        let endpoint = "http://localhost:3100/loki/api/v1/push";
        a.exporters
            .set("loki", map([("endpoint", endpoint.into())]));
        ids.push("loki".to_owned());
    }
    ids
}

fn add_job(job: Job, clients: &[String], a: &mut Assembly, all: &mut Union) {
    let mut comments = job.comments;
    if job.receivers.is_empty() {
        a.tail.append(&mut comments);
        return;
    }
    let mut receivers = Vec::new();
    for (id, receiver) in job.receivers {
        a.receivers.set(&id, receiver);
        receivers.push(id);
    }
    let mut processors = Vec::new();
    for (kind, processor) in job.processors {
        let id = Assembly::id(|id| a.processors.has(id), kind, &job.name);
        a.processors.set(&id, processor);
        processors.push(id);
    }
    a.pipelines.push(Pipeline {
        name: job.name,
        comments,
        receivers,
        processors,
        exporters: clients.to_vec(),
    });
    let receivers = a.pipelines.last().map(|p| p.receivers.clone());
    all.jobs.push((
        receivers.unwrap_or_default(),
        job.extracted,
        job.metadata.clone(),
    ));
    all.labels.extend(job.labels);
    all.label_attributes.extend(job.label_attributes);
    all.metadata.extend(job.metadata);
    all.tenant |= job.tenant;
}

impl Union {
    /// Says to each exporter what is a label and what else is sent.
    fn finish(self, clients: &[String], a: &mut Assembly, global: &server::Global) {
        // What is metadata of one job may be thrown away by another.
        for (receivers, extracted, metadata) in &self.jobs {
            let thrown = self.metadata.intersection(extracted);
            for name in thrown.filter(|name| !metadata.contains(*name)) {
                for id in receivers {
                    let field = crate::expr::field("attributes", name);
                    let remove = map([
                        ("type", "remove".into()),
                        ("field", field.into()),
                        ("on_error", "send_quiet".into()),
                    ]);
                    a.receivers.sub(id).add_to("operators", Item::of(remove));
                }
            }
        }
        let sent = self.labels.iter().filter(|l| !l.starts_with("__"));
        let sent: Vec<&String> = sent.collect();
        for id in clients {
            let exporter = a.exporters.sub(id);
            let labels = exporter.sub("labels");
            if !sent.is_empty() {
                let mut own = Map::default();
                sent.iter().for_each(|l| {
                    own.set(l, l.as_str());
                });
                labels.set("resource", own);
            }
            if !self.label_attributes.is_empty() {
                let mut own = Map::default();
                self.label_attributes.iter().for_each(|l| {
                    own.set(l, l.as_str());
                });
                labels.set("attributes", own);
            }
            match self.metadata.is_empty() {
                true => exporter.set("structured_metadata", false),
                false => {
                    let include: Vec<String> = self.metadata.iter().cloned().collect();
                    let own = map([("enabled", true.into()), ("include", include.into())]);
                    exporter.set("structured_metadata", own)
                }
            };
            if self.tenant {
                let tenant = map([
                    ("from_resource", stages::TENANT.into()),
                    ("allow", vec!["*"].into()),
                ]);
                exporter.set("tenant", tenant);
            }
            if let Some(bytes) = &global.line_bytes_max {
                let limits = exporter.sub("limits");
                limits.set("line_bytes_max", Value::Plain(bytes.clone()));
                let too_long = match global.truncates {
                    true => "truncate",
                    false => "drop",
                };
                limits.set("line_too_long", too_long);
            }
            if let Some(streams) = &global.streams_max {
                exporter.set("streams_max", Value::Plain(streams.clone()));
            }
        }
    }
}

/// Positions are taken over by another command.
fn positions(o: &mut Options<'_>, a: &mut Assembly, notes: &mut Notes) {
    let Some(mut given) = o.sub("positions") else {
        return;
    };
    if let Some(file) = given.text("filename") {
        let readers = a.receivers.keys().unwrap_or_default();
        let readers = readers.into_iter().filter(|id| id.starts_with("file_log"));
        for id in readers {
            a.head.push(format!(
                "Positions: tailwater checkpoints import --from promtail --receiver {id} {file}"
            ));
        }
        let say = "positions are in the state directory; the command at the top takes those of Promtail over";
        given.note(notes, Weight::NotNeeded, "filename", say);
    }
    let say = "positions are saved as soon as lines are delivered";
    given.remark(notes, Weight::NotNeeded, "sync_period", say);
    let say = "a damaged store of positions is mended or said";
    given.remark(notes, Weight::NotNeeded, "ignore_invalid_yaml", say);
    let rest = given.rest(notes);
    a.tail.extend(rest);
}
