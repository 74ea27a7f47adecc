//! Kinds `loki` and `loki_line`: records through the real exporter to a fake server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::{Entry, LogsBatch, Signal};
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{AckToken, Batch, Budget, BuildError, LogsPart, ShardHandle, Wake};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::{DEFAULT_TENANT, FakeLoki, LokiOptions};

use tailwater_tests::exporter::Sockets;

use crate::case::{Case, Verdict};
use crate::records;

/// Longest a case may take.
const BOUND: Duration = Duration::from_secs(20);

/// Streams with their lines, by tenant.
type Streams = BTreeMap<String, BTreeMap<String, Vec<String>>>;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// Exporters keep no positions.
struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, _: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new("conformance", "no positions are kept"))
    }
}

/// Runs a case about labels, lines and tenants.
pub fn run(case: &Case) -> Verdict {
    compare(&case.json).into()
}

fn compare(vector: &Json) -> Result<(), String> {
    let mut parts = Vec::new();
    for resource_logs in vector["input"]["resource_logs"]
        .as_array()
        .ok_or("no input")?
    {
        for scope_logs in resource_logs["scope_logs"].as_array().into_iter().flatten() {
            let scope = &scope_logs["scope"];
            let records = scope_logs["records"].as_array().into_iter().flatten();
            let entries: Vec<Entry> = records
                .map(|r| record(r, &resource_logs["resource"], scope))
                .collect();
            parts.push(with_scope(&entries, scope));
        }
    }
    let mut want = Streams::new();
    for (tenant, streams) in vector["expect"]["tenants"]
        .as_object()
        .ok_or("no tenants")?
    {
        for stream in streams.as_array().into_iter().flatten() {
            let labels = stream["labels"].as_str().unwrap_or_default().to_owned();
            let lines = stream["lines"].as_array().into_iter().flatten();
            let lines = lines.filter_map(Json::as_str).map(str::to_owned).collect();
            let tenant = if tenant.is_empty() {
                DEFAULT_TENANT
            } else {
                tenant
            };
            want.entry(tenant.to_owned())
                .or_default()
                .insert(labels, lines);
        }
    }
    let tenants: Vec<&str> = want.keys().map(String::as_str).collect();
    let got = send(&vector["config"]["loki"], parts, &tenants)?;
    (got == want)
        .then_some(())
        .ok_or_else(|| format!("got {got:?}\n         want {want:?}"))
}

/// Runs a case about one record's line.
pub fn run_line(case: &Case) -> Verdict {
    compare_line(&case.json).into()
}

fn compare_line(vector: &Json) -> Result<(), String> {
    let input = &vector["input"];
    let scope = &input["scope"];
    let mut entry = record(&input["record"], &input["resource"], scope);
    // With hints the format is a hint; it takes itself out of the line.
    let format = vector["config"]["format"].as_str().ok_or("no format")?;
    entry.attributes.insert("loki.format", format);
    let config = json!({"default_labels_enabled": {"exporter": true, "level": false}});
    let got = send(
        &config,
        vec![with_scope(&[entry], scope)],
        &[DEFAULT_TENANT],
    )?;
    let lines: Vec<&String> = got.values().flat_map(BTreeMap::values).flatten().collect();
    let want = vector["expect"]["line"].as_str().ok_or("no line")?;
    let same = lines.len() == 1 && lines[0] == want;
    same.then_some(())
        .ok_or_else(|| format!("got {lines:?}\n         want {want:?}"))
}

fn record(json: &Json, resource: &Json, scope: &Json) -> Entry {
    let mut entry = records::entry(json);
    entry.resource = records::map(resource);
    entry.scope_name = scope["name"].as_str().unwrap_or_default().to_owned();
    entry
}

fn with_scope(entries: &[Entry], scope: &Json) -> LogsBatch {
    let mut logs = LogsBatch::from_entries(entries);
    if let Some(version) = scope["version"].as_str() {
        let mut changed = (*logs.scope).clone();
        changed.version = version.into();
        logs.scope = Arc::new(changed);
    }
    logs
}

/// Sends through an exporter of this configuration; what the server has then.
fn send(config: &Json, parts: Vec<LogsBatch>, tenants: &[&str]) -> Result<Streams, String> {
    let behaviour = LokiBehaviour {
        auth_enabled: false,
        ..LokiBehaviour::permissive()
    };
    let server = FakeLoki::start(LokiOptions {
        behaviour,
        ..LokiOptions::default()
    });
    let server = server.map_err(|e| e.to_string())?;
    if tenants.iter().any(|t| *t != DEFAULT_TENANT) {
        server.set_behaviour(|b| b.auth_enabled = true);
    }
    let mut config = config.clone();
    config["endpoint"] = server.push_url().into();
    let node = parse(&config.to_string(), "vector").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let factory = tailwater_exporters::loki::factory();
    let settings = (factory.decode)(&node, &KeyPath::from("exporters::loki"), &mut errors);
    let settings = settings
        .filter(|_| errors.is_empty())
        .ok_or_else(|| errors.to_string())?;
    let sockets = Sockets::start();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let cx = context(clock.clone(), sockets.handle.clone());
    let mut exporter = settings.build(&cx).map_err(|e| e.to_string())?;
    let shard = ShardHandle {
        index: 0,
        waker: Arc::new(NoWake),
    };
    let mut front = exporter.front(&shard);
    exporter.start().map_err(|e| e.to_string())?;
    let records: u64 = parts.iter().map(|logs| logs.rows() as u64).sum();
    for logs in parts {
        let part = LogsPart {
            logs,
            ack: AckToken::detached(),
            permit: cx.budget.take(1),
        };
        front.export(Batch::of(part), clock.now());
    }
    front.flush(clock.now());
    let left = exporter.stop(clock.now().after(BOUND));
    let stats = server.stats();
    if left > 0 || stats.entries_accepted < records {
        return Err(format!(
            "{left} of {records} records left; the server saw {stats:?}"
        ));
    }
    let mut got = Streams::new();
    for tenant in tenants {
        for labels in server.streams(tenant) {
            let entries = server.entries(tenant, &labels);
            let lines = entries
                .iter()
                .map(|e| String::from_utf8_lossy(&e.line).into_owned());
            got.entry((*tenant).to_owned())
                .or_default()
                .insert(labels, lines.collect());
        }
    }
    Ok(got)
}

fn context(clock: Arc<dyn Clock>, runtime: tokio::runtime::Handle) -> NodeCx {
    NodeCx {
        id: "loki".into(),
        pipeline: None,
        signal: Some(Signal::Logs),
        shards: 1,
        clock,
        seed: 1,
        budget: Budget::new(1 << 30),
        metrics: Arc::new(MetricsRegistry::default()),
        health: Arc::new(HealthRegistry::new()),
        runtime,
        listeners: Default::default(),
        connections: Default::default(),
        storages: Arc::new(NoStorages),
        authenticators: Default::default(),
        agent: None,
    }
}
