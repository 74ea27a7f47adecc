//! The command line: what it prints, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::run_once;
use tailwater_tests::rig::Rig;

const GOOD: &str = r#"receivers:
  filelog:
    include: [/var/log/app/*.log]
    start_at: beginning
    poll_interval: 200ms
    operators:
      - type: regex_parser
        regex: '^(?P<time>\S+) (?P<level>\S+) '
        severity: {parse_from: attributes.level}
processors:
  batch:
    timeout: 1s
exporters:
  loki:
    endpoint: http://127.0.0.1:3100/loki/api/v1/push
    headers:
      Authorization: Bearer hunter2
    labels:
      static: {job: app}
service:
  pipelines:
    logs:
      receivers: [filelog]
      processors: [batch]
      exporters: [loki]
"#;

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

/// Whether a line begins with `<file>:<line>:<column>: `.
fn has_place(line: &str, file: &str) -> bool {
    let Some(rest) = line.strip_prefix(file).and_then(|r| r.strip_prefix(':')) else {
        return false;
    };
    let mut parts = rest.splitn(3, ':');
    let number = |part: Option<&str>| part.is_some_and(|p| p.parse::<u32>().is_ok_and(|n| n > 0));
    number(parts.next()) && number(parts.next()) && parts.next().is_some()
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
    assert_eq!(cli.run(&["--version"]).0, Some(0));
}

/// Guarantees that the list of components has those of the README, in the collector's form.
#[test]
fn components_lists_what_this_build_has() {
    let cli = Cli::new();
    let (code, out, err) = cli.run(&["components"]);
    assert_eq!(code, Some(0), "{err}");
    for name in [
        "file_log",
        "batch",
        "resource",
        "attributes",
        "loki",
        "debug",
        "file_storage",
    ] {
        assert!(
            out.contains(&format!("- name: {name}\n")),
            "{name} is missing:\n{out}"
        );
    }
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

/// One random change of a text.
fn mutate(text: &str, rng: &mut Rng) -> String {
    const TOKENS: [&str; 14] = [
        "~",
        "[",
        "]",
        "{",
        "}",
        "\"",
        ":",
        "- ",
        "!!int x",
        "${env:NO_SUCH}",
        "&a",
        "*a",
        "\u{0}",
        "99999999999999999999",
    ];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = rng.below(lines.len() as u64) as usize;
    match rng.below(6) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => lines[at] = format!(" {}", lines[at]),
        3 => lines[at] = lines[at].trim_start().to_owned(),
        4 => {
            let keep = rng.below(lines[at].len() as u64 + 1) as usize;
            lines[at].truncate(keep);
        }
        _ => {
            let place = rng.below(lines[at].len() as u64 + 1) as usize;
            let token = TOKENS[rng.below(TOKENS.len() as u64) as usize];
            lines[at].insert_str(place, token);
        }
    }
    lines.join("\n") + "\n"
}

/// Guarantees that no broken file makes it panic or pass silently: accepted, or refused with a
/// place.
#[test]
fn two_hundred_broken_files_are_accepted_or_refused_with_a_place() {
    let cli = Cli::new();
    let mut rng = Rng::new(7);
    let (mut accepted, mut refused) = (0, 0);
    for n in 0..200 {
        let mut text = GOOD.to_owned();
        for _ in 0..=rng.below(3) {
            text = mutate(&text, &mut rng);
        }
        let file = cli.file(&text);
        let (code, _, err) = cli.run(&["validate", "--config", &file]);
        match code {
            Some(0) => accepted += 1,
            Some(1) => refused += 1,
            _ => panic!("file {n}: code {code:?}\n{err}\n--- file\n{text}"),
        }
        assert!(
            !err.contains("panicked"),
            "file {n}:\n{err}\n--- file\n{text}"
        );
        let placed = err.lines().any(|l| has_place(l, &file));
        assert!(
            code == Some(0) || placed,
            "file {n}: no place:\n{err}\n--- file\n{text}"
        );
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(
        refused > 100 && accepted > 0,
        "{accepted} accepted, {refused} refused"
    );
}
