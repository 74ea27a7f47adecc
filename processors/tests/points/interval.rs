use tailwater_pipeline::Outcome;
use tailwater_pipeline::clock::Mono;

use super::{Setup, decode, metrics, refused, request, shown, sum, whole};

const CUMULATIVE: u8 = 2;

fn total(points: &[(&str, u64, u64, i64)]) -> String {
    let values: Vec<String> = points
        .iter()
        .map(|p| format!(r#""asInt":"{}""#, p.3))
        .collect();
    let points = points.iter().zip(&values);
    let points: Vec<_> = points.map(|(p, v)| (p.0, p.1, p.2, v.as_str())).collect();
    sum("m", CUMULATIVE, &points)
}

const NONE: [&str; 0] = [];

#[test]
fn the_newest_of_each_stream_is_passed_on_at_the_end_of_the_interval() {
    let mut s = Setup::new("interval", "interval: 60s");
    s.wait(70);
    assert_eq!(s.deadline(), None);
    assert_eq!(s.send(&total(&[("x", 1, 10, 1), ("y", 1, 10, 5)])), NONE);
    assert_eq!(
        s.deadline(),
        Some(Mono(120_000_000_000)),
        "intervals are counted from the start"
    );
    s.wait(10);
    // Newer, older, and several of a stream in one request.
    assert_eq!(
        s.send(&total(&[("x", 1, 12, 2), ("x", 1, 11, 7), ("x", 1, 13, 3)])),
        NONE
    );
    assert_eq!(
        s.answers(),
        [],
        "y of the first request waits, and x of the second"
    );
    s.meters(&[
        r#"tailwater_interval_streams_held{processor="x"} 2"#,
        r#"tailwater_interval_datapoints_superseded{processor="x"} 3"#,
    ]);
    s.wait(39);
    assert_eq!(s.come_out(Outcome::Delivered), NONE);
    s.wait(1);
    let want = metrics(&total(&[("x", 1, 13, 3), ("y", 1, 10, 5)]));
    assert_eq!(s.come_out(Outcome::Delivered), [want]);
    let mut answers = s.answers();
    answers.sort_by_key(|a| a.0);
    assert_eq!(
        answers,
        [(0, Outcome::Filtered, 1, 0), (1, Outcome::Filtered, 2, 0)]
    );
    assert_eq!(s.deadline(), None, "nothing is left");
    s.wait(60);
    assert_eq!(s.come_out(Outcome::Delivered), NONE);
    s.meters(&[r#"tailwater_interval_bytes_held{processor="x"} 0"#]);
    assert_eq!(s.budget.used_bytes(), 0);
}

/// Guarantee: nobody is told of success before what it sent is delivered or superseded.
#[test]
fn a_sender_is_told_when_its_newest_points_are_delivered() {
    let mut s = Setup::new("interval", "interval: 60s");
    s.send(&total(&[("x", 1, 10, 1)]));
    s.send(&total(&[("x", 1, 20, 2)]));
    assert_eq!(s.answers(), [(0, Outcome::Filtered, 1, 0)], "superseded");
    // The same again: whoever sent it first does not wait any more.
    s.send(&total(&[("x", 1, 20, 2)]));
    assert_eq!(s.answers(), [(1, Outcome::Filtered, 1, 0)]);
    s.send(&total(&[("x", 1, 15, 2)]));
    assert_eq!(s.answers(), [(3, Outcome::Filtered, 1, 0)], "older");
    s.wait(60);
    assert!(s.answers().is_empty(), "under way");
    assert_eq!(
        s.come_out(Outcome::Retry),
        [metrics(&total(&[("x", 1, 20, 2)]))]
    );
    assert_eq!(
        s.answers(),
        [(2, Outcome::Retry, 0, 0)],
        "it has to send it again"
    );
    s.send(&total(&[("x", 1, 20, 2)]));
    s.wait(60);
    assert_eq!(s.come_out(Outcome::Delivered).len(), 1);
    assert_eq!(s.answers(), [(4, Outcome::Delivered, 0, 0)]);
}

const MIXED: &str = r#"{"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"1","asInt":"1"}]}},
    {"name":"d","sum":{"dataPoints":[{"asInt":"1"}],"aggregationTemporality":1,"isMonotonic":true}},
    {"name":"n","sum":{"dataPoints":[{"asInt":"1"}],"aggregationTemporality":2}},
    {"name":"h","histogram":{"dataPoints":[{"count":"1"}],"aggregationTemporality":1}},
    {"name":"c","histogram":{"dataPoints":[{"count":"1","min":1}],"aggregationTemporality":2},"description":"text"},
    {"name":"e","exponentialHistogram":{"dataPoints":[{"count":"1","scale":-1}],"aggregationTemporality":2}},
    {"name":"empty","gauge":{}},
    {"name":"q","summary":{"dataPoints":[{"count":"1","quantileValues":[{"quantile":0.5,"value":2}]}]}}"#;

/// The metrics of `MIXED` with these names.
fn some(names: &str) -> String {
    let lines = MIXED.lines().map(|l| l.trim().trim_end_matches(','));
    let named = |l: &&str| {
        names
            .split(' ')
            .any(|n| l.starts_with(&format!(r#"{{"name":"{n}""#)))
    };
    metrics(&lines.filter(named).collect::<Vec<_>>().join(","))
}

#[test]
fn what_does_not_wait_is_passed_on_at_once() {
    for (yaml, passes, waits) in [
        ("", "d n h", "g c e q"),
        ("pass_through: {gauge: true}", "g d n h empty", "c e q"),
        (
            "pass_through: {gauge: true, summary: true}",
            "g d n h empty q",
            "c e",
        ),
    ] {
        let mut s = Setup::new("interval", yaml);
        assert_eq!(s.send(MIXED), [some(passes)], "{yaml}");
        assert_eq!(s.answers(), [], "{yaml}");
        s.flush();
        assert_eq!(s.come_out(Outcome::Delivered), [some(waits)], "{yaml}");
        assert_eq!(s.answers(), [(0, Outcome::Delivered, 0, 0)], "{yaml}");
    }
    let mut s = Setup::new("interval", "pass_through: {gauge: true}");
    let gauge = request(r#"{"name":"g","gauge":{"dataPoints":[{"asInt":"1"}]}}"#);
    s.take_in(gauge.clone());
    assert_eq!(s.come_out(Outcome::Delivered), [shown(&gauge)]);
    assert_eq!(s.deadline(), None);
}

#[test]
fn resources_and_scopes_come_out_as_they_came() {
    let of = |value: u64, time: u64| {
        let point = format!(r#"{{"timeUnixNano":"{time}","asInt":"{value}"}}"#);
        let metric = |name: &str| {
            format!(
                r#"{{"name":"{name}","unit":"By","metadata":[{{"key":"k"}}],"gauge":{{"dataPoints":[{point}]}}}}"#
            )
        };
        let (a, b) = (metric("a"), metric("b"));
        let resource = r#"{"attributes":[{"key":"r","value":{"stringValue":"1"}}],"droppedAttributesCount":3}"#;
        let one = format!(
            r#"{{"resource":{resource},"scopeMetrics":[{{"scope":{{"name":"s"}},"metrics":[{a},{b}],"schemaUrl":"v"}},{{"metrics":[{a}]}}],"schemaUrl":"u"}}"#
        );
        (one, format!(r#"{{"scopeMetrics":[{{"metrics":[{a}]}}]}}"#))
    };
    let all = |(one, other): (String, String)| {
        whole(&format!(r#"{{"resourceMetrics":[{one},{other}]}}"#))
    };
    let mut s = Setup::new("interval", "");
    s.take_in(all(of(1, 10)));
    s.take_in(all(of(2, 20)));
    s.wait(60);
    let (one, other) = of(2, 20);
    let want = [one, other].map(|r| shown(&whole(&format!(r#"{{"resourceMetrics":[{r}]}}"#))));
    assert_eq!(
        s.come_out(Outcome::Delivered),
        want,
        "a part for each resource"
    );
}

#[test]
fn with_acknowledge_held_nobody_waits_and_what_comes_back_is_held_again() {
    let mut s = Setup::new("interval", "acknowledge: held");
    s.send(&total(&[("x", 1, 10, 1), ("y", 1, 10, 1)]));
    s.send(&total(&[("x", 1, 20, 2)]));
    let told: Vec<_> = s.answers().iter().map(|a| (a.0, a.1)).collect();
    assert_eq!(told, [(0, Outcome::Delivered), (1, Outcome::Delivered)]);
    s.wait(60);
    assert_eq!(
        s.come_out(Outcome::Retry),
        [metrics(&total(&[("x", 1, 20, 2), ("y", 1, 10, 1)]))]
    );
    s.send(&total(&[("x", 1, 30, 3)]));
    s.wait(60);
    assert_eq!(
        s.come_out(Outcome::Retry),
        [metrics(&total(&[("x", 1, 30, 3), ("y", 1, 10, 1)]))]
    );
    s.flush();
    assert_eq!(
        s.come_out(Outcome::Delivered),
        [metrics(&total(&[("x", 1, 30, 3), ("y", 1, 10, 1)]))]
    );
    s.flush();
    assert_eq!(s.come_out(Outcome::Delivered), NONE);
    assert_eq!(s.budget.used_bytes(), 0);
}

#[test]
fn what_takes_too_much_memory_is_passed_on_early() {
    let mut s = Setup::new("interval", "held_bytes_max: 4KiB");
    let (mut sent, mut out) = (0, Vec::new());
    while out.is_empty() {
        sent += 1;
        assert!(sent < 100, "bounded");
        out = s.send(&total(&[(&format!("x{sent}"), 1, 10, 1)]));
    }
    assert!(sent > 3, "{sent}");
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].matches("asInt").count(), sent);
    assert_eq!((s.answers().len(), s.deadline()), (sent, None));
    s.meters(&[r#"tailwater_interval_early_emissions{processor="x"} 1"#]);
}

#[test]
fn shards_of_a_chain_hold_together() {
    let mut s = Setup::new("interval", "");
    let other = s.instance("metrics");
    s.send(&total(&[("x", 1, 10, 1)]));
    assert!(other.deadline().is_some());
    s.use_instance(other);
    s.send(&total(&[("x", 1, 20, 2)]));
    s.wait(60);
    assert_eq!(
        s.come_out(Outcome::Delivered),
        [metrics(&total(&[("x", 1, 20, 2)]))]
    );
}

#[test]
fn a_long_wait_is_warned_about_and_mistakes_are_named() {
    for (yaml, warned) in [
        ("", true),
        ("interval: 4s", false),
        ("acknowledge: held", false),
        ("acknowledge: delivered", false),
    ] {
        let (_, mut errors) = decode("interval", yaml);
        assert_eq!(errors.take_warnings().len(), usize::from(warned), "{yaml}");
    }
    refused(
        "interval",
        &[
            ("interval: 0s", &["interval", "greater than zero"]),
            ("pass_through: {gauges: true}", &["unknown option", "gauge"]),
            ("acknowledge: never", &["allowed: delivered, held"]),
            ("held_bytes_max: 0", &["held_bytes_max"]),
        ],
    );
}
