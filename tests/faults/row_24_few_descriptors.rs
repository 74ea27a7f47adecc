//! Row 24: fewer descriptors than files.

use std::time::Duration;

use serde_json::json;
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::confine::after;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// What the agent may open in all: files, sockets, its own log and store.
const LIMIT: usize = 64;

/// Guarantees that an agent with few descriptors reads many more files than it may open, saves
/// positions all the same, and serves its metrics.
#[test]
fn many_more_files_than_descriptors_are_read() {
    let files = scaled(1_000, 5_000);
    let mut row = Row::new(24, "fewer descriptors than files")
        .how(format!(
            "RLIMIT_NOFILE {LIMIT} and {files} files, three lines each before and after the start, \
             a kill in between; clients of receivers come with those"
        ))
        .pass("loss 0; metrics answer; positions are saved");
    let rig = Rig::new("nofile");
    let mut config = rig.config();
    config["receivers"]["filelog"]["max_concurrent_files"] = json!(1_024);
    let mut writers: Vec<LogWriter> = Vec::new();
    for id in 0..files {
        // Closed again at once: the test has a limit of its own.
        let mut writer = rig.writer(id, &format!("f{id}.log"), |_| {});
        writer.write_lines(3).expect("written");
        if id % 10 == 0 {
            writers.push(writer);
        }
    }
    let start = || {
        rig.start_by(&config, |command| {
            after(&format!("ulimit -n {LIMIT}"), &command)
        })
    };
    let agent = start();
    rig.wait_delivered_within(&agent, Duration::from_secs(60));
    let open = agent.descriptors();
    assert!(open <= LIMIT, "{open} descriptors");
    let saved = wait::within(wait::BOUND, || {
        let scrape = agent.scrape();
        scrape.sum("tailwater_checkpoint_entries", &[]) >= f64::from(files)
            && scrape.sum("tailwater_checkpoint_unsaved_entries", &[]) == 0.0
    });
    assert!(saved, "positions are not saved\n{}", tail(&agent.log()));
    agent.kill();
    for writer in &mut writers {
        writer.write_lines(3).expect("written");
    }
    let agent = start();
    for writer in &mut writers {
        writer.write_lines(3).expect("written");
    }
    rig.wait_delivered_within(&agent, Duration::from_secs(60));
    let errors = agent.scrape().sum("tailwater_file_errors", &[]);
    let complained = agent.log().matches("oo many open files").count();
    let t = rig.finish(agent).totals;
    assert_eq!(t.duplicates_raw, 0, "positions were not saved");
    row.reached(format!(
        "0 of {} lines lost or sent again; {open} descriptors open of {LIMIT}; {errors} errors, \
         {complained} complaints",
        t.written
    ));
    row.record();
}
