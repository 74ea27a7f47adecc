//! The engine: traits of components, delivery duty, budgets, shards, the graph and its plan.
//!
//! It knows no component by name. See `docs/ARCHITECTURE.md`.

pub mod ack;
pub mod auth;
mod batch;
mod budget;
mod buffer_pool;
pub mod checkpoint;
pub mod client;
pub mod clock;
pub mod component;
pub mod connections;
pub mod factory;
pub mod files;
pub mod fs;
pub mod graph;
pub mod handover;
pub mod lanes;
pub mod listeners;
mod payload;
pub mod pem;
pub mod plan;
pub mod probes;
pub mod queue;
pub mod reach;
pub mod shard;
#[cfg(test)]
mod shard_tests;
pub mod storage;
pub mod tap;
pub mod tls;
pub mod trial;

pub use ack::{AckSink, AckToken, AckWindow, Counts, DropReason, Front, Outcome, Settled};
pub use batch::{Batch, LogsPart, Part};
pub use budget::{Budget, Permit};
pub use buffer_pool::BufferPool;
pub use component::{
    Admission, BuildError, Exporter, ExporterNode, ExtensionNode, Output, Processor, Progress,
    ReceiverNode, ShardHandle, Source, SourceCx, Stored, Wake,
};
pub use payload::Payload;
