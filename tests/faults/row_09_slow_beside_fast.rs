//! Row 9: one source, a fast sink and a slow one beside it.

use std::time::Instant;

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::writer::LogWriter;
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::front::{Front, Way};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// Bytes of requests per second that the slow one takes.
const SLOW_RATE: u64 = 10_000;

/// Lines that are there when the agent starts, about 100 bytes each.
fn lines() -> u64 {
    scaled(1_000_000, 4_000_000)
}

/// How fast the fast one gets what is there.
struct Rate {
    lines_per_second: f64,
    lines_per_cpu_second: f64,
}

/// Waits until the fast sink has all lines.
fn rate_of_fast(rig: &Rig, agent: &Agent, begin: Instant) -> Rate {
    rig.wait_delivered(agent);
    let delivered = rig.oracle.report().totals.delivered as f64;
    Rate {
        lines_per_second: delivered / begin.elapsed().as_secs_f64(),
        lines_per_cpu_second: delivered / agent.cpu_seconds(),
    }
}

fn backlog(rig: &Rig) -> LogWriter {
    let mut writer = rig.writer(1, "app.log", |_| {});
    writer.write_lines(lines()).expect("written");
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

/// The fast one alone.
fn alone() -> Rate {
    let rig = Rig::new("fast-alone");
    backlog(&rig);
    let begin = Instant::now();
    let agent = rig.start(&rig.config());
    let rate = rate_of_fast(&rig, &agent, begin);
    rig.finish(agent);
    rate
}

/// The fast one beside a slow one, which gets everything in the end; and what that had when the fast
/// one had everything.
fn beside() -> (Rate, u64) {
    let rig = Rig::new("fast-and-slow");
    let slow = FakeLoki::start(LokiOptions {
        behaviour: LokiBehaviour::permissive(),
        ..LokiOptions::default()
    });
    let slow = slow.expect("a server on a loopback port");
    let front = Front::start(slow.addr()).expect("a port");
    front.set(Way::Slow(SLOW_RATE));
    let writer = backlog(&rig);
    let begin = Instant::now();
    let agent = rig.start(&with_slow(&rig.config(), &front.push_url()));
    let rate = rate_of_fast(&rig, &agent, begin);
    let stored = || slow.stats().entries_distinct.unwrap_or_default();
    let late = stored();
    assert!(late < writer.lines_written() / 2, "not slow: {late}");
    front.set(Way::Pass);
    let all = wait::within(2 * wait::BOUND, || stored() >= writer.lines_written());
    assert!(all, "{} of {}", stored(), writer.lines_written());
    rig.finish(agent);
    assert_eq!(stored(), writer.lines_written());
    (rate, late)
}

fn median(rates: &[Rate], of: fn(&Rate) -> f64) -> f64 {
    let mut values: Vec<f64> = rates.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Guarantees that neither of two sinks loses a line because the other is slow, and that the fast one
/// gets all lines while the slow one has hardly begun.
#[test]
fn a_slow_sink_beside_a_fast_one_costs_neither_a_line() {
    const PAIRS: usize = 3;
    let mut row = Row::new(9, "slow sink beside a fast one")
        .how(format!(
            "a file of {} lines to two exporters, one of them behind a connection of {SLOW_RATE} \
             bytes/s until the other has all; before it the fast one alone; medians of {PAIRS} pairs",
            lines()
        ))
        .pass("fast >= 95 % of its rate alone; loss of the slow 0");
    let (mut rates_alone, mut rates_beside, mut late) = (Vec::new(), Vec::new(), 0);
    for _ in 0..PAIRS {
        rates_alone.push(alone());
        let (rate, had) = beside();
        rates_beside.push(rate);
        late = late.max(had);
    }
    row.reached(format!("0 of {} lines lost at either sink", lines()));
    let (rate_alone, rate_beside) = (
        median(&rates_alone, |r| r.lines_per_second),
        median(&rates_beside, |r| r.lines_per_second),
    );
    let by_cpu = |rates: &[Rate]| median(rates, |r| r.lines_per_cpu_second);
    row.held(
        rate_beside >= 0.95 * rate_alone,
        format!(
            "the fast one at {:.0} % of its rate alone ({rate_beside:.0} of {rate_alone:.0} lines/s), at \
             {:.0} % by CPU time of the agent, when the slow one had {late} lines at most",
            100.0 * rate_beside / rate_alone,
            100.0 * by_cpu(&rates_beside) / by_cpu(&rates_alone),
        ),
    );
    row.record();
}
