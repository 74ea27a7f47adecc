//! Row 12, at length: many files rotate ten times a second in each way, through outages and while
//! the agent is down or killed.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::oracle::OracleReport;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Compress, Naming, Rotation};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Rotated files kept where each keeps its name: 30 s of them, more than any interruption takes.
const KEEP: usize = 300;

/// Rotated files kept where all are renamed at each rotation.
const KEEP_NUMBERED: usize = 60;

/// Lines of a second, of each file.
const RATE: u64 = 200;

fn rename(compress: Compress) -> Rotation {
    Rotation::RenameCreate {
        naming: Naming::Kubernetes,
        keep: KEEP,
        compress,
        late_lines: 2,
    }
}

fn copy() -> Rotation {
    Rotation::CopyTruncate {
        keep: KEEP_NUMBERED,
        compress: Compress::Never,
        late_lines: 0,
    }
}

/// A way to rotate, and how many lines there are between two rotations.
type Way = (Rotation, u64);

/// Many files that rotate, the agent that reads them, and what comes in between.
struct Storm {
    rig: Rig,
    ways: Vec<Way>,
    rotations: u64,
    interruptions: [u32; 3],
    /// From the last line until everything was delivered.
    behind: Duration,
}

impl Storm {
    /// Rotates `files` files for `time`, in turn in each of `ways`, while Loki is down or the agent
    /// is stopped or killed for up to 2 s every few seconds; then waits until all is delivered that
    /// can be.
    fn run(ways: Vec<Way>, files: u32, time: Duration) -> Storm {
        let rig = Rig::new("rotations");
        let mut config = rig.config();
        config["receivers"]["filelog"]["include"] = json!([rig.logs("*/app.log")]);
        let mut agent = rig.start(&config);
        let live: Vec<_> = (0..files)
            .map(|id| {
                fs::create_dir(rig.logs(&id.to_string())).expect("a directory");
                let (rotation, lines) = ways[id as usize % ways.len()];
                let writer = rig.writer(id, &format!("{id}/app.log"), |o| o.rotation = rotation);
                let options = LiveOptions {
                    lines_per_second: RATE,
                    rotate_every_lines: Some(lines),
                    lines_max: None,
                };
                (LiveWriter::start(writer, options).expect("a thread"), lines)
            })
            .collect();
        let mut rng = Rng::new(12);
        let begin = Instant::now();
        let mut interruptions = [0; 3];
        while begin.elapsed() < time {
            wait::let_pass(Duration::from_millis(1_000 + rng.below(2_000)));
            let pause = Duration::from_millis(200 + rng.below(1_800));
            // Each of them in turn, so that a short run has all.
            let what = interruptions.iter().sum::<u32>() as usize % 3;
            interruptions[what] += 1;
            if what == 0 {
                rig.loki.set_reach(Reach::Refused).expect("closed");
                wait::let_pass(pause);
                rig.loki
                    .set_reach(Reach::Up)
                    .expect("the port is still free");
                continue;
            }
            if what == 1 {
                agent.stop_clean();
            } else {
                agent.kill();
            }
            wait::let_pass(pause);
            agent = rig.start(&config);
        }
        let rotations = live.iter().map(|(l, lines)| l.lines() / lines).sum();
        for (writer, _) in live {
            writer.stop().expect("written");
        }
        let over = Instant::now();
        rig.wait_delivered_within(&agent, 4 * wait::BOUND);
        let behind = over.elapsed();
        let faults = agent.scrape().faults();
        assert!(faults.is_empty(), "{faults:?}\n{}", tail(&agent.log()));
        agent.stop_clean();
        Storm {
            rig,
            ways,
            rotations,
            interruptions,
            behind,
        }
    }

    /// Expects that nothing was lost which can still be read, damaged or invented.
    fn assert_readable_is_delivered(&self) -> OracleReport {
        let report = self.rig.oracle.report();
        let t = &report.totals;
        let other = t.corrupt + t.phantom + report.foreign + report.unknown;
        assert_eq!(
            (t.missing_readable(), other),
            (0, 0),
            "{}",
            self.rig.summary()
        );
        report
    }

    fn summary(&self) -> String {
        let t = self.rig.oracle.report().totals;
        let [outages, stops, kills] = self.interruptions;
        format!(
            "{} rotations of {} lines through {outages} outages, {stops} stops and {kills} kills; \
             delivered {:.1} s after the last line",
            self.rotations,
            t.written,
            self.behind.as_secs_f64()
        )
    }
}

const PASS: &str =
    "loss 0; of copytruncate and deletion at most what nobody could read, counted exactly";

/// Guarantees that rotation ten times a second loses nothing that a file holds, whatever else
/// happens, and shows nothing twice.
#[test]
fn rotation_ten_times_a_second_loses_nothing_that_a_file_holds() {
    let (files, time) = scaled(
        (12, Duration::from_secs(12)),
        (100, Duration::from_secs(600)),
    );
    let mut row = Row::new(12, "rotation, 10/s per file")
        .how(format!(
            "{files} files for {} s, a third each by rename, rename and gzip (30 s of files kept), \
             deletion; Loki down or the agent stopped or killed for up to 2 s every few seconds",
            time.as_secs()
        ))
        .pass(PASS);
    let ways = vec![
        (rename(Compress::Never), RATE / 10),
        (rename(Compress::Delayed), RATE / 10),
        (Rotation::DeleteCreate, RATE / 10),
    ];
    let storm = Storm::run(ways, files, time);
    let report = storm.assert_readable_is_delivered();
    let mut deleted = 0;
    for w in &report.writers {
        let (rotation, _) = storm.ways[w.writer as usize % storm.ways.len()];
        let shown = w.duplicates_after_dedup + w.duplicates_unclassified;
        let lost = match rotation {
            Rotation::DeleteCreate => 0,
            _ => w.missing,
        };
        deleted += w.missing;
        assert_eq!((lost, shown), (0, 0), "{}", storm.rig.summary());
    }
    row.reached(storm.summary());
    row.reached(format!(
        "of renamed and compressed files 0 lost; {deleted} lines were deleted with their file, which \
         lived for 0.1 s, before it was opened"
    ));
    row.record();
}

/// Guarantees that copytruncate through outages and kills loses nothing that its copies hold. Ten
/// times a second that is measured, not expected: a copy is told from a new file only by looking,
/// and sixty copies are gone in six seconds.
#[test]
fn copytruncate_through_outages_and_kills_loses_nothing_that_a_copy_holds() {
    for (name, seconds_per_rotation) in [("every 2 s", 2.0), ("10/s per file", 0.1)] {
        let time = scaled(Duration::from_secs(10), Duration::from_secs(300));
        let mut row = Row::new(12, &format!("copytruncate, {name}"))
            .how(format!(
                "4 files for {} s, {KEEP_NUMBERED} copies kept; Loki down or the agent stopped or \
                 killed for up to 2 s every few seconds",
                time.as_secs()
            ))
            .pass(PASS);
        let lines = (RATE as f64 * seconds_per_rotation) as u64;
        let storm = Storm::run(vec![(copy(), lines)], 4, time);
        let t = storm.assert_readable_is_delivered().totals;
        let shown = t.duplicates_after_dedup + t.duplicates_unclassified;
        row.reached(storm.summary());
        if seconds_per_rotation > 1.0 {
            assert_eq!((t.missing, shown), (0, 0), "{}", storm.rig.summary());
        }
        row.held(
            t.missing == 0,
            format!("{} lines lost of copies that came and went", t.missing),
        );
        row.held(shown == 0, format!("{shown} lines shown twice"));
        row.record();
    }
}
