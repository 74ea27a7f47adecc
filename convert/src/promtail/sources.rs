//! Sources that are no files of this machine by name: containers of Docker, the journal, syslog, pushes.

use std::collections::BTreeSet;

use tailwater_config::Node;

use super::jobs::{Cx, Job};
use super::relabel;
use super::stages::Stages;
use crate::expr;
use crate::note::{Notes, Weight};
use crate::options::{Options, text};
use crate::yaml::{Map, Value, map, with_environment};

/// The constant labels of a source.
fn labels(o: &mut Options<'_>) -> Vec<(String, String)> {
    let entries = o.entries("labels");
    let of = entries.iter();
    of.filter_map(|(k, n)| Some((k.clone(), with_environment(&text(n)?).0)))
        .collect()
}

fn resource(receiver: &mut Map, labels: &[(String, String)]) {
    let sent = labels.iter().filter(|(name, _)| !name.starts_with("__"));
    for (name, value) in sent {
        receiver.sub("resource").set(name, value.as_str());
    }
}

/// Rules, stages and operators of a source with labels on each record.
fn operators(
    cx: &Cx<'_, '_>,
    labels: &[(String, String)],
    first: Vec<Map>,
    lookup: &dyn Fn(&str) -> Option<String>,
    after_rules: Vec<Map>,
    out: &mut Job,
    notes: &mut Notes,
) -> Value {
    let known: BTreeSet<String> = labels.iter().map(|(k, _)| k.clone()).collect();
    let mut stages = Stages::new(notes, known);
    first.into_iter().for_each(|op| stages.add(op));
    for rule in &cx.rules {
        relabel::operators(rule, lookup, &mut stages);
    }
    after_rules.into_iter().for_each(|op| stages.add(op));
    stages.all(&cx.stages, &format!("{}.pipeline_stages", cx.path));
    stages.finish();
    out.take(stages)
}

fn quiet(kind: &str, from: &str, to: &str) -> Map {
    map([
        ("type", kind.into()),
        ("from", from.into()),
        ("to", to.into()),
        ("on_error", "send_quiet".into()),
    ])
}

/// `docker_sd_configs`: the files of the driver json-file, of which the names of containers are not known.
pub fn docker(found: &[&Node], cx: &mut Cx<'_, '_>, out: &mut Job, notes: &mut Notes) {
    for (i, node) in found.iter().enumerate() {
        let path = format!("{}.docker_sd_configs[{i}]", cx.path);
        let mut o = Options::new(node, &path);
        let say = "tailwater up finds containers by itself, with labels for service, project, container and image. What \
                   follows reads the files of all containers that use the driver json-file, without their names";
        out.comments
            .push(notes.add(Weight::Decide, &node.span, &path, say));
        for key in [
            "host",
            "port",
            "refresh_interval",
            "host_networking_host",
            "match_first_network",
        ] {
            o.remark(
                notes,
                Weight::NotNeeded,
                key,
                "the Docker Engine is not asked",
            );
        }
        let say = "containers are not chosen: write include and exclude";
        out.comments
            .extend(o.remark(notes, Weight::Decide, "filters", say));
        out.comments.extend(o.rest(notes));
    }
    let mut r = Map::default();
    r.set("include", vec!["/var/lib/docker/containers/*/*-json.log"]);
    r.set("start_at", "beginning")
        .set("include_file_path", true);
    r.set("include_file_name", false);
    let container = map([
        ("type", "container".into()),
        ("format", "docker".into()),
        ("add_metadata_from_filepath", false.into()),
        ("on_error", "send_quiet".into()),
    ]);
    let known = |label: &str| match label {
        "__meta_docker_container_log_stream" => Some("attributes[\"log.iostream\"]".to_owned()),
        _ => None,
    };
    let ops = operators(cx, &[], vec![container], &known, Vec::new(), out, notes);
    r.set("operators", ops);
    let name = out.name.clone();
    out.receivers.push((cx.id("file_log", &name), r));
}

