//! What is secret in a configuration is nowhere in what the agent prints, logs, serves or reports,
//! neither when all goes well nor when everything fails.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tailwater_tests::agent::{binary, free_port};
use tailwater_tests::rig::Rig;
use tailwater_tests::scrape::get;
use tailwater_tests::tls::certificate;
use tailwater_tests::wait;

/// Every secret of these tests contains it.
const MARK: &str = "hunter2";

/// An address at which nobody listens.
fn nowhere(scheme: &str, user: &str) -> String {
    let port = free_port().expect("a port");
    format!("{scheme}://{user}127.0.0.1:{port}/loki/api/v1/push")
}

/// A secret in text and, as it is sent, in Base64.
fn shows(text: &str) -> Option<String> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    // With each of the three ways in which bytes before it can shift it.
    let mut forms = vec![MARK.to_owned()];
    for before in ["", "x", "xx"] {
        let encoded = engine.encode(format!("{before}{MARK}xxx"));
        forms.push(encoded[4..encoded.len() - 8].to_owned());
    }
    text.lines()
        .find(|line| forms.iter().any(|form| line.contains(form)))
        .map(str::to_owned)
}

fn assert_silent(what: &str, text: &str) {
    if let Some(line) = shows(text) {
        panic!("{what} shows a secret: {line}");
    }
}

/// The key of a test certificate with the mark in it would be no key; so a piece of it stands for
/// the whole.
fn key_piece(pem: &str) -> String {
    let line = pem.lines().nth(2).expect("a key has more lines");
    line[..20].to_owned()
}

struct Cli {
    rig: Rig,
}

impl Cli {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("TAILWATER_STATE_DIR", self.rig.state())
            .env("TW_TOKEN", format!("{MARK}-env"))
            .env("HTTP_PROXY", nowhere("http", &format!("u:{MARK}-proxy@")))
            .env("HTTPS_PROXY", nowhere("http", &format!("u:{MARK}-proxy@")))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null());
        command
    }

    /// Everything that a command prints.
    fn output(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("the binary runs");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.rig.path(name);
        fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    }
}

/// One exporter for each place of a secret, none of which reaches anything.
fn exporters(cli: &Cli, refusing: &str) -> Value {
    let password_file = cli.write("password", &format!("{MARK}-file\n"));
    let token_file = cli.write("token", &format!("{MARK}-token-file\n"));
    let pem = |name: &str| fs::read_to_string(certificate(name)).expect("a certificate");
    json!({
        "loki/basic": {"endpoint": nowhere("http", ""),
            "basic_auth": {"username": "u", "password": format!("{MARK}-basic")}},
        "loki/bearer": {"endpoint": refusing, "bearer_token": format!("{MARK}-bearer")},
        "loki/headers": {"endpoint": refusing,
            "headers": {"X-Key": format!("{MARK}-header"), "Authorization": format!("Basic {MARK}")}},
        "loki/proxy": {"endpoint": "http://loki.invalid/loki/api/v1/push",
            "proxy_url": nowhere("http", &format!("u:{MARK}-url@"))},
        "loki/environment_proxy": {"endpoint": "http://loki.invalid/loki/api/v1/push"},
        "loki/https_proxy": {"endpoint": "https://loki.invalid/loki/api/v1/push"},
        "loki/userinfo": {"endpoint": nowhere("http", &format!("u:{MARK}-userinfo@"))},
        "loki/env": {"endpoint": nowhere("http", ""), "bearer_token": "${env:TW_TOKEN}"},
        "loki/file": {"endpoint": nowhere("http", ""),
            "basic_auth": {"username": "u", "password_file": password_file}},
        "loki/token_file": {"endpoint": refusing, "bearer_token_file": token_file},
        "loki/tls": {"endpoint": nowhere("https", ""), "tls": {
            "cert_pem": pem("client1.pem"), "key_pem": pem("client1.key"),
            "ca_file": certificate("ca1.pem"),
        }},
    })
}

/// A running agent, killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The parts of an archive of diagnostics, all of which there are.
fn unpack(archive: &Path) -> Vec<(String, String)> {
    let file = File::open(archive).expect("an archive");
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut parts = Vec::new();
    for entry in tar.entries().expect("a tar file") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let name = path
            .strip_prefix("tailwater-diagnostics")
            .expect("in one folder");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        parts.push((name.display().to_string(), text));
    }
    assert_eq!(
        parts.len(),
        12,
        "{:?}",
        parts.iter().map(|p| &p.0).collect::<Vec<_>>()
    );
    parts
}

