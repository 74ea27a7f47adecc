//! Operators that rewrite texts and give records another shape.

use super::*;
use tailwater_pdata::ValueRef;

/// Runs one operator on a record, alone and beside one it does not apply to.
fn one(operator: &str, entry: &Entry) -> (Entry, Option<String>) {
    let (mut out, cx) = run(
        &mut chain(&format!("[{operator}]")),
        std::slice::from_ref(entry),
    );
    let beside = operator.replacen('{', r#"{"if":"attributes.skip != true","#, 1);
    let skipped = Entry {
        attributes: map(&[("skip", true.into())]),
        ..entry.clone()
    };
    let entries = [skipped.clone(), entry.clone()];
    let (both, _) = run(&mut chain(&format!("[{beside}]")), &entries);
    assert_eq!(both, [skipped, out[0].clone()], "{operator}");
    let error = cx.report.errors.first().map(|e| e.first.to_string());
    (out.remove(0), error)
}

fn body(operator: &str, text: &str) -> Result<String, String> {
    let (out, error) = one(operator, &super::text(text));
    match error {
        Some(e) => Err(e),
        None => Ok(out.body.as_ref().to_display_string()),
    }
}

#[test]
fn what_a_pattern_matches_is_replaced() {
    let ansi = r#"{"type":"regex_replace","field":"body","regex_name":"ansi_control_sequences"}"#;
    let swap = r#"{"type":"regex_replace","field":"body","regex":"(\\w+)@(?P<d>\\w+)",
        "replace_with":"${d} of $1, $$5$3"}"#;
    let gone = r#"{"type":"regex_replace","field":"body","regex":"a*","replace_with":"x"}"#;
    for (operator, text, want) in [
        (ansi, "start \u{1b}[31mred\u{1b}[0m end", "start red end"),
        (ansi, "\u{1b}[1;2Hx\u{1b}[K\u{1b}(B", "x\u{1b}(B"),
        (ansi, "plain", "plain"),
        (swap, "me@here you@there", "here of me, $5 there of you, $5"),
        (gone, "baaac", "xbxcx"),
    ] {
        assert_eq!(body(operator, text), Ok(want.to_owned()), "{text}");
    }
    let attribute = swap.replace("\"body\"", "\"attributes.a\"");
    let (out, error) = one(&attribute, &text("no attribute"));
    assert_eq!((out, error), (text("no attribute"), None));
    let number = Entry {
        body: Value::Int(1),
        ..Entry::default()
    };
    assert!(
        one(ansi, &number)
            .1
            .is_some_and(|e| e.contains("an integer"))
    );
    // Nothing is made without bound.
    let grows = r#"{"type":"regex_replace","field":"body","regex":"(?:)","replace_with":"WWWW"}"#;
    let grows = grows.replace("WWWW", &"x".repeat(4096));
    let long = "y".repeat(5000);
    assert!(body(&grows, &long).is_err_and(|e| e.contains("would make more than")));
}

