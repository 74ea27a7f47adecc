//! Streams and tenants.

use tailwater_telemetry::logs::{LogSettings, OutputPath, SelfLog};
use tailwater_telemetry::metrics::{MetricsRegistry, SelfLogMetrics};

use super::*;

#[test]
fn too_many_streams_move_the_most_diverse_label_to_metadata() {
    let mut options = mapping();
    options.streams_max = 10;
    if let LabelOptions::Mapping(m) = &mut options.labels {
        m.attributes.push(("request".into(), "request.id".into()));
    }
    let mut rig = rig(options);
    let record = |i: usize| Entry {
        attributes: map(&[
            ("log.iostream", ["stdout", "stderr"][i % 2]),
            ("request.id", &format!("r{i}")),
        ]),
        ..entry(&format!("line {i}"))
    };
    for from in [0, 50] {
        let entries: Vec<_> = (from..from + 50).map(record).collect();
        rig.export(LogsBatch::from_entries(&entries));
    }
    let messages = rig.messages();
    let streams: Vec<_> = messages.iter().flat_map(|m| &m.1).collect();
    let mut labels: Vec<_> = streams.iter().map(|s| s.0.clone()).collect();
    labels.sort();
    labels.dedup();
    assert_eq!(
        labels.len(),
        12,
        "ten, and one for each other set of labels"
    );
    let entries: Vec<_> = streams.iter().flat_map(|s| &s.1).collect();
    assert_eq!(entries.len(), 100);
    let moved = |e: &&&oracle::Entry| e.metadata.iter().any(|p| p.name == "request");
    assert_eq!(entries.iter().filter(moved).count(), 90);
    assert_eq!(rig.shared.stats.moved_labels(), 90);
    assert_eq!(rig.front.moved, ["request"]);
    drop(rig.front);
    assert_eq!(rig.shared.streams.load(Ordering::Relaxed), 0);
}

#[test]
fn tenants_are_kept_apart_and_bad_ones_are_dropped() {
    let mut options = mapping();
    options.tenant.from_attribute = Some("tenant".into());
    options.tenant.fixed = Some("default".into());
    let mut rig = rig(options);
    let of = |tenant: &str, line: &str| Entry {
        attributes: map(&[("tenant", tenant)]),
        ..entry(line)
    };
    let records = [
        of("a", "1"),
        of("b", "2"),
        of("a", "3"),
        of("x/y", "4"),
        entry("5"),
    ];
    rig.export(LogsBatch::from_entries(&records));
    let got: Vec<_> = rig
        .messages()
        .iter()
        .map(|m| (m.0.clone().unwrap(), lines(m)[0].1.concat()))
        .collect();
    let want = [("a", "13"), ("b", "2"), ("default", "5")];
    assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(rig.settled(), (Front::Empty, 1));
    assert_eq!(rig.shared.stats.dropped(DropReason::TenantRefused), 1);
}

/// Guarantee: with `allow`, nobody who writes a line chooses another tenant by it, not by the
/// attribute that is configured and not by a hint; nothing of theirs is sent, and it is counted.
#[test]
fn a_line_cannot_choose_a_tenant_that_is_not_allowed() {
    let hint = |name: &str, tenant: &str| Entry {
        attributes: map(&[("loki.tenant", name), (name, tenant)]),
        ..entry("x")
    };
    let named = |tenant: &str| Entry {
        attributes: map(&[("tenant", tenant)]),
        ..entry("x")
    };
    let mut by_attribute = mapping();
    by_attribute.tenant.from_attribute = Some("tenant".into());
    for (mut options, records) in [
        (
            by_attribute,
            ["team-1", "victim", "team", "team-1\r\nX-Other: 1"].map(named),
        ),
        (
            LokiOptions::default(),
            ["team-1", "victim", "team", "team-1\r\nX-Other: 1"].map(|t| hint("t", t)),
        ),
    ] {
        options.tenant.allow = vec!["team-*".into()];
        let mut rig = rig(options);
        rig.export(LogsBatch::from_entries(&records));
        let sent: Vec<_> = rig.messages().into_iter().map(|m| m.0).collect();
        assert_eq!(sent, [Some("team-1".to_owned())]);
        assert_eq!(rig.shared.stats.dropped(DropReason::TenantRefused), 3);
    }
}

