//! exporters
#![cfg_attr(test, allow(clippy::unwrap_used))]

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
