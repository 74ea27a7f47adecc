//! The workflow of a group: the machine, with Temporal for a clock, a memory and hands.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tailwater_control_plane::rollout::agenda::Agenda;
use tailwater_control_plane::rollout::model::SCHEMA;
use tailwater_control_plane::rollout::{Command, Fence, Input, Operator, Policy, State};
use temporalio_common::RetryPolicy;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ApplicationFailure, ContinueAsNewOptions, SyncWorkflowContext,
    WorkflowContext, WorkflowContextView, WorkflowResult,
};

use crate::activities::{Activities, Attempt, Order};

/// Beyond the time that a command has, an attempt is given so long to say so.
const MARGIN: Duration = Duration::from_secs(5);
/// An attempt that no worker takes in this time is given up, and made anew.
const UNTAKEN_MAX: Duration = Duration::from_secs(60);

/// What a run begins with; what one hands on to the next.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Begin {
    /// Whose rollouts.
    pub group: String,
    /// Above that of every driver of this group before.
    pub epoch: u64,
    /// How it is rolled out. Part of the input, as it decides what the history says.
    pub policy: Policy,
    /// Where the group is; none if it was never rolled out to.
    pub state: Option<State>,
    /// What came and was not taken in.
    pub inbox: VecDeque<Input>,
    /// So many steps a run takes before the next one goes on.
    pub steps_max: u32,
}

/// Why there is no next run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Another driver leads.
    Fenced,
}

/// See the module's documentation.
#[workflow]
pub struct Reload {
    begin: Begin,
    state: State,
    agenda: Agenda,
    inbox: VecDeque<Input>,
    /// How far the machine's clock is ahead of Temporal's: durations go on all the same.
    ahead_ms: u64,
    steps: u32,
}

/// What there is to do.
enum Next {
    Nothing { until_ms: u64 },
    Attempt(Box<Command>),
    HandOn,
}

impl Reload {
    /// Takes in what came and time that passed, until there is something to be done that is not the machine's.
    fn advance(&mut self, now_ms: u64) -> Next {
        loop {
            if self.steps >= self.begin.steps_max {
                return Next::HandOn;
            }
            if let Some(input) = self.inbox.pop_front() {
                self.step(now_ms, input);
            } else if let Some(command) = self.agenda.next(&self.state, now_ms) {
                return Next::Attempt(Box::new(command));
            } else if self.state.due_ms <= now_ms + self.ahead_ms {
                self.step(now_ms, Input::Tick);
            } else {
                let due = self.state.due_ms.saturating_sub(self.ahead_ms);
                let until_ms = self.agenda.due().map_or(due, |at| at.min(due));
                return Next::Nothing { until_ms };
            }
        }
    }

    fn step(&mut self, now_ms: u64, input: Input) {
        self.steps += 1;
        let (epoch, now_ms) = (self.begin.epoch, now_ms + self.ahead_ms);
        // A newer leader would have been found at the beginning: nobody else takes steps of this state.
        let _ = self.state.step(&self.begin.policy, epoch, now_ms, input);
    }

    fn order(&self, command: Command) -> Order {
        Order {
            group: self.begin.group.clone(),
            fence: Fence {
                epoch: self.begin.epoch,
                step: self.state.step,
            },
            command,
        }
    }

    fn attempted(&mut self, now_ms: u64, key: String, attempt: Option<Attempt>) -> Option<Ended> {
        match attempt {
            Some(Attempt::Done(mut outcome)) => {
                outcome.shift(self.ahead_ms);
                self.agenda.succeeded(&key);
                self.step(now_ms, Input::Done { key, outcome });
                None
            }
            Some(Attempt::Fenced) => Some(Ended::Fenced),
            None => {
                self.agenda.failed(&key, now_ms);
                None
            }
        }
    }

    /// What the next run begins with.
    fn handed_on(&mut self) -> Begin {
        Begin {
            state: Some(self.state.clone()),
            inbox: std::mem::take(&mut self.inbox),
            ..self.begin.clone()
        }
    }
}