/// `journal`.
pub fn journal(mut o: Options<'_>, cx: &mut Cx<'_, '_>, out: &mut Job, notes: &mut Notes) {
    let mut r = Map::default();
    r.set_some("directory", o.text("path").filter(|p| !p.is_empty()));
    r.set("start_at", "beginning");
    let constant = labels(&mut o);
    resource(&mut r, &constant);
    if let Some(matches) = o.text("matches").filter(|m| !m.trim().is_empty()) {
        let mut all = Map::default();
        let pairs: Vec<(&str, &str)> = matches
            .split(' ')
            .filter_map(|m| m.split_once('='))
            .collect();
        pairs.iter().for_each(|(field, value)| {
            all.set(field, *value);
        });
        r.set("matches", vec![all]);
    }
    let say =
        "entries are read from the beginning of the journal, or with start_at: end from now on";
    if let Some(comment) = o.remark(notes, Weight::Decide, "max_age", say) {
        r.comment(comment);
    }
    let json = o.flag("json").unwrap_or(false);
    for comment in o.rest(notes) {
        r.comment(comment);
    }
    let lookup = |label: &str| {
        let name = label.strip_prefix("__journal_")?;
        // Promtail makes the word for the priority itself.
        (name != "priority_keyword").then(|| expr::field("body", &name.to_ascii_uppercase()))
    };
    let line = match json {
        true => vec![
            map([
                ("type", "add".into()),
                ("field", "body".into()),
                ("value", expr::value("toJSON(body)").into()),
            ]),
            map([
                ("type", "regex_replace".into()),
                ("field", "body".into()),
                ("regex", expr::INDENTATION.into()),
            ]),
        ],
        false => vec![quiet("move", "body.MESSAGE", "body")],
    };
    let ops = operators(cx, &constant, Vec::new(), &lookup, line, out, notes);
    r.set("operators", ops);
    let name = out.name.clone();
    out.receivers.push((cx.id("journald", &name), r));
}

/// `syslog`.
pub fn syslog(mut o: Options<'_>, cx: &mut Cx<'_, '_>, out: &mut Job, notes: &mut Notes) {
    let mut r = Map::default();
    let udp = o.text("listen_protocol").as_deref() == Some("udp");
    let address = o.text("listen_address").unwrap_or_default();
    let mut place = map([("listen_address", with_environment(&address).0.into())]);
    place.set("add_attributes", true);
    if let Some(mut tls) = o.sub("tls_config") {
        let mut own = Map::default();
        for (from, to) in [
            ("cert_file", "cert_file"),
            ("key_file", "key_file"),
            ("ca_file", "client_ca_file"),
        ] {
            own.set_some(to, tls.text(from));
        }
        for comment in tls.rest(notes) {
            own.comment(comment);
        }
        place.set("tls", own);
    }
    o.remark(
        notes,
        Weight::NotNeeded,
        "max_message_length",
        "max_log_size is 1MiB",
    );
    let idle = o.text("idle_timeout");
    if !udp {
        place.set_some("connection_idle_timeout", idle.map(Value::Plain));
    }
    let format = o
        .text("syslog_format")
        .unwrap_or_else(|| "rfc5424".to_owned());
    r.set("protocol", format.as_str());
    r.set(if udp { "udp" } else { "tcp" }, place);
    let constant = labels(&mut o);
    resource(&mut r, &constant);
    let whole = o.flag("use_rfc5424_message").unwrap_or(false);
    let structured = o.flag("label_structured_data").unwrap_or(false);
    if structured {
        let say = "structured data are the attribute structured_data, by id and name: copy to the resource what is to be a label";
        r.comment(o.note(notes, Weight::Decide, "label_structured_data", say));
    }
    let says_severity = |rule: &relabel::Rule| {
        let mut sources = rule.sources.iter();
        sources.any(|s| s == "__syslog_message_severity")
    };
    if cx.rules.iter().any(says_severity) {
        let say = "severities are called emerg, alert, crit, err, warning, notice, info and debug; Promtail writes some of them out";
        r.comment(notes.add(Weight::Decide, &o.span, &o.path, say));
    }
    if o.flag("use_incoming_timestamp") != Some(true) {
        let say = "records have the time of the message; Promtail gives them that of their arrival unless use_incoming_timestamp is set";
        r.comment(notes.add(Weight::Decide, &o.span, &o.path, say));
    }
    for comment in o.rest(notes) {
        r.comment(comment);
    }
    let lookup = |label: &str| {
        let name = match label {
            "__syslog_connection_ip_address" => "net.peer.ip",
            "__syslog_message_hostname" => "hostname",
            "__syslog_message_app_name" => "appname",
            "__syslog_message_proc_id" => "proc_id",
            "__syslog_message_msg_id" => "msg_id",
            "__syslog_message_facility" => "facility_text",
            "__syslog_message_severity" => return Some("severity_text".to_owned()),
            _ => return None,
        };
        Some(expr::field("attributes", name))
    };
    let line = quiet("copy", "attributes.message", "body");
    let after = if whole { Vec::new() } else { vec![line] };
    let ops = operators(cx, &constant, Vec::new(), &lookup, after, out, notes);
    r.set("operators", ops);
    let name = out.name.clone();
    out.receivers.push((cx.id("syslog", &name), r));
}

