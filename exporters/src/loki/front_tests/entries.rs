//! What becomes of one record: time, line, metadata.

use super::*;

/// Everything of a record is in exactly one place: label, line or structured metadata.
#[test]
fn a_mapped_record_is_spread_over_labels_line_and_metadata() {
    let mut rig = rig(mapping());
    let record = |stream: &str, line: &str, extra: &str| Entry {
        attributes: map(&[("log.iostream", stream), ("http.path", extra)]),
        resource: map(&[("k8s.pod.name", "p1"), ("host.name", "h")]),
        severity: 9,
        scope_name: "sc".into(),
        trace_id: [0xab; 16],
        ..entry(line)
    };
    let logs = LogsBatch::from_entries(&[
        record("stdout", "one", "/a"),
        record("stderr", "two", "/b"),
        record("stdout", "three", ""),
    ]);
    rig.export(logs);
    let streams = by_stream(&rig.messages());
    let labels = |s: &str| format!("{{cluster=\"c1\", pod=\"p1\", stream=\"{s}\"}}");
    assert_eq!(
        lines(&(None, streams.clone())),
        [
            (labels("stderr"), vec!["two".to_owned()]),
            (labels("stdout"), vec!["one".into(), "three".into()]),
        ]
    );
    let stdout = &streams[1].1;
    let mut got = pairs(&stdout[0]);
    got.sort();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let mut want = vec![
        pair("detected_level", "info"),
        pair("host_name", "h"),
        pair("http_path", "/a"),
        pair("scope_name", "sc"),
        pair("severity_number", "9"),
        pair("trace_id", &"ab".repeat(16)),
    ];
    assert_eq!(got, want);
    want.remove(2);
    let mut third = pairs(&stdout[1]);
    third.sort();
    assert_eq!(third, want, "empty values are not sent");
    assert_eq!(rig.settled(), (Front::Empty, 0));
}

#[test]
fn constants_and_dictionaries_give_the_same_as_rows() {
    let text = Bytes::from_static(b"abcdef");
    let ranges: Vec<(u32, u32)> = (0..6).map(|i| (i, 1)).collect();
    let mut logs = LogsBatch::from_lines(text, &ranges);
    logs.time = Times::Const(NOW);
    logs.resource = Arc::new(map(&[("k8s.pod.name", "p")]));
    let values = vec![Value::str("stdout"), Value::str("stderr")];
    let codes = vec![0, 1, 0, 255, 1, 0];
    logs.attributes
        .set("log.iostream", Column::dict(codes, values));
    logs.attributes.set("app", Column::Const("x".into()));
    let entries = logs.to_entries();
    let mut messages = Vec::new();
    for logs in [logs, LogsBatch::from_entries(&entries)] {
        let mut rig = rig(mapping());
        rig.export(logs);
        messages.push(rig.messages());
    }
    assert_eq!(messages[0], messages[1]);
    let streams = by_stream(&messages[0]);
    let lines = lines(&(None, streams.clone()));
    let lines: Vec<_> = lines.into_iter().map(|s| s.1.concat()).collect();
    assert_eq!(lines, ["be", "acf", "d"]);
    assert_eq!(
        pairs(&streams[0].1[0]),
        [("app".to_owned(), "x".to_owned())]
    );
}

#[test]
fn entries_outside_the_window_are_dropped_and_counted_or_clamped() {
    let at = |time: i64| Entry { time, ..entry("x") };
    let records = [at(NOW - 169 * HOUR), at(NOW), at(NOW + HOUR)];
    let limits = |outside_window| Limits {
        age_max: Duration::from_secs(168 * 3600),
        future_max: Duration::from_secs(600),
        outside_window,
        ..Limits::default()
    };
    let mut rig1 = rig(LokiOptions {
        limits: limits(OutsideWindow::Drop),
        ..mapping()
    });
    rig1.export(LogsBatch::from_entries(&records));
    assert_eq!(rig1.messages()[0].1[0].1.len(), 1);
    assert_eq!(rig1.settled(), (Front::Empty, 2));
    let stats = &rig1.shared.stats;
    let dropped = (
        stats.dropped(DropReason::TooOld),
        stats.dropped(DropReason::TooNew),
    );
    assert_eq!(dropped, (1, 1));
    // A part of which nothing is left is settled at once.
    rig1.export(LogsBatch::from_entries(&records[..1]));
    assert!(rig1.take().is_empty());
    assert_eq!(rig1.settled(), (Front::Empty, 1));
    let mut rig2 = rig(LokiOptions {
        limits: limits(OutsideWindow::Clamp),
        ..mapping()
    });
    rig2.export(LogsBatch::from_entries(&records));
    let messages = rig2.messages();
    let times: Vec<_> = messages[0].1[0].1.iter().map(|e| e.time() - NOW).collect();
    assert_eq!(times, [-168 * HOUR + 60_000_000_000, 0, 600_000_000_000]);
    assert_eq!(rig2.shared.stats.clamped_times(), 2);
}

