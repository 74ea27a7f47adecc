//! Guarantee: every factory refuses what it cannot use together with an error, and what it builds
//! passes records on.

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::otlp::{Encoded, Limits};
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::clock::{Clock, Mono, SimClock};
use tailwater_pipeline::factory::{NodeCx, ProcessorSettings};
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{
    AckToken, Admission, Batch, Budget, BuildError, LogsPart, Outcome, Output, Part,
};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

const MIB: usize = 1 << 20;

struct Out(Arc<SimClock>, Vec<Batch>);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.1.push(batch);
    }
    fn now(&self) -> Mono {
        self.0.now()
    }
}

/// No processor stores positions.
struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new(
            "test",
            format!("a processor asked for the store {id:?}"),
        ))
    }
}

fn decode(kind: &str, yaml: &str) -> Result<Box<dyn ProcessorSettings>, Errors> {
    let factories = tailwater_processors::factories();
    let factory = factories
        .iter()
        .find(|f| f.kind == kind)
        .expect("a known type");
    let node = parse(yaml, "a.yaml").expect("valid YAML");
    let mut errors = Errors::new();
    let settings = (factory.decode)(&node, &KeyPath::from("processors::x"), &mut errors);
    assert_eq!(settings.is_none(), !errors.is_empty(), "{yaml}: {errors}");
    settings.ok_or(errors)
}

