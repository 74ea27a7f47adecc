use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;

use super::kubernetes::{Container, NodeLogs};
use super::live::{LiveOptions, LiveWriter};
use super::*;
use crate::entry::EntryRef;
use crate::message::{Found, find};
use crate::tempdir::TempDir;

fn dir() -> TempDir {
    TempDir::new("writer").unwrap()
}

fn writer(dir: &TempDir, change: impl FnOnce(&mut WriterOptions)) -> LogWriter {
    let mut options = WriterOptions::new(7, dir.join("app.log"));
    change(&mut options);
    LogWriter::create(options).unwrap()
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut plain = Vec::new();
        GzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap();
        return plain;
    }
    bytes
}

/// The numbers of whole lines in a plain file, in order.
fn seqs(path: &Path) -> Vec<u64> {
    let text = read(path);
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| match find(line) {
            Found::Valid { writer: 7, seq } => seq,
            other => panic!("{other:?} in {}", String::from_utf8_lossy(line)),
        })
        .collect()
}

fn range(range: Range<u64>) -> Vec<u64> {
    range.collect()
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn lines_read_back_whole_and_in_order() {
    let dir = dir();
    let mut w = writer(&dir, |o| o.pad_bytes = 0..=3000);
    assert_eq!(w.write_lines(300).unwrap(), 0..300);
    assert_eq!(w.write_lines(1).unwrap(), 300..301);
    w.sync().unwrap();
    assert_eq!(seqs(w.path()), range(0..301));
    assert_eq!(
        std::fs::metadata(w.path()).unwrap().len(),
        w.bytes_written()
    );
}

#[test]
fn equal_options_give_equal_bytes_and_another_seed_does_not() {
    let bytes = |seed| {
        let dir = dir();
        let mut w = writer(&dir, |o| {
            o.seed = seed;
            o.format = Format::Cri;
            o.stderr = 0.5;
        });
        w.write_lines(50).unwrap();
        read(w.path())
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn a_line_can_be_left_unfinished_and_is_finished_before_anything_else() {
    let dir = dir();
    let oracle = DeliveryOracle::new();
    let mut w = writer(&dir, |o| o.oracle = Some(oracle.clone()));
    w.write_lines(2).unwrap();
    w.write_unfinished().unwrap();
    assert!(!read(w.path()).ends_with(b"\n"));
    assert_eq!((w.lines_written(), oracle.report().totals.written), (2, 2));
    w.write_lines(1).unwrap();
    w.write_unfinished().unwrap();
    w.rotate().unwrap();
    assert_eq!(seqs(&dir.join("app.log.1")), range(0..5));
    assert_eq!(oracle.report().totals.written, 5);
}

/// Parses CRI lines and joins partial ones: (stream, message) in the order of completion.
fn join_cri(text: &[u8], part_bytes_max: usize) -> Vec<(String, String)> {
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    let mut whole = Vec::new();
    for line in std::str::from_utf8(text).unwrap().lines() {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        assert_eq!(
            parts[0].len(),
            "2024-01-02T00:00:00.000000000Z".len(),
            "{line}"
        );
        assert!(parts[3].len() <= part_bytes_max, "{line}");
        let message = open.entry(parts[1].to_owned()).or_default();
        message.push_str(parts[3]);
        match parts[2] {
            "P" => assert_eq!(parts[3].len(), part_bytes_max),
            "F" => whole.push((parts[1].to_owned(), std::mem::take(message))),
            other => panic!("tag {other}"),
        }
    }
    assert!(open.values().all(String::is_empty));
    whole
}

#[test]
fn long_cri_messages_are_split_and_both_streams_mixed() {
    let dir = dir();
    let mut w = writer(&dir, |o| {
        o.format = Format::Cri;
        o.partial_bytes_max = 100;
        o.pad_bytes = 0..=450;
        o.stderr = 0.3;
        o.interleave = 0.5;
    });
    w.write_lines(500).unwrap();
    let text = read(w.path());
    let whole = join_cri(&text, 100);
    let seq = |text: &str| match find(text.as_bytes()) {
        Found::Valid { seq, .. } => seq,
        other => panic!("{other:?} in {text}"),
    };
    let order: Vec<u64> = whole.iter().map(|(_, message)| seq(message)).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, range(0..500));
    assert_ne!(
        order, sorted,
        "some messages are completed after a later one"
    );
    for stream in ["stdout", "stderr"] {
        let of_stream = whole.iter().filter(|(name, _)| name == stream);
        let order: Vec<u64> = of_stream.map(|(_, message)| seq(message)).collect();
        assert!(order.len() > 50 && order.is_sorted(), "{stream}");
    }
    assert!(text.windows(3).filter(|w| w == b" P ").count() > 200);
}

#[test]
fn docker_lines_are_json_and_only_the_last_part_ends_the_message() {
    let dir = dir();
    let mut w = writer(&dir, |o| {
        o.format = Format::Docker;
        o.partial_bytes_max = 64;
        o.pad_bytes = 0..=200;
        o.stderr = 0.2;
    });
    w.write_lines(60).unwrap();
    let (mut message, mut next) = (String::new(), 0);
    for line in String::from_utf8(read(w.path())).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(["stdout", "stderr"].contains(&value["stream"].as_str().unwrap()));
        assert!(
            value["time"]
                .as_str()
                .unwrap()
                .starts_with("2024-01-02T00:00:00.")
        );
        message.push_str(value["log"].as_str().unwrap());
        if let Some(whole) = message.strip_suffix('\n') {
            assert_eq!(
                find(whole.as_bytes()),
                Found::Valid {
                    writer: 7,
                    seq: next
                }
            );
            message.clear();
            next += 1;
        }
    }
    assert_eq!((next, message.as_str()), (60, ""));
}

#[test]
fn renamed_files_move_up_and_the_oldest_goes() {
    let dir = dir();
    let oracle = DeliveryOracle::new();
    let mut w = writer(&dir, |o| {
        let (naming, compress) = (Naming::Numbered, Compress::Delayed);
        o.rotation = Rotation::RenameCreate {
            naming,
            keep: 3,
            compress,
            late_lines: 2,
        };
        o.oracle = Some(oracle.clone());
    });
    for _ in 0..5 {
        w.write_lines(10).unwrap();
        w.rotate().unwrap();
    }
    w.write_lines(1).unwrap();
    assert_eq!(
        names(&dir),
        ["app.log", "app.log.1", "app.log.2.gz", "app.log.3.gz"]
    );
    assert_eq!(seqs(&dir.join("app.log")), range(60..61));
    assert_eq!(seqs(&dir.join("app.log.1")), range(48..60));
    assert_eq!(seqs(&dir.join("app.log.2.gz")), range(36..48));
    assert_eq!(seqs(&dir.join("app.log.3.gz")), range(24..36));
    let kept: Vec<_> = w
        .rotated()
        .map(|file| (file.seqs.clone(), file.compressed))
        .collect();
    assert_eq!(kept, [(48..60, false), (36..48, true), (24..36, true)]);
    let totals = oracle.report().totals;
    assert_eq!((totals.written, totals.missing_removed), (61, 24));
}

#[test]
fn the_kubelets_names_are_dated_and_never_repeat() {
    let dir = dir();
    let mut w = writer(&dir, |o| o.rotation = Rotation::kubernetes(2));
    for _ in 0..3 {
        w.write_lines(5).unwrap();
        w.rotate().unwrap();
    }
    assert_eq!(
        names(&dir),
        [
            "app.log",
            "app.log.20240102-000001.gz",
            "app.log.20240102-000002"
        ]
    );
    assert_eq!(seqs(&dir.join("app.log.20240102-000001.gz")), range(5..10));
    w.compress_rotated(0).unwrap();
    assert_eq!(seqs(&dir.join("app.log.20240102-000002.gz")), range(10..15));
}

#[test]
fn copytruncate_keeps_the_inode_and_loses_what_came_between() {
    use std::os::unix::fs::MetadataExt;
    let dir = dir();
    let oracle = DeliveryOracle::new();
    let mut w = writer(&dir, |o| {
        o.rotation = Rotation::CopyTruncate {
            keep: 1,
            compress: Compress::AtOnce,
            late_lines: 3,
        };
        o.oracle = Some(oracle.clone());
    });
    w.write_lines(10).unwrap();
    let inode = std::fs::metadata(w.path()).unwrap().ino();
    w.rotate().unwrap();
    w.write_lines(2).unwrap();
    assert_eq!(std::fs::metadata(w.path()).unwrap().ino(), inode);
    assert_eq!(names(&dir), ["app.log", "app.log.1.gz"]);
    assert_eq!(seqs(&dir.join("app.log.1.gz")), range(0..10));
    assert_eq!(seqs(w.path()), range(13..15));
    assert_eq!(oracle.report().totals.missing_removed, 3);
    w.rotate().unwrap();
    assert_eq!(seqs(&dir.join("app.log.1.gz")), range(13..15));
    assert_eq!(oracle.report().totals.missing_removed, 16);
}

#[test]
fn a_writer_with_its_own_offset_leaves_a_hole_after_truncation() {
    let dir = dir();
    let mut w = writer(&dir, |o| {
        o.append = false;
        o.rotation = Rotation::CopyTruncate {
            keep: 1,
            compress: Compress::Never,
            late_lines: 0,
        };
    });
    w.write_lines(10).unwrap();
    let before = w.bytes_written() as usize;
    w.rotate().unwrap();
    w.write_lines(1).unwrap();
    let bytes = read(w.path());
    assert!(bytes[..before].iter().all(|byte| *byte == 0));
    assert_eq!(
        find(bytes[before..].trim_ascii_end()),
        Found::Valid { writer: 7, seq: 10 }
    );
}

#[test]
fn deleting_starts_a_new_file_and_reports_the_old_lines() {
    let dir = dir();
    let oracle = DeliveryOracle::new();
    let mut w = writer(&dir, |o| {
        o.rotation = Rotation::DeleteCreate;
        o.oracle = Some(oracle.clone());
    });
    w.write_lines(4).unwrap();
    w.rotate().unwrap();
    w.write_lines(1).unwrap();
    assert_eq!(names(&dir), ["app.log"]);
    assert_eq!(seqs(w.path()), range(4..5));
    let totals = oracle.report().totals;
    assert_eq!((totals.missing_removed, totals.missing_readable()), (4, 1));
}

#[test]
fn the_oracle_is_satisfied_by_what_a_reader_of_all_files_sees() {
    let dir = dir();
    let oracle = DeliveryOracle::new();
    let mut w = writer(&dir, |o| o.oracle = Some(oracle.clone()));
    for _ in 0..3 {
        w.write_lines(20).unwrap();
        w.rotate().unwrap();
    }
    w.write_lines(20).unwrap();
    let mut paths: Vec<PathBuf> = w.rotated().map(|file| file.path.clone()).collect();
    paths.reverse();
    paths.push(w.path().to_owned());
    for path in paths {
        assert!(!oracle.is_complete());
        for line in read(&path)
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let entry = EntryRef {
                tenant: "t",
                labels: "{}",
                ts_ns: 0,
                line,
                metadata: &[],
            };
            oracle.observe(&entry);
        }
    }
    let report = oracle.report();
    assert!(oracle.is_complete() && report.is_faultless(), "{report:?}");
    assert_eq!(
        (report.totals.out_of_order, report.writers[0].files.len()),
        (0, 4)
    );
}

