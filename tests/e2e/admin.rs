//! The admin API and its command line: what runs is looked at and changed, by both ways in, and nothing
//! that flows meanwhile is lost or repeated.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, binary, free_port};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// An agent with both ways in.
struct Stand {
    rig: Rig,
    config: Value,
    socket: Way,
    endpoint: Way,
    address: SocketAddr,
}

impl Stand {
    fn new(label: &str) -> Stand {
        let rig = Rig::new(label);
        let token = rig.path("token");
        fs::write(&token, format!("{TOKEN}\n")).expect("a file");
        let port = free_port().expect("a port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = rig.path("admin.sock");
        let mut config = rig.config();
        config["service"]["admin"] =
            json!({"socket": socket, "endpoint": address.to_string(), "token_file": token});
        Stand {
            rig,
            config,
            socket: Way::Socket(socket),
            endpoint: Way::Endpoint(address, Some(TOKEN.to_owned())),
            address,
        }
    }

    fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    fn ways(&self) -> [&Way; 2] {
        [&self.socket, &self.endpoint]
    }

    /// The configuration that runs, with metrics where the agent has them, changed.
    fn with(&self, agent: &Agent, change: impl FnOnce(&mut Value)) -> String {
        let text = fs::read_to_string(agent.config_file()).expect("a file");
        let mut config = serde_json::from_str(&text).expect("it is JSON");
        change(&mut config);
        config.to_string()
    }

    fn with_timeout(&self, agent: &Agent, timeout: &str) -> String {
        self.with(agent, |c| {
            c["processors"]["batch"]["timeout"] = json!(timeout)
        })
    }

    fn cli(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(binary());
        let Way::Socket(socket) = &self.socket else {
            unreachable!("it is made so")
        };
        command.args(args).env("TAILWATER_ADMIN", socket);
        texts(&command.stdin(Stdio::null()).output().expect("a process"))
    }
}

fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("no signal");
    (code, text(&output.stdout), text(&output.stderr))
}

fn live(rig: &Rig) -> LiveWriter {
    let options = LiveOptions {
        lines_per_second: 1_000,
        rotate_every_lines: None,
        lines_max: None,
    };
    LiveWriter::start(rig.writer(1, "app.log", |_| {}), options).expect("a thread")
}

fn finish(stand: &Stand, agent: Agent, live: LiveWriter) {
    live.stop().expect("written");
    stand.rig.wait_delivered(&agent);
    stand.rig.finish(agent);
}

