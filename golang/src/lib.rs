//! What the standard library of Go defines and configurations of the collector are written in:
//! regular expressions, layouts of times, quoted strings, rows of CSV, URIs.
//!
//! Operators of receivers and OTTL read them by the same code, so that a pattern or a layout means
//! the same wherever it is written.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod civil;
pub mod csv;
mod layout;
mod print;
pub mod quote;
pub mod regexp;
pub mod strptime;
pub mod uri;
pub mod url;
mod zone;
