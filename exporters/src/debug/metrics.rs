//! Metrics as text.

use tailwater_pdata::otlp::edit::View;

use super::numbers::{fixed, shortest};
use super::text::Text;
use super::traces::name_of;

const TEMPORALITIES: [&str; 3] = ["Unspecified", "Delta", "Cumulative"];

/// A line per data point.
pub(super) fn normal(text: &mut Text<'_>, scope: &View<'_>) {
    for metric in scope.messages("metrics") {
        let Some(kind) = metric.chosen() else {
            continue;
        };
        metric.message(kind, |data| {
            for point in data.messages("data_points") {
                text.data(metric.bytes("name"));
                text.out.push(b'{');
                text.pairs(&point, "attributes", "", ",");
                let value = match kind {
                    "histogram" => histogram(&point),
                    "exponential_histogram" => exponential(&point),
                    "summary" => summary(&point),
                    _ => number(&point, shortest).unwrap_or_default(),
                };
                text.put(format_args!("}} {value}\n"));
            }
        });
    }
}

/// The value of a data point or exemplar; `None` if it has none.
fn number(of: &View<'_>, double: fn(f64) -> String) -> Option<String> {
    match of.chosen()? {
        "as_int" => Some((of.number("as_int") as i64).to_string()),
        _ => of.double("as_double").map(double),
    }
}

/// ` sum=...` and the like, for those that are there.
fn extent(point: &View<'_>) -> String {
    let each = ["sum", "min", "max"].into_iter();
    let there = each.filter_map(|name| Some((name, point.double(name)?)));
    there
        .map(|(name, value)| format!(" {name}={}", shortest(value)))
        .collect()
}

fn histogram(point: &View<'_>) -> String {
    let mut out = format!("count={}{}", point.number("count"), extent(point));
    let bounds = point.doubles("explicit_bounds");
    for (i, count) in point.numbers("bucket_counts").into_iter().enumerate() {
        out.push(' ');
        if let Some(bound) = bounds.get(i) {
            out.push_str(&format!("le{}=", shortest(*bound)));
        }
        out.push_str(&count.to_string());
    }
    out
}

/// The offset and the counts of buckets.
fn buckets(point: &View<'_>, side: &str) -> (f64, Vec<u64>) {
    let read = |b: &View<'_>| (f64::from(b.zigzag("offset")), b.numbers("bucket_counts"));
    point.message(side, read).unwrap_or_default()
}

/// The logarithm of the base of an exponential histogram.
fn factor(point: &View<'_>) -> f64 {
    std::f64::consts::LN_2 * 2f64.powi(point.zigzag("scale").saturating_neg())
}

fn exponential(point: &View<'_>) -> String {
    let mut out = format!("count={}{}", point.number("count"), extent(point));
    let factor = factor(point);
    let (offset, counts) = buckets(point, "negative");
    for (i, count) in counts.iter().enumerate().rev() {
        let bound = -((offset + i as f64) * factor).exp();
        out.push_str(&format!(" le{}={count}", shortest(bound)));
    }
    let zero = point.number("zero_count");
    if zero != 0 {
        out.push_str(&format!(" zero={zero}"));
    }
    let (offset, counts) = buckets(point, "positive");
    for (i, count) in counts.iter().enumerate() {
        let bound = ((offset + i as f64 + 1.0) * factor).exp();
        out.push_str(&format!(" le{}={count}", shortest(bound)));
    }
    out
}

fn summary(point: &View<'_>) -> String {
    let sum = fixed(point.double("sum").unwrap_or_default());
    let mut out = format!("count={} sum={sum}", point.number("count"));
    for (quantile, value) in quantiles(point) {
        out.push_str(&format!(" q{}={}", shortest(quantile), shortest(value)));
    }
    out
}

fn quantiles(point: &View<'_>) -> impl Iterator<Item = (f64, f64)> {
    let all = point.messages("quantile_values");
    all.map(|q| {
        let of = |name| q.double(name).unwrap_or_default();
        (of("quantile"), of("value"))
    })
}

/// Every field.
pub(super) fn detailed(text: &mut Text<'_>, scope: &View<'_>) {
    for (i, metric) in scope.messages("metrics").enumerate() {
        text.put(format_args!("Metric #{i}\nDescriptor:\n"));
        text.line("     -> Name", metric.bytes("name"));
        text.line("     -> Description", metric.bytes("description"));
        text.line("     -> Unit", metric.bytes("unit"));
        let (title, points) = match metric.chosen() {
            Some("gauge") => ("Gauge", "NumberDataPoints"),
            Some("sum") => ("Sum", "NumberDataPoints"),
            Some("histogram") => ("Histogram", "HistogramDataPoints"),
            Some("exponential_histogram") => {
                ("ExponentialHistogram", "ExponentialHistogramDataPoints")
            }
            Some("summary") => ("Summary", "SummaryDataPoints"),
            _ => ("Empty", ""),
        };
        text.put(format_args!("     -> DataType: {title}\n"));
        text.list("     -> Metadata", 5, &metric, "metadata");
        if let Some(kind) = metric.chosen() {
            metric.message(kind, |data| data_of(text, kind, points, data));
        }
    }
}

