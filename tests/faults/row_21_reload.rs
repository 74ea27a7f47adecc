//! Row 21: reloads under load, of every kind of change, one after the other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Naming, Rotation};
use tailwater_tests::agent::Agent;
use tailwater_tests::changes::change;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "loss 0, dup 0; RSS <= +1 %, fds equal; p99 pause <= 50 ms";

/// The rig's configuration, whose log answers each time.
fn config(rig: &Rig) -> Value {
    let mut config = rig.config();
    config["service"]["telemetry"]["logs"] =
        json!({"level": "info", "sampling": {"enabled": false}});
    config
}

fn writers(rig: &Rig, lines_per_second: u64) -> Vec<LiveWriter> {
    let writer = |id: u32| {
        let writer = rig.writer(id, &format!("app-{id}.log"), |o| {
            o.pad_bytes = 200..=300;
            o.rotation = Rotation::RenameCreate {
                naming: Naming::Numbered,
                keep: 1_000,
                compress: Default::default(),
                late_lines: 3,
            };
        });
        let options = LiveOptions {
            lines_per_second,
            rotate_every_lines: Some(lines_per_second),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    };
    (1..=4).map(writer).collect()
}

/// The values of a field of the lines that say that a configuration changed.
fn field(log: &str, name: &str) -> Vec<f64> {
    let changed = log.lines().filter(|l| l.contains("configuration changed"));
    let name = format!("\"{name}\": ");
    let value = |l: &str| {
        let rest = &l[l.find(&name)? + name.len()..];
        rest[..rest.find([',', '}'])?].parse().ok()
    };
    changed.filter_map(value).collect()
}

fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * 99).div_ceil(100).max(1) - 1;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// What a process has that must not grow.
fn held(agent: &Agent) -> (u64, usize, usize) {
    let threads = std::fs::read_dir(format!("/proc/{}/task", agent.pid()));
    let threads = threads.expect("it runs").count();
    (agent.resident_bytes(), agent.descriptors(), threads)
}

/// Guarantees that reloads of every kind under load lose nothing and show nothing twice.
#[test]
fn reloads_under_load_lose_and_repeat_nothing() {
    let reloads = scaled(120, 1_000);
    let rate = scaled(5_000, 50_000);
    let mut row = Row::new(21, "reloads under load")
        .how(format!(
            "{reloads} changes of 12 kinds, one every 100 ms, {} lines/s of 300 bytes in 4 files that \
             rotate every second",
            4 * rate
        ))
        .pass(PASS);
    let rig = Rig::keeping("reloads", StoreMode::CountOnly);
    let mut config = config(&rig);
    let agent = rig.start(&config);
    let live = writers(&rig, rate);
    let begin = Instant::now();
    let mut before = held(&agent);
    for n in 0..reloads {
        if n == reloads / 5 {
            before = held(&agent);
        }
        let next = begin + Duration::from_millis(100) * u32::try_from(n).expect("few");
        wait::let_pass(next.saturating_duration_since(Instant::now()));
        change(&mut config, n);
        assert!(agent.reload(&config), "{n}: {}", tail(&agent.log()));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let written: u64 = live.iter().map(LiveWriter::lines).sum();
    for writer in live {
        writer.stop().expect("written");
    }
    rig.wait_delivered_within(&agent, scaled(wait::BOUND, 4 * wait::BOUND));
    let after = held(&agent);
    let log = agent.log();
    let (took, pause) = (field(&log, "took_ms"), field(&log, "pause_ms"));
    let t = rig.finish(agent).totals;
    let grown = after.0 as f64 / before.0 as f64 - 1.0;
    let within = p99(pause.clone()) <= 50.0 && grown <= 0.01 && after.1 <= before.1;
    let figure = format!(
        "0 of {} lines lost, {} sent twice, 0 shown twice, at {:.0} lines/s; RSS {:.1} to {:.1} MiB, descriptors {} \
         to {}, threads {} to {}; pause of a shard p99 {:.1} ms, a whole reload p99 {:.0} ms",
        t.written,
        t.duplicates_raw,
        written as f64 / seconds,
        before.0 as f64 / 1048576.0,
        after.0 as f64 / 1048576.0,
        before.1,
        after.1,
        before.2,
        after.2,
        p99(pause),
        p99(took),
    );
    row.held(within, figure);
    row.record();
}

/// Guarantees the same while the sink is away all the time.
#[test]
fn reloads_without_a_sink_lose_and_repeat_nothing() {
    let reloads = scaled(60, 1_000);
    let mut row = Row::new(21, "reloads while the sink is away")
        .how(format!(
            "{reloads} changes of 12 kinds, the sink refuses connections throughout"
        ))
        .pass(PASS);
    let rig = Rig::keeping("reloads-down", StoreMode::CountOnly);
    let mut config = config(&rig);
    let agent = rig.start(&config);
    let live = writers(&rig, 500);
    rig.loki.set_reach(Reach::Refused).expect("a port");
    for n in 0..reloads {
        change(&mut config, n);
        assert!(agent.reload(&config), "{n}: {}", tail(&agent.log()));
    }
    for writer in live {
        writer.stop().expect("written");
    }
    rig.loki.set_reach(Reach::Up).expect("a port");
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} sent twice, 0 shown twice",
        t.written, t.duplicates_raw
    ));
    row.record();
}

/// Guarantees that a kill at any moment of a reload loses nothing and shows nothing twice.
#[test]
fn kills_during_reloads_lose_nothing() {
    let kills = scaled(15, 100);
    let mut row = Row::new(21, "kill -9 during reloads")
        .how(format!(
            "{kills} kills at random moments while one change follows the other"
        ))
        .pass(PASS);
    let rig = Rig::keeping("reload-kills", StoreMode::CountOnly);
    let mut config = config(&rig);
    let live = writers(&rig, 500);
    let mut rng = Rng::new(21);
    let mut n = 0;
    for _ in 0..kills {
        let agent = rig.start(&config);
        let until = Instant::now() + Duration::from_millis(20 + rng.below(400));
        while Instant::now() < until {
            change(&mut config, n);
            n += 1;
            agent.offer(&config);
            agent.signal(rustix::process::Signal::HUP);
            wait::let_pass(Duration::from_millis(rng.below(60)));
        }
        agent.kill();
    }
    for writer in live {
        writer.stop().expect("written");
    }
    let agent = rig.start(&config);
    rig.wait_delivered(&agent);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost, {} sent twice, 0 shown twice, {n} changes",
        t.written, t.duplicates_raw
    ));
    row.record();
}
