//! `tailwater validate --explain`: the graph, the defaults in force, and traps with their places.

use std::fs;

use tailwater_testkit::tempdir::TempDir;
use tailwater_tests::agent::run_once;

const CONFIG: &str = r#"receivers:
  file_log/app:
    include: [/nowhere/*.log]
    start_at: beginning
    on_truncate: ignore
    operators:
      - type: regex_parser
        regex: '^(?P<a>x)$1'
        on_error: drop
processors:
  batch: {timeout: 1s}
connectors:
  forward/x: {}
exporters:
  loki:
    endpoint: http://127.0.0.1:1/loki/api/v1/push
    retry_on_failure: {max_elapsed_time: 5m}
  debug: {}
service:
  pipelines:
    logs: {receivers: [file_log/app], processors: [batch], exporters: [loki, forward/x]}
    logs/2: {receivers: [forward/x], exporters: [debug]}
"#;

fn explain(dir: &TempDir, sources: &[&str]) -> (Option<i32>, String, String) {
    let mut args = vec!["validate", "--explain"];
    for source in sources {
        args.extend(["--config", source]);
    }
    let output = run_once(&args, &dir.join("state")).expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Guarantees that one sees where data goes, what is in force without being written, and each trap with
/// its place and what to write instead.
#[test]
fn a_configuration_is_explained() {
    let dir = TempDir::new("explain").expect("a temporary directory");
    let file = dir.join("agent.yaml");
    fs::write(&file, CONFIG).expect("written");
    let file = file.to_str().expect("UTF-8");
    let (code, out, err) = explain(&dir, &[file]);
    assert_eq!(code, Some(0), "{err}");
    let graph = "pipeline logs\n  from        receiver file_log/app\n  processors  batch\n  to          exporter loki\n              connector forward/x -> pipeline logs/2\n";
    assert!(out.contains(graph), "{out}");
    assert!(
        out.contains("pipeline logs/2\n  from        connector forward/x\n"),
        "{out}"
    );
    let section = |head: &str| {
        let (_, rest) = out
            .split_once(head)
            .unwrap_or_else(|| panic!("no {head} in\n{out}"));
        let lines = rest.lines().skip(1).take_while(|l| l.starts_with("  "));
        lines
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let receiver = section("receiver file_log/app (");
    for want in [
        "poll_interval 200ms",
        "include_file_name true",
        "max_log_size 1MiB",
        "max_log_size_behavior split",
    ] {
        assert!(receiver.contains(&want.to_owned()), "{want}: {receiver:?}");
    }
    // What is written is no default.
    assert!(
        !receiver
            .iter()
            .any(|l| l.starts_with("start_at") || l.starts_with("on_truncate"))
    );
    let batch = section("processor batch (");
    assert!(
        batch.contains(&"send_batch_size 8192".to_owned())
            && !batch.iter().any(|l| l.starts_with("timeout")),
        "{batch:?}"
    );
    for (place, option, remedy) in [
        (":5:18:", "on_truncate: ignore", "leave the option out"),
        (":8:16:", "regex", "write $$1"),
        (":9:19:", "on_error: drop", "write send"),
        (":17:42:", "max_elapsed_time: 5m", "write 0"),
        (":16:5:", "outside_window: drop by default", "clamp"),
    ] {
        let line = err
            .lines()
            .find(|l| l.contains(&format!("{file}{place}")) && l.contains(option));
        let line = line.unwrap_or_else(|| panic!("no {option} at {place} in\n{err}"));
        assert!(
            line.starts_with("warning: ") && line.contains(remedy),
            "{line}"
        );
    }
    assert!(!err.contains("start_at"), "{err}");
}

/// Guarantees that laying sources over each other is explained, that a mistake is still one, and that
/// nothing of it is said without being asked for.
#[test]
fn sources_over_each_other_and_mistakes() {
    let dir = TempDir::new("explain").expect("a temporary directory");
    let (base, over) = (dir.join("base.yaml"), dir.join("over.yaml"));
    fs::write(&base, CONFIG).expect("written");
    fs::write(&over, "receivers:\n  file_log/app:\n    include: [/b]\nexporters:\n  debug: {verbosity: basic}\n  loki: {retry_on_failure: null}\n").expect("written");
    let (base, over) = (base.to_str().expect("UTF-8"), over.to_str().expect("UTF-8"));
    let (code, _, err) = explain(&dir, &[base, over]);
    assert_eq!(code, Some(0), "{err}");
    let told = |place: &str, text: &str| {
        err.lines()
            .any(|l| l.contains(&format!("{over}{place}")) && l.contains(text))
    };
    assert!(told(":3:14:", "replaces the 1 elements"), "{err}");
    assert!(told(":6:28:", "null deletes the 1 options"), "{err}");
    fs::write(base, CONFIG.replace("timeout", "timeuot")).expect("written");
    let (code, out, err) = explain(&dir, &[base]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(
        err.contains("timeuot") && err.contains("did you mean"),
        "{err}"
    );
    fs::write(base, CONFIG).expect("written");
    let plain =
        run_once(&["validate", "--config", base], &dir.join("state")).expect("the binary runs");
    assert!(
        plain.stdout.is_empty()
            && !String::from_utf8_lossy(&plain.stderr).contains("on_truncate: ignore")
    );
}
