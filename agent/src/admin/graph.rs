//! The nodes that run, how they are connected, and what is counted of each.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tailwater_pipeline::plan::NodeKey;
use tailwater_telemetry::health::HealthReport;
use tailwater_telemetry::metrics::Sample;

use super::shown::{InForce, NotStarted};

/// Everything [`graph`] is made of.
pub struct Seen {
    /// What is in force.
    pub in_force: Arc<InForce>,
    /// What does not run.
    pub not_started: Arc<NotStarted>,
    /// Health.
    pub health: HealthReport,
    /// Numbers.
    pub samples: Vec<Sample>,
}

/// The graph as JSON.
pub fn graph(seen: &Seen) -> Value {
    let nodes = &seen.in_force.graph.nodes;
    let mut edges = Vec::new();
    for (from, spec) in nodes {
        for to in &spec.outputs {
            edges.push(json!({"from": from.to_string(), "to": to.to_string()}));
        }
    }
    json!({
        "generation": seen.in_force.generation,
        "nodes": nodes.keys().map(|key| node(key, seen)).collect::<Vec<_>>(),
        "edges": edges,
    })
}

fn node(key: &NodeKey, seen: &Seen) -> Value {
    let (kind, id, signal, pipeline) = parts(key);
    let ends = matches!(key, NodeKey::Exporter { .. } | NodeKey::Receiver { .. });
    let waiting = seen.not_started.iter().find(|(w, _)| ends && w == id);
    let reasons = reasons(kind, id, &seen.health);
    let state = match waiting {
        Some((_, Some(_))) => "not started",
        Some((_, None)) => "waiting for the one before it",
        None if !reasons.is_empty() => "in trouble",
        None => "running",
    };
    let why = waiting.and_then(|(_, why)| why.clone());
    let mut value = json!({
        "key": key.to_string(),
        "kind": kind,
        "id": id,
        "state": state,
        "reasons": why.into_iter().chain(reasons).collect::<Vec<_>>(),
        "numbers": numbers(key, seen),
    });
    if !signal.is_empty() {
        value["signal"] = signal.into();
    }
    if let Some(pipeline) = pipeline {
        value["pipeline"] = pipeline.into();
    }
    value
}

/// Kind, id, signal, pipeline.
fn parts(key: &NodeKey) -> (&'static str, &str, &str, Option<&str>) {
    fn signal_of(pipeline: &str) -> &str {
        pipeline.split('/').next().unwrap_or_default()
    }
    match key {
        NodeKey::Extension(id) => ("extension", id, "", None),
        NodeKey::Exporter { id, signal } => ("exporter", id, signal, None),
        NodeKey::Connector { id, signal } => ("connector", id, signal, None),
        NodeKey::Processor { pipeline, id } => {
            ("processor", id, signal_of(pipeline), Some(pipeline))
        }
        NodeKey::Pipeline(id) => ("pipeline", id, signal_of(id), None),
        NodeKey::Receiver { id, signal } => ("receiver", id, signal, None),
    }
}

/// What health says of it, or of one of its lanes.
fn reasons(kind: &str, id: &str, health: &HealthReport) -> Vec<String> {
    let (alone, lane) = (format!("{kind} \"{id}\""), format!("{kind} \"{id} to "));
    let of = health
        .reasons
        .iter()
        .filter(|r| r.component == alone || r.component.starts_with(&lane));
    of.map(ToString::to_string).collect()
}

/// How several series of one node become one number.
#[derive(Clone, Copy)]
enum Join {
    Sum,
    Max,
}

/// A number of a node: its name here, the name of the metric, the labels that pick its series.
type Number<'a> = (&'static str, String, Vec<(&'static str, &'a str)>, Join);

/// What is counted for all signals of a component together: it is of no node if there are several.
const OF_ALL_SIGNALS: [&str; 3] = [
    "tailwater_records_read",
    "tailwater_records_in_flight",
    "otelcol_exporter_in_flight_requests",
];

/// Whether there is another node of the same component, for another signal.
fn has_others(key: &NodeKey, seen: &Seen) -> bool {
    let name = |key| {
        let (kind, id, _, pipeline) = parts(key);
        (kind, id, pipeline)
    };
    let mut keys = seen.in_force.graph.nodes.keys();
    keys.any(|other| other != key && name(other) == name(key))
}

fn numbers(key: &NodeKey, seen: &Seen) -> Map<String, Value> {
    let mut found = Map::new();
    let has_others = has_others(key, seen);
    for (name, metric, labels, join) in wanted(key) {
        if has_others && OF_ALL_SIGNALS.contains(&&*metric) {
            continue;
        }
        let of = |s: &&Sample| s.name == metric && labels.iter().all(|(l, v)| s.has(l, v));
        let values = seen.samples.iter().filter(of).map(|s| s.value);
        let value = values.reduce(|a, b| match join {
            Join::Sum => a + b,
            Join::Max => a.max(b),
        });
        if let Some(value) = value {
            found.insert(name.to_owned(), number(value));
        }
    }
    found
}

/// Whole numbers without a point.
fn number(value: f64) -> Value {
    // 2^53: below it every whole number is exact.
    match value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        true => (value as i64).into(),
        false => value.into(),
    }
}

