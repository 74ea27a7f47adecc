use super::*;

const JSON: &str = r#""type":"json_parser""#;

#[test]
fn on_error_decides_what_becomes_of_a_record() {
    for (on_error, kept, quiet) in [
        ("send", 2, false),
        ("send_quiet", 2, true),
        ("drop", 1, false),
        ("drop_quiet", 1, true),
    ] {
        let operators = format!(
            r#"[{{{JSON},"on_error":"{on_error}"}},{{"type":"add","field":"attributes.after","value":1}}]"#
        );
        let (out, cx) = run(&mut chain(&operators), &[text("bad"), text("{}")]);
        assert_eq!(out.len(), kept, "{on_error}");
        assert!(
            out.iter().all(|e| e.attributes.get("after").is_some()),
            "goes on to the next"
        );
        let error = &cx.report.errors[0];
        assert_eq!((error.records, error.quiet), (1, quiet));
        assert_eq!(cx.report.dropped, 2 - kept as u64);
    }
}

#[test]
fn a_condition_that_fails_is_an_error_of_the_operator() {
    let operators = r#"[{"type":"add","field":"attributes.k","value":1,
        "if":"attributes.mdc[\"x\"] != nil","on_error":"drop"}]"#;
    let mdc = Entry {
        attributes: map(&[("mdc", Value::Map(map(&[("x", Value::Int(1))])))]),
        ..Entry::default()
    };
    let (out, cx) = run(&mut chain(operators), &[text("no mdc"), mdc]);
    assert_eq!((out.len(), cx.report.dropped), (1, 1));
    assert_eq!(out[0].attributes.get("k"), Some(&Value::Int(1)));
    assert!(
        cx.report.errors[0]
            .first
            .to_string()
            .contains("cannot look up \"x\" in nil")
    );
}

#[test]
fn several_outputs_each_get_a_copy() {
    let operators = r#"[
        {"type":"noop","output":["left","right"]},
        {"type":"add","id":"left","field":"attributes.way","value":"left","output":"end"},
        {"type":"add","id":"right","field":"attributes.way","value":"right"},
        {"type":"noop","id":"end"}]"#;
    let (out, _) = run(&mut chain(operators), &[text("a"), text("b")]);
    let got: Vec<(Value, Option<&Value>)> = out
        .iter()
        .map(|e| (e.body.clone(), e.attributes.get("way")))
        .collect();
    let (left, right) = ("left".into(), "right".into());
    let want = [
        ("a".into(), Some(&left)),
        ("b".into(), Some(&left)),
        ("a".into(), Some(&right)),
        ("b".into(), Some(&right)),
    ];
    assert_eq!(got, want);
}

#[test]
fn numbers_of_equal_types_leave_ids_alone_that_were_given() {
    // The second `add` is `add2`, since `add1` is taken; so the first leads to the last.
    let operators = r#"[
        {"type":"add","field":"attributes.a","value":1,"output":"add1"},
        {"type":"add","field":"attributes.b","value":1},
        {"type":"add","id":"add1","field":"attributes.c","value":1}]"#;
    let (out, _) = run(&mut chain(operators), &[text("x")]);
    assert_eq!(
        out[0].attributes,
        map(&[("a", Value::Int(1)), ("c", Value::Int(1))])
    );
    for operators in [
        r#"[{"type":"noop","id":"x"},{"type":"noop","id":"x"}]"#,
        r#"[{"type":"noop","id":"add"},{"type":"add","field":"attributes.a","value":1}]"#,
    ] {
        let message = refused(operators);
        assert!(message.contains("another operator has the id"), "{message}");
    }
}

#[test]
fn an_output_can_jump_over_operators_and_equal_types_get_numbers() {
    let operators = r#"[
        {"type":"add","field":"attributes.a","value":1,"output":"add2"},
        {"type":"add","field":"attributes.b","value":1},
        {"type":"add","field":"attributes.c","value":1}]"#;
    let (out, _) = run(&mut chain(operators), &[text("x")]);
    assert_eq!(
        out[0].attributes,
        map(&[("a", Value::Int(1)), ("c", Value::Int(1))])
    );
    let mut empty = chain("[]");
    assert!(empty.is_empty());
    assert_eq!(run(&mut empty, &[text("x")]).0, [text("x")]);
}

