//! What is shown, made of two looks: rates are differences between them.

use serde_json::Value;

use super::super::admin::{items, lines, text};
use super::super::files::{printable, reader, where_it_is};
use super::look::Look;

/// How something is, in the order of how bad that is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mark {
    /// As it should be.
    Good,
    /// It waits for something.
    Waiting,
    /// It does what it should, but not all of it, or late.
    Trouble,
    /// It does not run.
    Down,
}

/// A node of the graph.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeRow {
    /// Its name.
    pub key: String,
    /// How it is.
    pub mark: Mark,
    /// The same in words.
    pub state: String,
    /// What health says of it.
    pub reasons: Vec<String>,
    /// Items per second that come in; none if they are not counted, or not known yet.
    pub rate_in: Option<f64>,
    /// Items per second that go out.
    pub rate_out: Option<f64>,
    /// Requests in its queue, and how many fit.
    pub queue: Option<(u64, u64)>,
    /// Items under way.
    pub in_flight: Option<u64>,
    /// Bytes that are not delivered.
    pub lag_bytes: Option<u64>,
    /// How long the oldest of them have been there, or how long nothing was accepted, in seconds.
    pub lag_seconds: Option<f64>,
    /// Items that were refused or failed.
    pub errors: Option<u64>,
    /// The same per second.
    pub error_rate: Option<f64>,
}

/// A file.
#[derive(Clone, PartialEq, Debug)]
pub struct FileRow {
    /// Where it is.
    pub path: String,
    /// Who reads it.
    pub reader: String,
    /// What is done with it.
    pub state: String,
    /// How it is.
    pub mark: Mark,
    /// Bytes on the disk.
    pub size: u64,
    /// Bytes that are not delivered.
    pub lag_bytes: u64,
    /// How long the oldest of them have been there, in seconds, if that is known.
    pub lag_seconds: Option<f64>,
}

/// Everything.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// Whether the agent is ready.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// Since when it runs, in seconds.
    pub uptime_seconds: u64,
    /// The configuration in force: its number, since when, by whom.
    pub generation: (u64, String, String),
    /// Nodes in the order in which data goes through them.
    pub nodes: Vec<NodeRow>,
    /// Those files that are furthest behind.
    pub files: Vec<FileRow>,
}

impl View {
    /// What `now` shows, with the rates since `before`.
    pub fn new(before: Option<&Look>, now: &Look) -> View {
        let newest = &now.newest;
        let words = |key: &str| printable(text(newest, key));
        View {
            ready: now.health["ready"] == true,
            reasons: lines(&now.health, "reasons").map(printable).collect(),
            uptime_seconds: now.health["uptime_seconds"].as_u64().unwrap_or_default(),
            generation: (
                now.graph["generation"].as_u64().unwrap_or_default(),
                words("when"),
                words("by"),
            ),
            nodes: nodes(before, now),
            files: items(&now.files, "files").iter().map(file).collect(),
        }
    }

    /// Items per second that receivers take in.
    pub fn rate_in(&self) -> Option<f64> {
        self.sum("receiver ", |n| n.rate_out)
    }

    /// Items per second that exporters have delivered.
    pub fn rate_out(&self) -> Option<f64> {
        self.sum("exporter ", |n| n.rate_out)
    }

    fn sum(&self, kind: &str, rate: impl Fn(&NodeRow) -> Option<f64>) -> Option<f64> {
        let nodes = self.nodes.iter().filter(|n| n.key.starts_with(kind));
        nodes.filter_map(rate).reduce(|a, b| a + b)
    }
}

/// Each pipeline with what is before it and behind it, then what is in none.
fn nodes(before: Option<&Look>, now: &Look) -> Vec<NodeRow> {
    let all = items(&now.graph, "nodes");
    let edges = items(&now.graph, "edges");
    let key = |n: &Value| text(n, "key").to_owned();
    let mut order: Vec<String> = Vec::new();
    let pipelines = all.iter().filter(|n| n["kind"] == "pipeline").map(key);
    let mut pipelines: Vec<String> = pipelines.collect();
    // What stands behind connectors comes with what leads there.
    pipelines.sort_by_key(|pipeline| {
        let mut into = edges.iter().filter(|e| text(e, "to") == pipeline);
        !into.any(|e| text(e, "from").starts_with("receiver "))
    });
    for pipeline in pipelines {
        let into = edges.iter().filter(|e| text(e, "to") == pipeline);
        let sources = into.map(|e| text(e, "from").to_owned());
        let mut wanted: Vec<String> = sources.chain([pipeline.clone()]).collect();
        let mut at = wanted.len() - 1;
        while at < wanted.len() {
            let from = wanted[at].clone();
            for edge in edges.iter().filter(|e| text(e, "from") == from) {
                let to = text(edge, "to").to_owned();
                if !wanted.contains(&to) {
                    wanted.push(to);
                }
            }
            at += 1;
        }
        for key in wanted {
            if !order.contains(&key) {
                order.push(key);
            }
        }
    }
    order.extend(all.iter().map(key));
    let mut rows: Vec<NodeRow> = Vec::new();
    for key in order {
        let found = all.iter().find(|n| text(n, "key") == key);
        if let Some(found) = found
            && !rows.iter().any(|r| r.key == printable(&key))
        {
            rows.push(node(before, now, found));
        }
    }
    rows
}

