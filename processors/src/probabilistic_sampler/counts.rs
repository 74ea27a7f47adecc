//! How many items were sampled and how many not, by what decided.

use std::sync::{Arc, OnceLock};

use tailwater_pdata::Signal;
use tailwater_pipeline::factory::NodeCx;
use tailwater_telemetry::metrics::{
    Counter, MetricsRegistry, SampledLogsMetrics, SampledSpansMetrics,
};

use super::sampler::{Judgement, Policy};

enum Group {
    Logs(Arc<SampledLogsMetrics>),
    Spans(Arc<SampledSpansMetrics>),
}

impl Group {
    fn counter(&self) -> &Counter {
        match self {
            Group::Logs(m) => &m.sampled,
            Group::Spans(m) => &m.sampled,
        }
    }
}

/// The counters of one processor. One that counted nothing is not shown.
pub(super) struct Sampled {
    registry: Arc<MetricsRegistry>,
    processor: Arc<str>,
    signal: Signal,
    /// Of the policy that is an attribute.
    attribute: Arc<str>,
    groups: [[OnceLock<Group>; 2]; Policy::COUNT],
}

/// What one batch adds.
#[derive(Default)]
pub(super) struct Tally([[u64; 2]; Policy::COUNT]);

impl Tally {
    /// Counts one item.
    pub fn add(&mut self, judgement: &Judgement) {
        self.0[judgement.policy as usize][usize::from(judgement.sampled)] += 1;
    }

    /// Items that were not sampled.
    pub fn dropped(&self) -> u64 {
        self.0.iter().map(|[dropped, _]| dropped).sum()
    }
}

impl Sampled {
    pub fn new(cx: &NodeCx, signal: Signal, attribute: Option<&Arc<str>>) -> Sampled {
        Sampled {
            registry: cx.metrics.clone(),
            processor: cx.id.clone(),
            signal,
            attribute: attribute.cloned().unwrap_or_default(),
            groups: Default::default(),
        }
    }

    pub fn count(&self, tally: &Tally) {
        for (policy, (groups, counts)) in Policy::ALL.iter().zip(self.groups.iter().zip(tally.0)) {
            for (sampled, (group, n)) in ["false", "true"].iter().zip(groups.iter().zip(counts)) {
                if n > 0 {
                    let group = group.get_or_init(|| self.group(*policy, sampled));
                    group.counter().inc_by(n);
                }
            }
        }
    }

    fn group(&self, policy: Policy, sampled: &str) -> Group {
        let policy = policy.name(&self.attribute);
        let (registry, processor) = (&self.registry, &self.processor);
        match self.signal {
            Signal::Traces => Group::Spans(SampledSpansMetrics::new(
                registry, processor, policy, sampled,
            )),
            _ => Group::Logs(SampledLogsMetrics::new(
                registry, processor, policy, sampled,
            )),
        }
    }
}
