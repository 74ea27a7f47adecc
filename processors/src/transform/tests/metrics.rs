//! What statements make of metrics and their points.

use serde_json::{Value as Json, json};
use tailwater_pdata::Signal;

use super::encoded::{Row, attributes, check};

pub(super) fn metrics() -> Json {
    let point = |host: &str, value: Json| {
        let mut point = json!({"attributes": attributes(&[("host", host)]),
            "startTimeUnixNano": "1", "timeUnixNano": "5"});
        let map = point.as_object_mut().unwrap();
        map.extend(value.as_object().unwrap().clone());
        point
    };
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "cpu", "unit": "1", "description": "used", "gauge": {"dataPoints": [
            point("h1", json!({"asDouble": 0.5})), point("h2", json!({"asDouble": 0.25}))]}},
        {"name": "requests", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
            point("h1", json!({"asInt": "7"})), point("h2", json!({"asInt": "4"}))]}},
        {"name": "latency", "unit": "s", "histogram": {"aggregationTemporality": 1, "dataPoints": [
            point("h1", json!({"count": "3", "sum": 1.5, "bucketCounts": ["1", "2", "0"], "explicitBounds": [0.5, 1.0],
                "max": 0.75, "exemplars": [{"asDouble": 0.75}]}))]}},
        {"name": "exp", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            point("h1", json!({"count": "3", "sum": 2.0, "scale": -1, "zeroCount": "1",
                "positive": {"offset": 2, "bucketCounts": ["2"]}}))]}},
        {"name": "rpc", "unit": "s", "summary": {"dataPoints": [
            point("h1", json!({"count": "9", "sum": 4.5, "quantileValues": [
                {"quantile": 0.5, "value": 0.25}, {"quantile": 0.99, "value": 2.0}]}))]}},
    ]}]}]})
}

pub(super) const METRICS: &str = "/resourceMetrics/0/scopeMetrics/0/metrics";
pub(super) const CPU: &str = "/resourceMetrics/0/scopeMetrics/0/metrics/0";
pub(super) const REQUESTS: &str = "/resourceMetrics/0/scopeMetrics/0/metrics/1";
pub(super) const LATENCY: &str = "/resourceMetrics/0/scopeMetrics/0/metrics/2";
pub(super) const EXP: &str = "/resourceMetrics/0/scopeMetrics/0/metrics/3";
pub(super) const RPC: &str = "/resourceMetrics/0/scopeMetrics/0/metrics/4";
pub(super) const NEW: &str = "/resourceMetrics/0/scopeMetrics/0/metrics/5";

