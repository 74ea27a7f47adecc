//! The driver of one process: takes the lease, loads the state, carries out what is outstanding, and keeps
//! each new state before anything of it is carried out.
//!
//! A crash at any point leaves a state whose commands are carried out again. Two of these are no danger: the
//! lease has an epoch, the store keeps nothing of an older one, and agents obey none.

use std::sync::Arc;

use super::agenda::Agenda;
use super::command::{Command, Fence};
use super::model::{Flaw, Input, Policy, SCHEMA, State};
use super::ports::{Configs, Failure, Fleet, perform};
use crate::metrics::{Activity, Metrics};
use crate::store::{RolloutStore, StepRecord, StoreError, Submitted};

/// What a driver works with.
pub struct Parts {
    /// Where states are kept.
    pub store: Arc<dyn RolloutStore>,
    /// The agents.
    pub fleet: Box<dyn Fleet>,
    /// What renders and checks.
    pub configs: Box<dyn Configs>,
    /// How it is rolled out.
    pub policy: Policy,
    /// What is counted.
    pub metrics: Metrics,
    /// Whose rollouts.
    pub group: String,
    /// Who this is; another one for each process.
    pub holder: String,
    /// How long the lease holds without being renewed, ms.
    pub lease_ms: u64,
}

/// What a turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// A step. There may be more to do.
    Worked,
    /// Nothing. There is something to do then, ms, or when something is submitted.
    Waits(u64),
    /// Another one leads. It is asked again then, ms.
    Stands(u64),
}

#[derive(Clone, Copy)]
struct Lease {
    epoch: u64,
    renew_ms: u64,
}

/// See the module's documentation.
pub struct Driver {
    p: Parts,
    lease: Option<Lease>,
    state: Option<State>,
    /// How far the machine's clock is ahead of the wall's, which another process may have set: durations
    /// go on all the same.
    ahead_ms: u64,
    agenda: Agenda,
}

impl Driver {
    /// It leads nothing yet.
    pub fn new(parts: Parts) -> Driver {
        Driver {
            p: parts,
            lease: None,
            state: None,
            ahead_ms: 0,
            agenda: Agenda::default(),
        }
    }

    /// What it knows; none if it does not lead.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Does one thing: a step of the machine, or an attempt of a command and the step that follows.
    /// `now_ms` is wall time, which the lease is about.
    ///
    /// # Errors
    /// What the store says. What is known is read again then.
    pub fn turn(&mut self, now_ms: u64) -> Result<Turn, StoreError> {
        let turn = self.work(now_ms);
        if turn.is_err() {
            // It may have been kept, or not.
            self.state = None;
        }
        turn
    }

    fn work(&mut self, now_ms: u64) -> Result<Turn, StoreError> {
        let Some(epoch) = self.lead(now_ms)? else {
            return Ok(Turn::Stands(now_ms + self.p.lease_ms / 3));
        };
        let state = match self.state.take() {
            Some(state) => state,
            None => self.load(now_ms)?,
        };
        if let Some(submitted) = self.p.store.submitted(&self.p.group)? {
            let seq = submitted.seq;
            let input = input_of(&submitted);
            return self.step(state, epoch, now_ms, input, Some(seq));
        }
        if let Some(command) = self.agenda.next(&state, now_ms) {
            return self.attempt(state, epoch, now_ms, &command);
        }
        if state.due_ms <= now_ms + self.ahead_ms {
            self.p.metrics.did(Activity::ScheduleReconcile);
            return self.step(state, epoch, now_ms, Input::Tick, None);
        }
        let renew = self.lease.map(|l| l.renew_ms);
        let due = state.due_ms.saturating_sub(self.ahead_ms);
        let dues = self.agenda.due().into_iter().chain(renew);
        let until = dues.fold(due, u64::min);
        self.state = Some(state);
        Ok(Turn::Waits(until))
    }

    /// Takes or renews the lease. None if another one has it.
    fn lead(&mut self, now_ms: u64) -> Result<Option<u64>, StoreError> {
        if let Some(lease) = self.lease.filter(|l| now_ms < l.renew_ms) {
            return Ok(Some(lease.epoch));
        }
        let former = self.lease.take();
        let Parts {
            store,
            group,
            holder,
            lease_ms,
            ..
        } = &self.p;
        let Some(epoch) = store.lease(group, holder, now_ms, *lease_ms)? else {
            self.step_down();
            return Ok(None);
        };
        if former.map(|l| l.epoch) != Some(epoch) {
            self.step_down();
            tracing::info!(group = self.p.group, epoch, "leads rollouts");
        }
        self.lease = Some(Lease {
            epoch,
            renew_ms: now_ms + self.p.lease_ms / 3,
        });
        Ok(Some(epoch))
    }

