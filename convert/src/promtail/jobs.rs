//! `scrape_configs` as receivers with their operators.

use std::collections::{BTreeMap, BTreeSet};

use tailwater_config::Node;

use super::kubernetes::{self, Late};
use super::relabel::{self, Rule, carry_out};
use super::server::Global;
use super::sources;
use super::stages::Stages;
use crate::assembly::Assembly;
use crate::note::{Notes, Weight};
use crate::options::{Options, text};
use crate::yaml::{Map, Value, with_environment};

/// A job, converted.
#[derive(Default)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// By id.
    pub receivers: Vec<(String, Map)>,
    /// By kind, in order.
    pub processors: Vec<(&'static str, Map)>,
    /// Attributes of the resource that are labels.
    pub labels: BTreeSet<String>,
    /// Attributes of records that are labels.
    pub label_attributes: BTreeSet<String>,
    /// Attributes of records that are structured metadata.
    pub metadata: BTreeSet<String>,
    /// Attributes of records that may be set.
    pub extracted: BTreeSet<String>,
    /// Records may name their tenant.
    pub tenant: bool,
    /// Lines in front of its pipeline.
    pub comments: Vec<String>,
}

/// What the sources of one job share.
pub struct Cx<'n, 'a> {
    /// The job's path.
    pub path: String,
    /// `pipeline_stages`.
    pub stages: Vec<&'n Node>,
    /// `relabel_configs`.
    pub rules: Vec<Rule>,
    /// Of all jobs.
    pub global: &'a Global,
    /// `encoding` of the job.
    pub encoding: Option<String>,
    /// `decompression` of the job.
    pub compressed: bool,
    /// The receivers of jobs before it.
    pub taken: &'a Map,
    /// Ids of its own.
    pub own: BTreeSet<String>,
}

/// Sections of a job that find or take in lines, and have no equal.
const WITHOUT_EQUAL: [(&str, &str); 15] = [
    (
        "file_sd_configs",
        "targets of files that change are not read; tailwater apply puts another configuration into force",
    ),
    ("consul_sd_configs", "Consul is not asked"),
    ("consulagent_sd_configs", "Consul is not asked"),
    ("dns_sd_configs", "names are not looked up to find files"),
    ("ec2_sd_configs", "clouds are not asked"),
    ("gce_sd_configs", "clouds are not asked"),
    ("azure_sd_configs", "clouds are not asked"),
    ("openstack_sd_configs", "clouds are not asked"),
    ("windows_events", "Windows is not supported"),
    ("gcplog", "nothing here takes in logs of Google Cloud"),
    ("azure_event_hubs", "nothing here takes in logs of Azure"),
    ("kafka", "nothing here reads Kafka"),
    ("gelf", "nothing here takes in GELF"),
    ("cloudflare", "nothing here fetches logs of Cloudflare"),
    ("heroku_drain", "nothing here takes in logs of Heroku"),
];

