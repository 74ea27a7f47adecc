//! Taking over the positions of another agent, from its files to what arrives.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

/// Guarantees the same of a move from the collector, whose storage knows files by their first
/// bytes only.
#[test]
fn the_collectors_positions_are_continued() {
    let rig = Rig::new("collector");
    let (writer, offset) = half_read(&rig);
    // A file that does not begin like it is not mistaken for it.
    fs::write(rig.logs("other.txt"), "another beginning\n").expect("written");
    let content = fs::read(writer.path()).expect("the log");
    let first = STANDARD.encode(&content[..1000]);
    let known =
        format!("1\n{{\"Fingerprint\":{{\"first_bytes\":\"{first}\"}},\"Offset\":{offset}}}\n");
    let storage = rig.path("storage");
    fs::create_dir(&storage).expect("a directory");
    let database = bbolt(b"file_input.knownFiles", known.as_bytes());
    fs::write(storage.join("receiver_filelog_"), database).expect("written");
    let include = rig.logs("*");
    import_and_run(
        &rig,
        &config(&rig),
        &[
            "--from",
            "collector",
            "--include",
            text(&include),
            text(&storage),
        ],
    );
}

/// A bbolt database with the bucket `default` and one entry in it: pages of 4 KiB, two of them
/// metas, then the free list, the root with the bucket, and the bucket's leaf (with overflow).
fn bbolt(key: &[u8], value: &[u8]) -> Vec<u8> {
    const PAGE: usize = 4096;
    let page = |id: u64, flags: u16, count: u16, body: &[u8]| {
        let pages = (16 + body.len()).div_ceil(PAGE);
        let overflow = u32::try_from(pages - 1).expect("small").to_le_bytes();
        let mut out = [
            &id.to_le_bytes()[..],
            &flags.to_le_bytes(),
            &count.to_le_bytes(),
        ]
        .concat();
        out.extend([&overflow[..], body].concat());
        out.resize(pages * PAGE, 0);
        out
    };
    let element = |flags: u32, key: &[u8], value: &[u8]| {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
        let head = [flags, 16, length(key), length(value)];
        let mut out: Vec<u8> = head.iter().flat_map(|n| n.to_le_bytes()).collect();
        out.extend([key, value].concat());
        out
    };
    let meta = |id: u64| {
        let magic = [0xED0C_DAED_u32, 2, PAGE as u32, 0];
        let mut body: Vec<u8> = magic.iter().flat_map(|n| n.to_le_bytes()).collect();
        // Root page, its sequence, free list, pages in all, transaction.
        body.extend([3, 0, 2, 6, 5 - id].iter().flat_map(|n| n.to_le_bytes()));
        let fnv1a = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        body.extend(fnv1a.to_le_bytes());
        page(id, 4, 0, &body)
    };
    let bucket = [4_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat();
    [
        meta(0),
        meta(1),
        page(2, 16, 0, &[]),
        page(3, 2, 1, &element(1, b"default", &bucket)),
        page(4, 2, 1, &element(0, key, value)),
    ]
    .concat()
}
