use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tailwater_config::{Errors, KeyPath, Section, parse};
use tailwater_pdata::otlp::{Encoded, Limits};
use tailwater_pdata::{LogsBatch, Map, Signal};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Admission, Batch, Budget, LogsPart, Outcome, Output, Part};
use tailwater_telemetry::metrics::MetricsRegistry;

use super::detection::{Detected, Detector};
use super::*;

const BOUND: Duration = Duration::from_secs(20);

fn read(yaml: &str) -> (ResourceDetectionConfig, Errors) {
    let node = parse(yaml, "a.yaml").unwrap();
    let mut errors = Errors::new();
    let path = KeyPath::from("processors::resource_detection");
    let mut section = Section::new(&node, &path, &mut errors);
    let config = ResourceDetectionConfig::decode(&mut section);
    section.finish();
    (config, errors)
}

fn config(yaml: &str) -> ResourceDetectionConfig {
    let (config, errors) = read(yaml);
    assert!(errors.is_empty(), "{yaml}: {errors}");
    config
}

#[test]
fn defaults_are_those_of_the_collector() {
    let config = config("{}");
    assert_eq!(config.detectors, [DetectorConfig::Env]);
    assert!(config.overrides && !config.fail_on_missing);
    assert_eq!(config.timeout, Duration::from_secs(5));
    assert!(config.refresh_interval.is_zero() && config.only.is_empty());
}

#[test]
fn detectors_find_what_is_enabled() {
    let config = config(
        "{detectors: [system, ' docker ', k8snode], system: {hostname_sources: [os, cname], resource_attributes: \
         {host.name: {enabled: false}, host.id: {enabled: true}}}, k8snode: {auth_type: none, node_from_env_var: N}}",
    );
    let [
        DetectorConfig::System {
            sources,
            attributes,
        },
        docker,
        DetectorConfig::Node {
            variable,
            attributes: of_node,
            ..
        },
    ] = &config.detectors[..]
    else {
        panic!("{config:?}");
    };
    assert_eq!(
        sources[..],
        [system::HostnameSource::Os, system::HostnameSource::Cname]
    );
    assert_eq!(attributes[..], ["host.id", "os.type"]);
    let of_docker = DetectorConfig::Docker {
        attributes: vec!["host.name", "os.type"],
    };
    assert_eq!(*docker, of_docker);
    assert_eq!(variable, "N");
    assert_eq!(
        of_node[..],
        ["k8s.cluster.uid", "k8s.node.name", "k8s.node.uid"]
    );
}

#[test]
fn what_is_not_built_or_wrong_is_refused_by_name() {
    let cases = [
        ("detectors: [ec2]", "the detector ec2 is not built"),
        ("detectors: [env, sytem]", "system"),
        ("detectors: []", "must not be empty"),
        ("gcp: {labels: [x]}", "not built"),
        ("tls: {insecure: true}", "tls"),
        ("system: {hostname_sources: [nds]}", "dns"),
        (
            "system: {resource_attributes: {host.nam: {enabled: true}}}",
            "host.name",
        ),
        (
            "docker: {resource_attributes: {container.name: {enabled: true}}}",
            "container.name",
        ),
        ("k8snode: {auth_type: tls}", "tls is not supported"),
        ("k8s_api: {context: x}", "kubeConfig only"),
        ("timeout: 0s", "must be greater than 0"),
        (
            "{fail_on_missing_metadata: true, retry: {enabled: false}}",
            "needs retry::enabled",
        ),
        ("retry: {randomization_factor: 2}", "randomization_factor"),
        ("unknown: 1", "unknown"),
    ];
    for (yaml, wanted) in cases {
        let (_, errors) = read(yaml);
        assert!(errors.to_string().contains(wanted), "{yaml}: {errors}");
    }
}

/// Says what it is told to, in turn; the last one again and again.
struct Fake {
    says: Mutex<Vec<Result<Map, String>>>,
    /// Says nothing before this is set.
    free: tokio::sync::watch::Receiver<bool>,
    asked: Arc<AtomicUsize>,
}

impl Detector for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn detect(&self) -> Detected<'_> {
        Box::pin(async {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut free = self.free.clone();
            free.wait_for(|free| *free)
                .await
                .map_err(|e| e.to_string())?;
            let mut says = self.says.lock().unwrap();
            match says.len() {
                1 => says[0].clone(),
                _ => says.remove(0),
            }
        })
    }
}

fn attributes(pairs: &[(&str, &str)]) -> Map {
    Map::from_iter(pairs.iter().copied())
}

