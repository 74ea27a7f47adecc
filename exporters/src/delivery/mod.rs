//! Delivery: a bounded queue of finished requests and what sends them.
//!
//! Shards [`submit`](DeliveryHandle::submit) finished bodies; one task on the agent's socket
//! runtime sends them. The rules:
//!
//! - **Order.** A request names its lanes (the streams in it). Two requests that share a lane are
//!   never under way at the same time and go in the order they were submitted. Others go in
//!   parallel, up to `num_consumers`.
//! - **Isolation.** A request that has to wait holds only its own lanes. A tenant that is throttled
//!   waits alone; a destination that is down is probed by one request at a time.
//! - **Duty.** The duty of every request is resolved exactly once: when it was delivered, when it
//!   was given up by a counted decision, or as [`Outcome::Retry`](tailwater_pipeline::Outcome) at
//!   shutdown.
//! - **Bounds.** Submitting never blocks and never fails; [`DeliveryHandle::admission`] tells a
//!   shard to stop reading before the queue is full. Files are the buffer.
//!
//! [`StoredQueue`] keeps requests on disk in front of the service, for data that cannot be read again.
//!
//! [`DeliveryQueue`] is the state machine without I/O; [`Delivery`] runs it on tokio. What an
//! answer means is decided by the exporter's [`Judge`].

mod backoff;
mod config;
mod divide;
mod drain;
mod failure;
mod gate;
mod intake;
mod load;
mod metrics;
mod options;
mod outbox;
mod queue;
mod request;
mod service;
mod slots;
mod stats;
mod stored;
mod tenants;
mod verdict;

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
pub(crate) mod test_sockets;

pub use backoff::Backoff;
pub use intake::Intake;
pub(crate) use metrics::ItemMetrics;
pub use options::{BatchOptions, QueueOptions, RetryOptions, Sizer};
pub use outbox::{Outbox, OutboxParts};
pub use queue::{Attempt, Decision, DeliveryQueue};
pub use request::{Acks, Duty, OutgoingRequest, Refusals};
pub use service::{Courier, Delivery, DeliveryHandle, DeliveryParts, Due, OpenAttempt};
pub use stats::{DeliveryStats, Load};
pub use stored::{StoredIntake, StoredParts, StoredQueue};
pub use verdict::{Judge, Reply, RetryScope, SendError, SendErrorKind, Transport, Verdict};
