//! What `${}` and `$$` give. The cases on types restate facts of the collector's
//! confmap/internal/e2e tests.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tailwater_config::{
    Errors, KeyPath, MemoryEnvironment, Node, NodeValue, Section, parse, substitute,
};

fn env(variables: &[(&str, &str)]) -> MemoryEnvironment {
    variables
        .iter()
        .fold(MemoryEnvironment::new(), |env, (name, value)| {
            env.with_variable(*name, *value)
        })
}

fn expand(text: &str, env: &MemoryEnvironment) -> (Node, Errors) {
    substitute(parse(text, "t.yaml").unwrap(), env)
}

fn value_of(text: &str, env: &MemoryEnvironment) -> Node {
    let (root, errors) = expand(text, env);
    assert!(errors.is_empty(), "{text}: {errors}");
    root.get("field").unwrap().clone()
}

/// The option `field` as a string option reads it.
fn as_string(text: &str, env: &MemoryEnvironment) -> Result<Option<String>, Errors> {
    let (root, mut errors) = expand(text, env);
    let mut section = Section::new(&root, KeyPath::root(), &mut errors);
    let value = section.string_optional("field");
    section.finish();
    errors.into_result(value)
}

#[test]
fn a_whole_scalar_takes_the_type_of_its_text_and_a_string_option_takes_the_text() {
    let list = NodeValue::List;
    let cases = [
        ("123", NodeValue::Int(123)),
        ("0123", NodeValue::Int(83)),
        ("0xdeadbeef", NodeValue::Int(3_735_928_559)),
        ("true", NodeValue::Bool(true)),
        ("1.50", NodeValue::Float(1.5)),
        ("\"0123\"", NodeValue::Str("\"0123\"".into())),
        ("!!str 0123", NodeValue::Str("!!str 0123".into())),
        ("t", NodeValue::Str("t".into())),
        ("11:11:11::1", NodeValue::Str("11:11:11::1".into())),
        (
            "2006-01-02T15:04:05Z07:00",
            NodeValue::Str("2006-01-02T15:04:05Z07:00".into()),
        ),
        ("[\"a\",", NodeValue::Str("[\"a\",".into())),
        ("[]", list(vec![])),
        ("", NodeValue::Null),
    ];
    for (text, value) in cases {
        // Directly, and over a second variable.
        let direct = env(&[("ENV", text)]);
        let indirect = env(&[("ENV", "${env:ENV2}"), ("ENV2", text)]);
        for env in [direct, indirect] {
            assert_eq!(value_of("field: ${env:ENV}", &env).value, value, "{text}");
            assert_eq!(
                as_string("field: ${env:ENV}", &env).unwrap().as_deref(),
                Some(text)
            );
            let inline = as_string("field: inline ${env:ENV} text", &env).unwrap();
            assert_eq!(inline, Some(format!("inline {text} text")));
        }
    }
}

#[test]
fn a_list_from_a_variable_is_a_list_and_its_text_is_replaced_in_as_well() {
    let vars = |text| env(&[("ENV", text), ("VALUE", "x")]);
    for (text, is_list, expect) in [
        ("[a,b/c]", true, "[a,b/c]"),
        // A brace in a plain scalar in brackets is no YAML, so these are texts.
        ("[a,${env:VALUE}]", false, "[a,x]"),
        ("[a,${VALUE}]", false, "[a,x]"),
        ("[a,'${VALUE}']", true, "[a,'x']"),
        (
            "[\"a\",\"$${env:VALUE}\"]",
            true,
            "[\"a\",\"${env:VALUE}\"]",
        ),
        ("[\"a\",\"$$VALUE\"]", true, "[\"a\",\"$VALUE\"]"),
        ("[\"a\",\"$VALUE\"]", true, "[\"a\",\"$VALUE\"]"),
    ] {
        let node = value_of("field: ${env:ENV}", &vars(text));
        assert_eq!(node.as_list().is_some(), is_list, "{text}");
        assert_eq!(
            as_string("field: ${env:ENV}", &vars(text))
                .unwrap()
                .as_deref(),
            Some(expect)
        );
    }
    let text = "1111:1111:1111:1111:1111::";
    let vars = env(&[("ENV", text)]);
    assert_eq!(
        value_of("field: ${ENV}", &vars).type_name(),
        "a map",
        "to YAML it is one"
    );
    assert_eq!(
        as_string("field: ${ENV}", &vars).unwrap().as_deref(),
        Some(text)
    );
}

