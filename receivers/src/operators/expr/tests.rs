use super::*;
use proptest::prelude::*;
use tailwater_config::MemoryEnvironment;
use tailwater_pdata::{Entry, LogsBatch, Map, Value};

fn batch() -> LogsBatch {
    let nested: Map = [("two.stilltwo", "value")].into_iter().collect();
    let entry = Entry {
        body: "WARN: disk 93% full".into(),
        severity: 13,
        severity_text: "warn".into(),
        time: 1_000_000_000,
        attributes: [
            ("n", Value::Int(7)),
            ("f", Value::Double(2.5)),
            ("s", Value::str("text")),
            ("list", Value::List(vec![1i64.into(), "b".into()])),
            ("one", Value::Map(nested)),
            ("null", Value::Null),
        ]
        .into_iter()
        .collect(),
        resource: [("k8s.pod.name", "pod-1")].into_iter().collect(),
        ..Entry::default()
    };
    LogsBatch::from_entries(&[entry])
}

fn env() -> MemoryEnvironment {
    MemoryEnvironment::new().with_variable("NODE", "node-1")
}

fn eval(text: &str) -> Result<Value, String> {
    let e = Expr::compile(text, &env()).map_err(|e| format!("compile: {e}"))?;
    let batch = batch();
    let record = Record {
        batch: &batch,
        row: 0,
    };
    e.eval(record)
        .map(|v| v.to_value(record))
        .map_err(|e| e.to_string())
}

