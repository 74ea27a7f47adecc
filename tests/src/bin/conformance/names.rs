//! Kind `prom_name`: the names that metrics get for Prometheus.

use serde_json::Value as Json;
use tailwater_exporters::prometheusremotewrite::{NameKind, Naming};

use crate::case::{Case, Verdict};

/// Runs the case.
pub fn run(case: &Case) -> Verdict {
    compare(&case.json).into()
}

fn compare(vector: &Json) -> Result<(), String> {
    let naming = Naming {
        suffixes: vector["config"]["normalize"].as_bool().unwrap_or(true),
        namespace: text(&vector["config"]["namespace"]).to_owned(),
        ..Naming::default()
    };
    let metrics = vector["input"]["metrics"].as_array().ok_or("no metrics")?;
    let names = vector["expect"]["names"].as_array().ok_or("no names")?;
    if metrics.is_empty() || metrics.len() != names.len() {
        return Err("the vector has not one name per metric".to_owned());
    }
    for (metric, want) in metrics.iter().zip(names) {
        let kind = match text(&metric["type"]) {
            "gauge" => NameKind::Gauge,
            "counter" => NameKind::Counter,
            _ => NameKind::Other,
        };
        let got = naming.metric(text(&metric["name"]), text(&metric["unit"]), kind);
        if got != text(want) {
            return Err(format!("{metric}: got {got:?}, want {want}"));
        }
    }
    Ok(())
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}