fn wanted(key: &NodeKey) -> Vec<Number<'_>> {
    let (_, id, signal, _) = parts(key);
    let items = match signal {
        "metrics" => "metric_points",
        "traces" => "spans",
        _ => "log_records",
    };
    let account = |kind| vec![("kind", kind), ("component", id)];
    let sum = |name, metric: &str, labels| (name, metric.to_owned(), labels, Join::Sum);
    match key {
        NodeKey::Extension(_) | NodeKey::Pipeline(_) => Vec::new(),
        NodeKey::Receiver { .. } => {
            let own = || vec![("receiver", id)];
            let all = || vec![("receiver", id), ("group", "all")];
            let metric = |what: &str| format!("otelcol_receiver_{what}_{items}");
            vec![
                sum("items_out", &metric("accepted"), own()),
                sum("refused", &metric("refused"), own()),
                sum("failed", &metric("failed"), own()),
                sum(
                    "in_flight",
                    "tailwater_records_in_flight",
                    account("receiver"),
                ),
                sum("files", "tailwater_group_files", all()),
                (
                    "lag_bytes",
                    "tailwater_lag_bytes".to_owned(),
                    all(),
                    Join::Max,
                ),
                (
                    "lag_seconds",
                    "tailwater_lag_seconds".to_owned(),
                    all(),
                    Join::Max,
                ),
            ]
        }
        NodeKey::Connector { .. } => {
            let own = || vec![("connector", id), ("otel_signal", signal)];
            vec![
                sum("items_in", "otelcol_connector_consumed_items", own()),
                sum("items_out", "otelcol_connector_produced_items", own()),
            ]
        }
        NodeKey::Processor { .. } => {
            let own = || vec![("processor", id), ("otel_signal", signal)];
            let limiter = |what: &str| format!("otelcol_processor_memory_limiter_{what}_{items}");
            let limits = || vec![("processor", id)];
            vec![
                sum("items_out", &limiter("accepted"), limits()),
                sum("refused", &limiter("refused"), limits()),
                sum("items_in", "otelcol_processor_incoming_items", own()),
                sum("items_out", "otelcol_processor_outgoing_items", own()),
            ]
        }
        NodeKey::Exporter { .. } => {
            let own = || vec![("exporter", id)];
            let queue = || vec![("exporter", id), ("data_type", signal)];
            let metric = |what: &str| format!("otelcol_exporter_{what}_{items}");
            vec![
                sum("items_in", "tailwater_records_read", account("exporter")),
                sum("items_out", &metric("sent"), own()),
                sum("failed", &metric("send_failed"), own()),
                sum("refused", &metric("enqueue_failed"), own()),
                sum("queue_size", "otelcol_exporter_queue_size", queue()),
                sum("queue_capacity", "otelcol_exporter_queue_capacity", queue()),
                sum(
                    "stored_requests",
                    "tailwater_queue_stored_requests",
                    queue(),
                ),
                sum(
                    "in_flight",
                    "tailwater_records_in_flight",
                    account("exporter"),
                ),
                sum(
                    "in_flight_requests",
                    "otelcol_exporter_in_flight_requests",
                    own(),
                ),
                sum(
                    "stalled_seconds",
                    "tailwater_exporter_stalled_seconds",
                    own(),
                ),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::shown::Shown;
    use tailwater_pipeline::plan::NodeSpec;
    use tailwater_telemetry::health::HealthRegistry;

    fn exporter(id: &str, signal: &str) -> NodeKey {
        let (id, signal) = (id.to_owned(), signal.to_owned());
        NodeKey::Exporter { id, signal }
    }

    /// Guarantee: a node has the numbers of its signal; what is counted for all signals of its component together is
    /// said only where it has one.
    #[test]
    fn numbers_are_those_of_a_signal() {
        let nodes = [
            exporter("otlp", "metrics"),
            exporter("otlp", "traces"),
            exporter("loki", "logs"),
        ];
        let shown = Shown::default().get();
        let mut in_force = Arc::into_inner(shown).expect("nobody else has it");
        let nodes = nodes.map(|key| (key, NodeSpec::default()));
        in_force.graph.nodes = nodes.into_iter().collect();
        let sample = |name, labels: &[(&str, &str)], value| Sample {
            name,
            labels: labels
                .iter()
                .map(|(l, v)| ((*l).to_owned(), (*v).to_owned()))
                .collect(),
            value,
        };
        let read = |id, value| {
            let labels = [("kind", "exporter"), ("component", id)];
            sample("tailwater_records_read", &labels, value)
        };
        let sent = |name, id, value| sample(name, &[("exporter", id)], value);
        let samples = vec![
            read("otlp", 7.0),
            read("loki", 5.0),
            sent("otelcol_exporter_sent_metric_points", "otlp", 4.0),
            sent("otelcol_exporter_sent_spans", "otlp", 3.0),
            sent("otelcol_exporter_sent_log_records", "otlp", 0.0),
            sent("otelcol_exporter_sent_log_records", "loki", 5.0),
        ];
        let seen = Seen {
            in_force: Arc::new(in_force),
            not_started: Arc::default(),
            health: HealthRegistry::new().report(0),
            samples,
        };
        let numbers = |key: NodeKey| json!(numbers(&key, &seen));
        assert_eq!(
            numbers(exporter("otlp", "metrics")),
            json!({"items_out": 4})
        );
        assert_eq!(numbers(exporter("otlp", "traces")), json!({"items_out": 3}));
        let alone = json!({"items_in": 5, "items_out": 5});
        assert_eq!(numbers(exporter("loki", "logs")), alone);
    }
}
