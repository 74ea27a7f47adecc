//! The Loki exporter (`loki`).
//!
//! The shard's half (`front`, `routing`, `requests`) works out once per batch how its rows
//! become streams and entries (`plan`, `metadata`, `line`), writes entries straight from the
//! columns as protobuf (`wire`) and compresses them while hot (`body`, [`crate::snappy`]). What leaves
//! is a finished body for `POST /loki/api/v1/push` (`application/x-protobuf`, a raw snappy block).
//! The sender is [`crate::delivery`]; `judge` tells it what an answer means, by the table in
//! `response`.
//!
//! What it does so that nothing is lost silently:
//!
//! - What Loki would refuse is kept within its limits here, counted and, if wanted, written to a
//!   dead letter file: times, lengths, names, numbers of labels and of streams.
//! - Loki reports only what became of the last stream of a request. A stream that it could refuse
//!   (new, far behind, near its rate) stands last, one per request; `delivery: verified` gives each
//!   stream a request of its own.
//! - Entries are sent again with the same bytes, which Loki shows once.
//! - What makes Loki reject whole requests is found by halving, and only that is dropped; if
//!   everything is rejected, nothing is dropped and an alarm is shown.

mod answer_time;
mod body;
mod compress;
mod config;
mod dead_letter;
mod decode;
mod front;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod judge;
mod label_text;
mod line;
mod metadata;
mod names;
mod node;
pub mod options;
mod parts;
mod plan;
mod plan_memo;
mod rates;
mod refused;
mod requests;
mod response;
mod routing;
mod stats;
mod streams;
mod wire;

pub use compress::CompressionEncoder;
pub use config::LokiSettings;
pub use names::is_tenant_id;
pub use node::{LokiExporter, LokiParts, factory};
pub use options::LokiOptions;
pub use stats::LokiStats;

#[cfg(test)]
mod vector_tests;