fn node(before: Option<&Look>, now: &Look, node: &Value) -> NodeRow {
    let key = text(node, "key");
    let number = |name: &str| node["numbers"][name].as_f64();
    let whole = |name: &str| node["numbers"][name].as_f64().map(|n| n as u64);
    let earlier = before.and_then(|look| {
        let nodes = items(&look.graph, "nodes");
        let known = nodes.iter().find(|n| text(n, "key") == key)?;
        let seconds = now.at.saturating_duration_since(look.at).as_secs_f64();
        (seconds > 0.0).then_some((known, seconds))
    });
    let rate = |names: &[&str]| {
        let (known, seconds) = earlier?;
        let sum = |n: &Value| {
            let each = names.iter().filter_map(|name| n["numbers"][*name].as_f64());
            each.reduce(|a, b| a + b)
        };
        let more = sum(node)? - sum(known)?;
        // Less than before: it counts anew.
        (more >= 0.0).then_some(more / seconds)
    };
    let errors = [number("refused"), number("failed")];
    let state = text(node, "state");
    NodeRow {
        key: printable(key),
        mark: match state {
            "running" => Mark::Good,
            "in trouble" => Mark::Trouble,
            "not started" => Mark::Down,
            _ => Mark::Waiting,
        },
        state: state.to_owned(),
        reasons: lines(node, "reasons").map(printable).collect(),
        rate_in: rate(&["items_in"]),
        rate_out: rate(&["items_out"]),
        queue: whole("queue_size").zip(whole("queue_capacity")),
        in_flight: whole("in_flight"),
        lag_bytes: whole("lag_bytes"),
        lag_seconds: number("lag_seconds").or(number("stalled_seconds")),
        errors: errors
            .into_iter()
            .flatten()
            .reduce(|a, b| a + b)
            .map(|n| n as u64),
        error_rate: rate(&["refused", "failed"]),
    }
}

