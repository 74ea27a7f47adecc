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
#[derive(Clone, Debug)]
pub(crate) struct Wiring {
    pub id: String,
    pub signal: Signal,
    pub receivers: Vec<String>,
    pub processors: Vec<String>,
    /// Its own exporters.
    pub exporters: Vec<String>,
    /// The connectors it ends in.
    pub connectors: Vec<Onward>,
    /// Its own exporters, and those behind its connectors, each once.
    pub reaches: Vec<String>,
}

/// A connector, and the pipelines of its signal that begin with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Onward {
    pub connector: String,
    pub pipelines: Vec<String>,
}

impl Wiring {
    /// The exporters it leads to: a chain for each.
    pub fn ends(&self) -> impl Iterator<Item = &str> {
        self.reaches.iter().map(String::as_str)
    }

    /// Whether it leads to `exporter`.
    pub fn leads_to(&self, exporter: &str) -> bool {
        self.ends().any(|e| e == exporter)
    }

    /// The id of the chain that ends in `exporter`.
    pub fn chain_id(&self, exporter: &str) -> Arc<str> {
        match self.reaches.len() {
            1 => self.id.as_str().into(),
            _ => format!("{} to {exporter}", self.id).into(),
        }
    }

    /// Where the metrics of the chain that ends in `exporter` are registered.
    pub fn metrics(&self, exporter: &str, all: &Arc<MetricsRegistry>) -> Arc<MetricsRegistry> {
        scope(all, exporter, self.reaches.len() == 1)
    }
}

/// Puts pipelines behind those that lead to them, and says of each which exporters it reaches. They must
/// not run in circles.
pub(crate) fn in_order(pipelines: Vec<Wiring>) -> Vec<Wiring> {
    let mut waiting = pipelines;
    let mut order: Vec<Wiring> = Vec::with_capacity(waiting.len());
    // From the ends: what a pipeline leads to is known before it.
    while !waiting.is_empty() {
        let is_open = |w: &Wiring| {
            let mut behind = w.connectors.iter().flat_map(|c| &c.pipelines);
            behind.any(|id| waiting.iter().any(|other| other.id == *id))
        };
        let open: Vec<bool> = waiting.iter().map(is_open).collect();
        let before = order.len();
        let mut rest = Vec::new();
        for (mut w, open) in waiting.into_iter().zip(open).rev() {
            if open {
                rest.push(w);
                continue;
            }
            let mut reaches: Vec<String> = Vec::new();
            let behind = w.connectors.iter().flat_map(|c| &c.pipelines);
            let behind = behind.filter_map(|id| order.iter().find(|other| other.id == *id));
            let all = w.exporters.iter().chain(behind.flat_map(|b| &b.reaches));
            for exporter in all {
                if !reaches.contains(exporter) {
                    reaches.push(exporter.clone());
                }
            }
            w.reaches = reaches;
            order.push(w);
        }
        rest.reverse();
        waiting = rest;
        if order.len() == before {
            debug_assert!(false, "pipelines run in circles");
            break;
        }
    }
    order.reverse();
    order
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
    let exporters: BTreeSet<&String> = fed().flat_map(|w| &w.reaches).collect();
    let alone = exporters.len() == 1;
    let lane = |exporter: &String| {
        let chains = || fed().filter(|w| w.leads_to(exporter));
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
            connectors: Vec::new(),
            reaches: owned(exporters),
        }
    }

    /// One that ends in a connector, too, which leads to `pipelines`.
    fn onward(id: &str, receivers: &[&str], exporters: &[&str], pipelines: &[&str]) -> Wiring {
        Wiring {
            connectors: vec![Onward {
                connector: "forward".into(),
                pipelines: pipelines.iter().map(|p| p.to_string()).collect(),
            }],
            ..wiring(id, receivers, exporters)
        }
    }

    /// Guarantee: what is behind a pipeline stands behind it, and what nothing leads to stays in the
    /// order as written; a receiver has a lane to each exporter behind connectors, by chains of the
    /// pipelines that it feeds.
    #[test]
    fn what_is_behind_connectors_is_reached() {
        let pipelines = in_order(vec![
            wiring("logs/end", &[], &["loki", "otlp"]),
            wiring("logs/alone", &["b"], &["loki"]),
            onward("logs/mid", &[], &["file"], &["logs/end"]),
            onward("logs/begin", &["a"], &["loki"], &["logs/mid", "logs/end"]),
        ]);
        let order: Vec<&str> = pipelines.iter().map(|w| &*w.id).collect();
        assert_eq!(order, ["logs/begin", "logs/mid", "logs/end", "logs/alone"]);
        let reaches: Vec<_> = pipelines.iter().map(|w| w.reaches.join(" ")).collect();
        assert_eq!(
            reaches,
            ["loki file otlp", "file loki otlp", "loki otlp", "loki"]
        );
        let lanes = shape("a", &pipelines);
        let names: Vec<&str> = lanes.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a to file", "a to loki", "a to otlp"]);
        assert_eq!(lanes[2].1, ["logs/begin to otlp"]);
        assert_eq!(
            shape("b", &pipelines),
            [("b".into(), vec!["logs/alone".into()])]
        );
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