fn data_of(text: &mut Text<'_>, kind: &str, title: &str, data: &View<'_>) {
    if kind == "sum" {
        let monotonic = data.number("is_monotonic") != 0;
        text.put(format_args!("     -> IsMonotonic: {monotonic}\n"));
    }
    if matches!(kind, "sum" | "histogram" | "exponential_histogram") {
        let temporality = name_of(&TEMPORALITIES, data.number("aggregation_temporality"));
        text.put(format_args!(
            "     -> AggregationTemporality: {temporality}\n"
        ));
    }
    for (i, point) in data.messages("data_points").enumerate() {
        text.put(format_args!("{title} #{i}\n"));
        text.list("Data point attributes", 0, &point, "attributes");
        text.time("StartTimestamp", point.number("start_time_unix_nano"));
        text.time("Timestamp", point.number("time_unix_nano"));
        match kind {
            "histogram" => histogram_point(text, &point),
            "exponential_histogram" => exponential_point(text, &point),
            "summary" => summary_point(text, &point),
            _ => {
                if let Some(value) = number(&point, fixed) {
                    text.put(format_args!("Value: {value}\n"));
                }
            }
        }
        exemplars(text, &point);
    }
}

fn count_and_extent(text: &mut Text<'_>, point: &View<'_>) {
    text.put(format_args!("Count: {}\n", point.number("count")));
    for (label, name) in [("Sum", "sum"), ("Min", "min"), ("Max", "max")] {
        if let Some(value) = point.double(name) {
            text.put(format_args!("{label}: {}\n", fixed(value)));
        }
    }
}

fn histogram_point(text: &mut Text<'_>, point: &View<'_>) {
    count_and_extent(text, point);
    for (i, bound) in point.doubles("explicit_bounds").into_iter().enumerate() {
        text.put(format_args!("ExplicitBounds #{i}: {}\n", fixed(bound)));
    }
    for (i, count) in point.numbers("bucket_counts").into_iter().enumerate() {
        text.put(format_args!("Buckets #{i}, Count: {count}\n"));
    }
}

fn exponential_point(text: &mut Text<'_>, point: &View<'_>) {
    count_and_extent(text, point);
    let factor = factor(point);
    let bounds = |index: f64| ((index * factor).exp(), ((index + 1.0) * factor).exp());
    let (offset, counts) = buckets(point, "negative");
    for (i, count) in counts.iter().enumerate().rev() {
        let (lower, upper) = bounds(offset + i as f64);
        let (from, to) = (fixed(-upper), fixed(-lower));
        text.put(format_args!("Bucket [{from}, {to}), Count: {count}\n"));
    }
    let zero = point.number("zero_count");
    if zero != 0 {
        text.put(format_args!("Bucket [0, 0], Count: {zero}\n"));
    }
    let (offset, counts) = buckets(point, "positive");
    for (i, count) in counts.iter().enumerate() {
        let (lower, upper) = bounds(offset + i as f64);
        let (from, to) = (fixed(lower), fixed(upper));
        text.put(format_args!("Bucket ({from}, {to}], Count: {count}\n"));
    }
}

fn summary_point(text: &mut Text<'_>, point: &View<'_>) {
    let sum = fixed(point.double("sum").unwrap_or_default());
    text.put(format_args!(
        "Count: {}\nSum: {sum}\n",
        point.number("count")
    ));
    for (i, (quantile, value)) in quantiles(point).enumerate() {
        let (quantile, value) = (fixed(quantile), fixed(value));
        text.put(format_args!(
            "QuantileValue #{i}: Quantile {quantile}, Value {value}\n"
        ));
    }
}

fn exemplars(text: &mut Text<'_>, point: &View<'_>) {
    for (i, exemplar) in point.messages("exemplars").enumerate() {
        if i == 0 {
            text.put(format_args!("Exemplars:\n"));
        }
        text.put(format_args!("Exemplar #{i}\n"));
        text.id("     -> Trace ID", exemplar.bytes("trace_id"));
        text.id("     -> Span ID", exemplar.bytes("span_id"));
        text.time("     -> Timestamp", exemplar.number("time_unix_nano"));
        if let Some(value) = number(&exemplar, fixed) {
            text.put(format_args!("     -> Value: {value}\n"));
        }
        text.list(
            "     -> FilteredAttributes",
            5,
            &exemplar,
            "filtered_attributes",
        );
    }
}
