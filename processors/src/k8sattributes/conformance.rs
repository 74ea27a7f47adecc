//! Runs a resource through the processor with a cluster that is given, as test vectors state it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tailwater_kubernetes::Change;
use tailwater_kubernetes::model::{Named, Pod};
use tailwater_pdata::{LogsBatch, Map};
use tailwater_pipeline::clock::{Clock, Mono, SimClock};
use tailwater_pipeline::{AckToken, Batch, Budget, LogsPart, Outcome, Output, Part};
use tailwater_telemetry::metrics::{K8sClusterMetrics, K8sWaitingMetrics, MetricsRegistry};

use super::cluster::Cluster;
use super::table::Kind;
use super::{K8sAttributes, K8sAttributesConfig, Processor};

struct Out(Vec<Part>, Arc<SimClock>);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.0.extend(batch.parts);
    }
    fn now(&self) -> Mono {
        self.1.now()
    }
}

fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "Namespace" => Kind::Namespace,
        "Node" => Kind::Node,
        "ReplicaSet" => Kind::ReplicaSet,
        "Deployment" => Kind::Deployment,
        "StatefulSet" => Kind::StatefulSet,
        "DaemonSet" => Kind::DaemonSet,
        "Job" => Kind::Job,
        _ => return None,
    })
}

fn read<T: DeserializeOwned>(object: &str) -> Result<T, String> {
    serde_json::from_str(object).map_err(|e| e.to_string())
}

/// What becomes of `resource` where the cluster has these objects: kinds, and what the API says of each as JSON.
///
/// # Errors
/// An object is of a kind that the processor does not follow, or not as the API has it; a processor cannot be
/// made; nothing came out of it.
pub fn resource_with(
    config: &K8sAttributesConfig,
    objects: &[(String, String)],
    resource: Map,
) -> Result<Map, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| e.to_string())?;
    let metrics = MetricsRegistry::default();
    let clock = Arc::new(SimClock::new(0));
    let meters = K8sClusterMetrics::new(&metrics, "x");
    let cluster = Cluster::new(config.clone(), None, 1, meters, clock.clone(), true);
    cluster.pretend_started(Mono(0));
    let cluster = Arc::new(cluster);
    let (pods, others): (Vec<_>, Vec<_>) = objects.iter().partition(|(kind, _)| kind == "Pod");
    let pods: Vec<Pod> = pods
        .iter()
        .map(|(_, object)| read(object))
        .collect::<Result<_, _>>()?;
    cluster.told_pod(Change::All(pods));
    for kind in Kind::ALL {
        cluster.told(kind, Change::All(Vec::new()));
    }
    for (kind, object) in others {
        let known = kind_of(kind).ok_or_else(|| format!("{kind} is not followed"))?;
        cluster.told(known, Change::Set(read::<Named>(object)?));
    }
    let meters = K8sWaitingMetrics::new(&metrics, "x", "logs");
    let mut processor = K8sAttributes::new(cluster, config, runtime.handle().clone(), meters);
    let mut logs = LogsBatch::from_lines(b"x".as_slice().into(), &[(0, 1)]);
    logs.resource = Arc::new(resource);
    let part = LogsPart {
        logs,
        ack: AckToken::detached(),
        permit: Budget::new(1 << 20).take(1),
    };
    let mut out = Out(Vec::new(), clock);
    processor.process(Batch::of(part), &mut out);
    processor.flush(&mut out);
    let mut passed = out.0.into_iter().flat_map(Part::into_logs);
    let part = passed.next().ok_or("nothing came out")?;
    part.ack.resolve(Outcome::Delivered);
    Ok((*part.logs.resource).clone())
}
