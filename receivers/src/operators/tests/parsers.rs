use super::*;
use tailwater_pdata::ValueRef;

#[test]
fn json_fields_become_attributes_over_those_that_are_there() {
    let mut c = chain(r#"[{"type":"json_parser","parse_ints":true}]"#);
    let all = [
        r#"{"a":1,"log.file.path":"mine","s":"x\ty","n":{"k":[1,null]}}"#,
        r#"{"b":true,"a":2.5}"#,
        r#"no json"#,
        r#"{"a":null,"a":"last","\u0073":"y","f":false}"#,
        r#"{}"#,
    ];
    let mut batch = lines(0, "/p", &all);
    let mut cx = cx(0, 0, 0);
    c.process(&mut batch, &mut cx);
    let n = Value::Map(map(&[("k", Value::List(vec![Value::Int(1), Value::Null]))]));
    let path = ("log.file.path", Value::str("/p"));
    let want = [
        map(&[
            ("log.file.path", "mine".into()),
            ("a", Value::Int(1)),
            ("s", "x\ty".into()),
            ("n", n),
        ]),
        map(&[
            path.clone(),
            ("a", Value::Double(2.5)),
            ("b", Value::Bool(true)),
        ]),
        map(std::slice::from_ref(&path)),
        map(&[
            path.clone(),
            ("a", "last".into()),
            ("s", "y".into()),
            ("f", Value::Bool(false)),
        ]),
        map(std::slice::from_ref(&path)),
    ];
    let got: Vec<Map> = batch
        .to_entries()
        .into_iter()
        .map(|e| e.attributes)
        .collect();
    assert_eq!(got, want);
    assert_eq!(bodies(&batch, &cx), all);
    assert_eq!(
        cx.report.errors[0].first.to_string(),
        "not a JSON object: expected { at byte 0"
    );
}

#[test]
fn json_goes_where_parse_to_says() {
    let body = Value::Map(map(&[
        ("j", r#"{"x":{"y":"z"}}"#.into()),
        ("keep", Value::Int(1)),
    ]));
    let entry = Entry {
        body: body.clone(),
        ..Entry::default()
    };
    let parsed = Value::Map(map(&[("x", Value::Map(map(&[("y", "z".into())])))]));
    for (to, get) in [
        ("attributes.deep.er", "attributes.deep.er"),
        ("resource", "resource"),
        ("body.out", "body.out"),
    ] {
        let operators =
            format!(r#"[{{"type":"json_parser","parse_from":"body.j","parse_to":"{to}"}}]"#);
        let (out, cx) = run(&mut chain(&operators), std::slice::from_ref(&entry));
        assert!(cx.report.errors.is_empty(), "{:?}", cx.report.errors);
        let got = match get {
            "resource" => Value::Map(out[0].resource.clone()),
            "body.out" => match &out[0].body {
                Value::Map(m) => m.get("out").cloned().unwrap_or_default(),
                other => other.clone(),
            },
            _ => match out[0].attributes.get("deep") {
                Some(Value::Map(m)) => m.get("er").cloned().unwrap_or_default(),
                other => panic!("{other:?}"),
            },
        };
        assert_eq!(got, parsed, "{to}");
    }
    let (out, _) = run(
        &mut chain(r#"[{"type":"json_parser","parse_to":"body"}]"#),
        &[text(r#"{"x":{"y":"z"}}"#)],
    );
    assert_eq!(out[0].body, parsed);
    let (_, cx) = run(
        &mut chain(r#"[{"type":"json_parser"}]"#),
        &[entry, Entry::default()],
    );
    assert_eq!(
        (
            cx.report.errors[0].records,
            cx.report.errors[0].operator.as_ref()
        ),
        (2, "json_parser")
    );
}

/// Guarantees: a record on which a condition fails is counted once, also if it stands behind those
/// that become a batch of their own.
#[test]
fn what_a_condition_drops_is_counted_once_in_several_batches() {
    for on_error in ["drop", "send"] {
        let mut c = chain(&format!(
            r#"[{{"type":"json_parser","if":"body startsWith \"{{\" or int(body) == 1",
                 "on_error":"{on_error}"}}]"#
        ));
        let mut all: Vec<String> = (0..1_200).map(|i| format!("{{\"k{i}\":1}}")).collect();
        all.extend(["x", "y", "z"].map(str::to_owned));
        let mut batch = lines(0, "", &all.iter().map(String::as_str).collect::<Vec<_>>());
        let mut cx = cx(0, 0, 0);
        c.process(&mut batch, &mut cx);
        assert!(cx.report.more.len() >= 2);
        let dropped = if on_error == "drop" { 3 } else { 0 };
        assert_eq!(cx.report.dropped, dropped);
        assert_eq!(bodies(&batch, &cx).len() as u64 + dropped, 1_203);
        let records: Vec<u64> = cx.report.errors.iter().map(|e| e.records).collect();
        assert_eq!(records, [3]);
    }
}

/// Guarantees: records without common keys cost memory in proportion to their size.
#[test]
fn records_without_common_keys_come_out_in_several_batches() {
    let mut c = chain(r#"[{"type":"json_parser"},{"type":"noop"}]"#);
    let all: Vec<String> = (0..300)
        .map(|i| {
            let keys: Vec<String> = (0..10).map(|k| format!("\"k{i}_{k}\":1")).collect();
            format!("{{{}}}", keys.join(","))
        })
        .collect();
    let mut batch = lines(0, "", &all.iter().map(String::as_str).collect::<Vec<_>>());
    let mut cx = cx(0, 0, 0);
    c.process(&mut batch, &mut cx);
    assert_eq!(bodies(&batch, &cx), all, "in order, none lost");
    for b in std::iter::once(&batch).chain(&cx.report.more) {
        assert!(b.attributes.len() <= 522, "{} columns", b.attributes.len());
        assert_eq!(b.attributes_of(0).len(), 10);
    }
    assert!(cx.report.more.len() >= 5);
    let many: Vec<String> = (0..5000).map(|k| format!("\"k{k}\":1")).collect();
    let (out, cx) = run(&mut c, &[text(&format!("{{{}}}", many.join(",")))]);
    assert_eq!((out.len(), out[0].attributes.len()), (1, 0));
    assert!(
        cx.report.errors[0]
            .first
            .to_string()
            .contains("more than 4096 fields")
    );
}

#[test]
fn named_groups_become_attributes() {
    let operators = r#"[{"type":"regex_parser",
        "regex":"^(?P<level>\\w+) (?P<rest>(opt)?.*)(?P<none>never)?$","cache":{"size":7}}]"#;
    let (out, cx) = run(
        &mut chain(operators),
        &[text("INFO all is well"), text("-")],
    );
    let want = map(&[
        ("level", "INFO".into()),
        ("rest", "all is well".into()),
        ("none", "".into()),
    ]);
    assert_eq!(
        (&out[0].attributes, &out[1].attributes),
        (&want, &Map::new())
    );
    assert_eq!(
        cx.report.errors[0].first.to_string(),
        "the regular expression does not match"
    );
    let present = Entry {
        attributes: map(&[("level", Value::Int(1))]),
        ..text("WARN x")
    };
    let (out, _) = run(&mut chain(operators), &[present, text("-")]);
    assert_eq!(out[0].attributes.get("level"), Some(&"WARN".into()));
    assert_eq!(out[1].attributes.get("level"), None);
    let to = r#"[{"type":"regex_parser","regex":"(?P<a>.)","parse_to":"attributes.m"}]"#;
    let (out, _) = run(&mut chain(to), &[text("q")]);
    let want = Value::Map(map(&[("a", "q".into())]));
    assert_eq!(out[0].attributes.get("m"), Some(&want));
}

/// Guarantees: time, severity, trace and body are all tried, the first error is the one reported.
#[test]
fn parsers_set_time_severity_trace_and_body() {
    let operators = r#"[{"type":"json_parser","body":"attributes.msg",
        "timestamp":{"parse_from":"attributes.ts","layout":"%Y-%m-%d %H:%M:%S","location":"UTC"},
        "severity":{"parse_from":"attributes.lvl","mapping":{"fatal":["oops",{"min":900,"max":999}],"warn3":"4xx"},"overwrite_text":true},
        "trace":{"trace_id":{"parse_from":"attributes.tid"}}}]"#;
    let mut c = chain(operators);
    let all = [
        r#"{"msg":"m","ts":"2024-04-13 07:59:37","lvl":"oops","tid":"480140f3d770a5ae32f0a22b6a812cff"}"#,
        r#"{"ts":"yesterday","lvl":404,"tid":"zz"}"#,
        r#"{"ts":"2024-04-13 07:59:37","lvl":"what"}"#,
    ];
    let (out, cx) = run(&mut c, &all.map(text));
    assert_eq!(out[0].body, "m".into());
    assert_eq!(
        (out[0].severity, out[0].severity_text.as_str()),
        (21, "FATAL")
    );
    assert_eq!(out[0].time, 1_712_995_177_000_000_000);
    assert_eq!(out[0].trace_id[..2], [0x48, 0x01]);
    assert_eq!(
        (out[1].severity, out[1].severity_text.as_str()),
        (15, "WARN3")
    );
    assert_eq!((out[1].time, out[1].body.clone()), (0, all[1].into()));
    assert_eq!(
        (out[2].severity, out[2].severity_text.as_str()),
        (0, "what")
    );
    assert_eq!(cx.report.errors[0].records, 1);
    assert!(
        cx.report.errors[0]
            .first
            .to_string()
            .contains("time layout")
    );
}

#[test]
fn what_a_trace_parser_does_not_find_is_cleared() {
    let operators = r#"[
        {"type":"json_parser"},
        {"type":"trace_parser","trace_id":{"parse_from":"attributes.t"},
            "span_id":{"parse_from":"attributes.s"},"trace_flags":{"parse_from":"attributes.f"}},
        {"type":"trace_parser","if":"attributes.again == true",
            "trace_id":{"parse_from":"attributes.t"}}]"#;
    let line = |again| {
        format!(
            r#"{{"t":"480140f3d770a5ae32f0a22b6a812cff","s":"92c3792d54ba94f3","f":"01","again":{again}}}"#
        )
    };
    let (once, twice) = (line(false), line(true));
    let (out, cx) = run(
        &mut chain(operators),
        &[text(&once), text(&twice), text("{}")],
    );
    assert!(cx.report.errors.is_empty());
    assert_eq!((out[0].span_id[0], out[0].flags), (0x92, 1));
    assert_eq!(
        (out[1].trace_id[0], out[1].span_id, out[1].flags),
        (0x48, [0; 8], 0)
    );
    assert_eq!(out[2].trace_id, [0; 16]);
}