/// Our clock may be the wrong one: unless it is asked for, nothing is dropped by it alone.
#[test]
fn entries_ahead_of_our_clock_are_sent_unless_told_otherwise() {
    let mut rig = rig(mapping());
    let ahead = Entry {
        time: NOW + 10_000 * HOUR,
        ..entry("ahead")
    };
    rig.export(LogsBatch::from_entries(&[ahead, entry("now")]));
    assert_eq!(lines(&rig.messages()[0])[0].1, ["now", "ahead"]);
}

#[test]
fn an_age_that_loki_stated_is_kept_to() {
    let mut rig = rig(mapping());
    let old = Entry {
        time: NOW - 3 * HOUR,
        ..entry("old")
    };
    rig.export(LogsBatch::from_entries(std::slice::from_ref(&old)));
    assert_eq!(rig.messages().len(), 1, "nothing is known yet");
    rig.shared.parked.learn_age_max(2 * HOUR);
    rig.export(LogsBatch::from_entries(&[old, entry("new")]));
    assert_eq!(lines(&rig.messages()[0])[0].1, ["new"]);
    assert_eq!(rig.settled(), (Front::Empty, 1));
}

#[test]
fn a_record_without_times_gets_one_and_is_counted() {
    let mut rig = rig(mapping());
    let observed = Entry {
        time: 0,
        observed: NOW - 5,
        ..entry("observed")
    };
    let none = Entry {
        time: 0,
        ..entry("none")
    };
    rig.export(LogsBatch::from_entries(&[observed, none]));
    let times: Vec<_> = rig.messages()[0].1[0]
        .1
        .iter()
        .map(|e| e.time() - NOW)
        .collect();
    assert_eq!(times, [-5, 0]);
    assert_eq!(rig.shared.stats.untimed_entries(), 1);
}

#[test]
fn lines_that_are_too_long_are_cut_between_characters_or_dropped() {
    let long = format!(
        "{}\u{20ac}\u{20ac}\u{20ac}\u{20ac}\u{20ac}\u{20ac}",
        "x".repeat(20)
    );
    for (max, want) in [
        (38, Some(long.clone())),
        (37, Some(format!("{}\u{20ac} [truncated]", "x".repeat(20)))),
        (33, Some(format!("{} [truncated]", "x".repeat(20)))),
    ] {
        let limits = Limits {
            line_bytes_max: max,
            ..Limits::default()
        };
        let mut rig = rig(LokiOptions {
            limits,
            ..mapping()
        });
        rig.export(LogsBatch::from_entries(&[entry(&long)]));
        let got = rig.messages().first().map(|m| lines(m)[0].1[0].clone());
        assert!(got.as_ref().is_some_and(|l| l.len() <= max));
        assert_eq!(got, want, "{max}");
    }
    let limits = Limits {
        line_bytes_max: 10,
        line_too_long: LineTooLong::Drop,
        ..Limits::default()
    };
    let mut rig = rig(LokiOptions {
        limits,
        ..mapping()
    });
    rig.export(LogsBatch::from_entries(&[entry(&long), entry("short")]));
    assert_eq!(lines(&rig.messages()[0])[0].1, ["short"]);
    assert_eq!(rig.settled(), (Front::Empty, 1));
}

#[test]
fn metadata_stays_within_the_limits_and_names_stay_apart() {
    let mut options = mapping();
    options.limits.metadata_pairs_max = 4;
    let mut rig = rig(options);
    let attributes = [("a.b", "1"), ("a_b", "2"), ("\u{65e5}", "3"), ("z", "9")];
    let nested: Map = [("k", Value::Map(map(&[("q", "v")])))]
        .into_iter()
        .collect();
    let mut e = Entry {
        attributes: map(&attributes),
        ..entry("x")
    };
    e.resource = [("a.b", Value::str("r"))].into_iter().collect();
    let mut deep = entry("y");
    deep.attributes = [("m", Value::Map(nested))].into_iter().collect();
    rig.export(LogsBatch::from_entries(&[e]));
    rig.export(LogsBatch::from_entries(&[deep]));
    let messages = rig.messages();
    let got: Vec<_> = messages.iter().flat_map(|m| &m.1[0].1).map(pairs).collect();
    let names: Vec<_> = got[0].iter().map(|p| p.0.as_str()).collect();
    assert_eq!(names.len(), 4);
    assert!(
        ["a_b", "a_b_2", "resource_a_b"]
            .iter()
            .all(|n| names.contains(n)),
        "{names:?}"
    );
    assert_eq!(got[1], [("m_k_q".to_owned(), "v".to_owned())]);
    assert_eq!(rig.shared.stats.trimmed_metadata(), 1);
}

#[test]
fn raw_bytes_and_empty_bodies_are_sent_as_they_are() {
    let mut rig = rig(mapping());
    let text = Bytes::from_static(b"\xff\xfe\x00");
    let mut logs = LogsBatch::from_lines(text, &[(0, 3), (0, 0)]);
    logs.time = Times::Const(NOW);
    logs.body = Column::Slices(vec![Slice::shared(0, 3), Slice::ABSENT]);
    rig.export(logs);
    let messages = rig.messages();
    let lines: Vec<_> = messages[0].1[0].1.iter().map(|e| e.line.clone()).collect();
    assert_eq!(lines, [b"\xff\xfe\x00".to_vec(), Vec::new()]);
}
