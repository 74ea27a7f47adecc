//! Benchmarks of the agent as a process, and of its hottest functions.
//!
//! - `e2e`: throughput per second of CPU, against a [`floor`] and against any other agent.
//! - `idle`: idle files, time to the first line, a backlog under a memory limit.
//! - `soak`: many logs rotated all the time for an hour: does anything grow, is anything lost?
//! - `reload`: reloads under load, beside other agents: what is lost, repeated, held up.
//! - `otlp`: OTLP in and out, against a program that only receives and sends, and against any other agent.
//! - `micro`: the snappy encoder and the reading of container lines.
//!
//! Nothing here asserts a time: machines differ. What is asserted is that every line arrived, once
//! and whole, because a figure of an agent that loses lines means nothing.

pub mod agent;
pub mod allocations;
pub mod content;
pub mod count;
pub mod cri;
pub mod floor;
pub mod memory_limit;
pub mod otlp;
pub mod process;
pub mod reload;
pub mod remote_write;
pub mod report;
pub mod seen;
pub mod sink;
pub mod soak;
