use super::*;

fn entry() -> Entry {
    Entry {
        body: "b".into(),
        attributes: map(&[
            ("a", "x".into()),
            ("m", Value::Map(map(&[("k", Value::Int(1))]))),
        ]),
        resource: map(&[("r", "y".into())]),
        ..Entry::default()
    }
}

/// Runs one operator on a whole batch and on one with a row it does not apply to.
fn check(operator: &str, want: &Entry) {
    let (out, cx) = run(&mut chain(&format!("[{operator}]")), &[entry(), entry()]);
    assert!(
        cx.report.errors.is_empty(),
        "{operator}: {:?}",
        cx.report.errors
    );
    assert_eq!(out, [want.clone(), want.clone()], "{operator}");
    let other = Entry {
        body: "other".into(),
        ..entry()
    };
    let conditional = operator.replacen('{', r#"{"if":"body == 'b'","#, 1);
    let (out, cx) = run(
        &mut chain(&format!("[{conditional}]")),
        &[entry(), other.clone()],
    );
    assert!(
        cx.report.errors.is_empty(),
        "{conditional}: {:?}",
        cx.report.errors
    );
    assert_eq!(out, [want.clone(), other], "{conditional}");
}

#[test]
fn fields_are_added_copied_moved_and_removed() {
    let with = |change: fn(&mut Entry)| {
        let mut e = entry();
        change(&mut e);
        e
    };
    for (operator, want) in [
        (
            r#"{"type":"add","field":"attributes.n","value":[1,"two",null]}"#,
            with(|e| {
                let list = Value::List(vec![Value::Int(1), "two".into(), Value::Null]);
                e.attributes.insert("n", list);
            }),
        ),
        (
            r#"{"type":"add","field":"attributes.m","value":{"k2":2}}"#,
            with(|e| {
                let both = map(&[("k", Value::Int(1)), ("k2", Value::Int(2))]);
                e.attributes.insert("m", Value::Map(both));
            }),
        ),
        (
            r#"{"type":"add","field":"resource.env","value":"EXPR(env('NODE') + '-' + attributes.a)"}"#,
            with(|e| {
                e.resource.insert("env", "node-1-x");
            }),
        ),
        (
            r#"{"type":"add","field":"resource.q","value":2.0}"#,
            with(|e| {
                e.resource.insert("q", 2.0);
            }),
        ),
        (
            r#"{"type":"add","field":"body","value":"EXPR(len(attributes))"}"#,
            with(|e| e.body = Value::Int(2)),
        ),
        (
            r#"{"type":"add","field":"attributes.nil","value":null}"#,
            with(|e| {
                e.attributes.insert("nil", Value::Null);
            }),
        ),
        (
            r#"{"type":"copy","from":"body","to":"resource.b"}"#,
            with(|e| {
                e.resource.insert("b", "b");
            }),
        ),
        (
            r#"{"type":"move","from":"attributes.a","to":"attributes.z"}"#,
            with(|e| {
                e.attributes.remove("a");
                e.attributes.insert("z", "x");
            }),
        ),
        (
            r#"{"type":"move","from":"attributes.m.k","to":"body"}"#,
            with(|e| {
                e.attributes.insert("m", Value::Map(Map::new()));
                e.body = Value::Int(1);
            }),
        ),
        (
            r#"{"type":"move","from":"resource.r","to":"attributes.m.deep"}"#,
            with(|e| {
                e.resource = Map::new();
                let both = map(&[("k", Value::Int(1)), ("deep", "y".into())]);
                e.attributes.insert("m", Value::Map(both));
            }),
        ),
        (
            r#"{"type":"remove","field":"attributes"}"#,
            with(|e| e.attributes = Map::new()),
        ),
        (
            r#"{"type":"remove","field":"resource"}"#,
            with(|e| e.resource = Map::new()),
        ),
        (
            r#"{"type":"remove","field":"body"}"#,
            with(|e| e.body = Value::Null),
        ),
        (
            r#"{"type":"remove","field":"resource['r']"}"#,
            with(|e| e.resource = Map::new()),
        ),
        (
            r#"{"type":"remove","field":"attributes.a"}"#,
            with(|e| {
                e.attributes.remove("a");
            }),
        ),
    ] {
        check(operator, &want);
    }
}

#[test]
fn missing_fields_are_errors_of_their_records_only() {
    for operator in [
        r#"{"type":"move","from":"attributes.only","to":"attributes.z"}"#,
        r#"{"type":"copy","from":"attributes.only","to":"body"}"#,
        r#"{"type":"remove","field":"attributes.only"}"#,
    ] {
        let has = Entry {
            attributes: map(&[("only", Value::Int(1))]),
            ..text("1")
        };
        let (out, cx) = run(&mut chain(&format!("[{operator}]")), &[has, text("2")]);
        assert_eq!(out.len(), 2, "{operator}");
        assert_eq!(out[1], text("2"), "{operator}");
        assert_eq!(cx.report.errors[0].records, 1);
        assert_eq!(
            cx.report.errors[0].first.to_string(),
            "the record has no field attributes.only"
        );
    }
}

#[test]
fn filters_drop_what_they_match_and_what_they_cannot_judge() {
    let mut c = chain(r#"[{"type":"filter","expr":"attributes.n > 1"}]"#);
    let n = |v: Value| Entry {
        attributes: map(&[("n", v)]),
        ..Entry::default()
    };
    let (out, cx) = run(&mut c, &[n(Value::Int(1)), n(Value::Int(2)), n("x".into())]);
    assert_eq!(out, [n(Value::Int(1))]);
    assert_eq!(cx.report.filtered, [("filter".into(), 1)]);
    assert_eq!(cx.report.dropped, 1);
}

/// Guarantees: a ratio drops about that part, and the same records when they are read again.
#[test]
fn a_drop_ratio_is_deterministic() {
    let operators = r#"[{"type":"filter","expr":"true","drop_ratio":0.3}]"#;
    let same = vec!["the same line"; 2000];
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut batch = lines(0, "", &same);
        chain(operators).process(&mut batch, &mut cx(0, 0, 0));
        kept.push(
            (0..batch.rows())
                .map(|r| batch.source_offset(r))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(kept[0], kept[1]);
    assert!(
        (1300..1500).contains(&kept[0].len()),
        "{} of 2000 kept",
        kept[0].len()
    );
}
