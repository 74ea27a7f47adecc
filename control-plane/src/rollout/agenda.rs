//! Which command is carried out next, and when what did not succeed is tried again. Pure; every driver goes by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::model::State;

/// After the first attempt that did not succeed, ms; then double.
const RETRY_MS: u64 = 500;
/// Not longer, ms.
const RETRY_MS_MAX: u64 = 30_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Retry {
    attempts: u32,
    at_ms: u64,
}

/// What was tried in vain. A process that begins with none tries everything at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Agenda {
    retries: BTreeMap<String, Retry>,
}

impl Agenda {
    /// What is outstanding and may be tried now, the oldest first.
    pub fn next(&mut self, state: &State, now_ms: u64) -> Option<Command> {
        self.retries
            .retain(|key, _| state.outstanding.contains_key(key));
        let may = |c: &&Command| self.retries.get(&c.key).is_none_or(|r| r.at_ms <= now_ms);
        let number = |c: &&Command| c.key.rsplit('/').next().and_then(|n| n.parse::<u64>().ok());
        let outstanding = state.outstanding.values();
        outstanding.filter(may).min_by_key(number).cloned()
    }

    /// A command has its outcome.
    pub fn succeeded(&mut self, key: &str) {
        self.retries.remove(key);
    }

    /// An attempt of a command did not succeed.
    pub fn failed(&mut self, key: &str, now_ms: u64) {
        let retry = self.retries.entry(key.to_owned()).or_insert(Retry {
            attempts: 0,
            at_ms: 0,
        });
        retry.attempts += 1;
        let wait = RETRY_MS << (retry.attempts - 1).min(10);
        retry.at_ms = now_ms + wait.min(RETRY_MS_MAX);
    }

    /// When something is tried again next.
    pub fn due(&self) -> Option<u64> {
        self.retries.values().map(|r| r.at_ms).min()
    }
}
