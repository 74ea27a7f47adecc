//! One table per kind of property.

use std::sync::Arc;

use tailwater_pdata::{Cell, Entry, Map, Scope};

use super::*;

fn strict(text: &str) -> TextMatch {
    TextMatch::Strict(text.as_bytes().into())
}

fn regexp(text: &str) -> TextMatch {
    TextMatch::Regexp(Regex::new(text).unwrap())
}

fn attribute(key: &str, value: ValueMatch) -> AttributeMatch {
    AttributeMatch {
        key: key.into(),
        value,
    }
}

/// Four records: debug, INFO, ERROR, and one with a body that is not text.
fn batch() -> LogsBatch {
    let entry = |body: Value, severity: u8, text: &str, attributes: &[(&str, Value)]| Entry {
        body,
        severity,
        severity_text: text.into(),
        attributes: attributes.iter().map(|(k, v)| (*k, v.clone())).collect(),
        resource: Map::from_iter([("host", "h1")]),
        ..Entry::default()
    };
    let mut batch = LogsBatch::from_entries(&[
        entry(
            "AUTH ok".into(),
            5,
            "debug",
            &[("env", "dev".into()), ("n", Value::Int(123))],
        ),
        entry(
            "other".into(),
            9,
            "info",
            &[("env", "prod".into()), ("n", Value::Double(1.5))],
        ),
        entry("AUTH failed".into(), 17, "", &[("n", Value::Bool(true))]),
        entry(
            Value::Int(1),
            0,
            "x",
            &[("env", Value::Null), ("n", Value::List(vec![]))],
        ),
    ]);
    batch.scope = Arc::new(Scope {
        name: "lib".into(),
        version: "1.2".into(),
        ..Scope::default()
    });
    batch
}

fn selected(selection: &Selection, batch: &LogsBatch) -> Vec<usize> {
    let mut flags = vec![true; 99];
    match selection.select(batch, &mut flags) {
        Selected::All => (0..batch.rows()).collect(),
        Selected::None => Vec::new(),
        Selected::Marked => (0..batch.rows()).filter(|row| flags[*row]).collect(),
    }
}

fn included(m: LogMatch) -> Vec<usize> {
    selected(
        &Selection {
            include: Some(m),
            exclude: None,
        },
        &batch(),
    )
}

#[test]
fn each_kind_of_property_selects_its_records() {
    let bodies = |b: Vec<TextMatch>| LogMatch {
        bodies: b,
        ..LogMatch::default()
    };
    assert_eq!(included(bodies(vec![regexp("^AUTH")])), [0, 2]);
    assert_eq!(
        included(bodies(vec![strict("other"), strict("AUTH ok")])),
        [0, 1]
    );
    assert_eq!(
        included(bodies(vec![strict("1")])),
        [0; 0],
        "only text bodies match"
    );

    let texts = |t: Vec<TextMatch>| LogMatch {
        severity_texts: t,
        ..LogMatch::default()
    };
    assert_eq!(included(texts(vec![regexp("debug.*")])), [0]);
    assert_eq!(
        included(texts(vec![strict("")])),
        [2],
        "an absent text is an empty one"
    );

    let number = |min, match_undefined| LogMatch {
        severity: Some(SeverityMatch {
            min,
            match_undefined,
        }),
        ..LogMatch::default()
    };
    assert_eq!(included(number(9, false)), [1, 2]);
    assert_eq!(included(number(17, true)), [2, 3]);

    let attributes = |a: Vec<AttributeMatch>| LogMatch {
        attributes: a,
        ..LogMatch::default()
    };
    let number = |text| ValueMatch::Regexp(Regex::new(text).unwrap());
    for (conditions, want) in [
        (vec![attribute("env", ValueMatch::Any)], vec![0, 1, 3]),
        (
            vec![attribute("env", ValueMatch::Equal("dev".into()))],
            vec![0],
        ),
        (
            vec![attribute("n", ValueMatch::Equal(Value::Int(123)))],
            vec![0],
        ),
        (
            vec![attribute("n", ValueMatch::Equal("123".into()))],
            vec![],
        ),
        (vec![attribute("n", number("^1"))], vec![0, 1]),
        (vec![attribute("n", number("^true$"))], vec![2]),
        (vec![attribute("n", number(""))], vec![0, 1, 2]),
        (
            vec![
                attribute("env", ValueMatch::Any),
                attribute("n", number("5$")),
            ],
            vec![1],
        ),
    ] {
        assert_eq!(
            included(attributes(conditions.clone())),
            want,
            "{conditions:?}"
        );
    }
}

