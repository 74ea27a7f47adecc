use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tailwater_control_plane::bus::{Batch, EmbeddedBus, Gap, ReadFrom, Subscription};
use tailwater_control_plane::model::{Event, Format};
use tailwater_control_plane::report::{Report, Reported};
use tailwater_control_plane::store::SqliteStore;
use tailwater_telemetry::metrics::MetricsRegistry;

use super::step::{DRAINED, ENDED, READ, REPORTED, UNNAMED};
use super::*;

const HOUR: u64 = 3_600_000;

struct Bench {
    dir: tempfile::TempDir,
    sources: Sources,
}

fn open(dir: &tempfile::TempDir, now_ms: u64) -> Sources {
    let store = SqliteStore::open(&dir.path().join("control-plane.db")).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let bus = Arc::new(EmbeddedBus::new(store.clone(), || 0));
    over(store, bus, now_ms)
}

fn over(store: Arc<dyn Store>, bus: Arc<dyn Bus>, now_ms: u64) -> Sources {
    let metrics = Metrics::new(Arc::new(MetricsRegistry::default()));
    Sources::open(store, bus, metrics, now_ms).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let sources = open(&dir, 0);
        Bench { dir, sources }
    }

    fn say(&self, agent: InstanceUid, sources: &[Reported], now_ms: u64) {
        let report = Report::of(sources.iter().cloned(), 0);
        self.sources
            .take(agent, &report.to_bytes(), now_ms)
            .unwrap();
    }

    /// Ids and states of an agent, those that are gone included.
    fn states(&self, agent: InstanceUid) -> Vec<(String, &'static str)> {
        let of = |state| Filter {
            agent: Some(agent),
            state: Some(state),
            ..Filter::default()
        };
        let mut all: Vec<_> = State::ALL
            .into_iter()
            .flat_map(|state| self.sources.rows(&of(state), 1_000).0)
            .map(|row| (row.id, row.source.state.name()))
            .collect();
        all.sort();
        all
    }

    fn history(&self, agent: InstanceUid, id: &str) -> Vec<(&'static str, String)> {
        let mut all = self.sources.history(agent, id, 100).unwrap();
        all.reverse();
        all.into_iter().map(|m| (m.to.name(), m.reason)).collect()
    }
}

fn agent(n: u8) -> InstanceUid {
    InstanceUid::v7(1, [n; 10])
}

fn source(id: &str, state: State, generation: i64) -> Reported {
    Reported {
        id: id.into(),
        kind: Origin::Docker,
        format: Format::Docker,
        paths: vec![format!("/var/lib/docker/{id}.log")],
        state,
        generation,
        since_ms: 1,
        lag_bytes: 5,
        labels: BTreeMap::from([("service.name".into(), format!("of-{id}"))]),
    }
}

