//! `tailwater up` with a real Docker Engine: containers are tailed from their start to their end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_testkit::entry::EntryRef;
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::tempdir::TempDir;
use tailwater_testkit::time::system_unix_nanos;
use tailwater_tests::agent::Agent;
use tailwater_tests::docker::Engine;
use tailwater_tests::rig::tail;
use tailwater_tests::wait;

/// Many containers start and end within a test.
const BOUND: Duration = Duration::from_secs(120);

/// What arrived: by the name in the line, by its number, how often with which identity, and the first delay.
#[derive(Default)]
struct Arrived {
    lines: BTreeMap<(String, u64), Line>,
}

struct Line {
    /// Identities that differ are lines that Loki shows twice.
    identities: Vec<u64>,
    labels: String,
    delay: Duration,
}

/// A stand-in for Loki that sees what containers wrote.
struct Sink {
    loki: FakeLoki,
    arrived: Arc<Mutex<Arrived>>,
    dir: TempDir,
}

impl Sink {
    fn new(label: &str) -> Sink {
        let arrived: Arc<Mutex<Arrived>> = Arc::default();
        let seen = arrived.clone();
        let on_entry =
            move |entry: &EntryRef<'_>| take(&mut seen.lock().expect("not poisoned"), entry);
        let options = LokiOptions {
            behaviour: LokiBehaviour::permissive(),
            on_entry: Some(Arc::new(on_entry)),
            ..LokiOptions::default()
        };
        Sink {
            loki: FakeLoki::start(options).expect("a server"),
            arrived,
            dir: TempDir::new(label).expect("a directory"),
        }
    }

    fn up(&self, engine: &Engine, mode: &str) -> Agent {
        let (socket, url) = (engine.socket().display().to_string(), self.loki.url());
        let args = ["--docker", &socket, "--loki", &url, "--discovery", mode];
        Agent::up(&args, &self.dir.join("state"), self.dir.path())
    }

    /// Waits until these lines of each of these are there.
    fn expect(&self, names: &[&str], lines: u64, agent: &Agent) {
        let missing = || -> Vec<String> {
            let arrived = self.arrived.lock().expect("not poisoned");
            let count = |name: &str| {
                let there = |n: &u64| arrived.lines.contains_key(&(name.to_owned(), *n));
                (0..lines).filter(there).count() as u64
            };
            let all = names.iter().map(|name| (name, count(name)));
            let short = all.filter(|(_, n)| *n < lines);
            short
                .map(|(name, n)| format!("{name}: {n} of {lines}"))
                .collect()
        };
        let done = wait::within(BOUND, || missing().is_empty());
        assert!(done, "{:?}\n{}", missing(), tail(&agent.log()));
    }

    /// Each line is once in Loki, with the labels of its container.
    fn assert_once(&self) {
        for ((name, n), line) in &self.arrived.lock().expect("not poisoned").lines {
            assert_eq!(line.identities.len(), 1, "{name} {n}: shown twice");
            let label = format!("container=\"{name}\"");
            assert!(line.labels.contains(&label), "{name}: {}", line.labels);
            assert!(line.labels.contains("stream=\"stdout\""), "{}", line.labels);
            assert!(line.labels.contains("image=\"writer\""), "{}", line.labels);
        }
    }

    /// The delays of the first lines of containers, sorted.
    fn first_delays(&self) -> Vec<Duration> {
        let arrived = self.arrived.lock().expect("not poisoned");
        let first = arrived.lines.iter().filter(|((_, n), _)| *n == 0);
        let mut delays: Vec<_> = first.map(|(_, line)| line.delay).collect();
        delays.sort();
        delays
    }
}

fn take(arrived: &mut Arrived, entry: &EntryRef<'_>) {
    let text = String::from_utf8_lossy(entry.line);
    let mut words = text.split_whitespace();
    let (Some(name), Some(n), Some(ns)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    let (Ok(n), Ok(ns)) = (n.parse(), ns.parse::<i64>()) else {
        return;
    };
    let delay = Duration::from_nanos((system_unix_nanos() - ns).max(0) as u64);
    let new = || Line {
        identities: Vec::new(),
        labels: entry.labels.to_owned(),
        delay,
    };
    let line = arrived
        .lines
        .entry((name.to_owned(), n))
        .or_insert_with(new);
    let identity = entry.identity_hash();
    if !line.identities.contains(&identity) {
        line.identities.push(identity);
    }
}

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
    let delays = sink.first_delays();
    println!(
        "first line to delivered, {} containers: median {:?}, longest {:?}",
        delays.len(),
        delays[delays.len() / 2],
        delays[delays.len() - 1]
    );
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
