//! `memory_limiter`: makes sources pause before memory runs out.
//!
//! What is measured is the larger of two numbers: the bytes of data the agent holds, which it
//! knows exactly, and the resident memory of the process. Above the soft limit the processor
//! closes its admission: sources stop reading, nothing is thrown away, files are the buffer, and
//! what was read before passes. Requests, whose senders keep what they are not told of, go back to them.
//! When resident memory is high although no data is held, pausing
//! could not lower it, so sources go on in small steps instead of standing still for ever.
//!
//! One limiter is shared by all pipelines and shards that name the same processor. It measures
//! when data comes, at most once per `check_interval`, so an idle agent does no work for it.

mod config;
mod total;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pdata::Signal;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::{Factory, NodeCx, ProcessorFactory, ProcessorSettings};
use tailwater_pipeline::{
    Admission, Batch, Budget, BuildError, Outcome, Output, Part, Payload, Processor,
};
use tailwater_telemetry::logs::MEMORY_REFUSED;
use tailwater_telemetry::metrics::{
    MemoryLimiterMetrics, MemoryLimiterPointsMetrics, MemoryLimiterSpansMetrics, ProcessUsage,
};

pub use config::MemoryLimiterConfig;
pub use total::total_memory_bytes;

/// The factory of this processor.
pub fn factory() -> ProcessorFactory {
    Factory {
        kind: "memory_limiter",
        about: "Makes sources pause before memory runs out.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ProcessorSettings>> {
    let before = errors.len();
    let mut section = Section::new(node, path, errors);
    let settings = MemoryLimiterSettings::new(MemoryLimiterConfig::decode(&mut section));
    section.finish();
    (errors.len() == before).then(|| Box::new(settings) as Box<dyn ProcessorSettings>)
}

/// Where the limiter gets its numbers from.
pub trait MemoryProbe: Send + Sync {
    /// Resident memory of the process; 0 where the system does not say.
    fn resident_bytes(&self) -> u64;
}

/// The operating system's numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemProbe;

impl MemoryProbe for SystemProbe {
    fn resident_bytes(&self) -> u64 {
        ProcessUsage::read().map_or(0, |usage| usage.rss_bytes)
    }
}

/// The settings of one `memory_limiter`. Whatever is built from them shares one limiter.
#[derive(Debug)]
pub struct MemoryLimiterSettings {
    config: MemoryLimiterConfig,
    limiter: Mutex<Option<Arc<MemoryLimiter>>>,
}

impl MemoryLimiterSettings {
    /// Settings nothing was built from yet.
    pub fn new(config: MemoryLimiterConfig) -> MemoryLimiterSettings {
        MemoryLimiterSettings {
            config,
            limiter: Mutex::default(),
        }
    }

    /// The limiter for `total_bytes` of memory; made by the first call.
    fn limiter(
        &self,
        cx: &NodeCx,
        total_bytes: impl FnOnce() -> Option<u64>,
    ) -> Result<Arc<MemoryLimiter>, BuildError> {
        let mut shared = self.limiter.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(limiter) = &*shared {
            return Ok(limiter.clone());
        }
        let soft_bytes = self.config.soft_limit_bytes(total_bytes()).ok_or_else(|| {
            BuildError::new(
                format!("processor \"{}\"", cx.id),
                "cannot find out how much memory this process may use; set limit_mib instead of \
                 limit_percentage",
            )
        })?;
        let metrics = MemoryLimiterMetrics::new(&cx.metrics, &cx.id);
        let (held, probe) = (cx.budget.clone(), Box::new(SystemProbe));
        let limiter =
            MemoryLimiter::new(soft_bytes, self.config.check_interval, held, probe, metrics);
        *shared = Some(limiter.clone());
        Ok(limiter)
    }
}

impl ProcessorSettings for MemoryLimiterSettings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError> {
        let limiter = self.limiter(cx, total_memory_bytes)?;
        let items = Items::new(cx, &limiter);
        Ok(Box::new(MemoryLimiterProcessor { limiter, items }))
    }
}

/// One limiter, shared by every chain that names the processor.
pub struct MemoryLimiter {
    soft_bytes: u64,
    check_interval: Duration,
    held: Arc<Budget>,
    probe: Box<dyn MemoryProbe>,
    metrics: Arc<MemoryLimiterMetrics>,
    admission: AtomicU8,
    /// When memory is measured next.
    next_check_ns: AtomicU64,
}

impl MemoryLimiter {
    /// A limiter over the data in `held` and what `probe` says: from `soft_bytes` on sources pause,
    /// and memory is measured once per `check_interval` at most.
    pub fn new(
        soft_bytes: u64,
        check_interval: Duration,
        held: Arc<Budget>,
        probe: Box<dyn MemoryProbe>,
        metrics: Arc<MemoryLimiterMetrics>,
    ) -> Arc<MemoryLimiter> {
        metrics
            .soft_limit_bytes
            .set(i64::try_from(soft_bytes).unwrap_or(i64::MAX));
        Arc::new(MemoryLimiter {
            soft_bytes,
            check_interval,
            held,
            probe,
            metrics,
            admission: AtomicU8::new(Admission::Open as u8),
            next_check_ns: AtomicU64::new(0),
        })
    }

