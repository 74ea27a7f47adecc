//! What a metric is: its name, kind, unit and from which level on it is shown.

use std::collections::BTreeMap;

use prometheus::proto;

/// How much is shown (`service::telemetry::metrics::level`). Ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// Nothing at all.
    None,
    /// What an operator must see: flow, loss, lag, queues, the process.
    Basic,
    /// The collector's default: also how the batch processor works.
    #[default]
    Normal,
    /// Everything.
    Detailed,
}

impl Level {
    /// Every level by the name it has in a configuration.
    pub const NAMES: [(&'static str, Level); 4] = [
        ("none", Level::None),
        ("basic", Level::Basic),
        ("normal", Level::Normal),
        ("detailed", Level::Detailed),
    ];
}

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows while its component lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over fixed buckets.
    Histogram,
}

/// The unit of a metric. Decides the suffix when the units switch is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A number of things; never a suffix.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The suffix of a name that carries its unit, without the underscore.
    pub fn suffix(self) -> Option<&'static str> {
        match self {
            Unit::Count => None,
            Unit::Seconds => Some("seconds"),
            Unit::Bytes => Some("bytes"),
        }
    }
}

/// All series of one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// The name without suffixes, as the collector's default exposition has it.
    pub name: &'static str,
    /// One line that says what it counts.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// The lowest level that shows it.
    pub level: Level,
}

/// Labels of a series in the order they are written.
pub type Labels = Vec<(&'static str, String)>;

/// Something that has series. It is asked at every scrape and must not block.
pub trait Collect: Send + Sync {
    /// Adds the present value of every series.
    fn collect(&self, out: &mut Gather);

    /// How many series it has, for the limit of the registry.
    fn series(&self) -> usize;
}

/// Takes the values of one scrape.
#[derive(Debug)]
pub struct Gather {
    level: Level,
    pub(crate) families: BTreeMap<&'static str, (Family, Vec<proto::Metric>)>,
}

impl Gather {
    pub(crate) fn new(level: Level) -> Gather {
        Gather {
            level,
            families: BTreeMap::new(),
        }
    }

    /// Whether anything of `level` is shown.
    pub fn shows(&self, level: Level) -> bool {
        self.level != Level::None && level <= self.level
    }

    /// Adds the value of a counter.
    pub fn counter(&mut self, family: &Family, labels: &Labels, value: f64) {
        self.push(family, labels, |m| {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            m.set_counter(counter);
        });
    }

    /// Adds the value of a gauge.
    pub fn gauge(&mut self, family: &Family, labels: &Labels, value: f64) {
        self.push(family, labels, |m| {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            m.set_gauge(gauge);
        });
    }

    /// Adds the buckets of a histogram.
    pub fn histogram(&mut self, family: &Family, labels: &Labels, value: proto::Histogram) {
        self.push(family, labels, |m| m.set_histogram(value));
    }

    fn push(&mut self, family: &Family, labels: &Labels, set: impl FnOnce(&mut proto::Metric)) {
        if !self.shows(family.level) {
            return;
        }
        let pair = |(name, value): &(&'static str, String)| {
            let mut p = proto::LabelPair::default();
            p.set_name((*name).to_owned());
            p.set_value(value.clone());
            p
        };
        let mut metric = proto::Metric::from_label(labels.iter().map(pair).collect());
        set(&mut metric);
        let slot = self
            .families
            .entry(family.name)
            .or_insert_with(|| (*family, Vec::new()));
        slot.1.push(metric);
    }
}
