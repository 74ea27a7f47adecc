//! Options, arguments and entries. What the process does is tested with the whole agent.

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::{LogsBatch, Value};

use super::JournaldSettings;
use super::entry::{Entry, cursor_of, records};
use crate::input::constants::Constants;
use crate::testing::text;

fn settings(yaml: &str) -> Result<JournaldSettings, String> {
    let node = parse(yaml, "test.yaml").unwrap();
    let mut errors = Errors::new();
    let path = KeyPath::from("receivers::journald");
    let settings = JournaldSettings::decode(&node, &path, &mut errors);
    settings.ok_or_else(|| errors.to_string())
}

fn command(yaml: &str, cursor: Option<&str>) -> String {
    let settings = settings(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let (program, arguments) = settings.config().command(cursor);
    format!("{program} {}", arguments.join(" "))
}

#[test]
fn options_are_arguments() {
    let base = "journalctl --utc --output=json --follow";
    for (yaml, expect) in [
        ("{}", "--priority info"),
        ("{start_at: beginning}", "--no-tail --priority info"),
        ("{start_at: end}", "--priority info"),
        (
            "{units: [ssh, kubelet], identifiers: [a, b], priority: err}",
            "--unit ssh --unit kubelet --identifier a --identifier b --priority err",
        ),
        (
            "{grep: 'a b', dmesg: true, namespace: n, all: true, merge: true}",
            "--priority info --grep a b --namespace n --dmesg --all --merge",
        ),
        (
            "{directory: /d, files: [/x]}",
            "--priority info --directory /d",
        ),
        ("{files: [/x, /y]}", "--priority info --file /x --file /y"),
        (
            "{matches: [{_SYSTEMD_UNIT: ssh}, {_UID: '1000', _SYSTEMD_UNIT: kubelet}]}",
            "--priority info _SYSTEMD_UNIT=ssh + _SYSTEMD_UNIT=kubelet _UID=1000",
        ),
    ] {
        assert_eq!(command(yaml, None), format!("{base} {expect}"), "{yaml}");
    }
    assert_eq!(
        command("{journalctl_path: /usr/bin/j}", Some("s=1;i=2")),
        "/usr/bin/j --utc --output=json --follow --no-tail --priority info --after-cursor s=1;i=2"
    );
    assert_eq!(
        command("{root_path: /host, journalctl_path: /usr/bin/j}", None),
        "chroot /host /usr/bin/j --utc --output=json --follow --priority info"
    );
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (yaml, part) in [
        ("{start_at: middle}", "start_at"),
        ("{matches: [{lower: x}]}", "not a valid Systemd field name"),
        ("{matches: [{_UID: [1]}]}", "must be a string"),
        ("{root_path: host}", "must be absolute"),
        ("{journalctl_path: ''}", "must not be empty"),
        ("{unit: [ssh]}", "units"),
        ("{output: x}", "output"),
        ("{entry_bytes_max: 1}", "entry_bytes_max"),
        ("{operators: [{type: nothing}]}", "nothing"),
    ] {
        let errors = settings(yaml)
            .err()
            .unwrap_or_else(|| panic!("accepted: {yaml}"));
        assert!(errors.contains(part), "{yaml}: {errors}");
    }
}

const LINE: &str = r#"{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1700000000000001",
    "MESSAGE":"a \"__CURSOR\": \"no\" b","PRIORITY":"3","_PID":"17","_HOSTNAME":"box","SYSLOG_PID":"x",
    "SYSLOG_IDENTIFIER":"app","MINE":["one","two"],"LONG":null,"_UID":"0"}"#;

fn batch(lines: &[&str], message_bytes: bool, conventions: bool) -> LogsBatch {
    let read = |line: &&str| Entry::read(line.as_bytes(), message_bytes).unwrap();
    let entries = lines.iter().map(read).collect();
    records(entries, 5, 9, &Constants::default(), conventions)
}

