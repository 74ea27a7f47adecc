//! The second driver of rollouts: the machine of `tailwater_control_plane` as a workflow of Temporal.
//!
//! ```text
//! signals --> workflow of a group: machine (pure) --> perform(command) --> Hands: the same as of the embedded driver
//! queries <--     |  state                                 one activity, time-bounded, idempotent by its key
//!                 +-- Temporal's history; from run to run by continue-as-new
//! ```
//!
//! What the embedded driver keeps in a database after each step, Temporal keeps as a history of events from which the
//! workflow is worked out again. Time, order and what is tried again are the same in both: one attempt at a time, the
//! oldest command first, with waits that double ([`tailwater_control_plane::rollout::agenda`]).

mod activities;
mod rollouts;
mod workflow;

pub use activities::{Activities, Attempt, Hands, Local, Order};
pub use rollouts::{QUEUE, Rollouts, connect, worker};
pub use workflow::{Begin, Ended, Reload};
