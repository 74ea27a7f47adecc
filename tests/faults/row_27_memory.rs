//! Row 27: a backlog under a limit of memory.

use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::confine::Group;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::Rig;

const MIB: u64 = 1024 * 1024;

/// The limit, page cache included.
const LIMIT: u64 = 128 * MIB;

/// Files, and streams.
const STREAMS: u32 = 1_000;

/// What one run of a backlog came to.
struct Run {
    lines: u64,
    bytes: u64,
    took: Duration,
    peak: u64,
    killed: Option<u64>,
}

impl Run {
    fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }
}

fn run(lines_each: u64, limit: Option<Group>) -> Run {
    let rig = Rig::keeping("memory", StoreMode::CountOnly);
    let mut config = rig.config();
    config["exporters"]["loki"]["labels"]["attributes"] = json!({"file": "log.file.name"});
    let mut bytes = 0;
    for id in 0..STREAMS {
        let mut writer: LogWriter = rig.writer(id, &format!("app{id}.log"), |o| {
            o.pad_bytes = 900..=1_100;
        });
        writer.write_lines(lines_each).expect("written");
        bytes += writer.bytes_written();
    }
    let begin = Instant::now();
    let agent = rig.start_by(&config, |command| match &limit {
        Some(group) => group.wrap(&command),
        None => command,
    });
    rig.wait_delivered_within(&agent, Duration::from_secs(scaled(180, 3_600)));
    let took = begin.elapsed();
    let peak = agent.resident_bytes_peak();
    let killed = limit.as_ref().and_then(Group::killed_for_memory);
    let lines = rig.finish(agent).totals.delivered;
    Run {
        lines,
        bytes,
        took,
        peak,
        killed,
    }
}

/// Guarantees that a backlog far larger than the memory allowed is delivered whole.
#[test]
fn a_backlog_under_a_limit_of_memory_is_delivered_whole() {
    let lines_each = scaled(140, 8_000);
    let mut row = Row::new(27, "memory limit of 128 MiB, a backlog, 1,000 streams")
        .how(format!(
            "control group; {STREAMS} files of {lines_each} lines of a kilobyte, a stream each, \
             with and without the limit (50 GB in the matrix, which was not run)"
        ))
        .pass("0 OOM kills; loss 0; >= 50 % of unlimited rate");
    let group = match Group::memory(LIMIT) {
        Ok(group) => group,
        Err(e) => return row.not_shown(format!("no control group for memory: {e}")),
    };
    let free = run(lines_each, None);
    let limited = run(lines_each, Some(group));
    assert_eq!(limited.killed.unwrap_or(0), 0, "killed for want of memory");
    row.reached(format!(
        "0 of {} lines lost ({:.1} GB), 0 OOM kills; peak {} MiB resident, {} MiB without the limit",
        limited.lines,
        limited.bytes as f64 / 1e9,
        limited.peak / MIB,
        free.peak / MIB
    ));
    row.held(
        limited.rate() >= 0.5 * free.rate(),
        format!(
            "{:.0} MB/s, {:.0} MB/s without the limit (the sink in the test takes most of the CPU)",
            limited.rate(),
            free.rate()
        ),
    );
    row.record();
}
