//! The Open Agent Management Protocol: its messages, their framing over WebSockets, and the state
//! machines of an agent and of what a server knows of one, without input or output.
//!
//! Source: the OpAMP specification, version 0.18 (`specification.md` and `proto/opamp/v1` of
//! open-telemetry/opamp-spec).

mod backoff;
mod client;
mod frame;
pub mod proto;
mod server;
pub mod signature;
mod uid;

pub use backoff::{Backoff, RETRY_MAX};
pub use client::{Client, Event, Report, Start};
pub use frame::{FrameError, frame, unframe};
pub use server::{Files, Health, Heard, Peer, Welcome, refusal, restart, unavailable};
pub use uid::InstanceUid;