fn cx(runtime: &tokio::runtime::Runtime, clock: &Arc<SimClock>) -> NodeCx {
    NodeCx {
        id: "x".into(),
        pipeline: Some("logs".into()),
        signal: Some(Signal::Logs),
        shards: 1,
        clock: clock.clone(),
        seed: 1,
        budget: Budget::new(1 << 40),
        metrics: Arc::new(MetricsRegistry::default()),
        health: Arc::new(HealthRegistry::new()),
        runtime: runtime.handle().clone(),
        listeners: Default::default(),
        connections: Default::default(),
        storages: Arc::new(NoStorages),
        authenticators: Default::default(),
        agent: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
}

#[test]
fn what_is_built_passes_every_record_on() {
    let (runtime, clock) = (runtime(), Arc::new(SimClock::new(0)));
    let cx = cx(&runtime, &clock);
    for (kind, yaml) in [
        (
            "attributes",
            "actions: [{key: a, action: insert, value: 1}]",
        ),
        (
            "resource",
            "attributes: [{key: a, action: insert, value: 1}]",
        ),
        ("batch", ""),
        ("memory_limiter", "{check_interval: 1s, limit_mib: 1000000}"),
        (
            "memory_limiter",
            "{check_interval: 1s, limit_percentage: 80}",
        ),
    ] {
        let settings = decode(kind, yaml).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let mut processor = settings
            .build(&cx)
            .unwrap_or_else(|e| panic!("{kind}: {e}"));
        let mut out = Out(clock.clone(), Vec::new());
        for _ in 0..3 {
            let logs = LogsBatch::from_lines(b"ab".as_slice().into(), &[(0, 1), (1, 1)]);
            let part = LogsPart {
                logs,
                ack: AckToken::detached(),
                permit: cx.budget.take(2),
            };
            processor.process(Batch::of(part), &mut out);
        }
        processor.flush(&mut out);
        assert_eq!(out.1.iter().map(Batch::items).sum::<usize>(), 6, "{kind}");
        for part in out.1.into_iter().flat_map(|b| b.parts) {
            part.ack.resolve(Outcome::Delivered);
        }
    }
}

/// Guarantee: the limiter counts what passes it as what it is, one limiter for all signals.
#[test]
fn the_memory_limiter_counts_each_signal_as_itself() {
    let (runtime, clock) = (runtime(), Arc::new(SimClock::new(0)));
    let settings = decode("memory_limiter", "{check_interval: 1s, limit_mib: 1000000}").unwrap();
    // One resource, one scope; a metric is a gauge of one point.
    let logs = b"\x0a\x04\x12\x02\x12\x00".as_slice();
    let spans = logs;
    let points = b"\x0a\x08\x12\x06\x12\x04\x2a\x02\x0a\x00".as_slice();
    let base = cx(&runtime, &clock);
    // A series lives as long as what counts in it.
    let mut running = Vec::new();
    for (signal, body, times) in [
        (Signal::Logs, logs, 1),
        (Signal::Metrics, points, 2),
        (Signal::Traces, spans, 3),
    ] {
        let cx = NodeCx {
            signal: Some(signal),
            ..base.clone()
        };
        let mut processor = settings.build(&cx).unwrap();
        let mut out = Out(clock.clone(), Vec::new());
        for _ in 0..times {
            let encoded = Encoded::parse(signal, body.into(), &Limits::default()).unwrap();
            assert_eq!(encoded.items(), 1);
            let part = Part {
                data: encoded.into(),
                ack: AckToken::detached(),
                permit: cx.budget.take(1),
            };
            processor.process(Batch { parts: vec![part] }, &mut out);
        }
        for part in out.1.into_iter().flat_map(|b| b.parts) {
            part.ack.resolve(Outcome::Delivered);
        }
        running.push(processor);
    }
    let text = base.metrics.render();
    for (what, n) in [("log_records", 1), ("metric_points", 2), ("spans", 3)] {
        let line =
            format!("otelcol_processor_memory_limiter_accepted_{what}{{processor=\"x\"}} {n}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[test]
fn what_is_wrong_is_an_error_and_gives_no_settings() {
    for (kind, yaml) in [
        ("attributes", ""),
        (
            "attributes",
            "actions: [{key: a, pattern: (x)(?P<n>y), action: extract}]",
        ),
        (
            "resource",
            "{attributes: [{key: a, action: delete}], include: {}}",
        ),
        ("batch", "send_batch_size: many"),
        ("batch", "[]"),
        ("memory_limiter", ""),
    ] {
        assert!(decode(kind, yaml).is_err(), "{kind}: {yaml}");
    }
}

/// One limiter decides for all chains, so a pause reaches every pipeline at once.
#[test]
fn all_chains_of_a_memory_limiter_share_one_decision() {
    let (runtime, clock) = (runtime(), Arc::new(SimClock::new(0)));
    let cx = cx(&runtime, &clock);
    let yaml = "{check_interval: 1s, limit_mib: 1000000}";
    let settings = decode("memory_limiter", yaml).unwrap_or_else(|e| panic!("{e}"));
    let build = || settings.build(&cx).unwrap_or_else(|e| panic!("{e}"));
    let (mut one, other) = (build(), build());
    assert_eq!(other.admission(), Admission::Open);
    let held = cx.budget.take(900_000 * MIB);
    clock.advance(std::time::Duration::from_secs(2));
    one.tick(&mut Out(clock.clone(), Vec::new()));
    assert_eq!(other.admission(), Admission::Closed);
    assert!(other.deadline().is_some(), "someone looks again");
    drop(held);
}

/// One section may serve pipelines of several signals; what one of them does not have is said before
/// anything is built.
#[test]
fn conditions_are_checked_for_each_signal_that_uses_them() {
    let yaml = "{include: {match_type: strict, span_names: [a]}, \
                actions: [{key: a, action: delete}]}";
    let settings = decode("attributes", yaml).unwrap_or_else(|e| panic!("{e}"));
    let (runtime, clock) = (runtime(), Arc::new(SimClock::new(0)));
    for (signal, fits) in [
        (Signal::Traces, true),
        (Signal::Logs, false),
        (Signal::Metrics, false),
    ] {
        let mut errors = Errors::new();
        settings.check(signal, &mut errors);
        assert_eq!(errors.is_empty(), fits, "{signal}: {errors}");
        let text = errors.to_string();
        assert!(fits || text.contains("a.yaml:1:"), "no place in {text}");
        let mut cx = cx(&runtime, &clock);
        cx.signal = Some(signal);
        assert_eq!(settings.build(&cx).is_ok(), fits, "{signal}");
    }
}