#[test]
fn maps_in_variables_are_replaced_in_at_every_depth() {
    let env = env(&[
        (
            "ENV",
            "{env: \"${env:ENV2}\", inline: \"inline ${env:ENV2}\"}",
        ),
        ("ENV2", "{env2: \"${env:ENV3}\"}"),
        ("ENV3", "{value: 123}"),
    ]);
    let (root, errors) = expand("field: ${env:ENV}", &env);
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(
        root.at("field::env::env2::value").unwrap().as_i64(),
        Some(123)
    );
    let inline = root.at("field::inline").unwrap().as_str();
    assert_eq!(inline, Some("inline {env2: \"{value: 123}\"}"));
}

#[test]
fn text_that_cannot_be_replaced_matters_only_to_a_string_option() {
    let env = env(&[("ENV", "true # comment with a ${env:hello.world} reference")]);
    assert_eq!(
        value_of("field: ${env:ENV}", &env).value,
        NodeValue::Bool(true)
    );
    let error = as_string("field: ${env:ENV}", &env)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("found true (a boolean), allowed: a string"),
        "{error}"
    );
    let error = as_string("field: inline ${env:ENV}", &env)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"hello.world\" has invalid name"),
        "{error}"
    );
}

#[test]
fn escapes_and_defaults_follow_the_collector() {
    let env = env(&[
        ("V", "value"),
        ("EMPTY", ""),
        ("MONEY", "a$$b"),
        ("NAME", "V"),
    ]);
    for (text, expect) in [
        ("'$$V'", "$V"),
        ("'$$$$V'", "$$V"),
        ("'$$$${V}'", "$${V}"),
        ("'$$$${V} and ${V}'", "$${V} and ${V}"),
        ("'$${V}'", "${V}"),
        ("'$$${V}'", "$value"),
        ("'$V'", "$V"),
        ("'$'", "$"),
        ("'text$$'", "text$"),
        ("'${V'", "${V"),
        ("'a}${V}'", "a}value"),
        ("'${env:${NAME}}'", "value"),
        ("'${V}-${V}'", "value-value"),
        ("${MONEY}", "a$b"),
        ("${env:UNSET:-def}", "def"),
        ("${env:UNSET:-}", ""),
        ("${env:UNSET:-a:-b}", "a:-b"),
        ("'x${env:UNSET:-}y'", "xy"),
        ("'x${EMPTY}y'", "xy"),
        ("'${env:EMPTY:-def}'", ""),
        ("'${yaml:text}'", "text"),
    ] {
        let got = as_string(&format!("field: {text}"), &env).unwrap();
        assert_eq!(got.as_deref(), Some(expect), "{text}");
    }
    assert_eq!(
        value_of("field: ${env:UNSET:-12}", &env).value,
        NodeValue::Int(12)
    );
    assert_eq!(
        value_of("field: '${yaml:{a: 1}}'", &env).type_name(),
        "a string"
    );
}

#[test]
fn an_unset_variable_is_null_and_one_warning() {
    let (root, errors) = expand("field: ${env:NONE}\nother: a ${NONE}\n", &env(&[]));
    assert!(errors.is_empty());
    assert!(root.get("field").unwrap().is_null());
    assert_eq!(root.get("other").unwrap().as_str(), Some("a "));
    let warnings: Vec<String> = errors.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "t.yaml:1:8: field: Configuration references unset environment variable \"NONE\"",
            "t.yaml:2:8: other: Configuration references unset environment variable \"NONE\"",
        ]
    );
    // A string option reads an empty text, other options keep their default.
    assert_eq!(
        as_string("field: ${env:NONE}", &env(&[]))
            .unwrap()
            .as_deref(),
        Some("")
    );
}

#[test]
fn keys_are_left_alone() {
    let (root, errors) = expand("${V}: ${V}\n$$x: 1", &env(&[("V", "v")]));
    assert!(errors.is_empty());
    assert_eq!(root.get("${V}").unwrap().as_str(), Some("v"));
    assert!(root.get("$$x").is_some());
}

