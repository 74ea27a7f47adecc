//! `[OUTPUT]`.

use super::chain::accessor;
use super::source::Properties;
use crate::note::{Notes, Weight};
use crate::yaml::{Map, Value, map, with_environment};

/// What an output makes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// The record as JSON.
    Json,
    /// The same, but of a record with one field only that field.
    JsonOrSingle,
    /// Fields stay fields, and `log` is the body.
    Fields,
}

/// An output.
pub struct Output {
    /// The type of the exporter.
    pub kind: &'static str,
    /// Its options.
    pub exporter: Map,
    /// What it makes of a record.
    pub line: Line,
}

/// Options that are about threads and connections of Fluent Bit.
const NOT_NEEDED: [(&str, &str); 14] = [
    (
        "workers",
        "requests are sent side by side, num_consumers at a time",
    ),
    ("alias", "components are called by their ids"),
    ("log_level", "the agent has one level of logging"),
    ("net.keepalive", "connections are kept"),
    ("net.keepalive_idle_timeout", "idle_conn_timeout is 90s"),
    ("net.keepalive_max_recycle", "connections are kept"),
    ("net.connect_timeout", "connect_timeout is 10s"),
    ("net.connect_timeout_log_error", "errors are logged"),
    (
        "net.max_worker_connections",
        "max_conns_per_host has no limit",
    ),
    ("net.dns.mode", "names are looked up as the system does it"),
    (
        "net.dns.resolver",
        "names are looked up as the system does it",
    ),
    ("storage.total_limit_size", "files are the buffer"),
    ("log_response_payload", "answers that are errors are logged"),
    ("tls.debug", "errors are logged"),
];

/// Converts an output; an error is the comment that says why it has none.
pub fn output(mut p: Properties<'_>, notes: &mut Notes) -> Result<Output, String> {
    let name = p.text("name").unwrap_or_default().to_ascii_lowercase();
    for key in ["match", "match_regex"] {
        p.all(key);
    }
    for (option, say) in NOT_NEEDED {
        p.remark(notes, Weight::NotNeeded, option, say);
    }
    let limit = p
        .text("retry_limit")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut comments = Vec::new();
    match limit.as_str() {
        "" | "false" | "no_limits" => {}
        _ => {
            let say = "a request is tried until it is delivered; retry_on_failure::max_elapsed_time gives it up after a time";
            comments.extend(p.remark(notes, Weight::Decide, "retry_limit", say));
        }
    }
    let mut out = match name.as_str() {
        "loki" => loki(p, notes),
        "opentelemetry" => opentelemetry(p, notes),
        "stdout" => stdout(p, notes),
        "file" => file(p, notes),
        "null" => finished("nop", Map::default(), Line::Fields, p, notes),
        other => {
            let say = match other {
                "es" | "opensearch" => {
                    "nothing here sends to Elasticsearch or OpenSearch: keep an OpenTelemetry Collector between"
                }
                "http" => {
                    "nothing here sends records in forms of its own over HTTP: OTLP is sent by otlp_http"
                }
                "forward" => "the forward protocol is not spoken here: use OTLP",
                _ => "there is no such output here",
            };
            return Err(p.note(notes, Weight::NoEqual, say));
        }
    };
    comments.into_iter().for_each(|c| {
        out.exporter.comment(c);
    });
    Ok(out)
}

fn finished(
    kind: &'static str,
    mut exporter: Map,
    line: Line,
    p: Properties<'_>,
    notes: &mut Notes,
) -> Output {
    for comment in p.rest(notes) {
        exporter.comment(comment);
    }
    Output {
        kind,
        exporter,
        line,
    }
}

