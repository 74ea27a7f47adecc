//! The `otlp` receiver: OTLP over gRPC and HTTP, for all signals.
//!
//! The bytes of a request are passed on as they came. What carries them is in [`server`](crate::server).
//!
//! - `config`: its options;
//! - `protocol`: its paths, methods, bodies and answers;
//! - `node`: the parts put together.

pub mod config;
mod node;
mod protocol;

#[cfg(test)]
mod tests;

pub use node::{OtlpSettings, factory};
