//! Our own message of what runs and what it counts: what a rollout is judged by. See `docs/OPAMP.md`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tailwater_opamp::proto::CustomMessage;
use tailwater_pipeline::ack::DropReason;
use tailwater_pipeline::probes::{ProbeCounts, probes};
use tailwater_telemetry::metrics::Sample;

use super::Driver;
use crate::admin::shown::InForce;
use crate::extensions::opamp::signature::hex;
use crate::layer::Layer;

/// The capability.
pub const STATE: &str = "io.tailwater.state/v1";
/// Not more often than this, whatever the server asks for.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Not for longer than this after the server has asked last.
const DURATION_MAX: Duration = Duration::from_secs(600);

/// What was shown, and what was asked for.
pub struct StateView {
    /// Tells this process from the next one.
    process: u64,
    shown: Option<Arc<InForce>>,
    /// Digests of what is laid over the local configuration.
    layer: Value,
    interval: Duration,
    /// Counters are sent until then.
    until: Duration,
    next: Duration,
    /// Sample lines are injected so often until then, if the server wants some.
    probe: Option<Duration>,
    next_probe: Duration,
    /// How long the newest offer that came into force took; none if none did in this process.
    pub(super) applied_in: Option<Duration>,
}

impl StateView {
    /// Of a process that began at `started`, in Unix time.
    pub fn new(started: u64) -> StateView {
        StateView {
            process: started,
            shown: None,
            layer: Value::Null,
            interval: INTERVAL_MIN,
            until: Duration::ZERO,
            next: Duration::ZERO,
            probe: None,
            next_probe: Duration::ZERO,
            applied_in: None,
        }
    }
}

/// Files of a layer by what is in them.
fn digests(layer: Option<&Layer>) -> Value {
    let file = |(name, text): &(String, String)| json!({"file": name, "sha256": hex(&Sha256::digest(text.as_bytes()))});
    let files = layer.map(|l| l.files.iter().map(file).collect::<Vec<_>>());
    json!(files.unwrap_or_default())
}

/// Reasons of drops that lie with destinations, or with who sent the lines: a configuration need not have changed.
const REJECTED: [DropReason; 13] = [
    DropReason::TooOld,
    DropReason::TooNew,
    DropReason::TooFarBehind,
    DropReason::LineTooLong,
    DropReason::InvalidLabels,
    DropReason::InvalidMetadata,
    DropReason::TooLarge,
    DropReason::RateLimited,
    DropReason::StreamLimit,
    DropReason::TenantRefused,
    DropReason::Rejected,
    DropReason::RetriesExhausted,
    DropReason::HandedBack,
];

/// Whether a series is of a receiver of sample lines: these are counted by themselves.
fn is_of_probes(sample: &Sample) -> bool {
    let ids = sample.labels.iter().filter(|(l, _)| l == "component");
    let mut kinds = ids.map(|(_, id)| id.split('/').next());
    kinds.any(|kind| kind == Some("probe"))
}

/// What is counted, over all components.
fn counters(samples: &[Sample]) -> Value {
    let sum = |name: &str, label: Option<(&str, &str)>| {
        let fits = |s: &&Sample| s.name == name && label.is_none_or(|(l, v)| s.has(l, v));
        samples.iter().filter(fits).map(|s| s.value).sum::<f64>() as u64
    };
    let of_receivers = |name: &str| {
        let of_lines =
            |s: &&Sample| s.name == name && s.has("kind", "receiver") && !is_of_probes(s);
        let lines = samples.iter().filter(of_lines);
        lines.map(|s| s.value).sum::<f64>() as u64
    };
    let records = |what: &str| of_receivers(&format!("tailwater_records_{what}"));
    let rejected = samples.iter().filter(|s| {
        let is_of_lines = s.name == "tailwater_records_dropped" && s.has("kind", "receiver");
        let is_one = |r: &DropReason| s.has("reason", r.as_str());
        is_of_lines && !is_of_probes(s) && REJECTED.iter().any(is_one)
    });
    let rejected = rejected.map(|s| s.value).sum::<f64>() as u64;
    let of_process = |name: &str| samples.iter().find(|s| s.name == name).map(|s| s.value);
    let cpu = of_process("otelcol_process_cpu_seconds").map(|s| (s * 1e3) as u64);
    let memory = of_process("otelcol_process_memory_rss").map(|b| b as u64);
    json!({
        "records_read": records("read"),
        "bytes_read": of_receivers("tailwater_bytes_read"),
        "records_delivered": records("delivered"),
        "records_filtered": records("filtered"),
        "records_dropped": records("dropped"),
        "records_rejected": rejected,
        "records_in_flight": records("in_flight"),
        "requests": sum("tailwater_exporter_requests", None),
        "retries": sum("tailwater_exporter_retries", None),
        "throttled": sum("tailwater_exporter_throttled", None),
        "permanent": sum("tailwater_exporter_refused_requests", None),
        "queue_size": sum("otelcol_exporter_queue_size", None),
        "queue_capacity": sum("otelcol_exporter_queue_capacity", None),
        "lag_bytes": sum("tailwater_lag_bytes", Some(("group", "all"))),
        "memory_bytes": memory,
        "cpu_ms": cpu,
    })
}

fn counted(counts: ProbeCounts) -> Value {
    json!({
        "sent": counts.sent,
        "due": counts.due,
        "due_up_to": counts.due_up_to,
        "delivered": counts.delivered,
    })
}

