use super::*;
use proptest::prelude::*;

/// The object as a map, duplicates resolved as the operator does: the last wins.
fn map(text: &[u8], parse_ints: bool) -> Result<Map, JsonError> {
    walk_after(text, parse_ints, &mut Shape::default())
}

/// The same for a document after one of the shape given.
fn walk_after(text: &[u8], parse_ints: bool, shape: &mut Shape) -> Result<Map, JsonError> {
    let mut fields = Vec::new();
    walk(text, parse_ints, shape, &mut fields)?;
    let value = |raw: &Raw| match raw {
        Raw::Null => Value::Null,
        Raw::Bool(b) => Value::Bool(*b),
        Raw::Int(i) => Value::Int(*i),
        Raw::Double(d) => Value::Double(*d),
        Raw::Str(r) => Value::from(decoded(*r, text)),
        Raw::Nested(v) => v.clone(),
    };
    Ok(fields
        .iter()
        .map(|f| (decoded(f.key, text), value(&f.value)))
        .collect())
}

fn reference(v: &serde_json::Value) -> Value {
    match v {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => Value::Double(n.as_f64().expect("finite")),
        serde_json::Value::String(s) => Value::str(s),
        serde_json::Value::Array(a) => Value::List(a.iter().map(reference).collect()),
        serde_json::Value::Object(o) => {
            Value::Map(o.iter().map(|(k, v)| (k.as_str(), reference(v))).collect())
        }
    }
}

#[test]
fn numbers_are_doubles_or_integers_as_asked() {
    let text = br#"{"a":1,"b":-0,"c":1.5e3,"d":9007199254740993,"e":99999999999999999999}"#;
    let doubles = map(text, false).expect("valid");
    assert_eq!(doubles.get("a"), Some(&Value::Double(1.0)));
    assert_eq!(
        doubles.get("d"),
        Some(&Value::Double(9_007_199_254_740_992.0))
    );
    let ints = map(text, true).expect("valid");
    assert_eq!(ints.get("a"), Some(&Value::Int(1)));
    assert_eq!(ints.get("c"), Some(&Value::Double(1500.0)));
    assert_eq!(ints.get("d"), Some(&Value::Int(9_007_199_254_740_993)));
    assert_eq!(ints.get("e"), Some(&Value::Double(1e20)));
}

