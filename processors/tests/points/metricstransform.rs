use tailwater_pipeline::Outcome;

use super::{Setup, decode, metrics, refused, request, shown, whole};

/// A metric in few words: `name kind: label=value,label=value number; ...`. Kinds are `gauge`, `sum`
/// (cumulative, monotonic) and `delta`. Numbers with a point are doubles. A number may be followed by
/// `@start-time` in seconds.
fn one(text: &str) -> String {
    let (head, points) = text.split_once(':').unwrap_or((text, ""));
    let (name, kind) = head.trim().split_once(' ').expect("a name and a kind");
    let points = points.split(';').map(str::trim).filter(|p| !p.is_empty());
    let points: Vec<String> = points.map(point).collect();
    let points = points.join(",");
    let data = match kind {
        "gauge" => format!(r#""gauge":{{"dataPoints":[{points}]}}"#),
        "sum" => format!(
            r#""sum":{{"dataPoints":[{points}],"aggregationTemporality":2,"isMonotonic":true}}"#
        ),
        "delta" => format!(
            r#""sum":{{"dataPoints":[{points}],"aggregationTemporality":1,"isMonotonic":true}}"#
        ),
        other => panic!("{other}"),
    };
    format!(r#"{{"name":"{name}",{data}}}"#)
}

fn point(text: &str) -> String {
    let (labels, value) = text.rsplit_once(' ').unwrap_or(("", text));
    let (value, times) = value.split_once('@').unwrap_or((value, ""));
    let mut members = Vec::new();
    let labels: Vec<String> = labels
        .split(',')
        .filter(|l| !l.is_empty())
        .map(|l| {
            let (key, value) = l.split_once('=').expect("label=value");
            format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
        })
        .collect();
    if !labels.is_empty() {
        members.push(format!(r#""attributes":[{}]"#, labels.join(",")));
    }
    if let Some((start, time)) = times.split_once('-') {
        members.push(format!(
            r#""startTimeUnixNano":"{start}000000000","timeUnixNano":"{time}000000000""#
        ));
    }
    members.push(match value.contains('.') {
        true => format!(r#""asDouble":{value}"#),
        false => format!(r#""asInt":"{value}""#),
    });
    format!("{{{}}}", members.join(","))
}

fn many(lines: &[&str]) -> String {
    lines.iter().map(|l| one(l)).collect::<Vec<_>>().join(",")
}

fn setup(transforms: &str) -> Setup {
    Setup::new("metricstransform", &format!("transforms:\n{transforms}"))
}

/// Asserts that `before` becomes `after`.
#[track_caller]
fn becomes(transforms: &str, before: &[&str], after: &[&str]) {
    let mut s = setup(transforms);
    let want: Vec<String> = match after {
        [] => Vec::new(),
        some => vec![metrics(&many(some))],
    };
    assert_eq!(s.send(&many(before)), want, "{transforms}");
    let answers = s.answers();
    assert_eq!(answers.len(), 1);
    assert_ne!(answers[0].1, Outcome::Lost);
}

#[test]
fn metrics_are_renamed_and_copied() {
    becomes(
        "- {include: a, action: update, new_name: b}",
        &["a gauge: 1", "ab gauge: 2"],
        &["b gauge: 1", "ab gauge: 2"],
    );
    becomes(
        "- {include: '^system\\.cpu\\.(.*)$', match_type: regexp, action: update, new_name: 'system.${1}.stat'}",
        &["system.cpu.usage gauge: 1", "system.memory gauge: 2"],
        &["system.usage.stat gauge: 1", "system.memory gauge: 2"],
    );
    // An expression that gives nothing is taken as it is written; a strict name knows no groups.
    becomes(
        "- {include: a, match_type: regexp, action: update, new_name: '$7'}\n- {include: b, action: update, new_name: '$1'}",
        &["a gauge: 1", "b gauge: 2"],
        &["$7 gauge: 1", "$1 gauge: 2"],
    );
    becomes(
        "- {include: a, action: insert, new_name: b, operations: [{action: add_label, new_label: l, new_value: v}]}",
        &["a gauge: 1; x=y 2"],
        &["a gauge: 1; x=y 2", "b gauge: l=v 1; x=y,l=v 2"],
    );
    // Later transforms see what earlier ones made.
    becomes(
        "- {include: a, action: insert, new_name: b}\n- {include: b, action: update, new_name: c}",
        &["a gauge: 1"],
        &["a gauge: 1", "c gauge: 1"],
    );
}

#[test]
fn labels_choose_metrics_and_points() {
    let before = &["a gauge: l=x 1; l=y 2; 3"][..];
    // All of a metric changes only where all of its points are meant.
    becomes(
        "- {include: a, action: update, new_name: b, experimental_match_labels: {l: x}, operations: [{action: update_label, label: l, new_label: m}, {action: add_label, new_label: n, new_value: v}]}",
        before,
        &["a gauge: m=x 1; l=y 2; 3"],
    );
    becomes(
        "- {include: a, match_type: regexp, action: insert, new_name: b, experimental_match_labels: {l: '[xy]'}}",
        before,
        &["a gauge: l=x 1; l=y 2; 3", "b gauge: l=x 1; l=y 2"],
    );
    // A label that is missing is as an empty one.
    becomes(
        "- {include: a, action: insert, new_name: b, experimental_match_labels: {l: ''}}",
        before,
        &["a gauge: l=x 1; l=y 2; 3", "b gauge: 3"],
    );
    becomes(
        "- {include: a, action: update, new_name: b, experimental_match_labels: {l: z}}",
        before,
        before,
    );
}

#[test]
fn operations_change_labels_and_values() {
    let update = |operation: &str| {
        format!("- {{include: a, action: update, operations: [{{{operation}}}]}}")
    };
    for (operation, before, after) in [
        (
            "action: add_label, new_label: l, new_value: 'v{{version}}'",
            "a gauge: 1; l=x 2",
            concat!("a gauge: l=v", env!("CARGO_PKG_VERSION"), " 1; l=x 2"),
        ),
        (
            "action: update_label, label: l, new_label: m",
            "a gauge: l=x,o=p 1; m=y 2",
            "a gauge: o=p,m=x 1; m=y 2",
        ),
        (
            "action: update_label, label: l, value_actions: [{value: x, new_value: y}, {value: y, new_value: z}]",
            "a gauge: l=x 1; l=y 2; l=w 3",
            "a gauge: l=y 1; l=z 2; l=w 3",
        ),
        (
            "action: update_label, label: l, new_label: m, value_actions: [{value: x, new_value: y}]",
            "a gauge: l=x 1",
            "a gauge: m=y 1",
        ),
        (
            "action: delete_label_value, label: l, label_value: x",
            "a gauge: l=x 1; l=y 2; 3",
            "a gauge: l=y 2; 3",
        ),
        (
            "action: toggle_scalar_data_type",
            "a sum: 1; 2.9",
            "a sum: 1.0; 2",
        ),
        (
            "action: experimental_scale_value, experimental_scale: 0.5",
            "a sum: 3; 3.0",
            "a sum: 1; 1.5",
        ),
        (
            "action: aggregate_labels, label_set: [l], aggregation_type: sum",
            "a sum: l=x,m=1 1@5-9; l=y 2@4-9; m=2,l=x 4@3-9; l=x 8@3-10",
            "a sum: l=x 5@3-9; l=y 2@4-9; l=x 8@3-10",
        ),
        (
            "action: aggregate_labels, aggregation_type: max",
            "a gauge: l=x 1; m=y 7; 4",
            "a gauge: 7",
        ),
        (
            "action: aggregate_labels, label_set: [l], aggregation_type: min",
            "a gauge: l=x 1.5; l=x 0.5",
            "a gauge: l=x 0.5",
        ),
        (
            "action: aggregate_labels, label_set: [l], aggregation_type: mean",
            "a gauge: l=x 1; l=x 2; l=y 1.0; l=y 2.0",
            "a gauge: l=x 1; l=y 1.5",
        ),
        (
            "action: aggregate_labels, aggregation_type: count",
            "a gauge: l=x 5; l=y 6; 7",
            "a gauge: 3",
        ),
        (
            "action: aggregate_labels, aggregation_type: median",
            "a gauge: l=x 9; l=y 1; l=z 4; 2",
            "a gauge: 3",
        ),
        (
            "action: aggregate_labels, aggregation_type: median",
            "a gauge: l=x 9.0; l=y 1.0; 4.0",
            "a gauge: 4.0",
        ),
        (
            "action: aggregate_labels",
            "a gauge: l=x 9; l=y 1",
            "a gauge: 9",
        ),
        // Of differences, those over the same time are added.
        (
            "action: aggregate_labels, aggregation_type: sum",
            "a delta: l=x 1@5-9; l=y 2@4-9; 4@5-9",
            "a delta: 5@5-9; 2@4-9",
        ),
        (
            "action: aggregate_label_values, label: l, aggregated_values: [x, y], new_value: z, aggregation_type: sum",
            "a gauge: l=x,m=1 1; l=y,m=1 2; l=y 4; l=w 8",
            "a gauge: l=z,m=1 3; l=z 4; l=w 8",
        ),
    ] {
        becomes(&update(operation), &[before], &[after]);
    }
    // Without points, a metric is gone; one that had none stays.
    let delete = update("action: delete_label_value, label: l, label_value: x");
    becomes(&delete, &["a gauge: l=x 1", "b gauge: 1"], &["b gauge: 1"]);
    becomes(&delete, &["a gauge: l=x 1"], &[]);
    becomes(
        &delete,
        &["a gauge", "b gauge: 1"],
        &["a gauge", "b gauge: 1"],
    );
}

#[test]
fn metrics_become_one() {
    let combine = r"- {include: '^iis\.(?P<method>.*)_(total)$', match_type: regexp, action: combine, new_name: iis.requests, aggregation_type: sum, submatch_case: lower}";
    becomes(
        combine,
        &[
            "iis.GET_total sum: h=1 1; h=2 2",
            "other gauge: 1",
            "iis.PUT_total sum: h=1 4",
        ],
        &[
            "other gauge: 1",
            "iis.requests sum: h=1,method=get,$2=total 1; h=2,method=get,$2=total 2; h=1,method=put,$2=total 4",
        ],
    );
    becomes(
        "- {include: '^a[12]$', match_type: regexp, action: combine, new_name: a, aggregation_type: max}",
        &["a1 gauge: h=1 1; h=2 9", "a2 gauge: h=2 3; h=1 2"],
        &["a gauge: h=1 2; h=2 9"],
    );
    // What is not alike stays apart.
    let one = "- {include: '^a', match_type: regexp, action: combine, new_name: b, aggregation_type: sum}";
    for before in [
        &["a1 gauge: 1", "a2 sum: 1"][..],
        &["a1 delta: 1", "a2 sum: 1"],
        &["a1 gauge: l=x 1", "a2 gauge: 1"],
        &["a1 gauge: l=x 1", "a2 gauge: m=x 1"],
    ] {
        becomes(one, before, before);
    }
    let mut s = setup(one);
    let unlike = r#"{"name":"a1","unit":"s","gauge":{"dataPoints":[{"asInt":"1"}]}},{"name":"a2","gauge":{"dataPoints":[{"asInt":"1"}]}}"#;
    assert_eq!(s.send(unlike), [metrics(unlike)]);
    let summary = r#"{"name":"a1","summary":{"dataPoints":[{"count":"1"}]}}"#;
    assert_eq!(s.send(summary), [metrics(summary)]);
    s.meters(&[r#"tailwater_metricstransform_metrics_not_combined{processor="x"} 3"#]);
    // Points whose labels are not as they must be are left out with the metrics they were in.
    let labels = "- {include: '^a', match_type: regexp, action: combine, new_name: b, aggregation_type: sum, experimental_match_labels: {l: x}}";
    becomes(
        labels,
        &["a1 gauge: l=x 1; l=y 2", "a2 gauge: l=x 4"],
        &["b gauge: l=x 5"],
    );
}

#[test]
fn metrics_get_a_resource_of_their_own() {
    let mut s = setup(
        r"- {include: '^pod\.', match_type: regexp, action: group, group_resource_labels: {type: pod, k: w}}
- {include: node, action: group, group_resource_labels: {type: node}}",
    );
    let resource = |labels: &str, metrics: &str| {
        let labels: Vec<String> = labels
            .split(' ')
            .map(|l| l.split_once('=').expect("label=value"))
            .map(|(k, v)| format!(r#"{{"key":"{k}","value":{{"stringValue":"{v}"}}}}"#))
            .collect();
        format!(
            r#"{{"resource":{{"attributes":[{}]}},"scopeMetrics":[{{"scope":{{"name":"s"}},"metrics":[{metrics}]}}]}}"#,
            labels.join(",")
        )
    };
    let of = |resources: &[String]| {
        whole(&format!(
            r#"{{"resourceMetrics":[{}]}}"#,
            resources.join(",")
        ))
    };
    let (pod, node, rest) = (
        many(&["pod.cpu gauge: 1", "pod.mem gauge: 2"]),
        one("node gauge: 3"),
        one("rest gauge: 4"),
    );
    s.take_in(of(&[
        resource("k=v", &[&*pod, &*rest].join(",")),
        resource("k=v2", &node),
    ]));
    let want = of(&[
        resource("k=v", &rest),
        resource("k=w type=pod", &pod),
        resource("k=v2 type=node", &node),
    ]);
    assert_eq!(s.come_out(Outcome::Delivered), [shown(&want)]);
    assert_eq!(s.answers(), [(0, Outcome::Delivered, 0, 0)]);
}

fn histogram(name: &str, points: &[&str]) -> String {
    format!(
        r#"{{"name":"{name}","histogram":{{"dataPoints":[{}],"aggregationTemporality":2}}}}"#,
        points.join(",")
    )
}

#[test]
fn histograms_are_put_together_and_scaled() {
    let aggregate = "- {include: h, action: update, operations: [{action: aggregate_labels, aggregation_type: sum}]}";
    let exemplar = |v: &str| format!(r#""exemplars":[{{"asDouble":{v}}}]"#);
    let label = r#""attributes":[{"key":"l","value":{"intValue":"1"}}],"#;
    let first = format!(
        r#"{{{label}"startTimeUnixNano":"7","count":"2","sum":3,"min":1,"max":2,"bucketCounts":["1","1"],"explicitBounds":[1],{}}}"#,
        exemplar("1.5")
    );
    let second = format!(
        r#"{{"startTimeUnixNano":"5","count":"1","sum":9,"min":0.5,"max":9,"bucketCounts":["0","1"],"explicitBounds":[1],{}}}"#,
        exemplar("9.5")
    );
    let empty = r#"{"startTimeUnixNano":"1","count":"0","sum":0,"min":0,"max":0,"bucketCounts":["0","0"],"explicitBounds":[1]}"#;
    let other = r#"{"count":"1","bucketCounts":["0","1"],"explicitBounds":[2]}"#;
    let want = r#"{"startTimeUnixNano":"5","count":"3","sum":12,"min":0.5,"max":9,"bucketCounts":["1","2"],"explicitBounds":[1],"exemplars":[{"asDouble":1.5},{"asDouble":9.5}]}"#;
    let mut s = setup(aggregate);
    let out = s.send(&histogram("h", &[&first, &second, empty, other]));
    assert_eq!(out, [metrics(&histogram("h", &[want, other]))]);
    s.meters(&[r#"tailwater_metricstransform_datapoints_merged{processor="x"} 2"#]);
    let mut s = setup(
        "- {include: h, action: update, operations: [{action: experimental_scale_value, experimental_scale: 1000}]}",
    );
    let want = format!(
        r#"{{{label}"startTimeUnixNano":"7","count":"2","sum":3000,"min":1000,"max":2000,"bucketCounts":["1","1"],"explicitBounds":[1000],{}}}"#,
        exemplar("1500")
    );
    assert_eq!(
        s.send(&histogram("h", &[&first])),
        [metrics(&histogram("h", &[&want]))]
    );
    let exponential = |points: &str| {
        format!(
            r#"{{"name":"h","exponentialHistogram":{{"dataPoints":[{points}],"aggregationTemporality":2}}}}"#
        )
    };
    let one = r#"{"count":"1","sum":1,"scale":0,"positive":{"offset":1,"bucketCounts":["1"]}}"#;
    let two = format!(
        r#"{{{label}"count":"2","sum":2,"scale":1,"positive":{{"offset":0,"bucketCounts":["2"]}}}}"#
    );
    let want = r#"{"count":"3","sum":3,"positive":{"offset":0,"bucketCounts":["2","1"]}}"#;
    let mut s = setup(aggregate);
    assert_eq!(
        s.send(&exponential(&format!("{one},{two}"))),
        [metrics(&exponential(want))]
    );
    // Summaries cannot be put together: they lose the labels and stay.
    let summary = |label: &str| {
        format!(
            r#"{{"name":"h","summary":{{"dataPoints":[{{{label}"count":"1"}},{{"count":"2"}}]}}}}"#
        )
    };
    assert_eq!(s.send(&summary(label)), [metrics(&summary(""))]);
}

/// Guarantee: what nobody asked to change is the same bytes, and points that are gone or new are
/// counted.
#[test]
fn what_is_left_alone_keeps_its_bytes_and_what_is_not_is_counted() {
    let mut s = setup(
        "- {include: a, action: insert, new_name: b, operations: [{action: delete_label_value, label: l, label_value: x}]}\n- {include: a, action: update, operations: [{action: aggregate_labels, aggregation_type: sum}]}",
    );
    let other = request(&many(&["other gauge: 1; 2"]));
    s.take_in(other.clone());
    assert_eq!(s.come_out(Outcome::Delivered), [shown(&other)]);
    let out = s.send(&many(&["a gauge: l=x 1; l=y 2; 4"]));
    assert_eq!(out, [metrics(&many(&["a gauge: 7", "b gauge: l=y 2; 4"]))]);
    s.meters(&[
        r#"tailwater_metricstransform_datapoints_inserted{processor="x"} 2"#,
        r#"tailwater_metricstransform_datapoints_merged{processor="x"} 2"#,
        r#"tailwater_metricstransform_datapoints_deleted{processor="x"} 0"#,
    ]);
    let mut s = setup(
        "- {include: a, action: update, operations: [{action: delete_label_value, label: l, label_value: x}]}",
    );
    s.send(&many(&["a gauge: l=x 1; 2; l=x 3", "b gauge: 1"]));
    s.send(&many(&["a gauge: l=x 1"]));
    assert_eq!(
        s.answers(),
        [(0, Outcome::Delivered, 2, 0), (1, Outcome::Filtered, 1, 0)]
    );
    s.meters(&[r#"tailwater_metricstransform_datapoints_deleted{processor="x"} 3"#]);
}

#[test]
fn mistakes_are_named() {
    let all = r#"transforms:
- include: a
  match_type: strict
  action: combine
  new_name: b
  aggregation_type: median
  submatch_case: upper
  experimental_match_labels: {l: x}
  operations:
  - {action: add_label, new_label: l, new_value: v}
  - {action: update_label, label: l, new_label: m, value_actions: [{value: a, new_value: b}]}
  - {action: delete_label_value, label: l, label_value: v}
  - {action: toggle_scalar_data_type}
  - {action: experimental_scale_value, experimental_scale: -2.5}
  - {action: aggregate_labels, label_set: [], aggregation_type: count}
  - {action: aggregate_label_values, label: l, aggregated_values: [a], new_value: b, aggregation_type: mean}
"#;
    assert!(decode("metricstransform", all).0.is_some());
    assert!(
        decode("metricstransform", "").0.is_some(),
        "nothing to do, as in the collector"
    );
    let of = |transform: &str| format!("transforms: [{{{transform}}}]");
    let cases = [
        ("action: update", "transforms::0::include: is required"),
        (
            "include: a",
            "transforms::0::action: is required; allowed: insert, update, combine, group",
        ),
        (
            "include: a, action: upsert",
            "allowed: insert, update, combine, group",
        ),
        (
            "include: a, action: insert",
            "transforms::0::new_name: is required with action insert",
        ),
        (
            "include: a, action: combine",
            "new_name: is required with action combine",
        ),
        (
            "include: a, action: group",
            "group_resource_labels: is required",
        ),
        (
            "include: '(', match_type: regexp, action: update",
            "include: \"(\" is not a valid regular expression",
        ),
        (
            "include: a, match_type: regexp, experimental_match_labels: {l: '('}, action: update",
            "experimental_match_labels: \"(\"",
        ),
        (
            "include: a, match_type: expr, action: update",
            "allowed: strict, regexp",
        ),
        (
            "include: a, action: update, aggregation_type: avg",
            "allowed: sum, mean, min, max, count, median",
        ),
        (
            "include: a, action: update, submatch_case: title",
            "allowed: lower, upper",
        ),
        (
            "include: a, action: update, metric_name: b",
            "unknown option",
        ),
        (
            "include: a, action: update, operations: [{label: a}]",
            "operations::0::action: is required",
        ),
        (
            "include: a, action: update, operations: [{action: add_label, new_value: v}]",
            "new_label: is required",
        ),
        (
            "include: a, action: update, operations: [{action: add_label, new_label: l}]",
            "new_value: is required",
        ),
        (
            "include: a, action: update, operations: [{action: update_label}]",
            "label: is required",
        ),
        (
            "include: a, action: update, operations: [{action: experimental_scale_value}]",
            "experimental_scale: is required",
        ),
        (
            "include: a, action: update, operations: [{action: aggregate_labels, aggregation_type: avg}]",
            "allowed: sum, mean",
        ),
    ];
    for (transform, want) in cases {
        refused("metricstransform", &[(&of(transform), &[want])]);
    }
}
