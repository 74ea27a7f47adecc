//! Every option of the receiver, seen from outside: real files, the binary, and what it writes.
//!
//! Records come out of the `file` exporter as OTLP JSON lines, so bodies, attributes and resources
//! are seen as they are. An option that is set without a visible effect would fail its row.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine;
use serde_json::{Map, Value, json};
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// A record: body, attributes and resource in plain JSON.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    body: Value,
    attributes: Value,
    resource: Value,
}

/// An OTLP value in plain JSON; bytes as `{"bytes": text}` with one character per byte.
fn plain(any: &Value) -> Value {
    let Some((kind, value)) = any.as_object().and_then(|o| o.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        "intValue" => value
            .as_str()
            .and_then(|n| n.parse::<i64>().ok())
            .map_or_else(|| value.clone(), Value::from),
        "bytesValue" => {
            let text = value.as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let chars = bytes.expect("base64").into_iter().map(char::from);
            json!({"bytes": chars.collect::<String>()})
        }
        "kvlistValue" => pairs(&value["values"]),
        "arrayValue" => {
            let items = value["values"].as_array();
            items.into_iter().flatten().map(plain).collect()
        }
        _ => value.clone(),
    }
}

fn pairs(list: &Value) -> Value {
    let pairs = list.as_array().into_iter().flatten();
    let pairs = pairs.map(|p| {
        (
            p["key"].as_str().unwrap_or_default().to_owned(),
            plain(&p["value"]),
        )
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn records_of(line: &str) -> Vec<Record> {
    let root: Value = serde_json::from_str(line).expect("a line of JSON");
    let mut out = Vec::new();
    for r in root["resourceLogs"].as_array().into_iter().flatten() {
        for s in r["scopeLogs"].as_array().into_iter().flatten() {
            for l in s["logRecords"].as_array().into_iter().flatten() {
                out.push(Record {
                    body: plain(&l["body"]),
                    attributes: pairs(&l["attributes"]),
                    resource: pairs(&r["resource"]["attributes"]),
                });
            }
        }
    }
    out
}

/// An agent on one directory of logs, and what came out of it.
struct Stand {
    rig: Rig,
    config: Value,
}

impl Stand {
    /// Reads `*.log` from the beginning, without attributes; `options` are laid over that.
    fn new(options: &Value) -> Stand {
        let rig = Rig::new("options");
        let mut config = rig.config();
        config["exporters"] = json!({"file": {"path": rig.path("out.json"), "append": true}});
        config["service"]["pipelines"]["logs"]["exporters"] = json!(["file"]);
        config["receivers"]["filelog"] = json!({
            "include": [rig.logs("*.log")],
            "start_at": "beginning",
            "include_file_name": false,
            "poll_interval": "50ms",
        });
        let mut stand = Stand { rig, config };
        stand.set(options);
        stand
    }

    /// Sets options of the receiver; null takes one away.
    fn set(&mut self, options: &Value) {
        let receiver = self.config["receivers"]["filelog"].as_object_mut();
        let receiver = receiver.expect("a map");
        for (key, value) in options.as_object().into_iter().flatten() {
            if value.is_null() {
                receiver.remove(key);
            } else {
                receiver.insert(key.clone(), value.clone());
            }
        }
    }

    fn dir(&self) -> PathBuf {
        self.rig.logs("")
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.rig.logs(name);
        fs::create_dir_all(path.parent().expect("below logs")).expect("a directory");
        fs::write(path, bytes).expect("written");
    }

    fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let file = OpenOptions::new().append(true).open(self.rig.logs(name));
        file.expect("there")
            .write_all(bytes.as_ref())
            .expect("written");
    }

    fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    /// What has come out so far; a line that is being written does not count.
    fn records(&self) -> Vec<Record> {
        let text = fs::read_to_string(self.rig.path("out.json")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().flat_map(records_of).collect()
    }

    fn bodies(&self) -> Vec<Value> {
        self.records().into_iter().map(|r| r.body).collect()
    }

    /// Waits for `n` records.
    fn wait(&self, agent: &Agent, n: usize) -> Vec<Record> {
        let done = wait::within(wait::BOUND, || self.records().len() >= n);
        let got = self.records();
        assert!(
            done,
            "{} of {n} records: {:?}\n{}",
            got.len(),
            self.bodies(),
            tail(&agent.log())
        );
        got
    }

    /// Waits until so many files are open.
    fn wait_open(&self, agent: &Agent, n: f64) {
        let open = || agent.scrape().sum("otelcol_fileconsumer_open_files", &[]);
        assert!(
            wait::within(wait::BOUND, || open() >= n),
            "{} of {n} files are open\n{}",
            open(),
            tail(&agent.log())
        );
    }

    /// Starts, waits for `n` records, stops, and gives exactly what came.
    fn run(&self, n: usize) -> Vec<Record> {
        let agent = self.start();
        self.wait(&agent, n);
        agent.stop_clean();
        self.records()
    }
}

fn bodies(records: &[Record]) -> Vec<Value> {
    records.iter().map(|r| r.body.clone()).collect()
}

fn sorted(records: &[Record]) -> Vec<String> {
    let mut out: Vec<String> = records
        .iter()
        .map(|r| r.body.as_str().unwrap_or_default().to_owned())
        .collect();
    out.sort();
    out
}

fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf16be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

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

fn texts(list: &[&str]) -> Vec<Value> {
    list.iter().map(|t| json!(t)).collect()
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

/// Guarantees which files are read.
#[test]
fn files_are_chosen_as_the_options_say() {
    let old = SystemTime::now() - Duration::from_secs(3 * 3_600);
    let make = |stand: &Stand| {
        for name in [
            "a.log",
            "b.log",
            "sub/c.log",
            "sub/deep/d.log",
            "sub/deep/e.txt",
            "f.log.1",
        ] {
            stand.write(name, format!("{name}\n"));
        }
        let b = fs::File::options()
            .append(true)
            .open(stand.rig.logs("b.log"));
        b.expect("there").set_modified(old).expect("a time set");
    };
    let rows: [(&str, &[&str], Value, &[&str]); 6] = [
        ("one directory", &["*.log"], json!({}), &["a.log", "b.log"]),
        (
            "any depth",
            &["**/*.log"],
            json!({}),
            &["a.log", "b.log", "sub/c.log", "sub/deep/d.log"],
        ),
        (
            "alternatives and classes",
            &["{a,sub/deep/e}.{log,txt}", "[!ab]*.log*"],
            json!({}),
            &["a.log", "f.log.1", "sub/deep/e.txt"],
        ),
        (
            "exclude",
            &["**/*.log"],
            json!({"exclude": ["**/deep/*", "**/a.*"]}),
            &["b.log", "sub/c.log"],
        ),
        (
            "exclude_older_than",
            &["*.log"],
            json!({"exclude_older_than": "1h"}),
            &["a.log"],
        ),
        (
            "exclude_older_than a longer time",
            &["*.log"],
            json!({"exclude_older_than": "5h"}),
            &["a.log", "b.log"],
        ),
    ];
    for (name, include, mut options, want) in rows {
        let mut stand = Stand::new(&json!({}));
        make(&stand);
        let dir = stand.dir();
        if let Some(exclude) = options["exclude"].as_array() {
            let below = exclude
                .iter()
                .filter_map(Value::as_str)
                .map(|g| dir.join(g));
            options["exclude"] = json!(below.collect::<Vec<_>>());
        }
        let include: Vec<PathBuf> = include.iter().map(|g| dir.join(g)).collect();
        stand.set(&json!({ "include": include }));
        stand.set(&options);
        assert_eq!(sorted(&stand.run(want.len())), want, "{name}");
    }
}

/// Guarantees `ordering_criteria` in all its fields: which files stay, of which group.
#[test]
fn ordering_criteria_choose_files() {
    let number =
        |ascending| json!({"sort_type": "numeric", "regex_key": "n", "ascending": ascending});
    let regex = r"(?P<name>[a-z]+)\.(?P<t>\d{10})\.(?P<n>\d+)\.log$";
    let rows = [
        (
            "top_n is 1",
            json!({"regex": regex, "sort_by": [number(false)]}),
            vec!["b.10"],
        ),
        (
            "top_n",
            json!({"regex": regex, "top_n": 2, "sort_by": [number(true)]}),
            vec!["a.1", "b.2"],
        ),
        (
            "group_by",
            json!({"regex": regex, "group_by": r"/([a-z]+)\.\d+", "sort_by": [number(false)]}),
            vec!["a.9", "b.10"],
        ),
        (
            "alphabetical",
            json!({"regex": regex, "sort_by": [
                {"sort_type": "alphabetical", "regex_key": "n", "ascending": false}]}),
            vec!["a.9"],
        ),
        (
            "timestamp with layout and location",
            json!({"regex": regex, "sort_by": [{"sort_type": "timestamp", "regex_key": "t",
                "layout": "%Y%m%d%H", "location": "Europe/Berlin"}]}),
            vec!["b.2"],
        ),
        (
            "mtime",
            json!({"sort_by": [{"sort_type": "mtime"}]}),
            vec!["a.1"],
        ),
    ];
    for (name, criteria, want) in rows {
        let stand = Stand::new(&json!({"ordering_criteria": criteria}));
        let files = [
            "a.2026010110.1",
            "a.2026010111.9",
            "b.2026010112.2",
            "b.2026010109.10",
        ];
        for (age, file) in files.into_iter().enumerate() {
            let (letter, n) = (&file[..1], file.rsplit('.').next().unwrap_or_default());
            let file = format!("{file}.log");
            stand.write(&file, format!("{letter}.{n}\n"));
            let at = SystemTime::now() - Duration::from_secs(60 * (1 + age as u64));
            let open = fs::File::options().append(true).open(stand.rig.logs(&file));
            open.expect("there").set_modified(at).expect("a time set");
        }
        assert_eq!(sorted(&stand.run(want.len())), want, "{name}");
    }
}

/// Guarantees `start_at` and its default: `end` leaves out what is there at the very first start,
/// `beginning` does not, and files that appear later are read as a whole in any case.
#[test]
fn start_at_is_about_the_first_start_only() {
    for (start_at, want) in [
        (json!("beginning"), &["new", "old", "younger"][..]),
        (json!("end"), &["new", "younger"]),
        (Value::Null, &["new", "younger"]),
    ] {
        let stand = Stand::new(&json!({"start_at": start_at}));
        stand.write("a.log", "old\n");
        let agent = stand.start();
        stand.wait_open(&agent, 1.0);
        stand.append("a.log", "new\n");
        stand.write("later.log", "younger\n");
        stand.wait(&agent, want.len());
        agent.stop_clean();
        assert_eq!(sorted(&stand.records()), want, "{start_at}");
    }
}

/// Guarantees each attribute of a file, and that none but the name comes unasked.
#[test]
fn attributes_of_files_are_those_asked_for() {
    let attribute = |option: &str, key: &str| {
        let stand = Stand::new(&json!({ option: true }));
        stand.write("real.txt", "one\n\n two\n");
        symlink(stand.rig.logs("real.txt"), stand.rig.logs("link.log")).expect("a link");
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(stand.rig.logs("real.txt"), mode).expect("a mode set");
        let records = stand.run(2);
        let meta = fs::metadata(stand.rig.logs("real.txt")).expect("there");
        let real = fs::canonicalize(stand.rig.logs("real.txt")).expect("there");
        let values: Vec<Value> = records
            .iter()
            .map(|r| {
                let only: Vec<&String> = r.attributes.as_object().expect("a map").keys().collect();
                assert_eq!(only, [key], "{option}");
                r.attributes[key].clone()
            })
            .collect();
        (values, stand.rig.logs("link.log"), real, meta)
    };
    let twice = |v: Value| vec![v.clone(), v];
    let (got, ..) = attribute("include_file_name", "log.file.name");
    assert_eq!(got, twice(json!("link.log")));
    let (got, link, ..) = attribute("include_file_path", "log.file.path");
    assert_eq!(got, twice(json!(link)));
    let (got, ..) = attribute("include_file_name_resolved", "log.file.name_resolved");
    assert_eq!(got, twice(json!("real.txt")));
    let (got, _, real, _) = attribute("include_file_path_resolved", "log.file.path_resolved");
    assert_eq!(got, twice(json!(real)));
    let name_of = |file: &str, id: u32| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find(|l| l.split(':').nth(2) == Some(&id.to_string()));
        let name = line.and_then(|l| l.split(':').next());
        name.map_or_else(|| id.to_string(), str::to_owned)
    };
    let (got, _, _, meta) = attribute("include_file_owner_name", "log.file.owner.name");
    assert_eq!(got, twice(json!(name_of("/etc/passwd", meta.uid()))));
    let (got, _, _, meta) = attribute("include_file_owner_group_name", "log.file.owner.group.name");
    assert_eq!(got, twice(json!(name_of("/etc/group", meta.gid()))));
    let (got, ..) = attribute("include_file_permissions", "log.file.permissions");
    assert_eq!(got, twice(json!("640")));
    // A blank line is no record, but it has a number.
    let (got, ..) = attribute("include_file_record_number", "log.file.record_number");
    assert_eq!(got, [json!(1), json!(3)]);
    // Where the line begins, before trimming.
    let (got, ..) = attribute("include_file_record_offset", "log.file.record_offset");
    assert_eq!(got, [json!(0), json!(5)]);
    let stand = Stand::new(&json!({"include_file_name": null}));
    stand.write("a.log", "x\n");
    let records = stand.run(1);
    assert_eq!(
        records[0].attributes,
        json!({"log.file.name": "a.log"}),
        "the default"
    );
    assert_eq!(records[0].resource, json!({}));
}

/// Guarantees that record numbers go on over a restart.
#[test]
fn record_numbers_and_offsets_go_on_after_a_restart() {
    let stand = Stand::new(&json!({
        "include_file_record_number": true, "include_file_record_offset": true,
    }));
    stand.write("a.log", "one\n\ntwo\n");
    stand.run(2);
    stand.append("a.log", "three\n");
    let records = stand.run(3);
    let at = |r: &Record| {
        let number = |key: &str| r.attributes[key].as_i64();
        (
            number("log.file.record_number"),
            number("log.file.record_offset"),
        )
    };
    let got: Vec<_> = records.iter().map(at).collect();
    assert_eq!(
        got,
        [(Some(1), Some(0)), (Some(3), Some(5)), (Some(4), Some(9))]
    );
}

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

fn gz(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// Guarantees `compression`: all files, those with the magic bytes, or none; members that are
/// appended later are read, and a plain file that is compressed later is not read again.
#[test]
fn compressed_files_are_read_as_the_option_says() {
    let stand = Stand::new(&json!({"compression": "gzip"}));
    stand.write("a.log", gz("one\ntwo\n"));
    let agent = stand.start();
    stand.wait(&agent, 2);
    stand.append("a.log", gz("three\n"));
    stand.wait(&agent, 3);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["one", "two", "three"]));

    let stand = Stand::new(&json!({"compression": "auto"}));
    stand.write("a.log", gz("packed\n"));
    stand.write("b.log", "plain\n");
    assert_eq!(sorted(&stand.run(2)), ["packed", "plain"]);

    let mut stand = Stand::new(&json!({"compression": "auto"}));
    stand.set(&json!({"include": [stand.rig.logs("*.log*")]}));
    stand.write("a.log", "one\ntwo\n");
    stand.run(2);
    stand.append("a.log", "three\n");
    let whole = fs::read_to_string(stand.rig.logs("a.log")).expect("there");
    stand.write("a.log.gz", gz(&whole));
    fs::remove_file(stand.rig.logs("a.log")).expect("there");
    assert_eq!(bodies(&stand.run(3)), texts(&["one", "two", "three"]));

    let stand = Stand::new(&json!({}));
    stand.write("a.log", gz("packed\n"));
    stand.write("b.log", "plain\n");
    let got = sorted(&stand.run(2));
    assert!(!got.contains(&"packed".to_owned()) && got.contains(&"plain".to_owned()));
}

/// Guarantees that a file goes away once everything of it is delivered, and not before.
#[test]
fn files_are_deleted_after_reading_when_asked() {
    let stand = Stand::new(&json!({"delete_after_read": true}));
    stand.write("a.log", "one\ntwo");
    let agent = stand.start();
    stand.wait(&agent, 2);
    let gone = wait::within(wait::BOUND, || !stand.rig.logs("a.log").exists());
    assert!(gone, "still there\n{}", tail(&agent.log()));
    stand.write("b.log", "three\n");
    stand.wait(&agent, 3);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["one", "two", "three"]));
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

/// Guarantees that `acquire_fs_lock` leaves a file alone as long as somebody else has it locked,
/// and that lines longer than the buffer come through with it.
#[test]
fn a_locked_file_is_left_alone() {
    use rustix::fs::{FlockOperation, flock};
    let stand = Stand::new(&json!({
        "acquire_fs_lock": true, "initial_buffer_size": "4KiB", "max_log_size": "4MiB",
    }));
    let long = "z".repeat(2 << 20);
    stand.write("a.log", format!("first\n{long}\nlast\n"));
    let file = fs::File::open(stand.rig.logs("a.log")).expect("there");
    flock(&file, FlockOperation::LockExclusive).expect("a lock");
    stand.write("b.log", "free\n");
    let agent = stand.start();
    stand.wait(&agent, 1);
    // Several poll intervals.
    wait::let_pass(Duration::from_millis(300));
    assert_eq!(stand.bodies(), texts(&["free"]));
    flock(&file, FlockOperation::Unlock).expect("unlocked");
    stand.wait(&agent, 4);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["free", "first", &long, "last"]));
}

