//! Options about content: splitting, encodings, headers.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_tests::stand::{Stand, bodies, texts, utf16be, utf16le};
use tailwater_tests::wait;

/// Content, an option or two, and the bodies that have to come of it.
type Row<'a> = (&'a str, Value, Vec<u8>, Vec<Value>);

fn check(rows: Vec<Row<'_>>) {
    for (name, options, content, want) in rows {
        let stand = Stand::new(&options);
        stand.write("a.log", content);
        let got = bodies(&stand.run(want.len()));
        assert_eq!(got, want, "{name}");
    }
}

/// Guarantees the splitting of content: each option of it and its default.
#[test]
fn content_is_split_as_the_options_say() {
    let long = "x".repeat(10);
    check(vec![
        (
            "trimming is the default",
            json!({}),
            b" \ta \r\n\r\n \nb\t\n".to_vec(),
            texts(&["a", "b"]),
        ),
        (
            "preserve_leading_whitespaces",
            json!({"preserve_leading_whitespaces": true}),
            b" \ta \n".to_vec(),
            texts(&[" \ta"]),
        ),
        (
            "preserve_trailing_whitespaces",
            json!({"preserve_trailing_whitespaces": true}),
            b" \ta \t\r\n".to_vec(),
            texts(&["a \t"]),
        ),
        (
            "max_log_size splits",
            json!({"max_log_size": 4}),
            format!("{long}\nab\n").into_bytes(),
            texts(&["xxxx", "xxxx", "xx", "ab"]),
        ),
        (
            "max_log_size_behavior truncate",
            json!({"max_log_size": 4, "max_log_size_behavior": "truncate"}),
            format!("{long}\nab\n").into_bytes(),
            texts(&["xxxx", "ab"]),
        ),
        (
            "max_log_size with a unit, and a buffer that is smaller than a line",
            json!({"max_log_size": "1MiB", "initial_buffer_size": "1KiB"}),
            ["y".repeat(300_000).as_bytes(), b"\nend\n"].concat(),
            texts(&[&"y".repeat(300_000), "end"]),
        ),
        (
            "line_start_pattern",
            json!({"multiline": {"line_start_pattern": r"^\d+ "}}),
            b"head\n1 a\n b\n2 c\n3 d\n".to_vec(),
            texts(&["head", "1 a\n b", "2 c", "3 d"]),
        ),
        (
            "line_start_pattern, omit_pattern",
            json!({"multiline": {"line_start_pattern": r"LOG \d+ ", "omit_pattern": true}}),
            b"LOG 1 a\n b\nLOG 2 c\n".to_vec(),
            texts(&["a\n b", "c"]),
        ),
        (
            "line_end_pattern",
            json!({"multiline": {"line_end_pattern": "END$"}}),
            b"a\nb END\nc END\n".to_vec(),
            texts(&["a\nb END", "c END"]),
        ),
        (
            "line_end_pattern, omit_pattern",
            json!({"multiline": {"line_end_pattern": " END", "omit_pattern": true}}),
            b"a\nb END\nc END\n".to_vec(),
            texts(&["a\nb", "c"]),
        ),
        (
            "force_flush_period: the last line comes without its end",
            json!({"force_flush_period": "50ms"}),
            b"a\nb".to_vec(),
            texts(&["a", "b"]),
        ),
    ]);
}

