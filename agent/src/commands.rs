//! One module per command.

pub mod admin;
pub mod check;
pub mod checkpoints;
pub mod convert;
pub mod demo;
pub mod diagnostics;
pub mod explain;
pub mod files;
pub mod inspect;
pub mod run;
pub mod tap;
pub mod top;
pub mod trial;
pub mod up;
