//! Making one metric of several.

use std::collections::BTreeSet;

use tailwater_pdata::Key;
use tailwater_pdata::otlp::metrics::MetricKind;
use tailwater_pdata::otlp::rewrite::{Entry, Metric, Point};

use super::config::{Case, Text, Transform};
use super::operations::apply;
use super::{Changing, is_meant, opened};
use crate::streams::aggregate::{Aggregation, aggregate};

/// Makes one of the metrics that are meant, if they are of a kind.
pub(super) fn combine<'a>(
    changing: &mut Changing<'_>,
    transform: &Transform,
    (aggregation, case): (Option<Aggregation>, Option<Case>),
    entries: &mut Vec<Entry<'a>>,
) {
    let meant: Vec<bool> = entries.iter_mut().map(|e| is_meant(transform, e)).collect();
    let metrics = entries.iter_mut().zip(&meant).filter(|(_, meant)| **meant);
    let metrics: Vec<&mut Metric<'a>> = metrics.map(|(entry, _)| opened(entry)).collect();
    if metrics.is_empty() {
        return;
    }
    let n = metrics.len();
    if let Err(why) = of_a_kind(metrics) {
        changing.counted.not_combined += n;
        tracing::debug!(
            new_name = transform.new_name,
            "metrics cannot be combined: {why}"
        );
        return;
    }
    let mut taken = changing.take_out(transform, entries).into_iter();
    let Some(mut combined) = taken.next() else {
        return;
    };
    label(&mut combined, transform, case);
    for mut metric in taken {
        label(&mut metric, transform, case);
        combined.points.append(&mut metric.points);
    }
    combined.name = transform.new_name.clone().into();
    changing.counted.merged += aggregate(&mut combined, aggregation);
    if apply(&mut combined, transform, &mut changing.counted) {
        entries.push(Entry::New(combined));
    }
}

/// Metrics become one only if nothing tells them apart but their names.
fn of_a_kind(metrics: Vec<&mut Metric<'_>>) -> Result<(), &'static str> {
    let mut first = None;
    for metric in metrics {
        if metric.kind == Some(MetricKind::Summary) {
            return Err("summaries are among them");
        }
        let kind = (metric.kind, metric.temporality(), metric.monotonic);
        let unit = metric.unit().into_owned();
        let labels = metric.points.iter_mut().map(Point::attributes);
        let labels = labels.flat_map(|map| map.iter().map(|(label, _)| label.clone()));
        let labels: BTreeSet<Key> = labels.collect();
        let (of_kind, of_unit, of_labels) =
            first.get_or_insert_with(|| (kind, unit.clone(), labels.clone()));
        if *of_kind != kind {
            return Err("they are of different types, temporalities or monotonicity");
        }
        if *of_unit != unit {
            return Err("they have different units");
        }
        if *of_labels != labels {
            return Err("they have different labels");
        }
    }
    Ok(())
}

/// What groups of the expression found in the name becomes labels.
fn label(metric: &mut Metric<'_>, transform: &Transform, case: Option<Case>) {
    let Text::Regexp(pattern) = &transform.filter.name else {
        return;
    };
    let name = metric.name.clone().into_owned();
    let Some(found) = pattern.captures(&name) else {
        return;
    };
    let groups = pattern.capture_names().enumerate().skip(1);
    for (i, group) in groups {
        let text = found.get(i).map_or("", |m| m.as_str());
        if text.is_empty() {
            continue;
        }
        let label = group.map_or_else(|| format!("${i}"), str::to_owned);
        let text = case.map_or_else(|| text.to_owned(), |case| case.of(text));
        for labels in metric.points.iter_mut().map(Point::attributes) {
            labels.insert(label.as_str(), text.as_str());
        }
    }
}