/// Guarantee: a writer that makes up tenants does not make the agent keep any number of them.
#[test]
fn tenants_without_end_are_dropped_and_counted() {
    let mut options = mapping();
    options.tenant.from_attribute = Some("tenant".into());
    let mut rig = rig(options);
    let records: Vec<Entry> = (0..crate::loki::streams::TENANTS_MAX + 5)
        .map(|i| Entry {
            attributes: map(&[("tenant", &format!("t{i}"))]),
            ..entry("x")
        })
        .collect();
    rig.export(LogsBatch::from_entries(&records));
    assert_eq!(rig.shared.stats.dropped(DropReason::TenantRefused), 5);
}

#[test]
fn labels_beyond_the_limits_of_loki_are_not_sent() {
    let mut options = mapping();
    let fixed: Vec<_> = (0..20)
        .map(|i| (format!("l{i:02}"), "v".to_owned()))
        .collect();
    options.labels = LabelOptions::Mapping(LabelMapping {
        fixed,
        attributes: vec![
            ("service_name".into(), "svc".into()),
            ("last".into(), "last".into()),
        ],
        ..LabelMapping::default()
    });
    let mut rig = rig(options);
    let e = Entry {
        attributes: map(&[("svc", &"s".repeat(3_000)), ("last", "z")]),
        ..entry("x")
    };
    rig.export(LogsBatch::from_entries(&[e]));
    let messages = rig.messages();
    let (labels, entries) = &messages[0].1[0];
    let parsed = crate::loki::label_text::parse(labels).unwrap();
    assert_eq!(parsed.len(), 16, "15 and service_name");
    let value = parsed.iter().find(|(n, _)| *n == "service_name").unwrap().1;
    assert_eq!(value.len(), 2_048);
    assert_eq!(pairs(&entries[0]), [("last".to_owned(), "z".to_owned())]);
    assert_eq!(rig.shared.stats.dropped_labels(), 6);
}

#[test]
fn a_record_without_labels_gets_the_one_that_loki_would_give_it() {
    let mut options = mapping();
    options.labels = LabelOptions::Mapping(LabelMapping::default());
    let mut rig = rig(options);
    rig.export(LogsBatch::from_entries(&[entry("x")]));
    assert_eq!(
        rig.messages()[0].1[0].0,
        "{service_name=\"unknown_service\"}"
    );
}

/// Rows of one batch may carry different hints; each is treated by its own.
#[test]
fn hints_are_followed_row_by_row() {
    let mut rig = rig(LokiOptions::default());
    let of = |pairs: &[(&str, &str)], severity: u8| Entry {
        attributes: map(pairs),
        severity,
        ..entry("b")
    };
    let nested: Map = [("method", Value::str("GET"))].into_iter().collect();
    let mut dotted = of(&[("loki.attribute.labels", "http.method")], 0);
    dotted.attributes.insert("http", Value::Map(nested));
    let records = [
        of(
            &[
                ("loki.attribute.labels", "a, b"),
                ("a", "1"),
                ("b", "2"),
                ("c", "3"),
            ],
            0,
        ),
        of(&[("loki.attribute.labels", "c"), ("a", "1"), ("c", "3")], 9),
        of(&[("loki.format", "raw"), ("level", "mine")], 9),
        of(&[("loki.format", "xml")], 0),
        of(&[("loki.format", "logfmt"), ("level", "mine")], 0),
        dotted,
    ];
    rig.export(LogsBatch::from_entries(&records));
    let got = lines(&(None, by_stream(&rig.messages())));
    let one = |labels: &str, line: &str| (labels.to_owned(), vec![line.to_owned()]);
    let mut want = [
        one(
            "{a=\"1\", b=\"2\", exporter=\"OTLP\"}",
            "{\"body\":\"b\",\"attributes\":{\"c\":\"3\"}}",
        ),
        one(
            "{c=\"3\", exporter=\"OTLP\", level=\"INFO\"}",
            "{\"body\":\"b\",\"attributes\":{\"a\":\"1\"}}",
        ),
        one("{exporter=\"OTLP\", level=\"mine\"}", "b"),
        one("{exporter=\"OTLP\"}", "msg=b attribute_level=mine"),
        one(
            "{exporter=\"OTLP\", http_method=\"GET\"}",
            "{\"body\":\"b\",\"attributes\":{\"http\":{\"method\":\"GET\"}}}",
        ),
    ];
    want.sort();
    assert_eq!(got, want);
    assert_eq!(rig.settled(), (Front::Empty, 1));
    assert_eq!(rig.shared.stats.dropped(DropReason::EncodeError), 1);
}

