//! OTLP in, OTLP out: what a program costs that stands between senders and a destination.
//!
//! - [`requests`]: what is sent;
//! - [`wire`]: HTTP and gRPC, by the libraries that the agent uses too;
//! - [`floor`]: a program that only receives and sends;
//! - [`destination`], [`load`]: the two ends, in the benchmark's process;
//! - [`programs`]: what stands between.

pub mod destination;
pub mod floor;
pub mod load;
pub mod programs;
pub mod requests;
pub mod wire;
