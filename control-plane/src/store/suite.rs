//! What every store has to keep to. A store is one more line at the end.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Descriptor, Format, State};

fn source(id: &str, generation: i64) -> Source {
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

fn absent(generation: i64) -> Event {
    Event::Absent {
        generation,
        origin: Origin::File,
        id: "file:/a".into(),
    }
}

fn rows(sources: Vec<Source>) -> Changes {
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
    let left = store.events_after(0, 100).unwrap();
    assert_eq!(left.first().unwrap().seq, first + 6);
    assert_eq!(left.len(), 4);
}

/// Every demand, each on a store of its own.
fn check<S: Store>(open: impl Fn() -> S) {
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
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.sources().unwrap(), [source("docker:a", 5)]);
    assert_eq!(store.cursor("r").unwrap(), 7);
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let refused = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(refused, StoreError::TooNew { found: 99, .. }));
}
