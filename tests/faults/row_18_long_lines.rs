//! Row 18: lines that do not end.

use std::ops::Range;
use std::time::Duration;

use tailwater_testkit::writer::Format;
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::Rig;

use crate::by_hand::{append, assert_all_arrived, text};

const MIB: u64 = 1024 * 1024;

/// `max_log_size` in these tests: its default.
const LINE_LIMIT: u64 = MIB;

const PASS: &str = "next line loss 0; RSS + <= 2x line limit";

/// Lines of about a kilobyte that each file has first.
const ORDINARY: u64 = 6_000;

/// Delivers ordinary lines, as many bytes as are under way when there is much to read: what that
/// takes is no cost of long lines.
fn backlog(rig: &Rig, agent: &Agent, files: u32, format: Format) {
    for id in 0..files {
        let mut writer = rig.writer(id, &format!("a{id}.log"), |o| {
            (o.format, o.pad_bytes) = (format, 900..=1_100);
        });
        writer.write_lines(ORDINARY).expect("written");
    }
    rig.wait_delivered(agent);
}

/// Guarantees that lines without end, in many files at once, take a fixed amount of memory, and
/// that the next ones arrive.
#[test]
fn lines_of_a_hundred_megabytes_take_bounded_memory() {
    let files: u32 = 10;
    let mib = scaled(100, 1_000);
    let mut row = Row::new(18, "lines of 100 MB and more, ten files at once")
        .how(format!(
            "{mib} MiB without a line end in each of {files} files, then 100 lines"
        ))
        .pass(PASS);
    let rig = Rig::new("long");
    let agent = rig.start(&rig.config());
    let path = |id: u32| rig.logs(&format!("a{id}.log"));
    backlog(&rig, &agent, files, Format::Plain);
    let before = agent.resident_bytes_peak();
    let piece = vec![b'x'; MIB as usize];
    for _ in 0..mib {
        (0..files).for_each(|id| append(&path(id), &piece));
    }
    for id in 0..files {
        append(&path(id), b"\n");
        append(&path(id), &text(&rig, id, ORDINARY..ORDINARY + 100));
    }
    rig.wait_delivered_within(&agent, Duration::from_secs(120));
    let grown = agent.resident_bytes_peak().saturating_sub(before);
    assert!(grown < 128 * MIB, "{} MiB", grown / MIB);
    let t = assert_all_arrived(&rig, agent);
    row.reached(format!("0 of {} lines lost", t.written));
    let bound = 2 * LINE_LIMIT * u64::from(files);
    row.held(
        grown <= bound,
        format!(
            "{:.1} MiB more resident for {files} files (2x line limit each: {} MiB)",
            grown as f64 / MIB as f64,
            bound / MIB
        ),
    );
    row.record();
}

/// Guarantees that a container line whose last part never comes holds up nothing and takes a fixed
/// amount of memory.
#[test]
fn partial_container_lines_without_an_end_take_bounded_memory() {
    let files: u32 = 10;
    let mib: usize = scaled(20, 200);
    let mut row = Row::new(18, "endless partial container lines, ten files at once")
        .how(format!(
            "{mib} MiB of lines tagged P in each of {files} files, then whole ones"
        ))
        .pass(PASS);
    let rig = Rig::new("partial");
    let mut config = rig.container_config("containerd");
    config["receivers"]["filelog"]["include"] = rig.logs("*.log").to_str().into();
    let agent = rig.start(&config);
    let path = |id: u32| rig.logs(&format!("a{id}.log"));
    let container = |tag: &str, message: &[u8]| {
        let head = format!("2024-01-02T15:04:05.000000006Z stdout {tag} ");
        [head.as_bytes(), message, b"\n"].concat()
    };
    let whole = |id: u32, seqs: Range<u64>| -> Vec<u8> {
        let lines = text(&rig, id, seqs);
        let lines = lines.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        lines.flat_map(|l| container("F", l)).collect()
    };
    backlog(&rig, &agent, files, Format::Cri);
    let before = agent.resident_bytes_peak();
    let part = container("P", &[b'p'; 16_000]);
    let parts = part.repeat(64);
    for _ in 0..mib {
        (0..files).for_each(|id| append(&path(id), &parts));
    }
    for id in 0..files {
        append(&path(id), &container("F", b"the end"));
        append(&path(id), &whole(id, ORDINARY..ORDINARY + 100));
    }
    rig.wait_delivered_within(&agent, Duration::from_secs(120));
    let grown = agent.resident_bytes_peak().saturating_sub(before);
    assert!(grown < 128 * MIB, "{} MiB", grown / MIB);
    let t = assert_all_arrived(&rig, agent);
    row.reached(format!("0 of {} lines lost", t.written));
    let bound = 2 * LINE_LIMIT * u64::from(files);
    row.held(
        grown <= bound,
        format!(
            "{:.1} MiB more resident for {files} files (2x line limit each: {} MiB)",
            grown as f64 / MIB as f64,
            bound / MIB
        ),
    );
    row.record();
}