fn expect(found: &[(String, &'static str)], wanted: &[(&str, &str)]) {
    let found: Vec<_> = found.iter().map(|(id, s)| (id.as_str(), *s)).collect();
    assert_eq!(found, wanted);
}

/// Guarantee: a source goes through its life as its agent says, each step once and with its reason in the history; saying
/// the same again changes nothing; one that is not named any more is gone, and may come again; agents do not touch each
/// other; and all of it outlives the process.
#[test]
fn sources_follow_what_their_agents_say() {
    let mut bench = Bench::new();
    let (one, other) = (agent(1), agent(2));
    bench.say(other, &[source("a", State::Live, 10)], 1);
    bench.say(
        one,
        &[
            source("a", State::Starting, 10),
            source("b", State::Live, 11),
        ],
        1,
    );
    expect(&bench.states(one), &[("a", "starting"), ("b", "live")]);
    for _ in 0..2 {
        bench.say(
            one,
            &[
                source("a", State::Live, 10),
                source("b", State::Draining, 12),
            ],
            2,
        );
        expect(&bench.states(one), &[("a", "live"), ("b", "draining")]);
    }
    bench.say(
        one,
        &[source("a", State::Live, 10), source("b", State::Gone, 12)],
        3,
    );
    expect(&bench.states(one), &[("a", "live"), ("b", "gone")]);
    bench.say(one, &[source("b", State::Live, 13)], 4);
    expect(&bench.states(one), &[("a", "gone"), ("b", "live")]);
    bench.say(one, &[], 5);
    expect(&bench.states(one), &[("a", "gone"), ("b", "gone")]);
    expect(&bench.states(other), &[("a", "live")]);
    let history = bench.history(one, "b");
    let wanted = [
        ("starting", REPORTED),
        ("live", READ),
        ("draining", ENDED),
        ("gone", DRAINED),
        ("starting", REPORTED),
        ("live", READ),
        ("draining", UNNAMED),
        ("gone", UNNAMED),
    ];
    let wanted = wanted.map(|(state, reason)| (state, reason.to_owned()));
    assert_eq!(history, wanted);
    bench.sources = open(&bench.dir, 6);
    expect(&bench.states(one), &[("a", "gone"), ("b", "gone")]);
    expect(&bench.states(other), &[("a", "live")]);
    // The same after a restart is nothing new.
    bench.say(other, &[source("a", State::Live, 10)], 7);
    assert_eq!(bench.history(other, "a").len(), 2);
}

#[test]
fn a_source_that_ends_before_it_is_heard_of_and_a_clock_that_goes_back() {
    let bench = Bench::new();
    bench.say(agent(1), &[source("a", State::Draining, 10)], 1);
    expect(&bench.states(agent(1)), &[("a", "draining")]);
    bench.say(agent(1), &[source("a", State::Live, 11)], 2);
    bench.say(agent(1), &[source("a", State::Draining, 5)], 3);
    expect(&bench.states(agent(1)), &[("a", "draining")]);
}

/// Guarantee: what nobody knows any more is forgotten after its time, and not before; of agents that are there nothing is.
#[test]
fn what_nobody_knows_any_more_is_forgotten() {
    let bench = Bench::new();
    let (gone, there) = (agent(1), agent(2));
    for uid in [gone, there] {
        bench.say(uid, &[source("a", State::Live, 10)], 0);
    }
    let forget = |now| {
        let before = u64::saturating_sub(now, HOUR);
        let done = bench.sources.forget(|a| a == there, 24 * HOUR, before, now);
        done.unwrap();
    };
    forget(23 * HOUR);
    expect(&bench.states(gone), &[("a", "live")]);
    forget(25 * HOUR);
    expect(&bench.states(gone), &[("a", "gone")]);
    forget(27 * HOUR);
    expect(&bench.states(gone), &[]);
    expect(&bench.states(there), &[("a", "live")]);
}

#[test]
fn rows_are_found_by_what_they_are() {
    let bench = Bench::new();
    let mut file = source("f", State::Draining, 10);
    file.kind = Origin::File;
    bench.say(agent(1), &[source("a", State::Live, 10), file], 1);
    bench.say(agent(2), &[source("a", State::Live, 10)], 1);
    let found = |filter: Filter| {
        let (rows, total, _) = bench.sources.rows(&filter, 1);
        assert_eq!(rows.len(), total.min(1));
        total
    };
    let all = Filter::default;
    assert_eq!(found(all()), 3);
    assert_eq!(
        found(Filter {
            agent: Some(agent(2)),
            ..all()
        }),
        1
    );
    assert_eq!(
        found(Filter {
            kind: Some(Origin::File),
            ..all()
        }),
        1
    );
    assert_eq!(
        found(Filter {
            state: Some(State::Draining),
            ..all()
        }),
        1
    );
    assert_eq!(
        found(Filter {
            contains: Some("of-a".into()),
            ..all()
        }),
        2
    );
    assert_eq!(
        found(Filter {
            contains: Some("docker/f".into()),
            ..all()
        }),
        1
    );
    assert_eq!(
        found(Filter {
            contains: Some("nothing".into()),
            ..all()
        }),
        0
    );
    let (rows, ..) = bench.sources.rows(&all(), 10);
    assert_eq!(
        (rows[0].agent, &*rows[0].id, rows[0].lag_bytes),
        (agent(1), "a", Some(5))
    );
    assert_eq!(bench.sources.by_state()[&(Origin::Docker, State::Live)], 2);
    assert!(bench.sources.take(agent(1), b"no report", 2).is_err());
}

/// A bus that can be away in three ways.
struct Shaky {
    inner: EmbeddedBus,
    /// Nothing can be published.
    refuses: AtomicBool,
    /// What is published is kept, and nobody hears that.
    mute: AtomicBool,
    /// The next read finds a gap.
    forgot: Arc<AtomicBool>,
}

fn away() -> StoreError {
    StoreError::Bus {
        server: "nats://127.0.0.1:1".into(),
        text: "there is no answer".into(),
    }
}

impl Bus for Shaky {
    fn publish(&self, key: &str, event: &Event) -> Result<bool, StoreError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(away());
        }
        let published = self.inner.publish(key, event);
        match self.mute.load(Ordering::SeqCst) {
            true => Err(away()),
            false => published,
        }
    }

    fn subscribe(
        &self,
        consumer: &str,
        from: ReadFrom,
    ) -> Result<Box<dyn Subscription>, StoreError> {
        let inner = self.inner.subscribe(consumer, from)?;
        let forgot = self.forgot.clone();
        Ok(Box::new(Gappy { inner, forgot }))
    }
}