#[test]
fn kubernetes_logs_lie_where_a_node_has_them() {
    let dir = dir();
    let node = NodeLogs::create(dir.join("log")).unwrap();
    let container = Container {
        namespace: "shop".into(),
        pod: "web-0".into(),
        uid: "49cc7c1f-d370".into(),
        name: "nginx".into(),
        id: "abc123".into(),
        restarts: 2,
    };
    let path = node.add(&container).unwrap();
    assert_eq!(
        path,
        dir.join("log/pods/shop_web-0_49cc7c1f-d370/nginx/2.log")
    );
    let mut w = LogWriter::create(WriterOptions::new(7, &path)).unwrap();
    w.write_lines(3).unwrap();
    let link = dir.join("log/containers/web-0_shop_nginx-abc123.log");
    assert_eq!(seqs(&link), range(0..3));
    assert!(node.add(&container).is_err(), "the link exists");
    node.remove(&container).unwrap();
    assert!(!path.exists() && std::fs::symlink_metadata(&link).is_err());
}

#[test]
fn a_live_writer_writes_rotates_and_ends_at_its_limit() {
    let dir = dir();
    let options = LiveOptions {
        lines_per_second: 0,
        rotate_every_lines: Some(30),
        lines_max: Some(100),
    };
    let live = LiveWriter::start(writer(&dir, |_| {}), options).unwrap();
    assert!(live.wait_lines(100, Duration::from_secs(10)));
    assert!(
        !live.wait_lines(101, Duration::from_secs(10)),
        "it has ended"
    );
    let w = live.stop().unwrap();
    assert_eq!(
        (w.lines_written(), w.rotated().count(), w.live_seqs()),
        (100, 3, 90..100)
    );
}

