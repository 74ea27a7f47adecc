//! What every store has to keep to. A store is one more line at the end.

mod fleet;

use std::collections::BTreeMap;

pub(super) use fleet::{check_fleet, next_version};

use super::*;
use crate::model::{Descriptor, Format, State};

pub(super) fn source(id: &str, generation: i64) -> Source {
    Source {
        id: id.into(),
        origin: Origin::Docker,
        generation,
        described: generation,
        descriptor: Some(Descriptor {
            id: id.into(),
            origin: Origin::Docker,
            paths: vec![format!("/logs/{id}")],
            format: Format::Docker,
            labels: BTreeMap::from([("container".into(), "a \"b\" $c".into())]),
        }),
        present: true,
        state: State::Starting,
        since_ns: 5,
        seen: false,
    }
}

pub(super) fn absent(generation: i64) -> Event {
    Event::Absent {
        generation,
        origin: Origin::File,
        id: "file:/a".into(),
    }
}

pub(super) fn rows(sources: Vec<Source>) -> Changes {
    let moved = |s: &Source| Transition {
        id: s.id.clone(),
        generation: s.generation,
        from: None,
        to: s.state,
        reason: "test".into(),
    };
    Changes {
        history: sources.iter().map(moved).collect(),
        sources,
        ..Changes::default()
    }
}

/// Guarantee: an event is kept once per key; what changed and how far a consumer is come together.
fn events_and_cursors(store: &dyn Store) {
    let a = store.publish("a", &absent(1), 10).unwrap().unwrap();
    assert_eq!(store.publish("a", &absent(2), 11).unwrap(), None);
    // Places grow; there may be gaps.
    let b = store.publish("b", &absent(3), 12).unwrap().unwrap();
    assert!(0 < a && a < b);
    let events = store.events_after(0, 10).unwrap();
    let keys: Vec<_> = events.iter().map(|e| (e.seq, &*e.key)).collect();
    assert_eq!(keys, [(a, "a"), (b, "b")]);
    assert_eq!(events[0].event, absent(1));
    assert_eq!(store.events_after(a, 10).unwrap().len(), 1);
    assert_eq!(store.events_after(0, 1).unwrap().len(), 1);
    assert_eq!(store.cursor("r").unwrap(), 0);
    store.apply(&Changes::default(), Some(("r", b))).unwrap();
    store.advance("r", a).unwrap();
    assert_eq!(store.cursor("r").unwrap(), b);
}

/// Guarantee: an older generation changes nothing and leaves no history; all of a row reads back.
fn sources_are_guarded(store: &dyn Store) {
    let newer = source("docker:a", 5);
    store.apply(&rows(vec![newer.clone()]), None).unwrap();
    store
        .apply(&rows(vec![source("docker:a", 4)]), None)
        .unwrap();
    assert_eq!(store.sources().unwrap(), std::slice::from_ref(&newer));
    let mut live = newer.clone();
    (live.state, live.seen) = (State::Live, true);
    store.apply(&rows(vec![live.clone()]), None).unwrap();
    let mut unknown = source("docker:b", 1);
    (unknown.descriptor, unknown.described, unknown.present) = (None, 0, false);
    store.apply(&rows(vec![unknown.clone()]), None).unwrap();
    assert_eq!(store.sources().unwrap(), [live, unknown]);
    let history = store.history("docker:a", 10).unwrap();
    let states: Vec<_> = history.iter().map(|t| t.to).collect();
    assert_eq!(states, [State::Live, State::Starting]);
}

/// Guarantee: the newest snapshot of an origin stays the newest.
fn snapshots_grow(store: &dyn Store) {
    for generation in [3, 9, 4] {
        let snapshots = BTreeMap::from([(Origin::File, generation)]);
        let changes = Changes {
            snapshots,
            ..Changes::default()
        };
        store.apply(&changes, None).unwrap();
    }
    let kept = store.snapshots().unwrap();
    assert_eq!(kept, BTreeMap::from([(Origin::File, 9)]));
}

fn offered(body: &str, store: &dyn Store) -> Offered {
    let targets = Digest::of(body.as_bytes());
    store.put_artefact("targets", &targets, body).unwrap();
    let manifest = Manifest {
        schema: 1,
        builder: "test".into(),
        pipeline: Digest::of(b"base"),
        targets,
        generations: BTreeMap::from([(Origin::Docker, 4)]),
        cause: "k".into(),
        parent: None,
    };
    Offered {
        manifest,
        applied: true,
        answer: "1 update".into(),
    }
}

