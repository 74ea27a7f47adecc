use tailwater_pipeline::Outcome;

use super::{Setup, metrics, point, refused, request, sum};

const DELTA: u8 = 1;
const CUMULATIVE: u8 = 2;

fn of(temporality: u8, points: &[(&str, u64, u64, i64)]) -> String {
    let values: Vec<String> = points
        .iter()
        .map(|p| format!(r#""asInt":"{}""#, p.3))
        .collect();
    let points = points.iter().zip(&values);
    let points: Vec<_> = points.map(|(p, v)| (p.0, p.1, p.2, v.as_str())).collect();
    sum("m", temporality, &points)
}

fn more(points: &[(&str, u64, u64, i64)]) -> String {
    of(DELTA, points)
}

fn total(points: &[(&str, u64, u64, i64)]) -> Vec<String> {
    vec![metrics(&of(CUMULATIVE, points))]
}

#[test]
fn sums_are_added_up() {
    let mut s = Setup::new("deltatocumulative", "");
    assert_eq!(
        s.send(&more(&[("x", 10, 20, 5)])),
        total(&[("x", 10, 20, 5)])
    );
    assert_eq!(
        s.send(&more(&[("x", 20, 30, 2), ("y", 20, 30, 1)])),
        total(&[("x", 10, 30, 7), ("y", 20, 30, 1)])
    );
    // Several of a stream in one request, and a gap, which changes nothing.
    assert_eq!(
        s.send(&more(&[("x", 40, 50, 1), ("x", 50, 60, 1)])),
        total(&[("x", 10, 50, 8), ("x", 10, 60, 9)])
    );
    assert!(
        s.answers()
            .iter()
            .all(|a| a.1 == Outcome::Delivered && a.2 == 0)
    );
    s.meters(&[
        r#"otelcol_deltatocumulative_datapoints{processor="x",error=""} 5"#,
        r#"otelcol_deltatocumulative_streams_tracked{processor="x"} 2"#,
        r#"otelcol_deltatocumulative_streams_max_stale{processor="x"} 300"#,
        r#"otelcol_deltatocumulative_streams_limit{processor="x"} 1000000"#,
    ]);
    let double =
        |temporality, start, time, value: &str| sum("d", temporality, &[("", start, time, value)]);
    s.send(&double(DELTA, 1, 2, r#""asDouble":0.5"#));
    let next = s.send(&double(DELTA, 2, 3, r#""asDouble":0.25"#));
    assert_eq!(
        next,
        [metrics(&double(CUMULATIVE, 1, 3, r#""asDouble":0.75"#))]
    );
}

#[test]
fn what_comes_late_is_left_out_and_counted() {
    let mut s = Setup::new("deltatocumulative", "");
    s.send(&more(&[("x", 10, 20, 5)]));
    s.answers();
    assert_eq!(
        s.send(&more(&[("x", 10, 20, 5)])),
        [""; 0],
        "again, though it was delivered"
    );
    assert_eq!(
        s.send(&more(&[
            ("x", 10, 15, 5),
            ("x", 9, 30, 5),
            ("x", 20, 40, 1)
        ])),
        total(&[("x", 10, 40, 6)])
    );
    assert_eq!(
        s.answers(),
        [(1, Outcome::Filtered, 1, 0), (2, Outcome::Delivered, 2, 0)]
    );
    s.meters(&[
        r#"otelcol_deltatocumulative_datapoints{processor="x",error="delta.ErrOutOfOrder"} 2"#,
        r#"otelcol_deltatocumulative_datapoints{processor="x",error="delta.ErrOlderStart"} 1"#,
        r#"otelcol_deltatocumulative_datapoints{processor="x",error=""} 2"#,
    ]);
}

#[test]
fn streams_are_limited_and_forgotten() {
    let mut s = Setup::new("deltatocumulative", "{max_stale: 60s, max_streams: 2}");
    s.send(&more(&[
        ("x", 10, 20, 1),
        ("y", 10, 20, 1),
        ("z", 10, 20, 1),
    ]));
    assert_eq!(s.answers(), [(0, Outcome::Delivered, 1, 0)]);
    s.meters(&[
        r#"otelcol_deltatocumulative_datapoints{processor="x",error="limit"} 1"#,
        r#"otelcol_deltatocumulative_streams_limit{processor="x"} 2"#,
    ]);
    s.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(
        s.send(&more(&[("z", 20, 30, 1)])),
        total(&[("z", 20, 30, 1)]),
        "room is made when it is needed"
    );
    s.wait(60);
    s.meters(&[r#"otelcol_deltatocumulative_streams_tracked{processor="x"} 0"#]);
    assert_eq!(s.deadline(), None);
    assert_eq!(
        s.send(&more(&[("z", 30, 40, 1)])),
        total(&[("z", 30, 40, 1)]),
        "begun anew"
    );
}

/// Guarantee: what was added to a total that was not delivered is delivered, with the same point sent
/// again or with a later one, and is added once.
#[test]
fn a_total_that_was_not_delivered_is_passed_on_again() {
    let mut s = Setup::new("deltatocumulative", "");
    s.send(&more(&[("x", 10, 20, 5), ("y", 10, 20, 5)]));
    let both = more(&[("x", 20, 30, 1), ("x", 30, 40, 1), ("y", 20, 30, 1)]);
    for _ in 0..2 {
        s.take_in(request(&both));
        assert!(!s.come_out(Outcome::Retry).is_empty());
    }
    assert_eq!(
        s.send(&more(&[("y", 30, 40, 1)])),
        total(&[("y", 10, 40, 7)])
    );
    // What is older was in the total of the newer one all the time.
    assert_eq!(s.send(&both), total(&[("x", 10, 40, 7)]));
    s.meters(&[r#"tailwater_deltatocumulative_datapoints_repeated{processor="x"} 3"#]);
    assert_eq!(
        s.send(&more(&[("x", 40, 50, 1)])),
        total(&[("x", 10, 50, 8)])
    );
    assert_eq!(s.send(&more(&[("x", 40, 50, 1)])), [""; 0], "delivered");
    assert_eq!(s.budget.used_bytes(), 0);
}

fn histogram(temporality: u8, start: u64, time: u64, value: &str) -> String {
    let point = point(("", start, time, value));
    format!(
        r#"{{"name":"h","histogram":{{"dataPoints":[{point}],"aggregationTemporality":{temporality}}}}}"#
    )
}

#[test]
fn histograms_are_added_up() {
    let mut s = Setup::new("deltatocumulative", "");
    let value = |count: u64, rest: &str, buckets: [u64; 2], bound: u64| {
        let [a, b] = buckets;
        format!(
            r#""count":"{count}",{rest}"bucketCounts":["{a}","{b}"],"explicitBounds":[{bound}]"#
        )
    };
    let first = value(2, r#""sum":3,"min":1,"max":2,"#, [1, 1], 1);
    assert_eq!(
        s.send(&histogram(DELTA, 10, 20, &first)),
        [metrics(&histogram(CUMULATIVE, 10, 20, &first))]
    );
    let second = value(3, r#""sum":4.5,"min":0.5,"max":9,"#, [1, 2], 1);
    let want = value(5, r#""sum":7.5,"min":0.5,"max":9,"#, [2, 3], 1);
    assert_eq!(
        s.send(&histogram(DELTA, 20, 30, &second)),
        [metrics(&histogram(CUMULATIVE, 10, 30, &want))]
    );
    // A sum or extreme that one of them does not have is not known any more.
    let third = value(1, "", [1, 0], 1);
    let want = value(6, "", [3, 3], 1);
    assert_eq!(
        s.send(&histogram(DELTA, 30, 40, &third)),
        [metrics(&histogram(CUMULATIVE, 10, 40, &want))]
    );
    // Other bounds cannot be added: the total begins anew.
    let other = value(1, "", [1, 0], 7);
    assert_eq!(
        s.send(&histogram(DELTA, 40, 50, &other)),
        [metrics(&histogram(CUMULATIVE, 40, 50, &other))]
    );
}

#[test]
fn exponential_histograms_are_added_up() {
    let mut s = Setup::new("deltatocumulative", "");
    let metric = |temporality: u8, start, time, value: &str| {
        let point = point(("", start, time, value));
        format!(
            r#"{{"name":"e","exponentialHistogram":{{"dataPoints":[{point}],"aggregationTemporality":{temporality}}}}}"#
        )
    };
    let first =
        r#""count":"4","sum":4,"scale":1,"positive":{"offset":2,"bucketCounts":["1","1","2"]}"#;
    s.send(&metric(DELTA, 10, 20, first));
    let second = r#""count":"3","sum":1,"scale":0,"zeroCount":"1","positive":{"offset":-1,"bucketCounts":["1"]},"negative":{"bucketCounts":["1"]}"#;
    let want = r#""count":"7","sum":5,"scale":0,"zeroCount":"1","positive":{"offset":-1,"bucketCounts":["1","0","2","2"]},"negative":{"bucketCounts":["1"]}"#;
    assert_eq!(
        s.send(&metric(DELTA, 20, 30, second)),
        [metrics(&metric(CUMULATIVE, 10, 30, want))]
    );
}

#[test]
fn what_is_no_difference_stays_as_it_is() {
    let mut s = Setup::new("deltatocumulative", "");
    let before = request(
        r#"{"name":"g","gauge":{"dataPoints":[{"asInt":"1"}]}},
        {"name":"c","sum":{"dataPoints":[{"asInt":"1"}],"aggregationTemporality":2,"isMonotonic":true}},
        {"name":"u","sum":{"dataPoints":[{"asInt":"1"}]}},
        {"name":"q","summary":{"dataPoints":[{"count":"1"}]}}"#,
    );
    let address = before.body().as_ptr();
    s.take_in(before.clone());
    assert_eq!(s.come_out(Outcome::Delivered), [super::shown(&before)]);
    assert_eq!(before.body().as_ptr(), address);
    // A sum that may fall is added up, too.
    let up_and_down = |temporality: u8, value: i64| {
        format!(
            r#"{{"name":"n","sum":{{"dataPoints":[{{"startTimeUnixNano":"1","timeUnixNano":"2","asInt":"{value}"}}],"aggregationTemporality":{temporality}}}}}"#
        )
    };
    assert_eq!(
        s.send(&up_and_down(DELTA, -3)),
        [metrics(&up_and_down(CUMULATIVE, -3))]
    );
}

#[test]
fn mistakes_are_named() {
    refused(
        "deltatocumulative",
        &[
            ("max_stale: 0s", &["max_stale", "positive"]),
            ("max_streams: -1", &["max_streams"]),
            ("max_staleness: 1s", &["unknown option", "max_stale"]),
            ("storage: file_storage", &["storage", "in memory"]),
        ],
    );
}