#[test]
fn metrics_and_points_are_changed() {
    let table: &[Row<'_>] = &[
        (
            "metric",
            &[r#"set(name, Concat(["my", name], "."))"#],
            (CPU, "/name"),
            json!("my.cpu"),
        ),
        (
            "metric",
            &[r#"set(description, "Sum") where type == METRIC_DATA_TYPE_SUM"#],
            (REQUESTS, "/description"),
            json!("Sum"),
        ),
        (
            "metric",
            &[r#"set(description, "Sum") where type == METRIC_DATA_TYPE_SUM"#],
            (CPU, "/description"),
            json!("used"),
        ),
        (
            "metric",
            &[r#"set(unit, "ms") where unit == "s""#],
            (LATENCY, "/unit"),
            json!("ms"),
        ),
        (
            "metric",
            &["set(is_monotonic, false)"],
            (REQUESTS, "/sum/isMonotonic"),
            Json::Null,
        ),
        (
            "metric",
            &["set(aggregation_temporality, AGGREGATION_TEMPORALITY_CUMULATIVE)"],
            (LATENCY, "/histogram/aggregationTemporality"),
            json!(2),
        ),
        // A gauge has none; setting it does nothing, as in the collector.
        (
            "metric",
            &["set(aggregation_temporality, 2)"],
            (CPU, "/gauge/aggregationTemporality"),
            Json::Null,
        ),
        (
            "metric",
            &[r#"set(metadata["k"], "v")"#],
            (CPU, "/metadata/0/key"),
            json!("k"),
        ),
        (
            "datapoint",
            &[r#"set(attributes["metric"], metric.name)"#],
            (RPC, "/summary/dataPoints/0/attributes/1/value/stringValue"),
            json!("rpc"),
        ),
        (
            "datapoint",
            &[r#"set(metric.description, attributes["host"])"#],
            (REQUESTS, "/description"),
            json!("h2"),
        ),
        (
            "datapoint",
            &["set(value_double, value_double * 100.0) where value_double != nil"],
            (CPU, "/gauge/dataPoints/1/asDouble"),
            json!(25.0),
        ),
        (
            "datapoint",
            &["set(value_double, Double(value_int)) where value_int != nil"],
            (REQUESTS, "/sum/dataPoints/0"),
            json!({
            "attributes": attributes(&[("host", "h1")]), "startTimeUnixNano": "1", "timeUnixNano": "5", "asDouble": 7.0}),
        ),
        (
            "datapoint",
            &["set(value_int, 1)"],
            (LATENCY, "/histogram/dataPoints/0/asInt"),
            Json::Null,
        ),
        (
            "datapoint",
            &["set(start_time_unix_nano, 2)", "set(time, Unix(7))"],
            (CPU, "/gauge/dataPoints/0/timeUnixNano"),
            json!("7000000000"),
        ),
        (
            "datapoint",
            &["set(count, 4)", "set(sum, 1.0)"],
            (LATENCY, "/histogram/dataPoints/0/sum"),
            json!(1.0),
        ),
        (
            "datapoint",
            &["set(bucket_counts, [1, 1, 1])"],
            (LATENCY, "/histogram/dataPoints/0/bucketCounts"),
            json!(["1", "1", "1"]),
        ),
        (
            "datapoint",
            &[
                "set(explicit_bounds, [1.0, 2.0]) where explicit_bounds != nil and Len(explicit_bounds) == 2",
            ],
            (LATENCY, "/histogram/dataPoints/0/explicitBounds"),
            json!([1.0, 2.0]),
        ),
        (
            "datapoint",
            &["set(scale, scale - 1) where scale != nil"],
            (EXP, "/exponentialHistogram/dataPoints/0/scale"),
            json!(-2),
        ),
        (
            "datapoint",
            &["set(positive.offset, positive.offset + 1) where scale != nil"],
            (EXP, "/exponentialHistogram/dataPoints/0/positive/offset"),
            json!(3),
        ),
        (
            "datapoint",
            &["set(negative.bucket_counts, positive.bucket_counts)"],
            (
                EXP,
                "/exponentialHistogram/dataPoints/0/negative/bucketCounts",
            ),
            json!(["2"]),
        ),
        (
            "datapoint",
            &["set(flags, 1)"],
            (CPU, "/gauge/dataPoints/0/flags"),
            json!(1),
        ),
        (
            "datapoint",
            &["merge_histogram_buckets(0.5)"],
            (LATENCY, "/histogram/dataPoints/0/bucketCounts"),
            json!(["3", "0"]),
        ),
        (
            "datapoint",
            &["merge_histogram_buckets(0.5)"],
            (LATENCY, "/histogram/dataPoints/0/explicitBounds"),
            json!([1.0]),
        ),
        (
            "datapoint",
            &[r#"merge_histogram_buckets(2, method="limit_buckets")"#],
            (LATENCY, "/histogram/dataPoints/0/bucketCounts"),
            json!(["3", "0"]),
        ),
        (
            "datapoint",
            &[r#"merge_histogram_buckets(2, "limit_buckets")"#],
            (LATENCY, "/histogram/dataPoints/0/explicitBounds"),
            json!([1.0]),
        ),
        (
            "datapoint",
            &[r#"merge_histogram_buckets(1, "limit_buckets")"#],
            (LATENCY, "/histogram/dataPoints/0/explicitBounds"),
            Json::Null,
        ),
        (
            "datapoint",
            &[r#"merge_histogram_buckets(3, "limit_buckets")"#],
            (LATENCY, "/histogram/dataPoints/0/bucketCounts"),
            json!(["1", "2", "0"]),
        ),
        (
            "datapoint",
            &[r#"merge_histogram_buckets(0.5, "remove_explicit_bound")"#],
            (LATENCY, "/histogram/dataPoints/0/explicitBounds"),
            json!([1.0]),
        ),
        (
            "datapoint",
            &["merge_histogram_buckets(0.7)"],
            (LATENCY, "/histogram/dataPoints/0/explicitBounds"),
            json!([0.5, 1.0]),
        ),
        (
            "datapoint",
            &[r#"convert_summary_count_val_to_sum("delta", true)"#],
            (NEW, ""),
            json!({"name": "rpc_count", "unit": "s",
            "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{"attributes": attributes(&[("host", "h1")]),
                "startTimeUnixNano": "1", "timeUnixNano": "5", "asInt": "9"}]}}),
        ),
    ];
    check("metric_statements", Signal::Metrics, &metrics(), table);
}

#[test]
fn metrics_become_others_and_are_added() {
    let summed = |unit: &str, name: &str, point: Json| {
        let mut point = point;
        let map = point.as_object_mut().unwrap();
        map.insert("attributes".into(), attributes(&[("host", "h1")]));
        map.insert("startTimeUnixNano".into(), json!("1"));
        map.insert("timeUnixNano".into(), json!("5"));
        let mut metric =
            json!({"name": name, "sum": {"aggregationTemporality": 1, "dataPoints": [point]}});
        if !unit.is_empty() {
            metric
                .as_object_mut()
                .unwrap()
                .insert("unit".into(), json!(unit));
        }
        metric
    };
    let table: &[Row<'_>] = &[
        (
            "metric",
            &["convert_sum_to_gauge()"],
            (REQUESTS, "/gauge/dataPoints/0/asInt"),
            json!("7"),
        ),
        (
            "metric",
            &["convert_sum_to_gauge()"],
            (REQUESTS, "/sum"),
            Json::Null,
        ),
        (
            "metric",
            &["convert_sum_to_gauge()"],
            (LATENCY, "/name"),
            json!("latency"),
        ),
        (
            "metric",
            &[r#"convert_gauge_to_sum("delta", true)"#],
            (CPU, "/sum/isMonotonic"),
            json!(true),
        ),
        (
            "metric",
            &[
                r#"convert_gauge_to_sum("cumulative", false)"#,
                r#"set(unit, "x") where aggregation_temporality == 2"#,
            ],
            (CPU, "/unit"),
            json!("x"),
        ),
        (
            "metric",
            &[r#"extract_sum_metric(false) where name == "latency""#],
            (NEW, ""),
            summed("s", "latency_sum", json!({"asDouble": 1.5})),
        ),
        (
            "metric",
            &[r#"extract_count_metric(false, ".n") where name == "latency""#],
            (NEW, ""),
            summed("1", "latency.n", json!({"asInt": "3"})),
        ),
        (
            "metric",
            &[r#"extract_avg_metric(false) where name == "latency""#],
            (NEW, ""),
            summed("s", "latency_avg", json!({"asDouble": 0.5})),
        ),
        (
            "metric",
            &["extract_percentile_metric(50.0)"],
            (NEW, ""),
            json!({"name": "latency_p50", "unit": "s", "description": "p50",
            "gauge": {"dataPoints": [{"attributes": attributes(&[("host", "h1")]),
                "startTimeUnixNano": "1", "timeUnixNano": "5", "asDouble": 0.75}]}}),
        ),
        (
            "metric",
            &[r#"extract_percentile_metric(25.0, ".q") where name == "latency""#],
            (NEW, "/gauge/dataPoints/0/asDouble"),
            json!(0.5),
        ),
        // 1 of zero, 2 between 16 and 64.
        (
            "metric",
            &[r#"extract_percentile_metric(100.0) where name == "exp""#],
            (NEW, "/gauge/dataPoints/0/asDouble"),
            json!(64.0),
        ),
        (
            "metric",
            &[r#"extract_percentile_metric(34.5) where name == "exp""#],
            (NEW, "/gauge/dataPoints/0/asDouble"),
            json!(32.0),
        ),
        (
            "metric",
            &[r#"extract_percentile_metric(34.5) where name == "exp""#],
            (NEW, "/name"),
            json!("exp_p34.5"),
        ),
        (
            "metric",
            &[r#"extract_percentile_metric(33.0) where name == "exp""#],
            (NEW, "/gauge/dataPoints/0/asDouble"),
            json!(0.0),
        ),
        (
            "metric",
            &[r#"extract_sum_metric(true) where type == METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM"#],
            (NEW, "/sum/aggregationTemporality"),
            json!(2),
        ),
        (
            "metric",
            &[r#"convert_summary_sum_val_to_sum("delta", false, ".s")"#],
            (NEW, ""),
            summed("s", "rpc.s", json!({"asDouble": 4.5})),
        ),
        (
            "metric",
            &["convert_summary_quantile_val_to_gauge()"],
            (NEW, "/gauge/dataPoints/0/attributes"),
            attributes(&[("host", "h1"), ("quantile", "0.50")]),
        ),
        (
            "metric",
            &[r#"convert_summary_quantile_val_to_gauge("q", ".q")"#],
            (NEW, "/name"),
            json!("rpc.q"),
        ),
        (
            "metric",
            &[r#"copy_metric(name="http", unit="By") where name == "requests""#],
            (NEW, "/unit"),
            json!("By"),
        ),
        (
            "metric",
            &[r#"copy_metric(name=Concat([name, "copy"], ".")) where name == "requests""#],
            (NEW, "/name"),
            json!("requests.copy"),
        ),
        // What is added is shown to the statements in its turn.
        (
            "metric",
            &[
                r#"copy_metric(name="http") where name == "requests""#,
                r#"set(unit, "1") where name == "http""#,
            ],
            (NEW, "/unit"),
            json!("1"),
        ),
        (
            "metric",
            &[r#"scale_metric(10.0, "x") where name == "cpu""#],
            (CPU, "/gauge/dataPoints/0/asDouble"),
            json!(5.0),
        ),
        (
            "metric",
            &[r#"scale_metric(10, "x") where name == "cpu""#],
            (CPU, "/unit"),
            json!("x"),
        ),
        (
            "metric",
            &[r#"scale_metric(0.5) where name == "requests""#],
            (REQUESTS, "/sum/dataPoints/0/asInt"),
            json!("3"),
        ),
        (
            "metric",
            &[r#"scale_metric(2.0) where name == "latency""#],
            (LATENCY, "/histogram/dataPoints/0/exemplars/0/asDouble"),
            json!(1.5),
        ),
        (
            "metric",
            &[r#"scale_metric(2.0) where name == "latency""#],
            (LATENCY, "/histogram/dataPoints/0/explicitBounds"),
            json!([1.0, 2.0]),
        ),
        (
            "metric",
            &[r#"scale_metric(2.0) where name == "rpc""#],
            (RPC, "/summary/dataPoints/0/quantileValues/1/value"),
            json!(4.0),
        ),
        (
            "metric",
            &[r#"aggregate_on_attributes("sum", []) where name == "requests""#],
            (REQUESTS, "/sum/dataPoints"),
            json!([{"startTimeUnixNano": "1", "timeUnixNano": "5", "asInt": "11"}]),
        ),
        (
            "metric",
            &[r#"aggregate_on_attributes("max", ["host"]) where name == "requests""#],
            (REQUESTS, "/sum/dataPoints/1/asInt"),
            json!("4"),
        ),
        (
            "metric",
            &[r#"aggregate_on_attributes("mean") where name == "cpu""#],
            (CPU, "/gauge/dataPoints/1/asDouble"),
            json!(0.25),
        ),
        (
            "metric",
            &[
                r#"aggregate_on_attribute_value("count", "host", ["h1", "h2"], "all") where name == "cpu""#,
            ],
            (CPU, "/gauge/dataPoints/0/asDouble"),
            json!(2.0),
        ),
        (
            "metric",
            &[r#"aggregate_on_attribute_value("sum", "host", ["h1"], "h3") where name == "cpu""#],
            (CPU, "/gauge/dataPoints/0/attributes/0/value/stringValue"),
            json!("h3"),
        ),
        ("metric", &["set(unit, unit)"], (METRICS, "/5"), Json::Null),
    ];
    check("metric_statements", Signal::Metrics, &metrics(), table);
}
