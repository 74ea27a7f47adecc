//! What is not about a job: `server`, `limits_config`, `target_config` and the like.

use crate::assembly::Assembly;
use crate::note::{Notes, Weight};
use crate::options::Options;
use crate::yaml::{Map, Value, map};

/// What jobs and clients take of it.
#[derive(Default)]
pub struct Global {
    /// Of `limits_config`, in bytes.
    pub line_bytes_max: Option<String>,
    /// Longer lines are cut.
    pub truncates: bool,
    /// Of `limits_config`.
    pub streams_max: Option<String>,
    /// Of `global::file_watch_config`.
    pub poll_interval: Option<String>,
}

/// Converts these sections.
pub fn apply(o: &mut Options<'_>, a: &mut Assembly, notes: &mut Notes) -> Global {
    let mut global = Global::default();
    if let Some(given) = o.sub("server") {
        server(given, a, notes);
    }
    if let Some(mut given) = o.sub("limits_config") {
        global.truncates = given.flag("max_line_size_truncate").unwrap_or(false);
        let size = given.text("max_line_size").filter(|s| s != "0");
        global.line_bytes_max = size.map(|s| s.to_ascii_lowercase());
        let streams = given.text("max_streams").filter(|s| s != "0");
        if streams.is_some() {
            let say =
                "beyond streams_max a label moves to structured metadata; lines are not dropped";
            a.tail
                .push(given.note(notes, Weight::Decide, "max_streams", say));
        }
        global.streams_max = streams;
        for key in [
            "readline_rate_enabled",
            "readline_rate",
            "readline_burst",
            "readline_rate_drop",
        ] {
            let say = "reading is not limited by rate; Loki's own limits hold it back, and nothing is dropped for it";
            a.tail
                .extend(given.remark(notes, Weight::NoEqual, key, say));
        }
        a.tail.extend(given.rest(notes));
    }
    if let Some(mut given) = o.sub("target_config") {
        let say = "files are noticed when they appear; rescan_interval of the receiver is for where that does not work";
        given.remark(notes, Weight::NotNeeded, "sync_period", say);
        given.remark(
            notes,
            Weight::NotNeeded,
            "stdin",
            "lines of a pipe: tailwater try --input -",
        );
        a.tail.extend(given.rest(notes));
    }
    if let Some(mut given) = o.sub("global") {
        if let Some(mut watch) = given.sub("file_watch_config") {
            global.poll_interval = watch.text("max_poll_frequency");
            let say = "files are polled only where notifications do not work, each poll_interval";
            watch.remark(notes, Weight::NotNeeded, "min_poll_frequency", say);
            a.tail.extend(watch.rest(notes));
        }
        a.tail.extend(given.rest(notes));
    }
    for (key, say) in [
        ("tracing", "the agent makes no traces of itself"),
        (
            "wal",
            "files are the buffer; for what is pushed there is sending_queue::storage of the exporter",
        ),
        ("options", "this section has no equal"),
    ] {
        a.tail.extend(o.remark(notes, Weight::NoEqual, key, say));
    }
    global
}

fn server(mut given: Options<'_>, a: &mut Assembly, notes: &mut Notes) {
    let disabled = given.flag("disable").unwrap_or(false);
    let host = given.text("http_listen_address").filter(|h| !h.is_empty());
    let port = given
        .text("http_listen_port")
        .unwrap_or_else(|| "80".to_owned());
    let telemetry = a.service.sub("telemetry");
    let mut metrics = Map::default();
    match disabled {
        true => metrics.set("level", "none"),
        false => {
            let say = "/metrics is served at this address; /ready is the extension health_check, at an address of its own";
            metrics.comment(given.note(notes, Weight::Decide, "http_listen_port", say));
            let host = host.unwrap_or_else(|| "0.0.0.0".to_owned());
            let at = map([("host", host.into()), ("port", Value::Plain(port))]);
            let exporter = map([("prometheus", at.into())]);
            let reader = map([("pull", map([("exporter", exporter.into())]).into())]);
            metrics.set("readers", vec![reader])
        }
    };
    telemetry.set("metrics", metrics);
    let mut logs = Map::default();
    logs.set_some("level", given.text("log_level"));
    if let Some(format) = given.text("log_format") {
        let encoding = match format.as_str() {
            "json" => "json",
            _ => "console",
        };
        logs.set("encoding", encoding);
    }
    if !logs.is_empty() {
        telemetry.set("logs", logs);
    }
    if let Some(time) = given.text("graceful_shutdown_timeout") {
        a.service.set("shutdown_timeout", Value::Plain(time));
    }
    for key in ["grpc_listen_port", "grpc_listen_address"] {
        let say = "there is nothing to listen for";
        given.remark(notes, Weight::NotNeeded, key, say);
    }
    let comments = given.rest(notes);
    for comment in comments {
        a.service.comment(comment);
    }
}
