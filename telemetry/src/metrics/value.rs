//! The kinds of values a metric can have. Every one is an atomic behind a counted pointer: a
//! component resolves its handles once when it is built and then only adds to them.

use prometheus::core::Metric;
use prometheus::{HistogramOpts, IntCounter, IntGauge};

use super::family::{Family, Gather, Kind, Labels};

/// A count that only grows.
pub type Counter = IntCounter;
/// A whole number that goes up and down.
pub type Gauge = IntGauge;
/// A growing number with a fraction: seconds.
pub type FloatCounter = prometheus::Counter;
/// A number with a fraction that goes up and down: seconds, ratios.
pub type FloatGauge = prometheus::Gauge;

/// A distribution of numbers of records.
#[derive(Clone, Debug)]
pub struct RecordsHistogram(prometheus::Histogram);

/// A distribution of sizes in bytes.
#[derive(Clone, Debug)]
pub struct BytesHistogram(prometheus::Histogram);

/// Bucket bounds in records, from single records to the largest batches that make sense.
const RECORDS_BUCKETS: [f64; 14] = [
    1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16_000.0, 32_000.0,
    64_000.0, 128_000.0,
];

/// Bucket bounds in bytes: 1 KiB to 64 MiB by factors of four.
const BYTES_BUCKETS: [f64; 9] = [
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

impl RecordsHistogram {
    /// Adds one observation.
    pub fn observe(&self, records: usize) {
        self.0.observe(records as f64);
    }
}

impl BytesHistogram {
    /// Adds one observation.
    pub fn observe(&self, bytes: usize) {
        self.0.observe(bytes as f64);
    }
}

/// A value a group of metrics can hold.
pub(crate) trait MetricValue {
    const KIND: Kind;
    fn create(name: &'static str, help: &'static str) -> Self;
    fn gather(&self, family: &Family, labels: &Labels, out: &mut Gather);
}

/// Names are constants of this crate and a test creates every one of them.
const VALID: &str = "metric names are constants that a test checks";

impl MetricValue for Counter {
    const KIND: Kind = Kind::Counter;
    fn create(name: &'static str, help: &'static str) -> Self {
        IntCounter::new(name, help).expect(VALID)
    }
    fn gather(&self, family: &Family, labels: &Labels, out: &mut Gather) {
        out.counter(family, labels, self.get() as f64);
    }
}

impl MetricValue for Gauge {
    const KIND: Kind = Kind::Gauge;
    fn create(name: &'static str, help: &'static str) -> Self {
        IntGauge::new(name, help).expect(VALID)
    }
    fn gather(&self, family: &Family, labels: &Labels, out: &mut Gather) {
        out.gauge(family, labels, self.get() as f64);
    }
}

impl MetricValue for FloatCounter {
    const KIND: Kind = Kind::Counter;
    fn create(name: &'static str, help: &'static str) -> Self {
        prometheus::Counter::new(name, help).expect(VALID)
    }
    fn gather(&self, family: &Family, labels: &Labels, out: &mut Gather) {
        out.counter(family, labels, self.get());
    }
}

impl MetricValue for FloatGauge {
    const KIND: Kind = Kind::Gauge;
    fn create(name: &'static str, help: &'static str) -> Self {
        prometheus::Gauge::new(name, help).expect(VALID)
    }
    fn gather(&self, family: &Family, labels: &Labels, out: &mut Gather) {
        out.gauge(family, labels, self.get());
    }
}

fn histogram(name: &'static str, help: &'static str, buckets: &[f64]) -> prometheus::Histogram {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    prometheus::Histogram::with_opts(opts).expect(VALID)
}

impl MetricValue for RecordsHistogram {
    const KIND: Kind = Kind::Histogram;
    fn create(name: &'static str, help: &'static str) -> Self {
        RecordsHistogram(histogram(name, help, &RECORDS_BUCKETS))
    }
    fn gather(&self, family: &Family, labels: &Labels, out: &mut Gather) {
        out.histogram(family, labels, self.0.metric().get_histogram().clone());
    }
}

impl MetricValue for BytesHistogram {
    const KIND: Kind = Kind::Histogram;
    fn create(name: &'static str, help: &'static str) -> Self {
        BytesHistogram(histogram(name, help, &BYTES_BUCKETS))
    }
    fn gather(&self, family: &Family, labels: &Labels, out: &mut Gather) {
        out.histogram(family, labels, self.0.metric().get_histogram().clone());
    }
}
