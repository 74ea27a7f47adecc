//! What a report changes, worked out by the reducer of a registry.

use tailwater_control_plane::model::{Descriptor, Event, State};
use tailwater_control_plane::registry::{Changes, Registry};
use tailwater_control_plane::report::Reported;
use tailwater_opamp::InstanceUid;

/// Why something moved, for the history.
pub(super) const REPORTED: &str = "the agent reports it";
pub(super) const READ: &str = "the agent reads it";
pub(super) const ENDED: &str = "the agent says that it ended";
pub(super) const DRAINED: &str = "the agent has read it to its end";
pub(super) const UNNAMED: &str = "the agent does not name it any more";
pub(super) const FORGOTTEN: &str = "its agent is forgotten";

/// What a report changes, while it is looked at.
pub(super) struct Step {
    pub registry: Registry,
    pub changes: Changes,
    now_ns: i64,
}

impl Step {
    pub fn of(registry: &Registry, now_ns: i64) -> Step {
        Step {
            registry: registry.clone(),
            changes: Changes::default(),
            now_ns,
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

    /// What an agent says of a source. True if that is news.
    pub fn report(&mut self, id: &str, said: Reported) -> bool {
        let before = self.changes.sources.len();
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
        self.changes.sources.len() > before
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

    /// A source is there no more, and nothing of it is left.
    pub fn end(&mut self, id: &str, reason: &str) {
        self.absent(id, 0, reason);
        self.progress(id, State::Gone, reason);
    }
}

/// The agent and the id there of an id here.
pub(super) fn split(id: &str) -> Option<(InstanceUid, String)> {
    let (agent, id) = id.split_once('/')?;
    Some((agent.parse().ok()?, id.to_owned()))
}

pub(super) fn ns(ms: u64) -> i64 {
    i64::try_from(ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000)
}
