use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use tailwater_telemetry::metrics::MetricsRegistry;

use super::*;
use crate::model::Digest;
use crate::rollout::command::Alert;
use crate::rollout::model::{AgentId, Collector, Generation, Phase, Report};
use crate::rollout::ports::{Built, Call};
use crate::rollout::verdict::Sample;
use crate::store::SqliteStore;

/// Ports without agents: builds fail as often as asked, and all calls are written down.
#[derive(Clone, Default)]
struct Ports(Arc<Mutex<(u32, bool, Vec<String>)>>);

impl Ports {
    fn call(&self, call: &Call<'_>) -> Result<(), Failure> {
        let (fails, is_fenced, calls) = &mut *self.0.lock().unwrap();
        let key = call.key.to_owned();
        calls.push(format!("{} {key}", call.fence.epoch));
        if *is_fenced {
            return Err(Failure::Fenced);
        }
        if *fails > 0 && key.contains("build_config") {
            *fails -= 1;
            return Err(Failure::Unavailable("not now".into()));
        }
        Ok(())
    }

    fn builds(&self) -> Vec<String> {
        let calls = &self.0.lock().unwrap().2;
        let builds = calls.iter().filter(|c| c.contains("build_config"));
        builds.cloned().collect()
    }
}

impl Fleet for Ports {
    fn collectors(&mut self, call: &Call<'_>) -> Result<Vec<Collector>, Failure> {
        self.call(call).map(|()| Vec::new())
    }

    fn offer(
        &mut self,
        call: &Call<'_>,
        _agents: &BTreeSet<AgentId>,
        _digest: &Digest,
    ) -> Result<(), Failure> {
        self.call(call)
    }

