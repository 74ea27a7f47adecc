//! The limiter against a budget and a made-up system.

use tailwater_pdata::LogsBatch;
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
