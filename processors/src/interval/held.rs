//! Points that wait, in the order in which their streams came.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::metrics::{self, Point as View, ResourceMetrics, ScopeMetrics};
use tailwater_pdata::otlp::rewrite::{Metric, Point, put_metric, put_resource, put_scope};
use tailwater_pipeline::{AckToken, Outcome, Permit};

use crate::streams::{Identity, Place, StreamId};

/// The newest points of all streams since the last time they were taken out.
#[derive(Default)]
pub(super) struct Held {
    resources: Vec<Resource>,
    /// Where resources, scopes and metrics are in what they are in.
    places: HashMap<Place, usize>,
    streams: HashMap<StreamId, usize>,
    bytes: usize,
    /// For so many bytes.
    pub permit: Permit,
}

struct Resource {
    heading: Vec<u8>,
    scopes: Vec<Scope>,
}

struct Scope {
    heading: Vec<u8>,
    metrics: Vec<HeldMetric>,
}

struct HeldMetric {
    metric: Metric<'static>,
    /// Whoever waits for each of its points.
    duties: Vec<Option<AckToken>>,
}

/// What became of a point and the one of its stream that was held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Newest {
    /// It is the first one.
    First,
    /// It is newer, or comes again; the other one is left out.
    Incoming,
    /// The other one is newer; it is left out itself.
    Held,
}

impl Held {
    /// Number of streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of memory, within a few percent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The place of a metric, which is made if need be.
    pub fn metric<'h>(
        &'h mut self,
        identity: &Identity,
        resource: ResourceMetrics<'_>,
        scope: ScopeMetrics<'_>,
        metric: metrics::Metric<'_>,
    ) -> MetricPlace<'h> {
        let of_resource = identity.resource(resource);
        let of_scope = identity.scope(of_resource, scope);
        let id = identity.metric(of_scope, &metric);
        let resource = match self.places.entry(of_resource) {
            Entry::Occupied(at) => &mut self.resources[*at.get()],
            Entry::Vacant(place) => {
                place.insert(self.resources.len());
                let heading = resource.heading();
                self.bytes += heading.len() + size_of::<Resource>();
                let scopes = Vec::new();
                self.resources.push_mut(Resource { heading, scopes })
            }
        };
        let scope = match self.places.entry(of_scope) {
            Entry::Occupied(at) => &mut resource.scopes[*at.get()],
            Entry::Vacant(place) => {
                place.insert(resource.scopes.len());
                let heading = scope.heading();
                self.bytes += heading.len() + size_of::<Scope>();
                let metrics = Vec::new();
                resource.scopes.push_mut(Scope { heading, metrics })
            }
        };
        let metric = match self.places.entry(id) {
            Entry::Occupied(at) => &mut scope.metrics[*at.get()],
            Entry::Vacant(place) => {
                place.insert(scope.metrics.len());
                let metric = Metric::without_points(metric).into_heading();
                self.bytes += metric.heap_bytes() + size_of::<HeldMetric>();
                let duties = Vec::new();
                scope.metrics.push_mut(HeldMetric { metric, duties })
            }
        };
        MetricPlace {
            id,
            held: metric,
            streams: &mut self.streams,
            bytes: &mut self.bytes,
        }
    }

    /// All of it, by resource: a request, and whoever waits for its points.
    pub fn into_resources(self) -> impl Iterator<Item = (Encoded, Vec<AckToken>)> {
        self.resources.into_iter().map(|resource| {
            let mut body = Vec::new();
            put_resource(&mut body, &resource.heading, |out| {
                for scope in &resource.scopes {
                    put_scope(out, &scope.heading, |out| {
                        let metrics = scope.metrics.iter();
                        metrics.for_each(|m| put_metric(out, &m.metric));
                    });
                }
            });
            let metrics = resource.scopes.into_iter().flat_map(|s| s.metrics);
            let duties = metrics.flat_map(|m| m.duties).flatten();
            (Encoded::of_metrics(body), duties.collect())
        })
    }
}

/// A metric of one resource and scope.
pub(super) struct MetricPlace<'h> {
    id: Place,
    held: &'h mut HeldMetric,
    streams: &'h mut HashMap<StreamId, usize>,
    bytes: &'h mut usize,
}

impl MetricPlace<'_> {
    /// The metric.
    pub fn id(&self) -> Place {
        self.id
    }

    /// Holds a point if it is the newest of its stream; `ack` is whoever waits for it. The duty of the
    /// one that was held instead is resolved.
    pub fn hold(&mut self, id: StreamId, point: View<'_>, ack: Option<&AckToken>) -> Newest {
        let HeldMetric { metric, duties } = &mut *self.held;
        let at = match self.streams.entry(id) {
            Entry::Occupied(at) => *at.get(),
            Entry::Vacant(place) => {
                place.insert(metric.points.len());
                let point = Point::of(point).into_owned();
                *self.bytes += point.heap_bytes() + 2 * size_of::<(StreamId, usize)>();
                metric.points.push(point);
                duties.push(ack.cloned());
                return Newest::First;
            }
        };
        let held = &mut metric.points[at];
        let time_ns = point.head().time_ns;
        if time_ns < held.time_ns {
            return Newest::Held;
        }
        // One that comes again is the same; but who sends it again does not wait for the first one any
        // more.
        if time_ns > held.time_ns {
            *self.bytes -= held.heap_bytes();
            *held = Point::of(point).into_owned();
            *self.bytes += held.heap_bytes();
        }
        if let Some(before) = std::mem::replace(&mut duties[at], ack.cloned()) {
            before.count_filtered(1);
            before.resolve(Outcome::Filtered);
        }
        Newest::Incoming
    }
}
