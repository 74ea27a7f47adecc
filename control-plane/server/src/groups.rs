//! A driver for each group, on a thread of its own: it waits for its time, or for what it is told.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::model::Digest;
use tailwater_control_plane::rollout::command::Fence;
use tailwater_control_plane::rollout::driver::{Driver, Parts, Turn};
use tailwater_control_plane::rollout::model::{Input, Operator, Phase, Policy, State};
use tailwater_control_plane::store::{
    Applied as AppliedRecord, FleetStore, Release, StepRecord, StoreError,
};

use crate::access::Who;
use crate::audit::Audit;
use crate::configs::{Applied, check};
use crate::dry_run::DryRuns;
use crate::fleet::HubFleet;
use crate::hub::{Hub, is_group};
use crate::notify::Notifier;
use crate::now_ms;
use crate::offers::{FALLBACK_BODY, Offers};
use crate::repeated::Repeated;

/// So many groups at most.
pub const GROUPS_MAX: usize = 64;
/// So many of the texts applied to a group are kept, whether they are needed or not.
const HISTORY_MAX: usize = 20;
/// The highest version that can be asked for. JSON numbers are exact up to here.
const VERSION_MAX: u64 = 1 << 53;
/// How long a lease holds, ms.
pub const LEASE_MS: u64 = 15_000;
/// The longest wait of a driver.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest that agents of ours wait between two attempts to connect.
const AGENTS_WAIT_MAX: Duration = tailwater_opamp::RETRY_MAX;
/// After an error of the store.
const ERROR_WAIT: Duration = Duration::from_secs(1);

/// What the drivers share.
pub struct Shared {
    /// Where everything is kept.
    pub store: Arc<dyn FleetStore>,
    /// The agents.
    pub hub: Arc<Hub>,
    /// How texts are offered.
    pub offers: Arc<Offers>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// What is counted.
    pub metrics: Metrics,
    /// How it is rolled out, in all groups.
    pub policy: Policy,
    /// Who this process is.
    pub holder: String,
    /// How often agents under test inject sample lines, ms; 0: never.
    pub probe_ms: u64,
    /// Sample lines have arrived when they are found at the destination.
    pub by_query: bool,
    /// Whom people are told by.
    pub notifier: Arc<Notifier>,
    /// How long agents have to come back to a process that takes over what is under way. Before that, it would be held
    /// against a candidate that nobody is there.
    pub settle: Duration,
}

struct Running {
    /// Wakes it; dropped, ends it.
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// All mistakes of a configuration.
    #[error("{}", .0.join("\n"))]
    Mistakes(Vec<String>),
    /// Nothing is there that it could be about.
    #[error("{0}")]
    Conflict(String),
    /// No such group, or no room for one.
    #[error("{0}")]
    Group(String),
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the module's documentation. Dropping it ends the drivers.
pub struct Groups {
    shared: Arc<Shared>,
    running: Mutex<BTreeMap<String, Running>>,
}

impl Groups {
    /// No driver runs yet.
    pub fn new(shared: Shared) -> Groups {
        Groups {
            shared: Arc::new(shared),
            running: Mutex::default(),
        }
    }

    /// Has all groups driven that are kept; those in which something is under way when agents have had time to come back.
    ///
    /// # Errors
    /// What the store says.
    pub fn start(&self) -> Result<(), StoreError> {
        for group in self.shared.store.groups()? {
            if let Err(error) = self.ensure_after(&group, self.shared.settle) {
                tracing::error!(group, "{error}");
            }
        }
        Ok(())
    }

    /// Ends the drivers, and gives their leases back.
    pub fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (group, Running { wake, thread }) in std::mem::take(&mut *running) {
            drop(wake);
            if thread.join().is_err() {
                tracing::error!(group, "the driver panicked");
            }
            if let Err(error) = self.shared.store.resign(&group, &self.shared.holder) {
                tracing::warn!(
                    group,
                    "others lead it only when the lease has ended: {error}"
                );
            }
        }
    }

    /// Has a group driven.
    ///
    /// # Errors
    /// It cannot be the name of one, or there are too many.
    pub fn ensure(&self, group: &str) -> Result<(), Refusal> {
        self.ensure_after(group, Duration::ZERO)
    }

    fn ensure_after(&self, group: &str, settle: Duration) -> Result<(), Refusal> {
        if !is_group(group) {
            let text =
                "a group has a name of at most 64 letters, digits, dots, hyphens and underscores";
            return Err(Refusal::Group(text.to_owned()));
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(group) {
            return Ok(());
        }
        if running.len() >= GROUPS_MAX {
            return Err(Refusal::Group(format!(
                "there are {GROUPS_MAX} groups already"
            )));
        }
        let (wake, woken) = sync_channel(1);
        let (shared, name) = (self.shared.clone(), group.to_owned());
        let thread = std::thread::Builder::new()
            .name(format!("group {group}"))
            .spawn(move || {
                if await_agents(&shared, &name, &woken, settle) {
                    drive(&shared, &name, &woken);
                }
            })
            .map_err(|e| Refusal::Group(format!("no thread for it: {e}")))?;
        running.insert(group.to_owned(), Running { wake, thread });
        Ok(())
    }

    /// All groups.
    pub fn names(&self) -> Vec<String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.keys().cloned().collect()
    }

