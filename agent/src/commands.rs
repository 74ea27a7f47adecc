//! One module per command.

pub mod checkpoints;
pub mod demo;
pub mod inspect;
pub mod run;
