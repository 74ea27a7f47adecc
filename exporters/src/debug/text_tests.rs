use std::sync::Arc;

use bytes::Bytes;
use tailwater_pdata::otlp::{Limits, json};
use tailwater_pdata::{Column, LogsBatch, Scope, Severities, Times, TraceColumns, Value};

use super::*;

fn batch() -> LogsBatch {
    let mut b = LogsBatch::from_lines(Bytes::from_static(b"a\x1b[2Jb"), &[(0, 6)]);
    b.resource = Arc::new([("host", "h")].into_iter().collect());
    b.scope = Arc::new(Scope {
        name: "s".into(),
        version: "1".into(),
        ..Scope::default()
    });
    b.time = Times::Const(1_581_452_773_000_000_789);
    b.severity = Severities::Const(10);
    b.attributes.set("n", Column::Const(Value::Int(5)));
    b.trace = Some(Box::new(TraceColumns {
        trace_id: vec![[0xab; 16]],
        span_id: vec![[0; 8]],
        flags: vec![1],
    }));
    b
}

fn text(verbosity: Verbosity, encoded: &Encoded) -> String {
    let mut out = Vec::new();
    render(verbosity, encoded, &mut out);
    String::from_utf8(out).unwrap()
}

fn request(signal: Signal, text: &str) -> Encoded {
    let body = json::to_proto(signal, text.as_bytes(), &Limits::default()).unwrap();
    Encoded::parse(signal, body, &Limits::default()).unwrap()
}

#[test]
fn a_record_is_a_line_with_escaped_control_characters() {
    let logs = Encoded::from_logs([&batch()]);
    let expect = "ResourceLog #0 host=h\nScopeLog #0 s@1\na\\u{1b}[2Jb n=5\n";
    assert_eq!(text(Verbosity::Normal, &logs), expect);
    assert_eq!(text(Verbosity::Basic, &logs), "");
}

#[test]
fn a_record_in_detail() {
    let expect = "ResourceLog #0\nResource SchemaURL: \nResource attributes:\n     -> host: Str(h)\n\
        ScopeLogs #0\nScopeLogs SchemaURL: \nInstrumentationScope s 1\nLogRecord #0\n\
        ObservedTimestamp: 1970-01-01 00:00:00 +0000 UTC\n\
        Timestamp: 2020-02-11 20:26:13.000000789 +0000 UTC\n\
        SeverityText: \nSeverityNumber: Info2(10)\nBody: Str(a\\u{1b}[2Jb)\n\
        Attributes:\n     -> n: Int(5)\n\
        Trace ID: abababababababababababababababab\nSpan ID: \nFlags: 1\n";
    assert_eq!(
        text(Verbosity::Detailed, &Encoded::from_logs([&batch()])),
        expect
    );
}

const TRACES: &str = r#"{"resourceSpans":[{"schemaUrl":"u:1","resource":{
"attributes":[{"key":"a","value":{"boolValue":true}}],"entityRefs":[
{"type":"service","schemaUrl":"u:2","idKeys":["k"],"descriptionKeys":["d"]},{"type":"host"}]},
"scopeSpans":[{"schemaUrl":"u:3","scope":{"name":"lib","attributes":[{"key":"s","value":{"intValue":"1"}}]},"spans":[
{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"1112131415161718","parentSpanId":"2112131415161718",
"name":"one","kind":2,"traceState":"ot=th:0","startTimeUnixNano":"1581452772000000321","endTimeUnixNano":"1581452773000000789",
"attributes":[{"key":"x","value":{"stringValue":"y"}},{"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"}]}}}],
"status":{"code":2,"message":"cancelled"},"droppedEventsCount":1,
"events":[{"name":"e","timeUnixNano":"1581452773000000123","droppedAttributesCount":2,"attributes":[{"key":"q","value":{"doubleValue":0.5}}]},{"name":"f"}],
"links":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"1112131415161718","traceState":"t","attributes":[{"key":"z","value":{}}]}]},
{"name":"two","kind":9}]}]},{"scopeSpans":[{"spans":[{"name":"three"}]}]}]}"#;