/// Converts a job.
pub fn job(node: &Node, path: &str, global: &Global, taken: &Map, notes: &mut Notes) -> Job {
    let mut o = Options::new(node, path);
    let mut out = Job {
        name: o.text("job_name").unwrap_or_default(),
        ..Job::default()
    };
    let relabeling = o.list("relabel_configs");
    let mut cx = Cx {
        path: path.to_owned(),
        stages: o.list("pipeline_stages"),
        rules: relabel::rules(&relabeling, &format!("{path}.relabel_configs"), notes),
        global,
        encoding: o.text("encoding").filter(|e| !e.is_empty()),
        compressed: false,
        taken,
        own: BTreeSet::new(),
    };
    if let Some(mut given) = o.sub("decompression") {
        let format = given.text("format").unwrap_or_default();
        cx.compressed = given.flag("enabled").unwrap_or(false) && format == "gz";
        if !cx.compressed {
            let say = "of the formats only gz is read";
            out.comments
                .push(given.note(notes, Weight::NoEqual, "format", say));
        }
        let say = "a compressed file is read when it is found";
        given.remark(notes, Weight::NotNeeded, "initial_delay", say);
        out.comments.extend(given.rest(notes));
    }
    let groups = o.list("static_configs");
    let many = groups.len();
    for (i, group) in groups.into_iter().enumerate() {
        let path = format!("{path}.static_configs[{i}]");
        files(group, &path, many > 1, &mut cx, &mut out, notes);
    }
    let found = o.list("kubernetes_sd_configs");
    if !found.is_empty() {
        pods(&found, &mut cx, &mut out, notes);
    }
    let found = o.list("docker_sd_configs");
    if !found.is_empty() {
        sources::docker(&found, &mut cx, &mut out, notes);
    }
    if let Some(given) = o.sub("journal") {
        sources::journal(given, &mut cx, &mut out, notes);
    }
    if let Some(given) = o.sub("syslog") {
        sources::syslog(given, &mut cx, &mut out, notes);
    }
    if let Some(given) = o.sub("loki_push_api") {
        sources::push_api(given, &mut cx, &mut out, notes);
    }
    for (key, say) in WITHOUT_EQUAL {
        out.comments
            .extend(o.remark(notes, Weight::NoEqual, key, say));
    }
    out.comments.extend(o.rest(notes));
    if out.receivers.is_empty() && out.comments.is_empty() {
        let say = "this job has no source that could be converted";
        out.comments
            .push(notes.add(Weight::NoEqual, &node.span, path, say));
    }
    out
}

impl Cx<'_, '_> {
    /// An id for another receiver of this job.
    pub fn id(&mut self, kind: &str, name: &str) -> String {
        let is_taken = |id: &str| self.taken.has(id) || self.own.contains(id);
        let id = Assembly::id(is_taken, kind, name);
        self.own.insert(id.clone());
        id
    }
}

impl Job {
    /// Takes over what the stages of a source have found out; gives its operators.
    pub fn take(&mut self, stages: Stages<'_>) -> Value {
        self.labels.extend(stages.labels);
        self.extracted.extend(stages.extracted);
        self.metadata.extend(stages.metadata);
        self.tenant |= stages.tenant;
        Value::List(stages.operators)
    }
}

/// A receiver of files; what they are is set by the caller.
fn file_log(cx: &Cx<'_, '_>, include: &[String], exclude: &[String]) -> Map {
    let mut r = Map::default();
    let text =
        |paths: &[String]| -> Vec<String> { paths.iter().map(|p| with_environment(p).0).collect() };
    r.set("include", text(include));
    if !exclude.is_empty() {
        r.set("exclude", text(exclude));
    }
    r.set("start_at", "beginning");
    r.set("include_file_path", true);
    r.set("include_file_name", false);
    for key in [
        "preserve_leading_whitespaces",
        "preserve_trailing_whitespaces",
    ] {
        r.set(key, true);
    }
    r.set_some("encoding", cx.encoding.as_deref());
    if cx.compressed {
        r.set("compression", "gzip");
    }
    let interval = cx.global.poll_interval.clone();
    r.set_some("poll_interval", interval.map(Value::Plain));
    r
}

/// The label that Promtail gives to lines of files.
fn filename(stages: &mut Stages<'_>) {
    stages.copy_field("attributes[\"log.file.path\"]", "resource.filename");
    stages.labels.insert("filename".to_owned());
}