/// Guarantees that each endpoint answers what it says, by both ways in, and that the socket is the
/// owner's alone.
#[test]
fn each_endpoint_answers_by_both_ways_in() {
    let stand = Stand::new("admin-read");
    let agent = stand.start();
    let mut writer = stand.rig.writer(1, "app.log", |_| {});
    writer.write_lines(100).expect("written");
    stand.rig.wait_delivered(&agent);
    let Way::Socket(path) = &stand.socket else {
        unreachable!("it is made so")
    };
    let mode = fs::metadata(path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for way in stand.ways() {
        let health = way.get("/v1/health").json();
        assert_eq!(
            (&health["running"], &health["live"]),
            (&json!(true), &json!(true))
        );
        let components = way.get("/v1/components").json();
        let receivers = components["receivers"].as_array().expect("a list");
        assert!(
            receivers.iter().any(|r| r["name"] == "otlp"),
            "{components}"
        );
        let yaml = way.get("/v1/config");
        assert_eq!((yaml.status, yaml.header("etag")), (200, "\"1\""));
        assert!(yaml.body.contains("filelog:"), "{}", yaml.body);
        let config = way.ask("GET", "/v1/config", &[("Accept", "application/json")], "");
        assert_eq!(config.json()["processors"], stand.config["processors"]);
        let kept = way.get("/v1/generations").json();
        assert_eq!(kept["generation"], 1);
        assert_eq!(kept["generations"][0]["by"], "start");
        let graph = way.get("/v1/graph").json();
        assert_eq!(graph["generation"], 1);
        let node = |key: &str| {
            let nodes = graph["nodes"].as_array().expect("a list");
            let found = nodes.iter().find(|n| n["key"] == key);
            found
                .unwrap_or_else(|| panic!("no {key}: {graph:#}"))
                .clone()
        };
        let receiver = node("receiver filelog (logs)");
        let exporter = node("exporter loki (logs)");
        assert_eq!(receiver["state"], "running", "{receiver:#}");
        assert_eq!(receiver["numbers"]["items_out"], 100, "{receiver:#}");
        assert_eq!(receiver["numbers"]["in_flight"], 0, "{receiver:#}");
        assert!(receiver["numbers"]["lag_bytes"].is_number(), "{receiver:#}");
        assert_eq!(exporter["numbers"]["items_out"], 100, "{exporter:#}");
        assert_eq!(exporter["numbers"]["failed"], 0, "{exporter:#}");
        assert!(
            exporter["numbers"]["queue_size"].is_number(),
            "{exporter:#}"
        );
        let batch = node("processor batch in logs");
        assert_eq!(batch["numbers"]["items_in"], 100, "{batch:#}");
        let edge = json!({"from": "receiver filelog (logs)", "to": "pipeline logs"});
        let edges = graph["edges"].as_array().expect("a list");
        assert!(edges.contains(&edge), "{graph:#}");
        let described = way.get("/v1/openapi.json").json();
        assert!(described["paths"]["/v1/graph"].is_object());
        let plan = stand.with_timeout(&agent, "33ms");
        let plan = way.ask("POST", "/v1/plan", &[], &plan).json();
        assert_eq!(plan["outcome"], "planned", "{plan}");
        let same = stand.with(&agent, |_| {});
        let same = way.ask("POST", "/v1/plan", &[], &same).json();
        assert_eq!(same["outcome"], "unchanged", "{same}");
        let reload = way.ask("POST", "/v1/reload", &[], "").json();
        assert_eq!(reload["outcome"], "unchanged", "{reload}");
        for (method, path, status) in [
            ("POST", "/", 404),
            ("GET", "/v1/nothing", 404),
            ("DELETE", "/v1/config", 405),
            ("POST", "/v1/generations/77/apply", 404),
            ("GET", "/v1/graph?x=y", 400),
            ("POST", "/v1/reload?dry_run=yes", 400),
        ] {
            let reply = way.ask(method, path, &[], "");
            assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
            assert!(reply.json()["error"].is_string());
        }
        assert_eq!(way.get("/v1/generations").json()["generation"], 1);
    }
    let allowed = stand.socket.ask("DELETE", "/v1/config", &[], "");
    assert_eq!(allowed.header("allow"), "GET, PUT");
    stand.rig.finish(agent);
}

/// Guarantees that without the token nothing is said and nothing is read, and that a body that is too
/// large is not taken.
#[test]
fn who_may_not_and_what_is_too_much_is_turned_away() {
    let stand = Stand::new("admin-denied");
    let agent = stand.start();
    let other = stand.with_timeout(&agent, "33ms");
    let large = (16 << 20) + 1;
    for token in [
        None,
        Some("x"),
        Some("0123456789abcdef0123456789abcdeF"),
        Some(""),
    ] {
        let way = Way::Endpoint(stand.address, token.map(str::to_owned));
        for (method, path) in [
            ("GET", "/v1/health"),
            ("PUT", "/v1/config"),
            ("GET", "/nothing"),
        ] {
            let reply = way.ask(method, path, &[], &other);
            assert_eq!(reply.status, 401, "{token:?} {method} {path}");
            assert_eq!(reply.header("www-authenticate"), "Bearer");
        }
        let reply = way.announce("PUT", "/v1/config", large);
        assert_eq!(reply.status, 401, "it is not waited for");
    }
    for way in stand.ways() {
        assert_eq!(way.announce("PUT", "/v1/config", large).status, 413);
        // As many as fit are read; what is no configuration is refused then.
        let full = format!("{}\nx", "#".repeat(large - 3));
        assert_eq!(way.ask("PUT", "/v1/config", &[], &full).status, 422);
        let coded = way.ask("PUT", "/v1/config", &[("Content-Encoding", "gzip")], &other);
        assert_eq!(coded.status, 415);
        let binary = way
            .try_ask("PUT", "/v1/config", &[], b"\xff\xfe")
            .expect("an answer");
        assert_eq!(binary.status, 400);
    }
    assert_eq!(stand.socket.get("/v1/generations").json()["generation"], 1);
    // Another token, from the same file.
    let Way::Endpoint(address, _) = stand.endpoint else {
        unreachable!("it is made so")
    };
    let new = stand.rig.path("new");
    fs::write(&new, TOKEN.replace('0', "9")).expect("a file");
    fs::rename(&new, stand.rig.path("token")).expect("a file");
    assert_eq!(stand.endpoint.get("/v1/health").status, 401);
    let way = Way::Endpoint(address, Some(TOKEN.replace('0', "9")));
    assert_eq!(way.get("/v1/health").status, 200);
    agent.stop_clean();
}

/// Guarantees that a change is in force when it is answered, that a dry run changes nothing, that
/// `If-Match` holds, and that a change of another one's making is not written over.
#[test]
fn changes_are_asked_for_dry_and_for_a_generation() {
    let stand = Stand::new("admin-change");
    let agent = stand.start();
    let live = live(&stand.rig);
    for (n, way) in stand.ways().into_iter().enumerate() {
        let generation = 1 + n as u64;
        let timeout = format!("{}ms", 31 + n);
        let other = stand.with_timeout(&agent, &timeout);
        let put = |query: &str, if_match: &str| {
            let headers = [("If-Match", if_match)];
            way.ask("PUT", &format!("/v1/config{query}"), &headers, &other)
        };
        let running = format!("\"{generation}\"");
        let planned = put("?dry_run=true", &running);
        assert_eq!(planned.json()["outcome"], "planned", "{}", planned.body);
        let conflict = put("", "\"77\"");
        assert_eq!((conflict.status, conflict.header("etag")), (412, &*running));
        assert_eq!(put("", "77").status, 400);
        let config = way.get("/v1/config");
        assert_eq!(config.header("etag"), running);
        assert!(!config.body.contains(&timeout));
        let applied = put("", &running);
        assert_eq!(applied.status, 200, "{}", applied.body);
        let body = applied.json();
        assert_eq!(body["outcome"], "applied");
        assert_eq!(body["generation"], generation + 1);
        assert_eq!(body["changes"], planned.json()["changes"]);
        assert!(way.get("/v1/config").body.contains(&timeout));
        assert_eq!(
            put("", &running).status,
            412,
            "it is written over by nobody"
        );
        assert_eq!(put("", "*").json()["outcome"], "unchanged");
    }
    let shown = stand.socket.get("/v1/config").body;
    assert!(!shown.contains("REDACTED"));
    let hidden = stand.with(&agent, |c| {
        c["exporters"]["loki"]["headers"] = json!({"X-Key": "[REDACTED]"});
    });
    let refused = stand.socket.ask("PUT", "/v1/config", &[], &hidden);
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("${env:NAME}"), "{}", refused.body);
    finish(&stand, agent, live);
}

