//! Taps: records of all signals are seen as they pass, by both ways in and on the command line, through
//! changes; and whoever looks holds up nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tailwater_testkit::otlp::OtlpStandIn;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::admin::{Lines, Way};
use tailwater_tests::agent::{Agent, binary, free_port};
use tailwater_tests::otlp_client::{HttpClient, log_proto, metric_proto, span_proto};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A place for an agent with both ways in.
struct Stand {
    rig: Rig,
    socket: Way,
    endpoint: Way,
    admin: Value,
}

impl Stand {
    fn new(label: &str) -> Stand {
        let rig = Rig::new(label);
        let token = rig.path("token");
        fs::write(&token, TOKEN).expect("a file");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
        let socket = rig.path("admin.sock");
        Stand {
            admin: json!({"socket": socket, "endpoint": address.to_string(), "token_file": token}),
            socket: Way::Socket(socket),
            endpoint: Way::Endpoint(address, Some(TOKEN.to_owned())),
            rig,
        }
    }

    fn start(&self) -> Agent {
        let mut config = self.rig.config();
        config["service"]["admin"] = self.admin.clone();
        self.rig.start(&config)
    }

    /// The configuration that runs, changed.
    fn put(&self, agent: &Agent, change: impl FnOnce(&mut Value)) {
        let text = fs::read_to_string(agent.config_file()).expect("a file");
        let mut config = serde_json::from_str(&text).expect("it is JSON");
        change(&mut config);
        let reply = self
            .socket
            .ask("PUT", "/v1/config", &[], &config.to_string());
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    fn live(&self) -> LiveWriter {
        let options = LiveOptions {
            lines_per_second: 1_000,
            rotate_every_lines: None,
            lines_max: None,
        };
        LiveWriter::start(self.rig.writer(1, "app.log", |_| {}), options).expect("a thread")
    }

    fn tailwater(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        let Way::Socket(socket) = &self.socket else {
            unreachable!("it is made so")
        };
        command.args(args).env("TAILWATER_ADMIN", socket);
        command.stdin(Stdio::null());
        command
    }
}

/// The path of a tap.
fn at(node: &str, more: &str) -> String {
    format!("/v1/tap?node={}{more}", node.replace(' ', "+"))
}

fn open(way: &Way, node: &str, more: &str) -> Lines {
    let lines = way.follow(&at(node, more));
    assert_eq!(lines.reply.status, 200, "{node}");
    assert_eq!(lines.reply.header("content-type"), "application/x-ndjson");
    lines
}

/// What a line is.
enum Line {
    Record(Value),
    Counts {
        passed: u64,
        left_out: u64,
        missed: u64,
    },
    End(String),
}

fn next(lines: &mut Lines) -> Option<Line> {
    let text = lines.next_line().expect("a line or the end")?;
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("{text}"));
    Some(if value["record"].is_object() {
        Line::Record(value["record"].clone())
    } else if let Some(end) = value["end"].as_str() {
        Line::End(end.to_owned())
    } else {
        Line::Counts {
            passed: number("passed"),
            left_out: number("left_out"),
            missed: number("missed"),
        }
    })
}

fn next_record(lines: &mut Lines) -> Value {
    loop {
        match next(lines) {
            Some(Line::Record(record)) => return record,
            Some(Line::Counts { .. }) => {}
            Some(Line::End(why)) => panic!("it ended: {why}"),
            None => panic!("it broke off"),
        }
    }
}

/// The rest of a tap: how many records, what was counted at last, and why it ended.
fn rest(lines: &mut Lines) -> (u64, [u64; 3], String) {
    let (mut records, mut counts) = (0, [0; 3]);
    loop {
        match next(lines) {
            Some(Line::Record(_)) => records += 1,
            Some(Line::Counts {
                passed,
                left_out,
                missed,
            }) => counts = [passed, left_out, missed],
            Some(Line::End(why)) => {
                assert!(next(lines).is_none(), "the end is the last line");
                return (records, counts, why);
            }
            None => panic!("it broke off"),
        }
    }
}

