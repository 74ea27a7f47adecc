//! Changing metrics: which there are, what they are called, and their points.
//!
//! [`Encoded::rewrite`] shows a [`Rewrite`] each scope as it lies in the bytes. What it leaves alone is
//! not copied. What it changes it takes as [`Metric`]s: these know what processors work on, and keep
//! the rest of the message as the bytes it is, so that nothing is lost on the way, unknown fields
//! included.
//!
//! ```
//! use tailwater_pdata::Signal;
//! use tailwater_pdata::otlp::metrics::{ResourceMetrics, ScopeMetrics};
//! use tailwater_pdata::otlp::rewrite::{Entry, Metric, Rewrite};
//! use tailwater_pdata::otlp::{Encoded, Limits};
//! struct Rename;
//! impl Rewrite for Rename {
//!     fn scope<'a>(&mut self, _: ResourceMetrics<'a>, scope: ScopeMetrics<'a>) -> Option<Vec<Entry<'a>>> {
//!         let rename = |metric| {
//!             let mut metric = Metric::of(metric);
//!             metric.name = "b".into();
//!             Entry::New(metric)
//!         };
//!         Some(scope.metrics().map(rename).collect())
//!     }
//! }
//! // resource_metrics { scope_metrics { metrics { name: "a" } } }
//! let body = b"\x0a\x07\x12\x05\x12\x03\x0a\x01a".as_slice().into();
//! let mut metrics = Encoded::parse(Signal::Metrics, body, &Limits::default())?;
//! metrics.rewrite(&mut Rename);
//! assert_eq!(&metrics.body()[..], b"\x0a\x07\x12\x05\x12\x03\x0a\x01b");
//! # Ok::<(), tailwater_pdata::otlp::WireError>(())
//! ```

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod metric;
mod point;

pub(super) use metric::DATA;
pub use metric::Metric;
pub(super) use point::zigzag;
pub use point::{Buckets, Exponential, Histogram, Point, PointValue};

use super::Encoded;
use super::edit::{one, replace};
use super::metrics::{ResourceMetrics, ScopeMetrics};
use super::schema;
use super::split::count;
use super::value::{Entries, put_map};
use super::wire::{Fields, Open, Raw, put_bytes, varint_len};
use crate::Signal;
use crate::value::Value;

/// A metric of a scope that was changed.
pub enum Entry<'a> {
    /// As it was.
    Same(super::metrics::Metric<'a>),
    /// As it has become.
    New(Metric<'a>),
}

/// Somebody who changes metrics.
pub trait Rewrite {
    /// Each resource, before its scopes.
    fn resource(&mut self, resource: ResourceMetrics<'_>) {
        let _ = resource;
    }

    /// Each scope. `None` leaves it as it is; otherwise its metrics are those given, and without any
    /// it is left out.
    fn scope<'a>(
        &mut self,
        resource: ResourceMetrics<'a>,
        scope: ScopeMetrics<'a>,
    ) -> Option<Vec<Entry<'a>>>;
}

impl Encoded {
    /// Lets `by` change the metrics. Resources of which all scopes were left out are left out, too.
    /// Does nothing to a request of another signal.
    pub fn rewrite(&mut self, by: &mut dyn Rewrite) {
        if self.signal() != Signal::Metrics {
            return;
        }
        let mut new = Encoded::empty(Signal::Metrics);
        for chunk in self.parts() {
            let root = schema::request(Signal::Metrics);
            chunk.with_fields_replaced(root, &mut new, |found, out| {
                let Some(resource) = rewrite_resource(&found.field[found.at..], by) else {
                    return false;
                };
                if !resource.is_empty() {
                    put_bytes(out, found.number, &resource);
                }
                true
            });
        }
        *self = new;
    }

    /// A request of metrics made by [`put_resource`].
    pub fn of_metrics(body: Vec<u8>) -> Encoded {
        let items = count(schema::request(Signal::Metrics), &body);
        Encoded::known(Signal::Metrics, body.into(), items)
    }
}

