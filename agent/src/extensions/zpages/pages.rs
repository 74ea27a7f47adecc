//! The pages, as HTML without scripts, styles or links to elsewhere.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::Value;
use tailwater_config::{Node, NodeValue};

use crate::admin::graph::{Seen, graph};

/// The page at `path`; `None` if there is none. `since` is when the agent began to serve them.
pub fn page(path: &str, since: SystemTime, seen: impl FnOnce() -> Seen) -> Option<String> {
    let (title, body) = match path.trim_end_matches('/') {
        "/debug/servicez" => ("Service", service(since, &seen())),
        "/debug/pipelinez" => ("Pipelines", pipelines(&seen())),
        "/debug/extensionz" => ("Extensions", extensions(&seen())),
        "/debug/featurez" => (
            "Feature gates",
            "<p>This build has no feature gates.</p>\n".to_owned(),
        ),
        "/debug/tracez" => (
            "Traces",
            "<p>This agent records no spans of itself, so there is nothing to sort by latency. What \
             passes through it is shown by <code>tailwater tap</code>, what it does by its metrics.</p>\n"
                .to_owned(),
        ),
        _ => return None,
    };
    Some(format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n<p><a href=\"/debug/servicez\">service</a> <a href=\"/debug/pipelinez\">pipelines</a> \
         <a href=\"/debug/extensionz\">extensions</a> <a href=\"/debug/featurez\">feature gates</a> \
         <a href=\"/debug/tracez\">traces</a></p>\n{body}</body></html>\n"
    ))
}

/// Text as it may stand in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = "<table border=\"1\">\n<tr>".to_owned();
    for name in head {
        // Writing to a string does not fail.
        let _ = write!(out, "<th>{}</th>", escaped(name));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escaped(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
    out
}

fn service(since: SystemTime, seen: &Seen) -> String {
    let began: jiff::Timestamp = since.try_into().unwrap_or_default();
    let up = since.elapsed().unwrap_or_default();
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let build = table(
        &["Build", ""],
        [
            row("Command", "tailwater".to_owned()),
            row("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ],
    );
    let runtime = table(
        &["Runtime", ""],
        [
            row("These pages since", began.to_string()),
            row("For", format!("{} s", up.as_secs())),
            row("OS", std::env::consts::OS.to_owned()),
            row("Architecture", std::env::consts::ARCH.to_owned()),
            row("Process", std::process::id().to_string()),
            row("Generation", seen.in_force.generation.to_string()),
            row(
                "Healthy",
                match seen.health.running && seen.health.ready {
                    true => "yes".to_owned(),
                    false => "no".to_owned(),
                },
            ),
        ],
    );
    let resource = seen.in_force.resource.iter();
    let resource = table(
        &["Resource", ""],
        resource.map(|(name, value)| vec![name.clone(), value.clone()]),
    );
    format!("{build}{runtime}{resource}")
}

/// The names in a list of `service` of the configuration in force.
fn names(node: Option<&Node>) -> Vec<String> {
    let items: &[Node] = match node.map(|n| &n.value) {
        Some(NodeValue::List(items)) => items,
        _ => &[],
    };
    let names = items.iter().filter_map(|n| n.as_text());
    names.map(str::to_owned).collect()
}

fn pipelines(seen: &Seen) -> String {
    let service = seen.in_force.config.get("service");
    let pipelines = service.and_then(|s| s.get("pipelines"));
    let entries: &[_] = match pipelines.map(|p| &p.value) {
        Some(NodeValue::Map(entries)) => entries,
        _ => &[],
    };
    let of = |node: &Node, kind: &str| names(node.get(kind)).join(", ");
    let rows = entries.iter().map(|(key, node)| {
        let signal = key.text.split('/').next().unwrap_or_default();
        vec![
            key.text.clone(),
            signal.to_owned(),
            of(node, "receivers"),
            of(node, "processors"),
            of(node, "exporters"),
        ]
    });
    let head = ["Pipeline", "Signal", "Receivers", "Processors", "Exporters"];
    let all = table(&head, rows);
    let nodes = graph(seen);
    let nodes = nodes["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let rows = nodes.iter().filter(|n| n["kind"] != "pipeline").map(|n| {
        let numbers = n["numbers"].as_object().into_iter().flatten();
        let numbers: Vec<String> = numbers.map(|(k, v)| format!("{k} {v}")).collect();
        let reasons = n["reasons"].as_array().into_iter().flatten().map(text);
        let reasons: Vec<String> = reasons.collect();
        vec![
            text(&n["key"]),
            text(&n["state"]),
            reasons.join("; "),
            numbers.join(", "),
        ]
    });
    let nodes = table(&["Component", "State", "Reasons", "Counted"], rows);
    format!("{all}<h2>Components</h2>\n{nodes}")
}

fn extensions(seen: &Seen) -> String {
    let service = seen.in_force.config.get("service");
    let all = names(service.and_then(|s| s.get("extensions")));
    table(&["Extension"], all.into_iter().map(|name| vec![name]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use tailwater_pipeline::plan::{GraphSpec, NodeKey, NodeSpec};
    use tailwater_telemetry::health::HealthRegistry;

    use crate::admin::shown::InForce;

    fn seen() -> Seen {
        let yaml = "service: {extensions: [zpages, 'headers_setter/<a>'], pipelines: {logs/x: {receivers: [nop], exporters: [debug]}}}";
        let exporter = NodeKey::Exporter {
            id: "debug".to_owned(),
            signal: "logs".to_owned(),
        };
        let mut graph = GraphSpec::default();
        graph.nodes.insert(exporter, NodeSpec::default());
        Seen {
            in_force: Arc::new(InForce {
                generation: 7,
                config: tailwater_config::parse(yaml, "f").unwrap(),
                graph,
                layer: None,
                resource: vec![("service.name".to_owned(), "a&b".to_owned())],
                generations: Vec::new(),
                readers: Vec::new(),
            }),
            not_started: Arc::default(),
            health: HealthRegistry::new().report(0),
            samples: Vec::new(),
        }
    }

    /// Guarantee: each page shows what is in force, with names as text, and no other path is a page.
    #[test]
    fn pages_show_what_is_in_force() {
        for (path, expect) in [
            ("/debug/servicez", "<td>7</td>"),
            ("/debug/servicez/", "<td>a&amp;b</td>"),
            (
                "/debug/pipelinez",
                "<td>logs/x</td><td>logs</td><td>nop</td><td></td><td>debug</td>",
            ),
            (
                "/debug/pipelinez",
                "<td>exporter debug (logs)</td><td>running</td>",
            ),
            ("/debug/extensionz", "<td>headers_setter/&lt;a&gt;</td>"),
            ("/debug/featurez", "no feature gates"),
            ("/debug/tracez", "records no spans"),
        ] {
            let page = page(path, SystemTime::now(), seen).unwrap();
            assert!(page.contains(expect), "{path}: {page}");
        }
        for path in ["/", "/debug", "/debug/expvarz", "/debug/rpcz"] {
            assert!(page(path, SystemTime::now(), seen).is_none(), "{path}");
        }
    }
}
