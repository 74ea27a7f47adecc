//! The Open Agent Management Protocol: its messages, their framing over WebSockets, and the state
//! machine of an agent, without input or output.
//!
//! Source: the OpAMP specification, version 0.18 (`specification.md` and `proto/opamp/v1` of
//! open-telemetry/opamp-spec).

mod backoff;
mod client;
mod frame;
pub mod proto;
mod uid;

pub use backoff::Backoff;
pub use client::{Client, Event, Report, Start};
pub use frame::{FrameError, frame, unframe};
pub use uid::InstanceUid;
