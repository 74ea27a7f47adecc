//! How a `pipeline` change comes to a group of agents: a canary first, then waves, each judged by what the
//! agents count, and all of it taken back if it does harm.
//!
//! ```text
//! changes, time, outcomes --> machine (pure) --> commands --> driver --> ports: Fleet, Configs
//!                               |  state                        |
//!                               +--- kept after each step ------+
//! ```
//!
//! [`machine`] decides and never acts; [`verdict`] judges and never asks; [`driver`] acts, and keeps each state
//! before it does, under a lease. What is between the driver and the agents is a port ([`ports`]).
//!
//! What is carried out next is the same for every driver ([`agenda`]).
//! `tailwater-control` drives it for agents that connect by OpAMP.

pub mod agenda;
pub mod command;
pub mod driver;
pub mod machine;
pub mod model;
pub mod ports;
pub mod repair;
#[cfg(test)]
mod simulation;
pub mod verdict;

pub use command::{Action, Alert, Command, Fence, Outcome};
pub use driver::{Driver, Turn};
pub use model::{Input, Operator, Policy, State};

use model::Flaw;