struct Gappy {
    inner: Box<dyn Subscription>,
    forgot: Arc<AtomicBool>,
}

impl Subscription for Gappy {
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Batch, StoreError> {
        let mut batch = self.inner.next(limit, wait)?;
        if self.forgot.swap(false, Ordering::SeqCst) {
            batch.gap = Some(Gap::OtherLog);
        }
        Ok(batch)
    }

    fn acknowledge(&mut self, seq: u64) -> Result<(), StoreError> {
        self.inner.acknowledge(seq)
    }

    fn restart(&mut self) -> Result<(), StoreError> {
        self.inner.restart()
    }

    fn consumer(&self) -> &str {
        self.inner.consumer()
    }
}

/// Guarantee: a report that the bus does not take changes nothing, and is taken when it is brought again; one that the bus took
/// without saying so becomes rows, once; after a gap all agents are to be asked, once.
#[test]
fn a_bus_that_is_away_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control-plane.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let bus = Arc::new(Shaky {
        inner: EmbeddedBus::new(store.clone(), || 0),
        refuses: AtomicBool::new(true),
        mute: AtomicBool::new(false),
        forgot: Arc::default(),
    });
    let sources = over(store.clone(), bus.clone(), 0);
    let say = |state, generation, now| {
        let report = Report::of([source("a", state, generation)], 0);
        sources.take(agent(1), &report.to_bytes(), now)
    };
    let live = || {
        sources
            .by_state()
            .get(&(Origin::Docker, State::Live))
            .copied()
    };
    assert!(matches!(say(State::Live, 10, 1), Err(Untaken::Later(_))));
    assert_eq!(live(), None);
    bus.refuses.store(false, Ordering::SeqCst);
    bus.mute.store(true, Ordering::SeqCst);
    assert!(matches!(say(State::Live, 10, 2), Err(Untaken::Later(_))));
    sources.follow(3).unwrap();
    assert_eq!(live(), Some(1), "it was published");
    bus.mute.store(false, Ordering::SeqCst);
    say(State::Live, 10, 4).unwrap();
    let history = sources.history(agent(1), "a", 10).unwrap();
    assert_eq!(history.len(), 2, "{history:?}");
    assert!(!sources.asks_all());
    bus.forgot.store(true, Ordering::SeqCst);
    sources.follow(5).unwrap();
    assert!(sources.asks_all() && !sources.asks_all());
    let counts = [&sources.counts.published, &sources.counts.gaps];
    assert_eq!(counts.map(|c| c.load(Ordering::SeqCst)), [0, 1]);
}

/// Guarantee: what one process published and did not take in, the next one that leads takes in; events of others are passed
/// over; and of what is read not more is kept than has to be.
#[test]
fn another_process_goes_on_with_what_is_on_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control-plane.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new(store.clone(), || 0));
    let standing_by = over(store.clone(), bus.clone(), 0);
    let event = |n: i64, sources: Vec<Reported>, unnamed: Vec<String>| {
        let event = Event::Reported {
            agent: agent(1).to_string(),
            at_ns: n,
            sources,
            unnamed,
        };
        bus.publish(&format!("report/{n}"), &event).unwrap();
    };
    event(
        1,
        vec![source("a", State::Live, 10), source("b", State::Live, 11)],
        vec![],
    );
    event(2, vec![], vec!["b".into()]);
    let foreign = Event::Absent {
        generation: 1,
        origin: Origin::File,
        id: "file:/a".into(),
    };
    bus.publish("foreign", &foreign).unwrap();
    standing_by.reload(5).unwrap();
    standing_by.follow(5).unwrap();
    let states = standing_by.by_state();
    let wanted = [
        ((Origin::Docker, State::Live), 1),
        ((Origin::Docker, State::Gone), 1),
    ];
    assert_eq!(states, BTreeMap::from(wanted));
    assert_eq!(store.cursor("registry").unwrap(), 3);
    for n in 0..12_000 {
        event(100 + n, vec![], vec![]);
    }
    standing_by.follow(6).unwrap();
    let kept = store.events_after(0, 20_000).unwrap().len();
    assert_eq!(kept, 10_000);
}