    /// Where a group is; none if nothing happened in it yet.
    ///
    /// # Errors
    /// There is no such group, or what the store says.
    pub fn state(&self, group: &str) -> Result<Option<State>, Refusal> {
        if !self.names().iter().any(|g| g == group) {
            return Err(Refusal::Group(format!("there is no group {group:?}")));
        }
        let Some(body) = self.shared.store.rollout(group)? else {
            return Ok(None);
        };
        let damaged = |e: serde_json::Error| StoreError::Damaged(e.to_string());
        Ok(Some(serde_json::from_str(&body).map_err(damaged)?))
    }

    /// What happened in a group, the newest first.
    ///
    /// # Errors
    /// What the store says.
    pub fn steps(&self, group: &str, limit: usize) -> Result<Vec<StepRecord>, Refusal> {
        Ok(self.shared.store.steps(group, limit)?)
    }

    /// Has a pipeline rolled out that somebody wants. Its digest.
    ///
    /// # Errors
    /// Its mistakes; or it is quarantined, or what runs already.
    pub fn apply(&self, group: &str, body: &str, who: &Who) -> Result<Digest, Refusal> {
        check(body).map_err(Refusal::Mistakes)?;
        self.ensure(group)?;
        let digest = Digest::of(body.as_bytes());
        let state = self.state(group)?;
        if let Some(state) = &state {
            if let Some(reason) = state.quarantine.get(&digest) {
                let text = format!("{digest} is quarantined: {reason}");
                return Err(Refusal::Conflict(text));
            }
            if state.good.digest == digest && state.candidate.is_none() && state.pending.is_none() {
                let text = format!("{digest} is what the group runs");
                return Err(Refusal::Conflict(text));
            }
        }
        let applied = AppliedRecord {
            group: group.to_owned(),
            digest: digest.clone(),
            parent: Some(state.map_or_else(fallback, |s| s.good.digest)),
            cause: "apply".to_owned(),
            author: who.name.clone(),
            at_ms: now_ms(),
        };
        self.shared.store.keep_applied(body, &applied)?;
        let revision = digest.as_str().to_owned();
        self.submit(group, &Input::Changed { revision })?;
        Ok(digest)
    }

    /// What was applied to a group, and under which versions it was offered, the newest first.
    ///
    /// # Errors
    /// What the store says.
    pub fn history(
        &self,
        group: &str,
        limit: usize,
    ) -> Result<(Vec<AppliedRecord>, Vec<Release>), Refusal> {
        let store = &self.shared.store;
        Ok((store.applied(group, limit)?, store.releases(group, limit)?))
    }

    /// The newest version of an offer.
    ///
    /// # Errors
    /// What the store says.
    pub fn version(&self) -> Result<u64, Refusal> {
        Ok(self.shared.store.version()?)
    }

    /// The next offer has a version above this one. The newest one that counts as taken.
    ///
    /// # Errors
    /// It would change nothing, or what the store says.
    pub fn raise_version(&self, to: u64) -> Result<u64, Refusal> {
        let newest = self.version()?;
        if to <= newest || to > VERSION_MAX {
            return Err(Refusal::Conflict(format!(
                "the version must be above {newest}, the newest one, and at most {VERSION_MAX}"
            )));
        }
        Ok(self.shared.store.raise_version(to)?)
    }

    /// Forgets texts that no agent runs or is to run, no rollout needs, and that are not among the newest applied to a
    /// group. How many that were.
    ///
    /// # Errors
    /// What the store says.
    pub fn forget_texts(&self) -> Result<usize, Refusal> {
        let mut runs = std::collections::BTreeSet::new();
        self.shared
            .hub
            .each(|_, agent| runs.extend(agent.named_texts()));
        let runs: Vec<Digest> = runs.into_iter().collect();
        Ok(self.shared.store.forget_texts(&runs, HISTORY_MAX)?)
    }

    /// Has something done that somebody wants.
    ///
    /// # Errors
    /// Nothing is there that it could be about.
    pub fn wants(&self, group: &str, wants: Operator) -> Result<(), Refusal> {
        let state = self.state(group)?;
        may(state.as_ref(), wants).map_err(|text| Refusal::Conflict(text.to_owned()))?;
        self.submit(group, &Input::Operator { wants })
    }