#[derive(Default)]
struct Out {
    parts: Vec<Part>,
    now: u64,
}

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.parts.extend(batch.parts);
    }
    fn now(&self) -> Mono {
        Mono(self.now)
    }
}

/// A processor before detectors that say these.
struct Stand {
    processor: ResourceDetection,
    out: Out,
    free: Vec<tokio::sync::watch::Sender<bool>>,
    asked: Vec<Arc<AtomicUsize>>,
    /// Dropping it ends the thread of the runtime.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Stand {
    fn new(yaml: &str, says: Vec<Vec<Result<Map, String>>>) -> Stand {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(stopped));
        let (mut free, mut asked) = (Vec::new(), Vec::new());
        let mut detectors: Vec<Arc<dyn Detector>> = Vec::new();
        for says in says {
            let (send, receive) = tokio::sync::watch::channel(false);
            let count = Arc::new(AtomicUsize::new(0));
            detectors.push(Arc::new(Fake {
                says: Mutex::new(says),
                free: receive,
                asked: count.clone(),
            }));
            free.push(send);
            asked.push(count);
        }
        let config = config(yaml);
        let meters = ResourceDetectionMetrics::new(&MetricsRegistry::default(), "x");
        let detection = Arc::new(Detection::new(&config, detectors, 1, meters, true));
        Stand {
            processor: ResourceDetection::new(detection, config.overrides, handle),
            out: Out::default(),
            free,
            asked,
            _stop: stop,
        }
    }

    fn free(&self, detector: usize) {
        self.free[detector].send(true).unwrap();
    }

    fn line(&mut self, resource: &[(&str, &str)]) {
        let mut logs = LogsBatch::from_lines(Bytes::from_static(b"a"), &[(0, 1)]);
        logs.resource = Arc::new(attributes(resource));
        let part = LogsPart {
            logs,
            ack: AckToken::detached(),
            permit: Budget::new(10).take(1),
        };
        self.processor.process(Batch::of(part), &mut self.out);
    }

    fn tick(&mut self, now: u64) {
        self.out.now = now;
        self.processor.tick(&mut self.out);
    }

    /// Ticks until `holds`.
    fn until(&mut self, holds: impl Fn(&Stand) -> bool) {
        let end = Instant::now() + BOUND;
        while !holds(self) {
            assert!(Instant::now() < end, "it never came to that");
            std::thread::sleep(Duration::from_millis(1));
            self.tick(self.out.now);
        }
    }

    /// Resources of what was passed on.
    fn passed(&mut self) -> Vec<Map> {
        let mut found = Vec::new();
        for part in self.out.parts.drain(..) {
            for logs in part.into_logs() {
                found.push((*logs.logs.resource).clone());
                logs.ack.resolve(Outcome::Delivered);
            }
        }
        found
    }
}

/// Guarantee: what comes before detection is through waits, in order, and then has what was found; of an attribute that
/// several find, that of the first detector counts, whichever is through first.
#[test]
fn data_waits_for_detection() {
    let mut stand = Stand::new(
        "{}",
        vec![
            vec![Ok(attributes(&[("a", "1")]))],
            vec![Ok(attributes(&[("a", "2"), ("b", "2")]))],
        ],
    );
    stand.tick(0);
    stand.line(&[("n", "1")]);
    stand.line(&[("n", "2"), ("a", "own")]);
    assert_eq!(stand.processor.admission(), Admission::Closed);
    assert!(stand.processor.deadline().is_some());
    stand.free(1);
    stand.until(|s| s.processor.detection.number() == 1);
    assert!(stand.passed().is_empty(), "one detector is not through");
    stand.free(0);
    stand.until(|s| s.processor.deadline().is_none());
    assert_eq!(stand.processor.admission(), Admission::Open);
    stand.line(&[("n", "3")]);
    let found = |n: &str| attributes(&[("n", n), ("a", "1"), ("b", "2")]);
    assert_eq!(stand.passed(), [found("1"), found("2"), found("3")]);
}

#[test]
fn what_is_there_stays_without_override() {
    let mut stand = Stand::new(
        "{override: false, attributes: [a, c]}",
        vec![vec![Ok(attributes(&[("a", "1"), ("b", "1"), ("c", "1")]))]],
    );
    stand.free(0);
    stand.until(|s| s.processor.deadline().is_none());
    stand.line(&[("a", "own")]);
    assert_eq!(stand.passed(), [attributes(&[("a", "own"), ("c", "1")])]);
}

