//! Row 9: one source, a fast sink and a slow one beside it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::front::{Front, Way};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// Bytes of requests per second that the slow one takes.
const SLOW_RATE: u64 = 10_000;

/// Lines that are there when the agent starts, about 100 bytes each.
const LINES: u64 = 300_000;

/// Lines per second that arrive at the fast sink until it has all of them, or for `time`.
fn rate_of_fast(rig: &Rig, time: Duration) -> f64 {
    let begin = Instant::now();
    wait::within(time, || rig.oracle.is_complete());
    rig.oracle.report().totals.delivered as f64 / begin.elapsed().as_secs_f64()
}

fn backlog(rig: &Rig) -> LogWriter {
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(LINES).expect("written");
    writer
}

fn with_slow(config: &Value, slow: &str) -> Value {
    let mut config = config.clone();
    let mut exporter = config["exporters"]["loki"].clone();
    exporter["endpoint"] = json!(slow);
    config["exporters"]["loki/slow"] = exporter;
    config["service"]["pipelines"]["logs"]["exporters"] = json!(["loki", "loki/slow"]);
    config
}

/// Guarantees that neither of two sinks loses a line because the other is slow. That the fast one
/// keeps its rate is measured, not expected: a position passes what both have.
#[test]
fn a_slow_sink_beside_a_fast_one_costs_neither_a_line() {
    let time = scaled(Duration::from_secs(8), Duration::from_secs(60));
    let mut row = Row::new(9, "slow sink beside a fast one")
        .how(format!(
            "a file of {LINES} lines to two exporters, one of them behind a connection of {SLOW_RATE} \
             bytes/s for {} s; before it the fast one alone",
            time.as_secs()
        ))
        .pass("fast >= 95 % of its rate alone; loss of the slow 0");
    let alone = {
        let rig = Rig::new("fast-alone");
        backlog(&rig);
        let agent = rig.start(&rig.config());
        let rate = rate_of_fast(&rig, wait::BOUND);
        rig.wait_delivered(&agent);
        rig.finish(agent);
        rate
    };
    let rig = Rig::new("fast-and-slow");
    let slow = FakeLoki::start(LokiOptions {
        behaviour: LokiBehaviour::permissive(),
        ..LokiOptions::default()
    });
    let slow = slow.expect("a server on a loopback port");
    let front = Front::start(slow.addr()).expect("a port");
    front.set(Way::Slow(SLOW_RATE));
    let writer = backlog(&rig);
    let agent = rig.start(&with_slow(&rig.config(), &front.push_url()));
    let beside = rate_of_fast(&rig, time);
    front.set(Way::Pass);
    rig.wait_delivered_within(&agent, 2 * wait::BOUND);
    let stored = || slow.stats().entries_distinct.unwrap_or_default();
    let all = wait::within(2 * wait::BOUND, || stored() >= writer.lines_written());
    assert!(all, "{} of {}", stored(), writer.lines_written());
    let t = rig.finish(agent).totals;
    assert_eq!(stored(), writer.lines_written());
    row.reached(format!("0 of {} lines lost at either sink", t.written));
    row.held(
        beside >= 0.95 * alone,
        format!(
            "the fast one at {:.0} % of its rate alone ({beside:.0} of {alone:.0} lines/s)",
            100.0 * beside / alone
        ),
    );
    if beside < 0.95 * alone {
        row.why(
            "a receiver reads as fast as the slowest of its exporters accepts, for a position passes \
             what all of them have; a receiver of its own for each is the way around",
        );
    }
    row.record();
}
