//! Row 17: input that no log should have, beside lines that have to arrive all the same.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::rng::Rng;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::Rig;

use crate::by_hand::{append, assert_all_arrived, messages, text};

const MIB: u64 = 1024 * 1024;

/// Lines before the hole.
const FIRST: u64 = 20_000;

const PASS: &str = "other lines loss 0; hole skipped <= 1 s, RSS +0";

/// Guarantees that garbage costs nothing but itself.
#[test]
fn lines_between_binary_garbage_arrive() {
    let rounds = scaled(20, 2_000);
    let mut row = Row::new(17, "binary content")
        .how(format!(
            "{rounds} runs of up to 200,000 random bytes between lines"
        ))
        .pass(PASS);
    let rig = Rig::new("garbage");
    let mut rng = Rng::new(42);
    let agent = rig.start(&rig.config());
    for round in 0..rounds {
        let length = rng.within(&(1..=200_000));
        let garbage: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        append(&rig.logs("a.log"), &garbage);
        append(&rig.logs("a.log"), b"\n");
        append(
            &rig.logs("a.log"),
            &text(&rig, 1, round * 50..(round + 1) * 50),
        );
    }
    let t = assert_all_arrived(&rig, agent);
    row.reached(format!("0 of {} lines lost", t.written));
    row.record();
}

/// Guarantees that invalid UTF-8 is replaced, counted, and kept within its line.
#[test]
fn invalid_utf8_is_replaced_and_counted() {
    let mut row = Row::new(17, "invalid UTF-8")
        .how("in two lines of 202")
        .pass(PASS);
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
    row.reached("replaced, counted, kept within its line; 0 of 200 other lines lost");
    row.record();
}

/// Guarantees that a hole of zero bytes, as truncation leaves when the writer keeps its offset, is
/// skipped quickly and without memory; and zero bytes that are really written, too.
#[test]
fn a_hole_of_zero_bytes_is_skipped() {
    let mut row = Row::new(17, "a hole of 1 GiB of NUL, and runs of them")
        .how("after 20,000 lines, a sparse file that grows by 1 GiB and 100 lines, then by 200 runs of up to 100,000 NUL between lines")
        .pass(PASS);
    let rig = Rig::new("hole");
    let path = rig.logs("a.log");
    // More than a buffer of ordinary lines: what that takes is no cost of the hole.
    fs::write(&path, text(&rig, 1, 0..FIRST)).expect("written");
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let (before, cpu) = (agent.resident_bytes_peak(), agent.cpu_seconds());
    let begin = Instant::now();
    let mut file = File::options().write(true).open(&path).expect("a file");
    file.seek(SeekFrom::End(1024 * MIB as i64))
        .expect("a position");
    let next = text(&rig, 1, FIRST..FIRST + 100);
    file.write_all(&next).expect("written");
    rig.wait_delivered(&agent);
    let took = begin.elapsed();
    let cpu = agent.cpu_seconds() - cpu;
    let grown = agent.resident_bytes_peak().saturating_sub(before);
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
    assert!(agent.scrape().sum("tailwater_nul_bytes_skipped", &[]) >= 1023.0 * MIB as f64);
    let mut rng = Rng::new(17);
    for round in 0..200 {
        let from = FIRST + 100 + round * 20;
        let nul = vec![0; rng.within(&(1..=100_000))];
        append(&path, &nul);
        append(&path, &text(&rig, 1, from..from + 20));
    }
    let t = assert_all_arrived(&rig, agent);
    row.reached(format!("0 of {} lines lost", t.written));
    let figure = format!("the hole in {:.2} s, {cpu:.2} s of CPU", took.as_secs_f64());
    row.held(took <= Duration::from_secs(1), figure);
    row.held(
        grown <= MIB,
        format!("{:.1} MiB more resident", grown as f64 / MIB as f64),
    );
    row.record();
}

/// Guarantees that UTF-16 is read with its own line ends, in both byte orders.
#[test]
fn utf16_lines_arrive() {
    let mut row = Row::new(17, "UTF-16")
        .how("both byte orders, line feeds inside characters")
        .pass(PASS);
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
    row.reached("0 of 1,200 lines lost or cut");
    row.record();
}

/// Guarantees that carriage returns alone end no line and harm none.
#[test]
fn carriage_returns_alone_end_no_line() {
    let mut row = Row::new(17, "carriage returns alone")
        .how("inside a line and before line feeds")
        .pass(PASS);
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
    row.reached("0 of 151 lines lost or cut");
    row.record();
}
