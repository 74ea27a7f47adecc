//! The counts of one batch.

use std::collections::HashMap;

use tailwater_ottl::Context;
use tailwater_pdata::otlp::Count;
use tailwater_pdata::{Map, Value};

/// Counts by resource, metric and attributes.
pub(super) struct Counter {
    definitions: usize,
    resources: Vec<Resource>,
    /// Where a resource is, by its attributes in order of keys.
    places: HashMap<Vec<u8>, usize>,
}

struct Resource {
    attributes: Map,
    /// By what was counted: the first and the last time of it.
    times: Vec<(Context, u64, u64)>,
    /// By definition.
    counts: Vec<Counts>,
}

/// The counts of one metric.
#[derive(Default)]
struct Counts {
    context: Option<Context>,
    all: Vec<(Map, u64)>,
    /// Where a count is, by its attributes.
    places: HashMap<Vec<u8>, usize>,
}

/// The counts of one resource, by definition.
pub(super) struct Kept {
    pub resource: Map,
    pub counts: Vec<Vec<Count>>,
}

/// Attributes as bytes that are equal if they are.
fn identity<'a>(attributes: impl Iterator<Item = (&'a str, &'a Value)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in attributes {
        let value = value.as_ref();
        let from = out.len();
        out.extend_from_slice(key.as_bytes());
        out.push(0xff);
        out.extend_from_slice(value.kind_name().as_bytes());
        out.push(0xff);
        value.write_string(&mut out);
        let len = (out.len() - from) as u64;
        out.extend_from_slice(&len.to_le_bytes());
    }
    out
}

impl Counter {
    pub fn new(definitions: usize) -> Counter {
        Counter {
            definitions,
            resources: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// The number of a resource with these attributes.
    pub fn resource(&mut self, attributes: &Map) -> usize {
        let mut sorted: Vec<(&str, &Value)> = attributes.iter().map(|(k, v)| (&**k, v)).collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        let (resources, definitions) = (&mut self.resources, self.definitions);
        *self
            .places
            .entry(identity(sorted.into_iter()))
            .or_insert_with(|| {
                resources.push(Resource {
                    attributes: attributes.clone(),
                    times: Vec::new(),
                    counts: (0..definitions).map(|_| Counts::default()).collect(),
                });
                resources.len() - 1
            })
    }

    /// Something that is counted was at this time, in ns since 1970; 0 is none.
    pub fn time(&mut self, resource: usize, context: Context, ns: u64) {
        if ns == 0 {
            return;
        }
        let times = &mut self.resources[resource].times;
        match times.iter_mut().find(|(of, _, _)| *of == context) {
            Some((_, first, last)) => (*first, *last) = (ns.min(*first), ns.max(*last)),
            None => times.push((context, ns, ns)),
        }
    }

    /// Counts so many for a definition.
    pub fn add(
        &mut self,
        resource: usize,
        (context, definition): (Context, usize),
        attributes: &[(&str, Value)],
        number: u64,
    ) {
        let counts = &mut self.resources[resource].counts[definition];
        counts.context = Some(context);
        let key = match attributes {
            [] => Vec::new(),
            all => identity(all.iter().map(|(k, v)| (*k, v))),
        };
        let all = &mut counts.all;
        let at = *counts.places.entry(key).or_insert_with(|| {
            let map = attributes.iter().map(|(k, v)| (*k, v.clone())).collect();
            all.push((map, 0));
            all.len() - 1
        });
        all[at].1 += number;
    }

    /// What was counted, without resources of which nothing was. What has no time gets `now_ns`.
    pub fn into_kept(self, now_ns: i64) -> Vec<Kept> {
        let now = now_ns.max(0).cast_unsigned();
        let kept = self.resources.into_iter().map(|resource| {
            let times = &resource.times;
            let counts = resource.counts.into_iter().map(|counts| {
                let of = times.iter().find(|t| Some(t.0) == counts.context);
                let (start_ns, end_ns) = of.map_or((now, now), |(_, first, last)| (*first, *last));
                let count = |(attributes, count)| Count {
                    attributes,
                    count,
                    start_ns,
                    end_ns,
                };
                counts.all.into_iter().map(count).collect()
            });
            Kept {
                counts: counts.collect(),
                resource: resource.attributes,
            }
        });
        kept.filter(|k: &Kept| k.counts.iter().any(|c| !c.is_empty()))
            .collect()
    }
}
