//! The `loki` receiver: Loki's push API over HTTP (protobuf and JSON) and gRPC.
//!
//! A push is answered with success when its entries are delivered, or durable in the queue of an exporter.
//! What carries it is in [`server`](crate::server).
//!
//! - `config`: its options;
//! - `protocol`: paths and answers;
//! - `wire`, `json`: the two forms of a push;
//! - `labels`: the text that names a stream;
//! - `entries`: entries of a stream as columns;
//! - `node`: the parts put together.

pub mod config;
mod entries;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod labels;
mod node;
mod protocol;
mod wire;

#[cfg(test)]
mod tests;

pub use node::{LokiSettings, factory};
