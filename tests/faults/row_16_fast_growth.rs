//! Row 16: a file that grows faster than it can be sent.

use std::time::{Duration, Instant};

use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Compress, Naming, Rotation};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

const MIB: u64 = 1024 * 1024;

/// The bound on resident memory.
const BUDGET: u64 = 128 * MIB;

/// Guarantees that a log which is written as fast as the machine can is read to its end, that how
/// far behind it is can be seen, and that memory does not depend on it.
#[test]
fn a_log_that_grows_as_fast_as_the_machine_writes_is_read_to_its_end() {
    let time = Duration::from_secs(scaled(5, 120));
    let mut row = Row::new(16, "a file that grows at device speed")
        .how(format!(
            "one writer without a pause for {} s, rotated each 200,000 lines of a kilobyte, all \
             generations kept; 15 min in the matrix, which was not run",
            time.as_secs()
        ))
        .pass("loss 0 to the rotation limit; RSS <= budget; unread bytes exported");
    let rig = Rig::keeping("growth", StoreMode::CountOnly);
    let writer = rig.writer(1, "app.log", |o| {
        o.pad_bytes = 900..=1_100;
        o.rotation = Rotation::RenameCreate {
            naming: Naming::Numbered,
            keep: 10_000,
            compress: Compress::Never,
            late_lines: 0,
        };
    });
    let agent = rig.start(&rig.config());
    let options = LiveOptions {
        lines_per_second: 0,
        rotate_every_lines: Some(200_000),
        lines_max: None,
    };
    let begin = Instant::now();
    let live = LiveWriter::start(writer, options).expect("a thread");
    let mut lag = 0.0_f64;
    while begin.elapsed() < time {
        lag = lag.max(agent.scrape().sum("tailwater_lag_bytes", &[]));
        wait::let_pass(Duration::from_millis(250));
    }
    let writer = live.stop().expect("written");
    let bytes = writer.bytes_written() as f64;
    let grown = bytes / 1e6 / begin.elapsed().as_secs_f64();
    let exported = wait::within(Duration::from_secs(5), || {
        lag = lag.max(agent.scrape().sum("tailwater_lag_bytes", &[]));
        lag > 0.0 || rig.oracle.is_complete()
    });
    assert!(exported && lag > 0.0, "unread bytes are not exported");
    rig.wait_delivered_within(&agent, Duration::from_secs(scaled(180, 3_600)));
    let rate = bytes / 1e6 / begin.elapsed().as_secs_f64();
    let peak = agent.resident_bytes_peak();
    let t = rig.finish(agent).totals;
    assert_eq!(t.out_of_order, 0);
    row.reached(format!(
        "grew at {grown:.0} MB/s, delivered at {rate:.0} MB/s with the sink on the same cores; 0 of \
         {} lines lost or out of order; up to {:.1} GB behind, as exported",
        t.written,
        lag / 1e9
    ));
    row.held(
        peak <= BUDGET,
        format!("peak {} MiB resident of {} MiB", peak / MIB, BUDGET / MIB),
    );
    row.record();
}