/// Guarantees that an agent at the level `debug` that fails to deliver with every kind of credential
/// shows none of them: not in its log, its metrics, its health, its dead letters, its command line,
/// its diagnostics, nor in what `validate` and `print-config` print.
#[test]
fn no_output_of_an_agent_that_fails_everywhere_shows_a_secret() {
    let cli = Cli {
        rig: Rig::new("secrets"),
    };
    // Not 401: what is refused for its credentials is tried again after half a minute only.
    cli.rig.loki.set_faults(|f| f.status_503 = 1.0);
    let mut config = cli.rig.config();
    let (metrics, health) = (free_port().expect("a port"), free_port().expect("a port"));
    config["exporters"] = exporters(&cli, &cli.rig.loki.push_url());
    let ids: Vec<String> = config["exporters"]
        .as_object()
        .expect("a map")
        .keys()
        .cloned()
        .collect();
    for id in &ids {
        config["exporters"][id]["labels"] = json!({"static": {"job": "e2e"}});
        config["exporters"][id]["retry_on_failure"] =
            json!({"initial_interval": "50ms", "max_interval": "100ms"});
        config["exporters"][id]["dead_letter_file"] = json!(cli.rig.path("dead"));
    }
    config["extensions"]["health_check"] = json!({"endpoint": format!("127.0.0.1:{health}")});
    let inline = format!("u:{MARK}-inline");
    config["extensions"]["basicauth/server"] = json!({"htpasswd": {"inline": inline}});
    let tokens = [format!("{MARK}-tokens")];
    config["extensions"]["bearertokenauth/server"] = json!({"tokens": tokens});
    config["service"]["extensions"] =
        json!(["health_check", "basicauth/server", "bearertokenauth/server"]);
    let socket = cli.rig.path("admin.sock");
    config["service"]["admin"] = json!({"socket": socket});
    config["service"]["pipelines"]["logs"]["exporters"] = json!(ids);
    config["service"]["telemetry"] = json!({
        "logs": {"level": "debug", "sampling": {"enabled": false}},
        "metrics": {"level": "detailed", "readers": [
            {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": metrics}}}},
        ]},
    });
    let piece = key_piece(&fs::read_to_string(certificate("client1.key")).expect("a key"));
    let file = cli.write("agent.yaml", &config.to_string());
    for args in [
        &["validate", "--config", &file][..],
        &["print-config", "--config", &file],
        &["print-config", "--config", &file, "--format", "json"],
        &["print-config", "--config", &file, "--validate=false"],
        &["checkpoints", "list"],
    ] {
        let text = cli.output(args);
        assert_silent(&args.join(" "), &text);
        assert!(!text.contains(&piece), "{args:?} shows the key: {text}");
    }
    cli.rig
        .writer(1, "a.log", |_| {})
        .write_lines(10)
        .expect("written");
    let log = cli.rig.path("log");
    let child = cli
        .command(&["--config", &file])
        .stdout(File::create(log.with_extension("out")).expect("a file"))
        .stderr(File::create(&log).expect("a file"))
        .spawn();
    let agent = Running(child.expect("the binary runs"));
    let failing = |id: &String| {
        read(&log)
            .lines()
            .any(|l| l.contains(id) && l.contains("rror"))
    };
    let all = wait::within(wait::BOUND, || ids.iter().all(failing));
    let quiet: Vec<_> = ids.iter().filter(|id| !failing(id)).collect();
    assert!(all, "nothing is said of {quiet:?}:\n{}", read(&log));
    // Files that become unusable are reported, too.
    fs::write(cli.rig.path("password"), format!("{MARK}\u{1}\n")).expect("written");
    fs::write(cli.rig.path("token"), "").expect("written");
    let reread = || read(&log).contains("using the credentials that were read before");
    assert!(wait::within(wait::BOUND, reread), "{}", read(&log));
    let archive = cli.rig.path("diagnostics.tar.gz");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let args = [
        "diagnostics",
        "--socket",
        &text(&socket),
        "--output",
        &text(&archive),
    ];
    assert_silent("what diagnostics prints", &cli.output(&args));
    for (name, part) in unpack(&archive) {
        assert_silent(&name, &part);
        assert!(!part.contains(&piece), "{name} shows the key");
        assert!(
            !part.trim().is_empty() && !part.contains("TW_TOKEN="),
            "{name}: {part}"
        );
        let expected = match name.as_str() {
            "config.yaml" => "[REDACTED]",
            "log.txt" => "using the credentials that were read before",
            "metrics.txt" => "otelcol_exporter_",
            "graph.json" => "exporter loki/basic (logs)",
            "files.json" => "a.log",
            "health.json" => "loki/bearer",
            "process.json" => "rss_bytes",
            "system.json" => "Max open files",
            "generations.json" => "\"by\": \"start\"",
            "about.json" => env!("CARGO_PKG_VERSION"),
            "components.json" => "prometheus_remote_write",
            "README.txt" => "look through it before you",
            _ => panic!("{name} is new: say what is in it"),
        };
        assert!(part.contains(expected), "{name} lacks {expected:?}: {part}");
    }
    let mode = fs::metadata(&archive).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = cli.output(&args);
    assert!(
        again.contains("cannot make the file"),
        "it is not written over: {again}"
    );
    let address = |port: u16| ([127, 0, 0, 1], port).into();
    for (what, text) in [
        ("the log", read(&log)),
        ("the output", read(&log.with_extension("out"))),
        (
            "the command line",
            read(&PathBuf::from(format!("/proc/{}/cmdline", agent.0.id()))),
        ),
        (
            "the metrics",
            get(address(metrics), "/metrics").expect("metrics"),
        ),
        ("the health", get(address(health), "/").expect("an answer")),
        ("the dead letters", read(&cli.rig.path("dead"))),
    ] {
        assert_silent(what, &text);
        assert!(!text.contains(&piece), "{what} shows the key");
    }
}

/// Guarantees that a mistake in an option that holds a secret is reported without it.
#[test]
fn no_error_about_a_secret_quotes_it() {
    let cli = Cli {
        rig: Rig::new("secret-mistakes"),
    };
    let secret = format!("{MARK}-wrong");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
    let good = nowhere("http", "");
    let cases = [
        json!({"endpoint": good, "bearer_token": [secret]}),
        json!({"endpoint": good, "bearer_token": {"a": secret}}),
        json!({"endpoint": good, "bearer_token": format!("{secret}\nx")}),
        json!({"endpoint": good, "basic_auth": secret}),
        json!({"endpoint": good, "basic_auth": {"username": "u", "password": [secret]}}),
        json!({"endpoint": good, "basic_auth": {"username": "u:v", "password": secret}}),
        json!({"endpoint": good, "basic_auth": {"password": secret}, "bearer_token": secret}),
        json!({"endpoint": good, "headers": secret}),
        json!({"endpoint": good, "headers": [secret]}),
        json!({"endpoint": good, "headers": {"X": [secret]}}),
        json!({"endpoint": good, "headers": {"X": format!("{secret}\nx")}}),
        json!({"endpoint": good, "headers": {"X Y": secret}}),
        json!({"endpoint": good, "tls": {"key_pem": pem}}),
        json!({"endpoint": good, "tls": {"key_pem": pem, "cert_pem": pem}}),
        json!({"endpoint": good, "tls": {"key_pem": secret, "cert_pem": "x"}}),
        json!({"endpoint": good, "proxy_url": format!("http://u:{secret}@h:99999")}),
        json!({"endpoint": good, "proxy_url": format!("socks4://u:{secret}@h:1")}),
        json!({"endpoint": good, "proxy_url": format!("http://u:{secret}@")}),
        json!({"endpoint": good, "proxy_url": format!("u:{secret}@h:1")}),
        json!({"endpoint": good, "proxy_url": [format!("http://u:{secret}@h:1")]}),
        json!({"endpoint": format!("http://u:{secret}@h:99999/")}),
        json!({"endpoint": format!("ftp://u:{secret}@h/")}),
        json!({"endpoint": format!("u:{secret}@h/loki")}),
        json!({"endpoint": format!("http://u:{secret}@/loki")}),
        json!({"endpoint": format!("http://u:{secret}\u{1}@h/loki")}),
        json!({"endpoint": format!("http://u:{secret}@h h/loki")}),
        json!({"endpoint": format!("https://u:{secret}@h/"), "compression": "gzip"}),
    ];
    for exporter in cases {
        let mut config = cli.rig.config();
        config["exporters"]["loki"] = exporter.clone();
        let file = cli.write("agent.yaml", &config.to_string());
        // What is no mistake to the checks is one when it starts, and both have to be silent.
        for args in [&["validate", "--config", &file][..], &["--config", &file]] {
            let child = cli
                .command(args)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut child = child.expect("the binary runs");
            let ended = wait::for_some(wait::BOUND, || child.try_wait().ok().flatten());
            let _ = child.kill();
            let output = child.wait_with_output().expect("its output");
            let text =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(
                ended.is_some_and(|s| s.code() == Some(1)),
                "{exporter} is no mistake: {text}"
            );
            assert_silent(&exporter.to_string(), &text);
        }
    }
    // Text that is no YAML, and values from elsewhere.
    for text in [
        format!("exporters: {{loki: {{bearer_token: \"{secret}}}}}"),
        format!("exporters:\n  loki:\n    bearer_token: {secret}: x: [\n"),
        format!("exporters:\n\tloki: {{bearer_token: {secret}}}"),
        format!("exporters: {{loki: {{bearer_token: &a {secret}, bearer_token: *b}}}}"),
        format!("exporters: {{loki: {{bearer_token: {secret}, bearer_token: {secret}}}}}"),
        "exporters: {loki: {bearer_token: \"${env:TW_TOKEN}}\", endpoint: \"${env:TW_TOKEN\"}}"
            .to_owned(),
        "receivers: ${env:TW_TOKEN}".to_owned(),
    ] {
        let file = cli.write("agent.yaml", &text);
        for command in ["validate", "print-config"] {
            assert_silent(&text, &cli.output(&[command, "--config", &file]));
        }
    }
    let file = cli.write("agent.yaml", &cli.rig.config().to_string());
    for set in [
        format!("exporters.loki.bearer_token=[{secret}"),
        format!("exporters.loki.bearer_token=[{secret}]"),
        format!("exporters.loki.headers.X={{a: {secret}}}"),
    ] {
        let args = ["validate", "--config", &file, "--set", &set];
        assert_silent(&set, &cli.output(&args));
    }
}