#[test]
fn conditions_hold_as_in_expr_lang() {
    for (text, want) in [
        (r#"body matches "^WARN:""#, true),
        (r#"body not matches "^WARN:""#, false),
        (r#"$ matches '\\d+%'"#, true),
        (
            r#"body matches "disk 9" and not (body matches "^disk") and body matches "^""#,
            true,
        ),
        (r#"(body matches "x") == false"#, true),
        (r#"body matches "^" + "WARN""#, true),
        (
            r#"body contains "disk" && body startsWith "WARN" and body endsWith "full""#,
            true,
        ),
        (
            r#"attributes.n == 7 and attributes.n == 7.0 and attributes.n != 8"#,
            true,
        ),
        (
            "attributes.n > 6 && attributes.f < 3 && attributes.n >= 7 && attributes.n <= 7",
            true,
        ),
        (r#"attributes["s"] == "text""#, true),
        (r#"attributes.one["two.stilltwo"] == "value""#, true),
        (r#"resource["k8s.pod.name"] == 'pod-1'"#, true),
        (r#"resource["k8s." + "pod.name"] == 'pod-1'"#, true),
        ("attributes.missing == nil", true),
        ("attributes.null == nil", true),
        ("nothing_of_that_name == nil", true),
        ("attributes.missing?.deeper.still == nil", true),
        ("attributes.missing?.message != nil", false),
        (
            r#"attributes.missing matches "x" or attributes.missing contains "x""#,
            false,
        ),
        (
            r#""n" in attributes && not ("m" in attributes) && "m" not in attributes"#,
            true,
        ),
        (r#"attributes.n in [1, 7, 9]"#, true),
        ("attributes.n in 5..7 and attributes.n not in 8..9", true),
        ("7.0 in 1 + 4..10 and 7.5 not in 5..10", true),
        ("attributes.missing in 1..9 or attributes.s in 1..9", false),
        (r#""b" in attributes.list and 1 in attributes.list"#, true),
        (r#"severity_number >= 13 and severity_text == "warn""#, true),
        ("timestamp == timestamp", true),
        ("!(1 == 2) || false", true),
        ("not false and true", true),
        (
            "attributes.list[0] == 1 and attributes.list[-1] == 'b'",
            true,
        ),
        (r#"(attributes.missing ?? "d") == "d" ? true : false"#, true),
        ("false ?: true", true),
        (r#"env("NODE") == "node-1" and env("UNSET") == """#, true),
        ("{a: 1, 'b': 2}.b == 2", true),
        ("[1, 2] == [1, 2]", true),
        (
            "1 + 2 * 3 == 7 and 2 ** 3 ** 2 == 512 and -2 + 3 == 1",
            true,
        ),
        ("7 / 2 == 3.5 and 7 % 4 == 3", true),
        (r#"body matches `^WARN: \w+` // raw string"#, true),
        ("/* a */ true", true),
        ("0x10 == 16 and 1_000 == 1e3", true),
    ] {
        assert_eq!(eval(text), Ok(Value::Bool(want)), "{text}");
    }
}

#[test]
fn functions_give_what_their_names_say() {
    for (text, want) in [
        (r#"upper(attributes.s) + lower("AB")"#, Value::str("TEXTab")),
        (r#"trim("  x ") + trim("--y-", "-")"#, Value::str("xy")),
        (r#"split("a,b", ",")[1]"#, Value::str("b")),
        (r#"join(["a", "b"], "-")"#, Value::str("a-b")),
        (r#"len("h\u00e9")"#, Value::Int(2)),
        ("len(attributes.list)", Value::Int(2)),
        ("len(attributes)", Value::Int(6)),
        (r#"int("12") + int(3.9)"#, Value::Int(15)),
        (r#"float("1.5")"#, Value::Double(1.5)),
        (
            "string(attributes.n) + string(1.5) + string(nil)",
            Value::str("71.5<nil>"),
        ),
        ("type(attributes.f)", Value::str("float")),
        ("type(attributes)", Value::str("map")),
        (r#""  A " | trim() | lower()"#, Value::str("a")),
        (
            r#"trimPrefix("v1", "v") + trimSuffix("a.log", ".log")"#,
            Value::str("1a"),
        ),
        (r#"replace("a-b", "-", "+")"#, Value::str("a+b")),
        (r#"indexOf("abc", "c")"#, Value::Int(2)),
        ("abs(-3)", Value::Int(3)),
        ("first(attributes.list)", Value::Int(1)),
        ("body", Value::str("WARN: disk 93% full")),
        ("true ? 1 : 2", Value::Int(1)),
        ("-attributes.n", Value::Int(-7)),
    ] {
        assert_eq!(eval(text), Ok(want), "{text}");
    }
}

#[test]
fn what_can_never_work_is_refused_when_compiling() {
    for (text, want) in [
        ("", "at character 1: expected a value, found the end"),
        ("1 +", "found the end"),
        ("body ==", "found the end"),
        ("(true", "expected )"),
        ("true true", "expected the end of the expression"),
        (r#"body matches "(""#, "at character 14"),
        (r#"1 + "a""#, "+ does not take int and string"),
        ("not 1", "not takes bool, not int"),
        ("1 and true", "and takes bool"),
        (r#"matchs(body, "x")"#, "there is no function \"matchs\""),
        ("len()", "len takes 1 arguments, not 0"),
        ("any(attributes.list, {# > 1})", "expected a key"),
        ("1..3", "a range can only be used behind `in`"),
        ("let x = 1; x", "not supported"),
        (r#""open"#, "never closed"),
        (r#""\q""#, "unknown escape"),
        ("env(body)", "known beforehand"),
        ("a ~ b", "unexpected '~'"),
        ("9999999999999999999", "is not a number"),
        ("severity_text.x", "string has no member"),
        (
            "!body contains 'x'",
            "contains does not take bool and string",
        ),
    ] {
        let e = Expr::compile(text, &env())
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(e.contains(want), "{text}: {e}");
    }
    let e = Expr::compile_condition("1 + 1", &env())
        .map(|_| ())
        .expect_err("no condition");
    assert!(e.to_string().contains("has to be bool"));
}

#[test]
fn what_this_record_cannot_do_is_an_error_with_its_place() {
    for (text, want) in [
        (
            "attributes.missing.deeper == 1",
            "at character 19: cannot look up \"deeper\" in nil",
        ),
        ("attributes.s > 1", "> does not take string and int"),
        (
            "attributes.n matches 'x'",
            "matches does not take int and string",
        ),
        ("attributes.list[5]", "no index 5"),
        ("attributes.n and true", "and does not take int"),
        (
            "body matches attributes.s + '('",
            "not a regular expression",
        ),
        ("attributes.n % 0", "division by zero"),
        ("upper(attributes.n)", "upper does not take int"),
        ("attributes.missing < 1", "< does not take nil and int"),
    ] {
        let e = eval(text).expect_err(text);
        assert!(e.contains(want), "{text}: {e}");
    }
}

#[test]
fn templates_replace_every_expression() {
    let batch = batch();
    let record = Record {
        batch: &batch,
        row: 0,
    };
    for (text, want) in [
        ("plain", Ok("plain")),
        (
            r#"EXPR("kube:container:"+resource["k8s.pod.name"])"#,
            Ok("kube:container:pod-1"),
        ),
        (
            r#"a-EXPR(attributes.s)-EXPR(upper("(b)"))."#,
            Ok("a-text-(B)."),
        ),
        ("EXPR(env('NODE'))", Ok("node-1")),
        ("x EXPR(attributes.n)", Err("the result is int")),
    ] {
        let mut out = b"|".to_vec();
        let result = Template::compile(text, &env())
            .expect(text)
            .render(record, &mut out);
        match want {
            Ok(want) => assert_eq!(String::from_utf8_lossy(&out), format!("|{want}")),
            Err(want) => {
                assert!(result.expect_err(text).to_string().contains(want));
                assert_eq!(out, b"|");
            }
        }
    }
    for bad in ["EXPR(1", "a EXPR()", "EXPR(1 +)"] {
        assert!(Template::compile(bad, &env()).is_err(), "{bad}");
    }
    let whole = Template::compile("EXPR(1)", &env()).expect("compiles");
    assert!(whole.as_expr().is_some() && !whole.is_plain());
}

#[test]
fn functions_of_lists_and_encodings_are_those_of_expr_lang() {
    let list = |items: &[&str]| Value::List(items.iter().map(|s| (*s).into()).collect());
    for (text, want) in [
        (r#"split("a,b,c", ",", 2)"#, list(&["a", "b,c"])),
        (r#"split("ab", "")"#, list(&["a", "b"])),
        (r#"split("a,b", ",", 0)"#, list(&[])),
        (r#"splitAfter("a,b", ",")"#, list(&["a,", "b"])),
        (r#"lastIndexOf("a.b.c", ".")"#, Value::Int(3)),
        (r#"repeat("ab", 2)"#, "abab".into()),
        ("max(1, 2.5, [7, 3])", Value::Int(7)),
        ("min([3, 1])", Value::Int(1)),
        ("max([])", Value::Null),
        ("sum([1, 2])", Value::Int(3)),
        ("sum([1, 0.5])", Value::Double(1.5)),
        (r#"get({"a": 1}, "a")"#, Value::Int(1)),
        ("get([1, 2], -1)", Value::Int(2)),
        ("get([1], 5) == nil", true.into()),
        (r#"take(["a", "b"], 1)"#, list(&["a"])),
        (r#""abcd"[1:3]"#, "bc".into()),
        (r#""abcd"[:2] + "abcd"[2:]"#, "abcd".into()),
        (r#""abcd"[-2:]"#, "cd".into()),
        (r#""abcd"[3:1] + "abcd"[:99]"#, "abcd".into()),
        (r#"["a", "b", "c"][1:]"#, list(&["b", "c"])),
        (r#"reverse(["a", "b"])"#, list(&["b", "a"])),
        (r#"uniq(["a", "a", "b"])"#, list(&["a", "b"])),
        (r#"concat(["a"], ["b"])"#, list(&["a", "b"])),
        (r#"values({"a": "x"})"#, list(&["x"])),
        (
            r#"toJSON({"a": [1]})"#,
            "{\n  \"a\": [\n    1\n  ]\n}".into(),
        ),
        (r#"fromJSON('{"a": 1}').a"#, Value::Double(1.0)),
        (r#"toBase64("abc")"#, "YWJj".into()),
        (r#"fromBase64("YWJj")"#, "abc".into()),
        ("$body == nil and $ != nil", true.into()),
    ] {
        assert_eq!(eval(text), Ok(want), "{text}");
    }
    for text in [
        r#"repeat(attributes.s, 100000000)"#,
        r#"repeat("a", attributes.n - 100)"#,
        r#"fromJSON(attributes.s)"#,
        r#"fromBase64(attributes.s + "!")"#,
        r#"sum([attributes.s])"#,
        r#"attributes.n[1:2]"#,
        r#""abc"["a":]"#,
    ] {
        assert!(eval(text).is_err(), "{text}");
    }
}

#[test]
fn text_that_a_record_makes_grow_without_bound_is_refused() {
    let body = "ab".repeat(4 << 10);
    let batch = LogsBatch::from_entries(&[Entry {
        body: body.as_str().into(),
        ..Entry::default()
    }]);
    let record = Record {
        batch: &batch,
        row: 0,
    };
    let eval = |text: &str| {
        let e = Expr::compile(text, &env()).expect(text);
        let length = |v: Val<'_>| v.to_value(record);
        e.eval(record).map(length).map_err(|e| e.to_string())
    };
    for (text, name) in [
        (r#"len(replace(body, "", body))"#, "replace"),
        (r#"len(replace(body, "a", body))"#, "replace"),
        (r#"len(join(split(body, "a"), body))"#, "join"),
    ] {
        let error = eval(text).expect_err(text);
        let want = format!("{name} would make more than 16777216 bytes");
        assert!(error.contains(&want), "{error}");
    }
    for (text, length) in [
        (r#"len(replace(body, "a", "xyz"))"#, 4 << 12),
        (r#"len(replace(body, "ab", ""))"#, 0),
        (r#"len(join(split(body, "a"), "12"))"#, 3 << 12),
    ] {
        assert_eq!(eval(text), Ok(Value::Int(length)), "{text}");
    }
}

/// Guarantee: checking takes time in proportion to the text; it was doubled by each sign.
#[test]
fn many_signs_are_checked_once_each() {
    let text = format!("{}1 == 1", "-".repeat(60));
    assert_eq!(eval(&text), Ok(Value::Bool(true)));
}

#[test]
fn deep_nesting_is_refused_not_overflowed() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("not ", ""),
        ("-", ""),
        ("a?1:", "1"),
    ] {
        let text = format!("{}1{}", open.repeat(5000), close.repeat(5000));
        assert!(Expr::compile(&text, &env()).is_err(), "{open}");
    }
    let dots = format!("a{}", ".b".repeat(5000));
    assert!(Expr::compile(&dots, &env()).is_err());
    let sums = format!("1{}", " + attributes.n".repeat(5000));
    assert!(Expr::compile(&sums, &env()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No text makes the compiler or the evaluation panic.
    #[test]
    fn any_text_compiles_or_is_refused(text in "\\PC{0,40}") {
        let _ = eval(&text);
    }

    /// The same for texts built of the language's own words.
    #[test]
    fn any_words_compile_or_are_refused(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "body", "$", "attributes", "resource", ".", "?.", "n", "list", "[", "]", "(", ")",
            "not", "and", "||", "==", "!=", "<", "in", "matches", "contains", "\"a\"", "'('",
            "1", "2.5", "nil", "true", "?", ":", "??", "+", "-", "*", "/", "%", "**", "len",
            "upper", "split", ",", "{", "}", "|", "env", "int", "type", "0", "^",
        ]), 0..14)) {
        let _ = eval(&words.join(" "));
    }
}