fn file(file: &Value) -> FileRow {
    let state = text(file, "state");
    FileRow {
        path: where_it_is(file),
        reader: printable(&reader(file)),
        state: state.to_owned(),
        mark: match state {
            "deleted" | "looked for in copies" => Mark::Trouble,
            "waiting for the one before it" => Mark::Waiting,
            _ => Mark::Good,
        },
        size: file["size"].as_u64().unwrap_or_default(),
        lag_bytes: file["lag_bytes"].as_u64().unwrap_or_default(),
        lag_seconds: file["lag_seconds"].as_f64(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    /// An agent that has sent `sent` records `at` so many seconds.
    pub fn look_at(start: Instant, at: u64, sent: u64) -> Look {
        let node = |kind: &str, key: &str, state: &str, numbers: Value| {
            let reasons = match state {
                "in trouble" => json!(["exporter \"loki\": nothing accepted for 40 s"]),
                _ => json!([]),
            };
            json!({"kind": kind, "key": key, "state": state, "reasons": reasons, "numbers": numbers})
        };
        Look {
            at: start + Duration::from_secs(at),
            health: json!({"ready": false, "uptime_seconds": 3_725,
                           "reasons": ["exporter \"loki\": nothing accepted for 40 s"]}),
            graph: json!({
                "generation": 3,
                "nodes": [
                    node("extension", "extension health_check", "running", json!({})),
                    node("exporter", "exporter loki (logs)", "in trouble",
                         json!({"items_in": sent + 500, "items_out": sent, "failed": 2, "refused": 0,
                                "queue_size": 90, "queue_capacity": 1000, "in_flight": 500,
                                "stalled_seconds": 40.0})),
                    node("pipeline", "pipeline logs", "running", json!({})),
                    node("processor", "processor batch in logs", "running",
                         json!({"items_in": sent + 600, "items_out": sent + 500})),
                    node("receiver", "receiver file_log (logs)", "running",
                         json!({"items_out": sent + 600, "lag_bytes": 5_000_000, "lag_seconds": 41.5,
                                "in_flight": 600, "refused": 0, "failed": 0})),
                    node("receiver", "receiver otlp (logs)", "not started", json!({})),
                ],
                "edges": [
                    {"from": "pipeline logs", "to": "processor batch in logs"},
                    {"from": "processor batch in logs", "to": "exporter loki (logs)"},
                    {"from": "receiver file_log (logs)", "to": "pipeline logs"},
                    {"from": "receiver otlp (logs)", "to": "pipeline logs"},
                ],
            }),
            newest: json!({"number": 3, "when": "2026-01-02T03:04:05Z", "by": "SIGHUP"}),
            files: json!({"files": [
                {"receiver": "file_log", "path": "/var/log/pods/shop_cart-7d9/cart/0.log", "size": 9_000_000,
                 "lag_bytes": 4_500_000, "lag_seconds": 41.5, "state": "open"},
                {"receiver": "file_log", "path": "/var/log/app.log", "place": "/var/log/app.log.1",
                 "size": 500_000, "lag_bytes": 499_000, "state": "deleted"},
            ]}),
        }
    }

    /// Guarantee: nodes stand in the order in which data goes through them, each once.
    #[test]
    fn nodes_stand_in_the_order_of_data() {
        let view = View::new(None, &look_at(Instant::now(), 0, 0));
        let keys: Vec<&str> = view.nodes.iter().map(|n| n.key.as_str()).collect();
        let want = [
            "receiver file_log (logs)",
            "receiver otlp (logs)",
            "pipeline logs",
            "processor batch in logs",
            "exporter loki (logs)",
            "extension health_check",
        ];
        assert_eq!(keys, want);
    }

    /// Guarantee: what stands behind a connector comes after what leads there, whatever it is called.
    #[test]
    fn what_is_behind_a_connector_comes_later() {
        let keys = [
            ("exporter", "exporter loki (logs)"),
            ("connector", "connector forward (logs)"),
            ("pipeline", "pipeline logs/a"),
            ("pipeline", "pipeline logs/z"),
            ("receiver", "receiver otlp (logs)"),
        ];
        let node = |(kind, key): &(&str, &str)| json!({"kind": kind, "key": key, "state": "running", "reasons": [], "numbers": {}});
        let order = [4, 3, 1, 2, 0].map(|i: usize| keys[i].1);
        let edge = |pair: &[&str]| json!({"from": pair[0], "to": pair[1]});
        let mut look = look_at(Instant::now(), 0, 0);
        look.graph = json!({
            "generation": 1,
            "nodes": keys.iter().map(node).collect::<Vec<_>>(),
            "edges": order.windows(2).map(edge).collect::<Vec<_>>(),
        });
        let view = View::new(None, &look);
        let shown: Vec<&str> = view.nodes.iter().map(|n| n.key.as_str()).collect();
        assert_eq!(shown, order);
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let start = Instant::now();
        let (first, second) = (look_at(start, 0, 100), look_at(start, 4, 300));
        let view = View::new(Some(&first), &second);
        let of = |view: &View, key: &str| {
            view.nodes
                .iter()
                .find(|n| n.key.contains(key))
                .unwrap()
                .clone()
        };
        let loki = of(&view, "loki");
        assert_eq!((loki.rate_in, loki.rate_out), (Some(50.0), Some(50.0)));
        assert_eq!((loki.errors, loki.error_rate), (Some(2), Some(0.0)));
        assert_eq!((loki.queue, loki.mark), (Some((90, 1000)), Mark::Trouble));
        assert_eq!(loki.lag_seconds, Some(40.0));
        assert_eq!(of(&view, "otlp").rate_out, None, "it is not counted");
        assert_eq!((view.rate_in(), view.rate_out()), (Some(50.0), Some(50.0)));
        // A restart: it counts anew.
        assert_eq!(
            View::new(Some(&second), &look_at(start, 8, 0)).rate_out(),
            None
        );
        assert_eq!(View::new(None, &second).rate_out(), None, "not known yet");
        assert_eq!(
            View::new(Some(&second), &second).rate_out(),
            None,
            "no time passed"
        );
    }
}
