//! What of YAML is read, at which positions, and what is refused.

#![allow(clippy::unwrap_used)]

use tailwater_config::{Node, NodeValue, parse, parse_bytes};

fn read(text: &str) -> Node {
    parse(text, "t").unwrap_or_else(|errors| panic!("{text:?}: {errors}"))
}

fn refused(text: &str) -> String {
    match parse(text, "t") {
        Ok(node) => panic!("{text:?} was read as {node:?}"),
        Err(errors) => {
            assert!(errors.iter().all(|e| e.span.is_some()), "{errors}");
            errors.to_string()
        }
    }
}

#[test]
fn every_value_and_key_knows_its_line_and_column() {
    let node = read("a:\n  b: [1, two]\n  # comment\n  c: |\n    text\n");
    let at = |path: &str| node.at(path).unwrap().span.to_string();
    assert_eq!(at("a"), "t:2:3");
    assert_eq!(at("a::b"), "t:2:6");
    assert_eq!(at("a::b::1"), "t:2:10");
    assert_eq!(
        at("a::c"),
        "t:5:5",
        "a block of text is where its text begins"
    );
    assert_eq!(
        node.get("a")
            .unwrap()
            .entry("c")
            .unwrap()
            .0
            .span
            .to_string(),
        "t:4:3"
    );
    assert_eq!(node.at("a::c").unwrap().as_str(), Some("text\n"));
}

#[test]
fn byte_order_mark_carriage_returns_and_explicit_ends_are_fine() {
    for text in [
        "\u{feff}a: 1\nb: x\n",
        "a: 1\r\nb: x\r\n",
        "---\na: 1\nb: x\n...\n",
    ] {
        let node = read(text);
        assert_eq!(node.at("a").unwrap().as_i64(), Some(1), "{text:?}");
        assert_eq!(node.at("b").unwrap().as_str(), Some("x"), "{text:?}");
    }
    assert_eq!(
        read("\u{feff}a: 1").entry("a").unwrap().0.span.to_string(),
        "t:1:1"
    );
    let tabs = read("a:\t1 \t# tab\n\u{e9}:\t\tx\ty\nb: 'q:\tr'\nc:\t[1,\t2]\n");
    assert_eq!(tabs.at("a").unwrap().as_i64(), Some(1));
    assert_eq!(tabs.at("\u{e9}").unwrap().as_str(), Some("x\ty"));
    assert_eq!(tabs.at("\u{e9}").unwrap().span.to_string(), "t:2:5");
    assert_eq!(tabs.at("b").unwrap().as_str(), Some("q:\tr"));
    assert_eq!(tabs.at("c::1").unwrap().as_i64(), Some(2));
    for text in ["", "\n", "# only a comment\n", "---\n", "~"] {
        assert!(read(text).is_null(), "{text:?}");
    }
}

#[test]
fn quotes_and_core_tags_decide_the_type() {
    let node = read("a: '1'\nb: !!str 1\nc: !!int '2'\nd: !!float 3\ne: ! 1\nf: !!bool 'true'");
    let expect = [
        ("a", NodeValue::Str("1".into())),
        ("b", NodeValue::Str("1".into())),
        ("c", NodeValue::Int(2)),
        ("d", NodeValue::Float(3.0)),
        ("e", NodeValue::Str("1".into())),
        ("f", NodeValue::Bool(true)),
    ];
    for (key, value) in expect {
        assert_eq!(node.get(key).unwrap().value, value, "{key}");
    }
    for text in [
        "a: !mode=append [1]",
        "a: !!binary aGk=",
        "a: !x 1",
        "a: !!set {b: }",
    ] {
        assert!(refused(text).contains("is not supported here"), "{text}");
    }
    assert!(refused("a: !!int x").contains("\"x\" is no !!int"));
}

#[test]
fn anchors_aliases_and_merge_keys_are_resolved() {
    let node = read(
        "base: &b {x: 1, y: 2}\nother: &o {y: 8, z: 9}\n\
         one:\n  y: 3\n  <<: *b\ntwo:\n  <<: [*b, *o]\n  w: 0\nthree: *b\nquoted: {'<<': 1}\n\
         s: &s text\n*s : key\n",
    );
    let int = |path: &str| node.at(path).and_then(Node::as_i64);
    assert_eq!(
        (int("one::x"), int("one::y")),
        (Some(1), Some(3)),
        "own keys win"
    );
    assert_eq!(
        (int("two::y"), int("two::z"), int("two::w")),
        (Some(2), Some(9), Some(0))
    );
    assert_eq!(
        node.at("three::x").unwrap().span.to_string(),
        "t:1:14",
        "where it is written"
    );
    assert_eq!(int("quoted::<<"), Some(1));
    assert_eq!(node.get("text").unwrap().as_str(), Some("key"));
    assert!(refused("a: {<<: 1}").contains("a merge key takes a map"));
    assert!(refused("a: &a [*a]").contains("t:1:8: an alias inside of what it refers to"));
    assert!(refused("a: *none").contains("t:1:4: not valid YAML"));
}

#[test]
fn a_key_given_twice_names_both_positions_and_reading_goes_on() {
    let shown = refused("a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}\n");
    assert_eq!(
        shown,
        "t:3:1: key \"a\" is given twice, first at t:1:1\n\
         t:4:11: key \"d\" is given twice, first at t:4:5"
    );
}

#[test]
fn what_is_no_configuration_is_refused_with_its_position() {
    for (text, expect) in [
        ("a: 1\n---\nb: 2\n", "t:2:1: more than one YAML document"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: 1\n  b: 2\n", "t:2:4: not valid YAML"),
        ("a: \"x\n", "not valid YAML"),
        ("? [a]\n: 1\n", "t:1:3: a key must be a scalar"),
        ("a:\t- b\n", "t:1:4: not valid YAML"),
        ("a:\tb: c\n", "t:1:5: not valid YAML"),
        ("a:\n\t- b\n", "t:2:2: not valid YAML: tabs"),
    ] {
        let shown = refused(text);
        assert!(shown.contains(expect), "{text:?}: {shown}");
    }
    let shown = parse_bytes(b"a: 1\nb: \xc3\xa9\xff", "t")
        .unwrap_err()
        .to_string();
    assert_eq!(shown, "t:2:5: not UTF-8 text");
}

/// Guarantee: small texts that stand for huge trees, and deep ones, fail quickly.
#[test]
fn hostile_texts_are_refused() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for i in 1..12 {
        let alias = format!("*a{}", i - 1);
        laughs.push_str(&format!(
            "a{i}: &a{i} [{}]\n",
            [alias.as_str(); 9].join(", ")
        ));
    }
    assert!(refused(&laughs).contains("more than"));
    let big = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), "*a, ".repeat(40));
    assert!(refused(&big).contains("aliases add more than"));
    for deep in ["[", "{a: ", "- ", "? "] {
        let shown = refused(&deep.repeat(20_000));
        // In brackets the reader looks ahead and meets its own limit.
        let known = ["deeper than", "recursion limit"];
        assert!(known.iter().any(|k| shown.contains(k)), "{deep}: {shown}");
    }
    let mut chain = String::from("a0: &a0 [1]\n");
    for i in 1..200 {
        chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(refused(&chain).contains("deeper than"));
    assert!(refused(&"x".repeat((16 << 20) + 1)).contains("larger than"));
}
