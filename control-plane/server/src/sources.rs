//! The sources of all agents: a registry for each agent, which follows what the agent reports, in the store of the server.
//!
//! An agent decides itself where a source is in its life: it is the one that reads it. Its report is a snapshot of all
//! that it has ([`tailwater_control_plane::report`]); here it becomes the same events and progress that a registry on its machine
//! is made of, so rows, generations, states and history are the same in both places. A source that is not named any more
//! is gone. How far behind a source is changes all the time: it is known of the newest report, and not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_control_plane::metrics::{Activity, Metrics};
use tailwater_control_plane::model::{Descriptor, Event, Origin, Source, State};
use tailwater_control_plane::registry::{Changes, Registry, Transition};
use tailwater_control_plane::report::{Report, Reported};
use tailwater_control_plane::store::{Store, StoreError};
use tailwater_opamp::InstanceUid;

/// So many sources of all agents are kept at most.
const ALL_MAX: usize = 200_000;
/// So many transitions of all of them.
const HISTORY_MAX: u64 = 100_000;

/// Why something moved, for the history.
const REPORTED: &str = "the agent reports it";
const READ: &str = "the agent reads it";
const ENDED: &str = "the agent says that it ended";
const DRAINED: &str = "the agent has read it to its end";
const UNNAMED: &str = "the agent does not name it any more";
const FORGOTTEN: &str = "its agent is forgotten";

/// What is known of an agent.
#[derive(Default)]
struct Known {
    registry: Registry,
    /// Its rows.
    count: usize,
    lag: BTreeMap<String, u64>,
    left_out: u64,
    /// When it reported last, or this process began, ms.
    said_ms: u64,
}

/// A row for people.
#[derive(Clone, Debug)]
pub struct Row {
    /// Whose it is.
    pub agent: InstanceUid,
    /// What it is called there.
    pub id: String,
    /// What is kept of it.
    pub source: Source,
    /// Bytes that are not delivered, by the newest report; none if there was none since this process began.
    pub lag_bytes: Option<u64>,
}

/// Which rows are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this agent.
    pub agent: Option<InstanceUid>,
    /// Of this kind.
    pub kind: Option<Origin>,
    /// In this state; without it all but those that are gone.
    pub state: Option<State>,
    /// With this in their id, a path or the value of a label.
    pub contains: Option<String>,
}

/// See the module's documentation.
pub struct Sources {
    store: Arc<dyn Store>,
    metrics: Metrics,
    known: Mutex<BTreeMap<InstanceUid, Known>>,
}

