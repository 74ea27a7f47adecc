//! The decisions of the collector, restated from the tables of its own tests.

use serde_json::{Value, json};
use tailwater_config::parse;
use tailwater_pdata::otlp::{Encoded, Limits, json as otlp_json};
use tailwater_pipeline::ack::AckSink;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckToken, Counts, Outcome, Permit};

use super::*;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Out(Vec<Batch>);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.0.push(batch);
    }
    fn now(&self) -> Mono {
        Mono::default()
    }
}

#[derive(Default)]
pub(super) struct Told(pub Mutex<Vec<(Outcome, u32)>>);

impl AckSink for Told {
    fn settled(&self, _: u64, outcome: Outcome, counts: &Counts) {
        self.0.lock().unwrap().push((outcome, counts.filtered));
    }
}

fn decode(yaml: &str) -> Result<SamplerSettings, String> {
    let node = parse(yaml, "a.yaml").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::probabilistic_sampler", &mut errors);
    let settings = SamplerSettings::decode(&mut section);
    section.finish();
    errors.into_result(settings).map_err(|e| e.to_string())
}

pub(super) fn sampler(yaml: &str, signal: Signal) -> ProbabilisticSampler {
    let settings = decode(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    ProbabilisticSampler::new(&settings, signal, None)
}

fn request(signal: Signal, text: &Value) -> Encoded {
    let text = text.to_string();
    let body = otlp_json::to_proto(signal, text.as_bytes(), &Limits::default()).unwrap();
    Encoded::parse(signal, body, &Limits::default()).unwrap()
}

/// What is left of `data`, and what its source is told.
pub(super) fn run(
    processor: &mut ProbabilisticSampler,
    data: impl Into<Payload>,
) -> (Option<Payload>, Told) {
    let told = Arc::new(Told::default());
    let part = Part {
        data: data.into(),
        ack: AckToken::new(told.clone(), 0),
        permit: Permit::none(),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let mut parts: Vec<Part> = out.0.into_iter().flat_map(|b| b.parts).collect();
    let part = parts.pop();
    assert!(parts.is_empty());
    let data = part.map(|part| {
        part.ack.resolve(Outcome::Delivered);
        part.data
    });
    let told = Arc::into_inner(told).unwrap();
    (data, told)
}

/// The trace state of a span after sampling; `None` if it is not sampled.
fn span(yaml: &str, tid: &str, state: &str, priority: Value) -> Option<String> {
    let mut attributes = json!([{"key": "a", "value": {"stringValue": "b"}}]);
    if !priority.is_null() {
        let all = attributes.as_array_mut().unwrap();
        all.push(json!({"key": "sampling.priority", "value": priority}));
    }
    let request = request(
        Signal::Traces,
        &json!({"resourceSpans": [{"scopeSpans": [{"spans": [
            {"traceId": tid, "name": "n", "traceState": state, "attributes": attributes}
        ]}]}]}),
    );
    let (data, told) = run(&mut sampler(yaml, Signal::Traces), request);
    let Some(Payload::Encoded(encoded)) = data else {
        assert_eq!(*told.0.lock().unwrap(), [(Outcome::Filtered, 1)]);
        return None;
    };
    assert_eq!(*told.0.lock().unwrap(), [(Outcome::Delivered, 0)]);
    let mut text = Vec::new();
    encoded.write_json(&mut text);
    let got: Value = serde_json::from_slice(&text).unwrap();
    let span = &got["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(
        (&span["name"], &span["attributes"]),
        (&json!("n"), &attributes)
    );
    Some(span["traceState"].as_str().unwrap_or_default().to_owned())
}

/// Sampled at 50 %, and not at 49 %.
pub(super) const HALF: &str = "fefefefefefefefefe80000000000000";
const ALWAYS: &str = "111111111111111111ffffffffffffff";
const NONE: &str = "";

#[test]
fn consistent_modes_decide_by_the_trace_id_or_what_a_span_says() {
    let same = |s: &'static str| [Some(s), Some(s)];
    let null = || Value::Null;
    for (percentage, precision, tid, state, priority, [equalizing, proportional]) in [
        ("100", 4, HALF, "", null(), same("ot=th:0")),
        ("50", 4, HALF, "", null(), same("ot=th:8")),
        ("49", 4, HALF, "", null(), [None, None]),
        (
            "25",
            4,
            "ddddddddddddddddddc0000000000000",
            "",
            null(),
            same("ot=th:c"),
        ),
        (
            "25",
            4,
            "ddddddddddddddddddb0000000000000",
            "",
            null(),
            [None, None],
        ),
        (
            "1",
            14,
            HALF,
            "ot=rv:FD70A3D70A3D71",
            null(),
            same("ot=rv:FD70A3D70A3D71;th:fd70a3d70a3d71"),
        ),
        (
            "1",
            4,
            HALF,
            "ot=rv:FD70A3D70A3D71",
            null(),
            same("ot=rv:FD70A3D70A3D71;th:fd70a"),
        ),
        ("1", 3, HALF, "ot=rv:FD70A3D70A3D71", null(), [None, None]),
        ("1", 14, HALF, "ot=rv:FD70A3D70A3D70", null(), [None, None]),
        (
            "1",
            14,
            HALF,
            "ot=rv:fd70B000000000",
            null(),
            same("ot=rv:fd70B000000000;th:fd70a3d70a3d71"),
        ),
        (
            "1",
            4,
            "a0a0a0a0a0a0a0a0a0fe000000000000",
            "",
            null(),
            same("ot=th:fd70a"),
        ),
        ("1", 4, HALF, "", json!({"intValue": "2"}), same("ot=th:0")),
        ("99", 4, HALF, "", json!({"intValue": "0"}), [None, None]),
        (
            "50",
            4,
            HALF,
            "ot=rv:90000000000000;th:80000000000000",
            null(),
            [Some("ot=rv:90000000000000;th:8"), None],
        ),
        ("25", 4, HALF, "ot=th:8", null(), [None, None]),
        (
            "25",
            4,
            "ffffffffffffffffffffffffffffffff",
            "ot=th:8",
            null(),
            [Some("ot=th:c"), Some("ot=th:e")],
        ),
        (
            "50",
            4,
            HALF,
            "ot=rv:c0000000000000;th:8",
            null(),
            [
                Some("ot=rv:c0000000000000;th:8"),
                Some("ot=rv:c0000000000000;th:c"),
            ],
        ),
        (
            "40",
            3,
            HALF,
            "ot=rv:a0000000000000",
            null(),
            same("ot=rv:a0000000000000;th:99a"),
        ),
        (
            "40",
            6,
            "a0a0a0a0a0a0a0a0a0d0000000000000",
            "ot=th:8",
            null(),
            [Some("ot=th:99999a"), Some("ot=th:cccccd")],
        ),
        (
            "40",
            3,
            "a0a0a0a0a0a0a0a0a0b0000000000000",
            "ot=th:8",
            null(),
            [Some("ot=th:99a"), None],
        ),
        (
            "40",
            3,
            "a0a0a0a0a0a0a0a0a080000000000000",
            "ot=th:8",
            null(),
            [None, None],
        ),
        ("200", 4, HALF, "", null(), same("ot=th:0")),
        (
            "0.006103515625",
            4,
            ALWAYS,
            "ot=th:fffc",
            null(),
            [Some("ot=th:fffc"), Some("ot=th:fffffff")],
        ),
        (
            "99.99992",
            10,
            ALWAYS,
            "",
            null(),
            same("ot=th:00000cccccccd"),
        ),
        (
            "0.0625",
            4,
            ALWAYS,
            "ot=th:fffffffffffff8",
            null(),
            [Some("ot=th:fffffffffffff8"), None],
        ),
        ("0", 4, ALWAYS, "", null(), [None, None]),
        (
            "0",
            4,
            HALF,
            "x=1",
            json!({"stringValue": "1.5"}),
            same("ot=th:0,x=1"),
        ),
        (
            "0",
            4,
            HALF,
            "",
            json!({"stringValue": "many"}),
            [None, None],
        ),
        (
            "100",
            4,
            HALF,
            "",
            json!({"doubleValue": 0.0}),
            [None, None],
        ),
        (
            "100",
            4,
            HALF,
            "ot=th:8",
            json!({"intValue": "-1"}),
            same("ot=th:8"),
        ),
    ] {
        for (mode, expect) in [("equalizing", equalizing), ("proportional", proportional)] {
            let yaml = format!(
                "{{mode: {mode}, sampling_percentage: {percentage}, sampling_precision: {precision}}}"
            );
            let got = span(&yaml, tid, state, priority.clone());
            assert_eq!(got.as_deref(), expect, "{yaml} {tid} {state} {priority}");
        }
    }
}

#[test]
fn what_nothing_can_be_decided_about_is_sampled_only_if_it_fails_open() {
    for (tid, state, open) in [
        (NONE, "", "ot=th:0"),
        (HALF, "ot=rv:abababababababab", "ot=rv:abababababababab"),
        (HALF, "ot=th:abababababababab", "ot=th:abababababababab"),
        (HALF, "ot=th:-1", "ot=th:-1"),
        (HALF, "no state", "no state"),
        ("ffffffffffffffffff70000000000000", "ot=th:8", "ot=th:0"),
        (
            HALF,
            "ot=th:8;rv:70000000000000",
            "ot=rv:70000000000000;th:0",
        ),
    ] {
        for mode in ["equalizing", "proportional"] {
            let yaml = |closed: bool| {
                format!("{{mode: {mode}, sampling_percentage: 100, fail_closed: {closed}}}")
            };
            assert_eq!(
                span(&yaml(true), tid, state, Value::Null),
                None,
                "{tid} {state}"
            );
            let got = span(&yaml(false), tid, state, Value::Null);
            assert_eq!(got.as_deref(), Some(open), "{tid} {state}");
        }
    }
}

#[test]
fn hashing_says_what_it_did_unless_somebody_said_something_before() {
    let hashed = |seed| {
        let id = u128::from_str_radix(HALF, 16).unwrap().to_be_bytes();
        let text = probability::Randomness::of_hash(&id, seed).text();
        String::from_utf8(text.to_vec()).unwrap()
    };
    let rv = hashed(7);
    for (percentage, threshold) in [
        ("100", "0"),
        ("75", "4"),
        ("50", "8"),
        ("25", "c"),
        ("10", "e668"),
        ("33.333332", "aaac"),
    ] {
        let yaml = format!("{{sampling_percentage: {percentage}, hash_seed: 7}}");
        let expect =
            (*rv >= *format!("{threshold:0<14}")).then(|| format!("ot=rv:{rv};th:{threshold}"));
        assert_eq!(span(&yaml, HALF, "", Value::Null), expect);
    }
    let all = "{sampling_percentage: 100, hash_seed: 7, fail_closed: false}";
    for (tid, state, expect) in [
        (HALF, "ot=rv:40000000000000", "ot=rv:40000000000000"),
        (HALF, "ot=th:8", "ot=th:8"),
        (NONE, "", "ot=rv:ffffffffffffff;th:0"),
        (HALF, "x=1", &*format!("ot=rv:{rv};th:0,x=1")),
    ] {
        assert_eq!(span(all, tid, state, Value::Null).as_deref(), Some(expect));
    }
    let closed = "{sampling_percentage: 100}";
    assert_eq!(span(closed, HALF, "ot=th:8", Value::Null), None);
    assert_eq!(span(closed, NONE, "", Value::Null), None);
    // Less than one of 2^14 is none.
    let least = "{sampling_percentage: 0.006, fail_closed: false}";
    assert_eq!(span(least, ALWAYS, "", Value::Null), None);
}

#[test]
fn what_is_not_sampled_is_cut_out_and_the_rest_stays() {
    let spans: Vec<Value> = (0..8_u8)
        .map(|i| json!({"traceId": format!("{:032x}", u128::from(i) << 53), "name": format!("s{i}")}))
        .collect();
    let text = json!({"resourceSpans": [
        {"resource": {"attributes": [{"key": "a", "value": {"intValue": "1"}}]},
         "scopeSpans": [{"spans": spans[..3]}, {"scope": {"name": "x"}, "spans": spans[3..]}]},
        {"scopeSpans": [{"spans": [spans[1]]}]},
    ]});
    let yaml = "{sampling_percentage: 50, mode: equalizing}";
    let (data, told) = run(
        &mut sampler(yaml, Signal::Traces),
        request(Signal::Traces, &text),
    );
    let Some(Payload::Encoded(encoded)) = data else {
        panic!("some are sampled");
    };
    let mut got = Vec::new();
    encoded.write_json(&mut got);
    let got: Value = serde_json::from_slice(&got).unwrap();
    let kept = |i: usize| {
        let mut span = spans[i].clone();
        span["traceState"] = json!("ot=th:8");
        span
    };
    let expect = json!({"resourceSpans": [
        {"resource": {"attributes": [{"key": "a", "value": {"intValue": "1"}}]},
         "scopeSpans": [{"scope": {"name": "x"}, "spans": [kept(4), kept(5), kept(6), kept(7)]}]},
    ]});
    assert_eq!(got, expect);
    assert_eq!(*told.0.lock().unwrap(), [(Outcome::Delivered, 5)]);
}

#[test]
fn mistakes_are_named() {
    for (yaml, part) in [
        ("{sampling_percentage: -1}", "sampling_percentage"),
        ("{sampling_percentage: .inf}", "sampling_percentage"),
        ("{sampling_percentage: 1.0e-20}", "too small"),
        ("{sampling_precision: 0}", "sampling_precision"),
        ("{sampling_precision: 15}", "sampling_precision"),
        ("{mode: fair}", "hash_seed, equalizing, proportional"),
        ("{attribute_source: body}", "traceID"),
        ("{hash_seed: -1}", "hash_seed"),
        ("{sampling_rate: 1}", "sampling_rate"),
    ] {
        let error = decode(yaml).expect_err(yaml);
        assert!(error.contains(part), "{yaml}: {error}");
    }
    let settings = decode("{}").unwrap();
    assert_eq!(
        (settings.mode, settings.precision, settings.fail_closed),
        (Mode::HashSeed, 4, true)
    );
}
