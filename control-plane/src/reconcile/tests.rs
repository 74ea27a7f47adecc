use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tailwater_telemetry::metrics::MetricsRegistry;

use super::*;
use crate::agents::FileProgress;
use crate::bus::{Bus, EmbeddedBus, ReadFrom};
use crate::model::Format;
use crate::store::SqliteStore;

/// An agent that says what a test wants.
#[derive(Default)]
struct Acting {
    /// Offers that came into force.
    taken: Vec<String>,
    /// What is refused, by a piece of its text.
    refuses: Option<String>,
    /// It does not answer.
    silent: bool,
    files: Vec<FileProgress>,
}

#[derive(Clone, Default)]
struct Port(Arc<Mutex<Acting>>);

impl Port {
    fn act<T>(&self, work: impl FnOnce(&mut Acting) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    fn judge(&self, targets: &str) -> Result<Answer, Silent> {
        self.act(|a| match &a.refuses {
            _ if a.silent => Err(Silent("test".into())),
            Some(piece) if targets.contains(piece) => {
                Ok(Answer::Refused(vec![format!("no {piece}")]))
            }
            _ => Ok(Answer::Applied(vec!["update".into()])),
        })
    }
}

impl AgentPort for Port {
    fn offer(&mut self, _: &Manifest, targets: &str) -> Result<Answer, Silent> {
        let answer = self.judge(targets)?;
        if let Answer::Applied(_) = answer {
            self.act(|a| a.taken.push(targets.to_owned()));
        }
        Ok(answer)
    }

    fn validate(&mut self, targets: &str) -> Result<Answer, Silent> {
        self.judge(targets)
    }

    fn states(&mut self, paths: &[&Path]) -> Result<Vec<FileProgress>, Silent> {
        let asked = |f: &&FileProgress| paths.contains(&&*f.path);
        Ok(self.act(|a| a.files.iter().filter(asked).cloned().collect()))
    }
}

struct Rig {
    store: Arc<dyn Store>,
    bus: EmbeddedBus,
    port: Port,
    reconciler: Reconciler,
    metrics: Metrics,
    dir: tempfile::TempDir,
}

const BASE: &str = "service: {pipelines: {logs: {exporters: [loki]}}}";

fn wall() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos() as i64
}

impl Rig {
    fn new() -> Rig {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().unwrap());
        Rig::with(store, Port::default())
    }

    fn with(store: Arc<dyn Store>, port: Port) -> Rig {
        let bus = EmbeddedBus::new(store.clone(), wall);
        let metrics = Metrics::new(Arc::new(MetricsRegistry::default()));
        let limits = Limits {
            drain_max: Duration::from_secs(3_600),
            settle: Duration::ZERO,
            removal_delay: Duration::ZERO,
        };
        let reconciler = Reconciler::new(Parts {
            store: store.clone(),
            events: bus.subscribe(CONSUMER, ReadFrom::Acknowledged).unwrap(),
            base: Base::parse(BASE, "base").unwrap(),
            agent: Box::new(port.clone()),
            metrics: metrics.clone(),
            wall,
            limits,
        });
        Rig {
            store,
            bus,
            port,
            reconciler: reconciler.unwrap(),
            metrics,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn present(&self, name: &str, generation: i64) {
        let source = Descriptor {
            id: name.to_owned(),
            origin: Origin::File,
            paths: vec![self.path(name)],
            format: Format::Plain,
            labels: BTreeMap::from([("name".into(), name.into())]),
        };
        let event = Event::Present { generation, source };
        let key = format!("{name}/{generation}");
        self.bus.publish(&key, &event).unwrap();
    }

    fn absent(&self, name: &str, generation: i64) {
        let event = Event::Absent {
            generation,
            origin: Origin::File,
            id: name.into(),
        };
        let key = format!("{name}/{generation}");
        self.bus.publish(&key, &event).unwrap();
    }

    /// What the agent says of a file from now on.
    fn reads(&self, name: &str, lag_bytes: u64) {
        let path = PathBuf::from(self.path(name));
        self.port.act(|a| {
            a.files.retain(|f| f.path != path);
            a.files.push(FileProgress {
                path,
                lag_bytes,
                read: 10,
                size: 10 + lag_bytes,
            });
        });
    }

    /// Turns until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Rig) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            assert!(Instant::now() < end, "not reached: {what}");
            self.reconciler.turn();
        }
    }

    fn state(&self, name: &str) -> Option<State> {
        let sources = self.store.sources().unwrap();
        sources.iter().find(|s| s.id == name).map(|s| s.state)
    }

    /// Whether the newest offer that was taken has a source.
    fn is_tailed(&self, name: &str) -> bool {
        let path = self.path(name);
        self.port
            .act(|a| a.taken.last().is_some_and(|t| t.contains(&path)))
    }
}