    fn step_down(&mut self) {
        self.lease = None;
        self.state = None;
        self.agenda = Agenda::default();
    }

    fn load(&mut self, now_ms: u64) -> Result<State, StoreError> {
        self.agenda = Agenda::default();
        self.ahead_ms = 0;
        let Some(body) = self.p.store.rollout(&self.p.group)? else {
            return Ok(State::new(&self.p.group, &self.p.policy));
        };
        let damaged = |error: serde_json::Error| StoreError::Damaged(error.to_string());
        let value: serde_json::Value = serde_json::from_str(&body).map_err(damaged)?;
        let found = value["schema"].as_u64().unwrap_or(0) as u32;
        if found > SCHEMA {
            let known = SCHEMA;
            return Err(StoreError::TooNew { found, known });
        }
        let mut state: State = serde_json::from_value(value).map_err(damaged)?;
        state.schema = SCHEMA;
        self.ahead_ms = state.clock_ms.saturating_sub(now_ms);
        Ok(state)
    }

    fn attempt(
        &mut self,
        state: State,
        epoch: u64,
        now_ms: u64,
        command: &Command,
    ) -> Result<Turn, StoreError> {
        let activity = command.action.activity();
        let step = state.step;
        let fence = match self.p.policy.has(Flaw::Unfenced) {
            true => Fence {
                epoch: u64::MAX,
                step: now_ms,
            },
            false => Fence { epoch, step },
        };
        let (fleet, configs) = (&mut *self.p.fleet, &mut *self.p.configs);
        let done = perform(fence, command, fleet, configs, &*self.p.store);
        match done {
            Ok(mut outcome) => {
                self.p.metrics.did(activity);
                // What is asked for again and again is no news.
                if command.action.is_a_look() {
                    tracing::debug!(activity = activity.name(), key = command.key, "done");
                } else {
                    tracing::info!(activity = activity.name(), key = command.key, "done");
                }
                // The machine compares this with its own clock.
                outcome.shift(self.ahead_ms);
                self.agenda.succeeded(&command.key);
                let key = command.key.clone();
                let input = Input::Done { key, outcome };
                self.step(state, epoch, now_ms, input, None)
            }
            Err(Failure::Fenced) => {
                self.p.metrics.failed(activity);
                self.step_down();
                Ok(Turn::Stands(now_ms + self.p.lease_ms / 3))
            }
            Err(error) => {
                self.p.metrics.failed(activity);
                self.agenda.failed(&command.key, now_ms);
                tracing::warn!(activity = activity.name(), key = command.key, %error, "is tried again");
                self.state = Some(state);
                Ok(Turn::Worked)
            }
        }
    }

    /// Takes a step, and keeps it. Until it is kept, nothing of it is carried out.
    fn step(
        &mut self,
        mut state: State,
        epoch: u64,
        now_ms: u64,
        input: Input,
        consumed: Option<u64>,
    ) -> Result<Turn, StoreError> {
        let what = input.said();
        let before = state.phase.name();
        if state
            .step(&self.p.policy, epoch, now_ms + self.ahead_ms, input)
            .is_err()
        {
            self.step_down();
            return Ok(Turn::Stands(now_ms + self.p.lease_ms / 3));
        }
        let after = state.phase.name();
        let damaged = |error: serde_json::Error| StoreError::Damaged(error.to_string());
        let body = serde_json::to_string(&state).map_err(damaged)?;
        let record = StepRecord {
            epoch,
            step: state.step,
            at_ms: now_ms,
            phase: after.to_owned(),
            input: what,
        };
        let pins: Vec<_> = state.pins().into_iter().cloned().collect();
        let store = &self.p.store;
        if !store.keep_rollout(&self.p.group, &record, &body, &pins, consumed)? {
            self.step_down();
            return Ok(Turn::Stands(now_ms + self.p.lease_ms / 3));
        }
        if before != after {
            tracing::info!(
                group = self.p.group,
                rollout = state.rollout,
                epoch,
                "{before} -> {after}"
            );
        }
        self.state = Some(state);
        Ok(Turn::Worked)
    }
}

/// An input that cannot be read is taken out, and said.
fn input_of(submitted: &Submitted) -> Input {
    serde_json::from_str(&submitted.body).unwrap_or_else(|error| {
        tracing::error!(%error, seq = submitted.seq, "an input of the rollout is not understood");
        Input::Tick
    })
}

#[cfg(test)]
mod tests;
