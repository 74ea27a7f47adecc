//! The registry: which groups exist, and what a scrape answers.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};

use super::exposition::{Exposition, render};
use super::family::{Family, Gather, Kind, Labels, Level, Unit};
use super::group::{AnyGroup, Group};

/// Series a registry shows at most, when nothing else is said.
pub const SERIES_MAX_DEFAULT: usize = 20_000;

pub(crate) const SERIES_REFUSED: Family = Family {
    name: "tailwater_series_refused",
    help: "Groups of series that were not shown because the limit of series was reached.",
    kind: Kind::Counter,
    unit: Unit::Count,
    level: Level::Basic,
};

type Key = (&'static str, Vec<String>);

/// The value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of its family, without suffixes.
    pub name: &'static str,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Now.
    pub value: f64,
}

impl Sample {
    /// Whether a label has this value.
    pub fn has(&self, label: &str, value: &str) -> bool {
        self.labels.iter().any(|(l, v)| l == label && v == value)
    }
}

/// All metrics of the process, or a view of them that adds a label. Cheap to share; only building a
/// component and scraping lock it.
#[derive(Debug)]
pub struct MetricsRegistry {
    all: Arc<All>,
    /// Added to the labels of what is made through this view.
    scope: Option<(&'static str, String)>,
}

#[derive(Debug)]
struct All {
    groups: Mutex<BTreeMap<Key, Weak<dyn AnyGroup>>>,
    exposition: RwLock<Exposition>,
    series_max: usize,
    refused: AtomicU64,
}

impl std::fmt::Debug for dyn AnyGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "group of {} series", self.series())
    }
}

impl Default for MetricsRegistry {
    fn default() -> Self {
        MetricsRegistry::new(Exposition::default(), SERIES_MAX_DEFAULT)
    }
}

impl MetricsRegistry {
    /// An empty registry that shows at most `series_max` series. A group beyond that works but is
    /// not shown, and `tailwater_series_refused` says so.
    pub fn new(exposition: Exposition, series_max: usize) -> MetricsRegistry {
        let all = All {
            groups: Mutex::default(),
            exposition: RwLock::new(exposition),
            series_max,
            refused: AtomicU64::new(0),
        };
        MetricsRegistry {
            all: Arc::new(all),
            scope: None,
        }
    }

    /// The same registry, for a component that is there several times: groups that are made through
    /// it have a further label, so that each has series of its own.
    pub fn scoped(&self, label: &'static str, value: &str) -> MetricsRegistry {
        MetricsRegistry {
            all: self.all.clone(),
            scope: Some((label, value.to_owned())),
        }
    }

