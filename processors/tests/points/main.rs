//! Guarantees: processors of data points do what the collector's do, and keep the delivery duty and the
//! account of every point.

mod cumulativetodelta;
mod deltatocumulative;
mod interval;
mod metricstransform;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits, json};
use tailwater_pipeline::ack::{AckSink, AckToken, Counts};
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::clock::{Clock, Mono, SimClock};
use tailwater_pipeline::component::BuildError;
use tailwater_pipeline::factory::{NodeCx, ProcessorSettings};
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{Batch, Budget, Outcome, Output, Part, Payload, Processor};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, _: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new("storage", "none here"))
    }
}

/// What a sender is told: the outcome, points left out, points given up.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<(u64, Outcome, u32, u32)>>);

impl AckSink for Told {
    fn settled(&self, key: u64, outcome: Outcome, counts: &Counts) {
        let told = (key, outcome, counts.filtered, counts.dropped_total());
        self.0.lock().expect("not poisoned").push(told);
    }
}

#[derive(Default)]
struct Out {
    now: Mono,
    batches: Vec<Batch>,
}

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.batches.push(batch);
    }
    fn now(&self) -> Mono {
        self.now
    }
}

/// Seconds of the Unix epoch at which processors are made.
pub(crate) const MADE: u64 = 1_000;

/// A processor with a world around it.
pub(crate) struct Setup {
    settings: Box<dyn ProcessorSettings>,
    runtime: tokio::runtime::Runtime,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) registry: Arc<MetricsRegistry>,
    pub(crate) budget: Arc<Budget>,
    processor: Box<dyn Processor>,
    pub(crate) told: Arc<Told>,
    sent: u64,
    out: Out,
}

/// The settings in `yaml`, or what is wrong with them. Warnings are given, too.
pub(crate) fn decode(kind: &str, yaml: &str) -> (Option<Box<dyn ProcessorSettings>>, Errors) {
    let factories = tailwater_processors::factories();
    let factory = factories.iter().find(|f| f.kind == kind);
    let factory = factory.expect("a known type");
    assert_eq!(factory.signals, ["metrics"], "{kind}");
    let node = parse(yaml, "a.yaml").expect("valid YAML");
    let mut errors = Errors::new();
    let settings = (factory.decode)(&node, &KeyPath::from("processors::x"), &mut errors);
    assert_eq!(settings.is_none(), !errors.is_empty(), "{yaml}: {errors}");
    (settings, errors)
}

/// Asserts that each of `cases` is refused with all the texts of it.
pub(crate) fn refused(kind: &str, cases: &[(&str, &[&str])]) {
    for (yaml, wants) in cases {
        let (_, errors) = decode(kind, yaml);
        assert!(!errors.is_empty(), "{kind}: {yaml}");
        let text = errors.to_string();
        for want in *wants {
            assert!(text.contains(want), "{yaml}: no {want:?} in {text}");
        }
    }
}

/// A request of metrics in JSON: metrics of one resource and scope.
pub(crate) fn request(metrics: &str) -> Encoded {
    whole(&format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#
    ))
}

/// A request of metrics in JSON.
pub(crate) fn whole(text: &str) -> Encoded {
    let limits = Limits::default();
    let body = json::to_proto(Signal::Metrics, text.as_bytes(), &limits)
        .unwrap_or_else(|e| panic!("{e}: {text}"));
    Encoded::parse(Signal::Metrics, body, &limits).expect("a request")
}

/// JSON of a request, written in one way.
pub(crate) fn shown(encoded: &Encoded) -> String {
    let body = encoded.body();
    let again = Encoded::parse(Signal::Metrics, body.clone(), &Limits::default());
    assert_eq!(again.expect("still a request").items(), encoded.items());
    let mut text = Vec::new();
    json::from_proto(Signal::Metrics, &body, &mut text).expect("still a request");
    String::from_utf8(text).expect("JSON")
}

/// The metrics of a request of one resource and scope, written in one way.
pub(crate) fn metrics(text: &str) -> String {
    shown(&request(text))
}

