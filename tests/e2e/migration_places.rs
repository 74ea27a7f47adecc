//! Where positions of another agent are taken over to, from its files to what arrives.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::agent::run_once;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Lines the other agent has read, and lines in all.
const READ: u64 = 200;
const LINES: u64 = 300;

/// A file of which the other agent has read the first lines: the writer, and the offset.
fn half_read(rig: &Rig) -> (LogWriter, u64) {
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(READ).expect("written");
    let offset = writer.bytes_written();
    writer.write_lines(LINES - READ).expect("written");
    (writer, offset)
}

/// The rig's configuration with the receiver under the name that imports are for by default.
fn config(rig: &Rig) -> Value {
    let mut config = rig.config();
    let receiver = config["receivers"]["filelog"].take();
    config["receivers"] = serde_json::json!({"file_log": receiver});
    config["service"]["pipelines"]["logs"]["receivers"] = serde_json::json!(["file_log"]);
    config
}

/// Imports, runs, and expects that exactly the lines that were not read arrive.
fn import_and_run(rig: &Rig, config: &Value, args: &[&str]) {
    let out = run_once(&[&["checkpoints", "import"], args].concat(), &rig.state());
    let out = out.expect("the binary runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{:?}", out.stderr);
    assert!(text.contains("1 position taken over, 0 left out"), "{text}");
    let again = run_once(&[&["checkpoints", "import"], args].concat(), &rig.state());
    let again = again.expect("the binary runs");
    assert_eq!(again.status.code(), Some(1), "known already: nothing to do");
    let agent = rig.start(config);
    let arrived = wait::within(wait::BOUND, || {
        rig.oracle.report().totals.delivered >= LINES - READ
    });
    assert!(arrived, "{}\n{}", rig.summary(), tail(&agent.log()));
    agent.stop_clean();
    let report = rig.oracle.report();
    let missing = &report.writers[0].missing_ranges;
    let before = (missing.len(), missing.first());
    assert_eq!(before, (1, Some(&(0..READ))), "the lines read before");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Guarantees that a move from Promtail repeats no line and leaves none out.
#[test]
fn promtails_positions_are_continued() {
    let rig = Rig::new("promtail");
    let (writer, offset) = half_read(&rig);
    let file = rig.path("positions.yaml");
    let path = text(writer.path());
    fs::write(&file, format!("positions:\n  {path}: \"{offset}\"\n")).expect("written");
    let args = ["--from", "promtail", text(&file)];
    import_and_run(&rig, &config(&rig), &args);
}

/// Guarantees that positions imported before the first start are found where they were put: in a
/// state directory given by option, and in the directory of a `file_storage`.
#[test]
fn positions_are_imported_to_where_they_are_looked_for() {
    for option in ["--state-dir", "--storage-dir"] {
        let rig = Rig::new("where");
        let (writer, offset) = half_read(&rig);
        let file = rig.path("positions.yaml");
        let path = text(writer.path());
        fs::write(&file, format!("positions:\n  {path}: \"{offset}\"\n")).expect("written");
        let mut config = config(&rig);
        let mut dir = rig.state();
        if option == "--storage-dir" {
            dir = rig.path("storage");
            fs::create_dir(&dir).expect("a directory");
            config["receivers"]["file_log"]["storage"] = "file_storage/a".into();
            config["extensions"] = serde_json::json!({"file_storage/a": {"directory": dir}});
            config["service"]["extensions"] = serde_json::json!(["file_storage/a"]);
        }
        let args = ["--from", "promtail", option, text(&dir), text(&file)];
        import_and_run(&rig, &config, &args);
    }
}