/// Guarantees that dropping pages from the cache changes nothing that is read.
#[test]
fn file_cache_advise_changes_nothing_that_is_read() {
    let stand = Stand::new(&json!({"file_cache_advise": true}));
    stand.write("a.log", "one\n");
    let agent = stand.start();
    stand.wait(&agent, 1);
    stand.append("a.log", "two\n");
    stand.wait(&agent, 2);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["one", "two"]));
}

/// Guarantees `on_truncate` in each form, for a file that begins as before.
#[test]
fn on_truncate_decides_about_a_file_that_was_cut() {
    let first = "the same first line\nsecond\nthird\n";
    let cut = "the same first line\n";
    for (rule, want) in [
        (Value::Null, &["the same first line", "new 1"][..]),
        (json!("read_whole_file"), &["the same first line", "new 1"]),
        (json!("read_new"), &["new 1"]),
        (json!("ignore"), &["behind the old end"]),
    ] {
        let stand = Stand::new(&json!({"on_truncate": rule}));
        stand.write("a.log", first);
        let agent = stand.start();
        stand.wait(&agent, 3);
        let file = fs::File::options()
            .write(true)
            .open(stand.rig.logs("a.log"));
        file.expect("there").set_len(cut.len() as u64).expect("cut");
        // The agent has to see the cut before the file grows again.
        let seen = wait::within(wait::BOUND, || {
            let truncated = agent.scrape().sum("tailwater_files_truncated", &[]);
            truncated >= 1.0 || rule == json!("ignore")
        });
        assert!(seen, "{rule}: not noticed\n{}", tail(&agent.log()));
        if rule == json!("ignore") {
            // Up to the old end nothing is read; behind it, reading goes on.
            stand.append("a.log", &first[cut.len()..]);
            stand.append("a.log", "behind the old end\n");
        } else {
            stand.append("a.log", "new 1\n");
        }
        stand.wait(&agent, 3 + want.len());
        agent.stop_clean();
        assert_eq!(stand.bodies()[3..], texts(want), "{rule}");
    }
}