#[test]
fn numbers_of_any_length_are_matched_as_text() {
    let regexp = |text| ValueMatch::Regexp(Regex::new(text).unwrap());
    for (value, pattern) in [
        (Value::Int(i64::MIN), "^-9223372036854775808$"),
        (Value::Double(f64::MIN), "^-17976931348623157[0-9]{292}$"),
        (Value::Double(f64::from_bits(1)), "^0\\.0{323}5$"),
        (Value::Double(f64::NAN), "^NaN$"),
    ] {
        assert!(regexp(pattern).matches(value.as_ref()), "{value:?}");
        assert!(!regexp("^x").matches(value.as_ref()));
    }
}

#[test]
fn resources_and_libraries_decide_for_the_whole_batch() {
    let resources = |value| LogMatch {
        resources: vec![attribute("host", value)],
        ..LogMatch::default()
    };
    assert_eq!(included(resources(ValueMatch::Equal("h1".into()))).len(), 4);
    assert_eq!(included(resources(ValueMatch::Equal("h2".into()))).len(), 0);
    let library = |name, version| LogMatch {
        libraries: vec![LibraryMatch { name, version }],
        ..LogMatch::default()
    };
    assert_eq!(included(library(strict("lib"), None)).len(), 4);
    assert_eq!(
        included(library(regexp("^l"), Some(regexp("^1\\.")))).len(),
        4
    );
    assert_eq!(included(library(strict("lib"), Some(strict("")))).len(), 0);
}

#[test]
fn rows_with_a_resource_of_their_own_are_told_apart() {
    let mut batch = batch();
    let cell = batch.cell(&Value::str("h2"));
    batch.set_resource_attribute(1, "host", cell);
    batch.set_resource_attribute(3, "host", Cell::Absent);
    let m = LogMatch {
        resources: vec![attribute("host", ValueMatch::Equal("h1".into()))],
        ..LogMatch::default()
    };
    let include = Selection {
        include: Some(m.clone()),
        exclude: None,
    };
    assert_eq!(selected(&include, &batch), [0, 2]);
    let exclude = Selection {
        include: None,
        exclude: Some(m),
    };
    assert_eq!(selected(&exclude, &batch), [1, 3]);
}

#[test]
fn all_kinds_must_match_and_exclude_comes_second() {
    let include = LogMatch {
        bodies: vec![regexp("AUTH")],
        attributes: vec![attribute("n", ValueMatch::Any)],
        resources: vec![attribute("host", ValueMatch::Any)],
        ..LogMatch::default()
    };
    let exclude = LogMatch {
        severity: Some(SeverityMatch {
            min: 17,
            match_undefined: false,
        }),
        ..LogMatch::default()
    };
    assert_eq!(included(include.clone()), [0, 2]);
    let both = Selection {
        include: Some(include),
        exclude: Some(exclude.clone()),
    };
    assert_eq!(selected(&both, &batch()), [0]);
    let only_exclude = Selection {
        include: None,
        exclude: Some(exclude),
    };
    assert_eq!(selected(&only_exclude, &batch()), [0, 1, 3]);
    assert_eq!(selected(&Selection::default(), &batch()), [0, 1, 2, 3]);
    assert_eq!(selected(&only_exclude, &LogsBatch::default()), [0; 0]);
}