/// `loki_push_api`. Receivers of pushes have no operators.
pub fn push_api(mut o: Options<'_>, cx: &mut Cx<'_, '_>, out: &mut Job, notes: &mut Notes) {
    let mut r = Map::default();
    let mut host = "0.0.0.0".to_owned();
    let mut port = "80".to_owned();
    if let Some(mut server) = o.sub("server") {
        host = server.text("http_listen_address").unwrap_or(host);
        port = server.text("http_listen_port").unwrap_or(port);
        let say = "only pushes over HTTP are taken";
        for key in ["grpc_listen_address", "grpc_listen_port"] {
            server.remark(notes, Weight::NotNeeded, key, say);
        }
        for comment in server.rest(notes) {
            r.comment(comment);
        }
    }
    let http = map([("endpoint", format!("{host}:{port}").into())]);
    r.set("protocols", map([("http", http.into())]));
    let keeps = o.flag("use_incoming_timestamp").unwrap_or(false);
    r.set("use_incoming_timestamp", keeps);
    let constant = labels(&mut o);
    let span = o.span.clone();
    for comment in o.rest(notes) {
        r.comment(comment);
    }
    let say = "labels of what is pushed are attributes of records: name those that are to be labels in labels::attributes of \
               the exporter";
    out.comments
        .push(notes.add(Weight::Decide, &span, &cx.path, say));
    if !constant.is_empty() {
        let actions = constant.iter().map(|(name, value)| {
            map([
                ("key", name.as_str().into()),
                ("value", value.as_str().into()),
                ("action", "upsert".into()),
            ])
        });
        let actions: Vec<Map> = actions.collect();
        out.processors
            .push(("resource", map([("attributes", actions.into())])));
        out.labels
            .extend(constant.into_iter().map(|(name, _)| name));
    }
    for rule in &cx.rules {
        let say = "a receiver of pushes has no operators: write it as a statement of transform";
        out.comments
            .push(notes.add(Weight::Decide, &rule.span, &rule.path, say));
    }
    for (i, stage) in cx.stages.iter().enumerate() {
        let path = format!("{}.pipeline_stages[{i}]", cx.path);
        let say = "a receiver of pushes has no operators: write it as a statement of transform or a condition of filter";
        out.comments
            .push(notes.add(Weight::Decide, &stage.span, &path, say));
    }
    let name = out.name.clone();
    out.receivers.push((cx.id("loki", &name), r));
}
