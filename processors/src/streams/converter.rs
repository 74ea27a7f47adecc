//! The half of a processor that all have in common which turn each point of a stream into another one,
//! by what they remember of the stream.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_pdata::otlp::metrics::{Metric, ResourceMetrics, ScopeMetrics, Temporality};
use tailwater_pdata::otlp::rewrite::{Entry, Metric as Changed, Point, Rewrite};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::{Batch, Budget, Output, Part, Payload, Processor};

use super::{Chains, Identity, Place, Returns, StreamId, Streams};

/// What one of them does.
pub trait Conversion: Send + Sync {
    /// What is remembered of a stream.
    type Last: Send;

    /// What time converted points are about.
    const TEMPORALITY: Temporality;

    /// Streams at most, and how long they are remembered.
    fn limits(&self) -> (usize, Duration);

    /// Whether the points of a metric are converted.
    fn applies(&self, metric: &Metric<'_>) -> bool;

    /// What becomes of a point; `None` leaves it out. Says why by its meters.
    fn convert<'a>(
        &self,
        streams: &mut Streams<Self::Last>,
        id: StreamId,
        point: Point<'a>,
        now: Mono,
    ) -> Option<Point<'a>>;

    /// A point that was passed on was not delivered.
    fn returned(&self, last: &mut Self::Last, point: Point<'_>);

    /// Shows how much is remembered.
    fn observe(&self, streams: usize);
}

/// What all shards of a chain have in common.
pub struct Shared<C: Conversion> {
    conversion: C,
    identity: Identity,
    streams: Mutex<Streams<C::Last>>,
    returns: Arc<Returns>,
    /// When streams are to be forgotten next; `u64::MAX`: not at all.
    sweep_at: AtomicU64,
}

impl<C: Conversion> Shared<C> {
    fn new(conversion: C, seed: u64) -> Shared<C> {
        let (max, stale_after) = conversion.limits();
        Shared {
            conversion,
            identity: Identity::new(seed),
            streams: Mutex::new(Streams::new(max, stale_after)),
            returns: Arc::default(),
            sweep_at: AtomicU64::new(u64::MAX),
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams<C::Last>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what came back.
    fn settle(&self, streams: &mut Streams<C::Last>) {
        for encoded in self.returns.take() {
            self.identity.each_point(&encoded, |id, point| {
                if let Some(last) = streams.get_mut(id) {
                    self.conversion.returned(last, Point::of(point));
                }
            });
        }
    }

    fn observe(&self, streams: &Streams<C::Last>) {
        self.conversion.observe(streams.len());
        let at = streams.next_sweep().map_or(u64::MAX, |at| at.0);
        self.sweep_at.store(at, Ordering::Release);
    }
}

/// The instance of one shard.
pub struct Converter<C: Conversion> {
    shared: Arc<Shared<C>>,
    budget: Arc<Budget>,
}

impl<C: Conversion> Converter<C> {
    /// An instance for the chain of `cx`; `make` is called for the first of its shards.
    pub fn new(chains: &Chains<Shared<C>>, cx: &NodeCx, make: impl FnOnce() -> C) -> Converter<C> {
        Converter {
            shared: chains.of(cx, || Shared::new(make(), cx.seed)),
            budget: cx.budget.clone(),
        }
    }

    fn convert(&self, mut part: Part, now: Mono) -> Option<Part> {
        let Payload::Encoded(encoded) = &mut part.data else {
            return Some(part);
        };
        let before = encoded.items();
        let mut streams = self.shared.streams();
        self.shared.settle(&mut streams);
        let mut request = Request {
            shared: &self.shared,
            streams: &mut streams,
            now,
            resource: None,
            changed: false,
        };
        encoded.rewrite(&mut request);
        let changed = request.changed;
        self.shared.observe(&streams);
        drop(streams);
        let dropped = before.saturating_sub(encoded.items());
        part.ack
            .count_filtered(u32::try_from(dropped).unwrap_or(u32::MAX));
        let part = part.non_empty()?;
        Some(match changed {
            true => self.shared.returns.watch(part, &self.budget),
            false => part,
        })
    }
}

impl<C: Conversion> Processor for Converter<C> {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        let now = out.now();
        let parts = batch.parts.into_iter();
        let parts: Vec<Part> = parts.filter_map(|part| self.convert(part, now)).collect();
        if !parts.is_empty() {
            out.emit(Batch { parts });
        }
    }

    fn deadline(&self) -> Option<Mono> {
        match self.shared.sweep_at.load(Ordering::Acquire) {
            u64::MAX => None,
            at => Some(Mono(at)),
        }
    }

    fn tick(&mut self, out: &mut dyn Output) {
        let mut streams = self.shared.streams();
        streams.expire(out.now());
        self.shared.observe(&streams);
    }
}

/// One request on its way through.
struct Request<'s, C: Conversion> {
    shared: &'s Shared<C>,
    streams: &'s mut Streams<C::Last>,
    now: Mono,
    /// The resource of now; known once something is converted there.
    resource: Option<Place>,
    changed: bool,
}

impl<C: Conversion> Request<'_, C> {
    fn metric<'a>(&mut self, at: Place, metric: Metric<'a>) -> Option<Changed<'a>> {
        let Shared {
            identity,
            conversion,
            ..
        } = self.shared;
        let at = identity.metric(at, &metric);
        let mut new = Changed::without_points(metric);
        new.set_temporality(C::TEMPORALITY);
        for found in metric.points() {
            let id = identity.point(at, &found);
            let point = conversion.convert(self.streams, id, Point::of(found), self.now);
            new.points.extend(point);
        }
        (!new.points.is_empty()).then_some(new)
    }
}

impl<C: Conversion> Rewrite for Request<'_, C> {
    fn resource(&mut self, _: ResourceMetrics<'_>) {
        self.resource = None;
    }

    fn scope<'a>(
        &mut self,
        resource: ResourceMetrics<'a>,
        scope: ScopeMetrics<'a>,
    ) -> Option<Vec<Entry<'a>>> {
        let conversion = &self.shared.conversion;
        if !scope.metrics().any(|m| conversion.applies(&m)) {
            return None;
        }
        self.changed = true;
        let identity = &self.shared.identity;
        let around = self
            .resource
            .get_or_insert_with(|| identity.resource(resource));
        let at = identity.scope(*around, scope);
        let mut entries = Vec::new();
        for metric in scope.metrics() {
            if conversion.applies(&metric) {
                entries.extend(self.metric(at, metric).map(Entry::New));
            } else {
                entries.push(Entry::Same(metric));
            }
        }
        Some(entries)
    }
}