/// Guarantees that one goes back to an earlier generation while lines flow, again and again.
#[test]
fn going_back_while_lines_flow_loses_and_repeats_nothing() {
    let stand = Stand::new("admin-rollback");
    let agent = stand.start();
    let live = live(&stand.rig);
    for timeout in ["31ms", "32ms"] {
        let other = stand.with_timeout(&agent, timeout);
        let reply = stand.socket.ask("PUT", "/v1/config", &[], &other);
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    for n in 0..12_u64 {
        let (target, running) = (1 + n % 3, format!("\"{}\"", 3 + n));
        let path = format!("/v1/generations/{target}/apply");
        let way = stand.ways()[n as usize % 2];
        let reply = way.ask("POST", &path, &[("If-Match", &running)], "");
        assert_eq!(reply.json()["generation"], 4 + n, "{}", reply.body);
        let timeout = ["100ms", "31ms", "32ms"][target as usize - 1];
        let config = way.get("/v1/config").body;
        assert!(
            config.contains(&format!("timeout: {timeout}")),
            "{n}: {config}"
        );
        let again = way.ask("POST", &path, &[("If-Match", &running)], "");
        assert_eq!(again.status, 412);
    }
    let kept = stand.socket.get("/v1/generations").json();
    assert_eq!(kept["generations"].as_array().map(Vec::len), Some(15));
    finish(&stand, agent, live);
}

/// A configuration that is refused, and a word that is said of it.
fn bad(n: usize, good: &Value) -> (String, &'static str) {
    let mut c = good.clone();
    let place = match n % 10 {
        0 => {
            c["receivers"]["filelog"]["include"] = json!(n);
            "receivers::filelog::include"
        }
        1 => {
            c["exporters"]["loki"]["endpoint"] = json!(format!("nowhere-{n}"));
            "exporters::loki::endpoint"
        }
        2 => {
            c["service"]["pipelines"]["logs"]["exporters"] = json!(["lokki"]);
            "lokki"
        }
        3 => {
            c["service"]["workers"] = json!(n);
            "service::workers"
        }
        4 => {
            c["processors"]["batch"]["timeouts"] = json!("1s");
            "timeout"
        }
        5 => {
            c["processors"][format!("wizard/{n}")] = json!({});
            "wizard"
        }
        6 => {
            c["service"]["admin"]["endpoint"] = json!(format!("0.0.0.0:{n}"));
            "service::admin::endpoint"
        }
        7 => {
            c["service"]["admin"]["token_file"] = json!(format!("/nothing/{n}"));
            "service::admin::token_file"
        }
        8 => {
            c["receivers"]["filelog"]["storage"] = json!("file_storage");
            "receivers::filelog::storage"
        }
        _ => return (format!("receivers: [{n}"), "yaml:"),
    };
    (c.to_string(), place)
}

/// Guarantees that fifty bad configurations, one after the other while lines flow, are each refused with
/// reasons and change nothing.
#[test]
fn fifty_bad_configurations_change_nothing() {
    let stand = Stand::new("admin-bad");
    let agent = stand.start();
    let live = live(&stand.rig);
    let good = serde_json::from_str(&stand.with(&agent, |_| {})).expect("it is JSON");
    for n in 1..=50 {
        let (config, said) = bad(n, &good);
        let way = stand.ways()[n % 2];
        let planned = way.ask("POST", "/v1/plan", &[], &config);
        let refused = way.ask("PUT", "/v1/config", &[], &config);
        assert_eq!(refused.status, 422, "{n}: {}", refused.body);
        let reasons = refused.json()["reasons"].clone();
        let text = reasons.to_string();
        assert!(text.contains(said), "{n}: {text}");
        // What only shows when it is done is not in a plan.
        if n % 10 != 7 {
            assert_eq!(planned.json()["reasons"], reasons, "{n}");
        }
    }
    let kept = stand.socket.get("/v1/generations").json();
    assert_eq!(kept["generation"], 1, "{}", tail(&agent.log()));
    finish(&stand, agent, live);
}

/// Guarantees that the ways in change while the agent runs: the new ones listen when the answer
/// comes, the old ones are closed, and one that cannot be had changes nothing.
#[test]
fn the_ways_in_change_live() {
    let stand = Stand::new("admin-ways");
    let agent = stand.start();
    let other = stand.rig.path("other/admin.sock");
    let text = stand.with(&agent, |c| c["service"]["admin"] = json!({"socket": other}));
    let reply = stand.endpoint.ask("PUT", "/v1/config", &[], &text);
    let body = reply.json();
    assert_eq!(body["changes"], json!(["update service::admin"]), "{body}");
    let new = Way::Socket(other.clone());
    assert_eq!(new.get("/v1/health").status, 200);
    let closed = |way: &Way| {
        wait::within(wait::BOUND, || {
            way.try_ask("GET", "/v1/health", &[], b"").is_err()
        })
    };
    assert!(closed(&stand.endpoint) && closed(&stand.socket));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let text = stand.with(&agent, |c| c["service"]["admin"]["endpoint"] = json!(taken));
    let refused = new.ask("PUT", "/v1/config", &[], &text);
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("cannot listen"), "{}", refused.body);
    assert_eq!(new.get("/v1/generations").json()["generation"], 2);
    assert!(
        !stand.rig.path("admin.sock").exists(),
        "what was begun is taken back"
    );
    // Without the section nothing listens, after the answer.
    let text = stand.with(&agent, |c| c["service"]["admin"] = Value::Null);
    assert_eq!(new.ask("PUT", "/v1/config", &[], &text).status, 200);
    assert!(closed(&new) && !other.exists());
    agent.stop_clean();
}

