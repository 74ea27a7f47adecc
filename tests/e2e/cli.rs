//! The command line: what it prints, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::{binary, free_port, has_place, run_once};
use tailwater_tests::configs::GOOD;
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

struct Cli {
    dir: TempDir,
}

impl Cli {
    fn new() -> Cli {
        Cli {
            dir: TempDir::new("cli").expect("a temporary directory"),
        }
    }

    fn file(&self, text: &str) -> String {
        let path = self.dir.join("agent.yaml");
        fs::write(&path, text).expect("written");
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        texts(&run_once(args, &self.dir.join("state")).expect("the binary runs"))
    }
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Guarantees that a good file is accepted silently on stdout and with code 0.
#[test]
fn validate_accepts_a_good_file() {
    let cli = Cli::new();
    let (code, _, err) = cli.run(&["validate", "--config", &cli.file(GOOD)]);
    assert_eq!(code, Some(0), "{err}");
}

/// Guarantees that all mistakes are shown at once, each with its place and the nearest spelling.
#[test]
fn validate_shows_every_mistake_with_its_place() {
    let cli = Cli::new();
    let bad = GOOD
        .replace("start_at: beginning", "start_at: begining")
        .replace("poll_interval: 200ms", "pol_interval: 200ms")
        .replace("timeout: 1s", "timeout: soon")
        .replace("endpoint: http", "endpont: http");
    let file = cli.file(&bad);
    let (code, _, err) = cli.run(&["validate", "--config", &file]);
    assert_eq!(code, Some(1), "{err}");
    for (place, found, hint) in [
        (":4:15:", "begining", "beginning"),
        (":5:5:", "pol_interval", "poll_interval"),
        (":12:14:", "soon", ""),
        (":15:5:", "endpont", "endpoint"),
    ] {
        let line = err
            .lines()
            .find(|l| l.contains(&format!("{file}{place}")) && l.contains(found));
        let line = line.unwrap_or_else(|| panic!("no message at {place}:\n{err}"));
        assert!(line.contains(hint), "{line}");
    }
}

/// Guarantees that what is not supported is named, with its place; nothing is ignored.
#[test]
fn an_unsupported_type_is_named() {
    let cli = Cli::new();
    let cases = [
        (
            "  batch:\n",
            "  tail_sampling:\n    x: 1\n  batch:\n",
            "tail_sampling",
        ),
        (
            "exporters:\n  loki:",
            "exporters:\n  kafka/x: {}\n  loki:",
            "kafka/x",
        ),
        ("type: regex_parser", "type: csv_wizard", "csv_wizard"),
    ];
    for (from, to, name) in cases {
        assert!(GOOD.contains(from));
        let file = cli.file(&GOOD.replacen(from, to, 1));
        let (code, _, err) = cli.run(&["validate", "--config", &file]);
        assert_eq!(code, Some(1), "{name}: {err}");
        let named = err.lines().any(|l| has_place(l, &file) && l.contains(name));
        assert!(named, "{name} is not named with a place:\n{err}");
        let (code, _, run_err) = cli.run(&["--config", &file]);
        assert_eq!(
            (code, run_err.contains(name)),
            (Some(1), true),
            "run refuses too: {run_err}"
        );
    }
}

/// Guarantees that an authenticator which is not there, does not run or has not the side that is
/// wanted is said where it is named.
#[test]
fn an_authenticator_that_cannot_do_it_is_a_mistake() {
    let cli = Cli::new();
    let named = "/loki/api/v1/push\n    auth: {authenticator: basicauth}";
    let of_clients = "{client_auth: {username: a, password: b}}";
    for (extension, runs, want) in [
        (None, false, "extension \"basicauth\" is not configured"),
        (Some(of_clients), false, "add it to service::extensions"),
        (
            Some("{htpasswd: {inline: 'a:b'}}"),
            true,
            "has no credentials to send",
        ),
        (Some(of_clients), true, ""),
    ] {
        let mut text = GOOD.replace("/loki/api/v1/push", named);
        if let Some(options) = extension {
            text = format!("extensions: {{basicauth: {options}}}\n{text}");
        }
        if runs {
            text = text.replace("service:", "service:\n  extensions: [basicauth]");
        }
        let file = cli.file(&text);
        let (code, _, err) = cli.run(&["validate", "--config", &file]);
        assert_eq!(code, Some(i32::from(!want.is_empty())), "{err}");
        let place = "exporters::loki::auth::authenticator";
        let said = |l: &str| has_place(l, &file) && l.contains(place) && l.contains(want);
        assert!(want.is_empty() || err.lines().any(said), "{want}: {err}");
    }
}

/// Guarantees that mistakes of all parts are shown together, in the order of the file: of the top
/// level, of the service, of telemetry, of pipelines and of components.
#[test]
fn mistakes_of_all_parts_are_shown_together() {
    let cli = Cli::new();
    let bad = format!(
        "recievers: {{}}\n{}  telemetry: {{logs: {{level: loud}}}}\n  pipeline: {{}}\n",
        GOOD.replace("  batch:", "  tail_sampling:\n  bacth:\n  batch:")
            .replace(
                "[/var/log/app/*.log]",
                "[/var/log/app/*.log]\n    storage: file_storage/x"
            )
            .replace(
                "    logs:",
                "    metrics: {receivers: [filelog], exporters: [loki]}\n    logs:"
            )
    );
    let file = cli.file(&bad);
    let (code, _, err) = cli.run(&["validate", "--config", &file]);
    assert_eq!(code, Some(1), "{err}");
    let mistakes: Vec<&str> = err.lines().filter(|l| has_place(l, &file)).collect();
    for (i, parts) in [
        &["recievers", "did you mean \"receivers\"?"] as &[&str],
        &["receivers::filelog::storage", "file_storage/x"],
        &[
            "tail_sampling",
            "the collector has this processor, this build does not",
        ],
        &["bacth", "did you mean \"batch\"?"],
        &[
            "service::pipelines::metrics",
            "receiver \"filelog\" does not support metrics",
        ],
        &[
            "service::pipelines::metrics",
            "exporter \"loki\" does not support metrics",
        ],
        &["service::telemetry::logs::level", "found \"loud\"", "warn"],
        &["service::pipeline", "did you mean \"pipelines\"?"],
    ]
    .iter()
    .enumerate()
    {
        let line = mistakes.get(i).copied().unwrap_or_default();
        let all = parts.iter().all(|part| line.contains(part));
        assert!(all, "mistake {i} is not {parts:?}: {line}\n{err}");
    }
    assert_eq!(mistakes.len(), 8, "{err}");
}

/// Guarantees that what is accepted without having an effect is said, by `validate` and by `run`.
#[test]
fn what_has_no_effect_is_warned_about() {
    let cli = Cli::new();
    let text = GOOD
        .replace("timeout: 1s", "timeout: 1000\n    metadata_keys: [tenant]")
        .replace("poll_interval: 200ms", "max_batches: 3");
    let file = cli.file(&text);
    let (code, out, err) = cli.run(&["validate", "--config", &file, "--feature-gates", "-a,+b"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    for part in [
        "--feature-gates",
        "\"filelog\" alias is deprecated; use \"file_log\" instead",
        "receivers::filelog::max_batches",
        "processors::batch::metadata_keys",
        "processors::batch::timeout: 1000 without a unit is 1us",
    ] {
        let said = err
            .lines()
            .any(|l| l.starts_with("warning: ") && l.contains(part));
        assert!(said, "{part:?} is not said:\n{err}");
    }
    let rig = Rig::new("warnings");
    let mut config = rig.config();
    config["receivers"]["filelog"]["max_batches"] = 3.into();
    let agent = rig.start(&config);
    let log = agent.log();
    agent.stop_clean();
    assert!(log.contains("max_batches"), "{log}");
}

/// Guarantees that the storage a receiver names is looked up before anything starts.
#[test]
fn a_storage_that_does_not_run_is_a_mistake() {
    let cli = Cli::new();
    let with = |extensions: &str, run: &str| {
        let text = GOOD
            .replace(
                "    poll_interval",
                "    storage: file_storage/a\n    poll_interval",
            )
            .replace(
                "service:\n",
                &format!("extensions: {extensions}\nservice:\n  extensions: {run}\n"),
            );
        cli.run(&["validate", "--config", &cli.file(&text)])
    };
    let (code, _, err) = with("{file_storage/a: {directory: /tmp}}", "[file_storage/a]");
    assert_eq!(code, Some(0), "{err}");
    for (extensions, run, part) in [
        ("{file_storage: }", "[file_storage]", "not configured"),
        ("{file_storage/a: }", "[]", "add it to service::extensions"),
    ] {
        let (code, _, err) = with(extensions, run);
        assert!(code == Some(1) && err.contains(part), "{extensions}: {err}");
    }
}

/// Guarantees that the signal for a reload does not end an agent that cannot reload, and is
/// answered.
#[test]
fn a_hang_up_is_answered_and_survived() {
    let rig = Rig::new("hangup");
    let mut writer = rig.writer(1, "app.log", |_| {});
    let agent = rig.start(&rig.config());
    agent.signal(Signal::HUP);
    let said = wait::within(wait::BOUND, || agent.log().contains("SIGHUP"));
    assert!(said, "{}", agent.log());
    writer.write_lines(100).expect("written");
    rig.wait_delivered(&agent);
    agent.stop_clean();
}

/// Guarantees that the demo accounts for each file and ends with code 0 if all of it arrived.
#[test]
fn the_demo_accounts_for_every_file() {
    let cli = Cli::new();
    let (code, out, err) = cli.run(&["demo", "--seconds", "2", "--files", "3", "--rate", "90000"]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    let number = |line: &str, i: usize| -> u64 {
        let column = line.split_whitespace().nth(i).unwrap_or_default();
        column.parse().unwrap_or_else(|e| panic!("{line}: {e}"))
    };
    let files: Vec<&str> = out.lines().filter(|l| l.contains("/0.log (")).collect();
    assert!(files.len() > 3, "each container rotates:\n{out}");
    let written: u64 = files.iter().map(|l| number(l, 2)).sum();
    let delivered: u64 = files.iter().map(|l| number(l, 3)).sum();
    let total = out.lines().find(|l| l.starts_with("lines written"));
    assert_eq!(number(total.expect("a total"), 2), written, "{out}");
    assert_eq!(written, delivered, "{out}");
    assert!(
        out.contains("lines/s") && out.contains("in flight"),
        "no live line:\n{out}"
    );
    assert!(
        !out.contains('\u{1b}'),
        "colours although this is no terminal:\n{out}"
    );
}

/// Guarantees that a demo whose lines do not arrive says why and does not end with code 0; the
/// second signal ends the waiting.
#[test]
fn a_demo_without_its_loki_fails_aloud() {
    let dir = TempDir::new("demo").expect("a temporary directory");
    let port = free_port().expect("a port");
    let (out, err) = (dir.join("out"), dir.join("err"));
    let file = |path| fs::File::create(path).expect("a file");
    let mut demo = Command::new(binary())
        .args(["demo", "--seconds", "600", "--files", "1", "--rate", "100"])
        .args(["--loki", &format!("http://127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .expect("the binary runs");
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let said = wait::within(wait::BOUND, || read(&err).contains("Connection refused"));
    let pid = Pid::from_child(&demo);
    let status = wait::for_some(wait::BOUND, || {
        // Two signals at once may arrive as one.
        let _ = kill_process(pid, Signal::INT);
        demo.try_wait().ok().flatten()
    });
    let ended = status.map(|s| s.code());
    if ended.is_none() {
        let _ = demo.kill();
        let _ = demo.wait();
    }
    assert!(said, "{}", read(&err));
    assert_eq!(ended, Some(Some(1)), "{}", read(&out));
    assert!(read(&out).contains("THE ACCOUNT DOES NOT BALANCE"));
}

/// Guarantees the exit codes of a wrong command line and of files that cannot be had.
#[test]
fn exit_codes_tell_usage_from_configuration() {
    let cli = Cli::new();
    assert_eq!(cli.run(&["--no-such-option"]).0, Some(2));
    assert_eq!(cli.run(&["no-such-command"]).0, Some(2));
    let (code, _, err) = cli.run(&["validate", "--config", "/nonexistent/agent.yaml"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("/nonexistent/agent.yaml"), "{err}");
    assert_eq!(cli.run(&["validate", "--config", &cli.file("")]).0, Some(1));
    for (source, part) in [
        ("", "empty name"),
        ("env:", "name is missing"),
        ("env:NO_SUCH_VARIABLE", "not set"),
        ("http://127.0.0.1/a.yaml", "over HTTP is not supported"),
        ("s3:bucket", "allowed: file, env, yaml"),
        ("/", "Is a directory"),
    ] {
        let (code, _, err) = cli.run(&["validate", "--config", source]);
        assert!(code == Some(1) && err.contains(part), "{source:?}: {err}");
    }
    assert_eq!(cli.run(&["--version"]).0, Some(0));
}

/// Guarantees that the help of each command is there, and shows how to use what is asked most.
#[test]
fn the_help_teaches() {
    let cli = Cli::new();
    for (command, parts) in [
        (
            &[] as &[&str],
            &["tailwater demo", "Exit codes", "TAILWATER_STATE_DIR"] as &[&str],
        ),
        (
            &["run"],
            &["env:AGENT_YAML", "${env:NAME:-default}", "SIGTERM"],
        ),
        (&["validate"], &["--set exporters.loki.endpoint="]),
        (&["print-config"], &["--mode", "redacted"]),
        (&["demo"], &["Exit code 0 only if", "Ctrl-C"]),
        (
            &["checkpoints"],
            &["import --from promtail", "reset --path"],
        ),
    ] {
        let (code, out, err) = cli.run(&[command, &["--help"]].concat());
        assert_eq!(code, Some(0), "{command:?}: {err}");
        for part in parts {
            assert!(
                out.contains(part),
                "{command:?} does not say {part:?}:\n{out}"
            );
        }
    }
}

/// Guarantees that the list of components has those of the README, in the collector's form.
#[test]
fn components_lists_what_this_build_has() {
    let cli = Cli::new();
    let (code, out, err) = cli.run(&["components"]);
    assert_eq!(code, Some(0), "{err}");
    for name in [
        "file_log",
        "journald",
        "loki",
        "otlp",
        "syslog",
        "batch",
        "resource",
        "attributes",
        "debug",
        "file_storage",
        "filter",
        "transform",
        "redaction",
        "log_dedup",
        "groupbyattrs",
        "resource_detection",
        "k8s_attributes",
    ] {
        assert!(
            out.contains(&format!("- name: {name}\n")),
            "{name} is missing:\n{out}"
        );
    }
    // What OTTL has and what it does not have.
    assert!(out.contains("  editors: [append, "), "{out}");
    assert!(out.contains("ParseJSON, ParseKeyValue"), "{out}");
    let not_built = out.lines().find(|l| l.contains("not_built: ["));
    assert!(not_built.is_some_and(|l| l.contains("ParseCEF")), "{out}");
}

/// Guarantees that output nobody can take is an error and no panic, and that a reader who has seen
/// enough is none.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = || fs::File::options().write(true).open("/dev/full");
    let closed = || {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        Ok::<_, std::io::Error>(writer)
    };
    let run = |out: Stdio| {
        let output = Command::new(binary())
            .arg("components")
            .stdout(out)
            .output();
        texts(&output.expect("the binary runs"))
    };
    let (code, _, err) = run(full().expect("a device that is always full").into());
    assert!(
        code == Some(1) && err.contains("No space left"),
        "{code:?}: {err}"
    );
    let (code, _, err) = run(closed().expect("a pipe").into());
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

/// Guarantees that secrets are shown only when asked for.
#[test]
fn print_config_redacts_unless_told_otherwise() {
    let cli = Cli::new();
    let file = cli.file(GOOD);
    for format in ["yaml", "json"] {
        let args = ["print-config", "--config", &file, "--format", format];
        let (code, out, err) = cli.run(&args);
        assert_eq!(code, Some(0), "{err}");
        assert!(
            !out.contains("hunter2") && !err.contains("hunter2"),
            "{out}{err}"
        );
        assert!(
            out.contains("REDACTED") && out.contains("127.0.0.1:3100"),
            "{out}"
        );
    }
    let bad = cli.file(&GOOD.replace("timeout: 1s", "timeout: soon"));
    assert_eq!(cli.run(&["print-config", "--config", &bad]).0, Some(1));
    let (code, out, err) = cli.run(&["print-config", "--config", &bad, "--validate=false"]);
    assert!(
        code == Some(0) && out.contains("timeout: soon"),
        "{out}{err}"
    );
    let file = cli.file(GOOD);
    let (code, out, _) = cli.run(&["print-config", "--config", &file, "--mode", "unredacted"]);
    assert!(code == Some(0) && out.contains("hunter2"), "{out}");
    let (code, out, err) = cli.run(&[
        "print-config",
        "--config",
        &file,
        "--set",
        "processors.batch.timeout=7s",
    ]);
    assert!(code == Some(0) && out.contains("timeout: 7s"), "{out}{err}");
}

/// Guarantees that stored positions can be looked at, exported and forgotten.
#[test]
fn checkpoints_are_listed_exported_and_reset() {
    let rig = Rig::new("checkpoints");
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(300).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let state = rig.state();
    let run = |args: &[&str]| checkpoints(args, &state);
    let path = writer
        .path()
        .to_str()
        .expect("temporary paths are UTF-8")
        .to_owned();
    let size = writer.bytes_written();
    let listed = run(&["list"]);
    assert!(
        listed.contains(&path) && listed.contains(&size.to_string()),
        "{listed}"
    );
    let exported = run(&["export"]);
    let lines: Vec<Value> = exported
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    let ours = lines
        .iter()
        .find(|l| l.to_string().contains(&path))
        .expect("its position");
    assert_eq!(ours["offset"], size, "{ours}");
    run(&["reset"]);
    assert_eq!(run(&["list"]), listed, "without --yes nothing is forgotten");
    run(&["reset", "--path", "no such file", "--yes"]);
    assert_eq!(run(&["list"]), listed, "another path is not touched");
    run(&["reset", "--path", "app.log", "--yes"]);
    assert!(!run(&["list"]).contains(&path));
    let agent = rig.start(&rig.config());
    let again = rig
        .loki
        .wait_until(tailwater_tests::wait::BOUND, |s| s.entries_accepted >= 600);
    assert!(again, "the file is read anew:\n{}", agent.log());
    agent.stop_clean();
}

/// Runs `checkpoints` with this state directory; its output.
fn checkpoints(args: &[&str], state: &Path) -> String {
    let dir = state.to_str().expect("temporary paths are UTF-8");
    let all = [&["checkpoints", args[0], "--state-dir", dir], &args[1..]].concat();
    let (code, out, err) = texts(&run_once(&all, state).expect("the binary runs"));
    assert_eq!(code, Some(0), "{all:?}: {err}");
    out
}
