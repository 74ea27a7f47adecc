//! What is done with a metric, once it is chosen.

use tailwater_pdata::otlp::metrics::Number;
use tailwater_pdata::otlp::rewrite::{Metric, Point, PointValue};
use tailwater_pdata::{Map, Value};

use crate::streams::aggregate::aggregate;

use super::Counted;
use super::config::{Action, Filter, Operation, Text, Transform};

/// The text of a label; of one that is no text, none.
fn text_of(value: &Value) -> &str {
    match value {
        Value::Str(text) => text,
        _ => "",
    }
}

impl Filter {
    /// Whether labels are as they must be.
    pub(super) fn has_labels(&self, labels: &Map) -> bool {
        let value = |label: &str| labels.get(label).map_or("", text_of);
        self.labels
            .iter()
            .all(|(label, wanted)| wanted.matches(value(label)))
    }

    /// The points that are meant, and how many those are.
    pub(super) fn points(&self, metric: &mut Metric<'_>) -> (Vec<bool>, usize) {
        let points = metric.points.iter_mut();
        let meant: Vec<bool> = match self.labels.is_empty() {
            true => points.map(|_| true).collect(),
            false => points.map(|p| self.has_labels(p.attributes())).collect(),
        };
        let n = meant.iter().filter(|m| **m).count();
        (meant, n)
    }

    /// Whether all points are meant.
    fn has_all(&self, metric: &mut Metric<'_>) -> bool {
        let mut points = metric.points.iter_mut();
        self.labels.is_empty() || points.all(|p| self.has_labels(p.attributes()))
    }

    /// What a metric is called: of an expression, `$1` and the like are what its groups found.
    fn renamed(&self, name: &str, new_name: &str) -> String {
        let mut out = String::new();
        if let Text::Regexp(pattern) = &self.name
            && let Some(found) = pattern.captures(name)
        {
            found.expand(new_name, &mut out);
        }
        match out.is_empty() {
            true => new_name.to_owned(),
            false => out,
        }
    }
}

/// Renames a metric and does what is to be done with it. False if nothing is left of it.
pub(super) fn apply(metric: &mut Metric<'_>, transform: &Transform, counted: &mut Counted) -> bool {
    let filter = &transform.filter;
    let before = metric.points.len();
    // What concerns all of a metric is not done where only some of its points are meant.
    let whole = transform.action != Action::Update || filter.has_all(metric);
    if !transform.new_name.is_empty() && whole {
        metric.name = filter.renamed(&metric.name, &transform.new_name).into();
    }
    for operation in &transform.operations {
        operate(metric, operation, filter, whole, counted);
    }
    before == 0 || !metric.points.is_empty()
}

fn operate(
    metric: &mut Metric<'_>,
    operation: &Operation,
    filter: &Filter,
    whole: bool,
    counted: &mut Counted,
) {
    match operation {
        Operation::UpdateLabel {
            label,
            new_label,
            values,
        } => each_meant(metric, filter, |point| {
            update_label(point.attributes(), label, new_label, values);
        }),
        Operation::ToggleScalarDataType => each_meant(metric, filter, toggle),
        Operation::ScaleValue(factor) => each_meant(metric, filter, |p| scale(p, *factor)),
        _ if !whole => {}
        Operation::AddLabel { label, value } => {
            for labels in metric.points.iter_mut().map(Point::attributes) {
                if labels.get(label).is_none() {
                    labels.insert(label.as_str(), value.as_str());
                }
            }
        }
        Operation::DeleteLabelValue { label, value } => {
            let before = metric.points.len();
            let is = |v: &Value| text_of(v) == value;
            metric
                .points
                .retain_mut(|p| !p.attributes().get(label).is_some_and(is));
            counted.deleted += before - metric.points.len();
        }
        Operation::AggregateLabels {
            labels,
            aggregation,
        } => {
            for all in metric.points.iter_mut().map(Point::attributes) {
                all.retain(|label, _| labels.iter().any(|l| **l == **label));
            }
            counted.merged += aggregate(metric, *aggregation);
        }
        Operation::AggregateLabelValues {
            label,
            values,
            new_value,
            aggregation,
        } => {
            for all in metric.points.iter_mut().map(Point::attributes) {
                if let Some(value) = all.get_mut(label)
                    && values.iter().any(|v| v == text_of(value))
                {
                    *value = Value::str(new_value);
                }
            }
            counted.merged += aggregate(metric, *aggregation);
        }
    }
}

fn each_meant(metric: &mut Metric<'_>, filter: &Filter, mut f: impl FnMut(&mut Point<'_>)) {
    for point in &mut metric.points {
        if filter.labels.is_empty() || filter.has_labels(point.attributes()) {
            f(point);
        }
    }
}

fn update_label(labels: &mut Map, label: &str, new_label: &str, values: &[(String, String)]) {
    let Some(value) = labels.get(label).cloned() else {
        return;
    };
    let mut name = label;
    if !new_label.is_empty() && new_label != label {
        labels.remove(label);
        labels.insert(new_label, value.clone());
        name = new_label;
    }
    // Of several for the same value the last one counts, as in the collector.
    let text = text_of(&value);
    if let Some((_, new)) = values.iter().rev().find(|(old, _)| old == text) {
        labels.insert(name, new.as_str());
    }
}

fn toggle(point: &mut Point<'_>) {
    if let PointValue::Number(Some(number)) = &mut point.value {
        *number = match *number {
            Number::Int(v) => Number::Double(v as f64),
            Number::Double(v) => Number::Int(v as i64),
        };
    }
}

/// Exponential histograms and summaries are not scaled, as in the collector.
fn scale(point: &mut Point<'_>, factor: f64) {
    match &mut point.value {
        PointValue::Number(Some(number)) => {
            *number = match *number {
                Number::Int(v) => Number::Int((v as f64 * factor) as i64),
                Number::Double(v) => Number::Double(v * factor),
            };
        }
        PointValue::Histogram(h) => {
            for value in [&mut h.sum, &mut h.min, &mut h.max].into_iter().flatten() {
                *value *= factor;
            }
            h.bounds.iter_mut().for_each(|b| *b *= factor);
            point.scale_exemplars(factor);
        }
        _ => {}
    }
}