/// As the collector takes no notice of them, a configuration with such options is valid.
#[test]
fn options_that_there_are_not_are_warned_of() {
    for (operators, want) in [
        (
            r#"[{"type":"noop","outptu":"a"}]"#,
            "operators::0::outptu: unknown option \"outptu\": the collector ignores it, too; did you mean \"output\"?",
        ),
        (
            r#"[{"type":"router","if":"true","default":"a"},{"type":"noop","id":"a"}]"#,
            "operators::0::if: unknown option",
        ),
        (
            r#"[{"type":"json_parser","severity":{"parse_from":"attributes.s","preserve_to":"body"}}]"#,
            "operators::0::severity::preserve_to: unknown option",
        ),
    ] {
        let said = warned(operators);
        assert!(said.len() == 1 && said[0].contains(want), "{said:?}");
    }
}

#[test]
fn what_cannot_be_built_is_refused_with_its_place() {
    for (operators, want) in [
        (
            r#"[{"type":"json_parsr"}]"#,
            "test:1:10: operators::0::type: unknown operator",
        ),
        (
            r#"[{"type":"json_parsr"}]"#,
            "did you mean \"json_parser\"?",
        ),
        (r#"[{"type":"recombin"}]"#, "did you mean \"recombine\"?"),
        (r#"[{"type":"stdout"}]"#, "cannot be used in a receiver"),
        (r#"[{"id":"x"}]"#, "operators::0::type: is required"),
        (r#"["x"]"#, "allowed: a map"),
        (
            r#"[{"type":"noop","output":"nop"}]"#,
            "there is no operator with the id \"nop\"",
        ),
        (
            r#"[{"type":"noop","output":"noop"}]"#,
            "leads back to itself",
        ),
        (
            r#"[{"type":"noop","id":"a","output":"b"},{"type":"noop","id":"b","output":"a"}]"#,
            "leads back",
        ),
        (
            r#"[{"type":"json_parser","on_error":"dorp"}]"#,
            "did you mean \"drop\"?",
        ),
        (
            r#"[{"type":"json_parser","if":"1 +"}]"#,
            "operators::0::if: expression, at character 4",
        ),
        (r#"[{"type":"json_parser","if":"1"}]"#, "has to be bool"),
        (
            r#"[{"type":"json_parser","parse_from":"attributes"}]"#,
            "as a whole",
        ),
        (
            r#"[{"type":"json_parser","parse_ints":"x"}]"#,
            "allowed: true, false",
        ),
        (
            r#"[{"type":"json_parser","scope_name":{"parse_from":1}}]"#,
            "operators::0::scope_name::parse_from",
        ),
        (
            r#"[{"type":"regex_parser","regex":"(?P<a>"}]"#,
            "operators::0::regex",
        ),
        (
            r#"[{"type":"regex_parser"}]"#,
            "operators::0::regex: is required",
        ),
        (
            r#"[{"type":"time_parser","parse_from":"body"}]"#,
            "operators::0::layout: is required",
        ),
        (
            r#"[{"type":"time_parser","layout":"%Y"}]"#,
            "operators::0::parse_from: is required",
        ),
        (
            r#"[{"type":"time_parser","parse_from":"body","layout":"%Q"}]"#,
            "no strptime directive",
        ),
        (
            r#"[{"type":"time_parser","parse_from":"body","layout":"%Y","location":"Mars"}]"#,
            "no time zone",
        ),
        (
            r#"[{"type":"severity_parser"}]"#,
            "operators::0::parse_from: is required",
        ),
        (
            r#"[{"type":"severity_parser","parse_from":"body","mapping":{"info":{"min":1}}}]"#,
            "a range has integers",
        ),
        (
            r#"[{"type":"container","format":"podman"}]"#,
            "docker, crio, containerd",
        ),
        (
            r#"[{"type":"container","max_log_size":"1 mile"}]"#,
            "a number of bytes",
        ),
        (
            r#"[{"type":"add","field":"attributes.a"}]"#,
            "value is required",
        ),
        (
            r#"[{"type":"add","field":"attributes.a","value":"EXPR(1 +)"}]"#,
            "operators::0::value",
        ),
        (r#"[{"type":"filter"}]"#, "operators::0::expr: is required"),
        (
            r#"[{"type":"filter","expr":"true","drop_ratio":2}]"#,
            "operators::0::drop_ratio: found 2",
        ),
        (
            r#"[{"type":"move","from":"body"}]"#,
            "operators::0::to: is required",
        ),
    ] {
        let e = refused(operators);
        assert!(e.contains(want), "{operators}:\n{e}");
    }
    let two = refused(r#"[{"type":"nope"},{"type":"copy"}]"#);
    assert_eq!(two.lines().count(), 3, "all at once: {two}");
}

/// Guarantee: what the collector ignores is said and stops nothing.
#[test]
fn what_the_collector_ignores_is_a_warning() {
    for (operators, want) in [
        (
            r#"[{"type":"severity_parser","parse_from":"body","mapping":{"nope":"x"}}]"#,
            "operators::0::mapping::nope: is not a severity",
        ),
        (
            r#"[{"type":"severity_parser","parse_from":"body","preset":"http"}]"#,
            "operators::0::preset: there is no preset \"http\"",
        ),
        (
            r#"[{"type":"container","parse_to":"body"}]"#,
            "operators::0::parse_to: has no effect",
        ),
    ] {
        let warnings = warned(operators);
        assert!(
            warnings.len() == 1 && warnings[0].contains(want),
            "{operators}: {warnings:?}"
        );
    }
    assert!(warned(r#"[{"type":"noop"}]"#).is_empty());
}

/// Guarantee: a condition about what is not there does not hold, and is no error.
#[test]
fn nil_is_false() {
    for condition in ["attributes.nope", "nope", "attributes.nope?.x", "nil"] {
        let operators = format!(
            r#"[{{"type":"add","if":"{condition}","field":"attributes.a","value":1}},{{"type":"filter","expr":"{condition}"}}]"#
        );
        let mut chain = chain(&operators);
        let (mut batch, mut cx) = (lines(0, "", &["x"]), cx(1, 1, 0));
        chain.process(&mut batch, &mut cx);
        assert!(
            cx.report.errors.is_empty(),
            "{condition}: {:?}",
            cx.report.errors
        );
        let entries = batch.to_entries();
        assert_eq!(entries.len(), 1, "{condition}");
        assert_eq!(entries[0].attributes.len(), 0, "{condition}");
    }
}

/// Guarantee: what abbreviations of zones stand for can be said.
#[test]
fn abbreviations_of_zones_are_looked_up_where_the_configuration_says() {
    let mut chain = chain(
        r#"[{"type":"time_parser","parse_from":"body","layout":"%Y-%m-%d %H:%M:%S %Z","location":"UTC",
            "time_zone_locations":{"IST":"Asia/Kolkata","CST":"America/Chicago"}}]"#,
    );
    let texts = [
        "2021-02-03 04:05:06 IST",
        "2021-02-03 04:05:06 CST",
        "2021-02-03 04:05:06 UTC",
    ];
    let (mut batch, mut cx) = (lines(0, "", &texts), cx(1, 1, 0));
    chain.process(&mut batch, &mut cx);
    let times: Vec<i64> = batch
        .to_entries()
        .iter()
        .map(|e| e.time / 1_000_000_000)
        .collect();
    // 2021-02-02T22:35:06Z, 10:05:06Z, 04:05:06Z.
    assert_eq!(times, [1_612_305_306, 1_612_346_706, 1_612_325_106]);
    for (options, want) in [
        (
            r#""layout":"%Y","time_zone_locations":{"X":"UTC"}"#,
            "needs a layout with",
        ),
        (
            r#""layout":"%Z","time_zone_locations":{"X":"Nope/X"}"#,
            "there is no time zone",
        ),
        (
            r#""layout":"%Z","time_zone_locations":{"X":1}"#,
            "has to be the name",
        ),
    ] {
        let operators = format!(r#"[{{"type":"time_parser","parse_from":"body",{options}}}]"#);
        assert!(refused(&operators).contains(want), "{operators}");
    }
}