/// Guarantee: a source is tailed when it is found, live when it is read, stays until the agent has delivered
/// all of it, and is taken out then.
#[test]
fn a_source_is_tailed_until_its_end_is_delivered() {
    let mut rig = Rig::new();
    rig.present("a", 1);
    rig.until("tailed", |r| r.is_tailed("a"));
    assert_eq!(rig.state("a"), Some(State::Starting));
    rig.reads("a", 5);
    rig.until("live", |r| r.state("a") == Some(State::Live));
    std::fs::write(rig.path("a"), "x").unwrap();
    rig.absent("a", 2);
    rig.until("draining", |r| r.state("a") == Some(State::Draining));
    for _ in 0..3 {
        rig.reconciler.verify();
        assert_eq!(rig.state("a"), Some(State::Draining), "something is left");
    }
    assert!(rig.is_tailed("a"));
    rig.reads("a", 0);
    rig.until("gone", |r| r.state("a") == Some(State::Gone));
    rig.until("taken out", |r| !r.is_tailed("a"));
    let counts = rig.metrics.sources(Origin::File).unwrap();
    assert_eq!((counts.drained.get(), counts.missed.get()), (1, 0));
    let states: Vec<_> = rig
        .store
        .history("a", 10)
        .unwrap()
        .iter()
        .map(|t| t.to)
        .collect();
    let all = [State::Gone, State::Draining, State::Live, State::Starting];
    assert_eq!(states, all);
}

/// Guarantee: what went away before it was opened is counted as that, and not as delivered.
#[test]
fn what_was_never_opened_is_missed() {
    let mut rig = Rig::new();
    rig.present("a", 1);
    rig.absent("a", 2);
    rig.until("gone", |r| r.state("a") == Some(State::Gone));
    let counts = rig.metrics.sources(Origin::File).unwrap();
    assert_eq!((counts.drained.get(), counts.missed.get()), (0, 1));
}

/// Guarantee: a source that the agent refuses is found among those that came with it and left out alone; what
/// was in force stays meanwhile; it is tried again when it looks different.
#[test]
fn a_refused_source_is_left_out_alone() {
    let mut rig = Rig::new();
    rig.present("old", 1);
    rig.until("tailed", |r| r.is_tailed("old"));
    let bad = rig.path("bad");
    rig.port.act(|a| a.refuses = Some(bad));
    for name in ["new1", "bad", "new2"] {
        rig.present(name, 2);
    }
    rig.until("the others", |r| r.is_tailed("new1") && r.is_tailed("new2"));
    assert!(rig.is_tailed("old") && !rig.is_tailed("bad"));
    let counts = rig.metrics.sources(Origin::File).unwrap();
    assert_eq!(counts.quarantined.get(), 1);
    let offers = rig.store.offers(10).unwrap();
    assert!(
        offers
            .iter()
            .any(|o| !o.applied && o.answer.contains("no "))
    );
    // Each offer that was taken has the good one that was there before.
    let old = rig.path("old");
    assert!(
        rig.port
            .act(|a| a.taken.iter().skip(1).all(|t| t.contains(&old)))
    );
    rig.port.act(|a| a.refuses = None);
    let other = Descriptor {
        labels: BTreeMap::from([("name".into(), "other".into())]),
        ..rig
            .reconciler
            .registry
            .source("bad")
            .unwrap()
            .descriptor
            .clone()
            .unwrap()
    };
    let event = Event::Present {
        generation: 3,
        source: other,
    };
    rig.bus.publish("bad/3", &event).unwrap();
    rig.until("tried again", |r| r.is_tailed("bad"));
}

/// Guarantee: an agent that does not answer is asked again, and nothing is taken for done meanwhile.
#[test]
fn silence_is_no_answer() {
    let mut rig = Rig::new();
    rig.port.act(|a| a.silent = true);
    rig.present("a", 1);
    rig.until("asked in vain", |r| {
        r.reconciler.offer_at.is_some() && r.state("a").is_some()
    });
    assert!(!rig.is_tailed("a"));
    rig.port.act(|a| a.silent = false);
    rig.until("tailed", |r| r.is_tailed("a"));
}

/// Guarantee: a restart goes on with what was known, before anything is found, and renders the same.
#[test]
fn a_restart_goes_on_with_what_was_known() {
    let mut rig = Rig::new();
    rig.present("a", 1);
    rig.until("tailed", |r| r.is_tailed("a"));
    let before = rig.port.act(|a| a.taken.last().cloned()).unwrap();
    let base = Base::parse(BASE, "base").unwrap();
    assert_eq!(initial(&*rig.store, &base).unwrap().targets, before);
    let mut again = Rig::with(rig.store.clone(), Port::default());
    let text = before.clone();
    again.until("offered", move |r| {
        r.port.act(|a| a.taken.last() == Some(&text))
    });
    // Its end was not heard of; the snapshot says so.
    let event = Event::Snapshot {
        generation: 9,
        origin: Origin::File,
        ids: Vec::new(),
    };
    again.bus.publish("file/snapshot/9", &event).unwrap();
    again.until("ended", |r| {
        matches!(r.state("a"), Some(State::Draining | State::Gone))
    });
}

/// Guarantee: what cannot be rendered is left out, counted, and said once; it ends without being waited for.
#[test]
fn a_source_that_is_no_configuration_stops_no_other() {
    let mut rig = Rig::new();
    let source = Descriptor {
        id: "bad".into(),
        origin: Origin::File,
        paths: vec!["relative".into()],
        format: Format::Plain,
        labels: BTreeMap::new(),
    };
    let event = Event::Present {
        generation: 1,
        source,
    };
    rig.bus.publish("bad/1", &event).unwrap();
    rig.present("good", 1);
    rig.until("the good one", |r| r.is_tailed("good"));
    rig.until("counted", |r| {
        let counts = r.metrics.sources(Origin::File).unwrap();
        counts.quarantined.get() == 1
    });
    rig.absent("bad", 2);
    rig.until("gone", |r| r.state("bad") == Some(State::Gone));
}
