//! The limiter against a budget and a made-up system.

use tailwater_pdata::LogsBatch;
use tailwater_pdata::otlp::Encoded;
use tailwater_pipeline::{AckToken, LogsPart, Outcome};
use tailwater_telemetry::metrics::MetricsRegistry;

use super::*;

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;

#[derive(Default)]
struct FakeSystem {
    resident: AtomicU64,
    measured: AtomicU64,
}

struct Fake(Arc<FakeSystem>);

impl MemoryProbe for Fake {
    fn resident_bytes(&self) -> u64 {
        self.0.measured.fetch_add(1, Ordering::SeqCst);
        self.0.resident.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct Out {
    now: Mono,
    passed: Vec<Batch>,
}

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.passed.push(batch);
    }
    fn now(&self) -> Mono {
        self.now
    }
}

struct Setup {
    system: Arc<FakeSystem>,
    held: Arc<Budget>,
    limiter: Arc<MemoryLimiter>,
    processor: MemoryLimiterProcessor,
    metrics: Arc<MemoryLimiterMetrics>,
    out: Out,
}

impl Setup {
    /// Soft limit 80 MiB, checked each second.
    fn new() -> Setup {
        let system = Arc::new(FakeSystem::default());
        let held = Budget::new(1 << 40);
        let metrics = MemoryLimiterMetrics::new(&MetricsRegistry::default(), "memory_limiter");
        let probe = Box::new(Fake(system.clone()));
        let limiter = MemoryLimiter::new(
            80 * MIB,
            Duration::from_secs(1),
            held.clone(),
            probe,
            metrics.clone(),
        );
        let processor = MemoryLimiterProcessor::new(limiter.clone());
        Setup {
            system,
            held,
            limiter,
            processor,
            metrics,
            out: Out::default(),
        }
    }

    fn at(&mut self, seconds: u64) -> Admission {
        self.out.now = Mono(seconds * SECOND);
        self.processor.tick(&mut self.out);
        self.processor.admission()
    }

    fn resident(&self, mib: u64) {
        self.system.resident.store(mib * MIB, Ordering::SeqCst);
    }
}

#[test]
fn data_held_above_the_soft_limit_pauses_sources_until_it_is_gone() {
    let mut s = Setup::new();
    assert_eq!(s.at(1), Admission::Open);
    assert_eq!(s.processor.deadline(), None, "an open limiter wakes nobody");
    let permit = s.held.take((80 * MIB) as usize);
    assert_eq!(s.at(2), Admission::Closed);
    assert_eq!(s.processor.deadline(), Some(Mono(3 * SECOND)));
    assert_eq!(
        (s.metrics.limited.get(), s.metrics.used_bytes.get()),
        (1, 80 << 20)
    );
    drop(permit);
    assert_eq!(s.at(3), Admission::Open);
    assert_eq!(s.metrics.limited.get(), 0);
}

#[test]
fn resident_memory_alone_slows_sources_but_never_stops_them_for_ever() {
    let mut s = Setup::new();
    s.resident(90);
    assert_eq!(s.at(1), Admission::Scarce);
    let permit = s.held.take(1);
    assert_eq!(s.at(2), Admission::Closed);
    drop(permit);
    assert_eq!(s.at(3), Admission::Scarce);
}

#[test]
fn what_was_read_before_passes_and_memory_is_measured_once_per_interval() {
    let mut s = Setup::new();
    let _permit = s.held.take((90 * MIB) as usize);
    s.out.now = Mono(5 * SECOND);
    for _ in 0..3 {
        let logs = LogsBatch::from_lines(bytes::Bytes::from_static(b"ab"), &[(0, 1), (1, 1)]);
        let part = LogsPart {
            logs,
            ack: AckToken::detached(),
            permit: s.held.take(2),
        };
        s.processor.process(Batch::of(part), &mut s.out);
    }
    assert_eq!(s.out.passed.iter().map(Batch::items).sum::<usize>(), 6);
    assert_eq!(s.metrics.accepted_log_records.get(), 6);
    assert_eq!(s.metrics.refused_log_records.get(), 0);
    assert_eq!(s.system.measured.load(Ordering::SeqCst), 1);
    assert_eq!(s.limiter.admission(), Admission::Closed);
    for part in s.out.passed.drain(..).flat_map(|b| b.parts) {
        part.ack.resolve(Outcome::Delivered);
    }
}

/// A part of `bytes` held bytes, as it came in a request or from a file.
fn part(held: &Arc<Budget>, bytes: usize, request: bool) -> Part {
    let logs = LogsBatch::from_lines(bytes::Bytes::from_static(b"ab"), &[(0, 1), (1, 1)]);
    Part {
        data: match request {
            true => Encoded::from_logs([&logs]).into(),
            false => logs.into(),
        },
        ack: AckToken::detached(),
        permit: held.take(bytes),
    }
}

#[test]
fn requests_go_back_to_their_senders_above_the_limit() {
    let mut s = Setup::new();
    s.resident(90);
    s.out.now = Mono(SECOND);
    let mut batch = Batch::of(part(&s.held, 10, true));
    batch.parts.push(part(&s.held, 10, false));
    let other = s.held.take(1);
    s.processor.process(batch, &mut s.out);
    assert!(s.processor.refuses());
    assert_eq!(s.metrics.refused_log_records.get(), 2);
    assert_eq!(s.metrics.accepted_log_records.get(), 2);
    let passed: Vec<Batch> = s.out.passed.drain(..).collect();
    assert_eq!(passed.len(), 1, "what came from a file passes");
    assert!(matches!(passed[0].parts[0].data, Payload::Logs(_)));
    s.processor
        .process(Batch::of(part(&s.held, 10, true)), &mut s.out);
    assert!(s.out.passed.is_empty(), "nothing is passed on");
    for part in passed.into_iter().flat_map(|b| b.parts) {
        part.ack.resolve(Outcome::Delivered);
    }
    drop(other);
    // Nothing else is held: refusing would free nothing, so the next one passes.
    s.out.now = Mono(3 * SECOND);
    s.processor
        .process(Batch::of(part(&s.held, 10, true)), &mut s.out);
    assert_eq!(
        (s.out.passed.len(), s.processor.admission()),
        (1, Admission::Scarce)
    );
    assert_eq!(s.metrics.refused_log_records.get(), 4);
    for part in s.out.passed.drain(..).flat_map(|b| b.parts) {
        part.ack.resolve(Outcome::Delivered);
    }
}
