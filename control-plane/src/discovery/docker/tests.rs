use std::sync::Arc;

use serde_json::json;
use tailwater_telemetry::metrics::MetricsRegistry;

use self::stand_in::StandIn;
use super::*;
use crate::bus::{Bus, EmbeddedBus, ReadFrom, Subscription};
use crate::model::Event;
use crate::store::SqliteStore;

mod stand_in;

fn wall() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos() as i64
}

/// A watch of a stand-in for the Engine, and what it says.
struct Rig {
    engine: StandIn,
    events: Box<dyn Subscription>,
    stop: Stop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Rig {
    fn new(engine: StandIn, mode: Mode) -> Rig {
        Rig::with(engine, mode, Rules::default())
    }

    fn with(engine: StandIn, mode: Mode, rules: Rules) -> Rig {
        let bus = EmbeddedBus::new(Arc::new(SqliteStore::in_memory().unwrap()), wall);
        let events = bus.subscribe("test", ReadFrom::Event(0)).unwrap();
        let stop = Stop::default();
        let publisher = Publisher::new(Arc::new(bus), Origin::Docker, wall, 0, stop.clone());
        let metrics = Metrics::new(Arc::new(MetricsRegistry::default()));
        let docker = Docker::new(engine.socket(), mode, rules, publisher, metrics);
        let told = stop.clone();
        let thread = Some(std::thread::spawn(move || docker.run(&told)));
        Rig {
            engine,
            events,
            stop,
            thread,
        }
    }

    /// What is said next.
    fn next(&mut self) -> Event {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        // The bell may ring late, for an event that was read already.
        while std::time::Instant::now() < end {
            if let Some(recorded) = self
                .events
                .next(1, Duration::from_secs(60))
                .unwrap()
                .events
                .pop()
            {
                return recorded.event;
            }
        }
        panic!("nothing is said");
    }

    /// What is said next of this container: whether it is there, and its path then.
    fn next_of(&mut self, name: &str) -> Option<String> {
        loop {
            match self.next() {
                Event::Present { source, .. } if source.id == id(name) => {
                    return source.paths.first().cloned();
                }
                Event::Absent { id: of, .. } if of == id(name) => return None,
                _ => {}
            }
        }
    }

    /// The next snapshot.
    fn next_snapshot(&mut self) -> Vec<String> {
        loop {
            if let Event::Snapshot { ids, .. } = self.next() {
                return ids;
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

/// Guarantee: what runs, what starts and what ends is said in each mode, with where its log is; at the end of a list
/// it is said that these are all.
#[test]
fn containers_are_said_as_they_come_and_go() {
    for mode in [Mode::EventStream, Mode::SimplePolling, Mode::Hybrid] {
        let engine = StandIn::start("1.41");
        engine.run("there", "json-file");
        let mut rig = Rig::new(engine, mode);
        assert_eq!(
            rig.next_of("there").as_deref(),
            Some("/logs/there-json.log")
        );
        assert_eq!(rig.next_snapshot(), ["docker:there"]);
        rig.engine.run("new", "json-file");
        assert_eq!(rig.next_of("new").as_deref(), Some("/logs/new-json.log"));
        rig.engine.end("there");
        match mode {
            Mode::SimplePolling => loop {
                if rig.next_snapshot() == ["docker:new"] {
                    break;
                }
            },
            _ => assert_eq!(rig.next_of("there"), None),
        }
    }
}

/// Guarantee: after the stream breaks, what happened meanwhile is said: by the events since the last one, and by a
/// snapshot of what is there.
#[test]
fn a_broken_stream_loses_nothing() {
    let mut rig = Rig::new(StandIn::start("1.44"), Mode::EventStream);
    rig.engine.run("a", "json-file");
    assert!(rig.next_of("a").is_some());
    let connections = rig.engine.streams();
    rig.engine.break_off();
    rig.engine.run("b", "json-file");
    rig.engine.forget("a");
    assert!(rig.next_of("b").is_some());
    while rig.next_snapshot() != ["docker:b"] {}
    assert!(rig.engine.streams() > connections);
    let since = rig
        .engine
        .newest_since()
        .expect("it asks since its last event");
    assert!(since.contains('.') && since.len() > 10, "{since}");
}

/// Guarantee: a container without a file of its own is reported once, with its driver, and never guessed at.
#[test]
fn other_drivers_are_said_once() {
    let engine = StandIn::start("1.41");
    engine.run("j", "journald");
    let mut rig = Rig::new(engine, Mode::SimplePolling);
    let mut reports = Vec::new();
    let mut snapshots = 0;
    while snapshots < 3 {
        match rig.next() {
            Event::Unreadable { id, reason, .. } => reports.push((id, reason)),
            Event::Snapshot { .. } => snapshots += 1,
            Event::Present { source, .. } => panic!("{source:?}"),
            _ => {}
        }
    }
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].0, "docker:j");
    assert!(reports[0].1.contains("\"journald\""), "{reports:?}");
}

/// Guarantee: what is asked for before the start is answered, and what keeps it from that is said.
#[test]
fn an_engine_says_where_its_logs_are() {
    let engine = StandIn::start("1.52");
    let found = probe(&engine.socket()).unwrap();
    assert_eq!(found.containers, Path::new("/var/lib/stand-in/containers"));
    let old = StandIn::start("1.20");
    let error = probe(&old.socket()).unwrap_err().to_string();
    assert!(error.contains("1.20") && error.contains("1.24"), "{error}");
    let error = probe(Path::new("/nowhere/docker.sock")).unwrap_err();
    assert!(
        error.to_string().contains("/nowhere/docker.sock"),
        "{error}"
    );
}

/// Guarantee: what a container asks for by its labels is done, if it is allowed; and one that wants to be left alone is.
#[test]
fn labels_of_a_container_are_obeyed() {
    let engine = StandIn::start("1.41");
    engine.run_with("quiet", json!({"tailwater.io/logs": "false"}));
    engine.run_with(
        "api",
        json!({"tailwater.io/parser": "json", "tailwater.io/tenant": "shop"}),
    );
    engine.run_with("greedy", json!({"tailwater.io/tenant": "other"}));
    engine.run_with("odd", json!({"tailwater.io/parser": "nginx"}));
    let rules = Rules {
        opt_in: false,
        tenants: ["shop".to_owned()].into(),
    };
    let mut rig = Rig::with(engine, Mode::EventStream, rules);
    let mut said = Vec::new();
    loop {
        match rig.next() {
            Event::Present { source, .. } => {
                let tenant = source.labels.get(labels::TENANT).cloned();
                said.push(format!("{} {:?} {tenant:?}", source.id, source.format));
            }
            Event::Unreadable { id, reason, .. } => {
                assert!(reason.contains("does not allow"), "{reason}");
                said.push(format!("{id} not"));
            }
            Event::Unheeded { id, reason, .. } => {
                assert!(reason.contains("nginx"), "{reason}");
                said.push(format!("{id} unheeded"));
            }
            Event::Snapshot { ids, .. } => {
                assert!(!ids.contains(&"docker:quiet".to_owned()));
                break;
            }
            _ => {}
        }
    }
    assert_eq!(
        said,
        [
            "docker:api ContainerJson Some(\"shop\")",
            "docker:greedy not",
            "docker:odd unheeded",
            "docker:odd Docker None"
        ]
    );
}
