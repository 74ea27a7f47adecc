//! Editors of metrics: making another kind of one, adding some, putting points together.

use std::borrow::Cow;

use tailwater_ottl::{Fault, MetricEdit, MetricTexts};
use tailwater_pdata::otlp::edit::View;
use tailwater_pdata::otlp::revise::{Draft, FieldValue, Level, Place};
use tailwater_pdata::otlp::rewrite;
use tailwater_pdata::{Key, Map, Value};

use super::histograms::{limit_buckets, percentile};
use crate::streams::aggregate::{Aggregation, aggregate};

/// Temporalities by number.
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

fn temporality(delta: bool) -> u64 {
    if delta { DELTA } else { CUMULATIVE }
}

/// Carries `edit` out on the metric or point of a place.
pub(crate) fn edit(place: &mut Place, edit: &MetricEdit, texts: MetricTexts) -> Result<(), Fault> {
    match edit {
        MetricEdit::GaugeToSum { delta, monotonic } => {
            let kind = Some((temporality(*delta), *monotonic));
            convert(place.at_mut(Level::Item), "gauge", kind);
        }
        MetricEdit::SumToGauge => convert(place.at_mut(Level::Item), "sum", None),
        MetricEdit::Copy => {
            let mut copy = place.at(Level::Item).clone();
            put_texts(&mut copy, texts);
            add(place, &copy)?;
        }
        MetricEdit::ExtractSum { monotonic, suffix } => {
            extract(place, "extract_sum_metric", sum_of, *monotonic, suffix)?;
        }
        MetricEdit::ExtractCount { monotonic, suffix } => {
            extract(place, EXTRACT_COUNT, count_of, *monotonic, suffix)?;
        }
        MetricEdit::ExtractAverage { monotonic, suffix } => {
            extract(place, "extract_avg_metric", average, *monotonic, suffix)?;
        }
        MetricEdit::ExtractPercentile { percentile, suffix } => {
            extract_percentile(place, *percentile, suffix)?;
        }
        MetricEdit::SummaryTo {
            counts,
            delta,
            monotonic,
            suffix,
        } => {
            let points = summaries(place);
            let sum = Some((temporality(*delta), *monotonic));
            let number = if *counts { count_of } else { sum_of };
            let points = points.iter().filter_map(|p| number(&p.view()));
            added(place, suffix, sum, points.collect())?;
        }
        MetricEdit::QuantilesToGauge { key, suffix } => {
            let points = summaries(place);
            let points = points.iter().flat_map(|p| quantiles(&p.view(), key));
            let points = points.collect();
            added(place, suffix, None, points)?;
        }
        MetricEdit::Scale { factor } => {
            scale(place.at_mut(Level::Item), *factor)?;
            put_texts(place.at_mut(Level::Item), texts);
        }
        MetricEdit::Aggregate {
            function,
            attributes,
        } => {
            if place.at(Level::Item).view().chosen() == Some("summary") {
                let why = "summaries cannot be put together";
                return Err(Fault::failed("aggregate_on_attributes", why));
            }
            together(place.at_mut(Level::Item), function, |map| {
                if let Some(keys) = attributes {
                    map.retain(|key, _| keys.iter().any(|k| **k == **key));
                }
            });
        }
        MetricEdit::AggregateValues {
            function,
            attribute,
            values,
            value,
        } => together(place.at_mut(Level::Item), function, |map| {
            let is_one = |v: &Value| match v {
                Value::Str(text) => values.iter().any(|v| **v == **text),
                _ => false,
            };
            if let Some(found) = map.get_mut(attribute).filter(|v| is_one(v)) {
                *found = Value::str(value);
            }
        }),
        MetricEdit::MergeBuckets { bound } => merge_buckets(place.at_mut(Level::Part), *bound),
        MetricEdit::LimitBuckets { most } => limit_buckets(place.at_mut(Level::Part), *most),
    }
    Ok(())
}

