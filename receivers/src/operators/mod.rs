//! Operators: what a receiver does with records before they enter the pipeline.
//!
//! They are the collector's "stanza" operators over the columns of a
//! [`LogsBatch`](tailwater_pdata::LogsBatch). [`Chain::build`] makes a chain of the `operators`
//! list of a configuration; [`Chain::process`] runs batches through it. A chain belongs to one
//! shard: it has state (held parts of split lines, caches) and no locks.
//!
//! What holds for every operator:
//! - Work is done on whole columns where that is possible (adding a constant, renaming, removing,
//!   container headers, JSON and regular expressions into new columns) and row by row otherwise.
//!   Text is not copied unless it has to be computed.
//! - A record an operator cannot treat follows the operator's `on_error`. Nothing else drops
//!   records but `filter`, and `router` where no route matches. The [`Report`] counts every row: rows in + flushed = rows out +
//!   filtered + dropped + joined.
//! - Input is hostile: depth, number of fields, length of joined lines and number of columns are
//!   limited.
//!
//! All operators of the collector that can stand in a receiver are here; its inputs and outputs are
//! refused by name.
//!
//! What a caller that keeps checkpoints has to do: not let the checkpoint of a source pass
//! [`Chain::held_from`], nor move while [`Chain::holds`] something from before it, nor pass the
//! offsets in [`Report::covers`] before the batches of that call are resolved; call [`Chain::tick`] at [`Chain::deadline`]; and call [`Chain::forget`] when a
//! source is read again. When it stops, it does not flush: what is held is read again.

mod build;
mod chain;
pub mod conformance;
mod container;
mod cri;
mod csv;
mod decode;
mod embedded;
pub mod expr;
pub mod field;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod join;
mod json_array;
mod json_parser;
mod json_shape;
mod json_walk;
mod key_value;
mod kubelet_path;
mod operator;
mod options;
mod parsing;
mod recombine;
mod record_error;
mod regex_parser;
mod reshape;
mod rewrite;
mod router;
mod scope;
pub mod severity;
mod syslog;
mod time;
mod trace;
mod transform;
mod uri;

pub use build::{BuildCx, is_supported, operators};
pub use chain::{Chain, Witness};
pub(crate) use cri::written_at;
pub use operator::{Cover, OnError, OperatorCx, OperatorErrors, Passed, Report};
pub use record_error::RecordError;
pub(crate) use syslog::MessageOptions;

#[cfg(test)]
mod tests;