impl Driver {
    /// Says what runs when that is another thing, and what is counted as long as the server wants to know.
    pub(super) fn tell_state(&mut self, in_force: &Arc<InForce>) {
        let now = self.now();
        let known = self.state.shown.as_ref();
        let is_new = known.is_none_or(|s| !Arc::ptr_eq(s, in_force));
        self.probe();
        let is_asked = now < self.state.until && now >= self.state.next;
        if !is_new && !is_asked {
            return;
        }
        if is_new {
            self.state.layer = digests(in_force.layer.as_deref());
            self.state.shown = Some(in_force.clone());
        }
        if is_asked {
            self.state.next = now + self.state.interval;
        }
        let clock = self.s.clock.now();
        let value = json!({
            "probes": probes().has_way().then(|| counted(probes().counts(clock))),
            "process": self.state.process,
            "generation": in_force.generation,
            "layer": self.state.layer,
            // 0 is for those that do not say.
            "apply_ms": self.state.applied_in.map(|d| d.as_millis().max(1) as u64),
            "counters": counters(&self.s.registry.samples()),
        });
        let message = CustomMessage {
            capability: STATE.to_owned(),
            r#type: "state".to_owned(),
            data: value.to_string().into_bytes(),
        };
        self.client.set_state(message);
    }

    /// Injects a sample line, if the server wants some and it is time.
    fn probe(&mut self) {
        let now = self.now();
        let Some(interval) = self.state.probe.filter(|_| now < self.state.until) else {
            return;
        };
        if now < self.state.next_probe {
            return;
        }
        self.state.next_probe = now + interval;
        let name = self.client.uid().to_string();
        probes().inject(&name, self.state.process, self.s.clock.now());
    }

    /// The server wants to know what is counted, for a while.
    pub(super) fn asked_for_state(&mut self, message: &CustomMessage) {
        if message.capability != STATE || message.r#type != "sample" {
            return tracing::warn!(
                "OpAMP: ignored a custom message of type {:?}",
                message.r#type
            );
        }
        let wanted: Value = serde_json::from_slice(&message.data).unwrap_or_default();
        let millis = |key: &str| wanted[key].as_u64().map(Duration::from_millis);
        let now = self.now();
        self.state.interval = millis("interval_ms").unwrap_or_default().max(INTERVAL_MIN);
        let lasts = millis("duration_ms").unwrap_or_default().min(DURATION_MAX);
        self.state.until = now + lasts;
        self.state.next = self.state.next.min(now + self.state.interval);
        let probe = millis("probe_interval_ms").filter(|p| !p.is_zero());
        self.state.probe = probe.map(|p| p.max(INTERVAL_MIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_of_receivers_and_of_all_exporters() {
        let sample = |name, labels: &[(&str, &str)], value| Sample {
            name,
            labels: labels
                .iter()
                .map(|(l, v)| ((*l).to_owned(), (*v).to_owned()))
                .collect(),
            value,
        };
        let found = counters(&[
            sample("tailwater_records_read", &[("kind", "receiver")], 5.0),
            sample("tailwater_records_read", &[("kind", "receiver")], 2.0),
            sample("tailwater_records_read", &[("kind", "exporter")], 90.0),
            sample("tailwater_bytes_read", &[("kind", "receiver")], 70.0),
            sample("tailwater_bytes_read", &[("kind", "exporter")], 900.0),
            sample("tailwater_exporter_requests", &[("exporter", "a")], 3.0),
            sample("tailwater_exporter_requests", &[("exporter", "b")], 4.0),
            sample("tailwater_lag_bytes", &[("group", "all")], 8.0),
            sample("tailwater_lag_bytes", &[("group", "other")], 8.0),
            sample(
                "tailwater_records_read",
                &[("kind", "receiver"), ("component", "probe/a")],
                9.0,
            ),
            sample(
                "tailwater_records_dropped",
                &[("kind", "receiver"), ("reason", "invalid_labels")],
                3.0,
            ),
            sample(
                "tailwater_records_dropped",
                &[("kind", "receiver"), ("reason", "operator_error")],
                4.0,
            ),
            sample(
                "tailwater_exporter_refused_requests",
                &[("exporter", "a")],
                2.0,
            ),
            sample("otelcol_process_cpu_seconds", &[], 1.5),
            sample("otelcol_process_memory_rss", &[], 4096.0),
        ]);
        assert_eq!(found["records_dropped"], 7);
        assert_eq!(found["records_rejected"], 3);
        assert_eq!(found["permanent"], 2);
        assert_eq!(
            (&found["cpu_ms"], &found["memory_bytes"]),
            (&json!(1500), &json!(4096))
        );
        assert_eq!(found["records_read"], 7);
        assert_eq!(found["bytes_read"], 70);
        assert_eq!(found["requests"], 7);
        assert_eq!(found["lag_bytes"], 8);
        assert_eq!(found["retries"], 0);
    }

    #[test]
    fn a_layer_is_known_by_the_digests_of_its_files() {
        assert_eq!(digests(None), json!([]));
        let layer = Layer {
            files: vec![("pipeline.yaml".into(), "a".into())],
        };
        let sha = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        let wanted = json!([{"file": "pipeline.yaml", "sha256": sha}]);
        assert_eq!(digests(Some(&layer)), wanted);
    }
}
