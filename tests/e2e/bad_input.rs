//! Input that no log should have, beside lines that have to arrive all the same.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::message;
use tailwater_testkit::rng::Rng;
use tailwater_tests::agent::Agent;
use tailwater_tests::rig::Rig;

const MIB: u64 = 1024 * 1024;

/// Messages of a writer, announced and confirmed as if they were written already.
fn messages(rig: &Rig, writer: u32, seqs: Range<u64>) -> Vec<String> {
    rig.oracle.announce(writer, "by hand", seqs.clone());
    rig.oracle.confirm(writer, seqs.end);
    let message = |seq| {
        let mut line = Vec::new();
        message::append(&mut line, writer, seq, seq, 40);
        String::from_utf8(line).expect("messages are ASCII")
    };
    seqs.map(message).collect()
}

/// The same, each with a line end.
fn text(rig: &Rig, writer: u32, seqs: Range<u64>) -> Vec<u8> {
    messages(rig, writer, seqs)
        .iter()
        .flat_map(|m| [m.as_bytes(), b"\n"].concat())
        .collect()
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a file");
    file.write_all(bytes).expect("written");
}

/// Every message arrived once, whatever else did.
fn assert_all_arrived(rig: &Rig, agent: Agent) {
    rig.wait_delivered(&agent);
    agent.stop_clean();
    let report = rig.oracle.report();
    let t = report.totals;
    let faults = t.missing + t.duplicates_after_dedup + t.duplicates_unclassified + t.corrupt;
    assert_eq!(faults + t.phantom + report.unknown, 0, "{}", rig.summary());
}

/// Guarantees that garbage costs nothing but itself.
#[test]
fn lines_between_binary_garbage_arrive() {
    let rig = Rig::new("garbage");
    let mut rng = Rng::new(42);
    let agent = rig.start(&rig.config());
    for round in 0..20 {
        let length = rng.within(&(1..=200_000));
        let garbage: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        append(&rig.logs("a.log"), &garbage);
        append(&rig.logs("a.log"), b"\n");
        append(
            &rig.logs("a.log"),
            &text(&rig, 1, round * 50..(round + 1) * 50),
        );
    }
    assert_all_arrived(&rig, agent);
}

/// Guarantees that invalid UTF-8 is replaced, counted, and kept within its line.
#[test]
fn invalid_utf8_is_replaced_and_counted() {
    let rig = Rig::new("utf8");
    let mut bytes = text(&rig, 1, 0..100);
    bytes.extend_from_slice(b"one \xc4 two \xff\xfe three\n");
    bytes.extend_from_slice("ok \u{e4}\u{20ac}\n".as_bytes());
    bytes.extend(text(&rig, 1, 100..200));
    fs::write(rig.logs("a.log"), bytes).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    assert!(
        agent.scrape().sum("tailwater_invalid_utf8", &[]) >= 1.0,
        "not counted"
    );
    assert_all_arrived(&rig, agent);
    let lines: Vec<String> = rig
        .loki
        .entries(DEFAULT_TENANT, "{job=\"e2e\"}")
        .iter()
        .map(|e| String::from_utf8(e.line.to_vec()).expect("what is sent is UTF-8"))
        .collect();
    assert_eq!(lines[100], "one \u{fffd} two \u{fffd}\u{fffd} three");
    assert_eq!(lines[101], "ok \u{e4}\u{20ac}");
}

/// Guarantees that a line without end takes a fixed amount of memory, and that the next one
/// arrives.
#[test]
fn a_line_of_a_hundred_megabytes_takes_bounded_memory() {
    let rig = Rig::new("long");
    let agent = rig.start(&rig.config());
    append(&rig.logs("a.log"), &text(&rig, 1, 0..100));
    rig.wait_delivered(&agent);
    let before = agent.resident_bytes_peak();
    let piece = vec![b'x'; MIB as usize];
    for _ in 0..100 {
        append(&rig.logs("a.log"), &piece);
    }
    append(&rig.logs("a.log"), b"\n");
    append(&rig.logs("a.log"), &text(&rig, 1, 100..200));
    rig.wait_delivered(&agent);
    let grown = agent.resident_bytes_peak().saturating_sub(before);
    println!(
        "resident before {} MiB, grown by {} MiB at most",
        before / MIB,
        grown / MIB
    );
    assert!(grown < 128 * MIB, "{} MiB", grown / MIB);
    assert_all_arrived(&rig, agent);
}

/// Guarantees that a hole of zero bytes, as truncation leaves when the writer keeps its offset, is
/// skipped quickly and without memory.
#[test]
fn a_hole_of_zero_bytes_is_skipped() {
    let rig = Rig::new("hole");
    let path = rig.logs("a.log");
    fs::write(&path, text(&rig, 1, 0..100)).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let before = agent.resident_bytes_peak();
    let begin = Instant::now();
    let mut file = File::options().write(true).open(&path).expect("a file");
    file.seek(SeekFrom::Start(256 * MIB)).expect("a position");
    file.write_all(&text(&rig, 1, 100..200)).expect("written");
    rig.wait_delivered(&agent);
    let grown = agent.resident_bytes_peak().saturating_sub(before);
    println!(
        "256 MiB of nothing in {:?}, {} KiB more resident",
        begin.elapsed(),
        grown / 1024
    );
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
    assert!(agent.scrape().sum("tailwater_nul_bytes_skipped", &[]) >= 255.0 * MIB as f64);
    assert_all_arrived(&rig, agent);
}

/// Guarantees that UTF-16 is read with its own line ends, in both byte orders.
#[test]
fn utf16_lines_arrive() {
    type Encode = fn(u16) -> [u8; 2];
    let orders: [(&str, Encode); 2] = [
        ("utf-16le", u16::to_le_bytes),
        ("utf-16be", u16::to_be_bytes),
    ];
    for (name, encode) in orders {
        let rig = Rig::new("utf16");
        let mut config = rig.config();
        config["receivers"]["filelog"]["encoding"] = json!(name);
        let agent = rig.start(&config);
        let wide = |text: &str| text.encode_utf16().flat_map(encode).collect::<Vec<u8>>();
        for round in 0..10 {
            for line in messages(&rig, 1, round * 30..(round + 1) * 30) {
                // A character whose bytes hold a line feed must not end the line.
                append(
                    &rig.logs("a.log"),
                    &wide(&format!("{line}\r\n\u{0a0a}\u{0a41}\n")),
                );
            }
        }
        assert_all_arrived(&rig, agent);
        let entries = rig.loki.entries(DEFAULT_TENANT, "{job=\"e2e\"}");
        let odd = entries
            .iter()
            .filter(|e| e.line == "\u{0a0a}\u{0a41}".as_bytes())
            .count();
        assert_eq!(odd, 300, "{name}");
    }
}

/// Guarantees that carriage returns alone end no line and harm none.
#[test]
fn carriage_returns_alone_end_no_line() {
    let rig = Rig::new("cr");
    let mut bytes = text(&rig, 1, 0..50);
    bytes.extend_from_slice(b"10 %\r20 %\r30 %\rdone\n");
    bytes.extend(text(&rig, 1, 50..100));
    for line in messages(&rig, 1, 100..150) {
        bytes.extend_from_slice(format!("{line}\r\n").as_bytes());
    }
    fs::write(rig.logs("a.log"), bytes).expect("written");
    let agent = rig.start(&rig.config());
    assert_all_arrived(&rig, agent);
    let entries = rig.loki.entries(DEFAULT_TENANT, "{job=\"e2e\"}");
    assert_eq!(entries[50].line, "10 %\r20 %\r30 %\rdone");
    assert_eq!(entries.len(), 151);
}