/// Guarantees what the commands print and with which code they end.
#[test]
fn the_commands_ask_and_tell() {
    let stand = Stand::new("admin-cli");
    let agent = stand.start();
    let live = live(&stand.rig);
    let (code, out, err) = stand.cli(&["status"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("state        ready\n"), "{out}");
    assert!(
        out.contains("generation   1 since ") && !out.contains('\u{1b}'),
        "{out}"
    );
    let (code, out, _) = stand.cli(&["graph"]);
    let edge = "receiver filelog (logs)  -> pipeline logs";
    assert!(code == 0 && out.contains(edge), "{out}");
    let file = stand.rig.path("new.yaml");
    let name = file.to_str().expect("UTF-8");
    fs::write(&file, stand.with_timeout(&agent, "31ms")).expect("a file");
    let (code, out, _) = stand.cli(&["plan", name]);
    assert_eq!(code, 0, "{out}");
    let mentions = out.lines().any(|l| l.contains("processor batch in logs"));
    assert!(mentions && out.starts_with("generation 1 stays"), "{out}");
    let (code, _, err) = stand.cli(&["apply", name, "--if-generation", "7"]);
    assert!(
        code == 1 && err.contains("generation 1 is in force"),
        "{err}"
    );
    let (code, out, _) = stand.cli(&["apply", name, "--dry-run"]);
    assert!(code == 0 && out.starts_with("generation 1 stays"), "{out}");
    let (code, out, _) = stand.cli(&["apply", name, "--if-generation", "1"]);
    assert!(
        code == 0 && out.starts_with("generation 2 is in force"),
        "{out}"
    );
    let (code, out, _) = stand.cli(&["apply", name]);
    assert!(code == 0 && out.starts_with("unchanged"), "{out}");
    let (code, out, _) = stand.cli(&["rollback"]);
    assert!(
        code == 0 && out.starts_with("generation 3 is in force"),
        "{out}"
    );
    let (code, out, _) = stand.cli(&["rollback", "2", "--json"]);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["generation"]), (0, &json!(4)));
    let (code, _, err) = stand.cli(&["rollback", "77"]);
    assert!(code == 1 && err.contains("not kept"), "{err}");
    let (code, out, _) = stand.cli(&["reload"]);
    assert!(
        code == 0 && out.starts_with("generation 5 is in force"),
        "{out}"
    );
    fs::write(&file, "receivers: [").expect("a file");
    for command in ["plan", "apply"] {
        let (code, _, err) = stand.cli(&[command, name]);
        assert!(code == 1 && err.contains("yaml:"), "{err}");
    }
    let url = format!("http://{}", stand.address);
    let token = stand.rig.path("token");
    let token = token.to_str().expect("UTF-8");
    let way = ["--endpoint", &url, "--token-file", token];
    let (code, out, _) = stand.cli(&[&["status", "--json"], &way[..]].concat());
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["generation"]), (0, &json!(5)));
    let wrong = stand.rig.path("wrong");
    fs::write(&wrong, "not the token at all").expect("a file");
    let wrong = wrong.to_str().expect("UTF-8");
    let (code, _, err) = stand.cli(&["status", "--endpoint", &url, "--token-file", wrong]);
    assert!(code == 1 && err.contains("token_file"), "{err}");
    let (code, _, err) = stand.cli(&["status", "--endpoint", &url]);
    assert!(code == 1 && err.contains("--token-file"), "{err}");
    let (code, _, err) = stand.cli(&["status", "--socket", "/nothing"]);
    assert!(code == 1 && err.contains("/nothing"), "{err}");
    finish(&stand, agent, live);
}

/// Guarantees that an agent whose socket is in its state directory is found without being named.
#[test]
fn the_socket_in_the_state_directory_is_found() {
    let mut stand = Stand::new("admin-found");
    let socket = stand.rig.state().join("admin.sock");
    stand.config["service"]["admin"] = json!({"socket": socket});
    let agent = stand.start();
    let ask = || {
        let mut command = Command::new(binary());
        command.arg("status").env_remove("TAILWATER_ADMIN");
        command.env("TAILWATER_STATE_DIR", stand.rig.state());
        texts(&command.stdin(Stdio::null()).output().expect("a process"))
    };
    let (code, out, err) = ask();
    assert_eq!(code, 0, "{out}{err}");
    agent.stop_clean();
    assert!(!socket.exists());
    let (code, _, err) = ask();
    assert!(code == 1 && err.contains("which agent"), "{err}");
}