    fn submit(&self, group: &str, input: &Input) -> Result<(), Refusal> {
        let damaged = |e: serde_json::Error| StoreError::Damaged(e.to_string());
        let body = serde_json::to_string(input).map_err(damaged)?;
        let mut random = [0; 16];
        let none = |e: getrandom::Error| Refusal::Group(e.to_string());
        getrandom::fill(&mut random).map_err(none)?;
        let key = Digest::of(&random);
        let store = &self.shared.store;
        let submitted = store.submit(group, key.as_str(), &body);
        if submitted.is_err() {
            // It may have been kept. Under one key, twice is once.
            store.submit(group, key.as_str(), &body)?;
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.get(group) {
            // One that is full wakes it all the same.
            let _ = running.wake.try_send(());
        }
        Ok(())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether it would change anything.
fn may(state: Option<&State>, wants: Operator) -> Result<(), &'static str> {
    let phase = state.map(|s| &s.phase);
    let is_exposed = !matches!(
        phase,
        None | Some(Phase::Idle | Phase::Promote | Phase::RollBack { .. })
    );
    let candidate = state.and_then(|s| s.candidate.as_ref());
    match wants {
        Operator::Approve | Operator::Deny => match phase {
            Some(Phase::Approve { .. }) => Ok(()),
            _ => Err("nothing waits for an approval"),
        },
        Operator::Pause | Operator::Rollback | Operator::Abort => match is_exposed {
            true => Ok(()),
            false => Err("nothing is being rolled out"),
        },
        Operator::Resume => match candidate.is_some_and(|c| c.paused.is_some()) {
            true => Ok(()),
            false => Err("nothing is paused"),
        },
        Operator::Unfreeze => match state.is_some_and(|s| s.frozen) {
            true => Ok(()),
            false => Err("the group is not frozen"),
        },
    }
}

/// What is good before anything was: agents run their own configuration.
pub fn fallback() -> Digest {
    Digest::of(FALLBACK_BODY.as_bytes())
}

/// Waits for agents to come back if something is offered to any. False if it is to end meanwhile.
fn await_agents(shared: &Shared, group: &str, woken: &Receiver<()>, settle: Duration) -> bool {
    let wait = match shared.store.rollout(group) {
        Ok(None) => None,
        Ok(Some(body)) => match serde_json::from_str(&body) {
            Ok(state) => time_to_return(&state, settle, now_ms()),
            // The driver says what is wrong with it.
            Err(_) => None,
        },
        // What is not known now may be anything.
        Err(_) => Some(settle),
    };
    let Some(wait) = wait else { return true };
    let until = Instant::now() + wait;
    loop {
        match woken.recv_timeout(until.saturating_duration_since(Instant::now())) {
            // What it was told is kept.
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// How long agents have to come back to a process that finds this; none if nothing was offered to any. Their waits double,
/// so the longer nobody was there, the longer it takes until they ask again.
fn time_to_return(state: &State, settle: Duration, now_ms: u64) -> Option<Duration> {
    let is_offered = state
        .candidate
        .as_ref()
        .is_some_and(|c| !c.offered.is_empty());
    let away = Duration::from_millis(now_ms.saturating_sub(state.clock_ms));
    is_offered.then(|| (settle + away).min(settle.max(AGENTS_WAIT_MAX)))
}

fn drive(shared: &Shared, group: &str, woken: &Receiver<()>) {
    let wanted = Arc::default();
    let mut driver = Driver::new(Parts {
        store: shared.store.clone(),
        fleet: Box::new(HubFleet {
            hub: shared.hub.clone(),
            artefacts: shared.store.clone(),
            offers: shared.offers.clone(),
            group: group.to_owned(),
            audit: shared.audit.clone(),
            wanted: Arc::clone(&wanted),
            sample_ms: (shared.policy.poll_ms / 2).max(1_000),
            probe_ms: shared.probe_ms,
            by_query: shared.by_query,
            fence: Fence::default(),
        }),
        configs: Box::new(Applied {
            artefacts: shared.store.clone(),
            wanted,
            dry_runs: DryRuns::new(shared.hub.clone(), shared.offers.clone(), group),
        }),
        policy: shared.policy.clone(),
        metrics: shared.metrics.clone(),
        group: group.to_owned(),
        holder: shared.holder.clone(),
        lease_ms: LEASE_MS,
    });
    let mut said = Repeated::default();
    loop {
        let turn = driver.turn(now_ms());
        match (driver.state(), &turn) {
            (Some(state), _) => shared.notifier.set(group, &state.firing),
            // Whoever leads tells people.
            (None, Ok(Turn::Stands(_))) => shared.notifier.leave(group),
            (None, _) => {}
        }
        let wait = match turn {
            Ok(Turn::Worked) => Duration::ZERO,
            Ok(Turn::Waits(until) | Turn::Stands(until)) => {
                Duration::from_millis(until.saturating_sub(now_ms())).min(WAIT_MAX)
            }
            Err(error) => {
                let text = error.to_string();
                if said.is_news(&text) {
                    tracing::error!(group, "{text}");
                }
                ERROR_WAIT
            }
        };
        if let Err(RecvTimeoutError::Disconnected) = woken.recv_timeout(wait) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
