//! Parsers of formats: key value pairs, CSV, URIs, JSON arrays and syslog.

use super::*;

/// The attributes a parser makes of one text, or its error.
fn attributes(operator: &str, text: &str) -> Result<Map, String> {
    let (mut out, cx) = run(&mut chain(&format!("[{operator}]")), &[super::text(text)]);
    match cx.report.errors.first() {
        Some(e) => {
            assert_eq!(out, [super::text(text)], "an error changes nothing");
            Err(e.first.to_string())
        }
        None => Ok(out.remove(0).attributes),
    }
}

fn texts(entries: &[(&str, &str)]) -> Map {
    entries.iter().map(|(k, v)| (*k, Value::str(v))).collect()
}

#[test]
fn key_value_pairs_are_read() {
    let plain = r#"{"type":"key_value_parser"}"#;
    let other = r#"{"type":"key_value_parser","delimiter":"==>","pair_delimiter":"||"}"#;
    for (operator, text, want) in [
        (
            plain,
            "name=stanza age=2",
            texts(&[("name", "stanza"), ("age", "2")]),
        ),
        (plain, "  a=1   b=2 ", texts(&[("a", "1"), ("b", "2")])),
        (
            plain,
            "name=\" stanza \" age=2",
            texts(&[("name", "stanza"), ("age", "2")]),
        ),
        (
            plain,
            "a='x y=z' b=\"it's\"",
            texts(&[("a", "x y=z"), ("b", "it's")]),
        ),
        (plain, "test=text=abc", texts(&[("test", "text=abc")])),
        (plain, "a=b\"c d\"e", texts(&[("a", "bc de")])),
        (plain, "\"a b\"=c", texts(&[("a b", "c")])),
        (
            plain,
            r#"a="x\"y z" b=1"#,
            texts(&[("a", r#"x\"y z"#), ("b", "1")]),
        ),
        (plain, "a= b=1 a=2", texts(&[("a", "2"), ("b", "1")])),
        (plain, "a=\u{a0}x\u{a0}", texts(&[("a", "x")])),
        (
            other,
            "a==>1||b==>x=y||",
            texts(&[("a", "1"), ("b", "x=y")]),
        ),
        (plain, "   ", Map::new()),
    ] {
        assert_eq!(attributes(operator, text), Ok(want), "{text}");
    }
    for (text, want) in [
        ("", "it is empty"),
        ("test text", "a piece without a delimiter at byte 0"),
        ("a=1 b", "a piece without a delimiter at byte 4"),
        ("a=\"b", "never closed at byte 2"),
    ] {
        let e = attributes(plain, text).expect_err(text);
        assert!(e.contains(want), "{text}: {e}");
    }
    let many = "k=1 ".repeat(5000);
    assert!(attributes(plain, &many).is_err_and(|e| e.contains("more than 4096 fields")));
}

/// Guarantees: a whole read goes into text columns without a copy, also where keys differ.
#[test]
fn pairs_stay_where_they_are_in_the_text() {
    let mut c = chain(r#"[{"type":"key_value_parser"}]"#);
    let mut batch = lines(0, "", &["a=1 b=\"x\"", "b=y a=2 c=3", "a=4"]);
    c.process(&mut batch, &mut cx(0, 0, 0));
    for key in ["a", "b", "c"] {
        assert!(
            matches!(batch.attributes.get(key), Some(Column::Slices(_))),
            "{key}"
        );
    }
    let all: Vec<Map> = batch
        .to_entries()
        .into_iter()
        .map(|e| e.attributes)
        .collect();
    let want = [
        texts(&[("a", "1"), ("b", "x")]),
        texts(&[("a", "2"), ("b", "y"), ("c", "3")]),
        texts(&[("a", "4")]),
    ];
    assert_eq!(all, want);
    assert_eq!(
        batch.text.heap_bytes(),
        batch.text.shared().len(),
        "nothing was copied"
    );
    let distinct: Vec<String> = (0..3000).map(|i| format!("k{i}=1")).collect();
    let distinct: Vec<&str> = distinct.iter().map(String::as_str).collect();
    let (mut batch, mut cx) = (lines(0, "", &distinct), cx(0, 0, 0));
    c.process(&mut batch, &mut cx);
    assert!(cx.report.more.len() >= 4, "columns are bounded");
}

#[test]
fn rows_of_values_get_the_names_of_a_header() {
    let fixed = r#"{"type":"csv_parser","header":"a,b,c"}"#;
    let tabs = r#"{"type":"csv_parser","header":"a;b","header_delimiter":";","delimiter":"\t"}"#;
    for (operator, text, want) in [
        (fixed, "1,2,3", texts(&[("a", "1"), ("b", "2"), ("c", "3")])),
        (
            fixed,
            "1,\"2,\"\"x\",3",
            texts(&[("a", "1"), ("b", "2,\"x"), ("c", "3")]),
        ),
        (
            fixed,
            "1,2\n2,3",
            texts(&[("a", "1"), ("b", "2\n2"), ("c", "3")]),
        ),
        (tabs, "1\t2", texts(&[("a", "1"), ("b", "2")])),
    ] {
        assert_eq!(attributes(operator, text), Ok(want), "{text}");
    }
    let e = attributes(fixed, "1,2").expect_err("too few");
    assert_eq!(e, "2 fields for 3 names");
    assert!(attributes(fixed, "1,x\"y,3").is_err());
    let dynamic = r#"[{"type":"csv_parser","header_attribute":"h","parse_to":"body"}]"#;
    let with = |header: Value, body: &str| Entry {
        attributes: map(&[("h", header)]),
        ..text(body)
    };
    let entries = [
        with("x,y".into(), "1,2"),
        with("z,x".into(), "3,4"),
        with(1.into(), "5,6"),
    ];
    let (out, cx) = run(&mut chain(dynamic), &entries);
    assert_eq!(out[0].body, Value::Map(texts(&[("x", "1"), ("y", "2")])));
    assert_eq!(out[1].body, Value::Map(texts(&[("z", "3"), ("x", "4")])));
    assert_eq!((&out[2], cx.report.errors[0].records), (&entries[2], 1));
    for (operators, want) in [
        (
            r#"[{"type":"csv_parser"}]"#,
            "one of header and header_attribute",
        ),
        (
            r#"[{"type":"csv_parser","header":"a"}]"#,
            "has no delimiter",
        ),
        (
            r#"[{"type":"csv_parser","header":"a,b","header_attribute":"h"}]"#,
            "one of header",
        ),
        (
            r#"[{"type":"csv_parser","header":"a,b","delimiter":",,"}]"#,
            "one character",
        ),
        (
            r#"[{"type":"csv_parser","header":"a,b","lazy_quotes":true,"ignore_quotes":true}]"#,
            "only one of",
        ),
    ] {
        let e = refused(operators);
        assert!(e.contains(want), "{operators}:\n{e}");
    }
}

#[test]
fn uris_become_their_parts() {
    let operator = r#"{"type":"uri_parser"}"#;
    let list = |values: &[&str]| Value::List(values.iter().map(|v| (*v).into()).collect());
    let mut want = texts(&[
        ("scheme", "https"),
        ("user", "me"),
        ("host", "x.org"),
        ("port", "443"),
        ("path", "/p"),
    ]);
    want.insert("query", Value::Map(map(&[("a", list(&["1", "2"]))])));
    let got = attributes(operator, "HTTPS://me:pw@x.org:443/p?a=1&a=2");
    assert_eq!(got, Ok(want));
    let query = map(&[("query", Value::Map(map(&[("q", list(&["x y"]))])))]);
    assert_eq!(attributes(operator, "?q=x+y"), Ok(query));
    for text in ["", "x.org/p", "http://a b/", "?a=%zz"] {
        assert!(attributes(operator, text).is_err(), "{text}");
    }
}

#[test]
fn json_arrays_become_lists_or_maps() {
    let text = r#"["a\tb", 42, 1.5, true, null, {"x" : [1, "] }"]}]"#;
    let list = |operator: &str| {
        let (out, cx) = run(&mut chain(operator), &[super::text(text)]);
        assert!(cx.report.errors.is_empty(), "{:?}", cx.report.errors);
        out[0].clone()
    };
    let values = [
        "a\tb".into(),
        Value::Int(42),
        Value::Double(1.5),
        true.into(),
        Value::Null,
        r#"{"x":[1,"] }"]}"#.into(),
    ];
    let body = list(r#"[{"type":"json_array_parser","parse_to":"body"}]"#).body;
    assert_eq!(body, Value::List(values.to_vec()));
    let named = list(r#"[{"type":"json_array_parser","header":"a,b,c,d,e,f"}]"#);
    let want: Map = ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .zip(values)
        .collect();
    assert_eq!(named.attributes, want);
    let bodies = r#"{"type":"json_array_parser","parse_to":"attributes.x"}"#;
    for text in [
        "",
        "{}",
        "[1",
        "[1,]",
        "[1] x",
        "[[1]]",
        "[\"\\q\"]",
        "[\"a]",
        "[{]",
        "[+1]",
        "[tru]",
    ] {
        assert!(attributes(bodies, text).is_err(), "{text}");
    }
    let newline = "[\"a\nb\"]";
    let got = attributes(bodies, newline).expect("line ends are text");
    assert_eq!(got.get("x"), Some(&Value::List(vec!["a\nb".into()])));
    assert!(
        attributes(r#"{"type":"json_array_parser"}"#, "[1]").is_err_and(|e| e.contains("a map"))
    );
    let two = r#"{"type":"json_array_parser","header":"a,b"}"#;
    assert_eq!(
        attributes(two, "[1]"),
        Err("1 fields for 2 names".to_owned())
    );
}

#[test]
fn syslog_sets_time_and_severity() {
    let operators =
        r#"[{"type":"syslog_parser","protocol":"RFC3164","location":"America/Detroit"}]"#;
    let mut batch = lines(0, "", &["<34>Mar 10 01:02:03 h app[7]: text"]);
    let mut c = OperatorCx {
        // 2026-03-10T12:00:00Z
        now_ns: 1_773_144_000_000_000_000,
        ..cx(0, 0, 0)
    };
    chain(operators).process(&mut batch, &mut c);
    assert!(c.report.errors.is_empty(), "{:?}", c.report.errors);
    let e = batch.entry(0);
    // Four hours behind UTC since two days.
    assert_eq!(e.time, 1_773_118_923_000_000_000);
    assert_eq!((e.severity, e.severity_text.as_str()), (18, "crit"));
    let mut want = texts(&[
        ("facility_text", "auth"),
        ("hostname", "h"),
        ("appname", "app"),
        ("proc_id", "7"),
        ("message", "text"),
    ]);
    want.insert("priority", 34);
    want.insert("facility", 4);
    assert_eq!(e.attributes, want);
    let counted = r#"{"type":"syslog_parser","protocol":"rfc5424","enable_octet_counting":true}"#;
    let got = attributes(counted, "20 <86>1 - h - - - - ab").map(|m| m.get("message").cloned());
    assert_eq!(got, Ok(Some("ab".into())));
    for text in [
        "21 <86>1 - h - - - - ab",
        "19 <86>1 - h - - - - ab",
        "<86>1 - h - - - - ab",
    ] {
        assert!(attributes(counted, text).is_err(), "{text}");
    }
    let older = r#"{"type":"syslog_parser","protocol":"rfc3164","enable_octet_counting":true}"#;
    let got =
        attributes(older, "29 <34>Oct 11 22:14:15 h app: ab").map(|m| m.get("message").cloned());
    assert_eq!(got, Ok(Some("ab".into())));
    assert!(attributes(older, "<34>Oct 11 22:14:15 h app: ab").is_err());
    let trailer =
        r#"{"type":"syslog_parser","protocol":"rfc5424","non_transparent_framing_trailer":"NUL"}"#;
    let got = attributes(trailer, "<86>1 - h - - - - ab\0").map(|m| m.get("message").cloned());
    assert_eq!(got, Ok(Some("ab".into())));
    let none = r#"{"type":"syslog_parser","protocol":"none"}"#;
    let got = attributes(none, "<34>any thing").expect("anything");
    assert_eq!(got.get("priority"), Some(&Value::Int(34)));
    assert_eq!(got.get("message"), Some(&"<34>any thing".into()));
    for (operators, want) in [
        (r#"[{"type":"syslog_parser"}]"#, "protocol is required"),
        (
            r#"[{"type":"syslog_parser","protocol":"rfc3165"}]"#,
            "rfc3164",
        ),
        (
            r#"[{"type":"syslog_parser","protocol":"rfc3164","location":"Mars"}]"#,
            "no time zone",
        ),
        (
            r#"[{"type":"syslog_parser","protocol":"none","non_transparent_framing_trailer":"LF"}]"#,
            "rfc5424 only",
        ),
        (
            r#"[{"type":"syslog_parser","protocol":"rfc5424","non_transparent_framing_trailer":"CR"}]"#,
            "LF",
        ),
    ] {
        let e = refused(operators);
        assert!(e.contains(want), "{operators}:\n{e}");
    }
}
