use tailwater_pipeline::Outcome;

use super::{MADE, Setup, metrics, point, refused, request, sum, whole};

const DELTA: u8 = 1;
const CUMULATIVE: u8 = 2;

fn int(n: i64) -> String {
    format!(r#""asInt":"{n}""#)
}

fn total(points: &[(&str, u64, u64, i64)]) -> String {
    of(CUMULATIVE, points)
}

fn of(temporality: u8, points: &[(&str, u64, u64, i64)]) -> String {
    let values: Vec<String> = points.iter().map(|p| int(p.3)).collect();
    let points = points.iter().zip(&values);
    let points: Vec<_> = points.map(|(p, v)| (p.0, p.1, p.2, v.as_str())).collect();
    sum("m", temporality, &points)
}

fn added(points: &[(&str, u64, u64, i64)]) -> Vec<String> {
    vec![metrics(&of(DELTA, points))]
}

#[test]
fn sums_become_what_was_added() {
    let mut s = Setup::new("cumulativetodelta", "");
    assert_eq!(
        s.send(&total(&[("x", 5, 10, 100)])),
        [""; 0],
        "it began before this agent"
    );
    assert_eq!(s.answers(), [(0, Outcome::Filtered, 1, 0)]);
    assert_eq!(
        s.send(&total(&[("x", 5, 20, 150)])),
        added(&[("x", 10, 20, 50)])
    );
    assert_eq!(s.answers(), [(1, Outcome::Delivered, 0, 0)]);
    // A reset is left out, and what follows counts from it.
    assert_eq!(s.send(&total(&[("x", 25, 30, 7)])), [""; 0]);
    assert_eq!(
        s.send(&total(&[("x", 25, 40, 9), ("y", 25, 40, 1)])),
        added(&[("x", 30, 40, 2)])
    );
    assert_eq!(
        s.answers(),
        [(2, Outcome::Filtered, 1, 0), (3, Outcome::Delivered, 1, 0)]
    );
    // One that began after this agent did is passed on from the start.
    let new = (MADE + 1, MADE + 2);
    assert_eq!(
        s.send(&total(&[("z", new.0, new.1, 3)])),
        added(&[("z", new.0, new.1, 3)])
    );
    s.meters(&[
        r#"otelcol_cumulativetodelta_datapoints{processor="x",metric_type="sum"} 3"#,
        r#"otelcol_cumulativetodelta_datapoints_dropped{processor="x",metric_type="sum",reason="initial"} 2"#,
        r#"otelcol_cumulativetodelta_datapoints_dropped{processor="x",metric_type="sum",reason="reset"} 1"#,
        r#"otelcol_cumulativetodelta_streams_tracked{processor="x"} 3"#,
    ]);
}

#[test]
fn the_first_value_is_what_the_option_says() {
    let first = total(&[("", MADE + 5, MADE + 5, 3)]);
    let old = total(&[("b", 5, 10, 3)]);
    for (option, of_first, of_old) in [
        ("auto", false, false),
        ("keep", true, true),
        ("drop", false, false),
    ] {
        let mut s = Setup::new("cumulativetodelta", &format!("initial_value: {option}"));
        for (text, passes) in [(&first, of_first), (&old, of_old)] {
            assert_eq!(s.send(text).len(), usize::from(passes), "{option}: {text}");
        }
        let next = s.send(&total(&[("b", 5, 20, 5)]));
        assert_eq!(next, added(&[("b", 10, 20, 2)]), "{option}");
    }
}

#[test]
fn what_is_no_total_stays_as_it_is() {
    let mut s = Setup::new("cumulativetodelta", "");
    let others = r#"{"name":"g","gauge":{"dataPoints":[{"asInt":"1"}]}},
        {"name":"d","sum":{"dataPoints":[{"asInt":"1"}],"aggregationTemporality":1,"isMonotonic":true}},
        {"name":"u","sum":{"dataPoints":[{"asInt":"1"}],"aggregationTemporality":2}},
        {"name":"h","histogram":{"dataPoints":[{"count":"1"}],"aggregationTemporality":1}},
        {"name":"q","summary":{"dataPoints":[{"count":"1"}]}},{"name":"nothing"}"#;
    let before = request(others);
    s.take_in(before.clone());
    assert_eq!(s.come_out(Outcome::Delivered), [super::shown(&before)]);
    // No number: the point stays, in a metric that is of differences.
    let nan = r#""asDouble":"NaN""#;
    let sent = sum("n", CUMULATIVE, &[("", 1, 2, nan)]);
    assert_eq!(
        s.send(&sent),
        [metrics(&sum("n", DELTA, &[("", 1, 2, nan)]))]
    );
    let stale = sum("n", CUMULATIVE, &[("", 1, 2, r#""flags":1"#)]);
    assert_eq!(s.send(&stale), [""; 0]);
    s.meters(&[
        r#"otelcol_cumulativetodelta_datapoints_dropped{processor="x",metric_type="sum",reason="no_recorded_value"} 1"#,
    ]);
}

fn histogram(temporality: u8, (start, time): (u64, u64), value: &str) -> String {
    let point = point(("", start, time, value));
    format!(
        r#"{{"name":"h","unit":"s","histogram":{{"dataPoints":[{point}],"aggregationTemporality":{temporality}}}}}"#
    )
}

#[test]
fn histograms_become_what_was_added() {
    let mut s = Setup::new("cumulativetodelta", "");
    let value = |count: u64, sum: f64, buckets: [u64; 3], bounds: &str, rest: &str| {
        let buckets = buckets.map(|b| format!(r#""{b}""#)).join(",");
        format!(
            r#""count":"{count}","sum":{sum},"bucketCounts":[{buckets}],"explicitBounds":[{bounds}]{rest}"#
        )
    };
    let exemplar = r#","exemplars":[{"timeUnixNano":"5","asDouble":1.5}]"#;
    let extremes = r#","min":1,"max":9"#;
    let send =
        |s: &mut Setup, time, value: String| s.send(&histogram(CUMULATIVE, (5, time), &value));
    assert_eq!(
        send(&mut s, 10, value(3, 6.0, [1, 1, 1], "1,2", extremes)),
        [""; 0]
    );
    let second = value(6, 10.0, [1, 3, 2], "1,2", &format!("{extremes}{exemplar}"));
    let want = histogram(DELTA, (10, 20), &value(3, 4.0, [0, 2, 1], "1,2", exemplar));
    assert_eq!(send(&mut s, 20, second), [metrics(&want)]);
    // Begun anew: all of it is passed on.
    let reset = value(1, 2.0, [0, 1, 0], "1,2", "");
    let want = histogram(DELTA, (20, 30), &reset);
    assert_eq!(send(&mut s, 30, reset), [metrics(&want)]);
    let other = value(9, 9.0, [3, 3, 3], "1,3", "");
    assert_eq!(send(&mut s, 40, other), [""; 0], "other bounds");
    let want = histogram(DELTA, (40, 50), &value(1, 1.0, [1, 0, 0], "1,3", ""));
    assert_eq!(
        send(&mut s, 50, value(10, 10.0, [4, 3, 3], "1,3", "")),
        [metrics(&want)]
    );
    s.meters(&[
        r#"otelcol_cumulativetodelta_datapoints{processor="x",metric_type="histogram"} 3"#,
        r#"otelcol_cumulativetodelta_datapoints_dropped{processor="x",metric_type="histogram",reason="bucket_mismatch"} 1"#,
    ]);
}

#[test]
fn exponential_histograms_become_what_was_added() {
    let mut s = Setup::new("cumulativetodelta", "");
    let metric = |temporality: u8, start, time, value: &str| {
        let point = point(("", start, time, value));
        format!(
            r#"{{"name":"e","exponentialHistogram":{{"dataPoints":[{point}],"aggregationTemporality":{temporality}}}}}"#
        )
    };
    let first = r#""count":"6","sum":6,"scale":1,"zeroCount":"1","positive":{"offset":0,"bucketCounts":["1","1","1","2"]}"#;
    assert_eq!(s.send(&metric(CUMULATIVE, 5, 10, first)), [""; 0]);
    // Coarser by one, and what is up to 1 from zero counts as zero.
    let second = r#""count":"9","sum":10,"scale":0,"zeroCount":"2","zeroThreshold":1,"max":7,"positive":{"offset":0,"bucketCounts":["2","5"]}"#;
    let want = r#""count":"3","sum":4,"scale":0,"zeroCount":"1","zeroThreshold":1,"positive":{"offset":1,"bucketCounts":["2"]}"#;
    assert_eq!(
        s.send(&metric(CUMULATIVE, 5, 20, second)),
        [metrics(&metric(DELTA, 10, 20, want))]
    );
    let reset = r#""count":"1","scale":0,"zeroCount":"1","zeroThreshold":1"#;
    assert_eq!(s.send(&metric(CUMULATIVE, 25, 30, reset)), [""; 0]);
    let third = r#""count":"2","scale":0,"zeroCount":"2","zeroThreshold":1"#;
    let want = r#""count":"1","scale":0,"zeroCount":"1","zeroThreshold":1"#;
    assert_eq!(
        s.send(&metric(CUMULATIVE, 25, 40, third)),
        [metrics(&metric(DELTA, 30, 40, want))]
    );
}

#[test]
fn metrics_are_chosen_by_name_and_kind() {
    let text = r#"{"name":"a.x","sum":{"dataPoints":[{"asInt":"1"}],"aggregationTemporality":2,"isMonotonic":true}},
        {"name":"b.x","sum":{"dataPoints":[{"asInt":"1"}],"aggregationTemporality":2,"isMonotonic":true}},
        {"name":"a.h","histogram":{"dataPoints":[{"count":"1"}],"aggregationTemporality":2}},
        {"name":"a.e","exponentialHistogram":{"dataPoints":[{"count":"1"}],"aggregationTemporality":2}}"#;
    for (yaml, converted) in [
        ("", &["a.x", "b.x", "a.h", "a.e"][..]),
        (
            "include: {metrics: [a.x, a.h], match_type: strict}",
            &["a.x", "a.h"],
        ),
        (
            "include: {metrics: ['^a', e$], match_type: regexp, regexp: {cacheenabled: true}}",
            &["a.x", "a.h", "a.e"],
        ),
        (
            "exclude: {metrics: [a.x], match_type: strict}",
            &["b.x", "a.h", "a.e"],
        ),
        (
            "include: {metric_types: [Histogram, exponentialhistogram]}",
            &["a.h", "a.e"],
        ),
        (
            "include: {metrics: ['^a'], match_type: regexp}\nexclude: {metric_types: [sum]}",
            &["a.h", "a.e"],
        ),
        (
            "include: {metrics: ['^a'], match_type: regexp, metric_types: [sum]}",
            &["a.x"],
        ),
    ] {
        let yaml = format!("initial_value: keep\n{yaml}");
        let mut s = Setup::new("cumulativetodelta", &yaml);
        let out = s.send(text).concat();
        for name in ["a.x", "b.x", "a.h", "a.e"] {
            let metric = out
                .split(r#"{"name":"#)
                .find(|m| m.starts_with(&format!("\"{name}\"")));
            let metric = metric.unwrap_or_else(|| panic!("{name} is in {out}"));
            let is_delta = metric.contains(r#""aggregationTemporality":1"#);
            assert_eq!(is_delta, converted.contains(&name), "{yaml}: {name}");
        }
    }
}

#[test]
fn resources_and_scopes_are_told_apart_and_stay() {
    let mut s = Setup::new("cumulativetodelta", "");
    let request = |time, temporality: u8, start: u64, values: [u64; 3]| {
        let metric = |value| {
            let value = format!(r#""asInt":"{value}""#);
            sum("m", temporality, &[("", start, time, &value)])
        };
        let [a, b, c] = values.map(metric);
        whole(&format!(
            r#"{{"resourceMetrics":[
            {{"resource":{{"attributes":[{{"key":"r","value":{{"stringValue":"1"}}}}]}},"schemaUrl":"u","scopeMetrics":[
              {{"scope":{{"name":"s"}},"schemaUrl":"v","metrics":[{a}]}},{{"metrics":[{b}]}}]}},
            {{"scopeMetrics":[{{"metrics":[{c}]}}]}}]}}"#
        ))
    };
    s.take_in(request(10, CUMULATIVE, 5, [1, 10, 100]));
    assert_eq!(s.come_out(Outcome::Delivered), [""; 0]);
    s.take_in(request(20, CUMULATIVE, 5, [2, 12, 103]));
    let want = request(20, DELTA, 10, [1, 2, 3]);
    assert_eq!(s.come_out(Outcome::Delivered), [super::shown(&want)]);
}

#[test]
fn streams_are_forgotten_when_they_are_silent_and_when_they_are_too_many() {
    let mut s = Setup::new("cumulativetodelta", "max_staleness: 60s");
    s.send(&total(&[("x", 5, 10, 1)]));
    s.wait(59);
    assert_eq!(
        s.send(&total(&[("x", 5, 20, 2)])),
        added(&[("x", 10, 20, 1)])
    );
    s.wait(60);
    assert_eq!(s.deadline(), None, "nothing is remembered");
    s.flush();
    assert_eq!(s.come_out(Outcome::Delivered), [""; 0], "nothing is kept");
    s.meters(&[r#"otelcol_cumulativetodelta_streams_tracked{processor="x"} 0"#]);
    assert_eq!(s.send(&total(&[("x", 5, 30, 5)])), [""; 0]);
    let mut s = Setup::new("cumulativetodelta", "streams_max: 2");
    for (i, name) in ["x", "y", "z"].iter().enumerate() {
        s.send(&total(&[(name, 5, 10, 1)]));
        s.wait(i as u64 + 1);
    }
    s.meters(&[
        r#"otelcol_cumulativetodelta_streams_tracked{processor="x"} 2"#,
        r#"tailwater_cumulativetodelta_streams_evicted{processor="x"} 1"#,
    ]);
    assert_eq!(s.send(&total(&[("y", 5, 20, 2), ("z", 5, 20, 2)])).len(), 1);
}

/// Guarantee: what was added is passed on until it is delivered, whether its sender sends it again or
/// goes on with newer values.
#[test]
fn what_was_not_delivered_is_in_the_next_difference() {
    let mut s = Setup::new("cumulativetodelta", "");
    s.send(&total(&[("x", 5, 10, 100), ("y", 5, 10, 100)]));
    s.take_in(request(&total(&[("x", 5, 20, 130), ("y", 5, 20, 101)])));
    assert_eq!(
        s.come_out(Outcome::Retry),
        added(&[("x", 10, 20, 30), ("y", 10, 20, 1)])
    );
    assert_eq!(s.answers().last(), Some(&(1, Outcome::Retry, 0, 0)));
    // The same again, and something newer.
    assert_eq!(
        s.send(&total(&[("x", 5, 20, 130)])),
        added(&[("x", 10, 20, 30)])
    );
    assert_eq!(
        s.send(&total(&[("x", 5, 30, 131)])),
        added(&[("x", 20, 30, 1)])
    );
    assert_eq!(
        s.send(&total(&[("y", 5, 30, 103)])),
        added(&[("y", 10, 30, 3)])
    );
    s.meters(&[r#"tailwater_cumulativetodelta_datapoints_returned{processor="x"} 2"#]);
    assert_eq!(s.budget.used_bytes(), 0);
}

#[test]
fn histograms_that_were_not_delivered_come_again() {
    let mut s = Setup::new("cumulativetodelta", "");
    let exponential = |temporality: u8, start, time, count: u64, rest: &str| {
        let value = format!(r#""count":"{count}","sum":{count}{rest}"#);
        let point = point(("", start, time, &value));
        format!(
            r#"{{"name":"e","exponentialHistogram":{{"dataPoints":[{point}],"aggregationTemporality":{temporality}}}}}"#
        )
    };
    let buckets = |scale, offset, counts: &str| {
        format!(r#","scale":{scale},"positive":{{"offset":{offset},"bucketCounts":[{counts}]}}"#)
    };
    let classic = |temporality: u8, start, time, count: u64| {
        let value = format!(
            r#""count":"{count}","sum":{count},"bucketCounts":["{count}","0"],"explicitBounds":[1]"#
        );
        histogram(temporality, (start, time), &value)
    };
    let both = |t, start, time, count, rest: &str| {
        [
            exponential(t, start, time, count, rest),
            classic(t, start, time, count),
        ]
        .join(",")
    };
    s.send(&both(CUMULATIVE, 5, 10, 1, &buckets(1, 2, r#""1""#)));
    s.take_in(request(&both(
        CUMULATIVE,
        5,
        20,
        3,
        &buckets(1, 2, r#""1","2""#),
    )));
    s.come_out(Outcome::Retry);
    // Coarser by then: buckets 2 and 3 became bucket 1.
    let next = s.send(&both(CUMULATIVE, 5, 30, 4, &buckets(0, 1, r#""4""#)));
    let want = both(DELTA, 10, 30, 3, &buckets(0, 1, r#""3""#));
    assert_eq!(next, [metrics(&want)]);
}

#[test]
fn shards_of_a_chain_share_streams_and_chains_do_not() {
    let mut s = Setup::new("cumulativetodelta", "");
    s.send(&total(&[("x", 5, 10, 1)]));
    s.use_instance(s.instance("metrics"));
    assert_eq!(
        s.send(&total(&[("x", 5, 20, 2)])),
        added(&[("x", 10, 20, 1)])
    );
    s.use_instance(s.instance("metrics to other"));
    assert_eq!(
        s.send(&total(&[("x", 5, 30, 3)])),
        [""; 0],
        "it is new there"
    );
}

#[test]
fn mistakes_are_named() {
    refused(
        "cumulativetodelta",
        &[
            (
                "include: {metrics: [a]}",
                &["include::match_type: must be set"],
            ),
            (
                "exclude: {match_type: strict}",
                &["exclude::metrics: must be supplied"],
            ),
            (
                "include: {metrics: ['*a'], match_type: regexp}",
                &["regular expression"],
            ),
            (
                "include: {metrics: [a], match_type: exact}",
                &["allowed: strict, regexp"],
            ),
            (
                "include: {metric_types: [gauge]}",
                &["include::metric_types", "sum, histogram"],
            ),
            ("initial_value: zero", &["allowed: auto, keep, drop"]),
            ("max_stale: 1s", &["unknown option", "max_staleness"]),
            ("streams_max: 0", &["streams_max"]),
        ],
    );
}
