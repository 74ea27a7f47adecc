//! Loki's contract: an exporter in this process against one server, on one clock.

use std::sync::Arc;

use serde_json::{Value, json};
use tailwater_pdata::Entry;
use tailwater_pipeline::clock::{Clock, SimClock};
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::{DEFAULT_TENANT, FakeLoki, LokiOptions};
use tailwater_testkit::tempdir::TempDir;

use crate::exporter::LokiBench;

/// The wall clock when a case begins, in ns since the epoch.
pub const NOW: i64 = 1_763_909_608_000_000_000;
/// A second in ns.
pub const SECOND: i64 = 1_000_000_000;

/// One exporter against one server.
pub struct Case {
    /// The server.
    pub loki: FakeLoki,
    /// The exporter.
    pub bench: LokiBench,
    dir: TempDir,
}

impl Case {
    /// The labels of a stream are `app`, and `env` where an entry has it. `extra` goes over the
    /// configuration.
    ///
    /// # Panics
    /// When the server, the directory or the exporter cannot be made.
    pub fn start(extra: &Value, change: impl FnOnce(&mut LokiBehaviour)) -> Case {
        let clock = Arc::new(SimClock::new(NOW));
        let mut behaviour = LokiBehaviour::permissive();
        change(&mut behaviour);
        let now = clock.clone();
        let loki = FakeLoki::start(LokiOptions {
            behaviour,
            now: Arc::new(move || now.wall_ns()),
            ..LokiOptions::default()
        });
        let loki = loki.expect("a server on a loopback port");
        let dir = TempDir::new("contract").expect("a temporary directory");
        let mut config = json!({
            "endpoint": loki.push_url(),
            "labels": {"resource": {"app": "app", "env": "env"}},
            "dead_letter_file": dir.join("dead.json"),
            "retry_on_failure": {"initial_interval": "1s", "max_interval": "2s"},
            "timeout": "2s",
        });
        for (key, value) in extra.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let bench = LokiBench::start(&config, clock);
        Case { loki, bench, dir }
    }

    /// The lines that were stored, in order, each once.
    ///
    /// # Panics
    /// When a line is not text.
    pub fn stored(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for labels in self.loki.streams(DEFAULT_TENANT) {
            for entry in self.loki.entries(DEFAULT_TENANT, &labels) {
                lines.push(String::from_utf8(entry.line.to_vec()).expect("text"));
            }
        }
        lines.sort();
        lines
    }

    /// The dead letters: line and reason, in order of lines.
    ///
    /// # Panics
    /// When a letter is not JSON.
    pub fn letters(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.dir.join("dead.json")).unwrap_or_default();
        let letter = |line: &str| {
            let json: Value = serde_json::from_str(line).expect("JSON lines");
            let text = |key: &str| json[key].as_str().expect("a text").to_owned();
            (text("line"), text("reason"))
        };
        let mut letters: Vec<_> = text.lines().map(letter).collect();
        letters.sort();
        letters
    }
}

/// An entry of the stream `app`.
pub fn entry(app: &str, line: &str, age_seconds: i64) -> Entry {
    Entry {
        time: NOW - age_seconds * SECOND,
        body: line.into(),
        resource: [("app", app)].into_iter().collect(),
        ..Entry::default()
    }
}

/// Entries of `app`, one second apart, lines numbered and filled up to `bytes`.
pub fn entries(app: &str, line: &str, n: i64, bytes: usize) -> Vec<Entry> {
    let text = |i| format!("{:-<bytes$}", format!("{line} {app} {i:03} "));
    (0..n).map(|i| entry(app, &text(i), 200 - i)).collect()
}

/// 43 entries of two streams.
pub fn good() -> Vec<Entry> {
    [
        entries("one", "good", 40, 60),
        entries("two", "good", 3, 60),
    ]
    .concat()
}

/// The lines of entries, in order of lines.
pub fn lines(entries: &[Entry]) -> Vec<String> {
    let text = |e: &Entry| e.body.as_ref().to_display_string();
    let mut lines: Vec<String> = entries.iter().map(text).collect();
    lines.sort();
    lines
}
