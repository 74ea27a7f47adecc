//! Configurations of other agents, written anew as ours.
//!
//! [`promtail`] and [`fluent_bit`] read a configuration and write YAML of the collector's kind. No option is
//! left out in silence: what has no equal, and what a person has to decide, is a comment at its place and a
//! [`Note`]. Both know the options of components by name, which no other crate below the agent does; what they
//! write is checked by the agent as every configuration is.
//!
//! No I/O: what a configuration includes is asked of the caller.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod assembly;
mod expr;
mod fluentbit;
mod note;
mod options;
mod promtail;
mod yaml;

pub use fluentbit::fluent_bit;
pub use note::{Note, Weight};
pub use promtail::promtail;

/// A configuration that was converted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Converted {
    /// The configuration, as YAML with comments.
    pub yaml: String,
    /// What is not, or not quite, as it was, in the order of the source.
    pub notes: Vec<Note>,
}