    /// Changes level, naming and labels of later scrapes. Handles and values are not touched.
    pub fn set_exposition(&self, exposition: Exposition) {
        *self
            .all
            .exposition
            .write()
            .unwrap_or_else(|e| e.into_inner()) = exposition;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Weak<dyn AnyGroup>>> {
        self.all.groups.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The living group of these labels, or a new one.
    pub(crate) fn group<G: Group>(&self, labels: Labels) -> Arc<G> {
        self.group_with(G::KIND, labels, G::create)
    }

    /// As [`MetricsRegistry::group`]; `create` gets the labels, that of the view among them.
    pub(crate) fn group_with<G: AnyGroup + Any>(
        &self,
        kind: &'static str,
        mut labels: Labels,
        create: impl FnOnce(Labels) -> G,
    ) -> Arc<G> {
        labels.extend(self.scope.clone());
        let values = labels.iter().map(|(_, value)| value.clone());
        let key: Key = (kind, values.collect());
        let mut groups = self.lock();
        if let Some(living) = groups.get(&key).and_then(Weak::upgrade)
            && let Ok(group) = living.into_any().downcast::<G>()
        {
            return group;
        }
        groups.retain(|_, weak| weak.strong_count() > 0);
        let group = Arc::new(create(labels));
        let shown: usize = groups
            .values()
            .filter_map(Weak::upgrade)
            .map(|g| g.series())
            .sum();
        if shown + super::family::Collect::series(&*group) > self.all.series_max {
            self.all.refused.fetch_add(1, Ordering::Relaxed);
            return group;
        }
        let shared: Arc<dyn AnyGroup> = group.clone();
        groups.insert(key, Arc::downgrade(&shared));
        group
    }

    /// The living groups. Collected outside the lock, so that a scrape never delays a build.
    fn living(&self) -> Vec<Arc<dyn AnyGroup>> {
        let mut groups = self.lock();
        groups.retain(|_, weak| weak.strong_count() > 0);
        groups.values().filter_map(Weak::upgrade).collect()
    }

    /// The present values of all counters and gauges that an operator must see.
    pub fn samples(&self) -> Vec<Sample> {
        let mut out = Gather::new(Level::Basic);
        for group in self.living() {
            group.collect(&mut out);
        }
        let mut samples = Vec::new();
        for (family, metrics) in out.families.into_values() {
            for metric in metrics {
                let value = match family.kind {
                    Kind::Counter => metric.get_counter().get_value(),
                    Kind::Gauge => metric.get_gauge().get_value(),
                    Kind::Histogram => continue,
                };
                let pair =
                    |l: &prometheus::proto::LabelPair| (l.name().to_owned(), l.value().to_owned());
                samples.push(Sample {
                    name: family.name,
                    labels: metric.get_label().iter().map(pair).collect(),
                    value,
                });
            }
        }
        samples
    }

    /// All series in Prometheus' text format 0.0.4, sorted by name. Empty at level `none`.
    pub fn render(&self) -> String {
        let exposition = self
            .all
            .exposition
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .clone();
        self.render_with(&exposition)
    }

    /// As [`MetricsRegistry::render`], with names, labels and level of its own: for agents that
    /// serve their metrics at several addresses.
    pub fn render_with(&self, exposition: &Exposition) -> String {
        if exposition.level == Level::None {
            return String::new();
        }
        let mut out = Gather::new(exposition.level);
        for group in self.living() {
            group.collect(&mut out);
        }
        let refused = self.all.refused.load(Ordering::Relaxed) as f64;
        out.counter(&SERIES_REFUSED, &Labels::new(), refused);
        render(out, exposition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{RECEIVER_TRANSPORT_FILE, ReceiverMetrics};

    #[test]
    fn series_live_as_long_as_a_handle_and_are_shared_by_equal_labels() {
        let registry = MetricsRegistry::default();
        let old = ReceiverMetrics::new(&registry, "filelog", RECEIVER_TRANSPORT_FILE);
        old.accepted_log_records.inc_by(2);
        let replaced = ReceiverMetrics::new(&registry, "filelog", RECEIVER_TRANSPORT_FILE);
        replaced.accepted_log_records.inc_by(3);
        drop(old);
        let line = "otelcol_receiver_accepted_log_records{receiver=\"filelog\",\
                    transport=\"file\"} 5\n";
        assert!(registry.render().contains(line), "{}", registry.render());
        drop(replaced);
        assert!(!registry.render().contains("otelcol_receiver"));
        let fresh = ReceiverMetrics::new(&registry, "filelog", RECEIVER_TRANSPORT_FILE);
        assert_eq!(fresh.accepted_log_records.get(), 0);
    }

    /// Guarantee: what is made through a view has a further label and numbers of its own.
    #[test]
    fn a_view_keeps_its_series_apart_by_a_label() {
        let registry = MetricsRegistry::default();
        let of = |r: &MetricsRegistry| ReceiverMetrics::new(r, "filelog", RECEIVER_TRANSPORT_FILE);
        let plain = of(&registry);
        let lane = of(&registry.scoped("exporter", "loki"));
        let again = of(&registry.scoped("exporter", "loki"));
        plain.accepted_log_records.inc();
        lane.accepted_log_records.inc_by(2);
        again.accepted_log_records.inc_by(3);
        let text = registry.render();
        let sum = |samples: Vec<Sample>| -> f64 {
            let of = |s: &&Sample| {
                s.has("receiver", "filelog") && s.name == "otelcol_receiver_accepted_log_records"
            };
            samples.iter().filter(of).map(|s| s.value).sum()
        };
        assert_eq!(sum(registry.samples()), 6.0);
        for line in [
            "records{receiver=\"filelog\",transport=\"file\"} 1\n",
            "records{receiver=\"filelog\",transport=\"file\",exporter=\"loki\"} 5\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_group_beyond_the_limit_works_unseen_and_is_counted() {
        let registry = MetricsRegistry::new(Exposition::default(), 4);
        let shown = ReceiverMetrics::new(&registry, "a", "file");
        let hidden = ReceiverMetrics::new(&registry, "b", "file");
        hidden.accepted_log_records.inc();
        let text = registry.render();
        assert!(
            text.contains("receiver=\"a\"") && !text.contains("receiver=\"b\""),
            "{text}"
        );
        assert!(text.contains("tailwater_series_refused 1\n"), "{text}");
        drop(shown);
        let later = ReceiverMetrics::new(&registry, "c", "file");
        assert!(registry.render().contains("receiver=\"c\""));
        drop(later);
    }
}