#[test]
fn files_are_grafted_with_positions_in_the_file() {
    let env = env(&[("TOKEN", "t")])
        .with_file("part.yaml", "a: 1\nb: [x, '${TOKEN}']\n")
        .with_file("token", "secret\n")
        .with_file("bad", vec![b'a', b'\n', b'b', 0xff]);
    let (root, errors) = expand("field: ${file:part.yaml}\ntoken: ${file:token}", &env);
    assert!(errors.is_empty(), "{errors}");
    let b = root.at("field::b::1").unwrap();
    assert_eq!(
        (b.as_str(), b.span.to_string()),
        (Some("t"), "part.yaml:2:8".to_owned())
    );
    assert_eq!(
        root.get("token").unwrap().as_str(),
        Some("secret\n"),
        "as the collector reads it"
    );
    let (_, errors) = expand("a: ${file:none}\nb: x ${file:bad}", &env);
    let shown = errors.to_string();
    assert!(
        shown.contains("t.yaml:1:4: a: unable to read the file \"none\""),
        "{shown}"
    );
    assert!(
        shown.contains("t.yaml:2:4: b: bad:2:2: not UTF-8 text"),
        "{shown}"
    );
}

#[test]
fn every_placeholder_that_cannot_be_replaced_is_reported_at_its_position() {
    let text = "a: ${1x}\nb: [ok, '${https://h/c}']\nc: {d: 'x ${vault:s}'}\ne: '${A_B:-c}'";
    let (_, errors) = expand(text, &env(&[]));
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown[0].starts_with("t.yaml:1:4: a: environment variable \"1x\" has invalid name"));
    assert!(shown[1].starts_with("t.yaml:2:9: b::1: \"https://h/c\": reading configuration over"));
    assert!(shown[2].starts_with("t.yaml:3:8: c::d: scheme \"vault\" is not supported"));
    assert!(shown[3].contains("${env:A_B:-c}"), "{shown:?}");
}

/// Guarantee: a variable that refers to itself ends with one error, soon, in little memory.
#[test]
fn endless_and_exploding_references_are_one_error() {
    for value in [
        "${X}",
        "a${X}",
        "${X}${X}",
        "[\"${X}\"]",
        "[\"${X}\",\"${X}\"]",
        "{a: \"${X} ${X}\"}",
        "[1, 2] # ${X}${X}",
        "{a: [\"${X}\", \"${X}\"], b: \"x${X}\"}",
    ] {
        let (_, errors) = expand("field: ${X}\nother: ${X}", &env(&[("X", value)]));
        assert_eq!(errors.len(), 1, "{value}: {errors}");
        let shown = errors.to_string();
        let known = ["too many recursive", "brings in more than", "longer than"];
        assert!(known.iter().any(|k| shown.contains(k)), "{value}: {shown}");
    }
}

proptest! {
    /// Guarantee: a text whose every `$` is doubled comes out as itself, whatever it holds.
    #[test]
    fn doubled_dollars_come_out_as_written(text in "[$${}a:-]{0,24}|\\PC{0,24}") {
        let span = tailwater_config::Span::start_of("p");
        let node = Node::new(NodeValue::Str(text.replace('$', "$$")), span);
        let (node, errors) = substitute(node, &env(&[("a", "wrong")]));
        prop_assert!(errors.is_empty());
        prop_assert_eq!(node.as_str(), Some(text.as_str()));
    }

    /// Guarantee: no text makes substitution panic, and what it gives is a value or an error with
    /// a position.
    #[test]
    fn any_text_gives_a_value_or_an_error(
        text in "([$${}a:-]|env|yaml|file|\\[|\"){0,16}",
        a in "([$${}a:, -]|env|yaml|\\[|\"|\\]){0,16}",
    ) {
        let env = env(&[("a", &a)]);
        let span = tailwater_config::Span::start_of("p");
        let (_, errors) = substitute(Node::new(NodeValue::Str(text), span), &env);
        prop_assert!(errors.iter().all(|e| e.span.is_some()));
    }
}
