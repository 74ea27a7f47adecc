//! What taking metrics out of a request and putting them back is judged by: `prost`.

use prost::Message;

use super::super::oracle as prosts;
use super::*;

/// Decodes and encodes all.
pub(in super::super) struct All {
    /// Attributes of points, too.
    pub attributes: bool,
}

impl Rewrite for All {
    fn scope<'a>(
        &mut self,
        _: ResourceMetrics<'a>,
        scope: ScopeMetrics<'a>,
    ) -> Option<Vec<Entry<'a>>> {
        let again = |metric| {
            let mut metric = Metric::of(metric);
            if self.attributes {
                metric.points.iter_mut().for_each(|p| {
                    p.attributes();
                });
                metric = metric.into_owned();
            }
            Entry::New(metric)
        };
        Some(scope.metrics().map(again).collect())
    }
}

/// What a request is without scopes that have no metrics, and resources that have no other scopes.
pub(super) fn without_empty(mut metrics: prosts::Metrics) -> prosts::Metrics {
    metrics.resource_metrics.retain_mut(|r| {
        let before = r.scope_metrics.len();
        r.scope_metrics.retain(|s| !s.metrics.is_empty());
        before == 0 || !r.scope_metrics.is_empty()
    });
    metrics
}

/// Takes all metrics of a request out and puts them back: to whoever decodes it, it is the same.
///
/// # Panics
///
/// If it is not.
pub(in super::super) fn agrees(whole: &Encoded) {
    let mut again = whole.clone();
    again.rewrite(&mut All { attributes: false });
    assert_eq!(again.items(), whole.items());
    let before = prosts::Metrics::decode(whole.body()).expect("it was parsed");
    let after = prosts::Metrics::decode(again.body()).expect("still a request");
    // Numbers that are none are not equal to themselves.
    let (before, after) = (format!("{:?}", without_empty(before)), format!("{after:?}"));
    assert_eq!(after, before);
}