    fn reports(
        &mut self,
        call: &Call<'_>,
        _agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, Report>, Failure> {
        self.call(call).map(|()| BTreeMap::new())
    }

    fn health(
        &mut self,
        call: &Call<'_>,
        _agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, (Report, Option<Sample>)>, Failure> {
        self.call(call).map(|()| BTreeMap::new())
    }

    fn promote(&mut self, call: &Call<'_>, _generation: &Generation) -> Result<(), Failure> {
        self.call(call)
    }

    fn reoffer(
        &mut self,
        call: &Call<'_>,
        _agents: &BTreeSet<AgentId>,
        _digest: &Digest,
    ) -> Result<(), Failure> {
        self.call(call)
    }

    fn restart(
        &mut self,
        call: &Call<'_>,
        _agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeSet<AgentId>, Failure> {
        self.call(call).map(|()| BTreeSet::new())
    }

    fn alert(
        &mut self,
        call: &Call<'_>,
        _alert: Alert,
        _text: &str,
        _resolved: bool,
    ) -> Result<(), Failure> {
        self.call(call)
    }
}

impl Configs for Ports {
    fn build(
        &mut self,
        call: &Call<'_>,
        revision: &str,
    ) -> Result<Result<Built, Vec<String>>, Failure> {
        self.call(call)?;
        Ok(Ok(Built {
            body: revision.to_owned(),
            requires: BTreeSet::new(),
        }))
    }

    fn validate(&mut self, call: &Call<'_>, _built: &Built) -> Result<Vec<String>, Failure> {
        self.call(call).map(|()| Vec::new())
    }
}

fn driver(store: &Arc<SqliteStore>, ports: &Ports, holder: &str) -> Driver {
    Driver::new(Parts {
        store: store.clone(),
        fleet: Box::new(ports.clone()),
        configs: Box::new(ports.clone()),
        policy: Policy::new(Digest::of(b"fallback")),
        metrics: Metrics::new(Arc::new(MetricsRegistry::default())),
        group: "g".into(),
        holder: holder.into(),
        lease_ms: 9_000,
    })
}

fn submit(store: &SqliteStore, revision: &str) {
    let revision = revision.to_owned();
    let body = serde_json::to_string(&Input::Changed { revision }).unwrap();
    assert!(store.submit("g", "k", &body).unwrap());
}

/// Goes on until the end of a time, as a loop would.
fn until(driver: &mut Driver, from: u64, to: u64) {
    let mut now = from;
    while now < to {
        match driver.turn(now).unwrap() {
            Turn::Worked => {}
            Turn::Waits(_) | Turn::Stands(_) => now += 250,
        }
    }
}

/// Guarantee: what could not be carried out is tried again under its key, with waits that grow, and it is no
/// outcome; what was built is kept, and only then something is offered.
#[test]
fn what_fails_is_tried_again() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let ports = Ports::default();
    ports.0.lock().unwrap().0 = 3;
    let mut driver = driver(&store, &ports, "a");
    submit(&store, "new");
    until(&mut driver, 1_000, 4_500);
    assert_eq!(ports.builds().len(), 2, "at once, and half a second later");
    until(&mut driver, 4_500, 9_000);
    let builds = ports.builds();
    assert!(
        builds.len() >= 4 && builds[..4].iter().all(|b| *b == builds[0]),
        "{builds:?}"
    );
    let digest = Digest::of(b"new");
    let kept = crate::store::Artefacts::artefact(&*store, &digest).unwrap();
    assert_eq!(kept.as_deref(), Some("new"));
    // Nobody is there to be a canary.
    let candidate = driver.state().unwrap().candidate.as_ref().unwrap();
    assert!(candidate.paused.is_some());
    let steps = store.steps("g", 100).unwrap();
    assert!(
        steps
            .iter()
            .any(|s| s.input == "changed new" && s.phase == "idle")
    );
}

/// Guarantee: one leads; the other takes over when the lease ends, with a greater epoch and the same state,
/// and the former one stands back at once.
#[test]
fn another_one_takes_over() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let ports = Ports::default();
    ports.0.lock().unwrap().0 = 1_000;
    let (mut a, mut b) = (driver(&store, &ports, "a"), driver(&store, &ports, "b"));
    submit(&store, "new");
    until(&mut a, 1_000, 5_000);
    assert!(matches!(b.turn(5_000).unwrap(), Turn::Stands(_)));
    assert!(b.state().is_none());
    let state = a.state().unwrap().clone();
    assert!(matches!(state.phase, Phase::Build));
    // Nothing is heard of the first one for longer than its lease.
    until(&mut b, 20_000, 21_000);
    let (first, newest) = (ports.builds().remove(0), ports.builds().pop().unwrap());
    assert!(first.starts_with("1 ") && newest.starts_with("2 "));
    assert_eq!(first[1..], newest[1..], "the same command");
    let steps = store.steps("g", 1).unwrap();
    // It believes that it has the lease until it looks.
    for now in [7_200, 7_300] {
        assert!(matches!(a.turn(now).unwrap(), Turn::Stands(_)));
        assert!(a.state().is_none());
    }
    assert_eq!(store.steps("g", 1).unwrap(), steps);
}

/// Guarantee: who is told that another one is obeyed does nothing more.
#[test]
fn who_is_fenced_stands_back() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let ports = Ports::default();
    let mut driver = driver(&store, &ports, "a");
    until(&mut driver, 1_000, 1_250);
    ports.0.lock().unwrap().1 = true;
    submit(&store, "new");
    let mut now = 1_250;
    let turn = loop {
        match driver.turn(now).unwrap() {
            Turn::Stands(at) => break at,
            Turn::Worked => {}
            Turn::Waits(_) => now += 250,
        }
        assert!(now < 60_000);
    };
    assert!(turn > now);
    assert!(driver.state().is_none());
}

/// Guarantee: a clock that is behind that of the former leader stops nothing.
#[test]
fn a_clock_that_is_behind_stops_nothing() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let ports = Ports::default();
    let mut first = driver(&store, &ports, "a");
    until(&mut first, 9_000_000, 9_001_000);
    let clock = first.state().unwrap().clock_ms;
    // The same holder: the lease is its own, though the clock went back.
    let mut second = driver(&store, &ports, "a");
    submit(&store, "new");
    until(&mut second, 1_000, 8_000);
    let state = second.state().unwrap();
    assert!(state.clock_ms > clock);
    assert!(state.candidate.is_some(), "the change has settled");
}

/// Guarantee: a state of a newer program is left alone.
#[test]
fn a_newer_state_is_left_alone() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let ports = Ports::default();
    let epoch = store.lease("g", "a", 0, 10).unwrap().unwrap();
    let record = StepRecord {
        epoch,
        step: 1,
        at_ms: 0,
        phase: "idle".into(),
        input: "tick".into(),
    };
    let kept = store.keep_rollout("g", &record, r#"{"schema": 99}"#, &[], None);
    assert!(kept.unwrap());
    let refused = driver(&store, &ports, "a").turn(1);
    assert!(matches!(refused, Err(StoreError::TooNew { found: 99, .. })));
    assert_eq!(ports.0.lock().unwrap().2, [] as [String; 0]);
}
