use super::*;

#[test]
fn comparisons_follow_the_languages_table() {
    for (text, want) in [
        (r#"attributes["s"] == "text""#, true),
        (r#"attributes["s"] != "text""#, false),
        (r#"attributes["s"] < "texu""#, true),
        (r#"attributes["i"] == 7"#, true),
        (r#"attributes["i"] == 7.0"#, true),
        (r#"attributes["d"] > 1"#, true),
        (r#"attributes["t"] == true"#, true),
        (r#"attributes["t"] > false"#, true),
        (r#"attributes["b"] == 0x01ab"#, true),
        (r#"attributes["l"] == ["x", "y", 3]"#, true),
        (r#"attributes["l"] != ["x"]"#, true),
        (r#"attributes["m"] == {"n": {"deep": 1}, "k": "v"}"#, true),
        // Kinds that do not go together are not equal, and nothing else.
        (r#"attributes["i"] == "7""#, false),
        (r#"attributes["i"] != "7""#, true),
        (r#"attributes["i"] < "8""#, false),
        (r#"attributes["i"] >= "7""#, false),
        // Nil equals nil alone.
        (r#"attributes["none"] == nil"#, true),
        (r#"attributes["none"] != nil"#, false),
        (r#"attributes["none"] <= nil"#, true),
        (r#"attributes["none"] < nil"#, false),
        (r#"attributes["s"] != nil"#, true),
        (r#"attributes["none"]["deeper"] == nil"#, true),
        ("attributes != nil", true),
        ("nil == resource.attributes", false),
        ("cache != nil", true),
        ("severity_number >= SEVERITY_NUMBER_INFO", true),
        ("severity_number == SEVERITY_NUMBER_INFO2", false),
        (r#"severity_text == """#, true),
        (
            r#"trace_id == TraceID("00000000000000000000000000000000")"#,
            true,
        ),
        (r#"span_id.string == "0000000000000000""#, true),
        (r#"resource.attributes["service.name"] == "shop""#, true),
        (r#"log.attributes["m"]["n"]["deep"] == 1"#, true),
        (
            r#"scope.name == "lib" and instrumentation_scope.version == "1.2""#,
            true,
        ),
        (r#"attributes[attributes["none"]] == nil or true"#, true),
        (r#"attributes[Concat(["s", ""], "")] == "text""#, true),
        (r#"attributes["l"][attributes["i"] - 6] == "y""#, true),
        (r#"time_unix_nano == 1772370309250000000"#, true),
        ("time > observed_time", true),
        ("time - observed_time > Duration(\"1h\")", true),
    ] {
        let got = holds(text);
        if text.starts_with("attributes[attributes[\"none\"]]") {
            // What is no key is an error, which ends the condition.
            assert!(got.unwrap_err().contains("text or an integer"), "{text}");
            continue;
        }
        assert_eq!(got, Ok(want), "{text}");
    }
}

#[test]
fn words_and_parentheses_bind_as_the_language_says() {
    for (text, want) in [
        ("true", true),
        ("not true", false),
        ("not not true", true),
        ("not false and false", false),
        ("not (false and false)", true),
        ("true or false and false", true),
        ("(true or false) and false", false),
        ("1 + 2 * 3 == 7", true),
        ("7 / 2.0 == 3.5", true),
        (r#"attributes["i"] + 1.5 == 8.5"#, true),
        ("1. == 1.0", true),
        (r#"{"a": 1,} == {"a": 1}"#, true),
        ("(1 + 2) * 3 == 9", true),
        ("((1 + 2)) == 3 and (true)", true),
        ("10 / 4 == 2", true),
        ("10.0 / 4.0 == 2.5", true),
        ("-(1 + 1) == -2", true),
        ("3 - 1 - 1 == 1", true),
        ("3-1 == 2", true),
        (r#"(attributes["i"] + 1) / 2 == 4"#, true),
        ("not IsMatch(body, \"^POST\")", true),
        (
            r#"IsMatch(body, "^GET") and (attributes["i"] == 1 or attributes["i"] == 7)"#,
            true,
        ),
        (
            r#"ParseJSON(attributes["json"])["b"]["c"][0] == true"#,
            true,
        ),
    ] {
        assert_eq!(holds(text), Ok(want), "{text}");
    }
}

#[test]
fn what_cannot_be_told_is_an_error() {
    for (text, part) in [
        (r#"body["key"] == 1"#, "text has no key of text"),
        (r#"attributes["l"][9] == 1"#, "no such position"),
        (r#"attributes["s"] + 1 == 2"#, "text where numbers"),
        (
            r#"attributes["i"] / (attributes["i"] - 7) == 2"#,
            "division by zero",
        ),
        (
            r#"HasPrefix(attributes["i"], "x")"#,
            "HasPrefix: an integer where text is needed",
        ),
        (
            r#"HasPrefix(attributes["none"], "x")"#,
            "HasPrefix: nil where text is needed",
        ),
        (r#"Bool(attributes["none"])"#, "nil is no condition"),
    ] {
        let error = holds(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
