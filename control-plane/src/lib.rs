//! The control plane: finds what writes logs, keeps a registry of it, and renders from that what an
//! agent is to tail.
//!
//! ```text
//! discovery --> bus --> registry --> builder --> agent port --> the agent
//!               (events)  (reducer)   (pure)      (offer, states)
//!                  \         |          |
//!                   +------ store ------+      SQLite: events, cursors, sources, artefacts, offers
//! ```
//!
//! Discovery only emits events; the registry only reduces them; the builder is a function of what the
//! registry holds and of a base; [`reconcile`] drives them and is the only place that offers something
//! to an agent. Nothing here ever sees a byte of a log, or of a secret: a base refers to secrets and is
//! never substituted here.

pub mod agents;
pub mod builder;
pub mod bus;
pub mod discovery;
pub mod metrics;
pub mod model;
#[cfg(any(feature = "jetstream", feature = "postgres"))]
mod percent;
pub mod reconcile;
pub mod registry;
pub mod report;
pub mod rollout;
pub mod store;
#[cfg(feature = "postgres")]
pub mod tls;