/// Guarantee: an artefact is never changed, and goes only when no offer that is kept names it.
fn artefacts_and_offers(store: &dyn Store) {
    store
        .put_artefact("pipeline", &Digest::of(b"base"), "base")
        .unwrap();
    store
        .put_artefact("pipeline", &Digest::of(b"base"), "other")
        .unwrap();
    let offers: Vec<_> = ["one", "two"].map(|b| offered(b, store)).into();
    for (i, offer) in offers.iter().enumerate() {
        store.record_offer(offer, i as i64).unwrap();
    }
    let newest = store.offers(10).unwrap();
    assert_eq!(newest, [offers[1].clone(), offers[0].clone()]);
    let keep = Retention {
        events: 0,
        history: 0,
        offers: 1,
        gone_before_ns: 0,
    };
    assert_eq!(store.prune(&keep).unwrap(), Vec::<String>::new());
    let body = |text: &str| store.artefact(&Digest::of(text.as_bytes())).unwrap();
    assert_eq!(body("base").as_deref(), Some("base"));
    assert_eq!(body("one"), None);
    assert_eq!(body("two").as_deref(), Some("two"));
    assert_eq!(store.offers(10).unwrap(), [offers[1].clone()]);
}

/// Guarantee: what a consumer has not had stays; what is gone for long is forgotten, and named.
fn what_is_over_is_forgotten(store: &dyn Store) {
    let first = store.publish("x1", &absent(1), 0).unwrap().unwrap();
    for n in 2..=10 {
        store.publish(&format!("x{n}"), &absent(n), 0).unwrap();
    }
    store.advance("r", first + 5).unwrap();
    let mut gone = source("docker:gone", 1);
    (gone.state, gone.since_ns) = (State::Gone, 99);
    store.apply(&rows(vec![gone]), None).unwrap();
    let keep = |gone_before_ns| Retention {
        events: 2,
        history: 100,
        offers: 100,
        gone_before_ns,
    };
    assert_eq!(store.prune(&keep(99)).unwrap(), Vec::<String>::new());
    assert_eq!(store.prune(&keep(100)).unwrap(), ["docker:gone"]);
    let mut gone = source("docker:gone", 2);
    (gone.state, gone.since_ns) = (State::Gone, 99);
    store.apply(&rows(vec![gone]), None).unwrap();
    assert!(store.forget_sources(99, 100).unwrap().is_empty());
    assert_eq!(store.forget_sources(100, 100).unwrap(), ["docker:gone"]);
    let left = store.events_after(0, 100).unwrap();
    assert_eq!(left.first().unwrap().seq, first + 6);
    assert_eq!(left.len(), 4);
}

pub(super) fn record(epoch: u64, step: u64) -> StepRecord {
    StepRecord {
        epoch,
        step,
        at_ms: 7,
        phase: "idle".into(),
        input: "tick".into(),
    }
}

/// Guarantee: one holder at a time; each new one has a greater epoch, and the former one keeps nothing more.
pub(super) fn leases_have_one_holder(store: &dyn RolloutStore) {
    let lease = |holder, now| store.lease("g", holder, now, 100).unwrap();
    assert_eq!(lease("a", 0), Some(1));
    assert_eq!(lease("b", 99), None);
    assert_eq!(lease("a", 90), Some(1), "renewed");
    assert_eq!(lease("b", 189), None);
    assert_eq!(lease("b", 190), Some(2), "ended");
    assert_eq!(lease("a", 191), None);
    assert_eq!(store.lease("other", "a", 191, 100).unwrap(), Some(1));
    let keep = |epoch, step| {
        let record = record(epoch, step);
        store.keep_rollout("g", &record, "x", &[], None).unwrap()
    };
    assert!(!keep(1, 1), "the former one");
    assert!(keep(2, 1));
    assert_eq!(lease("a", 290), Some(3));
    assert!(!keep(2, 2), "the former one");
    assert!(keep(3, 2));
    store.resign("g", "b").unwrap();
    assert_eq!(lease("b", 300), None, "it was not its own");
    store.resign("g", "a").unwrap();
    assert_eq!(lease("b", 300), Some(4), "it was given back");
    assert!(!keep(3, 3), "the former one");
}

