//! What receivers share that are sent requests, over HTTP and gRPC, and answer with what became of them.
//!
//! A request is answered with success when its records are delivered, or durable in the queue of an
//! exporter, and not before. What is spoken is a [`Protocol`] of the receiver.
//!
//! - `options`: the options of listeners;
//! - `listener`, `connections`: listeners and their connections, on a thread of their own;
//! - `protocol`: what a receiver knows of paths, bodies and answers;
//! - `http`, `grpc`, `answer`, `status`: carrying it;
//! - `body`, `inflate`, `room`: from a body to records, within limits;
//! - `intake`, `source`, `request`: to the shards, and back to the answer;
//! - `client`: who sent a request; `guard`: who may;
//! - `memory`: what some of several destinations have;
//! - `node`: the parts put together.

mod answer;
mod answers;
mod body;
mod client;
mod connections;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod guard;
mod http;
pub(crate) mod inflate;
mod intake;
mod listener;
mod memory;
mod node;
mod options;
mod protocol;
mod request;
mod room;
mod source;
mod stats;
mod status;

#[cfg(test)]
pub mod stand;

pub use answer::Answer;
pub use http::{JSON, PROTO, TEXT, plain};
pub use inflate::Encoding;
#[cfg(test)]
pub use intake::REQUEST_BYTES;
pub use node::{PushNode, nodes, reach};
pub use options::{Cors, Endpoints, GrpcOptions, HttpOptions, Keepalive, Limits, ServerOptions};
pub use protocol::{Decoded, Form, Plain, Protocol, Records};
pub use status::{Code, Status};