#[test]
fn an_entry_is_a_map_of_its_fields() {
    let entries = batch(&[LINE], false, false);
    assert_eq!(entries.time.get(0), 1_700_000_000_000_001_000);
    assert_eq!(entries.observed.get(0), 9);
    assert_eq!(entries.source_offset(0), Some(5));
    let Some(Value::Map(body)) = entries.body(0).map(|body| body.to_value()) else {
        panic!("{:?}", entries.body(0));
    };
    assert_eq!(body.len(), 10, "all but the time: {body:?}");
    assert_eq!(body.get("__CURSOR"), Some(&Value::str("s=1;i=2")));
    assert_eq!(body.get("LONG"), Some(&Value::Null));
    let two = vec![Value::str("one"), Value::str("two")];
    assert_eq!(body.get("MINE"), Some(&Value::List(two)));
    assert!(entries.attributes.is_empty());
}

#[test]
fn fields_become_what_they_stand_for() {
    let other = r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"2","MESSAGE":"m","PRIORITY":"9"}"#;
    let entries = batch(&[LINE, other], false, true);
    assert_eq!(
        text(&entries, 0),
        "17 1700000000 a \"__CURSOR\": \"no\" b | journald.LONG= journald.MINE=[\"one\",\"two\"] \
         journald._UID=0 journald.__CURSOR=s=1;i=2 syslog.msgid=app syslog.pid=x"
    );
    let severity = entries.severity_text(0).and_then(|text| text.as_text());
    assert_eq!(severity, Some(&b"err"[..]));
    let parts = entries.split_by_resource();
    assert_eq!(parts[0].resource.get("process.pid"), Some(&Value::Int(17)));
    assert_eq!(parts[0].resource.get("host.name"), Some(&Value::str("box")));
    assert_eq!(text(&parts[1], 0), "0 0 m | journald.__CURSOR=c");
}

#[test]
fn messages_of_bytes_become_text_if_that_is_wanted() {
    let line = r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"2","MESSAGE":[104,105,255]}"#;
    let body = |bytes| {
        let entries = batch(&[line], bytes, true);
        entries.body(0).unwrap().to_display_string()
    };
    assert_eq!(body(true), "hi\u{fffd}");
    assert_eq!(body(false), "[104,105,255]");
}

#[test]
fn lines_that_are_no_entry() {
    for (line, part) in [
        ("", "EOF"),
        ("-- No entries --", "invalid number"),
        ("[1]", "no object"),
        (r#"{"__CURSOR":"c"}"#, "no __REALTIME_TIMESTAMP"),
        (r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":2}"#, "is no time"),
        (
            r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"-1"}"#,
            "is no time",
        ),
        (
            r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"9223372036854775807"}"#,
            "is no time",
        ),
        (r#"{"__REALTIME_TIMESTAMP":"2"}"#, "no __CURSOR"),
        (
            r#"{"__REALTIME_TIMESTAMP":"2","__CURSOR":7}"#,
            "is no cursor",
        ),
        (r#"{"a":1"#, "EOF"),
    ] {
        let problem = Entry::read(line.as_bytes(), false).unwrap_err();
        assert!(problem.contains(part), "{line}: {problem}");
    }
    let deep = "[".repeat(100_000);
    assert!(Entry::read(deep.as_bytes(), false).is_err());
    let fields: Vec<String> = (0..2000).map(|n| format!("\"F{n}\":\"\"")).collect();
    let problem = Entry::read(format!("{{{}}}", fields.join(",")).as_bytes(), false);
    assert!(problem.unwrap_err().contains("1024 fields"));
}

#[test]
fn the_cursor_of_a_line_is_found_without_reading_it() {
    for (line, expect) in [
        (LINE, Some("s=1;i=2")),
        (
            r#"{"MESSAGE":"\"__CURSOR\":\"no\"", "__CURSOR" : "yes"}"#,
            Some("yes"),
        ),
        (r#"{"A":["__CURSOR","x"]}"#, None),
        (r#"{"__CURSOR":7}"#, None),
        (r#"{"__CURSOR":"cut"#, None),
        ("", None),
    ] {
        assert_eq!(cursor_of(line.as_bytes()), expect, "{line}");
    }
}
