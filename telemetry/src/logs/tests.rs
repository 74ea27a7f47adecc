//! What the log guarantees, seen from its output files.

use std::path::Path;

use super::*;
use crate::metrics::MetricsRegistry;

const PATIENCE: Duration = Duration::from_secs(10);

struct Setup {
    dir: tempfile::TempDir,
    metrics: Arc<SelfLogMetrics>,
    log: SelfLog,
}

impl Setup {
    fn new(change: impl FnOnce(&mut LogSettings)) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = LogSettings {
            output_paths: vec![OutputPath::File(dir.path().join("out.log"))],
            error_output_paths: vec![OutputPath::File(dir.path().join("err.log"))],
            ..LogSettings::default()
        };
        change(&mut settings);
        let metrics = SelfLogMetrics::new(&MetricsRegistry::default());
        let log = SelfLog::new(settings, metrics.clone()).unwrap();
        Setup { dir, metrics, log }
    }

    fn run(&self, body: impl FnOnce()) -> String {
        tracing::subscriber::with_default(self.log.subscriber(), body);
        self.log.flush(PATIENCE).unwrap();
        self.read("out.log")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

/// The columns of a console line without its time.
fn columns(line: &str) -> Vec<&str> {
    line.split('\t').skip(1).collect()
}

/// Guarantee: what is kept for a report is what was written, secrets left out as there.
#[test]
fn the_newest_lines_are_kept_as_they_were_written() {
    let s = Setup::new(|_| {});
    let text = s.run(|| {
        tracing::warn!(password = "hunter2", "to http://u:hunter2@h/");
        tracing::debug!("not written");
    });
    assert_eq!(s.log.recent(), text);
    assert!(
        text.contains("[REDACTED]") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn a_console_line_has_the_collectors_columns() {
    let s = Setup::new(|c| c.initial_fields = vec![("env".into(), "\"prod\"".into())]);
    let text = s.run(|| tracing::warn!(n = 3, name = "x", "{EXPORT_RETRIED}"));
    let line = text.strip_suffix('\n').unwrap();
    let time = line.split('\t').next().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let got = columns(line);
    assert_eq!(got[0], "warn");
    assert!(got[1].starts_with("logs/tests.rs:"), "{line}");
    assert_eq!(
        got[2..],
        [
            EXPORT_RETRIED,
            "{\"n\": 3, \"name\": \"x\", \"env\": \"prod\"}"
        ]
    );
}

#[test]
fn a_json_line_is_one_json_object_whatever_it_says() {
    let s = Setup::new(|c| {
        c.encoding = Encoding::Json;
        c.disable_caller = true;
        c.initial_fields = vec![("pid".into(), "7".into())];
    });
    let text = s.run(|| tracing::error!(ratio = 0.5, nan = f64::NAN, "a\"b\n\u{1b}[31m{}", 1));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["level"], "error");
    assert_eq!(json["msg"], "a\"b\n\u{1b}[31m1");
    assert_eq!(
        (&json["ratio"], &json["nan"], &json["pid"]),
        (&0.5.into(), &"NaN".into(), &7.into())
    );
    assert!(json.get("caller").is_none());
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn hostile_text_stays_on_its_line_and_long_text_is_cut() {
    let s = Setup::new(|_| ());
    let long = "y".repeat(100_000);
    let text = s.run(|| tracing::info!(long, "x\nERROR forged\u{1b}[2J"));
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.contains("x\\nERROR forged\\u001b[2J"), "{text}");
    assert!(text.len() < 10_000);
}

#[test]
fn secrets_are_not_written() {
    let s = Setup::new(|_| ());
    let text = s.run(|| {
        tracing::info!(
            authorization = "Bearer s3cret",
            api_key = 5_3_0_8,
            endpoint = "https://u:s3cret@h/",
            error = std::io::Error::other("GET http://a:s3cret@b failed").to_string(),
            "pushing to http://u:s3cret@h"
        );
    });
    assert!(!text.contains("s3cret") && !text.contains("5308"), "{text}");
    assert_eq!(text.matches(REDACTED).count(), 5, "{text}");
}

#[test]
fn levels_filter_and_can_be_changed_while_running() {
    let s = Setup::new(|_| ());
    let say = || {
        tracing::debug!("fine");
        tracing::info!("coarse");
        tracing::debug!(target: "hyper::proto", "header");
        tracing::warn!(target: "hyper::proto", "other crate");
    };
    let text = s.run(say);
    assert!(!text.contains("fine") && text.contains("coarse") && text.contains("other crate"));
    let debug = LogSettings {
        level: LevelFilter::DEBUG,
        ..(*s.log.settings()).clone()
    };
    s.log.reconfigure(debug).unwrap();
    let text = s.run(say);
    assert!(text.contains("fine") && !text.contains("header"), "{text}");
    let off = LogSettings {
        level: LevelFilter::OFF,
        ..(*s.log.settings()).clone()
    };
    s.log.reconfigure(off).unwrap();
    assert_eq!(s.run(say), text);
}

#[test]
fn a_flood_from_one_place_is_thinned_counted_and_reported() {
    let s = Setup::new(|_| ());
    let text = s.run(|| {
        for i in 0..115 {
            tracing::info!("flood {i}");
        }
        tracing::info!("elsewhere");
    });
    assert_eq!(text.matches("\tflood ").count(), 11);
    assert!(
        text.contains("flood 109\t{\"suppressed_lines\": 99}"),
        "{text}"
    );
    assert!(text.contains("elsewhere\n"));
    assert!(text.ends_with("Similar log lines were left out.\t{\"suppressed_lines\": 5}\n"));
    assert_eq!(s.metrics.lines_suppressed.get(), 104);
}

#[test]
fn without_sampling_every_line_is_written() {
    let s = Setup::new(|c| c.sampling = None);
    let text = s.run(|| (0..300).for_each(|i| tracing::info!("line {i}")));
    assert_eq!(text.matches("\tline ").count(), 300);
    assert_eq!(s.metrics.lines_lost.get(), 0);
}

#[test]
fn outputs_can_be_changed_and_a_bad_change_alters_nothing() {
    let s = Setup::new(|_| ());
    let with = |path: &Path| LogSettings {
        output_paths: vec![OutputPath::File(path.to_owned())],
        ..(*s.log.settings()).clone()
    };
    let missing = s.dir.path().join("no/such/dir/x.log");
    let error = s.log.reconfigure(with(&missing)).unwrap_err().to_string();
    assert!(error.contains("no/such/dir/x.log"), "{error}");
    assert!(s.run(|| tracing::info!("before")).contains("before"));
    s.log
        .reconfigure(with(&s.dir.path().join("new.log")))
        .unwrap();
    s.run(|| tracing::info!("after"));
    assert!(!s.read("out.log").contains("after") && s.read("new.log").contains("after"));
}

#[test]
fn a_rotated_log_file_is_made_anew_on_reopen() {
    let s = Setup::new(|_| ());
    s.run(|| tracing::info!("first"));
    let at = |name: &str| s.dir.path().join(name);
    std::fs::rename(at("out.log"), at("out.log.1")).unwrap();
    s.log.reopen().unwrap();
    let text = s.run(|| tracing::info!("second"));
    assert!(text.contains("second") && !text.contains("first"), "{text}");
    assert!(s.read("out.log.1").contains("first"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_failing_output_is_told_once_counted_and_stops_nobody() {
    let s = Setup::new(|c| {
        c.output_paths.push(OutputPath::File("/dev/full".into()));
        c.sampling = None;
    });
    let text = s.run(|| (0..5).for_each(|i| tracing::info!("line {i}")));
    assert_eq!(
        text.matches("\tline ").count(),
        5,
        "the other output goes on"
    );
    assert_eq!(s.metrics.lines_lost.get(), 5);
    let told = s.read("err.log");
    assert_eq!(
        told.matches("cannot write the log to /dev/full").count(),
        1,
        "{told}"
    );
}

#[test]
fn output_paths_are_spelled_as_in_the_collector() {
    for (text, want) in [
        ("stderr", OutputPath::Stderr),
        ("stdout", OutputPath::Stdout),
        ("/var/log/a", OutputPath::File("/var/log/a".into())),
        ("file:///var/log/a", OutputPath::File("/var/log/a".into())),
        (
            "file://localhost/var/log/a",
            OutputPath::File("/var/log/a".into()),
        ),
        ("rel.log", OutputPath::File("rel.log".into())),
    ] {
        assert_eq!(OutputPath::parse(text), want);
    }
}