#[test]
fn a_part_of_a_trace_that_is_wrong_leaves_the_others() {
    let operators = r#"[{"type":"json_parser","parse_to":"body"},{"type":"trace_parser"}]"#;
    let all = [
        r#"{"trace_id":"foo_bar","span_id":"92c3792d54ba94f3","trace_flags":"01"}"#,
        r#"{"trace_id":"480140f3d770a5ae32f0a22b6a812cff","trace_flags":"xy"}"#,
        // Of another length: cut, or filled up.
        r#"{"trace_id":"92c3792d54ba94f3","span_id":"480140f3d770a5ae32f0a22b6a812cff"}"#,
    ];
    let (out, cx) = run(&mut chain(operators), &all.map(text));
    assert_eq!(cx.report.errors[0].records, 2);
    assert_eq!(
        (out[0].trace_id, out[0].span_id[0], out[0].flags),
        ([0; 16], 0x92, 1)
    );
    assert_eq!((out[1].trace_id[0], out[1].flags), (0x48, 0));
    assert_eq!(
        (out[2].trace_id[..2].to_vec(), out[2].trace_id[8]),
        (vec![0x92, 0xc3], 0)
    );
    assert_eq!(
        out[2].span_id,
        [0x48, 1, 0x40, 0xf3, 0xd7, 0x70, 0xa5, 0xae]
    );
}

#[test]
fn times_without_a_year_follow_the_clock_they_are_given() {
    let operators =
        r#"[{"type":"time_parser","parse_from":"body","layout":"%b %d","location":"UTC"}]"#;
    let mut c = chain(operators);
    let mut cx = OperatorCx {
        now_ns: 1_773_100_800_000_000_000,
        ..OperatorCx::default()
    };
    let mut batch = lines(0, "", &["Mar 01", "Dec 31"]);
    c.process(&mut batch, &mut cx);
    let times: Vec<i64> = (0..2).map(|r| batch.time.get(r) / 1_000_000_000).collect();
    assert_eq!(times, [1_772_323_200, 1_767_139_200]);
    assert_eq!(batch.body(0), Some(ValueRef::Str(b"Mar 01")));
}