#[test]
fn a_span_is_a_line() {
    let expect = "ResourceTraces #0 [u:1] a=true\nScopeTraces #0 lib [u:3] s=1\n\
        one 0102030405060708090a0b0c0d0e0f10 1112131415161718 x=y l=[1]\ntwo  \n\
        ResourceTraces #1\nScopeTraces #0\nthree  \n";
    let traces = request(Signal::Traces, TRACES);
    assert_eq!(text(Verbosity::Normal, &traces), expect);
}

#[test]
fn a_span_in_detail() {
    let got = text(Verbosity::Detailed, &request(Signal::Traces, TRACES));
    let expect = "ResourceSpans #0
Resource SchemaURL: u:1
Resource attributes:
     -> a: Bool(true)
Resource entity refs:
     -> Entity ref #0:
          -> Type: service
          -> Schema URL: u:2
          -> ID keys:
               -> k
          -> Description keys:
               -> d
     -> Entity ref #1:
          -> Type: host
ScopeSpans #0
ScopeSpans SchemaURL: u:3
InstrumentationScope lib \nInstrumentationScope attributes:
     -> s: Int(1)
Span #0
    Trace ID       : 0102030405060708090a0b0c0d0e0f10
    Parent ID      : 2112131415161718
    ID             : 1112131415161718
    Name           : one
    Kind           : Server
    TraceState     : ot=th:0
    Start time     : 2020-02-11 20:26:12.000000321 +0000 UTC
    End time       : 2020-02-11 20:26:13.000000789 +0000 UTC
    Status code    : Error
    Status message : cancelled
    DroppedAttributesCount: 0
    DroppedEventsCount: 1
    DroppedLinksCount: 0
Attributes:
     -> x: Str(y)
     -> l: Slice([1])
Events:
SpanEvent #0
     -> Name: e
     -> Timestamp: 2020-02-11 20:26:13.000000123 +0000 UTC
     -> DroppedAttributesCount: 2
     -> Attributes::
          -> q: Double(0.5)
SpanEvent #1
     -> Name: f
     -> Timestamp: 1970-01-01 00:00:00 +0000 UTC
     -> DroppedAttributesCount: 0
Links:
SpanLink #0
     -> Trace ID: 0102030405060708090a0b0c0d0e0f10
     -> ID: 1112131415161718
     -> TraceState: t
     -> DroppedAttributesCount: 0
     -> Attributes::
          -> z: Empty()
Span #1
";
    assert_eq!(&got[..expect.len().min(got.len())], expect);
    for part in [
        "    Kind           : \n",
        "    Status code    : Unset\n    Status message : \n",
    ] {
        assert!(got.contains(part), "{got}");
    }
    let last = got.rsplit("ResourceSpans #").next().unwrap();
    assert!(
        last.starts_with("1\nResource SchemaURL: \nScopeSpans #0\n"),
        "{last}"
    );
}

const METRICS: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"scope":{"version":"2"},"metrics":[
{"name":"g","unit":"1","metadata":[{"key":"m","value":{"intValue":"101"}}],"gauge":{"dataPoints":[
{"attributes":[{"key":"a","value":{"stringValue":"b"}},{"key":"c","value":{"intValue":"1"}}],"startTimeUnixNano":"1581452772000000321","timeUnixNano":"1581452773000000789","asInt":"-123"},{"asDouble":1.23},{}]}},
{"name":"s","description":"d","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{"asDouble":1e21}]}},
{"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","sum":15,"min":1,"max":7.5,"explicitBounds":[1,2.5],"bucketCounts":["0","1","2"],
"exemplars":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"1112131415161718","timeUnixNano":"1581452773000000123","asInt":"15","filteredAttributes":[{"key":"e","value":{"stringValue":"v"}}]}]}]}},
{"name":"e","exponentialHistogram":{"dataPoints":[{"count":"5","sum":0.15,"scale":1,"zeroCount":"1","negative":{"offset":-1,"bucketCounts":["1","1"]},"positive":{"offset":1,"bucketCounts":["1","1"]}}]}},
{"name":"q","summary":{"dataPoints":[{"count":"1","sum":15,"quantileValues":[{"quantile":0.01,"value":15}]}]}},
{"name":"none"}]}]}]}"#;

