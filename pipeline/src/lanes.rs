//! Lanes: a destination's own way from the sources to it.
//!
//! A receiver is read once for each exporter that it reaches, and each reading has chains, positions
//! and budgets of its own. So no destination waits for another one: what one does not take is read
//! later by its lane alone. A receiver that reaches a single exporter has a single lane, which is then
//! the receiver itself: nothing tells it apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use tailwater_pdata::Signal;
use tailwater_telemetry::metrics::MetricsRegistry;

use crate::budget::Budget;

/// The label that says which exporter a lane serves, where there are several.
pub const LANE_LABEL: &str = "exporter";

/// One reading of a receiver.
#[derive(Clone)]
pub struct Lane {
    /// The exporter at its end.
    pub exporter: Arc<str>,
    /// Where its metrics are registered; with [`LANE_LABEL`] unless it is the only lane.
    pub metrics: Arc<MetricsRegistry>,
    /// Memory for its records under way: a part that lanes to other exporters do not use.
    pub budget: Arc<Budget>,
    /// It was the receiver's only lane when it began.
    pub alone: bool,
    /// The signals whose pipelines it feeds, each once.
    pub signals: Vec<Signal>,
}

impl Lane {
    /// Whether it does what `other` does, under whatever name: for the same exporter, with the same
    /// signals.
    pub fn is_like(&self, other: &Lane) -> bool {
        (&self.exporter, &self.signals) == (&other.exporter, &other.signals)
    }

    /// What the lane of `receiver` is called in messages.
    pub fn name(&self, receiver: &str) -> String {
        if self.alone {
            return receiver.to_owned();
        }
        format!("{receiver} to {}", self.exporter)
    }
}

/// A pipeline: which components, by their ids, in which order.
#[derive(Clone)]
pub(crate) struct Wiring {
    pub id: String,
    pub signal: Signal,
    pub receivers: Vec<String>,
    pub processors: Vec<String>,
    pub exporters: Vec<String>,
}

impl Wiring {
    /// The exporters it ends in: a chain for each.
    pub fn ends(&self) -> impl Iterator<Item = &str> {
        self.exporters.iter().map(String::as_str)
    }

    /// The id of the chain that ends in `exporter`.
    pub fn chain_id(&self, exporter: &str) -> Arc<str> {
        match self.exporters.len() {
            1 => self.id.as_str().into(),
            _ => format!("{} to {exporter}", self.id).into(),
        }
    }

    /// Where the metrics of the chain that ends in `exporter` are registered.
    pub fn metrics(&self, exporter: &str, all: &Arc<MetricsRegistry>) -> Arc<MetricsRegistry> {
        scope(all, exporter, self.exporters.len() == 1)
    }
}

fn scope(all: &Arc<MetricsRegistry>, exporter: &str, alone: bool) -> Arc<MetricsRegistry> {
    if alone {
        return all.clone();
    }
    Arc::new(all.scoped(LANE_LABEL, exporter))
}

/// The lanes of a receiver, each with the ids of the chains it feeds, in order of exporters.
pub(crate) fn lanes(
    receiver: &str,
    pipelines: &[Wiring],
    metrics: &Arc<MetricsRegistry>,
    budget: impl Fn(&str) -> Arc<Budget>,
) -> Vec<(Lane, Vec<Arc<str>>)> {
    let fed = || {
        let fed = |w: &&Wiring| w.receivers.iter().any(|r| r == receiver);
        pipelines.iter().filter(fed)
    };
    let exporters: BTreeSet<&String> = fed().flat_map(|w| &w.exporters).collect();
    let alone = exporters.len() == 1;
    let lane = |exporter: &String| {
        let chains = || fed().filter(|w| w.exporters.contains(exporter));
        let signals: BTreeSet<Signal> = chains().map(|w| w.signal).collect();
        let chains = chains().map(|w| w.chain_id(exporter)).collect();
        let lane = Lane {
            exporter: exporter.as_str().into(),
            metrics: scope(metrics, exporter, alone),
            budget: budget(exporter),
            alone,
            signals: signals.into_iter().collect(),
        };
        (lane, chains)
    };
    exporters.into_iter().map(lane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wiring(id: &str, receivers: &[&str], exporters: &[&str]) -> Wiring {
        let owned = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect();
        Wiring {
            id: id.to_owned(),
            signal: Signal::Logs,
            receivers: owned(receivers),
            processors: Vec::new(),
            exporters: owned(exporters),
        }
    }

    fn shape(receiver: &str, pipelines: &[Wiring]) -> Vec<(String, Vec<String>)> {
        let (metrics, budget) = (Arc::new(MetricsRegistry::default()), Budget::new(1));
        let lanes = lanes(receiver, pipelines, &metrics, |_| budget.clone());
        let text = |(lane, chains): (Lane, Vec<Arc<str>>)| {
            (
                lane.name(receiver),
                chains.iter().map(|c| c.to_string()).collect(),
            )
        };
        lanes.into_iter().map(text).collect()
    }

    /// Guarantee: a lane per exporter, through all pipelines that lead to it; one exporter is the
    /// receiver itself, however many pipelines there are.
    #[test]
    fn a_receiver_has_a_lane_for_each_exporter_it_reaches() {
        let pipelines = [
            wiring("logs", &["a", "b"], &["loki", "debug"]),
            wiring("logs/2", &["a"], &["loki"]),
            wiring("logs/3", &["c"], &["loki"]),
            wiring("logs/4", &["c"], &["loki"]),
        ];
        let own = |name: &str, chains: &[&str]| {
            let chains = chains.iter().map(|c| c.to_string()).collect();
            (name.to_owned(), chains)
        };
        let of_a = [
            own("a to debug", &["logs to debug"]),
            own("a to loki", &["logs to loki", "logs/2"]),
        ];
        assert_eq!(shape("a", &pipelines), of_a);
        let of_b = [
            own("b to debug", &["logs to debug"]),
            own("b to loki", &["logs to loki"]),
        ];
        assert_eq!(shape("b", &pipelines), of_b);
        assert_eq!(shape("c", &pipelines), [own("c", &["logs/3", "logs/4"])]);
        assert_eq!(shape("d", &pipelines), []);
    }
}
