use super::*;
use tailwater_pdata::ValueRef;

/// Statements, the attribute to look at, and what it is as text (`-` = it is not there).
fn attribute_after(table: &[(&[&str], &str, &str)]) {
    for (statements, key, want) in table {
        let batch = run(statements).unwrap();
        let got = batch.attribute(0, key);
        let got = got.map_or("-".into(), ValueRef::to_display_string);
        assert_eq!(got, *want, "{statements:?}");
        assert_eq!(
            batch.attributes_of(1).len(),
            0,
            "{statements:?} changed another record"
        );
    }
}

#[test]
fn set_puts_values_anywhere() {
    attribute_after(&[
        (&[r#"set(attributes["x"], "new")"#], "x", "new"),
        (&[r#"set(attributes["s"], 3)"#], "s", "3"),
        (&[r#"set(attributes["x"], body)"#], "x", "GET /a?x=1 200"),
        (
            &[r#"set(attributes["x"], Substring(body, 4, 2))"#],
            "x",
            "/a",
        ),
        (&[r#"set(attributes["x"], attributes["none"])"#], "x", "-"),
        (&[r#"set(attributes["x"], nil)"#], "x", "-"),
        (
            &[r#"set(attributes["x"]["y"]["z"], 1)"#],
            "x",
            r#"{"y":{"z":1}}"#,
        ),
        (
            &[r#"set(attributes["m"]["n"]["deep"], "in")"#],
            "m",
            r#"{"k":"v","n":{"deep":"in"}}"#,
        ),
        (
            &[r#"set(attributes["l"][1], body)"#],
            "l",
            r#"["x","GET /a?x=1 200",3]"#,
        ),
        (&[r#"set(attributes[attributes["s"]], 1)"#], "text", "1"),
        (
            &[r#"set(attributes["x"], [1, "a", {"k": attributes["i"]}])"#],
            "x",
            r#"[1,"a",{"k":7}]"#,
        ),
        (
            &[r#"set(attributes["x"], 1) where attributes["i"] == 7"#],
            "x",
            "1",
        ),
        (
            &[r#"set(attributes["x"], 1) where attributes["i"] == 8"#],
            "x",
            "-",
        ),
        (
            &[
                r#"set(cache["c"], body)"#,
                r#"set(attributes["x"], cache["c"])"#,
            ],
            "x",
            "GET /a?x=1 200",
        ),
        (
            &[
                r#"set(cache, ParseJSON(attributes["json"]))"#,
                r#"set(attributes["x"], cache["b"]["c"][0])"#,
            ],
            "x",
            "true",
        ),
        (&[r#"set(attributes, {"only": 1})"#], "only", "1"),
        (&[r#"set(attributes, {"only": 1})"#], "s", "-"),
        (
            &[r#"set(log.attributes["x"], resource.attributes["service.name"])"#],
            "x",
            "shop",
        ),
    ]);
    let b = run(&[
        r#"set(body, {"message": body})"#,
        r#"set(body["level"], "info")"#,
        "set(severity_number, SEVERITY_NUMBER_ERROR)",
        r#"set(severity_text, "ERROR")"#,
        r#"set(time, Time("2026-01-02", "%Y-%m-%d", "UTC"))"#,
        "set(observed_time_unix_nano, 5)",
        r#"set(trace_id, TraceID("000102030405060708090a0b0c0d0e0f"))"#,
        r#"set(span_id.string, "0102030405060708")"#,
        "set(flags, 1)",
        r#"set(event_name, "started")"#,
        "set(dropped_attributes_count, 2)",
        r#"set(resource.attributes["host"], "h2")"#,
        r#"set(scope.name, "other")"#,
        r#"set(scope.attributes["a"], true)"#,
        r#"set(resource.schema_url, "http://s")"#,
    ])
    .unwrap();
    assert_eq!(
        b.body(0).unwrap().to_display_string(),
        r#"{"level":"info","message":"GET /a?x=1 200"}"#
    );
    assert_eq!(b.body(1), Some(ValueRef::Str(b"other")));
    assert_eq!((b.severity.get(0), b.severity.get(1)), (17, 0));
    assert_eq!(b.severity_text(0), Some(ValueRef::Str(b"ERROR")));
    assert_eq!(b.time.get(0), 1_767_312_000_000_000_000);
    assert_eq!((b.observed.get(0), b.observed.get(1)), (5, 0));
    let trace = b.trace.as_ref().unwrap();
    assert_eq!((trace.trace_id[0][15], trace.trace_id[1][15]), (15, 0));
    assert_eq!(
        (trace.span_id[0][7], trace.flags[0], trace.flags[1]),
        (8, 1, 0)
    );
    assert_eq!(
        (b.event_name(0), b.event_name(1)),
        (Some(&b"started"[..]), None)
    );
    assert_eq!((b.dropped_attributes(0), b.dropped_attributes(1)), (2, 0));
    assert_eq!(b.resource.get("host"), Some(&Value::str("h2")));
    assert_eq!((&*b.scope.name, b.scope.attributes.len()), ("other", 1));
    assert_eq!(&*b.otlp.unwrap().resource.schema_url, "http://s");
}

#[test]
fn text_of_the_batch_is_not_copied() {
    let before = batch().text.heap_bytes();
    let b = run(&[r#"set(attributes["s"], TrimPrefix(body, "GET "))"#]).unwrap();
    assert_eq!(b.text.heap_bytes(), before);
}

#[test]
fn values_that_a_field_cannot_hold_are_errors() {
    for (statement, part) in [
        (
            r#"set(attributes["x"], attributes["i"] - 1) where body["k"] == 1"#,
            "has no key",
        ),
        (
            r#"set(severity_number, attributes["s"])"#,
            "text cannot be stored in severity_number",
        ),
        (
            r#"set(severity_number, attributes["i"] + 999)"#,
            "out of range",
        ),
        (
            r#"set(time, attributes["i"])"#,
            "an integer cannot be stored in time",
        ),
        (
            r#"set(attributes["x"], Coalesce([nil, time]))"#,
            "a time cannot be stored in an attribute",
        ),
        (
            r#"set(attributes, attributes["s"])"#,
            "text cannot be stored in a map",
        ),
        (
            r#"set(trace_id.string, attributes["s"])"#,
            "no id of this length",
        ),
        (r#"set(attributes["s"]["x"], 1)"#, "text has no key of text"),
        (r#"set(attributes["l"][7], 1)"#, "no such position"),
        (r#"delete_key(body, "x")"#, "text where a map is needed"),
        (
            r#"merge_maps(attributes, attributes["s"], "upsert")"#,
            "text where a map is needed",
        ),
    ] {
        let error = run(&[statement]).unwrap_err();
        assert!(error.contains(part), "{statement}: {error}");
    }
}

#[test]
fn keys_are_deleted_and_kept() {
    let keys = |statement: &str| {
        let map = attributes(&run(&[statement]).unwrap());
        map.iter()
            .map(|(k, _)| k.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (statement, want) in [
        (r#"delete_key(attributes, "s")"#, "i d t b l m json"),
        (r#"delete_key(attributes, "none")"#, "s i d t b l m json"),
        (
            r#"delete_key(attributes, attributes["s"])"#,
            "s i d t b l m json",
        ),
        (r#"delete_matching_keys(attributes, "^.$")"#, "json"),
        (r#"keep_matching_keys(attributes, "^[ab]|s")"#, "s b json"),
        (r#"keep_keys(attributes, ["i", "none", "d"])"#, "i d"),
        ("keep_keys(attributes, [])", ""),
        (r#"limit(attributes, 3, ["json"])"#, "s i json"),
        (r#"limit(attributes, 99, [])"#, "s i d t b l m json"),
        ("limit(attributes, 0, [])", ""),
    ] {
        assert_eq!(keys(statement), want, "{statement}");
    }
    attribute_after(&[
        (
            &[r#"delete_key(attributes["m"], "k")"#],
            "m",
            r#"{"n":{"deep":1}}"#,
        ),
        (
            &[r#"keep_keys(attributes["m"], ["k"])"#],
            "m",
            r#"{"k":"v"}"#,
        ),
    ]);
    let b = run(&[
        r#"delete_key(resource.attributes, "host")"#,
        r#"keep_matching_keys(scope.attributes, "x")"#,
    ]);
    assert_eq!(b.unwrap().resource.len(), 1);
}

#[test]
fn maps_are_merged_and_flattened() {
    attribute_after(&[
        (
            &[r#"merge_maps(attributes, {"i": 1, "x": 2}, "insert")"#],
            "i",
            "7",
        ),
        (
            &[r#"merge_maps(attributes, {"i": 1, "x": 2}, "insert")"#],
            "x",
            "2",
        ),
        (
            &[r#"merge_maps(attributes, {"i": 1, "x": 2}, "update")"#],
            "i",
            "1",
        ),
        (
            &[r#"merge_maps(attributes, {"i": 1, "x": 2}, "update")"#],
            "x",
            "-",
        ),
        (
            &[r#"merge_maps(attributes, ParseJSON(attributes["json"]), "upsert")"#],
            "b",
            r#"{"c":[true,null]}"#,
        ),
        (
            &[r#"merge_maps(attributes["m"], {"k": 1, "z": 2}, "update")"#],
            "m",
            r#"{"k":1,"n":{"deep":1}}"#,
        ),
        (&["flatten(attributes)"], "m.n.deep", "1"),
        (&["flatten(attributes)"], "l.1", "y"),
        (&[r#"flatten(attributes, "app")"#], "app.s", "text"),
        (&["flatten(attributes, depth=1)"], "m.n", r#"{"deep":1}"#),
        (
            &[
                r#"set(attributes, {"a": {"s": {"n": "first"}, "h": "1"}, "a.s": {"n": ["second", "third"]}, "a.s.n": "fourth", "o": ["u1", "u2"]})"#,
                "flatten(attributes, resolveConflicts=true)",
                "set(attributes[\"all\"], Sort(Keys(attributes)))",
            ],
            "all",
            r#"["a.h","a.s.n","a.s.n.0","a.s.n.1","a.s.n.2","o","o.0"]"#,
        ),
        (&["stringify_all(attributes)"], "i", "7"),
        (
            &[
                "stringify_all(attributes)",
                r#"set(attributes["x"], IsString(attributes["l"]))"#,
            ],
            "x",
            "true",
        ),
        (&["truncate_all(attributes, 2)"], "s", "te"),
        (
            &[r#"truncate_all(attributes, 3, truncation_marker="..")"#],
            "s",
            "t..",
        ),
        (
            &[
                r#"set(attributes["x"], "é€")"#,
                "truncate_all(attributes, 4, true)",
            ],
            "x",
            "é",
        ),
        (&["truncate_all(attributes, 2)"], "i", "7"),
    ]);
}

#[test]
fn lists_grow_and_shrink() {
    attribute_after(&[
        (
            &[r#"append(attributes["l"], "z")"#],
            "l",
            r#"["x","y",3,"z"]"#,
        ),
        (
            &[r#"append(attributes["l"], values=["z", 4])"#],
            "l",
            r#"["x","y",3,"z",4]"#,
        ),
        (&[r#"append(attributes["new"], "z")"#], "new", r#"["z"]"#),
        (&[r#"append(attributes["s"], "z")"#], "s", r#"["text","z"]"#),
        (
            &[r#"append(attributes["l"], attributes["l"])"#],
            "l",
            r#"["x","y",3,"x","y",3]"#,
        ),
        (&[r#"delete_index(attributes["l"], 0)"#], "l", r#"["y",3]"#),
        (
            &[r#"delete_index(attributes["l"], Len(attributes["l"]) - 1)"#],
            "l",
            r#"["x","y"]"#,
        ),
        (&[r#"delete_index(attributes["l"], 0, 3)"#], "l", "[]"),
        (
            &[r#"delete_index(attributes["l"], 1, 1)"#],
            "l",
            r#"["x","y",3]"#,
        ),
    ]);
    for bad in [
        r#"delete_index(attributes["l"], 3)"#,
        r#"delete_index(attributes["s"], 0)"#,
        r#"delete_index(attributes["l"], -1)"#,
    ] {
        assert!(run(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn text_is_replaced() {
    attribute_after(&[
        (
            &[r#"replace_pattern(attributes["s"], "t(.)", "<$1>")"#],
            "s",
            "<e>xt",
        ),
        (
            &[r#"replace_pattern(attributes["s"], "t", "$$")"#],
            "s",
            "$ex$",
        ),
        (
            &[r#"replace_pattern(attributes["s"], "t", attributes["json"]) where false"#],
            "s",
            "text",
        ),
        (
            &[r#"replace_pattern(attributes["s"], "^te", "$0", SHA1, "k8s.%s.")"#],
            "s",
            "k8s.33e9505d12942e8259a3c96fb6f88ed325b95797.xt",
        ),
        (&[r#"replace_pattern(attributes["i"], "7", "8")"#], "i", "7"),
        (
            &[r#"replace_pattern(attributes["m"]["k"], "v", "w")"#],
            "m",
            r#"{"k":"w","n":{"deep":1}}"#,
        ),
        (
            &[r#"replace_match(attributes["s"], "t*t", "whole")"#],
            "s",
            "whole",
        ),
        (
            &[r#"replace_match(attributes["s"], "t?t", "whole")"#],
            "s",
            "text",
        ),
        (
            &[r#"replace_match(attributes["s"], "[s-u]{e,f}*", "$1")"#],
            "s",
            "$1",
        ),
        (
            &[r#"replace_match(attributes["s"], "t*", "x", ToUpperCase, "/%s/")"#],
            "s",
            "/X/",
        ),
        (
            &[r#"replace_all_patterns(attributes, "value", "x", "_")"#],
            "s",
            "te_t",
        ),
        (
            &[r#"replace_all_patterns(attributes, "key", "^(s|i)$", "k8s.$1")"#],
            "k8s.s",
            "text",
        ),
        (
            &[r#"replace_all_patterns(attributes, "key", "^(s|i)$", "k8s.$1")"#],
            "s",
            "-",
        ),
        (
            &[r#"replace_all_matches(attributes, "te*", "x")"#],
            "s",
            "x",
        ),
    ]);
    let b = run(&[r#"replace_pattern(body, "x=\\d+", "x=***")"#]).unwrap();
    assert_eq!(b.body(0), Some(ValueRef::Str(b"GET /a?x=*** 200")));
}

/// Guarantee: what statements make of hostile records is limited, and takes no time that grows with its square.
#[test]
fn what_is_made_of_records_is_limited() {
    let many: Vec<(String, Value)> = (0..200_000)
        .map(|i| (format!("k{i}"), Value::Int(i)))
        .collect();
    let many = Map::from_unique(many);
    let long = Value::from("x".repeat(1 << 20));
    let mut b = batch();
    for (key, value) in [("many", Value::Map(many)), ("long", long.clone())] {
        let cell = b.cell(&value);
        b.set_attribute(0, key, cell);
    }
    let leaves = (0..100)
        .map(|i| (format!("{i}"), Value::Int(i)))
        .collect::<Map>();
    let deep: Map = [("y".repeat(1 << 20), Value::Map(leaves))]
        .into_iter()
        .collect();
    let cell = b.cell(&Value::Map(deep));
    b.set_attribute(0, "deep", cell);
    let dollars = b.cell(&Value::from("$0".repeat(100)));
    b.set_attribute(0, "dollars", dollars);
    let mut scene = LogScene::new(&mut b);
    for (text, part) in [
        (
            r#"merge_maps(attributes, attributes["many"], "upsert")"#,
            "too many different keys",
        ),
        (r#"set(attributes, attributes["many"])"#, "too many of them"),
        (r#"flatten(attributes["deep"])"#, "keys become too long"),
        (
            r#"replace_pattern(attributes["long"], ".+", attributes["dollars"])"#,
            "may be too long",
        ),
        (
            r#"set(attributes["x"], Split(attributes["long"], ""))"#,
            "too many parts",
        ),
        (
            r#"merge_maps(attributes["many"], attributes["many"], "update")"#,
            "",
        ),
        (r#"set(attributes["i"], Len(attributes["many"]))"#, ""),
    ] {
        let statement = Statement::compile(text, LOG).unwrap();
        match statement.run(&mut scene, 0) {
            Ok(_) => assert_eq!(part, "", "{text}"),
            Err(fault) => assert!(
                !part.is_empty() && fault.to_string().contains(part),
                "{text}: {fault}"
            ),
        }
    }
    assert_eq!(b.attribute(0, "i"), Some(ValueRef::Int(200_000)));
    assert!(b.attributes.len() <= 1024);
}
