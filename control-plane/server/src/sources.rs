//! The sources of all agents: a registry for each agent, which follows what the agent reports, in the store of the server.
//!
//! An agent decides itself where a source is in its life: it is the one that reads it. Its report is a snapshot of all
//! that it has ([`tailwater_control_plane::report`]); here it becomes the same events and progress that a registry on its machine
//! is made of, so rows, generations, states and history are the same in both places. A source that is not named any more
//! is gone. How far behind a source is changes all the time: it is known of the newest report, and not kept.
//!
//! ```text
//! report --> compare --> what is news --> bus --> reduce, write --> what is known
//!                                               (sources/intake.rs)
//! ```
//!
//! What is news of a report is an event of the bus, and the rows are made of the events alone, each with how far the bus is
//! read in one transaction. So a report that was published and not reduced is made up for by whoever leads next, and what
//! happened to all sources of the fleet can be read from the bus by others, and again.

mod intake;
mod step;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_control_plane::bus::Bus;
use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::model::{Origin, Source, State};
use tailwater_control_plane::registry::{Registry, Transition};
use tailwater_control_plane::store::{Store, StoreError};
use tailwater_opamp::InstanceUid;

use self::intake::Intake;
pub use self::intake::{BusCounts, Untaken};
use self::step::split;

/// So many sources of all agents are kept at most.
const ALL_MAX: usize = 200_000;
/// So many transitions of all of them.
const HISTORY_MAX: u64 = 100_000;

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
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    intake: Mutex<Intake>,
    known: Mutex<BTreeMap<InstanceUid, Known>>,
    /// What is done on the bus.
    pub counts: BusCounts,
}

impl Sources {
    /// With what is kept; what happens goes over `bus`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        metrics: Metrics,
        now_ms: u64,
    ) -> Result<Sources, StoreError> {
        let sources = Sources {
            store,
            bus,
            metrics,
            intake: Mutex::default(),
            known: Mutex::default(),
            counts: BusCounts::default(),
        };
        sources.reload(now_ms)?;
        Ok(sources)
    }

    /// Forgets what this process knows, for what is kept: another one may have kept more.
    ///
    /// # Errors
    /// It cannot be read; nothing is forgotten then.
    pub fn reload(&self, now_ms: u64) -> Result<(), StoreError> {
        let mut intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_again(&mut intake, now_ms)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceUid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub fn by_state(&self) -> BTreeMap<(Origin, State), u64> {
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

#[cfg(test)]
mod tests;