/// The hint stands in the records (each row is planned for itself) or in the resource (all are
/// planned at once).
#[test]
fn entries_with_a_format_that_does_not_exist_are_dead_letters_and_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let dead = dir.path().join("dead");
    let settings = LogSettings {
        output_paths: vec![OutputPath::File(dir.path().join("log"))],
        ..LogSettings::default()
    };
    let metrics = SelfLogMetrics::new(&MetricsRegistry::default());
    let log = SelfLog::new(settings, metrics).unwrap();
    let letters = Arc::new(DeadLetters::new(dead.clone(), 1 << 20));
    let mut rig = rig_with(LokiOptions::default(), Some(letters));
    let hint = || map(&[("loki.format", "xml"), ("loki.tenant", "t"), ("t", "a")]);
    let in_record = |body: &str| Entry {
        attributes: hint(),
        ..entry(body)
    };
    let in_resource = |body: &str| Entry {
        resource: hint(),
        ..entry(body)
    };
    // While there is one subscriber only, a thread that has none switches a message off for all of them, if it is the
    // first to have it.
    let _second = tracing::Dispatch::new(log.subscriber());
    tracing::subscriber::with_default(log.subscriber(), || {
        rig.export(LogsBatch::from_entries(&[
            in_record("1"),
            entry("good"),
            in_record("2"),
        ]));
        rig.export(LogsBatch::from_entries(&["3", "4", "5"].map(in_resource)));
    });
    assert_eq!(rig.messages().len(), 1);
    assert_eq!(rig.shared.stats.dropped(DropReason::EncodeError), 5);
    let why = "loki.format is \"xml\"; it can be json, logfmt or raw";
    let text = std::fs::read_to_string(&dead).unwrap();
    let letters = text.lines().map(|l| {
        let l: serde_json::Value = serde_json::from_str(l).unwrap();
        assert_eq!(
            (&l["reason"], &l["cause"]),
            (&"encode_error".into(), &why.into())
        );
        assert_eq!(
            (&l["tenant"], &l["labels"]),
            (&"a".into(), &"{exporter=\"OTLP\"}".into())
        );
        l["line"].as_str().unwrap().to_owned()
    });
    assert_eq!(letters.collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
    log.flush(Duration::from_secs(10)).unwrap();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let said: Vec<&str> = log.lines().filter(|l| l.contains("encode_error")).collect();
    assert_eq!(said.len(), 2, "one for each batch: {log}");
    assert!(said[0].contains("\"dropped_items\": 2") && said[1].contains("\"dropped_items\": 3"));
    assert!(
        said.iter()
            .all(|l| l.contains("it can be json, logfmt or raw"))
    );
}

#[test]
fn tenants_come_from_a_hint_of_the_resource_first() {
    let mut rig = rig(LokiOptions::default());
    let e = Entry {
        resource: map(&[("loki.tenant", "team"), ("team", "r")]),
        attributes: map(&[("loki.tenant", "other"), ("other", "a")]),
        ..entry("x")
    };
    rig.export(LogsBatch::from_entries(&[e]));
    assert_eq!(rig.messages()[0].0.as_deref(), Some("r"));
}

/// Guarantee: sample lines are in a stream of their own, whatever labels are made of, and where there is room for one
/// label only it is theirs.
#[test]
fn sample_lines_have_a_label_of_their_own() {
    for (most, wanted) in [
        (15, "{cluster=\"c1\", tailwater_probe=\"true\"}"),
        (1, "{tailwater_probe=\"true\"}"),
    ] {
        let mut options = mapping();
        options.limits.label_names_max = most;
        let mut rig = rig(options);
        let sample = Entry {
            resource: map(&[("tailwater.probe", "true")]),
            ..entry("sample")
        };
        rig.export(LogsBatch::from_entries(&[sample]));
        rig.export(LogsBatch::from_entries(&[entry("x")]));
        let messages = rig.messages();
        let streams: Vec<_> = messages.iter().flat_map(|m| &m.1).collect();
        let labels: Vec<_> = streams.iter().map(|s| s.0.as_str()).collect();
        assert_eq!(labels.len(), 2, "{labels:?}");
        let probes: Vec<_> = labels.iter().filter(|l| l.contains("probe")).collect();
        assert_eq!(probes, [&wanted], "{labels:?}");
    }
}
