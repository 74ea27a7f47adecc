//! `tailwater up` with a real Docker Engine: containers are tailed from their start to their end.

use std::time::Duration;

use tailwater_tests::docker::Engine;
use tailwater_tests::docker::sink::{BOUND, Sink, spread};
use tailwater_tests::rig::tail;
use tailwater_tests::wait;

/// An Engine; where none can run the test is skipped and says so.
macro_rules! engine {
    () => {
        match Engine::start() {
            Ok(engine) => engine,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        }
    };
}

/// Guarantees that in each mode containers that run, that start, that end, that end at once and are removed with their
/// logs while they are read, and that are started again, are delivered whole and once; that what ended is taken out
/// of the configuration; and that a restart of `up` goes on, with what happened meanwhile.
#[test]
fn containers_are_tailed_from_start_to_end() {
    let engine = engine!();
    for mode in ["event_stream", "hybrid", "simple_polling"] {
        let sink = Sink::new("up-docker");
        let name = |n: &str| format!("{}-{n}", mode.replace('_', "-"));
        let (before, a, b) = (name("before"), name("a"), name("b"));
        engine.write(&before, &[], 50, 0, 600_000);
        let agent = sink.up(&engine, mode);
        engine.write(&a, &[], 2_000, 500, 0);
        engine.write(&b, &["--env", "X=1"], 100, 0, 600_000);
        sink.expect(&[&before, &b], 50, &agent);
        sink.expect(&[&a], 2_000, &agent);
        sink.expect(&[&b], 100, &agent);
        let ended = || agent.log().matches("it is not tailed any more").count() >= 1;
        assert!(wait::within(BOUND, ended), "{}", tail(&agent.log()));
        // Its lines go on where they were: the same numbers, at other times.
        agent.stop_clean();
        let away = name("away");
        engine.write(&away, &[], 30, 0, 600_000);
        let agent = sink.up(&engine, mode);
        sink.expect(&[&away], 30, &agent);
        engine.docker(&["rm", "--force", &before, &b, &away]);
        let left = || agent.log().matches("it is not tailed any more").count() >= 3;
        assert!(wait::within(BOUND, left), "{}", tail(&agent.log()));
        agent.stop_clean();
        engine.docker(&["rm", "--force", &a]);
        sink.assert_once();
    }
}

/// Guarantees that containers which live for a third of a second, and take their logs along, are delivered whole,
/// and says how long the first lines took.
#[test]
fn containers_that_live_for_a_moment_lose_nothing() {
    let engine = engine!();
    let sink = Sink::new("up-docker-short");
    let agent = sink.up(&engine, "event_stream");
    let watched = || agent.log().contains("the Docker Engine is watched");
    assert!(wait::within(BOUND, watched), "{}", agent.log());
    let names: Vec<String> = (0..20).map(|n| format!("short-{n}")).collect();
    for name in &names {
        engine.write(name, &["--rm"], 40, 0, 300);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    sink.expect(&all, 40, &agent);
    sink.assert_once();
    println!("first line to delivered: {}", spread(&sink.first_delays()));
    // Many lines that are alike are not all in the log.
    let none_left = || {
        let log = agent.log();
        let newest = log.lines().rfind(|l| l.contains("in force"));
        newest.is_some_and(|l| l.contains("\"sources\": 0,"))
    };
    assert!(wait::within(BOUND, none_left), "{}", tail(&agent.log()));
    agent.stop_clean();
}

/// Guarantees that an Engine that goes away and comes back is watched again: what ended with it is drained, and what
/// starts after it is tailed.
#[test]
fn an_engine_may_go_away_and_come_back() {
    let mut engine = engine!();
    let sink = Sink::new("up-docker-restart");
    let agent = sink.up(&engine, "event_stream");
    engine.write("early", &[], 100, 0, 600_000);
    sink.expect(&["early"], 100, &agent);
    engine.end();
    let lost = || agent.log().contains("it is tried again until it is there");
    assert!(wait::within(BOUND, lost), "{}", tail(&agent.log()));
    engine.begin();
    engine.write("late", &[], 100, 0, 600_000);
    sink.expect(&["late"], 100, &agent);
    let ended = || agent.log().contains("it is not tailed any more");
    assert!(wait::within(BOUND, ended), "{}", tail(&agent.log()));
    engine.docker(&["rm", "--force", "early", "late"]);
    agent.stop_clean();
    sink.assert_once();
}

/// Guarantees that a container whose driver has no file is reported once, whatever is listed again, and stops no other.
#[test]
fn other_logging_drivers_are_reported_once() {
    let engine = engine!();
    let sink = Sink::new("up-docker-driver");
    let agent = sink.up(&engine, "simple_polling");
    engine.write("silent", &["--log-driver", "none"], 10, 0, 600_000);
    engine.write("local", &["--log-driver", "local"], 10, 0, 600_000);
    engine.write("loud", &[], 10, 0, 600_000);
    sink.expect(&["loud"], 10, &agent);
    let reported = || agent.log().matches("its logging driver is").count() >= 2;
    assert!(wait::within(BOUND, reported), "{}", agent.log());
    // It is listed again every second.
    wait::let_pass(Duration::from_secs(3));
    assert_eq!(
        agent.log().matches("its logging driver is").count(),
        2,
        "{}",
        agent.log()
    );
    engine.docker(&["rm", "--force", "silent", "local", "loud"]);
    agent.stop_clean();
}
