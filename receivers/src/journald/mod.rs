//! The `journald` receiver: entries of systemd's journal, which `journalctl` reads and prints.
//!
//! Each lane has a `journalctl` of its own, which prints an entry a line, and a position of its own: the cursor
//! of the last entry before the first that is not delivered. It is started again when it ends, after the
//! last entry that came. All entries go through one shard: they are one log.
//!
//! - `config`: its options, and the arguments that they are;
//! - `child`: the process, and its lines on their way to the shard;
//! - `entry`: a line as a record;
//! - `position`: which cursor may be stored;
//! - `source`: records, operators, delivery;
//! - `node`: the parts put together.

mod child;
pub mod config;
mod entry;
mod node;
mod position;
mod source;

#[cfg(test)]
mod tests;

pub use node::{JournaldNode, JournaldSettings, factory};