/// Guarantee: a detector that hangs or fails holds data for no longer than it may, and what it finds later is
/// added from then on.
#[test]
fn a_detector_that_is_late_costs_time_only() {
    let failed = || Err("no".to_owned());
    let mut stand = Stand::new(
        "{timeout: 5s, retry: {initial_interval: 1ms}}",
        vec![
            vec![Ok(attributes(&[("a", "1")]))],
            vec![failed(), failed(), Ok(attributes(&[("b", "1")]))],
        ],
    );
    stand.tick(0);
    stand.line(&[]);
    stand.free(0);
    stand.until(|s| s.processor.detection.number() == 1);
    stand.tick(4_999_999_999);
    assert!(stand.passed().is_empty());
    stand.tick(5_000_000_000);
    assert_eq!(stand.passed(), [attributes(&[("a", "1")])]);
    stand.free(1);
    stand.until(|s| s.processor.detection.number() == 2);
    stand.line(&[]);
    assert_eq!(stand.passed(), [attributes(&[("a", "1"), ("b", "1")])]);
    assert_eq!(stand.asked[1].load(Ordering::SeqCst), 3);
}

#[test]
fn with_fail_on_missing_metadata_nothing_passes_before() {
    let mut stand = Stand::new(
        "{fail_on_missing_metadata: true, retry: {initial_interval: 1ms}}",
        vec![vec![Err("no".to_owned()), Ok(attributes(&[("a", "1")]))]],
    );
    stand.line(&[]);
    stand.tick(u64::MAX / 2);
    assert!(stand.passed().is_empty());
    stand.free(0);
    stand.until(|s| s.processor.deadline().is_none());
    assert_eq!(stand.passed(), [attributes(&[("a", "1")])]);
}

#[test]
fn without_retry_one_attempt_is_all() {
    let mut stand = Stand::new("retry: {enabled: false}", vec![vec![Err("no".to_owned())]]);
    stand.line(&[]);
    stand.free(0);
    stand.until(|s| s.processor.deadline().is_none());
    assert_eq!(stand.passed(), [Map::new()]);
    assert_eq!(stand.asked[0].load(Ordering::SeqCst), 1);
}

/// Guarantee: a refresh that finds something else counts from then on, one that fails changes nothing.
#[test]
fn what_is_found_again_replaces_what_was_found() {
    let mut stand = Stand::new(
        "{refresh_interval: 1ms, retry: {initial_interval: 1ms}}",
        vec![vec![
            Ok(attributes(&[("a", "1")])),
            Err("no".to_owned()),
            Ok(attributes(&[("a", "2")])),
        ]],
    );
    stand.free(0);
    stand.until(|s| s.processor.detection.number() == 2);
    stand.line(&[]);
    assert_eq!(stand.passed(), [attributes(&[("a", "2")])]);
}

#[test]
fn a_flush_passes_on_what_waits() {
    let mut stand = Stand::new("{}", vec![vec![Ok(attributes(&[("a", "1")]))]]);
    stand.line(&[("n", "1")]);
    stand.processor.flush(&mut stand.out);
    assert_eq!(stand.passed(), [attributes(&[("n", "1")])]);
}

#[test]
fn requests_have_it_in_every_resource() {
    let mut stand = Stand::new("{}", vec![vec![Ok(attributes(&[("a", "1")]))]]);
    stand.free(0);
    stand.until(|s| s.processor.deadline().is_none());
    for signal in [Signal::Logs, Signal::Metrics, Signal::Traces] {
        // Two resources with a scope without items, the second one with the attribute a: "own".
        let own = b"\x0a\x12\x0a\x0c\x0a\x0a\x0a\x01a\x12\x05\x0a\x03own\x12\x02\x12\x00";
        let body = [b"\x0a\x04\x12\x02\x12\x00".as_slice(), own.as_slice()].concat();
        let encoded = Encoded::parse(signal, body.into(), &Limits::default()).unwrap();
        let part = Part {
            data: encoded.into(),
            ack: AckToken::detached(),
            permit: Budget::new(10).take(1),
        };
        stand.processor.process(Batch::of(part), &mut stand.out);
        let part = stand.out.parts.pop().unwrap();
        let Payload::Encoded(encoded) = part.data else {
            panic!("decoded");
        };
        part.ack.resolve(Outcome::Delivered);
        let body = encoded.body();
        let count = |text: &[u8]| body.windows(text.len()).filter(|w| *w == text).count();
        assert_eq!(
            count(b"\x0a\x01a\x12\x03\x0a\x011"),
            2,
            "{signal:?}: {body:?}"
        );
        assert_eq!(count(b"own"), 0);
    }
}
