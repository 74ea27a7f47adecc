//! The exporter of Prometheus remote write (`prometheus_remote_write`), versions 1.0 and 2.0.
//!
//! The shard's half (`front`) reads metrics where they lie (`tailwater_pdata::otlp::metrics`), makes
//! series of them (`translate`, with `labels`, `names` and `native`; kept in `series` and `symbols`),
//! writes these as protobuf (`wire`) and compresses them. What leaves is a finished body. The sender is
//! [`crate::delivery`]; `judge` tells it what an answer means.
//!
//! - **Order.** Series are divided by a hash of their labels. All series of a data point are together,
//!   and what is sent of one is answered before more of it is sent, so parallel requests never
//!   reverse a series.
//! - **Counting.** A data point counts with one request, whatever number of series it has.

mod config;
mod front;
mod judge;
mod labels;
mod names;
mod native;
mod node;
pub mod options;
mod series;
mod symbols;
mod translate;
mod wire;

pub use config::RemoteWriteSettings;
pub use names::{NameKind, Naming};
pub use node::{RemoteWriteExporter, RemoteWriteParts, factory};
pub use options::RemoteWriteOptions;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod translate_tests;