#[test]
fn a_data_point_is_a_line() {
    let expect = "ResourceMetrics #0\nScopeMetrics #0 @2\n\
        g{a=b,c=1} -123\ng{} 1.23\ng{} \ns{} 1e+21\n\
        h{} count=3 sum=15 min=1 max=7.5 le1=0 le2.5=1 2\n\
        e{} count=5 sum=0.15 le-1=1 le-0.7071067811865476=1 zero=1 le2=1 le2.82842712474619=1\n\
        q{} count=1 sum=15.000000 q0.01=15\n";
    let got = text(Verbosity::Normal, &request(Signal::Metrics, METRICS));
    assert_eq!(got, expect);
}

#[test]
fn a_metric_in_detail() {
    let got = text(Verbosity::Detailed, &request(Signal::Metrics, METRICS));
    let expect = "ResourceMetrics #0
Resource SchemaURL: \nScopeMetrics #0
ScopeMetrics SchemaURL: \nInstrumentationScope  2
Metric #0
Descriptor:
     -> Name: g
     -> Description: \n     -> Unit: 1
     -> DataType: Gauge
     -> Metadata:
          -> m: Int(101)
NumberDataPoints #0
Data point attributes:
     -> a: Str(b)
     -> c: Int(1)
StartTimestamp: 2020-02-11 20:26:12.000000321 +0000 UTC
Timestamp: 2020-02-11 20:26:13.000000789 +0000 UTC
Value: -123
NumberDataPoints #1
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Value: 1.230000
NumberDataPoints #2
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Metric #1
Descriptor:
     -> Name: s
     -> Description: d
     -> Unit: \n     -> DataType: Sum
     -> IsMonotonic: true
     -> AggregationTemporality: Cumulative
NumberDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Value: 1000000000000000000000.000000
Metric #2
Descriptor:
     -> Name: h
     -> Description: \n     -> Unit: \n     -> DataType: Histogram
     -> AggregationTemporality: Delta
HistogramDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Count: 3
Sum: 15.000000
Min: 1.000000
Max: 7.500000
ExplicitBounds #0: 1.000000
ExplicitBounds #1: 2.500000
Buckets #0, Count: 0
Buckets #1, Count: 1
Buckets #2, Count: 2
Exemplars:
Exemplar #0
     -> Trace ID: 0102030405060708090a0b0c0d0e0f10
     -> Span ID: 1112131415161718
     -> Timestamp: 2020-02-11 20:26:13.000000123 +0000 UTC
     -> Value: 15
     -> FilteredAttributes:
          -> e: Str(v)
Metric #3
Descriptor:
     -> Name: e
     -> Description: \n     -> Unit: \n     -> DataType: ExponentialHistogram
     -> AggregationTemporality: Unspecified
ExponentialHistogramDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Count: 5
Sum: 0.150000
Bucket [-1.414214, -1.000000), Count: 1
Bucket [-1.000000, -0.707107), Count: 1
Bucket [0, 0], Count: 1
Bucket (1.414214, 2.000000], Count: 1
Bucket (2.000000, 2.828427], Count: 1
Metric #4
Descriptor:
     -> Name: q
     -> Description: \n     -> Unit: \n     -> DataType: Summary
SummaryDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Count: 1
Sum: 15.000000
QuantileValue #0: Quantile 0.010000, Value 15.000000
Metric #5
Descriptor:
     -> Name: none
     -> Description: \n     -> Unit: \n     -> DataType: Empty
";
    assert_eq!(got, expect);
}
