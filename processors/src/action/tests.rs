//! The columns are compared with a model: the same actions on each record's attributes as a map.

use proptest::prelude::*;
use tailwater_pdata::{Column, Entry};

use super::*;

fn pattern(text: &str) -> Option<Regex> {
    Some(Regex::new(text).unwrap())
}

fn put(key: &str, put: Put, origin: Origin, default: Option<Value>) -> Action {
    Action::Put {
        key: key.into(),
        put,
        source: Source { origin, default },
    }
}

fn value_strategy() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3i64..30).prop_map(Value::Int),
        (-2i32..3).prop_map(|d| Value::Double(f64::from(d) / 2.0)),
        "[a1.]{0,4}".prop_map(Value::from),
        "(ab|cd)=[0-9]{1,3}".prop_map(Value::from),
        Just(Value::List(vec![Value::Int(1), Value::str("x")])),
    ]
}

const KEYS: [&str; 4] = ["a", "b", "c.x", "g"];

fn key_strategy() -> impl Strategy<Value = Key> {
    prop::sample::select(&KEYS[..]).prop_map(Key::from)
}

fn action_strategy() -> impl Strategy<Value = Action> {
    let puts = prop::sample::select(vec![Put::Insert, Put::Update, Put::Upsert]);
    let origins = prop_oneof![
        value_strategy().prop_map(Origin::Value),
        key_strategy().prop_map(Origin::Attribute),
        Just(Origin::Context(ContextKey::Address)),
    ];
    let names = || {
        let patterns = prop::sample::select(vec!["^a$", "[bg]", "\\.x", "zzz"]);
        (
            prop::option::of(key_strategy()),
            prop::option::of(patterns.prop_map(|p| p.to_owned())),
        )
    };
    let to = vec![ConvertTo::String, ConvertTo::Int, ConvertTo::Double];
    prop_oneof![
        3 => (key_strategy(), puts, origins, prop::option::of(value_strategy())).prop_map(
            |(key, put, origin, default)| Action::Put {
                key, put, source: Source { origin, default }
            }
        ),
        1 => names().prop_map(|(key, p)| Action::Delete {
            key, pattern: p.and_then(|p| pattern(&p))
        }),
        1 => names().prop_map(|(key, p)| Action::Hash {
            key, pattern: p.and_then(|p| pattern(&p))
        }),
        1 => (key_strategy(), prop::sample::select(to))
            .prop_map(|(key, to)| Action::Convert { key, to }),
        1 => key_strategy().prop_map(|key| Action::Extract {
            key,
            pattern: regex::bytes::Regex::new("(?P<g>[a-c]+)(d)?=(?P<n>[0-9])").unwrap(),
            targets: vec!["g".into(), "a".into(), "n".into()],
        }),
    ]
}

/// A batch whose columns have every form, with some rows without each attribute.
fn batch_strategy() -> impl Strategy<Value = LogsBatch> {
    let maybe = || prop::option::of(value_strategy());
    let rows = prop::collection::vec((maybe(), prop::option::of("[a-c1=]{0,5}"), 0u8..3), 1..6);
    (rows, prop::option::of(value_strategy())).prop_map(|(rows, constant)| {
        let entry = |(a, b, _): &(Option<Value>, Option<String>, u8)| {
            let mut attributes = Map::new();
            if let Some(a) = a {
                attributes.insert("a", a.clone());
            }
            if let Some(b) = b {
                attributes.insert("b", b.as_str());
            }
            Entry {
                body: "x".into(),
                attributes,
                ..Entry::default()
            }
        };
        let mut batch = LogsBatch::from_entries(&rows.iter().map(entry).collect::<Vec<_>>());
        let codes = rows
            .iter()
            .map(|(_, _, c)| if *c == 2 { 255 } else { *c })
            .collect();
        batch
            .attributes
            .set("c.x", Column::dict(codes, vec!["12".into(), Value::Int(7)]));
        if let Some(constant) = constant {
            batch.attributes.set("g", Column::Const(constant));
        }
        batch
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Guarantee: an action on columns does to each chosen record what it does to a map, and
    /// nothing to the other records.
    #[test]
    fn columns_do_what_a_map_per_record_would(
        batch in batch_strategy(),
        actions in prop::collection::vec(action_strategy(), 1..5),
        chosen in prop::option::of(prop::collection::vec(any::<bool>(), 6)),
    ) {
        let mut want = batch.to_entries();
        for (row, entry) in want.iter_mut().enumerate() {
            if chosen.as_ref().is_none_or(|c| c[row]) {
                apply_to_map(&actions, &mut entry.attributes);
            }
        }
        let mut got = batch;
        let rows = chosen.as_deref().map_or(Rows::All, Rows::Marked);
        apply_to_rows(&actions, &mut got, rows);
        prop_assert_eq!(got.to_entries(), want);
    }
}

fn lines(n: u32) -> LogsBatch {
    let text = bytes::Bytes::from(vec![b'x'; n as usize]);
    LogsBatch::from_lines(text, &(0..n).map(|i| (i, 1)).collect::<Vec<_>>())
}

/// Guarantee: constants stay constants, so their cost does not depend on the number of rows.
#[test]
fn actions_on_constants_never_widen_them() {
    let mut batch = lines(1000);
    let one = |v: &str| Origin::Value(Value::str(v));
    let actions = [
        put("env", Put::Insert, one("prod"), None),
        put("env", Put::Insert, one("other"), None),
        put("copy", Put::Upsert, Origin::Attribute("env".into()), None),
        put("copy", Put::Update, one("k=12"), None),
        put(
            "from_client",
            Put::Upsert,
            Origin::Context(ContextKey::Address),
            Some("none".into()),
        ),
        Action::Extract {
            key: "copy".into(),
            pattern: regex::bytes::Regex::new("=(?P<n>.*)").unwrap(),
            targets: vec!["n".into()],
        },
        Action::Convert {
            key: "n".into(),
            to: ConvertTo::Int,
        },
        Action::Hash {
            key: Some("copy".into()),
            pattern: None,
        },
        Action::Delete {
            key: Some("absent".into()),
            pattern: pattern("^from_"),
        },
    ];
    apply_to_rows(&actions, &mut batch, Rows::All);
    let all: Vec<_> = batch
        .attributes
        .iter()
        .map(|(k, c)| (&**k, c.as_const()))
        .collect();
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(all[0], ("env", Some(&Value::str("prod"))));
    assert_eq!(all[2], ("n", Some(&Value::Int(12))));
    assert!(
        matches!(all[1], ("copy", Some(Value::Str(s))) if s.len() == 64),
        "{all:?}"
    );
}

/// Guarantee: what is cut out of a line points into it.
#[test]
fn extracted_text_is_not_copied() {
    let text = bytes::Bytes::from_static(b"GET /a 200GET /b 404");
    let mut batch = LogsBatch::from_lines(text, &[(0, 10), (10, 10)]);
    batch.attributes.set("line", batch.body.clone());
    let before = batch.text.heap_bytes();
    let action = Action::Extract {
        key: "line".into(),
        pattern: regex::bytes::Regex::new("^(?P<method>[A-Z]+) (?P<path>\\S+)").unwrap(),
        targets: vec!["method".into(), "path".into()],
    };
    apply_to_rows(&[action], &mut batch, Rows::All);
    assert_eq!(
        batch.attribute(1, "path"),
        Some(tailwater_pdata::ValueRef::Str(b"/b"))
    );
    assert_eq!(batch.text.heap_bytes(), before);
}
