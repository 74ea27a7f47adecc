//! `tailwater try`: what becomes of records, step by step, with nothing sent or stored.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::{binary, run_once};

const CONFIG: &str = r#"
receivers:
  file_log/app:
    include: [/nowhere/*.log]
    include_file_path: true
    resource: {host: h}
    operators:
      - {type: json_parser, severity: {parse_from: attributes.level}}
      - {type: move, if: 'attributes.msg != nil', from: attributes.msg, to: body}
      - {type: filter, id: no-debug, expr: 'attributes.level == "debug"'}
      - {type: regex_parser, id: strict, if: 'attributes.level == "warn"', regex: '^(?P<verb>GET) ', on_error: drop}
  otlp: {protocols: {grpc: {endpoint: "127.0.0.1:4317"}}}
processors:
  attributes: {actions: [{key: level, action: delete}, {key: env, action: insert, value: prod}]}
  filter/health: {logs: {log_record: ['IsMatch(body, "health")']}}
  transform: {log_statements: [{context: log, statements: ['set(attributes["n"], Int(attributes["absent"]) + 1)']}]}
  batch: {}
connectors:
  count: {}
  forward/x: {}
  routing: {default_pipelines: [logs/rest], table: [{context: log, condition: 'attributes["k"] == "a"', pipelines: [logs/a]}]}
exporters:
  loki: {endpoint: "http://127.0.0.1:1/loki/api/v1/push"}
  file: {path: FILE}
  debug: {}
service:
  pipelines:
    logs: {receivers: [file_log/app], processors: [attributes, filter/health, batch], exporters: [loki, count, forward/x]}
    logs/2: {receivers: [forward/x], exporters: [file]}
    logs/otlp: {receivers: [otlp], processors: [transform], exporters: [routing]}
    logs/a: {receivers: [routing], exporters: [debug]}
    logs/rest: {receivers: [routing], exporters: [debug]}
    metrics: {receivers: [count], exporters: [debug]}
"#;

const LINES: &str = r#"{"level":"info","msg":"hello","n":1.5}
{"level":"debug","msg":"x"}
no json
{"level":"warn","msg":"POST /"}
{"level":"warn","msg":"GET /health"}
"#;

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            dir: TempDir::new("try").expect("a temporary directory"),
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn config(&self) -> String {
        let out = self.dir.join("out.json");
        self.file(
            "agent.yaml",
            &CONFIG.replace("FILE", &out.to_string_lossy()),
        )
    }

    /// Runs `try` with the configuration and `args`: exit code, standard output, standard error.
    fn run(&self, config: &str, args: &[&str]) -> (Option<i32>, String, String) {
        let all: Vec<&str> = ["try", "--config", config]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let output = run_once(&all, &self.dir.join("state")).expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// As [`Bench::run`], the lines of JSON.
    fn json(&self, config: &str, args: &[&str]) -> Vec<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--format", "json"]).collect();
        let (code, out, err) = self.run(config, &args);
        assert_eq!(code, Some(0), "{err}");
        out.lines()
            .map(|l| serde_json::from_str(l).expect("a line of JSON"))
            .collect()
    }
}

fn verdicts(journey: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let steps = journey["steps"].as_array().expect("steps");
    steps
        .iter()
        .map(|s| (text(&s["id"]), text(&s["verdict"])))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// Guarantees that each record goes through the real components, that every end has its reason, and that
/// the sums are those of the records.
#[test]
fn each_step_of_each_line_is_told() {
    let bench = Bench::new();
    let (config, lines) = (bench.config(), bench.file("app.log", LINES));
    let all = bench.json(&config, &["--pipeline", "logs", "--input", &lines]);
    assert_eq!(all.len(), 6);
    let first = &all[0];
    let parsed = ["json_parser", "move", "no-debug"].map(|id| (id, "passed"));
    let rest = [
        ("strict", "skipped"),
        ("attributes", "passed"),
        ("filter/health", "passed"),
        ("batch", "held"),
        ("batch", "passed"),
        ("count", "passed"),
        ("forward/x", "passed"),
    ];
    assert_eq!(verdicts(first), pairs(&[&parsed[..], &rest].concat()));
    let came = json!({
        "body": LINES.lines().next().unwrap(), "resource": {"host": "h"},
        "attributes": {"log.file.name": "app.log", "log.file.path": lines},
    });
    assert_eq!(first["came"], came);
    let change = |kind: &str, path: &str, before: Value, after: Value| json!({"change": kind, "path": path, "before": before, "after": after});
    let changes = first["steps"][0]["changes"].as_array().unwrap();
    for want in [
        change("added", "severity_number", Value::Null, json!(9)),
        change("added", "attributes.n", Value::Null, json!(1.5)),
    ] {
        assert!(changes.contains(&want), "{changes:?}");
    }
    let want = json!([
        change("removed", "attributes.level", json!("info"), Value::Null),
        change("added", "attributes.env", Value::Null, json!("prod")),
    ]);
    assert_eq!(first["steps"][4]["changes"], want);
    let arrived = first["arrived"].as_array().unwrap();
    let ends: Vec<_> = arrived
        .iter()
        .map(|a| {
            (
                a["pipeline"].as_str().unwrap(),
                a["exporter"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        ends,
        [("logs", "loki"), ("metrics", "debug"), ("logs/2", "file")]
    );
    assert_eq!(arrived[0]["records"][0]["body"], "hello");
    assert_eq!(
        arrived[1]["records"][0]["metric"]["name"],
        "log.record.count"
    );

    assert_eq!(
        verdicts(&all[1]),
        pairs(&[
            ("json_parser", "passed"),
            ("move", "passed"),
            ("no-debug", "filtered")
        ])
    );
    let error = all[2]["steps"][0]["errors"][0].as_str().unwrap();
    assert!(error.contains("not a JSON object"), "{error}");
    let dropped = &all[3]["steps"][3];
    assert_eq!(
        (&dropped["id"], &dropped["verdict"]),
        (&json!("strict"), &json!("dropped"))
    );
    assert_eq!(dropped["errors"].as_array().map(Vec::len), Some(1));
    assert_eq!(all[4]["steps"][5]["verdict"], "filtered");
    let summary = &all[5]["summary"];
    assert_eq!(summary["records"], 5);
    assert_eq!(
        summary["filtered"],
        json!({"operator no-debug": 1, "processor filter/health": 1})
    );
    assert_eq!(summary["dropped"], json!({"operator strict": 1}));
    // Nothing was written, and nothing remembered.
    assert!(!bench.dir.join("out.json").exists() && !bench.dir.join("state").exists());
}

/// Guarantees that people see marks, reasons and ends, without escapes where there is no terminal.
#[test]
fn the_table_marks_what_changed() {
    let bench = Bench::new();
    let (config, lines) = (bench.config(), bench.file("app.log", LINES));
    let (code, out, err) = bench.run(&config, &["--pipeline", "logs", "--input", &lines]);
    assert_eq!(code, Some(0), "{err}");
    for want in [
        " record 5 ",
        "receiver file_log/app",
        "- attributes.level  \"info\"",
        "+ attributes.env    \"prod\"",
        "removed on purpose: expr is true: attributes.level == \"debug\"",
        "removed on purpose: IsMatch(body, \"health\")",
        "operator regex_parser (strict)  skipped",
        "! not a JSON object",
        "DROPPED: see the error",
        "processor batch  after it waited: no change",
        "exporter file  pipeline logs/2",
        "1 removed on purpose by operator no-debug",
        "1 DROPPED by operator strict",
        "2 to exporter loki (pipeline logs)",
    ] {
        assert!(out.contains(want), "no {want:?} in\n{out}");
    }
    assert!(
        !out.contains('\u{1b}') && !out.contains("waits here"),
        "{out}"
    );
}

/// Guarantees that records which wait for others, or for their time, are followed to where they go.
#[test]
fn lines_that_are_put_together_are_followed() {
    let bench = Bench::new();
    let config = bench.file(
        "agent.yaml",
        r#"
receivers:
  file_log:
    include: [/nowhere]
    operators:
      - {type: recombine, combine_field: body, is_first_entry: 'body matches "^[A-Z]"'}
processors: {batch: {send_batch_size: 2}}
exporters: {debug: {}}
service: {pipelines: {logs: {receivers: [file_log], processors: [batch], exporters: [debug]}}}
"#,
    );
    let lines = bench.file("app.log", "A1\n b\nB1\n c\n d\nC1");
    let all = bench.json(&config, &["--input", &lines]);
    let whole = [
        ("recombine", "held"),
        ("recombine", "passed"),
        ("batch", "held"),
        ("batch", "passed"),
    ];
    let direct = [
        ("recombine", "held"),
        ("recombine", "passed"),
        ("batch", "passed"),
    ];
    let part = [("recombine", "joined")];
    for (i, want) in [&whole[..], &part, &direct, &part, &part, &whole]
        .iter()
        .enumerate()
    {
        assert_eq!(verdicts(&all[i]), pairs(want), "record {}", i + 1);
    }
    let arrived = |i: usize| all[i]["arrived"][0]["records"][0]["body"].clone();
    assert_eq!(
        [arrived(0), arrived(2), arrived(5)],
        ["A1\nb", "B1\nc\nd", "C1"].map(Value::from)
    );
    assert_eq!(
        all[6]["summary"]["joined"],
        json!({"operator recombine": 3})
    );
    assert_eq!(all[6]["summary"]["held"], json!({}));
}

/// Guarantees that lines come to be as in files: multiline patterns, headers, encodings, paths.
#[test]
fn lines_are_cut_as_those_of_files() {
    let bench = Bench::new();
    let config = bench.file(
        "agent.yaml",
        r#"
receivers:
  file_log:
    include: [/nowhere]
    start_at: beginning
    include_file_path: true
    include_file_record_number: true
    multiline: {line_start_pattern: '^\d'}
    header: {pattern: '^#', metadata_operators: [{type: regex_parser, regex: '^#(?P<k>\w+)'}]}
exporters: {debug: {}}
service: {pipelines: {logs: {receivers: [file_log], exporters: [debug]}}}
"#,
    );
    let lines = bench.file("app.log", "\u{feff}#head\n1 a\n  more\n2 b\n");
    let all = bench.json(&config, &["--input", &lines, "--path", "/var/log/x.log"]);
    assert_eq!(all.len(), 3, "{all:?}");
    let attributes = json!({"k": "head", "log.file.name": "x.log", "log.file.path": "/var/log/x.log", "log.file.record_number": 2});
    assert_eq!(all[0]["came"]["body"], "1 a\n  more");
    assert_eq!(
        all[1]["came"],
        json!({"body": "2 b", "attributes": attributes})
    );
}

/// Guarantees that records as JSON enter, go their own ways behind a connector, and that what a
/// component says to the log is shown.
#[test]
fn records_are_routed_and_complaints_are_shown() {
    let bench = Bench::new();
    let config = bench.config();
    let entries = bench.file(
        "e.json",
        r#"{"input": {"entries": [{"body": "x", "attributes": {"k": "a"}}, {"body": "y"}]}}"#,
    );
    let all = bench.json(&config, &["--pipeline", "logs/otlp", "--entries", &entries]);
    assert_eq!(all[0]["steps"][1]["to"], json!(["logs/a"]));
    assert_eq!(all[1]["steps"][1]["to"], json!(["logs/rest"]));
    assert_eq!(all[1]["arrived"][0]["pipeline"], "logs/rest");
    let said = all[0]["steps"][0]["errors"][0].as_str().unwrap_or_default();
    assert!(
        said.contains("OTTL could not be carried out") && said.contains("Int(attributes"),
        "{said}"
    );
}

/// Guarantees that what is missing or ambiguous is said, with what there is.
#[test]
fn what_cannot_be_tried_is_said() {
    let bench = Bench::new();
    let (config, lines) = (bench.config(), bench.file("app.log", LINES));
    let gzip = bench.file("app.log.gz", "");
    fs::write(&gzip, [0x1f, 0x8b, 8, 0]).unwrap();
    let wrong = bench.file("wrong.json", r#"[{"body": "x"}, {"atributes": {}}]"#);
    let several = bench.file(
        "several.yaml",
        r#"{receivers: {file_log/a: {include: [/a]}, file_log/b: {include: [/b]}}, exporters: {debug: {}},
           service: {pipelines: {logs: {receivers: [file_log/a, file_log/b], exporters: [debug]}}}}"#,
    );
    let bad = bench.file("bad.yaml", &CONFIG.replace("type: move", "type: mvoe"));
    for (config, args, wants) in [
        (
            &config,
            &["--input", &lines][..],
            &[
                "several pipelines",
                "--pipeline",
                "logs (from file_log/app)",
                "logs/otlp (from otlp)",
            ][..],
        ),
        (
            &config,
            &["--input", &lines, "--pipeline", "logz"],
            &["no pipeline \"logz\"", "did you mean \"logs\""],
        ),
        (
            &config,
            &["--input", &lines, "--pipeline", "metrics"],
            &["carries metrics"],
        ),
        (
            &config,
            &["--input", &lines, "--pipeline", "logs/otlp"],
            &[
                "receiver \"otlp\" takes in records and no lines",
                "--entries",
            ],
        ),
        (
            &config,
            &["--input", &lines, "--pipeline", "logs/2"],
            &["begins with a connector", "--entries"],
        ),
        (
            &config,
            &["--input", "/nowhere/x", "--pipeline", "logs"],
            &["cannot read /nowhere/x"],
        ),
        (
            &config,
            &["--input", &gzip, "--pipeline", "logs"],
            &["compressed", "gzip -dc"],
        ),
        (
            &config,
            &["--entries", &wrong, "--pipeline", "logs"],
            &["record 2", "did you mean \"attributes\""],
        ),
        (
            &several,
            &["--input", &lines],
            &["--receiver", "file_log/a", "file_log/b"],
        ),
        (
            &several,
            &["--input", &lines, "--receiver", "file_log/c"],
            &["no receiver \"file_log/c\"", "did you mean"],
        ),
        (
            &bad,
            &["--input", &lines, "--pipeline", "logs"],
            &["mvoe", "move", "1 mistake"],
        ),
    ] {
        let (code, out, err) = bench.run(config, args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        for want in wants {
            assert!(err.contains(want), "{args:?}: no {want:?} in {err}");
        }
    }
    let (code, _, err) = bench.run(&several, &["--input", &lines, "--receiver", "file_log/b"]);
    assert_eq!(code, Some(0), "{err}");
}

/// Guarantees that only so much of an endless input is read as is shown.
#[test]
fn an_endless_input_is_read_to_the_limit() {
    let bench = Bench::new();
    let config = bench.config();
    let mut child = Command::new(binary())
        .args([
            "try",
            "--config",
            &config,
            "--pipeline",
            "logs",
            "--limit",
            "1500",
            "--format",
            "json",
        ])
        .env("TAILWATER_STATE_DIR", bench.dir.join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || {
        let mut written = 0_u64;
        // It ends when nobody reads any more; far beyond what may be read.
        while written < 1 << 30 && stdin.write_all(LINES.as_bytes()).is_ok() {
            written += LINES.len() as u64;
        }
        written
    });
    let output = child.wait_with_output().expect("it ends");
    assert!(writer.join().expect("no panic") < 64 << 20);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.contains("stopped after 1500 records"), "{err}");
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(out.lines().count(), 1501);
    let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["filtered"]["operator no-debug"], 300);
}

fn vectors(folder: &Path, out: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = item.path();
        match path.is_dir() {
            true => vectors(&path, out),
            false => out.push(path),
        }
    }
}

/// Guarantees that operators do here what they do in the agent: the vectors of the collector's behaviour,
/// those that are kept and those of the folder in `TAILWATER_VECTORS`.
#[test]
fn vectors_come_out_as_they_should() {
    let bench = Bench::new();
    let mut files = Vec::new();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../receivers/tests/vectors");
    vectors(&kept, &mut files);
    match std::env::var_os("TAILWATER_VECTORS") {
        Some(folder) => vectors(Path::new(&folder), &mut files),
        None => eprintln!("left out: more vectors, TAILWATER_VECTORS names no folder"),
    }
    let mut ran = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a vector");
        let Ok(vector) = serde_json::from_str::<Value>(&text) else {
            continue;
        };
        let expect = &vector["expect"];
        let special =
            vector.get("env").is_some() || text.contains("${NOW") || expect.get("routed").is_some();
        if vector["kind"] != "operators"
            || special
            || expect.get("entries").is_none()
            || vector.get("input").is_none()
        {
            continue;
        }
        let config = json!({
            "receivers": {"file_log": {"include": ["/nowhere"], "operators": vector["config"]["operators"]}},
            "exporters": {"debug": {}},
            "service": {"pipelines": {"logs": {"receivers": ["file_log"], "exporters": ["debug"]}}},
        });
        let config = bench.file("vector.yaml", &config.to_string().replace('$', "$$"));
        let all = bench.json(&config, &["--entries", file.to_str().expect("a path")]);
        let arrived = all.iter().filter_map(|j| j["arrived"].as_array()).flatten();
        let got = arrived.flat_map(|a| a["records"].as_array().cloned().unwrap_or_default());
        let fields = [
            "body",
            "attributes",
            "resource",
            "severity_number",
            "severity_text",
            "scope_name",
        ];
        let fields: Vec<&str> = match vector["expect"]["compare"].as_array() {
            Some(only) => fields
                .into_iter()
                .filter(|f| only.contains(&json!(f)))
                .collect(),
            None => fields.to_vec(),
        };
        let only = |record: Value| {
            let mut record = record.as_object().cloned().unwrap_or_default();
            record.retain(|key, v| {
                fields.contains(&key.as_str()) && *v != json!({}) && *v != json!(0)
            });
            Value::Object(record)
        };
        let got: Vec<Value> = got.map(only).collect();
        let want = expect["entries"].as_array().into_iter().flatten();
        let want: Vec<Value> = want.cloned().map(only).collect();
        // The order is that of the records that came in, not that in which they come out.
        let count = |list: &[Value], one: &Value| list.iter().filter(|v| *v == one).count();
        // One that is expected at once may be followed by others, when their time is over.
        let waits = expect["when"] == "immediately" && text.contains("\"recombine\"");
        let same = |one: &Value| count(&got, one) == count(&want, one);
        assert!(
            (got.len() == want.len() || waits) && want.iter().all(same),
            "{}: {got:?}\n{want:?}",
            file.display()
        );
        ran += 1;
    }
    assert!(ran >= 10, "{ran} vectors ran");
}
