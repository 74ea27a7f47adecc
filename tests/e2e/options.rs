//! Every option of the receiver, seen from outside: real files, the binary, and what it writes.
//!
//! An option that is set without a visible effect would fail its row.

use std::fs;

use serde_json::json;
use tailwater_tests::stand::{Stand, bodies, texts};

#[path = "options/containers.rs"]
mod containers;
#[path = "options/content.rs"]
mod content;
#[path = "options/files.rs"]
mod files;

/// Guarantees that `attributes` and `resource` are added, with expressions computed per record.
#[test]
fn attributes_and_resource_may_hold_expressions() {
    let stand = Stand::new(&json!({
        "attributes": {"plain": "text", "of": "<EXPR(body)>", "none": "EXPR(attributes.nothing)"},
        "resource": {"host": "EXPR(env('HOME'))", "static": "r", "body": "EXPR(body + '!')"},
    }));
    stand.write("a.log", "x\ny\n");
    let records = stand.run(2);
    let home = std::env::var("HOME").unwrap_or_default();
    for (record, body) in records.iter().zip(["x", "y"]) {
        assert_eq!(record.body, json!(body));
        assert_eq!(
            record.attributes,
            json!({"plain": "text", "of": format!("<{body}>")})
        );
        let want = json!({"host": home, "static": "r", "body": format!("{body}!")});
        assert_eq!(record.resource, want);
    }
}

/// Guarantees that what is known of the file hides configured attributes of the same name, and that
/// their expressions see the body alone, as in the collector.
#[test]
fn attributes_of_the_file_hide_those_of_the_receiver() {
    let stand = Stand::new(&json!({
        "include_file_name": true, "include_file_record_number": true,
        "include_file_record_offset": true,
        "attributes": {
            "log.file.name": "mine", "log.file.record_number": "EXPR(body)", "log.file.path": "kept",
            "early": "EXPR(attributes['log.file.record_offset'] == nil ? 'nothing' : 'something')",
        },
    }));
    stand.write("a.log", "x\ny\n");
    let records = stand.run(2);
    for (record, (number, offset)) in records.iter().zip([(1, 0), (2, 2)]) {
        let want = json!({
            "log.file.name": "a.log", "log.file.record_number": number, "log.file.path": "kept",
            "early": "nothing", "log.file.record_offset": offset,
        });
        assert_eq!(record.attributes, want);
    }
}

/// Guarantees that operators and what they send where apply to the receiver's records.
#[test]
fn operators_are_run_in_their_order() {
    let stand = Stand::new(&json!({"operators": [
        {"type": "json_parser", "if": "body startsWith '{'", "parse_ints": true, "output": "level"},
        {"type": "add", "field": "attributes.kind", "value": "text", "output": "end"},
        {"type": "add", "id": "level", "field": "attributes.kind", "value": "json"},
        {"type": "filter", "expr": "attributes.n == 2"},
        {"type": "noop", "id": "end"},
    ]}));
    // The first goes on to `level` whatever it is.
    stand.write("a.log", "{\"n\":1}\nplain\n{\"n\":2}\n{\"n\":3}\n");
    let records = stand.run(3);
    let got: Vec<_> = records.iter().map(|r| r.attributes.clone()).collect();
    let want = [
        json!({"n": 1, "kind": "json"}),
        json!({"kind": "json"}),
        json!({"n": 3, "kind": "json"}),
    ];
    assert_eq!(got, want);
}

/// Guarantees that options with nothing to act on here change nothing that is read.
#[test]
fn options_without_anything_to_act_on_change_nothing() {
    let stand = Stand::new(&json!({
        "max_batches": 1, "polls_to_archive": 5,
        "retry_on_failure": {"enabled": true, "max_elapsed_time": "1s"},
    }));
    stand.write("a.log", "one\n");
    stand.write("b.log", "two\n");
    let agent = stand.start();
    stand.wait(&agent, 2);
    stand.append("a.log", "three\n");
    stand.wait(&agent, 3);
    agent.stop_clean();
}

/// Guarantees that `storage` keeps positions in the directory of that extension.
#[test]
fn storage_keeps_positions_where_it_says() {
    let mut stand = Stand::new(&json!({"storage": "file_storage"}));
    let dir = stand.rig.path("kept");
    stand.config["extensions"] =
        json!({"file_storage": {"directory": dir, "create_directory": true}});
    stand.config["service"]["extensions"] = json!(["file_storage"]);
    stand.write("a.log", "one\n");
    stand.run(1);
    assert!(
        dir.join("tailwater").is_dir(),
        "nothing in {}",
        dir.display()
    );
    // The agent's own directory is not what counts.
    fs::remove_dir_all(stand.rig.state()).expect("there");
    fs::create_dir(stand.rig.state()).expect("made");
    stand.append("a.log", "two\n");
    assert_eq!(bodies(&stand.run(2)), texts(&["one", "two"]));
}
