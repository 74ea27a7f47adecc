//! Whether the agent reads what it was offered, and whether what ended is at its end.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{IDLE, Reconciler};
use crate::agents::FileProgress;
use crate::metrics::Activity;
use crate::model::{Source, State};

/// All of it is delivered.
const DRAINED: &str = "read and delivered to its end";
/// It was never opened.
const MISSED: &str =
    "the agent had opened none of its files: they went away before, or there were none";
/// Something is left.
const EXPIRED: &str = "let go at the deadline with something left";
/// Nothing of it was ever to be read.
const NOT_READ: &str = "nothing of it is read";

impl Reconciler {
    /// Asks the agent how far it is with sources that start or drain.
    pub(super) fn verify(&mut self) {
        let waiting: Vec<Source> = self
            .registry
            .sources()
            .filter(|s| matches!(s.state, State::Starting | State::Draining))
            .cloned()
            .collect();
        // Where nothing changes it is asked less often; whatever changes begins anew.
        self.verify_at = Instant::now() + self.verify_interval;
        self.verify_interval = (self.verify_interval * 2).min(IDLE);
        if waiting.is_empty() {
            return;
        }
        let paths = waiting.iter().flat_map(|s| &s.descriptor);
        let paths: Vec<&Path> = paths.flat_map(|d| &d.paths).map(Path::new).collect();
        let progress = match self.p.agent.states(&paths) {
            Ok(progress) => progress,
            Err(error) => {
                self.p.metrics.failed(Activity::VerifyReload);
                tracing::warn!(activity = Activity::VerifyReload.name(), "{error}");
                return;
            }
        };
        self.p.metrics.did(Activity::VerifyReload);
        for source in waiting {
            self.look_at(&source, &progress);
        }
    }

    fn look_at(&mut self, source: &Source, progress: &[FileProgress]) {
        let now_ns = (self.p.wall)();
        let paths = source.descriptor.iter().flat_map(|d| &d.paths);
        let paths: BTreeSet<&Path> = paths.map(Path::new).collect();
        let rows: Vec<_> = progress
            .iter()
            .filter(|p| paths.contains(&*p.path))
            .collect();
        let is_read = !rows.is_empty();
        let age = Duration::from_nanos(now_ns.saturating_sub(source.since_ns).max(0) as u64);
        let (to, reason) = match source.state {
            State::Starting if is_read => (State::Live, "it is read"),
            State::Draining => match self.judge_end(source, &paths, &rows, age) {
                Some(reason) => (State::Gone, reason),
                None if is_read && !source.seen => (State::Draining, ""),
                None => return,
            },
            _ => return,
        };
        let seen = is_read || source.seen;
        let changes = self.registry.progress(&source.id, to, seen, reason, now_ns);
        if let Err(error) = self.p.store.apply(&changes, None) {
            // It is seen again at the next look.
            tracing::error!(%error, source = source.id, "its state is not kept");
            return;
        }
        if to == State::Gone {
            self.count_end(source, reason);
        }
        self.took(&changes, "");
    }

    /// Why a source that ended is done with; none if it is not.
    fn judge_end(
        &self,
        source: &Source,
        paths: &BTreeSet<&Path>,
        rows: &[&FileProgress],
        age: Duration,
    ) -> Option<&'static str> {
        if age >= self.p.limits.drain_max {
            return Some(EXPIRED);
        }
        let offered = self.in_force.as_ref();
        let is_offered = offered.is_some_and(|f| f.sources.contains_key(&source.id));
        let cannot_be = paths.is_empty()
            || self.reported.contains_key(&source.id)
            || source
                .descriptor
                .as_ref()
                .is_some_and(|d| self.is_quarantined(d));
        if age < self.p.limits.settle || !(is_offered || cannot_be) {
            return None;
        }
        if cannot_be {
            return Some(NOT_READ);
        }
        if rows.iter().any(|row| row.lag_bytes > 0) {
            return None;
        }
        match (rows.is_empty(), paths.iter().any(|p| p.exists())) {
            (false, _) => Some(DRAINED),
            // The agent has not looked there yet.
            (true, true) => None,
            (true, false) if source.seen => Some(DRAINED),
            (true, false) => Some(MISSED),
        }
    }

    fn count_end(&self, source: &Source, reason: &'static str) {
        let Some(counts) = self.p.metrics.sources(source.origin) else {
            return;
        };
        match reason {
            DRAINED => counts.drained.inc(),
            MISSED => {
                counts.missed.inc();
                tracing::warn!(source = source.id, "{reason}");
            }
            EXPIRED => {
                counts.expired.inc();
                tracing::error!(source = source.id, "{reason}");
            }
            _ => {}
        }
    }
}