    /// Whether sources may read, as of the last measurement.
    pub fn admission(&self) -> Admission {
        match self.admission.load(Ordering::Acquire) {
            open if open == Admission::Open as u8 => Admission::Open,
            scarce if scarce == Admission::Scarce as u8 => Admission::Scarce,
            _ => Admission::Closed,
        }
    }

    /// Measures if it is time to, apart from `own` bytes of data held. Any number of threads may call it;
    /// one of them measures.
    fn check(&self, now: Mono, own: usize) {
        let due = self.next_check_ns.load(Ordering::Acquire);
        let next = now.after(self.check_interval).0;
        let mine = due <= now.0
            && self
                .next_check_ns
                .compare_exchange(due, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if mine {
            self.measure(own);
        }
    }

    fn measure(&self, own: usize) {
        // What has just come is not what pausing would free.
        let held = self.held.used_bytes().saturating_sub(own) as u64;
        let used = held.max(self.probe.resident_bytes());
        let admission = match used {
            below if below < self.soft_bytes => Admission::Open,
            _ if held == 0 => Admission::Scarce,
            _ => Admission::Closed,
        };
        self.metrics
            .used_bytes
            .set(i64::try_from(used).unwrap_or(i64::MAX));
        let limited = admission != Admission::Open;
        let before = self.admission.swap(admission as u8, Ordering::AcqRel);
        if limited != (before != Admission::Open as u8) {
            self.metrics.limited.set(i64::from(limited));
            let soft = self.soft_bytes;
            if limited {
                tracing::warn!(used, held, soft, "{MEMORY_REFUSED}; sources pause");
            } else {
                tracing::info!(used, held, soft, "Memory usage is back within its limit.");
            }
        }
    }
}

impl std::fmt::Debug for MemoryLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (soft, admission) = (self.soft_bytes, self.admission());
        write!(f, "MemoryLimiter({soft} bytes, {admission:?})")
    }
}

/// Where the items of a chain's signal are counted.
enum Items {
    Logs(Arc<MemoryLimiterMetrics>),
    Points(Arc<MemoryLimiterPointsMetrics>),
    Spans(Arc<MemoryLimiterSpansMetrics>),
}

impl Items {
    fn new(cx: &NodeCx, limiter: &MemoryLimiter) -> Items {
        match cx.signal {
            Some(Signal::Metrics) => {
                Items::Points(MemoryLimiterPointsMetrics::new(&cx.metrics, &cx.id))
            }
            Some(Signal::Traces) => {
                Items::Spans(MemoryLimiterSpansMetrics::new(&cx.metrics, &cx.id))
            }
            Some(Signal::Logs) | None => Items::Logs(limiter.metrics.clone()),
        }
    }

    fn accept(&self, items: u64) {
        match self {
            Items::Logs(m) => m.accepted_log_records.inc_by(items),
            Items::Points(m) => m.accepted_metric_points.inc_by(items),
            Items::Spans(m) => m.accepted_spans.inc_by(items),
        }
    }

    fn refuse(&self, items: u64) {
        match self {
            Items::Logs(m) => m.refused_log_records.inc_by(items),
            Items::Points(m) => m.refused_metric_points.inc_by(items),
            Items::Spans(m) => m.refused_spans.inc_by(items),
        }
    }
}

/// The limiter in one chain of one shard.
pub struct MemoryLimiterProcessor {
    limiter: Arc<MemoryLimiter>,
    items: Items,
}

impl MemoryLimiterProcessor {
    /// A processor of log records that follows `limiter`.
    pub fn new(limiter: Arc<MemoryLimiter>) -> MemoryLimiterProcessor {
        let items = Items::Logs(limiter.metrics.clone());
        MemoryLimiterProcessor { limiter, items }
    }
}

impl Processor for MemoryLimiterProcessor {
    fn process(&mut self, mut batch: Batch, out: &mut dyn Output) {
        self.limiter.check(out.now(), batch.bytes());
        if self.refuses() {
            // What is still as it came in a request can be sent again.
            let is_request = |part: &mut Part| matches!(part.data, Payload::Encoded(_));
            for part in batch.parts.extract_if(.., is_request) {
                self.items.refuse(part.data.items() as u64);
                part.ack.resolve(Outcome::Retry);
            }
        }
        if batch.is_empty() {
            return;
        }
        self.items.accept(batch.items() as u64);
        out.emit(batch);
    }

    fn refuses(&self) -> bool {
        self.limiter.admission() == Admission::Closed
    }

    fn admission(&self) -> Admission {
        self.limiter.admission()
    }

    /// Only while sources pause: nothing else would make the limiter look again.
    fn deadline(&self) -> Option<Mono> {
        let limited = self.limiter.admission() != Admission::Open;
        limited.then(|| Mono(self.limiter.next_check_ns.load(Ordering::Acquire)))
    }

    fn tick(&mut self, out: &mut dyn Output) {
        self.limiter.check(out.now(), 0);
    }
}

#[cfg(test)]
mod tests;
