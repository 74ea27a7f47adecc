//! Row 14: a file is cut off and grows again while the agent is away.

use tailwater_testkit::writer::{Compress, Rotation};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Lines written at a time.
const LINES: u64 = 500;

/// Guarantees that a file which was cut off and grew beyond its old length while the agent was
/// away is read from its beginning.
#[test]
fn a_file_truncated_and_regrown_while_away_is_read_anew() {
    let rounds: u64 = scaled(6, 200);
    let mut row = Row::new(14, "truncated and regrown while down")
        .how(format!(
            "{rounds} times: the agent stops or is killed, the file is cut to nothing and grows to \
             less than, just as much as, or twice what it was"
        ))
        .pass("loss 0 of the new content; shown twice 0");
    let rig = Rig::new("regrow");
    let (keep, compress) = (0, Compress::Never);
    let mut writer = rig.writer(1, "app.log", |o| {
        o.rotation = Rotation::CopyTruncate {
            keep,
            compress,
            late_lines: 0,
        };
    });
    for round in 0..rounds {
        let agent = rig.start(&rig.config());
        writer.write_lines(LINES).expect("written");
        rig.wait_delivered(&agent);
        if round % 2 == 0 {
            agent.stop_clean();
        } else {
            // Nothing is unsaved, so a kill may repeat nothing either.
            let saved = || {
                agent
                    .scrape()
                    .sum("tailwater_checkpoint_unsaved_entries", &[])
                    == 0.0
            };
            assert!(wait::within(wait::BOUND, saved), "{}", tail(&agent.log()));
            agent.kill();
        }
        let length = std::fs::metadata(writer.path()).expect("a file").len();
        writer.rotate().expect("truncated");
        match round % 3 {
            0 => writer.write_lines(2 * LINES).map(drop).expect("written"),
            1 => writer.write_lines(LINES / 2).map(drop).expect("written"),
            // As long as before, to the line.
            _ => {
                while std::fs::metadata(writer.path()).expect("a file").len() < length {
                    writer.write_lines(1).expect("written");
                }
            }
        }
    }
    let agent = rig.start(&rig.config());
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} sent twice, 0 shown twice",
        t.written, t.duplicates_raw
    ));
    row.record();
}
