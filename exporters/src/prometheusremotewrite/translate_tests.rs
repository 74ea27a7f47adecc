//! What metrics become, as lines of text.

use prost::Message;
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits};

use super::options::{Naming, ResourceLabels, TranslationOptions};
use super::oracle::otlp::*;
use super::oracle::{self, RequestV2, WriteRequest, as_v1, shown};
use super::translate::{Dropped, Translator};
use super::wire::{Protocol, RequestWriter};

/// 2024-01-01, in ns and ms.
pub const NS: u64 = 1_704_067_200_000_000_000;
const MS: i64 = 1_704_067_200_000;
const CUMULATIVE: i32 = 2;

pub fn text(key: &str, value: &str) -> KeyValue {
    any(key, Any::String(value.into()))
}

fn any(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

pub fn point(value: f64, attributes: &[KeyValue]) -> NumberPoint {
    NumberPoint {
        attributes: attributes.to_vec(),
        time_unix_nano: NS,
        value: Some(Number::Double(value)),
        ..Default::default()
    }
}

pub fn gauge(name: &str, data_points: Vec<NumberPoint>) -> Metric {
    metric(name, Data::Gauge(Gauge { data_points }))
}

pub fn metric(name: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        data: Some(data),
        ..Default::default()
    }
}

pub fn counter(name: &str, data_points: Vec<NumberPoint>) -> Metric {
    metric(
        name,
        Data::Sum(Sum {
            data_points,
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
    )
}

fn exponential(point: ExponentialPoint) -> Metric {
    metric(
        "e",
        Data::Exponential(Exponential {
            data_points: vec![point],
            aggregation_temporality: CUMULATIVE,
        }),
    )
}

pub fn resource(attributes: &[KeyValue], metrics: Vec<Metric>) -> ResourceMetrics {
    ResourceMetrics {
        resource: Some(Resource {
            attributes: attributes.to_vec(),
        }),
        scope_metrics: vec![ScopeMetrics {
            metrics,
            ..Default::default()
        }],
    }
}

pub fn encoded(resource_metrics: Vec<ResourceMetrics>) -> Encoded {
    let body = Request { resource_metrics }.encode_to_vec();
    Encoded::parse(Signal::Metrics, body.into(), &Limits::default()).unwrap()
}

/// Translates and encodes as `protocol` says; version 2 is shown as version 1.
fn translated(
    options: &TranslationOptions,
    protocol: Protocol,
    resources: Vec<ResourceMetrics>,
) -> (WriteRequest, Dropped) {
    let mut translator = Translator::new(options.clone());
    let mut dropped = Dropped::default();
    let encoded = encoded(resources);
    translator.begin();
    translator.part(0, &encoded, &mut dropped);
    let points = translator.data.homes.len() + dropped.points as usize;
    assert_eq!(points, encoded.items(), "each point is somewhere");
    let mut writer = RequestWriter::new(protocol);
    let symbols = &translator.labels.symbols;
    let mut bound = writer.len();
    for series in &translator.data.series {
        bound += writer.bound(symbols, &translator.data, series);
        writer.series(symbols, &translator.data, series);
        assert!(writer.len() <= bound, "{} > {bound}", writer.len());
    }
    let bytes = writer.pieces().concat();
    let request = match protocol {
        Protocol::V1 => WriteRequest::decode(&*bytes).unwrap(),
        Protocol::V2 => {
            let request = RequestV2::decode(&*bytes).unwrap();
            check_v2(&request, &bytes);
            as_v1(&request)
        }
    };
    (request, dropped)
}

/// What the specification demands of version 2.
fn check_v2(request: &RequestV2, bytes: &[u8]) {
    assert_eq!(request.symbols[0], "");
    let mut unique = request.symbols.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), request.symbols.len(), "no symbol twice");
    let mut counts = (0, 0);
    for series in &request.timeseries {
        assert!(series.samples.is_empty() != series.histograms.is_empty());
        assert!(series.metadata.as_ref().is_some_and(|m| m.r#type > 0));
        counts.0 += series.samples.len() as u64 + series.histograms.len() as u64;
        counts.1 += series.exemplars.len() as u64;
    }
    assert_eq!(super::wire::v2_counts(bytes), Some(counts));
    // Who takes it for version 1 sees nothing.
    let mistaken = WriteRequest::decode(bytes).unwrap();
    assert_eq!(mistaken, WriteRequest::default());
}

/// The same lines in both versions; those of version 2 without starts.
fn lines(options: &TranslationOptions, resources: Vec<ResourceMetrics>) -> Vec<String> {
    let (v1, _) = translated(options, Protocol::V1, resources.clone());
    let (mut v2, _) = translated(options, Protocol::V2, resources);
    for series in &mut v2.timeseries {
        series
            .samples
            .iter_mut()
            .for_each(|s| s.start_timestamp = 0);
        let histograms = series.histograms.iter_mut();
        histograms.for_each(|h| h.start_timestamp = 0);
    }
    let all = |r: &WriteRequest| r.timeseries.iter().map(shown).collect::<Vec<_>>();
    assert_eq!(all(&v1), all(&v2));
    for series in &v1.timeseries {
        let names: Vec<&str> = series.labels.iter().map(|l| &*l.name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
    all(&v1)
}

fn plain(metrics: Vec<Metric>) -> Vec<String> {
    lines(&TranslationOptions::default(), vec![resource(&[], metrics)])
}

#[test]
fn gauges_and_sums_are_series() {
    let int = NumberPoint {
        value: Some(Number::Int(-7)),
        ..point(0.0, &[text("b", "2"), text("a", "1"), text("Z", "3")])
    };
    let up_down = Sum {
        data_points: vec![point(5.5, &[])],
        aggregation_temporality: CUMULATIVE,
        is_monotonic: false,
    };
    let got = plain(vec![
        gauge("temperature", vec![int]),
        Metric {
            unit: "s".into(),
            ..counter("cpu.time", vec![point(2.0, &[])])
        },
        metric("queue.length", Data::Sum(up_down)),
    ]);
    let want = [
        format!("{{Z=3,__name__=temperature,a=1,b=2}} -7@{MS}"),
        format!("{{__name__=cpu_time_seconds_total}} 2@{MS}"),
        format!("{{__name__=queue_length}} 5.5@{MS}"),
    ];
    assert_eq!(got, want);
}

#[test]
fn labels_are_made_valid_and_those_that_collide_are_joined() {
    let attributes = [
        text("a.b", "2"),
        text("a-b", "1"),
        text("a/b", "1"),
        text("empty", ""),
        text("", "nameless"),
        text("9", "nine"),
        any("bool", Any::Bool(true)),
        any("int", Any::Int(-3)),
        any("double", Any::Double(0.5)),
        any(
            "list",
            Any::Array(ArrayValue {
                values: vec![AnyValue {
                    value: Some(Any::Int(1)),
                }],
            }),
        ),
    ];
    let got = plain(vec![gauge("g", vec![point(1.0, &attributes)])]);
    // In the order of the keys: a-b, a.b, a/b; a value that is there already is not added, but one
    // that is only a part of the joined text is.
    let want =
        format!("{{__name__=g,a_b=1;2;1,bool=true,double=0.5,int=-3,key_9=nine,list=[1]}} 1@{MS}");
    assert_eq!(got, [want]);
    let same = [text("a.b", "x"), text("a-b", "x")];
    let got = plain(vec![gauge("g", vec![point(1.0, &same)])]);
    assert_eq!(got, [format!("{{__name__=g,a_b=x}} 1@{MS}")]);
}

#[test]
fn resources_and_scopes_are_labels() {
    let about = [
        text("service.name", "shop"),
        text("service.namespace", "eu"),
        text("service.instance.id", "i-1"),
        text("host.name", "h1"),
    ];
    let scope = ScopeMetrics {
        scope: Some(Scope {
            name: "lib".into(),
            version: "1.2".into(),
            attributes: vec![text("short.name", "l"), text("version", "no")],
        }),
        schema_url: "https://x/1".into(),
        metrics: vec![gauge(
            "g",
            vec![point(1.0, &[text("job", "mine"), text("host.name", "p")])],
        )],
    };
    let of = |options: &TranslationOptions| {
        let resource = ResourceMetrics {
            scope_metrics: vec![scope.clone()],
            ..resource(&about, vec![])
        };
        lines(options, vec![resource])
    };
    let scope_labels = "otel_scope_name=lib,otel_scope_schema_url=https://x/1,\
                        otel_scope_short_name=l,otel_scope_version=1.2";
    let info = format!("{{__name__=target_info,host_name=h1,instance=i-1,job=eu/shop}} 1@{MS}");
    let d = TranslationOptions::default();
    let series =
        format!("{{__name__=g,host_name=p,instance=i-1,job=eu/shop,{scope_labels}}} 1@{MS}");
    assert_eq!(of(&d), [series, info.clone()]);

    let external = vec![
        ("job".into(), "never".into()),
        ("region".into(), "r".into()),
    ];
    let naming = Naming {
        namespace: "ns".into(),
        ..Naming::default()
    };
    let options = TranslationOptions {
        external_labels: external,
        scope_info: false,
        naming,
        ..d.clone()
    };
    let want = [
        format!("{{__name__=ns_g,host_name=p,instance=i-1,job=eu/shop,region=r}} 1@{MS}"),
        format!(
            "{{__name__=ns_target_info,host_name=h1,instance=i-1,job=eu/shop,region=r}} 1@{MS}"
        ),
    ];
    assert_eq!(of(&options), want);

    let options = TranslationOptions {
        resource_labels: ResourceLabels::All,
        scope_info: false,
        target_info: false,
        ..d.clone()
    };
    let want = format!(
        "{{__name__=g,host_name=h1,instance=i-1,job=eu/shop,service_instance_id=i-1,\
         service_name=shop,service_namespace=eu}} 1@{MS}"
    );
    assert_eq!(of(&options), [want]);
    let options = TranslationOptions {
        resource_labels: ResourceLabels::WithoutService,
        ..options
    };
    let want = format!("{{__name__=g,host_name=h1,instance=i-1,job=eu/shop}} 1@{MS}");
    assert_eq!(of(&options), [want]);
}

#[test]
fn target_info_needs_a_target_and_something_to_say() {
    let g = || vec![gauge("g", vec![point(1.0, &[])])];
    let d = TranslationOptions::default();
    let of = |attributes: &[KeyValue]| lines(&d, vec![resource(attributes, g())]).len();
    assert_eq!(of(&[text("service.name", "s")]), 1);
    assert_eq!(of(&[text("host", "h")]), 1);
    assert_eq!(of(&[text("host", "h"), text("service.name", "s")]), 2);
    assert_eq!(
        of(&[text("host", "h"), text("service.instance.id", "i")]),
        2
    );
    let empty = [text("host", "h"), text("service.name", "s")];
    assert_eq!(lines(&d, vec![resource(&empty, vec![])]).len(), 0);
    // The newest time of all metrics, and once for equal resources.
    let later = NumberPoint {
        time_unix_nano: NS + 5_000_000,
        ..point(2.0, &[])
    };
    let r = resource(
        &empty,
        vec![gauge("a", vec![later]), gauge("b", vec![point(1.0, &[])])],
    );
    let got = lines(&d, vec![r.clone(), r]);
    assert_eq!(got.len(), 3);
    assert_eq!(
        got[2],
        format!("{{__name__=target_info,host=h,job=s}} 1@{}", MS + 5)
    );
}

#[test]
fn classic_histograms_are_buckets_sum_and_count() {
    let exemplar = |value: f64, attributes: &[KeyValue]| Exemplar {
        filtered_attributes: attributes.to_vec(),
        time_unix_nano: NS + 1_000_000,
        span_id: vec![1; 8],
        trace_id: vec![0xab; 16],
        value: Some(Example::Double(value)),
    };
    let p = HistogramPoint {
        attributes: vec![text("le", "lost"), text("path", "/")],
        start_time_unix_nano: NS - 60_000_000_000,
        time_unix_nano: NS,
        count: 6,
        sum: Some(7.5),
        bucket_counts: vec![1, 2, 0, 3],
        explicit_bounds: vec![0.005, 1.0, 2.5e21],
        exemplars: vec![
            exemplar(0.7, &[text("user.id", "u")]),
            exemplar(1e300, &[text("long", &"x".repeat(100))]),
        ],
        flags: 0,
    };
    let histogram = |p: HistogramPoint| {
        metric(
            "h",
            Data::Histogram(Histogram {
                data_points: vec![p],
                aggregation_temporality: CUMULATIVE,
            }),
        )
    };
    let got = plain(vec![histogram(p.clone())]);
    let ids = format!("span_id={},trace_id={}", "01".repeat(8), "ab".repeat(16));
    let at = MS + 1;
    let want = [
        format!("{{__name__=h_sum,le=lost,path=/}} 7.5@{MS}"),
        format!("{{__name__=h_count,le=lost,path=/}} 6@{MS}"),
        format!("{{__name__=h_bucket,le=0.005,path=/}} 1@{MS}"),
        format!("{{__name__=h_bucket,le=1,path=/}} 3@{MS} #{{{ids},user_id=u}} 0.7@{at}"),
        format!("{{__name__=h_bucket,le=2500000000000000000000,path=/}} 3@{MS}"),
        format!(
            "{{__name__=h_bucket,le=+Inf,path=/}} 6@{MS} #{{{ids}}} {}@{at}",
            1e300
        ),
    ];
    assert_eq!(got, want);
    // Version 2 knows when counting began.
    let d = TranslationOptions::default();
    let all = |p| vec![resource(&[], vec![histogram(p)])];
    let (v2, _) = translated(&d, Protocol::V2, all(p.clone()));
    for series in &v2.timeseries {
        assert_eq!(series.samples[0].start_timestamp, MS - 60_000);
    }
    // Without buckets and without a sum.
    let bare = HistogramPoint {
        attributes: vec![],
        bucket_counts: vec![],
        explicit_bounds: vec![],
        sum: None,
        exemplars: vec![],
        ..p
    };
    let want = [
        format!("{{__name__=h_count}} 6@{MS}"),
        format!("{{__name__=h_bucket,le=+Inf}} 6@{MS}"),
    ];
    assert_eq!(lines(&d, all(bare)), want);
}

#[test]
fn summaries_are_quantiles_sum_and_count() {
    let p = SummaryPoint {
        time_unix_nano: NS,
        count: 3,
        sum: 4.5,
        quantile_values: vec![
            Quantile {
                quantile: 0.5,
                value: 1.0,
            },
            Quantile {
                quantile: 1.0,
                value: 2.0,
            },
        ],
        ..Default::default()
    };
    let got = plain(vec![metric(
        "s",
        Data::Summary(Summary {
            data_points: vec![p],
        }),
    )]);
    let want = [
        format!("{{__name__=s_sum}} 4.5@{MS}"),
        format!("{{__name__=s_count}} 3@{MS}"),
        format!("{{__name__=s,quantile=0.5}} 1@{MS}"),
        format!("{{__name__=s,quantile=1}} 2@{MS}"),
    ];
    assert_eq!(got, want);
}

fn exponential_point(scale: i32, offset: i32, counts: &[u64]) -> ExponentialPoint {
    ExponentialPoint {
        time_unix_nano: NS,
        count: counts.iter().sum(),
        sum: Some(1.5),
        scale,
        positive: Some(Buckets {
            offset,
            bucket_counts: counts.to_vec(),
        }),
        ..Default::default()
    }
}

#[test]
fn exponential_histograms_are_native_ones() {
    for (scale, offset, counts, schema, want) in [
        // Bucket i of OTLP is i + 1 of Prometheus.
        (0, 0, &[4, 2, 1][..], 0, "[(1, 3)] [4, -2, -1]"),
        (8, -1, &[1], 8, "[(0, 1)] [1]"),
        (-4, 3, &[5, 5], -4, "[(4, 2)] [5, 0]"),
        // Up to two empty buckets are written, more are skipped; those at the ends are not there.
        (1, -3, &[0, 7, 0, 0, 9, 0], 1, "[(-1, 4)] [7, -7, 0, 9]"),
        (1, 5, &[7, 0, 0, 0, 9], 1, "[(6, 1), (3, 1)] [7, 2]"),
        (1, 5, &[0, 0], 1, "[] []"),
        (1, 5, &[], 1, "[] []"),
        // Finer than 8: 2 or 4 buckets become one. Indices -3..=2 halve to -2, -1, -1, 0, 0, 1.
        (9, -3, &[1, 2, 3, 4, 5, 6], 8, "[(-1, 4)] [1, 4, 4, -3]"),
        (10, -3, &[1, 2, 3, 4, 5, 6], 8, "[(0, 2)] [6, 9]"),
        (40, i32::MIN, &[1, 1], 8, "[(0, 1)] [2]"),
    ] {
        let got = plain(vec![exponential(exponential_point(scale, offset, counts))]);
        let n: u64 = counts.iter().sum();
        let want = format!(
            "{{__name__=e}} n{n} sum 1.5 schema {schema} zero 0<1e-128 + {want} - [] [] @{MS}"
        );
        assert_eq!(got, [want], "scale {scale} offset {offset}");
    }
    let p = ExponentialPoint {
        zero_count: 2,
        zero_threshold: 0.25,
        negative: Some(Buckets {
            offset: 2,
            bucket_counts: vec![3],
        }),
        sum: None,
        start_time_unix_nano: NS - 1_000_000_000,
        exemplars: vec![Exemplar {
            value: Some(Example::Int(3)),
            ..Default::default()
        }],
        ..exponential_point(3, 0, &[1])
    };
    let all = vec![resource(&[], vec![exponential(p)])];
    let (v2, _) = translated(&TranslationOptions::default(), Protocol::V2, all);
    let want = format!(
        "{{__name__=e}} n1 sum 0 schema 3 zero 2<2.5e-1 + [(1, 1)] [1] - [(3, 1)] [3] @{MS}^{} #{{}} 3@{MS}",
        MS - 1000
    );
    assert_eq!(shown(&v2.timeseries[0]), want);
}

#[test]
fn a_point_without_a_value_is_a_stale_marker() {
    let stale = |attributes: &[KeyValue]| NumberPoint {
        flags: 1,
        value: None,
        ..point(0.0, attributes)
    };
    let histogram = HistogramPoint {
        time_unix_nano: NS,
        flags: 1,
        sum: Some(0.0),
        bucket_counts: vec![0, 0],
        explicit_bounds: vec![1.0],
        ..Default::default()
    };
    let summary = SummaryPoint {
        time_unix_nano: NS,
        flags: 1,
        quantile_values: vec![Quantile::default()],
        ..Default::default()
    };
    let e = ExponentialPoint {
        flags: 1,
        ..exponential_point(0, 0, &[1])
    };
    let got = plain(vec![
        gauge("g", vec![stale(&[])]),
        counter("c", vec![stale(&[])]),
        metric(
            "h",
            Data::Histogram(Histogram {
                data_points: vec![histogram],
                aggregation_temporality: CUMULATIVE,
            }),
        ),
        metric(
            "s",
            Data::Summary(Summary {
                data_points: vec![summary],
            }),
        ),
        exponential(e),
    ]);
    let mut names: Vec<String> = got[..9]
        .iter()
        .map(|line| line.replace(&format!("}} stale@{MS}"), ""))
        .collect();
    names
        .iter_mut()
        .for_each(|n| *n = n.replace("{__name__=", ""));
    let want = [
        "g",
        "c_total",
        "h_sum",
        "h_count",
        "h_bucket,le=1",
        "h_bucket,le=+Inf",
        "s_sum",
        "s_count",
        "s,quantile=0",
    ];
    assert_eq!(names, want);
    let native = format!("{{__name__=e}} n0 sum stale schema 0 zero 0<0e0 + [] [] - [] [] @{MS}");
    assert_eq!(got[9], native);
}

#[test]
fn what_has_no_series_is_counted() {
    let sum = |aggregation_temporality| {
        let data_points = vec![point(1.0, &[]), point(2.0, &[text("a", "b")])];
        metric(
            "requests",
            Data::Sum(Sum {
                data_points,
                aggregation_temporality,
                is_monotonic: true,
            }),
        )
    };
    let none = NumberPoint {
        value: None,
        ..point(0.0, &[])
    };
    let delta = Data::Exponential(Exponential {
        data_points: vec![exponential_point(0, 0, &[1])],
        aggregation_temporality: 1,
    });
    for (metric, points, cause) in [
        (sum(1), 2, "\"requests\" has delta temporality"),
        (sum(0), 2, "\"requests\" has no temporality"),
        (metric("e", delta), 1, "delta temporality"),
        (
            metric(
                "h",
                Data::Histogram(Histogram {
                    data_points: vec![HistogramPoint::default()],
                    aggregation_temporality: 1,
                }),
            ),
            1,
            "delta temporality",
        ),
        (exponential(exponential_point(-5, 0, &[1])), 1, "below -4"),
        (
            exponential(exponential_point(0, i32::MAX, &[1])),
            1,
            "32 bits",
        ),
        (gauge("???", vec![point(1.0, &[])]), 1, "no name"),
        (gauge("g", vec![none]), 1, "no value"),
    ] {
        let good = gauge("good", vec![point(1.0, &[])]);
        let all = vec![resource(&[], vec![metric, good])];
        let (request, dropped) = translated(&TranslationOptions::default(), Protocol::V1, all);
        assert_eq!(
            (request.timeseries.len(), dropped.points),
            (1, points),
            "{cause}"
        );
        let said = dropped.cause.unwrap();
        assert!(said.contains(cause), "{said}");
    }
}

#[test]
fn points_of_a_series_are_one_series_in_the_order_of_time() {
    let at = |ms: u64, value| NumberPoint {
        time_unix_nano: NS + ms * 1_000_000,
        ..point(value, &[text("a", "1")])
    };
    let got = lines(
        &TranslationOptions::default(),
        vec![
            resource(&[], vec![gauge("g", vec![at(2, 2.0), at(1, 1.0)])]),
            resource(&[], vec![gauge("g", vec![at(3, 3.0)])]),
        ],
    );
    let want = format!("{{__name__=g,a=1}} 1@{} 2@{} 3@{}", MS + 1, MS + 2, MS + 3);
    assert_eq!(got, [want]);
}

#[test]
fn metadata_says_what_metrics_are() {
    let described = Metric {
        description: "How long.".into(),
        unit: "s".into(),
        ..counter("cpu.time", vec![point(1.0, &[])])
    };
    let all = vec![resource(
        &[],
        vec![described, gauge("g", vec![point(1.0, &[])])],
    )];
    let d = TranslationOptions::default();
    let (v2, _) = translated(&d, Protocol::V2, all.clone());
    let want = [
        (1, "cpu_time_seconds_total", "How long.", "seconds"),
        (2, "g", "", ""),
    ];
    let seen = |m: &oracle::MetricMetadata| {
        let texts = (m.metric_family_name.clone(), m.help.clone(), m.unit.clone());
        (m.r#type, texts)
    };
    let want = want.map(|(kind, a, b, c)| (kind, (a.to_owned(), b.to_owned(), c.to_owned())));
    assert_eq!(v2.metadata.iter().map(seen).collect::<Vec<_>>(), want);

    let mut translator = Translator::new(d);
    translator.part(0, &encoded(all), &mut Dropped::default());
    let mut writer = RequestWriter::new(Protocol::V1);
    for family in &translator.data.families {
        writer.metadata(&translator.labels.symbols, family);
    }
    let v1 = WriteRequest::decode(&*writer.pieces().concat()).unwrap();
    assert_eq!(v1.metadata.iter().map(seen).collect::<Vec<_>>(), want);
}