impl Sources {
    /// With what is kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        metrics: Metrics,
        now_ms: u64,
    ) -> Result<Sources, StoreError> {
        let sources = Sources {
            store,
            metrics,
            known: Mutex::default(),
        };
        sources.reload(now_ms)?;
        Ok(sources)
    }

    /// Forgets what this process knows, for what is kept: another one may have kept more.
    ///
    /// # Errors
    /// It cannot be read; nothing is forgotten then.
    pub fn reload(&self, now_ms: u64) -> Result<(), StoreError> {
        let mut rows: BTreeMap<InstanceUid, Vec<Source>> = BTreeMap::new();
        for source in self.store.sources()? {
            if let Some((agent, _)) = split(&source.id) {
                rows.entry(agent).or_default().push(source);
            }
        }
        let known = |(agent, rows)| {
            let rows: Vec<Source> = rows;
            let known = Known {
                count: rows.len(),
                registry: Registry::new(rows, BTreeMap::new()),
                said_ms: now_ms,
                ..Known::default()
            };
            (agent, known)
        };
        *self.lock() = rows.into_iter().map(known).collect();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceUid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report of an agent.
    ///
    /// # Errors
    /// It is none, or it cannot be kept: nothing was taken then; for people.
    pub fn take(&self, agent: InstanceUid, data: &[u8], now_ms: u64) -> Result<(), String> {
        let report = Report::read(data)?;
        let mut all = self.lock();
        let others: usize = all
            .iter()
            .filter(|(uid, _)| **uid != agent)
            .map(|(_, k)| k.count)
            .sum();
        let room = ALL_MAX.saturating_sub(others);
        let known = all.entry(agent).or_default();
        known.said_ms = now_ms;
        let mut next = Step::of(&known.registry, now_ms);
        let mut left_out = report.left_out;
        let (mut named, mut lag) = (BTreeSet::new(), BTreeMap::new());
        for source in report.sources {
            if named.len() == room {
                left_out += 1;
                continue;
            }
            let id = format!("{agent}/{}", source.id);
            lag.insert(id.clone(), source.lag_bytes);
            next.report(&id, source);
            named.insert(id);
        }
        let gone = known.registry.sources();
        let gone = gone.filter(|s| s.state != State::Gone && !named.contains(&s.id));
        for id in gone.map(|s| s.id.clone()).collect::<Vec<_>>() {
            next.end(&id, UNNAMED, UNNAMED);
        }
        self.keep(known, next)?;
        (known.lag, known.left_out) = (lag, left_out);
        Ok(())
    }

    /// Writes what changed, then takes it over, and says it.
    fn keep(&self, known: &mut Known, step: Step) -> Result<(), String> {
        if step.changes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store.apply(&step.changes, None) {
            self.metrics.failed(Activity::UpsertRegistryRecord);
            return Err(error.to_string());
        }
        known.registry = step.registry;
        known.count = known.registry.sources().count();
        for moved in &step.changes.history {
            self.say(moved);
        }
        Ok(())
    }

    fn say(&self, moved: &Transition) {
        let activity = match (moved.from, moved.to) {
            (None, _) => Activity::RegisterService,
            (_, State::Gone) => Activity::DeregisterService,
            _ => Activity::UpsertRegistryRecord,
        };
        self.metrics.did(activity);
        let (agent, id) = moved.id.split_once('/').unwrap_or(("", &moved.id));
        let (from, to) = (moved.from.map(State::name), moved.to.name());
        let (activity, reason) = (activity.name(), &moved.reason);
        match moved.from.is_none() || moved.to == State::Gone {
            true => tracing::info!(activity, agent, source = id, from, to, "{reason}"),
            false => tracing::debug!(activity, agent, source = id, from, to, "{reason}"),
        }
    }

    /// Ends the sources of agents that are away for longer than `away_ms` and that nobody knows any more, and forgets what
    /// is gone since before `gone_before_ms`.
    ///
    /// # Errors
    /// It cannot be written; for people.
    pub fn forget(
        &self,
        is_known: impl Fn(InstanceUid) -> bool,
        away_ms: u64,
        gone_before_ms: u64,
        now_ms: u64,
    ) -> Result<(), String> {
        let mut all = self.lock();
        for (agent, known) in all.iter_mut() {
            if is_known(*agent) || known.said_ms.saturating_add(away_ms) > now_ms {
                continue;
            }
            let mut step = Step::of(&known.registry, now_ms);
            let ids: Vec<String> = known.registry.sources().map(|s| s.id.clone()).collect();
            for id in ids {
                step.end(&id, FORGOTTEN, FORGOTTEN);
            }
            self.keep(known, step)?;
            known.lag.clear();
        }
        let forgotten = self.store.forget_sources(ns(gone_before_ms), HISTORY_MAX);
        let forgotten = forgotten.map_err(|e| e.to_string())?;
        for known in all.values_mut() {
            known.registry.forget(&forgotten);
            known.count = known.registry.sources().count();
        }
        all.retain(|agent, known| is_known(*agent) || known.count > 0);
        Ok(())
    }

    /// Rows in the order of agents and ids, at most `limit`; how many there are of these, and how many sources agents have
    /// no room to report.
    pub fn rows(&self, filter: &Filter, limit: usize) -> (Vec<Row>, usize, u64) {
        let all = self.lock();
        let of = all
            .iter()
            .filter(|(agent, _)| filter.agent.is_none_or(|a| a == **agent));
        let (mut rows, mut total, mut left_out) = (Vec::new(), 0, 0);
        for (agent, known) in of {
            left_out += known.left_out;
            for source in known.registry.sources().filter(|s| filter.takes(s)) {
                total += 1;
                if rows.len() < limit {
                    rows.push(Row {
                        agent: *agent,
                        id: split(&source.id).map(|(_, id)| id).unwrap_or_default(),
                        lag_bytes: known.lag.get(&source.id).copied(),
                        source: source.clone(),
                    });
                }
            }
        }
        (rows, total, left_out)
    }

    /// The newest transitions of a source of an agent, the newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn history(
        &self,
        agent: InstanceUid,
        id: &str,
        limit: usize,
    ) -> Result<Vec<Transition>, StoreError> {
        self.store.history(&format!("{agent}/{id}"), limit)
    }

    /// How many there are of each kind in each state.
    pub fn counts(&self) -> BTreeMap<(Origin, State), u64> {
        let mut counts = BTreeMap::new();
        for known in self.lock().values() {
            for source in known.registry.sources() {
                *counts.entry((source.origin, source.state)).or_default() += 1;
            }
        }
        counts
    }
}