#[test]
fn a_live_writer_keeps_its_rate_and_stops_when_told() {
    let dir = dir();
    let options = LiveOptions {
        lines_per_second: 2_000,
        rotate_every_lines: None,
        lines_max: None,
    };
    let begin = std::time::Instant::now();
    let live = LiveWriter::start(writer(&dir, |_| {}), options).unwrap();
    assert!(live.wait_lines(200, Duration::from_secs(10)));
    let w = live.stop().unwrap();
    // Never faster than asked for; how much slower depends on the machine.
    let due = begin.elapsed().as_secs_f64() * 2_000.0;
    assert!(
        w.lines_written() >= 200 && w.lines_written() as f64 <= due,
        "{due}"
    );
    assert_eq!(seqs(w.path()).len() as u64, w.lines_written());
}

#[test]
fn a_live_writer_reports_what_writing_failed_with() {
    let dir = dir();
    let mut w = writer(&dir, |_| {});
    // `/dev/full` takes no byte.
    w.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let options = LiveOptions {
        lines_per_second: 0,
        rotate_every_lines: None,
        lines_max: None,
    };
    let live = LiveWriter::start(w, options).unwrap();
    assert!(!live.wait_lines(u64::MAX, Duration::from_secs(10)));
    assert!(live.stop().is_err());
}