/// Guarantees that a record of each signal is seen before and after a processor, at a receiver and at an
/// exporter, with its content, its edge and its time, by both ways in.
#[test]
fn each_signal_is_seen_at_each_place() {
    let stand = Stand::new("tap-signals");
    let sink = OtlpStandIn::start(None).expect("a server");
    let port = free_port().expect("a port");
    let pipeline =
        json!({"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp_http"]});
    let config = json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "processors": {"batch": {"timeout": "20ms"}},
        "exporters": {"otlp_http": {"endpoint": sink.http_url()}},
        "service": {
            "admin": stand.admin,
            "pipelines": {"logs": pipeline, "metrics": pipeline, "traces/x": pipeline},
        },
    });
    let agent = stand.rig.start(&config);
    let cases = [
        ("logs", "logs", "/v1/logs", log_proto("a body")),
        (
            "metrics",
            "metrics",
            "/v1/metrics",
            metric_proto("a.metric"),
        ),
        ("traces", "traces/x", "/v1/traces", span_proto("a span")),
    ];
    for (signal, pipeline, path, body) in cases {
        let [receiver, exporter] =
            ["receiver otlp", "exporter otlp_http"].map(|node| format!("{node} ({signal})"));
        let [whole, batch] = [
            format!("pipeline {pipeline}"),
            format!("processor batch in {pipeline}"),
        ];
        let taps = [
            (&receiver, "", &receiver, &whole),
            (&batch, "&side=in", &whole, &batch),
            (&batch, "&side=out", &batch, &exporter),
            (&exporter, "&side=in", &batch, &exporter),
        ];
        let ways = [&stand.socket, &stand.endpoint].into_iter().cycle();
        let opened = taps
            .iter()
            .zip(ways)
            .map(|((node, side, _, _), way)| open(way, node, &format!("{side}&limit=1")));
        let mut opened: Vec<Lines> = opened.collect();
        let mut client = HttpClient::connect(port).expect("it listens");
        let answer = client.post(path, "application/x-protobuf", "identity", &body);
        assert_eq!(answer.expect("an answer").status, 200);
        for (lines, (_, _, from, to)) in opened.iter_mut().zip(taps) {
            let record = next_record(lines);
            assert_eq!(record["signal"], signal, "{record:#}");
            assert_eq!(record["edge"]["from"], **from, "{record:#}");
            assert_eq!(record["edge"]["to"], **to, "{record:#}");
            assert_eq!(record["edge"]["pipeline"], pipeline);
            assert_eq!(record["edge"]["exporter"], "otlp_http");
            assert_eq!(record["truncated"], false);
            assert!(record["time"].as_str().is_some_and(|t| t.ends_with('Z')));
            assert!(record["resource"].is_object() && record["scope"].is_object());
            match signal {
                "logs" => assert_eq!(record["logRecord"]["body"]["stringValue"], "a body"),
                "metrics" => {
                    assert_eq!(record["metric"]["name"], "a.metric");
                    let points = &record["metric"]["gauge"]["dataPoints"];
                    assert_eq!(points[0]["asDouble"].as_f64(), Some(1.0), "{record:#}");
                }
                _ => {
                    assert_eq!(record["span"]["name"], "a span");
                    assert_eq!(record["span"]["traceId"], "07".repeat(16));
                }
            }
            let (more, counts, why) = rest(lines);
            assert_eq!((more, counts), (0, [1, 0, 0]));
            assert_eq!(why, "1 records were shown, as asked for");
        }
    }
    agent.stop_clean();
}

