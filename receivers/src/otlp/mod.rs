//! The `otlp` receiver: OTLP over gRPC and HTTP, for all signals.
//!
//! A request is answered with success when its records are delivered, or durable in the queue of an
//! exporter, and not before. The bytes of a request are passed on as they came.
//!
//! - `config`: its options;
//! - `server`, `connections`: listeners and their connections, on a thread of their own;
//! - `grpc`, `http`, `answer`, `status`: the two protocols;
//! - `body`, `inflate`, `room`: from a body to records, within limits;
//! - `intake`, `source`, `request`: to the shards, and back to the answer;
//! - `client`: who sent a request;
//! - `memory`: what some of several destinations have;
//! - `node`: the parts put together.

mod answer;
mod answers;
mod body;
mod client;
pub mod config;
mod connections;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod guard;
mod http;
mod inflate;
mod intake;
mod memory;
mod node;
mod request;
mod room;
mod server;
mod source;
mod stats;
mod status;

#[cfg(test)]
mod tests;

pub use node::{OtlpNode, OtlpSettings, factory};