#[test]
fn quotes_are_taken_away() {
    let operator = r#"{"type":"unquote","field":"body"}"#;
    for (text, want) in [
        ("\"val\"", "val"),
        ("`a\\n`", "a\\n"),
        ("'x'", "x"),
        ("\"a\\tb\"", "a\tb"),
    ] {
        assert_eq!(body(operator, text), Ok(want.to_owned()), "{text}");
    }
    for text in ["val", "\"val", "'ab'"] {
        let (out, error) = one(operator, &super::text(text));
        assert_eq!(
            (out, error.as_deref()),
            (super::text(text), Some("not a quoted string"))
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_replaced_run_by_run() {
    let mut chain = chain(r#"[{"type":"sanitize_utf8"}]"#);
    let raw = [
        &b"ok \xff\xfe\xfdx\x80"[..],
        b"caf\xc3\xa9",
        b"\xed\xa0\x80",
    ];
    let mut text = Vec::new();
    let mut ranges = Vec::new();
    for line in raw {
        ranges.push((text.len() as u32, line.len() as u32));
        text.extend_from_slice(line);
    }
    let mut batch = LogsBatch::from_lines(text.into(), &ranges);
    chain.process(&mut batch, &mut cx(0, 0, 0));
    let want = ["ok \u{fffd}x\u{fffd}", "caf\u{e9}", "\u{fffd}"];
    for (row, want) in want.iter().enumerate() {
        assert_eq!(batch.body(row), Some(ValueRef::Str(want.as_bytes())));
    }
}

fn nested() -> Entry {
    let inner = map(&[("k1", "v1".into()), ("k2", Value::Int(2))]);
    Entry {
        body: Value::Map(map(&[
            ("key", "val".into()),
            ("nested", Value::Map(inner.clone())),
        ])),
        attributes: map(&[
            ("a", "x".into()),
            ("m", Value::Map(inner)),
            ("l", Value::List(vec![Value::Int(1), "two".into()])),
        ]),
        resource: map(&[("r", "y".into()), ("s", "z".into())]),
        time: 5,
        ..Entry::default()
    }
}

#[test]
fn lists_get_names_for_their_values() {
    let operator = r#"{"type":"assign_keys","field":"attributes.l","keys":["p","q"]}"#;
    let (out, error) = one(operator, &nested());
    let named = map(&[("p", Value::Int(1)), ("q", "two".into())]);
    assert_eq!(
        (out.attributes.get("l"), error),
        (Some(&Value::Map(named)), None)
    );
    for (field, keys, want) in [
        ("attributes.l", r#"["p"]"#, "2 fields for 1 names"),
        ("attributes.a", r#"["p"]"#, "text cannot be used as a list"),
        ("attributes.n", r#"["p"]"#, "no field attributes.n"),
    ] {
        let operator = format!(r#"{{"type":"assign_keys","field":"{field}","keys":{keys}}}"#);
        let (out, error) = one(&operator, &nested());
        assert_eq!(out, nested());
        assert!(
            error.as_ref().is_some_and(|e| e.contains(want)),
            "{error:?}"
        );
    }
}

#[test]
fn maps_are_flattened_one_level() {
    let (out, error) = one(r#"{"type":"flatten","field":"body.nested"}"#, &nested());
    let want = map(&[
        ("key", "val".into()),
        ("k1", "v1".into()),
        ("k2", Value::Int(2)),
    ]);
    assert_eq!((out.body, error), (Value::Map(want), None));
    let (out, _) = one(r#"{"type":"flatten","field":"attributes.m"}"#, &nested());
    assert_eq!(out.attributes.get("k1"), Some(&"v1".into()));
    assert_eq!(out.attributes.get("m"), None);
    for (field, want) in [
        ("attributes.a", "text cannot be used as a map"),
        ("body.none", "no field body.none"),
    ] {
        let (out, error) = one(
            &format!(r#"{{"type":"flatten","field":"{field}"}}"#),
            &nested(),
        );
        assert_eq!(out, nested());
        assert!(
            error.as_ref().is_some_and(|e| e.contains(want)),
            "{error:?}"
        );
    }
    let inner = map(&[("x", Value::Int(1)), ("n", Value::Int(3))]);
    let both = Entry {
        body: Value::Map(map(&[
            ("m", Value::Map(map(&[("key", Value::Map(inner))]))),
            (
                "key",
                Value::Map(map(&[("x", Value::Int(0)), ("y", Value::Int(2))])),
            ),
        ])),
        ..Entry::default()
    };
    let (out, _) = one(r#"{"type":"flatten","field":"body.m"}"#, &both);
    let merged = map(&[
        ("x", Value::Int(1)),
        ("y", Value::Int(2)),
        ("n", Value::Int(3)),
    ]);
    assert_eq!(out.body, Value::Map(map(&[("key", Value::Map(merged))])));
    // Maps that share no keys do not cost the square of their number.
    let maps: Vec<Entry> = (0..3000)
        .map(|i| Entry {
            body: Value::Map(map(&[(
                "m",
                Value::Map(map(&[(format!("k{i}").as_str(), Value::Int(1))])),
            )])),
            ..Entry::default()
        })
        .collect();
    let operators = r#"[{"type":"copy","from":"body.m","to":"attributes.m"},
        {"type":"flatten","field":"attributes.m"}]"#;
    let (out, cx) = run(&mut chain(operators), &maps);
    assert!(out.len() == 3000 && cx.report.more.len() >= 4);
    assert!(out.iter().all(|e| e.attributes.len() == 1));
}

#[test]
fn fields_are_kept_in_the_parts_they_are_in() {
    let retain = |fields: &str| {
        one(
            &format!(r#"{{"type":"retain","fields":{fields}}}"#),
            &nested(),
        )
    };
    let (out, error) = retain(r#"["resource.r","attributes.a","body.key"]"#);
    let want = Entry {
        body: Value::Map(map(&[("key", "val".into())])),
        attributes: map(&[("a", "x".into())]),
        resource: map(&[("r", "y".into())]),
        ..nested()
    };
    assert_eq!((out, error), (want, None));
    let (out, _) = retain(r#"["attributes.m.k2","attributes.none"]"#);
    let deep = map(&[("m", Value::Map(map(&[("k2", Value::Int(2))])))]);
    assert_eq!((out.attributes, out.body), (deep, nested().body));
    let (out, _) = retain(r#"["resource.s"]"#);
    assert_eq!(out.resource, map(&[("s", "z".into())]));
    assert_eq!(out.attributes, nested().attributes);
    let (out, _) = retain(r#"["body.none"]"#);
    assert_eq!((out.body, out.resource), (Value::Null, nested().resource));
    let (out, _) = retain(r#"["body"]"#);
    assert_eq!(out, nested());
}

#[test]
fn what_is_missing_is_refused() {
    for (operators, want) in [
        (
            r#"[{"type":"regex_replace","field":"body"}]"#,
            "one of regex and regex_name",
        ),
        (
            r#"[{"type":"regex_replace","field":"body","regex":"("}]"#,
            "operators::0::regex",
        ),
        (
            r#"[{"type":"regex_replace","field":"body","regex_name":"x"}]"#,
            "ansi_control_sequences",
        ),
        (
            r#"[{"type":"regex_replace","regex":"x"}]"#,
            "operators::0::field",
        ),
        (r#"[{"type":"unquote"}]"#, "operators::0::field"),
        (r#"[{"type":"flatten","field":"attributes"}]"#, "as a whole"),
        (
            r#"[{"type":"assign_keys","field":"body"}]"#,
            "keys is required",
        ),
        (r#"[{"type":"retain","fields":[]}]"#, "fields is required"),
        (
            r#"[{"type":"retain","fields":["x"]}]"#,
            "operators::0::fields",
        ),
        (
            r#"[{"type":"scope_name_parser"}]"#,
            "operators::0::parse_from",
        ),
        (
            r#"[{"type":"json_parser","parse_to":"body","body":"body.x"}]"#,
            "parse_to: body",
        ),
    ] {
        let e = refused(operators);
        assert!(e.contains(want), "{operators}:\n{e}");
    }
}

#[test]
fn scopes_are_named_and_told_apart() {
    let operators = r#"[{"type":"regex_parser","regex":"^(?P<l>\\w+) (?P<m>.*)$",
        "scope_name":{"parse_from":"attributes.l"},"on_error":"send_quiet"}]"#;
    let mut batch = lines(0, "/p", &["a 1", "b 2", "-", "a 3"]);
    let mut cx = cx(0, 0, 0);
    chain(operators).process(&mut batch, &mut cx);
    let names = |b: &LogsBatch| {
        b.to_entries()
            .into_iter()
            .map(|e| e.scope_name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&batch), ["a", "b", "", "a"]);
    let parts = batch.split_by_resource();
    let by_scope: Vec<_> = parts.iter().map(|p| (&*p.scope.name, p.rows())).collect();
    assert_eq!(by_scope, [("a", 2), ("b", 1), ("", 1)]);
    assert!(parts.iter().all(|p| p.scope_names.is_empty()));
    let number = Entry {
        body: Value::Int(1),
        ..Entry::default()
    };
    let (out, error) = one(
        r#"{"type":"scope_name_parser","parse_from":"body"}"#,
        &number,
    );
    assert!(out.scope_name.is_empty() && error.is_some());
    let many: Vec<Entry> = (0..300).map(|i| text(&format!("s{i}"))).collect();
    let (out, cx) = run(
        &mut chain(r#"[{"type":"scope_name_parser","parse_from":"body"}]"#),
        &many,
    );
    assert_eq!(
        (out[9].scope_name.as_str(), cx.report.errors[0].records),
        ("s9", 44)
    );
}