/// Sets the texts that are given.
fn put_texts(draft: &mut Draft, texts: MetricTexts) {
    for (name, text) in [
        ("name", texts.name),
        ("description", texts.description),
        ("unit", texts.unit),
    ] {
        if let Some(text) = text {
            draft.set(None, name, FieldValue::Bytes(&text));
        }
    }
}

fn add(place: &mut Place, metric: &Draft) -> Result<(), Fault> {
    match place.add_metric(metric) {
        true => Ok(()),
        false => Err(Fault::failed(
            "an editor of metrics",
            "this batch has been given too many metrics",
        )),
    }
}

/// The points of a metric that has data of this kind.
fn points(metric: &Draft, kind: &str) -> Vec<Draft> {
    let view = metric.view();
    let data = view.inner(kind);
    let points = data.iter().flat_map(|d| d.messages("data_points"));
    points.map(|p| Draft::of(&p)).collect()
}

/// Makes a sum of a gauge, or a gauge of a sum; other metrics stay.
fn convert(metric: &mut Draft, from: &str, sum: Option<(u64, bool)>) {
    if metric.view().chosen() != Some(from) {
        return;
    }
    let points = points(metric, from);
    put_data(metric, sum, &points);
}

/// Gives a metric the data of a sum, or of a gauge.
fn put_data(metric: &mut Draft, sum: Option<(u64, bool)>, points: &[Draft]) {
    let kind = Some(if sum.is_some() { "sum" } else { "gauge" });
    metric.set(kind, "data_points", FieldValue::Messages(points));
    if let Some((temporality, monotonic)) = sum {
        let temporality = FieldValue::Number(temporality);
        metric.set(kind, "aggregation_temporality", temporality);
        let monotonic = FieldValue::Number(monotonic.into());
        metric.set(kind, "is_monotonic", monotonic);
    }
}

/// The points of a summary, or the one that is looked at.
fn summaries(place: &Place) -> Vec<Draft> {
    let metric = place.at(Level::Item);
    match (metric.view().chosen(), place.level()) {
        (Some("summary"), Level::Part) => vec![place.at(Level::Part).clone()],
        (Some("summary"), _) => points(metric, "summary"),
        _ => Vec::new(),
    }
}

/// Adds a metric with these points that is called like the one of the place, if there are any.
fn added(
    place: &mut Place,
    suffix: &str,
    sum: Option<(u64, bool)>,
    points: Vec<Draft>,
) -> Result<(), Fault> {
    added_as(place, suffix, &[], sum, points)
}

const EXTRACT_COUNT: &str = "extract_count_metric";