/// What becomes of a resource with its metrics; empty if nothing stays. `None` = it stays as it is.
fn rewrite_resource(buf: &[u8], by: &mut dyn Rewrite) -> Option<Vec<u8>> {
    by.resource(ResourceMetrics(buf));
    let (mut out, mut start, mut scopes) = (None, 0, 0);
    let mut fields = Fields::new(buf, 0);
    loop {
        let from = fields.at();
        let Some((number, raw)) = fields.next() else {
            break;
        };
        let (2, Raw::Len(at, to)) = (number, raw) else {
            continue;
        };
        let scope = ScopeMetrics::of(&buf[at..to]);
        let Some(metrics) = by.scope(ResourceMetrics(buf), scope) else {
            scopes += 1;
            continue;
        };
        let out = out.get_or_insert_with(|| Vec::with_capacity(buf.len() + 64));
        out.extend_from_slice(&buf[start..from]);
        start = to;
        if !metrics.is_empty() {
            scopes += 1;
            put_scope(out, &scope.heading(), |out| {
                metrics.iter().for_each(|entry| put_entry(out, entry));
            });
        }
    }
    let mut out: Vec<u8> = out?;
    if scopes == 0 {
        return Some(Vec::new());
    }
    out.extend_from_slice(&buf[start..]);
    Some(out)
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    match entry {
        Entry::Same(metric) => put_bytes(out, 2, metric.buf),
        Entry::New(metric) => put_metric(out, metric),
    }
}

/// Appends a resource with its metrics to a request: `heading` is that of a [`ResourceMetrics`],
/// `scopes` appends what is in it by [`put_scope`].
pub fn put_resource(out: &mut Vec<u8>, heading: &[u8], scopes: impl FnOnce(&mut Vec<u8>)) {
    let open = Open::field(out, 1, 3);
    out.extend_from_slice(heading);
    scopes(out);
    open.close(out);
}

/// Appends a scope with its metrics to a resource: `heading` is that of a [`ScopeMetrics`],
/// `metrics` appends what is in it by [`put_metric`].
pub fn put_scope(out: &mut Vec<u8>, heading: &[u8], metrics: impl FnOnce(&mut Vec<u8>)) {
    let open = Open::field(out, 2, 3);
    out.extend_from_slice(heading);
    metrics(out);
    open.close(out);
}

/// Appends a metric to a scope.
pub fn put_metric(out: &mut Vec<u8>, metric: &Metric<'_>) {
    let open = Open::field(out, 2, 2);
    metric.write(out);
    open.close(out);
}

/// The fields of `buf` but those with number `except`.
fn fields_except(buf: &[u8], except: u32) -> Vec<u8> {
    let mut out = Vec::new();
    copy_except(buf, &[except], &mut out);
    out
}

/// Appends the fields of `buf` but those with the numbers `except`.
pub(super) fn copy_except(buf: &[u8], except: &[u32], out: &mut Vec<u8>) {
    let mut start = 0;
    let mut fields = Fields::new(buf, 0);
    loop {
        let from = fields.at();
        let Some((number, _)) = fields.next() else {
            break;
        };
        if except.contains(&number) {
            out.extend_from_slice(&buf[start..from]);
            start = fields.at();
        }
    }
    out.extend_from_slice(&buf[start..fields.at()]);
}

impl ResourceMetrics<'_> {
    /// All it has besides scopes, for [`put_resource`].
    pub fn heading(self) -> Vec<u8> {
        fields_except(self.0, 2)
    }

    /// The same, with attributes of the resource set.
    pub fn heading_with<'v>(self, set: impl Iterator<Item = (&'v str, Value)>) -> Vec<u8> {
        let mut out = Vec::new();
        copy_except(self.0, &[1, 2], &mut out);
        let resource = one(self.0, 1);
        let mut attributes = Entries::default();
        attributes.decode(&resource, 1);
        for (key, value) in set {
            attributes.add(key.into(), value);
        }
        let open = Open::field(&mut out, 1, varint_len(resource.len() as u64).min(5));
        replace(&resource, 1, &mut out, |out| {
            put_map(out, 1, &attributes.into_map());
        });
        open.close(&mut out);
        out
    }
}

impl ScopeMetrics<'_> {
    /// All it has besides metrics, for [`put_scope`].
    pub fn heading(&self) -> Vec<u8> {
        fields_except(self.buf, 2)
    }
}

#[cfg(test)]
mod tests;