/// `http` or `https`, and the options of TLS.
fn tls(p: &mut Properties<'_>, out: &mut Map) -> &'static str {
    let mut own = Map::default();
    if p.flag("tls.verify") == Some(false) {
        own.set("insecure_skip_verify", true);
    }
    for (from, to) in [
        ("tls.ca_file", "ca_file"),
        ("tls.crt_file", "cert_file"),
        ("tls.key_file", "key_file"),
        ("tls.vhost", "server_name_override"),
    ] {
        own.set_some(to, p.text(from).map(|v| with_environment(&v).0));
    }
    match p.flag("tls") {
        Some(true) => {
            if !own.is_empty() {
                out.set("tls", own);
            }
            "https"
        }
        _ => "http",
    }
}

fn credentials(p: &mut Properties<'_>, out: &mut Map) {
    let (user, password) = (p.text("http_user"), p.text("http_passwd"));
    if let Some(user) = user {
        let basic = map([
            ("username", with_environment(&user).0.into()),
            (
                "password",
                with_environment(&password.unwrap_or_default()).0.into(),
            ),
        ]);
        out.set("basic_auth", basic);
    }
    let token = p.text("bearer_token");
    out.set_some("bearer_token", token.map(|t| with_environment(&t).0));
    let mut headers = Map::default();
    for header in p.all("header") {
        let (name, value) = header
            .value
            .split_once(char::is_whitespace)
            .unwrap_or((&header.value, ""));
        headers.set(name, with_environment(value.trim()).0);
    }
    if !headers.is_empty() {
        out.set("headers", headers);
    }
    out.set_some("proxy_url", p.text("proxy").map(|v| with_environment(&v).0));
}

/// `host:port` with variables of the environment.
fn place(p: &mut Properties<'_>, port: &str) -> String {
    let host = p.text("host").unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = p.text("port").unwrap_or_else(|| port.to_owned());
    with_environment(&format!("{host}:{port}")).0
}

/// The attribute that an accessor names, if it is one of the record itself.
fn attribute(text: &str) -> Option<String> {
    let field = accessor(text);
    let name = field.strip_prefix("attributes.")?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    plain.then(|| name.to_owned())
}

/// What the filter `kubernetes` calls what `k8s_attributes` and the paths of logs say.
const KUBERNETES: [(&str, &str); 5] = [
    ("namespace_name", "k8s.namespace.name"),
    ("pod_name", "k8s.pod.name"),
    ("pod_id", "k8s.pod.uid"),
    ("container_name", "k8s.container.name"),
    ("host", "k8s.node.name"),
];

/// Labels, by where their values come from.
#[derive(Default)]
struct Labels {
    fixed: Map,
    attributes: Map,
    resource: Map,
}

impl Labels {
    /// Adds a label; an error says why it cannot be.
    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let mut bytes = name.bytes();
        let first = bytes.next();
        let valid = first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid && !name.contains('[') {
            return Err(format!("{name:?} is no name of a label; it was left out"));
        }
        if !value.starts_with('$') || value.starts_with("${") {
            self.fixed.set(name, with_environment(value).0);
            return Ok(());
        }
        if let Some(attribute) = attribute(value) {
            self.attributes.set(name, attribute);
            return Ok(());
        }
        let field = accessor(value);
        let known = KUBERNETES
            .iter()
            .find(|(theirs, _)| field == format!("attributes.kubernetes.{theirs}"));
        match known {
            Some((theirs, ours)) => {
                // Without a name of its own a label is called by the last part of its value.
                let name = if valid { name } else { theirs };
                self.resource.set(name, *ours);
                Ok(())
            }
            None => Err(format!(
                "the label {name} is {value}, a field of a field: flatten it, and name it in labels::attributes; what \
                 k8s_attributes sets is named in labels::resource"
            )),
        }
    }

    fn set(self, out: &mut Map) {
        for (name, map) in [
            ("static", self.fixed),
            ("resource", self.resource),
            ("attributes", self.attributes),
        ] {
            if !map.is_empty() {
                out.sub("labels").set(name, map);
            }
        }
    }
}

