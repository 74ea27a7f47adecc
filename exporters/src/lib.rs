//! exporters
#![cfg_attr(test, allow(clippy::unwrap_used))]
// A task for each request is moved as a whole when it begins and when it ends.
#![warn(clippy::large_futures)]

pub mod client;
pub mod debug;
pub mod delivery;
pub mod file;
pub mod loki;
pub mod nop;
pub mod otlp;
pub mod prometheusremotewrite;
pub mod snappy;

#[cfg(test)]
mod test_config;
