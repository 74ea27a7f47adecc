//! Where shards hand finished requests to.

use std::sync::Arc;

use tailwater_pipeline::{Admission, Wake};

use super::request::{Acks, OutgoingRequest};
use super::service::DeliveryHandle;
use super::stored::StoredIntake;

/// The shards' side of a queue, in memory or on disk. Cheap to clone.
#[derive(Clone)]
pub enum Intake {
    /// A request is acknowledged when the destination has it.
    Memory(DeliveryHandle<Acks>),
    /// A request is acknowledged when it is on disk.
    Stored(StoredIntake),
}

impl Intake {
    /// Takes a finished request. Never blocks for long, never refuses.
    pub fn submit(&self, request: OutgoingRequest<Acks>) {
        match self {
            Intake::Memory(handle) => handle.submit(request),
            Intake::Stored(intake) => intake.submit(request),
        }
    }

    /// What sources should do.
    pub fn admission(&self) -> Admission {
        match self {
            Intake::Memory(handle) => handle.admission(),
            Intake::Stored(intake) => intake.admission(),
        }
    }

    /// Has `waker` woken whenever [`Self::admission`] becomes less restrictive.
    pub fn add_waker(&self, waker: Arc<dyn Wake>) {
        match self {
            Intake::Memory(handle) => handle.add_waker(waker),
            Intake::Stored(intake) => intake.add_waker(waker),
        }
    }
}