impl Setup {
    pub(crate) fn new(kind: &str, yaml: &str) -> Setup {
        let (settings, errors) = decode(kind, yaml);
        let settings = settings.unwrap_or_else(|| panic!("{yaml}: {errors}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let clock = Arc::new(SimClock::new(MADE as i64 * 1_000_000_000));
        let registry = Arc::new(MetricsRegistry::default());
        let mut setup = Setup {
            runtime: runtime.expect("a runtime"),
            clock,
            registry,
            budget: Budget::new(1 << 30),
            processor: Box::new(Nothing),
            settings,
            told: Arc::default(),
            sent: 0,
            out: Out::default(),
        };
        setup.processor = setup.instance("metrics");
        setup
    }

    /// An instance for one more shard of a chain.
    pub(crate) fn instance(&self, chain: &str) -> Box<dyn Processor> {
        let cx = NodeCx {
            id: "x".into(),
            pipeline: Some(chain.into()),
            signal: Some(Signal::Metrics),
            shards: 2,
            clock: self.clock.clone(),
            seed: 1,
            budget: self.budget.clone(),
            metrics: self.registry.clone(),
            health: Arc::new(HealthRegistry::new()),
            runtime: self.runtime.handle().clone(),
            listeners: Default::default(),
            connections: Default::default(),
            storages: Arc::new(NoStorages),
            authenticators: Default::default(),
            agent: None,
        };
        self.settings.build(&cx).unwrap_or_else(|e| panic!("{e}"))
    }

    /// From now on another instance works.
    pub(crate) fn use_instance(&mut self, processor: Box<dyn Processor>) {
        self.processor = processor;
    }

    /// Takes a request in; its number, from 0, is the key it is told by.
    pub(crate) fn take_in(&mut self, encoded: Encoded) {
        let part = Part {
            permit: self.budget.take(encoded.heap_bytes()),
            ack: AckToken::new(self.told.clone(), self.sent),
            data: Payload::Encoded(encoded),
        };
        self.sent += 1;
        self.out.now = self.clock.now();
        self.processor.process(Batch::of(part), &mut self.out);
    }

    /// Moves time on, and does what is due then.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.out.now = self.clock.now();
        if self.processor.deadline().is_some_and(|d| d <= self.out.now) {
            self.processor.tick(&mut self.out);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.processor.deadline()
    }

    /// What is kept is passed on.
    pub(crate) fn flush(&mut self) {
        self.processor.flush(&mut self.out);
    }

    /// What came out since the last time, as JSON, one request for each part; what becomes of them.
    pub(crate) fn come_out(&mut self, outcome: Outcome) -> Vec<String> {
        let parts = self.out.batches.drain(..).flat_map(|b| b.parts);
        let mut texts = Vec::new();
        for part in parts {
            let Payload::Encoded(encoded) = &part.data else {
                panic!("points stay points")
            };
            texts.push(shown(encoded));
            part.ack.resolve(outcome);
        }
        texts
    }

    /// Takes metrics of one resource and scope in, and gives what comes out at once and is delivered.
    pub(crate) fn send(&mut self, metrics: &str) -> Vec<String> {
        self.take_in(request(metrics));
        self.come_out(Outcome::Delivered)
    }

    /// What senders were told since the last time.
    pub(crate) fn answers(&self) -> Vec<(u64, Outcome, u32, u32)> {
        std::mem::take(&mut self.told.0.lock().expect("not poisoned"))
    }

    /// Asserts that the metrics page has these lines.
    pub(crate) fn meters(&self, lines: &[&str]) {
        let text = self.registry.render();
        for line in lines {
            let there = text.lines().any(|l| l == *line);
            let name = line.split(['{', ' ']).next().expect("a name");
            let similar: Vec<_> = text.lines().filter(|l| l.starts_with(name)).collect();
            assert!(there, "no {line:?} in {similar:#?}");
        }
    }
}

struct Nothing;

impl Processor for Nothing {
    fn process(&mut self, _: Batch, _: &mut dyn Output) {}
}

/// A metric that is a cumulative or delta sum, with points (attributes, start, time, value) in seconds;
/// the value is a member of a point, as `"asInt":"1"`.
pub(crate) fn sum(name: &str, temporality: u8, points: &[(&str, u64, u64, &str)]) -> String {
    let points: Vec<String> = points.iter().map(|p| point(*p)).collect();
    format!(
        r#"{{"name":"{name}","sum":{{"dataPoints":[{}],"aggregationTemporality":{temporality},"isMonotonic":true}}}}"#,
        points.join(",")
    )
}

/// A point with the members `value`.
pub(crate) fn point((attribute, start, time, value): (&str, u64, u64, &str)) -> String {
    let mut members = Vec::new();
    if !attribute.is_empty() {
        members.push(format!(
            r#""attributes":[{{"key":"a","value":{{"stringValue":"{attribute}"}}}}]"#
        ));
    }
    for (name, seconds) in [("startTimeUnixNano", start), ("timeUnixNano", time)] {
        if seconds > 0 {
            members.push(format!(r#""{name}":"{seconds}000000000""#));
        }
    }
    members.push(value.to_owned());
    format!("{{{}}}", members.join(","))
}