/// One attempt: what comes after one that did not succeed, the machine's agenda says.
fn options(order: &Order) -> ActivityOptions {
    let within = Duration::from_millis(order.command.timeout_ms) + MARGIN;
    ActivityOptions::with_start_to_close_timeout(within)
        .schedule_to_start_timeout(UNTAKEN_MAX)
        .retry_policy(RetryPolicy::builder().maximum_attempts(1).build())
        .summary(order.command.key.clone())
        .build()
}

/// Temporal's time, ms since the epoch. It has one in every task.
fn now_ms(ctx: &WorkflowContext<Reload>) -> Option<u64> {
    let since = ctx.workflow_time()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn timeless() -> ApplicationFailure {
    ApplicationFailure::new("the workflow has no time")
}

#[workflow_methods]
impl Reload {
    /// Where it begins.
    #[init]
    pub fn new(_ctx: &WorkflowContextView, begin: Begin) -> Self {
        let (mut begin, mut inbox) = (begin, VecDeque::new());
        std::mem::swap(&mut inbox, &mut begin.inbox);
        let state = begin.state.take();
        let state = state.unwrap_or_else(|| State::new(&begin.group, &begin.policy));
        Reload {
            begin,
            state,
            agenda: Agenda::default(),
            inbox,
            ahead_ms: 0,
            steps: 0,
        }
    }

    /// Rolls out, for as long as the group exists.
    #[run(name = "collector_dynamic_reload_workflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<Ended> {
        let begun_ms = now_ms(ctx).ok_or_else(timeless)?;
        let is_stale = ctx.state_mut(|s| {
            s.ahead_ms = s.state.clock_ms.saturating_sub(begun_ms);
            s.state.schema > SCHEMA || s.state.epoch > s.begin.epoch
        });
        if is_stale {
            let why = "the state is of a newer program or a newer leader";
            return Err(ApplicationFailure::non_retryable(why).into());
        }
        ctx.state_mut(|s| s.state.schema = SCHEMA);
        loop {
            let now = now_ms(ctx).ok_or_else(timeless)?;
            match ctx.state_mut(|s| s.advance(now)) {
                Next::HandOn => {
                    let begin = ctx.state_mut(Reload::handed_on);
                    ctx.continue_as_new(begin, ContinueAsNewOptions::default())?;
                }
                Next::Attempt(command) => {
                    let key = command.key.clone();
                    let order = ctx.state(|s| s.order(*command));
                    let options = options(&order);
                    let done = ctx
                        .execute_activity(Activities::perform, order, options)
                        .await;
                    let now = now_ms(ctx).ok_or_else(timeless)?;
                    if let Some(ended) = ctx.state_mut(|s| s.attempted(now, key, done.ok())) {
                        return Ok(ended);
                    }
                }
                Next::Nothing { until_ms } => {
                    let wait = Duration::from_millis(until_ms.saturating_sub(now).max(1));
                    temporalio_sdk::workflows::select! {
                        _ = ctx.timer(wait) => {},
                        _ = ctx.wait_condition(|s: &Self| !s.inbox.is_empty()) => {},
                    }
                }
            }
        }
    }

    /// The inputs of the configuration changed; they are known by this name.
    #[signal]
    pub fn source_changed(&mut self, _ctx: &mut SyncWorkflowContext<Self>, revision: String) {
        self.inbox.push_back(Input::Changed { revision });
    }

    /// Lets the canary begin.
    #[signal]
    pub fn approve(&mut self, _ctx: &mut SyncWorkflowContext<Self>) {
        self.wanted(Operator::Approve);
    }

    /// Takes the candidate back; it may be tried again.
    #[signal]
    pub fn abort(&mut self, _ctx: &mut SyncWorkflowContext<Self>) {
        self.wanted(Operator::Abort);
    }

    /// Has it go no further.
    #[signal]
    pub fn pause(&mut self, _ctx: &mut SyncWorkflowContext<Self>) {
        self.wanted(Operator::Pause);
    }

    /// Any of the things that somebody may want.
    #[signal]
    pub fn operator(&mut self, _ctx: &mut SyncWorkflowContext<Self>, wants: Operator) {
        self.wanted(wants);
    }

    /// Where the group is.
    #[query]
    pub fn state(&self, _ctx: &WorkflowContextView) -> State {
        self.state.clone()
    }
}

impl Reload {
    fn wanted(&mut self, wants: Operator) {
        self.inbox.push_back(Input::Operator { wants });
    }
}