fn loki(mut p: Properties<'_>, notes: &mut Notes) -> Output {
    let mut out = Map::default();
    let scheme = tls(&mut p, &mut out);
    let at = place(&mut p, "3100");
    let uri = p
        .text("uri")
        .unwrap_or_else(|| "/loki/api/v1/push".to_owned());
    out.set("endpoint", format!("{scheme}://{at}{uri}"));
    out.set_some(
        "tenant_id",
        p.text("tenant_id").map(|t| with_environment(&t).0),
    );
    credentials(&mut p, &mut out);
    let mut labels = Labels::default();
    let mut given = p.list("labels");
    if given.is_empty() {
        given.push("job=fluent-bit".to_owned());
    }
    given.extend(p.list("label_keys"));
    for one in given {
        let (name, value) = one
            .split_once('=')
            .unwrap_or((one.trim_start_matches('$'), &one));
        if let Err(say) = labels.add(name.trim(), value.trim()) {
            out.comment(p.note(notes, Weight::Decide, say));
        }
    }
    labels.set(&mut out);
    if let Some(name) = p.text("tenant_id_key").and_then(|k| attribute(&k)) {
        let tenant = map([("from_attribute", name.into()), ("allow", vec!["*"].into())]);
        out.set("tenant", tenant);
    }
    let metadata = p.list("structured_metadata");
    let names: Vec<String> = metadata
        .iter()
        .filter_map(|one| {
            attribute(
                one.split_once('=')
                    .map_or(one.as_str(), |(_, value)| value.trim()),
            )
        })
        .collect();
    match names.is_empty() {
        true => out.set("structured_metadata", false),
        false => out.set(
            "structured_metadata",
            map([("enabled", true.into()), ("include", names.into())]),
        ),
    };
    let single = p
        .text("drop_single_key")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let line = match single.as_str() {
        "on" | "true" | "yes" | "raw" => Line::JsonOrSingle,
        _ => Line::Json,
    };
    let format = p.text("line_format").unwrap_or_default();
    if format.eq_ignore_ascii_case("key_value") {
        out.comment(p.note(
            notes,
            Weight::Decide,
            "line_format key_value: lines are JSON; line_format: logfmt of the exporter is nearest",
        ));
    }
    for (option, weight, say) in [
        (
            "remove_keys",
            Weight::Decide,
            "remove the fields by operators",
        ),
        (
            "label_map_path",
            Weight::Decide,
            "name the labels of the file in labels::attributes",
        ),
        (
            "structured_metadata_map_keys",
            Weight::Decide,
            "name the fields in structured_metadata",
        ),
        (
            "auto_kubernetes_labels",
            Weight::Decide,
            "name what k8s_attributes sets in labels::resource",
        ),
        (
            "compress",
            Weight::NotNeeded,
            "requests are compressed with snappy",
        ),
        (
            "buffer_size",
            Weight::NotNeeded,
            "buffers are sized by themselves",
        ),
    ] {
        if let Some(comment) = p.remark(notes, weight, option, say) {
            out.comment(comment);
        }
    }
    finished("loki", out, line, p, notes)
}

fn opentelemetry(mut p: Properties<'_>, notes: &mut Notes) -> Output {
    let mut out = Map::default();
    let scheme = tls(&mut p, &mut out);
    let at = place(&mut p, "80");
    let grpc = p.flag("grpc") == Some(true);
    match grpc {
        true => {
            out.set("endpoint", at);
            if scheme == "http" {
                out.sub("tls").set("insecure", true);
            }
        }
        false => {
            out.set("endpoint", format!("{scheme}://{at}"));
            for (option, key, default) in [
                ("logs_uri", "logs_endpoint", "/v1/logs"),
                ("metrics_uri", "metrics_endpoint", "/v1/metrics"),
                ("traces_uri", "traces_endpoint", "/v1/traces"),
            ] {
                if let Some(uri) = p.text(option).filter(|u| u != default) {
                    let base = format!("{scheme}://{}", place(&mut p, "80"));
                    out.set(key, format!("{base}{uri}"));
                }
            }
        }
    }
    credentials(&mut p, &mut out);
    out.set(
        "compression",
        p.text("compress").unwrap_or_else(|| "none".to_owned()),
    );
    for option in [
        "logs_body_key",
        "logs_body_key_attributes",
        "add_label",
        "batch_size",
        "http2",
    ] {
        let say = match option {
            "batch_size" => "set sending_queue::batch",
            "http2" => "HTTP/2 is used where TLS agrees on it",
            "add_label" => "set it by the processor resource",
            _ => "the field log is the body, or else message; all others are attributes",
        };
        if let Some(comment) = p.remark(notes, Weight::Decide, option, say) {
            out.comment(comment);
        }
    }
    let kind = if grpc { "otlp_grpc" } else { "otlp_http" };
    finished(kind, out, Line::Fields, p, notes)
}

fn stdout(mut p: Properties<'_>, notes: &mut Notes) -> Output {
    let out = map([
        ("verbosity", "normal".into()),
        ("use_internal_logger", false.into()),
        ("sampling_initial", Value::Plain("1000000".to_owned())),
    ]);
    for option in ["format", "json_date_key", "json_date_format"] {
        p.remark(
            notes,
            Weight::NotNeeded,
            option,
            "records are shown as the exporter debug shows them",
        );
    }
    finished("debug", out, Line::Fields, p, notes)
}

fn file(mut p: Properties<'_>, notes: &mut Notes) -> Output {
    let dir = p.text("path").unwrap_or_else(|| ".".to_owned());
    let name = p.text("file").unwrap_or_else(|| "records".to_owned());
    let mut out = Map::default();
    let path = format!("{}/{name}", dir.trim_end_matches('/'));
    out.set("path", with_environment(&path).0)
        .set("append", true);
    if p.flag("mkdir") == Some(true) {
        out.set("create_directory", true);
    }
    let say = "records are written as OTLP in JSON";
    out.comment(p.note(notes, Weight::Decide, say));
    for option in ["format", "template", "delimiter", "label_delimiter"] {
        p.all(option);
    }
    finished("file", out, Line::Fields, p, notes)
}