/// The same with texts of its own, of a description or unit.
fn added_as(
    place: &mut Place,
    suffix: &str,
    own: &[(&'static str, &[u8])],
    sum: Option<(u64, bool)>,
    points: Vec<Draft>,
) -> Result<(), Fault> {
    if points.is_empty() {
        return Ok(());
    }
    let mut metric = Draft::metric();
    let of = place.at(Level::Item).view();
    let name = [of.bytes("name"), suffix.as_bytes()].concat();
    metric.set(None, "name", FieldValue::Bytes(&name));
    for text in ["description", "unit"] {
        metric.set(None, text, FieldValue::Bytes(of.bytes(text)));
    }
    for (name, text) in own {
        metric.set(None, name, FieldValue::Bytes(text));
    }
    put_data(&mut metric, sum, &points);
    add(place, &metric)
}

fn extract(
    place: &mut Place,
    name: &'static str,
    number: fn(&View<'_>) -> Option<Draft>,
    monotonic: bool,
    suffix: &str,
) -> Result<(), Fault> {
    let metric = place.at(Level::Item);
    let view = metric.view();
    let why = "the metric is no histogram or summary with a temporality";
    let kind = view.chosen().filter(|k| !matches!(*k, "gauge" | "sum"));
    let kind = kind.ok_or_else(|| Fault::failed(name, why))?;
    let temporality = match (kind, view.inner(kind)) {
        ("summary", _) => CUMULATIVE,
        (_, data) => data.map_or(0, |d| d.number("aggregation_temporality")),
    };
    if temporality == 0 {
        return Err(Fault::failed(name, why));
    }
    let found = points(metric, kind);
    let found = found.iter().filter_map(|p| number(&p.view()));
    let found = found.collect();
    // What counts has not the unit of what is counted.
    let own: &[(&str, &[u8])] = match name {
        EXTRACT_COUNT => &[("unit", b"1")],
        _ => &[],
    };
    added_as(place, suffix, own, Some((temporality, monotonic)), found)
}

/// A number with the attributes and times of another point.
fn number_like(point: &View<'_>, value: &str, bits: u64) -> Draft {
    let mut new = Draft::number_point();
    for time in ["start_time_unix_nano", "time_unix_nano"] {
        new.set(None, time, FieldValue::Number(point.number(time)));
    }
    let pair = |(key, value): (Cow<'_, str>, tailwater_pdata::otlp::edit::Found<'_>)| {
        (Key::from(&*key), value.as_ref().to_value())
    };
    let map = Map::from_entries(point.pairs("attributes").map(pair).collect());
    new.attributes(None, "attributes", |list| {
        list.update(|old| {
            *old = map;
            true
        });
    });
    new.set(None, value, FieldValue::Number(bits));
    new
}

/// The count of a point as a number.
fn count_of(point: &View<'_>) -> Option<Draft> {
    Some(number_like(point, "as_int", point.number("count")))
}

/// The sum of a point as a number, if there is one.
fn sum_of(point: &View<'_>) -> Option<Draft> {
    has_sum(point).then(|| number_like(point, "as_double", point.number("sum")))
}

/// The average of what a point counts, if it has a sum and counts something.
fn average(point: &View<'_>) -> Option<Draft> {
    let (sum, count) = (f64::from_bits(point.number("sum")), point.number("count"));
    let average = (sum / count as f64).to_bits();
    (has_sum(point) && count > 0).then(|| number_like(point, "as_double", average))
}

/// The sum of a summary is always there; 0 is not sent.
fn has_sum(point: &View<'_>) -> bool {
    point.has("sum") || point.knows("quantile_values")
}

/// Adds a gauge of a percentile of each point of a histogram.
fn extract_percentile(place: &mut Place, percent: f64, suffix: &str) -> Result<(), Fault> {
    let metric = place.at(Level::Item);
    let exponential = match metric.view().chosen() {
        Some("histogram") => false,
        Some("exponential_histogram") => true,
        _ => return Ok(()),
    };
    let kind = metric.view().chosen().unwrap_or_default();
    let found = points(metric, kind);
    let number = |point: &Draft| -> Result<Draft, Fault> {
        let value = percentile(&point.view(), exponential, percent)?;
        Ok(number_like(&point.view(), "as_double", value.to_bits()))
    };
    let numbers = found
        .iter()
        .map(number)
        .collect::<Result<Vec<_>, Fault>>()?;
    let description = metric.view().bytes("description").to_vec();
    let about = match &description[..] {
        [] => format!("p{percent}").into_bytes(),
        text => [text, format!(" (p{percent})").as_bytes()].concat(),
    };
    added_as(place, suffix, &[("description", &about)], None, numbers)
}

/// The quantiles of a summary's point as numbers with an attribute `key`.
fn quantiles(point: &View<'_>, key: &str) -> Vec<Draft> {
    let number = |quantile: View<'_>| {
        let value = quantile.double("value").unwrap_or(0.0);
        let mut number = number_like(point, "as_double", value.to_bits());
        let mut text = format!("{}", quantile.double("quantile").unwrap_or(0.0));
        // As the collector writes them: 0.5 is 0.50.
        if text.len() < 4 && text != "0" && text != "1" {
            text.push('0');
        }
        let value = Value::str(&text);
        number.attributes(None, "attributes", |list| list.set(key, value.as_ref()));
        number
    };
    point.messages("quantile_values").map(number).collect()
}

/// Multiplies a double of a message, if it is there.
fn scale_double(message: &mut Draft, name: &str, factor: f64) {
    if let Some(d) = message.view().double(name) {
        let scaled = FieldValue::Number((d * factor).to_bits());
        message.set(None, name, scaled);
    }
}

/// Multiplies a number that is an integer or a double.
fn scale_number(message: &mut Draft, factor: f64) {
    if message.view().has("as_int") {
        let scaled = message.view().number("as_int").cast_signed() as f64 * factor;
        let scaled = FieldValue::Number((scaled as i64).cast_unsigned());
        message.set(None, "as_int", scaled);
    } else {
        scale_double(message, "as_double", factor);
    }
}

/// Lets `change` work on each message of a field.
fn each(message: &mut Draft, name: &str, change: impl Fn(&mut Draft)) {
    let mut all: Vec<Draft> = message
        .view()
        .messages(name)
        .map(|m| Draft::of(&m))
        .collect();
    if !all.is_empty() {
        all.iter_mut().for_each(change);
        message.set(None, name, FieldValue::Messages(&all));
    }
}

fn scale(metric: &mut Draft, factor: f64) -> Result<(), Fault> {
    let failed = |why| Err(Fault::failed("scale_metric", why));
    let kind = match metric.view().chosen() {
        None => return failed("the metric has no data"),
        Some("exponential_histogram") => {
            return failed("exponential histograms cannot be scaled");
        }
        Some(kind) => kind,
    };
    let mut points = points(metric, kind);
    for point in &mut points {
        match kind {
            "histogram" => {
                for name in ["sum", "min", "max"] {
                    scale_double(point, name, factor);
                }
                let bounds = point.view().doubles("explicit_bounds").into_iter();
                let bounds: Vec<u64> = bounds.map(|b| (b * factor).to_bits()).collect();
                point.set(None, "explicit_bounds", FieldValue::Numbers(&bounds));
                each(point, "exemplars", |e| scale_number(e, factor));
            }
            "summary" => {
                scale_double(point, "sum", factor);
                each(point, "quantile_values", |q| {
                    scale_double(q, "value", factor);
                });
            }
            _ => scale_number(point, factor),
        }
    }
    let points = FieldValue::Messages(&points);
    metric.set(Some(kind), "data_points", points);
    Ok(())
}

/// Makes one point of those that have equal attributes once `change` was at them.
fn together(metric: &mut Draft, function: &str, change: impl Fn(&mut Map)) {
    let Some(found) = metric.as_metric() else {
        return;
    };
    let mut new = rewrite::Metric::of(found).into_owned();
    new.points.iter_mut().for_each(|p| change(p.attributes()));
    aggregate(&mut new, Aggregation::named(function));
    metric.set_metric(&new);
}

/// How near a bound has to be to be the one that is meant.
const BOUND_TOLERANCE: f64 = 1e-12;

fn merge_buckets(point: &mut Draft, bound: f64) {
    let view = point.view();
    let (mut counts, mut bounds) = (
        view.numbers("bucket_counts"),
        view.doubles("explicit_bounds"),
    );
    let is_meant = |b: &f64| (b - bound).abs() < BOUND_TOLERANCE;
    let (true, Some(at)) = (
        counts.len() == bounds.len() + 1,
        bounds.iter().position(is_meant),
    ) else {
        return;
    };
    bounds.remove(at);
    let merged = counts.remove(at);
    counts[at] = counts[at].saturating_add(merged);
    let bounds: Vec<u64> = bounds.into_iter().map(f64::to_bits).collect();
    point.set(None, "bucket_counts", FieldValue::Numbers(&counts));
    point.set(None, "explicit_bounds", FieldValue::Numbers(&bounds));
}