impl Filter {
    fn takes(&self, source: &Source) -> bool {
        let is_state = match self.state {
            Some(state) => source.state == state,
            None => source.state != State::Gone,
        };
        is_state
            && self.kind.is_none_or(|k| k == source.origin)
            && self.contains.as_ref().is_none_or(|text| {
                let own = source.descriptor.iter();
                let paths = own.clone().flat_map(|d| &d.paths);
                let labels = own.flat_map(|d| d.labels.values());
                let id = split(&source.id).map(|(_, id)| id).unwrap_or_default();
                id.contains(text.as_str()) || paths.chain(labels).any(|t| t.contains(text.as_str()))
            })
    }
}

/// What a report changes, while it is looked at.
struct Step {
    registry: Registry,
    changes: Changes,
    now_ns: i64,
}

impl Step {
    fn of(registry: &Registry, now_ms: u64) -> Step {
        Step {
            registry: registry.clone(),
            changes: Changes::default(),
            now_ns: ns(now_ms),
        }
    }

    fn add(&mut self, changes: Changes) {
        self.registry.take(&changes);
        self.changes.sources.extend(changes.sources);
        self.changes.history.extend(changes.history);
    }

    fn event(&mut self, event: &Event, reason: &str) {
        let mut changes = self.registry.reduce(event, self.now_ns);
        for moved in &mut changes.history {
            reason.clone_into(&mut moved.reason);
        }
        self.add(changes);
    }

    fn report(&mut self, id: &str, said: Reported) {
        let (state, generation) = (said.state, said.generation);
        let source = Descriptor {
            id: id.to_owned(),
            origin: said.kind,
            paths: said.paths,
            format: said.format,
            labels: said.labels,
        };
        let is_there = matches!(state, State::Starting | State::Live);
        let known = self.registry.source(id);
        let is_known = known.is_some_and(|s| s.descriptor.as_ref() == Some(&source));
        if is_there || !is_known {
            // What it looked like is older than that it ended.
            let generation = generation - i64::from(!is_there);
            self.event(&Event::Present { generation, source }, REPORTED);
        }
        match state {
            State::Starting => {}
            State::Live => self.progress(id, State::Live, READ),
            State::Draining => self.absent(id, generation, ENDED),
            State::Gone => {
                self.absent(id, generation, ENDED);
                self.progress(id, State::Gone, DRAINED);
            }
        }
    }

    fn absent(&mut self, id: &str, generation: i64, reason: &str) {
        let Some(row) = self.registry.source(id).filter(|s| s.present) else {
            return;
        };
        let event = Event::Absent {
            // An agent whose clock went back says the truth all the same.
            generation: generation.max(row.generation.saturating_add(1)),
            origin: row.origin,
            id: id.to_owned(),
        };
        self.event(&event, reason);
    }

    fn progress(&mut self, id: &str, to: State, reason: &str) {
        let changes = self.registry.progress(id, to, true, reason, self.now_ns);
        self.add(changes);
    }

    fn end(&mut self, id: &str, ended: &str, gone: &str) {
        self.absent(id, 0, ended);
        self.progress(id, State::Gone, gone);
    }
}

/// The agent and the id there of an id here.
fn split(id: &str) -> Option<(InstanceUid, String)> {
    let (agent, id) = id.split_once('/')?;
    Some((agent.parse().ok()?, id.to_owned()))
}

fn ns(ms: u64) -> i64 {
    i64::try_from(ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests;
