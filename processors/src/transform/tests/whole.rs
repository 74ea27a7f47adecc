//! Statements on whole columns do what the same statements do record by record.

use proptest::prelude::*;

use super::*;

const STATEMENTS: &[&str] = &[
    r#"set(attributes["a"], attributes["b"])"#,
    r#"set(attributes["b"], "text")"#,
    r#"set(attributes["c"], 7)"#,
    r#"set(attributes["a"], [1, "x"])"#,
    r#"set(attributes["d"], attributes["d"])"#,
    r#"set(severity_text, attributes["a"])"#,
    r#"set(severity_text, "WARN")"#,
    r#"set(severity_text, attributes["c"])"#,
    r#"set(body, attributes["b"])"#,
    r#"set(body, "line")"#,
    r#"set(attributes["c"], nil)"#,
    r#"delete_key(attributes, "a")"#,
    r#"delete_key(attributes, "c")"#,
    r#"set(attributes["d"], body) where attributes["a"] != nil"#,
    r#"set(resource.attributes["r"], attributes["b"])"#,
    r#"set(attributes["a"], resource.attributes["r"])"#,
    r#"set(cache["k"], attributes["b"])"#,
    r#"set(attributes["c"], cache["k"])"#,
];

fn value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        4 => "[a-c]{0,2}".prop_map(|s| Some(Value::str(s))),
        1 => (0..3i64).prop_map(|i| Some(Value::Int(i))),
        1 => Just(Some(Value::Bool(true))),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(Value::List(vec![Value::Int(1)]))),
        2 => Just(None),
    ]
}

/// Records whose attributes mostly have one form, as those of one program do.
fn records() -> impl Strategy<Value = Vec<Entry>> {
    let row = (value(), value(), value());
    (proptest::collection::vec(row, 1..5), any::<bool>()).prop_map(|(rows, alike)| {
        let of = |row: &(Option<Value>, Option<Value>, Option<Value>), i: usize| {
            let mut entry = record(&format!("body {i}"), &[]);
            for (key, value) in [("a", &row.0), ("b", &row.1), ("c", &row.2)] {
                if let Some(value) = value {
                    entry.attributes.insert(key, value.clone());
                }
            }
            entry
        };
        let form = |i: usize| if alike { &rows[0] } else { &rows[i] };
        (0..rows.len()).map(|i| of(form(i), i)).collect()
    })
}

/// The records after `statements`, and how many could not be carried out.
fn after(records: &[Entry], statements: &[usize], condition: &str) -> (Vec<Entry>, u64) {
    let list: Vec<_> = statements.iter().map(|i| STATEMENTS[*i]).collect();
    let list = list.iter().map(|s| format!("\n      - '{s}'"));
    let yaml = format!(
        "log_statements:\n  - context: log\n    error_mode: ignore{condition}\n    statements:{}\n",
        list.collect::<String>()
    );
    let settings = decode(&yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let mut processor = TransformProcessor::new(settings);
    let mut logs = LogsBatch::from_entries(records);
    processor.change(&mut logs, 0);
    (logs.to_entries(), processor.report.errors())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn columns_become_what_records_become(
        records in records(),
        statements in proptest::collection::vec(0..STATEMENTS.len(), 1..6),
    ) {
        let (mut whole, errors) = after(&records, &statements, "");
        // A condition makes it go record by record.
        let (mut each, errors_each) = after(&records, &statements, "\n    conditions: ['1 == 1']");
        for entry in whole.iter_mut().chain(&mut each) {
            let mut pairs: Vec<_> = entry.attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            entry.attributes = Map::from_unique(pairs);
        }
        prop_assert_eq!(whole, each);
        prop_assert_eq!(errors, errors_each);
    }
}