/// Guarantees each encoding that is documented, invalid bytes included.
#[test]
fn encodings_are_decoded_as_named() {
    let latin = b"caf\xe9 \x85 x\n".to_vec();
    check(vec![
        (
            "utf-8 repairs",
            json!({}),
            b"a\xff\xfeb\nok\n".to_vec(),
            texts(&["a\u{fffd}\u{fffd}b", "ok"]),
        ),
        (
            "a byte order mark is no text",
            json!({}),
            b"\xef\xbb\xbfa\nb\n".to_vec(),
            texts(&["a", "b"]),
        ),
        (
            "utf-16 is little endian",
            json!({"encoding": "utf-16"}),
            utf16le("\ta\u{e9}\u{1f600}\r\nb\n"),
            texts(&["a\u{e9}\u{1f600}", "b"]),
        ),
        (
            "utf-16le",
            json!({"encoding": "UTF-16LE"}),
            utf16le("a\u{a0a}\nb\n"),
            texts(&["a\u{a0a}", "b"]),
        ),
        (
            "utf-16be",
            json!({"encoding": "utf-16be"}),
            utf16be("\u{feff}a\u{d0a}\nb\n"),
            texts(&["a\u{d0a}", "b"]),
        ),
        (
            "utf-16 by its mark",
            json!({}),
            utf16be("\u{feff}a\u{e9}\nb\n"),
            texts(&["a\u{e9}", "b"]),
        ),
        (
            "utf-16 with multiline",
            json!({"encoding": "utf-16le", "multiline": {"line_start_pattern": r"^\d"}}),
            utf16le("1 \u{e9}\n x\n2\n"),
            texts(&["1 \u{e9}\n x", "2"]),
        ),
        (
            "ascii is utf-8",
            json!({"encoding": "ascii"}),
            b"a\xc3\xa9\n".to_vec(),
            texts(&["a\u{e9}"]),
        ),
        (
            "us-ascii is utf-8",
            json!({"encoding": "us-ascii"}),
            b"a\xc3\xa9\n".to_vec(),
            texts(&["a\u{e9}"]),
        ),
        (
            "big5",
            json!({"encoding": "big5"}),
            b"\xa4\xa4\xa4\xe5\nx\n".to_vec(),
            texts(&["\u{4e2d}\u{6587}", "x"]),
        ),
        (
            "shift_jis",
            json!({"encoding": "shift_jis"}),
            b"\x93\xfa\x96{\n".to_vec(),
            texts(&["\u{65e5}\u{672c}"]),
        ),
        (
            "iso-8859-1 is not windows-1252",
            json!({"encoding": "iso-8859-1"}),
            latin.clone(),
            texts(&["caf\u{e9} \u{85} x"]),
        ),
        (
            "windows-1252",
            json!({"encoding": "windows-1252"}),
            latin,
            texts(&["caf\u{e9} \u{2026} x"]),
        ),
        (
            "nop: pieces of max_log_size as bytes, and what is left at the end",
            json!({"encoding": "nop", "max_log_size": 4}),
            b"ab\n\xff\xfeg\n".to_vec(),
            vec![
                json!({"bytes": "ab\n\u{ff}"}),
                json!({"bytes": "\u{fe}g\n"}),
            ],
        ),
    ]);
    // Not valid UTF-8, and so not JSON text either: whatever the exporter makes of it, nothing is
    // repaired here. The count of repairs says so.
    for (encoding, repairs) in [("utf-8-raw", 0.0), ("utf-8", 1.0)] {
        let stand = Stand::new(&json!({"encoding": encoding}));
        stand.write("a.log", b"a\xffb\nok\n");
        let agent = stand.start();
        stand.wait(&agent, 2);
        let counted = agent.scrape().sum("tailwater_invalid_utf8", &[]);
        assert_eq!(counted, repairs, "{encoding}");
        agent.stop_clean();
    }
}

/// Guarantees that 0 means: an unfinished line waits for its end, however long.
#[test]
fn without_a_flush_period_a_line_waits_for_its_end() {
    let stand = Stand::new(&json!({"force_flush_period": 0}));
    stand.write("a.log", "a\nunfin");
    let agent = stand.start();
    stand.wait(&agent, 1);
    // More than the default period.
    wait::let_pass(Duration::from_millis(700));
    assert_eq!(stand.bodies(), texts(&["a"]));
    stand.append("a.log", "ished\n");
    stand.wait(&agent, 2);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["a", "unfinished"]));
}
/// Guarantees that header lines give their values to all records of their file and are no records:
/// line by line whatever `multiline` says, decoded, and over a restart.
#[test]
fn headers_describe_their_file() {
    let header = json!({"pattern": "^#", "metadata_operators": [
        {"type": "regex_parser", "regex": r"^#(?P<key>\w+)=(?P<value>.*)$", "if": "body contains '='"},
        {"type": "move", "from": "attributes.value", "to": "attributes.app", "if": "attributes.key == 'app'"},
        {"type": "move", "from": "attributes.value", "to": "attributes.zone", "if": "attributes.key == 'zone'"},
        {"type": "remove", "field": "attributes.key", "if": "attributes.key != nil"},
    ]});
    let text = "#app=shop\n#zone=\u{e9}1\n# no value\none\n two\n#three\n";
    let want = json!({"app": "shop", "zone": "\u{e9}1"});
    for (name, options, content, lines) in [
        (
            "lines",
            json!({}),
            text.as_bytes().to_vec(),
            &["one", "two", "#three"][..],
        ),
        (
            "multiline",
            json!({"multiline": {"line_start_pattern": "^one|^#three"}}),
            text.as_bytes().to_vec(),
            &["one\n two", "#three"],
        ),
        (
            "utf-16",
            json!({"encoding": "utf-16le"}),
            utf16le(text),
            &["one", "two", "#three"],
        ),
    ] {
        let mut stand = Stand::new(&options);
        stand.set(&json!({ "header": header }));
        stand.write("a.log", content);
        stand.run(lines.len());
        let more = if name == "utf-16" {
            utf16le("four\n")
        } else {
            b"four\n".to_vec()
        };
        stand.append("a.log", more);
        let records = stand.run(lines.len() + 1);
        assert_eq!(
            bodies(&records),
            texts(&[lines, &["four"]].concat()),
            "{name}"
        );
        for r in &records {
            assert_eq!(r.attributes, want, "{name}");
        }
    }
}