/// Guarantees that a tap stays where it is when the configuration changes, its node included, ends with a
/// line that says so when the node is gone, and that nothing is lost or repeated by all of it.
#[test]
fn a_tap_goes_through_changes_until_its_node_is_gone() {
    let stand = Stand::new("tap-changes");
    let agent = stand.start();
    let live = stand.live();
    let mut batch = open(
        &stand.socket,
        "processor batch in logs",
        "&side=out&rate=100",
    );
    let mut receiver = open(&stand.endpoint, "receiver filelog (logs)", "&rate=100");
    for n in 1..=5 {
        for lines in [&mut batch, &mut receiver] {
            let record = next_record(lines);
            let body = record["logRecord"]["body"]["stringValue"].as_str();
            assert!(body.is_some_and(|b| !b.is_empty()), "{record:#}");
        }
        stand.put(&agent, |c| {
            c["processors"]["batch"]["timeout"] = json!(format!("{}ms", 30 + n));
            c["receivers"]["filelog"]["poll_interval"] = json!(format!("{}ms", 50 + n));
        });
    }
    stand.put(&agent, |c| {
        c["service"]["pipelines"]["logs"]["processors"] = json!([]);
    });
    let (_, [passed, left_out, _], why) = rest(&mut batch);
    assert_eq!(why, "processor batch in logs is not in generation 7");
    assert!(passed > 0 && left_out <= passed);
    // The other one is still there, with what follows it now.
    let record = next_record(&mut receiver);
    assert_eq!(record["edge"]["to"], "pipeline logs");
    drop(receiver);
    live.stop().expect("written");
    stand.rig.wait_delivered(&agent);
    stand.rig.finish(agent);
}

/// Guarantees that whoever opens a tap and does not read holds up nothing, and is told how much they missed.
#[test]
fn who_does_not_read_holds_up_nothing() {
    let stand = Stand::new("tap-slow");
    let agent = stand.start();
    let mut slow = open(
        &stand.socket,
        "receiver filelog (logs)",
        "&rate=1000&seconds=3600",
    );
    let mut writer = stand
        .rig
        .writer(1, "app.log", |w| w.pad_bytes = 6_000..=6_000);
    writer.write_lines(5_000).expect("written");
    stand.rig.wait_delivered(&agent);
    // Ends it: with the section both ways in are made anew.
    stand.put(&agent, |c| {
        let admin = c["service"]["admin"].as_object_mut().expect("a map");
        admin.remove("endpoint");
        admin.remove("token_file");
    });
    let (shown, [passed, left_out, missed], why) = rest(&mut slow);
    assert_eq!(why, "this way in is closed");
    assert_eq!(passed, 5_000);
    assert_eq!(shown + left_out, passed);
    assert!(
        shown > 0 && missed > 0 && missed <= left_out,
        "{shown} {missed}"
    );
    stand.rig.finish(agent);
}

/// Guarantees that what cannot be tapped is refused with its reason, that taps are few, and that a client
/// that goes leaves nothing behind.
#[test]
fn taps_are_few_and_refused_with_reasons() {
    let stand = Stand::new("tap-refused");
    let agent = stand.start();
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid()));
        tasks.expect("a process").count()
    };
    let before = threads();
    for way in [&stand.socket, &stand.endpoint] {
        for (path, status, said) in [
            ("/v1/tap".to_owned(), 400, "node is missing"),
            (
                at("processor batsh in logs", ""),
                404,
                "processor batch in logs",
            ),
            (at("nothing like it", ""), 404, "/v1/graph"),
            (at("receiver filelog (logs)", "&side=in"), 422, "side out"),
            (at("exporter loki (logs)", "&side=out"), 422, "side in"),
            (at("pipeline logs", "&rate=1001"), 400, "1 to 1000"),
            (at("pipeline logs", "&seconds=0"), 400, "1 to 3600"),
            (at("pipeline logs", "&dry_run=true"), 400, "dry_run"),
        ] {
            let reply = way.get(&path);
            assert_eq!(reply.status, status, "{path}: {}", reply.body);
            let error = reply.json()["error"].as_str().expect("a text").to_owned();
            assert!(error.contains(said), "{path}: {error}");
        }
    }
    let Way::Endpoint(address, _) = stand.endpoint else {
        unreachable!("it is made so")
    };
    let stranger = Way::Endpoint(address, None);
    assert_eq!(stranger.get(&at("pipeline logs", "")).status, 401);
    for _ in 0..3 {
        let all: Vec<Lines> = (0..4)
            .map(|_| open(&stand.socket, "pipeline logs", ""))
            .collect();
        let refused = stand.endpoint.get(&at("pipeline logs", ""));
        assert_eq!(refused.status, 429, "{}", refused.body);
        assert!(refused.body.contains("4 taps are open"), "{}", refused.body);
        drop(all);
        // Who has gone makes room.
        let gone = wait::within(wait::BOUND, || threads() == before);
        assert!(gone, "{} threads, not {before}", threads());
    }
    agent.stop_clean();
}