/// A group of targets with labels.
fn files(
    node: &Node,
    path: &str,
    numbered: bool,
    cx: &mut Cx<'_, '_>,
    out: &mut Job,
    notes: &mut Notes,
) {
    let mut o = Options::new(node, path);
    // Targets are there for form only: each is this machine.
    o.has("targets");
    let mut labels: BTreeMap<String, String> = o
        .entries("labels")
        .iter()
        .filter_map(|(k, n)| Some((k.clone(), text(n)?)))
        .collect();
    out.comments.extend(o.rest(notes));
    labels
        .entry("__address__".to_owned())
        .or_insert_with(|| "localhost".to_owned());
    if !carry_out(&cx.rules, &mut labels, notes) {
        let say = "relabel_configs drop this target: it is not read";
        out.comments
            .push(notes.add(Weight::NotNeeded, &node.span, path, say));
        return;
    }
    let paths = |key: &str, labels: &BTreeMap<String, String>| -> Vec<String> {
        labels.get(key).cloned().into_iter().collect()
    };
    let (include, exclude) = (
        paths("__path__", &labels),
        paths("__path_exclude__", &labels),
    );
    if include.is_empty() {
        let say = "there is no __path__: nothing is read";
        out.comments
            .push(notes.add(Weight::NoEqual, &node.span, path, say));
        return;
    }
    if let Some(host) = labels.get("__host__") {
        let say = format!(
            "Promtail reads this only on the host {host:?}; here it is read wherever this configuration runs"
        );
        out.comments
            .push(notes.add(Weight::Decide, &node.span, path, say));
    }
    labels.retain(|name, _| !name.starts_with("__"));
    let mut receiver = file_log(cx, &include, &exclude);
    if !labels.is_empty() {
        let resource = receiver.sub("resource");
        for (name, value) in &labels {
            resource.set(name, with_environment(value).0);
        }
    }
    let mut stages = Stages::new(notes, labels.keys().cloned().collect());
    filename(&mut stages);
    stages.all(&cx.stages, &format!("{}.pipeline_stages", cx.path));
    stages.finish();
    receiver.set("operators", out.take(stages));
    // Receivers of one job are told apart by the job's label, if they have one.
    let name = match (numbered, labels.get("job")) {
        (true, Some(job)) if *job != out.name => format!("{}_{job}", out.name),
        _ => out.name.clone(),
    };
    out.receivers.push((cx.id("file_log", &name), receiver));
}

/// Pods of this node.
fn pods(found: &[&Node], cx: &mut Cx<'_, '_>, out: &mut Job, notes: &mut Notes) {
    let mut include = Vec::new();
    for (i, node) in found.iter().enumerate() {
        let mut o = Options::new(node, format!("{}.kubernetes_sd_configs[{i}]", cx.path));
        let role = o.text("role").unwrap_or_default();
        if role != "pod" {
            let say = format!("only pods are found, no {role:?}");
            out.comments
                .push(o.note(notes, Weight::NoEqual, "role", &say));
        }
        let say = "k8s_attributes asks the API of the cluster that it runs in";
        for key in [
            "api_server",
            "kubeconfig_file",
            "tls_config",
            "basic_auth",
            "bearer_token_file",
        ] {
            out.comments
                .extend(o.remark(notes, Weight::Decide, key, say));
        }
        if let Some(mut own) = o.sub("namespaces") {
            let names = own.texts("names");
            include.extend(names.iter().map(|n| format!("/var/log/pods/{n}_*/*/*.log")));
            out.comments.extend(own.rest(notes));
        }
        let say = "only pods of this node have logs here; further selectors are written as exclude or as a filter";
        out.comments
            .extend(o.remark(notes, Weight::Decide, "selectors", say));
        out.comments.extend(o.rest(notes));
    }
    if include.is_empty() {
        include.push("/var/log/pods/*/*/*.log".to_owned());
    }
    let mut receiver = file_log(cx, &include, &[]);
    let mut stages = Stages::new(notes, BTreeSet::new());
    let container = crate::yaml::map([
        ("type", "container".into()),
        ("add_metadata_from_filepath", true.into()),
        ("on_error", "send_quiet".into()),
    ]);
    stages.add(container);
    let first = cx.stages.first().and_then(|s| s.as_map()?.first());
    let first = first.map(|(key, _)| key.text.as_str());
    if let Some(kind @ ("docker" | "cri")) = first {
        stages.after_container(kind);
        stages.container_done = true;
    }
    filename(&mut stages);
    let mut late = Late::default();
    for rule in &cx.rules {
        kubernetes::rule(rule, &mut stages, &mut late);
    }
    stages.late = late.labels.clone();
    stages.all(&cx.stages, &format!("{}.pipeline_stages", cx.path));
    stages.finish();
    receiver.set("operators", out.take(stages));
    if !late.is_empty() {
        out.processors.extend(late.processors());
        out.labels.extend(late.labels);
    }
    let name = out.name.clone();
    out.receivers.push((cx.id("file_log", &name), receiver));
}
