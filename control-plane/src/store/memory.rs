//! Rollouts in memory, for tests that keep hundreds of thousands of states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Artefacts, RolloutStore, StepRecord, StoreError, Submitted};
use crate::model::Digest;

#[derive(Default)]
struct Group {
    holder: Option<String>,
    epoch: u64,
    until_ms: u64,
    state: Option<String>,
    step: u64,
    steps: Vec<StepRecord>,
    keys: BTreeSet<String>,
    inputs: Vec<Submitted>,
}

#[derive(Default)]
struct Kept {
    artefacts: BTreeMap<Digest, String>,
    groups: BTreeMap<String, Group>,
    seq: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct MemoryStore {
    kept: Mutex<Kept>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group<T>(&self, group: &str, work: impl FnOnce(&mut Group, &mut u64) -> T) -> T {
        let kept = &mut *self.lock();
        let group = kept.groups.entry(group.to_owned()).or_default();
        work(group, &mut kept.seq)
    }
}

impl Artefacts for MemoryStore {
    fn put_artefact(&self, _kind: &str, digest: &Digest, body: &str) -> Result<(), StoreError> {
        let artefacts = &mut self.lock().artefacts;
        artefacts
            .entry(digest.clone())
            .or_insert_with(|| body.to_owned());
        Ok(())
    }

    fn artefact(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        Ok(self.lock().artefacts.get(digest).cloned())
    }
}

impl RolloutStore for MemoryStore {
    fn lease(
        &self,
        group: &str,
        holder: &str,
        now_ms: u64,
        ttl_ms: u64,
    ) -> Result<Option<u64>, StoreError> {
        Ok(self.group(group, |g, _| {
            let is_same = g.holder.as_deref() == Some(holder);
            if g.holder.is_some() && !is_same && g.until_ms > now_ms {
                return None;
            }
            g.epoch += u64::from(!is_same);
            (g.holder, g.until_ms) = (Some(holder.to_owned()), now_ms + ttl_ms);
            Some(g.epoch)
        }))
    }

    fn resign(&self, group: &str, holder: &str) -> Result<(), StoreError> {
        self.group(group, |g, _| {
            if g.holder.as_deref() == Some(holder) {
                g.until_ms = 0;
            }
        });
        Ok(())
    }

    fn rollout(&self, group: &str) -> Result<Option<String>, StoreError> {
        Ok(self.group(group, |g, _| g.state.clone()))
    }

    fn groups(&self) -> Result<Vec<String>, StoreError> {
        let kept = self.lock();
        let is_one = |g: &&String| {
            let group = &kept.groups[*g];
            group.state.is_some() || !group.keys.is_empty()
        };
        Ok(kept.groups.keys().filter(is_one).cloned().collect())
    }

    fn keep_rollout(
        &self,
        group: &str,
        record: &StepRecord,
        state: &str,
        _pins: &[Digest],
        consumed: Option<u64>,
    ) -> Result<bool, StoreError> {
        Ok(self.group(group, |g, _| {
            if g.epoch != record.epoch || g.step + 1 != record.step {
                return false;
            }
            (g.step, g.state) = (record.step, Some(state.to_owned()));
            g.steps.insert(0, record.clone());
            g.steps.truncate(1_000);
            g.inputs.retain(|s| consumed.is_none_or(|seq| s.seq > seq));
            true
        }))
    }

    fn submit(&self, group: &str, key: &str, body: &str) -> Result<bool, StoreError> {
        Ok(self.group(group, |g, seq| {
            let new = g.keys.insert(key.to_owned());
            if new {
                *seq += 1;
                let (seq, body) = (*seq, body.to_owned());
                g.inputs.push(Submitted { seq, body });
            }
            new
        }))
    }

    fn submitted(&self, group: &str) -> Result<Option<Submitted>, StoreError> {
        Ok(self.group(group, |g, _| g.inputs.first().cloned()))
    }

    fn steps(&self, group: &str, limit: usize) -> Result<Vec<StepRecord>, StoreError> {
        Ok(self.group(group, |g, _| g.steps.iter().take(limit).cloned().collect()))
    }
}
