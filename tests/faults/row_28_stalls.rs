//! Row 28: an agent that gets no CPU, is stopped, or waits for its disk.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Compress, Naming, Rotation};
use tailwater_tests::agent::Agent;
use tailwater_tests::confine::Group;
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::rig::{Rig, tail, with_health_check};
use tailwater_tests::scrape::get;
use tailwater_tests::wait;

const PASS: &str = "loss 0; no false \"dead\" restart";

/// Four logs that rotate, two of them with compression.
fn writers(rig: &Rig) -> Vec<LiveWriter> {
    let start = |id: u32| {
        let writer = rig.writer(id, &format!("app{id}.log"), |o| {
            o.rotation = Rotation::RenameCreate {
                naming: Naming::Numbered,
                keep: 1_000,
                compress: [Compress::Never, Compress::Delayed][id as usize % 2],
                late_lines: 1,
            };
        });
        let options = LiveOptions {
            lines_per_second: 1_000,
            rotate_every_lines: Some(2_000 + u64::from(id) * 300),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    };
    (0..4).map(start).collect()
}

/// Stops writing, and everything has to arrive.
fn caught_up(rig: &Rig, agent: &Agent, live: Vec<LiveWriter>) -> Duration {
    let begin = Instant::now();
    for writer in live {
        writer.stop().expect("written");
    }
    rig.wait_delivered_within(agent, Duration::from_secs(120));
    begin.elapsed()
}

/// Guarantees that a tenth of a core costs time and nothing else, and that an agent which is slow
/// is not taken for a dead one.
#[test]
fn a_tenth_of_a_core_is_enough_to_lose_nothing() {
    let mut row = Row::new(28, "CPU quota 0.1")
        .how("four logs at 1,000 lines a second each, rotated and compressed, for 5 s (long: 60 s)")
        .pass(PASS);
    let group = match Group::cpu(10) {
        Ok(group) => group,
        Err(e) => return row.not_shown(format!("no control group for CPU: {e}")),
    };
    let rig = Rig::new("quota");
    let mut config = rig.config();
    let health = with_health_check(&mut config);
    let live = writers(&rig);
    let agent = rig.start_by(&config, |command| group.wrap(&command));
    let (end, mut answers) = (Instant::now() + Duration::from_secs(scaled(5, 60)), 0);
    while Instant::now() < end {
        let alive = get(health, "/live").expect("an answer");
        assert!(alive.starts_with("HTTP/1.1 200"), "taken for dead: {alive}");
        answers += 1;
        wait::let_pass(Duration::from_millis(250));
    }
    let took = caught_up(&rig, &agent, live);
    let used = agent.cpu_seconds();
    let t = rig.finish(agent).totals;
    drop(group);
    row.reached(format!(
        "0 of {} lines lost or shown twice; alive in {answers} of {answers} checks; {used:.1} s of \
         CPU; caught up {:.1} s after the last line",
        t.written,
        took.as_secs_f64()
    ));
    row.record();
}

/// Guarantees that an agent which is stopped for a while goes on as if nothing had happened.
#[test]
fn a_stopped_agent_goes_on_where_it_was() {
    let stopped = Duration::from_secs(scaled(10, 60));
    let mut row = Row::new(28, "SIGSTOP")
        .how(format!(
            "stopped for {} s under writing, rotation and compression",
            stopped.as_secs()
        ))
        .pass(PASS);
    let rig = Rig::new("sigstop");
    let mut config = rig.config();
    let health = with_health_check(&mut config);
    let live = writers(&rig);
    let agent = rig.start(&config);
    let begun = |rig: &Rig| rig.loki.stats().entries_accepted > 0;
    assert!(
        wait::within(wait::BOUND, || begun(&rig)),
        "{}",
        tail(&agent.log())
    );
    agent.signal(Signal::STOP);
    wait::let_pass(stopped);
    agent.signal(Signal::CONT);
    let alive = get(health, "/live").expect("an answer");
    assert!(alive.starts_with("HTTP/1.1 200"), "taken for dead: {alive}");
    let took = caught_up(&rig, &agent, live);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost or shown twice, {} sent again; alive at once; caught up {:.1} s after \
         the last line",
        t.written,
        t.duplicates_raw,
        took.as_secs_f64()
    ));
    row.record();
}

/// Guarantees that a disk which answers late does not hold up the agent's answers, and costs no line:
/// positions are saved late, and are right. Lines without a time of their own wait for it.
#[test]
fn a_disk_that_does_not_answer_costs_no_line() {
    let stalled = Duration::from_secs(scaled(5, 30));
    let mut row = Row::new(28, "disk stall")
        .how(format!(
            "each fdatasync takes {} s (strace) under writing and rotation, then a kill",
            stalled.as_secs()
        ))
        .pass(PASS);
    let rig = Rig::new("stall");
    let mut config: Value = rig.config();
    let health = with_health_check(&mut config);
    let agent = rig.start(&config);
    // A disk that never answered from the start is a state directory that is lost.
    let live = writers(&rig);
    let saved = wait::within(wait::BOUND, || {
        let entries = agent.scrape().sum("tailwater_checkpoint_entries", &[]);
        let writes = agent.scrape().sum("tailwater_checkpoint_writes", &[]);
        entries >= 4.0 && writes >= 2.0
    });
    assert!(saved, "nothing is saved\n{}", tail(&agent.log()));
    let inject = format!("inject=fdatasync,fsync:delay_enter={}", stalled.as_micros());
    let tracer = Command::new("strace")
        .args([
            "-f",
            "-q",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            &inject,
            "-o",
            "/dev/null",
        ])
        .args(["-p", &agent.pid().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut tracer) = tracer else {
        return row.not_shown("strace is not here");
    };
    let status = format!("/proc/{}/status", agent.pid());
    let attached = wait::within(Duration::from_secs(5), || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        !text.contains("TracerPid:\t0")
    });
    if !attached {
        let _ = tracer.kill();
        let _ = tracer.wait();
        return row.not_shown("strace may not trace here");
    }
    let end = Instant::now() + 2 * stalled;
    while Instant::now() < end {
        let alive = get(health, "/live").expect("an answer");
        assert!(alive.starts_with("HTTP/1.1 200"), "taken for dead: {alive}");
        wait::let_pass(Duration::from_millis(250));
    }
    let meanwhile = rig.loki.stats().entries_accepted;
    agent.kill();
    let id = i32::try_from(tracer.id()).ok().and_then(Pid::from_raw);
    let _ = id.map(|id| kill_process(id, Signal::INT));
    tracer.wait().expect("a child can be waited for");
    let agent = rig.start(&config);
    let took = caught_up(&rig, &agent, live);
    let t = rig.finish(agent).totals;
    row.reached(format!(
        "0 of {} lines lost or shown twice, {} sent again after the kill; {meanwhile} delivered \
         during {} s of stalls; caught up {:.1} s after the last line",
        t.written,
        t.duplicates_raw,
        2 * stalled.as_secs(),
        took.as_secs_f64()
    ));
    row.record();
}