/// Guarantees that more files than may be open are all read, and that late lines of each arrive.
#[test]
fn more_files_than_descriptors_are_all_read() {
    let stand = Stand::new(&json!({"max_concurrent_files": 8}));
    for i in 0..50 {
        stand.write(&format!("{i:02}.log"), format!("{i:02} a\n"));
    }
    let agent = stand.start();
    stand.wait(&agent, 50);
    for i in 0..50 {
        stand.append(&format!("{i:02}.log"), format!("{i:02} b\n"));
    }
    stand.wait(&agent, 100);
    let open = || agent.scrape().sum("otelcol_fileconsumer_open_files", &[]);
    assert!(
        wait::within(wait::BOUND, || open() <= 8.0),
        "{} are open",
        open()
    );
    agent.stop_clean();
    let want: BTreeSet<String> = (0..50)
        .flat_map(|i| [format!("{i:02} a"), format!("{i:02} b")])
        .collect();
    assert_eq!(
        sorted(&stand.records()),
        want.into_iter().collect::<Vec<_>>()
    );
}

/// Guarantees that files with the same first bytes, as many as `fingerprint_size`, are two files.
#[test]
fn files_that_begin_alike_are_told_apart() {
    let stand = Stand::new(&json!({"fingerprint_size": 16}));
    let head = "the same header of all files\n";
    stand.write("a.log", format!("{head}a\n"));
    stand.write("b.log", format!("{head}b\n"));
    let got = sorted(&stand.run(4));
    let head = head.trim();
    assert_eq!(got, ["a", "b", head, head]);
}

/// Guarantees that polling finds new files and lines without notifications, as soon as
/// `poll_interval` says, and that it is said once in the log.
#[test]
fn polling_works_and_is_said_once() {
    let stand = Stand::new(&json!({"watch": "poll", "poll_interval": "50ms"}));
    stand.write("a.log", "one\n");
    let agent = stand.start();
    stand.wait(&agent, 1);
    stand.append("a.log", "two\n");
    stand.write("sub.log", "three\n");
    stand.wait(&agent, 3);
    let said = agent.log().matches("found by looking at them").count();
    assert_eq!(said, 1, "{}", agent.log());
    agent.stop_clean();
    assert_eq!(sorted(&stand.records()), ["one", "three", "two"]);
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
