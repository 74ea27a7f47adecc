//! Which sources there are: a reducer of events, idempotent and independent of their order.
//!
//! Two things of a source are kept, each by the newest generation that says something about it: whether it
//! is there, and what it looks like. A snapshot says of every source of its origin that it does not name
//! that it is not there; so that this also holds for sources that are heard of later, the generation of
//! the newest snapshot of each origin is kept. At equal generations being there wins.
//!
//! What follows from an agent's reports (`starting` to `live`, `draining` to `gone`) is not an event:
//! it moves the state within a generation, and the next newer event starts anew.

use std::collections::BTreeMap;

use crate::model::{Event, Origin, Source, State};

/// Why a source moved, for history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// Which one.
    pub id: String,
    /// Of what generation.
    pub generation: i64,
    /// From where; none if it was not known.
    pub from: Option<State>,
    /// To where.
    pub to: State,
    /// Why, for people.
    pub reason: String,
}

/// What is to be written at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Rows as they are from now on.
    pub sources: Vec<Source>,
    /// Newest snapshots.
    pub snapshots: BTreeMap<Origin, i64>,
    /// What to remember of it.
    pub history: Vec<Transition>,
}

impl Changes {
    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.snapshots.is_empty()
    }
}

/// All sources that are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Registry {
    sources: BTreeMap<String, Source>,
    snapshots: BTreeMap<Origin, i64>,
}

impl Registry {
    /// With what is in a store.
    pub fn new(sources: Vec<Source>, snapshots: BTreeMap<Origin, i64>) -> Registry {
        let sources = sources.into_iter().map(|s| (s.id.clone(), s)).collect();
        Registry { sources, snapshots }
    }

    /// All rows, by id.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.values()
    }

    /// One row.
    pub fn source(&self, id: &str) -> Option<&Source> {
        self.sources.get(id)
    }

    /// The newest generation of each origin.
    pub fn generations(&self) -> BTreeMap<Origin, i64> {
        let mut newest = self.snapshots.clone();
        for source in self.sources.values() {
            let of_origin = newest.entry(source.origin).or_default();
            *of_origin = source.generation.max(*of_origin);
        }
        newest
    }

    /// What an event changes. Pure: nothing is changed here.
    pub fn reduce(&self, event: &Event, now_ns: i64) -> Changes {
        let mut changes = Changes::default();
        match event {
            Event::Present { generation, source } => {
                let mut row = self.row(&source.id, source.origin, now_ns);
                if *generation > row.described {
                    row.described = *generation;
                    if row.descriptor.as_ref() != Some(source) {
                        row.descriptor = Some(source.clone());
                        // It is read in another way: whether it is has to be seen again.
                        if row.state == State::Live {
                            self.go(&mut row, State::Starting, now_ns);
                        }
                    }
                }
                if *generation > row.generation || (*generation == row.generation && !row.present) {
                    row.generation = *generation;
                    row.present = true;
                }
                self.settle(row, "it is there", now_ns, &mut changes);
            }
            Event::Absent {
                generation,
                origin,
                id,
            } => {
                let mut row = self.row(id, *origin, now_ns);
                if *generation > row.generation {
                    row.generation = *generation;
                    row.present = false;
                }
                self.settle(row, "it ended", now_ns, &mut changes);
            }
            Event::Snapshot {
                generation,
                origin,
                ids,
            } => {
                let known = self.snapshots.get(origin);
                if known.is_some_and(|newest| newest >= generation) {
                    return changes;
                }
                changes.snapshots.insert(*origin, *generation);
                let of_origin = self.sources.values().filter(|s| s.origin == *origin);
                let named: std::collections::BTreeSet<&String> = ids.iter().collect();
                for source in of_origin {
                    if source.generation < *generation && !named.contains(&source.id) {
                        let mut row = source.clone();
                        row.generation = *generation;
                        row.present = false;
                        self.settle(row, "a snapshot is without it", now_ns, &mut changes);
                    }
                }
            }
            // Those of a fleet are of many registries, one for each agent.
            Event::Unreadable { .. }
            | Event::Unheeded { .. }
            | Event::Reported { .. }
            | Event::Forgotten { .. } => {}
        }
        changes
    }

    /// Takes over what was written.
    pub fn take(&mut self, changes: &Changes) {
        for row in &changes.sources {
            self.sources.insert(row.id.clone(), row.clone());
        }
        for (origin, generation) in &changes.snapshots {
            self.snapshots.insert(*origin, *generation);
        }
    }

    /// Forgets rows; they are gone from the store, too.
    pub fn forget(&mut self, ids: &[String]) {
        for id in ids {
            self.sources.remove(id);
        }
    }

    /// What an agent's report changes of a source: its state within its generation.
    pub fn progress(&self, id: &str, to: State, seen: bool, reason: &str, now_ns: i64) -> Changes {
        let mut changes = Changes::default();
        let Some(row) = self.sources.get(id) else {
            return changes;
        };
        let mut row = row.clone();
        row.seen |= seen;
        let allowed = matches!(
            (row.state, to),
            (State::Starting, State::Live) | (State::Draining, State::Gone)
        );
        let from = row.state;
        if allowed {
            self.go(&mut row, to, now_ns);
            changes.history.push(Transition {
                id: row.id.clone(),
                generation: row.generation,
                from: Some(from),
                to,
                reason: reason.to_owned(),
            });
        }
        if self.sources.get(id) != Some(&row) {
            changes.sources.push(row);
        }
        changes
    }

    /// The row, or that of a source of which nothing was heard.
    fn row(&self, id: &str, origin: Origin, now_ns: i64) -> Source {
        let known = self.sources.get(id).cloned();
        known.unwrap_or_else(|| Source {
            id: id.to_owned(),
            origin,
            generation: 0,
            described: 0,
            descriptor: None,
            present: false,
            state: State::Gone,
            since_ns: now_ns,
            seen: false,
        })
    }

    fn go(&self, row: &mut Source, to: State, now_ns: i64) {
        row.state = to;
        row.since_ns = now_ns;
    }

    /// Brings the state of a row in line with what is said of it, and notes it if it changed.
    fn settle(&self, mut row: Source, reason: &str, now_ns: i64, changes: &mut Changes) {
        // The newest snapshot is newer than all that is known of it: it was not there then.
        if let Some(snapshot) = self.snapshots.get(&row.origin)
            && row.generation < *snapshot
            && !self.sources.contains_key(&row.id)
        {
            row.generation = *snapshot;
            row.present = false;
        }
        let known = self.sources.get(&row.id);
        let newer = known.is_none_or(|k| row.generation > k.generation);
        let described = known.is_none_or(|k| k.descriptor.is_none()) && row.descriptor.is_some();
        match (row.present, row.state) {
            (true, State::Draining | State::Gone) => self.go(&mut row, State::Starting, now_ns),
            (false, State::Starting | State::Live) => self.go(&mut row, State::Draining, now_ns),
            // It came and went, or what it was is heard of after its end.
            (false, State::Gone) if newer && known.is_none() || described => {
                self.go(&mut row, State::Draining, now_ns);
            }
            _ => {}
        }
        if known == Some(&row) {
            return;
        }
        let from = known.map(|k| k.state);
        if from != Some(row.state) {
            changes.history.push(Transition {
                id: row.id.clone(),
                generation: row.generation,
                from,
                to: row.state,
                reason: reason.to_owned(),
            });
        }
        changes.sources.push(row);
    }
}

#[cfg(test)]
mod tests;
