//! Row 3: Loki is down while logs rotate and are compressed.

use std::time::{Duration, Instant};

use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Format, Rotation};
use tailwater_tests::agent::Agent;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Lines per second of each writer.
const RATE: u64 = 500;
const WRITERS: u32 = 4;
const MIB: f64 = 1024.0 * 1024.0;

/// What the agent used over a time.
#[derive(Default)]
struct Samples {
    resident: Vec<f64>,
    descriptors: usize,
    threads: f64,
}

impl Samples {
    /// Samples every `pause` for `time`, and expects a right account each time.
    fn take(agent: &Agent, time: Duration, pause: Duration) -> Samples {
        let begin = Instant::now();
        let mut samples = Samples::default();
        while begin.elapsed() < time {
            wait::let_pass(pause);
            let scrape = agent.scrape();
            assert!(scrape.faults().is_empty(), "{:?}", scrape.faults());
            samples.resident.push(agent.resident_bytes() as f64);
            samples.descriptors = samples.descriptors.max(agent.descriptors());
            samples.threads = samples.threads.max(scrape.sum("tailwater_threads", &[]));
        }
        samples
    }

    /// Least and most resident memory after the first tenth, in bytes.
    fn range(&self) -> (f64, f64) {
        let settled = &self.resident[self.resident.len() / 10..];
        let least = settled.iter().copied().fold(f64::INFINITY, f64::min);
        (least, settled.iter().copied().fold(0.0, f64::max))
    }
}

#[test]
fn an_outage_costs_time_and_neither_lines_nor_memory() {
    // Three rotations a minute, or all that in a hurry.
    let (outage, lines_per_file, pause) = scaled(
        (Duration::from_secs(25), 1_000, Duration::from_millis(250)),
        (
            Duration::from_secs(3_600),
            RATE * 20,
            Duration::from_secs(5),
        ),
    );
    let mut row = Row::new(3, "Loki down")
        .how(format!(
            "connections refused for {} s; {WRITERS} container logs of {RATE} lines/s each, a \
             rotation every {} s, gzip one rotation later",
            outage.as_secs(),
            lines_per_file / RATE
        ))
        .pass("loss 0; RSS flat +-5 %; catch-up >= 3 times the rate of writing, begun <= 30 s");
    let rig = Rig::new("outage");
    let options = LiveOptions {
        lines_per_second: RATE,
        rotate_every_lines: Some(lines_per_file),
        lines_max: None,
    };
    let agent = rig.start(&rig.container_config("containerd"));
    let live: Vec<_> = (1..=WRITERS)
        .map(|id| {
            let writer = rig.writer(id, &format!("{id}.log"), |o| {
                (o.format, o.rotation) = (Format::Cri, Rotation::kubernetes(10_000));
            });
            LiveWriter::start(writer, options).expect("a thread")
        })
        .collect();
    let flowing = || rig.oracle.report().totals.delivered >= 2 * RATE;
    assert!(wait::within(wait::BOUND, flowing), "{}", tail(&agent.log()));
    rig.loki.set_reach(Reach::Refused).expect("closed");
    let samples = Samples::take(&agent, outage, pause);
    let before = rig.oracle.report().totals;
    rig.loki
        .set_reach(Reach::Up)
        .expect("the port is still free");
    // Caught up: what was written when we look has arrived, but for the last second.
    let begin = Instant::now();
    let slack = RATE * u64::from(WRITERS);
    let resumed = || rig.oracle.report().totals.delivered >= before.delivered + slack;
    assert!(wait::within(wait::BOUND, resumed), "{}", tail(&agent.log()));
    let resumed = begin.elapsed().as_secs_f64();
    let caught_up = wait::within(scaled(2, 20) * wait::BOUND, || {
        let t = rig.oracle.report().totals;
        t.missing <= slack
    });
    let seconds = begin.elapsed().as_secs_f64();
    let after = rig.oracle.report().totals;
    assert!(caught_up, "{}\n{}", rig.summary(), tail(&agent.log()));
    for writer in live {
        writer.stop().expect("written");
    }
    rig.wait_delivered(&agent);
    let peak = agent.resident_bytes_peak() as f64;
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} of them written during the outage",
        t.written, before.missing
    ));
    let (least, most) = samples.range();
    let middle = f64::midpoint(least, most);
    row.held(
        most - middle <= 0.05 * middle,
        format!(
            "RSS {:.1} to {:.1} MiB during the outage after its first tenth (+-{:.1} %), {:.1} MiB \
             at most in the whole run",
            least / MIB,
            most / MIB,
            100.0 * (most - middle) / middle,
            peak / MIB
        ),
    );
    row.reached(format!(
        "at most {} descriptors, {} threads",
        samples.descriptors, samples.threads
    ));
    let rate = (after.delivered - before.delivered) as f64 / seconds;
    row.held(
        rate >= 3.0 * slack as f64,
        format!(
            "catch-up at {:.0} times the rate of writing",
            rate / slack as f64
        ),
    );
    row.held(
        resumed <= 30.0,
        format!("going again after {resumed:.1} s, caught up after {seconds:.1} s"),
    );
    row.record();
}
