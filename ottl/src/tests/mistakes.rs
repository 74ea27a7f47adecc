use super::*;

/// Guarantee: a mistake is told with its column, what is allowed and what was probably meant, before any
/// record is seen.
#[test]
fn mistakes_of_statements_are_told() {
    for (text, want) in [
        (
            r#"set(atributes["a"], 1)"#,
            r#"column 5: log has no path "atributes""#,
        ),
        (r#"set(atributes["a"], 1)"#, r#"did you mean "attributes"?"#),
        (r#"set(attributes["a"], bdoy)"#, r#"did you mean "body"?"#),
        (
            r#"set(resource.attribute["a"], 1)"#,
            r#"column 5: resource has no path "attribute"; allowed: attributes, dropped"#,
        ),
        (
            r#"set(resorce.attributes["a"], 1)"#,
            r#"did you mean "resource" at its beginning?"#,
        ),
        (
            r#"set(span.name, "x")"#,
            "span cannot be reached from log; allowed: resource, scope, log",
        ),
        (r#"set(resource.cache["a"], 1)"#, "write log.cache"),
        (
            r#"sett(attributes["a"], 1)"#,
            r#"column 1: there is no editor "sett"; allowed: append"#,
        ),
        (r#"sett(attributes["a"], 1)"#, r#"did you mean "set"?"#),
        (
            r#"set(attributes["a"], Concatt(["a"], ""))"#,
            r#"column 22: there is no converter "Concatt"; did you mean "Concat"?"#,
        ),
        (
            r#"set(attributes["a"], isMatch(body, ""))"#,
            "converters, which begin with a capital",
        ),
        (
            r#"set(attributes["a"], UserAgent(body))"#,
            "the converter UserAgent is not built",
        ),
        (
            r#"set(attributes["a"], Int())"#,
            "Int needs the argument target",
        ),
        (
            r#"set(attributes["a"], Int(1, 2))"#,
            "Int takes at most 1 arguments: target",
        ),
        ("flatten(attributes, depth=0)", "the depth of flatten"),
        (r#"set(attributes["a"], Now(1))"#, "Now takes no arguments"),
        (
            r#"set(attributes["a"], Split(body, delimeter=","))"#,
            r#"did you mean "delimiter"?"#,
        ),
        (
            r#"set(attributes["a"], Split(target=body, target=body, delimiter=""))"#,
            "given twice",
        ),
        (
            r#"set(attributes["a"], Split(target=body, ","))"#,
            "without a name stands behind",
        ),
        (
            r#"set(attributes["a"], IsMatch(body, "("))"#,
            "a regular expression",
        ),
        (
            r#"set(attributes["a"], IsMatch(body, attributes["p"]))"#,
            "a string, written as such",
        ),
        (
            r#"set(attributes["a"], ExtractPatterns(body, "x"))"#,
            "at least one named group",
        ),
        (
            r#"set(attributes["a"], Len(ToUpperCase(1)))"#,
            "has to be text, not an integer",
        ),
        (
            r#"set(attributes["a"], Time("x", "%Q"))"#,
            r#"no strptime directive "%Q""#,
        ),
        (
            r#"set(attributes["a"], FormatTime(time, "%Y")["x"])"#,
            "returns text, which has no keys",
        ),
        (
            r#"set(attributes["a"], UnixNano(Time("x", "%Y", "Nowhere")))"#,
            r#"no time zone "Nowhere""#,
        ),
        (
            r#"set(attributes["a"], UnixNano(Time("x", "%Y", "", "it")))"#,
            "English",
        ),
        (
            r#"set(attributes["a"], ConvertCase(body, "uper"))"#,
            r#"did you mean "upper"?"#,
        ),
        (
            r#"set(attributes["a"], IsInCIDR(body, ["10.0.0.0/33"]))"#,
            "a list of networks",
        ),
        (
            r#"set(attributes["a"], 1 / 0)"#,
            "column 22: arithmetic: division by zero",
        ),
        (r#"set(attributes["a"], "x" + 1)"#, "text where numbers"),
        (
            r#"set(attributes["a"], body + true)"#,
            "arithmetic takes numbers",
        ),
        (
            r#"set(attributes["a"], Now())"#,
            "a time cannot be stored here; use FormatTime(...)",
        ),
        (
            r#"set(severity_number, ToUpperCase(body))"#,
            "the target is an integer, and cannot be set to text",
        ),
        (
            r#"set(attributes["a"], SEVERITY_NUMBER_INF)"#,
            r#"did you mean "SEVERITY_NUMBER_INFO"?"#,
        ),
        (r#"set(attributes["a"], SHA256)"#, "there is no enum"),
        (
            r#"set(severity_number, "INFO")"#,
            "the target is an integer, and cannot be set to text",
        ),
        (
            r#"set("a", 1)"#,
            "the argument target of set has to be a path",
        ),
        (
            r#"delete_key(severity_text, "a")"#,
            "a path to a map, not to text",
        ),
        (
            r#"set(severity_text["a"], 1)"#,
            "this path is text and has no keys",
        ),
        (r#"set(attributes[0], 1)"#, "the keys of a map are text"),
        (r#"set(attributes["a"].b, 1)"#, "keys stand at the end"),
        (
            r#"limit(attributes, 1, ["a", "b"])"#,
            "more priority_keys than the limit",
        ),
        (r#"limit(attributes, -1, [])"#, "below 0"),
        (
            r#"truncate_all(attributes, 1, truncation_marker="...")"#,
            "longer than the limit",
        ),
        (
            r#"merge_maps(attributes, {}, "merge")"#,
            "one of insert, update, upsert",
        ),
        (
            r#"merge_maps(attributes, "x", "insert")"#,
            "has to be a map, not text",
        ),
        (r#"append(attributes["a"])"#, "append needs value or values"),
        (
            r#"replace_pattern(body, "a", "b", Split)"#,
            "a converter that makes text",
        ),
        (
            r#"replace_pattern(body, "a", "b", SHA1, "%s%s")"#,
            "exactly one %s",
        ),
        (r#"replace_match(body, "[a", "b")"#, "a glob pattern"),
        (
            r#"IsMatch(body, "a")"#,
            r#"column 1: "IsMatch" is a converter; a statement begins with an editor"#,
        ),
        ("", "column 1: found the end, expected an editor"),
        ("set", r#"expected "(" behind the name"#),
        (
            r#"set(attributes["a"], 1"#,
            r#"column 23: found the end, expected "," or ")""#,
        ),
        (
            r#"set(attributes["a"], 1) when true"#,
            r#"column 25: found "when", expected where"#,
        ),
        (r#"set(attributes["a"], 1) where"#, "expected a value"),
        (
            r#"set(attributes["a"], 1) where body"#,
            "a path alone is no condition",
        ),
        (
            r#"set(attributes["a"], 1) where Len(body)"#,
            "an integer is no condition",
        ),
        (
            r#"set(attributes["a"], 1) where body = "x""#,
            r#"found "=""#,
        ),
        (
            r#"set(attributes["a"], 1) where true && true"#,
            "and, or and not are words",
        ),
        (r#"set(attributes['a'], 1)"#, "strings stand between"),
        (r#"set(attributes["a], 1)"#, "this string has no end"),
        (
            r#"set(attributes["a"], "\d")"#,
            r"so \d of a pattern is \\d",
        ),
        (
            r#"set(attributes["a"], 0x1)"#,
            "an even number of hexadecimal digits",
        ),
        (r#"set(attributes["a"], 12ab)"#, "a number ends in letters"),
        (
            r#"set(attributes["a"], 99999999999999999999)"#,
            "does not fit 64 bits",
        ),
        (
            r#"set(attributes["é"], "é" €)"#,
            "column 26: unexpected '€'",
        ),
    ] {
        let error = match Statement::compile(text, LOG) {
            Ok(_) => panic!("{text} is taken"),
            Err(error) => error.to_string(),
        };
        assert!(
            error.contains(want),
            "{text}\n  said {error}\n  want {want}"
        );
    }
}

#[test]
fn where_contexts_are_told_by_paths_each_path_has_one() {
    let options = Options {
        context: Context::Log,
        prefixed: true,
        encoded: false,
    };
    let error = Statement::compile(r#"set(log.attributes["a"], body)"#, options).unwrap_err();
    let want = r#"column 26: the path "body" does not begin with a context; write log.body"#;
    assert!(error.to_string().contains(want), "{error}");
    assert!(Statement::compile(r#"set(log.attributes["a"], log.body)"#, options).is_ok());
    let found = crate::contexts_of(
        r#"set(resource.attributes["a"], Concat([log.body], "")) where scope.name == "x""#,
    );
    let all = [Context::Resource, Context::Scope, Context::Log];
    assert_eq!(found.unwrap(), all.into_iter().collect());
    let found = crate::contexts_of_condition("IsRootSpan()").unwrap();
    assert_eq!(found, [Context::Span].into_iter().collect());
}

/// Guarantee: what is long or deep is refused, and does not take the stack or the time.
#[test]
fn length_and_nesting_are_limited() {
    let deep = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert!(Condition::compile(&deep(30), LOG).is_ok());
    assert!(
        Condition::compile(&deep(20_000), LOG)
            .unwrap_err()
            .to_string()
            .contains("levels deep")
    );
    for text in [
        "not ".repeat(10_000) + "true",
        format!("1 == {}", "-(".repeat(10_000)),
        format!("1 == {}", "[".repeat(10_000)),
        format!("1 == {}", "{\"a\":".repeat(10_000)),
        format!("1 == {}", "Int(".repeat(10_000)),
        format!("1 == a{}", "[a".repeat(10_000)),
        format!("1 == a{}", "[0]".repeat(10_000)),
        format!("1 == 1{}", " + 1".repeat(10_000)),
        format!("1 == 1{}", " * 1".repeat(10_000)),
        "(".repeat(60_000),
    ] {
        assert!(Condition::compile(&text, LOG).is_err(), "{}", &text[..30]);
    }
    let wide = vec!["true"; 7_000].join(" and ");
    assert_eq!(holds(&wide), Ok(true));
    assert!(
        holds(&" ".repeat(crate::STATEMENT_BYTES_MAX + 1))
            .unwrap_err()
            .contains("longer than")
    );
}
