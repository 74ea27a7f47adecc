//! Row 15: very many files at once, and files that live for a moment.

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::stand::{Stand, sorted};
use tailwater_tests::wait;

const PASS: &str = "loss 0; found <= 2 s; descriptors <= their budget";

/// The receiver's `open_files_max`, by default.
const OPEN_FILES_MAX: usize = 1_024;

/// Sockets, the store, the log, notifications: descriptors that are no logs.
const OTHER_DESCRIPTORS: usize = 64;

fn tell_descriptors(row: &mut Row, most: usize) {
    row.held(
        most <= OPEN_FILES_MAX + OTHER_DESCRIPTORS,
        format!("at most {most} descriptors, of logs {OPEN_FILES_MAX} are allowed"),
    );
}

/// Guarantees that ten thousand files that appear at once, more news than the kernel keeps, are all
/// read, with lines that come while they are found.
#[test]
fn ten_thousand_files_at_once_are_all_read() {
    const FILES: usize = 10_000;
    let mut row = Row::new(15, "10,000 files at once")
        .how("10,000 files of one line made as fast as possible, a second line to each")
        .pass(PASS);
    // Attributes to tell files apart are not needed: each line is its own.
    let stand = Stand::new(&json!({}));
    let agent = stand.start();
    let name = |i: usize| format!("{i:05}.log");
    let begin = Instant::now();
    for i in 0..FILES {
        fs::write(stand.rig.logs(&name(i)), format!("{i:05} a\n")).expect("written");
    }
    let made = begin.elapsed().as_secs_f64();
    let mut descriptors = 0;
    let found = wait::within(3 * wait::BOUND, || {
        descriptors = descriptors.max(agent.descriptors());
        agent.scrape().account("receiver").delivered >= FILES as f64
    });
    assert!(found, "{} records\n{}", stand.records().len(), agent.log());
    let discovery = begin.elapsed().as_secs_f64() - made;
    for i in 0..FILES {
        stand.append(&name(i), format!("{i:05} b\n"));
    }
    let done = wait::within(3 * wait::BOUND, || {
        descriptors = descriptors.max(agent.descriptors());
        agent.scrape().account("receiver").delivered >= 2.0 * FILES as f64
    });
    let got = stand.records().len();
    assert!(done, "{got} records\n{}", agent.log());
    agent.stop_clean();
    let want: Vec<String> = (0..FILES)
        .flat_map(|i| [format!("{i:05} a"), format!("{i:05} b")])
        .collect();
    assert!(sorted(&stand.records()) == want, "{got} records");
    row.reached(format!("0 of {} lines lost, 0 twice", want.len()));
    row.held(
        discovery <= 2.0,
        format!("made in {made:.1} s; the last found and delivered {discovery:.1} s later"),
    );
    tell_descriptors(&mut row, descriptors);
    row.record();
}

/// Guarantees that logs which exist for two seconds are read, and their descriptors let go.
#[test]
fn files_that_live_for_a_moment_are_read() {
    const LIFE: Duration = Duration::from_secs(2);
    // 167 files a second.
    const PAUSE: Duration = Duration::from_millis(6);
    let files: u32 = scaled(1_500, 100_000);
    let mut row = Row::new(15, "pods that live for 2 s")
        .how(format!(
            "{files} files, 167 a second, 20 lines each, deleted after 2 s"
        ))
        .pass(PASS);
    let rig = Rig::new("moment");
    let agent = rig.start(&rig.config());
    let mut alive = VecDeque::new();
    let (begin, mut descriptors) = (Instant::now(), 0);
    for id in 0..files {
        let mut writer = rig.writer(id, &format!("pod{id}.log"), |_| {});
        writer.write_lines(20).expect("written");
        alive.push_back((Instant::now(), writer));
        descriptors = descriptors.max(agent.descriptors());
        wait::let_pass((PAUSE * id).saturating_sub(begin.elapsed()));
        while alive
            .front()
            .is_some_and(|(born, _)| born.elapsed() >= LIFE)
        {
            vanish(&rig, alive.pop_front().map(|(_, w)| w));
        }
    }
    while let Some((born, writer)) = alive.pop_front() {
        wait::let_pass(LIFE.saturating_sub(born.elapsed()));
        vanish(&rig, Some(writer));
    }
    let all = wait::within(scaled(1, 10) * wait::BOUND, || {
        rig.oracle.report().totals.missing == 0
    });
    assert!(all, "{}\n{}", rig.summary(), tail(&agent.log()));
    let closed = wait::within(wait::BOUND, || {
        agent.scrape().sum("otelcol_fileconsumer_open_files", &[]) == 0.0
    });
    assert!(
        closed,
        "descriptors of deleted and delivered files are still open"
    );
    let seconds = begin.elapsed().as_secs_f64();
    let t = rig.finish(agent).totals;
    row.reached(format!("0 of {} lines lost in {seconds:.0} s", t.written));
    tell_descriptors(&mut row, descriptors);
    row.record();
}

fn vanish(rig: &Rig, writer: Option<LogWriter>) {
    let Some(writer) = writer else { return };
    fs::remove_file(writer.path()).expect("a file");
    rig.oracle
        .removed(writer.options().id, 0..writer.lines_written());
}