/// Guarantee: a state follows the one that is kept, once; with it goes what was submitted, and nothing of
/// what is not kept.
fn rollouts_go_on_step_by_step(store: &dyn RolloutStore) {
    store.lease("g", "a", 0, 100).unwrap();
    assert_eq!(store.rollout("g").unwrap(), None);
    assert_eq!(store.groups().unwrap(), [""; 0]);
    assert!(store.submit("other", "key", "{}").unwrap());
    assert_eq!(store.groups().unwrap(), ["other"]);
    let keep = |step, state: &str, consumed| {
        let record = record(1, step);
        let kept = store.keep_rollout("g", &record, state, &[], consumed);
        kept.unwrap()
    };
    assert!(keep(1, "one", None));
    assert!(store.submit("g", "k1", "first").unwrap());
    assert!(store.submit("g", "k2", "second").unwrap());
    assert!(!store.submit("g", "k1", "again").unwrap());
    assert!(store.submit("other", "k1", "elsewhere").unwrap());
    let first = store.submitted("g").unwrap().unwrap();
    assert_eq!(first.body, "first");
    for step in [1, 3] {
        assert!(!keep(step, "other", Some(first.seq)));
    }
    assert_eq!(store.submitted("g").unwrap(), Some(first.clone()));
    assert_eq!(store.rollout("g").unwrap().as_deref(), Some("one"));
    assert!(keep(2, "two", Some(first.seq)));
    assert_eq!(store.rollout("g").unwrap().as_deref(), Some("two"));
    assert_eq!(store.groups().unwrap(), ["g", "other"]);
    let second = store.submitted("g").unwrap().unwrap();
    assert_eq!(second.body, "second");
    assert!(keep(3, "three", Some(second.seq)));
    assert_eq!(store.submitted("g").unwrap(), None);
    assert!(
        !store.submit("g", "k1", "again").unwrap(),
        "it was taken in"
    );
    let elsewhere = store.submitted("other").unwrap().unwrap();
    assert_eq!(elsewhere.body, "{}", "the first of them");
    let steps: Vec<_> = store.steps("g", 2).unwrap();
    assert_eq!(steps, [record(1, 3), record(1, 2)]);
}

/// Guarantee: what is kept under a digest stays as it is.
fn artefacts_stay(store: &dyn RolloutStore) {
    let digest = Digest::of(b"one");
    assert_eq!(store.artefact(&digest).unwrap(), None);
    for body in ["one", "two"] {
        store.put_artefact("pipeline", &digest, body).unwrap();
    }
    assert_eq!(store.artefact(&digest).unwrap().as_deref(), Some("one"));
}

/// Every demand on what keeps rollouts, each on a store of its own.
pub(super) fn check_rollouts<S: RolloutStore>(open: impl Fn() -> S) {
    let demands: [fn(&dyn RolloutStore); 3] = [
        leases_have_one_holder,
        rollouts_go_on_step_by_step,
        artefacts_stay,
    ];
    for demand in demands {
        demand(&open());
    }
}

/// Every demand, each on a store of its own.
pub(super) fn check<S: Store>(open: impl Fn() -> S) {
    let demands: [fn(&dyn Store); 5] = [
        events_and_cursors,
        sources_are_guarded,
        snapshots_grow,
        artefacts_and_offers,
        what_is_over_is_forgotten,
    ];
    for demand in demands {
        demand(&open());
    }
}

#[test]
fn sqlite_keeps_to_it() {
    check(|| SqliteStore::in_memory().unwrap());
    check_rollouts(|| SqliteStore::in_memory().unwrap());
    check_fleet(|| SqliteStore::in_memory().unwrap());
    pins_hold(&SqliteStore::in_memory().unwrap());
}

#[test]
fn memory_keeps_to_it() {
    check_rollouts(memory::MemoryStore::default);
}

/// Guarantee: an artefact that a rollout names is not forgotten; one that none names is.
pub(super) fn pins_hold<S: Store + RolloutStore>(store: &S) {
    store.lease("g", "a", 0, 100).unwrap();
    let digests = [Digest::of(b"one"), Digest::of(b"two")];
    for (i, digest) in digests.iter().enumerate() {
        store.put_artefact("pipeline", digest, "body").unwrap();
        let pins = std::slice::from_ref(digest);
        let record = record(1, i as u64 + 1);
        assert!(store.keep_rollout("g", &record, "x", pins, None).unwrap());
    }
    let keep = Retention {
        events: 0,
        history: 0,
        offers: 0,
        gone_before_ns: 0,
    };
    store.prune(&keep).unwrap();
    let kept = digests.map(|d| store.artefact(&d).unwrap().is_some());
    assert_eq!(kept, [false, true]);
}

/// Guarantee: a database of the first version goes on, with all that is in it.
#[test]
fn sqlite_takes_over_the_first_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(include_str!("sqlite/1.sql"))
        .unwrap();
    let cursor = "INSERT INTO cursors VALUES ('r', 7)";
    connection.execute(cursor, []).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.cursor("r").unwrap(), 7);
    leases_have_one_holder(&store);
}

/// Guarantee: what was written is there for the next process, and a newer program's file is refused.
#[test]
fn sqlite_keeps_it_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/registry.db");
    let store = SqliteStore::open(&path).unwrap();
    store
        .apply(&rows(vec![source("docker:a", 5)]), Some(("r", 7)))
        .unwrap();
    assert_eq!(next_version(&store, "g"), 1);
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.sources().unwrap(), [source("docker:a", 5)]);
    assert_eq!(store.cursor("r").unwrap(), 7);
    assert_eq!(next_version(&store, "g"), 2);
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let refused = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(refused, StoreError::TooNew { found: 99, .. }));
}