#[test]
fn the_last_of_several_equal_keys_wins_at_every_level() {
    let m = map(br#"{"a":1,"n":{"k":1,"k":2},"a":true}"#, true).expect("valid");
    assert_eq!(m.get("a"), Some(&Value::Bool(true)));
    let many: String = (0..200).map(|i| format!("\"k{}\":{i},", i % 100)).collect();
    let text = format!("{{\"n\":{{{}\"z\":0}}}}", many);
    let Some(Value::Map(n)) = map(text.as_bytes(), true).expect("valid").remove("n") else {
        panic!("a map");
    };
    assert_eq!((n.len(), n.get("k7")), (101, Some(&Value::Int(107))));
}

#[test]
fn escapes_become_the_characters_they_stand_for() {
    let m = map(
        br#"{"a\u0062":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83dx"}"#,
        false,
    );
    let want = "\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1F600}\u{FFFD}x";
    assert_eq!(m.expect("valid").get("ab"), Some(&Value::str(want)));
}

#[test]
fn what_is_not_one_object_is_refused() {
    for text in [
        "",
        " ",
        "x",
        "[]",
        "1",
        "{",
        "{}x",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":+1}",
        "{\"a\":\"x}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":tru}",
        "{\"a\":[1,]}",
        "{\"a\":{\"b\":1,}}",
        "{a:1}",
        "{\"a\" 1}",
        "{\"a\":1e999}",
        "{\"a\":\"\\",
        "{\"a\":1 \"b\":2}",
    ] {
        assert!(map(text.as_bytes(), false).is_err(), "{text}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        map(deep.as_bytes(), false).expect_err("deep").what,
        "nested too deeply"
    );
}

/// Guarantee: what the collector reads is read, be it JSON or not.
#[test]
fn what_the_collectors_reader_takes_is_taken() {
    for (text, want) in [
        ("{\"a\":\"x\ty\nz\"}", Value::str("x\ty\nz")),
        ("{\"a\":01}", Value::Double(1.0)),
        ("{\"a\":-007.5}", Value::Double(-7.5)),
        ("{\"a\":1.}", Value::Double(1.0)),
        ("{\"a\":1.e2}", Value::Double(100.0)),
    ] {
        let got = map(text.as_bytes(), false).expect(text);
        assert_eq!(got.get("a"), Some(&want), "{text}");
    }
    assert_eq!(map(b" null ", false).expect("no fields").len(), 0);
    assert!(map(b"nullx", false).is_err());
    for text in ["{\"a\":1} x", "{\"a\":1}}", "{\"a\":1}\n{\"a\":2}"] {
        assert!(map(text.as_bytes(), false).is_err(), "{text}");
        let first = map(text.as_bytes(), true).expect(text);
        assert_eq!(first.get("a"), Some(&Value::Int(1)), "{text}");
    }
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        (-1e6f64..1e6).prop_map(serde_json::Value::from),
        "\\PC{0,12}|[a-z\\\\\"\n\t\u{1}/]{0,20}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-c\\\\\"\u{e9}]{0,3}", inner, 0..4)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Every object serde_json writes is read as what it was.
    #[test]
    fn agrees_with_serde_json(
        fields in prop::collection::btree_map("\\PC{0,6}", document(), 0..8),
        pretty in any::<bool>(),
    ) {
        let object = serde_json::Value::Object(fields.into_iter().collect());
        let text = match pretty {
            true => serde_json::to_string_pretty(&object),
            false => serde_json::to_string(&object),
        }.expect("valid here");
        let got = map(text.as_bytes(), false);
        let got = got.map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
        prop_assert_eq!(Value::Map(got), reference(&object), "{}", text);
    }

    /// What was walked before changes nothing.
    #[test]
    fn documents_one_after_another_are_read_as_each_alone(
        documents in prop::collection::vec(
            (prop::collection::vec(("[ab\\\\\"]{0,2}", any::<i32>()), 0..4), 0..5u8), 1..12),
    ) {
        let mut shape = Shape::default();
        for (fields, form) in documents {
            let colon = [":", ":", ": ", " :", ":,"][usize::from(form)];
            let field = |(k, v): &(String, i32)| {
                format!("{}{colon}{v}", serde_json::Value::from(k.as_str()))
            };
            let fields: Vec<_> = fields.iter().map(field).collect();
            let text = format!("{{{}}}", fields.join(if form == 2 { ", " } else { "," }));
            let (got, want) = (
                walk_after(text.as_bytes(), true, &mut shape),
                map(text.as_bytes(), true),
            );
            prop_assert_eq!(got, want, "{}", text);
        }
    }

    /// What serde_json refuses we refuse, but for half surrogate pairs and what the collector takes; nothing
    /// panics.
    #[test]
    fn damaged_documents_are_refused_as_by_serde_json(
        fields in prop::collection::btree_map("[a-c]{0,3}", document(), 0..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let object = serde_json::Value::Object(fields.into_iter().collect());
        let mut text = serde_json::to_vec(&object).expect("valid here");
        let at = at.index(text.len());
        text[at] = byte;
        let theirs = serde_json::from_slice::<serde_json::Value>(&text);
        let taken = match &theirs {
            Ok(v) => v.is_object(),
            Err(e) => {
                let e = e.to_string();
                // Whatever else is wrong behind it may be or not.
                let lenient = e.contains("control character") || e.contains("invalid number");
                prop_assume!(!lenient);
                false
            }
        };
        if std::str::from_utf8(&text).is_ok() {
            prop_assert_eq!(map(&text, false).is_ok(), taken, "{:?}", text);
        }
    }
}
