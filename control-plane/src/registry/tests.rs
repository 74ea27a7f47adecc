use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Descriptor, Format};

fn descriptor(id: &str, label: &str) -> Descriptor {
    Descriptor {
        id: id.into(),
        origin: Origin::Docker,
        paths: vec![format!("/logs/{id}")],
        format: Format::Docker,
        labels: BTreeMap::from([("container".into(), label.into())]),
    }
}

fn present(id: &str, generation: i64) -> Event {
    // What it looks like is a function of its generation, as it is of an instant.
    Event::Present {
        generation,
        source: descriptor(id, &format!("v{}", generation / 3)),
    }
}

fn absent(id: &str, generation: i64) -> Event {
    Event::Absent {
        generation,
        origin: Origin::Docker,
        id: id.into(),
    }
}

fn snapshot(ids: &[&str], generation: i64) -> Event {
    Event::Snapshot {
        generation,
        origin: Origin::Docker,
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    }
}

fn all(events: &[Event]) -> Registry {
    let mut registry = Registry::default();
    for event in events {
        let changes = registry.reduce(event, 0);
        registry.take(&changes);
    }
    registry
}

fn state(registry: &Registry, id: &str) -> Option<State> {
    registry.source(id).map(|s| s.state)
}

#[test]
fn a_life_from_start_to_end() {
    let mut registry = all(&[present("a", 1)]);
    assert_eq!(state(&registry, "a"), Some(State::Starting));
    let live = registry.progress("a", State::Live, true, "it is read", 2);
    registry.take(&live);
    assert_eq!(state(&registry, "a"), Some(State::Live));
    let early = registry.progress("a", State::Gone, true, "no", 2);
    assert!(early.sources.is_empty(), "what is there is not gone");
    let ended = registry.reduce(&absent("a", 3), 3);
    registry.take(&ended);
    assert_eq!(state(&registry, "a"), Some(State::Draining));
    let gone = registry.progress("a", State::Gone, true, "read to its end", 4);
    assert_eq!(gone.history[0].from, Some(State::Draining));
    registry.take(&gone);
    assert_eq!(state(&registry, "a"), Some(State::Gone));
    assert_eq!(registry.source("a").unwrap().since_ns, 4);
    // The same container is started again.
    let again = registry.reduce(&present("a", 5), 5);
    registry.take(&again);
    assert_eq!(state(&registry, "a"), Some(State::Starting));
}

#[test]
fn a_snapshot_heals_ends_nobody_heard_of_and_undoes_nothing_newer() {
    let registry = all(&[
        present("a", 1),
        present("b", 2),
        present("c", 9),
        snapshot(&["b"], 5),
    ]);
    assert_eq!(state(&registry, "a"), Some(State::Draining));
    assert_eq!(state(&registry, "b"), Some(State::Starting));
    assert_eq!(state(&registry, "c"), Some(State::Starting));
    // A replay tells of what came and went before the snapshot: its logs are still read.
    let late = registry.reduce(&present("d", 3), 0);
    assert_eq!(late.sources[0].state, State::Draining);
    assert!(late.sources[0].descriptor.is_some());
    // Another origin is not asked.
    let file = Event::Snapshot {
        generation: 20,
        origin: Origin::File,
        ids: Vec::new(),
    };
    assert_eq!(registry.reduce(&file, 0).sources, []);
}

#[test]
fn what_changes_has_to_be_seen_again() {
    let mut registry = all(&[present("a", 3)]);
    registry.take(&registry.progress("a", State::Live, true, "", 0));
    let same = registry.reduce(&present("a", 4), 0);
    assert_eq!(same.sources[0].state, State::Live);
    let other = registry.reduce(&present("a", 6), 0);
    assert_eq!(other.sources[0].state, State::Starting);
    let old = registry.reduce(&present("a", 2), 0);
    assert!(old.is_empty());
}

/// Events of a few sources at few instants, so that they meet often; a source says one thing at an
/// instant, and each source that a snapshot names is also said to be there at its instant.
fn history() -> impl Strategy<Value = Vec<Event>> {
    let one = (0usize..4, 1i64..40, any::<bool>());
    prop::collection::vec(one, 1..24).prop_map(|parts| {
        let ids = ["a", "b", "c", "d"];
        let mut events = Vec::new();
        for (source, at, is_there) in parts {
            let snapshots = at % 5 == 0;
            match (snapshots, is_there) {
                (true, _) => {
                    // What a snapshot of an instant names is a function of the instant.
                    let named = (at * 7) as u8;
                    let chosen: Vec<&str> = (0..4)
                        .filter(|i| named & (1 << i) != 0)
                        .map(|i| ids[i])
                        .collect();
                    events.extend(chosen.iter().map(|id| present(id, at)));
                    events.push(snapshot(&chosen, at));
                }
                (false, true) if at % 2 == 0 => events.push(present(ids[source], at)),
                (false, _) => events.push(absent(ids[source], at | 1)),
            }
        }
        events
    })
}

/// What does not depend on when things were heard.
fn essence(registry: &Registry) -> Vec<(String, i64, i64, bool, Option<Descriptor>)> {
    let row = |s: &Source| {
        let newest = s.generation;
        (
            s.id.clone(),
            newest,
            s.described,
            s.present,
            s.descriptor.clone(),
        )
    };
    registry.sources().map(row).collect()
}

proptest! {
    /// Guarantee: events that come twice, and in any order, lead to the same registry.
    #[test]
    fn order_and_repetition_do_not_matter(
        events in history(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 48),
    ) {
        let expect = essence(&all(&events));
        let mut shuffled: Vec<Event> = events.clone();
        shuffled.extend(events.iter().cloned());
        for (i, at) in order.iter().enumerate() {
            let (i, at) = (i % shuffled.len(), at.index(shuffled.len()));
            shuffled.swap(i, at);
        }
        prop_assert_eq!(essence(&all(&shuffled)), expect);
    }

    /// Guarantee: a source is there exactly if its state says so.
    #[test]
    fn states_follow_presence(events in history()) {
        for source in all(&events).sources() {
            let there = matches!(source.state, State::Starting | State::Live);
            prop_assert_eq!(there, source.present);
        }
    }
}