/// Guarantees that a tap ends with a line that says why when its way in closes, and when the agent stops.
#[test]
fn a_tap_ends_with_its_way_in_and_with_the_agent() {
    let stand = Stand::new("tap-ends");
    let mut agent = stand.start();
    let more = "&seconds=3600";
    let mut taps = [&stand.socket, &stand.endpoint].map(|way| open(way, "pipeline logs", more));
    stand.put(&agent, |c| {
        let admin = c["service"]["admin"].as_object_mut().expect("a map");
        admin.remove("endpoint");
        admin.remove("token_file");
    });
    for lines in &mut taps {
        assert_eq!(rest(lines).2, "this way in is closed");
    }
    let mut last = open(&stand.socket, "pipeline logs", more);
    agent.terminate();
    assert_eq!(rest(&mut last).2, "the agent stops");
    let status = agent.wait_end(wait::BOUND).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

/// Guarantees what the command prints, that it ends by a limit and by Ctrl-C, and with which codes.
#[test]
fn the_command_shows_a_line_for_each_record() {
    let stand = Stand::new("tap-cli");
    let agent = stand.start();
    let live = stand.live();
    let run = |args: &[&str]| {
        let output = stand.tailwater(args).output().expect("a process");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, out, err) = run(&["tap", "filelog", "--limit", "3"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(
        out.lines()
            .all(|l| l.contains("log.file.name=app.log") && l.contains('T')),
        "{out}"
    );
    assert!(
        err.starts_with("3 shown, ") && err.contains("as asked for"),
        "{err}"
    );
    let node = "processor batch in logs";
    let (code, out, _) = run(&["tap", node, "--after", "--limit", "1", "--json"]);
    assert_eq!(code, Some(0));
    let lines: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let record = lines.iter().find(|l| l["record"].is_object());
    assert_eq!(record.expect("one")["record"]["edge"]["from"], node);
    assert!(lines.last().is_some_and(|l| l["end"].is_string()), "{out}");
    let (code, _, err) = run(&["tap", "nothing"]);
    assert!(
        code == Some(1) && err.contains("receiver filelog (logs)"),
        "{err}"
    );
    let (code, _, err) = run(&["tap", "filelog", "--before"]);
    assert!(code == Some(1) && err.contains("side out"), "{err}");
    assert_eq!(run(&["tap", "filelog", "--before", "--after"]).0, Some(2));
    interrupted(&stand);
    live.stop().expect("written");
    stand.rig.wait_delivered(&agent);
    stand.rig.finish(agent);
}

/// Ctrl-C ends a tap that has shown something, with what was counted.
fn interrupted(stand: &Stand) {
    let mut command = stand.tailwater(&["tap", "logs"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut first = String::new();
    out.read_line(&mut first).expect("a line");
    assert!(first.contains("app.log"), "{first}");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), Signal::INT).expect("a child that was not reaped");
    out.read_to_string(&mut first).expect("text");
    let status = child.wait().expect("a process");
    let mut err = String::new();
    let stderr = child.stderr.as_mut().expect("piped");
    stderr.read_to_string(&mut err).expect("text");
    assert_eq!(status.code(), Some(0), "{err}");
    let shown = first.lines().count();
    assert!(err.starts_with(&format!("{shown} shown, ")), "{err}");
    assert!(
        err.contains(" passed, ") && err.contains(" left out"),
        "{err}"
    );
}
